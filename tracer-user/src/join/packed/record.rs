//! A packed group: all that is remembered of one request id, in about 17 bytes an exposure.
//!
//! It begins with a head and goes on in a chain of further extents:
//!
//! | word of the head | what |
//! |---|---|
//! | 0, 1 | fingerprint of the request id |
//! | 2 | base: the time that its entries count from, in nanoseconds since the Unix epoch |
//! | 3 | the second extent (low half) and the last one (high half) |
//! | 4 | labels of the waiting request (32 bits), entries (8), flags (8), expiry bucket (16) |
//! | 5 | a bit for every item that has an entry: mostly tells that an item is new |
//! | 6.. | entries |
//!
//! A further extent begins with a word that leads to the next one. Entries are packed by four in seven
//! words: four item fingerprints, four times 32 bits and four times 16 bits. The 48 bits are the time
//! since the base in nanoseconds (44 bits, 4.8 hours) and what the entry is (4 bits).
//!
//! Entries are in no order that could be relied on: a late event leaves an earlier time behind a later
//! one.

use super::arena::{Arena, Class, Handle};
use crate::domain::TripleOutcome;
use crate::join::event::{ItemPrint, LabelsKey, RequestPrint};

/// Entries that a packed group can have. Past that, looking through them would take too long.
pub(in super::super) const MAX_ENTRIES: usize = 124;
/// Times from the base on that an entry can hold.
pub(in super::super) const MAX_SPAN_NS: u64 = (1 << TIME_BITS) - 1;
const TIME_BITS: u32 = 44;
const HEADER_WORDS: usize = 6;
const QUAD_WORDS: usize = 7;
const HEAD_ENTRIES: usize = 8;

const IS_LIVE: u8 = 1;
/// A new request was sighted at the base.
const HAS_REQUEST_AT_BASE: u8 = 2;
/// The request at the base waits for an exposure.
const REQUEST_WAITS: u8 = 4;
/// Some entries are sightings of the request.
const HAS_REQUEST_ENTRIES: u8 = 8;

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
}

impl Tag {
    const fn code(self) -> u64 {
        match self {
            Self::Request => 1,
            Self::RequestAgain => 2,
            Self::Exposure(TripleOutcome::Complete) => 3,
            Self::Exposure(TripleOutcome::Broken) => 4,
            Self::Exposure(TripleOutcome::Unseen) => 5,
            Self::ExposureAgain => 6,
            Self::Click => 7,
        }
    }

    const fn from_code(code: u64) -> Option<Self> {
        Some(match code {
            1 => Self::Request,
            2 => Self::RequestAgain,
            3 => Self::Exposure(TripleOutcome::Complete),
            4 => Self::Exposure(TripleOutcome::Broken),
            5 => Self::Exposure(TripleOutcome::Unseen),
            6 => Self::ExposureAgain,
            7 => Self::Click,
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

/// What a head says of its group.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Head {
    pub(in super::super) request: RequestPrint,
    pub(in super::super) base_ns: u64,
    items: u64,
    second: Handle,
    last: Handle,
    pub(in super::super) labels: LabelsKey,
    entries: u8,
    flags: u8,
    pub(in super::super) expiry_bucket: u16,
}

impl Head {
    fn read(words: &[u64]) -> Self {
        Self {
            request: RequestPrint([words[0], words[1]]),
            base_ns: words[2],
            second: Handle(words[3] as u32),
            last: Handle((words[3] >> 32) as u32),
            labels: LabelsKey(words[4] as u32),
            entries: (words[4] >> 32) as u8,
            flags: (words[4] >> 40) as u8,
            expiry_bucket: (words[4] >> 48) as u16,
            items: words[5],
        }
    }

    fn write(&self, words: &mut [u64]) {
        [words[0], words[1]] = self.request.0;
        words[2] = self.base_ns;
        words[3] = u64::from(self.second.0) | u64::from(self.last.0) << 32;
        words[4] = u64::from(self.labels.0)
            | u64::from(self.entries) << 32
            | u64::from(self.flags) << 40
            | u64::from(self.expiry_bucket) << 48;
        words[5] = self.items;
    }

    pub(in super::super) fn has_request_at_base(&self) -> bool {
        self.flags & HAS_REQUEST_AT_BASE != 0
    }

    pub(in super::super) fn request_waits(&self) -> bool {
        self.flags & REQUEST_WAITS != 0
    }

    pub(in super::super) fn stop_waiting(&mut self) {
        self.flags &= !REQUEST_WAITS;
    }

    pub(in super::super) fn has_request_entries(&self) -> bool {
        self.flags & HAS_REQUEST_ENTRIES != 0
    }

    /// `false` only when the item has no entry.
    pub(in super::super) fn may_have(&self, item: ItemPrint) -> bool {
        self.items & bit_of(item) != 0
    }

    pub(in super::super) fn is_full(&self) -> bool {
        usize::from(self.entries) >= MAX_ENTRIES
    }

    /// Whether an entry of this time can be added.
    pub(in super::super) fn can_hold(&self, timestamp_ns: u64) -> bool {
        !self.is_full()
            && timestamp_ns >= self.base_ns
            && timestamp_ns - self.base_ns <= MAX_SPAN_NS
    }
}

fn bit_of(item: ItemPrint) -> u64 {
    // The top bits are no better than others: a fingerprint is uniform.
    1 << (item.0 >> 58)
}

/// The class of the extent that begins with this entry, which is never in the head.
fn class_at(entry: usize) -> Class {
    if (20..28).contains(&entry) { Class::Four } else { Class::Twelve }
}

/// Entries in an extent after the head.
fn entries_of(class: Class) -> usize {
    if class == Class::Four { 4 } else { 12 }
}

/// The first entry of the extent that this entry is in.
fn start_of(entry: usize) -> usize {
    match entry {
        0..8 => 0,
        8..20 => 8,
        20..28 => entry / 4 * 4,
        _ => (entry - 28) / 12 * 12 + 28,
    }
}

impl Arena {
    /// A new packed group without entries.
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
        let head = Head {
            request,
            base_ns,
            items: 0,
            second: Handle::NONE,
            last: Handle::NONE,
            labels: waiting.unwrap_or(LabelsKey(0)),
            entries: 0,
            flags,
            expiry_bucket: 0,
        };
        self.set_head(handle, &head);
        handle
    }

    /// The head of the group at this place. Only for the handles of groups.
    pub(in super::super) fn head(&self, handle: Handle) -> Head {
        Head::read(self.get(handle, Class::Head))
    }

    /// The head at this place, if there is a group there now.
    pub(in super::super) fn head_if_live(&self, handle: Handle) -> Option<Head> {
        let head = self.is_place_of(handle, Class::Head).then(|| self.head(handle));
        head.filter(|head| head.flags & IS_LIVE != 0)
    }

    pub(in super::super) fn set_head(&mut self, handle: Handle, head: &Head) {
        head.write(self.get_mut(handle, Class::Head));
    }

    /// Reads a little of what is at this place, so that the processor fetches it. What it returns means
    /// nothing.
    pub(in super::super) fn look_at(&self, handle: Handle) -> u64 {
        let words = self.get(handle, Class::Head);
        words[0] ^ words[10] ^ words[19]
    }

    /// The fingerprint alone.
    pub(in super::super) fn request_of(&self, handle: Handle) -> RequestPrint {
        let words = self.get(handle, Class::Head);
        RequestPrint([words[0], words[1]])
    }

    /// Adds an entry, not before the base, and writes the head. `head` must be the group's, and able
    /// to hold it.
    pub(in super::super) fn add_entry(&mut self, handle: Handle, head: &mut Head, entry: Entry) {
        debug_assert!(head.can_hold(entry.timestamp_ns), "an entry that cannot be packed");
        let index = usize::from(head.entries);
        let start = start_of(index);
        let (extent, class, first_quad) = if start == 0 {
            (handle, Class::Head, HEADER_WORDS)
        } else {
            let class = class_at(start);
            if index == start {
                self.append_extent(head, class);
            }
            (head.last, class, 1)
        };
        let meta = (entry.timestamp_ns - head.base_ns) | entry.tag.code() << TIME_BITS;
        let words = self.get_mut(extent, class);
        let (quad, lane) = ((index - start) / 4, (index - start) % 4);
        let quad = &mut words[first_quad + quad * QUAD_WORDS..][..QUAD_WORDS];
        quad[lane] = entry.item.0;
        quad[4 + lane / 2] |= (meta & 0xffff_ffff) << (32 * (lane % 2));
        quad[6] |= (meta >> 32) << (16 * lane);
        head.entries += 1;
        if entry.item.is_missing() {
            head.flags |= HAS_REQUEST_ENTRIES;
        } else {
            head.items |= bit_of(entry.item);
        }
        self.set_head(handle, head);
    }

    /// Calls `visit` with every entry of this item, in the order of their addition.
    pub(in super::super) fn for_each_of(
        &self,
        handle: Handle,
        head: &Head,
        item: ItemPrint,
        mut visit: impl FnMut(u64, Tag),
    ) {
        self.walk(handle, head, |quad, used| {
            for lane in 0..used {
                if quad[lane] == item.0
                    && let Some(entry) = entry_in(quad, lane, head.base_ns)
                {
                    visit(entry.timestamp_ns, entry.tag);
                }
            }
        });
    }

    /// Every entry, in the order of their addition. A request at the base is the first.
    pub(in super::super) fn entries(&self, handle: Handle, head: &Head) -> Vec<Entry> {
        let mut entries = Vec::with_capacity(usize::from(head.entries) + 1);
        if head.has_request_at_base() {
            entries.push(Entry { timestamp_ns: head.base_ns, item: ItemPrint::MISSING, tag: Tag::Request });
        }
        self.walk(handle, head, |quad, used| {
            entries.extend((0..used).filter_map(|lane| entry_in(quad, lane, head.base_ns)));
        });
        entries
    }

    /// Gives the group's extents back.
    pub(in super::super) fn free_group(&mut self, handle: Handle) {
        let head = self.head(handle);
        let (mut extent, mut entry) = (head.second, HEAD_ENTRIES);
        while entry < usize::from(head.entries) {
            let class = class_at(entry);
            let next = Handle(self.get(extent, class)[0] as u32);
            self.free(extent, class);
            extent = next;
            entry += entries_of(class);
        }
        self.free(handle, Class::Head);
    }

    /// Whether the chain of a group leads through extents that are there, as it must. For state that
    /// was read from outside.
    pub(in super::super) fn is_sound(&self, head: &Head) -> bool {
        let (mut extent, mut entry) = (head.second, HEAD_ENTRIES);
        while entry < usize::from(head.entries) {
            let class = class_at(entry);
            if !self.is_place_of(extent, class) {
                return false;
            }
            entry += entries_of(class);
            if entry >= usize::from(head.entries) && head.last != extent {
                return false;
            }
            extent = Handle(self.get(extent, class)[0] as u32);
        }
        usize::from(head.entries) <= MAX_ENTRIES
    }

    fn append_extent(&mut self, head: &mut Head, class: Class) {
        let extent = self.allocate(class);
        if head.last == Handle::NONE {
            head.second = extent;
        } else {
            // The one before begins where the entry before the new one's first is.
            let before = class_at(start_of(usize::from(head.entries) - 1));
            self.get_mut(head.last, before)[0] = u64::from(extent.0);
        }
        head.last = extent;
    }

    /// Calls `visit` with every four entries, and how many of the four there are.
    fn walk(&self, handle: Handle, head: &Head, mut visit: impl FnMut(&[u64], usize)) {
        let entries = usize::from(head.entries);
        let mut quads = &self.get(handle, Class::Head)[HEADER_WORDS..];
        let (mut extent, mut entry) = (head.second, 0);
        loop {
            for quad in quads.chunks_exact(QUAD_WORDS) {
                if entry >= entries {
                    return;
                }
                visit(quad, (entries - entry).min(4));
                entry += 4;
            }
            if entry >= entries {
                return;
            }
            let words = self.get(extent, class_at(entry));
            extent = Handle(words[0] as u32);
            quads = &words[1..];
        }
    }
}

fn entry_in(quad: &[u64], lane: usize, base_ns: u64) -> Option<Entry> {
    let low = quad[4 + lane / 2] >> (32 * (lane % 2)) & 0xffff_ffff;
    let high = quad[6] >> (16 * lane) & 0xffff;
    let meta = low | high << 32;
    let timestamp_ns = base_ns + (meta & MAX_SPAN_NS);
    Some(Entry { timestamp_ns, item: ItemPrint(quad[lane]), tag: Tag::from_code(meta >> TIME_BITS)? })
}
