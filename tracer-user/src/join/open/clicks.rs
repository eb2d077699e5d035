//! A click of an open group, from its arrival until its exposure is known or known to be missing.

use super::{Engine, Fate, Key, Linked, Pair, Waiting, linked_click};
use crate::domain::{Edge, Kind, LinkOutcome, Outcome, Subject, TripleOutcome};
use crate::join::config::JoinConfig;
use crate::join::decision::{Decision, Sink};
use crate::join::doubts::Doubts;
use crate::join::event::{self, ItemPrint, JoinEvent, LabelsKey, RequestPrint, triple};
use crate::join::time::Until;

impl Engine {
    pub(in super::super) fn take_click(
        &mut self,
        group_key: Key,
        event: &JoinEvent,
        late: bool,
        out: &mut impl Sink,
    ) {
        let JoinEvent { timestamp_ns, labels, item, .. } = *event;
        let remembered_until_ns = timestamp_ns.saturating_add(self.config.click_retention_ns());
        let is_remembered = !self.is_over(remembered_until_ns);
        let Some(pair_key) = self.open_pair(group_key, item, remembered_until_ns) else { return };
        let Some(pair) = self.open.pairs.get_mut(pair_key) else { return };
        if let Some((first_ns, follows_doubt)) =
            pair.click_firsts.near(timestamp_ns, self.config.click_window_ns, 0)
        {
            out.push(Outcome::Duplicate { kind: Kind::Click, labels });
            let is_doubtful = *follows_doubt || self.doubts.is_click_in_doubt(&self.config, *first_ns);
            if is_doubtful && is_remembered {
                pair.doubtful_repetition_ns = pair.doubtful_repetition_ns.max(Some(timestamp_ns));
                self.keep_alive(group_key, remembered_until_ns);
            }
            return;
        }
        let from_ns = timestamp_ns.saturating_sub(self.config.click_window_ns);
        let follows_doubt = pair.doubtful_repetition_ns.is_some_and(|click_ns| click_ns >= from_ns);
        if is_remembered {
            self.open.held_bytes += pair.click_firsts.insert(timestamp_ns, follows_doubt);
        }
        self.keep_alive(group_key, remembered_until_ns);
        let click = Waiting { labels, late, follows_doubt };
        self.await_report(event, click, out);
        self.link_or_wait(group_key, pair_key, timestamp_ns, click, out);
    }

    /// Looks for the exposure of a new click among the sightings already seen.
    fn link_or_wait(
        &mut self,
        group_key: Key,
        pair_key: Key,
        click_ns: u64,
        click: Waiting,
        out: &mut impl Sink,
    ) {
        let Waiting { labels, follows_doubt, .. } = click;
        let deadline_ns = click_ns.saturating_add(self.config.skew_ns);
        let from_ns = click_ns.saturating_sub(self.config.click_window_ns);
        let Some(request) = self.open.groups.get(group_key).map(|group| group.request) else { return };
        let Some(pair) = self.open.pairs.get_mut(pair_key) else { return };
        let Pair { item, sightings, exposures, waiting_clicks, .. } = pair;
        let sighting = sightings
            .latest_in(from_ns, click_ns)
            .or_else(|| sightings.earliest_in(click_ns, deadline_ns))
            .copied();
        let exposure =
            sighting.and_then(|(sighted_ns, opened_ns)| Some((sighted_ns, exposures.get_mut(opened_ns)?)));
        if let Some((sighted_ns, exposure)) = exposure {
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
        } else if deadline_ns < self.now_ns {
            out.push(Outcome::LateWithoutOutcome { kind: Kind::Click, labels });
        } else {
            self.open.held_bytes += waiting_clicks.insert(click_ns, click);
            self.deadlines.click.push(deadline_ns, pair_key);
            self.note_deadline(deadline_ns);
            self.pending.clicks += 1;
            if let Some(group) = self.open.groups.get_mut(group_key) {
                group.waiting_clicks += 1;
            }
        }
    }

    /// The deadline of clicks of the pair: their exposure did not come.
    pub(super) fn judge_clicks(&mut self, pair_key: Key, until: Until, out: &mut impl Sink) {
        let skew_ns = self.config.skew_ns;
        let is_due = |timestamp_ns: u64| until.is_due(timestamp_ns.saturating_add(skew_ns));
        while let Some(pair) = self.open.pairs.get_mut(pair_key)
            && let Some((click_ns, click)) = pair.waiting_clicks.pop_if(is_due)
        {
            let outcome = if click.follows_doubt || !self.is_click_covered(click_ns) {
                LinkOutcome::Unseen
            } else if self.was_another_item_exposed(pair_key, click_ns) {
                LinkOutcome::Mismatch
            } else {
                LinkOutcome::Orphan
            };
            self.end_click(pair_key, click_ns, click, outcome, out);
        }
        if let Some(group_key) = self.open.pairs.get(pair_key).map(|pair| pair.group) {
            self.try_pack(group_key);
        }
    }

    /// A click that was taken out of those that wait for their exposure comes to this.
    pub(in super::super) fn end_click(
        &mut self,
        pair_key: Key,
        click_ns: u64,
        Waiting { labels, late, .. }: Waiting,
        outcome: LinkOutcome,
        out: &mut impl Sink,
    ) {
        self.pending.clicks -= 1;
        let Some(pair) = self.open.pairs.get(pair_key) else { return };
        let Some(group) = self.open.groups.get_mut(pair.group) else { return };
        group.waiting_clicks -= 1;
        if late {
            out.push(Outcome::LateWithoutOutcome { kind: Kind::Click, labels });
        } else {
            let subject = event::unlinked_click(click_ns, group.request, pair.item);
            unlinked_click(outcome, subject, labels, out);
        }
    }

    /// Whether the group saw more exposures in the click's range than the pair did.
    fn was_another_item_exposed(&self, pair_key: Key, click_ns: u64) -> bool {
        let from_ns = click_ns.saturating_sub(self.config.click_window_ns);
        let to_ns = click_ns.saturating_add(self.config.skew_ns);
        let Some(pair) = self.open.pairs.get(pair_key) else { return false };
        let Some(group) = self.open.groups.get(pair.group) else { return false };
        group.exposures.count_in(from_ns, to_ns) > pair.sightings.count_in(from_ns, to_ns)
    }
}

impl Linked {
    /// The click's triple, when its exposure makes this of it.
    pub(super) fn triple(
        &self,
        doubts: &Doubts,
        config: &JoinConfig,
        request: RequestPrint,
        item: ItemPrint,
        outcome: TripleOutcome,
    ) -> Decision {
        let outcome = match doubts.triple(config, self.click_ns, outcome) {
            TripleOutcome::Broken if self.is_doubtful => TripleOutcome::Unseen,
            outcome => outcome,
        };
        Outcome::Triple { outcome, subject: triple(self.click_ns, request, item), labels: self.labels }
    }
}

/// A click that is linked to nothing, and its triple.
pub(in super::super) fn unlinked_click(
    outcome: LinkOutcome,
    subject: Subject,
    labels: LabelsKey,
    out: &mut impl Sink,
) {
    let triple = if outcome == LinkOutcome::Unseen { TripleOutcome::Unseen } else { TripleOutcome::Broken };
    out.push(Outcome::Link { edge: Edge::ExposureClick, outcome, subject, delay_ns: None, labels });
    out.push(Outcome::Triple { outcome: triple, subject, labels });
}
