//! Any bytes may be called a program. Reading functions from them gives an answer within a bound of memory, and a place
//! for a probe is within the file.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use linktracer_fuzz::within;
use tracer_user::symbols;

/// Of lists of names and addresses, whose entries in the file are never shorter than eight bytes.
const MEMORY_PER_BYTE: usize = 256;
const MEMORY_AT_LEAST: usize = 1 << 20;

fuzz_target!(|bytes: &[u8]| {
    let path = Path::new("input");
    within(MEMORY_AT_LEAST + MEMORY_PER_BYTE * bytes.len(), || {
        for pattern in ["main.main", "*.Track*", "*"] {
            let Ok(functions) = symbols::find_in(path, bytes, pattern) else { continue };
            assert!(!functions.is_empty() && functions.is_sorted_by_key(|function| function.address));
            for function in functions {
                assert!(function.site.file_offset < bytes.len() as u64, "{function:?}");
            }
        }
        let _ = symbols::describe_in(path, bytes, Some("*"), &mut std::io::sink());
        let _ = symbols::go::build_info_in(path, bytes);
    });
});
