//! Which clicks a process reported.

use serde::{Deserialize, Serialize};

use super::decision::{Decision, Sink};
use super::engine::Engine;
use super::event::{JoinEvent, LabelsKey, SourcePrint, click_of_process};
use super::open::{Key, Timeline, Waiting};
use super::time::{Until, queue::Queue};
use crate::domain::{Edge, LinkOutcome, Outcome, Subject};

/// The reports of one process, and its clicks that none of them covers yet.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Process {
    id: (SourcePrint, u32),
    alive_until_ns: u64,
    reports: Timeline<()>,
    pub(super) waiting_clicks: Timeline<Waiting>,
}

impl Process {
    pub(super) fn id(&self) -> (SourcePrint, u32) {
        self.id
    }

    /// Whether it is as it must be. For state that was read from outside.
    pub(super) fn is_sound(&self) -> bool {
        self.reports.is_sound(u64::MAX) && self.waiting_clicks.is_sound(u64::MAX)
    }

    fn bytes(&self) -> u64 {
        // Its entry in the map of processes, a node of which is at least half full.
        let entry = 2 * size_of::<((SourcePrint, u32), Key)>() as u64;
        self.reports.bytes() + self.waiting_clicks.bytes() + entry
    }
}

impl Engine {
    /// A report covers every click of its process in the window before it. It is not judged itself.
    pub(super) fn take_report(&mut self, event: &JoinEvent, out: &mut impl Sink) {
        if self.config.reports.is_none() {
            return;
        }
        let JoinEvent { timestamp_ns, source, pid, .. } = *event;
        let window_ns = self.config.report_window_ns;
        let remembered_until_ns = timestamp_ns.saturating_add(window_ns);
        if self.is_over(remembered_until_ns) {
            // Every click that it could cover was judged before.
            return;
        }
        let process_key = self.process((source, pid), remembered_until_ns);
        let Some(process) = self.processes.get_mut(process_key) else { return };
        self.processes_held_bytes += process.reports.insert(timestamp_ns, ());
        let from_ns = timestamp_ns.saturating_sub(window_ns);
        for (click_ns, Waiting { labels, .. }) in process.waiting_clicks.drain_in(from_ns, timestamp_ns) {
            self.pending.click_reports -= 1;
            out.push(link(LinkOutcome::Reported, Subject::at(click_ns), labels));
        }
    }

    /// A click that is not a duplicate waits for the report that covers it.
    pub(super) fn await_report(&mut self, event: &JoinEvent, click: Waiting, out: &mut impl Sink) {
        if !event.wants_report {
            return;
        }
        let JoinEvent { timestamp_ns, source, pid, labels, .. } = *event;
        let deadline_ns = timestamp_ns.saturating_add(self.config.report_window_ns);
        let process_key = self.process((source, pid), deadline_ns);
        let Some(process) = self.processes.get_mut(process_key) else { return };
        if process.reports.any_in(timestamp_ns, deadline_ns) {
            out.push(link(LinkOutcome::Reported, Subject::at(timestamp_ns), labels));
        } else if deadline_ns >= self.now_ns {
            self.processes_held_bytes += process.waiting_clicks.insert(timestamp_ns, click);
            self.deadlines.report.push(deadline_ns, process_key);
            self.note_deadline(deadline_ns);
            self.pending.click_reports += 1;
        }
    }

    /// The deadline of clicks of the process: no report covers them.
    pub(super) fn judge_reports(&mut self, process_key: Key, until: Until, out: &mut impl Sink) {
        let window_ns = self.config.report_window_ns;
        let is_due = |timestamp_ns: u64| until.is_due(timestamp_ns.saturating_add(window_ns));
        let Some(process) = self.processes.get_mut(process_key) else { return };
        while let Some((click_ns, Waiting { labels, late, follows_doubt })) =
            process.waiting_clicks.pop_if(is_due)
        {
            self.pending.click_reports -= 1;
            if !late && !follows_doubt && !self.doubts.is_click_in_doubt(&self.config, click_ns) {
                out.push(link(LinkOutcome::Unreported, click_of_process(click_ns, process.id), labels));
            }
        }
    }

    /// Removes the process if nothing of it matters at `before_ns` or later.
    pub(super) fn forget_process(&mut self, key: Key, before_ns: u64) {
        let Some(process) = self.processes.get(key) else { return };
        if process.alive_until_ns >= before_ns {
            self.deadlines.forget_process.push(process.alive_until_ns, key);
            return;
        }
        debug_assert!(process.waiting_clicks.is_empty(), "what is forgotten has nothing waiting in it");
        if let Some(process) = self.processes.remove(key) {
            self.process_of_id.remove(&process.id);
            self.processes_held_bytes -= process.bytes();
        }
    }

    /// Gives up what is known of reports. It could only have completed links.
    pub(super) fn evict_reports(&mut self) {
        self.processes = super::open::Slab::default();
        self.process_of_id.clear();
        self.processes_held_bytes = 0;
        self.deadlines.report = Queue::default();
        self.deadlines.forget_process = Queue::default();
        self.evicted.click_reports += std::mem::take(&mut self.pending.click_reports);
    }

    /// Enters a process that is not there yet, from a snapshot.
    pub(super) fn restore_process(&mut self, mut process: Process) {
        let last_ns = process.reports.last_ns().max(process.waiting_clicks.last_ns()).unwrap_or(0);
        process.alive_until_ns = last_ns.saturating_add(self.config.report_window_ns);
        self.processes_held_bytes += process.bytes();
        let (id, alive_until_ns) = (process.id, process.alive_until_ns);
        let clicks: Vec<u64> = process.waiting_clicks.iter().map(|(click_ns, _)| *click_ns).collect();
        let key = self.processes.insert(process);
        self.process_of_id.insert(id, key);
        self.deadlines.forget_process.push(alive_until_ns, key);
        self.pending.click_reports += clicks.len() as u64;
        for click_ns in clicks {
            self.deadlines.report.push(click_ns.saturating_add(self.config.report_window_ns), key);
        }
    }

    /// The process of a source, made if there is none, with what is forgotten gone. It lives at least
    /// until `until_ns`.
    fn process(&mut self, id: (SourcePrint, u32), until_ns: u64) -> Key {
        let key = match self.process_of_id.get(&id) {
            Some(key) => *key,
            None => {
                let process = Process {
                    id,
                    alive_until_ns: 0,
                    reports: Timeline::default(),
                    waiting_clicks: Timeline::default(),
                };
                self.processes_held_bytes += process.bytes();
                let key = self.processes.insert(process);
                self.process_of_id.insert(id, key);
                self.deadlines.forget_process.push(until_ns, key);
                self.note_deadline(until_ns);
                key
            }
        };
        if let Some(process) = self.processes.get_mut(key) {
            process.alive_until_ns = process.alive_until_ns.max(until_ns);
            process.reports.forget_before(self.now_ns.saturating_sub(self.config.report_window_ns));
        }
        key
    }
}

fn link(outcome: LinkOutcome, subject: Subject, labels: LabelsKey) -> Decision {
    Outcome::Link { edge: Edge::ClickReport, outcome, subject, delay_ns: None, labels }
}
