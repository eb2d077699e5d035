//! The one thread that takes everything from the ring to the metrics.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, TryRecvError},
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

use super::{
    coverage::Coverage,
    held::Held,
    pods::Pods,
    publish::Publisher,
    suspicion::{Change, Suspicion},
};
use crate::{
    attach::{Kernel, target_flags},
    config::{Network, Service},
    discover::{Answer, Processes, Verdict},
    domain::{Event, Outcome},
    export::recording::Recording,
    hold::{Counts, Gate},
    ingest::{
        clock::{self, Clock},
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
/// The start waits this long for the names of collectors: a resolver that does not answer is no reason
/// not to trace.
const FIRST_ANSWERS: Duration = Duration::from_secs(3);
/// All processes are looked at this often, as a net under the exec records.
const SCAN_INTERVAL: Duration = Duration::from_secs(5);

/// Everything the thread owns.
pub(super) struct Worker {
    pub(super) kernel: Kernel,
    pub(super) ring: RingBuf<MapData>,
    pub(super) processes: Processes,
    pub(super) services: Arc<[Service]>,
    pub(super) interpreter: Interpreter,
    /// What names of collectors are answered with; none where there are no names.
    pub(super) answers: Option<Receiver<Answer>>,
    /// Collectors that the kernel side knows.
    pub(super) collectors: BTreeSet<(Network, u16)>,
    pub(super) coverage: Coverage,
    pub(super) pods: Pods,
    /// What waits for pods.
    pub(super) held: Held,
    pub(super) join: Join,
    pub(super) recording: Option<Recording>,
    pub(super) suspicion: Suspicion,
    pub(super) publisher: Publisher,
    /// Holds programs until they are probed, where that is configured and works.
    pub(super) gate: Option<Gate>,
    pub(super) source: Arc<str>,
    pub(super) clock: Clock,
    /// What the current record tells; empty in between.
    pub(super) readings: Vec<Reading>,
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
                // Before anything that takes long: nobody is to wait for a daemon that ends.
                self.gate = None;
                self.kernel.set_capture(false)?;
            }
            self.wait()?;
            self.open_gate();
            // Taken before the look at the ring: what is made meanwhile may be missed by it.
            let now_ns = self.clock.now_ns();
            self.processes.follow_idle(now_ns, self.clock.step_ns());
            let (taken, emptied) = self.drain(&mut out)?;
            self.learn_pods(&mut out)?;
            if stopping && taken == 0 {
                self.give_up_waits(&mut out)?;
            }
            if emptied && self.held.is_empty() {
                self.join.heartbeat(&self.source, now_ns, &mut out);
                self.publisher.count(&mut out);
            }
            self.learn_names()?;
            self.coverage.retry(&mut self.kernel, &self.publisher.metrics, &mut self.join, &self.clock);
            if swept.elapsed() >= SWEEP_INTERVAL {
                swept = Instant::now();
                self.sweep();
                self.give_up();
                if let Some(recording) = &mut self.recording {
                    recording.flush()?;
                }
            }
            if scanned.elapsed() >= SCAN_INTERVAL {
                scanned = Instant::now();
                self.scan();
            }
            self.kernel.flush_kernel_log();
            self.pods.publish(&self.processes, &self.publisher.metrics);
            self.publisher.publish(&self.join, &self.processes, &self.coverage, &self.suspicion, now_ns);
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
        let served = gate.take().and_then(|asks| {
            asks.iter().try_for_each(|ask| {
                let program = gate.program(ask);
                let metrics = &self.publisher.metrics;
                self.coverage.prepare(&mut self.kernel, metrics, &self.clock, &program, ask);
                gate.answer(ask)
            })
        });
        self.publisher.metrics.set_held(&gate.counts());
        if let Err(error) = served {
            tracing::error!(%error, "programs are no longer held until they are probed: the process that did it is lost");
            self.publisher.metrics.attach_errors.with_label_values(&["gate_lost"]).inc();
            self.publisher.metrics.set_held(&Counts { file_systems: 0, ..gate.counts() });
            self.gate = None;
        }
    }

    /// Takes records off the ring. Returns how many, and whether none was left.
    fn drain(&mut self, out: &mut Vec<Outcome>) -> anyhow::Result<(usize, bool)> {
        for taken in 0..MAX_RECORDS_PER_TURN {
            let Some(item) = self.ring.next() else { return Ok((taken, true)) };
            let hook = match decode(&item) {
                Ok(record) => {
                    if let Some(wait) = self.interpreter.wait_of(&record, &mut self.processes) {
                        self.held.hold(wait, record.head.hook, &item);
                        continue;
                    }
                    let tell = &mut |reading| self.readings.push(reading);
                    self.interpreter.read(&record, &mut self.processes, tell);
                    record.head.hook
                }
                Err(error) => {
                    tracing::warn!(%error, len = item.len(), "a record cannot be read");
                    self.readings.push(Reading::Nothing(Reason::Undecodable));
                    // Which hook it came from is not known; it is counted in the last row.
                    Hook::Exit
                }
            };
            drop(item);
            let mut readings = std::mem::take(&mut self.readings);
            self.publisher.count_further(hook, readings.len() - 1);
            for reading in readings.drain(..) {
                self.handle(hook, reading, out)?;
            }
            self.readings = readings;
        }
        Ok((MAX_RECORDS_PER_TURN, false))
    }

    /// Says once when a probe is not hit though its service is busy, and when it is hit again.
    fn suspect(&mut self, event: &Event) {
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
            let gauge = self.publisher.metrics.suspicious.with_label_values(&[service, release, group, hook]);
            gauge.set(i64::from(is_suspicious));
        }
    }

    /// Does what follows from one thing that a record tells.
    fn handle(&mut self, hook: Hook, reading: Reading, out: &mut Vec<Outcome>) -> anyhow::Result<()> {
        self.publisher.count_reading(hook, &reading);
        match reading {
            Reading::Event(event) => {
                if let Some(event) = self.held.pass(event) {
                    self.take_event(event, out)?;
                }
            }
            Reading::Process { pid, verdict, executed_ns } => self.follow(pid, verdict, executed_ns),
            Reading::Nothing(_) => {}
        }
        Ok(())
    }

    /// Takes an event into the join.
    pub(super) fn take_event(&mut self, event: Event, out: &mut Vec<Outcome>) -> anyhow::Result<()> {
        if let Some(recording) = &mut self.recording {
            recording.write(&event)?;
        }
        self.suspect(&event);
        self.join.push(event, out);
        self.publisher.count(out);
        Ok(())
    }

    /// Gives up messages whose rest does not come.
    fn give_up(&mut self) {
        for hook in self.interpreter.give_up(clock::monotonic_ns()) {
            self.publisher.count_further(hook, 1);
            self.publisher.count_reading(hook, &Reading::Nothing(Reason::Unfinished));
        }
        self.publisher.metrics.set_streams(self.interpreter.stream_count());
    }

    /// Waits a while until each name of a collector was asked for once.
    pub(super) fn wait_for_names(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + FIRST_ANSWERS;
        for _ in self.interpreter.collectors().names() {
            let Some(answers) = &self.answers else { break };
            let Ok(answer) = answers.recv_timeout(deadline.saturating_duration_since(Instant::now())) else {
                break;
            };
            self.learn(&answer)?;
        }
        Ok(())
    }

    /// Takes what names of collectors were answered with.
    pub(super) fn learn_names(&mut self) -> anyhow::Result<()> {
        loop {
            match self.answers.as_ref().map(Receiver::try_recv) {
                None | Some(Err(TryRecvError::Empty)) => return Ok(()),
                Some(Err(TryRecvError::Disconnected)) => anyhow::bail!("the thread that looks up names died"),
                Some(Ok(answer)) => self.learn(&answer)?,
            }
        }
    }

    /// Has both sides know the addresses of a collector.
    pub(super) fn learn(&mut self, answer: &Answer) -> anyhow::Result<()> {
        self.publisher.count_answer(answer);
        self.interpreter.learn(answer);
        self.tell_collectors()
    }

    /// Brings the kernel side's table of collectors to what they are now.
    pub(super) fn tell_collectors(&mut self) -> anyhow::Result<()> {
        let table = self.interpreter.collectors().table();
        for (network, port) in self.collectors.difference(&table) {
            self.kernel.remove_collector(*network, *port);
        }
        for (network, port) in table.difference(&self.collectors) {
            self.kernel.add_collector(*network, *port)?;
        }
        self.collectors = table;
        self.coverage.set_unknown_names(self.interpreter.collectors());
        Ok(())
    }

    /// Has the kernel side capture what the process sends. A full table is counted and no reason to end.
    pub(super) fn trace(&mut self, pid: u32) {
        let services = self.processes.services_of(pid);
        if services.is_empty() {
            return;
        }
        let flags = services.iter().fold(0, |flags, service| flags | target_flags(&self.services[*service]));
        if let Err(error) = self.kernel.trace_process(pid, flags) {
            tracing::error!(%error, pid, "what the process sends is not seen");
            self.publisher.metrics.attach_errors.with_label_values(&["targets_full"]).inc();
        }
    }

    /// Carries out what was decided on a process.
    fn follow(&mut self, pid: u32, verdict: Option<Verdict>, executed_ns: Option<u64>) {
        match verdict {
            Some(Verdict::Trace) => {
                self.trace(pid);
                if let Some(executed_ns) = executed_ns {
                    self.coverage.expect(pid, &self.processes.services_of(pid), executed_ns, true);
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
            self.suspicion.forget(&labels);
        }
    }

    /// Finds processes whose start was missed.
    fn scan(&mut self) {
        let found = self.processes.scan();
        // Looked up afterwards: a process that starts during the scan is in the kernel's table by then.
        let known = self.kernel.processes();
        for pid in found {
            self.trace(pid);
            let now_ns = self.clock.now_ns();
            if !known.contains(&pid) {
                tracing::warn!(pid, "a process of a service was found that no exec record announced");
                self.coverage.move_horizon("start_missed", now_ns, &mut self.join, &self.publisher.metrics);
            }
            self.coverage.expect(pid, &self.processes.services_of(pid), now_ns, false);
        }
    }
}
