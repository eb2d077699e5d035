//! How the process gets memory from the system, and that what is large is given back.

/// Blocks of this size or more are the system's again as soon as they are freed. Smaller ones come and go with each
/// batch of records.
#[cfg(target_env = "gnu")]
const LARGE_BYTES: libc::c_int = 1 << 20;

/// Has large blocks given back to the system when they are freed.
///
/// The GNU C library begins so with those of 128 KiB, but each one that is freed raises the mark to its size, up to
/// 32 MiB. What was read at the start and the tables that have grown would then stay with the process. Other libraries
/// are left as they are.
pub(super) fn give_back_large_blocks() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it sets a number that the allocator reads, and takes the allocator's lock for that.
    let is_set = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BYTES) };
    #[cfg(target_env = "gnu")]
    debug_assert_eq!(is_set, 1, "the mark is not above the highest one that there is");
}
