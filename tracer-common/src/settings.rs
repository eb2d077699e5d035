//! What the daemon tells the kernel side: offsets within kernel structures and tracepoint records,
//! written before load, and the on/off switch.

use crate::counters::Hook;

/// Where fields stand, as this kernel's BTF and tracefs say. In bytes from the start of their
/// structure or record.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offsets {
    /// `task_struct.files`.
    pub task_files: u32,
    /// `files_struct.fdt`.
    pub files_fdt: u32,
    /// `fdtable.max_fds`.
    pub fdtable_max_fds: u32,
    /// `fdtable.fd`.
    pub fdtable_fd: u32,
    /// `file.f_inode`.
    pub file_inode: u32,
    /// `file.private_data`.
    pub file_private_data: u32,
    /// `inode.i_mode`.
    pub inode_mode: u32,
    /// `socket.sk`.
    pub socket_sk: u32,
    /// `sock_common.skc_family`.
    pub sock_family: u32,
    /// `sock_common.skc_dport`.
    pub sock_dport: u32,
    /// `sock_common.skc_daddr`.
    pub sock_daddr: u32,
    /// `sock_common.skc_v6_daddr`.
    pub sock_v6_daddr: u32,
    /// `sock_common.skc_num`: the port of this end, in host byte order.
    pub sock_num: u32,
    /// `sock.sk_protocol`.
    pub sock_protocol: u32,
    /// `tcp_sock.write_seq`: number of the next byte that is sent.
    pub tcp_write_seq: u32,
    /// `tcp_sock.copied_seq`: number of the next byte that the process reads.
    pub tcp_copied_seq: u32,
    /// Zero.
    pub padding: u32,
    /// Arguments in the record of `syscalls:sys_enter_*`.
    pub syscall_args: u32,
    /// `sock:inet_sock_set_state`: `oldstate`.
    pub state_old: u32,
    /// `sock:inet_sock_set_state`: `newstate`.
    pub state_new: u32,
    /// `sock:inet_sock_set_state`: `protocol`.
    pub state_protocol: u32,
    /// `sock:inet_sock_set_state`: `family`.
    pub state_family: u32,
    /// `sock:inet_sock_set_state`: `dport`, in host byte order.
    pub state_dport: u32,
    /// `sock:inet_sock_set_state`: `daddr`.
    pub state_daddr: u32,
    /// `sock:inet_sock_set_state`: `daddr_v6`.
    pub state_daddr_v6: u32,
    /// `sched:sched_process_exec`: the `__data_loc` of `filename`.
    pub exec_filename: u32,
    /// `task:task_newtask`: `pid` of the child.
    pub fork_pid: u32,
    /// `task:task_newtask`: `clone_flags`.
    pub fork_clone_flags: u32,
}

impl Offsets {
    /// What stands in the object file: nothing is known.
    pub const ZERO: Self = Self {
        task_files: 0,
        files_fdt: 0,
        fdtable_max_fds: 0,
        fdtable_fd: 0,
        file_inode: 0,
        file_private_data: 0,
        inode_mode: 0,
        socket_sk: 0,
        sock_family: 0,
        sock_dport: 0,
        sock_daddr: 0,
        sock_v6_daddr: 0,
        sock_num: 0,
        sock_protocol: 0,
        tcp_write_seq: 0,
        tcp_copied_seq: 0,
        padding: 0,
        syscall_args: 0,
        state_old: 0,
        state_new: 0,
        state_protocol: 0,
        state_family: 0,
        state_dport: 0,
        state_daddr: 0,
        state_daddr_v6: 0,
        exec_filename: 0,
        fork_pid: 0,
        fork_clone_flags: 0,
    };
}

// SAFETY: a `repr(C)` struct of integers without padding: every bit pattern is a value.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Offsets {}

const _: () = assert!(size_of::<Offsets>() == 28 * 4);

/// Value of the switch while nothing is counted or captured.
pub const SWITCH_OFF: u32 = 0;
/// Value of the switch while events are captured.
pub const SWITCH_ON: u32 = 1;

/// State of a process in the table of targets: it executed a program nobody looked at yet. Its
/// sends are captured, and the daemon decides whether it is of interest.
pub const TARGET_PENDING: u32 = 1;
/// State of a process in the table of targets: it belongs to a configured service.
pub const TARGET_TRACED: u32 = 2;
/// Added to the state: its messages are of interest.
pub const TARGET_MESSAGES: u32 = 1 << 8;
/// Added to the state: bodies of its messages are of interest, too.
pub const TARGET_BODIES: u32 = 1 << 9;
/// Added to the state: its messages are of interest where it hands them to a TLS library, too.
pub const TARGET_TLS: u32 = 1 << 10;

/// What a collector is found by: the port in network byte order, then the address, an IPv4 address as
/// IPv6 maps it.
pub type CollectorKey = [u8; 18];
/// Bits of a whole [`CollectorKey`]; a network has fewer.
pub const COLLECTOR_KEY_BITS: u32 = 18 * 8;

/// How an id is passed to an SDK function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum IdForm {
    /// A pointer to bytes that end with a zero.
    CString = 0,
    /// A pointer, and the length in the argument register after it: a Go string, a Rust `&str`, a C
    /// pointer with its length.
    PointerAndLength = 1,
    /// A pointer to a pair of pointer and length in memory: libstdc++'s `std::string`.
    PairInMemory = 2,
}

/// Registers that can hold an argument, in the order of the calling conventions of this machine: the
/// C functions' first, the Go functions' from [`GO_SLOTS`] on.
pub const C_SLOTS: u8 = 0;
/// Arguments that a C function takes in registers, on any machine supported.
pub const C_SLOT_COUNT: u8 = 6;
/// See [`C_SLOTS`].
pub const GO_SLOTS: u8 = 8;
/// Arguments that a Go function takes in integer registers.
pub const GO_SLOT_COUNT: u8 = 9;

/// Where an SDK function gets an id: in which form, from which register slot on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdArgument {
    /// The form.
    pub form: IdForm,
    /// The first register slot it takes.
    pub slot: u8,
}

impl IdArgument {
    const fn encode(self) -> u64 {
        (self.form as u64) << 8 | self.slot as u64
    }

    const fn decode(bits: u64) -> Option<Self> {
        let form = match (bits >> 8) & 0xff {
            0 => IdForm::CString,
            1 => IdForm::PointerAndLength,
            2 => IdForm::PairInMemory,
            _ => return None,
        };
        Some(Self { form, slot: (bits & 0xff) as u8 })
    }
}

/// Attach cookie of an SDK probe: bits 0..16 where the request id is, bits 16..32 where the item id
/// is, bits 32..64 the probe's number in the daemon.
pub const fn sdk_cookie(request_id: IdArgument, item_id: IdArgument, probe: u32) -> u64 {
    request_id.encode() | item_id.encode() << 16 | (probe as u64) << 32
}

/// Where the request id is, by an [`sdk_cookie`].
pub const fn cookie_request_id(cookie: u64) -> Option<IdArgument> {
    IdArgument::decode(cookie & 0xffff)
}

/// Where the item id is, by an [`sdk_cookie`].
pub const fn cookie_item_id(cookie: u64) -> Option<IdArgument> {
    IdArgument::decode((cookie >> 16) & 0xffff)
}

/// The probe's number in an [`sdk_cookie`].
pub const fn cookie_probe(cookie: u64) -> u32 {
    (cookie >> 32) as u32
}

/// What tells two probes of one hook apart where the kernel has no attach cookies: the last twelve bits
/// of the place, which are the same in the file and in every process that maps it.
pub const fn place_key(hook: Hook, place: u64) -> u32 {
    (hook as u32) << 12 | (place & 0xfff) as u32
}
