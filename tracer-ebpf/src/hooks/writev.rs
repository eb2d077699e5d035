//! `writev`. nginx, Node and Rust programs send with it.
//!
//!     long sys_writev(unsigned long fd, const struct iovec __user *vec, unsigned long vlen)

use aya_ebpf::{
    macros::{kprobe, tracepoint},
    programs::{ProbeContext, TracePointContext},
};
use tracer_common::counters::{HitOutcome, Hook};

use super::{
    send::{self, Buffers},
    syscall::Arguments,
};
use crate::emit;

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
    let target = send::target()?;
    let buffers = Buffers::vector(arguments.argument(1), arguments.argument(2))?;
    send::capture(Hook::Writev, target, arguments.argument(0), buffers)
}
