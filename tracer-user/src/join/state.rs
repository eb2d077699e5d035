//! What is remembered, by request id, by pair of ids and by process.

use std::collections::HashMap;
use std::sync::Arc;

use super::slab::Slab;
use super::timeline::Timeline;
use super::{Join, JoinConfig};
use crate::domain::{Edge, Labels, LinkOutcome, Outcome, TripleOutcome};

pub(super) type GroupKey = usize;
pub(super) type PairKey = usize;
pub(super) type ProcessKey = usize;

/// Every table. A thing stays until the last event that was entered into it can no longer matter.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) groups: Slab<Group>,
    pub(super) pairs: Slab<Pair>,
    pub(super) processes: Slab<Process>,
    group_of_request_id: HashMap<Arc<str>, GroupKey>,
    process_of_pid: HashMap<(Arc<str>, u32), ProcessKey>,
}

/// All that carries one request id.
#[derive(Debug)]
pub(super) struct Group {
    request_id: Arc<str>,
    alive_until_ns: u64,
    /// Every sighting of the request.
    pub(super) requests: Timeline<()>,
    /// Those that are not duplicates.
    pub(super) request_firsts: Timeline<()>,
    /// The new request that nothing was shown for yet. There is never a second one: by invariant 3
    /// it would begin after the window of the first has run out.
    pub(super) waiting_request: Option<(u64, Waiting)>,
    /// Every sighting of an exposure, whatever its item.
    pub(super) exposures: Timeline<()>,
    /// Exposures that wait for their request.
    pub(super) waiting_exposures: Timeline<PairKey>,
    pairs: HashMap<Arc<str>, PairKey>,
}

/// All that carries one request id and one item id.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) group: GroupKey,
    item_id: Arc<str>,
    alive_until_ns: u64,
    /// Every sighting of the exposure, each with the time of the exposure that it belongs to.
    pub(super) sightings: Timeline<u64>,
    /// The exposures themselves, each at the time of its first sighting.
    pub(super) exposures: Timeline<Exposure>,
    /// Clicks that are not duplicates.
    pub(super) click_firsts: Timeline<()>,
    /// Clicks that wait for their exposure.
    pub(super) waiting_clicks: Timeline<Waiting>,
}

/// The reports of one process, and its clicks that none of them covers yet.
#[derive(Debug)]
pub(super) struct Process {
    id: (Arc<str>, u32),
    alive_until_ns: u64,
    pub(super) reports: Timeline<()>,
    pub(super) waiting_clicks: Timeline<Waiting>,
}

/// An event that waits to be judged.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) labels: Arc<Labels>,
    /// It was late, so it can be completed but not found broken.
    pub(super) late: bool,
}

/// An exposure that is not a duplicate.
#[derive(Debug)]
pub(super) struct Exposure {
    /// Sightings that belong to it and are not forgotten.
    pub(super) sightings: u64,
    pub(super) fate: Fate,
}

/// Whether an exposure has its request, in the only terms that still matter: what it makes of the
/// triple of a click that is linked to it.
#[derive(Debug)]
pub(super) enum Fate {
    /// Not known yet. These clicks are linked to it.
    Waiting {
        event: Waiting,
        clicks: Vec<Arc<Labels>>,
    },
    Known(TripleOutcome),
}

#[cfg(test)]
impl State {
    pub(super) fn is_empty(&self) -> bool {
        self.group_of_request_id.is_empty()
            && self.process_of_pid.is_empty()
            && self.groups.iter().next().is_none()
            && self.pairs.iter().next().is_none()
            && self.processes.iter().next().is_none()
    }

    /// The most that is remembered of any request id.
    pub(super) fn longest(&self) -> usize {
        let lengths = self
            .groups
            .iter()
            .map(|group| group.requests.len().max(group.exposures.len()).max(group.pairs.len()));
        lengths.max().unwrap_or(0)
    }
}

impl Join {
    /// The group of a request id, made if there is none, with what is forgotten gone. It lives at
    /// least until `until_ns`.
    pub(super) fn group(&mut self, request_id: &str, until_ns: u64) -> GroupKey {
        let state = &mut self.state;
        let key = match state.group_of_request_id.get(request_id) {
            Some(key) => *key,
            None => {
                let request_id: Arc<str> = request_id.into();
                let key = state.groups.insert(Group::new(Arc::clone(&request_id)));
                state.group_of_request_id.insert(request_id, key);
                self.deadlines.forget_group.push(until_ns, key);
                self.pending.request_ids += 1;
                key
            }
        };
        let group = &mut state.groups[key];
        group.alive_until_ns = group.alive_until_ns.max(until_ns);
        group.forget(&self.config, self.now_ns);
        key
    }

    /// The pair of an item within a group; as [`Join::group`].
    pub(super) fn pair(&mut self, group_key: GroupKey, item_id: &str, until_ns: u64) -> PairKey {
        let state = &mut self.state;
        let group = &mut state.groups[group_key];
        let key = match group.pairs.get(item_id) {
            Some(key) => *key,
            None => {
                let item_id: Arc<str> = item_id.into();
                let key = state.pairs.insert(Pair::new(group_key, Arc::clone(&item_id)));
                group.pairs.insert(item_id, key);
                self.deadlines.forget_pair.push(until_ns, key);
                key
            }
        };
        let pair = &mut state.pairs[key];
        pair.alive_until_ns = pair.alive_until_ns.max(until_ns);
        pair.forget(&self.config, self.now_ns);
        key
    }

    /// The process of a source; as [`Join::group`].
    pub(super) fn process(&mut self, source: &Arc<str>, pid: u32, until_ns: u64) -> ProcessKey {
        let id = (Arc::clone(source), pid);
        let state = &mut self.state;
        let key = match state.process_of_pid.get(&id) {
            Some(key) => *key,
            None => {
                let key = state.processes.insert(Process::new(id.clone()));
                state.process_of_pid.insert(id, key);
                self.deadlines.forget_process.push(until_ns, key);
                key
            }
        };
        let process = &mut state.processes[key];
        process.alive_until_ns = process.alive_until_ns.max(until_ns);
        process.forget(&self.config, self.now_ns);
        key
    }

    /// Removes the group if nothing of it is remembered at `before_ns` or later: more may have been
    /// entered into it since its deadline was set.
    pub(super) fn forget_group(&mut self, key: GroupKey, before_ns: u64) {
        let state = &mut self.state;
        let group = &state.groups[key];
        if group.alive_until_ns >= before_ns {
            self.deadlines.forget_group.push(group.alive_until_ns, key);
            return;
        }
        debug_assert!(group.waiting_request.is_none(), "invariant 5: a request waits");
        debug_assert!(group.waiting_exposures.is_empty(), "invariant 5: an exposure waits");
        debug_assert!(group.pairs.is_empty(), "invariant 5: a pair outlives its group");
        state.group_of_request_id.remove(&group.request_id);
        state.groups.remove(key);
        self.pending.request_ids -= 1;
    }

    /// The same for a pair.
    pub(super) fn forget_pair(&mut self, key: PairKey, before_ns: u64) {
        let state = &mut self.state;
        let pair = &state.pairs[key];
        if pair.alive_until_ns >= before_ns {
            self.deadlines.forget_pair.push(pair.alive_until_ns, key);
            return;
        }
        debug_assert!(pair.waiting_clicks.is_empty(), "invariant 5: a click waits for its exposure");
        state.groups[pair.group].pairs.remove(&pair.item_id);
        state.pairs.remove(key);
    }

    /// The same for a process.
    pub(super) fn forget_process(&mut self, key: ProcessKey, before_ns: u64) {
        let state = &mut self.state;
        let process = &state.processes[key];
        if process.alive_until_ns >= before_ns {
            self.deadlines.forget_process.push(process.alive_until_ns, key);
            return;
        }
        debug_assert!(process.waiting_clicks.is_empty(), "invariant 5: a click waits for a report");
        state.process_of_pid.remove(&process.id);
        state.processes.remove(key);
    }
}

impl Group {
    fn new(request_id: Arc<str>) -> Self {
        Self {
            request_id,
            alive_until_ns: 0,
            requests: Timeline::default(),
            request_firsts: Timeline::default(),
            waiting_request: None,
            exposures: Timeline::default(),
            waiting_exposures: Timeline::default(),
            pairs: HashMap::new(),
        }
    }

    fn forget(&mut self, config: &JoinConfig, now_ns: u64) {
        let oldest_request_ns = now_ns.saturating_sub(config.request_retention_ns());
        self.requests.forget_before(oldest_request_ns);
        self.request_firsts.forget_before(oldest_request_ns);
        self.exposures.forget_before(now_ns.saturating_sub(config.click_retention_ns()));
    }
}

impl Pair {
    fn new(group: GroupKey, item_id: Arc<str>) -> Self {
        Self {
            group,
            item_id,
            alive_until_ns: 0,
            sightings: Timeline::default(),
            exposures: Timeline::default(),
            click_firsts: Timeline::default(),
            waiting_clicks: Timeline::default(),
        }
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
    }
}

impl Process {
    fn new(id: (Arc<str>, u32)) -> Self {
        Self { id, alive_until_ns: 0, reports: Timeline::default(), waiting_clicks: Timeline::default() }
    }

    fn forget(&mut self, config: &JoinConfig, now_ns: u64) {
        self.reports.forget_before(now_ns.saturating_sub(config.report_window_ns));
    }
}

impl Pair {
    /// Settles the exposure that opened at this time, if it waits. Returns what it was waiting as,
    /// and how many clicks were waiting for it; each gets its triple.
    pub(super) fn settle_exposure(
        &mut self,
        opened_ns: u64,
        judge: impl FnOnce(&Waiting) -> TripleOutcome,
        out: &mut Vec<Outcome>,
    ) -> Option<(Waiting, u64)> {
        let exposure = self.exposures.get_mut(opened_ns);
        debug_assert!(exposure.is_some(), "invariant 5: a waiting exposure was forgotten");
        let exposure = exposure?;
        match std::mem::replace(&mut exposure.fate, Fate::Known(TripleOutcome::Unseen)) {
            Fate::Waiting { event, clicks } => {
                let outcome = judge(&event);
                exposure.fate = Fate::Known(outcome);
                let released = clicks.len() as u64;
                out.extend(clicks.into_iter().map(|labels| Outcome::Triple { outcome, labels }));
                Some((event, released))
            }
            known @ Fate::Known(_) => {
                debug_assert!(false, "a settled exposure was waiting");
                exposure.fate = known;
                None
            }
        }
    }
}

impl Exposure {
    /// Links a click to this exposure by way of one of its sightings. Says whether the triple has
    /// to wait for the exposure.
    pub(super) fn link_click(
        &mut self,
        click_ns: u64,
        sighted_ns: u64,
        labels: Arc<Labels>,
        out: &mut Vec<Outcome>,
    ) -> bool {
        out.push(Outcome::Link {
            edge: Edge::ExposureClick,
            outcome: LinkOutcome::Linked,
            delay_ns: Some(click_ns.saturating_sub(sighted_ns)),
            labels: Arc::clone(&labels),
        });
        match &mut self.fate {
            Fate::Waiting { clicks, .. } => {
                clicks.push(labels);
                true
            }
            Fate::Known(outcome) => {
                out.push(Outcome::Triple { outcome: *outcome, labels });
                false
            }
        }
    }
}
