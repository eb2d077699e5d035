//! What the SDK's functions share: which arguments hold the ids is in the probe's attach cookie.

use aya_ebpf::{EbpfContext, helpers::generated::bpf_get_attach_cookie, programs::ProbeContext};
use tracer_common::{
    counters::{HitOutcome, Hook},
    limits::ID_BUFFER_LEN,
    record::{KIND_SDK, SdkRecord},
    settings::{cookie_item_id_argument, cookie_request_id_argument},
};

use super::registers;
use crate::{
    emit::{self, Wakeup},
    read,
};

/// Captures a call. A page that is not in memory makes it a read fault.
#[inline(always)]
pub fn capture(context: &ProbeContext, hook: Hook) -> Result<(), HitOutcome> {
    let call = Call::of(context)?;
    call.record(hook)
}

/// Captures a call from a program that may sleep: a page that is not in memory is brought in, with
/// nothing reserved on the ring meanwhile, and the call is read again.
#[inline(always)]
pub fn capture_sleepable(context: &ProbeContext, hook: Hook) -> Result<(), HitOutcome> {
    let call = Call::of(context)?;
    match call.record(hook) {
        Err(HitOutcome::ReadFault) => {
            read::fault_in(call.request_id);
            read::fault_in(call.item_id);
            call.record(hook)
        }
        done => done,
    }
}

/// Where the ids of a call are in the memory of the caller.
struct Call {
    request_id: u64,
    item_id: u64,
    cookie: u64,
}

impl Call {
    #[inline(always)]
    fn of(context: &ProbeContext) -> Result<Self, HitOutcome> {
        // SAFETY: the context is the one this program was called with.
        let cookie = unsafe { bpf_get_attach_cookie(context.as_ptr()) };
        let request_id = argument(context, cookie_request_id_argument(cookie))?;
        let item_id = argument(context, cookie_item_id_argument(cookie))?;
        Ok(Self { request_id, item_id, cookie })
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
        match self.read_ids(record) {
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
    fn read_ids(&self, record: &mut SdkRecord) -> Result<(), HitOutcome> {
        // SAFETY: the buffer has the length that `c_string` asks for.
        record.request_id_len = unsafe { read::c_string(record.request_id.as_mut_ptr(), self.request_id) }?;
        // SAFETY: the buffer has the length that `c_string` asks for.
        record.item_id_len = unsafe { read::c_string(record.item_id.as_mut_ptr(), self.item_id) }?;
        Ok(())
    }
}

/// The `index`th argument of the C calling convention. Read by a helper: the compiler would turn a
/// choice of registers into arithmetic on the context pointer, which the verifier refuses.
#[inline(always)]
fn argument(context: &ProbeContext, index: usize) -> Result<u64, HitOutcome> {
    read::kernel(context.as_ptr() as u64, registers::c_argument(index)?).ok_or(HitOutcome::ReadFault)
}
