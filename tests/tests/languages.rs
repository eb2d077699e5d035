//! SDK functions of other languages than C, each called a known number of times.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tests::{daemon::Daemon, printed, wait_for};

const CALLS: u32 = 1000;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

fn run(command: &mut Command) {
    let output = command.output().expect("starts");
    assert!(output.status.success(), "{command:?}: {}", printed(&output));
}

/// Traces `program` by these probes while it makes its calls: each an exposure and its click.
#[track_caller]
fn check(scratch: &Path, program: &Path, exposure: &str, click: &str) {
    let services = format!(
        "services:\n  - name: app\n    match: {{ exe: {} }}\n    exposure: {{ {exposure} }}\n    click: {{ {click} }}\njoin: {{ lateness: 500ms }}\n",
        program.display()
    );
    let daemon = Daemon::start(scratch, &services);
    run(Command::new(program).arg(CALLS.to_string()));
    let count = |edge: &str, outcome: &str| {
        daemon.metric("linktracer_links_total", &[("edge", edge), ("outcome", outcome)])
    };
    wait_for("every click is linked to its exposure", Duration::from_secs(20), || {
        assert!(count("exposure_click", "linked") <= f64::from(CALLS));
        (count("exposure_click", "linked") == f64::from(CALLS)).then_some(())
    });
    wait_for("every exposure is judged", Duration::from_secs(20), || {
        (count("request_exposure", "orphan") == f64::from(CALLS)).then_some(())
    });
    for outcome in ["orphan", "mismatch", "missing_id"] {
        assert_eq!(count("exposure_click", outcome), 0.0, "{outcome}\n{}", daemon.log());
    }
    daemon.finish();
}

/// `rec::trackExposure(const std::string &, const std::string &)`
const EXPOSURE: &str = "_ZN3rec13trackExposureERKNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEES7_";

#[test]
fn cpp_strings_by_value_and_by_reference() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let program = scratch.path().join("strings-cpp");
    run(Command::new("g++").arg("-O2").arg(fixture("strings.cpp")).arg("-o").arg(&program));
    let text = "NSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE";
    check(
        scratch.path(),
        &program,
        &format!("symbol: {EXPOSURE}, args: \"(request_id string, item_id string)\""),
        &format!(
            "symbol: _ZN3rec7Tracker5clickEd{text}RKS6_, args: \"(this pointer, score float, item_id string, request_id string)\""
        ),
    );
}

#[test]
fn rust_strings_without_an_end_mark() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let program = scratch.path().join("strings-rust");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    run(Command::new(rustc)
        .args(["-O", "--edition=2024"])
        .arg(fixture("strings.rs"))
        .arg("-o")
        .arg(&program));
    check(
        scratch.path(),
        &program,
        "abi: rust, symbol: track_exposure, args: \"(request_id string, item_id string)\"",
        "abi: rust, symbol: track_click, args: \"(item_id string, position int, request_id string)\"",
    );
}

#[test]
fn two_hundred_short_lived_processes_in_a_row_are_all_seen() {
    const PROCESSES: u32 = 200;
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let program = scratch.path().join("short");
    run(Command::new("g++").arg("-O2").arg(fixture("strings.cpp")).arg("-o").arg(&program));
    let services = format!(
        "services:\n  - name: app\n    match: {{ exe: {} }}\n    exposure: {{ symbol: {EXPOSURE}, args: \"(request_id string, item_id string)\" }}\njoin: {{ lateness: 500ms }}\n",
        program.display()
    );
    let daemon = Daemon::start(scratch.path(), &services);
    for _ in 0..PROCESSES {
        run(Command::new(&program).arg("1"));
    }
    let events = || daemon.metric("linktracer_events_total", &[("kind", "exposure"), ("service", "app")]);
    wait_for("every process's call is an event", Duration::from_secs(20), || {
        (events() == f64::from(PROCESSES)).then_some(())
    });
    wait_for("none is left", Duration::from_secs(20), || {
        (daemon.metric("linktracer_target_processes", &[]) == 0.0).then_some(())
    });
    daemon.finish();
}
