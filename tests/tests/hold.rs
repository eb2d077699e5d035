//! Programs that are held until their probes are in place. Only file systems that a test mounts itself are watched,
//! so that nothing else on the machine waits.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tests::{commanded::Commanded, daemon::Daemon, printed, wait_for};
use tracer_user::demo::fixture::Fixture;

const LIMIT: Duration = Duration::from_secs(30);
/// So long that nobody takes it for the time that something needs.
const LONG_HOLD: &str = "10s";

/// A file system that goes when this is dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn new(folder: &Path) -> Self {
        let point = folder.join("mnt");
        fs::create_dir(&point).expect("is writable");
        let output =
            Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(&point).output().expect("mount starts");
        assert!(output.status.success(), "{}", printed(&output));
        Self(point)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Nothing runs from it any more; if it does, the failure shows as a folder that cannot be removed.
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// A service of the programs `held-*` directly on the file system or in a folder of it.
fn config(mounted: &Mounted, library: &str, hold: Option<&str>) -> String {
    let args = "args: \"(request_id cstr, item_id cstr)\"";
    let discover = hold
        .map_or_else(String::new, |limit| format!("discover: {{ hold_exec: true, hold_limit: {limit} }}\n"));
    format!(
        "{discover}services:\n  - name: held\n    match: {{ exe: \"{}/**/held-*\" }}\n    \
         exposure: {{ {library} symbol: trackExposure, {args} }}\n    \
         click: {{ {library} symbol: trackClick, {args} }}\njoin: {{ lateness: 500ms }}\n",
        mounted.0.display()
    )
}

/// Runs a program that makes one call and ends.
fn run(program: &Path) {
    let output = Command::new(program).arg("call 1").output().expect("starts");
    assert!(output.status.success(), "{}", printed(&output));
}

#[track_caller]
fn expect(daemon: &Daemon, name: &str, labels: &[(&str, &str)], expected: f64) {
    wait_for(&format!("{name} {labels:?} is {expected}"), LIMIT, || {
        let value = daemon.metric(name, labels);
        assert!(value <= expected, "{name} {labels:?} was {value}\n{}", daemon.log());
        (value == expected).then_some(())
    });
}

fn held(daemon: &Daemon, outcome: &str, expected: u32) {
    expect(daemon, "linktracer_held_execs_total", &[("outcome", outcome)], f64::from(expected));
}

fn events(daemon: &Daemon, expected: u32) {
    for kind in ["exposure", "click"] {
        expect(daemon, "linktracer_events_total", &[("kind", kind)], f64::from(expected));
    }
}

/// As many files of their own as there are runs, none of which was ever seen.
fn copies(mounted: &Mounted, flags: &[&str], count: usize) -> Vec<PathBuf> {
    let program = mounted.0.parent().expect("has a folder").join("program");
    Commanded::build(&program, flags);
    let copy = |number| {
        let copy = mounted.0.join(format!("held-{number}"));
        fs::copy(&program, &copy).expect("is writable");
        copy
    };
    (0..count).map(copy).collect()
}

/// Starts a program that is then held, and waits until it is: its process is in the middle of `execve`.
fn start_held(program: &Path) -> Child {
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec \"$0\" \"call 1\""]).arg(program).stdin(Stdio::null());
    let child = shell.spawn().expect("sh starts");
    let execve = if cfg!(target_arch = "aarch64") { "221 " } else { "59 " };
    wait_for("it is held", LIMIT, || {
        let call = fs::read_to_string(format!("/proc/{}/syscall", child.id())).ok()?;
        call.starts_with(execve).then_some(())
    });
    child
}

#[test]
fn the_first_call_of_a_short_life_is_seen() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let mounted = Mounted::new(scratch.path());
    let programs = copies(&mounted, &[], 20);
    let daemon = Daemon::start(scratch.path(), &config(&mounted, "", Some(LONG_HOLD)));
    expect(&daemon, "linktracer_hold_file_systems", &[], 1.0);
    for program in &programs {
        run(program);
    }
    events(&daemon, 20);
    held(&daemon, "released", 20);
    expect(&daemon, "linktracer_attach_gap_seconds_count", &[], 20.0);
    assert_eq!(daemon.metric("linktracer_attach_gap_seconds_sum", &[]), 0.0);
    assert_eq!(daemon.metric("linktracer_coverage_horizon_moves_total", &[]), 0.0, "{}", daemon.log());
    for outcome in ["timed_out", "refused", "passed"] {
        held(&daemon, outcome, 0);
    }
    daemon.finish();
}

#[test]
fn a_library_known_by_name_is_found_before_it_is_mapped() {
    let fixture = Fixture::unpack().expect("unpacks");
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let mounted = Mounted::new(scratch.path());
    let program = scratch.path().join("program");
    let library = fixture.root().to_str().expect("UTF-8").to_owned();
    Commanded::build(&program, &["-DLINKED", "-Wl,-rpath,$ORIGIN", "-L", &library, "-lrecsdk"]);
    let daemon = Daemon::start(scratch.path(), &config(&mounted, "library: librecsdk.so,", Some(LONG_HOLD)));
    for number in 0..5 {
        // Each folder has a library of its own.
        let folder = mounted.0.join(format!("app-{number}"));
        fs::create_dir(&folder).expect("is writable");
        fs::copy(fixture.library(), folder.join("librecsdk.so")).expect("is writable");
        fs::copy(&program, folder.join("held-linked")).expect("is writable");
        run(&folder.join("held-linked"));
    }
    events(&daemon, 5);
    held(&daemon, "released", 5);
    assert_eq!(daemon.metric("linktracer_coverage_horizon_moves_total", &[]), 0.0, "{}", daemon.log());
    daemon.finish();
}

#[test]
fn without_holding_what_was_missed_moves_the_horizon() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let mounted = Mounted::new(scratch.path());
    let programs = copies(&mounted, &[], 1);
    let daemon = Daemon::start(scratch.path(), &config(&mounted, "", None));
    // It has ended before the daemon can look at it.
    daemon.signal(Signal::STOP);
    run(&programs[0]);
    daemon.signal(Signal::CONT);
    expect(&daemon, "linktracer_coverage_horizon_moves_total", &[("reason", "ended_unprobed")], 1.0);
    events(&daemon, 0);
    let horizon = daemon.metric("linktracer_coverage_horizon_timestamp_seconds", &[("kind", "exposure")]);
    assert!(horizon > 1e9, "{horizon}");
    daemon.finish();
}

#[test]
fn nothing_is_held_longer_than_the_limit_when_the_daemon_is_stopped() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let mounted = Mounted::new(scratch.path());
    let programs = copies(&mounted, &[], 2);
    let plain = mounted.0.join("plain");
    fs::copy(&programs[0], &plain).expect("is writable");
    let daemon = Daemon::start(scratch.path(), &config(&mounted, "", Some("700ms")));
    daemon.signal(Signal::STOP);
    let started = Instant::now();
    run(&programs[0]);
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(700), "{took:?}: it was held as long as may be");
    assert!(took < Duration::from_secs(10), "{took:?}: and not longer");
    // What no service can match does not wait for anybody.
    run(&plain);
    daemon.signal(Signal::CONT);
    held(&daemon, "timed_out", 1);
    held(&daemon, "passed", 1);
    run(&programs[1]);
    held(&daemon, "released", 1);
    daemon.finish();
}

#[test]
fn nothing_is_held_when_the_daemon_is_killed() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let mounted = Mounted::new(scratch.path());
    let programs = copies(&mounted, &[], 2);
    let daemon = Daemon::start(scratch.path(), &config(&mounted, "", Some(LONG_HOLD)));
    daemon.signal(Signal::STOP);
    let mut child = start_held(&programs[0]);
    let killed = Instant::now();
    daemon.signal(Signal::KILL);
    assert!(child.wait().expect("is our child").success());
    run(&programs[1]);
    let took = killed.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}, and the limit is {LONG_HOLD}");
}

#[test]
fn a_gate_that_does_not_answer_is_killed_and_holds_nothing() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let mounted = Mounted::new(scratch.path());
    let programs = copies(&mounted, &[], 2);
    let daemon = Daemon::start(scratch.path(), &config(&mounted, "", Some("100ms")));
    let id = daemon.id();
    let children: String = fs::read_dir(format!("/proc/{id}/task"))
        .expect("it runs")
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("children")).ok())
        .collect();
    let gate: i32 = children.trim().parse().expect("one child");
    kill_process(Pid::from_raw(gate).expect("a process"), Signal::STOP).expect("it runs");
    let mut child = start_held(&programs[0]);
    assert!(child.wait().expect("is our child").success(), "{}", daemon.log());
    expect(&daemon, "linktracer_attach_errors_total", &[("reason", "gate_lost")], 1.0);
    assert_eq!(daemon.metric("linktracer_hold_file_systems", &[]), 0.0);
    run(&programs[1]);
    assert_eq!(daemon.page("/healthz").0, 200);
    daemon.finish();
}
