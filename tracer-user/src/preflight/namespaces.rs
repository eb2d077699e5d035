//! Which namespaces this process runs in.

use std::{fs, os::unix::fs::MetadataExt as _};

use super::{Check, Status, check as line};

/// `PROC_PID_INIT_INO` in `linux/proc_ns.h`: the initial pid namespace has this inode on every kernel.
const INITIAL_PID_NAMESPACE: u64 = 0xefff_fffc;

/// The kernel side tells processes by their number in the initial namespace; /proc has to agree.
pub(super) fn check() -> Check {
    match inode("/proc/self/ns/pid") {
        Some(INITIAL_PID_NAMESPACE) => line("pid namespace", Status::Good, "the host's"),
        Some(_) => line(
            "pid namespace",
            Status::Failed,
            "not the host's: processes have other numbers here than the kernel side gives them\n  \
             remedy: run in the host's (Kubernetes: `hostPID: true`; a cluster whose nodes are containers cannot give it)",
        ),
        None => {
            line("pid namespace", Status::Failed, "/proc/self/ns/pid cannot be read\n  remedy: mount /proc")
        }
    }
}

/// Does this process see the files that the first process of the machine sees?
pub(super) fn sees_the_hosts_files() -> bool {
    // Where the other cannot be asked, nothing speaks for a container.
    inode("/proc/1/ns/mnt").is_none_or(|first| inode("/proc/self/ns/mnt") == Some(first))
}

/// The inode of the namespace behind a link of /proc.
fn inode(link: &str) -> Option<u64> {
    fs::metadata(link).ok().map(|metadata| metadata.ino())
}
