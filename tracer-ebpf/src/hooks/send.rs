//! What the send family shares: is this of interest, and where in its stream is it?
//!
//! The first four bytes tell what can be the start of a message. What follows a message on the same
//! connection is let through up to a distance from its start (`WINDOWS`), because only the daemon can
//! tell whether it is complete. Copying is in `pieces`.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use tracer_common::{
    counters::{HitOutcome, Hook},
    limits::{BODY_WINDOW_LEN, HEADER_WINDOW_LEN},
    record::{SEND_NEW, SEND_POSITIONED},
    settings::{TARGET_BODIES, TARGET_MESSAGES},
};

use super::{
    connect,
    pieces::{self, Call},
};
use crate::{
    emit,
    maps::{self, TARGETS, WINDOWS, Window},
    read,
    socket::{self, Socket},
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

impl Piece {
    /// Nothing.
    pub const EMPTY: Self = Self { address: 0, len: 0 };
}

/// What one call sends.
#[derive(Clone, Copy)]
pub struct Buffers {
    /// The first buffer.
    pub first: Piece,
    /// Address of the vector of those after it.
    pub rest: u64,
    /// How many there are in it.
    pub rest_count: u64,
    /// Are those looked at? Known where the hook is compiled, and so decided there.
    pub is_vector: bool,
}

impl Buffers {
    /// One buffer.
    #[inline(always)]
    pub const fn one(address: u64, len: u64) -> Self {
        Self { first: Piece { address, len }, rest: 0, rest_count: 0, is_vector: false }
    }

    /// The first of a vector of `count` buffers.
    #[inline(always)]
    pub fn first_of(address: u64, count: u64) -> Result<Self, HitOutcome> {
        Ok(Self { is_vector: false, ..Self::vector(address, count)? })
    }

    /// A vector of `count` buffers.
    #[inline(always)]
    pub fn vector(address: u64, count: u64) -> Result<Self, HitOutcome> {
        if count == 0 {
            return Err(HitOutcome::Filtered);
        }
        let first: Piece = read::user(address).ok_or(HitOutcome::ReadFault)?;
        Ok(Self { first, rest: address + size_of::<Piece>() as u64, rest_count: count - 1, is_vector: true })
    }
}

/// The first four bytes of everything that can be the start of an HTTP/1 message.
const MESSAGE_STARTS: [[u8; 4]; 9] =
    [*b"HTTP", *b"GET ", *b"POST", *b"PUT ", *b"HEAD", *b"DELE", *b"PATC", *b"OPTI", *b"CONN"];

/// What the first bytes of a call say.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Can be an HTTP/1 message.
    Message,
    /// A TLS record.
    Tls,
    /// The preface of HTTP/2, or the settings that a server answers it with.
    Http2,
    /// Anything else.
    Other,
}

impl Start {
    #[inline(always)]
    pub fn of(piece: Piece) -> Result<Self, HitOutcome> {
        if piece.len < 4 {
            return Ok(Self::Other);
        }
        let bytes: [u8; 4] = read::user(piece.address).ok_or(HitOutcome::ReadFault)?;
        let word = u32::from_ne_bytes(bytes);
        if MESSAGE_STARTS.iter().any(|candidate| u32::from_ne_bytes(*candidate) == word) {
            return Ok(Self::Message);
        }
        let [first, second, third, fourth] = bytes;
        // Type of the record (20 to 23), and a version from SSL 3.0 to TLS 1.3.
        if first.wrapping_sub(20) < 4 && second == 3 && third <= 4 {
            return Ok(Self::Tls);
        }
        // Settings are a frame of the type 4 whose length is a multiple of 6, far below 256.
        let settings = first == 0 && second == 0 && third % 6 == 0 && fourth == 4 && piece.len >= 9;
        if word == u32::from_ne_bytes(*b"PRI ") || settings {
            return Ok(Self::Http2);
        }
        Ok(Self::Other)
    }

    /// What becomes of it when it is not captured.
    #[inline(always)]
    pub const fn outcome(self) -> HitOutcome {
        match self {
            Self::Tls => HitOutcome::Tls,
            Self::Http2 => HitOutcome::Http2,
            Self::Message | Self::Other => HitOutcome::Filtered,
        }
    }
}

/// State and flags of the current process in the table of targets. Fails with
/// [`HitOutcome::Filtered`] unless it is traced, or not yet known.
#[inline(always)]
pub fn target() -> Result<u32, HitOutcome> {
    let (pid, _) = emit::current();
    // SAFETY: the value is a plain number, and one that changes meanwhile is as good as before.
    unsafe { TARGETS.get(pid) }.copied().ok_or(HitOutcome::Filtered)
}

/// Captures what goes out on `descriptor`, where it is a message or goes on with one, or the fact that
/// something goes to a collector. Never reads past a buffer.
#[inline(always)]
pub fn capture(hook: Hook, target: u32, descriptor: u64, buffers: Buffers) -> Result<(), HitOutcome> {
    let start = match Start::of(buffers.first) {
        Ok(start) => start,
        Err(outcome) => return Err(unreadable(descriptor, outcome)),
    };
    let wanted = target & TARGET_MESSAGES != 0;
    let is_message = wanted && start == Start::Message;
    let window = if wanted && !is_message { window(descriptor) } else { Window::NONE };
    let has_collectors = maps::has_collectors();
    if start == Start::Other && window.sock == 0 && !has_collectors {
        return Err(HitOutcome::Filtered);
    }
    let mut call = Call {
        hook,
        socket: Socket::NONE,
        local_port: 0,
        flags: SEND_NEW,
        position: 0,
        received: 0,
        end: 0,
        deep: target & TARGET_BODIES != 0,
        timestamp_ns: 0,
        first: buffers.first,
        next: Piece::EMPTY,
        rest: buffers.rest,
        rest_count: buffers.rest_count,
    };
    if !socket::of_descriptor(descriptor, &mut call.socket) {
        return Err(HitOutcome::Filtered);
    }
    if has_collectors && maps::is_collector(&call.socket.peer) {
        return connect::submit(hook, &call.socket.peer);
    }
    let position = call.socket.position();
    if let Some(position) = position {
        call.flags = SEND_POSITIONED;
        call.position = position;
        call.received = call.socket.received();
    }
    call.local_port = call.socket.local_port();
    let window_len = if call.deep { BODY_WINDOW_LEN } else { HEADER_WINDOW_LEN };
    if is_message {
        let more = position.is_some() && (call.deep || !pieces::ends_headers(call.first));
        expect_more(descriptor, &call, more);
        call.end = call.position.wrapping_add(window_len);
    } else {
        let goes_on = position.is_some() && window.sock != 0 && window.sock == call.socket.sock;
        if !goes_on || call.position.wrapping_sub(window.start) >= window_len {
            return Err(start.outcome());
        }
        call.end = window.start.wrapping_add(window_len);
    }
    // SAFETY: a helper without arguments.
    call.timestamp_ns = unsafe { bpf_ktime_get_ns() };
    if buffers.is_vector { pieces::submit_all(&mut call) } else { pieces::submit_first(&call) }
}

/// What cannot be read is lost where it was sent, and nothing where it went into a file or a pipe. Constant
/// data that nobody has looked at yet, as what wakes an event loop, is not in memory.
#[inline(always)]
fn unreadable(descriptor: u64, outcome: HitOutcome) -> HitOutcome {
    if socket::of_descriptor(descriptor, &mut { Socket::NONE }) { outcome } else { HitOutcome::Filtered }
}

/// The message that may go on, on a descriptor of the current process. No `Option`: of one without a value,
/// the compiler reads what nobody has written, which kernels like 5.10 refuse.
#[inline(always)]
fn window(descriptor: u64) -> Window {
    // SAFETY: the value is plain numbers; one half of another write is another socket's, which is seen.
    unsafe { WINDOWS.get(window_key(descriptor)) }.copied().unwrap_or(Window::NONE)
}

/// Notes whether the message that the call starts may go on in other calls.
#[inline(always)]
fn expect_more(descriptor: u64, call: &Call, more: bool) {
    let key = window_key(descriptor);
    if more {
        let window = Window { sock: call.socket.sock, start: call.position, padding: 0 };
        // Where the table cannot take it, the message shows as one that was not finished.
        let _ = WINDOWS.insert(key, window, 0);
    } else if WINDOWS.get_ptr(key).is_some() {
        // Mostly there is none, and finding that out is cheaper than removing it.
        let _ = WINDOWS.remove(key);
    }
}

#[inline(always)]
fn window_key(descriptor: u64) -> u64 {
    let (pid, _) = emit::current();
    u64::from(pid) << 32 | u64::from(descriptor as u32)
}
