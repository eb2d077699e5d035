//! The one thread that takes everything from the ring to the metrics.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use aya::maps::{MapData, RingBuf};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use tracer_common::counters::Hook;

use super::{coverage::Coverage, publish::Publisher};
use crate::{
    attach::Kernel,
    discover::{Processes, Verdict},
    domain::Outcome,
    export::recording::Recording,
    ingest::{
        clock::Clock,
        decode::decode,
        interpret::{Interpreter, Reading, Reason},
    },
    join::Join,
};

/// The ring is looked at this often, in nanoseconds, when the kernel side does not ask for it sooner.
const DRAIN_INTERVAL_NS: i64 = 20_000_000;
/// Records taken in one turn, so that other work gets its turn under any load.
const MAX_RECORDS_PER_TURN: usize = 16_384;
/// Processes that ended are looked for this often.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// All processes are looked at this often, as a net under the exec records.
const SCAN_INTERVAL: Duration = Duration::from_secs(5);

/// Everything the thread owns.
pub(super) struct Worker {
    pub(super) kernel: Kernel,
    pub(super) ring: RingBuf<MapData>,
    pub(super) processes: Processes,
    pub(super) interpreter: Interpreter,
    pub(super) coverage: Coverage,
    pub(super) join: Join,
    pub(super) recording: Option<Recording>,
    pub(super) publisher: Publisher,
    pub(super) source: Arc<str>,
    pub(super) clock: Clock,
}

impl Worker {
    /// Works until `stop`, then empties the ring.
    pub(super) fn work(mut self, stop: &AtomicBool) -> anyhow::Result<()> {
        let mut out = Vec::new();
        let mut swept = Instant::now();
        let mut scanned = Instant::now();
        let mut stopping = false;
        loop {
            if !stopping && stop.load(Ordering::Relaxed) {
                stopping = true;
                self.kernel.set_capture(false)?;
            }
            self.wait()?;
            // Taken before the look at the ring: what is made meanwhile may be missed by it.
            let now_ns = self.clock.now_ns();
            self.processes.follow_idle(now_ns, self.clock.step_ns());
            let (taken, emptied) = self.drain(&mut out)?;
            if emptied {
                self.join.heartbeat(&self.source, now_ns, &mut out);
                self.publisher.count(&mut out);
            }
            self.coverage.retry(&mut self.kernel, &self.publisher.metrics, &mut self.join, &self.clock)?;
            if swept.elapsed() >= SWEEP_INTERVAL {
                swept = Instant::now();
                self.sweep();
                if let Some(recording) = &mut self.recording {
                    recording.flush()?;
                }
            }
            if scanned.elapsed() >= SCAN_INTERVAL {
                scanned = Instant::now();
                self.scan();
            }
            self.kernel.flush_kernel_log();
            self.publisher.publish(&self.join, &self.processes, &self.coverage, now_ns);
            if stopping && taken == 0 {
                break;
            }
        }
        if let Some(recording) = self.recording.take() {
            recording.finish()?;
        }
        let pending = self.join.pending();
        tracing::info!(?pending, "finished; what is pending was not decided");
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
    fn drain(&mut self, out: &mut Vec<Outcome>) -> anyhow::Result<(usize, bool)> {
        for taken in 0..MAX_RECORDS_PER_TURN {
            let Some(item) = self.ring.next() else { return Ok((taken, true)) };
            let (hook, reading) = match decode(&item) {
                Ok(record) => (record.head.hook, self.interpreter.read(&record, &mut self.processes)),
                Err(error) => {
                    tracing::warn!(%error, len = item.len(), "a record cannot be read");
                    // Which hook it came from is not known; it is counted in the last row.
                    (Hook::Exit, Reading::Nothing(Reason::Undecodable))
                }
            };
            drop(item);
            self.publisher.count_reading(hook, &reading);
            match reading {
                Reading::Event(event) => {
                    if let Some(recording) = &mut self.recording {
                        recording.write(&event)?;
                    }
                    self.join.push(event, out);
                    self.publisher.count(out);
                }
                Reading::Process { pid, verdict, new_program } => self.follow(pid, verdict, new_program),
                Reading::Nothing(_) => {}
            }
        }
        Ok((MAX_RECORDS_PER_TURN, false))
    }

    /// Has the kernel side capture what the process sends. A full table is counted and no reason to end.
    fn trace(&mut self, pid: u32) {
        if let Err(error) = self.kernel.trace_process(pid) {
            tracing::error!(%error, pid, "what the process sends is not seen");
            self.publisher.metrics.attach_errors.with_label_values(&["targets_full"]).inc();
        }
    }

    /// Carries out what was decided on a process.
    fn follow(&mut self, pid: u32, verdict: Option<Verdict>, new_program: bool) {
        match verdict {
            Some(Verdict::Trace) => {
                self.trace(pid);
                if new_program && let Some(process) = self.processes.get(pid) {
                    let service = process.service;
                    self.coverage.expect(pid, service, self.clock.now_ns());
                }
            }
            Some(Verdict::Forget) => self.kernel.forget_process(pid),
            None => {}
        }
    }

    /// Forgets processes that no longer run.
    fn sweep(&mut self) {
        for pid in self.processes.sweep(&self.kernel.processes()) {
            self.kernel.forget_process(pid);
        }
        for labels in self.processes.forget_labels() {
            self.publisher.metrics.forget(&labels);
        }
    }

    /// Finds processes whose start was missed.
    fn scan(&mut self) {
        let known = self.kernel.processes();
        for pid in self.processes.scan() {
            self.trace(pid);
            let now_ns = self.clock.now_ns();
            if !known.contains(&pid) {
                tracing::warn!(pid, "a process of a service was found that no exec record announced");
                self.coverage.move_horizon("start_missed", now_ns, &mut self.join, &self.publisher.metrics);
            }
            if let Some(process) = self.processes.get(pid) {
                let service = process.service;
                self.coverage.expect(pid, service, now_ns);
            }
        }
    }
}
