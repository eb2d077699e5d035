//! The broken-link ratio over a sliding window of event time.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::groups::{Explained, Groups};

/// Groups that are told apart, over all keys: about 50 bytes each. A service whose every link is broken has one for
/// each.
const MAX_GROUPS: usize = 1 << 18;

/// Broken and sound links.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Links that are broken.
    pub broken: u64,
    /// Links that are not.
    pub sound: u64,
}

impl Tally {
    /// Broken / (broken + sound); `None` when there is neither.
    #[expect(clippy::cast_precision_loss, reason = "a ratio needs no more than 53 bits")]
    pub fn ratio(self) -> Option<f64> {
        let all = self.broken + self.sound;
        (all > 0).then(|| self.broken as f64 / all as f64)
    }
}

/// A link that was judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Judged {
    /// When its event happened, in nanoseconds since the Unix epoch.
    pub(super) timestamp_ns: u64,
    /// `None`: it is in no ratio.
    pub(super) broken: Option<bool>,
    /// What would explain it, had it been lost: links of one number are explained by one event. 0: no
    /// such event explains it.
    pub(super) causes: [u64; 2],
}

/// What lost events can explain of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Explainable {
    /// Broken links that the given number of lost events explains at most.
    pub(super) explained: u64,
    /// Links in no ratio that they explain at most.
    pub(super) seen: u64,
    /// Broken links that have a cause.
    pub(super) in_all: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Slice {
    tally: Tally,
    /// Broken links that have a cause.
    caused: u64,
    unseen: u64,
    /// Shared with copies of the window.
    by_cause: Arc<[Groups; 2]>,
}

impl Slice {
    fn is_empty(&self) -> bool {
        self.tally == Tally::default() && self.unseen == 0
    }

    fn groups(&self) -> usize {
        self.by_cause.iter().map(Groups::len).sum()
    }
}

/// Counts of links per key over the last `slices` slices of time, for ratios of broken ones.
///
/// A link belongs to the time of its event, whenever it was judged. The window is as wide as all slices
/// together and moves by one slice. Memory is bounded by the number of keys times the number of slices,
/// and by the number of groups. A copy costs little: the groups are shared until one
/// of the two changes them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(bound(serialize = "K: Serialize + Ord", deserialize = "K: Deserialize<'de> + Ord"))]
pub(super) struct RatioWindow<K> {
    slice_ns: u64,
    slices: usize,
    /// Number of the newest slice.
    newest: u64,
    groups: usize,
    /// Newest first.
    by_key: BTreeMap<K, VecDeque<Slice>>,
}

impl<K: Ord + Clone> RatioWindow<K> {
    /// An empty window of `slices` slices of `slice_ns` nanoseconds each; both at least 1.
    pub(super) fn new(slice_ns: u64, slices: usize) -> Self {
        let (slice_ns, slices) = (slice_ns.max(1), slices.max(1));
        Self { slice_ns, slices, newest: 0, groups: 0, by_key: BTreeMap::new() }
    }

    /// Is it cut into slices as the other is?
    pub(super) const fn is_like(&self, other: &Self) -> bool {
        self.slice_ns == other.slice_ns && self.slices == other.slices
    }

    /// Counts a link; one from before the window is not counted.
    pub(super) fn add(&mut self, key: &K, link: &Judged) {
        self.advance(link.timestamp_ns);
        let Ok(age) = usize::try_from(self.newest - link.timestamp_ns / self.slice_ns) else { return };
        if age >= self.slices {
            return;
        }
        if !self.by_key.contains_key(key) {
            self.by_key.insert(key.clone(), VecDeque::new());
        }
        let Some(slices) = self.by_key.get_mut(key) else { return };
        if slices.len() <= age {
            slices.resize_with(age + 1, Slice::default);
        }
        let slice = &mut slices[age];
        let count = match link.broken {
            Some(false) => {
                slice.tally.sound += 1;
                return;
            }
            Some(true) => {
                slice.tally.broken += 1;
                slice.caused += u64::from(link.causes != [0, 0]);
                Explained { broken: 1, unseen: 0 }
            }
            None => {
                slice.unseen += 1;
                Explained { broken: 0, unseen: 1 }
            }
        };
        if link.causes == [0, 0] {
            return;
        }
        for (groups, cause) in Arc::make_mut(&mut slice.by_cause).iter_mut().zip(link.causes) {
            if cause != 0 {
                self.groups += usize::from(groups.add(cause, count, self.groups < MAX_GROUPS));
            }
        }
    }

    /// Moves the window up to `now_ns`, and forgets keys with nothing left.
    pub(super) fn forget(&mut self, now_ns: u64) {
        self.advance(now_ns);
        self.by_key.retain(|_, slices| !slices.iter().all(Slice::is_empty));
    }

    /// What is in the window for each key.
    pub(super) fn tallies(&self) -> Vec<(K, Tally)> {
        let tally = |slices: &VecDeque<Slice>| {
            let sum = |count: fn(&Tally) -> u64| slices.iter().map(|slice| count(&slice.tally)).sum();
            Tally { broken: sum(|tally| tally.broken), sound: sum(|tally| tally.sound) }
        };
        self.by_key.iter().map(|(key, slices)| (key.clone(), tally(slices))).collect()
    }

    /// What lost events explain at most of the key's links whose events happened at `since_ns` or later:
    /// so many events for each of the two causes.
    pub(super) fn explainable(&self, key: &K, since_ns: u64, events: [u64; 2]) -> Explainable {
        let since = since_ns / self.slice_ns;
        let mut found = Explainable::default();
        let Some(slices) = self.by_key.get(key) else { return found };
        let ages = usize::try_from(self.newest.saturating_sub(since)).unwrap_or(usize::MAX);
        let mut sums = [Groups::default(), Groups::default()];
        for slice in slices.iter().take(ages.saturating_add(1)) {
            found.in_all += slice.caused;
            for (sum, groups) in sums.iter_mut().zip(&*slice.by_cause) {
                sum.merge(groups);
            }
        }
        for (sum, events) in sums.iter().zip(events) {
            let Explained { broken, unseen } = sum.largest(events);
            found.explained += broken;
            found.seen += unseen;
        }
        found.explained = found.explained.min(found.in_all);
        found
    }

    fn advance(&mut self, now_ns: u64) {
        let slice = now_ns / self.slice_ns;
        let steps = slice.saturating_sub(self.newest);
        self.newest = self.newest.max(slice);
        let steps = usize::try_from(steps).unwrap_or(usize::MAX).min(self.slices);
        if steps == 0 {
            return;
        }
        for slices in self.by_key.values_mut() {
            for _ in 0..steps {
                slices.push_front(Slice::default());
            }
            let gone = slices.len().saturating_sub(self.slices);
            for slice in slices.drain(slices.len() - gone..) {
                self.groups -= slice.groups();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Explainable, Judged, RatioWindow, Tally};

    type Window = RatioWindow<&'static str>;

    fn add(
        window: &mut Window,
        timestamp_ns: u64,
        key: &'static str,
        broken: Option<bool>,
        causes: [u64; 2],
    ) {
        window.add(&key, &Judged { timestamp_ns, broken, causes });
    }

    #[track_caller]
    fn check(window: &mut Window, now_ns: u64, expected: &[(&'static str, u64, u64)]) {
        let expected: Vec<_> = expected
            .iter()
            .map(|(key, broken, sound)| (*key, Tally { broken: *broken, sound: *sound }))
            .collect();
        window.forget(now_ns);
        assert_eq!(window.tallies(), expected);
    }

    #[test]
    fn links_count_until_their_slice_has_left_the_window() {
        let mut window = RatioWindow::new(10, 3);
        add(&mut window, 100, "a", Some(true), [1, 0]);
        add(&mut window, 105, "a", Some(false), [0, 0]);
        add(&mut window, 119, "a", Some(false), [0, 0]);
        check(&mut window, 129, &[("a", 1, 2)]);
        assert_eq!(window.groups, 1);
        check(&mut window, 130, &[("a", 0, 1)]);
        assert_eq!(window.groups, 0);
        check(&mut window, 140, &[]);
    }

    #[test]
    fn a_link_counts_at_the_time_of_its_event_whenever_it_was_judged() {
        let mut window = RatioWindow::new(10, 3);
        add(&mut window, 100, "a", Some(true), [1, 0]);
        add(&mut window, 85, "b", Some(false), [0, 0]);
        add(&mut window, 79, "b", Some(false), [0, 0]);
        check(&mut window, 109, &[("a", 1, 0), ("b", 0, 1)]);
        check(&mut window, 110, &[("a", 1, 0)]);
    }

    #[test]
    fn the_largest_groups_over_all_slices_are_explained_first() {
        let mut window = RatioWindow::new(10, 3);
        for (timestamp_ns, cause) in [(100, 7), (101, 8), (111, 7), (112, 9)] {
            add(&mut window, timestamp_ns, "a", Some(true), [cause, 0]);
        }
        add(&mut window, 112, "a", Some(true), [0, 0]);
        add(&mut window, 112, "a", None, [5, 0]);
        let explained = |since_ns, events| window.explainable(&"a", since_ns, [events, 0]);
        assert_eq!(explained(0, 0), Explainable { explained: 0, seen: 0, in_all: 4 });
        assert_eq!(explained(0, 1), Explainable { explained: 2, seen: 1, in_all: 4 });
        assert_eq!(explained(0, 2), Explainable { explained: 3, seen: 1, in_all: 4 });
        assert_eq!(explained(110, 1), Explainable { explained: 1, seen: 1, in_all: 2 });
        assert_eq!(window.explainable(&"b", 0, [1, 1]), Explainable::default());
    }

    #[test]
    fn nothing_has_no_ratio() {
        assert_eq!(Tally::default().ratio(), None);
        assert_eq!(Tally { broken: 1, sound: 3 }.ratio(), Some(0.25));
    }
}
