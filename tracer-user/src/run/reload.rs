//! SIGHUP: the configuration's file is read again and judged as at the start.
//!
//! A file that is wrong changes nothing but what is said of it, in the log and in two metrics. One that is right and
//! different is taken by a new beginning: everything that is traced and joined follows from one configuration, so the
//! daemon ends as for SIGTERM and executes itself again in the same process. Where its state is kept, nothing is lost by
//! that. Where it is not, or would be left behind, it goes on as it is and says what differs.
//!
//! All of this is done by a thread of its own: looking at what another configuration needs takes the rights of tracing,
//! and the thread that serves has given them up.

use std::{
    env, io,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::mpsc,
    thread::{self, JoinHandle},
    time::{SystemTime, UNIX_EPOCH},
};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::{Options, preflight, privileges};
use crate::{
    config::{Config, ConfigError, HookChoice},
    telemetry::ConfigReload,
};

/// Keys whose change would leave behind what the others are kept in.
const KEYS_OF_PLACES: [&str; 3] = ["source", "state_dir", "pin_dir"];

/// Where the configuration comes from.
#[derive(Debug, Clone)]
pub struct ConfigFile {
    /// The file.
    pub path: PathBuf,
    /// What counts in place of its `hooks`.
    pub hooks: Option<HookChoice>,
}

impl ConfigFile {
    /// Reads and checks the file.
    ///
    /// # Errors
    /// See [`Config::load`].
    pub fn load(&self) -> Result<Config, ConfigError> {
        let mut config = Config::load(&self.path)?;
        if let Some(hooks) = self.hooks {
            config.hooks = hooks;
        }
        Ok(config)
    }
}

/// What the thread is asked to do.
enum Ask {
    /// Read the file.
    Read,
    /// Begin anew.
    Execute,
}

/// The thread that reads the file on demand.
pub(super) struct Reload {
    asks: mpsc::Sender<Ask>,
    taken: UnboundedReceiver<()>,
    thread: JoinHandle<io::Error>,
}

impl Reload {
    /// Of a daemon that was just started with `running`, which `file` had. Needs the rights of tracing.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub(super) fn start(
        file: &ConfigFile,
        running: &Config,
        options: &Options,
        metrics: ConfigReload,
    ) -> io::Result<Self> {
        let (asks, asked) = mpsc::channel();
        let (take, taken) = unbounded_channel();
        let why_not = if !options.durable || running.state_dir.is_none() {
            Some("its state is not kept (`state_dir`)")
        } else if options.record.is_some() {
            Some("it writes a recording, which would begin anew")
        } else {
            None
        };
        let reader = Reader { file: file.clone(), running: running.clone(), why_not, metrics };
        reader.metrics.set(Some(unix_seconds()));
        let thread =
            thread::Builder::new().name("reload".to_owned()).spawn(move || reader.work(&asked, &take))?;
        Ok(Self { asks, taken, thread })
    }

    /// Has the file read. What comes of it is said in the log, and by [`Self::is_taken`].
    pub(super) fn read(&self) {
        // Nobody listens any more only when the process is on its way out.
        let _ = self.asks.send(Ask::Read);
    }

    /// Waits until a file was read that is to be taken.
    pub(super) async fn is_taken(&mut self) {
        if self.taken.recv().await.is_none() {
            std::future::pending().await
        }
    }

    /// Executes this program again with the same arguments, once all that it does has come to its end. Returns only
    /// when that fails.
    pub(super) fn execute(self) -> anyhow::Error {
        let _ = self.asks.send(Ask::Execute);
        match self.thread.join() {
            Ok(error) => anyhow::Error::new(error).context("cannot execute itself again"),
            Err(_) => anyhow::anyhow!("the reload thread panicked"),
        }
    }
}

/// What the thread knows.
struct Reader {
    file: ConfigFile,
    running: Config,
    /// Why another configuration is not taken, whatever it is.
    why_not: Option<&'static str>,
    metrics: ConfigReload,
}

impl Reader {
    fn work(self, asked: &mpsc::Receiver<Ask>, take: &UnboundedSender<()>) -> io::Error {
        let mut is_taken = false;
        for ask in asked {
            match ask {
                // What is taken is read again after it.
                Ask::Read if is_taken => {}
                Ask::Read => {
                    is_taken = self.read();
                    if is_taken {
                        let _ = take.send(());
                    }
                }
                Ask::Execute => return execute_again(),
            }
        }
        io::Error::other("nobody asks any more")
    }

    /// Reads the file and says what is to be said of it. Returns whether it is to be taken.
    fn read(&self) -> bool {
        let path = self.file.path.display();
        let config = match self.file.load() {
            Ok(config) => config,
            Err(error) => {
                tracing::error!(%error, "the configuration is refused; the one from the start stays in force");
                self.metrics.set(None);
                return false;
            }
        };
        let failures = self.failures(&config);
        if !failures.is_empty() {
            tracing::error!(
                %path,
                failures = failures.join("\n"),
                "the configuration cannot be traced by; the one from the start stays in force"
            );
            self.metrics.set(None);
            return false;
        }
        self.metrics.set(Some(unix_seconds()));
        let keys = self.running.differences(&config);
        let changed = keys.join(", ");
        let place = keys.iter().find(|key| KEYS_OF_PLACES.contains(key));
        match (self.why_not, place) {
            _ if keys.is_empty() => tracing::info!(%path, "the configuration says what is in force"),
            (Some(why_not), _) => tracing::warn!(
                %path,
                changed,
                why_not,
                "the configuration is valid and differs from the one in force: restart to have it taken"
            ),
            (None, Some(key)) => tracing::warn!(
                %path,
                changed,
                "the configuration is valid and is not taken: with another `{key}` what is kept would be left behind; \
                 `linktracer detach` with the old file, then start with the new one"
            ),
            (None, None) => {
                tracing::info!(%path, changed, "the configuration is taken: the daemon begins anew with its state");
                return true;
            }
        }
        false
    }

    /// What tracing by this configuration would fail for. What this process itself has is not in its way.
    fn failures(&self, config: &Config) -> Vec<String> {
        let mut checks = preflight::run(config);
        if config.listen == self.running.listen {
            checks.retain(|check| check.subject != preflight::LISTEN);
        }
        preflight::failures(&checks).map(ToString::to_string).collect()
    }
}

fn execute_again() -> io::Error {
    if let Err(error) = privileges::keep_across_execution() {
        return error.into();
    }
    // The name matters to whoever looks for the process. The file may have been replaced or be gone.
    let program = env::current_exe().ok().filter(|path| path.exists());
    let mut words = env::args_os();
    let mut command = Command::new(program.as_deref().unwrap_or(Path::new("/proc/self/exe")));
    if let Some(name) = words.next() {
        command.arg0(name);
    }
    command.args(words).exec()
}

fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
