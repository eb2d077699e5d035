//! Where packed groups are kept: segments of one size, cut into extents of a few sizes.
//!
//! An extent never moves, so its handle is good until it is freed. A segment holds extents of one
//! size and is given back when the last of them is freed. The free extents of one segment are used up
//! before those of the next, the last that got some first: they are in the cache still, and what
//! expires together is replaced together, so that segments do become empty.
//!
//! A segment can be shared with a snapshot. It is then copied before it is changed, once.

#![expect(clippy::cast_possible_truncation, reason = "segments are numbered in 22 bits and offsets in 10")]

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::line::Line;

/// Lines in a segment: 64 KiB, which takes about 10 us to copy.
pub(in super::super) const SEGMENT_LINES: usize = 1 << OFFSET_BITS;
/// The same in bytes.
pub(in super::super) const SEGMENT_BYTES: u64 = size_of::<Line>() as u64 * SEGMENT_LINES as u64;
const OFFSET_BITS: u32 = 10;
/// With handles of 32 bits, 256 GiB.
const MAX_SEGMENTS: usize = 1 << (32 - OFFSET_BITS);
/// Ends a list of free extents.
const NO_OFFSET: u16 = u16::MAX;

/// Where an extent begins: its segment and its first line in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in super::super) struct Handle(pub(in super::super) u32);

impl Handle {
    /// No extent. There are never as many segments.
    pub(in super::super) const NONE: Self = Self(u32::MAX);

    fn new(segment: usize, offset: usize) -> Self {
        debug_assert!(segment < MAX_SEGMENTS - 1 && offset < SEGMENT_LINES, "a handle has 32 bits");
        Self(((segment << OFFSET_BITS) | offset) as u32)
    }

    fn segment(self) -> usize {
        self.0 as usize >> OFFSET_BITS
    }

    fn offset(self) -> usize {
        self.0 as usize & (SEGMENT_LINES - 1)
    }
}

/// The sizes of extents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in super::super) enum Class {
    /// The head of a packed group and a line of entries.
    Head,
    /// A line of entries.
    One,
    /// Three of them.
    Three,
    /// Seven of them.
    Seven,
}

/// How many classes there are.
const CLASSES: usize = 4;

impl Class {
    pub(super) const fn lines(self) -> usize {
        match self {
            Self::Head => 2,
            Self::One => 1,
            Self::Three => 3,
            Self::Seven => 7,
        }
    }

    const fn last_offset(self) -> usize {
        (SEGMENT_LINES / self.lines() - 1) * self.lines()
    }
}

/// The lines of one segment.
pub(in super::super) type Block = Box<[Line]>;

#[derive(Debug)]
enum Lines {
    Owned(Block),
    /// A snapshot may still read it.
    Shared(Arc<Block>),
    /// Given back.
    Absent,
}

/// What is known of a segment beside its lines.
#[derive(Debug)]
struct Layout {
    class: Class,
    /// Extents in use. A segment without one is given back.
    live: u16,
    /// The first of the freed extents; each begins with the offset of the next one.
    free: u16,
    /// The first extent that was never used.
    fresh: u16,
    /// It waits in the queue of its class or is being filled.
    is_listed: bool,
}

/// Every segment in use.
#[derive(Debug, Default)]
pub(in super::super) struct Arena {
    segments: Vec<Lines>,
    layouts: Vec<Layout>,
    /// Segments that were given back; their numbers are used again.
    absent: Vec<u32>,
    /// By class: segments with room, the one being filled last.
    with_room: [Vec<u32>; CLASSES],
}

impl Arena {
    /// What its segments take, spare extents included.
    pub(in super::super) fn bytes(&self) -> u64 {
        let blocks = (self.segments.len() - self.absent.len()) as u64 * SEGMENT_BYTES;
        let directory = self.segments.capacity() * size_of::<Lines>()
            + self.layouts.capacity() * size_of::<Layout>()
            + (self.absent.capacity() + self.with_room.iter().map(Vec::capacity).sum::<usize>()) * 4;
        blocks + directory as u64
    }

    /// The lines of an extent.
    pub(super) fn get(&self, handle: Handle, class: Class) -> &[Line] {
        let from = handle.offset();
        &self.block(handle.segment())[from..from + class.lines()]
    }

    /// The lines of an extent, to be changed.
    pub(super) fn get_mut(&mut self, handle: Handle, class: Class) -> &mut [Line] {
        let from = handle.offset();
        &mut self.block_mut(handle.segment())[from..from + class.lines()]
    }

    /// Whether an extent of this class could begin here, whatever is in it.
    pub(super) fn is_place_of(&self, handle: Handle, class: Class) -> bool {
        let fits = |layout: &Layout| {
            layout.class == class && layout.live > 0 && handle.offset() < usize::from(layout.fresh)
        };
        self.layouts.get(handle.segment()).is_some_and(fits) && handle.offset().is_multiple_of(class.lines())
    }

    /// A new extent of zeros.
    pub(super) fn allocate(&mut self, class: Class) -> Handle {
        let number = match self.with_room[class as usize].last() {
            Some(number) => *number as usize,
            None => self.add_segment(class),
        };
        let layout = &mut self.layouts[number];
        let offset = if layout.free == NO_OFFSET { layout.fresh } else { layout.free };
        let handle = Handle::new(number, usize::from(offset));
        if layout.free == NO_OFFSET {
            layout.fresh += class.lines() as u16;
        } else {
            let lines = self.get_mut(handle, class);
            let next = lines[0].0[0] as u16;
            lines.fill(Line::ZERO);
            self.layouts[number].free = next;
        }
        let layout = &mut self.layouts[number];
        layout.live += 1;
        if layout.free == NO_OFFSET && usize::from(layout.fresh) > class.last_offset() {
            layout.is_listed = false;
            self.with_room[class as usize].pop();
        }
        handle
    }

    /// Gives an extent back.
    pub(super) fn free(&mut self, handle: Handle, class: Class) {
        let number = handle.segment();
        let layout = &mut self.layouts[number];
        debug_assert!(layout.class == class && layout.live > 0, "freed what was not allocated");
        layout.live -= 1;
        if layout.live == 0 {
            if layout.is_listed {
                layout.is_listed = false;
                let with_room = &mut self.with_room[class as usize];
                if let Some(position) = with_room.iter().rposition(|listed| *listed as usize == number) {
                    with_room.remove(position);
                }
            }
            self.segments[number] = Lines::Absent;
            self.absent.push(number as u32);
            return;
        }
        let next = std::mem::replace(&mut layout.free, handle.offset() as u16);
        if !layout.is_listed {
            layout.is_listed = true;
            self.with_room[class as usize].push(number as u32);
        }
        self.get_mut(handle, class)[0].0[0] = u64::from(next);
    }

    /// Every extent of this class that was ever used in a segment that is in use.
    pub(in super::super) fn places(&self, class: Class) -> impl Iterator<Item = Handle> + '_ {
        let segments = self.layouts.iter().enumerate();
        let of_class = segments.filter(move |(_, layout)| layout.class == class && layout.live > 0);
        of_class.flat_map(move |(number, layout)| {
            (0..usize::from(layout.fresh))
                .step_by(class.lines())
                .map(move |offset| Handle::new(number, offset))
        })
    }

    /// Lets a snapshot read every segment as it is now.
    pub(in super::super) fn share(&mut self) -> Vec<Option<Arc<Block>>> {
        let share = |lines: &mut Lines| {
            if let Lines::Owned(block) = lines {
                *lines = Lines::Shared(Arc::new(std::mem::take(block)));
            }
            match lines {
                Lines::Shared(block) => Some(Arc::clone(block)),
                _ => None,
            }
        };
        self.segments.iter_mut().map(share).collect()
    }

    /// What is in each segment; nothing in one that was given back.
    pub(in super::super) fn classes(&self) -> Vec<Option<Class>> {
        self.layouts.iter().map(|layout| (layout.live > 0).then_some(layout.class)).collect()
    }

    /// An arena to read these segments from: what was used of them is not known, so all counts as used. `None`
    /// when they cannot be an arena's.
    pub(in super::super) fn of_shared(
        classes: &[Option<Class>],
        blocks: Vec<Option<Arc<Block>>>,
    ) -> Option<Self> {
        if classes.len() != blocks.len() || classes.len() >= MAX_SEGMENTS {
            return None;
        }
        let mut arena = Self::default();
        for (class, block) in classes.iter().zip(blocks) {
            let (class, live, lines) = match (class, block) {
                (Some(class), Some(block)) if block.len() == SEGMENT_LINES => {
                    (*class, 1, Lines::Shared(block))
                }
                (None, None) => (Class::Head, 0, Lines::Absent),
                _ => return None,
            };
            let fresh = (class.last_offset() + class.lines()) as u16;
            arena.layouts.push(Layout { class, live, free: NO_OFFSET, fresh, is_listed: false });
            arena.segments.push(lines);
        }
        Some(arena)
    }

    fn add_segment(&mut self, class: Class) -> usize {
        let lines = Lines::Owned(vec![Line::ZERO; SEGMENT_LINES].into_boxed_slice());
        let layout = Layout { class, live: 0, free: NO_OFFSET, fresh: 0, is_listed: true };
        let number = match self.absent.pop() {
            Some(number) => {
                let number = number as usize;
                self.segments[number] = lines;
                self.layouts[number] = layout;
                number
            }
            None => {
                self.segments.push(lines);
                self.layouts.push(layout);
                self.segments.len() - 1
            }
        };
        self.with_room[class as usize].push(number as u32);
        number
    }

    fn block(&self, number: usize) -> &[Line] {
        match &self.segments[number] {
            Lines::Owned(block) => block,
            Lines::Shared(block) => block,
            Lines::Absent => &[],
        }
    }

    fn block_mut(&mut self, number: usize) -> &mut [Line] {
        let lines = &mut self.segments[number];
        if let Lines::Shared(shared) = lines {
            // Copied only if the snapshot still reads it.
            let block = match Arc::get_mut(shared) {
                Some(block) => std::mem::take(block),
                None => Block::clone(shared),
            };
            *lines = Lines::Owned(block);
        }
        match lines {
            Lines::Owned(block) => block,
            Lines::Shared(_) | Lines::Absent => &mut [],
        }
    }
}
