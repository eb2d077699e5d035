//! Any bytes may be called a program. Reading functions from them gives an answer, never a panic.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use tracer_user::symbols;

fuzz_target!(|bytes: &[u8]| {
    let path = Path::new("input");
    for pattern in ["main.main", "*.Track*", "*"] {
        let _ = symbols::find_in(path, bytes, pattern);
    }
    let _ = symbols::describe_in(path, bytes, Some("*"), &mut std::io::sink());
    let _ = symbols::go::build_info_in(path, bytes);
});
