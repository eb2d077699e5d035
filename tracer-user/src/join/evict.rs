//! The memory bound: what is given up when it is reached, and what is said of it.

use std::collections::BTreeSet;

use super::config::JoinConfig;
use super::decision::Sink;
use super::engine::{EVENTS_PER_LOOK, Engine};
use super::index::Place;
use super::open::{Group, Key, Pair};
use super::packed::arena::{Handle, SEGMENT_BYTES};
use super::packed::entry::Tag;
use super::packed::head::KEPT_STEP_NS;
use super::time::wheel::{NO_BUCKET, TAKEN_OUT};
use crate::domain::{Kind, LinkOutcome, Outcome};

/// The tables grow by less than this between two looks at the limit.
const HEADROOM_BYTES: u64 = SEGMENT_BYTES;

/// What was given up so far to keep the memory bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Evicted {
    /// Request ids, each with all that was remembered of it.
    pub request_ids: u64,
    /// Clicks that waited for a report. Nothing is said of whether they were reported.
    pub click_reports: u64,
    /// How often the watermark was moved because the reorder buffer alone took too much.
    pub forced_watermarks: u64,
}

impl Evicted {
    /// Each table's name in metric labels, and how much of it was given up.
    pub fn tables(&self) -> [(&'static str, u64); 3] {
        [
            ("request_ids", self.request_ids),
            ("click_reports", self.click_reports),
            ("reorder_buffer", self.forced_watermarks),
        ]
    }

    /// What was given up since `before`.
    pub fn since(&self, before: &Self) -> Self {
        Self {
            request_ids: self.request_ids - before.request_ids,
            click_reports: self.click_reports - before.click_reports,
            forced_watermarks: self.forced_watermarks - before.forced_watermarks,
        }
    }
}

/// The newest sighting of each kind that is remembered, in nanoseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, Default)]
struct Newest {
    request_ns: Option<u64>,
    exposure_ns: Option<u64>,
    click_ns: Option<u64>,
}

impl Newest {
    fn see(&mut self, tag: Tag, timestamp_ns: u64) {
        let newest_ns = match tag {
            Tag::Request | Tag::RequestAgain => &mut self.request_ns,
            Tag::Exposure(_) | Tag::ExposureAgain | Tag::ExposureWaits => &mut self.exposure_ns,
            Tag::Click | Tag::ClickWaits => &mut self.click_ns,
        };
        *newest_ns = Some(timestamp_ns).max(*newest_ns);
    }

    fn join(&mut self, other: Self) {
        self.request_ns = self.request_ns.max(other.request_ns);
        self.exposure_ns = self.exposure_ns.max(other.exposure_ns);
        self.click_ns = self.click_ns.max(other.click_ns);
    }

    /// Of all kinds.
    fn of_all_ns(&self) -> Option<u64> {
        self.request_ns.max(self.exposure_ns).max(self.click_ns)
    }

    /// Until when the newest of all is remembered, if something older is remembered for longer.
    fn of_all_until_ns(&self, config: &JoinConfig) -> Option<u64> {
        let retention_ns = [config.request_retention_ns(), config.click_retention_ns()];
        let of_kinds = [self.request_ns, self.exposure_ns.max(self.click_ns)].into_iter().zip(retention_ns);
        let of_kinds = of_kinds.filter_map(|(newest_ns, retention_ns)| Some((newest_ns?, retention_ns)));
        let until_ns = |(newest_ns, retention_ns): (u64, u64)| newest_ns.saturating_add(retention_ns);
        let of_all_ns = of_kinds.clone().max().map(until_ns)?;
        of_kinds.map(until_ns).any(|of_kind_ns| of_kind_ns > of_all_ns).then_some(of_all_ns)
    }
}

/// A group that was found to be newer than what was evicted, and that will be older once its newest sighting is
/// forgotten.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ageing {
    Packed(Handle),
    Open(Key),
}

/// A packed group that is in no queue.
struct TakenOut {
    handle: Handle,
    newest: Newest,
    /// The wheel never had it.
    was_new: bool,
}

impl Engine {
    /// Evicts every request id whose newest sighting is at `until_ns` or before, in nanoseconds since the
    /// Unix epoch: docs/semantics.md, "The memory bound". What is decided by that is handed to `out`.
    pub fn evict_until(&mut self, until_ns: u64, out: &mut impl Sink) {
        self.accounted(out, |engine, out| {
            engine.adopt_horizons(out);
            engine.advance(out);
            engine.evict(until_ns, out);
        });
    }

    /// Evicts the oldest state until the rest keeps the bound.
    pub(super) fn keep_memory_limit(&mut self, out: &mut impl Sink) {
        while !self.keeps_limit() {
            // Room that many at a time have needed before is no reason to forget anything now.
            self.open.groups.give_back();
            self.open.pairs.give_back();
            self.processes.give_back();
            if self.keeps_limit() {
                break;
            }
            match self.oldest_ns() {
                Some(until_ns) => self.evict(until_ns, out),
                None if self.processes.len() > 0 => self.evict_reports(),
                None => break,
            }
        }
    }

    /// Whether the limit is kept until the next look at it. Free extents are room as well: else, whatever is evicted would
    /// have to leave a whole segment empty, which it does only where what is of one age lies together.
    fn keeps_limit(&self) -> bool {
        let growth_bytes = self.arena.growth_bytes(EVENTS_PER_LOOK) + HEADROOM_BYTES;
        self.memory_bytes() + growth_bytes <= self.config.memory_limit_bytes
    }

    /// The earliest time until which evicting gives something up, or puts what is newer to where it is looked at
    /// later. So evicting until then again and again comes to an end. It is the end of a bucket of the wheel: each
    /// eviction looks at whole buckets.
    fn oldest_ns(&mut self) -> Option<u64> {
        let retention_ns = self.config.retention_ns();
        let request_ns = self.new_requests.first().map(|request_ns| request_ns.saturating_add(retention_ns));
        let looked_at = [self.wheel.oldest_ns(), self.deadlines.forget_group.first(), request_ns];
        let end_ns = self.wheel.end_of(looked_at.into_iter().flatten().min()?);
        // At the end of time, sums with the retention are no longer told apart.
        Some(if end_ns == u64::MAX { end_ns } else { end_ns.saturating_sub(retention_ns) })
    }

    /// Moves the watermark when the reorder buffer alone takes half of what there is.
    pub(super) fn relieve_buffer(&mut self) {
        if let Some(middle_ns) = self.reorder.middle_ns() {
            self.watermark.force(middle_ns);
            self.evicted.forced_watermarks += 1;
            self.request_horizon_ns = self.request_horizon_ns.max(middle_ns);
            self.exposure_horizon_ns = self.exposure_horizon_ns.max(middle_ns);
            self.doubts.exposures_ns = self.doubts.exposures_ns.max(middle_ns);
            self.doubts.clicks_ns = self.doubts.clicks_ns.max(middle_ns);
        }
    }

    fn evict(&mut self, until_ns: u64, out: &mut impl Sink) {
        self.look_at_aged();
        let mut newest = Newest::default();
        let packed = self.oldest_packed(until_ns, &mut newest);
        let open = self.oldest_open(until_ns, &mut newest);
        // First, because what waits is judged by it.
        let past = |newest_ns: Option<u64>| newest_ns.map_or(0, |ns| ns.saturating_add(1));
        self.request_horizon_ns = self.request_horizon_ns.max(past(newest.request_ns));
        self.exposure_horizon_ns = self.exposure_horizon_ns.max(past(newest.exposure_ns));
        self.doubts.exposures_ns = self.doubts.exposures_ns.max(past(newest.exposure_ns));
        self.doubts.clicks_ns = self.doubts.clicks_ns.max(past(newest.click_ns));
        let evicted = packed.len() + open.len();
        self.evicted.request_ids += evicted as u64;
        for handle in packed {
            let head = self.arena.head(handle);
            if head.may_wait() {
                self.give_up_waits(handle, out);
            }
            if head.request_waits() {
                self.pending.requests -= 1;
                out.push(Outcome::Evicted { kind: Kind::Request, labels: head.labels() });
            }
            self.index.remove(head.request(), Place::Packed(handle));
            self.arena.free_group(handle);
        }
        for key in open {
            self.give_up(key, out);
            self.remove_open(key);
        }
        self.forget_dead_deadlines(evicted);
    }

    /// What is evicted leaves its deadlines behind, and so does an open group that is packed. They are looked for when they may
    /// be half of all there are, so each costs the same.
    pub(super) fn forget_dead_deadlines(&mut self, gone: usize) {
        self.gone_with_deadlines += gone;
        if self.gone_with_deadlines > self.deadlines_after_look + 1024 {
            self.deadlines.forget_dead(&self.open, &self.processes);
            let Self { ageing, arena, open, .. } = self;
            ageing.retain(|_, group| match group {
                Ageing::Packed(handle) => arena.head_if_live(*handle).is_some(),
                Ageing::Open(key) => open.groups.get(*key).is_some(),
            });
            self.deadlines_after_look = self.deadlines.len() + self.forget_dead_waits() + self.ageing.len();
            self.gone_with_deadlines = 0;
        }
    }

    /// Has those groups looked at when they are over, as others are, whose newest sighting is forgotten. The place of one
    /// may have come to another group meanwhile; that is looked at once more.
    fn look_at_aged(&mut self) {
        let now_ns = self.now_ns;
        while let Some(group) = self.ageing.pop_if(|until_ns| *until_ns < now_ns) {
            match group {
                Ageing::Packed(handle) => {
                    let head = self.arena.head_if_live(handle);
                    if let Some(head) = head.filter(|head| head.expiry_bucket() != NO_BUCKET) {
                        self.look_at(handle, head.kept_until_ns());
                    }
                }
                Ageing::Open(key) => self.look_at_open(key),
            }
        }
    }

    /// The packed groups that were seen last at this time or before, taken off the queues.
    fn oldest_packed(&mut self, until_ns: u64, newest: &mut Newest) -> Vec<Handle> {
        let mut taken_out = Vec::new();
        let looked_at_ns = self.kept_until_ns(until_ns);
        while let Some((handle, bucket)) = self.wheel.pop_begun_by(looked_at_ns) {
            // Two entries can lead to one group: the second one finds it marked by the first.
            if self.packed_in(handle, bucket).is_some() {
                taken_out.push(self.take_out(handle));
            }
        }
        while let Some((request_ns, handle)) = self.new_requests.pop_entry_if(|ns| *ns <= until_ns) {
            if self.packed_in(handle, NO_BUCKET).is_some_and(|head| head.base_ns() == request_ns) {
                taken_out.push(self.take_out(handle));
            }
        }
        let mut oldest = Vec::new();
        for group in taken_out {
            if group.newest.of_all_ns() > Some(until_ns) {
                self.put_back(group);
            } else {
                newest.join(group.newest);
                oldest.push(group.handle);
            }
        }
        oldest
    }

    /// What was seen last at this time is kept until then at the latest.
    fn kept_until_ns(&self, newest_ns: u64) -> u64 {
        newest_ns.saturating_add(self.config.retention_ns()).saturating_add(KEPT_STEP_NS)
    }

    fn take_out(&mut self, handle: Handle) -> TakenOut {
        let mut head = self.arena.head_mut(handle);
        let was_new = head.expiry_bucket() == NO_BUCKET;
        head.set_expiry_bucket(TAKEN_OUT);
        let mut newest = Newest::default();
        for entry in self.arena.entries(handle) {
            if !self.is_over(self.remembered_until_ns(entry.tag, entry.timestamp_ns)) {
                newest.see(entry.tag, entry.timestamp_ns);
            }
        }
        TakenOut { handle, newest, was_new }
    }

    fn put_back(&mut self, TakenOut { handle, newest, was_new }: TakenOut) {
        self.look_at(handle, self.looked_at_ns(&newest));
        if let Some(until_ns) = newest.of_all_until_ns(&self.config) {
            self.ageing.push(until_ns, Ageing::Packed(handle));
        }
        if was_new && self.arena.head(handle).request_waits() {
            self.await_exposure(handle);
        }
    }

    /// The open groups that were seen last at this time or before, taken off the queue.
    fn oldest_open(&mut self, until_ns: u64, newest: &mut Newest) -> Vec<Key> {
        let looked_at_ns = self.kept_until_ns(until_ns);
        // Two deadlines can lead to one group.
        let mut looked_at = BTreeSet::new();
        while let Some(key) = self.deadlines.forget_group.pop_if(|deadline_ns| *deadline_ns <= looked_at_ns) {
            looked_at.insert(key);
        }
        let (mut oldest, mut kept) = (Vec::new(), Vec::new());
        for key in looked_at {
            let Some(of_group) = self.open.groups.get(key).map(|group| self.newest_of(group)) else {
                continue;
            };
            if of_group.of_all_ns() > Some(until_ns) {
                if let Some(until_ns) = of_group.of_all_until_ns(&self.config) {
                    self.ageing.push(until_ns, Ageing::Open(key));
                }
                kept.push((self.looked_at_ns(&of_group), key));
            } else {
                newest.join(of_group);
                oldest.push(key);
            }
        }
        for (deadline_ns, key) in kept {
            self.deadlines.forget_group.push(deadline_ns, key);
        }
        oldest
    }

    fn newest_of(&self, group: &Group) -> Newest {
        let mut newest = Newest::default();
        let mut see = |tag, last_ns: Option<u64>| {
            if let Some(last_ns) = last_ns
                && !self.is_over(self.remembered_until_ns(tag, last_ns))
            {
                newest.see(tag, last_ns);
            }
        };
        see(Tag::Request, group.requests.last_ns());
        see(Tag::ExposureAgain, group.exposures.last_ns());
        for pair in group.pairs.values().filter_map(|key| self.open.pairs.get(*key)) {
            see(Tag::Click, pair.last_click_ns());
        }
        newest
    }

    /// When a group is looked at again: not before it could be the oldest.
    fn looked_at_ns(&self, newest: &Newest) -> u64 {
        newest.of_all_ns().unwrap_or(0).saturating_add(self.config.retention_ns())
    }

    /// Ends whatever waits in an open group without finding it broken.
    fn give_up(&mut self, key: Key, out: &mut impl Sink) {
        let Some(group) = self.open.groups.get_mut(key) else { return };
        if let Some((_, waiting)) = group.waiting_request.take() {
            self.pending.requests -= 1;
            let (kind, labels) = (Kind::Request, waiting.labels);
            out.push(if waiting.late {
                Outcome::LateWithoutOutcome { kind, labels }
            } else {
                Outcome::Evicted { kind, labels }
            });
        }
        let exposures: Vec<(u64, Key)> = group.waiting_exposures.drain_in(0, u64::MAX).collect();
        let pairs: Vec<Key> = group.pairs.values().copied().collect();
        for (exposure_ns, pair_key) in exposures {
            self.end_exposure(pair_key, exposure_ns, false, out);
        }
        for pair_key in pairs {
            while let Some((click_ns, click)) =
                self.open.pairs.get_mut(pair_key).and_then(Pair::pop_waiting_click)
            {
                self.end_click(pair_key, click_ns, click, LinkOutcome::Unseen, out);
            }
        }
    }
}
