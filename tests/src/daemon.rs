//! A running daemon, and what it publishes.

use std::{
    ffi::OsStr,
    fs::{self, File},
    mem,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tracer_user::demo::{http::get_once, measure::Scrape, reserved::Reserved};

use crate::{binary, linktracer, printed, wait_for};

/// A daemon that is stopped when this is dropped.
pub struct Daemon {
    child: Child,
    address: SocketAddr,
    log: PathBuf,
}

impl Daemon {
    /// Starts it with the configuration `services_and_join`, which leaves out where to listen, in
    /// the folder `scratch`, and waits until it answers.
    ///
    /// # Panics
    /// It does not start.
    pub fn start(scratch: &Path, services_and_join: &str) -> Self {
        Self::start_with(&[], scratch, services_and_join, &[])
    }

    /// As [`Self::start`], and writes every event to `recording`.
    ///
    /// # Panics
    /// It does not start.
    pub fn start_recording(scratch: &Path, services_and_join: &str, recording: &Path) -> Self {
        Self::start_with(&[], scratch, services_and_join, &[OsStr::new("--record"), recording.as_os_str()])
    }

    /// As [`Self::start`], by a command line that ends with executing the one that is added to it.
    ///
    /// # Panics
    /// It does not start.
    pub fn start_within(wrapper: &[&str], scratch: &Path, services_and_join: &str) -> Self {
        Self::start_with(wrapper, scratch, services_and_join, &[])
    }

    fn start_with(wrapper: &[&str], scratch: &Path, services_and_join: &str, options: &[&OsStr]) -> Self {
        let mut daemon = Self::spawn_with(wrapper, scratch, services_and_join, options);
        let address = daemon.address;
        wait_for("the daemon answers", Duration::from_secs(30), || {
            if let Ok(Some(status)) = daemon.child.try_wait() {
                panic!("the daemon ended early: {status}\n{}", daemon.log());
            }
            get_once(address, "/healthz").ok()
        });
        daemon
    }

    /// As [`Self::start`], without the wait.
    ///
    /// # Panics
    /// The binary does not start.
    pub fn spawn(scratch: &Path, services_and_join: &str) -> Self {
        Self::spawn_with(&[], scratch, services_and_join, &[])
    }

    fn spawn_with(wrapper: &[&str], scratch: &Path, services_and_join: &str, options: &[&OsStr]) -> Self {
        let address = free_address();
        let config = scratch.join("linktracer.yaml");
        fs::write(&config, format!("listen: {address}\n{services_and_join}"))
            .expect("the scratch folder is writable");
        let log = scratch.join("daemon.log");
        let file = File::create(&log).expect("the scratch folder is writable");
        let binary = binary();
        let mut words = wrapper.iter().map(OsStr::new).chain([binary.as_os_str()]);
        let mut command = Command::new(words.next().expect("the binary at least"));
        command.args(words).args(["run", "--config"]).arg(&config).args(options);
        let child = command.stderr(file).spawn();
        Self { child: child.expect("the binary starts"), address, log }
    }

    /// Where it serves.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Status code and text of one of its pages.
    ///
    /// # Panics
    /// It does not answer.
    pub fn page(&self, path: &str) -> (u16, String) {
        let response = get_once(self.address, path).expect("the daemon answers");
        (response.status, String::from_utf8_lossy(&response.body).into_owned())
    }

    /// The sum of a metric over all series that have these labels.
    ///
    /// # Panics
    /// The daemon does not answer.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        sum(&Scrape::fetch(self.address).expect("the daemon answers"), name, labels)
    }

    /// Everything it publishes.
    ///
    /// # Panics
    /// It does not answer.
    pub fn scrape(&self) -> Scrape {
        Scrape::fetch(self.address).expect("the daemon answers")
    }

    /// Asks it to finish and waits until it did.
    ///
    /// # Panics
    /// It does not end with exit code 0.
    pub fn finish(mut self) -> String {
        self.signal(Signal::TERM);
        let status = self.child.wait().expect("is our child");
        let log = self.log();
        assert!(status.success(), "{status}\n{log}");
        log
    }

    /// Where it logs, for what it says at its end.
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it has ended by itself.
    ///
    /// # Panics
    /// It is not our child.
    pub fn wait(mut self) -> ExitStatus {
        self.child.wait().expect("is our child")
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// It is gone.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("is our child");
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A configuration whose probes stay when a daemon ends; they go when this is dropped.
pub struct Pinned {
    config: PathBuf,
    pin_dir: PathBuf,
    settings: String,
}

impl Pinned {
    /// State in the folder `scratch`, where the daemon's configuration is as well, and pins in one of its own.
    pub fn new(scratch: &Path) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let pin_dir = PathBuf::from(format!("/sys/fs/bpf/linktracer-pinned-{}-{number}", std::process::id()));
        let settings =
            format!("state_dir: {}\npin_dir: {}\n", scratch.join("state").display(), pin_dir.display());
        Self { config: scratch.join("linktracer.yaml"), pin_dir, settings }
    }

    /// Lines of the configuration.
    pub fn settings(&self) -> &str {
        &self.settings
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let output = linktracer(&["detach", "--config", &self.config.to_string_lossy()]);
        assert!(output.status.success(), "{}", printed(&output));
        fs::remove_dir(&self.pin_dir).expect("nothing is pinned any more");
    }
}

/// The sum of a metric over all series that have these labels.
pub fn sum(scrape: &Scrape, name: &str, labels: &[(&str, &str)]) -> f64 {
    let wanted = |sample: &&tracer_user::demo::measure::Sample| {
        sample.name == name && labels.iter().all(|(label, value)| sample.label(label) == *value)
    };
    scrape.samples().iter().filter(wanted).map(|sample| sample.value).sum()
}

/// An address of the loopback that nobody listens on, and that nobody gets by chance while this process runs.
///
/// # Panics
/// There is none.
pub fn free_address() -> SocketAddr {
    let reserved = Reserved::new((Ipv4Addr::LOCALHOST, 0).into()).expect("the loopback has a free port");
    let address = reserved.address();
    // Whoever listens there may end and begin again, so it is kept as long as this process runs.
    mem::forget(reserved);
    address
}
