//! Memory of the large tables: blocks of 64 KiB, cut out of [regions](super::region).

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

use super::region::{POOL, Region};

/// Bytes of a block, which takes about 10 us to copy.
pub(super) const BLOCK_BYTES: usize = 64 << 10;

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
}
