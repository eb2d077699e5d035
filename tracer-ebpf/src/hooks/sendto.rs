//! `sendto`. C and Python programs send with it; `send` becomes it.
//!
//!     long sys_sendto(int fd, void __user *buff, size_t len, unsigned int flags,
//!      struct sockaddr __user *addr, int addr_len)

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
pub fn sendto_kprobe(context: ProbeContext) -> u32 {
    emit::run(&context, Hook::Sendto, || try_sendto(&context))
}

#[tracepoint]
pub fn sendto_tracepoint(context: TracePointContext) -> u32 {
    emit::run(&context, Hook::Sendto, || try_sendto(&context))
}

#[inline(always)]
fn try_sendto(arguments: &impl Arguments) -> Result<(), HitOutcome> {
    let target = send::target()?;
    let buffers = Buffers::one(arguments.argument(1), arguments.argument(2));
    send::capture(Hook::Sendto, target, arguments.argument(0), buffers)
}
