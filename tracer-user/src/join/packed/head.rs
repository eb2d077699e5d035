//! The head of a packed group, and which of its entries is where.
//!
//! | word of the head | what |
//! |---|---|
//! | 0, 1 | fingerprint of the request id |
//! | 2 | base: the time that its entries count from, in nanoseconds since the Unix epoch |
//! | 3, 4, half of 5 | extents of 18, 3, 3, 18 and 42 entries, 32 bits each |
//! | rest of 5 | until when it is kept, counted from the base |
//! | 6 | two bits for every item that has an entry: mostly tells that an item is new |
//! | 7 | labels of the request while it waits, and then a third bit for every item (32), entries (8), flags (8), expiry bucket (16) |

#![expect(clippy::cast_possible_truncation, reason = "the parts of a word are taken out of it")]

use std::borrow::{Borrow, BorrowMut};
use std::hint::select_unpredictable;

use super::arena::{Class, Handle};
use super::entry::{Entry, Tag};
use super::line::{LINE_ENTRIES, Line, MAX_SPAN_NS};
use crate::join::event::{ItemPrint, LabelsKey, RequestPrint};
use crate::join::time::wheel::NO_BUCKET;

/// Entries that a packed group can have. Past that, looking through them would take too long.
pub(in super::super) const MAX_ENTRIES: usize = 90;
/// The extents after the head: the first entry of each, and its class. With 20 items shown, which is common, the first has
/// room for the clicks and repetitions of most groups as well.
pub(super) const EXTENTS: [(usize, Class); 5] =
    [(6, Class::Three), (24, Class::Half), (27, Class::Half), (30, Class::Three), (48, Class::Seven)];

const IS_LIVE: u64 = 1;
/// A new request was sighted at the base.
const HAS_REQUEST_AT_BASE: u64 = 2;
/// The request at the base waits for an exposure.
const REQUEST_WAITS: u64 = 4;
/// Some entries are sightings of the request.
const HAS_REQUEST_ENTRIES: u64 = 8;
/// Some entries wait, or did.
const HAS_WAITED: u64 = 16;

/// The head of a group, read and changed where it is, or a copy of it.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Head<L = Line>(pub(super) L);

/// The word of the extents in which the last one is beside the time until which the group is kept.
const KEPT: usize = 5;
/// That time is counted in nanoseconds when it is shorter than this, 2 s, and in steps beside this bit when it is not.
const IN_STEPS: u64 = 1 << 31;
/// Such a step: 134 ms, so that there are enough of them for nine years.
pub(in super::super) const KEPT_STEP_NS: u64 = 1 << 27;
const NO_END: u64 = u32::MAX as u64;
/// Where the parts of [`ABOUT`] begin.
const ENTRIES_SHIFT: u32 = 32;
const FLAGS_SHIFT: u32 = 40;
const EXPIRY_SHIFT: u32 = 48;
const ABOUT: usize = 7;

impl Head {
    /// That of a group without entries, which is kept for no time yet.
    pub(super) fn new(
        request: RequestPrint,
        base_ns: u64,
        request_at_base: bool,
        waiting: Option<LabelsKey>,
    ) -> Self {
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
        Self(Line([first, second, base_ns, u64::MAX, u64::MAX, u64::from(u32::MAX), 0, about]))
    }
}

impl<L: Borrow<Line>> Head<L> {
    /// Whether this is a head: the place of one that is gone has none.
    pub(super) fn is_live(&self) -> bool {
        self.has(IS_LIVE)
    }

    fn word(&self, number: usize) -> u64 {
        self.0.borrow().0[number]
    }

    pub(in super::super) fn request(&self) -> RequestPrint {
        RequestPrint([self.word(0), self.word(1)])
    }

    pub(in super::super) fn base_ns(&self) -> u64 {
        self.word(2)
    }

    fn extents(&self) -> [Handle; EXTENTS.len()] {
        std::array::from_fn(|number| self.extent(number))
    }

    fn extent(&self, number: usize) -> Handle {
        Handle((self.word(3 + number / 2) >> (number % 2 * 32)) as u32)
    }

    /// Those of the request while it waits.
    pub(in super::super) fn labels(&self) -> LabelsKey {
        LabelsKey(self.word(ABOUT) as u32)
    }

    pub(super) fn entries(&self) -> usize {
        usize::from((self.word(ABOUT) >> ENTRIES_SHIFT) as u8)
    }

    fn has(&self, flag: u64) -> bool {
        self.word(ABOUT) >> FLAGS_SHIFT & flag != 0
    }

    pub(in super::super) fn expiry_bucket(&self) -> u16 {
        (self.word(ABOUT) >> EXPIRY_SHIFT) as u16
    }

    /// Until when it is kept; nothing of it is remembered after that. It may be up to [`KEPT_STEP_NS`] more than was asked for,
    /// and the end of time where there are not enough steps.
    pub(in super::super) fn kept_until_ns(&self) -> u64 {
        match self.word(KEPT) >> 32 {
            NO_END => u64::MAX,
            steps if steps & IN_STEPS != 0 => {
                self.base_ns().saturating_add((steps - IN_STEPS) * KEPT_STEP_NS)
            }
            nanoseconds => self.base_ns().saturating_add(nanoseconds),
        }
    }

    pub(in super::super) fn has_request_at_base(&self) -> bool {
        self.has(HAS_REQUEST_AT_BASE)
    }

    /// Where the next entry goes and its time since the base, if this is the head of a group of this request, that was sighted
    /// once, at the base, and if that is within `window_ns` before the entry.
    #[inline(always)]
    pub(super) fn after_its_only_request(
        &self,
        request: RequestPrint,
        timestamp_ns: u64,
        window_ns: u64,
    ) -> Option<(&'static EntryPlace, u64)> {
        // The place of a head that is gone has no flags.
        let flags = self.word(ABOUT) >> FLAGS_SHIFT;
        // Longer than any window when the entry is before the base.
        let since_base_ns = timestamp_ns.wrapping_sub(self.base_ns());
        if flags & (HAS_REQUEST_AT_BASE | HAS_REQUEST_ENTRIES) != HAS_REQUEST_AT_BASE
            || self.request() != request
            || since_base_ns > window_ns.min(MAX_SPAN_NS)
        {
            return None;
        }
        PLACES.get(self.entries()).map(|place| (place, since_base_ns))
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
            && self.word(ABOUT) & (third_bit_of(item) | REQUEST_WAITS << FLAGS_SHIFT) != 0
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
    pub(super) fn extents_in_use(&self) -> impl Iterator<Item = (Handle, Class)> + use<L> {
        let (extents, entries) = (self.extents(), self.entries());
        let in_use = EXTENTS.into_iter().zip(extents).take_while(move |((first, _), _)| *first < entries);
        in_use.map(|((_, class), extent)| (extent, class))
    }

    /// The extent of an entry. `handle` is where the head is.
    #[inline]
    pub(super) fn extent_of(&self, handle: Handle, place: &EntryPlace) -> Handle {
        // One in four is beside the head: too many and too few to be foreseen.
        select_unpredictable(place.is_beside_head, handle, self.extent(usize::from(place.extent)))
    }
}

impl<L: BorrowMut<Line>> Head<L> {
    fn word_mut(&mut self, number: usize) -> &mut u64 {
        &mut self.0.borrow_mut().0[number]
    }

    /// The request does not wait, or no longer. Its labels are gone then.
    pub(in super::super) fn stop_waiting(&mut self) {
        let about = self.word(ABOUT);
        if self.request_waits() {
            // Of the items so far it is not known which third bits they have.
            let third_bits = if self.entries() == 0 { 0 } else { u64::from(u32::MAX) };
            *self.word_mut(ABOUT) = about >> 32 << 32 & !(REQUEST_WAITS << FLAGS_SHIFT) | third_bits;
        }
    }

    pub(in super::super) fn set_expiry_bucket(&mut self, bucket: u16) {
        *self.word_mut(ABOUT) = self.word(ABOUT) << 16 >> 16 | u64::from(bucket) << EXPIRY_SHIFT;
    }

    /// Keeps the group until this time at least.
    #[inline(always)]
    pub(in super::super) fn keep_until(&mut self, until_ns: u64) {
        self.keep_for(until_ns.saturating_sub(self.base_ns()));
    }

    /// Keeps the group at least so long from its base on.
    #[inline(always)]
    fn keep_for(&mut self, since_base_ns: u64) {
        let kept = if since_base_ns < IN_STEPS {
            since_base_ns
        } else {
            (IN_STEPS + (since_base_ns - 1) / KEPT_STEP_NS + 1).min(NO_END)
        };
        let word = self.word(KEPT);
        *self.word_mut(KEPT) = word << 32 >> 32 | kept.max(word >> 32) << 32;
    }

    pub(super) fn set_extent(&mut self, number: usize, handle: Handle) {
        let shift = number % 2 * 32;
        let word = self.word_mut(3 + number / 2);
        *word = *word & !(u64::from(u32::MAX) << shift) | u64::from(handle.0) << shift;
    }

    /// There is one more entry, and the group is kept until `until_ns`. Returns where the entry goes; it is still to be put
    /// there. `handle` is where the head is.
    #[inline(always)]
    pub(super) fn add(
        &mut self,
        handle: Handle,
        Entry { timestamp_ns, item, tag }: Entry,
        until_ns: u64,
    ) -> NewEntry {
        let number = self.entries();
        let place = &PLACES[number];
        let flags = match tag {
            Tag::Request | Tag::RequestAgain => HAS_REQUEST_ENTRIES,
            Tag::ExposureWaits | Tag::ClickWaits => HAS_WAITED,
            _ => 0,
        };
        if flags != HAS_REQUEST_ENTRIES {
            *self.word_mut(6) |= bits_of(item);
            if !self.request_waits() {
                *self.word_mut(ABOUT) |= third_bit_of(item);
            }
        }
        *self.word_mut(ABOUT) = (self.word(ABOUT) | flags << FLAGS_SHIFT) + (1 << ENTRIES_SHIFT);
        self.keep_until(until_ns);
        let extent = self.extent_of(handle, place);
        NewEntry { number: number as u8, place, extent, since_base_ns: timestamp_ns - self.base_ns() }
    }

    /// There is one more exposure, the next entry is that of `place`, and the group is kept for `kept_ns` from its base on. The
    /// request no longer waits. Returns the labels of the request if it did, and the extent of the exposure.
    #[inline(always)]
    pub(super) fn add_exposure(
        &mut self,
        handle: Handle,
        place: &EntryPlace,
        item: ItemPrint,
        kept_ns: u64,
    ) -> (Option<LabelsKey>, Handle) {
        let waited = self.request_waits().then(|| self.labels());
        if waited.is_some() {
            self.stop_waiting();
        }
        *self.word_mut(ABOUT) = (self.word(ABOUT) | third_bit_of(item)) + (1 << ENTRIES_SHIFT);
        *self.word_mut(6) |= bits_of(item);
        self.keep_for(kept_ns);
        (waited, self.extent_of(handle, place))
    }
}

/// An entry that is counted and has to be put where it belongs.
pub(super) struct NewEntry {
    pub(super) number: u8,
    pub(super) place: &'static EntryPlace,
    /// There is none yet if the entry is the first of it.
    pub(super) extent: Handle,
    pub(super) since_base_ns: u64,
}

/// Where the entry of a number is.
#[derive(Debug, Clone, Copy)]
pub(super) struct EntryPlace {
    /// It is in the line beside the head, and in none of the extents after it.
    is_beside_head: bool,
    /// The extent after the head.
    pub(super) extent: u8,
    /// The line of that extent, or of the head's.
    pub(super) line: u8,
    /// The lane of that line, or of the half of it that the extent has.
    pub(super) lane: u8,
    /// It is the first of the extent.
    pub(super) is_first: bool,
}

pub(super) static PLACES: [EntryPlace; MAX_ENTRIES] = {
    let mut places =
        [EntryPlace { is_beside_head: true, extent: 0, line: 1, lane: 0, is_first: false }; MAX_ENTRIES];
    let mut number = 0;
    let mut extent = 0;
    while number < MAX_ENTRIES {
        if extent + 1 < EXTENTS.len() && number == EXTENTS[extent + 1].0 {
            extent += 1;
        }
        let first = EXTENTS[extent].0;
        if number < first {
            places[number].lane = number as u8;
        } else {
            let in_extent = number - first;
            places[number] = EntryPlace {
                is_beside_head: false,
                extent: extent as u8,
                line: (in_extent / LINE_ENTRIES) as u8,
                lane: (in_extent % LINE_ENTRIES) as u8,
                is_first: in_extent == 0,
            };
        }
        number += 1;
    }
    places
};

/// Two of 64 bits. With a third of 32, one of 35 new items is taken for a known one while 20 are added.
fn bits_of(item: ItemPrint) -> u64 {
    // The last bits are as good as any others: a fingerprint is uniform.
    1 << (item.0 % 64) | 1 << (item.0 / 64 % 64)
}

fn third_bit_of(item: ItemPrint) -> u64 {
    1 << (item.0 / 64 / 64 % 32)
}
