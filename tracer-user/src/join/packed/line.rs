//! Five entries in a cache line.
//!
//! An entry takes 102 bits: 56 bits of an item's fingerprint, 4 bits for what it is, and 42 bits of time
//! in nanoseconds since the base of its group, which is up to 73 minutes. Each of the first five words
//! has a fingerprint, a tag and the 4 high bits of a time; the last three have five times 38 low bits.

#![expect(clippy::cast_possible_truncation, reason = "lanes are numbered up to five")]

use super::entry::Tag;
use crate::join::event::ItemPrint;

/// Entries in a line.
pub(super) const LINE_ENTRIES: usize = 5;
/// Entries in a half of a line that two extents share: the first two lanes, or the two after them.
pub(super) const PAIR_ENTRIES: usize = 2;
/// Times from the base on that an entry can hold.
pub(in super::super) const MAX_SPAN_NS: u64 = (1 << (LOW_BITS + HIGH_BITS)) - 1;
const LOW_BITS: u32 = 38;
const HIGH_BITS: u32 = 4;
const TAG_SHIFT: u32 = ItemPrint::BITS;
const HIGH_SHIFT: u32 = TAG_SHIFT + 4;
const WORDS: usize = 8;

/// What fits in a cache line, at the beginning of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(align(64))]
pub(in super::super) struct Line(pub(in super::super) [u64; WORDS]);

impl Line {
    pub(in super::super) const ZERO: Self = Self([0; WORDS]);

    /// Puts an entry into a lane that is empty.
    #[inline(always)]
    pub(super) fn put(&mut self, lane: usize, item: ItemPrint, tag: Tag, since_base_ns: u64) {
        debug_assert!(since_base_ns <= MAX_SPAN_NS, "a time that cannot be packed");
        self.0[lane] = item.0 | tag.code() << TAG_SHIFT | (since_base_ns >> LOW_BITS) << HIGH_SHIFT;
        let low = since_base_ns & ((1 << LOW_BITS) - 1);
        let LowBits { first, rest, shift } = LOW_BITS_OF[lane];
        self.0[first] |= low << shift;
        self.0[rest] |= low >> 1 >> (u64::BITS - 1 - shift);
    }

    /// Empties the lanes of one half.
    pub(super) fn clear_half(&mut self, half: usize) {
        let lanes = half * PAIR_ENTRIES..(half + 1) * PAIR_ENTRIES;
        self.0[lanes.clone()].fill(0);
        for LowBits { first, rest, shift } in &LOW_BITS_OF[lanes] {
            let bits = (1 << LOW_BITS) - 1;
            self.0[*first] &= !(bits << shift);
            self.0[*rest] &= !(bits >> 1 >> (u64::BITS - 1 - shift));
        }
    }

    /// Makes something else of what is in a lane.
    pub(super) fn set_tag(&mut self, lane: usize, tag: Tag) {
        self.0[lane] = self.0[lane] & !(0xf << TAG_SHIFT) | tag.code() << TAG_SHIFT;
    }

    /// The item in a lane.
    pub(super) fn item(&self, lane: usize) -> ItemPrint {
        ItemPrint(self.0[lane] & ItemPrint::MASK)
    }

    /// A bit for each lane that has this item. All are compared, which takes less time than to find out after each
    /// whether it was the one.
    pub(super) fn lanes_of(&self, item: ItemPrint) -> u32 {
        (0..LINE_ENTRIES).fold(0, |lanes, lane| lanes | u32::from(self.item(lane) == item) << lane)
    }

    /// What is in a lane, and its time since the base. `None` when it is empty.
    pub(super) fn entry(&self, lane: usize) -> Option<(Tag, u64)> {
        let tag = Tag::from_code(self.0[lane] >> TAG_SHIFT & 0xf)?;
        let LowBits { first, rest, shift } = LOW_BITS_OF[lane];
        let low = self.0[first] >> shift | self.0[rest] << 1 << (u64::BITS - 1 - shift);
        let high = self.0[lane] >> HIGH_SHIFT;
        Some((tag, low & ((1 << LOW_BITS) - 1) | high << LOW_BITS))
    }
}

/// Where the low bits of a lane's time are.
#[derive(Clone, Copy)]
struct LowBits {
    /// The word that they begin in.
    first: usize,
    /// The one after it, which may have some of them. Whoever moves them there and back loses nothing when it
    /// has none, so nobody has to ask.
    rest: usize,
    shift: u32,
}

const LOW_BITS_OF: [LowBits; LINE_ENTRIES] = {
    let mut of_lanes = [LowBits { first: 0, rest: 0, shift: 0 }; LINE_ENTRIES];
    let mut lane = 0;
    while lane < LINE_ENTRIES {
        let bit = lane as u32 * LOW_BITS;
        let first = LINE_ENTRIES + (bit / u64::BITS) as usize;
        let rest = if first < WORDS - 1 { first + 1 } else { first };
        of_lanes[lane] = LowBits { first, rest, shift: bit % u64::BITS };
        lane += 1;
    }
    of_lanes
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::TripleOutcome;

    #[test]
    fn half_a_line_is_emptied_and_the_rest_stays() {
        for half in 0..2 {
            let mut line = Line::ZERO;
            (0..LINE_ENTRIES)
                .for_each(|lane| line.put(lane, ItemPrint(ItemPrint::MASK), Tag::Click, MAX_SPAN_NS));
            line.clear_half(half);
            for lane in 0..LINE_ENTRIES {
                let is_empty = lane / PAIR_ENTRIES == half;
                assert_eq!(
                    line.entry(lane),
                    (!is_empty).then_some((Tag::Click, MAX_SPAN_NS)),
                    "{half} {lane}"
                );
                assert_eq!(line.item(lane).is_missing(), is_empty);
            }
            let lanes = half * PAIR_ENTRIES..(half + 1) * PAIR_ENTRIES;
            lanes.clone().for_each(|lane| line.put(lane, ItemPrint(lane as u64), Tag::Request, 1));
            lanes.for_each(|lane| assert_eq!(line.entry(lane), Some((Tag::Request, 1))));
        }
    }

    #[test]
    fn a_full_line_gives_back_what_was_put_into_it() {
        let entry = |lane: usize| {
            let tags = [Tag::Request, Tag::RequestAgain, Tag::Exposure(TripleOutcome::Unseen), Tag::Click];
            let times = [MAX_SPAN_NS, 0, 1, (1 << 38) - 1, MAX_SPAN_NS - 1];
            (ItemPrint(ItemPrint::MASK - lane as u64), tags[lane % tags.len()], times[lane])
        };
        let mut line = Line::ZERO;
        for lane in 0..LINE_ENTRIES {
            assert_eq!(line.entry(lane), None);
            let (item, tag, time_ns) = entry(lane);
            line.put(lane, item, tag, time_ns);
        }
        for lane in 0..LINE_ENTRIES {
            let (item, tag, time_ns) = entry(lane);
            assert_eq!((line.item(lane), line.entry(lane)), (item, Some((tag, time_ns))));
        }
    }
}
