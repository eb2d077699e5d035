//! A real Go program (`LINKTRACER_FUZZ_PROGRAM`, stripped) that was tampered with: the input says which bytes of its table
//! of functions, of its description, of its headers and of its code are others. Random bytes as a whole would never get
//! past the check that these agree with each other.
#![no_main]

use std::{path::Path, sync::LazyLock};

use libfuzzer_sys::fuzz_target;
use object::{Object as _, ObjectSection as _};
use tracer_user::symbols;

struct Program {
    bytes: Vec<u8>,
    /// Where what is tampered with stands: start and length.
    regions: Vec<(usize, usize)>,
}

static PROGRAM: LazyLock<Program> = LazyLock::new(|| {
    let path = std::env::var_os("LINKTRACER_FUZZ_PROGRAM").expect("LINKTRACER_FUZZ_PROGRAM names a Go program");
    let bytes = std::fs::read(path).expect("the Go program can be read");
    let file = object::File::parse(&*bytes).expect("the Go program is an ELF file");
    let section = |name: &str| {
        let (start, len) = file.section_by_name(name)?.file_range()?;
        Some((start as usize, len as usize))
    };
    let table = section(".gopclntab").expect("a Go program has one");
    let mut regions = vec![(0, 0x400), (table.0, 0x80), table];
    regions.extend([".noptrdata", ".go.module", ".text", ".go.buildinfo"].into_iter().filter_map(section));
    Program { bytes, regions }
});

fuzz_target!(|input: &[u8]| {
    let Program { bytes, regions } = &*PROGRAM;
    let mut bytes = bytes.clone();
    for change in input.chunks_exact(6) {
        let (start, len) = regions[usize::from(change[0]) % regions.len()];
        let place = u32::from_le_bytes([change[1], change[2], change[3], change[4]]) as usize;
        bytes[start + place % len] = change[5];
    }
    let path = Path::new("input");
    for pattern in ["main.main", "no.such.Function"] {
        let _ = symbols::find_in(path, &bytes, pattern);
    }
    let _ = symbols::go::build_info_in(path, &bytes);
});
