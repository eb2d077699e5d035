//! Where the group of a request id is: a hash table of pages that grows one page at a time.
//!
//! Extendible hashing: the first bits of a fingerprint choose a page by way of a directory, and a page
//! that gets full is split in two. So no step ever moves more than one page of 4 KiB, and a directory
//! of 4 bytes per page when that has to double.
//!
//! A slot keeps 30 bits of the fingerprint: enough to place it when its page is split, and to tell
//! most groups apart. The whole fingerprint is where the slot leads to.

#![expect(clippy::cast_possible_truncation, reason = "slots and pages are numbered in fewer bits than 32")]

use super::event::RequestPrint;
use super::packed::arena::Handle;
use super::prefetch::prefetch;

/// Slots of 8 bytes in a page: 4 KiB.
const PAGE_SLOTS: usize = 512;
/// A page with more used slots is split.
const MAX_USED: usize = 440;
/// Bits of the fingerprint that a slot keeps.
const PRINT_BITS: u32 = 30;
const IS_USED: u64 = 1 << 33;
const IS_OPEN: u64 = 1 << 32;

/// Where a group is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In the arena.
    Packed(Handle),
    /// At this number among the open groups.
    Open(u32),
}

impl Place {
    fn code(self) -> u64 {
        match self {
            Self::Packed(handle) => u64::from(handle.0),
            Self::Open(number) => u64::from(number) | IS_OPEN,
        }
    }

    fn from_slot(slot: u64) -> Self {
        let number = slot as u32;
        if slot & IS_OPEN == 0 { Self::Packed(Handle(number)) } else { Self::Open(number) }
    }
}

/// Every group by its fingerprint.
#[derive(Debug)]
pub(super) struct Index {
    /// Bits that choose a page.
    depth: u32,
    directory: Vec<u32>,
    pages: Vec<Page>,
    len: usize,
}

#[derive(Debug)]
struct Page {
    /// Fingerprints in it agree in this many first bits.
    depth: u32,
    used: usize,
    slots: Box<[u64; PAGE_SLOTS]>,
}

impl Default for Index {
    fn default() -> Self {
        Self { depth: 0, directory: vec![0], pages: vec![Page::new(0)], len: 0 }
    }
}

impl Index {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// What it takes, free slots included.
    pub(super) fn bytes(&self) -> u64 {
        let pages = self.pages.len() * 8 * PAGE_SLOTS + self.pages.capacity() * size_of::<Page>();
        (pages + self.directory.capacity() * 4) as u64
    }

    /// The place of a group among those that `is_it` is asked about.
    pub(super) fn find(&self, request: RequestPrint, is_it: impl Fn(Place) -> bool) -> Option<Place> {
        let print = print_of(request);
        self.page_of(print).find(print, is_it)
    }

    /// Has the slot fetched where a group is looked for first.
    pub(super) fn prefetch(&self, request: RequestPrint) {
        let print = print_of(request);
        prefetch(&self.page_of(print).slots[print as usize % PAGE_SLOTS]);
    }

    /// The place of what is probably the group.
    pub(super) fn guess(&self, request: RequestPrint) -> Option<Place> {
        let print = print_of(request);
        self.page_of(print).find(print, |_| true)
    }

    /// Adds a group that is not there.
    pub(super) fn insert(&mut self, request: RequestPrint, place: Place) {
        let print = print_of(request);
        while self.page_of(print).used >= MAX_USED {
            self.split(self.directory[self.entry_of(print)] as usize);
        }
        let entry = self.entry_of(print);
        self.pages[self.directory[entry] as usize]
            .insert(print << (64 - PRINT_BITS) | IS_USED | place.code());
        self.len += 1;
    }

    /// Says that a group is now elsewhere.
    pub(super) fn replace(&mut self, request: RequestPrint, from: Place, to: Place) {
        let print = print_of(request);
        let entry = self.entry_of(print);
        let page = &mut self.pages[self.directory[entry] as usize];
        let position = page.position(print, from);
        debug_assert!(position.is_some(), "a group that is not in the index");
        if let Some(position) = position {
            page.slots[position] = print << (64 - PRINT_BITS) | IS_USED | to.code();
        }
    }

    pub(super) fn remove(&mut self, request: RequestPrint, place: Place) {
        let print = print_of(request);
        let entry = self.entry_of(print);
        let page = &mut self.pages[self.directory[entry] as usize];
        let position = page.position(print, place);
        debug_assert!(position.is_some(), "a group that is not in the index");
        if let Some(position) = position {
            page.remove(position);
            self.len -= 1;
        }
    }

    fn entry_of(&self, print: u64) -> usize {
        (print >> (PRINT_BITS - self.depth)) as usize
    }

    fn page_of(&self, print: u64) -> &Page {
        &self.pages[self.directory[self.entry_of(print)] as usize]
    }

    fn split(&mut self, number: usize) {
        let depth = self.pages[number].depth + 1;
        if depth > self.depth {
            self.directory = self.directory.iter().flat_map(|page| [*page, *page]).collect();
            self.depth += 1;
        }
        let before = std::mem::replace(&mut self.pages[number], Page::new(depth));
        let mut other = Page::new(depth);
        for slot in before.slots.into_iter().filter(|slot| *slot != 0) {
            let goes_over = slot >> (64 - depth) & 1 == 1;
            if goes_over { &mut other } else { &mut self.pages[number] }.insert(slot);
        }
        let other_number = self.pages.len();
        self.pages.push(other);
        // The entries that lead to the page are in one run; the second half of them leads over.
        let run = 1 << (self.depth - depth);
        let first = self.directory.iter().position(|page| *page as usize == number).unwrap_or(0);
        self.directory[first + run..first + 2 * run].fill(other_number as u32);
    }
}

impl Page {
    fn new(depth: u32) -> Self {
        Self { depth, used: 0, slots: Box::new([0; PAGE_SLOTS]) }
    }

    fn insert(&mut self, slot: u64) {
        let mut position = home_of(slot);
        while self.slots[position] != 0 {
            position = (position + 1) % PAGE_SLOTS;
        }
        self.slots[position] = slot;
        self.used += 1;
    }

    /// The place among the slots with these bits that `is_it` is asked about.
    fn find(&self, print: u64, is_it: impl Fn(Place) -> bool) -> Option<Place> {
        for step in 0..PAGE_SLOTS {
            let slot = self.slots[(print as usize + step) % PAGE_SLOTS];
            if slot == 0 {
                break;
            }
            if slot >> (64 - PRINT_BITS) == print && is_it(Place::from_slot(slot)) {
                return Some(Place::from_slot(slot));
            }
        }
        None
    }

    fn position(&self, print: u64, place: Place) -> Option<usize> {
        let slot = print << (64 - PRINT_BITS) | IS_USED | place.code();
        let probes = (0..PAGE_SLOTS).map(|step| (print as usize + step) % PAGE_SLOTS);
        probes
            .take_while(|position| self.slots[*position] != 0)
            .find(|position| self.slots[*position] == slot)
    }

    /// Removes a slot and moves those after it up, so that each is found from its home again.
    fn remove(&mut self, position: usize) {
        let (mut gap, mut next) = (position, position);
        loop {
            next = (next + 1) % PAGE_SLOTS;
            let slot = self.slots[next];
            if slot == 0 {
                break;
            }
            let from_home = |position: usize| (position + PAGE_SLOTS - home_of(slot)) % PAGE_SLOTS;
            if from_home(gap) <= from_home(next) {
                self.slots[gap] = slot;
                gap = next;
            }
        }
        self.slots[gap] = 0;
        self.used -= 1;
    }
}

fn print_of(request: RequestPrint) -> u64 {
    request.0[0] >> (64 - PRINT_BITS)
}

/// Where in its page a slot is looked for first.
fn home_of(slot: u64) -> usize {
    (slot >> (64 - PRINT_BITS)) as usize % PAGE_SLOTS
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
