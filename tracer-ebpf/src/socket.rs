//! From a file descriptor or a kernel socket to the address of its other end.

use aya_ebpf::helpers::bpf_get_current_task;
use tracer_common::record::{FAMILY_INET, FAMILY_INET6, FAMILY_NONE, Peer};

use crate::{maps::offset, read};

/// File type bits of `inode.i_mode`, and their value for a socket.
const S_IFMT: u16 = 0o170_000;
const S_IFSOCK: u16 = 0o140_000;

/// The other end of the socket that `descriptor` is in the current process, with family 0 where it
/// is not an internet socket. `None` when the descriptor is no socket at all.
#[inline(always)]
pub fn of_descriptor(descriptor: u64) -> Option<Peer> {
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
    let sock: u64 = read::kernel(socket, offset!(socket_sk))?;
    Some(of_sock(sock))
}

/// The other end of a kernel socket (`struct sock`).
#[inline(always)]
pub fn of_sock(sock: u64) -> Peer {
    let mut peer = Peer { family: FAMILY_NONE, port_be: 0, padding: 0, address: [0; 16] };
    match read::kernel::<u16>(sock, offset!(sock_family)) {
        Some(FAMILY_INET) => {
            if let Some(address) = read::kernel::<[u8; 4]>(sock, offset!(sock_daddr)) {
                peer.family = FAMILY_INET;
                peer.address[0] = address[0];
                peer.address[1] = address[1];
                peer.address[2] = address[2];
                peer.address[3] = address[3];
            }
        }
        Some(FAMILY_INET6) => {
            if let Some(address) = read::kernel::<[u8; 16]>(sock, offset!(sock_v6_daddr)) {
                peer.family = FAMILY_INET6;
                peer.address = address;
            }
        }
        _ => {}
    }
    if let Some(port_be) = read::kernel::<u16>(sock, offset!(sock_dport)) {
        peer.port_be = port_be;
    }
    peer
}
