//! Counting and submitting: the frame that every hook runs in.

use core::arch::asm;

use aya_ebpf::{
    EbpfContext,
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::{bpf_get_current_cgroup_id, bpf_ktime_get_ns},
    maps::ring_buf::RingBufEntry,
};
use aya_log_ebpf::debug;
use tracer_common::{
    counters::{HitOutcome, Hook, counter_index},
    record::{Header, VERSION},
    settings::SWITCH_ON,
};

use crate::maps::{COUNTERS, EVENTS, SWITCH, WAKEUP_BYTES};

/// When the daemon learns of a record.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Wakeup {
    /// By its timer, or when the ring has filled to `WAKEUP_BYTES`.
    Batched,
    /// At once.
    Now,
}

/// Runs a capture hook: counts the hit and what became of it. Does nothing while capture is off.
#[inline(always)]
pub fn run<C: EbpfContext>(context: &C, hook: Hook, body: impl FnOnce() -> Result<(), HitOutcome>) -> u32 {
    if SWITCH.get(0).copied() == Some(SWITCH_ON) {
        run_always(context, hook, body);
    }
    0
}

/// Runs a hook that works whether capture is on or off: those that follow processes.
#[inline(always)]
pub fn run_always<C: EbpfContext>(
    context: &C,
    hook: Hook,
    body: impl FnOnce() -> Result<(), HitOutcome>,
) -> u32 {
    count(hook, HitOutcome::Hit);
    match body() {
        Ok(()) => count(hook, HitOutcome::Submitted),
        Err(outcome) => {
            if !matches!(outcome, HitOutcome::Filtered) {
                debug!(context, "hook {} lost a hit, outcome {}", hook as u32, outcome as u32);
            }
            count(hook, outcome);
        }
    }
    0
}

/// Counts a hit beside the one that the hook runs for, and what became of it.
#[inline(always)]
pub fn count_further(hook: Hook, result: Result<(), HitOutcome>) {
    count(hook, HitOutcome::Hit);
    count(hook, result.err().unwrap_or(HitOutcome::Submitted));
}

/// Adds one to a counter. Atomic, because a sleepable or preemptible program can be interrupted by
/// another one on the same CPU between reading and writing the slot.
#[inline(always)]
fn count(hook: Hook, outcome: HitOutcome) {
    if let Some(slot) = COUNTERS.get_ptr_mut(counter_index(hook, outcome)) {
        // The language has no atomic addition for this target: the target has no compare-and-swap
        // on the oldest kernels, and the whole family goes with it.
        // SAFETY: the map hands out a valid, 8-byte aligned slot that lives as long as the map.
        unsafe { asm!("lock *(u64 *)({slot} + 0) += {one}", slot = in(reg) slot, one = in(reg) 1u64) };
    }
}

/// Reserves room for a record of type `T` on the ring.
#[inline(always)]
pub fn reserve<T: 'static>() -> Result<RingBufEntry<T>, HitOutcome> {
    EVENTS.reserve::<T>(0).ok_or(HitOutcome::RingFull)
}

/// The common part of a record made now by the current task.
#[inline(always)]
pub fn header(kind: u16, hook: Hook, cookie: u64) -> Header {
    // SAFETY: a helper without arguments.
    header_at(kind, hook, cookie, unsafe { bpf_ktime_get_ns() })
}

/// The common part of a record of the current task, of another time.
#[inline(always)]
pub fn header_at(kind: u16, hook: Hook, cookie: u64, timestamp_ns: u64) -> Header {
    let (pid, tid) = current();
    Header {
        kind,
        version: VERSION,
        hook: hook as u32,
        timestamp_ns,
        // SAFETY: a helper without arguments.
        cgroup_id: unsafe { bpf_get_current_cgroup_id() },
        pid,
        tid,
        cookie,
    }
}

/// Process id and thread id of the current task.
#[inline(always)]
pub fn current() -> (u32, u32) {
    let both = aya_ebpf::helpers::bpf_get_current_pid_tgid();
    ((both >> 32) as u32, both as u32)
}

/// Hands a filled record to the daemon.
#[inline(always)]
pub fn submit<T>(entry: RingBufEntry<T>, wakeup: Wakeup) {
    // SAFETY: the static is initialised and aligned; volatile because the daemon sets it before load.
    let wakeup_bytes = unsafe { core::ptr::read_volatile(&raw const WAKEUP_BYTES) };
    let flags = if wakeup == Wakeup::Now || EVENTS.query(u64::from(BPF_RB_AVAIL_DATA)) >= wakeup_bytes {
        BPF_RB_FORCE_WAKEUP
    } else {
        BPF_RB_NO_WAKEUP
    };
    entry.submit(u64::from(flags));
}

/// Gives a reserved record back unsent.
#[inline(always)]
pub fn discard<T>(entry: RingBufEntry<T>) {
    entry.discard(u64::from(BPF_RB_NO_WAKEUP));
}
