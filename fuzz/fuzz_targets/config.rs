//! Any text may be called a configuration. It is read, or refused with a text that names the file.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use tracer_user::config::Config;

fuzz_target!(|text: &str| {
    if let Err(error) = Config::parse(text, Path::new("input.yaml")) {
        assert!(error.to_string().contains("input.yaml"), "{error}");
    }
});
