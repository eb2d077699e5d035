//! An open group entered anew, from a snapshot that may be damaged.

use std::collections::BTreeMap;

use super::{Engine, Fate, Group, Key, PAIR_ENTRY_BYTES, Pair};
use crate::join::config::JoinConfig;
use crate::join::index::Place;

impl Engine {
    /// Enters the group with its pairs, which are taken from `pairs`. `None` when they contradict each other.
    pub(in super::super) fn restore_open_group(
        &mut self,
        mut group: Group,
        pairs: &mut BTreeMap<Key, Pair>,
    ) -> Option<()> {
        let key = self.open.groups.insert(Group::new(group.request));
        let mut new_keys = BTreeMap::new();
        let (mut exposures, mut clicks) = (0, 0);
        group.alive_until_ns = group.needed_until_ns(&self.config);
        for (item, pair_key) in &mut group.pairs {
            let mut pair =
                pairs.remove(pair_key).filter(|pair| pair.item == *item && pair.is_sound(self.now_ns))?;
            pair.group = key;
            pair.alive_until_ns = pair.needed_until_ns(&self.config);
            group.alive_until_ns = group.alive_until_ns.max(pair.alive_until_ns);
            clicks += pair.waiting_clicks.iter().count() as u64;
            for (_, exposure) in pair.exposures.iter() {
                if let Fate::Waiting { clicks, .. } = &exposure.fate {
                    exposures += 1;
                    self.pending.triples += clicks.len() as u64;
                }
            }
            self.open.held_bytes += pair.bytes() + PAIR_ENTRY_BYTES;
            new_keys.insert(*pair_key, self.open.pairs.insert(pair));
            *pair_key = new_keys[pair_key];
        }
        let found = self.restore_waiting_exposures(&mut group, &new_keys)?;
        if found != exposures || clicks != group.waiting_clicks || !group.is_sound(self.now_ns) {
            return None;
        }
        self.pending.requests += u64::from(group.waiting_request.is_some());
        self.pending.exposures += exposures;
        self.pending.clicks += clicks;
        self.open.held_bytes += group.bytes();
        self.index.insert(group.request, Place::Open(key.number));
        *self.open.groups.get_mut(key)? = group;
        self.restore_deadlines(key)
    }

    /// Leads the exposures that wait to the new keys of their pairs. How many there are; `None` when one of them does not
    /// wait there.
    fn restore_waiting_exposures(&self, group: &mut Group, new_keys: &BTreeMap<Key, Key>) -> Option<u64> {
        let mut found = 0;
        for (exposure_ns, pair_key) in group.waiting_exposures.iter_mut() {
            *pair_key = *new_keys.get(pair_key)?;
            let exposure = self.open.pairs.get(*pair_key)?.exposures.get(*exposure_ns)?;
            found += u64::from(matches!(exposure.fate, Fate::Waiting { .. }));
        }
        let mut all: Vec<_> = group.waiting_exposures.iter().collect();
        all.sort_unstable();
        all.dedup();
        (found == all.len() as u64).then_some(found)
    }

    fn restore_deadlines(&mut self, key: Key) -> Option<()> {
        let group = self.open.groups.get(key)?;
        self.deadlines.forget_group.push(group.alive_until_ns, key);
        if let Some((request_ns, _)) = group.waiting_request {
            let deadline_ns = request_ns.saturating_add(self.config.exposure_window_ns);
            self.deadlines.request.push(deadline_ns, key);
        }
        for (exposure_ns, _) in group.waiting_exposures.iter() {
            self.deadlines.exposure.push(exposure_ns.saturating_add(self.config.skew_ns), key);
        }
        for pair_key in group.pairs.values() {
            let pair = self.open.pairs.get(*pair_key)?;
            self.deadlines.forget_pair.push(pair.alive_until_ns, *pair_key);
            for (click_ns, _) in pair.waiting_clicks.iter() {
                self.deadlines.click.push(click_ns.saturating_add(self.config.skew_ns), *pair_key);
            }
        }
        Some(())
    }
}

impl Group {
    /// As long as anything of it, its pairs left out, is remembered or waits.
    fn needed_until_ns(&self, config: &JoinConfig) -> u64 {
        let requests_ns = self.requests.last_ns().max(self.request_firsts.last_ns());
        let waiting_ns = self.waiting_request.map(|(request_ns, _)| request_ns);
        let exposures_ns = self.exposures.last_ns().max(self.waiting_exposures.last_ns());
        let until_ns =
            |last_ns: Option<u64>, retention_ns| last_ns.map_or(0, |ns| ns.saturating_add(retention_ns));
        until_ns(requests_ns.max(waiting_ns), config.request_retention_ns())
            .max(until_ns(exposures_ns, config.click_retention_ns()))
    }

    fn is_sound(&self, now_ns: u64) -> bool {
        self.requests.is_sound(now_ns)
            && self.request_firsts.is_sound(now_ns)
            && self.exposures.is_sound(now_ns)
            && self.waiting_exposures.is_sound(now_ns)
            && self.waiting_request.is_none_or(|(request_ns, _)| request_ns <= now_ns)
    }
}

impl Pair {
    fn needed_until_ns(&self, config: &JoinConfig) -> u64 {
        let sightings_ns = self.sightings.last_ns().max(self.exposures.last_ns());
        let last_ns = sightings_ns.max(self.last_click_ns()).max(self.waiting_clicks.last_ns());
        last_ns.map_or(0, |ns| ns.saturating_add(config.click_retention_ns()))
    }

    /// Each exposure is there once, with as many sightings as say that they belong to it.
    fn is_sound(&self, now_ns: u64) -> bool {
        let mut sightings = BTreeMap::new();
        for (_, opened_ns) in self.sightings.iter() {
            *sightings.entry(*opened_ns).or_insert(0) += 1;
        }
        let mut counts = BTreeMap::new();
        for (opened_ns, exposure) in self.exposures.iter() {
            counts.insert(*opened_ns, exposure.sightings);
        }
        sightings == counts
            && counts.len() == self.exposures.iter().count()
            && self.sightings.is_sound(now_ns)
            && self.exposures.is_sound(now_ns)
            && self.click_firsts.is_sound(now_ns)
            && self.waiting_clicks.is_sound(now_ns)
            && self.doubtful_repetition_ns.is_none_or(|click_ns| click_ns <= now_ns)
    }
}
