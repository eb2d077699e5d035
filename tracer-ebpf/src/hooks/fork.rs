//! A process was forked.
//!
//!     TRACE_EVENT(task_newtask, struct task_struct *task, u64 clone_flags)
//!
//! Runs in the parent, before the child does: the child of a traced process is traced from its
//! first instruction. A recycled process id that is no child of a traced process is forgotten.

use aya_ebpf::{EbpfContext, macros::tracepoint, programs::TracePointContext};
use tracer_common::{
    counters::{HitOutcome, Hook},
    record::{ForkRecord, KIND_FORK},
};

use crate::{
    emit::{self, Wakeup},
    maps::{TARGETS, offset},
    read,
};

/// `CLONE_THREAD`: the new task is a thread of the same process.
const CLONE_THREAD: u64 = 0x0001_0000;

#[tracepoint]
pub fn fork_tracepoint(context: TracePointContext) -> u32 {
    emit::run_always(&context, Hook::Fork, || try_fork(&context))
}

#[inline(always)]
fn try_fork(context: &TracePointContext) -> Result<(), HitOutcome> {
    let base = context.as_ptr() as u64;
    let flags: u64 = read::kernel(base, offset!(fork_clone_flags)).ok_or(HitOutcome::ReadFault)?;
    if flags & CLONE_THREAD != 0 {
        return Err(HitOutcome::Filtered);
    }
    let child_pid: u32 = read::kernel(base, offset!(fork_pid)).ok_or(HitOutcome::ReadFault)?;
    let (pid, _) = emit::current();
    // SAFETY: the value is a plain number, and one that changes meanwhile is as good as before.
    let Some(state) = (unsafe { TARGETS.get(pid) }).copied() else {
        // Fails when there is none, which is the usual case.
        let _ = TARGETS.remove(child_pid);
        return Err(HitOutcome::Filtered);
    };
    TARGETS.insert(child_pid, state, 0).map_err(|_| HitOutcome::TargetsFull)?;
    let mut entry = emit::reserve::<ForkRecord>()?;
    entry.write(ForkRecord { header: emit::header(KIND_FORK, Hook::Fork, 0), child_pid, padding: 0 });
    emit::submit(entry, Wakeup::Now);
    Ok(())
}
