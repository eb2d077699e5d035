//! Processes whose SDK functions are not probed yet: when to look at each again.
//!
//! A plan, and no more: `coverage` looks and attaches. A process is looked at often while it is young,
//! because it is about to load its libraries, and every few seconds after that for as long as it
//! lives, because a library can be loaded at any time.

use std::collections::BTreeMap;

use crate::attach::SdkFunction;

/// While a process is younger than this, it is looked at in every turn.
const YOUNG_NS: u64 = 1_000_000_000;
/// After that, each time when it has become this fraction older.
const AGE_DIVISOR: u64 = 8;
/// At least this often.
const MAX_INTERVAL_NS: u64 = 5_000_000_000;
/// Processes that are looked at in one turn: a look reads the list of what a process has mapped.
const MAX_LOOKS_PER_TURN: usize = 32;
/// A file that cannot be read is tried so often, each time after twice the time of before.
const MAX_ATTEMPTS: u32 = 6;
const FIRST_RETRY_NS: u64 = 20_000_000;

/// A process of which not every probe is in place.
#[derive(Debug, Clone)]
pub(super) struct Expected {
    pub(super) pid: u32,
    pub(super) service: usize,
    /// The functions without a probe.
    pub(super) missing: Vec<SdkFunction>,
    /// Since when the process may have called them unseen, in nanoseconds since the Unix epoch.
    pub(super) unseen_since_ns: u64,
    /// The longest time that a function could be called unseen, in nanoseconds.
    pub(super) gap_ns: u64,
    /// Whether its start was seen.
    pub(super) start_seen: bool,
    started_ns: u64,
    failures: u32,
}

impl Expected {
    /// A process that executed its program at `started_ns`, in nanoseconds since the Unix epoch, or, where its
    /// start was not seen, was found then.
    pub(super) const fn new(
        pid: u32,
        service: usize,
        missing: Vec<SdkFunction>,
        started_ns: u64,
        start_seen: bool,
    ) -> Self {
        Self {
            pid,
            service,
            missing,
            unseen_since_ns: started_ns,
            gap_ns: 0,
            start_seen,
            started_ns,
            failures: 0,
        }
    }

    /// Notes that its files could not be read. False when that was tried often enough.
    pub(super) const fn fail(&mut self) -> bool {
        self.failures += 1;
        self.failures < MAX_ATTEMPTS
    }

    const fn interval_ns(&self, now_ns: u64) -> u64 {
        if self.failures > 0 {
            return FIRST_RETRY_NS << self.failures;
        }
        let age_ns = now_ns.saturating_sub(self.started_ns);
        match age_ns / AGE_DIVISOR {
            _ if age_ns < YOUNG_NS => 0,
            interval if interval < MAX_INTERVAL_NS => interval,
            _ => MAX_INTERVAL_NS,
        }
    }
}

/// All of them, by the time of the next look.
#[derive(Debug, Default)]
pub(super) struct Expectations {
    planned: BTreeMap<(u64, u64), Expected>,
    /// Tells two of one time apart.
    number: u64,
}

impl Expectations {
    /// Looks at the process in the next turn.
    pub(super) fn add(&mut self, expected: Expected) {
        self.insert(0, expected);
    }

    /// Looks no longer at the process, but as one of this service.
    pub(super) fn keep(&mut self, pid: u32, service: Option<usize>) {
        self.planned.retain(|_, known| known.pid != pid || Some(known.service) == service);
    }

    /// Looks at it again later.
    pub(super) fn put_back(&mut self, expected: Expected, now_ns: u64) {
        self.insert(now_ns.saturating_add(expected.interval_ns(now_ns)), expected);
    }

    /// Those that are due, and no more than fit into one turn.
    pub(super) fn take_due(&mut self, now_ns: u64) -> Vec<Expected> {
        let mut due = Vec::new();
        while due.len() < MAX_LOOKS_PER_TURN
            && let Some(first) = self.planned.first_entry()
            && first.key().0 <= now_ns
        {
            due.push(first.remove());
        }
        due
    }

    /// Does a process of the service run without this function being probed?
    pub(super) fn misses(&self, service: usize, function: SdkFunction) -> bool {
        self.planned
            .values()
            .any(|expected| expected.service == service && expected.missing.contains(&function))
    }

    fn insert(&mut self, at_ns: u64, expected: Expected) {
        self.number += 1;
        self.planned.insert((at_ns, self.number), expected);
    }
}

#[cfg(test)]
mod tests {
    use super::{Expectations, Expected, MAX_LOOKS_PER_TURN};
    use crate::attach::SdkFunction;

    const SECOND_NS: u64 = 1_000_000_000;

    fn expected(pid: u32) -> Expected {
        Expected::new(pid, 0, vec![SdkFunction::Click], 0, true)
    }

    #[test]
    fn an_old_process_is_looked_at_less_often_and_never_forgotten() {
        let mut plan = Expectations::default();
        plan.add(expected(1));
        let (mut now_ns, mut looks) = (0, 0_u64);
        while now_ns < 3600 * SECOND_NS {
            for due in plan.take_due(now_ns) {
                looks += 1;
                plan.put_back(due, now_ns);
            }
            now_ns += SECOND_NS / 50;
        }
        assert!(
            (700..900).contains(&looks),
            "{looks} looks in an hour: 50 in the first second, one in 5 s at last"
        );
        assert!(plan.misses(0, SdkFunction::Click) && !plan.misses(1, SdkFunction::Click));
    }

    #[test]
    fn a_turn_has_a_bound_and_everybody_gets_a_turn() {
        let mut plan = Expectations::default();
        let count = 3 * MAX_LOOKS_PER_TURN;
        for pid in 0..u32::try_from(count).expect("small") {
            plan.add(expected(pid));
        }
        let mut seen = Vec::new();
        for turn in 0..3 {
            for due in plan.take_due(turn) {
                seen.push(due.pid);
                plan.put_back(due, turn);
            }
            assert_eq!(seen.len(), (usize::try_from(turn).expect("small") + 1) * MAX_LOOKS_PER_TURN);
        }
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), count);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_tried_with_growing_pauses_and_then_no_more() {
        let mut process = expected(1);
        let mut pauses = Vec::new();
        while process.fail() {
            pauses.push(process.interval_ns(0) / 1_000_000);
        }
        assert_eq!(pauses, [40, 80, 160, 320, 640]);
    }

    #[test]
    fn a_process_is_kept_as_one_of_one_service_or_of_none() {
        let mut plan = Expectations::default();
        plan.add(expected(1));
        plan.add(Expected { service: 1, ..expected(1) });
        plan.add(expected(2));
        plan.keep(1, Some(1));
        assert!(plan.planned.values().map(|known| (known.pid, known.service)).eq([(1, 1), (2, 0)]));
        plan.keep(1, None);
        assert_eq!(plan.take_due(0).len(), 1);
    }
}
