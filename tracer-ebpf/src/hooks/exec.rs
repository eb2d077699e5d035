//! A process replaced its program.
//!
//!     TRACE_EVENT(sched_process_exec, struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)
//!
//! The process becomes a pending target here and now, so that nothing it sends is missed while the
//! daemon finds out whether it is of interest.

use aya_ebpf::{
    EbpfContext, helpers::generated::bpf_probe_read_kernel_str, macros::tracepoint,
    programs::TracePointContext,
};
use tracer_common::{
    counters::{HitOutcome, Hook},
    limits::PATH_LEN,
    record::{ExecRecord, KIND_EXEC},
    settings::TARGET_PENDING,
};

use crate::{
    emit::{self, Wakeup},
    maps::{self, TARGETS, offset},
    read,
};

#[tracepoint]
pub fn exec_tracepoint(context: TracePointContext) -> u32 {
    emit::run_always(&context, Hook::Exec, || try_exec(&context))
}

#[inline(always)]
fn try_exec(context: &TracePointContext) -> Result<(), HitOutcome> {
    let (pid, _) = emit::current();
    TARGETS.insert(pid, TARGET_PENDING | maps::pending_flags(), 0).map_err(|_| HitOutcome::TargetsFull)?;
    let base = context.as_ptr() as u64;
    // A `__data_loc`: the length in the upper half, the distance from the record's start in the lower.
    let location: u32 = read::kernel(base, offset!(exec_filename)).ok_or(HitOutcome::ReadFault)?;
    let source = base + u64::from(location & 0xffff);
    let mut entry = emit::reserve::<ExecRecord>()?;
    let record = entry.write(ExecRecord {
        header: emit::header(KIND_EXEC, Hook::Exec, 0),
        path_len: 0,
        padding: 0,
        path: [0; PATH_LEN],
    });
    let path = record.path.as_mut_ptr();
    // SAFETY: the destination has this size; the helper checks the source.
    let copied = unsafe { bpf_probe_read_kernel_str(path.cast(), PATH_LEN as u32, source as *const _) };
    // A path that cannot be read is no loss: the daemon asks /proc first, the path is for a process
    // that is gone by then.
    record.path_len = if copied > 0 { copied as u32 } else { 0 };
    emit::submit(entry, Wakeup::Now);
    Ok(())
}
