//! Things sorted by time, asked for by window.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Entries sorted by timestamp; those of one timestamp in the order they were inserted. Ranges
/// include both of their ends, and one whose ends are swapped is empty.
///
/// Inserting at the end and forgetting at the front cost O(1), which is what happens to events that
/// are not late; every question costs O(log n).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in super::super) struct Timeline<T> {
    entries: VecDeque<(u64, T)>,
}

impl<T> Timeline<T> {
    pub(in super::super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(in super::super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns how many bytes it took more room for.
    pub(in super::super) fn insert(&mut self, timestamp_ns: u64, value: T) -> u64 {
        let before = self.bytes();
        let position = self.position_after(timestamp_ns);
        self.entries.insert(position, (timestamp_ns, value));
        self.bytes() - before
    }

    /// What its entries take, spare room included.
    pub(in super::super) fn bytes(&self) -> u64 {
        (self.entries.capacity() * size_of::<(u64, T)>()) as u64
    }

    pub(in super::super) fn iter(&self) -> impl Iterator<Item = &(u64, T)> {
        self.entries.iter()
    }

    pub(in super::super) fn iter_mut(&mut self) -> impl Iterator<Item = (&u64, &mut T)> {
        self.entries.iter_mut().map(|(timestamp_ns, value)| (&*timestamp_ns, value))
    }

    /// Whether it is sorted and ends by now, as it must. For state that was read from outside.
    pub(in super::super) fn is_sound(&self, now_ns: u64) -> bool {
        self.entries.iter().is_sorted_by_key(|(timestamp_ns, _)| *timestamp_ns)
            && self.last_ns().is_none_or(|last_ns| last_ns <= now_ns)
    }

    /// The last entry's time.
    pub(in super::super) fn last_ns(&self) -> Option<u64> {
        self.entries.back().map(|(timestamp_ns, _)| *timestamp_ns)
    }

    /// The last entry of the range.
    pub(in super::super) fn latest_in(&self, from_ns: u64, to_ns: u64) -> Option<&(u64, T)> {
        let position = self.position_after(to_ns).checked_sub(1)?;
        self.entries.get(position).filter(|(timestamp_ns, _)| *timestamp_ns >= from_ns)
    }

    /// The first entry of the range.
    pub(in super::super) fn earliest_in(&self, from_ns: u64, to_ns: u64) -> Option<&(u64, T)> {
        self.entries.get(self.position_of(from_ns)).filter(|(timestamp_ns, _)| *timestamp_ns <= to_ns)
    }

    pub(in super::super) fn any_in(&self, from_ns: u64, to_ns: u64) -> bool {
        self.latest_in(from_ns, to_ns).is_some()
    }

    pub(in super::super) fn count_in(&self, from_ns: u64, to_ns: u64) -> usize {
        self.position_after(to_ns).saturating_sub(self.position_of(from_ns))
    }

    /// The entry nearest to `timestamp_ns` among those at most `window_ns` away from it and not
    /// before `oldest_ns`: the last one that is not after it, else the first one after it.
    pub(in super::super) fn near(
        &self,
        timestamp_ns: u64,
        window_ns: u64,
        oldest_ns: u64,
    ) -> Option<&(u64, T)> {
        let from_ns = timestamp_ns.saturating_sub(window_ns).max(oldest_ns);
        self.latest_in(from_ns, timestamp_ns)
            .or_else(|| self.earliest_in(timestamp_ns.max(oldest_ns), timestamp_ns.saturating_add(window_ns)))
    }

    /// The first entry of exactly this time.
    pub(in super::super) fn get(&self, timestamp_ns: u64) -> Option<&T> {
        self.earliest_in(timestamp_ns, timestamp_ns).map(|(_, value)| value)
    }

    /// The same, to be changed.
    pub(in super::super) fn get_mut(&mut self, timestamp_ns: u64) -> Option<&mut T> {
        let position = self.position_of(timestamp_ns);
        self.entries
            .get_mut(position)
            .filter(|(found_ns, _)| *found_ns == timestamp_ns)
            .map(|(_, value)| value)
    }

    /// Removes the first entry of exactly this time.
    pub(in super::super) fn remove(&mut self, timestamp_ns: u64) {
        let position = self.position_of(timestamp_ns);
        if self.entries.get(position).is_some_and(|(found_ns, _)| *found_ns == timestamp_ns) {
            self.entries.remove(position);
        }
    }

    /// Takes the entries of the range out, earliest first.
    pub(in super::super) fn drain_in(
        &mut self,
        from_ns: u64,
        to_ns: u64,
    ) -> impl Iterator<Item = (u64, T)> + '_ {
        let from = self.position_of(from_ns);
        let to = self.position_after(to_ns).max(from);
        self.entries.drain(from..to)
    }

    /// Takes the first entry out if its timestamp is due.
    pub(in super::super) fn pop_if(&mut self, due: impl FnOnce(u64) -> bool) -> Option<(u64, T)> {
        self.entries.pop_front_if(|(timestamp_ns, _)| due(*timestamp_ns))
    }

    pub(in super::super) fn forget_before(&mut self, oldest_ns: u64) {
        while self.pop_if(|timestamp_ns| timestamp_ns < oldest_ns).is_some() {}
    }

    /// Where the entries of this time begin.
    fn position_of(&self, timestamp_ns: u64) -> usize {
        self.entries.partition_point(|(entry_ns, _)| *entry_ns < timestamp_ns)
    }

    /// Where the entries of this time end.
    fn position_after(&self, timestamp_ns: u64) -> usize {
        match self.entries.back() {
            // What is not late comes last.
            Some((last_ns, _)) if *last_ns > timestamp_ns => {
                self.entries.partition_point(|(entry_ns, _)| *entry_ns <= timestamp_ns)
            }
            _ => self.entries.len(),
        }
    }
}

impl<T> Default for Timeline<T> {
    fn default() -> Self {
        Self { entries: VecDeque::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeline(entries: &[(u64, char)]) -> Timeline<char> {
        let mut timeline = Timeline::default();
        for &(timestamp_ns, name) in entries {
            timeline.insert(timestamp_ns, name);
        }
        timeline
    }

    #[test]
    fn ranges_include_both_ends_and_ties_keep_their_order() {
        let mut timeline = timeline(&[(30, 'd'), (10, 'a'), (20, 'b'), (20, 'c')]);
        assert_eq!(timeline.latest_in(10, 20), Some(&(20, 'c')));
        assert_eq!(timeline.earliest_in(20, 30), Some(&(20, 'b')));
        assert_eq!(timeline.latest_in(11, 19), None);
        assert_eq!(timeline.earliest_in(31, u64::MAX), None);
        assert_eq!(timeline.count_in(10, 20), 3);
        assert_eq!(timeline.count_in(20, 10), 0);
        assert_eq!(timeline.drain_in(10, 20).map(|(_, name)| name).collect::<String>(), "abc");
        assert_eq!(timeline.drain_in(40, 10).count(), 0);
        timeline.forget_before(30);
        assert!(timeline.any_in(30, 30));
        timeline.forget_before(31);
        assert!(timeline.is_empty());
    }

    #[test]
    fn near_prefers_what_is_not_after_and_sees_nothing_forgotten() {
        let timeline = timeline(&[(10, 'a'), (17, 'b')]);
        assert_eq!(timeline.near(15, 5, 0), Some(&(10, 'a')));
        assert_eq!(timeline.near(16, 5, 0), Some(&(17, 'b')));
        assert_eq!(timeline.near(15, 5, 11), Some(&(17, 'b')));
        assert_eq!(timeline.near(9, 5, 18), None);
        assert_eq!(timeline.near(23, 5, 0), None);
    }
}
