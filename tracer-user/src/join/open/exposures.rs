//! An exposure of an open group, from its arrival until its request is known or known to be missing.

use super::{Engine, Exposure, Fate, FollowsDoubt, Key, Linked, Pair, Waiting, linked_click};
use crate::domain::{Edge, Kind, LinkOutcome, Outcome, RequestOutcome, Subject, TripleOutcome};
use crate::join::config::JoinConfig;
use crate::join::decision::{Decision, Sink};
use crate::join::doubts::Doubts;
use crate::join::event::{JoinEvent, LabelsKey, unlinked_exposure};
use crate::join::time::Until;

impl Engine {
    pub(in super::super) fn take_exposure(
        &mut self,
        group_key: Key,
        event: &JoinEvent,
        late: bool,
        out: &mut impl Sink,
    ) {
        let JoinEvent { timestamp_ns, labels, item, .. } = *event;
        let retention_ns = self.config.click_retention_ns();
        let remembered_until_ns = timestamp_ns.saturating_add(retention_ns);
        let is_remembered = !self.is_over(remembered_until_ns);
        let Some(pair_key) = self.open_pair(group_key, item, remembered_until_ns) else { return };
        self.keep_alive(group_key, remembered_until_ns);
        self.expose_request(group_key, timestamp_ns, out);

        let oldest_ns = self.now_ns.saturating_sub(retention_ns);
        let Some(pair) = self.open.pairs.get(pair_key) else { return };
        let first = pair.exposures.near(timestamp_ns, self.config.click_window_ns, oldest_ns);
        let opened_ns = match first {
            Some((opened_ns, _)) => {
                out.push(Outcome::Duplicate { kind: Kind::Exposure, labels });
                *opened_ns
            }
            None => {
                let follows_doubt = pair.follows_exposure_in_doubt(&self.doubts, &self.config, timestamp_ns);
                let event = Waiting { labels, late, follows_doubt };
                let Some(fate) = self.open_exposure(group_key, pair_key, timestamp_ns, event, out) else {
                    return;
                };
                if is_remembered && let Some(pair) = self.open.pairs.get_mut(pair_key) {
                    let exposure = Exposure { sightings: 0, follows_doubt, fate };
                    self.open.held_bytes += pair.exposures.insert(timestamp_ns, exposure);
                }
                timestamp_ns
            }
        };
        if is_remembered {
            self.remember_sighting(group_key, pair_key, timestamp_ns, opened_ns);
            self.complete_clicks(group_key, pair_key, timestamp_ns, opened_ns, out);
        }
    }

    /// Looks for the request of a new exposure among those already seen.
    fn open_exposure(
        &mut self,
        group_key: Key,
        pair_key: Key,
        timestamp_ns: u64,
        event: Waiting,
        out: &mut impl Sink,
    ) -> Option<Fate> {
        let deadline_ns = timestamp_ns.saturating_add(self.config.skew_ns);
        let from_ns = timestamp_ns.saturating_sub(self.config.exposure_window_ns);
        let group = self.open.groups.get_mut(group_key)?;
        let request = group
            .requests
            .latest_in(from_ns, timestamp_ns)
            .or_else(|| group.requests.earliest_in(timestamp_ns, deadline_ns));
        Some(if let Some((request_ns, ())) = request {
            let delay_ns = timestamp_ns.saturating_sub(*request_ns);
            out.push(exposure_link(
                LinkOutcome::Linked,
                Subject::at(timestamp_ns),
                Some(delay_ns),
                event.labels,
            ));
            Fate::Known(TripleOutcome::Complete)
        } else if deadline_ns < self.now_ns {
            out.push(Outcome::LateWithoutOutcome { kind: Kind::Exposure, labels: event.labels });
            Fate::Known(TripleOutcome::Unseen)
        } else {
            self.open.held_bytes += group.waiting_exposures.insert(timestamp_ns, pair_key);
            self.deadlines.exposure.push(deadline_ns, group_key);
            self.note_deadline(deadline_ns);
            self.pending.exposures += 1;
            Fate::Waiting { event, clicks: Vec::new() }
        })
    }

    /// An exposure was sighted: the request it answers is exposed.
    fn expose_request(&mut self, group_key: Key, exposure_ns: u64, out: &mut impl Sink) {
        let from_ns = exposure_ns.saturating_sub(self.config.exposure_window_ns);
        let to_ns = exposure_ns.saturating_add(self.config.skew_ns);
        let Some(group) = self.open.groups.get_mut(group_key) else { return };
        let is_answered = |(request_ns, _): &mut (u64, Waiting)| (from_ns..=to_ns).contains(request_ns);
        if let Some((_, Waiting { labels, .. })) = group.waiting_request.take_if(is_answered) {
            self.pending.requests -= 1;
            out.push(Outcome::Request { outcome: RequestOutcome::Exposed, labels });
        }
    }

    fn remember_sighting(&mut self, group_key: Key, pair_key: Key, timestamp_ns: u64, opened_ns: u64) {
        if let Some(group) = self.open.groups.get_mut(group_key) {
            self.open.held_bytes += group.exposures.insert(timestamp_ns, ());
        }
        if let Some(pair) = self.open.pairs.get_mut(pair_key) {
            self.open.held_bytes += pair.sightings.insert(timestamp_ns, opened_ns);
            if let Some(exposure) = pair.exposures.get_mut(opened_ns) {
                exposure.sightings += 1;
            }
        }
    }

    /// An exposure was sighted: links every click that waits for it.
    fn complete_clicks(
        &mut self,
        group_key: Key,
        pair_key: Key,
        sighted_ns: u64,
        opened_ns: u64,
        out: &mut impl Sink,
    ) {
        let from_ns = sighted_ns.saturating_sub(self.config.skew_ns);
        let to_ns = sighted_ns.saturating_add(self.config.click_window_ns);
        let Some(request) = self.open.groups.get(group_key).map(|group| group.request) else { return };
        let Some(pair) = self.open.pairs.get_mut(pair_key) else { return };
        let Pair { item, waiting_clicks, exposures, .. } = pair;
        let Some(exposure) = exposures.get_mut(opened_ns) else {
            debug_assert!(false, "a sighting has no exposure");
            return;
        };
        let mut completed = 0;
        for (click_ns, Waiting { labels, follows_doubt, .. }) in waiting_clicks.drain_in(from_ns, to_ns) {
            completed += 1;
            out.push(linked_click(click_ns, sighted_ns, labels));
            let lacks_sighting = self.doubts.may_lack_a_sighting(&self.config, click_ns, sighted_ns);
            let click = Linked { click_ns, labels, is_doubtful: follows_doubt || lacks_sighting };
            match &mut exposure.fate {
                Fate::Waiting { clicks, .. } => {
                    clicks.push(click);
                    self.pending.triples += 1;
                }
                Fate::Known(outcome) => {
                    out.push(click.triple(&self.doubts, &self.config, request, *item, *outcome));
                }
            }
        }
        self.pending.clicks -= completed;
        if let Some(group) = self.open.groups.get_mut(group_key) {
            group.waiting_clicks -= completed;
        }
    }

    /// The deadline of exposures of the group: their request did not come.
    pub(super) fn judge_exposures(&mut self, group_key: Key, until: Until, out: &mut impl Sink) {
        let skew_ns = self.config.skew_ns;
        let is_due = |timestamp_ns: u64| until.is_due(timestamp_ns.saturating_add(skew_ns));
        while let Some(group) = self.open.groups.get_mut(group_key)
            && let Some((timestamp_ns, pair_key)) = group.waiting_exposures.pop_if(is_due)
        {
            let is_covered = self.is_exposure_covered(timestamp_ns);
            self.end_exposure(pair_key, timestamp_ns, is_covered, out);
        }
        self.try_pack(group_key);
    }

    /// An exposure that waited for its request waits no longer.
    pub(in super::super) fn end_exposure(
        &mut self,
        pair_key: Key,
        timestamp_ns: u64,
        is_covered: bool,
        out: &mut impl Sink,
    ) {
        let (link, triple_outcome) = if is_covered {
            (LinkOutcome::Orphan, TripleOutcome::Broken)
        } else {
            (LinkOutcome::Unseen, TripleOutcome::Unseen)
        };
        let Some(pair) = self.open.pairs.get_mut(pair_key) else { return };
        let (item, group_key) = (pair.item, pair.group);
        let settled = pair.settle_exposure(timestamp_ns, |event| {
            if event.late || event.follows_doubt { TripleOutcome::Unseen } else { triple_outcome }
        });
        let Some(request) = self.open.groups.get(group_key).map(|group| group.request) else { return };
        let Some((Waiting { labels, late, follows_doubt }, outcome, clicks)) = settled else { return };
        self.pending.exposures -= 1;
        self.pending.triples -= clicks.len() as u64;
        let link = if follows_doubt { LinkOutcome::Unseen } else { link };
        out.push(if late {
            Outcome::LateWithoutOutcome { kind: Kind::Exposure, labels }
        } else {
            exposure_link(link, unlinked_exposure(timestamp_ns, request), None, labels)
        });
        for click in clicks {
            out.push(click.triple(&self.doubts, &self.config, request, item, outcome));
        }
    }
}

impl Pair {
    /// Whether a new exposure at this time follows a sighting of one in doubt: which of the two is new is in doubt then.
    fn follows_exposure_in_doubt(
        &self,
        doubts: &Doubts,
        config: &JoinConfig,
        timestamp_ns: u64,
    ) -> FollowsDoubt {
        let from_ns = timestamp_ns.saturating_sub(config.click_window_ns);
        self.sightings.latest_in(from_ns, timestamp_ns).is_some_and(|(_, opened_ns)| {
            doubts.is_exposure_in_doubt(config, *opened_ns)
                || self.exposures.get(*opened_ns).is_some_and(|exposure| exposure.follows_doubt)
        })
    }
}

pub(in super::super) fn exposure_link(
    outcome: LinkOutcome,
    subject: Subject,
    delay_ns: Option<u64>,
    labels: LabelsKey,
) -> Decision {
    Outcome::Link { edge: Edge::RequestExposure, outcome, subject, delay_ns, labels }
}
