//! A request, from its arrival until something was shown for it or its window has run out.

use super::Join;
use super::deadlines::Until;
use super::state::{GroupKey, State, Waiting};
use crate::domain::{Edge, Event, Kind, LinkOutcome, Outcome, RequestOutcome, TripleOutcome};

impl Join {
    pub(super) fn take_request(&mut self, event: Event, late: bool, out: &mut Vec<Outcome>) {
        let Event { timestamp_ns, labels, request_id, .. } = event;
        if request_id.is_empty() {
            out.push(Outcome::Request { outcome: RequestOutcome::MissingId, labels });
            return;
        }
        let remembered_until_ns = timestamp_ns.saturating_add(self.config.request_retention_ns());
        let is_remembered = !self.is_over(remembered_until_ns);
        let group_key = self.group(&request_id, remembered_until_ns);
        self.complete_exposures(group_key, timestamp_ns, out);

        let window_ns = self.config.exposure_window_ns;
        let group = &mut self.state.groups[group_key];
        let is_duplicate = group.request_firsts.near(timestamp_ns, window_ns, 0).is_some();
        if is_remembered {
            group.requests.insert(timestamp_ns, ());
        }
        if is_duplicate {
            out.push(Outcome::Duplicate { kind: Kind::Request, labels });
            return;
        }
        if is_remembered {
            group.request_firsts.insert(timestamp_ns, ());
        }
        let deadline_ns = timestamp_ns.saturating_add(window_ns);
        if group.exposures.any_in(timestamp_ns.saturating_sub(self.config.skew_ns), deadline_ns) {
            out.push(Outcome::Request { outcome: RequestOutcome::Exposed, labels });
        } else if deadline_ns < self.now_ns {
            out.push(Outcome::LateWithoutOutcome { kind: Kind::Request, labels });
        } else {
            debug_assert!(group.waiting_request.is_none(), "invariant 3: two new requests in one window");
            group.waiting_request = Some((timestamp_ns, Waiting { labels, late }));
            self.deadlines.request.push(deadline_ns, group_key);
            self.pending.requests += 1;
        }
    }

    /// A request was sighted: links every exposure that it is a request for.
    fn complete_exposures(&mut self, group_key: GroupKey, request_ns: u64, out: &mut Vec<Outcome>) {
        let from_ns = request_ns.saturating_sub(self.config.skew_ns);
        let to_ns = request_ns.saturating_add(self.config.exposure_window_ns);
        let State { groups, pairs, .. } = &mut self.state;
        for (exposure_ns, pair_key) in groups[group_key].waiting_exposures.drain_in(from_ns, to_ns) {
            let Some((event, triples)) =
                pairs[pair_key].settle_exposure(exposure_ns, |_| TripleOutcome::Complete, out)
            else {
                continue;
            };
            out.push(Outcome::Link {
                edge: Edge::RequestExposure,
                outcome: LinkOutcome::Linked,
                delay_ns: Some(exposure_ns.saturating_sub(request_ns)),
                labels: event.labels,
            });
            self.pending.exposures -= 1;
            self.pending.triples -= triples;
        }
    }

    /// The deadline of the group's new request: was anything shown for it?
    pub(super) fn judge_request(&mut self, group_key: GroupKey, until: Until, out: &mut Vec<Outcome>) {
        let window_ns = self.config.exposure_window_ns;
        let is_due =
            |(timestamp_ns, _): &mut (u64, Waiting)| until.is_due(timestamp_ns.saturating_add(window_ns));
        let group = &mut self.state.groups[group_key];
        if let Some((_, Waiting { labels, late })) = group.waiting_request.take_if(is_due) {
            self.pending.requests -= 1;
            out.push(if late {
                Outcome::LateWithoutOutcome { kind: Kind::Request, labels }
            } else {
                Outcome::Request { outcome: RequestOutcome::Unexposed, labels }
            });
        }
    }
}
