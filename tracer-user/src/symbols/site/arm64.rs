//! The starts of functions that the Go compiler writes for arm64.
//!
//! ```text
//! ldr x16, [x28, #16]
//! small: cmp sp, x16, or mov x17, sp and cmp x17, x16 (before Go 1.20)
//! large: sub x17, sp, #N            huge: subs x17, sp, #N, or x27 with N in it
//!        cmp x17, x16                     b.lo grow
//! b.ls grow                               cmp x17, x16
//!                                         b.ls grow
//! grow: str argument register, [sp, #N] (any number)
//!       mov x3, x30
//!       bl runtime.morestack or runtime.morestack_noctxt
//!       ldr argument register, [sp, #N]
//!       b start
//! ```
//! x28 holds the goroutine. After the check the frame is made: `str x30, [sp, #-N]!`, or x20 or x27
//! gets the new stack pointer. Every instruction is one word of 32 bits; words of data among them can
//! only look like one more jump, which makes this more careful, never less.

use super::{Code, SiteRefusal, StackCheck, Sweep};

/// A kind of instruction: those bits of a word that tell it, and their value.
struct Form {
    mask: u32,
    value: u32,
}

impl Form {
    const fn new(mask: u32, value: u32) -> Self {
        Self { mask, value }
    }

    const fn is(&self, word: u32) -> bool {
        word & self.mask == self.value
    }
}

const LOAD_BOUND: Form = Form::new(u32::MAX, 0xf940_0b90);
const MOV_X17_SP: Form = Form::new(u32::MAX, 0x9100_03f1);
const CMP_SP_X16: Form = Form::new(u32::MAX, 0xeb30_63ff);
const CMP_X17_X16: Form = Form::new(u32::MAX, 0xeb10_023f);
const SUB_X17_SP: Form = Form::new(0xff80_03ff, 0xd100_03f1);
const SUBS_X17_SP: Form = Form::new(0xff80_03ff, 0xf100_03f1);
const SUBS_X17_SP_X27: Form = Form::new(u32::MAX, 0xeb3b_63f1);
/// A constant into x27: movz, movk, movn, an or of a bit pattern, a load of a nearby word.
const CONSTANT_X27: [Form; 5] = [
    Form::new(0xff80_001f, 0xd280_001b),
    Form::new(0xff80_001f, 0xf280_001b),
    Form::new(0xff80_001f, 0x9280_001b),
    Form::new(0xff80_03ff, 0xb200_03fb),
    Form::new(0xff00_001f, 0x5800_001b),
];
const B_LO: Form = Form::new(0xff00_001f, 0x5400_0003);
const B_LS: Form = Form::new(0xff00_001f, 0x5400_0009);
const B_COND: Form = Form::new(0xff00_0000, 0x5400_0000);
const COMPARE_BRANCH: Form = Form::new(0x7e00_0000, 0x3400_0000);
const TEST_BRANCH: Form = Form::new(0x7e00_0000, 0x3600_0000);
const B: Form = Form::new(0xfc00_0000, 0x1400_0000);
const BL: Form = Form::new(0xfc00_0000, 0x9400_0000);
const BR: Form = Form::new(0xffff_fc1f, 0xd61f_0000);
const MOV_X3_X30: Form = Form::new(u32::MAX, 0xaa1e_03e3);
const NOP: Form = Form::new(u32::MAX, 0xd503_201f);
const PUSH_X30: Form = Form::new(0xfff0_0fff, 0xf810_0ffe);
/// The new stack pointer into x20, before Go 1.19 into x27.
const SUB_X20_SP: Form = Form::new(0xff80_03ff, 0xd100_03f4);
const SUB_X27_SP: Form = Form::new(0xff80_03ff, 0xd100_03fb);
/// Stores to [sp, #N]: 64, 32, 16 and 8 bits, floats of 64 and 32, then pairs of 64, 32 and floats.
const STORES: [Form; 10] = [
    Form::new(0xffc0_03e0, 0xf900_03e0),
    Form::new(0xffc0_03e0, 0xb900_03e0),
    Form::new(0xffc0_03e0, 0x7900_03e0),
    Form::new(0xffc0_03e0, 0x3900_03e0),
    Form::new(0xffc0_03e0, 0xfd00_03e0),
    Form::new(0xffc0_03e0, 0xbd00_03e0),
    Form::new(0xffc0_03e0, 0xa900_03e0),
    Form::new(0xffc0_03e0, 0x2900_03e0),
    Form::new(0xffc0_03e0, 0x6d00_03e0),
    Form::new(0xffc0_03e0, 0x2d00_03e0),
];
/// The loads that read them back, those with a sign too.
const LOADS: [Form; 14] = [
    Form::new(0xffc0_03e0, 0xf940_03e0),
    Form::new(0xffc0_03e0, 0xb940_03e0),
    Form::new(0xffc0_03e0, 0x7940_03e0),
    Form::new(0xffc0_03e0, 0x3940_03e0),
    Form::new(0xffc0_03e0, 0xfd40_03e0),
    Form::new(0xffc0_03e0, 0xbd40_03e0),
    Form::new(0xffc0_03e0, 0xa940_03e0),
    Form::new(0xffc0_03e0, 0x2940_03e0),
    Form::new(0xffc0_03e0, 0x6940_03e0),
    Form::new(0xffc0_03e0, 0x6d40_03e0),
    Form::new(0xffc0_03e0, 0x2d40_03e0),
    Form::new(0xffc0_03e0, 0xb980_03e0),
    Form::new(0xffc0_03e0, 0x7980_03e0),
    Form::new(0xffc0_03e0, 0x3980_03e0),
];

pub(super) fn sweep(code: &Code<'_>) -> Result<Sweep, SiteRefusal> {
    let check = stack_check(code);
    let last = check.map_or(code.start, |check| check.site.unwrap_or(code.start));
    let first = words(code, code.start).next().map(|(_, word)| word);
    let mut found = Sweep {
        check,
        morestack_calls: 0,
        indirect_jump: false,
        frame_at_start: first.is_some_and(is_frame_setup),
        jumps_to_start: Vec::new(),
    };
    for (address, word) in words(code, code.start) {
        if BL.is(word) && target(address, word).is_some_and(|target| (code.is_morestack)(target)) {
            found.morestack_calls += 1;
        } else if BR.is(word) {
            found.indirect_jump = true;
        } else if let Some(target) = target(address, word).filter(|_| !BL.is(word))
            && (code.start..=last).contains(&target)
        {
            found.jumps_to_start.push((address, target));
        }
    }
    Ok(found)
}

/// The words from `from` on, with their addresses.
fn words<'c>(code: &Code<'c>, from: u64) -> impl Iterator<Item = (u64, u32)> + use<'c> {
    let skip = usize::try_from(from.wrapping_sub(code.start)).unwrap_or(usize::MAX);
    let words = code.bytes.get(skip..).unwrap_or_default().as_chunks().0.iter();
    words.enumerate().map(move |(index, word)| (from + 4 * index as u64, u32::from_le_bytes(*word)))
}

/// Where a jump or call leads that says so itself.
fn target(address: u64, word: u32) -> Option<u64> {
    let (shift, bits) = if B.is(word) || BL.is(word) {
        (0, 26)
    } else if B_COND.is(word) || COMPARE_BRANCH.is(word) {
        (5, 19)
    } else if TEST_BRANCH.is(word) {
        (5, 14)
    } else {
        return None;
    };
    let distance = (word << (32 - shift - bits)).cast_signed() >> (32 - bits);
    Some(address.wrapping_add_signed(i64::from(distance) * 4))
}

fn stack_check(code: &Code<'_>) -> Option<StackCheck> {
    let mut rest = words(code, code.start).peekable();
    rest.next_if(|(_, word)| LOAD_BOUND.is(*word))?;
    let mut overflow = None;
    let compare = if rest.next_if(|(_, word)| MOV_X17_SP.is(*word) || SUB_X17_SP.is(*word)).is_some() {
        CMP_X17_X16
    } else if rest.peek().is_some_and(|(_, word)| CMP_SP_X16.is(*word)) {
        CMP_SP_X16
    } else {
        let mut constants = 0;
        while rest.next_if(|(_, word)| is_constant(*word)).is_some() {
            constants += 1;
        }
        let subtract = if constants == 0 { SUBS_X17_SP } else { SUBS_X17_SP_X27 };
        rest.next_if(|(_, word)| constants <= 2 && subtract.is(*word))?;
        let (address, jump) = rest.next_if(|(_, word)| B_LO.is(*word))?;
        overflow = target(address, jump);
        CMP_X17_X16
    };
    rest.next_if(|(_, word)| compare.is(*word))?;
    let (address, jump) = rest.next_if(|(_, word)| B_LS.is(*word))?;
    let grow = target(address, jump).filter(|grow| overflow.is_none_or(|overflow| overflow == *grow))?;
    let site = rest.next().filter(|(_, word)| is_frame_setup(*word)).map(|(address, _)| address);
    Some(StackCheck { site, target: grow, growth: growth(code, grow) })
}

/// The jump at the end of the code at `from`, if all of that code is as it should be.
fn growth(code: &Code<'_>, from: u64) -> Option<u64> {
    /// Sixteen registers for numbers and sixteen for floats are saved and read back at most.
    const MAX_INSTRUCTIONS: usize = 72;
    from.checked_sub(code.start).filter(|offset| *offset > 0)?;
    let mut called = false;
    for (address, word) in words(code, from).take(MAX_INSTRUCTIONS) {
        if B.is(word) {
            return (called && target(address, word) == Some(code.start)).then_some(address);
        }
        if BL.is(word) {
            if called || !target(address, word).is_some_and(|target| (code.is_morestack)(target)) {
                return None;
            }
            called = true;
            continue;
        }
        let moves: &[Form] = if called { &LOADS } else { &STORES };
        let links = !called && MOV_X3_X30.is(word);
        if !links && !NOP.is(word) && !moves.iter().any(|form| form.is(word)) {
            return None;
        }
    }
    None
}

fn is_constant(word: u32) -> bool {
    CONSTANT_X27.iter().any(|form| form.is(word))
}

fn is_frame_setup(word: u32) -> bool {
    PUSH_X30.is(word) || SUB_X20_SP.is(word) || SUB_X27_SP.is(word) || is_constant(word)
}

pub(super) fn instruction(bytes: &[u8]) -> String {
    let word = bytes.first_chunk().copied().map(u32::from_le_bytes);
    word.map_or_else(String::new, |word| match word {
        word if PUSH_X30.is(word) => "str x30, [sp, #-N]!".to_owned(),
        word if SUB_X20_SP.is(word) => "sub x20, sp, #N".to_owned(),
        word if SUB_X27_SP.is(word) => "sub x27, sp, #N".to_owned(),
        word => format!(".inst {word:#010x}"),
    })
}
