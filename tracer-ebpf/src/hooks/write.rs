//! `write`. Go and Java programs send with it.
//!
//!     long sys_write(unsigned int fd, const char __user *buf, size_t count)

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
pub fn write_kprobe(context: ProbeContext) -> u32 {
    emit::run(&context, Hook::Write, || try_write(&context))
}

#[tracepoint]
pub fn write_tracepoint(context: TracePointContext) -> u32 {
    emit::run(&context, Hook::Write, || try_write(&context))
}

#[inline(always)]
fn try_write(arguments: &impl Arguments) -> Result<(), HitOutcome> {
    let target = send::target()?;
    let buffers = Buffers::one(arguments.argument(1), arguments.argument(2));
    send::capture(Hook::Write, target, arguments.argument(0), buffers)
}
