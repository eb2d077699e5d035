//! Where the group of a request id is: a hash table of pages that grows one page at a time.
//!
//! Extendible hashing: the first bits of a fingerprint choose a page by way of a directory, and a page
//! that gets full is split in two. So no step ever moves more than one page of 4 KiB, clears memory for 15 more, and
//! moves a directory of 4 bytes per page when that has to double. The last bits choose a bucket of the page, which is a cache line; what
//! has no room there is in the next one. So nearly always one line is read, and nothing depends on how many slots
//! of it are in use.
//!
//! A slot keeps 30 bits of the fingerprint: enough to place it when its page is split, and to tell
//! most groups apart. The whole fingerprint is where the slot leads to.

#![expect(clippy::cast_possible_truncation, reason = "slots and pages are numbered in fewer bits than 32")]

use super::block::{BLOCK_BYTES, Block};
use super::compare::{BITS_PER_LANE, LANES, lanes_with};
use super::event::RequestPrint;
use super::packed::arena::Handle;
use super::prefetch::prefetch;

/// Slots in a bucket.
const SLOTS: usize = LANES;
/// Buckets in a page: 4 KiB.
const BUCKETS: usize = 64;
/// A page with more used slots is split. With so many free, each way through full buckets comes to an end.
const MAX_USED: usize = 440;
/// Bits of the fingerprint that a slot keeps.
const PRINT_BITS: u32 = 30;
/// What is beside these bits in a tag.
const TAG_BITS: u32 = 2;
const IS_USED: u32 = 2;
const IS_OPEN: u32 = 1;

/// Where a group is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In the arena.
    Packed(Handle),
    /// At this number among the open groups.
    Open(u32),
}

/// Every group by its fingerprint.
#[derive(Debug)]
pub(super) struct Index {
    /// Bits that choose a page.
    depth: u32,
    directory: Vec<u32>,
    blocks: Vec<Block<Page, BLOCK_PAGES>>,
    /// Of each page.
    uses: Vec<Use>,
    len: usize,
}

/// What a page is used for.
#[derive(Debug, Clone, Copy)]
struct Use {
    /// Fingerprints in it agree in this many first bits.
    depth: u32,
    /// Slots that are used.
    slots: usize,
}

#[derive(Debug, Clone, Copy)]
struct Page([Bucket; BUCKETS]);

/// Pages in a block of memory.
const BLOCK_PAGES: usize = BLOCK_BYTES / size_of::<Page>();

/// The slots that are used come first.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Bucket {
    /// The bits of the fingerprint, and two that say what the number is; 0 in a free slot.
    tags: [u32; SLOTS],
    numbers: [u32; SLOTS],
}

/// What is in a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slot {
    tag: u32,
    number: u32,
}

impl Default for Index {
    fn default() -> Self {
        let blocks = vec![Block::filled(Page::EMPTY)];
        Self { depth: 0, directory: vec![0], blocks, uses: vec![Use { depth: 0, slots: 0 }], len: 0 }
    }
}

impl Index {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// What it takes, free slots included.
    pub(super) fn bytes(&self) -> u64 {
        let about = self.uses.capacity() * size_of::<Use>() + self.directory.capacity() * size_of::<u32>();
        (self.blocks.len() * BLOCK_BYTES + about) as u64
    }

    /// The place of a group among those that `is_it` is asked about.
    pub(super) fn find(&self, request: RequestPrint, is_it: impl Fn(Place) -> bool) -> Option<Place> {
        let print = print_of(request);
        self.page(self.page_of(print)).find(print, is_it)
    }

    /// Has the bucket fetched where a group is looked for first. Returns the number of its page.
    #[inline]
    pub(super) fn prefetch(&self, request: RequestPrint) -> u32 {
        let print = print_of(request);
        let page = self.page_of(print);
        prefetch(&self.page(page).0[home_of(print)]);
        page
    }

    /// The place of what is probably the group, if it still is in the page of this number.
    #[inline(always)]
    pub(super) fn guess(&self, page: u32, request: RequestPrint) -> Option<Place> {
        self.page(page).find(print_of(request), |_| true)
    }

    /// Adds a group that is not there.
    pub(super) fn insert(&mut self, request: RequestPrint, place: Place) {
        let print = print_of(request);
        while self.uses[self.page_of(print) as usize].slots >= MAX_USED {
            self.split(self.page_of(print));
        }
        let page = self.page_of(print);
        self.insert_into(page, Slot::of(print, place));
        self.len += 1;
    }

    /// Says that a group is now elsewhere.
    pub(super) fn replace(&mut self, request: RequestPrint, from: Place, to: Place) {
        let print = print_of(request);
        let page = self.page_mut(self.page_of(print));
        let position = page.position(Slot::of(print, from));
        debug_assert!(position.is_some(), "a group that is not in the index");
        if let Some((bucket, slot)) = position {
            page.0[bucket].set(slot, Slot::of(print, to));
        }
    }

    pub(super) fn remove(&mut self, request: RequestPrint, place: Place) {
        let print = print_of(request);
        let number = self.page_of(print);
        let page = self.page_mut(number);
        let position = page.position(Slot::of(print, place));
        debug_assert!(position.is_some(), "a group that is not in the index");
        if let Some((bucket, slot)) = position {
            page.remove(bucket, slot);
            self.uses[number as usize].slots -= 1;
            self.len -= 1;
        }
    }

    /// The number of the page for these bits.
    #[inline]
    fn page_of(&self, print: u32) -> u32 {
        self.directory[(print >> (PRINT_BITS - self.depth)) as usize]
    }

    #[inline]
    fn page(&self, number: u32) -> &Page {
        &self.blocks[number as usize / BLOCK_PAGES][number as usize % BLOCK_PAGES]
    }

    fn page_mut(&mut self, number: u32) -> &mut Page {
        &mut self.blocks[number as usize / BLOCK_PAGES][number as usize % BLOCK_PAGES]
    }

    fn insert_into(&mut self, page: u32, slot: Slot) {
        self.page_mut(page).insert(slot);
        self.uses[page as usize].slots += 1;
    }

    fn split(&mut self, number: u32) {
        let depth = self.uses[number as usize].depth + 1;
        if depth > self.depth {
            self.directory = self.directory.iter().flat_map(|page| [*page, *page]).collect();
            self.depth += 1;
        }
        let other = self.uses.len() as u32;
        if self.uses.len().is_multiple_of(BLOCK_PAGES) {
            self.blocks.push(Block::filled(Page::EMPTY));
        }
        self.uses[number as usize] = Use { depth, slots: 0 };
        self.uses.push(Use { depth, slots: 0 });
        let before = std::mem::replace(self.page_mut(number), Page::EMPTY);
        for slot in before.0.iter().flat_map(Bucket::used) {
            let goes_over = slot.print() >> (PRINT_BITS - depth) & 1 == 1;
            self.insert_into(if goes_over { other } else { number }, slot);
        }
        // The entries that lead to the page are in one run; the second half of them leads over.
        let run = 1 << (self.depth - depth);
        let first = self.directory.iter().position(|page| *page == number).unwrap_or(0);
        self.directory[first + run..first + 2 * run].fill(other);
    }
}

impl Page {
    const EMPTY: Self = Self([Bucket::EMPTY; BUCKETS]);

    fn insert(&mut self, slot: Slot) {
        let mut bucket = home_of(slot.print());
        while self.0[bucket].is_full() {
            bucket = (bucket + 1) % BUCKETS;
        }
        self.0[bucket].push(slot);
    }

    /// The place among the slots with these bits that `is_it` is asked about.
    #[inline(always)]
    fn find(&self, print: u32, is_it: impl Fn(Place) -> bool) -> Option<Place> {
        let (bucket, position) = self.find_slot(print, |slot| is_it(slot.place()))?;
        Some(self.0[bucket].get(position).place())
    }

    /// The bucket of a slot, and its position there.
    fn position(&self, wanted: Slot) -> Option<(usize, usize)> {
        self.find_slot(wanted.print(), |slot| slot == wanted)
    }

    #[inline(always)]
    fn find_slot(&self, print: u32, is_it: impl Fn(Slot) -> bool) -> Option<(usize, usize)> {
        let mut number = home_of(print);
        loop {
            let bucket = &self.0[number];
            // All slots are compared, which takes less time than to find out after each whether it was the last.
            let mut slots = lanes_with(&bucket.tags, IS_OPEN, print << TAG_BITS | IS_USED);
            while slots != 0 {
                let position = slots.trailing_zeros() / BITS_PER_LANE;
                if is_it(bucket.get(position as usize)) {
                    return Some((number, position as usize));
                }
                slots &= !0 << (BITS_PER_LANE * (position + 1));
            }
            if !bucket.is_full() {
                return None;
            }
            number = (number + 1) % BUCKETS;
        }
    }

    /// Removes a slot. Where there was no room for others in its bucket, one of them moves there, so that each is found
    /// from its home again.
    fn remove(&mut self, mut gap: usize, slot: usize) {
        let mut was_full = self.0[gap].is_full();
        self.0[gap].remove(slot);
        let mut next = gap;
        while was_full {
            next = (next + 1) % BUCKETS;
            was_full = self.0[next].is_full();
            let from_home = |slot: Slot, bucket: usize| (bucket + BUCKETS - home_of(slot.print())) % BUCKETS;
            let moves = |slot: Slot| from_home(slot, gap) < from_home(slot, next);
            let position = self.0[next].used().position(moves);
            if let Some(position) = position {
                let slot = self.0[next].remove(position);
                self.0[gap].push(slot);
                gap = next;
            }
        }
    }
}

impl Bucket {
    const EMPTY: Self = Self { tags: [0; SLOTS], numbers: [0; SLOTS] };

    fn is_full(&self) -> bool {
        self.tags[SLOTS - 1] != 0
    }

    fn get(&self, position: usize) -> Slot {
        Slot { tag: self.tags[position], number: self.numbers[position] }
    }

    fn set(&mut self, position: usize, slot: Slot) {
        self.tags[position] = slot.tag;
        self.numbers[position] = slot.number;
    }

    fn used(&self) -> impl Iterator<Item = Slot> {
        (0..SLOTS).map(|position| self.get(position)).take_while(|slot| slot.tag != 0)
    }

    /// Adds a slot where there is room.
    fn push(&mut self, slot: Slot) {
        let free = self.tags.iter().position(|tag| *tag == 0);
        debug_assert!(free.is_some(), "a slot too many");
        if let Some(position) = free {
            self.set(position, slot);
        }
    }

    fn remove(&mut self, position: usize) -> Slot {
        let removed = self.get(position);
        let last = self.used().count() - 1;
        self.set(position, self.get(last));
        self.set(last, Slot { tag: 0, number: 0 });
        removed
    }
}

impl Slot {
    fn of(print: u32, place: Place) -> Self {
        let (number, is_open) = match place {
            Place::Packed(handle) => (handle.0, 0),
            Place::Open(number) => (number, IS_OPEN),
        };
        Self { tag: print << TAG_BITS | IS_USED | is_open, number }
    }

    fn print(self) -> u32 {
        self.tag >> TAG_BITS
    }

    fn place(self) -> Place {
        if self.tag & IS_OPEN == 0 { Place::Packed(Handle(self.number)) } else { Place::Open(self.number) }
    }
}

fn print_of(request: RequestPrint) -> u32 {
    (request.0[0] >> (u64::BITS - PRINT_BITS)) as u32
}

/// The bucket in its page where these bits are looked for first.
fn home_of(print: u32) -> usize {
    print as usize % BUCKETS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::join::Fingerprinter;

    #[test]
    fn grows_and_shrinks_and_finds_what_is_there() {
        const COUNT: u32 = 20_000;
        let prints = Fingerprinter::random();
        let print = |number: u32| prints.request(&number.to_string());
        let mut index = Index::default();
        for number in 0..COUNT {
            index.insert(print(number), Place::Open(number));
        }
        for number in (0..COUNT).step_by(3) {
            index.remove(print(number), Place::Open(number));
        }
        for number in (1..COUNT).step_by(3) {
            index.replace(print(number), Place::Open(number), Place::Packed(Handle(number)));
        }
        for number in 0..COUNT {
            let expected = match number % 3 {
                0 => None,
                1 => Some(Place::Packed(Handle(number))),
                _ => Some(Place::Open(number)),
            };
            assert_eq!(index.find(print(number), |place| Some(place) == expected), expected, "{number}");
            if expected.is_none() {
                assert_eq!(index.find(print(number), |place| place == Place::Open(number)), None);
            }
        }
        assert_eq!(index.len() as u32, COUNT - COUNT.div_ceil(3));
        assert!(index.bytes() < u64::from(COUNT) * 20, "{} bytes", index.bytes());
    }
}
