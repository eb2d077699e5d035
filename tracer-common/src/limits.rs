//! Every bound of the capture, in one place.

/// Longest request or item id in bytes that is captured. A longer one is counted and never cut
/// short: two ids with one prefix are not one id. 128 holds a UUID (36), a `traceparent` (55) and
/// two UUIDs with a prefix.
pub const MAX_ID_LEN: usize = 128;

/// Bytes reserved per id: the longest id, one byte that proves that it was longer, the terminating
/// zero, rounded up to 8.
pub const ID_BUFFER_LEN: usize = 136;

/// Bytes of a piece that its record holds when the piece is at most this long.
pub const SMALL_PAYLOAD_LEN: usize = 512;

/// Bytes of a longer piece that its record holds where only headers are of interest.
pub const LARGE_PAYLOAD_LEN: usize = 2048;

/// Buffers of one `writev` or `sendmsg` that are looked at, each in a record of its own; of a message
/// of `sendmmsg` it is the first. Each one more triples what the kernel has to verify.
pub const MAX_PIECES_PER_CALL: usize = 3;

/// Bytes that one record holds of a piece where bodies are of interest.
pub const DEEP_PAYLOAD_LEN: usize = 16 * 1024;

/// Bytes from the start of a message that are looked at where only its headers are of interest. Later
/// pieces of the same connection are captured up to there.
pub const HEADER_WINDOW_LEN: u32 = 8 * 1024;

/// The same, where its body is of interest. A message that goes on past it without its id is counted.
pub const BODY_WINDOW_LEN: u32 = 16 * 1024;

/// Connections on which a message can be waited for to go on. 16 Ki entries of 32 bytes; beyond them
/// the one unused for longest is forgotten, and its message shows as one that was not finished.
pub const MAX_WINDOWS: u32 = 16_384;

/// Bytes of an executable's path that an exec record carries.
pub const PATH_LEN: usize = 256;

/// Messages of one `sendmmsg` call that are looked at; the rest is counted as out of bounds.
pub const MAX_MESSAGES_PER_CALL: usize = 8;

/// Processes that can be traced at a time. 64 Ki entries of 8 bytes and a hash bucket each: about
/// 4 MiB when full.
pub const MAX_TARGETS: u32 = 65_536;

/// Addresses and networks of collectors that sends are compared with.
pub const MAX_COLLECTORS: u32 = 4096;

/// Places of probes that kernels without attach cookies can tell apart: the bytes of a page, for each of
/// the two functions.
pub const MAX_PLACES: u32 = 2 * 4096;

/// Bytes of the ring buffer unless the configuration says otherwise: 16 MiB hold about 50,000 SDK
/// calls, a second of drain pause at 50,000 calls a second.
pub const DEFAULT_RING_BYTES: u32 = 16 * 1024 * 1024;

/// The daemon is woken at once when this share of the ring (as a divisor) is filled; before that it
/// drains by a timer.
pub const WAKEUP_FILL_DIVISOR: u64 = 4;

const _: () = assert!(ID_BUFFER_LEN >= MAX_ID_LEN + 2 && ID_BUFFER_LEN.is_multiple_of(8));
const _: () = assert!(SMALL_PAYLOAD_LEN < LARGE_PAYLOAD_LEN);
const _: () = assert!(LARGE_PAYLOAD_LEN < DEEP_PAYLOAD_LEN && DEEP_PAYLOAD_LEN == BODY_WINDOW_LEN as usize);
