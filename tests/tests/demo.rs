//! The demo from outside: truth against measurement, on this machine's kernel.

use std::{fs, path::Path};

use serde_json::Value;
use tests::{linktracer, printed};

/// The options that give `replay` the windows of the demo's daemon.
const DEMO_WINDOWS: [&str; 6] = [
    "--exposure-window=10s",
    "--click-window=60s",
    "--report-window=5s",
    "--lateness=2s",
    "--skew=100ms",
    "--reports",
];

fn json(file: &Path) -> Value {
    let text = fs::read_to_string(file).expect("the demo wrote it");
    serde_json::from_str(&text).expect("the demo writes JSON")
}

/// Runs a demo that records to a file of this name, and checks that truth, measurement and the replay
/// of its recording agree.
#[track_caller]
fn check_demo(recording: &str, options: &[&str]) -> Value {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let path = |name: &str| scratch.path().join(name);
    let (truth, measured, recording) = (path("truth.json"), path("measured.json"), path(recording));
    let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    let mut arguments = vec!["demo".to_owned()];
    for (option, path) in [("--truth", &truth), ("--measured", &measured), ("--record", &recording)] {
        arguments.extend([option.to_owned(), text(path)]);
    }
    arguments.extend(options.iter().map(ToString::to_string));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let output = linktracer(&arguments);
    assert!(output.status.success(), "{}", printed(&output));
    let truth = json(&truth);
    let measured = json(&measured);
    for (reason, lost) in measured["lost"].as_object().expect("a map") {
        assert!(reason == "id_too_long" || *lost == 0, "lost: {reason} {lost}");
    }
    for part in ["events", "duplicate", "late", "edges", "requests"] {
        assert_eq!(measured[part], truth[part], "{part}: {}", printed(&output));
    }

    let recording = text(&recording);
    let mut arguments = vec!["replay", &recording, "--output=json"];
    arguments.extend(DEMO_WINDOWS);
    let output = linktracer(&arguments);
    assert!(output.status.success(), "{}", printed(&output));
    let replayed: Value = serde_json::from_slice(&output.stdout).expect("replay prints JSON");
    assert_eq!(replayed["rejected"], 0);
    for part in ["events", "duplicate", "late", "edges", "requests"] {
        assert_eq!(replayed[part], measured[part], "replayed {part}");
    }
    measured
}

#[test]
fn every_count_of_20000_requests_is_exact_and_the_recording_replays_to_the_same() {
    let measured = check_demo("events.jsonl", &["--requests=20000"]);
    assert_eq!(measured["requests"]["exposed"].as_u64().map(|exposed| exposed > 15_000), Some(true));
}

#[test]
fn every_way_of_sending_is_seen_exactly() {
    // At one time, which is also five daemons beside each other.
    std::thread::scope(|scope| {
        for kind in ["write", "writev", "sendto", "sendmsg", "sendmmsg"] {
            scope.spawn(move || check_demo("events.jsonl.zst", &["--requests=500", "--send", kind]));
        }
    });
}

#[test]
fn a_demo_whose_service_cannot_be_traced_fails_and_says_why() {
    let output = linktracer(&["demo", "--requests=10", "--hooks=kprobe"]);
    if output.status.success() {
        return; // A kernel with kprobes.
    }
    assert_eq!(output.status.code(), Some(1), "{}", printed(&output));
    assert!(printed(&output).contains("hooks: auto"), "{}", printed(&output));
}
