//! Where packed groups are kept: segments of one size, cut into extents of a few sizes.
//!
//! An extent never moves, so its handle is good until it is freed. A segment holds extents of one
//! size and is given back when the last of them is freed. The free extents of one segment are used up
//! before those of the next, the last that got some first: they are in the cache still, and what
//! expires together is replaced together, so that segments do become empty.
//!
//! A segment can be shared with a snapshot. It is then copied before it is changed, once.

#![expect(clippy::cast_possible_truncation, reason = "segments are numbered in 21 bits and offsets in 11")]

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::line::{HALF_ENTRIES, Line};
use crate::join::block::{self, BLOCK_BYTES};
use crate::join::prefetch::prefetch;

/// Lines in a segment.
pub(in super::super) const SEGMENT_LINES: usize = 1 << LINE_BITS;
/// The same in bytes.
pub(in super::super) const SEGMENT_BYTES: u64 = BLOCK_BYTES as u64;
const LINE_BITS: u32 = 10;
/// Halves of a line in a segment.
const SEGMENT_HALVES: usize = 2 * SEGMENT_LINES;
/// With handles of 32 bits, 128 GiB.
const MAX_SEGMENTS: usize = 1 << (31 - LINE_BITS);
/// Ends a list of free extents.
const NO_OFFSET: u16 = u16::MAX;

/// Where an extent begins: its segment, its first line in it, and in which half of that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in super::super) struct Handle(pub(in super::super) u32);

impl Handle {
    /// No extent. There are never as many segments.
    pub(in super::super) const NONE: Self = Self(u32::MAX);

    fn new(segment: usize, offset: usize) -> Self {
        debug_assert!(segment < MAX_SEGMENTS - 1 && offset < SEGMENT_HALVES, "a handle has 32 bits");
        Self((segment * SEGMENT_HALVES + offset) as u32)
    }

    fn segment(self) -> usize {
        self.0 as usize / SEGMENT_HALVES
    }

    /// In halves of a line.
    fn offset(self) -> usize {
        self.0 as usize % SEGMENT_HALVES
    }

    fn line(self) -> usize {
        self.offset() / 2
    }

    /// The half of the line that it begins in: 0 for all but the second [`Class::Half`] of a line.
    pub(super) fn half(self) -> usize {
        self.0 as usize % 2
    }
}

/// The sizes of extents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in super::super) enum Class {
    /// The head of a packed group and a line of entries.
    Head,
    /// Half of a line of entries.
    Half,
    /// Three lines of entries.
    Three,
    /// Seven of them.
    Seven,
}

/// How many classes there are.
const CLASSES: usize = 4;

impl Class {
    const ALL: [Self; CLASSES] = [Self::Head, Self::Half, Self::Three, Self::Seven];

    /// Lines that it has something of.
    pub(super) const fn lines(self) -> usize {
        self.halves().div_ceil(2)
    }

    const fn halves(self) -> usize {
        match self {
            Self::Head => 4,
            Self::Half => 1,
            Self::Three => 6,
            Self::Seven => 14,
        }
    }

    const fn last_offset(self) -> usize {
        (self.extents() - 1) * self.halves()
    }

    /// Extents in a segment.
    const fn extents(self) -> usize {
        SEGMENT_HALVES / self.halves()
    }

    /// Extents of a group, at most.
    const fn most_in_group(self) -> usize {
        match self {
            Self::Head | Self::Seven => 1,
            Self::Half | Self::Three => 2,
        }
    }
}

/// The lines of one segment.
pub(in super::super) type Block = block::Block<Line, SEGMENT_LINES>;

/// A segment, in use or given back. Whoever reads a line looks at `own` first, which nearly always has it.
#[derive(Debug)]
struct Segment {
    /// Its lines; none while they are shared, and none when it was given back.
    own: Option<Block>,
    /// Its lines while a snapshot may still read them.
    shared: Option<Arc<Block>>,
    class: Class,
    /// Extents in use. A segment without one is given back.
    live: u16,
    /// The offset of the first of the freed extents; each has that of the next one in its first word.
    free: u16,
    /// The offset of the first extent that was never used.
    fresh: u16,
    /// It waits in the queue of its class or is being filled.
    is_listed: bool,
}

impl Segment {
    fn line(&self, number: usize) -> &Line {
        match &self.own {
            Some(block) => &block[number],
            None => self.shared_line(number),
        }
    }

    #[cold]
    fn shared_line(&self, number: usize) -> &Line {
        self.shared.as_ref().map_or(&Line::ZERO, |block| &block[number])
    }

    /// Its lines; none when it was given back.
    fn lines(&self) -> &[Line] {
        match (&self.own, &self.shared) {
            (Some(block), _) => &block[..],
            (None, Some(block)) => &block[..],
            (None, None) => &[],
        }
    }

    /// Its lines, to be changed. Nobody changes what was given back, which has none.
    #[inline(always)]
    fn lines_mut(&mut self) -> &mut [Line; SEGMENT_LINES] {
        if self.own.is_none() {
            self.take_back();
        }
        self.own.get_or_insert_with(no_lines)
    }

    /// Ends the sharing of its lines, which are copied only if the snapshot still reads them.
    #[cold]
    #[inline(never)]
    fn take_back(&mut self) {
        self.own = self.shared.take().map(Arc::unwrap_or_clone);
    }
}

#[cold]
#[inline(never)]
fn no_lines() -> Block {
    Block::filled(Line::ZERO)
}

/// Every segment in use.
#[derive(Debug, Default)]
pub(in super::super) struct Arena {
    segments: Vec<Segment>,
    /// Segments that were given back; their numbers are used again.
    absent: Vec<u32>,
    /// By class: segments with room, the one being filled last.
    with_room: [Vec<u32>; CLASSES],
    /// By class: free extents of all segments together.
    room: [usize; CLASSES],
}

impl Arena {
    /// What its segments take, spare extents included.
    pub(in super::super) fn bytes(&self) -> u64 {
        let blocks = (self.segments.len() - self.absent.len()) as u64 * SEGMENT_BYTES;
        let directory = self.segments.capacity() * size_of::<Segment>()
            + (self.absent.capacity() + self.with_room.iter().map(Vec::capacity).sum::<usize>()) * 4;
        blocks + directory as u64
    }

    /// What it can grow by in bytes while this many groups are made, of any size: by a segment of each class that has not
    /// enough free extents for all of them. They may not be more than fit into that.
    pub(in super::super) fn growth_bytes(&self, groups: usize) -> u64 {
        let is_short = |class: &Class| self.room[*class as usize] < groups * class.most_in_group();
        let short = Class::ALL.iter().filter(|class| is_short(class));
        short.count() as u64 * SEGMENT_BYTES
    }

    /// A line of an extent. Zeros where there is no extent now.
    pub(super) fn line(&self, handle: Handle, line: usize) -> &Line {
        match self.segments.get(handle.segment()) {
            Some(segment) => segment.line(handle.line() + line),
            None => &Line::ZERO,
        }
    }

    /// A line of an extent, to be changed.
    #[inline(always)]
    pub(super) fn line_mut(&mut self, handle: Handle, line: usize) -> &mut Line {
        &mut self.segments[handle.segment()].lines_mut()[handle.line() + line]
    }

    /// The lines of an extent. That of a half may have another half's entries beside its own.
    pub(super) fn lines(&self, handle: Handle, class: Class) -> &[Line] {
        let from = handle.line();
        &self.segments[handle.segment()].lines()[from..from + class.lines()]
    }

    /// Whether an extent of this class could begin here, whatever is in it.
    pub(super) fn is_place_of(&self, handle: Handle, class: Class) -> bool {
        let fits = |segment: &Segment| {
            segment.class == class && segment.live > 0 && handle.offset() < usize::from(segment.fresh)
        };
        self.segments.get(handle.segment()).is_some_and(fits)
            && handle.offset().is_multiple_of(class.halves())
    }

    /// The first line here, if extents of this class are kept here. Zeros if none ever was at this place.
    pub(super) fn first_line_of(&self, handle: Handle, class: Class) -> Option<&Line> {
        let segment = self.segments.get(handle.segment())?;
        (segment.class == class).then(|| segment.line(handle.line()))
    }

    /// The same, to be changed, unless it is shared.
    #[inline(always)]
    pub(super) fn own_first_line_of(&mut self, handle: Handle, class: Class) -> Option<&mut Line> {
        let segment = self.segments.get_mut(handle.segment()).filter(|segment| segment.class == class)?;
        segment.own.as_mut().map(|block| &mut block[handle.line()])
    }

    /// A new extent of zeros.
    pub(super) fn allocate(&mut self, class: Class) -> Handle {
        let number = match self.with_room[class as usize].last() {
            Some(number) => *number as usize,
            None => self.add_segment(class),
        };
        let segment = &mut self.segments[number];
        let offset = if segment.free == NO_OFFSET {
            segment.fresh += class.halves() as u16;
            usize::from(segment.fresh) - class.halves()
        } else {
            let offset = usize::from(segment.free);
            let lines = &mut segment.lines_mut()[offset / 2..][..class.lines()];
            let next = lines[0].0[link_of(offset)] as u16;
            if class == Class::Half {
                lines[0].clear_half(offset % 2);
            } else {
                lines.fill(Line::ZERO);
            }
            segment.free = next;
            // The next one will be written soon.
            let ahead = segment.lines().get(usize::from(next) / 2..).unwrap_or_default();
            ahead.iter().take(class.lines()).for_each(prefetch);
            offset
        };
        segment.live += 1;
        self.room[class as usize] -= 1;
        if segment.free == NO_OFFSET && usize::from(segment.fresh) > class.last_offset() {
            segment.is_listed = false;
            self.with_room[class as usize].pop();
        }
        Handle::new(number, offset)
    }

    /// Gives an extent back.
    pub(super) fn free(&mut self, handle: Handle, class: Class) {
        let number = handle.segment();
        let segment = &mut self.segments[number];
        debug_assert!(segment.class == class && segment.live > 0, "freed what was not allocated");
        segment.live -= 1;
        if segment.live == 0 {
            self.room[class as usize] -= class.extents() - 1;
            let was_listed = std::mem::replace(&mut segment.is_listed, false);
            (segment.own, segment.shared) = (None, None);
            let with_room = &mut self.with_room[class as usize];
            if was_listed
                && let Some(position) = with_room.iter().rposition(|listed| *listed as usize == number)
            {
                with_room.remove(position);
            }
            self.absent.push(number as u32);
            return;
        }
        self.room[class as usize] += 1;
        let next = std::mem::replace(&mut segment.free, handle.offset() as u16);
        segment.lines_mut()[handle.line()].0[link_of(handle.offset())] = u64::from(next);
        if !std::mem::replace(&mut segment.is_listed, true) {
            self.with_room[class as usize].push(number as u32);
        }
    }

    /// Every extent of this class that was ever used in a segment that is in use.
    pub(in super::super) fn places(&self, class: Class) -> impl Iterator<Item = Handle> + '_ {
        let segments = self.segments.iter().enumerate();
        let of_class = segments.filter(move |(_, segment)| segment.class == class && segment.live > 0);
        of_class.flat_map(move |(number, segment)| {
            (0..usize::from(segment.fresh))
                .step_by(class.halves())
                .map(move |offset| Handle::new(number, offset))
        })
    }

    /// Lets a snapshot read every segment as it is now.
    pub(in super::super) fn share(&mut self) -> Vec<Option<Arc<Block>>> {
        let share = |segment: &mut Segment| {
            if let Some(block) = segment.own.take() {
                segment.shared = Some(Arc::new(block));
            }
            segment.shared.clone()
        };
        self.segments.iter_mut().map(share).collect()
    }

    /// What is in each segment; nothing in one that was given back.
    pub(in super::super) fn classes(&self) -> Vec<Option<Class>> {
        self.segments.iter().map(|segment| (segment.live > 0).then_some(segment.class)).collect()
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
            let (class, live) = match (class, &block) {
                (Some(class), Some(_)) => (*class, 1),
                (None, None) => (Class::Head, 0),
                _ => return None,
            };
            let fresh = (class.last_offset() + class.halves()) as u16;
            let (free, is_listed) = (NO_OFFSET, false);
            arena.segments.push(Segment { own: None, shared: block, class, live, free, fresh, is_listed });
        }
        Some(arena)
    }

    fn add_segment(&mut self, class: Class) -> usize {
        self.room[class as usize] += class.extents();
        let segment = Segment {
            own: Some(Block::filled(Line::ZERO)),
            shared: None,
            class,
            live: 0,
            free: NO_OFFSET,
            fresh: 0,
            is_listed: true,
        };
        let number = match self.absent.pop() {
            Some(number) => {
                self.segments[number as usize] = segment;
                number as usize
            }
            None => {
                self.segments.push(segment);
                self.segments.len() - 1
            }
        };
        self.with_room[class as usize].push(number as u32);
        number
    }
}

/// The first word of an extent with this offset, within its line.
fn link_of(offset: usize) -> usize {
    offset % 2 * HALF_ENTRIES
}
