//! Which rights this thread has: threads of one process may have others.

use std::fs;

use super::{Check, Status};

/// A capability that something needs.
struct Needed {
    /// Its number in `linux/capability.h`.
    number: u32,
    name: &'static str,
    purpose: &'static str,
    /// `CAP_SYS_ADMIN` stands for it.
    part_of_admin: bool,
    /// What it means when it is missing.
    without: Status,
}

const CAP_SYS_ADMIN: u32 = 21;

const NEEDED: [Needed; 5] = [
    Needed {
        number: 39,
        name: "CAP_BPF",
        purpose: "loading programs and making maps",
        part_of_admin: true,
        without: Status::Failed,
    },
    Needed {
        number: 38,
        name: "CAP_PERFMON",
        purpose: "attaching probes and reading the memory of traced processes",
        part_of_admin: true,
        without: Status::Failed,
    },
    Needed {
        number: CAP_SYS_ADMIN,
        name: "CAP_SYS_ADMIN",
        purpose: "probes on SDK functions, on kernels since July 2025 and their stable lines; and every \
                  tracepoint where kernel.perf_event_paranoid is 3",
        part_of_admin: false,
        without: Status::Limited,
    },
    Needed {
        number: 19,
        name: "CAP_SYS_PTRACE",
        purpose: "looking into /proc of processes of other users",
        part_of_admin: false,
        without: Status::Failed,
    },
    Needed {
        number: 2,
        name: "CAP_DAC_READ_SEARCH",
        purpose: "reading tracefs and the environment of processes of other users",
        part_of_admin: false,
        without: Status::Limited,
    },
];

/// One line when nothing is missing, else one for what fails without and one for what is limited.
pub(super) fn checks() -> Vec<Check> {
    let line = |status, text| Check { subject: "privileges".to_owned(), status, text };
    let effective = fs::read_to_string("/proc/thread-self/status").ok().and_then(|status| effective(&status));
    let Some(effective) = effective else {
        let text = "/proc/thread-self/status does not say which there are\n  remedy: mount /proc".to_owned();
        return vec![line(Status::Failed, text)];
    };
    let mut lines = Vec::new();
    for status in [Status::Failed, Status::Limited] {
        let missing = missing(effective, status);
        if !missing.is_empty() {
            let text = format!(
                "missing {}\n  remedy: run as root (sudo linktracer ...), or grant the capabilities \
                 (deploy/linktracer.service and deploy/helm show how)",
                missing.join(", ")
            );
            lines.push(line(status, text));
        }
    }
    if lines.is_empty() {
        lines.push(line(Status::Good, "enough to load and attach".to_owned()));
    }
    lines
}

/// What is missing from the capabilities `effective` and leads to `status`, with what it is for.
fn missing(effective: u64, status: Status) -> Vec<String> {
    let has = |number: u32| effective & (1 << number) != 0;
    NEEDED
        .iter()
        .filter(|needed| needed.without == status && !has(needed.number))
        .filter(|needed| !(needed.part_of_admin && has(CAP_SYS_ADMIN)))
        .map(|needed| format!("{} ({})", needed.name, needed.purpose))
        .collect()
}

/// The effective capabilities in the text of `/proc/PID/status`.
fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::{CAP_SYS_ADMIN, NEEDED, Status, effective, missing};

    #[test]
    fn the_administrators_capability_stands_for_its_parts_and_for_nothing_else() {
        let all = NEEDED.iter().fold(0, |set, needed| set | 1 << needed.number);
        assert!(missing(all, Status::Failed).is_empty() && missing(all, Status::Limited).is_empty());
        let administrator = missing(1 << CAP_SYS_ADMIN, Status::Failed);
        assert!(
            matches!(administrator.as_slice(), [one] if one.starts_with("CAP_SYS_PTRACE")),
            "{administrator:?}"
        );
        let nothing = missing(0, Status::Failed);
        assert_eq!(nothing.len(), 3);
    }

    #[test]
    fn the_effective_set_is_read() {
        assert_eq!(effective("Name:\tx\nCapEff:\t000000c000000000\n"), Some(0xc0_0000_0000));
        assert_eq!(effective("Name:\tx\n"), None);
    }
}
