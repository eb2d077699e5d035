//! What happens when event time passes a moment.

use super::Join;
use super::queue::Queue;
use super::state::{GroupKey, PairKey, ProcessKey};
use crate::domain::Outcome;

/// What waits for a moment, each under the last timestamp at which it still waits.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    /// A new request stops waiting to be exposed.
    pub(super) request: Queue<u64, GroupKey>,
    /// An exposure stops waiting for its request.
    pub(super) exposure: Queue<u64, GroupKey>,
    /// A click stops waiting for its exposure.
    pub(super) click: Queue<u64, PairKey>,
    /// A click stops waiting for a report.
    pub(super) report: Queue<u64, ProcessKey>,
    /// A pair may have nothing left that matters.
    pub(super) forget_pair: Queue<u64, PairKey>,
    /// A group may have nothing left that matters.
    pub(super) forget_group: Queue<u64, GroupKey>,
    /// A process may have nothing left that matters.
    pub(super) forget_process: Queue<u64, ProcessKey>,
}

/// Which deadlines are due.
#[derive(Debug, Clone, Copy)]
pub(super) enum Until {
    /// Those before this time, in nanoseconds since the Unix epoch.
    Before(u64),
    /// All.
    TheEnd,
}

impl Until {
    pub(super) fn is_due(self, deadline_ns: u64) -> bool {
        match self {
            Self::Before(time_ns) => deadline_ns < time_ns,
            Self::TheEnd => true,
        }
    }
}

impl Join {
    /// Runs every deadline that is due. No judgement depends on another one, so their order does
    /// not matter; forgetting comes last because a judgement may need what is forgotten at the same
    /// moment, and a group after its pairs.
    pub(super) fn run_deadlines(&mut self, until: Until, out: &mut Vec<Outcome>) {
        let is_due = |deadline_ns: &u64| until.is_due(*deadline_ns);
        while let Some(group) = self.deadlines.request.pop_if(is_due) {
            self.judge_request(group, until, out);
        }
        while let Some(group) = self.deadlines.exposure.pop_if(is_due) {
            self.judge_exposures(group, until, out);
        }
        while let Some(pair) = self.deadlines.click.pop_if(is_due) {
            self.judge_clicks(pair, until, out);
        }
        while let Some(process) = self.deadlines.report.pop_if(is_due) {
            self.judge_reports(process, until, out);
        }
        // At the end everything is forgotten at once.
        if let Until::Before(time_ns) = until {
            self.forget_before(time_ns);
        }
    }

    fn forget_before(&mut self, time_ns: u64) {
        let is_due = |deadline_ns: &u64| *deadline_ns < time_ns;
        while let Some(pair) = self.deadlines.forget_pair.pop_if(is_due) {
            self.forget_pair(pair, time_ns);
        }
        while let Some(group) = self.deadlines.forget_group.pop_if(is_due) {
            self.forget_group(group, time_ns);
        }
        while let Some(process) = self.deadlines.forget_process.pop_if(is_due) {
            self.forget_process(process, time_ns);
        }
    }
}
