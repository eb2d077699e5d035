//! Links that one lost event would explain together, counted by what it would be.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

/// Broken and unseen links.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Explained {
    pub(super) broken: u64,
    pub(super) unseen: u64,
}

impl std::ops::AddAssign for Explained {
    fn add_assign(&mut self, other: Self) {
        self.broken += other.broken;
        self.unseen += other.unseen;
    }
}

/// Counts per group, of at most so many groups as there is room for. What comes beyond is taken as one
/// group: that explains more with one lost event, and never less.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Groups {
    counts: HashMap<u64, Explained>,
    beyond: Explained,
}

impl Groups {
    /// Counts into a group. Whether it is a new one; with no `room` for that it is counted beyond.
    pub(super) fn add(&mut self, group: u64, count: Explained, room: bool) -> bool {
        if let Some(known) = self.counts.get_mut(&group) {
            *known += count;
            return false;
        }
        if room {
            self.counts.insert(group, count);
        } else {
            self.beyond += count;
        }
        room
    }

    pub(super) fn len(&self) -> usize {
        self.counts.len()
    }

    /// Adds all of the other's.
    pub(super) fn merge(&mut self, other: &Self) {
        for (group, count) in &other.counts {
            *self.counts.entry(*group).or_default() += *count;
        }
        self.beyond += other.beyond;
    }

    /// The most that so many lost events can explain: the largest groups, of broken links and of unseen
    /// ones on their own.
    pub(super) fn largest(&self, events: u64) -> Explained {
        if events == 0 {
            return Explained::default();
        }
        let largest = |count: fn(&Explained) -> u64| {
            let mut counts: Vec<u64> = self.counts.values().map(count).collect();
            let events = usize::try_from(events).unwrap_or(usize::MAX).min(counts.len());
            if events < counts.len() {
                counts.select_nth_unstable_by(events, |a, b| b.cmp(a));
            }
            counts[..events].iter().sum::<u64>()
        };
        let mut explained =
            Explained { broken: largest(|count| count.broken), unseen: largest(|count| count.unseen) };
        explained += self.beyond;
        explained
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(count: u64) -> Explained {
        Explained { broken: count, unseen: 0 }
    }

    #[test]
    fn the_largest_groups_come_first() {
        let mut groups = Groups::default();
        for (group, count) in [(1, broken(2)), (2, broken(5)), (3, broken(1)), (1, broken(1))] {
            groups.add(group, count, true);
        }
        groups.add(4, Explained { broken: 0, unseen: 7 }, true);
        assert_eq!(groups.largest(0), Explained::default());
        assert_eq!(groups.largest(1), Explained { broken: 5, unseen: 7 });
        assert_eq!(groups.largest(2), Explained { broken: 8, unseen: 7 });
        assert_eq!(groups.largest(9), Explained { broken: 9, unseen: 7 });
    }

    #[test]
    fn what_there_is_no_room_for_is_explained_by_any_one_event() {
        let mut groups = Groups::default();
        assert!(groups.add(1, broken(2), true));
        assert!(!groups.add(2, broken(3), false));
        assert!(!groups.add(1, broken(1), false));
        assert_eq!(groups.largest(1), broken(6));
        assert_eq!(groups.largest(0), broken(0));
    }
}
