//! The one thread that takes everything from the ring to the metrics.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
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

use super::{coverage::Coverage, durability, durability::Durability, state::State};
use crate::{
    attach::{Counters, Kernel, Ring},
    discover::Verdict,
    durable::{Batch, Input},
    ingest::{
        clock::Clock,
        decode::decode,
        interpret::{Interpreter, Reading, Reason},
    },
    telemetry::{RECEIVED_EVENT, RECEIVED_PROCESS},
};

/// The ring is looked at this often, in nanoseconds, when the kernel side does not ask for it sooner.
const DRAIN_INTERVAL_NS: i64 = 20_000_000;
/// Records that are journaled together; what they took on the ring is given back after that.
const MAX_RECORDS_PER_BATCH: usize = 1024;
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
    pub(super) interpreter: Interpreter,
    pub(super) coverage: Coverage,
    pub(super) state: State,
    pub(super) durability: Option<Durability>,
    pub(super) clock: Clock,
    /// The last heartbeat that the state has had and the journal has not.
    pub(super) heartbeat_ns: Option<u64>,
    /// A position of the ring: past it, everything was made after this time of the start.
    pub(super) catch_up: (u64, u64),
    /// Events without room on the ring, at the start of a run that continues another; taken once the
    /// ring was emptied.
    pub(super) ring_full: Option<u64>,
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
                // Where probes stay, whoever comes next goes on with what they capture meanwhile.
                if !self.kernel.is_pinned() {
                    self.kernel.set_capture(false)?;
                }
            }
            self.wait()?;
            // Taken before the look at the ring: what is made meanwhile may be missed by it.
            let now_ns = self.clock.now_ns();
            self.state.processes.follow_idle(now_ns, self.clock.step_ns());
            let (taken, emptied) = self.drain()?;
            let (start_position, start_ns) = self.catch_up;
            let passed_start = caught_up.is_some() && self.ring.read_position() > start_position;
            if emptied || passed_start {
                let now_ns = if emptied { now_ns } else { start_ns };
                self.state.heartbeat(now_ns);
                self.heartbeat_ns = Some(now_ns);
            }
            if emptied {
                self.note_overflow()?;
            }
            self.look_for_files()?;
            if swept.elapsed() >= SWEEP_INTERVAL {
                swept = Instant::now();
                self.sweep();
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
            let State { publisher, join, processes, .. } = &mut self.state;
            publisher.publish(join, processes, &self.coverage, now_ns);
            if let Some(caught_up) = caught_up.take_if(|_| emptied || passed_start) {
                // Nobody listens any more only when the process is on its way out.
                let _ = caught_up.send(());
            }
            if stopping && (taken == 0 || emptied && self.kernel.is_pinned()) {
                break;
            }
        }
        if let Some(recording) = &mut self.state.recording {
            recording.flush()?;
        }
        if let Some(durability) = &mut self.durability {
            durability.checkpoint_now(&mut self.state, self.ring.read_position())?;
        }
        let pending = self.state.join.pending();
        tracing::info!(
            ?pending,
            kept = self.durability.is_some(),
            "finished; what is pending was not decided"
        );
        Ok(())
    }

    /// Waits until the kernel side asks for a look at the ring, or it is time for one.
    fn wait(&self) -> anyhow::Result<()> {
        let timeout = Timespec { tv_sec: 0, tv_nsec: DRAIN_INTERVAL_NS };
        match poll(&mut [PollFd::new(&self.ring, PollFlags::IN)], Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error).context("cannot wait for the ring buffer"),
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
            let (hook, reading) = match decode(bytes) {
                Ok(record) => (record.head.hook, self.interpreter.read(&record, &mut self.state.processes)),
                Err(error) => {
                    tracing::warn!(%error, len = bytes.len(), "a record cannot be read");
                    // Which hook it came from is not known; it is counted in the last row.
                    (Hook::Exit, Reading::Nothing(Reason::Undecodable))
                }
            };
            let outcome = match reading {
                Reading::Event(event) => {
                    batch.inputs.push(Input::Event(event));
                    RECEIVED_EVENT
                }
                Reading::Process { pid, verdict, new_program_ns } => {
                    self.follow(pid, verdict, new_program_ns);
                    RECEIVED_PROCESS
                }
                Reading::Nothing(reason) => reason.name(),
            };
            batch.count(hook.name(), outcome);
        }
        (batch, MAX_RECORDS_PER_BATCH)
    }

    /// Journals a batch, gives the ring's room back to the kernel, and takes the batch in; in this order,
    /// so that a record is always on the ring or in the journal, and nothing is shown that a restart
    /// could take back.
    fn commit(&mut self, mut batch: Batch) -> anyhow::Result<()> {
        let changes = self.state.processes.take_changes();
        if batch.inputs.is_empty() && batch.received.is_empty() && changes.is_empty() {
            // What was given back unsent has to go all the same.
            self.ring.release(self.ring.read_position());
            return Ok(());
        }
        let position = self.ring.read_position();
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
        let late_ns = self.coverage.retry(&mut self.kernel, &self.state.publisher.metrics, &self.clock);
        if let Some(late_ns) = late_ns {
            self.move_horizon("attached_late", late_ns)?;
        }
        // Not before the horizon is journaled: a successor that finds the probe asks no further.
        Ok(self.kernel.pin_sdk()?)
    }

    /// Has the kernel side capture what the process sends. A full table is counted and no reason to end.
    fn trace(&mut self, pid: u32) {
        if let Err(error) = self.kernel.trace_process(pid) {
            tracing::error!(%error, pid, "what the process sends is not seen");
            self.state.publisher.metrics.attach_errors.with_label_values(&["targets_full"]).inc();
        }
    }

    /// Carries out what was decided on a process.
    fn follow(&mut self, pid: u32, verdict: Option<Verdict>, new_program_ns: Option<u64>) {
        match verdict {
            Some(Verdict::Trace) => {
                self.trace(pid);
                if let (Some(since_ns), Some(process)) = (new_program_ns, self.state.processes.get(pid)) {
                    let service = process.service;
                    self.coverage.expect(pid, service, since_ns);
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
        }
    }

    /// Finds processes whose start was missed.
    fn scan(&mut self) -> anyhow::Result<()> {
        let known = self.kernel.processes();
        for pid in self.state.processes.scan() {
            self.trace(pid);
            let now_ns = self.clock.now_ns();
            if !known.contains(&pid) {
                tracing::warn!(pid, "a process of a service was found that no exec record announced");
                self.move_horizon("start_missed", now_ns)?;
            }
            if let Some(process) = self.state.processes.get(pid) {
                let service = process.service;
                self.coverage.expect(pid, service, now_ns);
            }
        }
        Ok(())
    }
}
