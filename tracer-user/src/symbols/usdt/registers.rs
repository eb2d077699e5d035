//! Registers by their names in a note: where the kernel saved them, and nothing else.

use super::super::image::Machine;

/// Where a register stands in the saved registers, in bytes from their start. `None` where it is not
/// there, or is not there on its own (`%ah`).
pub(super) fn offset(machine: Machine, name: &str) -> Option<u16> {
    match machine {
        Machine::Amd64 => amd64(name),
        Machine::Arm64 => arm64(name),
        Machine::Other => None,
    }
}

/// The instruction pointer of amd64.
pub(super) const AMD64_RIP: u16 = 128;

/// `struct pt_regs` of x86-64.
fn amd64(name: &str) -> Option<u16> {
    Some(match name {
        "r15" | "r15d" | "r15w" | "r15b" => 0,
        "r14" | "r14d" | "r14w" | "r14b" => 8,
        "r13" | "r13d" | "r13w" | "r13b" => 16,
        "r12" | "r12d" | "r12w" | "r12b" => 24,
        "rbp" | "ebp" | "bp" | "bpl" => 32,
        "rbx" | "ebx" | "bx" | "bl" => 40,
        "r11" | "r11d" | "r11w" | "r11b" => 48,
        "r10" | "r10d" | "r10w" | "r10b" => 56,
        "r9" | "r9d" | "r9w" | "r9b" => 64,
        "r8" | "r8d" | "r8w" | "r8b" => 72,
        "rax" | "eax" | "ax" | "al" => 80,
        "rcx" | "ecx" | "cx" | "cl" => 88,
        "rdx" | "edx" | "dx" | "dl" => 96,
        "rsi" | "esi" | "si" | "sil" => 104,
        "rdi" | "edi" | "di" | "dil" => 112,
        "rip" => AMD64_RIP,
        "rsp" | "esp" | "sp" | "spl" => 152,
        _ => return None,
    })
}

/// `struct user_pt_regs` of arm64: x0 to x30, then the stack pointer.
fn arm64(name: &str) -> Option<u16> {
    match name {
        "sp" | "wsp" => return Some(31 * 8),
        "xzr" | "wzr" => return None,
        _ => {}
    }
    let digits = name.strip_prefix(['x', 'w'])?;
    // `parse` would take a sign.
    if digits.starts_with(['+', '0']) && digits != "0" {
        return None;
    }
    let number: u16 = digits.parse().ok()?;
    (number <= 30).then(|| number * 8)
}

#[cfg(test)]
mod tests {
    use tracer_common::usdt::MAX_REGISTER_OFFSET;

    use super::{super::super::image::Machine, offset};

    #[test]
    fn parts_of_a_register_are_in_the_register() {
        for names in [["rax", "eax", "ax", "al"], ["r8", "r8d", "r8w", "r8b"], ["rsi", "esi", "si", "sil"]] {
            let offsets = names.map(|name| offset(Machine::Amd64, name).expect("is a register"));
            assert!(offsets.iter().all(|offset| *offset == offsets[0]), "{names:?}");
        }
        assert_eq!(offset(Machine::Amd64, "ah"), None);
        assert_eq!(offset(Machine::Arm64, "x19"), Some(152));
        assert_eq!(offset(Machine::Arm64, "w19"), Some(152));
        assert_eq!(offset(Machine::Arm64, "x31"), None);
        assert_eq!(offset(Machine::Arm64, "x01"), None);
        assert_eq!(offset(Machine::Arm64, "x+5"), None);
        assert_eq!(offset(Machine::Arm64, "x29611"), None, "eight times that is beyond a u16");
        assert_eq!(offset(Machine::Arm64, "x0"), Some(0));
        assert_eq!(offset(Machine::Other, "r1"), None);
        assert!(offset(Machine::Arm64, "sp").is_some_and(|offset| usize::from(offset) < MAX_REGISTER_OFFSET));
    }
}
