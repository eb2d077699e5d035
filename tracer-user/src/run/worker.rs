//! The one thread that takes everything from the ring to the metrics.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::Receiver,
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use tokio::sync::oneshot;
use tracer_common::counters::Hook;

use super::{
    coverage::{Coverage, HorizonMove},
    durability,
    durability::Durability,
    pods::Pods,
    state::State,
    suspicion::{Change, Suspicion},
    takeover::STUCK,
};
use crate::{
    attach::{Counters, Kernel, Ring, pins::PinSet, target_flags},
    config::{Network, Service},
    discover::{Answer, Verdict},
    domain::Event,
    durable::{Batch, Input},
    hold::{Counts, Gate},
    ingest::{
        clock::{self, Clock},
        decode::decode,
        interpret::{Interpreter, Reading, Reason},
    },
    telemetry::{RECEIVED_EVENT, RECEIVED_PROCESS},
};

/// The ring is looked at this often, in nanoseconds, when the kernel side does not ask for it sooner.
const DRAIN_INTERVAL_NS: i64 = 20_000_000;
/// Records that are journaled together; what they took on the ring is given back after that.
pub(super) const MAX_RECORDS_PER_BATCH: usize = 1024;
/// Batches in one turn, so that other work gets its turn under any load.
const MAX_BATCHES_PER_TURN: usize = 16;
/// Processes that ended are looked for this often.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// All processes are looked at this often, as a net under the exec records.
const SCAN_INTERVAL: Duration = Duration::from_secs(5);

/// Everything the thread owns.
pub(super) struct Worker {
    pub(super) kernel: Kernel,
    pub(super) ring: Ring,
    pub(super) counters: Arc<Counters>,
    pub(super) services: Arc<[Service]>,
    pub(super) interpreter: Interpreter,
    /// What names of collectors are answered with; none where there are no names.
    pub(super) answers: Option<Receiver<Answer>>,
    /// Collectors that the kernel side knows.
    pub(super) collectors: BTreeSet<(Network, u16)>,
    pub(super) coverage: Coverage,
    pub(super) pods: Pods,
    pub(super) state: State,
    pub(super) durability: Option<Durability>,
    pub(super) suspicion: Suspicion,
    /// Holds programs until they are probed, where that is configured and works.
    pub(super) gate: Option<Gate>,
    pub(super) clock: Clock,
    /// The last heartbeat that the state has had and the journal has not.
    pub(super) heartbeat_ns: Option<u64>,
    /// A position of the ring: past it, everything was made after this time of the start.
    pub(super) catch_up: (u64, u64),
    /// Events without room on the ring, at the start of a run that continues another; taken once the
    /// ring was emptied.
    pub(super) ring_full: Option<u64>,
    /// The kernel side before this one, which is stopped: what is to be known of it is in the state by now, and not yet on
    /// the disk.
    pub(super) stopped: Option<PinSet>,
    /// What the current record tells; empty in between.
    pub(super) readings: Vec<Reading>,
}

impl Worker {
    /// Works until `stop`, then empties the ring. Says so on `caught_up` when the join has come to the
    /// time of the start: from then on, no count is lower than it was before a restart.
    pub(super) fn work(mut self, stop: &AtomicBool, caught_up: oneshot::Sender<()>) -> anyhow::Result<()> {
        let mut caught_up = Some(caught_up);
        let mut swept = Instant::now();
        let mut scanned = Instant::now();
        let mut stopping = false;
        loop {
            if !stopping && stop.load(Ordering::Relaxed) {
                stopping = true;
                // Before anything that takes long: nobody is to wait for a daemon that ends.
                self.gate = None;
                // Where probes stay, whoever comes next goes on with what they capture meanwhile.
                if !self.kernel.is_pinned() {
                    self.kernel.set_capture(false)?;
                }
            }
            self.wait()?;
            self.open_gate();
            // Taken before the look at the ring: what is made meanwhile may be missed by it.
            let now_ns = self.clock.now_ns();
            self.state.processes.follow_idle(now_ns, self.clock.step_ns());
            let (taken, emptied) = self.drain()?;
            self.learn_pods()?;
            if stopping && taken == 0 && self.durability.is_none() {
                self.give_up_waits()?;
            }
            let (start_position, start_ns) = self.catch_up;
            let passed_start = caught_up.is_some() && self.ring.read_position() > start_position;
            if emptied || passed_start {
                let reached_ns = if emptied { now_ns } else { start_ns };
                if self.state.held.is_empty() {
                    self.beat(reached_ns);
                }
            }
            if emptied {
                self.note_overflow()?;
            }
            self.learn_names()?;
            self.look_for_files()?;
            if swept.elapsed() >= SWEEP_INTERVAL {
                swept = Instant::now();
                self.sweep();
                self.give_up()?;
                if let Some(recording) = &mut self.state.recording {
                    recording.flush()?;
                }
            }
            if scanned.elapsed() >= SCAN_INTERVAL {
                scanned = Instant::now();
                self.scan()?;
            }
            if let Some(durability) = &mut self.durability {
                durability.tend(&mut self.state, self.ring.read_position())?;
            }
            self.kernel.flush_kernel_log();
            self.pods.publish(&self.state);
            let State { publisher, join, processes, .. } = &mut self.state;
            let doubts = (&self.coverage, &self.suspicion);
            publisher.publish(join, processes, doubts, &self.counters, now_ns);
            if let Some(caught_up) = caught_up.take_if(|_| emptied || passed_start) {
                // Nobody listens any more only when the process is on its way out.
                let _ = caught_up.send(());
            }
            if stopping && (taken == 0 || emptied && self.kernel.is_pinned()) {
                break;
            }
        }
        if let Some(recording) = self.state.recording.take() {
            recording.finish()?;
        }
        if let Some(durability) = &mut self.durability {
            durability.checkpoint_now(&mut self.state, self.ring.read_position(), true)?;
        }
        let pending = self.state.join.pending();
        tracing::info!(
            ?pending,
            kept = self.durability.is_some(),
            "finished; what is pending was not decided"
        );
        Ok(())
    }

    /// At a start: the join had been told of nothing later than this, in nanoseconds since the Unix epoch, nor than what is
    /// held. What it had judged by then was published.
    pub(super) fn beat_before_start(&mut self, reached_ns: u64) {
        let is_held = !self.state.held.is_empty();
        self.beat(if is_held { reached_ns.min(self.held_since_ns()) } else { reached_ns });
    }

    /// Nothing older than this can come to the join, in nanoseconds since the Unix epoch.
    fn beat(&mut self, reached_ns: u64) {
        self.state.heartbeat(reached_ns);
        self.heartbeat_ns = Some(reached_ns);
    }

    /// When the first of what is held was made, in nanoseconds since the Unix epoch.
    fn held_since_ns(&self) -> u64 {
        let first = self.state.held.first_record().and_then(|bytes| decode(bytes).ok());
        first.map_or(0, |record| self.clock.unix_ns(record.head.monotonic_ns))
    }

    /// Waits until the kernel side asks for a look at the ring, or it is time for one.
    fn wait(&self) -> anyhow::Result<()> {
        let timeout = Timespec { tv_sec: 0, tv_nsec: DRAIN_INTERVAL_NS };
        let mut sources = vec![PollFd::new(&self.ring, PollFlags::IN)];
        sources.extend(self.gate.as_ref().map(|gate| PollFd::new(gate, PollFlags::IN)));
        match poll(&mut sources, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error).context("cannot wait for the ring buffer"),
        }
    }

    /// Attaches to the programs that are held, and lets them pass.
    fn open_gate(&mut self) {
        let Some(gate) = &mut self.gate else { return };
        let publisher = &mut self.state.publisher;
        let served = gate.take().and_then(|asks| {
            asks.iter().try_for_each(|ask| {
                let program = gate.program(ask);
                self.coverage.prepare(&mut self.kernel, &publisher.metrics, &self.clock, &program, ask);
                gate.answer(ask)
            })
        });
        publisher.publish_held(&gate.counts());
        if let Err(error) = served {
            tracing::error!(%error, "programs are no longer held until they are probed: the process that did it is lost");
            publisher.metrics.attach_errors.with_label_values(&["gate_lost"]).inc();
            publisher.publish_held(&Counts { file_systems: 0, ..gate.counts() });
            self.gate = None;
        }
    }

    /// Takes records off the ring. Returns how many, and whether none was left.
    fn drain(&mut self) -> anyhow::Result<(usize, bool)> {
        let mut taken = 0;
        for _ in 0..MAX_BATCHES_PER_TURN {
            let (batch, records) = self.read_batch();
            taken += records;
            self.commit(batch)?;
            if records < MAX_RECORDS_PER_BATCH {
                return Ok((taken, true));
            }
        }
        Ok((taken, false))
    }

    /// Reads records, which stay on the ring, and says what they are. Returns how many there were.
    fn read_batch(&mut self) -> (Batch, usize) {
        let mut batch = Batch::default();
        for records in 0..MAX_RECORDS_PER_BATCH {
            let Some(bytes) = self.ring.read() else { return (batch, records) };
            let hook = match decode(bytes) {
                Ok(record) => {
                    let State { processes, streams, held, .. } = &mut self.state;
                    if let Some(wait) = self.interpreter.wait_of(&record, processes) {
                        held.hold(wait, record.head.hook, bytes);
                        continue;
                    }
                    let tell = &mut |reading| self.readings.push(reading);
                    self.interpreter.read(&record, processes, streams, tell);
                    record.head.hook
                }
                Err(error) => {
                    tracing::warn!(%error, len = bytes.len(), "a record cannot be read");
                    self.readings.push(Reading::Nothing(Reason::Undecodable));
                    // Which hook it came from is not known; it is counted in the last row.
                    Hook::Exit
                }
            };
            let mut readings = std::mem::take(&mut self.readings);
            batch.count_further(hook.name(), readings.len() as u64 - 1);
            for reading in readings.drain(..) {
                self.handle(hook, reading, &mut batch);
            }
            self.readings = readings;
        }
        (batch, MAX_RECORDS_PER_BATCH)
    }

    /// Journals a batch, gives the ring's room back to the kernel, and takes the batch in; in this order,
    /// so that a record is always on the ring or in the journal, and nothing is shown that a restart
    /// could take back.
    pub(super) fn commit(&mut self, mut batch: Batch) -> anyhow::Result<()> {
        let changes = self.state.processes.take_changes();
        batch.streams = self.state.streams.take_changes();
        batch.held = self.state.held.take_changes();
        let position = self.ring.read_position();
        // Where records were given back unsent, the position has moved with nothing to tell, and is journaled all the same:
        // a successor takes a ring that is further than the journal for one that lost something.
        if batch.is_empty() && changes.is_empty() && position == self.ring.released_position() {
            return Ok(());
        }
        if let Some(durability) = &mut self.durability {
            let before = self.heartbeat_ns.take().map(Input::Heartbeat).into_iter();
            let before = before.chain(changes.into_iter().map(Input::Process));
            batch.inputs.splice(0..0, before);
            batch.position = position;
            durability.append(&mut batch, &self.state.publisher.metrics);
        }
        self.ring.release(position);
        // The heartbeat and the changes are in the state already.
        self.state.take(batch)
    }

    /// Moves the coverage horizon to `now_ns`.
    pub(super) fn move_horizon(&mut self, reason: &'static str, now_ns: u64) -> anyhow::Result<()> {
        tracing::warn!(reason, "the coverage horizon moves to now: what came before may have been missed");
        self.coverage.note_horizon(now_ns);
        let inputs = vec![Input::Horizon { reason: reason.into(), timestamp_ns: now_ns }];
        self.commit(Batch { inputs, ..Batch::default() })
    }

    /// After a restart: did the ring overflow while nobody emptied it?
    fn note_overflow(&mut self) -> anyhow::Result<()> {
        let Some(before) = self.ring_full.take() else { return Ok(()) };
        if durability::ring_full(&self.counters.all()) > before {
            self.move_horizon("lost_while_down", self.clock.now_ns())?;
        }
        Ok(())
    }

    /// Puts probes into files that processes have only now, and has them stay.
    fn look_for_files(&mut self) -> anyhow::Result<()> {
        self.coverage.retry(&mut self.kernel, &self.state.publisher.metrics, &self.clock);
        for HorizonMove { reason, timestamp_ns } in self.coverage.take_moves() {
            self.move_horizon(reason, timestamp_ns)?;
        }
        self.leave_to_successor()
    }

    /// Has everything outlive this process that is in place by now. Not before what goes before it is kept (the horizon that
    /// a probe moved, a checkpoint that knows the ring): a successor that finds a pin asks no further.
    pub(super) fn leave_to_successor(&mut self) -> anyhow::Result<()> {
        if self.durability.as_ref().is_some_and(|durability| !durability.keeps_all()) {
            return Ok(());
        }
        self.kernel.pin_probes()?;
        if let Some(stopped) = self.stopped.take() {
            stopped.remove().context(STUCK)?;
        }
        Ok(self.kernel.complete_pins()?)
    }

    /// Says once when a probe is not hit though its service is busy, and when it is hit again.
    pub(super) fn suspect(&mut self, event: &Event) {
        let coverage = &self.coverage;
        let is_attached = |service: &str, function| coverage.is_attached(service, function);
        for change in self.suspicion.note(event, is_attached) {
            let Change { labels, function, is_suspicious, requests } = change;
            let (service, release, group) = (&*labels.service, &*labels.release, &*labels.group);
            let hook = function.name();
            if is_suspicious {
                tracing::warn!(
                    service,
                    release,
                    group,
                    hook,
                    requests,
                    "a probe is in place and was not hit once while its service sent so many requests: is it the right function, and is it still called?"
                );
            } else {
                tracing::info!(
                    service,
                    release,
                    group,
                    hook,
                    requests,
                    "a suspicious probe was hit after all"
                );
            }
            let gauge =
                self.state.publisher.metrics.suspicious.with_label_values(&[service, release, group, hook]);
            gauge.set(i64::from(is_suspicious));
        }
    }

    /// Does what follows from one thing that a record tells.
    fn handle(&mut self, hook: Hook, reading: Reading, batch: &mut Batch) {
        let outcome = match reading {
            Reading::Event(event) => {
                if let Some(event) = self.state.held.pass(event) {
                    self.suspect(&event);
                    batch.inputs.push(Input::Event(event));
                }
                RECEIVED_EVENT
            }
            Reading::Process { pid, verdict, executed_ns } => {
                self.follow(pid, verdict, executed_ns);
                RECEIVED_PROCESS
            }
            Reading::Nothing(reason) => reason.name(),
        };
        batch.count(hook.name(), outcome);
    }

    /// Gives up messages whose rest does not come.
    fn give_up(&mut self) -> anyhow::Result<()> {
        let streams = &mut self.state.streams;
        streams.forget_idle(&self.services, clock::monotonic_ns());
        let given_up = streams.take_given_up();
        self.state.publisher.metrics.set_streams(streams.count());
        self.count_unfinished(&given_up)
    }

    /// Counts messages that these hooks began, and whose rest was not seen.
    pub(super) fn count_unfinished(&mut self, hooks: &[Hook]) -> anyhow::Result<()> {
        let mut batch = Batch::default();
        for hook in hooks {
            batch.count_further(hook.name(), 1);
            batch.count(hook.name(), Reason::Unfinished.name());
        }
        self.commit(batch)
    }

    /// Has the kernel side capture what the process sends. A full table is counted and no reason to end.
    pub(super) fn trace(&mut self, pid: u32) {
        let services = self.state.processes.services_of(pid);
        if services.is_empty() {
            return;
        }
        let flags = flags_of(&self.services, &services);
        if let Err(error) = self.kernel.trace_process(pid, flags) {
            tracing::error!(%error, pid, "what the process sends is not seen");
            self.state.publisher.metrics.attach_errors.with_label_values(&["targets_full"]).inc();
        }
    }

    /// Carries out what was decided on a process.
    fn follow(&mut self, pid: u32, verdict: Option<Verdict>, executed_ns: Option<u64>) {
        match verdict {
            Some(Verdict::Trace) => {
                self.trace(pid);
                if let Some(executed_ns) = executed_ns {
                    self.coverage.expect(pid, &self.state.processes.services_of(pid), executed_ns, true);
                }
            }
            Some(Verdict::Forget) => self.kernel.forget_process(pid),
            None => {}
        }
    }

    /// Forgets processes that no longer run.
    fn sweep(&mut self) {
        for pid in self.state.processes.sweep(&self.kernel.processes()) {
            self.kernel.forget_process(pid);
        }
        for labels in self.state.processes.forget_labels() {
            self.state.publisher.metrics.forget(&labels);
            self.suspicion.forget(&labels);
        }
    }

    /// Finds processes whose start was missed.
    fn scan(&mut self) -> anyhow::Result<()> {
        let found = self.state.processes.scan();
        // Looked up afterwards: a process that starts during the scan is in the kernel's table by then.
        let known = self.kernel.processes();
        for pid in found {
            self.trace(pid);
            let now_ns = self.clock.now_ns();
            if !known.contains(&pid) {
                tracing::warn!(pid, "a process of a service was found that no exec record announced");
                self.move_horizon("start_missed", now_ns)?;
            }
            self.coverage.expect(pid, &self.state.processes.services_of(pid), now_ns, false);
        }
        Ok(())
    }
}

/// What the kernel side has to capture of a process that may be of these services.
pub(super) fn flags_of(services: &[Service], of: &[usize]) -> u32 {
    of.iter().fold(0, |flags, service| flags | target_flags(&services[*service]))
}
