//! A click, from its arrival until its exposure is known or known to be missing.

use std::sync::Arc;

use super::Join;
use super::deadlines::Until;
use super::state::{Pair, PairKey, Waiting};
use crate::domain::{Edge, Event, Kind, Labels, LinkOutcome, Outcome, TripleOutcome};

impl Join {
    pub(super) fn take_click(&mut self, event: Event, late: bool, out: &mut Vec<Outcome>) {
        if event.request_id.is_empty() || event.item_id.is_empty() {
            self.await_report(&event, late, out);
            unlinked(LinkOutcome::MissingId, TripleOutcome::Broken, event.labels, out);
            return;
        }
        let timestamp_ns = event.timestamp_ns;
        let remembered_until_ns = timestamp_ns.saturating_add(self.config.click_retention_ns());
        let group_key = self.group(&event.request_id, remembered_until_ns);
        let pair_key = self.pair(group_key, &event.item_id, remembered_until_ns);

        let is_remembered = !self.is_over(remembered_until_ns);
        let pair = &mut self.state.pairs[pair_key];
        if pair.click_firsts.near(timestamp_ns, self.config.click_window_ns, 0).is_some() {
            out.push(Outcome::Duplicate { kind: Kind::Click, labels: event.labels });
            return;
        }
        if is_remembered {
            pair.click_firsts.insert(timestamp_ns, ());
        }
        self.await_report(&event, late, out);
        self.link_or_wait(pair_key, timestamp_ns, Waiting { labels: event.labels, late }, out);
    }

    /// Looks for the exposure of a new click among the sightings already seen.
    fn link_or_wait(&mut self, pair_key: PairKey, click_ns: u64, click: Waiting, out: &mut Vec<Outcome>) {
        let deadline_ns = click_ns.saturating_add(self.config.skew_ns);
        let from_ns = click_ns.saturating_sub(self.config.click_window_ns);
        let Pair { sightings, exposures, waiting_clicks, .. } = &mut self.state.pairs[pair_key];
        let sighting = sightings
            .latest_in(from_ns, click_ns)
            .or_else(|| sightings.earliest_in(click_ns, deadline_ns))
            .copied();
        let exposure =
            sighting.and_then(|(sighted_ns, opened_ns)| Some((sighted_ns, exposures.get_mut(opened_ns)?)));
        if let Some((sighted_ns, exposure)) = exposure {
            self.pending.triples += u64::from(exposure.link_click(click_ns, sighted_ns, click.labels, out));
        } else if deadline_ns < self.now_ns {
            out.push(Outcome::LateWithoutOutcome { kind: Kind::Click, labels: click.labels });
        } else {
            waiting_clicks.insert(click_ns, click);
            self.deadlines.click.push(deadline_ns, pair_key);
            self.pending.clicks += 1;
        }
    }

    /// The deadline of clicks of the pair: their exposure did not come.
    pub(super) fn judge_clicks(&mut self, pair_key: PairKey, until: Until, out: &mut Vec<Outcome>) {
        let skew_ns = self.config.skew_ns;
        let is_due = |timestamp_ns: u64| until.is_due(timestamp_ns.saturating_add(skew_ns));
        while let Some((click_ns, click)) = self.state.pairs[pair_key].waiting_clicks.pop_if(is_due) {
            self.pending.clicks -= 1;
            let Waiting { labels, late } = click;
            let from_ns = click_ns.saturating_sub(self.config.click_window_ns);
            if late {
                out.push(Outcome::LateWithoutOutcome { kind: Kind::Click, labels });
            } else if self.exposure_horizon_ns.is_some_and(|horizon_ns| from_ns < horizon_ns) {
                unlinked(LinkOutcome::Unseen, TripleOutcome::Unseen, labels, out);
            } else if self.was_another_item_exposed(pair_key, from_ns, click_ns.saturating_add(skew_ns)) {
                unlinked(LinkOutcome::Mismatch, TripleOutcome::Broken, labels, out);
            } else {
                unlinked(LinkOutcome::Orphan, TripleOutcome::Broken, labels, out);
            }
        }
    }

    /// Whether the group saw more exposures in the range than the pair did.
    fn was_another_item_exposed(&self, pair_key: PairKey, from_ns: u64, to_ns: u64) -> bool {
        let pair = &self.state.pairs[pair_key];
        let group = &self.state.groups[pair.group];
        group.exposures.count_in(from_ns, to_ns) > pair.sightings.count_in(from_ns, to_ns)
    }
}

fn unlinked(outcome: LinkOutcome, triple: TripleOutcome, labels: Arc<Labels>, out: &mut Vec<Outcome>) {
    let click = Arc::clone(&labels);
    out.push(Outcome::Link { edge: Edge::ExposureClick, outcome, delay_ns: None, labels });
    out.push(Outcome::Triple { outcome: triple, labels: click });
}
