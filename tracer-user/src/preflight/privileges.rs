//! Which rights this process has.

use std::fs;

use super::{Check, Status};

/// Capabilities that tracing needs, by their number in `linux/capability.h`, and what for.
const NEEDED: [(u32, &str, &str); 3] = [
    (39, "CAP_BPF", "loading programs and making maps"),
    (38, "CAP_PERFMON", "attaching probes and reading the memory of traced processes"),
    (19, "CAP_SYS_PTRACE", "looking into /proc of processes of other users"),
];
/// Stands for all of them on kernels before 5.8.
const CAP_SYS_ADMIN: u32 = 21;

pub(super) fn check() -> Check {
    let subject = "privileges".to_owned();
    let effective = fs::read_to_string("/proc/self/status").ok().and_then(|status| effective(&status));
    let Some(effective) = effective else {
        let text = "/proc/self/status does not say which there are\n  remedy: mount /proc".to_owned();
        return Check { subject, status: Status::Failed, text };
    };
    let has = |capability: u32| effective & (1 << capability) != 0;
    let missing: Vec<String> = NEEDED
        .iter()
        .filter(|(number, ..)| !has(*number) && !has(CAP_SYS_ADMIN))
        .map(|(_, name, purpose)| format!("{name} ({purpose})"))
        .collect();
    if missing.is_empty() {
        return Check { subject, status: Status::Good, text: "enough to load and attach".to_owned() };
    }
    let text = format!(
        "missing {}\n  remedy: run as root (sudo linktracer ...), or grant the capabilities (deploy/linktracer.service and deploy/daemonset.yaml show how)",
        missing.join(", ")
    );
    Check { subject, status: Status::Failed, text }
}

/// The effective capabilities in the text of `/proc/PID/status`.
fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::effective;

    #[test]
    fn the_effective_set_is_read() {
        assert_eq!(effective("Name:\tx\nCapEff:\t000000c000000000\n"), Some(0xc0_0000_0000));
        assert_eq!(effective("Name:\tx\n"), None);
    }
}
