//! The broken-link ratio over a sliding window.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

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

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.broken += other.broken;
        self.sound += other.sound;
    }
}

/// Counts of links per key over the last `slices` slices of time, for ratios of broken ones.
///
/// The window is as wide as all slices together and moves by one slice. Memory is bounded by the
/// number of keys times the number of slices.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RatioWindow<K: Ord> {
    slice_ns: u64,
    slices: usize,
    /// Number of the newest slice.
    newest: u64,
    /// Newest first.
    tallies: BTreeMap<K, VecDeque<Tally>>,
}

impl<K: Ord + Clone> RatioWindow<K> {
    /// An empty window of `slices` slices of `slice_ns` nanoseconds each; both at least 1.
    pub fn new(slice_ns: u64, slices: usize) -> Self {
        Self { slice_ns: slice_ns.max(1), slices: slices.max(1), newest: 0, tallies: BTreeMap::new() }
    }

    /// Counts a link that was judged at `now_ns`.
    pub fn add(&mut self, now_ns: u64, key: &K, broken: bool) {
        self.advance(now_ns);
        if !self.tallies.contains_key(key) {
            self.tallies.insert(key.clone(), VecDeque::from(vec![Tally::default()]));
        }
        if let Some(tally) = self.tallies.get_mut(key).and_then(VecDeque::front_mut) {
            if broken {
                tally.broken += 1;
            } else {
                tally.sound += 1;
            }
        }
    }

    /// Moves the window up to `now_ns` and returns what is in it for each key. A key with nothing left
    /// is returned once more, empty, and forgotten.
    pub fn tallies(&mut self, now_ns: u64) -> Vec<(K, Tally)> {
        self.advance(now_ns);
        let tallies: Vec<(K, Tally)> =
            self.tallies.iter().map(|(key, slices)| (key.clone(), sum(slices))).collect();
        self.tallies.retain(|_, slices| sum(slices) != Tally::default());
        tallies
    }

    fn advance(&mut self, now_ns: u64) {
        let slice = now_ns / self.slice_ns;
        let steps = slice.saturating_sub(self.newest);
        self.newest = self.newest.max(slice);
        let steps = usize::try_from(steps).unwrap_or(usize::MAX).min(self.slices);
        if steps == 0 {
            return;
        }
        for tallies in self.tallies.values_mut() {
            for _ in 0..steps {
                tallies.push_front(Tally::default());
            }
            tallies.truncate(self.slices);
        }
    }
}

fn sum(slices: &VecDeque<Tally>) -> Tally {
    let mut sum = Tally::default();
    for slice in slices {
        sum += *slice;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::{RatioWindow, Tally};

    #[track_caller]
    fn check(window: &mut RatioWindow<&'static str>, now_ns: u64, expected: &[(&'static str, u64, u64)]) {
        let expected: Vec<_> = expected
            .iter()
            .map(|(key, broken, sound)| (*key, Tally { broken: *broken, sound: *sound }))
            .collect();
        assert_eq!(window.tallies(now_ns), expected);
    }

    #[test]
    fn links_count_until_their_slice_has_left_the_window() {
        let mut window = RatioWindow::new(10, 3);
        window.add(100, &"a", true);
        window.add(105, &"a", false);
        window.add(119, &"a", false);
        check(&mut window, 129, &[("a", 1, 2)]);
        check(&mut window, 130, &[("a", 0, 1)]);
        check(&mut window, 140, &[("a", 0, 0)]);
        check(&mut window, 140, &[]);
    }

    #[test]
    fn keys_are_counted_apart_and_a_late_time_counts_in_the_newest_slice() {
        let mut window = RatioWindow::new(10, 3);
        window.add(100, &"a", true);
        window.add(50, &"b", false);
        check(&mut window, 100, &[("a", 1, 0), ("b", 0, 1)]);
    }

    #[test]
    fn nothing_has_no_ratio() {
        assert_eq!(Tally::default().ratio(), None);
        assert_eq!(Tally { broken: 1, sound: 3 }.ratio(), Some(0.25));
    }
}
