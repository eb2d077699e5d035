//! The join for events with strings: turns ids into fingerprints, labels into keys, and back.

use std::sync::Arc;

use super::config::JoinConfig;
use super::decision::{Decision, Sink};
use super::engine::Engine;
use super::event::{JoinEvent, SourcePrint};
use super::evict::Evicted;
use super::fingerprint::Fingerprinter;
use super::labels::LabelsTable;
use super::pending::Pending;
use super::restore::RestoreError;
use super::snapshot::Snapshot;
use crate::domain::{Event, Kind, Outcome};

/// The join of all sources. Feed it every event; take its outcomes.
#[derive(Debug)]
pub struct Join {
    engine: Engine,
    prints: Fingerprinter,
    labels: LabelsTable,
    /// The last source asked for. It is kept alive, so that its address is no other source's.
    last_source: Option<(Arc<str>, SourcePrint)>,
}

impl Join {
    /// A join that knows nothing yet and whose coverage is unbounded.
    pub fn new(config: JoinConfig) -> Self {
        Self {
            prints: Fingerprinter::random(),
            labels: LabelsTable::new(config.reports.clone()),
            engine: Engine::new(config),
            last_source: None,
        }
    }

    /// Takes in one event and appends what is decided by now, about this event or about earlier ones.
    /// Some of it may be appended by a later call; [`Join::heartbeat`] and [`Join::finish`] leave
    /// nothing back.
    pub fn push(&mut self, event: Event, out: &mut Vec<Outcome>) {
        let (labels, wants_report) = self.labels.key(&event.labels);
        let event = JoinEvent {
            timestamp_ns: event.timestamp_ns,
            request: self.prints.request(&event.request_id),
            item: self.prints.item(&event.item_id),
            source: self.source(&event.source),
            pid: event.pid,
            labels,
            kind: event.kind,
            wants_report,
        };
        self.engine.push(&event, &mut shared(&self.labels, out));
    }

    /// The source has seen everything up to this time, in nanoseconds since the Unix epoch, and has
    /// nothing older to send.
    pub fn heartbeat(&mut self, source: &Arc<str>, timestamp_ns: u64, out: &mut Vec<Outcome>) {
        let source = self.source(source);
        self.engine.heartbeat(source, timestamp_ns, &mut shared(&self.labels, out));
    }

    /// Moves the coverage horizon of a kind up; as [`Engine::set_horizon`].
    pub fn set_horizon(&mut self, kind: Kind, timestamp_ns: u64) {
        self.engine.set_horizon(kind, timestamp_ns);
    }

    /// Nothing was captured for some time before this one; as [`Engine::note_gap`].
    pub fn note_gap(&mut self, until_ns: u64, out: &mut Vec<Outcome>) {
        self.engine.note_gap(until_ns, &mut shared(&self.labels, out));
    }

    /// Evicts every request id whose newest sighting is at `until_ns` or before, in nanoseconds since the
    /// Unix epoch: docs/semantics.md, "The memory bound".
    pub fn evict_until(&mut self, until_ns: u64, out: &mut Vec<Outcome>) {
        self.engine.evict_until(until_ns, &mut shared(&self.labels, out));
    }

    /// There are no more events: takes all that are buffered and lets every window run out. Leaves
    /// every table empty and the watermark at the end of time.
    pub fn finish(&mut self, out: &mut Vec<Outcome>) {
        self.engine.finish(&mut shared(&self.labels, out));
    }

    /// The watermark in nanoseconds since the Unix epoch: older events are late. `None` before
    /// anything was heard of any source.
    pub fn watermark_ns(&self) -> Option<u64> {
        self.engine.watermark_ns()
    }

    /// The coverage horizon of a kind; as [`Engine::horizon_ns`].
    pub fn horizon_ns(&self, kind: Kind) -> u64 {
        self.engine.horizon_ns(kind)
    }

    /// How much waits, table by table.
    pub fn pending(&self) -> Pending {
        self.engine.pending()
    }

    /// What was given up so far to keep the memory bound.
    pub fn evicted(&self) -> Evicted {
        self.engine.evicted()
    }

    /// What the state takes in bytes, spare capacity included.
    pub fn memory_bytes(&self) -> u64 {
        self.engine.memory_bytes()
    }

    /// The whole state as it is now, in a form that can be read while the join goes on. Appends what
    /// is decided by now.
    pub fn snapshot(&mut self, out: &mut Vec<Outcome>) -> Snapshot {
        self.engine.snapshot(&self.prints, self.labels.sets(), &mut shared(&self.labels, out))
    }

    /// A join that goes on from a snapshot.
    ///
    /// # Errors
    /// The snapshot is not whole.
    pub fn restore(config: JoinConfig, snapshot: Snapshot) -> Result<Self, RestoreError> {
        let labels = LabelsTable::with_sets(config.reports.clone(), snapshot.state.labels.clone());
        let prints = snapshot.state.prints.clone();
        let engine = Engine::restore(config, snapshot)?;
        Ok(Self { engine, prints, labels, last_source: None })
    }

    #[cfg(test)]
    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    fn source(&mut self, source: &Arc<str>) -> SourcePrint {
        if let Some((last, print)) = &self.last_source
            && Arc::ptr_eq(last, source)
        {
            return *print;
        }
        let print = self.prints.source(source);
        self.last_source = Some((Arc::clone(source), print));
        print
    }
}

/// Takes decisions into `out`, with their labels.
fn shared(labels: &LabelsTable, out: &mut Vec<Outcome>) -> impl Sink {
    |decision: Decision| out.push(decision.map_labels(|key| Arc::clone(labels.get(key))))
}
