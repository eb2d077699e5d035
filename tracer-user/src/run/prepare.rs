//! The start: from nothing, or from what an earlier run left, to a worker that has everything in place.

use std::{
    collections::BTreeSet,
    sync::{Arc, mpsc::SyncSender},
};

use anyhow::Context as _;

use super::{
    Options,
    coverage::Coverage,
    durability::{self, Durability, Place},
    join_config,
    pods::Pods,
    publish::Publisher,
    state::{RESTART_GAP, State},
    suspicion::Suspicion,
    takeover::{self, Restored, Takeover},
    worker::{Worker, flags_of},
};
use crate::{
    attach::{
        AttachError, Channels, Kernel, Settings,
        pins::{self, PinError, PinFolder, PinSet},
        target_flags,
    },
    config::{Config, SdkProbe, Service},
    discover::{self, Processes},
    durable::{RingPlace, StateDir},
    export::{http::Status, otlp::Triple, recording::Recording},
    hold::{Gate, Policy},
    ingest::{
        clock::{self, Clock},
        interpret::Interpreter,
    },
    preflight,
    telemetry::{KernelCollector, Metrics},
};

/// Restores what was kept, takes over or loads the kernel side, attaches everything and has capture on. Triples that are
/// judged from then on go into `traces`.
pub(super) fn prepare(
    config: &Config,
    options: &Options,
    recording: Option<Recording>,
    traces: Option<SyncSender<Triple>>,
) -> anyhow::Result<(Worker, Arc<Status>)> {
    let settings = settings(config, options)?;
    let boot_id = takeover::boot_id();
    let dir = config.state_dir.as_deref().filter(|_| options.durable).map(StateDir::open).transpose()?;
    let folder = dir.as_ref().map(|_| pin_folder(config, options)).transpose()?.flatten();
    let join_config = join_config(config);
    let kept = dir.as_ref().map(|dir| takeover::read(dir, config, &join_config)).transpose()?.flatten();
    let clock = takeover::clock(&boot_id, kept.as_ref().map(|kept| &kept.daemon))?;

    let metrics = Metrics::new().context("metrics")?;
    metrics.state_limit_bytes.set(i64::try_from(config.join.memory_limit).unwrap_or(i64::MAX));
    let status = Arc::new(Status::new(&config.source, clock::monotonic_ns));
    let services: Arc<[_]> = config.services.clone().into();
    let source: Arc<str> = config.source.as_str().into();
    let mut publisher = Publisher::new(metrics, Arc::clone(&status), clock, Arc::clone(&source), config);
    if let (Some(_), Some(settings)) = (&traces, &config.otlp) {
        publisher.prepare_traces(settings);
    }
    let (pods, book) = Pods::start(config, &publisher.metrics)?;
    let processes = Processes::new(Arc::clone(&services), book, config.discover.pod_wait);
    let mut state = State::new(join_config, publisher, processes, recording, source);
    let restored = match (&dir, kept) {
        (Some(dir), Some(kept)) => Some(takeover::restore(dir, kept, &mut state)?),
        _ => None,
    };
    if let Some(traces) = traces {
        state.publisher.tell_traces(traces);
    }

    let fingerprint = fingerprint(&settings, config);
    let takeover = takeover::take_over(folder.as_ref(), &fingerprint, &boot_id, restored.as_ref(), &state)?;
    let start = Start { boot_id, clock, restored, takeover, pods };
    start.begin(config, &settings, dir, state, status)
}

/// What is known once it is clear how to go on.
struct Start {
    boot_id: String,
    clock: Clock,
    restored: Option<Restored>,
    takeover: Takeover,
    pods: Pods,
}

impl Start {
    fn begin(
        self,
        config: &Config,
        settings: &Settings,
        dir: Option<StateDir>,
        state: State,
        status: Arc<Status>,
    ) -> anyhow::Result<(Worker, Arc<Status>)> {
        let Self { boot_id, clock, restored, takeover, pods } = self;
        let (kernel, channels) = load(settings, takeover.pins)?;
        for attached in kernel.hooks() {
            tracing::info!(hook = attached.hook.name(), kind = attached.kind.name(), "attached");
        }
        let Channels { mut ring, counters } = channels;
        let counters = Arc::new(counters);
        let metrics = &state.publisher.metrics;
        let earlier = takeover.earlier_hits.clone();
        let collector = KernelCollector::new(Arc::clone(&counters), earlier, metrics.received.clone());
        metrics.registry.register(Box::new(collector.context("metrics")?)).context("metrics")?;

        let ring_place =
            kernel.is_pinned().then(|| ring.id()).transpose().context("the ring has no number")?;
        let place = Place {
            ring: ring_place.map(|id| RingPlace { boot_id: boot_id.clone(), id }),
            boot_id,
            earlier_hits: takeover.earlier_hits,
            clock,
            counters: Arc::clone(&counters),
        };
        let next_sequence = restored.as_ref().map_or(0, |restored| restored.next_sequence);
        // What was found out on the way here is in no journal.
        let is_kept = takeover.continued.is_some();
        let durability = dir.map(|dir| {
            Durability::new(dir, place, config.checkpoint_interval, next_sequence, is_kept, metrics)
        });
        let durability = durability.transpose().context("cannot read the state_dir")?;
        if let Some(continued) = &takeover.continued {
            // What was journaled just before the end may not have been given back to the kernel yet.
            ring.release(continued.position);
        }
        let mut state = state;
        if takeover.continued.is_some() {
            state.processes.look_again(clock.now_ns());
        } else {
            state.processes.forget_known();
        }
        let services: Arc<[_]> = config.services.clone().into();
        let interpreter = Interpreter::new(Arc::clone(&services), Arc::clone(&state.source), clock);
        let names = interpreter.collectors().names();
        let answers = (!names.is_empty()).then(|| discover::resolve(names)).transpose();
        let mut worker = Worker {
            interpreter,
            answers: answers.context("cannot start the thread that looks up names")?,
            collectors: BTreeSet::new(),
            suspicion: Suspicion::new(&services),
            coverage: Coverage::new(Arc::clone(&services), kernel.hooks()),
            services,
            gate: None,
            readings: Vec::new(),
            ring,
            counters,
            pods,
            state,
            durability,
            clock,
            heartbeat_ns: None,
            catch_up: (0, 0),
            ring_full: takeover.continued.as_ref().map(|continued| continued.ring_full),
            stopped: takeover.stopped,
            kernel,
        };
        worker.drop_waits();
        worker.tell_collectors()?;
        worker.wait_for_names()?;
        if let Some(until_ns) = takeover.complete_until_ns {
            // Before the horizon moves: what had been judged by then is judged as it was.
            worker.beat_before_start(clock.unix_ns(until_ns));
        }
        if takeover.continued.is_some() {
            worker.go_on()?;
        } else {
            worker.begin(restored.is_some())?;
        }
        // Only now: what runs already is probed as it is.
        worker.gate = config.discover.hold_exec.then(|| Gate::start(&Policy::of(config))).transpose()?;
        let start_ns = clock.now_ns();
        worker.catch_up = (worker.ring.read_position() + worker.ring.unread(), start_ns);
        worker.coverage.set_pods(worker.pods.state(worker.state.processes.pods()));
        status.set_probes(worker.coverage.states());
        Ok((worker, status))
    }
}

/// Loads the kernel side. One that cannot be pinned ends with the process.
fn load(settings: &Settings, pins: Option<PinSet>) -> anyhow::Result<(Kernel, Channels)> {
    match Kernel::load(settings, pins.clone()) {
        Err(error @ AttachError::Pin { .. }) => {
            tracing::warn!(%error, "what happens while no daemon runs is not seen");
            if let Some(pins) = pins {
                pins.remove().context("cannot remove what is in the pin_dir")?;
            }
            Ok(Kernel::load(settings, None)?)
        }
        result => Ok(result?),
    }
}

fn settings(config: &Config, options: &Options) -> anyhow::Result<Settings> {
    Ok(Settings {
        offsets: preflight::layout::read(&config.btf)?,
        ring_bytes: config.ring_buffer_size,
        hooks: config.hooks,
        has_collectors: config.services.iter().any(|service| service.report.is_some()),
        pending_flags: config.services.iter().map(target_flags).fold(0, std::ops::BitOr::bitor),
        kernel_log: options.kernel_log,
    })
}

/// Tells kernel sides apart that cannot stand in for each other. What the file says elsewhere, and where
/// in it something stands, makes no difference to them.
fn fingerprint(settings: &Settings, config: &Config) -> String {
    let probe = |probe: &Option<SdkProbe>| {
        let probe = probe.as_ref()?;
        Some((probe.library.clone(), probe.target.clone(), probe.args.clone(), probe.abi))
    };
    let service = |service: &Service| {
        let Service { name, processes, request, exposure, click, report, .. } = service.clone();
        (name, processes, request, probe(&exposure), probe(&click), report)
    };
    let services: Vec<_> = config.services.iter().map(service).collect();
    pins::fingerprint(&(settings, services))
}

/// The folder for pins, where there can be one.
fn pin_folder(config: &Config, options: &Options) -> anyhow::Result<Option<PinFolder>> {
    if options.kernel_log {
        tracing::warn!("with --kernel-log, what happens while no daemon runs is not seen");
        return Ok(None);
    }
    match PinFolder::open(&config.pin_dir) {
        Ok(folder) => Ok(Some(folder)),
        Err(error @ PinError::InUse(_)) => Err(error.into()),
        Err(error) => {
            tracing::warn!(%error, "what happens while no daemon runs is not seen");
            Ok(None)
        }
    }
}

impl Worker {
    /// Goes on with a kernel side that was at work all the time.
    fn go_on(&mut self) -> anyhow::Result<()> {
        if self.ring_full.is_some_and(|before| durability::ring_full(&self.counters.all()) > before) {
            self.move_horizon("lost_while_down", self.clock.now_ns())?;
        }
        let running = self.state.processes.running();
        let State { processes, publisher, .. } = &mut self.state;
        let metrics = &publisher.metrics;
        // What is known of processes may be out of date: their ends may be on the ring.
        let new =
            self.coverage.attach_known_files(&mut self.kernel, processes, metrics, &self.clock, false)?;
        if new && !running.is_empty() {
            self.move_horizon("attached_late", self.clock.now_ns())?;
        }
        self.leave_to_successor()?;
        for pid in &running {
            // A probe that turns out to be new was not there while the process ran.
            self.coverage.expect(*pid, &self.state.processes.services_of(*pid), 0, false);
        }
        if let Some(durability) = &mut self.durability {
            durability.hurry();
        }
        tracing::info!(
            running = running.len(),
            unread = self.ring.unread(),
            "capture was on all the time; going on where the last run ended"
        );
        Ok(())
    }

    /// Begins capture. `knows_more`: of a time before this.
    fn begin(&mut self, knows_more: bool) -> anyhow::Result<()> {
        // Processes are followed by now, so none can slip in between this look and the events.
        let mut running = self.state.processes.scan();
        running.extend(self.state.processes.running());
        running.sort_unstable();
        running.dedup();
        for pid in &running {
            let services = self.state.processes.services_of(*pid);
            self.kernel.trace_process(*pid, flags_of(&self.services, &services))?;
        }
        let State { processes, publisher, .. } = &mut self.state;
        self.coverage.attach_known_files(
            &mut self.kernel,
            processes,
            &publisher.metrics,
            &self.clock,
            true,
        )?;
        for pid in &running {
            let services = self.state.processes.services_of(*pid);
            self.coverage.expect(*pid, &services, self.clock.now_ns(), false);
        }
        if knows_more {
            // Pieces of messages were missed, and other things that nobody counted.
            let unfinished = self.state.streams.abandon();
            self.count_unfinished(&unfinished)?;
            self.state.publisher.begin_anew();
        }
        self.kernel.set_capture(true)?;
        if knows_more || !running.is_empty() {
            let reason = if knows_more { RESTART_GAP } else { "process_older_than_capture" };
            self.move_horizon(reason, self.clock.now_ns())?;
        }
        let position = self.ring.read_position();
        if let Some(durability) = &mut self.durability {
            durability.checkpoint_now(&mut self.state, position, false)?;
        }
        self.leave_to_successor()?;
        tracing::info!(
            running = running.len(),
            sleepable_uprobes = self.kernel.sleepable(),
            ready = self.coverage.is_complete(),
            "capture is on"
        );
        Ok(())
    }
}
