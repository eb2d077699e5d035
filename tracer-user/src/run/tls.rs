//! Probes on TLS libraries: which files have the functions that encrypt, and which were looked at.
//!
//! Such a probe belongs to a file and serves every service, so a file is looked at once. Which calls
//! count is decided in the kernel, by the table of processes. That a file has none of the functions is
//! the usual case and no fault.

use std::{
    collections::{HashMap, hash_map::Entry},
    path::Path,
};

use super::sites::FileIdentity;
use crate::{
    attach::{Kernel, TLS_FUNCTIONS},
    discover,
    symbols::{self, SymbolError},
    telemetry::Metrics,
};

/// A library that a process has not mapped after this long is no longer waited for.
const GIVE_UP_NS: u64 = 10_000_000_000;
/// A process that waits for its library is looked at this often.
const LOOK_INTERVAL_NS: u64 = 50_000_000;

/// A process whose TLS library may still be mapped.
struct Expected {
    pid: u32,
    /// Since when it may have encrypted something unseen.
    since_ns: u64,
    next_look_ns: u64,
    give_up_ns: u64,
}

/// The probes, and the processes that may still bring files.
#[derive(Default)]
pub(super) struct TlsProbes {
    /// Probes in each file that was looked at; most have none.
    files: HashMap<FileIdentity, usize>,
    expected: Vec<Expected>,
}

impl TlsProbes {
    /// Looks for TLS libraries in this process from now on. It may have encrypted something unseen since
    /// `since_ns`, in nanoseconds since the Unix epoch.
    pub(super) fn expect(&mut self, pid: u32, since_ns: u64) {
        self.expected.push(Expected { pid, since_ns, next_look_ns: 0, give_up_ns: 0 });
    }

    /// Looks where it is time to. True when a probe came more than `grace_ns` after its process.
    pub(super) fn look(
        &mut self,
        kernel: &mut Kernel,
        metrics: &Metrics,
        now_ns: u64,
        grace_ns: u64,
    ) -> bool {
        let mut late = false;
        for mut expected in std::mem::take(&mut self.expected) {
            let Expected { pid, since_ns, next_look_ns, .. } = expected;
            if next_look_ns == 0 {
                expected.give_up_ns = now_ns + GIVE_UP_NS;
            }
            if now_ns >= next_look_ns {
                let attached = self.look_at(pid, kernel, metrics);
                late |= attached && now_ns.saturating_sub(since_ns) > grace_ns;
                expected.next_look_ns = now_ns + LOOK_INTERVAL_NS;
            }
            if now_ns < expected.give_up_ns && Path::new(&format!("/proc/{pid}")).exists() {
                self.expected.push(expected);
            }
        }
        late
    }

    /// Files that have probes.
    pub(super) fn file_count(&self) -> usize {
        self.files.values().filter(|probes| **probes > 0).count()
    }

    /// True when something was attached that no predecessor had.
    fn look_at(&mut self, pid: u32, kernel: &mut Kernel, metrics: &Metrics) -> bool {
        let mut attached = false;
        for library in [None, Some("libssl.so")] {
            let Some(file) = discover::file_of_process(library, pid) else { continue };
            let Ok(identity) = FileIdentity::of(&file) else { continue };
            if let Entry::Vacant(unknown) = self.files.entry(identity) {
                let Attached { probes, new } = attach(&file, unknown.key(), library, kernel, metrics);
                attached |= new;
                unknown.insert(probes);
            }
        }
        attached
    }
}

/// What was done to a file.
struct Attached {
    probes: usize,
    /// A predecessor had not done it.
    new: bool,
}

/// Attaches to each of the functions that the file has.
fn attach(
    file: &Path,
    identity: &FileIdentity,
    library: Option<&str>,
    kernel: &mut Kernel,
    metrics: &Metrics,
) -> Attached {
    let mut attached = Attached { probes: 0, new: false };
    for function in TLS_FUNCTIONS.iter().filter(|function| function.library == library) {
        let found = match symbols::find(file, function.symbol) {
            Ok(found) => found,
            Err(
                SymbolError::NotFound { .. } | SymbolError::NotElf { .. } | SymbolError::Unreadable { .. },
            ) => continue,
            Err(error) => {
                tracing::warn!(%error, "what this program encrypts is not seen");
                metrics.attach_errors.with_label_values(&["no_certain_place"]).inc();
                continue;
            }
        };
        // `*` in the name of a Go function stands for itself here.
        for place in found.iter().filter(|place| place.name == function.symbol) {
            match kernel.attach_tls(function, file, &identity.name(), place.site.file_offset) {
                Ok(new) => {
                    tracing::info!(new, symbol = function.symbol, file = %file.display(), "attached");
                    attached.probes += 1;
                    attached.new |= new;
                }
                Err(error) => {
                    tracing::error!(%error, symbol = function.symbol, "a probe cannot be put in place");
                    metrics.attach_errors.with_label_values(&["refused"]).inc();
                }
            }
        }
    }
    attached
}
