//! SIGHUP: the configuration's file is read again and judged as at the start.
//!
//! A file that is wrong changes nothing but what is said of it, in the log and in two metrics. Deliberately absent: taking
//! a changed one while events are on their way. What is traced and joined was decided by one configuration from the start
//! on, and another one begins with the next start; which keys differ is said.

use std::{
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{
    config::{Config, ConfigError, HookChoice},
    telemetry::ConfigReload,
};

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

/// Reads the file again on demand.
pub(super) struct Reload {
    file: ConfigFile,
    running: Config,
    metrics: ConfigReload,
}

impl Reload {
    /// Of a daemon that was just started with `running`, which `file` had.
    pub(super) fn new(file: &ConfigFile, running: &Config, metrics: ConfigReload) -> Self {
        let reload = Self { file: file.clone(), running: running.clone(), metrics };
        reload.metrics.set(Some(unix_seconds()));
        reload
    }

    /// Reads the file and says what is to be said of it.
    pub(super) fn read(&self) {
        let path = self.file.path.display();
        match self.file.load() {
            Err(error) => {
                tracing::error!(%error, "the configuration is refused; the one from the start stays in force");
                self.metrics.set(None);
            }
            Ok(config) => {
                self.metrics.set(Some(unix_seconds()));
                match self.running.differences(&config).as_slice() {
                    [] => tracing::info!(%path, "the configuration says what is in force"),
                    keys => tracing::warn!(
                        %path,
                        changed = keys.join(", "),
                        "the configuration is valid and differs from the one in force: restart to have it taken"
                    ),
                }
            }
        }
    }
}

fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
