//! From packed to open and back. What a group remembers is the same in both.

#![expect(clippy::cast_possible_truncation, reason = "a packed group has at most MAX_ENTRIES entries")]

use super::{Engine, Exposure, Fate, Group, Key, Pair, Waiting};
use crate::domain::TripleOutcome;
use crate::join::event::{ItemPrint, LabelsKey, RequestPrint};
use crate::join::index::Place;
use crate::join::packed::arena::Handle;
use crate::join::packed::entry::{Entry, Tag};
use crate::join::packed::head::MAX_ENTRIES;
use crate::join::packed::line::MAX_SPAN_NS;
use crate::join::packed::waits::Wait;

/// A group with more entries stays open: packed, it would be opened again soon.
const MAX_PACKED_AGAIN: usize = MAX_ENTRIES / 2;

impl Engine {
    /// Opens a packed group.
    pub(in super::super) fn unpack(&mut self, request: RequestPrint, handle: Handle) -> Key {
        let head = self.arena.head(handle);
        let entries = self.arena.entries(handle);
        self.arena.free_group(handle);
        let key = self.open.groups.insert(Group::new(request));
        self.index.replace(request, Place::Packed(handle), Place::Open(key.number));
        // What the head says is up to a step more, and would be more each time.
        let mut alive_until_ns = 0;
        // A request at the base is not one of the numbered entries.
        let unnumbered = usize::from(head.has_request_at_base());
        for (position, entry) in entries.into_iter().enumerate() {
            let until_ns = self.remembered_until_ns(entry.tag, entry.timestamp_ns);
            alive_until_ns = alive_until_ns.max(until_ns);
            let wait = match entry.tag {
                Tag::ExposureWaits | Tag::ClickWaits => {
                    self.waits.remove(&(handle.0, (position - unnumbered) as u8))
                }
                _ => None,
            };
            self.unpack_entry(key, entry, until_ns, wait);
        }
        if let Some(group) = self.open.groups.get_mut(key) {
            group.alive_until_ns = alive_until_ns;
            if head.request_waits() {
                let deadline_ns = head.base_ns().saturating_add(self.config.exposure_window_ns);
                let waiting = Waiting { labels: head.labels(), late: false, follows_doubt: false };
                group.waiting_request = Some((head.base_ns(), waiting));
                self.deadlines.request.push(deadline_ns, key);
                self.note_deadline(deadline_ns);
            }
        }
        self.deadlines.forget_group.push(alive_until_ns, key);
        self.note_deadline(alive_until_ns);
        key
    }

    fn unpack_entry(
        &mut self,
        group_key: Key,
        Entry { timestamp_ns, item, tag }: Entry,
        until_ns: u64,
        wait: Option<Wait>,
    ) {
        let pair_key = if item.is_missing() { None } else { self.unpack_pair(group_key, item, until_ns) };
        let deadline_ns = timestamp_ns.saturating_add(self.config.skew_ns);
        let waiting = wait.map(|wait| Waiting { labels: wait.labels, late: false, follows_doubt: false });
        if waiting.is_some() {
            self.note_deadline(deadline_ns);
        }
        let Some(group) = self.open.groups.get_mut(group_key) else { return };
        let held_bytes = &mut self.open.held_bytes;
        match (tag, pair_key.and_then(|key| self.open.pairs.get_mut(key))) {
            (Tag::Request | Tag::RequestAgain, _) => {
                *held_bytes += group.requests.insert(timestamp_ns, ());
                if tag == Tag::Request {
                    *held_bytes += group.request_firsts.insert(timestamp_ns, ());
                }
            }
            (Tag::Exposure(_) | Tag::ExposureWaits, Some(pair)) => {
                *held_bytes += group.exposures.insert(timestamp_ns, ());
                *held_bytes += pair.sightings.insert(timestamp_ns, timestamp_ns);
                let fate = match (tag, waiting, pair_key) {
                    (Tag::Exposure(outcome), ..) => Fate::Known(outcome),
                    (_, Some(event), Some(pair_key)) => {
                        *held_bytes += group.waiting_exposures.insert(timestamp_ns, pair_key);
                        self.deadlines.exposure.push(deadline_ns, group_key);
                        Fate::Waiting { event, clicks: Vec::new() }
                    }
                    _ => {
                        debug_assert!(false, "nothing is known of an exposure that waits");
                        Fate::Known(TripleOutcome::Unseen)
                    }
                };
                let exposure = Exposure { sightings: 1, follows_doubt: false, fate };
                *held_bytes += pair.exposures.insert(timestamp_ns, exposure);
            }
            (Tag::ExposureAgain, Some(pair)) => {
                let opened_ns = pair.exposures.last_ns().unwrap_or(timestamp_ns);
                *held_bytes += group.exposures.insert(timestamp_ns, ());
                *held_bytes += pair.sightings.insert(timestamp_ns, opened_ns);
                if let Some(exposure) = pair.exposures.get_mut(opened_ns) {
                    exposure.sightings += 1;
                }
            }
            (Tag::Click | Tag::ClickWaits, Some(pair)) => {
                *held_bytes += pair.click_firsts.insert(timestamp_ns, false);
                if let (Some(click), Some(pair_key)) = (waiting, pair_key) {
                    *held_bytes += pair.waiting_clicks.insert(timestamp_ns, click);
                    group.waiting_clicks += 1;
                    self.deadlines.click.push(deadline_ns, pair_key);
                }
            }
            (_, None) => debug_assert!(false, "an entry has no item"),
        }
    }

    /// As `open_pair`, with nothing forgotten yet: an exposure must be there for its repetitions.
    fn unpack_pair(&mut self, group_key: Key, item: ItemPrint, until_ns: u64) -> Option<Key> {
        let now_ns = std::mem::replace(&mut self.now_ns, 0);
        let key = self.open_pair(group_key, item, until_ns);
        self.now_ns = now_ns;
        key
    }

    /// Packs an open group, or removes it when nothing of it is remembered, if nothing waits in it
    /// that a packed one cannot hold.
    pub(in super::super) fn try_pack(&mut self, key: Key) {
        let Some(group) = self.open.groups.get_mut(key) else { return };
        if !group.waiting_exposures.is_empty() || group.waiting_clicks > 0 || group.pairs.len() > MAX_ENTRIES
        {
            return;
        }
        group.forget(&self.config, self.now_ns);
        // Every sighting becomes an entry. Without this, each event of a group with many would read all of them.
        if group.requests.len() + group.exposures.len() > MAX_PACKED_AGAIN + 1 {
            return;
        }
        let Some(group) = self.open.groups.get(key) else { return };
        let mut pairs = Vec::with_capacity(group.pairs.len());
        for pair_key in group.pairs.values() {
            let Some(pair) = self.open.pairs.get_mut(*pair_key) else { return };
            pair.forget(&self.config, self.now_ns);
            pairs.push(*pair_key);
        }
        let pairs = pairs.iter().filter_map(|key| self.open.pairs.get(*key));
        let Some(packed) = packed_entries(group, pairs) else { return };
        let Some(group) = self.open.groups.remove(key) else { return };
        self.drop_group(&group);
        self.forget_dead_deadlines(group.pairs.len() + 1);
        if packed.entries.is_empty() && packed.waiting.is_none() && !packed.request_at_base {
            self.index.remove(group.request, Place::Open(key.number));
            return;
        }
        let (base_ns, at_base) = (packed.base_ns, packed.request_at_base);
        let handle = self.arena.new_group(group.request, base_ns, at_base, packed.waiting);
        for entry in packed.entries {
            self.arena.add_entry(handle, entry, 0);
        }
        self.arena.head_mut(handle).keep_until(group.alive_until_ns);
        self.index.replace(group.request, Place::Open(key.number), Place::Packed(handle));
        self.look_at(handle, group.alive_until_ns);
        if packed.waiting.is_some() {
            self.await_exposure(handle);
        }
    }

    /// How long an entry matters.
    pub(in super::super) fn remembered_until_ns(&self, tag: Tag, timestamp_ns: u64) -> u64 {
        timestamp_ns.saturating_add(match tag {
            Tag::Request | Tag::RequestAgain => self.config.request_retention_ns(),
            _ => self.config.click_retention_ns(),
        })
    }
}

/// What a packed group is made of.
struct Packed {
    base_ns: u64,
    request_at_base: bool,
    waiting: Option<LabelsKey>,
    entries: Vec<Entry>,
}

/// `None` when a packed group cannot hold it. It reads no more than one could hold.
fn packed_entries<'a>(group: &Group, pairs: impl Iterator<Item = &'a Pair>) -> Option<Packed> {
    let mut entries = Vec::new();
    let mut firsts = group.request_firsts.iter().peekable();
    for (timestamp_ns, ()) in group.requests.iter() {
        let is_first = firsts.next_if(|(first_ns, ())| first_ns == timestamp_ns).is_some();
        let tag = if is_first { Tag::Request } else { Tag::RequestAgain };
        entries.push(Entry { timestamp_ns: *timestamp_ns, item: ItemPrint::MISSING, tag });
    }
    for pair in pairs {
        pack_pair(pair, &mut entries)?;
    }
    let base_ns = entries.iter().map(|entry| entry.timestamp_ns).min().unwrap_or(0);
    let is_at_base = |entry: &Entry| entry.tag == Tag::Request && entry.timestamp_ns == base_ns;
    let at_base = entries.iter().position(is_at_base);
    if let Some(position) = at_base {
        entries.remove(position);
    }
    let waiting = match group.waiting_request {
        None => None,
        Some((timestamp_ns, Waiting { labels, late: false, .. }))
            if at_base.is_some() && timestamp_ns == base_ns =>
        {
            Some(labels)
        }
        Some(_) => return None,
    };
    let fits = entries.len() <= MAX_PACKED_AGAIN
        && entries.iter().all(|entry| entry.timestamp_ns - base_ns <= MAX_SPAN_NS);
    fits.then_some(Packed { base_ns, request_at_base: at_base.is_some(), waiting, entries })
}

fn pack_pair(pair: &Pair, entries: &mut Vec<Entry>) -> Option<()> {
    let item = pair.item;
    // No pair is read further than a packed group could hold.
    if entries.len() + pair.sightings.len().max(pair.exposures.len()) + pair.click_firsts.len()
        > MAX_PACKED_AGAIN + 1
    {
        return None;
    }
    if pair.follows_doubt() {
        return None;
    }
    let mut exposures = pair.exposures.iter();
    if let Some((opened_ns, exposure)) = exposures.next() {
        let Fate::Known(outcome) = exposure.fate else { return None };
        if exposures.next().is_some() {
            return None;
        }
        entries.push(Entry { timestamp_ns: *opened_ns, item, tag: Tag::Exposure(outcome) });
        // The exposure's own sighting may be forgotten before those that repeat it.
        let mut own = pair.sightings.iter().any(|(timestamp_ns, _)| timestamp_ns == opened_ns);
        for (timestamp_ns, _) in pair.sightings.iter() {
            if own && timestamp_ns == opened_ns {
                own = false;
            } else {
                entries.push(Entry { timestamp_ns: *timestamp_ns, item, tag: Tag::ExposureAgain });
            }
        }
    }
    let clicks = pair.click_firsts.iter();
    entries.extend(clicks.map(|(timestamp_ns, _)| Entry {
        timestamp_ns: *timestamp_ns,
        item,
        tag: Tag::Click,
    }));
    Some(())
}
