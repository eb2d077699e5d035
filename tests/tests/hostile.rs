//! A traced process that lies. It can lose its own events, each counted under its reason, and nothing else.

#![expect(clippy::print_stdout, reason = "the figures, for who asks with --nocapture")]

use std::{fs, path::Path, process::Command, time::Duration};

use rustix::process::Signal;
use tests::{
    daemon::{Daemon, sum},
    printed, wait_for,
};
use tracer_user::demo::measure::Scrape;

const LIMIT: Duration = Duration::from_secs(60);
const CALLS: u64 = 100_000;

fn compile(folder: &Path) -> std::path::PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/liar.c");
    let program = folder.join("liar");
    let output = Command::new("cc").args(["-O1", "-o"]).arg(&program).arg(source).output().expect("starts");
    assert!(output.status.success(), "{}", printed(&output));
    program
}

/// Memory of the daemon in KiB, by its name in `/proc/PID/status`.
fn memory_kib(pid: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("every process has it");
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().expect("a number")
}

fn resident_kib(pid: u32) -> u64 {
    memory_kib(pid, "VmRSS")
}

#[test]
fn a_process_that_lies_harms_only_itself() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let program = compile(scratch.path());
    let recording = scratch.path().join("events.jsonl");
    let text = format!(
        "ring_buffer_size: 64MiB\nservices:\n  - name: liar\n    match: {{ exe: {exe} }}\n    \
         request: {{ id: {{ header: X-Request-Id }} }}\n    release: [\"env:RELEASE\"]\n    \
         exposure: {{ symbol: trackExposure, args: \"(request_id cstr, item_id cstr)\" }}\n\
         join: {{ exposure_window: 1s, click_window: 1s, report_window: 1s, lateness: 200ms }}\n",
        exe = program.display()
    );
    let daemon = Daemon::start_recording(scratch.path(), &text, &recording);
    let run = |seed: &str| {
        let output = Command::new(&program)
            .args([seed, &CALLS.to_string()])
            .env("RELEASE", "v1\"} 1\nlinktracer_injected_total 1\n\u{1b}[31m")
            .output()
            .expect("starts");
        assert!(output.status.success(), "{}", printed(&output));
    };
    let settled = |runs: u64| -> Scrape {
        let each = (CALLS / 5 * runs) as f64;
        wait_for("every call is accounted for and judged", LIMIT, || {
            let scrape = Scrape::fetch(daemon.address()).expect("the daemon answers");
            let hits = |outcome| {
                sum(&scrape, "linktracer_kernel_hits_total", &[("probe", "exposure"), ("outcome", outcome)])
            };
            let received = |outcome| {
                sum(
                    &scrape,
                    "linktracer_received_records_total",
                    &[("probe", "exposure"), ("outcome", outcome)],
                )
            };
            let done = hits("hit") == each * 5.0
                && received("event") + received("id_not_text") == hits("submitted")
                && scrape.waiting().expect("is published") == 0;
            done.then_some(scrape)
        })
    };

    run("7");
    let scrape = settled(1);
    let each = (CALLS / 5) as f64;
    let hits = |outcome| {
        sum(&scrape, "linktracer_kernel_hits_total", &[("probe", "exposure"), ("outcome", outcome)])
    };
    assert_eq!(hits("hit"), CALLS as f64);
    assert_eq!(hits("ring_full"), 0.0, "the ring is large enough for this");
    assert_eq!((hits("id_too_long"), hits("read_fault")), (each, each));
    let received = |probe, outcome| {
        sum(&scrape, "linktracer_received_records_total", &[("probe", probe), ("outcome", outcome)])
    };
    assert_eq!(received("exposure", "id_not_text"), each);
    assert_eq!(received("exposure", "event"), 2.0 * each);

    // Nothing of it is in the metrics but the label of its release, and that within its quotes.
    let (_, metrics) = daemon.page("/metrics");
    for line in metrics.lines() {
        assert!(line.starts_with("linktracer_") || line.starts_with("# "), "{line:?}");
        assert!(!line.starts_with("linktracer_injected"), "{line:?}");
        assert!(!line.chars().any(char::is_control), "{line:?}");
    }
    // Nor in the log, and every line of the recording is one event.
    let log = daemon.log();
    assert!(!log.contains("injected") && !log.chars().any(|c| c.is_control() && c != '\n'), "{log:?}");

    // As many ids again, all of them new: no more memory than before.
    let before = resident_kib(daemon.id());
    for seed in ["8", "9", "10"] {
        run(seed);
    }
    drop(settled(4));
    let after = resident_kib(daemon.id());
    assert!(after < before + before / 2, "{before} KiB, then {after} KiB");

    daemon.signal(Signal::TERM);
    daemon.wait();
    let events = fs::read_to_string(&recording).expect("was written");
    let lines = events.lines().count() as f64;
    assert_eq!(lines, 4.0 * 2.0 * each + 4.0 * each / 20.0, "one line an event, requests among them");
    let replayed = tests::linktracer(&["replay", "--output", "json", &recording.to_string_lossy()]);
    assert!(printed(&replayed).contains("\"rejected\":0"), "{}", printed(&replayed));
}

/// Ids that are all different fill everything that is remembered by id. `join.memory_limit` bounds the join, and the
/// groups of the ratio's bounds have a bound of their own.
#[test]
fn a_million_ids_make_it_grow_by_its_limits_and_no_further() {
    const PROCESSES: u64 = 6;
    const IDS_EACH: u64 = 300_000;
    const LIMIT_KIB: u64 = 32 << 10;
    /// The groups of the ratio's bounds, a copy of them while they are published, the records of one batch, and what the
    /// allocator keeps.
    const BESIDE_KIB: u64 = 40 << 10;
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let program = compile(scratch.path());
    let text = format!(
        "ring_buffer_size: 64MiB\nservices:\n  - name: liar\n    match: {{ exe: {exe} }}\n    \
         request: {{ id: {{ header: X-Request-Id }} }}\n    \
         exposure: {{ symbol: trackExposure, args: \"(request_id cstr, item_id cstr)\" }}\n\
         join: {{ memory_limit: {LIMIT_KIB}KiB }}\n",
        exe = program.display()
    );
    let daemon = Daemon::start(scratch.path(), &text);
    let resident = || memory_kib(daemon.id(), "RssAnon");
    let mut grown = vec![resident()];
    for process in 0..PROCESSES {
        let seed = (1000 + process).to_string();
        let output = Command::new(&program).args([&seed, &IDS_EACH.to_string(), "distinct"]).output();
        let output = output.expect("starts");
        assert!(output.status.success(), "{}", printed(&output));
        wait_for("every call is accounted for", LIMIT, || {
            let scrape = Scrape::fetch(daemon.address()).expect("the daemon answers");
            let hits = |outcome| {
                sum(&scrape, "linktracer_kernel_hits_total", &[("probe", "exposure"), ("outcome", outcome)])
            };
            let received = sum(&scrape, "linktracer_events_total", &[("kind", "exposure")]);
            let made = ((process + 1) * IDS_EACH) as f64;
            (hits("hit") == made && received + hits("ring_full") == made).then_some(())
        });
        grown.push(resident());
    }
    println!("KiB before, and after each {IDS_EACH} ids: {grown:?}");
    let scrape = daemon.scrape();
    assert!(sum(&scrape, "linktracer_evicted_total", &[("table", "request_ids")]) > 500_000.0);
    assert!(sum(&scrape, "linktracer_state_bytes", &[]) <= (LIMIT_KIB << 10) as f64);
    // The limits are reached by the second process. What each of a million more ids left behind, if only a few bytes,
    // would not fit.
    let bound = grown[0] + LIMIT_KIB + BESIDE_KIB;
    assert!(grown.iter().all(|kib| *kib <= bound), "{grown:?}, {bound}");
    daemon.finish();
}
