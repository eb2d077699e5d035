//! A TCP connection is opened.
//!
//!     int tcp_connect(struct sock *sk)
//!     TRACE_EVENT(inet_sock_set_state, const struct sock *sk, const int oldstate, const int newstate)
//!
//! Both run in the context of the process that connects: the tracepoint on the step to `SYN_SENT`,
//! the function right after it.

use aya_ebpf::{
    EbpfContext,
    macros::{kprobe, tracepoint},
    programs::{ProbeContext, TracePointContext},
};
use tracer_common::{
    counters::{HitOutcome, Hook},
    record::{ConnectRecord, FAMILY_INET, FAMILY_INET6, KIND_CONNECT, Peer},
};

use super::send;
use crate::{
    emit::{self, Wakeup},
    maps::offset,
    read, socket,
};

/// `TCP_SYN_SENT` in the kernel's `enum tcp_state`.
const TCP_SYN_SENT: u32 = 2;
/// `IPPROTO_TCP`.
const PROTOCOL_TCP: u16 = 6;

#[kprobe]
pub fn connect_kprobe(context: ProbeContext) -> u32 {
    emit::run(&context, Hook::Connect, || {
        send::target()?;
        let sock = context.arg::<u64>(0).ok_or(HitOutcome::ReadFault)?;
        submit(Hook::Connect, &socket::of_sock(sock))
    })
}

#[tracepoint]
pub fn connect_tracepoint(context: TracePointContext) -> u32 {
    emit::run(&context, Hook::Connect, || try_state_change(&context))
}

#[inline(always)]
fn try_state_change(context: &TracePointContext) -> Result<(), HitOutcome> {
    let base = context.as_ptr() as u64;
    let state: u32 = read::kernel(base, offset!(state_new)).ok_or(HitOutcome::ReadFault)?;
    let protocol: u16 = read::kernel(base, offset!(state_protocol)).ok_or(HitOutcome::ReadFault)?;
    if state != TCP_SYN_SENT || protocol != PROTOCOL_TCP {
        return Err(HitOutcome::Filtered);
    }
    send::target()?;
    let family: u16 = read::kernel(base, offset!(state_family)).ok_or(HitOutcome::ReadFault)?;
    let port: u16 = read::kernel(base, offset!(state_dport)).ok_or(HitOutcome::ReadFault)?;
    let mut peer = Peer { family, port_be: port.to_be(), padding: 0, address: [0; 16] };
    match family {
        FAMILY_INET => {
            let address: [u8; 4] = read::kernel(base, offset!(state_daddr)).ok_or(HitOutcome::ReadFault)?;
            peer.address[0] = address[0];
            peer.address[1] = address[1];
            peer.address[2] = address[2];
            peer.address[3] = address[3];
        }
        FAMILY_INET6 => {
            peer.address = read::kernel(base, offset!(state_daddr_v6)).ok_or(HitOutcome::ReadFault)?;
        }
        _ => return Err(HitOutcome::Filtered),
    }
    submit(Hook::Connect, &peer)
}

/// Tells the daemon that the process turned to `peer`.
#[inline(always)]
pub fn submit(hook: Hook, peer: &Peer) -> Result<(), HitOutcome> {
    let mut entry = emit::reserve::<ConnectRecord>()?;
    entry.write(ConnectRecord { header: emit::header(KIND_CONNECT, hook, 0), peer: *peer });
    emit::submit(entry, Wakeup::Batched);
    Ok(())
}
