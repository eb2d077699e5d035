//! Every map and every value the daemon sets before loading.

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf, lpm_trie::Key},
};
use tracer_common::{
    counters::COUNTER_COUNT,
    limits::{DEFAULT_RING_BYTES, MAX_COLLECTORS, MAX_PLACES, MAX_TARGETS, MAX_WINDOWS},
    record::{FAMILY_INET, Peer},
    settings::{COLLECTOR_KEY_BITS, CollectorKey, Offsets},
    usdt::{MAX_USDT_SITES, UsdtIds},
};

/// Records on their way to the daemon. The daemon sets the size from its configuration.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(DEFAULT_RING_BYTES, 0);

/// Hits by hook and outcome: 120 counters of 8 bytes on each CPU.
#[map]
pub static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(COUNTER_COUNT, 0);

/// Processes whose sends and connections are captured, and why (`TARGET_` constants).
#[map]
pub static TARGETS: HashMap<u32, u32> = HashMap::with_max_entries(MAX_TARGETS, 0);

/// Addresses of collectors: whatever a traced process sends there is a report.
#[map]
pub static COLLECTORS: LpmTrie<CollectorKey, u32> = LpmTrie::with_max_entries(MAX_COLLECTORS, 0);

/// A message that may go on in other calls.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Window {
    /// The socket it goes out on: its descriptor may be another file's by now.
    pub sock: u64,
    /// Where in the stream it started.
    pub start: u32,
    /// Zero.
    pub padding: u32,
}

impl Window {
    /// None: no socket has the address 0.
    pub const NONE: Self = Self { sock: 0, start: 0, padding: 0 };
}

/// Messages that may go on, by process (upper half) and descriptor.
#[map]
pub static WINDOWS: LruHashMap<u64, Window> = LruHashMap::with_max_entries(MAX_WINDOWS, 0);

/// Where the arguments of USDT probes are, place by place.
#[map]
pub static USDT_SITES: Array<UsdtIds> = Array::with_max_entries(MAX_USDT_SITES, 0);

/// Cookies of probes by `place_key`, where the kernel has no attach cookies.
#[map]
pub static PLACES: HashMap<u32, u64> = HashMap::with_max_entries(MAX_PLACES, 0);

/// One switch for all capture hooks, so that capture starts and ends everywhere at one instant.
#[map]
pub static SWITCH: Array<u32> = Array::with_max_entries(1, 0);

/// Where fields stand in this kernel's structures. Read through [`offset!`] only.
#[unsafe(no_mangle)]
pub static OFFSETS: Offsets = Offsets::ZERO;

/// Not 0 when there is any collector: only then is it looked where a send goes that is no message.
#[unsafe(no_mangle)]
pub static HAS_COLLECTORS: u32 = 0;

/// Not 0 when the kernel has attach cookies. Where it has none, the verifier never sees the call.
#[unsafe(no_mangle)]
pub static HAS_COOKIES: u32 = 0;

/// Whether a probe's cookie comes with it.
#[inline(always)]
pub fn has_cookies() -> bool {
    // SAFETY: the static is initialised and aligned; volatile because the daemon sets it before load.
    unsafe { core::ptr::read_volatile(&raw const HAS_COOKIES) != 0 }
}

/// What is added to the state of a process of which nothing is known yet (`TARGET_` flags).
#[unsafe(no_mangle)]
pub static PENDING_FLAGS: u32 = 0;

/// Fill level of the ring in bytes at which the daemon is woken at once.
#[unsafe(no_mangle)]
pub static WAKEUP_BYTES: u64 = DEFAULT_RING_BYTES as u64;

/// Is there any collector?
#[inline(always)]
pub fn has_collectors() -> bool {
    // SAFETY: the static is initialised and aligned; volatile because the daemon sets it before load.
    unsafe { core::ptr::read_volatile(&raw const HAS_COLLECTORS) != 0 }
}

/// The flags of a process of which nothing is known yet.
#[inline(always)]
pub fn pending_flags() -> u32 {
    // SAFETY: the static is initialised and aligned; volatile because the daemon sets it before load.
    unsafe { core::ptr::read_volatile(&raw const PENDING_FLAGS) }
}

/// Is this a collector's address? A function of its own in the kernel, for the sake of the stack.
#[inline(never)]
pub fn is_collector(peer: &Peer) -> bool {
    COLLECTORS.get(Key::new(COLLECTOR_KEY_BITS, collector_key(peer))).is_some()
}

/// Port and address, an IPv4 address as IPv6 maps it.
#[inline(always)]
fn collector_key(peer: &Peer) -> CollectorKey {
    let [high, low] = peer.port_be.to_ne_bytes();
    let mut key: CollectorKey = [0; 18];
    key[0] = high;
    key[1] = low;
    if peer.family == FAMILY_INET {
        key[12] = 0xff;
        key[13] = 0xff;
        let [a, b, c, d, ..] = peer.address;
        [key[14], key[15], key[16], key[17]] = [a, b, c, d];
    } else {
        let mut index = 0;
        while index < 16 {
            key[2 + index] = peer.address[index];
            index += 1;
        }
    }
    key
}

/// One offset as the daemon set it. The read is volatile because the compiler may otherwise put the
/// value it sees here, zero, in its place.
macro_rules! offset {
    ($field:ident) => {
        // SAFETY: the field is part of an initialised static and aligned.
        unsafe { core::ptr::read_volatile(&raw const $crate::maps::OFFSETS.$field) as usize }
    };
}
pub(crate) use offset;
