//! What the send family shares: is this a message of a traced process, and copying its start.

use tracer_common::{
    counters::{HitOutcome, Hook},
    limits::{LARGE_PAYLOAD_LEN, SMALL_PAYLOAD_LEN},
    record::{KIND_SEND, Peer, SendRecord},
};

use super::connect;
use crate::{
    emit::{self, Wakeup},
    maps::{COLLECTORS, HAS_COLLECTORS, TARGETS},
    read, socket,
};

/// One contiguous piece of memory of the caller.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Piece {
    /// Where it starts.
    pub address: u64,
    /// Its length in bytes.
    pub len: u64,
}

/// A send record with room for `CAPACITY` bytes of payload.
#[repr(C)]
struct Entry<const CAPACITY: usize> {
    record: SendRecord,
    payload: [u8; CAPACITY],
}

/// The first four bytes of everything that can be the start of an HTTP/1 message.
const MESSAGE_STARTS: [[u8; 4]; 9] =
    [*b"HTTP", *b"GET ", *b"POST", *b"PUT ", *b"HEAD", *b"DELE", *b"PATC", *b"OPTI", *b"CONN"];

/// Fails with [`HitOutcome::Filtered`] unless the current process is traced, or not yet known.
#[inline(always)]
pub fn require_target() -> Result<(), HitOutcome> {
    let (pid, _) = emit::current();
    match TARGETS.get_ptr(pid) {
        Some(_) => Ok(()),
        None => Err(HitOutcome::Filtered),
    }
}

/// Captures the start of a message that goes out on `descriptor`, whose first piece is `piece`, or the
/// fact that something goes to a collector. Never reads past that piece.
#[inline(always)]
pub fn capture(hook: Hook, descriptor: u64, piece: Piece) -> Result<(), HitOutcome> {
    let message = can_be_message(piece)?;
    // SAFETY: the static is initialised and aligned; volatile because the daemon sets it before load.
    let has_collectors = unsafe { core::ptr::read_volatile(&raw const HAS_COLLECTORS) } != 0;
    if !message && !has_collectors {
        return Err(HitOutcome::Filtered);
    }
    let peer = socket::of_descriptor(descriptor).ok_or(HitOutcome::Filtered)?;
    if has_collectors && COLLECTORS.get_ptr(peer).is_some() {
        return connect::submit(hook, peer);
    }
    match message {
        false => Err(HitOutcome::Filtered),
        true if piece.len <= SMALL_PAYLOAD_LEN as u64 => copy::<SMALL_PAYLOAD_LEN>(hook, peer, piece),
        true => copy::<LARGE_PAYLOAD_LEN>(hook, peer, piece),
    }
}

/// Does the piece start like an HTTP/1 message?
#[inline(always)]
fn can_be_message(piece: Piece) -> Result<bool, HitOutcome> {
    if piece.len < 4 {
        return Ok(false);
    }
    let start: [u8; 4] = read::user(piece.address).ok_or(HitOutcome::ReadFault)?;
    let start = u32::from_ne_bytes(start);
    Ok(MESSAGE_STARTS.iter().any(|candidate| u32::from_ne_bytes(*candidate) == start))
}

/// Copies as much of `piece` as fits into a record of that capacity.
#[inline(always)]
fn copy<const CAPACITY: usize>(hook: Hook, peer: Peer, piece: Piece) -> Result<(), HitOutcome> {
    let captured_len = if piece.len < CAPACITY as u64 { piece.len as u32 } else { CAPACITY as u32 };
    let piece_len = if piece.len < u64::from(u32::MAX) { piece.len as u32 } else { u32::MAX };
    let mut entry = emit::reserve::<Entry<CAPACITY>>()?;
    let room = entry.as_mut_ptr();
    // Only `captured_len` bytes of the payload are written and only those are read by the daemon:
    // clearing 2 KiB first would cost more than the rest of this hook.
    // SAFETY: the pointer comes from a reservation of this size.
    let payload = unsafe { &raw mut (*room).payload };
    let len = read::bounded::<CAPACITY>(captured_len);
    // SAFETY: `len` is at most the payload's size.
    if let Err(outcome) = unsafe { read::user_bytes(payload.cast(), len, piece.address) } {
        emit::discard(entry);
        return Err(outcome);
    }
    let record = SendRecord { header: emit::header(KIND_SEND, hook, 0), peer, piece_len, captured_len };
    // SAFETY: the pointer comes from a reservation of this size; the record is its first field.
    unsafe { room.cast::<SendRecord>().write(record) };
    emit::submit(entry, Wakeup::Batched);
    Ok(())
}
