//! The demo's own processes: the C service with its tracking SDK, unpacked into a temporary directory, and
//! the collector that click reports go to.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tempfile::TempDir;

use super::{http, plan::Target};

const LIBRARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/librecsdk.so"));
const SERVICE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/linktracer-demo-service"));

/// Environment variables of the service that name its release and its group.
pub const RELEASE_VARIABLE: &str = "BUILD_COMMIT_TAG";
/// See [`RELEASE_VARIABLE`].
pub const GROUP_VARIABLE: &str = "AB_GROUP";

/// A service that does not listen by then never will.
const START_LIMIT: Duration = Duration::from_secs(30);

/// The unpacked files. They go when this is dropped.
#[derive(Debug)]
pub struct Fixture {
    /// Kept for its drop, which removes the directory.
    _directory: TempDir,
    root: PathBuf,
}

impl Fixture {
    /// Unpacks service and library into a fresh temporary directory.
    pub fn unpack() -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("linktracer-demo-")
            // The daemon may run as another user.
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir()
            .context("create a temporary directory")?;
        // Without links in it, so that it is the path under which the kernel knows the files.
        let root = directory.path().canonicalize().context("resolve the temporary directory")?;
        let fixture = Self { _directory: directory, root };
        for (path, bytes) in [(fixture.library(), LIBRARY), (fixture.service(), SERVICE)] {
            fs::write(&path, bytes).with_context(|| format!("write {}", path.display()))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
                .with_context(|| format!("make {} executable", path.display()))?;
        }
        Ok(fixture)
    }

    /// The directory, without symbolic links in its path.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The tracking SDK.
    pub fn library(&self) -> PathBuf {
        self.root.join("librecsdk.so")
    }

    /// The service's executable.
    pub fn service(&self) -> PathBuf {
        self.root.join("linktracer-demo-service")
    }
}

/// How often the SDK's functions ran in one process, by its own count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SdkCalls {
    /// Calls of `trackExposure`.
    pub exposures: u64,
    /// Calls of `trackClick`.
    pub clicks: u64,
}

impl SdkCalls {
    /// Reads the body of an answer to `/healthz`.
    pub fn from_health(body: &[u8]) -> Result<Self> {
        let json: Value = serde_json::from_slice(body).context("read the service's call counts")?;
        let count = |name: &str| json[name].as_u64().with_context(|| format!("the service counts no {name}"));
        Ok(Self { exposures: count("exposures")?, clicks: count("clicks")? })
    }
}

/// One running service process. It is killed when this is dropped.
#[derive(Debug)]
pub struct ServiceProcess {
    child: Child,
    address: SocketAddr,
}

impl ServiceProcess {
    /// Starts a process and waits until it listens. `send` names the system call by which answers leave.
    pub fn start(fixture: &Fixture, target: Target, collector: SocketAddr, send: &str) -> Result<Self> {
        let log_path = fixture.root().join(format!("service-{}.log", target.name()));
        let log = File::create(&log_path).with_context(|| format!("create {}", log_path.display()))?;
        let mut command = Command::new(fixture.service());
        command
            .args(["--port", "0", "--collector", &collector.to_string(), "--send", send])
            .args((target == Target::Silent).then_some("--silent"))
            .env(RELEASE_VARIABLE, "demo")
            .env(GROUP_VARIABLE, "control")
            // Ctrl-C is for the demo alone, which then stops everything in order.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log);
        let mut child = spawn(&mut command).with_context(|| {
            format!(
                "start the {} service (is {} mounted noexec? then set TMPDIR to a directory that is not)",
                target.name(),
                fixture.root().display()
            )
        })?;
        let stdout = child.stdout.take();
        // From here on a failure drops it, which kills the child.
        let mut process = Self { child, address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)) };

        let (sender, receiver) = mpsc::channel();
        let stdout = stdout.context("the service has no standard output")?;
        thread::spawn(move || {
            let mut line = String::new();
            // An empty line stands for any failure: the service ended, and its log says why.
            let _ = BufReader::new(stdout).read_line(&mut line);
            let _ = sender.send(line);
        });
        let line = receiver.recv_timeout(START_LIMIT).unwrap_or_default();
        let Some(port) = line.trim_end().strip_prefix("listening ").and_then(|port| port.parse().ok()) else {
            let log = fs::read_to_string(&log_path).unwrap_or_default();
            bail!("the {} service does not listen: {}", target.name(), log.trim_end());
        };
        process.address.set_port(port);
        Ok(process)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Where the process listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The SDK's own counts.
    pub fn sdk_calls(&self) -> Result<SdkCalls> {
        SdkCalls::from_health(&http::get_once(self.address, "/healthz")?.body)
    }

    /// Kills the process (SIGKILL) and waits until it is gone.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().context("kill a service")?;
        self.child.wait().context("wait for a killed service")?;
        Ok(())
    }
}

impl Drop for ServiceProcess {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Another thread that forks at the wrong moment holds the just written file open for an instant, and the
/// kernel refuses to run a file that is open for writing.
fn spawn(command: &mut Command) -> io::Result<Child> {
    for _ in 0..100 {
        match command.spawn() {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => {
                thread::sleep(Duration::from_millis(10));
            }
            result => return result,
        }
    }
    command.spawn()
}

/// Takes click reports and counts them.
#[derive(Debug)]
pub struct Collector {
    address: SocketAddr,
    reports: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Collector {
    /// Listens on a port of its own.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("bind the collector")?;
        let address = listener.local_addr().context("ask for the collector's address")?;
        let (reports, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let thread = thread::spawn({
            let (reports, stop) = (Arc::clone(&reports), Arc::clone(&stop));
            move || collect(&listener, &reports, &stop)
        });
        Ok(Self { address, reports, stop, thread: Some(thread) })
    }

    /// Where reports go.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whole reports taken so far.
    pub fn reports(&self) -> u64 {
        self.reports.load(Ordering::SeqCst)
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the thread, which waits for a connection.
        let woken = TcpStream::connect(self.address).is_ok();
        if let (true, Some(thread)) = (woken, self.thread.take()) {
            let _ = thread.join();
        }
    }
}

/// Counts before it closes: the service answers its click only once the collector has closed.
fn collect(listener: &TcpListener, reports: &AtomicU64, stop: &AtomicBool) {
    for stream in listener.incoming() {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let mut line = String::new();
        let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
        if BufReader::new(&stream).read_line(&mut line).is_ok() && line.ends_with('\n') {
            reports.fetch_add(1, Ordering::SeqCst);
        }
    }
}
