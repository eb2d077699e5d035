//! From a file descriptor or a kernel socket to the address of its other end.

use core::ffi::c_void;

use aya_ebpf::helpers::{bpf_get_current_task, generated::bpf_probe_read_kernel};
use tracer_common::record::{FAMILY_INET, FAMILY_INET6, FAMILY_NONE, Peer};

use crate::{maps::offset, read};

/// A socket of the kernel.
#[derive(Clone, Copy)]
pub struct Socket {
    /// Address of its `struct sock`.
    pub sock: u64,
    /// The other end.
    pub peer: Peer,
}

/// `IPPROTO_TCP`.
const PROTOCOL_TCP: u16 = 6;

impl Socket {
    /// None.
    pub const NONE: Self =
        Self { sock: 0, peer: Peer { family: FAMILY_NONE, port_be: 0, padding: 0, address: [0; 16] } };

    /// Where in the stream the next byte goes: its TCP sequence number. A send that is refused, done in
    /// part or repeated is told by it. `None` where it is no TCP.
    #[inline(always)]
    pub fn position(&self) -> Option<u32> {
        if self.peer.family == FAMILY_NONE
            || read::kernel_or_zero::<u16>(self.sock, offset!(sock_protocol)) != PROTOCOL_TCP
        {
            return None;
        }
        Some(read::kernel_or_zero(self.sock, offset!(tcp_write_seq)))
    }

    /// Where in the other direction the process has read up to. For sockets that have a position.
    #[inline(always)]
    pub fn received(&self) -> u32 {
        read::kernel_or_zero(self.sock, offset!(tcp_copied_seq))
    }

    /// The port of this end; 0 where it cannot be read.
    #[inline(always)]
    pub fn local_port(&self) -> u16 {
        read::kernel_or_zero(self.sock, offset!(sock_num))
    }
}

/// File type bits of `inode.i_mode`, and their value for a socket.
const S_IFMT: u16 = 0o170_000;
const S_IFSOCK: u16 = 0o140_000;

/// Finds the socket that `descriptor` is in the current process, its other end with family 0 where it
/// is not an internet socket. False when the descriptor is no socket at all. A function of its own in
/// the kernel, for the sake of the stack.
#[inline(never)]
pub fn of_descriptor(descriptor: u64, socket: &mut Socket) -> bool {
    match sock_of_descriptor(descriptor) {
        Some(sock) => {
            socket.sock = sock;
            socket.peer = of_sock(sock);
            true
        }
        None => false,
    }
}

#[inline(always)]
fn sock_of_descriptor(descriptor: u64) -> Option<u64> {
    // SAFETY: a helper without arguments.
    let task = unsafe { bpf_get_current_task() };
    let files: u64 = read::kernel(task, offset!(task_files))?;
    let table: u64 = read::kernel(files, offset!(files_fdt))?;
    let max: u32 = read::kernel(table, offset!(fdtable_max_fds))?;
    // The kernel takes a descriptor as 32 bits, whatever the upper half of the register holds.
    let descriptor = descriptor as u32;
    if descriptor >= max {
        return None;
    }
    let entries: u64 = read::kernel(table, offset!(fdtable_fd))?;
    let file: u64 = read::kernel(entries, descriptor as usize * 8)?;
    let inode: u64 = read::kernel(file, offset!(file_inode))?;
    let mode: u16 = read::kernel(inode, offset!(inode_mode))?;
    if mode & S_IFMT != S_IFSOCK {
        return None;
    }
    let socket: u64 = read::kernel(file, offset!(file_private_data))?;
    read::kernel(socket, offset!(socket_sk))
}

/// The other end of a kernel socket (`struct sock`).
#[inline(always)]
pub fn of_sock(sock: u64) -> Peer {
    let mut peer = Peer { family: FAMILY_NONE, port_be: 0, padding: 0, address: [0; 16] };
    let family = read::kernel_or_zero::<u16>(sock, offset!(sock_family));
    let (from, len) = match family {
        FAMILY_INET => (offset!(sock_daddr), 4),
        FAMILY_INET6 => (offset!(sock_v6_daddr), 16),
        _ => return peer,
    };
    peer.family = family;
    peer.port_be = read::kernel_or_zero(sock, offset!(sock_dport));
    // SAFETY: the address has room for 16 bytes; the helper checks the source.
    let _ = unsafe {
        bpf_probe_read_kernel(peer.address.as_mut_ptr().cast(), len, (sock + from as u64) as *const c_void)
    };
    peer
}
