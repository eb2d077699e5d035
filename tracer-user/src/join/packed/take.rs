//! An event in order and the packed group of its request id.

use super::arena::Handle;
use super::record::{Entry, Head, Tag};
use crate::domain::{Kind, LinkOutcome, Outcome, RequestOutcome, TripleOutcome};
use crate::join::engine::Engine;
use crate::join::event::{ItemPrint, JoinEvent};
use crate::join::index::Place;
use crate::join::open::{Decision, linked_click};
use crate::join::open::exposure_link;
use crate::join::time::Until;
use crate::join::time::wheel::NO_BUCKET;

impl Engine {
    /// The first request of its id, in order: packed from the beginning.
    pub(in super::super) fn add_packed(&mut self, event: &JoinEvent) {
        let JoinEvent { timestamp_ns, request, labels, .. } = *event;
        let (handle, mut head) = self.arena.new_group(request, timestamp_ns, true, Some(labels));
        self.index.insert(request, Place::Packed(handle));
        head.alive_until_ns = self.remembered_until_ns(Tag::Request, timestamp_ns);
        self.arena.set_head(handle, &head);
        // It has to be looked at when the request stops waiting; that is soon enough for the wheel.
        self.await_exposure(handle, &head);
        self.pending.requests += 1;
    }

    /// Takes an event in order, whose group is at this place. Returns `false`, and has done nothing, when the group must be opened
    /// for it.
    pub(in super::super) fn take_packed(
        &mut self,
        handle: Handle,
        mut head: Head,
        event: &JoinEvent,
        out: &mut Vec<Decision>,
    ) -> bool {
        if !head.can_hold(event.timestamp_ns) {
            return false;
        }
        match event.kind {
            Kind::Request => self.repeat_request(handle, &mut head, event, out),
            Kind::Exposure => self.add_exposure(handle, &mut head, event, out),
            Kind::Click => self.add_click(handle, &mut head, event, out),
            Kind::Report => false,
        }
    }

    /// A request that is not a repetition begins anew, which only an open group can do.
    fn repeat_request(
        &mut self,
        handle: Handle,
        head: &mut Head,
        event: &JoinEvent,
        out: &mut Vec<Decision>,
    ) -> bool {
        let JoinEvent { timestamp_ns, labels, .. } = *event;
        let from_ns = timestamp_ns.saturating_sub(self.config.exposure_window_ns);
        if self.latest_request(handle, head, from_ns, |tag| tag == Tag::Request).is_none() {
            return false;
        }
        let entry = Entry { timestamp_ns, item: ItemPrint::MISSING, tag: Tag::RequestAgain };
        self.add_entry(handle, head, entry);
        out.push(Outcome::Duplicate { kind: Kind::Request, labels });
        true
    }

    fn add_exposure(
        &mut self,
        handle: Handle,
        head: &mut Head,
        event: &JoinEvent,
        out: &mut Vec<Decision>,
    ) -> bool {
        let JoinEvent { timestamp_ns, labels, item, .. } = *event;
        let from_ns = timestamp_ns.saturating_sub(self.config.exposure_window_ns);
        let (tag, outcome) = match self.exposure_of(handle, head, item) {
            // Not within the window of the earlier one: a second exposure of the item.
            Some(opened_ns) if timestamp_ns - opened_ns > self.config.click_window_ns => return false,
            Some(_) => (Tag::ExposureAgain, Outcome::Duplicate { kind: Kind::Exposure, labels }),
            None => {
                let Some(request_ns) = self.latest_request(handle, head, from_ns, |_| true) else {
                    return false;
                };
                let delay_ns = Some(timestamp_ns - request_ns);
                (
                    Tag::Exposure(TripleOutcome::Complete),
                    exposure_link(LinkOutcome::Linked, delay_ns, labels),
                )
            }
        };
        // While it waits, its window has not run out and its request is not after the exposure.
        if head.request_waits() {
            head.stop_waiting();
            self.pending.requests -= 1;
            out.push(Outcome::Request { outcome: RequestOutcome::Exposed, labels: head.labels });
        }
        self.add_entry(handle, head, Entry { timestamp_ns, item, tag });
        out.push(outcome);
        true
    }

    fn add_click(
        &mut self,
        handle: Handle,
        head: &mut Head,
        event: &JoinEvent,
        out: &mut Vec<Decision>,
    ) -> bool {
        let JoinEvent { timestamp_ns, labels, item, .. } = *event;
        let from_ns = timestamp_ns.saturating_sub(self.config.click_window_ns);
        let (mut is_duplicate, mut sighted_ns, mut fate) = (false, None, None);
        if head.may_have(item) {
            self.arena.for_each_of(handle, head, item, |seen_ns, tag| {
                match tag {
                    Tag::Click => is_duplicate |= seen_ns >= from_ns,
                    Tag::Exposure(outcome) => fate = Some(outcome),
                    Tag::ExposureAgain | Tag::Request | Tag::RequestAgain => {}
                }
                if matches!(tag, Tag::Exposure(_) | Tag::ExposureAgain) && seen_ns >= from_ns {
                    sighted_ns = sighted_ns.max(Some(seen_ns));
                }
            });
        }
        if is_duplicate {
            out.push(Outcome::Duplicate { kind: Kind::Click, labels });
            return true;
        }
        let (Some(sighted_ns), Some(outcome)) = (sighted_ns, fate) else { return false };
        self.add_entry(handle, head, Entry { timestamp_ns, item, tag: Tag::Click });
        self.await_report(event, false, out);
        out.push(linked_click(timestamp_ns, sighted_ns, labels));
        let outcome = self.doubts.triple(&self.config, timestamp_ns, outcome);
        out.push(Outcome::Triple { outcome, labels });
        true
    }

    /// The time of the item's exposure.
    fn exposure_of(&self, handle: Handle, head: &Head, item: ItemPrint) -> Option<u64> {
        let mut opened_ns = None;
        if head.may_have(item) {
            self.arena.for_each_of(handle, head, item, |seen_ns, tag| {
                if matches!(tag, Tag::Exposure(_)) {
                    opened_ns = Some(seen_ns);
                }
            });
        }
        opened_ns
    }

    /// The time of the latest of these sightings of the request, at `from_ns` or later.
    fn latest_request(
        &self,
        handle: Handle,
        head: &Head,
        from_ns: u64,
        is_asked_for: impl Fn(Tag) -> bool,
    ) -> Option<u64> {
        let at_base = head.has_request_at_base() && is_asked_for(Tag::Request);
        let mut latest_ns = at_base.then_some(head.base_ns);
        if head.has_request_entries() {
            self.arena.for_each_of(handle, head, ItemPrint::MISSING, |seen_ns, tag| {
                if is_asked_for(tag) {
                    latest_ns = latest_ns.max(Some(seen_ns));
                }
            });
        }
        latest_ns.filter(|seen_ns| *seen_ns >= from_ns)
    }

    /// The request at the base of a packed group waits for its first exposure.
    pub(in super::super) fn await_exposure(&mut self, handle: Handle, head: &Head) {
        let requests = if head.expiry_bucket == NO_BUCKET {
            &mut self.new_requests
        } else {
            &mut self.waiting_requests
        };
        requests.push(head.base_ns, handle);
        self.note_deadline(head.base_ns.saturating_add(self.config.exposure_window_ns));
    }

    /// When the first of them stops waiting.
    pub(in super::super) fn packed_request_deadline_ns(&self) -> Option<u64> {
        let firsts = [self.new_requests.first(), self.waiting_requests.first()];
        let first_ns = firsts.into_iter().flatten().min();
        first_ns.map(|ns| ns.saturating_add(self.config.exposure_window_ns))
    }

    /// The deadline of requests of packed groups: was anything shown for them? The place may have come
    /// to another group meanwhile; if that waits since the same time, it is due as well. From here on the
    /// wheel has the group.
    pub(in super::super) fn judge_packed_requests(&mut self, until: Until, out: &mut Vec<Decision>) {
        let window_ns = self.config.exposure_window_ns;
        let is_due = |request_ns: &u64| until.is_due(request_ns.saturating_add(window_ns));
        while let Some((request_ns, handle)) = self.new_requests.pop_entry_if(is_due) {
            self.judge_packed_request(request_ns, handle, out);
        }
        while let Some((request_ns, handle)) = self.waiting_requests.pop_entry_if(is_due) {
            self.judge_packed_request(request_ns, handle, out);
        }
    }

    fn judge_packed_request(&mut self, request_ns: u64, handle: Handle, out: &mut Vec<Decision>) {
        let Some(mut head) = self.arena.head_if_live(handle).filter(|head| head.base_ns == request_ns) else {
            return;
        };
        if head.request_waits() {
            head.stop_waiting();
            self.pending.requests -= 1;
            out.push(Outcome::Request { outcome: RequestOutcome::Unexposed, labels: head.labels });
        }
        if head.expiry_bucket == NO_BUCKET {
            head.expiry_bucket = self.wheel.insert(handle, head.alive_until_ns);
        }
        self.arena.set_head(handle, &head);
    }

    fn add_entry(&mut self, handle: Handle, head: &mut Head, entry: Entry) {
        let until_ns = self.remembered_until_ns(entry.tag, entry.timestamp_ns);
        self.arena.add_entry(handle, head, entry, until_ns);
    }

    /// Removes packed groups of which nothing is remembered, looking at this many.
    pub(in super::super) fn expire_packed(&mut self, most: usize) {
        self.fetch_expiring(most);
        for _ in 0..most {
            let Some((handle, bucket)) = self.wheel.pop_before(self.now_ns) else { return };
            let Some(mut head) = self.packed_in(handle, bucket) else { continue };
            if self.is_over(head.alive_until_ns) {
                self.index.remove(head.request, Place::Packed(handle));
                self.arena.free_group(handle);
            } else {
                head.expiry_bucket = self.wheel.insert(handle, head.alive_until_ns);
                self.arena.set_head(handle, &head);
            }
        }
    }

    /// Looks at the groups that are over next, so that the processor fetches all of them at the same
    /// time. It decides nothing.
    fn fetch_expiring(&mut self, most: usize) {
        if !self.wheel.is_due(self.now_ns) {
            return;
        }
        let next = || self.wheel.next().take(most);
        let heads = next().fold(0, |sum, handle| sum ^ self.arena.look_at(*handle));
        let live = next().filter(|handle| self.arena.head_if_live(**handle).is_some());
        let rest = live.fold(0, |sum, handle| {
            let request = self.arena.request_of(*handle);
            let slot = self.index.guess(request).is_some();
            sum ^ self.arena.look_at_extents(*handle) ^ u64::from(slot)
        });
        std::hint::black_box(heads ^ rest);
    }

    /// The group that was put into this bucket, if it is still there.
    pub(in super::super) fn packed_in(&self, handle: Handle, bucket: u16) -> Option<Head> {
        self.arena.head_if_live(handle).filter(|head| head.expiry_bucket == bucket)
    }
}
