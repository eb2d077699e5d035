//! What the fuzz targets share: an allocator that knows how much is in use, so that a bound of memory is asserted and not
//! only hoped for.

use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Does `work`. Panics if, at any time of it, more than `limit` bytes were in use beyond those that were before.
pub fn within<T>(limit: usize, work: impl FnOnce() -> T) -> T {
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    let result = work();
    let used = ALLOCATOR.peak_usage().saturating_sub(before);
    assert!(used <= limit, "{used} bytes in use at a time, more than {limit}");
    result
}
