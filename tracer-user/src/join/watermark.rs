//! How far event time has come: the least of what the live sources have reached.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// The newest timestamp of each live source, and the watermark that follows from them.
///
/// A source is idle when it is more than the idle timeout behind the newest of all, in event time.
/// Idle sources are dropped: an idle source that sends something no newer than before would be idle
/// still, because the newest of all never goes back, so there is nothing to remember about it.
#[derive(Debug)]
pub(super) struct Watermark {
    lateness_ns: u64,
    idle_timeout_ns: u64,
    newest_ns: u64,
    watermark_ns: u64,
    known: bool,
    newest_of_source: HashMap<Arc<str>, u64>,
    /// The same, the one furthest behind first.
    by_progress: BTreeSet<(u64, Arc<str>)>,
}

impl Watermark {
    pub(super) fn new(lateness_ns: u64, idle_timeout_ns: u64) -> Self {
        Self {
            lateness_ns,
            idle_timeout_ns,
            newest_ns: 0,
            watermark_ns: 0,
            known: false,
            newest_of_source: HashMap::new(),
            by_progress: BTreeSet::new(),
        }
    }

    /// Whether any source was ever heard of.
    pub(super) fn is_known(&self) -> bool {
        self.known
    }

    /// Events before this are late. 0, so that none is, while nothing is known.
    pub(super) fn get_ns(&self) -> u64 {
        self.watermark_ns
    }

    /// A source has come this far, by an event or by a heartbeat.
    pub(super) fn observe(&mut self, source: &Arc<str>, timestamp_ns: u64) {
        self.known = true;
        match self.newest_of_source.get_mut(source) {
            Some(newest_ns) if *newest_ns >= timestamp_ns => return,
            Some(newest_ns) => {
                self.by_progress.remove(&(*newest_ns, Arc::clone(source)));
                *newest_ns = timestamp_ns;
            }
            None => {
                self.newest_of_source.insert(Arc::clone(source), timestamp_ns);
            }
        }
        self.by_progress.insert((timestamp_ns, Arc::clone(source)));
        self.newest_ns = self.newest_ns.max(timestamp_ns);
        self.drop_idle();
        if let Some((least_ns, _)) = self.by_progress.first() {
            self.watermark_ns = self.watermark_ns.max(least_ns.saturating_sub(self.lateness_ns));
        }
    }

    /// No event is to come that is not late.
    pub(super) fn close(&mut self) {
        self.known = true;
        self.watermark_ns = u64::MAX;
        self.newest_of_source.clear();
        self.by_progress.clear();
    }

    fn drop_idle(&mut self) {
        while let Some((least_ns, _)) = self.by_progress.first()
            && self.newest_ns - least_ns > self.idle_timeout_ns
        {
            if let Some((_, source)) = self.by_progress.pop_first() {
                self.newest_of_source.remove(&source);
            }
        }
    }
}
