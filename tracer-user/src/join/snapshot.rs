//! The whole state at one moment, to be written down by another thread while the join goes on.
//!
//! How to use it, in the thread of the join: [`Join::snapshot`](super::Join::snapshot), and hand the [`Snapshot`] to
//! another thread. There: [`Snapshot::into_parts`], write the [`SnapshotState`] (it is serde's, a few MB at most) and
//! then the words of each [`SnapshotSegment`], dropping each when it is written. To go on from what was written:
//! [`SnapshotSegment::from_words`], [`Snapshot::new`] and [`Join::restore`](super::Join::restore).
//!
//! *How long it stops the join.* The segments of packed groups, which are nearly all of the state, are shared: taking a
//! snapshot counts one reference for each 64 KiB, and the join copies a segment only if it changes it while the
//! snapshot still holds it, which makes that step some 10 us longer, and by what the kernel takes to clear a region of
//! memory when none has been made ahead (`region.rs`). The rest is copied at once: events in the reorder buffer, open
//! groups, processes. `cargo xtask bench join` measures the stop and the steps after it. While a snapshot
//! is held, the state may take up to twice its memory; the memory bound does not count that.
//!
//! *What it holds* is what cannot be made again from the rest; the index, the deadlines and all counts of what waits are
//! made again by `restore`, which trusts nothing. The keys of the fingerprints are part of it: who can read it
//! can make ids collide, so it belongs into a file that only the daemon reads.
//!
//! Deliberately absent: files, formats, check sums, versions.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::decision::Sink;
use super::doubts::Doubts;
use super::engine::Engine;
use super::event::{JoinEvent, SourcePrint};
use super::evict::Evicted;
use super::fingerprint::Fingerprinter;
use super::open::{Group, Key, Pair};
use super::packed::arena::{Block, Class, SEGMENT_LINES};
use super::packed::line::Line;
use super::packed::waits::{Wait, WaitKey};
use super::reports::Process;
use super::time::watermark::Progress;
use crate::domain::Labels;

/// Everything that a join knows. It can be sent to another thread and read there.
#[derive(Debug)]
pub struct Snapshot {
    pub(super) state: SnapshotState,
    pub(super) segments: Vec<Option<Arc<Block>>>,
}

/// All of a snapshot but its segments.
#[derive(Debug, Serialize, Deserialize)]
pub struct SnapshotState {
    pub(super) prints: Fingerprinter,
    pub(super) labels: Vec<Labels>,
    pub(super) now_ns: u64,
    pub(super) progress: Progress,
    pub(super) sources: Vec<(SourcePrint, u64)>,
    pub(super) request_horizon_ns: u64,
    pub(super) exposure_horizon_ns: u64,
    pub(super) doubts: Doubts,
    pub(super) evicted: Evicted,
    /// The reorder buffer.
    pub(super) buffered: Vec<JoinEvent>,
    /// What is in each segment; nothing in one that was given back.
    pub(super) classes: Vec<Option<Class>>,
    // As pairs: not every format has maps with such keys.
    pub(super) waits: Vec<(WaitKey, Wait)>,
    pub(super) groups: Vec<Group>,
    pub(super) pairs: Vec<(Key, Pair)>,
    pub(super) processes: Vec<Process>,
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
        if !rest.is_empty() || lines.len() != SEGMENT_LINES {
            return None;
        }
        let mut block = Block::filled(Line::ZERO);
        block.iter_mut().zip(lines).for_each(|(line, words)| *line = Line(*words));
        Some(Self(Arc::new(block)))
    }

    /// Its words, eight at a time.
    pub fn words(&self) -> impl ExactSizeIterator<Item = &[u64; LINE_WORDS]> {
        self.0.iter().map(|Line(words)| words)
    }
}

const LINE_WORDS: usize = 8;

impl Engine {
    /// The whole state as it is now, in a form that can be read while the join goes on. `prints` and
    /// `labels` are what gave the events their fingerprints and keys. Hands `out` what is decided by now.
    pub fn snapshot(&mut self, prints: &Fingerprinter, labels: Vec<Labels>, out: &mut impl Sink) -> Snapshot {
        self.accounted(out, |engine, out| {
            engine.adopt_horizons(out);
            engine.advance(out);
        });
        debug_assert!(self.due.is_empty(), "an event that is neither buffered nor taken");
        let state = SnapshotState {
            prints: prints.clone(),
            labels,
            now_ns: self.now_ns,
            progress: self.watermark.progress(),
            sources: self.watermark.sources(),
            request_horizon_ns: self.request_horizon_ns,
            exposure_horizon_ns: self.exposure_horizon_ns,
            doubts: self.doubts,
            evicted: self.evicted,
            buffered: self.reorder.events(),
            classes: self.arena.classes(),
            waits: self.waits.iter().map(|(key, wait)| (*key, *wait)).collect(),
            groups: self.open.groups.iter().map(|(_, group)| group.clone()).collect(),
            pairs: self.open.pairs.iter().map(|(key, pair)| (key, pair.clone())).collect(),
            processes: self.processes.iter().map(|(_, process)| process.clone()).collect(),
        };
        Snapshot { state, segments: self.arena.share() }
    }
}
