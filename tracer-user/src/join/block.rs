//! Memory of the large tables: blocks of 64 KiB, cut out of regions of 2 MiB.
//!
//! An event looks at three places that are far apart, and with pages of 4 KiB the processor has to look up where each
//! of them is, which takes as long as to fetch what is there. So the kernel is asked to back a region by one large page.
//! Where it does not, nothing is different but the speed.
//!
//! A region is given back when the last of its blocks is dropped, by whatever thread. Until then its free blocks are
//! for whoever asks next, so what is taken from the system is at most a region more than there ever were blocks at once.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustix::mm::{Advice, madvise};

/// Bytes of a block, which takes about 10 us to copy.
pub(super) const BLOCK_BYTES: usize = 64 << 10;
/// Blocks of a region; one bit for each in [`Region::free`].
const BLOCKS: usize = u32::BITS as usize;
const REGION: Layout = match Layout::from_size_align(BLOCKS * BLOCK_BYTES, BLOCKS * BLOCK_BYTES) {
    Ok(layout) => layout,
    Err(_) => panic!("a region's size is a power of two"),
};

/// Where the blocks of all joins come from.
static POOL: Pool = Pool(Mutex::new(Vec::new()));

/// So many values, in a block of their own.
pub(super) struct Block<T: Copy, const N: usize> {
    values: NonNull<[T; N]>,
    region: Arc<Region>,
}

// SAFETY: it owns its values as a box does; the region is shared by atomic numbers only.
unsafe impl<T: Copy + Send, const N: usize> Send for Block<T, N> {}
// SAFETY: likewise.
unsafe impl<T: Copy + Sync, const N: usize> Sync for Block<T, N> {}

impl<T: Copy, const N: usize> Block<T, N> {
    /// A block of copies of one value.
    pub(super) fn filled(value: T) -> Self {
        let (values, region) = Self::claim();
        for position in 0..N {
            // SAFETY: there is room for so many values, by the assertion in `claim`.
            let place = unsafe { values.cast::<T>().add(position) };
            // SAFETY: the block is nobody else's, and aligned for any value.
            unsafe { place.write(value) };
        }
        Self { values, region }
    }

    /// A block of these values.
    pub(super) fn copy_of(from: &[T; N]) -> Self {
        let (values, region) = Self::claim();
        // SAFETY: the block is nobody else's, has room for the values and is aligned for them.
        unsafe { NonNull::from(from).copy_to_nonoverlapping(values, 1) };
        Self { values, region }
    }

    /// A block whose values are not there yet.
    fn claim() -> (NonNull<[T; N]>, Arc<Region>) {
        const {
            assert!(size_of::<[T; N]>() == BLOCK_BYTES, "values fill a block");
            assert!(align_of::<T>() <= BLOCK_BYTES, "a block is aligned as a value is");
        }
        let (block, region) = POOL.claim();
        (block.cast(), region)
    }
}

impl<T: Copy, const N: usize> Clone for Block<T, N> {
    fn clone(&self) -> Self {
        Self::copy_of(self)
    }
}

impl<T: Copy, const N: usize> Deref for Block<T, N> {
    type Target = [T; N];

    fn deref(&self) -> &[T; N] {
        // SAFETY: the values were written when it was made, and are there until it is dropped.
        unsafe { self.values.as_ref() }
    }
}

impl<T: Copy, const N: usize> DerefMut for Block<T, N> {
    fn deref_mut(&mut self) -> &mut [T; N] {
        // SAFETY: as above, and nobody else has the block.
        unsafe { self.values.as_mut() }
    }
}

impl<T: Copy, const N: usize> Drop for Block<T, N> {
    fn drop(&mut self) {
        self.region.give_back(self.values.cast());
    }
}

impl<T: Copy, const N: usize> fmt::Debug for Block<T, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Block").finish_non_exhaustive()
    }
}

/// Blocks that lie side by side.
struct Region {
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

    fn give_back(&self, block: NonNull<u8>) {
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

/// Regions: those that there are, the one that is being used up last, and some that are gone.
struct Pool(Mutex<Vec<Weak<Region>>>);

impl Pool {
    /// A block of a region that has one, or of a new one.
    fn claim(&self) -> (NonNull<u8>, Arc<Region>) {
        let mut regions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for position in (0..regions.len()).rev() {
            let Some(region) = regions[position].upgrade() else {
                regions.swap_remove(position);
                continue;
            };
            if let Some(block) = region.claim() {
                let last = regions.len() - 1;
                regions.swap(position, last);
                return (block, region);
            }
        }
        let region = Arc::new(Region::new());
        let Some(block) = region.claim() else { unreachable!("every block of a new region is free") };
        regions.push(Arc::downgrade(&region));
        (block, region)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    type Words = Block<u64, { BLOCK_BYTES / size_of::<u64>() }>;

    #[test]
    fn blocks_that_threads_make_and_drop_keep_their_values() {
        let drop_all = |blocks: Vec<(u64, Words)>| {
            for (value, block) in blocks {
                assert!(block.iter().all(|word| *word == value), "{value}");
            }
        };
        thread::scope(|scope| {
            for thread in 0..4_u64 {
                scope.spawn(move || {
                    let mut kept = Vec::new();
                    for round in 0..200_u64 {
                        let value = thread << 32 | round;
                        kept.push((value, Words::filled(value)));
                        let (first, block) = &kept[kept.len() / 2];
                        let copy = (*first, block.clone());
                        if round % 3 == 0 {
                            // Dropped by another thread than the one that made them.
                            let blocks = std::mem::replace(&mut kept, vec![copy]);
                            scope.spawn(move || drop_all(blocks));
                        } else {
                            kept.push(copy);
                        }
                    }
                    drop_all(kept);
                });
            }
        });
    }

    #[test]
    fn what_is_given_back_is_used_again_and_regions_go_with_their_last_block() {
        let pool = Pool(Mutex::default());
        let mut blocks: Vec<_> = (0..BLOCKS + 1).map(|_| pool.claim()).collect();
        let mut places: Vec<usize> = blocks.iter().map(|(block, _)| block.addr().get()).collect();
        places.sort_unstable();
        assert!(places.windows(2).all(|pair| pair[1] - pair[0] >= BLOCK_BYTES), "{places:x?}");
        let regions =
            || pool.0.lock().map(|regions| regions.iter().filter(|r| r.upgrade().is_some()).count());
        assert_eq!(regions().ok(), Some(2));

        let (block, region) = blocks.remove(BLOCKS / 2);
        region.give_back(block);
        blocks.extend((1..BLOCKS).map(|_| pool.claim()));
        let (again, _) = pool.claim();
        assert_eq!(again, block, "the second region was full");
        drop((blocks, region));
        assert_eq!(regions().ok(), Some(0));
    }
}
