//! When and how the state is kept: the journal of each batch, and a checkpoint now and then.
//!
//! What cannot be written is said and counted, and tracing goes on: then less is remembered when the
//! process is killed, and the restart knows that.

use std::{
    io,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tracer_common::counters::{HitOutcome, Hook};

use super::state::State;
use crate::{
    attach::Counters,
    durable::{Batch, Checkpoint, DaemonState, Journal, RingPlace, StateDir},
    ingest::clock::Clock,
    telemetry::{Metrics, loses_events},
};

/// A journal that is longer than this many bytes is ended by a checkpoint before its time, so that
/// neither the disk nor the time that a restart takes grow without bound.
const MAX_JOURNAL_LEN: u64 = 256 << 20;
/// After a failure the next attempt comes this soon.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// Where the state goes on, beside what it is.
pub(super) struct Place {
    /// The ring; `None` when a restart has to make a new one.
    pub(super) ring: Option<RingPlace>,
    /// The present boot.
    pub(super) boot_id: String,
    /// Counts of earlier kernel sides.
    pub(super) earlier_hits: Vec<u64>,
    pub(super) clock: Clock,
    pub(super) counters: Arc<Counters>,
}

/// Keeps the state.
pub(super) struct Durability {
    dir: StateDir,
    pub(super) place: Place,
    interval: Duration,
    /// `None` after a failure, until the next checkpoint.
    journal: Option<Journal>,
    /// Everything that was taken in is in the journal or in a checkpoint on the disk.
    keeps_all: bool,
    journal_number: u64,
    /// Made ahead, so that nobody waits for it.
    next_journal: Option<Journal>,
    next_sequence: u64,
    due: Instant,
    writing: Option<JoinHandle<(io::Result<u64>, Option<Journal>)>>,
}

impl Durability {
    /// Begins a new journal after the batch before `next_sequence`, if the state is what is in the folder (`is_kept`); else with
    /// the next checkpoint, after which alone it makes sense. Where it cannot be written, the next checkpoint tries again.
    pub(super) fn new(
        dir: StateDir,
        place: Place,
        interval: Duration,
        next_sequence: u64,
        is_kept: bool,
        metrics: &Metrics,
    ) -> io::Result<Self> {
        let journal_number = dir.next_journal()?;
        let mut durability = Self {
            next_journal: dir.create_journal(journal_number + 1).ok(),
            journal: None,
            keeps_all: is_kept,
            dir,
            place,
            interval,
            journal_number,
            next_sequence,
            due: Instant::now() + interval,
            writing: None,
        };
        if is_kept {
            match durability.dir.create_journal(journal_number) {
                Ok(journal) => durability.journal = Some(journal),
                Err(error) => durability.lose_journal(&error, metrics),
            }
        }
        Ok(durability)
    }

    /// Is everything that was taken in kept? Only then may a probe or a kernel side be left to a successor, which relies on
    /// what goes before it.
    pub(super) const fn keeps_all(&self) -> bool {
        self.keeps_all
    }

    /// Has the next checkpoint come at once: a process that is killed again and again before its time has
    /// come would have to read a longer journal each time.
    pub(super) fn hurry(&mut self) {
        self.due = Instant::now();
    }

    /// Journals a batch and gives it its number. After this, its records may be given back to the kernel.
    pub(super) fn append(&mut self, batch: &mut Batch, metrics: &Metrics) {
        batch.sequence = self.next_sequence;
        self.next_sequence += 1;
        let Some(journal) = &mut self.journal else {
            self.keeps_all = false;
            return;
        };
        if let Err(error) = journal.append(batch) {
            self.lose_journal(&error, metrics);
        }
    }

    fn lose_journal(&mut self, error: &io::Error, metrics: &Metrics) {
        tracing::error!(%error, "the journal cannot be written: a sudden end would lose what comes now");
        metrics.checkpoint_failures.with_label_values(&["journal"]).inc();
        self.journal = None;
        self.keeps_all = false;
        self.due = self.due.min(Instant::now() + RETRY_INTERVAL);
    }

    /// Starts a checkpoint when it is time for one, and looks what became of the last.
    pub(super) fn tend(&mut self, state: &mut State, position: u64) -> anyhow::Result<()> {
        if self.writing.as_ref().is_some_and(JoinHandle::is_finished) {
            self.finish_writing(&state.publisher.metrics)?;
        }
        let too_long = self.journal.as_ref().is_some_and(|journal| journal.len() > MAX_JOURNAL_LEN);
        if self.writing.is_none() && (Instant::now() >= self.due || too_long) {
            let started = Instant::now();
            let checkpoint = self.checkpoint(state, position, false);
            let (dir, next) = (self.dir.clone(), self.journal_number + 1);
            let written_ns = checkpoint.daemon.written_ns;
            let write = move || {
                let written = dir.write_checkpoint(checkpoint).map(|()| written_ns);
                (written, dir.create_journal(next).ok())
            };
            let thread = std::thread::Builder::new().name("checkpoint".to_owned()).spawn(write);
            self.writing = Some(thread.context("cannot start the checkpoint thread")?);
            self.due = Instant::now() + self.interval;
            state.publisher.metrics.observe_checkpoint_pause(started.elapsed());
        }
        Ok(())
    }

    /// Writes a checkpoint and waits for it. `is_last`: the daemon ends with it.
    pub(super) fn checkpoint_now(
        &mut self,
        state: &mut State,
        position: u64,
        is_last: bool,
    ) -> anyhow::Result<()> {
        self.finish_writing(&state.publisher.metrics)?;
        let checkpoint = self.checkpoint(state, position, is_last);
        let written_ns = checkpoint.daemon.written_ns;
        let written = self.dir.write_checkpoint(checkpoint).map(|()| written_ns);
        self.note(written, &state.publisher.metrics);
        self.next_journal = self.dir.create_journal(self.journal_number + 1).ok();
        Ok(())
    }

    /// The state as it is now. What comes next goes to the next journal.
    fn checkpoint(&mut self, state: &mut State, position: u64, is_last: bool) -> Checkpoint {
        self.journal_number += 1;
        // Where it could not be made ahead, now is when there may be room again.
        self.journal = self.next_journal.take().or_else(|| self.dir.create_journal(self.journal_number).ok());
        let now_ns = self.place.clock.now_ns();
        let join = state.snapshot();
        let losses = state.publisher.loss_state(&state.join, &self.place.counters, now_ns);
        let daemon = DaemonState {
            source: state.source.to_string(),
            is_last,
            written_ns: now_ns,
            boot_id: self.place.boot_id.clone(),
            clock_offset_ns: self.place.clock.offset_ns(),
            ring: self.place.ring.clone(),
            next_sequence: self.next_sequence,
            journal: self.journal_number,
            position,
            counters: Counters::COUNT as u64,
            earlier_hits: self.place.earlier_hits.clone(),
            hits: self.place.counters.all(),
            numbers: state.publisher.metrics.numbers(),
            losses,
            streams: state.streams.as_changes(),
            held: state.held.as_changes(),
            processes: state.processes.as_changes(),
        };
        Checkpoint { daemon, join }
    }

    fn finish_writing(&mut self, metrics: &Metrics) -> anyhow::Result<()> {
        let Some(thread) = self.writing.take() else { return Ok(()) };
        let Ok((written, next_journal)) = thread.join() else { anyhow::bail!("the checkpoint thread died") };
        self.next_journal = next_journal;
        self.note(written, metrics);
        if self.journal.is_none() {
            self.due = self.due.min(Instant::now() + RETRY_INTERVAL);
        }
        Ok(())
    }

    fn note(&mut self, written: io::Result<u64>, metrics: &Metrics) {
        match written {
            Ok(written_ns) => {
                metrics.set_checkpoint(written_ns);
                // All before it is in the checkpoint; what came after it is not where its journal failed as well.
                self.keeps_all = self.journal.is_some();
            }
            Err(error) => {
                tracing::error!(%error, "the checkpoint cannot be written; the one before it is still there");
                metrics.checkpoint_failures.with_label_values(&["checkpoint"]).inc();
                self.due = self.due.min(Instant::now() + RETRY_INTERVAL);
            }
        }
    }
}

/// Events that found no room on the ring.
pub(super) fn ring_full(hits: &[u64]) -> u64 {
    let hooks = Hook::ALL.iter().filter(|hook| loses_events(**hook, HitOutcome::RingFull));
    hooks.map(|hook| at(hits, *hook, HitOutcome::RingFull)).sum()
}

/// A count of a table of hits; 0 where the table is of a build without it.
pub(super) fn at(hits: &[u64], hook: Hook, outcome: HitOutcome) -> u64 {
    let place = tracer_common::counters::counter_index(hook, outcome) as usize;
    hits.get(place).copied().unwrap_or_default()
}
