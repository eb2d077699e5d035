//! An exposure, from its arrival until its request is known or known to be missing.

use std::sync::Arc;

use super::Join;
use super::deadlines::Until;
use super::state::{Exposure, Fate, GroupKey, Pair, PairKey, Waiting};
use crate::domain::{Edge, Event, Kind, Labels, LinkOutcome, Outcome, RequestOutcome, TripleOutcome};

impl Join {
    pub(super) fn take_exposure(&mut self, event: Event, late: bool, out: &mut Vec<Outcome>) {
        let Event { timestamp_ns, labels, request_id, item_id, .. } = event;
        if request_id.is_empty() || item_id.is_empty() {
            out.push(link(LinkOutcome::MissingId, None, labels));
            return;
        }
        let retention_ns = self.config.click_retention_ns();
        let remembered_until_ns = timestamp_ns.saturating_add(retention_ns);
        let is_remembered = !self.is_over(remembered_until_ns);
        let group_key = self.group(&request_id, remembered_until_ns);
        let pair_key = self.pair(group_key, &item_id, remembered_until_ns);
        self.expose_request(group_key, timestamp_ns, out);

        let oldest_ns = self.now_ns.saturating_sub(retention_ns);
        let pair = &self.state.pairs[pair_key];
        let first = pair.exposures.near(timestamp_ns, self.config.click_window_ns, oldest_ns);
        let opened_ns = match first {
            Some((opened_ns, _)) => {
                out.push(Outcome::Duplicate { kind: Kind::Exposure, labels });
                *opened_ns
            }
            None => {
                let event = Waiting { labels, late };
                let fate = self.open_exposure(group_key, pair_key, timestamp_ns, event, out);
                if is_remembered {
                    let exposure = Exposure { sightings: 0, fate };
                    self.state.pairs[pair_key].exposures.insert(timestamp_ns, exposure);
                }
                timestamp_ns
            }
        };
        if is_remembered {
            self.remember_sighting(group_key, pair_key, timestamp_ns, opened_ns);
            self.complete_clicks(pair_key, timestamp_ns, opened_ns, out);
        }
    }

    /// Looks for the request of a new exposure among those already seen.
    fn open_exposure(
        &mut self,
        group_key: GroupKey,
        pair_key: PairKey,
        timestamp_ns: u64,
        event: Waiting,
        out: &mut Vec<Outcome>,
    ) -> Fate {
        let deadline_ns = timestamp_ns.saturating_add(self.config.skew_ns);
        let from_ns = timestamp_ns.saturating_sub(self.config.exposure_window_ns);
        let group = &mut self.state.groups[group_key];
        let request = group
            .requests
            .latest_in(from_ns, timestamp_ns)
            .or_else(|| group.requests.earliest_in(timestamp_ns, deadline_ns));
        if let Some((request_ns, ())) = request {
            out.push(link(LinkOutcome::Linked, Some(timestamp_ns.saturating_sub(*request_ns)), event.labels));
            Fate::Known(TripleOutcome::Complete)
        } else if deadline_ns < self.now_ns {
            out.push(Outcome::LateWithoutOutcome { kind: Kind::Exposure, labels: event.labels });
            Fate::Known(TripleOutcome::Unseen)
        } else {
            group.waiting_exposures.insert(timestamp_ns, pair_key);
            self.deadlines.exposure.push(deadline_ns, group_key);
            self.pending.exposures += 1;
            Fate::Waiting { event, clicks: Vec::new() }
        }
    }

    /// An exposure was sighted: the request it answers is exposed.
    fn expose_request(&mut self, group_key: GroupKey, exposure_ns: u64, out: &mut Vec<Outcome>) {
        let from_ns = exposure_ns.saturating_sub(self.config.exposure_window_ns);
        let to_ns = exposure_ns.saturating_add(self.config.skew_ns);
        let waiting_request = &mut self.state.groups[group_key].waiting_request;
        if let Some((_, Waiting { labels, .. })) =
            waiting_request.take_if(|(request_ns, _)| (from_ns..=to_ns).contains(request_ns))
        {
            self.pending.requests -= 1;
            out.push(Outcome::Request { outcome: RequestOutcome::Exposed, labels });
        }
    }

    fn remember_sighting(
        &mut self,
        group_key: GroupKey,
        pair_key: PairKey,
        timestamp_ns: u64,
        opened_ns: u64,
    ) {
        self.state.groups[group_key].exposures.insert(timestamp_ns, ());
        let pair = &mut self.state.pairs[pair_key];
        pair.sightings.insert(timestamp_ns, opened_ns);
        if let Some(exposure) = pair.exposures.get_mut(opened_ns) {
            exposure.sightings += 1;
        }
    }

    /// An exposure was sighted: links every click that waits for it.
    fn complete_clicks(
        &mut self,
        pair_key: PairKey,
        sighted_ns: u64,
        opened_ns: u64,
        out: &mut Vec<Outcome>,
    ) {
        let from_ns = sighted_ns.saturating_sub(self.config.skew_ns);
        let to_ns = sighted_ns.saturating_add(self.config.click_window_ns);
        let Pair { waiting_clicks, exposures, .. } = &mut self.state.pairs[pair_key];
        let Some(exposure) = exposures.get_mut(opened_ns) else {
            debug_assert!(false, "invariant 4: a sighting has no exposure");
            return;
        };
        for (click_ns, Waiting { labels, .. }) in waiting_clicks.drain_in(from_ns, to_ns) {
            self.pending.clicks -= 1;
            self.pending.triples += u64::from(exposure.link_click(click_ns, sighted_ns, labels, out));
        }
    }

    /// The deadline of exposures of the group: their request did not come.
    pub(super) fn judge_exposures(&mut self, group_key: GroupKey, until: Until, out: &mut Vec<Outcome>) {
        let skew_ns = self.config.skew_ns;
        let is_due = |timestamp_ns: u64| until.is_due(timestamp_ns.saturating_add(skew_ns));
        while let Some((timestamp_ns, pair_key)) =
            self.state.groups[group_key].waiting_exposures.pop_if(is_due)
        {
            let looked_back_to_ns = timestamp_ns.saturating_sub(self.config.exposure_window_ns);
            let is_covered = self.request_horizon_ns.is_none_or(|horizon_ns| looked_back_to_ns >= horizon_ns);
            let (outcome, triple) = if is_covered {
                (LinkOutcome::Orphan, TripleOutcome::Broken)
            } else {
                (LinkOutcome::Unseen, TripleOutcome::Unseen)
            };
            let judge = |event: &Waiting| if event.late { TripleOutcome::Unseen } else { triple };
            let Some((Waiting { labels, late }, triples)) =
                self.state.pairs[pair_key].settle_exposure(timestamp_ns, judge, out)
            else {
                continue;
            };
            self.pending.exposures -= 1;
            self.pending.triples -= triples;
            out.push(if late {
                Outcome::LateWithoutOutcome { kind: Kind::Exposure, labels }
            } else {
                link(outcome, None, labels)
            });
        }
    }
}

fn link(outcome: LinkOutcome, delay_ns: Option<u64>, labels: Arc<Labels>) -> Outcome {
    Outcome::Link { edge: Edge::RequestExposure, outcome, delay_ns, labels }
}
