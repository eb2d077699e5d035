//! Copying what a call sends: its buffers one after the other, each in a record of its own.

use tracer_common::{
    counters::{HitOutcome, Hook},
    limits::{BODY_WINDOW_LEN, DEEP_PAYLOAD_LEN, LARGE_PAYLOAD_LEN, MAX_PIECES_PER_CALL, SMALL_PAYLOAD_LEN},
    record::{KIND_SEND, SEND_MORE, SEND_NEW, SendRecord},
};

use super::send::Piece;
use crate::{
    emit::{self, Wakeup},
    read,
    socket::Socket,
};

/// One call on its way into records. Handed about by reference only: the kernel's stack is small.
pub struct Call {
    pub hook: Hook,
    pub socket: Socket,
    pub local_port: u16,
    /// `SEND_` flags of the current buffer's record.
    pub flags: u16,
    /// Where in the stream the current buffer starts.
    pub position: u32,
    /// What the process has read from it so far.
    pub received: u32,
    /// Up to where the stream is looked at.
    pub end: u32,
    /// Is more than the start of each buffer looked at?
    pub deep: bool,
    pub timestamp_ns: u64,
    /// The current buffer.
    pub first: Piece,
    /// The one after it, where the flags say that there is one.
    pub next: Piece,
    /// Address of the vector of those after the current one, and how many they are.
    pub rest: u64,
    pub rest_count: u64,
}

/// A send record with room for `CAPACITY` bytes of payload.
#[repr(C)]
pub struct Entry<const CAPACITY: usize> {
    pub record: SendRecord,
    pub payload: [u8; CAPACITY],
}

/// Submits the call's first buffer alone.
#[inline(always)]
pub fn submit_first(call: &Call) -> Result<(), HitOutcome> {
    copy(call)
}

/// Submits the call's buffers up to its end. Each record after the first is a hit of its own.
#[inline(always)]
pub fn submit_all(call: &mut Call) -> Result<(), HitOutcome> {
    let mut more = fetch_next(call);
    let first = copy(call);
    for _ in 1..MAX_PIECES_PER_CALL {
        if !more {
            break;
        }
        step(call);
        more = fetch_next(call);
        emit::count_further(call.hook, copy(call));
    }
    first
}

/// Reads where the buffer after the first one is, and notes in the flags whether there is one to look
/// at.
#[inline(always)]
fn fetch_next(call: &mut Call) -> bool {
    call.flags &= !SEND_MORE;
    let Piece { address, len } = call.first;
    let after = call.position.wrapping_add(len as u32);
    let left = call.end.wrapping_sub(after);
    let is_past = len > u64::from(BODY_WINDOW_LEN) || left == 0 || left > BODY_WINDOW_LEN;
    if call.rest_count == 0 || is_past || (!call.deep && ends_headers(Piece { address, len })) {
        return false;
    }
    match read::user::<Piece>(call.rest) {
        Some(next) => {
            call.next = next;
            call.flags |= SEND_MORE;
            true
        }
        None => {
            emit::count_further(call.hook, Err(HitOutcome::ReadFault));
            false
        }
    }
}

/// Goes on to the next buffer.
#[inline(always)]
fn step(call: &mut Call) {
    call.position = call.position.wrapping_add(call.first.len as u32);
    call.first = call.next;
    call.rest += size_of::<Piece>() as u64;
    call.rest_count -= 1;
    call.flags &= !SEND_NEW;
}

/// Does the piece end as a header section ends?
#[inline(always)]
pub fn ends_headers(piece: Piece) -> bool {
    piece.len >= 4 && read::user::<[u8; 4]>(piece.address + piece.len - 4) == Some(*b"\r\n\r\n")
}

/// Copies the first buffer into a record. A function of its own in the kernel: it is called in a loop.
#[inline(never)]
fn copy(call: &Call) -> Result<(), HitOutcome> {
    if call.first.len <= SMALL_PAYLOAD_LEN as u64 {
        copy_into::<SMALL_PAYLOAD_LEN>(call)
    } else if call.first.len <= LARGE_PAYLOAD_LEN as u64 || !call.deep {
        copy_into::<LARGE_PAYLOAD_LEN>(call)
    } else {
        copy_into::<DEEP_PAYLOAD_LEN>(call)
    }
}

#[inline(always)]
fn copy_into<const CAPACITY: usize>(call: &Call) -> Result<(), HitOutcome> {
    let Piece { address, len } = call.first;
    // An empty buffer in a vector is as good as none.
    if len == 0 {
        return Err(HitOutcome::Filtered);
    }
    let captured_len = if len < CAPACITY as u64 { len as u32 } else { CAPACITY as u32 };
    let mut entry = emit::reserve::<Entry<CAPACITY>>()?;
    let room = entry.as_mut_ptr();
    // Only `captured_len` bytes of the payload are written and only those are read by the daemon:
    // clearing 2 KiB first would cost more than the rest of this hook.
    // SAFETY: the pointer comes from a reservation of this size.
    let payload = unsafe { &raw mut (*room).payload };
    let captured_len = read::bounded::<CAPACITY>(captured_len);
    // SAFETY: `captured_len` is at most the payload's size.
    if let Err(outcome) = unsafe { read::user_bytes(payload.cast(), captured_len, address) } {
        emit::discard(entry);
        return Err(outcome);
    }
    // SAFETY: the pointer comes from a reservation of this size; the record is its first field.
    unsafe {
        room.cast::<SendRecord>().write(SendRecord {
            header: emit::header_at(KIND_SEND, call.hook, 0, call.timestamp_ns),
            peer: call.socket.peer,
            stream: call.socket.sock,
            position: call.position,
            received: call.received,
            flags: call.flags,
            local_port: call.local_port,
            piece_len: if len < u64::from(u32::MAX) { len as u32 } else { u32::MAX },
            captured_len,
            padding: 0,
        });
    }
    emit::submit(entry, Wakeup::Batched);
    Ok(())
}
