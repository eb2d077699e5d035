//! How many triples of one sort may be told.

const NS_PER_SECOND: u64 = 1_000_000_000;

/// So many in a second of event time, and never more than that at once.
#[derive(Debug)]
pub(super) struct Budget {
    per_second: u32,
    /// In billionths of a triple.
    credit: u64,
    newest_ns: u64,
}

impl Budget {
    /// One that is full.
    pub(super) fn new(per_second: u32) -> Self {
        Self { per_second, credit: u64::from(per_second) * NS_PER_SECOND, newest_ns: 0 }
    }

    /// Is there room for one whose click was at `timestamp_ns`, in nanoseconds since the Unix epoch?
    pub(super) fn take(&mut self, timestamp_ns: u64) -> bool {
        let most = u64::from(self.per_second) * NS_PER_SECOND;
        let passed_ns = timestamp_ns.saturating_sub(self.newest_ns);
        self.newest_ns = self.newest_ns.max(timestamp_ns);
        let gained = passed_ns.saturating_mul(u64::from(self.per_second));
        self.credit = self.credit.saturating_add(gained).min(most);
        let has_room = self.credit >= NS_PER_SECOND;
        if has_room {
            self.credit -= NS_PER_SECOND;
        }
        has_room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of clicks at these times are taken.
    fn taken(per_second: u32, times_ns: impl Iterator<Item = u64>) -> usize {
        let mut budget = Budget::new(per_second);
        times_ns.filter(|time_ns| budget.take(*time_ns)).count()
    }

    #[test]
    fn a_second_has_room_for_as_many_as_are_allowed_however_they_come() {
        let start_ns = 1_700_000_000 * NS_PER_SECOND;
        assert_eq!(taken(10, (0..1000).map(|_| start_ns)), 10, "all at once");
        // A full budget at the start, then what each of the ten seconds brings.
        assert_eq!(taken(10, (0..10_000).map(|number| start_ns + number * 1_000_000)), 10 + 99);
        assert_eq!(taken(10, (0..10_000).rev().map(|number| start_ns + number * 1_000_000)), 10, "backwards");
        assert_eq!(taken(10, (0..100).map(|number| start_ns + number * NS_PER_SECOND / 5)), 100, "few");
        assert_eq!(taken(0, (0..100).map(|number| start_ns + number * NS_PER_SECOND)), 0);
        assert_eq!(taken(u32::MAX, [0, u64::MAX, 1].into_iter()), 3);
    }
}
