//! `sendmmsg`: several messages in one call, each counted as a hit of its own.
//!
//!     long sys_sendmmsg(int fd, struct mmsghdr __user *msg, unsigned int vlen, unsigned int flags)

use aya_ebpf::{
    macros::{kprobe, tracepoint},
    programs::{ProbeContext, TracePointContext},
};
use tracer_common::{
    counters::{HitOutcome, Hook},
    limits::MAX_MESSAGES_PER_CALL,
};

use super::{
    send::{self, Buffers},
    sendmsg::MessageHeader,
    syscall::Arguments,
};
use crate::emit;

/// Bytes from one `struct mmsghdr` to the next on 64-bit machines.
const MESSAGE_STRIDE: u64 = 64;

#[kprobe]
pub fn sendmmsg_kprobe(context: ProbeContext) -> u32 {
    each_message(&context)
}

#[tracepoint]
pub fn sendmmsg_tracepoint(context: TracePointContext) -> u32 {
    each_message(&context)
}

#[inline(always)]
fn each_message(arguments: &impl Arguments) -> u32 {
    let count = arguments.argument(2) as u32 as u64;
    for index in 0..MAX_MESSAGES_PER_CALL as u64 {
        if index >= count {
            break;
        }
        emit::run(arguments, Hook::Sendmmsg, || try_sendmmsg(arguments, index));
    }
    if count > MAX_MESSAGES_PER_CALL as u64 {
        // What goes beyond is one hit, whatever its number: it says that something was not seen.
        emit::run(arguments, Hook::Sendmmsg, || {
            send::target()?;
            Err(HitOutcome::OutOfBounds)
        });
    }
    0
}

#[inline(always)]
fn try_sendmmsg(arguments: &impl Arguments, index: u64) -> Result<(), HitOutcome> {
    let target = send::target()?;
    let address = arguments.argument(1) + index * MESSAGE_STRIDE;
    let message = MessageHeader::read(address)?;
    let buffers = Buffers::first_of(message.pieces, message.piece_count)?;
    send::capture(Hook::Sendmmsg, target, arguments.argument(0), buffers)
}
