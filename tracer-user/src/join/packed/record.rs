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
//! | 6 | a bit for every item that has an entry: mostly tells that an item is new |
//! | 7 | until when something of it is remembered, in nanoseconds since the Unix epoch |
//!
//! An event that adds an entry touches the head and one more line. Entries are in no order that could
//! be relied on: a late event leaves an earlier time behind a later one.

#![expect(clippy::cast_possible_truncation, reason = "the parts of a word are taken out of it")]

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

const IS_LIVE: u8 = 1;
/// A new request was sighted at the base.
const HAS_REQUEST_AT_BASE: u8 = 2;
/// The request at the base waits for an exposure.
const REQUEST_WAITS: u8 = 4;
/// Some entries are sightings of the request.
const HAS_REQUEST_ENTRIES: u8 = 8;
/// Some entries wait, or did.
const HAS_WAITED: u8 = 16;

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
            Self::Exposure(TripleOutcome::Complete) => 3,
            Self::Exposure(TripleOutcome::Broken) => 4,
            Self::Exposure(TripleOutcome::Unseen) => 5,
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

/// What a head says of its group.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Head {
    pub(in super::super) request: RequestPrint,
    pub(in super::super) base_ns: u64,
    items: u64,
    extents: [Handle; 4],
    pub(in super::super) labels: LabelsKey,
    entries: u8,
    flags: u8,
    pub(in super::super) expiry_bucket: u16,
    /// The last time at which something of it is remembered.
    pub(in super::super) alive_until_ns: u64,
}

impl Head {
    fn read(Line(words): &Line) -> Self {
        let [low_3, high_3] = halves(words[3]);
        let [low_4, high_4] = halves(words[4]);
        Self {
            request: RequestPrint([words[0], words[1]]),
            base_ns: words[2],
            extents: [low_3, high_3, low_4, high_4].map(Handle),
            labels: LabelsKey(words[5] as u32),
            entries: (words[5] >> 32) as u8,
            flags: (words[5] >> 40) as u8,
            expiry_bucket: (words[5] >> 48) as u16,
            items: words[6],
            alive_until_ns: words[7],
        }
    }

    fn to_line(self) -> Line {
        let [first, second, third, fourth] = self.extents.map(|handle| u64::from(handle.0));
        Line([
            self.request.0[0],
            self.request.0[1],
            self.base_ns,
            first | second << 32,
            third | fourth << 32,
            u64::from(self.labels.0)
                | u64::from(self.entries) << 32
                | u64::from(self.flags) << 40
                | u64::from(self.expiry_bucket) << 48,
            self.items,
            self.alive_until_ns,
        ])
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

    /// `false` only when no entry waits.
    pub(in super::super) fn may_wait(&self) -> bool {
        self.flags & HAS_WAITED != 0
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
        !self.is_full() && timestamp_ns >= self.base_ns && timestamp_ns - self.base_ns <= MAX_SPAN_NS
    }
}

fn halves(word: u64) -> [u32; 2] {
    [word as u32, (word >> 32) as u32]
}

fn bit_of(item: ItemPrint) -> u64 {
    // The last bits are as good as any others: a fingerprint is uniform.
    1 << (item.0 % 64)
}

/// The extent that this entry is in, and the first entry of it. Not for those beside the head.
fn extent_of(entry: usize) -> usize {
    match entry {
        ..20 => 0,
        20..25 => 1,
        25..40 => 2,
        _ => 3,
    }
}

impl Arena {
    /// A place for a new packed group without entries. The head is not written yet.
    pub(in super::super) fn new_group(
        &mut self,
        request: RequestPrint,
        base_ns: u64,
        request_at_base: bool,
        waiting: Option<LabelsKey>,
    ) -> (Handle, Head) {
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
            extents: [Handle::NONE; 4],
            labels: waiting.unwrap_or(LabelsKey(0)),
            entries: 0,
            flags,
            expiry_bucket: NO_BUCKET,
            alive_until_ns: 0,
        };
        (handle, head)
    }

    /// The head of the group at this place. Only for the handles of groups.
    pub(in super::super) fn head(&self, handle: Handle) -> Head {
        Head::read(&self.get(handle, Class::Head)[0])
    }

    /// The head at this place, if there is a group there now.
    pub(in super::super) fn head_if_live(&self, handle: Handle) -> Option<Head> {
        let head = self.is_place_of(handle, Class::Head).then(|| self.head(handle));
        head.filter(|head| head.flags & IS_LIVE != 0)
    }

    pub(in super::super) fn set_head(&mut self, handle: Handle, head: &Head) {
        self.get_mut(handle, Class::Head)[0] = head.to_line();
    }

    /// Has the head at this place fetched, and the line of entries beside it. The place need not be a group's.
    pub(in super::super) fn prefetch_head(&self, handle: Handle) {
        if self.is_place_of(handle, Class::Head) {
            self.get(handle, Class::Head).iter().for_each(prefetch);
        }
    }

    /// Has fetched what an event of this item will touch: the line that the next entry comes into, and all that there
    /// are if the item may be known.
    pub(in super::super) fn prefetch_entries(&self, handle: Handle, head: &Head, item: ItemPrint) {
        if head.may_have(item) {
            for (extent, class) in head.extents_in_use() {
                self.get(extent, class).iter().for_each(prefetch);
            }
        } else if let Some((extent, class, line)) = head.line_of(handle, usize::from(head.entries))
            && extent != Handle::NONE
        {
            prefetch(&self.get(extent, class)[line]);
        }
    }

    /// Has fetched what of a group is written when it is given back, its head aside.
    pub(in super::super) fn prefetch_extents(&self, head: &Head) {
        for (extent, class) in head.extents_in_use() {
            prefetch(&self.get(extent, class)[0]);
        }
    }

    /// The fingerprint alone.
    pub(in super::super) fn request_of(&self, handle: Handle) -> RequestPrint {
        let Line(words) = &self.get(handle, Class::Head)[0];
        RequestPrint([words[0], words[1]])
    }

    /// Adds an entry, which is remembered until `until_ns`, and writes the head. `head` must be the
    /// group's, and able to hold it. Returns the number of the entry.
    pub(in super::super) fn add_entry(
        &mut self,
        handle: Handle,
        head: &mut Head,
        entry: Entry,
        until_ns: u64,
    ) -> u8 {
        debug_assert!(head.can_hold(entry.timestamp_ns), "an entry that cannot be packed");
        let index = usize::from(head.entries);
        if let Some(number) = EXTENTS.iter().position(|(first, _)| *first == index) {
            head.extents[number] = self.allocate(EXTENTS[number].1);
        }
        let Some((extent, class, line)) = head.line_of(handle, index) else { return head.entries };
        let since_base_ns = entry.timestamp_ns - head.base_ns;
        self.get_mut(extent, class)[line].put(index % LINE_ENTRIES, entry.item, entry.tag, since_base_ns);
        head.entries += 1;
        head.alive_until_ns = head.alive_until_ns.max(until_ns);
        if matches!(entry.tag, Tag::ExposureWaits | Tag::ClickWaits) {
            head.flags |= HAS_WAITED;
        }
        if entry.item.is_missing() {
            head.flags |= HAS_REQUEST_ENTRIES;
        } else {
            head.items |= bit_of(entry.item);
        }
        self.set_head(handle, head);
        head.entries - 1
    }

    /// What an entry is.
    pub(in super::super) fn tag_of(&self, handle: Handle, head: &Head, entry: u8) -> Option<Tag> {
        let entry = usize::from(entry);
        let (extent, class, line) = head.line_of(handle, entry)?;
        self.get(extent, class)[line].entry(entry % LINE_ENTRIES).map(|(tag, _)| tag)
    }

    /// The item of an entry, which is made to be something else from now on.
    pub(in super::super) fn set_tag(
        &mut self,
        handle: Handle,
        head: &Head,
        entry: u8,
        tag: Tag,
    ) -> ItemPrint {
        let entry = usize::from(entry);
        let Some((extent, class, line)) = head.line_of(handle, entry) else { return ItemPrint::MISSING };
        let line = &mut self.get_mut(extent, class)[line];
        line.set_tag(entry % LINE_ENTRIES, tag);
        line.item(entry % LINE_ENTRIES)
    }

    /// Calls `visit` with every entry of this item, in the order of their addition.
    pub(in super::super) fn for_each_of(
        &self,
        handle: Handle,
        head: &Head,
        item: ItemPrint,
        mut visit: impl FnMut(u64, Tag),
    ) {
        self.walk(handle, head, |line, used| {
            for lane in (0..used).filter(|lane| line.item(*lane) == item) {
                if let Some((tag, since_base_ns)) = line.entry(lane) {
                    visit(head.base_ns + since_base_ns, tag);
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
        self.walk(handle, head, |line, used| {
            entries.extend((0..used).filter_map(|lane| {
                let (tag, since_base_ns) = line.entry(lane)?;
                let timestamp_ns = head.base_ns.saturating_add(since_base_ns);
                Some(Entry { timestamp_ns, item: line.item(lane), tag })
            }));
        });
        entries
    }

    /// Gives the group's extents back.
    pub(in super::super) fn free_group(&mut self, handle: Handle) {
        let head = self.head(handle);
        for (extent, class) in head.extents_in_use() {
            self.free(extent, class);
        }
        self.get_mut(handle, Class::Head)[0] = Line::ZERO;
        self.free(handle, Class::Head);
    }

    /// Whether a group leads to extents that are there, and every entry is something. For state that was read
    /// from outside.
    pub(in super::super) fn is_sound(&self, handle: Handle, head: &Head) -> bool {
        let mut extents = head.extents_in_use();
        usize::from(head.entries) <= MAX_ENTRIES
            && extents.all(|(extent, class)| self.is_place_of(extent, class))
            && self.entries(handle, head).len()
                == usize::from(head.entries) + usize::from(head.has_request_at_base())
    }

    /// Calls `visit` with every line of entries, and how many there are in it.
    fn walk(&self, handle: Handle, head: &Head, mut visit: impl FnMut(&Line, usize)) {
        let mut left = usize::from(head.entries);
        let mut visit_all = |lines: &[Line]| {
            for line in lines {
                if left == 0 {
                    return;
                }
                visit(line, left.min(LINE_ENTRIES));
                left = left.saturating_sub(LINE_ENTRIES);
            }
        };
        visit_all(&self.get(handle, Class::Head)[1..]);
        for (extent, class) in head.extents_in_use() {
            visit_all(self.get(extent, class));
        }
    }
}

impl Head {
    /// The extents after the head that have entries.
    fn extents_in_use(&self) -> impl Iterator<Item = (Handle, Class)> + use<> {
        let (extents, entries) = (self.extents, usize::from(self.entries));
        let in_use = EXTENTS.into_iter().zip(extents).take_while(move |((first, _), _)| *first < entries);
        in_use.map(|((_, class), extent)| (extent, class))
    }

    /// Where an entry is: the extent, and its line there. `None` when there can be no such entry.
    fn line_of(&self, handle: Handle, entry: usize) -> Option<(Handle, Class, usize)> {
        if entry < LINE_ENTRIES {
            return Some((handle, Class::Head, 1));
        }
        if entry >= MAX_ENTRIES {
            return None;
        }
        let number = extent_of(entry);
        let (first, class) = EXTENTS[number];
        Some((self.extents[number], class, (entry - first) / LINE_ENTRIES))
    }
}
