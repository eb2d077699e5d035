//! `writev`. nginx, Node and Rust programs send with it.
//!
//!     long sys_writev(unsigned long fd, const struct iovec __user *vec, unsigned long vlen)

use aya_ebpf::{
    macros::{kprobe, tracepoint},
    programs::{ProbeContext, TracePointContext},
};
use tracer_common::counters::{HitOutcome, Hook};

use super::{
    send::{self, Piece},
    syscall::Arguments,
};
use crate::{emit, read};

#[kprobe]
pub fn writev_kprobe(context: ProbeContext) -> u32 {
    emit::run(&context, Hook::Writev, || try_writev(&context))
}

#[tracepoint]
pub fn writev_tracepoint(context: TracePointContext) -> u32 {
    emit::run(&context, Hook::Writev, || try_writev(&context))
}

#[inline(always)]
fn try_writev(arguments: &impl Arguments) -> Result<(), HitOutcome> {
    send::require_target()?;
    if arguments.argument(2) == 0 {
        return Err(HitOutcome::Filtered);
    }
    let piece: Piece = read::user(arguments.argument(1)).ok_or(HitOutcome::ReadFault)?;
    send::capture(Hook::Writev, arguments.argument(0), piece)
}
