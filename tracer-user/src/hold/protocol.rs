//! What daemon and gate say to each other: JSON lines over a socket.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::{Config, Pattern};

/// The first line that the daemon says: what to hold.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Policy {
    /// Programs of these may be of a service.
    pub rules: Vec<Rule>,
    /// The longest time that a program is held, in milliseconds.
    pub limit_ms: u64,
    /// Folders whose file systems are watched.
    pub folders: Vec<String>,
    /// Patterns of mount points whose file systems are watched, whenever they come.
    pub mounts: Vec<String>,
}

/// The part of a service's `match` that can be told before a program runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Rule {
    /// Position of the service in the configuration.
    pub service: usize,
    /// Pattern of the executable's path.
    pub exe: String,
    /// Pattern of the cgroup's path.
    pub cgroup: Option<String>,
}

impl Policy {
    /// What to hold for this configuration. A service without SDK functions has nothing to wait for, and one
    /// without a pattern of its executable cannot be told from everything else that runs.
    pub fn of(config: &Config) -> Self {
        let held = || {
            config.services.iter().enumerate().filter_map(|(index, service)| {
                let has_functions = service.exposure.is_some() || service.click.is_some();
                let exe = service.processes.exe.as_ref().filter(|_| has_functions)?;
                Some((index, service, exe))
            })
        };
        let rule = |(service, processes, exe): (usize, &crate::config::Service, &Pattern)| Rule {
            service,
            exe: exe.to_string(),
            cgroup: processes.processes.cgroup.as_ref().map(ToString::to_string),
        };
        Self {
            rules: held().map(rule).collect(),
            limit_ms: u64::try_from(config.discover.hold_limit.as_millis()).unwrap_or(u64::MAX),
            folders: held().filter_map(|(_, _, exe)| exe.literal_folder()).map(str::to_owned).collect(),
            mounts: config.discover.hold_mounts.iter().map(ToString::to_string).collect(),
        }
    }

    /// The longest time that a program is held.
    pub const fn limit(&self) -> Duration {
        Duration::from_millis(self.limit_ms)
    }
}

/// What the gate says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum FromGate {
    /// A program is held.
    Ask(Ask),
    /// It lives, and this is what it has done so far.
    Counts(Counts),
}

/// A held program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// A number for the answer.
    pub id: u64,
    /// The process that is about to execute it, still with its old program.
    pub pid: u32,
    /// The program, as a number in the gate's table of open files.
    pub fd: i32,
    /// Its path, as the gate sees it.
    pub path: String,
    /// Services that it may belong to.
    pub services: Vec<usize>,
}

/// What the daemon answers: its probes are in place, or cannot be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Answer {
    /// The number of the [`Ask`].
    pub id: u64,
}

/// What the gate has done since it began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Programs that no service can match: let pass at once.
    pub passed: u64,
    /// Programs that were held until the daemon answered.
    pub released: u64,
    /// Programs that were let pass because their time was up.
    pub timed_out: u64,
    /// Programs that were let pass at once because too many are held, or the daemon does not listen.
    pub refused: u64,
    /// File systems that are watched now.
    pub file_systems: u64,
}

impl Counts {
    /// What was counted since `earlier`, of the same gate. What a gate watches is no count.
    pub const fn since(&self, earlier: &Self) -> Self {
        Self {
            passed: self.passed.saturating_sub(earlier.passed),
            released: self.released.saturating_sub(earlier.released),
            timed_out: self.timed_out.saturating_sub(earlier.timed_out),
            refused: self.refused.saturating_sub(earlier.refused),
            file_systems: self.file_systems,
        }
    }
}
