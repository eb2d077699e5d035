//! The two file systems a tracer needs, which containers and small machines come without.

use std::fs;

use anyhow::Result;

use crate::command::{command, quietly};

pub(super) const TRACEFS: &str = "/sys/kernel/tracing";
pub(super) const BPFFS: &str = "/sys/fs/bpf";

pub(super) fn is_mounted(kind: &str, place: &str) -> bool {
    fs::read_to_string("/proc/self/mounts").is_ok_and(|mounts| is_listed(&mounts, kind, place))
}

pub(super) fn mount(kind: &str, place: &str) -> Result<String> {
    quietly(&mut command("mount", ["-t", kind, kind, place]))?;
    Ok("mounted".to_owned())
}

fn is_listed(mounts: &str, kind: &str, place: &str) -> bool {
    mounts.lines().any(|line| {
        let mut fields = line.split(' ').skip(1);
        fields.next() == Some(place) && fields.next() == Some(kind)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_counts_at_its_own_place_and_of_its_own_kind() {
        let mounts = "none /sys/fs/bpf bpf rw,mode=700 0 0\ntmpfs /sys/kernel/tracing tmpfs rw 0 0\n";
        assert!(is_listed(mounts, "bpf", BPFFS));
        assert!(!is_listed(mounts, "tracefs", TRACEFS));
    }
}
