//! Holds the stack of every function that probes in user space run below 64 bytes.
//!
//! Why: `tracer-ebpf/src/hooks/sdk.rs`. Nothing else would say it, since the verifier does not mind, and
//! what goes wrong then goes wrong on preemptible kernels only, and not in every run.

use std::collections::BTreeMap;

use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SymbolKind};

/// From here on, kernels since 6.13 share a function's stack between runs. They round up to 16 first.
const SHARED_FROM: u32 = 64;

/// The frame pointer, register 10.
const FRAME: u8 = 10;

/// Deepest use of the stack in bytes of one function's instructions, of 8 bytes each: operation, destination
/// (low half) and source register, offset (2), number (4).
fn depth(code: &[u8]) -> u32 {
    let mut deepest = 0;
    let mut copies_frame = [false; 16];
    for instruction in code.chunks_exact(8) {
        let operation = instruction[0];
        let (destination, source) = (instruction[1] & 0xf, instruction[1] >> 4);
        let offset = i64::from(i16::from_le_bytes([instruction[2], instruction[3]]));
        let number = i64::from(i32::from_le_bytes(instruction[4..8].try_into().expect("four bytes")));
        let below = match operation & 0x07 {
            // LDX reads at the source register; ST and STX write at the destination register.
            0x01 if source == FRAME => -offset,
            0x02 | 0x03 if destination == FRAME => -offset,
            // A copy of the frame pointer, and what is then added to it: the address of a variable.
            0x07 if operation == 0xbf => {
                copies_frame[usize::from(destination)] = source == FRAME;
                0
            }
            0x07 if operation == 0x07 && copies_frame[usize::from(destination)] => -number,
            _ => 0,
        };
        deepest = deepest.max(u32::try_from(below).unwrap_or(0));
    }
    deepest
}

#[test]
fn no_function_of_a_probe_in_user_space_takes_a_stack_that_runs_would_share() {
    let object = object::File::parse(super::OBJECT).expect("the kernel side is an ELF file");
    let mut depths = BTreeMap::new();
    for symbol in object.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text) {
        let Some(section) = symbol.section_index().and_then(|index| object.section_by_index(index).ok())
        else {
            continue;
        };
        let of_probes = section.name().is_ok_and(|name| name == ".text" || name.starts_with("uprobe"));
        let code = section.data_range(symbol.address(), symbol.size()).expect("is in the file");
        if of_probes && let Some(code) = code {
            depths.insert(symbol.name().expect("has a name").to_owned(), depth(code));
        }
    }
    assert!(depths.contains_key("exposure_uprobe_sleepable") && depths.len() > 4, "{depths:?}");
    let shared = |(_, depth): &(&String, &u32)| depth.next_multiple_of(16) >= SHARED_FROM;
    assert_eq!(depths.iter().find(shared), None, "{depths:?}");
}

#[test]
fn the_depth_is_that_of_the_deepest_variable() {
    let store = [0x7b, 0x1a, 0xe8, 0xff, 0, 0, 0, 0];
    let copy = [0xbf, 0xa2, 0, 0, 0, 0, 0, 0];
    let add = [0x07, 0x02, 0, 0, 0xd0, 0xff, 0xff, 0xff];
    assert_eq!(depth(&store), 24);
    assert_eq!(depth(&[store, copy, add].concat()), 48);
    assert_eq!(depth(&[store, add].concat()), 24, "not an address on the stack");
}
