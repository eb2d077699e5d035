//! What happens when event time passes a moment.

use super::{Engine, Key, Open, Slab};
use crate::join::decision::Sink;
use crate::join::reports::Process;
use crate::join::time::Until;
use crate::join::time::queue::Queue;

/// What waits for a moment, each under the last timestamp at which it still waits. A key whose group,
/// pair or process is gone leads nowhere, and nothing happens.
#[derive(Debug, Default)]
pub(in super::super) struct Deadlines {
    /// The new request of an open group stops waiting to be exposed.
    pub(in super::super) request: Queue<u64, Key>,
    /// An exposure stops waiting for its request.
    pub(in super::super) exposure: Queue<u64, Key>,
    /// A click stops waiting for its exposure.
    pub(in super::super) click: Queue<u64, Key>,
    /// A click stops waiting for a report.
    pub(in super::super) report: Queue<u64, Key>,
    /// A pair may have nothing left that matters.
    pub(in super::super) forget_pair: Queue<u64, Key>,
    /// An open group may have nothing left that matters.
    pub(in super::super) forget_group: Queue<u64, Key>,
    /// A process may have nothing left that matters.
    pub(in super::super) forget_process: Queue<u64, Key>,
}

impl Deadlines {
    fn queues(&self) -> [&Queue<u64, Key>; 7] {
        [
            &self.request,
            &self.exposure,
            &self.click,
            &self.report,
            &self.forget_pair,
            &self.forget_group,
            &self.forget_process,
        ]
    }

    /// The earliest of all.
    fn first_ns(&self) -> u64 {
        self.queues().iter().filter_map(|queue| queue.first()).min().unwrap_or(u64::MAX)
    }

    /// How many there are, those that lead nowhere included.
    pub(in super::super) fn len(&self) -> usize {
        self.queues().iter().map(|queue| queue.len()).sum()
    }

    /// Takes out those that lead nowhere.
    pub(in super::super) fn forget_dead(&mut self, open: &Open, processes: &Slab<Process>) {
        for groups in [&mut self.request, &mut self.exposure, &mut self.forget_group] {
            groups.retain(|_, key| open.groups.get(*key).is_some());
        }
        for pairs in [&mut self.click, &mut self.forget_pair] {
            pairs.retain(|_, key| open.pairs.get(*key).is_some());
        }
        for of_processes in [&mut self.report, &mut self.forget_process] {
            of_processes.retain(|_, key| processes.get(*key).is_some());
        }
    }

    /// What they take, spare room included.
    pub(in super::super) fn bytes(&self) -> u64 {
        self.queues().iter().map(|queue| queue.bytes()).sum()
    }
}

impl Engine {
    /// Says that there is a deadline at this time, so that it is not missed.
    pub(in super::super) fn note_deadline(&mut self, deadline_ns: u64) {
        self.next_open_deadline_ns = self.next_open_deadline_ns.min(deadline_ns);
        self.note_packed_deadline(deadline_ns);
    }

    /// The same of a packed group.
    pub(in super::super) fn note_packed_deadline(&mut self, deadline_ns: u64) {
        self.next_deadline_ns = self.next_deadline_ns.min(deadline_ns);
    }

    /// Runs every deadline that is due. No judgement depends on another one, so their order does
    /// not matter; forgetting comes last because a judgement may need what is forgotten at the same
    /// moment, and a group after its pairs.
    pub(in super::super) fn run_deadlines(&mut self, until: Until, out: &mut impl Sink) {
        if !until.is_due(self.next_deadline_ns) {
            return;
        }
        self.judge_packed_requests(until, out);
        self.judge_packed_waits(until, out);
        if until.is_due(self.next_open_deadline_ns) {
            self.run_open_deadlines(until, out);
            self.next_open_deadline_ns = self.deadlines.first_ns();
        }
        let packed_ns = self.packed_deadline_ns().unwrap_or(u64::MAX);
        self.next_deadline_ns = packed_ns.min(self.next_open_deadline_ns);
    }

    /// Those of open groups and of processes.
    #[inline(never)]
    fn run_open_deadlines(&mut self, until: Until, out: &mut impl Sink) {
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
