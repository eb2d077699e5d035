//! Which probes are in place, which are still to come, and since when the join knows everything.

use std::{
    collections::{BTreeMap, HashMap},
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::Arc,
};

use tracer_common::counters::Hook;

use crate::{
    attach::{AttachError, AttachedHook, Kernel, SdkFunction, SdkSite},
    config::{SdkProbe, Service},
    discover::{self, Processes},
    domain::Kind,
    export::http::ProbeState,
    ingest::clock::Clock,
    join::Join,
    symbols::{self, SymbolError},
    telemetry::Metrics,
};

/// Probes that are in place this long after a process started its program have missed nothing that
/// counts: a program loads its libraries and configuration first.
const ATTACH_GRACE_NS: u64 = 1_000_000_000;
/// A library that a process has not mapped after this long is no longer waited for.
const GIVE_UP_NS: u64 = 10_000_000_000;

/// A process whose SDK library is not mapped yet.
struct Expected {
    pid: u32,
    service: usize,
    function: SdkFunction,
    since_ns: u64,
}

/// What tells one probe in one file from another.
#[derive(PartialEq, Eq, Hash)]
struct SiteKey {
    service: usize,
    function: SdkFunction,
    file: FileIdentity,
}

/// What tells one file from another, as the kernel does when it attaches.
#[derive(PartialEq, Eq, Hash)]
enum FileIdentity {
    /// A file of an ordinary file system.
    Plain { device: u64, inode: u64 },
    /// A file seen through an overlay. Each mount has a device number of its own, while the inode number,
    /// size and time are those of the one file below, and it is that file which gets the probe: a second
    /// probe through a second mount would count every call twice.
    Overlaid { inode: u64, size: u64, modified_ns: i128 },
}

impl FileIdentity {
    fn of(file: &Path) -> io::Result<Self> {
        /// `OVERLAYFS_SUPER_MAGIC` in `linux/magic.h`.
        const OVERLAYFS: i64 = 0x794c_7630;
        let metadata = fs::metadata(file)?;
        let (device, inode, size) = (metadata.dev(), metadata.ino(), metadata.size());
        if rustix::fs::statfs(file)?.f_type != OVERLAYFS {
            return Ok(Self::Plain { device, inode });
        }
        let modified_ns = i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
        Ok(Self::Overlaid { inode, size, modified_ns })
    }
}

/// Keeps account of attachment.
pub(super) struct Coverage {
    services: Arc<[Service]>,
    hooks: Vec<Hook>,
    /// Each place looked at once: in place, or why not.
    sites: HashMap<SiteKey, Result<(), String>>,
    expected: Vec<Expected>,
}

/// Why a place has no probe.
#[derive(Debug, thiserror::Error)]
enum SiteError {
    #[error("{0}")]
    File(#[from] io::Error),
    #[error("{0}")]
    Symbol(#[from] SymbolError),
    #[error("{0}")]
    Arguments(String),
    #[error("{0}")]
    Attach(#[from] AttachError),
}

impl SiteError {
    const fn reason(&self) -> &'static str {
        match self {
            Self::File(_) | Self::Symbol(SymbolError::Unreadable { .. }) => "unreadable",
            Self::Symbol(SymbolError::NotElf { .. }) => "not_elf",
            Self::Symbol(SymbolError::NotFound { .. } | SymbolError::NotInFile { .. }) => "symbol_not_found",
            Self::Symbol(SymbolError::TooMany { .. }) => "too_many_symbols",
            Self::Symbol(SymbolError::Go { .. } | SymbolError::NoSite { .. }) => "no_certain_place",
            Self::Arguments(_) => "arguments",
            Self::Attach(_) => "refused",
        }
    }
}

impl Coverage {
    pub(super) fn new(services: Arc<[Service]>, hooks: &[AttachedHook]) -> Self {
        let hooks = hooks.iter().map(|attached| attached.hook).collect();
        Self { services, hooks, sites: HashMap::new(), expected: Vec::new() }
    }

    /// Attaches to the files that are known before anything runs, and those of what runs already.
    /// A file of the configuration that cannot be attached to is an error here.
    pub(super) fn attach_known_files(
        &mut self,
        kernel: &mut Kernel,
        processes: &Processes,
        metrics: &Metrics,
    ) -> anyhow::Result<()> {
        for index in 0..self.services.len() {
            let services = Arc::clone(&self.services);
            let service = &services[index];
            let pids = processes.of_service(index);
            for (function, probe) in sdk_probes(service) {
                for file in discover::probe_files(service, probe, &pids) {
                    self.attach(kernel, metrics, index, function, probe, &file)?;
                }
            }
        }
        Ok(())
    }

    /// Looks for the SDK's functions in a process of the service from now on.
    pub(super) fn expect(&mut self, pid: u32, service: usize, since_ns: u64) {
        for (function, _) in sdk_probes(&self.services[service]) {
            self.expected.push(Expected { pid, service, function, since_ns });
        }
    }

    /// Looks again for everything that is expected.
    pub(super) fn retry(
        &mut self,
        kernel: &mut Kernel,
        metrics: &Metrics,
        join: &mut Join,
        clock: &Clock,
    ) -> anyhow::Result<()> {
        if self.expected.is_empty() {
            return Ok(());
        }
        let services = Arc::clone(&self.services);
        for expected in std::mem::take(&mut self.expected) {
            let Expected { pid, service, function, since_ns } = expected;
            let Some(probe) = sdk_probe(&services[service], function) else { continue };
            match Processes::probe_file(probe, pid) {
                Some(file) => {
                    let attached = self.attach(kernel, metrics, service, function, probe, &file);
                    let now_ns = clock.now_ns();
                    if matches!(attached, Ok(true)) && now_ns.saturating_sub(since_ns) > ATTACH_GRACE_NS {
                        self.move_horizon("attached_late", now_ns, join, metrics);
                    }
                }
                None if clock.now_ns().saturating_sub(since_ns) < GIVE_UP_NS
                    && Path::new(&format!("/proc/{pid}")).exists() =>
                {
                    self.expected.push(Expected { pid, service, function, since_ns });
                }
                None => tracing::debug!(pid, function = function.name(), "the process never had the library"),
            }
        }
        Ok(())
    }

    /// From `now_ns` on everything is known; what reaches further back may have been missed.
    #[expect(clippy::unused_self, reason = "coverage is what moves")]
    pub(super) fn move_horizon(&self, reason: &str, now_ns: u64, join: &mut Join, metrics: &Metrics) {
        tracing::warn!(reason, "the coverage horizon moves to now: what came before may have been missed");
        for kind in [Kind::Request, Kind::Exposure] {
            join.set_horizon(kind, now_ns);
        }
        metrics.horizon_moves.with_label_values(&[reason]).inc();
    }

    /// Is every probe of the configuration in place?
    pub(super) fn is_complete(&self) -> bool {
        self.states().iter().all(|state| state.missing.is_none())
    }

    /// Every probe of the configuration and whether it is in place.
    pub(super) fn states(&self) -> Vec<ProbeState> {
        let mut states = Vec::new();
        for (index, service) in self.services.iter().enumerate() {
            let mut state = |what: &str, missing: Option<String>| {
                states.push(ProbeState { name: format!("{}/{what}", service.name), missing });
            };
            if service.request.is_some() {
                state("request", self.hooks_missing(&SEND_HOOKS));
            }
            for (function, probe) in sdk_probes(service) {
                state(function.name(), self.sdk_missing(index, function, probe));
            }
            if service.report.is_some() {
                state("report", self.hooks_missing(&[Hook::Connect]));
            }
        }
        states
    }

    /// How many probes are in place, by service and hook.
    pub(super) fn attached(&self) -> Vec<(&str, &'static str, usize)> {
        let mut counts: BTreeMap<(usize, &'static str), usize> = BTreeMap::new();
        for (index, service) in self.services.iter().enumerate() {
            let sends: &[Hook] = if service.request.is_some() { &SEND_HOOKS } else { &[] };
            let connects: &[Hook] = if service.report.is_some() { &[Hook::Connect] } else { &[] };
            for hook in sends.iter().chain(connects) {
                counts.insert((index, hook.name()), usize::from(self.hooks.contains(hook)));
            }
            for (function, _) in sdk_probes(service) {
                counts.insert((index, function.name()), 0);
            }
        }
        for (site, _) in self.sites.iter().filter(|(_, state)| state.is_ok()) {
            *counts.entry((site.service, site.function.name())).or_default() += 1;
        }
        counts.into_iter().map(|((service, hook), count)| (self.service_name(service), hook, count)).collect()
    }

    pub(super) fn service_name(&self, service: usize) -> &str {
        &self.services[service].name
    }

    /// Attaches to a file unless that was done. True when the probe is new.
    fn attach(
        &mut self,
        kernel: &mut Kernel,
        metrics: &Metrics,
        service: usize,
        function: SdkFunction,
        probe: &SdkProbe,
        file: &Path,
    ) -> Result<bool, AttachFailure> {
        let (key, result) = match FileIdentity::of(file) {
            Ok(identity) => {
                let key = SiteKey { service, function, file: identity };
                if let Some(known) = self.sites.get(&key) {
                    return known.clone().map(|()| false).map_err(AttachFailure);
                }
                (Some(key), attach_site(kernel, service, function, probe, file))
            }
            Err(error) => (None, Err(SiteError::File(error))),
        };
        let result = result.map_err(|error| {
            tracing::error!(%error, probe = probe.place, "a probe cannot be put in place");
            metrics.attach_errors.with_label_values(&[error.reason()]).inc();
            error.to_string()
        });
        if result.is_ok() {
            tracing::info!(function = function.name(), symbol = probe.symbol, file = %file.display(), "attached");
        }
        if let Some(key) = key {
            self.sites.insert(key, result.clone());
        }
        result.map(|()| true).map_err(AttachFailure)
    }

    fn hooks_missing(&self, needed: &[Hook]) -> Option<String> {
        let missing: Vec<_> =
            needed.iter().filter(|hook| !self.hooks.contains(hook)).map(|hook| hook.name()).collect();
        (!missing.is_empty()).then(|| format!("no hook on {}", missing.join(", ")))
    }

    fn sdk_missing(&self, service: usize, function: SdkFunction, probe: &SdkProbe) -> Option<String> {
        let mut of_probe = self
            .sites
            .iter()
            .filter(|(site, _)| site.service == service && site.function == function)
            .peekable();
        if of_probe.peek().is_none() {
            let file = probe.library.as_deref().unwrap_or("the executable");
            return Some(format!("{file} is not there yet; it is looked for when a process starts"));
        }
        of_probe.find_map(|(_, state)| state.clone().err())
    }
}

/// Why a probe is not in place.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct AttachFailure(String);

const SEND_HOOKS: [Hook; 5] = [Hook::Sendto, Hook::Sendmsg, Hook::Sendmmsg, Hook::Write, Hook::Writev];

fn sdk_probes(service: &Service) -> impl Iterator<Item = (SdkFunction, &SdkProbe)> {
    let functions = [SdkFunction::Exposure, SdkFunction::Click];
    functions.into_iter().filter_map(|function| Some((function, sdk_probe(service, function)?)))
}

const fn sdk_probe(service: &Service, function: SdkFunction) -> Option<&SdkProbe> {
    match function {
        SdkFunction::Exposure => service.exposure.as_ref(),
        SdkFunction::Click => service.click.as_ref(),
    }
}

fn attach_site(
    kernel: &mut Kernel,
    service: usize,
    function: SdkFunction,
    probe: &SdkProbe,
    file: &Path,
) -> Result<(), SiteError> {
    for found in symbols::find(file, &probe.symbol)? {
        let abi = probe.abi.unwrap_or(found.abi);
        let ids = probe.args.locate(abi).map_err(SiteError::Arguments)?;
        let site = SdkSite {
            function,
            file: file.to_path_buf(),
            file_offset: found.site.file_offset,
            ids,
            probe: u32::try_from(service).unwrap_or(u32::MAX),
        };
        kernel.attach_sdk(&site)?;
    }
    Ok(())
}
