//! Which saved register holds which argument, as the distance from the start of `struct pt_regs`.

use tracer_common::counters::HitOutcome;

#[cfg(bpf_target_arch = "x86_64")]
mod this {
    use core::mem::offset_of;

    use aya_ebpf::bindings::pt_regs;

    /// A system call's: the fourth goes in r10, because the `syscall` instruction itself takes rcx.
    pub const SYSCALL: [usize; 4] = [
        offset_of!(pt_regs, rdi),
        offset_of!(pt_regs, rsi),
        offset_of!(pt_regs, rdx),
        offset_of!(pt_regs, r10),
    ];
    /// A C function's (System V).
    pub const C: [usize; 6] = [
        offset_of!(pt_regs, rdi),
        offset_of!(pt_regs, rsi),
        offset_of!(pt_regs, rdx),
        offset_of!(pt_regs, rcx),
        offset_of!(pt_regs, r8),
        offset_of!(pt_regs, r9),
    ];
}

#[cfg(not(bpf_target_arch = "x86_64"))]
mod this {
    /// A system call's: on arm64 the saved registers start with x0, x1, x2, x3.
    pub const SYSCALL: [usize; 4] = [0, 8, 16, 24];
    /// A C function's: on arm64 x0 to x7.
    pub const C: [usize; 6] = [0, 8, 16, 24, 32, 40];
}

/// Where the `index`th argument of a system call is, 0 to 3.
#[inline(always)]
pub const fn syscall_argument(index: usize) -> usize {
    this::SYSCALL[if index < 3 { index } else { 3 }]
}

/// Where the `index`th argument of a C function is, 0 to 5. A match and not a table: kernels before
/// 5.13 have no loads from a read-only table at a place that is not constant.
#[inline(always)]
pub const fn c_argument(index: usize) -> Result<usize, HitOutcome> {
    match index {
        0 => Ok(this::C[0]),
        1 => Ok(this::C[1]),
        2 => Ok(this::C[2]),
        3 => Ok(this::C[3]),
        4 => Ok(this::C[4]),
        5 => Ok(this::C[5]),
        _ => Err(HitOutcome::ReadFault),
    }
}
