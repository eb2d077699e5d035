//! Reading memory of the traced process and of the kernel, one bounded read at a time.

use core::{arch::asm, ffi::c_void};

use aya_ebpf::helpers::{
    bpf_probe_read_kernel,
    generated::{self, bpf_copy_from_user, bpf_probe_read_user, bpf_probe_read_user_str},
};
use tracer_common::{
    counters::HitOutcome,
    limits::{ID_BUFFER_LEN, MAX_ID_LEN},
};

/// Size of the smallest page of any architecture supported.
const PAGE_LEN: u64 = 4096;

/// Reads one value of the kernel at `base + offset`.
#[inline(always)]
pub fn kernel<T>(base: u64, offset: usize) -> Option<T> {
    // SAFETY: the helper checks the address and fails on a bad one.
    unsafe { bpf_probe_read_kernel((base + offset as u64) as *const T) }.ok()
}

/// Reads one number of the kernel at `base + offset`; 0 where it cannot be read. Without a branch, each
/// of which doubles what the kernel has to verify after it.
#[inline(always)]
pub fn kernel_or_zero<T: From<u8>>(base: u64, offset: usize) -> T {
    let mut value = T::from(0);
    let source = (base + offset as u64) as *const c_void;
    // SAFETY: the room has that size; the helper checks the source, and fills with zeros when it fails.
    let _ =
        unsafe { generated::bpf_probe_read_kernel((&raw mut value).cast(), size_of::<T>() as u32, source) };
    value
}

/// Reads one value of the traced process at `address`.
#[inline(always)]
pub fn user<T>(address: u64) -> Option<T> {
    // SAFETY: the helper checks the address and fails on a bad one.
    unsafe { aya_ebpf::helpers::bpf_probe_read_user(address as *const T) }.ok()
}

/// Copies `len` bytes of the traced process from `address` to `destination`.
///
/// # Safety
/// `destination` must have room for `len` bytes.
#[inline(always)]
pub unsafe fn user_bytes(destination: *mut u8, len: u32, address: u64) -> Result<(), HitOutcome> {
    // SAFETY: the caller gives the room; the helper checks the source.
    match unsafe { bpf_probe_read_user(destination.cast(), len, address as *const c_void) } {
        0 => Ok(()),
        _ => Err(HitOutcome::ReadFault),
    }
}

/// Copies a C string from `address` into an id buffer and returns its length in bytes. A null
/// pointer is an empty id, as it is for the SDK.
///
/// # Safety
/// `destination` must have room for [`ID_BUFFER_LEN`] bytes.
#[inline(always)]
pub unsafe fn c_string(destination: *mut u8, address: u64) -> Result<u32, HitOutcome> {
    if address == 0 {
        return Ok(0);
    }
    // One byte more than the longest id with its zero: a string that fills it was longer.
    const READ_LEN: u32 = MAX_ID_LEN as u32 + 2;
    const _: () = assert!(READ_LEN as usize <= ID_BUFFER_LEN);
    // SAFETY: the caller gives the room; the helper checks the source.
    let copied = unsafe { bpf_probe_read_user_str(destination.cast(), READ_LEN, address as *const c_void) };
    if copied < 0 {
        return Err(HitOutcome::ReadFault);
    }
    // The terminating zero counts, but for an empty string older kernels (6.1 among them) return 0.
    let len = if copied > 0 { copied as u32 - 1 } else { 0 };
    if len > MAX_ID_LEN as u32 {
        return Err(HitOutcome::IdTooLong);
    }
    Ok(len)
}

/// Copies an id of `len` bytes from `address` and returns that length.
///
/// # Safety
/// `destination` must have room for [`ID_BUFFER_LEN`] bytes.
#[inline(always)]
pub unsafe fn id_bytes(destination: *mut u8, address: u64, len: u64) -> Result<u32, HitOutcome> {
    if len == 0 {
        return Ok(0);
    }
    if len > MAX_ID_LEN as u64 {
        return Err(HitOutcome::IdTooLong);
    }
    let len = bounded::<MAX_ID_LEN>(len as u32);
    // SAFETY: the caller gives the room.
    unsafe { user_bytes(destination, len, address) }?;
    Ok(len)
}

/// The same length, 1 to `CAPACITY`, in a form whose bound the verifier sees: kernels before 6.5 lose
/// the bound of a value that the compiler keeps on the stack. `CAPACITY` is a power of two.
#[inline(always)]
pub fn bounded<const CAPACITY: usize>(len: u32) -> u32 {
    const { assert!(CAPACITY.is_power_of_two()) };
    let mut less_one = u64::from(len - 1);
    let mask = CAPACITY as u64 - 1;
    // In assembler because the compiler knows that the mask changes nothing, and would leave it out.
    // SAFETY: arithmetic on two registers.
    unsafe {
        asm!("{value} &= {mask}", value = inout(reg) less_one, mask = in(reg) mask, options(pure, nomem, nostack));
    }
    (less_one + 1) as u32
}

/// Brings the one or two pages that an id at `address` can lie on into memory. For sleepable
/// programs only: it may wait for a disk.
#[inline(always)]
pub fn fault_in(address: u64) {
    if address == 0 {
        return;
    }
    let mut byte = 0u8;
    let last = address + MAX_ID_LEN as u64;
    // What cannot be brought in shows in the read that follows, which is the one that counts.
    // SAFETY: one byte of room; the helper checks the source.
    let _ = unsafe { bpf_copy_from_user((&raw mut byte).cast(), 1, address as *const c_void) };
    if address / PAGE_LEN != last / PAGE_LEN {
        // SAFETY: one byte of room; the helper checks the source.
        let _ = unsafe { bpf_copy_from_user((&raw mut byte).cast(), 1, last as *const c_void) };
    }
}
