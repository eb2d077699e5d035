//! The reorder buffer: events that the watermark has not passed.
//!
//! Events are put into buckets by their time, each in order of arrival, and a bucket is sorted when
//! the watermark comes to it. Sorting keeps the order of equal ones and costs little where they are
//! nearly in order, as they mostly are.

#![expect(clippy::cast_possible_truncation, reason = "there are BUCKETS positions")]

use std::collections::BTreeMap;

use super::Until;
use crate::join::event::JoinEvent;

/// Buckets in the ring.
const BUCKETS: usize = 4096;
/// The longest usual wait spans this many buckets, so that the ring has room for sources that are far
/// behind the newest one.
const BUCKETS_PER_WAIT: u64 = 256;
/// Room for more events than this is not kept when a bucket has been emptied.
const MAX_KEPT: usize = 1024;
/// Emptied buckets whose room is kept for the next ones. The last one emptied is used first: it is
/// still in the cache.
const MAX_SPARE: usize = 64;

#[derive(Debug)]
pub(in super::super) struct Reorder {
    /// A bucket lasts two to the power of this many nanoseconds.
    width_bits: u32,
    /// The number since the epoch of the first bucket of the ring; no event is in an earlier one.
    first: u64,
    ring: Vec<Bucket>,
    /// Events in the ring.
    in_ring: usize,
    /// Buckets too far ahead for the ring, by number.
    beyond: BTreeMap<u64, Vec<JoinEvent>>,
    in_beyond: usize,
    /// Room of emptied buckets.
    spare: Vec<Vec<JoinEvent>>,
    /// Room of all buckets together, in events.
    room: usize,
}

#[derive(Debug, Clone, Default)]
struct Bucket {
    events: Vec<JoinEvent>,
    /// Events taken from the front.
    taken: usize,
    is_unsorted: bool,
}

impl Reorder {
    /// `wait_ns` is how long an event usually waits.
    pub(in super::super) fn new(wait_ns: u64) -> Self {
        Self {
            width_bits: (wait_ns / BUCKETS_PER_WAIT).max(1).ilog2(),
            first: 0,
            ring: vec![Bucket::default(); BUCKETS],
            in_ring: 0,
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
        (self.room * size_of::<JoinEvent>() + BUCKETS * size_of::<Bucket>() + map) as u64
            + (self.spare.capacity() * size_of::<Vec<JoinEvent>>()) as u64
    }

    /// Takes in an event that is not before the watermark.
    pub(in super::super) fn push(&mut self, event: JoinEvent) {
        let number = event.timestamp_ns >> self.width_bits;
        if self.is_empty() {
            // Whatever comes later may be earlier than this event, though not before the watermark;
            // `take` has come as far as the watermark.
            self.first = self.first.min(number);
        }
        debug_assert!(number >= self.first, "an event before the watermark is late");
        let bucket = if number - self.first < BUCKETS as u64 {
            self.in_ring += 1;
            let bucket = &mut self.ring[position_of(number)];
            match bucket.events.last() {
                Some(last) => bucket.is_unsorted |= order_of(&event) < order_of(last),
                // The room of spare buckets is counted all the time.
                None => bucket.events = self.spare.pop().unwrap_or_default(),
            }
            &mut bucket.events
        } else {
            self.in_beyond += 1;
            self.beyond.entry(number).or_default()
        };
        self.room -= bucket.capacity();
        bucket.push(event);
        self.room += bucket.capacity();
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
        loop {
            if self.in_ring == 0 {
                let next = self.beyond.first_key_value().map_or(end, |(number, _)| *number);
                self.first = self.first.max(next.min(end));
                self.admit();
                if self.in_ring == 0 {
                    return;
                }
            }
            let bucket = &mut self.ring[position_of(self.first)];
            if !bucket.events.is_empty() {
                self.in_ring -= bucket.take(until, most, out);
                if bucket.taken < bucket.events.len() {
                    return;
                }
                let mut emptied = std::mem::take(bucket).events;
                if emptied.capacity() <= MAX_KEPT && self.spare.len() < MAX_SPARE {
                    emptied.clear();
                    self.spare.push(emptied);
                } else {
                    self.room -= emptied.capacity();
                }
            }
            if self.first >= end {
                return;
            }
            self.first += 1;
            self.admit();
        }
    }

    /// A time by which half of the events would be taken, if there are any.
    pub(in super::super) fn middle_ns(&self) -> Option<u64> {
        let ring = (0..BUCKETS as u64).map_while(|step| {
            let number = self.first.checked_add(step)?;
            let bucket = &self.ring[position_of(number)];
            Some((number, bucket.events.len() - bucket.taken))
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

    /// Every event, those of one bucket in order of arrival: pushing them again gives the same buffer.
    pub(in super::super) fn events(&self) -> Vec<JoinEvent> {
        let ring = (0..BUCKETS as u64).flat_map(|step| {
            let bucket = &self.ring[position_of(self.first.wrapping_add(step))];
            &bucket.events[bucket.taken..]
        });
        ring.chain(self.beyond.values().flatten()).copied().collect()
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
            debug_assert!(bucket.events.is_empty(), "a bucket was in the ring and beyond it");
            self.room -= bucket.events.capacity();
            *bucket = Bucket { events, taken: 0, is_unsorted: true };
        }
    }
}

impl Bucket {
    /// Returns how many were taken.
    fn take(&mut self, until: Until, most: usize, out: &mut Vec<JoinEvent>) -> usize {
        if self.is_unsorted {
            self.events[self.taken..].sort_by_cached_key(order_of);
            self.is_unsorted = false;
        }
        let room = most.saturating_sub(out.len());
        let due = self.events[self.taken..].iter().take(room);
        let before = out.len();
        out.extend(due.take_while(|event| until.is_due(event.timestamp_ns)));
        let taken = out.len() - before;
        self.taken += taken;
        taken
    }
}

fn order_of(event: &JoinEvent) -> (u64, crate::domain::Kind) {
    (event.timestamp_ns, event.kind)
}

fn position_of(number: u64) -> usize {
    (number % BUCKETS as u64) as usize
}
