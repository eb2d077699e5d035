//! Which probes are in place, which are still to come, and since when the join knows everything.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use tracer_common::counters::Hook;

use super::{
    expected::{Expectations, Expected},
    sites::{Attached, FileIdentity, SiteError, SiteKey, attach_site},
    tls::TlsProbes,
};
use crate::{
    attach::{AttachedHook, Kernel, SdkFunction},
    config::{SdkProbe, Service},
    discover::{self, Collectors, Processes},
    export::http::ProbeState,
    hold::Ask,
    ingest::clock::Clock,
    telemetry::Metrics,
};

/// Probes that are in place this long after a process started its program have missed nothing that
/// counts: a program loads its libraries and configuration first.
const ATTACH_GRACE_NS: u64 = 1_000_000_000;
/// Since when a probe is in place that a predecessor left: what was missed before is in the horizon.
const WITHOUT_GAP_NS: u64 = 0;

/// The probes of one function in one file.
#[derive(Debug, Clone, Copy)]
struct InPlace {
    /// In nanoseconds since the Unix epoch; [`WITHOUT_GAP_NS`] where that makes no difference any more.
    since_ns: u64,
    /// A pattern may have matched several functions, and a USDT probe may be at several places.
    places: usize,
}

/// From that time on everything is known, in nanoseconds since the Unix epoch; before, something may have
/// been missed.
#[derive(Debug, Clone, Copy)]
pub(super) struct HorizonMove {
    pub(super) reason: &'static str,
    pub(super) timestamp_ns: u64,
}

/// Keeps account of attachment.
pub(super) struct Coverage {
    services: Arc<[Service]>,
    hooks: Vec<Hook>,
    /// Each file looked at once: what is in place there, or why not all.
    sites: HashMap<SiteKey, Result<InPlace, String>>,
    expected: Expectations,
    /// The latest horizon that was set, in nanoseconds since the Unix epoch.
    horizon_ns: u64,
    moves: Vec<HorizonMove>,
    /// For each service what is missing because names of collectors have no address.
    unknown_names: Vec<Option<String>>,
    tls: TlsProbes,
    /// How the watch of pods stands, where there is one.
    pods: Option<ProbeState>,
}

impl Coverage {
    pub(super) fn new(services: Arc<[Service]>, hooks: &[AttachedHook]) -> Self {
        let hooks = hooks.iter().map(|attached| attached.hook).collect();
        let unknown_names = vec![None; services.len()];
        let (sites, expected, tls) = (HashMap::new(), Expectations::default(), TlsProbes::default());
        Self {
            services,
            hooks,
            sites,
            expected,
            horizon_ns: 0,
            moves: Vec::new(),
            unknown_names,
            tls,
            pods: None,
        }
    }

    /// Attaches to the files that are known before anything runs, and those of what runs already.
    /// A file of the configuration that cannot be attached to is an error here, and so is one of a process when they
    /// were just looked at (`strict`). True when there is a new probe.
    pub(super) fn attach_known_files(
        &mut self,
        kernel: &mut Kernel,
        processes: &Processes,
        metrics: &Metrics,
        clock: &Clock,
        strict: bool,
    ) -> anyhow::Result<bool> {
        let mut new = false;
        for index in 0..self.services.len() {
            let services = Arc::clone(&self.services);
            let service = &services[index];
            let pids = processes.of_service(index);
            for (function, probe) in sdk_probes(service) {
                for file in discover::probe_files(service, probe, &pids) {
                    match self.attach(kernel, index, function, probe, &file, clock) {
                        Ok(since_ns) => new |= since_ns > WITHOUT_GAP_NS,
                        // That process is looked at again, as every one that runs.
                        Err(failure) if file.starts_with("/proc") && (failure.passing || !strict) => {}
                        Err(failure) => return Err(self.give_up(failure, metrics).into()),
                    }
                }
            }
        }
        Ok(new)
    }

    /// Takes which names of collectors have no address.
    pub(super) fn set_unknown_names(&mut self, collectors: &Collectors) {
        for (service, missing) in self.unknown_names.iter_mut().enumerate() {
            let names = collectors.unknown_names(service);
            *missing = (!names.is_empty()).then(|| format!("no address is known of {}", names.join(", ")));
        }
    }

    /// Takes how the watch of pods stands.
    pub(super) fn set_pods(&mut self, pods: Option<ProbeState>) {
        self.pods = pods;
    }

    /// Looks from now on for the SDK's functions in a process that may be of these services, and no longer for those
    /// of its earlier program. `seen`: it executed its program at `started_ns`; else it was found then.
    pub(super) fn expect(&mut self, pid: u32, services: &[usize], started_ns: u64, seen: bool) {
        self.expected.keep(pid, None);
        if services.iter().any(|service| has_tls(&self.services[*service])) {
            self.tls.expect(pid, started_ns);
        }
        for service in services {
            let missing: Vec<_> =
                sdk_probes(&self.services[*service]).map(|(function, _)| function).collect();
            if !missing.is_empty() {
                self.expected.add(Expected::new(pid, *service, missing, started_ns, seen));
            }
        }
    }

    /// The process is of this service only, or of none.
    pub(super) fn keep_expecting(&mut self, pid: u32, service: Option<usize>) {
        self.expected.keep(pid, service);
    }

    /// Attaches to what a program will have mapped that the process `pid` is about to execute, as one of these
    /// services. What is not found is looked for when it runs.
    pub(super) fn prepare(
        &mut self,
        kernel: &mut Kernel,
        metrics: &Metrics,
        clock: &Clock,
        program: &Path,
        ask: &Ask,
    ) {
        let services = Arc::clone(&self.services);
        for (index, service) in ask.services.iter().filter_map(|index| Some((*index, services.get(*index)?)))
        {
            for (function, probe) in sdk_probes(service) {
                for file in discover::files_of_program(probe, ask.pid, program, &ask.path) {
                    match self.attach(kernel, index, function, probe, &file, clock) {
                        Err(failure) if !failure.passing => drop(self.give_up(failure, metrics)),
                        Ok(_) | Err(_) => {}
                    }
                }
            }
        }
    }

    /// Looks again for everything that is expected and due.
    pub(super) fn retry(&mut self, kernel: &mut Kernel, metrics: &Metrics, clock: &Clock) {
        let now_ns = clock.now_ns();
        if self.tls.look(kernel, metrics, now_ns, ATTACH_GRACE_NS) {
            self.move_horizon("attached_late", now_ns);
        }
        for mut expected in self.expected.take_due(now_ns) {
            let now_ns = clock.now_ns();
            if !Processes::is_running(expected.pid) {
                self.ended(&expected, now_ns, metrics);
                continue;
            }
            let failure = self.look(&mut expected, kernel, metrics, clock);
            if expected.gap_ns > ATTACH_GRACE_NS
                && self.horizon_ns < expected.unseen_since_ns + expected.gap_ns
            {
                self.move_horizon("attached_late", clock.now_ns());
            }
            match failure {
                Some(_) if expected.fail() => self.expected.put_back(expected, now_ns),
                Some(failure) => drop(self.give_up(failure, metrics)),
                None if !expected.missing.is_empty() => {
                    expected.unseen_since_ns = now_ns;
                    self.expected.put_back(expected, now_ns);
                }
                None if expected.start_seen => {
                    metrics.observe_attach_gap(self.service_name(expected.service), expected.gap_ns);
                }
                None => {}
            }
        }
    }

    /// Attaches to what the process has of its missing functions. Returns what may go another time.
    fn look(
        &mut self,
        expected: &mut Expected,
        kernel: &mut Kernel,
        metrics: &Metrics,
        clock: &Clock,
    ) -> Option<AttachFailure> {
        let (services, service) = (Arc::clone(&self.services), expected.service);
        let mut passing = None;
        for function in std::mem::take(&mut expected.missing) {
            let Some(probe) = sdk_probe(&services[service], function) else { continue };
            let Some(file) = Processes::probe_file(probe, expected.pid) else {
                expected.missing.push(function);
                continue;
            };
            match self.attach(kernel, service, function, probe, &file, clock) {
                Ok(since_ns) => {
                    let gap_ns = since_ns.saturating_sub(expected.unseen_since_ns);
                    expected.gap_ns = expected.gap_ns.max(gap_ns);
                }
                Err(failure) if failure.passing => {
                    expected.missing.push(function);
                    passing = Some(failure);
                }
                Err(failure) => drop(self.give_up(failure, metrics)),
            }
        }
        passing
    }

    /// A process ended before all of its probes were known to be in place. They were if it had the files that its
    /// service is known by; else what it did last was not seen.
    fn ended(&mut self, expected: &Expected, now_ns: u64, metrics: &Metrics) {
        let in_place = |function: &SdkFunction| {
            self.sites.iter().any(|(site, state)| {
                site.service == expected.service
                    && site.function == *function
                    && state.as_ref().is_ok_and(|in_place| in_place.since_ns <= expected.unseen_since_ns)
            })
        };
        if expected.missing.iter().all(in_place) {
            if expected.start_seen {
                metrics.observe_attach_gap(self.service_name(expected.service), expected.gap_ns);
            }
        } else {
            self.move_horizon("ended_unprobed", now_ns);
        }
    }

    /// Counts and logs what will not be tried again, once for each place.
    #[expect(clippy::unused_self, reason = "coverage is what has a hole")]
    fn give_up(&self, failure: AttachFailure, metrics: &Metrics) -> AttachFailure {
        if failure.is_new {
            tracing::error!(error = failure.text, probe = failure.place, "a probe cannot be put in place");
            metrics.attach_errors.with_label_values(&[failure.reason]).inc();
        }
        failure
    }

    /// From `timestamp_ns` on everything is known; what reaches further back may have been missed.
    fn move_horizon(&mut self, reason: &'static str, timestamp_ns: u64) {
        self.horizon_ns = timestamp_ns;
        self.moves.push(HorizonMove { reason, timestamp_ns });
    }

    /// The horizon was moved for another reason than probes.
    pub(super) fn note_horizon(&mut self, timestamp_ns: u64) {
        self.horizon_ns = timestamp_ns;
    }

    /// Moves of the horizon that are to be made, in their order.
    pub(super) fn take_moves(&mut self) -> Vec<HorizonMove> {
        std::mem::take(&mut self.moves)
    }

    /// Is every probe of the configuration in place?
    pub(super) fn is_complete(&self) -> bool {
        self.states().iter().all(|state| state.missing.is_none())
    }

    /// Every probe of the configuration and whether it is in place.
    pub(super) fn states(&self) -> Vec<ProbeState> {
        let mut states = Vec::new();
        for (index, service) in self.services.iter().enumerate() {
            let mut state = |what: &str, missing: Option<String>, awaited: Option<String>| {
                let name = format!("{}/{what}", service.name);
                states.push(ProbeState { name, missing, awaited, unheard_requests: 0 });
            };
            if service.request.is_some() {
                state("request", self.hooks_missing(&SEND_HOOKS), None);
            }
            for (function, probe) in sdk_probes(service) {
                match self.sdk_awaited(index, function, probe) {
                    Some((text, true)) => state(function.name(), Some(text), None),
                    Some((text, false)) => state(function.name(), None, Some(text)),
                    None => state(function.name(), self.sdk_missing(index, function), None),
                }
            }
            if service.report.is_some() {
                let hooks = self.hooks_missing(&[Hook::Connect]);
                state("report", hooks.or_else(|| self.unknown_names[index].clone()), None);
            }
        }
        states.extend(self.pods.clone());
        states
    }

    /// Is the service's probe on that function in place in any file?
    pub(super) fn is_attached(&self, service: &str, function: SdkFunction) -> bool {
        self.sites.iter().any(|(site, state)| {
            site.function == function && state.is_ok() && self.service_name(site.service) == service
        })
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
            if has_tls(service) {
                counts.insert((index, Hook::TlsWrite.name()), self.tls.file_count());
            }
        }
        for (site, state) in &self.sites {
            *counts.entry((site.service, site.function.name())).or_default() +=
                state.as_ref().map_or(0, |in_place| in_place.places);
        }
        counts.into_iter().map(|((service, hook), count)| (self.service_name(service), hook, count)).collect()
    }

    pub(super) fn service_name(&self, service: usize) -> &str {
        &self.services[service].name
    }

    /// Attaches to a file unless that was done, by this process or by one before it. Returns since when the probe is
    /// in place, in nanoseconds since the Unix epoch; of one that was there before this process,
    /// [`WITHOUT_GAP_NS`].
    fn attach(
        &mut self,
        kernel: &mut Kernel,
        service: usize,
        function: SdkFunction,
        probe: &SdkProbe,
        file: &Path,
        clock: &Clock,
    ) -> Result<u64, AttachFailure> {
        let failure = |text: String, reason, passing, is_new| AttachFailure {
            text,
            reason,
            passing,
            is_new,
            place: probe.place.clone(),
        };
        let (key, result) = match FileIdentity::of(file) {
            Ok(identity) => {
                let key = SiteKey { service, function, file: identity };
                if let Some(known) = self.sites.get(&key) {
                    let known = known.clone().map(|in_place| in_place.since_ns);
                    return known.map_err(|text| failure(text, "known", false, false));
                }
                let result = attach_site(kernel, &key, probe, file);
                (Some(key), result)
            }
            Err(error) => (None, Err(SiteError::File(error))),
        };
        let result = match result {
            Ok(Attached { places, new }) => {
                // What the link of /proc leads to says more than its own name.
                let name = fs::read_link(file).unwrap_or_else(|_| PathBuf::from(file));
                let (function, target, file) = (function.name(), &probe.target, name.display());
                tracing::info!(function, %target, places, new, %file, "attached");
                Ok(InPlace { since_ns: if new { clock.now_ns() } else { WITHOUT_GAP_NS }, places })
            }
            // The way to a file leads through a process, which may have ended meanwhile.
            Err(error) if error.is_passing() || !file.exists() => {
                return Err(failure(error.to_string(), error.reason(), true, true));
            }
            Err(error) => Err(failure(error.to_string(), error.reason(), false, true)),
        };
        if let Some(key) = key {
            self.sites.insert(key, result.as_ref().copied().map_err(|failure| failure.text.clone()));
        }
        result.map(|in_place| in_place.since_ns)
    }

    fn hooks_missing(&self, needed: &[Hook]) -> Option<String> {
        let missing: Vec<_> =
            needed.iter().filter(|hook| !self.hooks.contains(hook)).map(|hook| hook.name()).collect();
        (!missing.is_empty()).then(|| format!("no hook on {}", missing.join(", ")))
    }

    /// The file of the probe, where no process has it yet: what is waited for, and whether a process runs that
    /// should have it.
    fn sdk_awaited(&self, service: usize, function: SdkFunction, probe: &SdkProbe) -> Option<(String, bool)> {
        if self.sites.keys().any(|site| site.service == service && site.function == function) {
            return None;
        }
        let file = probe.library.as_deref().unwrap_or("the executable");
        if self.expected.misses(service, function) {
            return Some((format!("{file} is in no process of the service yet; it is looked for"), true));
        }
        Some((format!("no process of the service runs; {file} is looked for when one starts"), false))
    }

    fn sdk_missing(&self, service: usize, function: SdkFunction) -> Option<String> {
        let mut of_probe =
            self.sites.iter().filter(|(site, _)| site.service == service && site.function == function);
        of_probe.find_map(|(_, state)| state.clone().err())
    }
}

/// Why a probe is not in place.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub(super) struct AttachFailure {
    text: String,
    /// As the label has it.
    reason: &'static str,
    /// It may go another time.
    passing: bool,
    /// It was not known before.
    is_new: bool,
    /// Where the probe stands in the configuration.
    place: String,
}

const SEND_HOOKS: [Hook; 5] = [Hook::Sendto, Hook::Sendmsg, Hook::Sendmmsg, Hook::Write, Hook::Writev];

/// Are the service's messages of interest where it encrypts them?
fn has_tls(service: &Service) -> bool {
    service.request.as_ref().is_some_and(|request| request.tls)
}

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
