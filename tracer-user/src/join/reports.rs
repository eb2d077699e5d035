//! Which clicks a process reported.

use std::sync::Arc;

use super::Join;
use super::deadlines::Until;
use super::state::{ProcessKey, Waiting};
use crate::domain::{Edge, Event, Labels, LinkOutcome, Outcome};

impl Join {
    /// A report covers every click of its process in the window before it. It is not judged itself.
    pub(super) fn take_report(&mut self, event: Event, out: &mut Vec<Outcome>) {
        if self.config.reports.is_none() {
            return;
        }
        let Event { timestamp_ns, source, pid, .. } = event;
        let window_ns = self.config.report_window_ns;
        let remembered_until_ns = timestamp_ns.saturating_add(window_ns);
        if self.is_over(remembered_until_ns) {
            // Every click that it could cover was judged before.
            return;
        }
        let process_key = self.process(&source, pid, remembered_until_ns);
        let process = &mut self.state.processes[process_key];
        process.reports.insert(timestamp_ns, ());
        let from_ns = timestamp_ns.saturating_sub(window_ns);
        for (_, Waiting { labels, .. }) in process.waiting_clicks.drain_in(from_ns, timestamp_ns) {
            self.pending.click_reports -= 1;
            out.push(link(LinkOutcome::Reported, labels));
        }
    }

    /// A click that is not a duplicate waits for the report that covers it.
    pub(super) fn await_report(&mut self, click: &Event, late: bool, out: &mut Vec<Outcome>) {
        if !self.config.reports.include(&click.labels) {
            return;
        }
        let deadline_ns = click.timestamp_ns.saturating_add(self.config.report_window_ns);
        let process_key = self.process(&click.source, click.pid, deadline_ns);
        let process = &mut self.state.processes[process_key];
        let labels = Arc::clone(&click.labels);
        if process.reports.any_in(click.timestamp_ns, deadline_ns) {
            out.push(link(LinkOutcome::Reported, labels));
        } else if deadline_ns >= self.now_ns {
            process.waiting_clicks.insert(click.timestamp_ns, Waiting { labels, late });
            self.deadlines.report.push(deadline_ns, process_key);
            self.pending.click_reports += 1;
        }
    }

    /// The deadline of clicks of the process: no report covers them.
    pub(super) fn judge_reports(&mut self, process_key: ProcessKey, until: Until, out: &mut Vec<Outcome>) {
        let window_ns = self.config.report_window_ns;
        let is_due = |timestamp_ns: u64| until.is_due(timestamp_ns.saturating_add(window_ns));
        while let Some((_, Waiting { labels, late })) =
            self.state.processes[process_key].waiting_clicks.pop_if(is_due)
        {
            self.pending.click_reports -= 1;
            if !late {
                out.push(link(LinkOutcome::Unreported, labels));
            }
        }
    }
}

fn link(outcome: LinkOutcome, labels: Arc<Labels>) -> Outcome {
    Outcome::Link { edge: Edge::ClickReport, outcome, delay_ns: None, labels }
}
