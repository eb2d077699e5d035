//! Cgroups as the kubelet and the runtimes make them, below one of the test's own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// The version of a hierarchy of cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// One of several hierarchies.
    One,
    /// The unified one.
    Two,
}

impl Version {
    /// Where the hierarchy is mounted on this machine, if it is.
    fn root(self) -> Option<&'static Path> {
        let (folders, file): (&[&str], &str) = match self {
            Self::One => (&["/sys/fs/cgroup/pids", "/sys/fs/cgroup/memory"], "tasks"),
            Self::Two => (&["/sys/fs/cgroup", "/sys/fs/cgroup/unified"], "cgroup.controllers"),
        };
        folders.iter().map(Path::new).find(|folder| folder.join(file).exists())
    }

    /// Has this machine such a hierarchy?
    pub fn is_here(self) -> bool {
        self.root().is_some()
    }
}

/// A cgroup of this test with others below it; all are removed when this is dropped, which no process of them may
/// outlive.
pub struct Cgroups {
    root: PathBuf,
}

impl Cgroups {
    /// An empty one.
    ///
    /// # Panics
    /// There is no such hierarchy, or it is not writable.
    pub fn new(version: Version) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("linktracer-test-{}-{number}", std::process::id());
        let root = version.root().expect("this machine has the hierarchy").join(name);
        fs::create_dir(&root).expect("root may make cgroups");
        Self { root }
    }

    /// A command that goes into the cgroup of this path and executes the program there.
    ///
    /// # Panics
    /// The cgroup cannot be made.
    pub fn command(&self, path: &str, program: &Path) -> Command {
        let folder = self.root.join(path);
        fs::create_dir_all(&folder).expect("root may make cgroups");
        let mut command = Command::new("sh");
        let script = format!("echo $$ > {}/cgroup.procs && exec \"$0\" \"$@\"", folder.display());
        command.args(["-c", &script]).arg(program);
        command
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        // A process that was killed leaves its cgroup a moment later.
        let deadline = Instant::now() + Duration::from_secs(10);
        while remove(&self.root).is_err() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(!self.root.exists() || std::thread::panicking(), "{} is still there", self.root.display());
    }
}

fn remove(folder: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(folder)
}

/// The path of a container's cgroup, as a kubelet and a runtime with the systemd driver name it.
pub fn systemd(pod: &str, prefix: &str, container: &str) -> String {
    let pod = pod.replace('-', "_");
    format!(
        "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{pod}.slice/{prefix}-{container}.scope"
    )
}

/// The same with the cgroupfs driver.
pub fn cgroupfs(pod: &str, container: &str) -> String {
    format!("kubepods/burstable/pod{pod}/{container}")
}

/// A number as the id of a pod.
pub fn pod_uid(number: u32) -> String {
    format!("{number:08x}-aaaa-4bbb-8ccc-{:012x}", u64::from(number) + 0xabc)
}

/// A number as the id of a container.
pub fn container_id(number: u32) -> String {
    format!("{number:064x}")
}
