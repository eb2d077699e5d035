//! Any bytes may be called a program with USDT probes, and any text their arguments: there is an answer, and what the
//! kernel side is told lies within the bounds that it relies on.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use linktracer_fuzz::within;
use tracer_common::usdt::{MAX_REGISTER_OFFSET, NO_REGISTER, UsdtValue, VALUE_MEMORY};
use tracer_user::{config::SdkArgs, symbols};

const MEMORY_PER_BYTE: usize = 256;
const MEMORY_AT_LEAST: usize = 1 << 20;

fuzz_target!(|bytes: &[u8]| {
    let args = SdkArgs::parse("(request_id bytes, item_id cstr)").expect("is a parameter list");
    read(bytes, "*", &args);
    // The rest of a program keeps most inputs from ever getting as far as an argument.
    for amd64 in [true, false] {
        read(&with_note(bytes, amd64), "p:*", &args);
    }
});

fn read(program: &[u8], probe: &str, args: &SdkArgs) {
    let path = Path::new("input");
    within(MEMORY_AT_LEAST + MEMORY_PER_BYTE * program.len(), || {
        for site in symbols::find_usdt_in(path, program, probe, args).unwrap_or_default() {
            assert!(site.file_offset < program.len() as u64);
            for id in [site.ids.request_id, site.ids.item_id] {
                check(&id.address);
                check(&id.len);
            }
        }
        let _ = symbols::describe_in(path, program, Some("*:*"), &mut std::io::sink());
    });
}

fn check(value: &UsdtValue) {
    let is_register = |offset: u16| usize::from(offset) < MAX_REGISTER_OFFSET;
    assert!(value.kind <= VALUE_MEMORY && matches!(value.size, 1 | 2 | 4 | 8) && value.scale <= 3);
    assert!(is_register(value.base) && (is_register(value.index) || value.index == NO_REGISTER));
}

/// The smallest program that has `bytes` as the arguments of its only note.
fn with_note(bytes: &[u8], amd64: bool) -> Vec<u8> {
    const SECTIONS_AT: usize = 0x200;
    let texts = [b"p\0n\0", bytes, b"\0"].concat();
    let mut note = [8u32, 24 + texts.len() as u32, 3].map(u32::to_le_bytes).concat();
    note.extend(b"stapsdt\0");
    note.extend([0x1000u64, 0, 0].map(u64::to_le_bytes).concat());
    note.extend(&texts);
    let names = b"\0.note.stapsdt\0";
    let mut program = vec![0u8; SECTIONS_AT + 3 * 64];
    program[..16].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    let mut put = |at: usize, value: u64, len: usize| {
        program[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
    };
    put(16, 2, 2); // e_type
    put(18, if amd64 { 62 } else { 183 }, 2); // e_machine
    put(20, 1, 4); // e_version
    put(32, 64, 8); // e_phoff
    put(40, SECTIONS_AT as u64, 8); // e_shoff
    put(52, 64, 2); // e_ehsize
    put(54, 56, 2); // e_phentsize
    put(56, 1, 2); // e_phnum
    put(58, 64, 2); // e_shentsize
    put(60, 3, 2); // e_shnum
    put(62, 2, 2); // e_shstrndx
    put(64, 1, 4); // PT_LOAD
    put(68, 5, 4); // read, execute
    put(80, 0x1000, 8); // p_vaddr
    put(96, 0x100, 8); // p_filesz
    put(104, 0x100, 8); // p_memsz
    let note_at = SECTIONS_AT + 3 * 64;
    let sections = [(64, 1, 7, note_at, note.len()), (128, 0, 3, note_at + note.len(), names.len())];
    for (at, name, kind, offset, len) in sections {
        put(SECTIONS_AT + at, name, 4);
        put(SECTIONS_AT + at + 4, kind, 4);
        put(SECTIONS_AT + at + 24, offset as u64, 8);
        put(SECTIONS_AT + at + 32, len as u64, 8);
    }
    program.extend(note);
    program.extend(names);
    program
}
