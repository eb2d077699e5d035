//! What a process hands to a TLS library to be encrypted and sent.
//!
//!     int SSL_write(SSL *ssl, const void *buf, int num)
//!     int SSL_write_ex(SSL *s, const void *buf, size_t num, size_t *written)
//!     func (c *crypto/tls.Conn) Write(b []byte) (int, error)
//!
//! In all of them the first argument is the connection, the second the bytes, the third their number;
//! the attach cookie says in which registers. A call that the library asks to be made again is told by
//! the daemon: it has the same buffer with the same bytes. Every function of this file keeps its
//! variables in less than 64 bytes: kernels from 6.13 on give larger ones a stack that two runs share.

use aya_ebpf::{
    EbpfContext, helpers::generated::bpf_get_attach_cookie, macros::uprobe, programs::ProbeContext,
};
use tracer_common::{
    counters::{HitOutcome, Hook},
    limits::{LARGE_PAYLOAD_LEN, SMALL_PAYLOAD_LEN},
    record::{FAMILY_NONE, KIND_SEND, Peer, SEND_NEW, SendRecord},
    settings::TARGET_TLS,
};

use super::{
    pieces::Entry,
    registers,
    send::{self, Piece, Start},
};
use crate::{
    emit::{self, Wakeup},
    read,
};

#[uprobe]
pub fn tls_write_uprobe(context: ProbeContext) -> u32 {
    emit::run(&context, Hook::TlsWrite, || try_tls_write(&context))
}

#[inline(always)]
fn try_tls_write(context: &ProbeContext) -> Result<(), HitOutcome> {
    if send::target()? & TARGET_TLS == 0 {
        return Err(HitOutcome::Filtered);
    }
    // SAFETY: the context is the one this program was called with.
    let slot = unsafe { bpf_get_attach_cookie(context.as_ptr()) } as u8;
    let connection = register(context, slot)?;
    let address = register(context, slot + 1)?;
    // `num` is an int: the upper half of its register means nothing. No message has 4 GiB.
    let len = register(context, slot + 2)? as u32;
    match Start::of(Piece { address, len: u64::from(len) })? {
        Start::Message if len <= SMALL_PAYLOAD_LEN as u32 => {
            copy::<SMALL_PAYLOAD_LEN>(connection, address, len)
        }
        Start::Message => copy::<LARGE_PAYLOAD_LEN>(connection, address, len),
        start => Err(start.outcome()),
    }
}

/// Copies the start of the message into a record of that capacity.
#[inline(never)]
fn copy<const CAPACITY: usize>(connection: u64, address: u64, len: u32) -> Result<(), HitOutcome> {
    let mut entry = emit::reserve::<Entry<CAPACITY>>()?;
    let room = entry.as_mut_ptr();
    let captured_len = read::bounded::<CAPACITY>(if len < CAPACITY as u32 { len } else { CAPACITY as u32 });
    // SAFETY: the pointer comes from a reservation of this size.
    let payload = unsafe { &raw mut (*room).payload };
    // SAFETY: `captured_len` is at most the payload's size.
    if let Err(outcome) = unsafe { read::user_bytes(payload.cast(), captured_len, address) } {
        emit::discard(entry);
        return Err(outcome);
    }
    // SAFETY: the pointer comes from a reservation of this size; the record is its first field, of numbers only, so that
    // any bytes are one. It is written field by field, so that no copy of it is on the stack.
    let record = unsafe { &mut *room.cast::<SendRecord>() };
    record.header = emit::header(KIND_SEND, Hook::TlsWrite, 0);
    record.peer = Peer { family: FAMILY_NONE, port_be: 0, padding: 0, address: [0; 16] };
    record.stream = connection;
    record.position = 0;
    record.received = address as u32;
    record.flags = SEND_NEW;
    record.local_port = 0;
    record.piece_len = len;
    record.captured_len = captured_len;
    record.padding = 0;
    emit::submit(entry, Wakeup::Batched);
    Ok(())
}

/// The argument in a register slot. Read by a helper: the compiler would turn a choice of registers
/// into arithmetic on the context pointer, which the verifier refuses.
#[inline(always)]
fn register(context: &ProbeContext, slot: u8) -> Result<u64, HitOutcome> {
    read::kernel(context.as_ptr() as u64, registers::argument(slot)?).ok_or(HitOutcome::ReadFault)
}
