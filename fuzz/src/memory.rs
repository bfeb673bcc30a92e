//! How much memory is in use.

use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Bytes in use now.
pub(crate) fn in_use() -> usize {
    ALLOCATOR.current_usage()
}

/// Does the work. Returns its result, and how many bytes it had in use at most beside those that were in use before.
pub(crate) fn peak<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = in_use();
    ALLOCATOR.reset_peak_usage();
    let result = work();
    (result, ALLOCATOR.peak_usage().saturating_sub(before))
}
