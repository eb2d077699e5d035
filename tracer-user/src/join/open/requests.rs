//! A request of an open group, from its arrival until something was shown for it or its window has
//! run out.

use super::{Engine, Key, Waiting};
use crate::domain::{Edge, Kind, LinkOutcome, Outcome, RequestOutcome, Subject, TripleOutcome};
use crate::join::decision::Sink;
use crate::join::event::JoinEvent;
use crate::join::time::Until;

impl Engine {
    pub(in super::super) fn take_request(
        &mut self,
        group_key: Key,
        event: &JoinEvent,
        late: bool,
        out: &mut impl Sink,
    ) {
        let JoinEvent { timestamp_ns, labels, .. } = *event;
        let remembered_until_ns = timestamp_ns.saturating_add(self.config.request_retention_ns());
        let is_remembered = !self.is_over(remembered_until_ns);
        self.keep_alive(group_key, remembered_until_ns);
        self.complete_exposures(group_key, timestamp_ns, out);

        let window_ns = self.config.exposure_window_ns;
        let Some(group) = self.open.groups.get_mut(group_key) else { return };
        let is_duplicate = group.request_firsts.near(timestamp_ns, window_ns, 0).is_some();
        if is_remembered {
            self.open.held_bytes += group.requests.insert(timestamp_ns, ());
        }
        if is_duplicate {
            out.push(Outcome::Duplicate { kind: Kind::Request, labels });
            return;
        }
        if is_remembered {
            self.open.held_bytes += group.request_firsts.insert(timestamp_ns, ());
        }
        let deadline_ns = timestamp_ns.saturating_add(window_ns);
        if group.exposures.any_in(timestamp_ns.saturating_sub(self.config.skew_ns), deadline_ns) {
            out.push(Outcome::Request { outcome: RequestOutcome::Exposed, labels });
        } else if deadline_ns < self.now_ns {
            out.push(Outcome::LateWithoutOutcome { kind: Kind::Request, labels });
        } else {
            debug_assert!(group.waiting_request.is_none(), "two new requests in one window");
            let waiting = Waiting { labels, late, follows_doubt: false };
            group.waiting_request = Some((timestamp_ns, waiting));
            self.deadlines.request.push(deadline_ns, group_key);
            self.note_deadline(deadline_ns);
            self.pending.requests += 1;
        }
    }

    /// A request was sighted: links every exposure that it is a request for.
    fn complete_exposures(&mut self, group_key: Key, request_ns: u64, out: &mut impl Sink) {
        let from_ns = request_ns.saturating_sub(self.config.skew_ns);
        let to_ns = request_ns.saturating_add(self.config.exposure_window_ns);
        let Some(group) = self.open.groups.get_mut(group_key) else { return };
        for (exposure_ns, pair_key) in group.waiting_exposures.drain_in(from_ns, to_ns) {
            let pair = self.open.pairs.get_mut(pair_key);
            let settled =
                pair.and_then(|pair| pair.settle_exposure(exposure_ns, |_| TripleOutcome::Complete));
            let Some((event, outcome, clicks)) = settled else { continue };
            out.push(Outcome::Link {
                edge: Edge::RequestExposure,
                outcome: LinkOutcome::Linked,
                subject: Subject::at(exposure_ns),
                delay_ns: Some(exposure_ns.saturating_sub(request_ns)),
                labels: event.labels,
            });
            self.pending.exposures -= 1;
            self.pending.triples -= clicks.len() as u64;
            for click in clicks {
                let subject = Subject::at(click.click_ns);
                out.push(Outcome::Triple { outcome, subject, labels: click.labels });
            }
        }
    }

    /// The deadline of the group's new request: was anything shown for it?
    pub(super) fn judge_request(&mut self, group_key: Key, until: Until, out: &mut impl Sink) {
        let window_ns = self.config.exposure_window_ns;
        let is_due =
            |(timestamp_ns, _): &mut (u64, Waiting)| until.is_due(timestamp_ns.saturating_add(window_ns));
        let Some(group) = self.open.groups.get_mut(group_key) else { return };
        if let Some((request_ns, Waiting { labels, late, .. })) = group.waiting_request.take_if(is_due) {
            self.pending.requests -= 1;
            out.push(if late {
                Outcome::LateWithoutOutcome { kind: Kind::Request, labels }
            } else {
                self.doubts.unexposed(request_ns, labels)
            });
            self.try_pack(group_key);
        }
    }
}
