//! `sendmsg`.
//!
//!     long sys_sendmsg(int fd, struct user_msghdr __user *msg, unsigned int flags)

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

/// `struct user_msghdr` on 64-bit machines: what a message is made of.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct MessageHeader {
    name: u64,
    name_len: u64,
    pieces: u64,
    piece_count: u64,
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
    send::require_target()?;
    capture_message(Hook::Sendmsg, arguments.argument(0), arguments.argument(1))
}

/// Captures the message whose header is at `address`.
#[inline(always)]
pub fn capture_message(hook: Hook, descriptor: u64, address: u64) -> Result<(), HitOutcome> {
    let message: MessageHeader = read::user(address).ok_or(HitOutcome::ReadFault)?;
    if message.piece_count == 0 {
        return Err(HitOutcome::Filtered);
    }
    let piece: Piece = read::user(message.pieces).ok_or(HitOutcome::ReadFault)?;
    send::capture(hook, descriptor, piece)
}
