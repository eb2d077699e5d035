//! A packed group: all that is remembered of one request id, in about 17 bytes an exposure.
//!
//! It begins with a [head](super::head), a line of entries after it, and goes on in up to five further extents. An event
//! that adds an entry touches the head and one more line. Entries are in no order that could be relied on: a late event
//! leaves an earlier time behind a later one.

use std::borrow::Borrow;
use std::ops::Range;

use super::arena::{Arena, Class, Handle};
use super::entry::{Entry, Tag};
use super::head::{EXTENTS, EntryPlace, Head, MAX_ENTRIES, NewEntry, PLACES};
use super::line::{HALF_ENTRIES, LINE_ENTRIES, Line};
use crate::domain::TripleOutcome;
use crate::join::event::{ItemPrint, LabelsKey, RequestPrint};
use crate::join::prefetch::prefetch;

/// What a group was like that an exposure was added to.
pub(super) struct Added {
    /// Time between the request and the exposure.
    pub(super) since_base_ns: u64,
    /// Labels of the request at the base, if it waited.
    pub(super) waited: Option<LabelsKey>,
}

impl Arena {
    /// A new packed group without entries. It is remembered for no time yet.
    pub(in super::super) fn new_group(
        &mut self,
        request: RequestPrint,
        base_ns: u64,
        request_at_base: bool,
        waiting: Option<LabelsKey>,
    ) -> Handle {
        let handle = self.allocate(Class::Head);
        *self.line_mut(handle, 0) = Head::new(request, base_ns, request_at_base, waiting).0;
        handle
    }

    /// The head of the group at this place, as it is now. Only for the handles of groups.
    pub(in super::super) fn head(&self, handle: Handle) -> Head {
        Head(*self.line(handle, 0))
    }

    /// The head itself, to be changed.
    pub(in super::super) fn head_mut(&mut self, handle: Handle) -> Head<&mut Line> {
        Head(self.line_mut(handle, 0))
    }

    /// The head at this place, if there is a group there now.
    pub(in super::super) fn head_if_live(&self, handle: Handle) -> Option<Head> {
        self.live_head(handle).map(|Head(line)| Head(*line))
    }

    /// The same, if it is of this request id.
    pub(in super::super) fn head_if_of(&self, handle: Handle, request: RequestPrint) -> Option<Head> {
        let head = self.live_head(handle).filter(|head| head.request() == request);
        head.map(|Head(line)| Head(*line))
    }

    fn live_head(&self, handle: Handle) -> Option<Head<&Line>> {
        self.first_line_of(handle, Class::Head).map(Head).filter(Head::is_live)
    }

    /// Has the head at this place fetched. The place need not be a group's.
    pub(in super::super) fn prefetch_head(&self, handle: Handle) {
        prefetch(self.line(handle, 0));
    }

    /// Has fetched what an event of this item will touch: the line that the next entry comes into, and all that there
    /// are if the item may be known.
    #[inline]
    pub(in super::super) fn prefetch_entries(&self, handle: Handle, item: ItemPrint) {
        let Some(head) = self.live_head(handle) else { return };
        if head.may_have(item) {
            self.prefetch_all_entries(handle);
        } else if let Some(place) = PLACES.get(head.entries())
            && !place.is_first
        {
            let extent = head.extent_of(handle, place);
            prefetch(self.line(extent, usize::from(place.line)));
        }
    }

    #[inline(never)]
    fn prefetch_all_entries(&self, handle: Handle) {
        prefetch(self.line(handle, 1));
        for (extent, class) in self.head(handle).extents_in_use() {
            (0..class.lines()).for_each(|line| prefetch(self.line(extent, line)));
        }
    }

    /// Has fetched what of a group is written when it is given back, its head aside.
    pub(in super::super) fn prefetch_extents(&self, head: &Head) {
        for (extent, _) in head.extents_in_use() {
            prefetch(self.line(extent, 0));
        }
    }

    /// Adds an exposure to the group at this place, if that is a group of this request, has room for it and no entry of its item,
    /// and if the request was sighted once, first of all, and within `window_ns` before it. The request then waits no longer, and
    /// the exposure is remembered for `retention_ns`. Does nothing, also while the group is shared with a snapshot, and returns
    /// `None` otherwise.
    #[inline(always)]
    pub(super) fn add_exposure(
        &mut self,
        handle: Handle,
        request: RequestPrint,
        (timestamp_ns, item): (u64, ItemPrint),
        window_ns: u64,
        retention_ns: u64,
    ) -> Option<Added> {
        let mut head = self.own_first_line_of(handle, Class::Head).map(Head)?;
        let (place, since_base_ns) = head.after_its_only_request(request, timestamp_ns, window_ns)?;
        if head.may_have(item) {
            if self.has_entry_of(handle, item) {
                return None;
            }
            head = self.own_first_line_of(handle, Class::Head).map(Head)?;
        }
        let kept_ns = since_base_ns.saturating_add(retention_ns);
        let (waited, extent) = head.add_exposure(handle, place, item, kept_ns);
        let tag = Tag::Exposure(TripleOutcome::Complete);
        self.put(handle, place, extent, (item, tag, since_base_ns));
        Some(Added { since_base_ns, waited })
    }

    /// Adds an entry to a group that can hold it, and remembers the group until `until_ns`. Returns the number of the
    /// entry.
    #[inline(always)]
    pub(in super::super) fn add_entry(&mut self, handle: Handle, entry: Entry, until_ns: u64) -> u8 {
        let mut head = self.head_mut(handle);
        debug_assert!(head.can_hold(entry.timestamp_ns), "an entry that cannot be packed");
        let new = head.add(handle, entry, until_ns);
        let NewEntry { number, place, extent, since_base_ns } = new;
        self.put(handle, place, extent, (entry.item, entry.tag, since_base_ns));
        number
    }

    #[inline(always)]
    fn put(
        &mut self,
        handle: Handle,
        place: &EntryPlace,
        extent: Handle,
        (item, tag, since_base_ns): (ItemPrint, Tag, u64),
    ) {
        let extent = if place.is_first { self.add_extent(handle, place) } else { extent };
        let line = self.line_mut(extent, usize::from(place.line));
        line.put(lane_of(extent, place), item, tag, since_base_ns);
    }

    /// A new extent for an entry that is the first of one.
    #[cold]
    fn add_extent(&mut self, handle: Handle, place: &EntryPlace) -> Handle {
        let number = usize::from(place.extent);
        let extent = self.allocate(EXTENTS[number].1);
        self.head_mut(handle).set_extent(number, extent);
        extent
    }

    /// What an entry is.
    pub(in super::super) fn tag_of(&self, handle: Handle, entry: u8) -> Option<Tag> {
        let place = &PLACES[usize::from(entry)];
        let extent = self.head(handle).extent_of(handle, place);
        self.line(extent, usize::from(place.line)).entry(lane_of(extent, place)).map(|(tag, _)| tag)
    }

    /// The item of an entry, which is made to be something else from now on.
    pub(in super::super) fn set_tag(&mut self, handle: Handle, entry: u8, tag: Tag) -> ItemPrint {
        let place = &PLACES[usize::from(entry)];
        let extent = self.head(handle).extent_of(handle, place);
        let line = self.line_mut(extent, usize::from(place.line));
        let lane = lane_of(extent, place);
        line.set_tag(lane, tag);
        line.item(lane)
    }

    /// Calls `visit` with every entry of this item, in the order of their addition.
    pub(in super::super) fn for_each_of(
        &self,
        handle: Handle,
        item: ItemPrint,
        mut visit: impl FnMut(u64, Tag),
    ) {
        let head = self.head(handle);
        self.walk(handle, &head, |line, lanes| {
            let mut found = line.lanes_of(item) & ((1 << lanes.end) - (1 << lanes.start));
            while found != 0 {
                if let Some((tag, since_base_ns)) = line.entry(found.trailing_zeros() as usize) {
                    visit(head.base_ns() + since_base_ns, tag);
                }
                found &= found - 1;
            }
        });
    }

    /// Whether this item has an entry.
    #[inline(never)]
    fn has_entry_of(&self, handle: Handle, item: ItemPrint) -> bool {
        let mut found = 0;
        self.walk(handle, &Head(self.line(handle, 0)), |line, lanes| {
            found |= line.lanes_of(item) & ((1 << lanes.end) - (1 << lanes.start));
        });
        found != 0
    }

    /// Every entry, in the order of their addition. A request at the base is the first.
    pub(in super::super) fn entries(&self, handle: Handle) -> Vec<Entry> {
        let head = self.head(handle);
        let mut entries = Vec::with_capacity(head.entries() + 1);
        if head.has_request_at_base() {
            entries.push(Entry { timestamp_ns: head.base_ns(), item: ItemPrint::MISSING, tag: Tag::Request });
        }
        self.walk(handle, &head, |line, lanes| {
            entries.extend(lanes.filter_map(|lane| {
                let (tag, since_base_ns) = line.entry(lane)?;
                let timestamp_ns = head.base_ns().saturating_add(since_base_ns);
                Some(Entry { timestamp_ns, item: line.item(lane), tag })
            }));
        });
        entries
    }

    /// Gives the group's extents back.
    pub(in super::super) fn free_group(&mut self, handle: Handle) {
        for (extent, class) in self.head(handle).extents_in_use() {
            self.free(extent, class);
        }
        *self.line_mut(handle, 0) = Line::ZERO;
        self.free(handle, Class::Head);
    }

    /// Whether a group leads to extents that are there, and every entry is something. For state that was read
    /// from outside.
    pub(in super::super) fn is_sound(&self, handle: Handle) -> bool {
        let head = self.head(handle);
        head.entries() <= MAX_ENTRIES
            && head.extents_in_use().all(|(extent, class)| self.is_place_of(extent, class))
            && self.entries(handle).len() == head.entries() + usize::from(head.has_request_at_base())
    }

    /// Calls `visit` with every line that has entries of the group, and their lanes.
    fn walk<L: Borrow<Line>>(
        &self,
        handle: Handle,
        head: &Head<L>,
        mut visit: impl FnMut(&Line, Range<usize>),
    ) {
        let mut left = head.entries();
        let mut visit_all = |lines: &[Line], lanes: Range<usize>| {
            for line in lines {
                if left == 0 {
                    return;
                }
                let used = lanes.len().min(left);
                visit(line, lanes.start..lanes.start + used);
                left -= used;
            }
        };
        visit_all(&self.lines(handle, Class::Head)[1..], 0..LINE_ENTRIES);
        for (extent, class) in head.extents_in_use() {
            let entries = if class == Class::Half { HALF_ENTRIES } else { LINE_ENTRIES };
            let first = HALF_ENTRIES * extent.half();
            visit_all(self.lines(extent, class), first..first + entries);
        }
    }
}

/// The lane of an entry within its line.
#[inline]
fn lane_of(extent: Handle, place: &EntryPlace) -> usize {
    usize::from(place.lane) + HALF_ENTRIES * extent.half()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::TripleOutcome;
    use crate::join::Fingerprinter;

    /// Entries of the group of a number; each is different from all others.
    fn entry(group: usize, number: usize) -> Entry {
        let item = ItemPrint((group * 1000 + number + 1) as u64);
        let tags = [Tag::Exposure(TripleOutcome::Complete), Tag::ClickWaits, Tag::ExposureAgain, Tag::Click];
        Entry { timestamp_ns: 1_000_000 + (group + number * 37) as u64, item, tag: tags[number % tags.len()] }
    }

    /// Groups of any number of entries that grow side by side, so that extents of theirs share lines, while others go.
    #[test]
    fn groups_keep_their_entries_whatever_shares_lines_with_them_and_whatever_was_there_before() {
        let prints = Fingerprinter::random();
        let mut arena = Arena::default();
        let mut groups: Vec<(usize, Handle, usize)> = Vec::new();
        for round in 0..400_usize {
            let request = prints.request(&round.to_string());
            groups.push((round, arena.new_group(request, 1_000_000, false, None), 0));
            let mut position = 0;
            groups.retain_mut(|(group, handle, entries)| {
                position += 1;
                let is_full = arena.head(*handle).is_full();
                assert_eq!(is_full, *entries == MAX_ENTRIES);
                if is_full || (round + position).is_multiple_of(53) {
                    arena.free_group(*handle);
                    return false;
                }
                let number = arena.add_entry(*handle, entry(*group, *entries), 2_000_000);
                assert_eq!(usize::from(number), *entries);
                *entries += 1;
                true
            });
            for (group, handle, entries) in &groups {
                let expected: Vec<Entry> = (0..*entries).map(|number| entry(*group, number)).collect();
                assert_eq!(arena.entries(*handle), expected, "group {group} in round {round}");
                assert!(arena.is_sound(*handle));
            }
        }
        let longest = groups.iter().map(|(.., entries)| *entries).max();
        assert!(longest > Some(40), "no group has come to its last extent: {longest:?}");
        for (group, handle, entries) in &groups {
            for (number, entry) in (0_u8..).zip((0..*entries).map(|number| entry(*group, number))) {
                let Entry { item, tag, timestamp_ns } = entry;
                assert_eq!(arena.tag_of(*handle, number), Some(tag));
                let mut found = Vec::new();
                arena.for_each_of(*handle, item, |seen_ns, tag| found.push((seen_ns, tag)));
                assert_eq!(found, [(timestamp_ns, tag)]);
                assert_eq!(arena.set_tag(*handle, number, Tag::RequestAgain), item);
                assert_eq!(arena.tag_of(*handle, number), Some(Tag::RequestAgain));
            }
            arena.free_group(*handle);
        }
        assert_eq!(arena.places(Class::Head).count() + arena.places(Class::Half).count(), 0);
    }

    #[test]
    fn a_group_is_kept_as_long_as_was_asked_and_hardly_longer() {
        let mut arena = Arena::default();
        let base_ns = 1_700_000_000_000_000_000;
        let handle = arena.new_group(Fingerprinter::random().request("r"), base_ns, false, None);
        assert_eq!(arena.head(handle).kept_until_ns(), base_ns);
        let mut asked_ns = base_ns;
        for (asked_for_ns, most_ns) in [
            (0, 0),
            (5, 0),
            (3, 0),
            ((1 << 31) - 1, 0),
            (1 << 31, 1 << 27),
            (1_800_000_000_001, 1 << 27),
            (7, 1 << 27),
        ] {
            asked_ns = asked_ns.max(base_ns + asked_for_ns);
            arena.head_mut(handle).keep_until(base_ns + asked_for_ns);
            let kept_ns = arena.head(handle).kept_until_ns();
            assert!((asked_ns..=asked_ns + most_ns).contains(&kept_ns), "{asked_for_ns}: {kept_ns}");
        }
        arena.head_mut(handle).keep_until(u64::MAX);
        assert_eq!(arena.head(handle).kept_until_ns(), u64::MAX);
        arena.head_mut(handle).keep_until(base_ns + 1);
        assert_eq!(arena.head(handle).kept_until_ns(), u64::MAX);
    }
}
