//! Six entries in a cache line.
//!
//! An entry takes 85 bits: 39 bits of an item's fingerprint, 4 bits for what it is, and 42 bits of time
//! in nanoseconds since the base of its group, which is up to 73 minutes. Each of the first six words
//! has a fingerprint, a tag and the high half of a time; each of the last two has three low halves. So
//! either half of a line, three words and one of the last, has nothing of the other.

#![expect(clippy::cast_possible_truncation, reason = "lanes are numbered up to six")]

use super::entry::Tag;
use crate::join::event::ItemPrint;

/// Entries in a line.
pub(super) const LINE_ENTRIES: usize = 6;
/// Entries in half of a line, which can be an extent of its own: the first three lanes, or the others.
pub(super) const HALF_ENTRIES: usize = LINE_ENTRIES / 2;
/// Times from the base on that an entry can hold.
pub(in super::super) const MAX_SPAN_NS: u64 = (1 << (2 * TIME_BITS)) - 1;
/// Bits of half a time.
const TIME_BITS: u32 = 21;
const LOW_MASK: u64 = (1 << TIME_BITS) - 1;
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
        self.0[lane] = item.0 | tag.code() << TAG_SHIFT | (since_base_ns >> TIME_BITS) << HIGH_SHIFT;
        let (word, shift) = low_bits_of(lane);
        self.0[word] |= (since_base_ns & LOW_MASK) << shift;
    }

    /// Empties the lanes of one half.
    pub(super) fn clear_half(&mut self, half: usize) {
        let first = half * HALF_ENTRIES;
        self.0[first..first + HALF_ENTRIES].fill(0);
        self.0[LINE_ENTRIES + half] = 0;
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
        let (word, shift) = low_bits_of(lane);
        Some((tag, self.0[lane] >> HIGH_SHIFT << TIME_BITS | self.0[word] >> shift & LOW_MASK))
    }
}

/// The word that has the low half of a lane's time, and where it begins there.
#[inline(always)]
const fn low_bits_of(lane: usize) -> (usize, u32) {
    (LINE_ENTRIES + lane / HALF_ENTRIES, (lane % HALF_ENTRIES) as u32 * TIME_BITS)
}

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
                let is_empty = lane / HALF_ENTRIES == half;
                assert_eq!(
                    line.entry(lane),
                    (!is_empty).then_some((Tag::Click, MAX_SPAN_NS)),
                    "{half} {lane}"
                );
                assert_eq!(line.item(lane).is_missing(), is_empty);
            }
            let lanes = half * HALF_ENTRIES..(half + 1) * HALF_ENTRIES;
            lanes.clone().for_each(|lane| line.put(lane, ItemPrint(lane as u64), Tag::Request, 1));
            lanes.for_each(|lane| assert_eq!(line.entry(lane), Some((Tag::Request, 1))));
        }
    }

    #[test]
    fn a_full_line_gives_back_what_was_put_into_it() {
        let entry = |lane: usize| {
            let tags = [Tag::Request, Tag::RequestAgain, Tag::Exposure(TripleOutcome::Unseen), Tag::Click];
            let times = [MAX_SPAN_NS, 0, 1, LOW_MASK, LOW_MASK + 1, MAX_SPAN_NS - 1];
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
