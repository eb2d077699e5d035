//! Reading the ring buffer without giving its room back at once.
//!
//! aya's own reader gives a record back to the kernel as soon as it is looked at. What is not journaled
//! by then is gone with the process, so this one separates the two: [`Ring::read`] looks ahead as far as
//! it likes, and [`Ring::release`] gives back everything up to a position. That position is kept by the
//! kernel with the ring, so whoever opens a pinned ring goes on where the last one released.
//!
//! Knows nothing of what is in a record. `run/worker.rs` is the only reader.

use std::{
    os::fd::{AsFd, AsRawFd as _, BorrowedFd},
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use aya::maps::{Map, MapData, MapError, MapInfo};
use memmap2::{MmapOptions, MmapRaw};

/// `BPF_RINGBUF_BUSY_BIT`: the record is not submitted yet.
const BUSY: u32 = 1 << 31;
/// `BPF_RINGBUF_DISCARD_BIT`: the record was given back unsent.
const DISCARDED: u32 = 1 << 30;
/// `BPF_RINGBUF_HDR_SZ`: the length, and where the record's page is.
const HEADER_LEN: u64 = 8;

/// A ring buffer and how far it was read.
///
/// Positions count bytes since the ring was made and do not wrap.
pub struct Ring {
    map: MapData,
    /// The page with the position up to which the kernel may write again.
    consumer: MmapRaw,
    /// The page with the position up to which the kernel has reserved, and the records, twice in a row.
    producer: MmapRaw,
    /// Where the records begin within `producer`.
    data_offset: usize,
    capacity: u64,
    /// How far was read; at or past what was released.
    read_position: u64,
}

impl Ring {
    /// Opens the ring and begins where the last reader released.
    ///
    /// # Errors
    /// The map is no ring buffer, or cannot be mapped into memory.
    pub fn open(map: Map) -> Result<Self, MapError> {
        let Map::RingBuf(map) = map else {
            return Err(MapError::InvalidName { name: "not a ring buffer".to_owned() });
        };
        let info = map.info()?;
        let page = rustix::param::page_size();
        let capacity = info.max_entries();
        let fd = map.fd().as_fd().as_raw_fd();
        let consumer = MmapOptions::new().len(page).map_raw(fd).map_err(MapError::IoError)?;
        let producer = MmapOptions::new()
            .offset(page as u64)
            .len(page + 2 * capacity as usize)
            .map_raw_read_only(fd)
            .map_err(MapError::IoError)?;
        let mut ring =
            Self { map, consumer, producer, data_offset: page, capacity: capacity.into(), read_position: 0 };
        ring.read_position = ring.released_position();
        Ok(ring)
    }

    /// The kernel's number of this ring, which no other ring gets before the next boot.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn id(&self) -> Result<u32, MapError> {
        self.map.info().map(|info: MapInfo| info.id())
    }

    /// The next record, if there is one that is submitted. It stays on the ring.
    #[expect(clippy::cast_possible_truncation, reason = "an offset within the ring, whose capacity is a u32")]
    pub fn read(&mut self) -> Option<&[u8]> {
        loop {
            let reserved = position_at(&self.producer).load(Ordering::Acquire);
            if self.read_position >= reserved {
                return None;
            }
            let offset = self.data_offset + (self.read_position & (self.capacity - 1)) as usize;
            // SAFETY: positions are multiples of 8, so the 8 bytes of the header are within the mapping,
            // and they are aligned.
            let header = unsafe { self.producer.as_ptr().add(offset) }.cast::<AtomicU32>();
            // SAFETY: as above; the mapping lives as long as `self`. The kernel writes it atomically.
            let header = unsafe { &*header }.load(Ordering::Acquire);
            if header & BUSY != 0 {
                return None;
            }
            let len = header & !DISCARDED;
            self.read_position += (HEADER_LEN + u64::from(len)).next_multiple_of(8);
            if header & DISCARDED != 0 {
                continue;
            }
            let start = offset + HEADER_LEN as usize;
            assert!(u64::from(len) <= self.capacity, "a record is longer than its ring");
            // SAFETY: the records are mapped twice in a row, so one that begins in the first mapping ends
            // within the second.
            let data = unsafe { self.producer.as_ptr().add(start) };
            // SAFETY: as above. The kernel does not write here again before the position is released,
            // which takes `&mut self`.
            return Some(unsafe { std::slice::from_raw_parts(data, len as usize) });
        }
    }

    /// The first record at this position or past what was read, if that is further. It counts as unread.
    pub fn first_from(&mut self, position: u64) -> Option<&[u8]> {
        let read_position = self.read_position;
        self.read_position = read_position.max(position);
        // Of the record itself only, because the position is put back.
        let found = self.read().map(std::ptr::from_ref);
        self.read_position = read_position;
        // SAFETY: as in `read`: the kernel does not write there before the position is released, which takes `&mut self`.
        found.map(|found| unsafe { &*found })
    }

    /// How far was read.
    pub const fn read_position(&self) -> u64 {
        self.read_position
    }

    /// Bytes on the ring that were not read yet.
    pub fn unread(&self) -> u64 {
        position_at(&self.producer).load(Ordering::Acquire).saturating_sub(self.read_position)
    }

    /// How far the kernel was told that it may write again: where the next opening begins.
    pub fn released_position(&self) -> u64 {
        position_at(&self.consumer).load(Ordering::Acquire)
    }

    /// Gives everything up to `position` back to the kernel.
    pub fn release(&mut self, position: u64) {
        position_at(&self.consumer).store(position, Ordering::Release);
        self.read_position = self.read_position.max(position);
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.map.fd().as_fd()
    }
}

/// The position at the start of a mapping.
fn position_at(pages: &MmapRaw) -> &AtomicU64 {
    let position = pages.as_ptr().cast::<AtomicU64>();
    // SAFETY: a mapping is aligned to a page and at least one page long, and it lives as long as the
    // reference. The kernel reads and writes the position atomically.
    unsafe { &*position }
}
