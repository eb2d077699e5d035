//! Regions of 2 MiB, which blocks of memory are cut out of.
//!
//! An event looks at three places that are far apart, and with pages of 4 KiB the processor has to look up where each
//! of them is, which takes as long as to fetch what is there. So the kernel is asked to back a region by one large page.
//! Where it does not, nothing is different but the speed.
//!
//! The kernel clears a large page when it is first written to, which takes up to 5 ms where the memory of a virtual
//! machine has to be found first. So once there is more than one region, a thread makes the next one ahead of its use;
//! whoever is faster than that makes a region too.
//!
//! A region is given back when the last of its blocks is dropped, by whatever thread. Until then its free blocks are
//! for whoever asks next, so what is taken from the system is at most two regions more than there ever were blocks at
//! once, one of them made ahead.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread;

use rustix::mm::{Advice, madvise};

use super::block::BLOCK_BYTES;

/// Blocks of a region; one bit for each in [`Region::free`].
const BLOCKS: usize = u32::BITS as usize;
const REGION: Layout = match Layout::from_size_align(BLOCKS * BLOCK_BYTES, BLOCKS * BLOCK_BYTES) {
    Ok(layout) => layout,
    Err(_) => panic!("a region's size is a power of two"),
};
/// No page is smaller.
const PAGE_BYTES: usize = 4 << 10;

/// Blocks that lie side by side.
pub(super) struct Region {
    memory: NonNull<u8>,
    /// A bit for each block that nobody has. Set by whoever drops a block; cleared under the lock of the pool only.
    free: AtomicU32,
}

// SAFETY: it only keeps the memory and says which blocks are free; each block has one owner.
unsafe impl Send for Region {}
// SAFETY: likewise.
unsafe impl Sync for Region {}

impl Region {
    fn new() -> Self {
        // SAFETY: the layout is of more than no bytes.
        let memory = unsafe { alloc(REGION) };
        let Some(memory) = NonNull::new(memory) else { handle_alloc_error(REGION) };
        // A kernel without large pages refuses; then it is slower and no less right.
        // SAFETY: it is all this region's memory, and stays what it is.
        let _ = unsafe { madvise(memory.as_ptr().cast(), REGION.size(), Advice::LinuxHugepage) };
        Self { memory, free: AtomicU32::new(u32::MAX) }
    }

    /// Has the kernel find the memory and clear it now. Only while nobody has a block.
    fn have_cleared(&self) {
        for page in (0..REGION.size()).step_by(PAGE_BYTES) {
            // SAFETY: it is within the region's memory.
            let place = unsafe { self.memory.add(page) };
            // SAFETY: as nobody has a block, nobody else reads or writes there.
            unsafe { place.write_volatile(0) };
        }
    }

    /// A block that nobody has. Only under the lock of the pool: nobody else claims one then.
    fn claim(&self) -> Option<NonNull<u8>> {
        // What its last owner did with it comes before.
        let number = self.free.load(Ordering::Acquire).trailing_zeros() as usize;
        if number >= BLOCKS {
            return None;
        }
        self.free.fetch_and(!(1 << number), Ordering::Relaxed);
        // SAFETY: it is within the region's memory.
        Some(unsafe { self.memory.add(number * BLOCK_BYTES) })
    }

    pub(super) fn give_back(&self, block: NonNull<u8>) {
        let number = (block.addr().get() - self.memory.addr().get()) / BLOCK_BYTES;
        self.free.fetch_or(1 << number, Ordering::Release);
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: it came from `alloc` with this layout, and no block is left, as each keeps its region.
        unsafe { dealloc(self.memory.as_ptr(), REGION) };
    }
}

/// Where the blocks of all joins come from.
pub(super) static POOL: Pool = Pool::new();

/// All regions.
pub(super) struct Pool {
    regions: Mutex<Regions>,
    /// Asks the thread that makes regions ahead for another one. None where there can be no thread.
    maker: OnceLock<Option<SyncSender<()>>>,
}

struct Regions {
    /// Those that there are, the one that is being used up last, and some that are gone.
    in_use: Vec<Weak<Region>>,
    /// Made ahead.
    ahead: Option<Arc<Region>>,
}

impl Pool {
    const fn new() -> Self {
        let regions = Regions { in_use: Vec::new(), ahead: None };
        Self { regions: Mutex::new(regions), maker: OnceLock::new() }
    }

    /// A block of a region that has one, or of another region.
    pub(super) fn claim(&'static self) -> (NonNull<u8>, Arc<Region>) {
        let mut regions = self.lock();
        if let Some(claimed) = regions.claim() {
            return claimed;
        }
        let region = regions.ahead.take().unwrap_or_else(|| Arc::new(Region::new()));
        let Some(block) = region.claim() else { unreachable!("every block of a new region is free") };
        regions.in_use.push(Arc::downgrade(&region));
        let grows = regions.in_use.len() > 1;
        drop(regions);
        if grows && let Some(maker) = self.maker.get_or_init(|| self.start_maker()) {
            // One that has been asked and has not begun yet needs no second question.
            let _ = maker.try_send(());
        }
        (block, region)
    }

    /// Starts the thread that makes regions.
    fn start_maker(&'static self) -> Option<SyncSender<()>> {
        let (asked, orders) = sync_channel(1);
        let make = move || {
            while orders.recv().is_ok() {
                if self.lock().ahead.is_none() {
                    let region = Region::new();
                    region.have_cleared();
                    self.lock().ahead = Some(Arc::new(region));
                }
            }
        };
        thread::Builder::new().name("memory".to_owned()).spawn(make).ok().map(|_| asked)
    }

    fn lock(&self) -> MutexGuard<'_, Regions> {
        self.regions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Regions {
    /// A block of a region in use.
    fn claim(&mut self) -> Option<(NonNull<u8>, Arc<Region>)> {
        for position in (0..self.in_use.len()).rev() {
            let Some(region) = self.in_use[position].upgrade() else {
                self.in_use.swap_remove(position);
                continue;
            };
            if let Some(block) = region.claim() {
                let last = self.in_use.len() - 1;
                self.in_use.swap(position, last);
                return Some((block, region));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_is_used_again_and_regions_go_with_their_last_block() {
        let pool: &Pool = Box::leak(Box::new(Pool::new()));
        let mut blocks: Vec<_> = (0..BLOCKS + 1).map(|_| pool.claim()).collect();
        let mut places: Vec<usize> = blocks.iter().map(|(block, _)| block.addr().get()).collect();
        places.sort_unstable();
        assert!(places.windows(2).all(|pair| pair[1] - pair[0] >= BLOCK_BYTES), "{places:x?}");
        let regions = || pool.lock().in_use.iter().filter(|region| region.upgrade().is_some()).count();
        assert_eq!(regions(), 2);

        let (block, region) = blocks.remove(BLOCKS / 2);
        region.give_back(block);
        blocks.extend((1..BLOCKS).map(|_| pool.claim()));
        let (again, _) = pool.claim();
        assert_eq!(again, block, "the second region was full");
        drop((blocks, region));
        assert_eq!(regions(), 0);
    }

    #[test]
    fn a_region_is_made_ahead_of_the_next_one_that_is_needed() {
        let pool: &Pool = Box::leak(Box::new(Pool::new()));
        let mut blocks: Vec<_> = (0..BLOCKS).map(|_| pool.claim()).collect();
        assert!(pool.maker.get().is_none(), "a small state needs no second region");
        blocks.push(pool.claim());
        for regions in 2..5 {
            let made = loop {
                if let Some(region) = &pool.lock().ahead {
                    break region.memory;
                }
                thread::yield_now();
            };
            blocks.extend((blocks.len()..=regions * BLOCKS).map(|_| pool.claim()));
            let (_, last) = &blocks[regions * BLOCKS];
            assert_eq!(last.memory, made);
        }
    }
}
