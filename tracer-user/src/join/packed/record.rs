//! A packed group: all that is remembered of one request id, in about 17 bytes an exposure.
//!
//! It begins with a head, a line of entries after it, and goes on in up to four further extents:
//!
//! | word of the head | what |
//! |---|---|
//! | 0, 1 | fingerprint of the request id |
//! | 2 | base: the time that its entries count from, in nanoseconds since the Unix epoch |
//! | 3, 4 | four extents of 15, 5, 15 and 35 entries, 32 bits each |
//! | 5 | labels of the waiting request (32 bits), entries (8), flags (8), expiry bucket (16) |
//! | 6 | two bits for every item that has an entry: mostly tells that an item is new |
//! | 7 | until when something of it is remembered, in nanoseconds since the Unix epoch |
//!
//! An event that adds an entry touches the head and one more line. Entries are in no order that could
//! be relied on: a late event leaves an earlier time behind a later one.

#![expect(clippy::cast_possible_truncation, reason = "the parts of a word are taken out of it")]

use std::borrow::{Borrow, BorrowMut};
use std::hint::select_unpredictable;

use super::arena::{Arena, Class, Handle};
use super::line::{LINE_ENTRIES, Line, MAX_SPAN_NS};
use crate::domain::TripleOutcome;
use crate::join::event::{ItemPrint, LabelsKey, RequestPrint};
use crate::join::prefetch::prefetch;
use crate::join::time::wheel::NO_BUCKET;

/// Entries that a packed group can have. Past that, looking through them would take too long.
pub(in super::super) const MAX_ENTRIES: usize = 75;
/// The extents after the head: the first entry of each, and its class.
const EXTENTS: [(usize, Class); 4] =
    [(5, Class::Three), (20, Class::One), (25, Class::Three), (40, Class::Seven)];

const IS_LIVE: u64 = 1;
/// A new request was sighted at the base.
const HAS_REQUEST_AT_BASE: u64 = 2;
/// The request at the base waits for an exposure.
const REQUEST_WAITS: u64 = 4;
/// Some entries are sightings of the request.
const HAS_REQUEST_ENTRIES: u64 = 8;
/// Some entries wait, or did.
const HAS_WAITED: u64 = 16;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Tag {
    /// A new request.
    Request,
    /// A repeated one.
    RequestAgain,
    /// A new exposure, and what it makes of the triple of a click that is linked to it. A packed group
    /// has at most one for each item.
    Exposure(TripleOutcome),
    /// A repeated one: it belongs to the exposure of its item.
    ExposureAgain,
    /// A new click.
    Click,
    /// A new exposure that waits for its request. A packed group has this in place of the first.
    ExposureWaits,
    /// A new click that waits for its exposure.
    ClickWaits,
}

impl Tag {
    pub(super) const fn code(self) -> u64 {
        match self {
            Self::Request => 1,
            Self::RequestAgain => 2,
            // 3 to 5.
            Self::Exposure(outcome) => 3 + outcome as u64,
            Self::ExposureAgain => 6,
            Self::Click => 7,
            Self::ExposureWaits => 8,
            Self::ClickWaits => 9,
        }
    }

    pub(super) const fn from_code(code: u64) -> Option<Self> {
        Some(match code {
            1 => Self::Request,
            2 => Self::RequestAgain,
            3 => Self::Exposure(TripleOutcome::Complete),
            4 => Self::Exposure(TripleOutcome::Broken),
            5 => Self::Exposure(TripleOutcome::Unseen),
            6 => Self::ExposureAgain,
            7 => Self::Click,
            8 => Self::ExposureWaits,
            9 => Self::ClickWaits,
            _ => return None,
        })
    }
}

/// One thing that is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Entry {
    pub(in super::super) timestamp_ns: u64,
    /// Missing on sightings of the request.
    pub(in super::super) item: ItemPrint,
    pub(in super::super) tag: Tag,
}

/// What a group was like that an exposure was added to.
pub(super) struct Added {
    pub(super) base_ns: u64,
    /// Labels of the request at the base, if it waited.
    pub(super) waited: Option<LabelsKey>,
}

/// The head of a group, read and changed where it is, or a copy of it.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Head<L = Line>(L);

/// Where the parts of word 5 begin.
const ENTRIES_SHIFT: u32 = 32;
const FLAGS_SHIFT: u32 = 40;
const EXPIRY_SHIFT: u32 = 48;

impl<L: Borrow<Line>> Head<L> {
    fn word(&self, number: usize) -> u64 {
        self.0.borrow().0[number]
    }

    pub(in super::super) fn request(&self) -> RequestPrint {
        RequestPrint([self.word(0), self.word(1)])
    }

    pub(in super::super) fn base_ns(&self) -> u64 {
        self.word(2)
    }

    fn extents(&self) -> [Handle; 4] {
        let [[first, second], [third, fourth]] = [halves(self.word(3)), halves(self.word(4))];
        [first, second, third, fourth].map(Handle)
    }

    fn extent(&self, number: usize) -> Handle {
        Handle((self.word(3 + number / 2) >> (number % 2 * 32)) as u32)
    }

    /// Those of the request while it waits.
    pub(in super::super) fn labels(&self) -> LabelsKey {
        LabelsKey(self.word(5) as u32)
    }

    fn entries(&self) -> usize {
        usize::from((self.word(5) >> ENTRIES_SHIFT) as u8)
    }

    fn has(&self, flag: u64) -> bool {
        self.word(5) >> FLAGS_SHIFT & flag != 0
    }

    pub(in super::super) fn expiry_bucket(&self) -> u16 {
        (self.word(5) >> EXPIRY_SHIFT) as u16
    }

    /// The last time at which something of it is remembered.
    pub(in super::super) fn alive_until_ns(&self) -> u64 {
        self.word(7)
    }

    pub(in super::super) fn has_request_at_base(&self) -> bool {
        self.has(HAS_REQUEST_AT_BASE)
    }

    pub(in super::super) fn begins_with_its_only_request(&self) -> bool {
        let flags = self.word(5) >> FLAGS_SHIFT;
        flags & (HAS_REQUEST_AT_BASE | HAS_REQUEST_ENTRIES) == HAS_REQUEST_AT_BASE
    }

    pub(in super::super) fn request_waits(&self) -> bool {
        self.has(REQUEST_WAITS)
    }

    pub(in super::super) fn has_request_entries(&self) -> bool {
        self.has(HAS_REQUEST_ENTRIES)
    }

    /// `false` only when no entry waits.
    pub(in super::super) fn may_wait(&self) -> bool {
        self.has(HAS_WAITED)
    }

    /// `false` only when the item has no entry.
    pub(in super::super) fn may_have(&self, item: ItemPrint) -> bool {
        let bits = bits_of(item);
        self.word(6) & bits == bits
    }

    pub(in super::super) fn is_full(&self) -> bool {
        self.entries() >= MAX_ENTRIES
    }

    /// Whether an entry of this time can be added.
    pub(in super::super) fn can_hold(&self, timestamp_ns: u64) -> bool {
        let since_base_ns = timestamp_ns.checked_sub(self.base_ns());
        !self.is_full() && since_base_ns.is_some_and(|since_base_ns| since_base_ns <= MAX_SPAN_NS)
    }

    /// The extents after the head that have entries.
    fn extents_in_use(&self) -> impl Iterator<Item = (Handle, Class)> + use<L> {
        let (extents, entries) = (self.extents(), self.entries());
        let in_use = EXTENTS.into_iter().zip(extents).take_while(move |((first, _), _)| *first < entries);
        in_use.map(|((_, class), extent)| (extent, class))
    }

    /// The extent and the line of an entry. `handle` is where the head is.
    #[inline]
    fn line_of(&self, handle: Handle, place: EntryPlace) -> (Handle, usize) {
        // One in four is beside the head: too many and too few to be foreseen.
        let extent =
            select_unpredictable(place.is_beside_head, handle, self.extent(usize::from(place.extent)));
        (extent, usize::from(place.line))
    }
}

impl<L: BorrowMut<Line>> Head<L> {
    fn word_mut(&mut self, number: usize) -> &mut u64 {
        &mut self.0.borrow_mut().0[number]
    }

    pub(in super::super) fn stop_waiting(&mut self) {
        *self.word_mut(5) &= !(REQUEST_WAITS << FLAGS_SHIFT);
    }

    pub(in super::super) fn set_expiry_bucket(&mut self, bucket: u16) {
        *self.word_mut(5) = self.word(5) << 16 >> 16 | u64::from(bucket) << EXPIRY_SHIFT;
    }

    pub(in super::super) fn keep_alive(&mut self, until_ns: u64) {
        *self.word_mut(7) = until_ns.max(self.word(7));
    }

    fn set_extent(&mut self, number: usize, handle: Handle) {
        let shift = number % 2 * 32;
        let word = self.word_mut(3 + number / 2);
        *word = *word & !(u64::from(u32::MAX) << shift) | u64::from(handle.0) << shift;
    }

    /// There is one more entry.
    #[inline(always)]
    fn count(&mut self, Entry { item, tag, .. }: Entry) {
        let flags = match tag {
            Tag::Request | Tag::RequestAgain => HAS_REQUEST_ENTRIES,
            Tag::ExposureWaits | Tag::ClickWaits => HAS_WAITED,
            _ => 0,
        };
        if flags != HAS_REQUEST_ENTRIES {
            *self.word_mut(6) |= bits_of(item);
        }
        *self.word_mut(5) = (self.word(5) | flags << FLAGS_SHIFT) + (1 << ENTRIES_SHIFT);
    }
}

/// Where the entry of a number is.
#[derive(Debug, Clone, Copy)]
struct EntryPlace {
    /// It is in the line beside the head, and in none of the extents after it.
    is_beside_head: bool,
    /// The extent after the head.
    extent: u8,
    /// The line of that extent, or of the head's.
    line: u8,
    lane: u8,
    /// It is the first of the extent.
    is_first: bool,
}

const PLACES: [EntryPlace; MAX_ENTRIES] = {
    let mut places =
        [EntryPlace { is_beside_head: true, extent: 0, line: 1, lane: 0, is_first: false }; MAX_ENTRIES];
    let mut number = 0;
    let mut extent = 0;
    while number < MAX_ENTRIES {
        places[number].lane = (number % LINE_ENTRIES) as u8;
        if extent + 1 < EXTENTS.len() && number == EXTENTS[extent + 1].0 {
            extent += 1;
        }
        let first = EXTENTS[extent].0;
        if number >= first {
            places[number].is_beside_head = false;
            places[number].extent = extent as u8;
            places[number].line = ((number - first) / LINE_ENTRIES) as u8;
            places[number].is_first = number == first;
        }
        number += 1;
    }
    places
};

fn halves(word: u64) -> [u32; 2] {
    [word as u32, (word >> 32) as u32]
}

/// Two bits, which come close to what is best for 20 items.
fn bits_of(item: ItemPrint) -> u64 {
    // The last bits are as good as any others: a fingerprint is uniform.
    1 << (item.0 % 64) | 1 << (item.0 / 64 % 64)
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
        let mut flags = IS_LIVE;
        if request_at_base {
            flags |= HAS_REQUEST_AT_BASE;
        }
        if waiting.is_some() {
            flags |= REQUEST_WAITS;
        }
        let labels = waiting.unwrap_or(LabelsKey(0));
        let about = u64::from(labels.0) | flags << FLAGS_SHIFT | u64::from(NO_BUCKET) << EXPIRY_SHIFT;
        let [first, second] = request.0;
        *self.line_mut(handle, 0) = Line([first, second, base_ns, u64::MAX, u64::MAX, about, 0, 0]);
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
        self.first_line_of(handle, Class::Head).map(Head).filter(|head| head.has(IS_LIVE))
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
            let (extent, line) = head.line_of(handle, *place);
            prefetch(self.line(extent, line));
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

    /// Adds an exposure to the group at this place and remembers it until `until_ns`, if it is of this request id, can hold
    /// the entry, and `is_wanted` says so of its head. The request at its base then waits no longer. Does nothing, also
    /// while the group is shared with a snapshot, and returns `None` otherwise.
    #[inline(always)]
    pub(super) fn add_exposure(
        &mut self,
        handle: Handle,
        request: RequestPrint,
        entry: Entry,
        until_ns: u64,
        is_wanted: impl FnOnce(&Head<&mut Line>) -> bool,
    ) -> Option<Added> {
        let mut head = self.own_first_line_of(handle, Class::Head).map(Head)?;
        if !head.has(IS_LIVE)
            || head.request() != request
            || !head.can_hold(entry.timestamp_ns)
            || !is_wanted(&head)
        {
            return None;
        }
        let waited = head.request_waits().then(|| head.labels());
        head.stop_waiting();
        let place = PLACES[head.entries()];
        head.count(entry);
        head.keep_alive(until_ns);
        let base_ns = head.base_ns();
        let (extent, line) =
            if place.is_first { (self.add_extent(handle, place), 0) } else { head.line_of(handle, place) };
        let since_base_ns = entry.timestamp_ns - base_ns;
        self.line_mut(extent, line).put(usize::from(place.lane), entry.item, entry.tag, since_base_ns);
        Some(Added { base_ns, waited })
    }

    /// Adds an entry to a group that can hold it, and remembers the group until `until_ns`. Returns the number of the
    /// entry.
    #[inline(always)]
    pub(in super::super) fn add_entry(&mut self, handle: Handle, entry: Entry, until_ns: u64) -> u8 {
        let mut head = self.head_mut(handle);
        debug_assert!(head.can_hold(entry.timestamp_ns), "an entry that cannot be packed");
        let number = head.entries();
        let place = PLACES[number];
        head.count(entry);
        head.keep_alive(until_ns);
        let since_base_ns = entry.timestamp_ns - head.base_ns();
        let (extent, line) =
            if place.is_first { (self.add_extent(handle, place), 0) } else { head.line_of(handle, place) };
        self.line_mut(extent, line).put(usize::from(place.lane), entry.item, entry.tag, since_base_ns);
        number as u8
    }

    /// A new extent for an entry that is the first of one.
    #[cold]
    fn add_extent(&mut self, handle: Handle, place: EntryPlace) -> Handle {
        let number = usize::from(place.extent);
        let extent = self.allocate(EXTENTS[number].1);
        self.head_mut(handle).set_extent(number, extent);
        extent
    }

    /// What an entry is.
    pub(in super::super) fn tag_of(&self, handle: Handle, entry: u8) -> Option<Tag> {
        let place = PLACES[usize::from(entry)];
        let (extent, line) = self.head(handle).line_of(handle, place);
        self.line(extent, line).entry(usize::from(place.lane)).map(|(tag, _)| tag)
    }

    /// The item of an entry, which is made to be something else from now on.
    pub(in super::super) fn set_tag(&mut self, handle: Handle, entry: u8, tag: Tag) -> ItemPrint {
        let place = PLACES[usize::from(entry)];
        let (extent, line) = self.head(handle).line_of(handle, place);
        let line = self.line_mut(extent, line);
        line.set_tag(usize::from(place.lane), tag);
        line.item(usize::from(place.lane))
    }

    /// Calls `visit` with every entry of this item, in the order of their addition.
    pub(in super::super) fn for_each_of(
        &self,
        handle: Handle,
        item: ItemPrint,
        mut visit: impl FnMut(u64, Tag),
    ) {
        let head = self.head(handle);
        self.walk(handle, &head, |line, used| {
            for lane in (0..used).filter(|lane| line.item(*lane) == item) {
                if let Some((tag, since_base_ns)) = line.entry(lane) {
                    visit(head.base_ns() + since_base_ns, tag);
                }
            }
        });
    }

    /// Every entry, in the order of their addition. A request at the base is the first.
    pub(in super::super) fn entries(&self, handle: Handle) -> Vec<Entry> {
        let head = self.head(handle);
        let mut entries = Vec::with_capacity(head.entries() + 1);
        if head.has_request_at_base() {
            entries.push(Entry { timestamp_ns: head.base_ns(), item: ItemPrint::MISSING, tag: Tag::Request });
        }
        self.walk(handle, &head, |line, used| {
            entries.extend((0..used).filter_map(|lane| {
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

    /// Calls `visit` with every line of entries, and how many there are in it.
    fn walk(&self, handle: Handle, head: &Head, mut visit: impl FnMut(&Line, usize)) {
        let mut left = head.entries();
        let mut visit_all = |lines: &[Line]| {
            for line in lines {
                if left == 0 {
                    return;
                }
                visit(line, left.min(LINE_ENTRIES));
                left = left.saturating_sub(LINE_ENTRIES);
            }
        };
        visit_all(&self.lines(handle, Class::Head)[1..]);
        for (extent, class) in head.extents_in_use() {
            visit_all(self.lines(extent, class));
        }
    }
}
