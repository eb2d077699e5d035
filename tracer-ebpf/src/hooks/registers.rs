//! Which saved register holds which argument, as the distance from the start of `struct pt_regs`.

use tracer_common::{
    counters::HitOutcome,
    settings::{C_SLOT_COUNT, C_SLOTS, GO_SLOT_COUNT, GO_SLOTS},
};

#[cfg(bpf_target_arch = "x86_64")]
mod this {
    use core::mem::offset_of;

    use aya_ebpf::bindings::pt_regs;

    /// Where the program stands: at a probe, the probed instruction.
    pub const INSTRUCTION: usize = offset_of!(pt_regs, rip);
    /// A system call's: the fourth goes in r10, because the `syscall` instruction itself takes rcx.
    pub const SYSCALL: [usize; 4] = [
        offset_of!(pt_regs, rdi),
        offset_of!(pt_regs, rsi),
        offset_of!(pt_regs, rdx),
        offset_of!(pt_regs, r10),
    ];
    /// A C function's (System V), and a Rust function's.
    pub const C: [usize; 6] = [
        offset_of!(pt_regs, rdi),
        offset_of!(pt_regs, rsi),
        offset_of!(pt_regs, rdx),
        offset_of!(pt_regs, rcx),
        offset_of!(pt_regs, r8),
        offset_of!(pt_regs, r9),
    ];
    /// A Go function's, since Go 1.17.
    pub const GO: [usize; 9] = [
        offset_of!(pt_regs, rax),
        offset_of!(pt_regs, rbx),
        offset_of!(pt_regs, rcx),
        offset_of!(pt_regs, rdi),
        offset_of!(pt_regs, rsi),
        offset_of!(pt_regs, r8),
        offset_of!(pt_regs, r9),
        offset_of!(pt_regs, r10),
        offset_of!(pt_regs, r11),
    ];
}

#[cfg(not(bpf_target_arch = "x86_64"))]
mod this {
    /// Where the program stands: on arm64 after x0 to x30 and the stack pointer.
    pub const INSTRUCTION: usize = 32 * 8;
    /// A system call's: on arm64 the saved registers start with x0, x1, x2, x3.
    pub const SYSCALL: [usize; 4] = [0, 8, 16, 24];
    /// A C function's: on arm64 x0 to x7.
    pub const C: [usize; 6] = [0, 8, 16, 24, 32, 40];
    /// A Go function's: on arm64 x0 to x15.
    pub const GO: [usize; 9] = [0, 8, 16, 24, 32, 40, 48, 56, 64];
}

/// Where the address of the probed instruction is.
pub const INSTRUCTION: usize = this::INSTRUCTION;

/// Where the `index`th argument of a system call is, 0 to 3.
#[inline(always)]
pub const fn syscall_argument(index: usize) -> usize {
    this::SYSCALL[if index < 3 { index } else { 3 }]
}

/// Where the argument of a register slot is (`tracer_common::settings`). Fails beyond the last slot.
#[inline(always)]
pub const fn argument(slot: u8) -> Result<usize, HitOutcome> {
    match slot {
        0 => Ok(this::C[0]),
        1 => Ok(this::C[1]),
        2 => Ok(this::C[2]),
        3 => Ok(this::C[3]),
        4 => Ok(this::C[4]),
        5 => Ok(this::C[5]),
        8 => Ok(this::GO[0]),
        9 => Ok(this::GO[1]),
        10 => Ok(this::GO[2]),
        11 => Ok(this::GO[3]),
        12 => Ok(this::GO[4]),
        13 => Ok(this::GO[5]),
        14 => Ok(this::GO[6]),
        15 => Ok(this::GO[7]),
        16 => Ok(this::GO[8]),
        _ => Err(HitOutcome::ReadFault),
    }
}

const _: () = assert!(C_SLOTS == 0 && this::C.len() == C_SLOT_COUNT as usize);
const _: () = assert!(GO_SLOTS == 8 && this::GO.len() == GO_SLOT_COUNT as usize);
