//! The join that one would write first: a map of requests, a map of exposures, a queue to forget by.
//!
//! It takes events as they come, knows no lateness, no skew, no waiting, no horizon and no triples, and
//! so has much less to do.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};

use tracer_user::domain::Kind;
use tracer_user::join::{ItemPrint, JoinConfig, JoinEvent, RequestPrint};

/// Hashes for nothing, because events carry fingerprints already: takes the last word of a key as its hash, mixed
/// with the one before.
#[derive(Debug, Default, Clone, Copy)]
pub struct PrintHasher(u64);

impl Hasher for PrintHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for word in bytes.chunks_exact(8) {
            self.write_u64(word.try_into().map_or(0, u64::from_ne_bytes));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = self.0.rotate_left(32) ^ word;
    }

    // The length of an array of words.
    fn write_usize(&mut self, _length: usize) {}
}

/// Makes hashers that cost nothing.
pub type FreeHash = BuildHasherDefault<PrintHasher>;

/// Counts of the plain join.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct NaiveCounts {
    /// Exposures with their request.
    pub linked_exposures: u64,
    /// Exposures without.
    pub orphan_exposures: u64,
    /// Clicks with their exposure.
    pub linked_clicks: u64,
    /// Clicks without.
    pub orphan_clicks: u64,
    /// Repeated events.
    pub duplicates: u64,
}

/// The plain join, whose maps hash with `S`.
#[derive(Debug)]
pub struct Naive<S> {
    config: JoinConfig,
    requests: HashMap<RequestPrint, u64, S>,
    exposures: HashMap<(RequestPrint, ItemPrint), u64, S>,
    clicks: HashSet<(RequestPrint, ItemPrint), S>,
    forget: VecDeque<(u64, Kind, RequestPrint, ItemPrint)>,
    /// What became of the events.
    pub counts: NaiveCounts,
}

impl<S: BuildHasher + Default> Naive<S> {
    /// One that knows nothing yet.
    pub fn new(config: JoinConfig) -> Self {
        Self {
            config,
            requests: HashMap::default(),
            exposures: HashMap::default(),
            clicks: HashSet::default(),
            forget: VecDeque::new(),
            counts: NaiveCounts::default(),
        }
    }

    /// Exposures that are remembered.
    pub fn pending_exposures(&self) -> u64 {
        self.exposures.len() as u64
    }

    /// What the maps and the queue take, spare room included.
    pub fn memory_bytes(&self) -> u64 {
        // A map has a control byte for each slot, and is at most seven eighths full.
        let map = |capacity: usize, entry: usize| (capacity * 8 / 7) * (entry + 1);
        let exposures = map(self.exposures.capacity(), size_of::<((RequestPrint, ItemPrint), u64)>());
        let requests = map(self.requests.capacity(), size_of::<(RequestPrint, u64)>());
        let clicks = map(self.clicks.capacity(), size_of::<(RequestPrint, ItemPrint)>());
        let entry = size_of::<(u64, Kind, RequestPrint, ItemPrint)>();
        (exposures + requests + clicks + self.forget.capacity() * entry) as u64
    }

    /// Takes one event.
    pub fn push(&mut self, event: &JoinEvent) {
        let JoinEvent { timestamp_ns, request, item, kind, .. } = *event;
        self.forget_before(timestamp_ns);
        let is_new = match kind {
            Kind::Request => self.requests.insert(request, timestamp_ns).is_none(),
            Kind::Exposure => {
                let is_new = self.exposures.insert((request, item), timestamp_ns).is_none();
                if is_new {
                    let is_linked = self.requests.get(&request).is_some_and(|request_ns| {
                        timestamp_ns.saturating_sub(*request_ns) <= self.config.exposure_window_ns
                    });
                    self.counts.linked_exposures += u64::from(is_linked);
                    self.counts.orphan_exposures += u64::from(!is_linked);
                }
                is_new
            }
            Kind::Click => {
                let is_new = self.clicks.insert((request, item));
                if is_new {
                    let is_linked = self.exposures.contains_key(&(request, item));
                    self.counts.linked_clicks += u64::from(is_linked);
                    self.counts.orphan_clicks += u64::from(!is_linked);
                }
                is_new
            }
            Kind::Report => return,
        };
        if is_new {
            self.forget.push_back((timestamp_ns, kind, request, item));
        } else {
            self.counts.duplicates += 1;
        }
    }

    fn forget_before(&mut self, now_ns: u64) {
        while let Some(&(timestamp_ns, kind, request, item)) = self.forget.front()
            && timestamp_ns.saturating_add(self.config.click_window_ns) < now_ns
        {
            self.forget.pop_front();
            match kind {
                Kind::Request => drop(self.requests.remove(&request)),
                Kind::Exposure => drop(self.exposures.remove(&(request, item))),
                Kind::Click | Kind::Report => drop(self.clicks.remove(&(request, item))),
            }
        }
    }
}
