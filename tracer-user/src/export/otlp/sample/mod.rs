//! Events from when they are seen until their triple is judged.
//!
//! The join keeps no ids, so a copy of what may be told is kept here. A click is kept until it is judged, which takes
//! seconds; that bound is never reached but by a flood. Requests and exposures have to be kept until somebody clicks,
//! which most never are: they are kept by request id, all or nothing of one id, and of so many ids as there is room for
//! for a few minutes. So a broken triple can always be told, with its click and its reason, and often with the rest; a
//! complete one where all of it was kept.
//!
//! Pure: no clock, no queue. What the join says is taken as it is; nothing is joined here again.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{
    ids,
    record::{Part, Record, Verdict},
};
use crate::domain::{Edge, Event, Kind, LinkOutcome, Outcome};

/// Clicks that are not judged yet, of at most some 500 bytes each.
const MAX_CLICKS: usize = 16_384;
/// Requests and exposures, of at most some 400 bytes each.
const MAX_EVENTS: usize = 32_768;
/// Most clicks come within this time after their request.
const KEPT_NS: u64 = 300_000_000_000;
/// Exposures of other items that are told with a mismatch.
const MAX_OTHERS: usize = 8;

/// A click that is not judged yet.
#[derive(Debug)]
struct Click {
    request_id: Box<str>,
    part: Part,
    /// Of `exposure_click`.
    verdict: Option<Verdict>,
}

/// The sample.
#[derive(Debug, Default)]
pub(super) struct Sample {
    /// By time; `None` where two clicks have it in common.
    clicks: BTreeMap<u64, Option<Click>>,
    /// By trace.
    records: HashMap<u128, Record>,
    /// Records by when they were added to last.
    by_age: BTreeSet<(u64, u128)>,
    /// The traces of exposures, by time; `None` where two have it in common.
    exposures: HashMap<u64, Option<u128>>,
    events: usize,
    /// One request id of two to the power of this many is kept.
    rarity: u32,
    /// When it was looked at last whether there is room for more.
    looked_ns: u64,
}

/// A click whose triple was judged, and what is known of the rest.
#[derive(Debug)]
pub(super) struct Found {
    request_id: Box<str>,
    click: Part,
    broken: Option<(Edge, &'static str)>,
    trace: u128,
    request: Option<usize>,
    /// The click's own comes first, if it has one.
    exposures: Vec<usize>,
    is_linked: bool,
}

/// A request or an exposure that goes with a click.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) part: Part,
    /// Why its own link is broken.
    pub(super) broken: Option<&'static str>,
    /// The request that it is linked to.
    pub(super) request: Option<Part>,
}

/// A triple to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Triple {
    /// Empty where there is none.
    pub(super) request_id: Box<str>,
    pub(super) click: Part,
    /// The edge that broke it and why; `None` when it is complete.
    pub(super) broken: Option<(Edge, &'static str)>,
    /// What the click leads to: its exposure; where it has none, the request of its id.
    pub(super) leads_to: Option<Part>,
    /// What was not told before.
    pub(super) told: Vec<Told>,
}

impl Sample {
    /// An event that goes into the join now.
    pub(super) fn note(&mut self, event: &Event) {
        match event.kind {
            Kind::Click => self.note_click(event),
            Kind::Request if !event.request_id.is_empty() => self.keep(event),
            Kind::Exposure if !event.request_id.is_empty() && !event.item_id.is_empty() => self.keep(event),
            _ => {}
        }
    }

    /// A link that was judged.
    pub(super) fn note_link(&mut self, outcome: &Outcome) {
        let Outcome::Link { edge, outcome, subject, delay_ns, .. } = outcome else { return };
        let verdict = Some((*outcome, *delay_ns));
        let at_ns = subject.timestamp_ns;
        match edge {
            Edge::ExposureClick => {
                if let Some(Some(click)) = self.clicks.get_mut(&at_ns) {
                    click.verdict = verdict;
                }
            }
            Edge::RequestExposure => {
                let record = self.exposures.get(&at_ns).copied().flatten();
                let Some(record) = record.and_then(|trace| self.records.get_mut(&trace)) else { return };
                let exposures = record.events.iter_mut().filter(|kept| kept.part.kind == Kind::Exposure);
                for kept in exposures.filter(|kept| kept.part.timestamp_ns == at_ns) {
                    kept.verdict = verdict;
                }
            }
            Edge::ClickReport | Edge::Triple => {}
        }
    }

    /// Takes out the click at this time, whose triple was judged. `None` where not enough of the triple was kept.
    pub(super) fn take(&mut self, click_ns: u64, is_broken: bool) -> Option<Found> {
        let Click { request_id, part: click, verdict } = self.clicks.remove(&click_ns)??;
        let (outcome, delay_ns) = verdict?;
        let trace = ids::of_request(&request_id);
        let record = self.records.get(&trace).filter(|_| !request_id.is_empty());
        let is_linked = outcome == LinkOutcome::Linked;
        let mut found =
            Found { request_id, click, broken: None, trace, request: None, exposures: Vec::new(), is_linked };
        if is_linked {
            let reason = LinkOutcome::Orphan.name();
            found.broken = is_broken.then_some((Edge::RequestExposure, reason));
            if let Some(record) = record {
                let item_id = &found.click.item_id;
                let exposure = record.other_end(Kind::Exposure, item_id, click_ns, delay_ns.unwrap_or(0));
                found.request = exposure.and_then(|exposure| record.request_of(exposure));
                found.exposures.extend(exposure);
            }
            let is_whole = found.request.is_some();
            return (is_broken || is_whole).then_some(found);
        }
        found.broken = Some((Edge::ExposureClick, outcome.name()));
        if let Some(record) = record {
            found.request = record.last_request(click_ns);
            if outcome == LinkOutcome::Mismatch {
                found.exposures = record.last_exposures(click_ns, MAX_OTHERS);
            }
        }
        Some(found)
    }

    /// All that is to be told of it.
    pub(super) fn triple(&self, found: &Found) -> Triple {
        let record = self.records.get(&found.trace);
        let part = |index: &usize| Some(record?.events.get(*index)?.part.clone());
        let linked = found.exposures.first().filter(|_| found.is_linked);
        let leads_to =
            if found.is_linked { linked.and_then(part) } else { found.request.as_ref().and_then(part) };
        let told = |index: &usize| {
            let record = record?;
            let kept = record.events.get(*index).filter(|kept| !kept.told)?;
            let verdict = record.verdict(*index).filter(|_| kept.part.kind == Kind::Exposure);
            let broken = verdict.filter(|(outcome, _)| outcome.is_broken() == Some(true));
            let request = (kept.part.kind == Kind::Exposure).then(|| record.request_of(*index)).flatten();
            Some(Told {
                part: kept.part.clone(),
                broken: broken.map(|(outcome, _)| outcome.name()),
                request: request.as_ref().and_then(part),
            })
        };
        Triple {
            request_id: found.request_id.clone(),
            click: found.click.clone(),
            broken: found.broken,
            leads_to,
            told: found.request.iter().chain(&found.exposures).filter_map(told).collect(),
        }
    }

    /// It was told; what goes with it is not told again.
    pub(super) fn set_told(&mut self, found: &Found) {
        let Some(record) = self.records.get_mut(&found.trace) else { return };
        for index in found.request.iter().chain(&found.exposures) {
            record.events[*index].told = true;
        }
    }

    /// Nothing is to be said of the click at this time.
    pub(super) fn forget_click(&mut self, click_ns: u64) {
        self.clicks.remove(&click_ns);
    }

    fn note_click(&mut self, event: &Event) {
        let click = Click { request_id: event.request_id.clone(), part: event.into(), verdict: None };
        // Which of two clicks of one nanosecond the join judges cannot be told.
        self.clicks.entry(event.timestamp_ns).and_modify(|known| *known = None).or_insert(Some(click));
        if self.clicks.len() > MAX_CLICKS {
            self.clicks.pop_first();
        }
    }

    fn keep(&mut self, event: &Event) {
        if event.timestamp_ns >= self.looked_ns.saturating_add(KEPT_NS) {
            self.looked_ns = event.timestamp_ns;
            self.use_room(event.timestamp_ns);
        }
        let trace = ids::of_request(&event.request_id);
        if !self.is_kept(trace) {
            return;
        }
        if self.events >= MAX_EVENTS {
            self.make_room(event.timestamp_ns);
            if !self.is_kept(trace) {
                return;
            }
        }
        let record = self.records.entry(trace).or_default();
        let before_ns = record.newest_ns;
        if !record.add(event) {
            return;
        }
        self.events += 1;
        self.by_age.remove(&(before_ns, trace));
        self.by_age.insert((record.newest_ns, trace));
        if event.kind == Kind::Exposure {
            self.exposures.entry(event.timestamp_ns).and_modify(|known| *known = None).or_insert(Some(trace));
        }
    }

    fn is_kept(&self, trace: u128) -> bool {
        self.rarity == 0 || ids::spread(trace) >> (u64::BITS - self.rarity.min(63)) == 0
    }

    /// Keeps twice as many request ids from now on, if they fit.
    fn use_room(&mut self, now_ns: u64) {
        let young = self.by_age.range((now_ns.saturating_sub(KEPT_NS), 0)..);
        let young = young.filter_map(|(_, trace)| self.records.get(trace));
        let events: usize = young.map(|record| record.events.len()).sum();
        if events < MAX_EVENTS / 4 {
            self.rarity = self.rarity.saturating_sub(1);
        }
    }

    /// Gives up what is old, or, where all is young, every other request id.
    fn make_room(&mut self, now_ns: u64) {
        let old_ns = now_ns.saturating_sub(KEPT_NS);
        let old = self.by_age.range(..(old_ns, 0)).map(|(_, trace)| *trace).collect();
        self.give_up(old);
        while self.events > MAX_EVENTS / 2 && self.rarity < 63 {
            self.rarity += 1;
            let others = self.records.keys().filter(|trace| !self.is_kept(**trace)).copied().collect();
            self.give_up(others);
        }
    }

    fn give_up(&mut self, traces: Vec<u128>) {
        for trace in traces {
            let Some(record) = self.records.remove(&trace) else { continue };
            self.by_age.remove(&(record.newest_ns, trace));
            self.events -= record.events.len();
            for kept in record.events {
                if kept.part.kind == Kind::Exposure {
                    self.exposures.remove(&kept.part.timestamp_ns);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
