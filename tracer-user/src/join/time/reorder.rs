//! Events that the watermark has not passed.
//!
//! Events are put into buckets by their time, each in order of arrival, and a bucket is put in order when
//! the watermark comes to it: few events by how many are before each, many by sorting. That is done with a number for
//! each of them, and they are moved once, on their way out.

#![expect(
    clippy::cast_possible_truncation,
    reason = "positions are below the number of buckets or of events"
)]

use std::collections::BTreeMap;

use super::Until;
use crate::join::event::JoinEvent;
use crate::join::prefetch::prefetch;

/// Buckets in the ring.
const BUCKETS: usize = 4096;
/// The longest usual wait spans this many buckets, so that the ring has room for sources that are far
/// behind the newest one.
const BUCKETS_PER_WAIT: u64 = 128;
/// Room for more events than this is not kept when a bucket has been emptied.
const MAX_KEPT: usize = 256;
/// Emptied buckets whose room is kept for the next ones. The last one emptied is used first: it is
/// still in the cache.
const MAX_SPARE: usize = 64;
/// A bucket lasts no longer than two to the power of this many nanoseconds, 18 minutes: so there is room for its
/// events' numbers beside their times.
const MAX_WIDTH_BITS: u32 = 40;
/// More events than this are sorted, and fewer ranked.
const MAX_RANKED: usize = 64;
/// Bits that tell kinds apart.
const KIND_BITS: u32 = 2;

#[derive(Debug)]
pub(in super::super) struct Reorder {
    /// A bucket lasts two to the power of this many nanoseconds.
    width_bits: u32,
    /// The number since the epoch of the first bucket of the ring; no event is in an earlier one.
    first: u64,
    ring: Ring,
    /// Events in the ring.
    in_ring: usize,
    /// Of the first bucket, once it has been put in order.
    order: Order,
    /// Buckets too far ahead for the ring, by number.
    beyond: BTreeMap<u64, Vec<JoinEvent>>,
    in_beyond: usize,
    /// Room of emptied buckets.
    spare: Vec<Vec<JoinEvent>>,
    /// Room of all buckets together, in events.
    room: usize,
}

type Ring = Box<[Vec<JoinEvent>; BUCKETS]>;

impl Reorder {
    /// `wait_ns` is how long an event usually waits.
    pub(in super::super) fn new(wait_ns: u64) -> Self {
        Self {
            width_bits: (wait_ns / BUCKETS_PER_WAIT).max(1).ilog2().min(MAX_WIDTH_BITS),
            first: 0,
            ring: Box::new([const { Vec::new() }; BUCKETS]),
            in_ring: 0,
            order: Order::default(),
            beyond: BTreeMap::new(),
            in_beyond: 0,
            spare: Vec::new(),
            room: 0,
        }
    }

    pub(in super::super) fn is_empty(&self) -> bool {
        self.in_ring + self.in_beyond == 0
    }

    /// What it takes, spare room included.
    pub(in super::super) fn bytes(&self) -> u64 {
        // A node of the map has room for eleven buckets and is at least half full.
        let map = self.beyond.len() * 2 * size_of::<(u64, Vec<JoinEvent>)>();
        (self.room * size_of::<JoinEvent>() + BUCKETS * size_of::<Vec<JoinEvent>>() + map) as u64
            + (self.spare.capacity() * size_of::<Vec<JoinEvent>>()) as u64
            + self.order.bytes()
    }

    /// Takes in an event that is not before the watermark.
    #[inline]
    pub(in super::super) fn push(&mut self, event: &JoinEvent) {
        let number = event.timestamp_ns >> self.width_bits;
        if self.is_empty() {
            // Whatever comes later may be earlier than this event, though not before the watermark;
            // `take` has come as far as the watermark.
            self.first = self.first.min(number);
        }
        debug_assert!(number >= self.first, "an event before the watermark is late");
        if number - self.first >= BUCKETS as u64 {
            self.push_beyond(number, event);
            return;
        }
        self.in_ring += 1;
        let bucket = &mut self.ring[position_of(number)];
        if bucket.len() < bucket.capacity() {
            bucket.push(*event);
        } else {
            self.push_with_more_room(number, event);
        }
    }

    #[cold]
    fn push_with_more_room(&mut self, number: u64, event: &JoinEvent) {
        let bucket = &mut self.ring[position_of(number)];
        if bucket.capacity() == 0
            && let Some(spare) = self.spare.pop()
        {
            // The room of spare buckets is counted all the time.
            *bucket = spare;
        }
        self.room -= bucket.capacity();
        bucket.push(*event);
        self.room += bucket.capacity();
    }

    #[cold]
    fn push_beyond(&mut self, number: u64, event: &JoinEvent) {
        self.in_beyond += 1;
        let bucket = self.beyond.entry(number).or_default();
        self.room -= bucket.capacity();
        bucket.push(*event);
        self.room += bucket.capacity();
    }

    /// When the bucket begins that this time is in.
    pub(in super::super) fn bucket_begin_ns(&self, time_ns: u64) -> u64 {
        time_ns >> self.width_bits << self.width_bits
    }

    /// Whether there may be events of whole buckets before this time.
    pub(in super::super) fn has_due(&self, time_ns: u64) -> bool {
        !self.is_empty() && self.first < time_ns >> self.width_bits
    }

    /// Moves what is due into `out`, in order, until `out` has `most` events.
    pub(in super::super) fn take(&mut self, until: Until, most: usize, out: &mut Vec<JoinEvent>) {
        let end = match until {
            Until::Before(time_ns) => time_ns >> self.width_bits,
            Until::TheEnd => u64::MAX,
        };
        while out.len() < most && self.seek(end) {
            let is_whole = match until {
                Until::Before(time_ns) if self.first == end && self.bucket_begin_ns(time_ns) == time_ns => {
                    return;
                }
                Until::Before(_) => self.first < end,
                Until::TheEnd => true,
            };
            let bucket = &mut self.ring[position_of(self.first)];
            self.order.update(bucket, self.width_bits);
            let left = self.order.left();
            let left = &left[..left.len().min(most - out.len())];
            let events = left.iter().map(|key| &bucket[self.order.index_of(*key)]);
            let due = if is_whole {
                left.len()
            } else {
                events.clone().take_while(|event| until.is_due(event.timestamp_ns)).count()
            };
            out.extend(events.take(due).copied());
            // As many of the next bucket: they were put there too long ago to be in the cache.
            let next = &self.ring[position_of(self.first.wrapping_add(1))];
            next.iter().skip(self.order.taken).take(due).for_each(prefetch);
            let was_all_due = due == left.len();
            self.in_ring -= due;
            if self.order.advance(due) {
                self.empty_first();
            } else if !was_all_due {
                return;
            }
        }
    }

    /// Goes to the first bucket that has something in it. `false` when that is past this one.
    fn seek(&mut self, end: u64) -> bool {
        if self.in_ring == 0 {
            let next = self.beyond.first_key_value().map_or(end, |(number, _)| *number);
            self.first = self.first.max(next.min(end));
            self.admit();
            if self.in_ring == 0 {
                return false;
            }
        }
        while self.ring[position_of(self.first)].is_empty() {
            if self.first >= end {
                return false;
            }
            self.first += 1;
            if self.in_beyond > 0 {
                self.admit();
            }
        }
        self.first <= end
    }

    /// Everything of the first bucket has been taken.
    fn empty_first(&mut self) {
        let mut emptied = std::mem::take(&mut self.ring[position_of(self.first)]);
        if emptied.capacity() <= MAX_KEPT && self.spare.len() < MAX_SPARE {
            emptied.clear();
            self.spare.push(emptied);
        } else {
            self.room -= emptied.capacity();
        }
    }

    /// A time by which half of the events would be taken, if there are any.
    pub(in super::super) fn middle_ns(&self) -> Option<u64> {
        let ring = (0..BUCKETS as u64).map_while(|step| {
            let number = self.first.checked_add(step)?;
            let taken = if step == 0 { self.order.taken } else { 0 };
            Some((number, self.ring[position_of(number)].len() - taken))
        });
        let beyond = self.beyond.iter().map(|(number, events)| (*number, events.len()));
        let half = (self.in_ring + self.in_beyond).div_ceil(2);
        let mut seen = 0;
        let mut buckets = ring.chain(beyond).filter(|(_, events)| *events > 0);
        let (number, _) = buckets.find(|(_, events)| {
            seen += events;
            seen >= half
        })?;
        Some(((number << self.width_bits) | ((1 << self.width_bits) - 1)).saturating_add(1))
    }

    /// Every event: pushing them again gives the same buffer.
    pub(in super::super) fn events(&mut self) -> Vec<JoinEvent> {
        self.order.forget_taken(&mut self.ring[position_of(self.first)]);
        let mut events = Vec::with_capacity(self.in_ring + self.in_beyond);
        let ring = (0..BUCKETS as u64).map(|step| &self.ring[position_of(self.first.wrapping_add(step))]);
        ring.chain(self.beyond.values()).for_each(|bucket| events.extend_from_slice(bucket));
        events
    }

    /// Moves what the ring has come to reach into it.
    fn admit(&mut self) {
        while let Some(entry) = self.beyond.first_entry()
            && *entry.key() - self.first < BUCKETS as u64
        {
            let (number, events) = entry.remove_entry();
            self.in_beyond -= events.len();
            self.in_ring += events.len();
            let bucket = &mut self.ring[position_of(number)];
            debug_assert!(bucket.is_empty(), "a bucket was in the ring and beyond it");
            self.room -= bucket.capacity();
            *bucket = events;
        }
    }
}

/// The order of the events of one bucket.
#[derive(Debug, Default)]
struct Order {
    /// For each event, in order: its number in order of arrival, in the last bits; before it may be its time and kind. None
    /// while the bucket has not been put in order.
    keys: Vec<u64>,
    /// Those of the last bits that hold the number.
    index_mask: u64,
    /// Events that have been taken.
    taken: usize,
}

impl Order {
    fn bytes(&self) -> u64 {
        (self.keys.capacity() * size_of::<u64>()) as u64
    }

    fn index_of(&self, key: u64) -> usize {
        (key & self.index_mask) as usize
    }

    /// The keys of what has not been taken.
    fn left(&self) -> &[u64] {
        &self.keys[self.taken..]
    }

    /// Puts the bucket in order if it has not been, or if more has arrived since.
    fn update(&mut self, bucket: &mut Vec<JoinEvent>, width_bits: u32) {
        if self.keys.len() < bucket.len() {
            self.forget_taken(bucket);
            self.sort(bucket, width_bits);
        }
    }

    fn sort(&mut self, bucket: &mut [JoinEvent], width_bits: u32) {
        let index_bits = usize::BITS - bucket.len().leading_zeros();
        self.index_mask = (1 << index_bits) - 1;
        if width_bits + KIND_BITS + index_bits > u64::BITS {
            bucket.sort_by_key(|event| (event.timestamp_ns, event.kind));
            self.keys.extend(0..bucket.len() as u64);
            return;
        }
        let in_bucket = (1 << width_bits) - 1;
        let keys = bucket.iter().zip(0..).map(|(event, index)| {
            let time_and_kind = (event.timestamp_ns & in_bucket) << KIND_BITS | event.kind as u64;
            time_and_kind << index_bits | index
        });
        if width_bits + KIND_BITS + index_bits < i32::BITS && bucket.len() <= MAX_RANKED {
            self.rank(bucket.len(), keys);
        } else {
            self.keys.extend(keys);
            self.keys.sort_unstable();
        }
    }

    /// Puts few keys of 31 bits in order: the place of each is how many are before it. That takes a comparison for every
    /// pair, four of them at a time, and no branch that cannot be foreseen.
    fn rank(&mut self, count: usize, keys: impl Iterator<Item = u64>) {
        self.keys.resize(count, 0);
        // What is left over at the end is before none.
        let mut ranked = [i32::MAX; MAX_RANKED];
        ranked.iter_mut().zip(keys).for_each(|(to, key)| *to = key as i32);
        let padded = &ranked[..count.next_multiple_of(16)];
        for (key, index) in ranked[..count].iter().zip(0..) {
            let before: u32 = padded.iter().map(|other| u32::from(other < key)).sum();
            self.keys[before as usize] = index;
        }
    }

    /// So many more have been taken. Returns whether these were the last, and forgets the order then.
    fn advance(&mut self, count: usize) -> bool {
        self.taken += count;
        let is_over = self.taken == self.keys.len();
        if is_over {
            self.clear();
        }
        is_over
    }

    /// Takes out of a bucket what has been taken, and forgets its order.
    fn forget_taken(&mut self, bucket: &mut Vec<JoinEvent>) {
        if self.taken > 0 {
            let left = self.keys[self.taken..].iter().map(|key| bucket[self.index_of(*key)]);
            let left: Vec<JoinEvent> = left.chain(bucket[self.keys.len()..].iter().copied()).collect();
            bucket.clear();
            bucket.extend(left);
        }
        self.clear();
    }

    fn clear(&mut self) {
        self.keys.clear();
        self.keys.shrink_to(MAX_KEPT);
        self.taken = 0;
    }
}

fn position_of(number: u64) -> usize {
    (number % BUCKETS as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Kind;
    use crate::join::{Fingerprinter, LabelsKey};

    /// Events of few times, so that ties of every kind are among them; `pid` is the number of arrival.
    fn events(count: u32, from_ns: u64) -> Vec<JoinEvent> {
        let prints = Fingerprinter::random();
        let mut random = 1_u64;
        let mut below = |bound: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % bound
        };
        let event = |number: u32| JoinEvent {
            timestamp_ns: from_ns + u64::from(number / 16) * 20 + below(300),
            request: prints.request("r"),
            item: prints.item("i"),
            source: prints.source("s"),
            pid: number,
            labels: LabelsKey(0),
            kind: Kind::ALL[usize::try_from(below(4)).expect("below four")],
            wants_report: false,
        };
        (0..count).map(event).collect()
    }

    fn sorted(mut events: Vec<JoinEvent>) -> Vec<JoinEvent> {
        events.sort_by_key(|event| (event.timestamp_ns, event.kind, event.pid));
        events
    }

    #[test]
    fn events_come_out_in_order_however_they_are_taken() {
        // From buckets shorter than the time between two events to one for all of them.
        for wait_ns in [1, 20_000, 1_000_000, 1 << 50] {
            let all = events(2000, 1_000_000);
            let (mut reorder, mut taken) = (Reorder::new(wait_ns), Vec::new());
            for (number, event) in all.iter().enumerate() {
                reorder.push(event);
                // Nothing that is pushed later is before this.
                let until_ns = event.timestamp_ns.saturating_sub(300);
                match number % 7 {
                    0 => reorder.take(Until::Before(until_ns), taken.len() + 5, &mut taken),
                    3 => {
                        reorder.take(Until::Before(reorder.bucket_begin_ns(until_ns)), usize::MAX, &mut taken)
                    }
                    5 if number % 5 == 0 => reorder.take(Until::Before(until_ns), usize::MAX, &mut taken),
                    _ => {}
                }
                if number % 501 == 500 {
                    let before = reorder.events();
                    let mut again = Reorder::new(wait_ns);
                    before.iter().for_each(|event| again.push(event));
                    assert_eq!(before.len() + taken.len(), number + 1);
                    assert_eq!(again.middle_ns(), reorder.middle_ns(), "{wait_ns} {number}");
                    reorder = again;
                }
            }
            reorder.take(Until::TheEnd, usize::MAX, &mut taken);
            assert!(reorder.is_empty());
            assert_eq!(taken, sorted(all), "{wait_ns}");
        }
    }

    /// However many there are, and whether there is room for all of it in a key or in half of one.
    #[test]
    fn a_bucket_is_put_in_order_however_it_is_done() {
        for count in [1, 2, 15, 16, 17, 63, 64, 65, 100] {
            for width_bits in [10, 22, 23, 24, 25, MAX_WIDTH_BITS, u64::BITS - 8] {
                // Around the middle of a bucket, where the first bit of its times changes.
                let all = events(count, (1 << (width_bits - 1)) - 200);
                let (mut order, mut bucket) = (Order::default(), all.clone());
                order.sort(&mut bucket, width_bits);
                let in_order: Vec<JoinEvent> =
                    order.left().iter().map(|key| bucket[order.index_of(*key)]).collect();
                assert_eq!(in_order, sorted(all.clone()), "{count} {width_bits}");
            }
        }
    }
}
