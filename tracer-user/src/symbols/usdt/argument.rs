//! One argument of a note, such as `-4@%edi`, `8@-8(%rbp)` or `8@[sp, 16]`: length and sign, and an operand as
//! the assembler of the machine writes it.

use tracer_common::usdt::{NO_REGISTER, UsdtValue, VALUE_CONSTANT, VALUE_MEMORY, VALUE_REGISTER};

use super::{super::image::Machine, registers};

/// More arguments than the macros can pass.
const MAX_ARGUMENTS: usize = 16;

/// An argument as the note has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Argument<'a> {
    size: u8,
    is_signed: bool,
    operand: Operand<'a>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Operand<'a> {
    Constant(i64),
    Register(u16),
    Memory {
        base: u16,
        index: u16,
        scale: u8,
        displacement: i64,
    },
    /// A variable, so many bytes after its start, relative to the instruction pointer.
    Variable {
        name: &'a str,
        displacement: i64,
    },
}

/// The arguments of a list. They are separated by spaces, which an operand of arm64 has in its brackets.
pub(super) fn split(list: &str) -> Vec<&str> {
    let mut depth = 0_usize;
    let separates = |character: char| {
        match character {
            '[' | '(' => depth += 1,
            ']' | ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        character == ' ' && depth == 0
    };
    list.split(separates).filter(|text| !text.is_empty()).take(MAX_ARGUMENTS).collect()
}

impl<'a> Argument<'a> {
    pub(super) fn parse(machine: Machine, text: &'a str) -> Result<Self, String> {
        let (size, operand) = text.split_once('@').ok_or("which says no length")?;
        let (is_signed, digits) = size.strip_prefix('-').map_or((false, size), |digits| (true, digits));
        let size = match digits {
            "1" => 1,
            "2" => 2,
            "4" => 4,
            "8" => 8,
            _ => return Err(format!("whose length `{size}` is not that of a number or a pointer")),
        };
        let operand = match machine {
            Machine::Amd64 => amd64(operand),
            Machine::Arm64 => arm64(operand),
            Machine::Other => None,
        };
        operand.map(|operand| Self { size, is_signed, operand }).ok_or_else(|| {
            "which is no register, no constant and no place in memory that can be followed".to_owned()
        })
    }

    /// The variable that it names.
    pub(super) const fn variable(&self) -> Option<&'a str> {
        match self.operand {
            Operand::Variable { name, .. } => Some(name),
            _ => None,
        }
    }

    /// What the kernel side is told, for a probe at `address`; `variable` gives a variable's address.
    pub(super) fn value(
        &self,
        machine: Machine,
        address: u64,
        variable: &dyn Fn(&str) -> Option<u64>,
    ) -> Result<UsdtValue, String> {
        let size_and_sign =
            UsdtValue { size: self.size, is_signed: u8::from(self.is_signed), ..UsdtValue::ZERO };
        Ok(match self.operand {
            Operand::Constant(constant) => UsdtValue { constant, kind: VALUE_CONSTANT, ..size_and_sign },
            Operand::Register(base) => UsdtValue { kind: VALUE_REGISTER, base, ..size_and_sign },
            Operand::Memory { base, index, scale, displacement } => {
                UsdtValue { constant: displacement, kind: VALUE_MEMORY, base, index, scale, ..size_and_sign }
            }
            // Program and variable move together, and at the probe the instruction pointer is its address.
            Operand::Variable { name, displacement } => {
                if machine != Machine::Amd64 {
                    return Err("a variable, which this machine's programs cannot name".to_owned());
                }
                let of_variable = variable(name).ok_or_else(|| {
                    format!("and the file's symbol tables have no single variable `{name}`")
                })?;
                UsdtValue {
                    constant: of_variable.wrapping_sub(address).cast_signed().wrapping_add(displacement),
                    kind: VALUE_MEMORY,
                    base: registers::AMD64_RIP,
                    ..size_and_sign
                }
            }
        })
    }
}

/// A number, decimal or `0x...`, with a sign or without.
fn number(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let magnitude = match digits.strip_prefix("0x") {
        Some(hexadecimal) if !hexadecimal.starts_with('+') => u64::from_str_radix(hexadecimal, 16).ok()?,
        None if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok()?,
        _ => return None,
    };
    // A constant may be written as the unsigned number of the same bits.
    Some(if negative { magnitude.wrapping_neg() } else { magnitude }.cast_signed())
}

/// As GNU as writes operands of x86-64: `$5`, `%rdi`, `-8(%rbp)`, `(%rax,%rbx,8)`, `name+4(%rip)`.
fn amd64(text: &str) -> Option<Operand<'_>> {
    let register = |text: &str| registers::offset(Machine::Amd64, text.strip_prefix('%')?);
    if let Some(constant) = text.strip_prefix('$') {
        return number(constant).map(Operand::Constant);
    }
    if text.starts_with('%') {
        return register(text).map(Operand::Register);
    }
    let (displacement, inner) = text.strip_suffix(')')?.split_once('(')?;
    if inner == "%rip" {
        return variable(displacement);
    }
    let displacement = if displacement.is_empty() { 0 } else { number(displacement)? };
    let mut parts = inner.split(',');
    // Only whole registers are addresses; an address without a base is the table of a jump, not a variable.
    let whole = |text: &str| {
        let is_whole = text.starts_with("%r") && !text.ends_with(['b', 'd', 'w']);
        is_whole.then(|| register(text)).flatten()
    };
    let base = whole(parts.next()?)?;
    let (index, scale) = match (parts.next(), parts.next()) {
        (None, _) => (NO_REGISTER, 0),
        (Some(index), scale) => {
            let scale = match scale.unwrap_or("1") {
                "1" => 0,
                "2" => 1,
                "4" => 2,
                "8" => 3,
                _ => return None,
            };
            (whole(index)?, scale)
        }
    };
    parts.next().is_none().then_some(Operand::Memory { base, index, scale, displacement })
}

/// `name`, `name+8`, `8+name`; a bare number would be relative to an instruction that is not known here.
fn variable(text: &str) -> Option<Operand<'_>> {
    let is_name = |text: &str| {
        !text.starts_with(|first: char| first.is_ascii_digit())
            && !text.is_empty()
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.$".contains(&byte))
    };
    if is_name(text) {
        return Some(Operand::Variable { name: text, displacement: 0 });
    }
    let at = text.rfind(['+', '-']).filter(|at| *at > 0)?;
    let (left, right) = text.split_at(at);
    if is_name(left) {
        return Some(Operand::Variable { name: left, displacement: number(right)? });
    }
    let name = right.strip_prefix('+').filter(|name| is_name(name))?;
    Some(Operand::Variable { name, displacement: number(left)? })
}

/// As GNU as writes operands of arm64: `5`, `x0`, `[sp]`, `[x29, 16]`, `[x0, x1]`, `[x0, x1, lsl 3]`.
fn arm64(text: &str) -> Option<Operand<'_>> {
    let register = |text: &str| registers::offset(Machine::Arm64, text);
    let without_mark = |text: &str| number(text.strip_prefix('#').unwrap_or(text));
    let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) else {
        return without_mark(text).map(Operand::Constant).or_else(|| register(text).map(Operand::Register));
    };
    let mut parts = inner.split(',').map(str::trim);
    let whole = |text: &str| text.starts_with(['x', 's']).then(|| register(text)).flatten();
    let base = whole(parts.next()?)?;
    let memory = |index, scale, displacement| Operand::Memory { base, index, scale, displacement };
    let operand = match (parts.next(), parts.next()) {
        (None, _) => memory(NO_REGISTER, 0, 0),
        (Some(second), None) => match without_mark(second) {
            Some(displacement) => memory(NO_REGISTER, 0, displacement),
            None => memory(whole(second)?, 0, 0),
        },
        (Some(index), Some(shift)) => {
            let places = without_mark(shift.strip_prefix("lsl")?.trim_start())?;
            memory(whole(index)?, u8::try_from(places).ok().filter(|places| *places <= 3)?, 0)
        }
    };
    parts.next().is_none().then_some(operand)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tracer_common::usdt::{NO_REGISTER, UsdtValue, VALUE_CONSTANT, VALUE_MEMORY, VALUE_REGISTER};

    use super::{super::super::image::Machine, Argument, split};

    const PROBE: u64 = 0x1000;

    fn value(machine: Machine, text: &str) -> Result<UsdtValue, String> {
        let variable = |name: &str| (name == "count.0").then_some(0x3000);
        Argument::parse(machine, text)?.value(machine, PROBE, &variable)
    }

    #[track_caller]
    fn check(machine: Machine, text: &str, expected: UsdtValue) {
        assert_eq!(value(machine, text), Ok(expected), "{text}");
    }

    #[track_caller]
    fn check_refused(machine: Machine, text: &str, part: &str) {
        match value(machine, text) {
            Err(message) => assert!(message.contains(part), "{text}: {message:?} does not say {part:?}"),
            Ok(value) => panic!("{text} became {value:?}"),
        }
    }

    fn memory(base: u16, constant: i64) -> UsdtValue {
        UsdtValue { kind: VALUE_MEMORY, base, constant, ..UsdtValue::ZERO }
    }

    #[test]
    fn operands_of_amd64() {
        let register = UsdtValue { kind: VALUE_REGISTER, base: 112, ..UsdtValue::ZERO };
        check(Machine::Amd64, "8@%rdi", register);
        check(Machine::Amd64, "-4@%edi", UsdtValue { size: 4, is_signed: 1, ..register });
        check(Machine::Amd64, "1@%dil", UsdtValue { size: 1, ..register });
        check(Machine::Amd64, "8@-8(%rbp)", memory(32, -8));
        check(Machine::Amd64, "8@(%rsp)", memory(152, 0));
        check(
            Machine::Amd64,
            "-2@0x10(%rax,%rbx,8)",
            UsdtValue { size: 2, is_signed: 1, index: 40, scale: 3, ..memory(80, 16) },
        );
        check(Machine::Amd64, "8@(%rax,%rbx)", UsdtValue { index: 40, ..memory(80, 0) });
        let constant =
            UsdtValue { kind: VALUE_CONSTANT, constant: -5, index: NO_REGISTER, ..UsdtValue::ZERO };
        check(Machine::Amd64, "-8@$-5", UsdtValue { is_signed: 1, ..constant });
        check(Machine::Amd64, "8@$18446744073709551611", constant);
    }

    #[test]
    fn a_variable_is_as_far_from_the_probe_as_in_the_file() {
        check(Machine::Amd64, "8@count.0(%rip)", memory(128, 0x2000));
        check(Machine::Amd64, "8@count.0+8(%rip)", memory(128, 0x2008));
        check(Machine::Amd64, "8@8+count.0(%rip)", memory(128, 0x2008));
        check(Machine::Amd64, "8@count.0-8(%rip)", memory(128, 0x1ff8));
        check_refused(Machine::Amd64, "8@other(%rip)", "no single variable `other`");
        check_refused(Machine::Amd64, "8@16(%rip)", "no place in memory");
    }

    #[test]
    fn operands_of_arm64() {
        check(Machine::Arm64, "8@x0", UsdtValue { kind: VALUE_REGISTER, ..UsdtValue::ZERO });
        check(Machine::Arm64, "-4@[sp, 12]", UsdtValue { size: 4, is_signed: 1, ..memory(248, 12) });
        check(Machine::Arm64, "8@[x29]", memory(232, 0));
        check(Machine::Arm64, "8@[x0, x1, lsl 3]", UsdtValue { index: 8, scale: 3, ..memory(0, 0) });
        check(Machine::Arm64, "-4@#-1", UsdtValue { size: 4, is_signed: 1, constant: -1, ..UsdtValue::ZERO });
        check_refused(Machine::Arm64, "8@[x0, x1, lsl 9]", "no place in memory");
        check_refused(Machine::Arm64, "8@[x0, w1, sxtw 3]", "no place in memory");
    }

    #[test]
    fn what_cannot_be_followed_is_refused_in_words() {
        check_refused(Machine::Amd64, "%rdi", "says no length");
        check_refused(Machine::Amd64, "8f@%xmm0", "length `8f`");
        check_refused(Machine::Amd64, "16@%rdi", "length `16`");
        for text in [
            "8@%xmm0",
            "1@%ah",
            "8@$name",
            "8@%fs:0(%rax)",
            "8@(,%rax,8)",
            "8@4(%eax)",
            "8@(%r8d)",
            "8@(%rax,%rbx,3)",
        ] {
            check_refused(Machine::Amd64, text, "no register, no constant");
        }
        check_refused(Machine::Other, "8@%r1", "no register, no constant");
    }

    #[test]
    fn spaces_within_brackets_separate_nothing() {
        assert_eq!(
            split("-4@[sp, 12] 8@x0  8@[x0, x1, lsl 3]"),
            ["-4@[sp, 12]", "8@x0", "8@[x0, x1, lsl 3]"]
        );
        assert!(split("").is_empty());
        assert_eq!(split(&"1@%al ".repeat(500)).len(), 16);
    }

    proptest! {
        #[test]
        fn any_text_is_an_argument_or_refused(text in "[-]?[0-9]{0,2}@?[-+$%#\\[( ]?[a-z0-9.,%()+ \\[\\]-]{0,24}|\\PC{0,40}") {
            for machine in [Machine::Amd64, Machine::Arm64] {
                if let Ok(value) = value(machine, &text) {
                    prop_assert!(matches!(value.size, 1 | 2 | 4 | 8) && value.scale <= 3);
                    prop_assert!(value.base < 512 && (value.index < 512 || value.index == NO_REGISTER));
                }
                let _ = split(&text);
            }
        }
    }
}
