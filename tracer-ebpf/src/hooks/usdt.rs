//! A USDT probe: a place that the program's author marked, with the places of its arguments in a note.
//!
//!     DTRACE_PROBE2(provider, name, request_id, item_id)
//!
//! What the note says stands in `USDT_SITES`. As in `sdk.rs`, and for the reason given there, each step is a
//! function of its own with less than 64 bytes of stack.

use core::{arch::asm, ffi::c_void};

use aya_ebpf::{
    EbpfContext, helpers::generated::bpf_get_attach_cookie, macros::uprobe, programs::ProbeContext,
};
use tracer_common::{
    counters::{HitOutcome, Hook},
    limits::ID_BUFFER_LEN,
    record::{KIND_SDK, SdkRecord},
    usdt::{
        MAX_REGISTER_OFFSET, NO_REGISTER, UsdtId, UsdtValue, VALUE_CONSTANT, VALUE_MEMORY, VALUE_REGISTER,
        cookie_site,
    },
};

use crate::{
    emit::{self, Wakeup},
    maps::USDT_SITES,
    read,
};

#[uprobe]
pub fn exposure_usdt(context: ProbeContext) -> u32 {
    emit::run(&context, Hook::Exposure, || record(context.as_ptr(), Hook::Exposure))
}

#[uprobe(sleepable)]
pub fn exposure_usdt_sleepable(context: ProbeContext) -> u32 {
    emit::run(&context, Hook::Exposure, || record_sleepable(context.as_ptr(), Hook::Exposure))
}

#[uprobe]
pub fn click_usdt(context: ProbeContext) -> u32 {
    emit::run(&context, Hook::Click, || record(context.as_ptr(), Hook::Click))
}

#[uprobe(sleepable)]
pub fn click_usdt_sleepable(context: ProbeContext) -> u32 {
    emit::run(&context, Hook::Click, || record_sleepable(context.as_ptr(), Hook::Click))
}

/// Brings a page that is not in memory there, with nothing reserved on the ring meanwhile, and reads again.
#[inline(always)]
fn record_sleepable(context: *mut c_void, hook: Hook) -> Result<(), HitOutcome> {
    match record(context, hook) {
        Err(HitOutcome::ReadFault) => {
            fault_in(context);
            record(context, hook)
        }
        done => done,
    }
}

/// Makes the record of a hit.
#[inline(never)]
fn record(context: *mut c_void, hook: Hook) -> Result<(), HitOutcome> {
    let mut entry = emit::reserve::<SdkRecord>()?;
    let record = entry.write(SdkRecord {
        header: emit::header(KIND_SDK, hook, cookie(context)),
        request_id_len: 0,
        item_id_len: 0,
        request_id: [0; ID_BUFFER_LEN],
        item_id: [0; ID_BUFFER_LEN],
    });
    match copy_ids(context, record) {
        Ok(()) => {
            emit::submit(entry, Wakeup::Batched);
            Ok(())
        }
        Err(outcome) => {
            emit::discard(entry);
            Err(outcome)
        }
    }
}

#[inline(always)]
fn copy_ids(context: *mut c_void, record: &mut SdkRecord) -> Result<(), HitOutcome> {
    let ids = USDT_SITES.get(cookie_site(record.header.cookie)).ok_or(HitOutcome::ReadFault)?;
    // SAFETY: the buffer has the length that is asked for.
    let len = unsafe { copy_id(context, &ids.request_id, record.request_id.as_mut_ptr()) };
    record.request_id_len = unpack(len)?;
    // SAFETY: as above.
    let len = unsafe { copy_id(context, &ids.item_id, record.item_id.as_mut_ptr()) };
    record.item_id_len = unpack(len)?;
    Ok(())
}

/// Copies an id into its buffer and returns its length in bytes, or why not, in one register.
///
/// # Safety
/// `buffer` must have room for [`ID_BUFFER_LEN`] bytes.
#[inline(never)]
unsafe fn copy_id(context: *mut c_void, id: &UsdtId, buffer: *mut u8) -> u64 {
    let Some(address) = value(context, &id.address) else { return UNREADABLE };
    let copied = if id.has_len == 0 {
        // SAFETY: the caller gives the room.
        unsafe { read::c_string(buffer, address) }
    } else {
        let Some(len) = value(context, &id.len) else { return UNREADABLE };
        // SAFETY: the caller gives the room.
        unsafe { read::id_bytes(buffer, address, len) }
    };
    match copied {
        Ok(len) => u64::from(len),
        Err(HitOutcome::IdTooLong) => TOO_LONG,
        Err(_) => UNREADABLE,
    }
}

#[inline(always)]
fn unpack(copied: u64) -> Result<u32, HitOutcome> {
    match copied {
        TOO_LONG => Err(HitOutcome::IdTooLong),
        UNREADABLE => Err(HitOutcome::ReadFault),
        len => Ok(len as u32),
    }
}

const TOO_LONG: u64 = 1 << 32;
const UNREADABLE: u64 = 2 << 32;

/// Brings the pages that the ids are on into memory, and before them those that say where they are.
#[inline(never)]
fn fault_in(context: *mut c_void) {
    let Some(ids) = USDT_SITES.get(cookie_site(cookie(context))) else { return };
    fault_in_id(context, &ids.request_id);
    fault_in_id(context, &ids.item_id);
}

#[inline(never)]
fn fault_in_id(context: *mut c_void, id: &UsdtId) {
    if id.address.kind == VALUE_MEMORY {
        read::fault_in(place(context, &id.address).unwrap_or(0));
    }
    if id.len.kind == VALUE_MEMORY {
        read::fault_in(place(context, &id.len).unwrap_or(0));
    }
    read::fault_in(value(context, &id.address).unwrap_or(0));
}

/// The value of an argument.
#[inline(always)]
fn value(context: *mut c_void, argument: &UsdtValue) -> Option<u64> {
    let raw = match argument.kind {
        VALUE_CONSTANT => argument.constant as u64,
        VALUE_REGISTER => register(context, argument.base)?,
        _ => {
            let address = place(context, argument)?;
            match argument.size {
                1 => u64::from(read::user::<u8>(address)?),
                2 => u64::from(read::user::<u16>(address)?),
                4 => u64::from(read::user::<u32>(address)?),
                _ => read::user::<u64>(address)?,
            }
        }
    };
    let unused = 64_u32.wrapping_sub(u32::from(argument.size) * 8) & 63;
    Some(if argument.is_signed == 0 {
        raw << unused >> unused
    } else {
        ((raw << unused) as i64 >> unused) as u64
    })
}

/// Where in memory an argument is.
#[inline(always)]
fn place(context: *mut c_void, argument: &UsdtValue) -> Option<u64> {
    let mut address = register(context, argument.base)?.wrapping_add(argument.constant as u64);
    if argument.index != NO_REGISTER {
        address = address.wrapping_add(register(context, argument.index)? << (argument.scale & 3));
    }
    Some(address)
}

/// A saved register.
#[inline(always)]
fn register(context: *mut c_void, offset: u16) -> Option<u64> {
    let mut offset = u64::from(offset);
    let mask = MAX_REGISTER_OFFSET as u64 - 1;
    // In assembler so that it stays beside the addition: older kernels lose the bound of a value that the
    // compiler has put on the stack in between.
    // SAFETY: arithmetic on two registers.
    unsafe {
        asm!("{value} &= {mask}", value = inout(reg) offset, mask = in(reg) mask, options(pure, nomem, nostack));
    }
    read::kernel(context as u64, offset as usize)
}

#[inline(always)]
fn cookie(context: *mut c_void) -> u64 {
    // SAFETY: the context is the one this program was called with.
    unsafe { bpf_get_attach_cookie(context) }
}
