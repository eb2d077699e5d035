//! A process ended: its main thread did.
//!
//!     TRACE_EVENT(sched_process_exit, struct task_struct *p)
//!
//! The daemon takes the process out of the table of targets: other threads may outlive the main one.

use aya_ebpf::{macros::tracepoint, programs::TracePointContext};
use tracer_common::{
    counters::{HitOutcome, Hook},
    record::{Header, KIND_EXIT},
};

use super::send;
use crate::emit::{self, Wakeup};

#[tracepoint]
pub fn exit_tracepoint(context: TracePointContext) -> u32 {
    emit::run_always(&context, Hook::Exit, try_exit)
}

#[inline(always)]
fn try_exit() -> Result<(), HitOutcome> {
    let (pid, tid) = emit::current();
    if pid != tid {
        return Err(HitOutcome::Filtered);
    }
    send::target()?;
    let mut entry = emit::reserve::<Header>()?;
    entry.write(emit::header(KIND_EXIT, Hook::Exit, 0));
    emit::submit(entry, Wakeup::Batched);
    Ok(())
}
