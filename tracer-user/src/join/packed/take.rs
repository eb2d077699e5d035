//! An event in order and the packed group of its request id.

use super::arena::Handle;
use super::entry::{Entry, Tag};
use super::record::Added;
use crate::domain::{Kind, LinkOutcome, Outcome, RequestOutcome, Subject, TripleOutcome};
use crate::join::decision::Sink;
use crate::join::engine::Engine;
use crate::join::event::{ItemPrint, JoinEvent, LabelsKey, triple};
use crate::join::index::Place;
use crate::join::open::{Waiting, exposure_link, linked_click};

impl Engine {
    /// The first event of a request id, in order: packed from the beginning.
    pub(in super::super) fn add_packed(&mut self, event: &JoinEvent, out: &mut impl Sink) {
        let JoinEvent { timestamp_ns, request, labels, kind, .. } = *event;
        if kind != Kind::Request {
            let handle = self.arena.new_group(request, timestamp_ns, false, None);
            self.index.insert(request, Place::Packed(handle));
            self.look_at(handle, self.remembered_until_ns(Tag::Click, timestamp_ns));
            let is_taken = self.take_packed(handle, event, out);
            debug_assert!(is_taken, "a new group can hold its first entry");
            return;
        }
        let handle = self.arena.new_group(request, timestamp_ns, true, Some(labels));
        self.index.insert(request, Place::Packed(handle));
        let until_ns = self.remembered_until_ns(Tag::Request, timestamp_ns);
        self.arena.head_mut(handle).keep_until(until_ns);
        // It has to be looked at when the request stops waiting; that is soon enough for the wheel.
        self.await_exposure(handle);
        self.pending.requests += 1;
    }

    /// Takes most of all events in order: an exposure of an item that is new to the group, whose request came first and
    /// only once. `place` is where the group may be. Returns `false`, and has done nothing, when it is another event;
    /// `take_packed` does the same for this one.
    #[inline(always)]
    pub(in super::super) fn take_usual(
        &mut self,
        place: Handle,
        event: &JoinEvent,
        out: &mut impl Sink,
    ) -> bool {
        let JoinEvent { timestamp_ns, request, item, labels, kind, .. } = *event;
        if kind != Kind::Exposure || item.is_missing() {
            return false;
        }
        let (window_ns, retention_ns) = (self.config.exposure_window_ns, self.config.click_retention_ns());
        let added = self.arena.add_exposure(place, request, (timestamp_ns, item), window_ns, retention_ns);
        let Some(Added { since_base_ns: delay_ns, waited }) = added else { return false };
        if let Some(labels) = waited {
            self.shown(labels, out);
        }
        out.push(exposure_link(LinkOutcome::Linked, Subject::at(timestamp_ns), Some(delay_ns), labels));
        true
    }

    /// Takes an event in order, whose group is at this place. Returns `false`, and has done nothing, when the group must
    /// be opened for it.
    pub(in super::super) fn take_packed(
        &mut self,
        handle: Handle,
        event: &JoinEvent,
        out: &mut impl Sink,
    ) -> bool {
        if !self.arena.head(handle).can_hold(event.timestamp_ns) {
            return false;
        }
        match event.kind {
            Kind::Request => self.repeat_request(handle, event, out),
            Kind::Exposure => self.add_exposure(handle, event, out),
            Kind::Click => self.add_click(handle, event, out),
            Kind::Report => false,
        }
    }

    /// A request that is not a repetition begins anew, which only an open group can do.
    fn repeat_request(&mut self, handle: Handle, event: &JoinEvent, out: &mut impl Sink) -> bool {
        let JoinEvent { timestamp_ns, labels, .. } = *event;
        let from_ns = timestamp_ns.saturating_sub(self.config.exposure_window_ns);
        if self.latest_request(handle, from_ns, |tag| tag == Tag::Request).is_none() {
            return false;
        }
        let entry = Entry { timestamp_ns, item: ItemPrint::MISSING, tag: Tag::RequestAgain };
        self.add_entry(handle, entry);
        out.push(Outcome::Duplicate { kind: Kind::Request, labels });
        true
    }

    fn add_exposure(&mut self, handle: Handle, event: &JoinEvent, out: &mut impl Sink) -> bool {
        let JoinEvent { timestamp_ns, labels, item, .. } = *event;
        let from_ns = timestamp_ns.saturating_sub(self.config.exposure_window_ns);
        let (opened_ns, click_waits) = self.exposure_of(handle, item);
        let (tag, outcome) = match opened_ns {
            // The click can be linked now.
            _ if click_waits => return false,
            // Not within the window of the earlier one: a second exposure of the item.
            Some(opened_ns) if timestamp_ns - opened_ns > self.config.click_window_ns => return false,
            Some(_) => (Tag::ExposureAgain, Some(Outcome::Duplicate { kind: Kind::Exposure, labels })),
            None => match self.latest_request(handle, from_ns, |_| true) {
                Some(request_ns) => {
                    let link = exposure_link(
                        LinkOutcome::Linked,
                        Subject::at(timestamp_ns),
                        Some(timestamp_ns - request_ns),
                        labels,
                    );
                    (Tag::Exposure(TripleOutcome::Complete), Some(link))
                }
                None => (Tag::ExposureWaits, None),
            },
        };
        if self.arena.head(handle).request_waits() {
            self.stop_waiting(handle, out);
        }
        let number = self.add_entry(handle, Entry { timestamp_ns, item, tag });
        match outcome {
            Some(outcome) => out.push(outcome),
            None => {
                self.pending.exposures += 1;
                self.await_match(handle, number, timestamp_ns, labels);
            }
        }
        true
    }

    /// The request at the base has an exposure. While it waits, its window has not run out, and it is not after the
    /// exposure.
    fn stop_waiting(&mut self, handle: Handle, out: &mut impl Sink) {
        let mut head = self.arena.head_mut(handle);
        let labels = head.labels();
        head.stop_waiting();
        self.shown(labels, out);
    }

    /// A request of these labels no longer waits for an exposure.
    #[inline(never)]
    fn shown(&mut self, labels: LabelsKey, out: &mut impl Sink) {
        self.pending.requests -= 1;
        out.push(Outcome::Request { outcome: RequestOutcome::Exposed, labels });
    }

    fn add_click(&mut self, handle: Handle, event: &JoinEvent, out: &mut impl Sink) -> bool {
        let JoinEvent { timestamp_ns, labels, item, .. } = *event;
        let from_ns = timestamp_ns.saturating_sub(self.config.click_window_ns);
        let (mut first_ns, mut sighted_ns, mut fate) = (None, None, None);
        if self.arena.head(handle).may_have(item) {
            self.arena.for_each_of(handle, item, |seen_ns, tag| match tag {
                Tag::Click | Tag::ClickWaits => first_ns = first_ns.max(Some(seen_ns)),
                Tag::Exposure(_) | Tag::ExposureWaits | Tag::ExposureAgain => {
                    if let Tag::Exposure(outcome) = tag {
                        fate = Some(outcome);
                    }
                    if seen_ns >= from_ns {
                        sighted_ns = sighted_ns.max(Some(seen_ns));
                    }
                }
                Tag::Request | Tag::RequestAgain => {}
            });
        }
        if let Some(first_ns) = first_ns.filter(|first_ns| *first_ns >= from_ns) {
            if self.doubts.is_click_in_doubt(&self.config, first_ns) {
                // Doubt goes on from here, which only an open group can remember.
                return false;
            }
            out.push(Outcome::Duplicate { kind: Kind::Click, labels });
            return true;
        }
        let click = Waiting { labels, late: false, follows_doubt: false };
        match (sighted_ns, fate) {
            (Some(sighted_ns), Some(outcome)) => {
                self.add_entry(handle, Entry { timestamp_ns, item, tag: Tag::Click });
                self.await_report(event, click, out);
                out.push(linked_click(timestamp_ns, sighted_ns, labels));
                let outcome = self.doubts.triple(&self.config, timestamp_ns, outcome);
                let subject = triple(timestamp_ns, event.request, item);
                out.push(Outcome::Triple { outcome, subject, labels });
            }
            // The triple waits for the exposure.
            (Some(_), None) => return false,
            (None, _) => {
                let number = self.add_entry(handle, Entry { timestamp_ns, item, tag: Tag::ClickWaits });
                self.await_report(event, click, out);
                self.pending.clicks += 1;
                self.await_match(handle, number, timestamp_ns, labels);
            }
        }
        true
    }

    /// The time of the item's exposure, and whether a click waits for one.
    fn exposure_of(&self, handle: Handle, item: ItemPrint) -> (Option<u64>, bool) {
        let (mut opened_ns, mut click_waits) = (None, false);
        if self.arena.head(handle).may_have(item) {
            self.arena.for_each_of(handle, item, |seen_ns, tag| match tag {
                Tag::Exposure(_) | Tag::ExposureWaits => opened_ns = Some(seen_ns),
                Tag::ClickWaits => click_waits = true,
                _ => {}
            });
        }
        (opened_ns, click_waits)
    }

    /// The time of the latest of these sightings of the request, at `from_ns` or later.
    fn latest_request(
        &self,
        handle: Handle,
        from_ns: u64,
        is_asked_for: impl Fn(Tag) -> bool,
    ) -> Option<u64> {
        let head = self.arena.head(handle);
        let at_base = head.has_request_at_base() && is_asked_for(Tag::Request);
        let mut latest_ns = at_base.then(|| head.base_ns());
        if head.has_request_entries() {
            self.arena.for_each_of(handle, ItemPrint::MISSING, |seen_ns, tag| {
                if is_asked_for(tag) {
                    latest_ns = latest_ns.max(Some(seen_ns));
                }
            });
        }
        latest_ns.filter(|seen_ns| *seen_ns >= from_ns)
    }

    #[inline(always)]
    fn add_entry(&mut self, handle: Handle, entry: Entry) -> u8 {
        let until_ns = self.remembered_until_ns(entry.tag, entry.timestamp_ns);
        self.arena.add_entry(handle, entry, until_ns)
    }
}
