//! Open groups: those of which something has to be decided yet, or that have seen something unusual.
//!
//! An open group has a place for everything that the rules know, however often and in whatever order
//! it comes; that takes much more memory and time than a packed one. A group is opened when something
//! happens to it that a packed group cannot hold: an exposure or a click that has to wait, a late
//! event, a request or an exposure that begins anew. It is packed again as soon as nothing waits in
//! it. Both are in `convert`.
//!
//! *Invariants*: what an open group has forgotten is a matter of time alone, never of when it was
//! looked at; what is forgotten has nothing waiting in it.

mod clicks;
mod convert;
mod deadlines;
mod exposures;
mod requests;
mod restore;
pub(super) mod slab;
pub(super) mod timeline;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub(super) use clicks::unlinked_click;
pub(super) use deadlines::Deadlines;
pub(super) use exposures::exposure_link;
pub(super) use slab::{Key, Slab};
pub(super) use timeline::Timeline;

use super::config::JoinConfig;
use super::decision::Decision;
use super::engine::Engine;
use super::event::{ItemPrint, LabelsKey, RequestPrint};
use super::index::Place;
use crate::domain::{Edge, LinkOutcome, Outcome, Subject, TripleOutcome};

/// Every open group, and the pairs of all of them.
#[derive(Debug, Default)]
pub(super) struct Open {
    pub(super) groups: Slab<Group>,
    pub(super) pairs: Slab<Pair>,
    /// What the groups and pairs hold outside of the slabs.
    pub(super) held_bytes: u64,
}

/// All that carries one request id.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Group {
    pub(super) request: RequestPrint,
    alive_until_ns: u64,
    /// Every sighting of the request.
    pub(super) requests: Timeline<()>,
    /// Those that are not duplicates.
    pub(super) request_firsts: Timeline<()>,
    /// The new request that nothing was shown for yet. There is never a second one: firsts are further
    /// apart than a request waits.
    pub(super) waiting_request: Option<(u64, Waiting)>,
    /// Every sighting of an exposure, whatever its item.
    pub(super) exposures: Timeline<()>,
    /// Exposures that wait for their request.
    pub(super) waiting_exposures: Timeline<Key>,
    /// Clicks of any pair that wait for their exposure.
    pub(super) waiting_clicks: u64,
    pub(super) pairs: BTreeMap<ItemPrint, Key>,
}

/// All that carries one request id and one item id.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Pair {
    pub(super) group: Key,
    pub(super) item: ItemPrint,
    alive_until_ns: u64,
    /// Every sighting of the exposure, each with the time of the exposure that it belongs to.
    pub(super) sightings: Timeline<u64>,
    /// The exposures themselves, each at the time of its first sighting.
    pub(super) exposures: Timeline<Exposure>,
    /// Clicks that are not duplicates, each with whether it follows one in doubt.
    pub(super) click_firsts: Timeline<FollowsDoubt>,
    /// The last click that repeats one in doubt.
    doubtful_repetition_ns: Option<u64>,
    /// Clicks that wait for their exposure.
    pub(super) waiting_clicks: Timeline<Waiting>,
}

/// An event that waits to be judged.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Waiting {
    pub(super) labels: LabelsKey,
    /// It was late, so it can be completed but not found broken.
    pub(super) late: bool,
    /// Nor can it if this is so.
    pub(super) follows_doubt: FollowsDoubt,
}

/// It comes within the click window of a repetition of an exposure or click in doubt, and is not in doubt by its
/// time alone.
pub(super) type FollowsDoubt = bool;

/// A click whose triple waits for the exposure.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Linked {
    pub(super) click_ns: u64,
    pub(super) labels: LabelsKey,
    /// It follows doubt, or may lack the sighting that it belongs to: the exposure cannot break its triple.
    pub(super) is_doubtful: bool,
}

/// An exposure that is not a duplicate.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Exposure {
    /// Sightings that belong to it and are not forgotten.
    pub(super) sightings: u64,
    pub(super) follows_doubt: FollowsDoubt,
    pub(super) fate: Fate,
}

/// Whether an exposure has its request, in the only terms that still matter: what it makes of the
/// triple of a click that is linked to it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Fate {
    /// Not known yet. These clicks are linked to it.
    Waiting {
        event: Waiting,
        clicks: Vec<Linked>,
    },
    Known(TripleOutcome),
}

impl Open {
    /// What it takes, spare room included.
    pub(super) fn bytes(&self) -> u64 {
        self.groups.bytes() + self.pairs.bytes() + self.held_bytes
    }

    /// The most that is remembered of any request id.
    #[cfg(test)]
    pub(super) fn longest(&self) -> usize {
        let groups = self.groups.iter().map(|(_, group)| group);
        let lengths =
            groups.map(|group| group.requests.len().max(group.exposures.len()).max(group.pairs.len()));
        lengths.max().unwrap_or(0)
    }
}

impl Engine {
    /// The open group of a request id, opened or made if need be, with what is forgotten gone. Whoever
    /// enters something into it must keep it alive; until then it is looked at again after `until_ns`.
    pub(super) fn open_group(&mut self, request: RequestPrint, place: Option<Place>, until_ns: u64) -> Key {
        let known = match place {
            Some(Place::Open(number)) => self.open.groups.at(number).map(|(key, _)| key),
            Some(Place::Packed(handle)) => Some(self.unpack(request, handle)),
            None => None,
        };
        let key = known.unwrap_or_else(|| {
            let key = self.open.groups.insert(Group::new(request));
            self.index.insert(request, Place::Open(key.number));
            self.deadlines.forget_group.push(until_ns, key);
            self.note_deadline(until_ns);
            key
        });
        if let Some(group) = self.open.groups.get_mut(key) {
            group.forget(&self.config, self.now_ns);
        }
        key
    }

    /// Something of the group is remembered until then.
    pub(super) fn keep_alive(&mut self, key: Key, until_ns: u64) {
        if let Some(group) = self.open.groups.get_mut(key) {
            group.alive_until_ns = group.alive_until_ns.max(until_ns);
        }
    }

    /// The pair of an item within a group, made if need be, with what is forgotten gone. It lives at
    /// least until `until_ns`.
    pub(super) fn open_pair(&mut self, group_key: Key, item: ItemPrint, until_ns: u64) -> Option<Key> {
        let group = self.open.groups.get_mut(group_key)?;
        let key = match group.pairs.get(&item) {
            Some(key) => *key,
            None => {
                let key = self.open.pairs.insert(Pair::new(group_key, item));
                group.pairs.insert(item, key);
                self.open.held_bytes += PAIR_ENTRY_BYTES;
                self.deadlines.forget_pair.push(until_ns, key);
                self.note_deadline(until_ns);
                key
            }
        };
        let pair = self.open.pairs.get_mut(key)?;
        pair.alive_until_ns = pair.alive_until_ns.max(until_ns);
        pair.forget(&self.config, self.now_ns);
        Some(key)
    }

    /// Has an open group looked at when nothing of it is remembered.
    pub(super) fn look_at_open(&mut self, key: Key) {
        if let Some(group) = self.open.groups.get(key) {
            let until_ns = group.alive_until_ns;
            self.deadlines.forget_group.push(until_ns, key);
            self.note_deadline(until_ns);
        }
    }

    /// Removes the group if nothing of it is remembered at `before_ns` or later: more may have been
    /// entered into it since its deadline was set.
    pub(super) fn forget_group(&mut self, key: Key, before_ns: u64) {
        let Some(group) = self.open.groups.get(key) else { return };
        if group.alive_until_ns >= before_ns {
            self.look_at_open(key);
            return;
        }
        debug_assert!(!group.waits(), "what is forgotten has nothing waiting in it");
        self.remove_open(key);
    }

    /// The same for a pair.
    pub(super) fn forget_pair(&mut self, key: Key, before_ns: u64) {
        let Some(pair) = self.open.pairs.get(key) else { return };
        if pair.alive_until_ns >= before_ns {
            self.deadlines.forget_pair.push(pair.alive_until_ns, key);
            return;
        }
        debug_assert!(pair.waiting_clicks.is_empty(), "what is forgotten has nothing waiting in it");
        if let Some(group) = self.open.groups.get_mut(pair.group) {
            group.pairs.remove(&pair.item);
        }
        self.remove_pair(key);
    }

    /// Takes an open group out of every table, and its pairs with it.
    pub(super) fn remove_open(&mut self, key: Key) {
        if let Some(group) = self.open.groups.remove(key) {
            self.index.remove(group.request, Place::Open(key.number));
            self.drop_group(&group);
        }
    }

    /// Takes the pairs of a group that was taken out.
    pub(super) fn drop_group(&mut self, group: &Group) {
        self.open.held_bytes -= group.bytes();
        for pair in group.pairs.values() {
            self.remove_pair(*pair);
        }
    }

    fn remove_pair(&mut self, key: Key) {
        if let Some(pair) = self.open.pairs.remove(key) {
            self.open.held_bytes -= pair.bytes() + PAIR_ENTRY_BYTES;
        }
    }
}

/// What an entry in the map of pairs takes at most: a node is at least half full.
const PAIR_ENTRY_BYTES: u64 = 2 * size_of::<(ItemPrint, Key)>() as u64;

impl Group {
    fn new(request: RequestPrint) -> Self {
        Self {
            request,
            alive_until_ns: 0,
            requests: Timeline::default(),
            request_firsts: Timeline::default(),
            waiting_request: None,
            exposures: Timeline::default(),
            waiting_exposures: Timeline::default(),
            waiting_clicks: 0,
            pairs: BTreeMap::new(),
        }
    }

    /// Something of it has to be decided yet.
    pub(super) fn waits(&self) -> bool {
        self.waiting_request.is_some() || !self.waiting_exposures.is_empty() || self.waiting_clicks > 0
    }

    /// What it holds outside of itself, its entries in the map of pairs left out.
    fn bytes(&self) -> u64 {
        self.requests.bytes()
            + self.request_firsts.bytes()
            + self.exposures.bytes()
            + self.waiting_exposures.bytes()
    }

    fn forget(&mut self, config: &JoinConfig, now_ns: u64) {
        let oldest_request_ns = now_ns.saturating_sub(config.request_retention_ns());
        self.requests.forget_before(oldest_request_ns);
        self.request_firsts.forget_before(oldest_request_ns);
        self.exposures.forget_before(now_ns.saturating_sub(config.click_retention_ns()));
    }
}

impl Pair {
    fn new(group: Key, item: ItemPrint) -> Self {
        Self {
            group,
            item,
            alive_until_ns: 0,
            sightings: Timeline::default(),
            exposures: Timeline::default(),
            click_firsts: Timeline::default(),
            doubtful_repetition_ns: None,
            waiting_clicks: Timeline::default(),
        }
    }

    /// Takes out the earliest click that waits for its exposure.
    pub(super) fn pop_waiting_click(&mut self) -> Option<(u64, Waiting)> {
        self.waiting_clicks.pop_if(|_| true)
    }

    /// What it holds outside of itself. Clicks whose triples wait are counted where they are.
    fn bytes(&self) -> u64 {
        self.sightings.bytes()
            + self.exposures.bytes()
            + self.click_firsts.bytes()
            + self.waiting_clicks.bytes()
    }

    /// An exposure outlives its first sighting while a duplicate of it is remembered: a click may
    /// still be linked to it through that one.
    fn forget(&mut self, config: &JoinConfig, now_ns: u64) {
        let oldest_ns = now_ns.saturating_sub(config.click_retention_ns());
        while let Some((_, opened_ns)) = self.sightings.pop_if(|timestamp_ns| timestamp_ns < oldest_ns) {
            if let Some(exposure) = self.exposures.get_mut(opened_ns) {
                exposure.sightings -= 1;
                if exposure.sightings == 0 {
                    self.exposures.remove(opened_ns);
                }
            }
        }
        self.click_firsts.forget_before(oldest_ns);
        self.doubtful_repetition_ns = self.doubtful_repetition_ns.filter(|click_ns| *click_ns >= oldest_ns);
    }

    /// The last click that is remembered.
    pub(super) fn last_click_ns(&self) -> Option<u64> {
        self.click_firsts.last_ns().max(self.doubtful_repetition_ns)
    }

    /// Whether anything in it is in doubt for another reason than its time.
    fn follows_doubt(&self) -> bool {
        self.doubtful_repetition_ns.is_some()
            || self.exposures.iter().any(|(_, exposure)| exposure.follows_doubt)
            || self.click_firsts.iter().any(|(_, follows_doubt)| *follows_doubt)
    }

    /// Settles the exposure that opened at this time, if it waits. Returns what it was waiting as,
    /// and the clicks that were waiting for it.
    pub(super) fn settle_exposure(
        &mut self,
        opened_ns: u64,
        judge: impl FnOnce(&Waiting) -> TripleOutcome,
    ) -> Option<(Waiting, TripleOutcome, Vec<Linked>)> {
        let exposure = self.exposures.get_mut(opened_ns);
        debug_assert!(exposure.is_some(), "a waiting exposure was forgotten");
        let fate = &mut exposure?.fate;
        let Fate::Waiting { event, .. } = fate else {
            debug_assert!(false, "a settled exposure was waiting");
            return None;
        };
        let outcome = judge(event);
        match std::mem::replace(fate, Fate::Known(outcome)) {
            Fate::Waiting { event, clicks } => Some((event, outcome, clicks)),
            Fate::Known(_) => None,
        }
    }
}

/// A click is linked to an exposure by way of one of its sightings.
pub(super) fn linked_click(click_ns: u64, sighted_ns: u64, labels: LabelsKey) -> Decision {
    Outcome::Link {
        edge: Edge::ExposureClick,
        outcome: LinkOutcome::Linked,
        subject: Subject::at(click_ns),
        delay_ns: Some(click_ns.saturating_sub(sighted_ns)),
        labels,
    }
}
