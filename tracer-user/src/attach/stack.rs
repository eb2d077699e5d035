//! Holds the stack of every function that probes in user space call below 64 bytes.
//!
//! Why: `tracer-ebpf/src/hooks/sdk.rs`. Nothing else would say it, since the verifier does not mind, and
//! what goes wrong then goes wrong on preemptible kernels only, and not in every run.

use std::collections::BTreeMap;

use object::{
    File, Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, Section, SymbolKind,
};

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

/// A function: the section it is in, and its address there.
type Place = (usize, u64);

/// Functions that a function calls, of `code` at `address` of a section.
fn calls(section: &Section<'_, '_>, object: &File<'_>, address: u64, code: &[u8]) -> Vec<Place> {
    /// A call, and one of another function of the object.
    const CALL: u8 = 0x85;
    const OF_THE_OBJECT: u8 = 1;
    let relocations: BTreeMap<u64, _> = section.relocations().collect();
    let called = |(index, instruction): (usize, &[u8])| {
        if instruction[0] != CALL || instruction[1] >> 4 != OF_THE_OBJECT {
            return None;
        }
        let at = address + 8 * index as u64;
        let number = i64::from(i32::from_le_bytes(instruction[4..8].try_into().expect("four bytes")));
        // Counted in instructions, from the one after the call; or, where the linker has a say, from the
        // start of what it names.
        let ahead = u64::try_from(8 * (number + 1));
        let Some(relocation) = relocations.get(&at) else {
            return Some((section.index().0, at.wrapping_add_signed(8 * (number + 1))));
        };
        let RelocationTarget::Symbol(symbol) = relocation.target() else { panic!("{relocation:?}") };
        let symbol = object.symbol_by_index(symbol).expect("is in the file");
        let within = if symbol.kind() == SymbolKind::Section { ahead.expect("is ahead") } else { 0 };
        Some((symbol.section_index().expect("is defined here").0, symbol.address() + within))
    };
    code.chunks_exact(8).enumerate().filter_map(called).collect()
}

/// Hooks of system calls may use more: nothing else runs on their processor before they end.
#[test]
fn no_function_of_a_probe_in_user_space_takes_a_stack_that_runs_would_share() {
    let object = File::parse(super::OBJECT).expect("the kernel side is an ELF file");
    let mut functions = BTreeMap::new();
    let mut ahead = Vec::new();
    for symbol in object.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text) {
        let Some(section) = symbol.section_index().and_then(|index| object.section_by_index(index).ok())
        else {
            continue;
        };
        let code = section.data_range(symbol.address(), symbol.size()).expect("is in the file");
        let (Some(code), Ok(name)) = (code, symbol.name()) else { continue };
        let place = (section.index().0, symbol.address());
        functions.insert(place, (name.to_owned(), depth(code), calls(&section, &object, place.1, code)));
        if section.name().is_ok_and(|name| name.starts_with("uprobe")) {
            ahead.push(place);
        }
    }
    let mut depths = BTreeMap::new();
    while let Some(place) = ahead.pop() {
        let (name, depth, calls) = functions.get(&place).expect("what is called is a function");
        if depths.insert(name.clone(), *depth).is_none() {
            ahead.extend(calls);
        }
    }
    for name in ["exposure_uprobe_sleepable", "copy_c_string", "tls_write4copy"] {
        assert!(depths.keys().any(|known| known.contains(name)), "{name}: {depths:?}");
    }
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
