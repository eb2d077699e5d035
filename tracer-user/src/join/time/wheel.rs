//! When to look whether a packed group is over: a ring of buckets by time.
//!
//! It may be looked at later than it is over, because whoever reads a group leaves out what is
//! forgotten. So expiry can be done a few groups at a time, and costs the same for each.

#![expect(clippy::cast_possible_truncation, reason = "there are BUCKETS positions")]

use std::collections::BTreeMap;

use super::super::packed::arena::Handle;

const BUCKETS: usize = 8192;
/// From the first bucket of the ring to its last.
const SPAN: u64 = BUCKETS as u64 - 1;
/// The longest retention spans this many buckets, so that the ring is never full. An eviction looks at whole buckets, so they
/// are small.
const BUCKETS_PER_RETENTION: u64 = 4096;

/// The bucket of a group that was never in one.
pub(in super::super) const NO_BUCKET: u16 = u16::MAX;
/// The bucket of a group that was taken out of the wheel.
pub(in super::super) const TAKEN_OUT: u16 = u16::MAX - 1;

#[derive(Debug)]
pub(in super::super) struct Wheel {
    /// How long a bucket lasts.
    width_ns: u64,
    /// The number of the first bucket since the epoch that may have something in it.
    first: u64,
    /// The number of the last one of the ring that may have.
    last: u64,
    ring: Vec<Vec<Handle>>,
    /// Groups in the ring.
    in_ring: usize,
    /// Buckets too far ahead for the ring, by number. Only a leap in time fills them.
    beyond: BTreeMap<u64, Vec<Handle>>,
    /// Room of all buckets together, in handles.
    room: usize,
}

impl Wheel {
    pub(in super::super) fn new(retention_ns: u64) -> Self {
        Self {
            width_ns: (retention_ns / BUCKETS_PER_RETENTION).max(1),
            first: 0,
            last: 0,
            ring: vec![Vec::new(); BUCKETS],
            in_ring: 0,
            beyond: BTreeMap::new(),
            room: 0,
        }
    }

    /// What it takes, spare room included.
    pub(in super::super) fn bytes(&self) -> u64 {
        // A node of the map has room for eleven buckets and is at least half full.
        let buckets = BUCKETS + 2 * self.beyond.len();
        (buckets * size_of::<Vec<Handle>>() + self.room * size_of::<Handle>()) as u64
    }

    /// Has a group looked at when this time is over. Returns its bucket, which the group must keep: it
    /// tells this entry from one that an earlier group at the same place left behind.
    pub(in super::super) fn insert(&mut self, group: Handle, until_ns: u64) -> u16 {
        let wanted = until_ns / self.width_ns;
        if self.in_ring == 0 && self.beyond.is_empty() {
            (self.first, self.last) = (wanted, wanted);
        }
        // What is put in is not over yet and nothing is in the ring for longer than the retention; so
        // this only delays what a very late event has brought back.
        let number = wanted.max(self.last.saturating_sub(SPAN));
        self.first = self.first.min(number);
        let bucket = if number - self.first <= SPAN {
            self.last = self.last.max(number);
            self.in_ring += 1;
            &mut self.ring[position_of(number)]
        } else {
            self.beyond.entry(number).or_default()
        };
        self.room -= bucket.capacity();
        bucket.push(group);
        self.room += bucket.capacity();
        position_of(number) as u16
    }

    /// Whether a bucket with something in it ended before this time.
    pub(in super::super) fn is_due(&mut self, time_ns: u64) -> bool {
        self.seek() && self.first_end_ns() < time_ns
    }

    /// A group whose bucket ended before this time, and the bucket.
    pub(in super::super) fn pop_before(&mut self, time_ns: u64) -> Option<(Handle, u16)> {
        if self.is_due(time_ns) { self.pop() } else { None }
    }

    /// A group whose bucket begins at this time or before, and the bucket.
    pub(in super::super) fn pop_begun_by(&mut self, time_ns: u64) -> Option<(Handle, u16)> {
        let is_begun = self.seek() && self.first.saturating_mul(self.width_ns) <= time_ns;
        if is_begun { self.pop() } else { None }
    }

    /// The groups that `pop_before` may return next.
    pub(in super::super) fn next(&self) -> impl Iterator<Item = &Handle> {
        self.ring[position_of(self.first)].iter().rev()
    }

    /// The end of the first bucket that has something in it: the last time for which a group in it may
    /// have been put in. `None` when there is none.
    pub(in super::super) fn oldest_ns(&mut self) -> Option<u64> {
        self.seek().then(|| self.first_end_ns())
    }

    /// The last time of the bucket that this time is in.
    pub(in super::super) fn end_of(&self, time_ns: u64) -> u64 {
        (time_ns / self.width_ns).saturating_mul(self.width_ns).saturating_add(self.width_ns - 1)
    }

    /// The last time of the first bucket.
    fn first_end_ns(&self) -> u64 {
        self.first.saturating_mul(self.width_ns).saturating_add(self.width_ns - 1)
    }

    fn pop(&mut self) -> Option<(Handle, u16)> {
        let position = position_of(self.first);
        let bucket = &mut self.ring[position];
        let group = bucket.pop()?;
        self.in_ring -= 1;
        if bucket.is_empty() {
            self.room -= bucket.capacity();
            *bucket = Vec::new();
        }
        Some((group, position as u16))
    }

    /// Goes to the first bucket that has something in it. `false` when there is none.
    fn seek(&mut self) -> bool {
        if self.in_ring == 0 {
            let Some((number, _)) = self.beyond.first_key_value() else { return false };
            (self.first, self.last) = (*number, *number);
            self.admit();
        }
        while self.ring[position_of(self.first)].is_empty() {
            self.first += 1;
            self.admit();
        }
        true
    }

    /// Moves what the ring has come to reach into it.
    fn admit(&mut self) {
        while let Some(entry) = self.beyond.first_entry()
            && entry.key().saturating_sub(self.first) <= SPAN
        {
            let (number, groups) = entry.remove_entry();
            self.in_ring += groups.len();
            self.last = self.last.max(number);
            let bucket = &mut self.ring[position_of(number)];
            self.room -= bucket.capacity() + groups.capacity();
            bucket.extend(groups);
            self.room += bucket.capacity();
        }
    }
}

fn position_of(number: u64) -> usize {
    (number % BUCKETS as u64) as usize
}
