//! What the SDK's functions share: where the ids are among the arguments is in the probe's attach cookie.

use aya_ebpf::{EbpfContext, helpers::generated::bpf_get_attach_cookie, programs::ProbeContext};
use tracer_common::{
    counters::{HitOutcome, Hook},
    limits::ID_BUFFER_LEN,
    record::{KIND_SDK, SdkRecord},
    settings::{IdArgument, IdForm, cookie_item_id, cookie_request_id},
};

use super::registers;
use crate::{
    emit::{self, Wakeup},
    read,
};

/// Captures a call. A page that is not in memory makes it a read fault.
#[inline(always)]
pub fn capture(context: &ProbeContext, hook: Hook) -> Result<(), HitOutcome> {
    Call::of(context)?.record(hook)
}

/// Captures a call from a program that may sleep: a page that is not in memory is brought in, with
/// nothing reserved on the ring meanwhile, and the call is read again.
#[inline(always)]
pub fn capture_sleepable(context: &ProbeContext, hook: Hook) -> Result<(), HitOutcome> {
    let call = match Call::of(context) {
        Err(HitOutcome::ReadFault) => {
            Call::fault_in(context);
            Call::of(context)?
        }
        call => call?,
    };
    match call.record(hook) {
        Err(HitOutcome::ReadFault) => {
            read::fault_in(call.request_id.address);
            read::fault_in(call.item_id.address);
            call.record(hook)
        }
        done => done,
    }
}

/// An id in the memory of the caller.
#[derive(Clone, Copy)]
struct Id {
    address: u64,
    /// `None`: it ends with a zero.
    len: Option<u64>,
}

impl Id {
    #[inline(always)]
    fn of(context: &ProbeContext, argument: IdArgument) -> Result<Self, HitOutcome> {
        let address = register(context, argument.slot)?;
        match argument.form {
            IdForm::CString => Ok(Self { address, len: None }),
            IdForm::PointerAndLength => {
                Ok(Self { address, len: Some(register(context, argument.slot + 1)?) })
            }
            // A null reference is no string at all: an empty id.
            IdForm::PairInMemory if address == 0 => Ok(Self { address: 0, len: Some(0) }),
            IdForm::PairInMemory => {
                let [address, len]: [u64; 2] = read::user(address).ok_or(HitOutcome::ReadFault)?;
                Ok(Self { address, len: Some(len) })
            }
        }
    }

    /// Copies the id and returns its length in bytes.
    #[inline(always)]
    fn copy_to(self, buffer: &mut [u8; ID_BUFFER_LEN]) -> Result<u32, HitOutcome> {
        match self.len {
            // SAFETY: the buffer has the length that is asked for.
            None => unsafe { read::c_string(buffer.as_mut_ptr(), self.address) },
            // SAFETY: the buffer has the length that is asked for.
            Some(len) => unsafe { read::id_bytes(buffer.as_mut_ptr(), self.address, len) },
        }
    }
}

/// The ids of a call.
struct Call {
    request_id: Id,
    item_id: Id,
    cookie: u64,
}

impl Call {
    #[inline(always)]
    fn of(context: &ProbeContext) -> Result<Self, HitOutcome> {
        // SAFETY: the context is the one this program was called with.
        let cookie = unsafe { bpf_get_attach_cookie(context.as_ptr()) };
        let request_id = cookie_request_id(cookie).ok_or(HitOutcome::ReadFault)?;
        let item_id = cookie_item_id(cookie).ok_or(HitOutcome::ReadFault)?;
        Ok(Self { request_id: Id::of(context, request_id)?, item_id: Id::of(context, item_id)?, cookie })
    }

    /// Brings the pages that hold pairs of pointer and length into memory.
    #[inline(always)]
    fn fault_in(context: &ProbeContext) {
        // SAFETY: the context is the one this program was called with.
        let cookie = unsafe { bpf_get_attach_cookie(context.as_ptr()) };
        for argument in [cookie_request_id(cookie), cookie_item_id(cookie)] {
            if let Some(IdArgument { form: IdForm::PairInMemory, slot }) = argument
                && let Ok(address) = register(context, slot)
            {
                read::fault_in(address);
            }
        }
    }

    #[inline(always)]
    fn record(&self, hook: Hook) -> Result<(), HitOutcome> {
        let mut entry = emit::reserve::<SdkRecord>()?;
        let record = entry.write(SdkRecord {
            header: emit::header(KIND_SDK, hook, self.cookie),
            request_id_len: 0,
            item_id_len: 0,
            request_id: [0; ID_BUFFER_LEN],
            item_id: [0; ID_BUFFER_LEN],
        });
        match self.copy_ids(record) {
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
    fn copy_ids(&self, record: &mut SdkRecord) -> Result<(), HitOutcome> {
        record.request_id_len = self.request_id.copy_to(&mut record.request_id)?;
        record.item_id_len = self.item_id.copy_to(&mut record.item_id)?;
        Ok(())
    }
}

/// The argument in a register slot. Read by a helper: the compiler would turn a choice of registers
/// into arithmetic on the context pointer, which the verifier refuses.
#[inline(always)]
fn register(context: &ProbeContext, slot: u8) -> Result<u64, HitOutcome> {
    read::kernel(context.as_ptr() as u64, registers::argument(slot)?).ok_or(HitOutcome::ReadFault)
}
