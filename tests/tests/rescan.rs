//! What looking at all processes costs on a node that has many of them, none of interest.

#![expect(clippy::print_stderr, reason = "the figure is for people, and for docs/performance.md")]

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tests::{daemon::Daemon, printed, wait_for};

const PROCESSES: u32 = 5000;
/// As long as it takes until every process was looked at again: twelve scans, one every 5 s.
const WHOLE: Duration = Duration::from_secs(60);
/// Two scans.
const SHORT: Duration = Duration::from_secs(10);

/// Processes that end when this is dropped.
struct Many(Child);

impl Drop for Many {
    fn drop(&mut self) {
        // The end of its input has it kill all of them, itself included.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// Processor time that the process has used, in nanoseconds.
fn used_ns(pid: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    let of_task = |task: std::io::Result<fs::DirEntry>| {
        let text = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    };
    tasks.filter_map(of_task).sum()
}

#[test]
fn five_thousand_processes_of_no_service_cost_less_than_one_percent_of_a_processor() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let program = scratch.path().join("many");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/many.c");
    let output =
        Command::new("cc").arg("-O1").arg(source).arg("-o").arg(&program).output().expect("cc starts");
    assert!(output.status.success(), "{}", printed(&output));
    let mut many = Command::new(&program);
    many.arg(PROCESSES.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut many = Many(many.spawn().expect("starts"));
    let mut line = String::new();
    BufReader::new(many.0.stdout.take().expect("is piped")).read_line(&mut line).expect("is text");
    assert_eq!(line, "done\n", "this machine does not allow {PROCESSES} processes more");

    // One service is known by its path, which is quick to tell, and one by its command line only.
    let services = "services:\n  - name: a\n    match: { exe: \"/usr/bin/recommend*\", cmdline: \"*serving*\" }\n    \
                    request: { id: { header: X-Request-Id } }\n  - name: b\n    match: { cmdline: \"*--role=serving*\" }\n    \
                    request: { id: { header: X-Request-Id } }\n";
    let daemon = Daemon::start(scratch.path(), services);
    let long = std::env::var_os("LINKTRACER_LONG_TESTS").is_some();
    let (window, started, before_ns) =
        (if long { WHOLE } else { SHORT }, Instant::now(), used_ns(daemon.id()));
    wait_for("some scans are done", 2 * WHOLE, || (started.elapsed() > window).then_some(()));
    let used = Duration::from_nanos(used_ns(daemon.id()) - before_ns);
    let share = used.as_secs_f64() / started.elapsed().as_secs_f64();
    eprintln!("{PROCESSES} processes of no service: {:.2} % of a processor over {window:?}", share * 100.0);
    assert!(share < 0.01, "{share}");
    assert_eq!(daemon.metric("linktracer_target_processes", &[]), 0.0);
    daemon.finish();
}
