//! Libraries and programs that are not where or when one would look for them, each with a known number of calls.

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use tests::{commanded::Commanded, daemon::Daemon, wait_for};
use tracer_user::demo::fixture::Fixture;

const LIMIT: Duration = Duration::from_secs(40);
const CALLS: u32 = 100;

/// A service whose executables are those in `folder`.
fn config(folder: &Path, library: &str) -> String {
    let args = "args: \"(request_id cstr, item_id cstr)\"";
    format!(
        "services:\n  - name: late\n    match: {{ exe: \"{}/*\" }}\n    \
         exposure: {{ {library} symbol: trackExposure, {args} }}\n    \
         click: {{ {library} symbol: trackClick, {args} }}\njoin: {{ lateness: 500ms }}\n",
        folder.display()
    )
}

#[track_caller]
fn expect(daemon: &Daemon, name: &str, labels: &[(&str, &str)], expected: f64) {
    wait_for(&format!("{name} {labels:?} is {expected}"), LIMIT, || {
        let value = daemon.metric(name, labels);
        assert!(value <= expected, "{name} {labels:?} was {value}\n{}", daemon.log());
        (value == expected).then_some(())
    });
}

/// Waits for both probes, then has the service make its calls: each exposure is seen, and each click.
#[track_caller]
fn check_calls(daemon: &Daemon, service: &mut Commanded) {
    for hook in ["exposure", "click"] {
        expect(daemon, "linktracer_attached_probes", &[("hook", hook)], 1.0);
    }
    service.command(&format!("call {CALLS}"));
    let linked = [("edge", "exposure_click"), ("outcome", "linked")];
    expect(daemon, "linktracer_links_total", &linked, f64::from(CALLS));
    for kind in ["exposure", "click"] {
        expect(daemon, "linktracer_events_total", &[("kind", kind)], f64::from(CALLS));
    }
    assert_eq!(daemon.metric("linktracer_attach_errors_total", &[]), 0.0, "{}", daemon.log());
}

#[test]
fn a_library_that_is_loaded_long_after_the_start_is_probed() {
    let fixture = Fixture::unpack().expect("unpacks");
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let folder = scratch.path().join("bin");
    fs::create_dir(&folder).expect("is writable");
    Commanded::build(&folder.join("late"), &[]);
    let daemon = Daemon::start(scratch.path(), &config(&folder, "library: librecsdk.so,"));
    let (status, body) = daemon.page("/readyz");
    assert!(status == 200 && body.contains("late/click: waiting: no process"), "{status} {body}");
    let mut service = Commanded::start(&mut Command::new(folder.join("late")));
    wait_for("it is not ready while a process runs without the library", LIMIT, || {
        let (status, body) = daemon.page("/readyz");
        (status == 503 && body.contains("late/click: missing: librecsdk.so is in no process")).then_some(())
    });
    // Longer than it is looked at often.
    let started = Instant::now();
    wait_for("it is eleven seconds old", LIMIT, || {
        (started.elapsed() > Duration::from_secs(11)).then_some(())
    });
    service.command(&format!("load {}", fixture.library().display()));
    check_calls(&daemon, &mut service);
    assert_eq!(daemon.page("/readyz").0, 200);
    expect(&daemon, "linktracer_attach_gap_seconds_count", &[("service", "late")], 1.0);
    let gap = daemon.metric("linktracer_attach_gap_seconds_sum", &[]);
    assert!(gap < 11.0, "{gap} s: it is counted from the last look, not from the start");
    daemon.finish();
}

#[test]
fn a_library_and_a_program_that_were_deleted_are_probed() {
    let fixture = Fixture::unpack().expect("unpacks");
    for library in ["library: librecsdk.so,", ""] {
        let scratch = tempfile::tempdir().expect("a scratch folder");
        let folder = scratch.path().join("bin");
        fs::create_dir(&folder).expect("is writable");
        Commanded::build(&folder.join("late"), &[]);
        let mut service = Commanded::start(&mut Command::new(folder.join("late")));
        if !library.is_empty() {
            let copy = scratch.path().join("librecsdk.so");
            fs::copy(fixture.library(), &copy).expect("is writable");
            service.command(&format!("load {}", copy.display()));
            fs::remove_file(copy).expect("is there");
        }
        fs::remove_file(folder.join("late")).expect("is there");
        let daemon = Daemon::start(scratch.path(), &config(&folder, library));
        check_calls(&daemon, &mut service);
        daemon.finish();
    }
}

#[test]
fn a_program_in_a_changed_root_is_probed() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let jail = scratch.path().join("jail");
    fs::create_dir(&jail).expect("is writable");
    Commanded::build(&jail.join("late"), &["-static", "-DSTATIC"]);
    let daemon = Daemon::start(scratch.path(), &config(&jail, ""));
    let mut service = Commanded::start(Command::new("chroot").arg(&jail).arg("/late"));
    check_calls(&daemon, &mut service);
    expect(&daemon, "linktracer_attach_gap_seconds_count", &[("service", "late")], 1.0);
    daemon.finish();
}

#[test]
fn the_gap_is_counted_from_the_exec_and_moves_the_horizon_when_it_is_long() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let folder = scratch.path().join("bin");
    fs::create_dir(&folder).expect("is writable");
    Commanded::build(&folder.join("late"), &[]);
    let daemon = Daemon::start(scratch.path(), &config(&folder, ""));
    daemon.signal(Signal::STOP);
    let mut service = Commanded::start(&mut Command::new(folder.join("late")));
    service.command("call 3");
    let started = Instant::now();
    wait_for("longer than the grace", LIMIT, || {
        (started.elapsed() > Duration::from_millis(1500)).then_some(())
    });
    daemon.signal(Signal::CONT);
    check_calls(&daemon, &mut service);
    expect(&daemon, "linktracer_attach_gap_seconds_count", &[("service", "late")], 1.0);
    let gap = daemon.metric("linktracer_attach_gap_seconds_sum", &[]);
    assert!(gap > 1.5, "{gap} s\n{}", daemon.log());
    expect(&daemon, "linktracer_coverage_horizon_moves_total", &[("reason", "attached_late")], 1.0);
    // The next process of the same file has its probes from the start, whenever it is looked at.
    daemon.signal(Signal::STOP);
    let _next = Commanded::start(&mut Command::new(folder.join("late")));
    daemon.signal(Signal::CONT);
    expect(&daemon, "linktracer_attach_gap_seconds_count", &[("service", "late")], 2.0);
    assert_eq!(daemon.metric("linktracer_attach_gap_seconds_sum", &[]), gap);
    expect(&daemon, "linktracer_coverage_horizon_moves_total", &[], 1.0);
    daemon.finish();
}
