//! What the daemon tells the kernel side: offsets within kernel structures and tracepoint records,
//! written before load, and the on/off switch.

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
    /// Zero.
    pub padding: u32,
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
        padding: 0,
    };
}

// SAFETY: a `repr(C)` struct of integers without padding: every bit pattern is a value.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Offsets {}

const _: () = assert!(size_of::<Offsets>() == 24 * 4);

/// Value of the switch while nothing is counted or captured.
pub const SWITCH_OFF: u32 = 0;
/// Value of the switch while events are captured.
pub const SWITCH_ON: u32 = 1;

/// State of a process in the table of targets: it executed a program nobody looked at yet. Its
/// sends are captured, and the daemon decides whether it is of interest.
pub const TARGET_PENDING: u32 = 1;
/// State of a process in the table of targets: it belongs to a configured service.
pub const TARGET_TRACED: u32 = 2;

/// Attach cookie of an SDK probe: which argument holds which id. Bits 0..8 the request id's
/// argument, bits 8..16 the item id's, bits 16..48 the probe's number in the daemon.
pub const fn sdk_cookie(request_id_argument: u8, item_id_argument: u8, probe: u32) -> u64 {
    request_id_argument as u64 | (item_id_argument as u64) << 8 | (probe as u64) << 16
}

/// The request id's argument position in an [`sdk_cookie`].
pub const fn cookie_request_id_argument(cookie: u64) -> usize {
    (cookie & 0xff) as usize
}

/// The item id's argument position in an [`sdk_cookie`].
pub const fn cookie_item_id_argument(cookie: u64) -> usize {
    ((cookie >> 8) & 0xff) as usize
}

/// The probe's number in an [`sdk_cookie`].
pub const fn cookie_probe(cookie: u64) -> u32 {
    ((cookie >> 16) & 0xffff_ffff) as u32
}
