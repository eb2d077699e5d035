//! What the SDK's functions share: where the ids are among the arguments is in the probe's cookie.
//!
//! No function here may take 64 bytes of stack. From there on, kernels since 6.13 give a function one
//! stack for each processor, because programs of this kind cannot interrupt themselves. Those on user
//! space functions can: they sleep, and preemptible kernels switch between two of them. One of the
//! two then goes on with the other's variables. So each step is a function of its own, with a stack
//! of its own, and keeps what it can in the record (checked by `tracer-user/src/attach/stack.rs`).

use core::ffi::c_void;

use aya_ebpf::{EbpfContext, helpers::generated::bpf_get_attach_cookie, programs::ProbeContext};
use tracer_common::{
    counters::{HitOutcome, Hook},
    limits::ID_BUFFER_LEN,
    record::{KIND_SDK, SdkRecord},
    settings::{IdArgument, IdForm, cookie_item_id, cookie_request_id, place_key},
};

use super::registers;
use crate::{
    emit::{self, Wakeup},
    maps::{self, PLACES},
    read,
};

/// Captures a call. A page that is not in memory makes it a read fault.
#[inline(always)]
pub fn capture(context: &ProbeContext, hook: Hook) -> Result<(), HitOutcome> {
    record(context.as_ptr(), hook)
}

/// Captures a call from a program that may sleep: a page that is not in memory is brought in, with
/// nothing reserved on the ring meanwhile, and the call is read again.
#[inline(always)]
pub fn capture_sleepable(context: &ProbeContext, hook: Hook) -> Result<(), HitOutcome> {
    match record(context.as_ptr(), hook) {
        Err(HitOutcome::ReadFault) => {
            fault_in(context.as_ptr(), hook);
            record(context.as_ptr(), hook)
        }
        done => done,
    }
}

/// Makes the record of a call.
#[inline(never)]
fn record(context: *mut c_void, hook: Hook) -> Result<(), HitOutcome> {
    let mut entry = emit::reserve::<SdkRecord>()?;
    let cookie = cookie(context, hook);
    let record = entry.write(SdkRecord {
        header: emit::header(KIND_SDK, hook, cookie),
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
    let request_id = cookie_request_id(record.header.cookie).ok_or(HitOutcome::ReadFault)?;
    record.request_id_len = copy_id(context, request_id, record.request_id.as_mut_ptr())?;
    let item_id = cookie_item_id(record.header.cookie).ok_or(HitOutcome::ReadFault)?;
    record.item_id_len = copy_id(context, item_id, record.item_id.as_mut_ptr())?;
    Ok(())
}

/// Copies an id into its buffer of [`ID_BUFFER_LEN`] bytes and returns its length in bytes.
#[inline(always)]
fn copy_id(context: *mut c_void, argument: IdArgument, buffer: *mut u8) -> Result<u32, HitOutcome> {
    let IdArgument { form, slot } = argument;
    let copied = match form {
        // SAFETY: the buffer has the length that is asked for.
        IdForm::CString => unsafe { copy_c_string(context, slot, buffer) },
        // SAFETY: as above.
        IdForm::PointerAndLength => unsafe { copy_pointer_and_length(context, slot, buffer) },
        // SAFETY: as above.
        IdForm::PairInMemory => unsafe { copy_pair_in_memory(context, slot, buffer) },
    };
    unpack(copied)
}

/// # Safety
/// `buffer` must have room for [`ID_BUFFER_LEN`] bytes. So for the two below.
#[inline(never)]
unsafe fn copy_c_string(context: *mut c_void, slot: u8, buffer: *mut u8) -> u64 {
    // SAFETY: the caller gives the room.
    pack(register(context, slot).and_then(|address| unsafe { read::c_string(buffer, address) }))
}

#[inline(never)]
unsafe fn copy_pointer_and_length(context: *mut c_void, slot: u8, buffer: *mut u8) -> u64 {
    let Ok(address) = register(context, slot) else { return pack(Err(HitOutcome::ReadFault)) };
    let Ok(len) = register(context, slot + 1) else { return pack(Err(HitOutcome::ReadFault)) };
    // SAFETY: the caller gives the room.
    pack(unsafe { read::id_bytes(buffer, address, len) })
}

#[inline(never)]
unsafe fn copy_pair_in_memory(context: *mut c_void, slot: u8, buffer: *mut u8) -> u64 {
    let Ok(pair) = register(context, slot) else { return pack(Err(HitOutcome::ReadFault)) };
    // A null reference is no string at all: an empty id.
    if pair == 0 {
        return pack(Ok(0));
    }
    let Some([address, len]) = read::user::<[u64; 2]>(pair) else { return pack(Err(HitOutcome::ReadFault)) };
    // SAFETY: the caller gives the room.
    pack(unsafe { read::id_bytes(buffer, address, len) })
}

/// What a function of its own can return: one register.
#[inline(always)]
fn pack(copied: Result<u32, HitOutcome>) -> u64 {
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
fn fault_in(context: *mut c_void, hook: Hook) {
    let cookie = cookie(context, hook);
    for argument in [cookie_request_id(cookie), cookie_item_id(cookie)].into_iter().flatten() {
        let Ok(mut address) = register(context, argument.slot) else { continue };
        if argument.form == IdForm::PairInMemory {
            read::fault_in(address);
            address = read::user(address).unwrap_or(0);
        }
        read::fault_in(address);
    }
}

/// The attach cookie, or where the kernel has none (before 5.15), what the daemon noted for this place
/// within a page; 0 when it noted nothing.
#[inline(always)]
fn cookie(context: *mut c_void, hook: Hook) -> u64 {
    if maps::has_cookies() {
        // SAFETY: the context is the one this program was called with.
        return unsafe { bpf_get_attach_cookie(context) };
    }
    let Some(address) = read::kernel::<u64>(context as u64, registers::INSTRUCTION) else { return 0 };
    // SAFETY: the value is a plain number, set before anything is attached to the place.
    unsafe { PLACES.get(place_key(hook, address)) }.copied().unwrap_or(0)
}

/// The argument in a register slot. Read by a helper: the compiler would turn a choice of registers
/// into arithmetic on the context pointer, which the verifier refuses.
#[inline(always)]
fn register(context: *mut c_void, slot: u8) -> Result<u64, HitOutcome> {
    read::kernel(context as u64, registers::argument(slot)?).ok_or(HitOutcome::ReadFault)
}
