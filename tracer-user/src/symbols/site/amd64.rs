//! The starts of functions that the Go compiler writes for amd64.
//!
//! ```text
//! small frame                large frame                  huge frame
//! cmp rsp, [r14+16]          lea r12, [rsp-N]             mov r12, rsp
//! jbe grow                   cmp r12, [r14+16]            sub r12, N
//!                            jbe grow                     jb grow
//!                                                         cmp r12, [r14+16]
//!                                                         jbe grow
//! grow: mov [rsp+N], argument register (any number)
//!       call runtime.morestack or runtime.morestack_noctxt
//!       mov argument register, [rsp+N]
//!       jmp start
//! ```
//! r14 holds the goroutine, whose stack bound is at 16. After the check comes `push rbp` (Go 1.21
//! and later) or `sub rsp, N`.

use iced_x86::{
    Decoder, DecoderOptions, FastFormatter, FlowControl, Instruction, Mnemonic, OpKind, Register,
};

use super::{Code, SiteRefusal, StackCheck, Sweep};

pub(super) fn sweep(code: &Code<'_>) -> Result<Sweep, SiteRefusal> {
    let check = stack_check(code);
    let last = check.map_or(code.start, |check| check.site.unwrap_or(code.start));
    let mut found = Sweep {
        check,
        morestack_calls: 0,
        indirect_jump: false,
        frame_at_start: false,
        jumps_to_start: Vec::new(),
    };
    for instruction in instructions(code, code.start) {
        if instruction.is_invalid() {
            return Err(SiteRefusal::NotCode { address: instruction.ip() });
        }
        if instruction.ip() == code.start {
            found.frame_at_start = is_frame_setup(&instruction);
        }
        match instruction.flow_control() {
            FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch => {
                let target = instruction.near_branch_target();
                if (code.start..=last).contains(&target) {
                    found.jumps_to_start.push((instruction.ip(), target));
                }
            }
            FlowControl::IndirectBranch => found.indirect_jump = true,
            FlowControl::Call if (code.is_morestack)(instruction.near_branch_target()) => {
                found.morestack_calls += 1;
            }
            _ => {}
        }
    }
    Ok(found)
}

fn instructions<'c>(code: &Code<'c>, from: u64) -> Decoder<'c> {
    let skip = usize::try_from(from.wrapping_sub(code.start)).unwrap_or(usize::MAX);
    let bytes = code.bytes.get(skip..).unwrap_or_default();
    Decoder::with_ip(64, bytes, from, DecoderOptions::NONE)
}

fn stack_check(code: &Code<'_>) -> Option<StackCheck> {
    let mut rest = instructions(code, code.start).into_iter();
    let mut overflow = None;
    let mut compare = rest.next()?;
    let compared = match compare.mnemonic() {
        Mnemonic::Lea if is_register(&compare, Register::R12) && is_below_stack(&compare) => Register::R12,
        Mnemonic::Mov if is_register(&compare, Register::R12) && compare.op1_register() == Register::RSP => {
            let subtract = rest.next()?;
            let jump = rest.next()?;
            if subtract.mnemonic() != Mnemonic::Sub
                || !is_register(&subtract, Register::R12)
                || !is_immediate(&subtract)
                || jump.mnemonic() != Mnemonic::Jb
            {
                return None;
            }
            overflow = Some(jump.near_branch_target());
            Register::R12
        }
        _ => Register::RSP,
    };
    if compared == Register::R12 {
        compare = rest.next()?;
    }
    let jump = rest.next()?;
    let target = jump.near_branch_target();
    let is_check = compare.mnemonic() == Mnemonic::Cmp
        && is_register(&compare, compared)
        && is_stack_bound(&compare)
        && jump.mnemonic() == Mnemonic::Jbe
        && overflow.is_none_or(|overflow| overflow == target);
    let site = rest.next().filter(is_frame_setup).map(|instruction| instruction.ip());
    is_check.then(|| StackCheck { site, target, growth: growth(code, target) })
}

/// The jump at the end of the code at `target`, if all of that code is as it should be.
fn growth(code: &Code<'_>, target: u64) -> Option<u64> {
    /// Nine registers for numbers and fifteen for floats are saved and read back at most.
    const MAX_INSTRUCTIONS: usize = 64;
    target.checked_sub(code.start).filter(|offset| *offset > 0)?;
    let mut called = false;
    for instruction in instructions(code, target).into_iter().take(MAX_INSTRUCTIONS) {
        match instruction.mnemonic() {
            Mnemonic::Nop => {}
            Mnemonic::Call if !called => {
                called = (code.is_morestack)(instruction.near_branch_target());
                if !called {
                    return None;
                }
            }
            Mnemonic::Jmp if called => {
                let back = instruction.near_branch_target() == code.start;
                return back.then(|| instruction.ip());
            }
            _ if is_spill(&instruction, called) => {}
            _ => return None,
        }
    }
    None
}

fn is_register(instruction: &Instruction, register: Register) -> bool {
    instruction.op0_kind() == OpKind::Register && instruction.op0_register() == register
}

fn is_immediate(instruction: &Instruction) -> bool {
    matches!(instruction.op1_kind(), OpKind::Immediate8to64 | OpKind::Immediate32to64)
}

/// `[rsp-N]`
fn is_below_stack(instruction: &Instruction) -> bool {
    instruction.memory_base() == Register::RSP
        && instruction.memory_index() == Register::None
        && instruction.memory_displacement64().cast_signed() < 0
}

/// `[r14+16]`
fn is_stack_bound(instruction: &Instruction) -> bool {
    instruction.op1_kind() == OpKind::Memory
        && instruction.memory_base() == Register::R14
        && instruction.memory_index() == Register::None
        && instruction.memory_displacement64() == 16
        && instruction.segment_prefix() == Register::None
}

/// `push rbp`, `sub rsp, N`, and `add rsp, -N`, which is shorter for N = 128.
fn is_frame_setup(instruction: &Instruction) -> bool {
    match instruction.mnemonic() {
        Mnemonic::Push => is_register(instruction, Register::RBP),
        Mnemonic::Sub => is_register(instruction, Register::RSP) && is_immediate(instruction),
        Mnemonic::Add => {
            is_register(instruction, Register::RSP)
                && is_immediate(instruction)
                && instruction.immediate(1).cast_signed() < 0
        }
        _ => false,
    }
}

/// An argument saved in the caller's frame, or read back from there.
fn is_spill(instruction: &Instruction, back: bool) -> bool {
    use Mnemonic::{Mov, Movaps, Movsd, Movss, Movsx, Movsxd, Movups, Movzx};
    let moves =
        matches!(instruction.mnemonic(), Mov | Movzx | Movsx | Movsxd | Movss | Movsd | Movups | Movaps);
    let (memory, register) = if back {
        (instruction.op1_kind(), instruction.op0_kind())
    } else {
        (instruction.op0_kind(), instruction.op1_kind())
    };
    moves
        && memory == OpKind::Memory
        && register == OpKind::Register
        && instruction.memory_base() == Register::RSP
        && instruction.memory_index() == Register::None
        && instruction.memory_displacement64().cast_signed() >= 8
}

pub(super) fn instruction(bytes: &[u8], address: u64) -> String {
    let instruction = Decoder::with_ip(64, bytes, address, DecoderOptions::NONE).decode();
    let mut text = String::new();
    FastFormatter::new().format(&instruction, &mut text);
    text
}
