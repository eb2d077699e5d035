//! Layouts of the records on the ring.
//!
//! Every field is a fixed-width integer or an array of them, padding is explicit, and every record
//! starts with a [`Header`]. Multi-byte fields are in the byte order of the machine.

use crate::limits::{ID_BUFFER_LEN, PATH_LEN};

/// Version of the layouts in this file. A record of another version is refused, not guessed at.
pub const VERSION: u16 = 2;

/// A send that can be an HTTP message or a part of one: [`SendRecord`].
pub const KIND_SEND: u16 = 1;
/// A call of one of the SDK's functions: [`SdkRecord`].
pub const KIND_SDK: u16 = 2;
/// A traced process opened a TCP connection, or sent something to a collector: [`ConnectRecord`]. The
/// hook says which.
pub const KIND_CONNECT: u16 = 3;
/// A process replaced its program: [`ExecRecord`].
pub const KIND_EXEC: u16 = 4;
/// A traced process was forked: [`ForkRecord`].
pub const KIND_FORK: u16 = 5;
/// The main thread of a traced process ended: a bare [`Header`].
pub const KIND_EXIT: u16 = 6;

/// Address family of a [`Peer`] that is not known, or not an internet address.
pub const FAMILY_NONE: u16 = 0;
/// Address family of an IPv4 [`Peer`].
pub const FAMILY_INET: u16 = 2;
/// Address family of an IPv6 [`Peer`].
pub const FAMILY_INET6: u16 = 10;

/// What every record starts with. (pid, tid, timestamp) identifies a record.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Header {
    /// One of the `KIND_` constants.
    pub kind: u16,
    /// [`VERSION`].
    pub version: u16,
    /// Number of the [`crate::counters::Hook`] that made the record.
    pub hook: u32,
    /// Kernel time, `CLOCK_MONOTONIC`, in nanoseconds.
    pub timestamp_ns: u64,
    /// Id of the process's cgroup (version 2 hierarchy).
    pub cgroup_id: u64,
    /// Process id (thread group), in the initial pid namespace.
    pub pid: u32,
    /// Thread id, in the initial pid namespace.
    pub tid: u32,
    /// Attach cookie of the probe; 0 where a hook has none.
    pub cookie: u64,
}

/// The other end of a connection.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// One of the `FAMILY_` constants.
    pub family: u16,
    /// Port, in network byte order.
    pub port_be: u16,
    /// Zero.
    pub padding: u32,
    /// Address in network byte order; IPv4 in the first four bytes.
    pub address: [u8; 16],
}

/// A piece of a message that a process sent. `captured_len` bytes of payload follow the struct;
/// what the record holds beyond them is not defined.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct SendRecord {
    /// Common part, [`KIND_SEND`].
    pub header: Header,
    /// The other end of the socket.
    pub peer: Peer,
    /// What tells one connection from another while both are open: an address in the kernel's or, of
    /// a TLS connection, in the process's memory.
    pub stream: u64,
    /// Where the piece starts in the stream, counted in bytes from any start, modulo 2^32. Without
    /// [`SEND_POSITIONED`] from the start of the call.
    pub position: u32,
    /// Bytes that the process had read from the same connection, counted likewise; 0 where it is not
    /// known. Of a TLS connection the lower half of the buffer's address, by which a call that is made
    /// again is told.
    pub received: u32,
    /// `SEND_` flags.
    pub flags: u16,
    /// The port of this end, 0 where it is not known.
    pub local_port: u16,
    /// Length of the piece in bytes: one buffer, or the rest of it.
    pub piece_len: u32,
    /// How much of it follows.
    pub captured_len: u32,
    /// Zero.
    pub padding: u32,
}

/// [`SendRecord::position`] goes on from call to call.
pub const SEND_POSITIONED: u16 = 1;
/// The same call has another piece, which follows in another record.
pub const SEND_MORE: u16 = 2;
/// The count of [`SendRecord::position`] starts anew: what the stream had before is over.
pub const SEND_NEW: u16 = 4;

/// A call of an SDK function. Ids are not terminated; their lengths count.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct SdkRecord {
    /// Common part, [`KIND_SDK`]; the hook says which function.
    pub header: Header,
    /// Bytes of `request_id` in use, at most [`crate::limits::MAX_ID_LEN`].
    pub request_id_len: u32,
    /// Bytes of `item_id` in use, at most [`crate::limits::MAX_ID_LEN`].
    pub item_id_len: u32,
    /// Request id.
    pub request_id: [u8; ID_BUFFER_LEN],
    /// Item id.
    pub item_id: [u8; ID_BUFFER_LEN],
}

/// A TCP connection on its way out, or something sent to a collector.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct ConnectRecord {
    /// Common part, [`KIND_CONNECT`].
    pub header: Header,
    /// Where to.
    pub peer: Peer,
}

/// A process replaced its program.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct ExecRecord {
    /// Common part, [`KIND_EXEC`].
    pub header: Header,
    /// Bytes of `path` in use; [`PATH_LEN`] when the path may have been longer.
    pub path_len: u32,
    /// Zero.
    pub padding: u32,
    /// The path as given to `execve`.
    pub path: [u8; PATH_LEN],
}

/// A traced process made a child process.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct ForkRecord {
    /// Common part, [`KIND_FORK`], of the parent.
    pub header: Header,
    /// Process id of the child.
    pub child_pid: u32,
    /// Zero.
    pub padding: u32,
}

// SAFETY: a `repr(C)` struct of integers without padding: every bit pattern is a value.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Peer {}

const _: () = assert!(size_of::<Header>() == 40);
const _: () = assert!(size_of::<Peer>() == 24);
const _: () = assert!(size_of::<SendRecord>() == 40 + 24 + 32);
const _: () = assert!(size_of::<SdkRecord>() == 40 + 8 + 2 * ID_BUFFER_LEN);
const _: () = assert!(size_of::<ConnectRecord>() == 40 + 24);
const _: () = assert!(size_of::<ExecRecord>() == 40 + 8 + PATH_LEN);
const _: () = assert!(size_of::<ForkRecord>() == 40 + 8);
