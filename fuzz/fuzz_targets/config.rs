//! Any text may be called a configuration. It is refused with every problem at its place, or what comes of it is within
//! all bounds; and neither a comment at its end nor another way to end lines makes it another one.
#![no_main]

use std::{path::Path, time::Duration};

use libfuzzer_sys::fuzz_target;
use linktracer_fuzz::within;
use tracer_user::config::{
    Config, ConfigError, MAX_MEMORY_LIMIT_BYTES, MAX_RING_BYTES, MIN_MEMORY_LIMIT_BYTES, MIN_RING_BYTES,
};

/// Of a tree whose every node knows its place, and of patterns, which are compiled.
const MEMORY_PER_BYTE: usize = 4096;
const MEMORY_AT_LEAST: usize = 4 << 20;

fuzz_target!(|text: &str| {
    let path = Path::new("input.yaml");
    let limit = MEMORY_AT_LEAST + MEMORY_PER_BYTE * text.len();
    match within(limit, || Config::parse(text, path)) {
        Ok(config) => {
            check(&config);
            let expected = format!("{config:?}");
            let same = |text: &str| {
                let config = Config::parse(text, path).expect("it was accepted without that");
                assert_eq!(format!("{config:?}"), expected);
            };
            same(text);
            if !text.contains(['|', '>', '\'', '"', '\r']) {
                same(&format!("{text}\n# a comment\n"));
                same(&text.replace('\n', "\r\n"));
            }
        }
        Err(ConfigError::Invalid { problems, .. }) => {
            assert!(!problems.is_empty());
            assert!(problems.is_sorted_by_key(|problem| (problem.line, problem.column)));
            let lines = text.split(['\n', '\r']).count();
            for problem in &problems {
                assert!((1..=lines + 1).contains(&problem.line) && problem.column > 0, "{problem:?}");
                assert!(!problem.message.is_empty());
            }
            let error = ConfigError::Invalid { path: path.to_owned(), problems }.to_string();
            assert!(error.starts_with("input.yaml: "), "{error}");
        }
        Err(ConfigError::Unreadable { .. }) => panic!("nothing was to be read"),
    }
});

/// What docs and messages promise of a configuration that was accepted.
fn check(config: &Config) {
    assert!(!config.services.is_empty() && !config.source.is_empty());
    let ring = u64::from(config.ring_buffer_size);
    assert!(ring.is_power_of_two() && (MIN_RING_BYTES..=MAX_RING_BYTES).contains(&ring));
    assert!((MIN_MEMORY_LIMIT_BYTES..=MAX_MEMORY_LIMIT_BYTES).contains(&config.join.memory_limit));
    assert!((0.0..=1.0).contains(&config.ratio.trusted_width));
    assert!((Duration::from_secs(1)..=Duration::from_secs(86_400)).contains(&config.ratio.window));
    assert!((Duration::from_millis(1)..=Duration::from_secs(10)).contains(&config.discover.hold_limit));
    for (place, service) in config.services.iter().enumerate() {
        let name = &service.name;
        assert!(!name.is_empty() && name.len() <= 63 && !name.contains(char::is_control));
        assert!(config.services[..place].iter().all(|other| other.name != *name));
        let matched = &service.processes;
        assert!(matched.exe.is_some() || matched.cmdline.is_some() || matched.cgroup.is_some());
        assert!(service.suspicious_after > 0);
        if let Some(request) = &service.request {
            assert!(request.header.is_some() || request.body.is_some());
        }
        if let Some(report) = &service.report {
            assert!((1..=64).contains(&report.to.len()));
        }
    }
}
