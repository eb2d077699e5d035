//! `sendmsg`.
//!
//!     long sys_sendmsg(int fd, struct user_msghdr __user *msg, unsigned int flags)

use aya_ebpf::{
    macros::{kprobe, tracepoint},
    programs::{ProbeContext, TracePointContext},
};
use tracer_common::counters::{HitOutcome, Hook};

use super::{
    send::{self, Buffers},
    syscall::Arguments,
};
use crate::{emit, read};

/// `struct user_msghdr` on 64-bit machines: what a message is made of.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct MessageHeader {
    name: u64,
    name_len: u64,
    pub pieces: u64,
    pub piece_count: u64,
    control: u64,
    control_len: u64,
    flags: u64,
}

#[kprobe]
pub fn sendmsg_kprobe(context: ProbeContext) -> u32 {
    emit::run(&context, Hook::Sendmsg, || try_sendmsg(&context))
}

#[tracepoint]
pub fn sendmsg_tracepoint(context: TracePointContext) -> u32 {
    emit::run(&context, Hook::Sendmsg, || try_sendmsg(&context))
}

#[inline(always)]
fn try_sendmsg(arguments: &impl Arguments) -> Result<(), HitOutcome> {
    let target = send::target()?;
    let message = MessageHeader::read(arguments.argument(1))?;
    let buffers = Buffers::vector(message.pieces, message.piece_count)?;
    send::capture(Hook::Sendmsg, target, arguments.argument(0), buffers)
}

impl MessageHeader {
    /// The message whose header is at `address`.
    #[inline(always)]
    pub fn read(address: u64) -> Result<Self, HitOutcome> {
        read::user(address).ok_or(HitOutcome::ReadFault)
    }
}
