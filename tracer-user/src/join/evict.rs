//! The memory bound: what is given up when it is reached, and what is said of it.

use super::engine::Engine;
use super::index::Place;
use super::open::{Decision, Group, Key, Pair};
use super::packed::arena::{Handle, SEGMENT_BYTES};
use super::packed::record::{Head, Tag};
use super::time::wheel::{NO_BUCKET, TAKEN_OUT};
use crate::domain::{Kind, LinkOutcome, Outcome};

/// State grows by less than this between two looks at the limit: a segment of each class, and room for
/// the tables.
const HEADROOM_BYTES: u64 = 5 * SEGMENT_BYTES;

/// What was given up so far to keep the memory bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Evicted {
    /// Request ids, each with all that was remembered of it.
    pub request_ids: u64,
    /// How often the watermark was moved because the reorder buffer alone took too much.
    pub forced_watermarks: u64,
    /// How often what was known of reports was given up.
    pub reports: u64,
}

/// The newest sighting of each kind among what is evicted, one nanosecond past it, or 0.
#[derive(Debug, Default)]
struct Newest {
    request_ns: u64,
    exposure_ns: u64,
    click_ns: u64,
}

impl Newest {
    fn see(&mut self, tag: Tag, timestamp_ns: u64) {
        let newest_ns = match tag {
            Tag::Request | Tag::RequestAgain => &mut self.request_ns,
            Tag::Exposure(_) | Tag::ExposureAgain => &mut self.exposure_ns,
            Tag::Click => &mut self.click_ns,
        };
        *newest_ns = timestamp_ns.saturating_add(1).max(*newest_ns);
    }
}

impl Engine {
    /// Evicts every request id of which nothing would be remembered at a time after `until_ns`, in
    /// nanoseconds since the Unix epoch: docs/semantics.md, "The memory bound". What is decided by that
    /// is appended to `out`.
    pub fn evict_until(&mut self, until_ns: u64, out: &mut Vec<Decision>) {
        let first_new = out.len();
        self.adopt_horizons(out);
        self.advance(out);
        self.evict(until_ns, out);
        self.check_accounting(first_new, out);
    }

    /// Evicts the oldest state until the rest keeps the bound.
    pub(super) fn keep_memory_limit(&mut self, out: &mut Vec<Decision>) {
        let limit_bytes = self.config.memory_limit_bytes;
        while self.memory_bytes() + HEADROOM_BYTES > limit_bytes {
            let retention_ns = self.config.request_retention_ns();
            let new_ns = self.new_requests.first().map(|ns| ns.saturating_add(retention_ns));
            let open_ns = self.deadlines.forget_group.first();
            let oldest_ns = [self.wheel.oldest_ns(), new_ns, open_ns].into_iter().flatten().min();
            match oldest_ns {
                Some(until_ns) => self.evict(until_ns, out),
                None if self.processes.len() > 0 => {
                    self.evict_reports();
                    self.evicted.reports += 1;
                }
                None => break,
            }
        }
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

    fn evict(&mut self, until_ns: u64, out: &mut Vec<Decision>) {
        let (packed, open) = self.due_groups(until_ns);
        let mut newest = Newest::default();
        for (handle, head) in &packed {
            self.see_packed(*handle, head, &mut newest);
        }
        for key in &open {
            self.see_open(*key, &mut newest);
        }
        // First, because what waits is judged by it.
        self.request_horizon_ns = self.request_horizon_ns.max(newest.request_ns);
        self.exposure_horizon_ns = self.exposure_horizon_ns.max(newest.exposure_ns);
        self.doubts.exposures_ns = self.doubts.exposures_ns.max(newest.exposure_ns);
        self.doubts.clicks_ns = self.doubts.clicks_ns.max(newest.click_ns);
        self.evicted.request_ids += (packed.len() + open.len()) as u64;
        for (handle, head) in packed {
            if head.request_waits() {
                self.pending.requests -= 1;
                out.push(Outcome::Evicted { kind: Kind::Request, labels: head.labels });
            }
            self.index.remove(head.request, Place::Packed(handle));
            self.arena.free_group(handle);
        }
        for key in open {
            self.give_up(key, out);
            self.remove_open(key);
        }
    }

    /// The groups of which nothing would be remembered after this time, taken off the queues.
    fn due_groups(&mut self, until_ns: u64) -> (Vec<(Handle, Head)>, Vec<Key>) {
        let (mut packed, mut kept) = (Vec::new(), Vec::new());
        while let Some((handle, bucket)) = self.wheel.pop_begun_by(until_ns) {
            // Two entries can lead to one group: the second one finds it marked by the first.
            let Some(mut head) = self.packed_in(handle, bucket) else { continue };
            head.expiry_bucket = TAKEN_OUT;
            self.arena.set_head(handle, &head);
            if head.alive_until_ns <= until_ns { &mut packed } else { &mut kept }.push((handle, head));
        }
        let retention_ns = self.config.request_retention_ns();
        let is_due = |request_ns: &u64| request_ns.saturating_add(retention_ns) <= until_ns;
        while let Some((request_ns, handle)) = self.new_requests.pop_entry_if(is_due) {
            let Some(mut head) = self.arena.head_if_live(handle).filter(|head| {
                head.base_ns == request_ns && head.expiry_bucket == NO_BUCKET
            }) else {
                continue;
            };
            head.expiry_bucket = TAKEN_OUT;
            self.arena.set_head(handle, &head);
            if head.alive_until_ns <= until_ns {
                packed.push((handle, head));
            } else {
                if head.request_waits() {
                    self.await_exposure(handle, &head);
                }
                kept.push((handle, head));
            }
        }
        for (handle, mut head) in kept {
            head.expiry_bucket = self.wheel.insert(handle, head.alive_until_ns);
            self.arena.set_head(handle, &head);
        }
        let (mut open, mut later) = (Vec::new(), Vec::new());
        while let Some(key) = self.deadlines.forget_group.pop_if(|deadline_ns| *deadline_ns <= until_ns) {
            match self.open.groups.get(key).map(Group::alive_until_ns) {
                Some(alive_until_ns) if alive_until_ns > until_ns => later.push((alive_until_ns, key)),
                Some(_) => open.push(key),
                None => {}
            }
        }
        for (alive_until_ns, key) in later {
            self.deadlines.forget_group.push(alive_until_ns, key);
        }
        (packed, open)
    }

    fn see_packed(&self, handle: Handle, head: &Head, newest: &mut Newest) {
        for entry in self.arena.entries(handle, head) {
            if !self.is_over(self.remembered_until_ns(entry.tag, entry.timestamp_ns)) {
                newest.see(entry.tag, entry.timestamp_ns);
            }
        }
    }

    fn see_open(&self, key: Key, newest: &mut Newest) {
        let Some(group) = self.open.groups.get(key) else { return };
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
            see(Tag::Click, pair.click_firsts.last_ns());
        }
    }

    /// Ends whatever waits in an open group without finding it broken.
    fn give_up(&mut self, key: Key, out: &mut Vec<Decision>) {
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
            while let Some(click) = self.open.pairs.get_mut(pair_key).and_then(Pair::pop_waiting_click) {
                self.end_click(pair_key, click, LinkOutcome::Unseen, out);
            }
        }
    }
}

