//! Each form of function start, and what must not be taken for one.

use super::{SiteReason, SiteRefusal, choose};
use crate::symbols::image::Machine;

const START: u64 = 0x40_1000;
const MORESTACK: u64 = 0x40_0000;

#[track_caller]
fn check(machine: Machine, code: &[u8], expected: Result<(u64, SiteReason), SiteRefusal>) {
    let found = choose(machine, Some(code), START, &|address| address == MORESTACK);
    assert_eq!(found.map(|(address, reason)| (address - START, reason)), expected);
}

/// A call of `runtime.morestack` from offset `at`.
fn morestack(at: u64) -> Vec<u8> {
    relative(&[0xe8], at + 5, MORESTACK)
}

fn relative(opcode: &[u8], end: u64, target: u64) -> Vec<u8> {
    let distance = target.wrapping_sub(START + end);
    [opcode, &distance.to_le_bytes()[..4]].concat()
}

/// `check`, then `push rbp; ret`, then the growth block: spill, call, reload, jump to `back`.
fn amd64(check: &[u8], back: u64) -> Vec<u8> {
    let mut code = [check, &[0x55, 0xc3, 0x48, 0x89, 0x44, 0x24, 0x08]].concat();
    code.extend(morestack(code.len() as u64));
    code.extend([0x48, 0x8b, 0x44, 0x24, 0x08]);
    let end = code.len() as u64 + 5;
    code.extend(relative(&[0xe9], end, START + back));
    code
}

const CHECKED: Result<(u64, SiteReason), SiteRefusal> = Ok((6, SiteReason::AfterStackCheck));

#[test]
fn a_small_frame() {
    check(Machine::Amd64, &amd64(&[0x49, 0x3b, 0x66, 0x10, 0x76, 2], 0), CHECKED);
}

#[test]
fn a_frame_of_128_bytes_is_made_by_adding_minus_128() {
    let code = |amount: u8| {
        let mut code = amd64(&[0x49, 0x3b, 0x66, 0x10, 0x76, 5], 0);
        code.splice(6..7, [0x48, 0x83, 0xc4, amount]);
        // What follows moved by three bytes, so the two jumps out of it are set anew.
        let call = code.len() as u64 - 15;
        code.truncate(code.len() - 15);
        code.extend(morestack(call));
        code.extend([0x48, 0x8b, 0x44, 0x24, 0x08]);
        let end = code.len() as u64 + 5;
        code.extend(relative(&[0xe9], end, START));
        code
    };
    check(Machine::Amd64, &code(0x80), CHECKED);
    check(Machine::Amd64, &code(0x10), Err(SiteRefusal::UnknownStackCheck));
}

#[test]
fn a_large_frame() {
    let start = [0x4c, 0x8d, 0x64, 0x24, 0x80, 0x4d, 0x3b, 0x66, 0x10, 0x76, 2];
    check(Machine::Amd64, &amd64(&start, 0), Ok((11, SiteReason::AfterStackCheck)));
}

#[test]
fn a_huge_frame_and_its_check_for_wrapping_around() {
    let start = |first: u8, second: u8| {
        [
            &[0x49, 0x89, 0xe4, 0x49, 0x81, 0xec, 0, 0, 1, 0, 0x72, first][..],
            &[0x4d, 0x3b, 0x66, 0x10, 0x76, second],
        ]
        .concat()
    };
    check(Machine::Amd64, &amd64(&start(8, 2), 0), Ok((18, SiteReason::AfterStackCheck)));
    // The two jumps lead to different places: not what the compiler writes.
    check(Machine::Amd64, &amd64(&start(7, 2), 0), Err(SiteRefusal::UnknownStackCheck));
}

#[test]
fn a_check_whose_growth_does_not_jump_to_the_start_is_refused() {
    let code = amd64(&[0x49, 0x3b, 0x66, 0x10, 0x76, 2], 6);
    check(Machine::Amd64, &code, Err(SiteRefusal::UnknownGrowth { address: START + 8 }));
}

#[test]
fn another_goroutine_field_or_register_is_no_stack_check() {
    for compare in [[0x49, 0x3b, 0x66, 0x18], [0x49, 0x3b, 0x67, 0x10], [0x48, 0x3b, 0x66, 0x10]] {
        let code = amd64(&[&compare[..], &[0x76, 2]].concat(), 0);
        check(Machine::Amd64, &code, Err(SiteRefusal::UnknownStackCheck));
    }
}

#[test]
fn a_jump_back_to_the_place_is_refused() {
    // cmp, jbe, push rbp, jmp to the push
    let mut code = amd64(&[0x49, 0x3b, 0x66, 0x10, 0x76, 2], 0);
    code.extend([0xeb, 0]);
    let jump = code.len() as u64 - 2;
    *code.last_mut().expect("just added") = (6_u64.wrapping_sub(jump + 2)).to_le_bytes()[0];
    check(Machine::Amd64, &code, Err(SiteRefusal::Loop { address: START + jump }));
}

#[test]
fn a_function_that_never_grows_is_probed_at_its_start_unless_that_is_a_loop() {
    check(Machine::Amd64, &[0x48, 0x01, 0xd8, 0xc3], Ok((0, SiteReason::NoStackCheck)));
    let looping = [0x48, 0xff, 0xc8, 0x75, 0xfb, 0xc3];
    check(Machine::Amd64, &looping, Err(SiteRefusal::Loop { address: START + 3 }));
    // jmp rax: through a table perhaps, whose targets are not known.
    check(Machine::Amd64, &[0x48, 0xff, 0xc8, 0xff, 0xe0], Err(SiteRefusal::IndirectJump));
    check(Machine::Amd64, &[0x55, 0xff, 0xe0], Ok((0, SiteReason::NoStackCheck)));
}

#[test]
fn bytes_that_are_no_code_are_refused() {
    check(Machine::Amd64, &[0x06], Err(SiteRefusal::NotCode { address: START }));
    check(Machine::Amd64, &[], Err(SiteRefusal::NoCode));
    check(Machine::Other, &[0xc3], Err(SiteRefusal::OtherMachine));
}

/// `ldr x16, [x28, #16]`, the check, the frame, `ret`, and the growth block.
fn arm64(check: &[u32], frame: u32) -> Vec<u8> {
    let mut words = [&[0xf940_0b90], check, &[frame, 0xd65f_03c0, 0xf900_07e0, 0xaa1e_03e3]].concat();
    let from = |len: usize| START + 4 * len as u64;
    let jump = |opcode: u32, from: u64, to: u64| {
        opcode
            | ((to.wrapping_sub(from) / 4).to_le_bytes()[..4]
                .iter()
                .rev()
                .fold(0, |sum, byte| sum << 8 | u32::from(*byte))
                & 0x03ff_ffff)
    };
    words.push(jump(0x9400_0000, from(words.len()), MORESTACK));
    words.push(0xf940_07e0);
    words.push(jump(0x1400_0000, from(words.len()), START));
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

#[test]
fn the_forms_of_arm64() {
    const PUSH: u32 = 0xf81b_0ffe;
    // b.ls over the frame's instruction and `ret`
    const B_LS: u32 = 0x5400_0069;
    let cases: [(&[u32], u32, u64); 4] = [
        (&[0xeb30_63ff, B_LS], PUSH, 12),
        (&[0x9100_03f1, 0xeb10_023f, B_LS], PUSH, 16),
        (&[0xd10e_c3f1, 0xeb10_023f, B_LS], 0xd110_c3f4, 16),
        (&[0xd282_241b, 0xf2a0_003b, 0xeb3b_63f1, 0x5400_00a3, 0xeb10_023f, B_LS], 0xd106_83f4, 28),
    ];
    for (start, frame, site) in cases {
        check(Machine::Arm64, &arm64(start, frame), Ok((site, SiteReason::AfterStackCheck)));
    }
    check(Machine::Arm64, &arm64(&[0xeb30_63ff, B_LS], 0xd503_201f), Err(SiteRefusal::UnknownStackCheck));
    check(Machine::Arm64, &0xd65f_03c0_u32.to_le_bytes(), Ok((0, SiteReason::NoStackCheck)));
    let looping = [0xd100_0400_u32, 0xb5ff_ffe0, 0xd65f_03c0].map(u32::to_le_bytes).concat();
    check(Machine::Arm64, &looping, Err(SiteRefusal::Loop { address: START + 4 }));
}
