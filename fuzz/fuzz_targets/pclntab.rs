//! A real Go program (`LINKTRACER_FUZZ_PROGRAM`, stripped) that was tampered with: the input says which bytes of its table
//! of functions, of its description, of its headers and of its code are others. Random bytes as a whole would never get
//! past the check that these agree with each other.
#![no_main]

use std::{cell::RefCell, path::Path};

use libfuzzer_sys::fuzz_target;
use linktracer_fuzz::within;
use object::{Object as _, ObjectSection as _};
use tracer_user::symbols;

/// docs/operations.md promises as much for 100 MB, and the program is smaller by far.
const MEMORY_LIMIT: usize = 64 << 20;

struct Program {
    bytes: Vec<u8>,
    /// Where what is tampered with stands: start and length.
    regions: Vec<(usize, usize)>,
}

thread_local! {
    static PROGRAM: RefCell<Program> = RefCell::new(Program::load());
}

impl Program {
    fn load() -> Self {
        let path =
            std::env::var_os("LINKTRACER_FUZZ_PROGRAM").expect("LINKTRACER_FUZZ_PROGRAM names a Go program");
        let bytes = std::fs::read(path).expect("the Go program can be read");
        let file = object::File::parse(&*bytes).expect("the Go program is an ELF file");
        let section = |name: &str| {
            let (start, len) = file.section_by_name(name)?.file_range()?;
            Some((start as usize, len as usize))
        };
        let table = section(".gopclntab").expect("a Go program has one");
        let mut regions = vec![(0, 0x400), (table.0, 0x80), table];
        regions
            .extend([".noptrdata", ".go.module", ".text", ".go.buildinfo"].into_iter().filter_map(section));
        Self { bytes, regions }
    }

    /// Changes bytes as the input says, and returns what they were, in order.
    fn tamper(&mut self, input: &[u8]) -> Vec<(usize, u8)> {
        let mut before = Vec::new();
        for change in input.chunks_exact(6) {
            let (start, len) = self.regions[usize::from(change[0]) % self.regions.len()];
            let place = u32::from_le_bytes([change[1], change[2], change[3], change[4]]) as usize;
            let byte = &mut self.bytes[start + place % len];
            before.push((start + place % len, std::mem::replace(byte, change[5])));
        }
        before
    }
}

fuzz_target!(|input: &[u8]| {
    PROGRAM.with_borrow_mut(|program| {
        let before = program.tamper(input);
        let (path, bytes) = (Path::new("input"), program.bytes.as_slice());
        within(MEMORY_LIMIT, || {
            // One that is there, or one for which names like it are looked for.
            let pattern = if input.len() % 2 == 0 { "main.main" } else { "no.such.Function" };
            for function in symbols::find_in(path, bytes, pattern).unwrap_or_default() {
                assert!(function.site.file_offset < bytes.len() as u64, "{function:?}");
            }
            let _ = symbols::go::build_info_in(path, bytes);
        });
        for (place, byte) in before.into_iter().rev() {
            program.bytes[place] = byte;
        }
    });
});
