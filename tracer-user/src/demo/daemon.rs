//! The daemon as a child process: the demo starts the same `linktracer run` that anyone would.

use std::{
    ffi::OsStr,
    fs::{self, File},
    net::SocketAddr,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::{
    fixture::{Fixture, GROUP_VARIABLE, RELEASE_VARIABLE},
    http,
    reserved::Reserved,
    watch::{Interrupt, poll},
};
use crate::config::HookChoice;

/// Loading and attaching takes a second or two, and many times that on an emulated processor.
const READY_LIMIT: Duration = Duration::from_secs(600);

/// The daemon detaches its probes and writes its state before it ends.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// The windows of the demo's join: short, because the demo waits until they have run out.
#[derive(Debug, Clone, Copy)]
pub struct Windows {
    /// From request to exposure.
    pub exposure: Duration,
    /// From exposure to click.
    pub click: Duration,
    /// From click to report.
    pub report: Duration,
}

/// What goes into the daemon's configuration.
#[derive(Debug)]
pub struct Setup<'a> {
    /// The service's name.
    pub service: &'a str,
    /// The files to trace.
    pub fixture: &'a Fixture,
    /// Where click reports go.
    pub collector: SocketAddr,
    /// Which kernel hooks the daemon uses.
    pub hooks: HookChoice,
    /// Where to publish; port 0 picks one.
    pub listen: SocketAddr,
    /// The join's windows.
    pub windows: Windows,
    /// Where the daemon records events, if it does.
    pub record: Option<&'a Path>,
    /// The receiver of traces, if there is one.
    pub otlp: Option<&'a str>,
    /// The words, between spaces, of a command that ends with executing the words after its own.
    pub within: Option<&'a str>,
}

impl Setup<'_> {
    /// The configuration file, publishing at `listen`.
    pub fn config(&self, listen: SocketAddr) -> String {
        let Windows { exposure, click, report } = self.windows;
        let export = self.otlp.map(|endpoint| {
            let endpoint = serde_json::Value::from(endpoint);
            format!(
                "export: {{ otlp: {{ endpoint: {endpoint}, show_ids: true, broken_per_second: 1000, complete_per_second: 1000 }} }}\n"
            )
        });
        format!(
            "source: demo\n\
             listen: {listen}\n\
             hooks: {hooks}\n\
             ring_buffer_size: {RING_BUFFER_SIZE}\n\
             services:\n\
             \x20 - name: {service}\n\
             \x20   match: {{ exe: {exe} }}\n\
             \x20   release: [\"env:{RELEASE_VARIABLE}\"]\n\
             \x20   group: \"env:{GROUP_VARIABLE}\"\n\
             \x20   request: {{ id: {{ header: X-Request-Id }} }}\n\
             \x20   exposure: {{ library: {library}, symbol: trackExposure, args: {ARGS} }}\n\
             \x20   click: {{ library: {library}, symbol: trackClick, args: {ARGS} }}\n\
             \x20   report: {{ to: [\"{collector}\"] }}\n\
             join: {{ exposure_window: {exposure}s, click_window: {click}s, report_window: {report}s, \
             lateness: 2s, skew: 100ms }}\n\
             page: {{ show_ids: true }}\n\
             {export}",
            export = export.unwrap_or_default(),
            hooks = self.hooks.name(),
            service = self.service,
            exe = quoted(&self.fixture.service()),
            library = quoted(&self.fixture.library()),
            collector = self.collector,
            exposure = exposure.as_secs(),
            click = click.as_secs(),
            report = report.as_secs(),
        )
    }
}

/// The load is as fast as the machine allows, many times what one node serves. This ring holds most of a
/// default demo even if the daemon were never given the processor.
const RING_BUFFER_SIZE: &str = "64MiB";

const ARGS: &str = "\"(request_id cstr, item_id cstr)\"";

/// A JSON string is a YAML string.
fn quoted(path: &Path) -> String {
    serde_json::Value::from(path.to_string_lossy()).to_string()
}

/// A running daemon. It is stopped when this is dropped.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    address: SocketAddr,
    /// The daemon tells nobody which port it got, so the demo finds one that is free and keeps it free.
    _reserved: Option<Reserved>,
    log: PathBuf,
}

impl Daemon {
    /// Starts `program run`.
    pub fn start(program: &Path, setup: &Setup) -> Result<Self> {
        let root = setup.fixture.root();
        // A port that somebody asked for is the daemon's to take or to complain about.
        let reserved = (setup.listen.port() == 0).then(|| Reserved::new(setup.listen)).transpose();
        let reserved = reserved.with_context(|| format!("find a free port on {}", setup.listen))?;
        let address = reserved.as_ref().map_or(setup.listen, Reserved::address);
        let (config, log) = (root.join("linktracer.yaml"), root.join("daemon.log"));
        fs::create_dir_all(root.join("state")).context("create the state directory")?;
        fs::write(&config, setup.config(address)).context("write the configuration")?;
        let log_file = File::create(&log).context("create the daemon's log")?;

        let wrapper = setup.within.unwrap_or_default().split_whitespace().map(OsStr::new);
        let mut words = wrapper.chain([program.as_os_str()]);
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words).arg("run").arg("--config").arg(&config);
        if let Some(record) = setup.record {
            command.arg("--record").arg(record);
        }
        command
            // Ctrl-C is for the demo alone, which then stops everything in order.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log_file.try_clone().context("share the daemon's log")?)
            .stderr(log_file);
        let child = command.spawn().with_context(|| format!("start {}", command.get_program().display()))?;
        Ok(Self { child, address, _reserved: reserved, log })
    }

    /// Where it publishes.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it traces.
    pub fn wait_ready(&mut self, interrupt: &Interrupt) -> Result<()> {
        let ready = poll(READY_LIMIT, Duration::from_millis(50), interrupt, || {
            self.check_running()?;
            // Until it listens, asking fails.
            let answer = http::get_once(self.address, "/readyz");
            Ok(answer.ok().filter(|answer| answer.status == 200).map(drop))
        })?;
        let seconds = READY_LIMIT.as_secs();
        ready.with_context(|| format!("the daemon is not ready after {seconds} s"))
    }

    /// An error when it has ended.
    pub fn check_running(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait().context("look after the daemon")? {
            bail!("the daemon ended early ({status})");
        }
        Ok(())
    }

    /// Asks it to end and waits; an error when it does not end well.
    pub fn stop(mut self) -> Result<()> {
        self.check_running()?;
        let status = self.terminate(STOP_LIMIT)?;
        let seconds = STOP_LIMIT.as_secs();
        let status = status.with_context(|| format!("the daemon still runs {seconds} s after SIGTERM"))?;
        ensure!(status.success(), "the daemon ended with {status} after SIGTERM");
        Ok(())
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        log_tail(&self.log)
    }

    /// Where its log is.
    pub fn log(&self) -> &Path {
        &self.log
    }

    fn terminate(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        // It is our child and not yet waited for, so its id cannot have become another's.
        kill_process(Pid::from_child(&self.child), Signal::TERM).context("signal the daemon")?;
        let deadline = Instant::now() + limit;
        loop {
            let status = self.child.try_wait().context("wait for the daemon")?;
            if status.is_some() || Instant::now() >= deadline {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let ended = match self.child.try_wait() {
            Ok(None) => self.terminate(STOP_LIMIT).is_ok_and(|status| status.is_some()),
            _ => true,
        };
        if !ended {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The last lines of a log file, as much as fits a screen.
pub fn log_tail(log: &Path) -> String {
    const LINES: usize = 30;
    let bytes = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}
