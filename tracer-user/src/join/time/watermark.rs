//! How far event time has come: the least of what the live sources have reached.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::join::event::SourcePrint;

/// The newest timestamp of each live source, and the watermark that follows from them.
///
/// A source is idle when it is more than the idle timeout behind the newest of all, in event time.
/// Idle sources are dropped: an idle source that sends something no newer than before would be idle
/// still, because the newest of all never goes back, so there is nothing to remember about it.
#[derive(Debug)]
pub(in super::super) struct Watermark {
    lateness_ns: u64,
    idle_timeout_ns: u64,
    progress: Progress,
    /// Where each live source is in the tree.
    leaves: BTreeMap<SourcePrint, usize>,
    sources: Vec<SourcePrint>,
    /// Leaves of sources that were dropped.
    free: Vec<usize>,
    /// A tree of the least newest timestamp: node 1 is its root, the second half are the leaves. A
    /// leaf without a source is at the end of time.
    least_ns: Vec<u64>,
    /// The source that was heard of last, and its newest timestamp.
    last: Option<(SourcePrint, u64)>,
}

/// What a watermark has come to, whatever its configuration.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(in super::super) struct Progress {
    newest_ns: u64,
    watermark_ns: u64,
    is_known: bool,
}

impl Progress {
    pub(in super::super) fn watermark_ns(&self) -> u64 {
        self.watermark_ns
    }
}

impl Watermark {
    pub(in super::super) fn new(lateness_ns: u64, idle_timeout_ns: u64) -> Self {
        Self {
            lateness_ns,
            idle_timeout_ns,
            progress: Progress::default(),
            leaves: BTreeMap::new(),
            sources: Vec::new(),
            free: Vec::new(),
            least_ns: Vec::new(),
            last: None,
        }
    }

    /// Makes one that knows nothing yet come as far as `progress` and `sources` say.
    pub(in super::super) fn restore(&mut self, progress: Progress, sources: &[(SourcePrint, u64)]) {
        self.progress = progress;
        let sources: BTreeMap<SourcePrint, u64> = sources.iter().copied().collect();
        for (source, newest_ns) in sources {
            let leaf = self.add(source);
            self.set(leaf, newest_ns);
            self.progress.newest_ns = self.progress.newest_ns.max(newest_ns);
        }
    }

    pub(in super::super) fn progress(&self) -> Progress {
        self.progress
    }

    /// The live sources with their newest timestamps.
    pub(in super::super) fn sources(&self) -> Vec<(SourcePrint, u64)> {
        self.leaves.iter().map(|(source, leaf)| (*source, self.least_ns[self.node_of(*leaf)])).collect()
    }

    /// Whether any source was ever heard of.
    pub(in super::super) fn is_known(&self) -> bool {
        self.progress.is_known
    }

    /// Events before this are late. 0, so that none is, while nothing is known.
    pub(in super::super) fn get_ns(&self) -> u64 {
        self.progress.watermark_ns
    }

    /// What it takes, spare room included.
    pub(in super::super) fn bytes(&self) -> u64 {
        // A node of the map has room for eleven entries and is at least half full.
        let map = self.leaves.len() * 2 * size_of::<(SourcePrint, usize)>();
        (map + (self.sources.capacity() + self.free.capacity() + self.least_ns.capacity()) * 8) as u64
    }

    /// A source has come this far, by an event or by a heartbeat.
    #[inline]
    pub(in super::super) fn observe(&mut self, source: SourcePrint, timestamp_ns: u64) {
        // Few events are the newest of their source, where many come out of order.
        let is_behind = |(last, newest_ns)| last == source && timestamp_ns <= newest_ns;
        if !self.last.is_some_and(is_behind) {
            self.come_to(source, timestamp_ns);
        }
    }

    #[inline(never)]
    fn come_to(&mut self, source: SourcePrint, timestamp_ns: u64) {
        self.progress.is_known = true;
        let leaf = match self.leaves.get(&source) {
            Some(leaf) => {
                let newest_ns = self.least_ns[self.node_of(*leaf)];
                if newest_ns >= timestamp_ns {
                    self.last = Some((source, newest_ns));
                    return;
                }
                *leaf
            }
            None => self.add(source),
        };
        self.last = Some((source, timestamp_ns));
        self.set(leaf, timestamp_ns);
        self.progress.newest_ns = self.progress.newest_ns.max(timestamp_ns);
        self.drop_idle();
        if !self.leaves.is_empty() {
            let least_ns = self.least_ns[1].saturating_sub(self.lateness_ns);
            self.progress.watermark_ns = self.progress.watermark_ns.max(least_ns);
        }
    }

    /// Does not wait any longer for what is before this time.
    pub(in super::super) fn force(&mut self, watermark_ns: u64) {
        self.progress.watermark_ns = self.progress.watermark_ns.max(watermark_ns);
    }

    /// No event is to come that is not late.
    pub(in super::super) fn close(&mut self) {
        let progress = Progress { is_known: true, watermark_ns: u64::MAX, ..self.progress };
        *self = Self { progress, ..Self::new(self.lateness_ns, self.idle_timeout_ns) };
    }

    fn drop_idle(&mut self) {
        while !self.leaves.is_empty() && self.progress.newest_ns - self.least_ns[1] > self.idle_timeout_ns {
            let leaves = self.least_ns.len() / 2;
            let mut node = 1;
            while node < leaves {
                node = 2 * node + usize::from(self.least_ns[2 * node] != self.least_ns[node]);
            }
            let leaf = node - leaves;
            self.leaves.remove(&self.sources[leaf]);
            self.set(leaf, u64::MAX);
            self.free.push(leaf);
            self.last = None;
        }
    }

    /// Gives a source a leaf.
    fn add(&mut self, source: SourcePrint) -> usize {
        let leaf = match self.free.pop() {
            Some(leaf) => {
                self.sources[leaf] = source;
                leaf
            }
            None => {
                self.sources.push(source);
                self.sources.len() - 1
            }
        };
        if leaf >= self.least_ns.len() / 2 {
            let leaves = (leaf + 1).next_power_of_two();
            let before = std::mem::replace(&mut self.least_ns, vec![u64::MAX; 2 * leaves]);
            for (leaf, newest_ns) in before.into_iter().skip(leaves / 2).enumerate() {
                self.set(leaf, newest_ns);
            }
        }
        self.leaves.insert(source, leaf);
        leaf
    }

    fn set(&mut self, leaf: usize, newest_ns: u64) {
        let mut node = self.node_of(leaf);
        self.least_ns[node] = newest_ns;
        while node > 1 {
            node /= 2;
            let least_ns = self.least_ns[2 * node].min(self.least_ns[2 * node + 1]);
            if self.least_ns[node] == least_ns {
                break;
            }
            self.least_ns[node] = least_ns;
        }
    }

    fn node_of(&self, leaf: usize) -> usize {
        self.least_ns.len() / 2 + leaf
    }
}
