//! Which losses still have to do with the links of a window.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::bounds::{Losses, Reach};
use crate::domain::Edge;

/// A loss that was noticed at some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    /// It happened after this time, in nanoseconds since the Unix epoch.
    after_ns: u64,
    /// And not after this one.
    until_ns: u64,
    losses: Losses,
}

/// What was lost, for as long as it can change a link of the window.
///
/// The log is as long as the windows are, in steps of one slice: losses of one slice are one entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LossLog {
    reach: Reach,
    window_ns: u64,
    slice_ns: u64,
    /// Oldest first.
    entries: VecDeque<Entry>,
}

impl LossLog {
    /// An empty log for a window of this length.
    pub(super) fn new(reach: Reach, window_ns: u64, slice_ns: u64) -> Self {
        Self { reach, window_ns, slice_ns: slice_ns.max(1), entries: VecDeque::new() }
    }

    /// Is it for the same windows?
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let Self { reach, window_ns, slice_ns, entries: _ } = self;
        (*reach, *window_ns, *slice_ns) == (other.reach, other.window_ns, other.slice_ns)
    }

    /// These were lost after `after_ns` and not after `until_ns`, in nanoseconds since the Unix epoch.
    pub(super) fn add(&mut self, after_ns: u64, until_ns: u64, losses: Losses) {
        if losses.is_none() {
            return;
        }
        match self.entries.back_mut() {
            Some(last) if until_ns.saturating_sub(last.after_ns) <= self.slice_ns => {
                last.until_ns = last.until_ns.max(until_ns);
                last.losses = last.losses.with(losses);
            }
            _ => self.entries.push_back(Entry { after_ns, until_ns, losses }),
        }
    }

    /// Forgets what can change nothing any more at `now_ns`.
    pub(super) fn forget(&mut self, now_ns: u64) {
        let reaches = Edge::ALL.iter().flat_map(|edge| self.reach.after_ns(*edge));
        let longest_ns = reaches.flatten().max().unwrap_or(0);
        let oldest_ns = now_ns.saturating_sub(self.window_ns);
        while self.entries.front().is_some_and(|entry| entry.until_ns.saturating_add(longest_ns) < oldest_ns)
        {
            self.entries.pop_front();
        }
    }

    /// What can have changed links of this edge whose events are within the window that ends at
    /// `now_ns`, and the earliest time such an event can have. `None` when there is nothing.
    pub(super) fn active(&self, edge: Edge, now_ns: u64) -> Option<(Losses, u64)> {
        let oldest_ns = now_ns.saturating_sub(self.window_ns);
        let reach_ns = self.reach.after_ns(edge);
        let [request_ns, exposure_ns, click_ns, report_ns] = reach_ns;
        let longest_ns = reach_ns.into_iter().flatten().max();
        let mut sum = Losses::default();
        let mut since_ns = u64::MAX;
        for Entry { after_ns, until_ns, losses } in &self.entries {
            let reaches = |reach_ns: Option<u64>| {
                reach_ns.is_some_and(|reach_ns| until_ns.saturating_add(reach_ns) >= oldest_ns)
            };
            let active = Losses {
                requests: if reaches(request_ns) { losses.requests } else { 0 },
                exposures: if reaches(exposure_ns) { losses.exposures } else { 0 },
                clicks: if reaches(click_ns) { losses.clicks } else { 0 },
                reports: if reaches(report_ns) { losses.reports } else { 0 },
                uncounted: reaches(longest_ns) && losses.uncounted,
            };
            if !active.is_none() {
                since_ns = since_ns.min(after_ns.saturating_sub(self.reach.before_ns()));
                sum = sum.with(active);
            }
        }
        (!sum.is_none()).then_some((sum, since_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REACH: Reach =
        Reach { exposure_window_ns: 100, click_window_ns: 300, report_window_ns: 20, skew_ns: 1 };

    #[test]
    fn a_loss_stays_until_the_last_link_it_can_change_has_left_the_window() {
        let mut log = LossLog::new(REACH, 1000, 10);
        log.add(95, 100, Losses { requests: 1, ..Losses::default() });
        let one = Some((Losses { requests: 1, ..Losses::default() }, 75));
        // An exposure at 200 is in the window until 1200.
        assert_eq!(log.active(Edge::RequestExposure, 1200), one);
        assert_eq!(log.active(Edge::RequestExposure, 1201), None);
        // A click at 100 + 100 + 300 + 300 + 1.
        assert_eq!(log.active(Edge::Triple, 1801), one);
        assert_eq!(log.active(Edge::Triple, 1802), None);
        log.forget(1801);
        assert_eq!(log.entries.len(), 1);
        log.forget(1802);
        assert_eq!(log.entries.len(), 0);
    }

    #[test]
    fn losses_of_one_slice_are_one_entry_and_no_loss_is_none() {
        let mut log = LossLog::new(REACH, 1000, 10);
        let click = Losses { clicks: 1, ..Losses::default() };
        log.add(0, 5, click);
        log.add(5, 6, Losses::default());
        log.add(5, 10, click);
        log.add(10, 15, click);
        assert_eq!(log.entries.len(), 2);
        assert_eq!(log.active(Edge::ExposureClick, 20), Some((Losses { clicks: 3, ..Losses::default() }, 0)));
    }
}
