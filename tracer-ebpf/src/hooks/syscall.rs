//! Arguments of a system call, as a kprobe on its entry function and as a tracepoint give them.

use aya_ebpf::{
    EbpfContext,
    programs::{ProbeContext, TracePointContext},
};

use super::registers;
use crate::{maps::offset, read};

/// Where a hook finds the arguments of the system call it runs in.
pub trait Arguments: EbpfContext {
    /// The `index`th argument, 0 to 3; 0 where it cannot be read.
    fn argument(&self, index: usize) -> u64;
}

impl Arguments for TracePointContext {
    #[inline(always)]
    fn argument(&self, index: usize) -> u64 {
        read::kernel_or_zero(self.as_ptr() as u64, offset!(syscall_args) + index * 8)
    }
}

impl Arguments for ProbeContext {
    /// The entry functions (`__x64_sys_write`, `__arm64_sys_write`) take one pointer to the saved
    /// registers of the caller.
    #[inline(always)]
    fn argument(&self, index: usize) -> u64 {
        let registers = self.arg::<u64>(0).unwrap_or(0);
        read::kernel_or_zero(registers, registers::syscall_argument(index))
    }
}
