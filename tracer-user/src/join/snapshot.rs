//! The whole state at one moment, to be written and read back.
//!
//! The segments of packed groups, which are nearly all of it, are shared: taking a snapshot counts
//! references, and the join copies a segment of 64 KiB only if it changes it while the snapshot still
//! holds it. The rest is copied: events in the reorder buffer, open groups, processes. What follows
//! from these (index, deadlines) is left out and made again by restoring.
//!
//! Deliberately absent: files and formats. [`SnapshotState`] can be serialised by serde; a segment
//! is a sequence of words.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::config::JoinConfig;
use super::doubts::Doubts;
use super::engine::Engine;
use super::event::{JoinEvent, SourcePrint};
use super::evict::Evicted;
use super::fingerprint::Fingerprinter;
use super::open::{Decision, Open, Slab};
use super::packed::arena::{Arena, Block, Layout, SEGMENT_LINES};
use super::packed::line::Line;
use super::packed::waits::{Wait, WaitKey};
use super::pending::Pending;
use super::reports::Process;
use super::time::watermark::Progress;
use crate::domain::Labels;

/// Everything that a join knows. It can be sent to another thread and read there.
#[derive(Debug)]
pub struct Snapshot {
    state: SnapshotState,
    segments: Vec<Option<Arc<Block>>>,
}

/// All of a snapshot but its segments.
#[derive(Debug, Serialize, Deserialize)]
pub struct SnapshotState {
    prints: Fingerprinter,
    labels: Vec<Labels>,
    now_ns: u64,
    progress: Progress,
    sources: Vec<(SourcePrint, u64)>,
    request_horizon_ns: u64,
    exposure_horizon_ns: u64,
    doubts: Doubts,
    pending: Pending,
    evicted: Evicted,
    buffered: Vec<JoinEvent>,
    layouts: Vec<Layout>,
    /// As pairs: not every format has maps with such keys.
    waits: Vec<(WaitKey, Wait)>,
    open: Open,
    processes: Slab<Process>,
    processes_held_bytes: u64,
}

/// A snapshot that a join cannot go on from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// Segments are missing, or are not those of the state.
    #[error("the segments do not belong to the state")]
    Segments,
    /// A group leads to a place where nothing of it can be.
    #[error("a group of the state is damaged")]
    Group,
}

impl Snapshot {
    /// A snapshot of what was read back.
    pub fn new(state: SnapshotState, segments: impl IntoIterator<Item = Option<SnapshotSegment>>) -> Self {
        Self { state, segments: segments.into_iter().map(|segment| segment.map(|s| s.0)).collect() }
    }

    /// All of it but the segments, and these in order, absent ones included. Each that is dropped
    /// spares the join a copy.
    pub fn into_parts(self) -> (SnapshotState, impl ExactSizeIterator<Item = Option<SnapshotSegment>>) {
        (self.state, self.segments.into_iter().map(|segment| segment.map(SnapshotSegment)))
    }

    pub(super) fn labels(&self) -> &[Labels] {
        &self.state.labels
    }

    pub(super) fn prints(&self) -> &Fingerprinter {
        &self.state.prints
    }
}

/// A piece of the state that the join may still use.
#[derive(Debug, Clone)]
pub struct SnapshotSegment(Arc<Block>);

impl SnapshotSegment {
    /// How many words it has.
    pub const WORDS: usize = SEGMENT_LINES * LINE_WORDS;

    /// A segment of these words. `None` when they are not as many as they must be.
    pub fn from_words(words: &[u64]) -> Option<Self> {
        let (lines, rest) = words.as_chunks::<LINE_WORDS>();
        let lines: Block = lines.iter().map(|words| Line(*words)).collect();
        (rest.is_empty() && lines.len() == SEGMENT_LINES).then(|| Self(Arc::new(lines)))
    }

    /// Its words, eight at a time.
    pub fn words(&self) -> impl ExactSizeIterator<Item = &[u64; LINE_WORDS]> {
        self.0.iter().map(|Line(words)| words)
    }
}

const LINE_WORDS: usize = 8;

impl Engine {
    /// The whole state as it is now, in a form that can be read while the join goes on. `prints` and
    /// `labels` are what gave the events their fingerprints and keys. Appends what is decided by now.
    ///
    /// This stops the join for as long as it takes to copy what is in the reorder buffer, open groups
    /// and processes, and to count a reference for every segment.
    pub fn snapshot(
        &mut self,
        prints: &Fingerprinter,
        labels: Vec<Labels>,
        out: &mut Vec<Decision>,
    ) -> Snapshot {
        let first_new = out.len();
        self.adopt_horizons(out);
        self.advance(out);
        self.check_accounting(first_new, out);
        let state = SnapshotState {
            prints: prints.clone(),
            labels,
            now_ns: self.now_ns,
            progress: self.watermark.progress(),
            sources: self.watermark.sources(),
            request_horizon_ns: self.request_horizon_ns,
            exposure_horizon_ns: self.exposure_horizon_ns,
            doubts: self.doubts,
            pending: self.pending,
            evicted: self.evicted,
            buffered: self.reorder.events(),
            layouts: self.arena.layouts(),
            waits: self.waits.iter().map(|(key, wait)| (*key, *wait)).collect(),
            open: self.open.clone(),
            processes: self.processes.clone(),
            processes_held_bytes: self.processes_held_bytes,
        };
        Snapshot { state, segments: self.arena.share() }
    }

    /// A join that goes on from a snapshot. Its windows may be others than before.
    ///
    /// # Errors
    /// The snapshot is not whole.
    pub fn restore(config: JoinConfig, snapshot: Snapshot) -> Result<Self, RestoreError> {
        let Snapshot { state, segments } = snapshot;
        let own =
            |segment: Arc<Block>| Arc::try_unwrap(segment).unwrap_or_else(|shared| Block::clone(&shared));
        let blocks = segments.into_iter().map(|segment| segment.map(own)).collect();
        let mut engine = Self::new(config);
        engine.watermark = engine.watermark.restore(state.progress, state.sources);
        engine.now_ns = state.now_ns;
        engine.request_horizon_ns = state.request_horizon_ns;
        engine.exposure_horizon_ns = state.exposure_horizon_ns;
        engine.doubts = state.doubts;
        engine.evicted = state.evicted;
        engine.pending = state.pending;
        engine.open = state.open;
        engine.processes = state.processes;
        engine.processes_held_bytes = state.processes_held_bytes;
        engine.arena = Arena::restore(state.layouts, blocks).ok_or(RestoreError::Segments)?;
        engine.waits = state.waits.into_iter().collect();
        for event in state.buffered {
            engine.reorder.push(event);
        }
        engine.index_packed()?;
        engine.index_open()?;
        engine.index_processes();
        // The first look at the deadlines finds out.
        engine.next_deadline_ns = 0;
        #[cfg(debug_assertions)]
        {
            engine.counts = None;
        }
        Ok(engine)
    }
}
