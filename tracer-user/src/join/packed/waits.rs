//! What of packed groups waits for a moment: requests to be exposed, and the exposures and clicks that
//! have nothing to be linked to yet.
//!
//! Labels of those are kept beside the group, because there are few of them at a time. If one finds its
//! match after all, or anything else happens to it, the group is opened and the rules are followed there.

use serde::{Deserialize, Serialize};

use super::arena::Handle;
use super::entry::Tag;
use crate::domain::{LinkOutcome, TripleOutcome};
use crate::join::decision::Sink;
use crate::join::engine::Engine;
use crate::join::event::{self, ItemPrint, LabelsKey};
use crate::join::open::{exposure_link, unlinked_click};
use crate::join::time::Until;
use crate::join::time::wheel::NO_BUCKET;

/// An entry that waits: the group's place and the number of the entry.
pub(in super::super) type WaitKey = (u32, u8);

/// What is known of an entry that waits beside the entry itself.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(in super::super) struct Wait {
    pub(in super::super) timestamp_ns: u64,
    pub(in super::super) labels: LabelsKey,
}

impl Engine {
    /// The request at the base of a packed group waits for its first exposure.
    pub(in super::super) fn await_exposure(&mut self, handle: Handle) {
        let head = self.arena.head(handle);
        let request_ns = head.base_ns();
        let is_new = head.expiry_bucket() == NO_BUCKET;
        let requests = if is_new { &mut self.new_requests } else { &mut self.waiting_requests };
        requests.push(request_ns, handle);
        self.note_packed_deadline(request_ns.saturating_add(self.config.exposure_window_ns));
    }

    /// When the first of what waits in packed groups stops waiting.
    pub(in super::super) fn packed_deadline_ns(&self) -> Option<u64> {
        let requests = [self.new_requests.first(), self.waiting_requests.first()];
        let requests = requests.into_iter().flatten();
        let request_deadlines = requests.map(|ns| ns.saturating_add(self.config.exposure_window_ns));
        let others = self.waiting_entries.first().map(|ns| ns.saturating_add(self.config.skew_ns));
        request_deadlines.chain(others).min()
    }

    /// The deadline of requests of packed groups: was anything shown for them? The place may have come
    /// to another group meanwhile; if that waits since the same time, it is due as well. From here on the
    /// wheel has the group.
    pub(in super::super) fn judge_packed_requests(&mut self, until: Until, out: &mut impl Sink) {
        let window_ns = self.config.exposure_window_ns;
        let is_due = |request_ns: &u64| until.is_due(request_ns.saturating_add(window_ns));
        while let Some((request_ns, handle)) = self.new_requests.pop_entry_if(is_due) {
            self.judge_packed_request(request_ns, handle, out);
            if let Some(next) = self.new_requests.next() {
                self.arena.prefetch_head(*next);
            }
        }
        while let Some((request_ns, handle)) = self.waiting_requests.pop_entry_if(is_due) {
            self.judge_packed_request(request_ns, handle, out);
        }
    }

    fn judge_packed_request(&mut self, request_ns: u64, handle: Handle, out: &mut impl Sink) {
        let Some(head) = self.arena.head_if_live(handle).filter(|head| head.base_ns() == request_ns) else {
            return;
        };
        if head.request_waits() {
            self.arena.head_mut(handle).stop_waiting();
            self.pending.requests -= 1;
            out.push(self.doubts.unexposed(head.base_ns(), head.labels()));
        }
        if head.expiry_bucket() == NO_BUCKET {
            self.look_at(handle, head.kept_until_ns());
        }
    }

    /// An exposure or a click waits for what it can be linked to.
    pub(super) fn await_match(&mut self, handle: Handle, entry: u8, timestamp_ns: u64, labels: LabelsKey) {
        self.waits.insert((handle.0, entry), Wait { timestamp_ns, labels });
        self.waiting_entries.push(timestamp_ns, (handle, entry));
        self.note_packed_deadline(timestamp_ns.saturating_add(self.config.skew_ns));
    }

    /// The deadline of exposures and clicks of packed groups: what they wait for did not come. A place
    /// may have come to another group meanwhile; if something waits there since the same time, it is due
    /// as well.
    pub(in super::super) fn judge_packed_waits(&mut self, until: Until, out: &mut impl Sink) {
        let skew_ns = self.config.skew_ns;
        let is_due = |waits_ns: &u64| until.is_due(waits_ns.saturating_add(skew_ns));
        while let Some((timestamp_ns, (handle, number))) = self.waiting_entries.pop_entry_if(is_due) {
            let key = (handle.0, number);
            let Some(wait) = self.waits.get(&key).filter(|wait| wait.timestamp_ns == timestamp_ns) else {
                continue;
            };
            let labels = wait.labels;
            self.waits.remove(&key);
            if self.arena.head_if_live(handle).is_none() {
                continue;
            }
            if self.arena.tag_of(handle, number) == Some(Tag::ExposureWaits) {
                self.judge_packed_exposure(handle, number, timestamp_ns, labels, out);
            } else {
                self.judge_packed_click(handle, number, timestamp_ns, labels, out);
            }
        }
    }

    fn judge_packed_exposure(
        &mut self,
        handle: Handle,
        number: u8,
        timestamp_ns: u64,
        labels: LabelsKey,
        out: &mut impl Sink,
    ) {
        let (link, triple) = if self.is_exposure_covered(timestamp_ns) {
            (LinkOutcome::Orphan, TripleOutcome::Broken)
        } else {
            (LinkOutcome::Unseen, TripleOutcome::Unseen)
        };
        self.arena.set_tag(handle, number, Tag::Exposure(triple));
        self.pending.exposures -= 1;
        let subject = event::unlinked_exposure(timestamp_ns, self.arena.head(handle).request());
        out.push(exposure_link(link, subject, None, labels));
    }

    fn judge_packed_click(
        &mut self,
        handle: Handle,
        number: u8,
        click_ns: u64,
        labels: LabelsKey,
        out: &mut impl Sink,
    ) {
        let item = self.arena.set_tag(handle, number, Tag::Click);
        self.pending.clicks -= 1;
        let outcome = if !self.is_click_covered(click_ns) {
            LinkOutcome::Unseen
        } else if self.was_another_item_packed(handle, item, click_ns) {
            LinkOutcome::Mismatch
        } else {
            LinkOutcome::Orphan
        };
        let request = self.arena.head(handle).request();
        unlinked_click(outcome, event::unlinked_click(click_ns, request, item), labels, out);
    }

    /// Ends what waits in a packed group, its request left out, without finding it broken.
    pub(in super::super) fn give_up_waits(&mut self, handle: Handle, out: &mut impl Sink) {
        let head = self.arena.head(handle);
        let request = head.request();
        // A request at the base is not one of the numbered entries.
        let unnumbered = usize::from(head.has_request_at_base());
        let entries = self.arena.entries(handle);
        for (number, entry) in (0_u8..).zip(entries.into_iter().skip(unnumbered)) {
            if !matches!(entry.tag, Tag::ExposureWaits | Tag::ClickWaits) {
                continue;
            }
            let Some(Wait { timestamp_ns, labels }) = self.waits.remove(&(handle.0, number)) else {
                continue;
            };
            if entry.tag == Tag::ExposureWaits {
                self.pending.exposures -= 1;
                let subject = event::unlinked_exposure(timestamp_ns, request);
                out.push(exposure_link(LinkOutcome::Unseen, subject, None, labels));
            } else {
                self.pending.clicks -= 1;
                let subject = event::unlinked_click(timestamp_ns, request, entry.item);
                unlinked_click(LinkOutcome::Unseen, subject, labels, out);
            }
        }
    }

    /// Takes out of the queues what leads to nothing that waits. Returns how many are left.
    pub(in super::super) fn forget_dead_waits(&mut self) -> usize {
        let Self { arena, waits, new_requests, waiting_requests, waiting_entries, .. } = self;
        let waits_since = |request_ns: u64, handle: &Handle| {
            arena
                .head_if_live(*handle)
                .is_some_and(|head| head.base_ns() == request_ns && head.request_waits())
        };
        waiting_requests.retain(waits_since);
        waiting_entries.retain(|timestamp_ns, (handle, number)| {
            waits.get(&(handle.0, *number)).is_some_and(|wait| wait.timestamp_ns == timestamp_ns)
        });
        new_requests.len() + waiting_requests.len() + waiting_entries.len()
    }

    /// Whether an exposure of another item was sighted in the click's range.
    fn was_another_item_packed(&self, handle: Handle, item: ItemPrint, click_ns: u64) -> bool {
        let from_ns = click_ns.saturating_sub(self.config.click_window_ns);
        let to_ns = click_ns.saturating_add(self.config.skew_ns);
        self.arena.entries(handle).iter().any(|entry| {
            matches!(entry.tag, Tag::Exposure(_) | Tag::ExposureAgain | Tag::ExposureWaits)
                && entry.item != item
                && (from_ns..=to_ns).contains(&entry.timestamp_ns)
        })
    }
}
