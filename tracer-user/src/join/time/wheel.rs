//! When to look whether a packed group is over: a ring of buckets by time.
//!
//! It may be looked at later than it is over, because whoever reads a group leaves out what is
//! forgotten. So expiry can be done a few groups at a time, and costs the same for each.

use super::super::packed::arena::Handle;

const BUCKETS: usize = 1024;
/// The longest retention spans this many buckets, so that the ring is never full.
const BUCKETS_PER_RETENTION: u64 = 512;

/// The bucket of a group that is in none.
pub(in super::super) const NO_BUCKET: u16 = u16::MAX;

#[derive(Debug)]
pub(in super::super) struct Wheel {
    /// How long a bucket lasts.
    width_ns: u64,
    /// The number of the first bucket since the epoch that may have something in it.
    first: u64,
    /// The number of the last one that may have.
    last: u64,
    buckets: Vec<Vec<Handle>>,
    len: usize,
    /// Room of all buckets together, in handles.
    room: usize,
}

impl Wheel {
    pub(in super::super) fn new(retention_ns: u64) -> Self {
        Self {
            width_ns: (retention_ns / BUCKETS_PER_RETENTION).max(1),
            first: 0,
            last: 0,
            buckets: vec![Vec::new(); BUCKETS],
            len: 0,
            room: 0,
        }
    }

    /// What it takes, spare room included.
    pub(in super::super) fn bytes(&self) -> u64 {
        (BUCKETS * size_of::<Vec<Handle>>() + self.room * size_of::<Handle>()) as u64
    }

    /// Has a group looked at when this time is over. Returns its bucket, which the group must keep: it
    /// tells this entry from one that an earlier group at the same place left behind.
    pub(in super::super) fn insert(&mut self, group: Handle, until_ns: u64) -> u16 {
        let wanted = until_ns / self.width_ns;
        const SPAN: u64 = BUCKETS as u64 - 1;
        if self.len == 0 {
            (self.first, self.last) = (wanted, wanted);
        }
        // Too far ahead: it is looked at too early, and put in again. Never too far behind: what is
        // put in has not begun to be over, and nothing is in for longer than the retention.
        let number = wanted.clamp(self.last.saturating_sub(SPAN), self.first.saturating_add(SPAN));
        self.first = self.first.min(number);
        self.last = self.last.max(number);
        let position = position_of(number);
        let bucket = &mut self.buckets[position];
        self.room -= bucket.capacity();
        bucket.push(group);
        self.room += bucket.capacity();
        self.len += 1;
        position as u16
    }

    /// Whether a bucket with something in it ended before this time.
    pub(in super::super) fn is_due(&mut self, time_ns: u64) -> bool {
        self.seek();
        self.len > 0 && self.first_end_ns() < time_ns
    }

    /// A group whose bucket ended before this time, and the bucket.
    pub(in super::super) fn pop_before(&mut self, time_ns: u64) -> Option<(Handle, u16)> {
        if self.is_due(time_ns) { self.pop() } else { None }
    }

    /// The groups that `pop_before` may return next.
    pub(in super::super) fn next(&self) -> impl Iterator<Item = &Handle> {
        self.buckets[position_of(self.first)].iter().rev()
    }

    /// A group whose bucket begins at this time or before, and the bucket.
    pub(in super::super) fn pop_begun_by(&mut self, time_ns: u64) -> Option<(Handle, u16)> {
        self.seek();
        if self.len == 0 || self.first.saturating_mul(self.width_ns) > time_ns {
            return None;
        }
        self.pop()
    }

    /// The end of the first bucket that has something in it: the last time for which a group in it may
    /// have been put in. `None` when there is none.
    pub(in super::super) fn oldest_ns(&mut self) -> Option<u64> {
        self.seek();
        (self.len > 0).then(|| self.first_end_ns())
    }

    fn first_end_ns(&self) -> u64 {
        self.first.saturating_mul(self.width_ns).saturating_add(self.width_ns - 1)
    }

    fn pop(&mut self) -> Option<(Handle, u16)> {
        let position = position_of(self.first);
        let bucket = &mut self.buckets[position];
        let group = bucket.pop()?;
        self.len -= 1;
        if bucket.is_empty() {
            self.room -= bucket.capacity();
            *bucket = Vec::new();
        }
        Some((group, position as u16))
    }

    /// Goes to the first bucket that has something in it.
    fn seek(&mut self) {
        while self.len > 0 && self.buckets[position_of(self.first)].is_empty() {
            self.first += 1;
        }
    }
}

fn position_of(number: u64) -> usize {
    (number % BUCKETS as u64) as usize
}
