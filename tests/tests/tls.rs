//! Services that encrypt: what they answered is seen where they hand it to their TLS library.
//!
//! `LINKTRACER_GO` names a Go toolchain besides those in `/usr/lib/go-*`; without any, the test of Go
//! fails when `LINKTRACER_REQUIRE_GO=1` and says that it was skipped otherwise.

#![expect(clippy::print_stderr, reason = "what was skipped is for people")]

use std::{
    env,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::Signal;
use tests::{
    daemon::{Daemon, Pinned},
    linktracer, printed, wait_for,
};

const LIMIT: Duration = Duration::from_secs(60);

/// A service that waits for a line before it answers, killed when this is dropped.
struct Service(Child);

impl Service {
    fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("starts"))
    }

    /// Lets it answer, and returns the numbers that it prints afterwards.
    fn answer(&mut self) -> Vec<f64> {
        self.0.stdin.as_mut().expect("is piped").write_all(b"\n").expect("it waits");
        let mut line = String::new();
        BufReader::new(self.0.stdout.take().expect("is piped")).read_line(&mut line).expect("is text");
        let numbers: Vec<f64> = line.split_whitespace().map(|word| word.parse().expect("a number")).collect();
        assert!(!numbers.is_empty(), "it ended");
        numbers
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

fn run(command: &mut Command) {
    let output = command.output().expect("starts");
    assert!(output.status.success(), "{command:?}: {}", printed(&output));
}

fn services(matching: &str, tls: &str) -> String {
    format!(
        "services:\n  - name: secret\n    match: {{ {matching} }}\n    request: {{ direction: response, tls: {tls}, id: {{ header: X-Request-Id }} }}\njoin: {{ exposure_window: 1s, lateness: 500ms }}\n"
    )
}

/// Records of the probe on TLS libraries with this outcome.
fn received(daemon: &Daemon, outcome: &str) -> f64 {
    daemon.metric("linktracer_received_records_total", &[("probe", "tls_write"), ("outcome", outcome)])
}

fn hits(daemon: &Daemon, probe: &str, outcome: &str) -> f64 {
    daemon.metric("linktracer_kernel_hits_total", &[("probe", probe), ("outcome", outcome)])
}

/// Lets the service answer, and checks that each answer is one request. Returns what it printed.
#[track_caller]
fn check(daemon: &Daemon, service: &mut Service) -> Vec<f64> {
    wait_for_probes(daemon);
    let printed = service.answer();
    check_requests(daemon, printed[0]);
    printed
}

#[track_caller]
fn wait_for_probes(daemon: &Daemon) {
    wait_for("a TLS library has its probes", LIMIT, || {
        let files = daemon.metric("linktracer_attached_probes", &[("hook", "tls_write")]);
        (files >= 1.0).then_some(())
    });
}

/// Each of so many answers is one request.
#[track_caller]
fn check_requests(daemon: &Daemon, expected: f64) {
    wait_for("every answer is judged", LIMIT, || {
        let judged = daemon.metric("linktracer_requests_total", &[("outcome", "unexposed")]);
        assert!(judged <= expected, "{judged}\n{}", daemon.log());
        (judged == expected).then_some(())
    });
    assert_eq!(received(daemon, "event"), expected);
    assert_eq!(daemon.metric("linktracer_duplicates_total", &[("kind", "request")]), 0.0);
    for reason in ["ring_full", "read_fault", "header_too_long", "unfinished", "undecodable"] {
        assert_eq!(daemon.metric("linktracer_lost_events_total", &[("reason", reason)]), 0.0, "{reason}");
    }
}

/// A daemon that is killed leaves its probes, and the next one counts what they saw meanwhile.
#[test]
fn probes_stay_where_state_is_kept() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let pinned = Pinned::new(scratch.path());
    let text = format!("{}{}", pinned.settings(), services("cmdline: \"*fixtures/tls.py stay\"", "auto"));
    let daemon = Daemon::start(scratch.path(), &text);
    let mut service = Service::start(Command::new("python3").arg(fixture("tls.py")).arg("stay"));
    wait_for_probes(&daemon);
    daemon.signal(Signal::KILL);
    drop(daemon);
    let answers = service.answer()[0];
    let daemon = Daemon::start(scratch.path(), &text);
    check_requests(&daemon, answers);
    assert_eq!(daemon.metric("linktracer_coverage_horizon_moves_total", &[]), 0.0, "{}", daemon.log());
    daemon.finish();
    drop(pinned);
}

#[test]
fn openssl_by_python_which_calls_ssl_write_ex() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let text = services("cmdline: \"*fixtures/tls.py on\"", "auto");
    let daemon = Daemon::start(scratch.path(), &text);
    let mut service = Service::start(Command::new("python3").arg(fixture("tls.py")).arg("on"));
    check(&daemon, &mut service);
    // The requests of its clients go in the other direction; on the sockets there is nothing to read.
    assert_eq!(received(&daemon, "other_direction"), received(&daemon, "event"));
    let encrypted = hits(&daemon, "write", "tls") + hits(&daemon, "sendto", "tls");
    assert!(encrypted >= received(&daemon, "event"), "{encrypted}");

    let config = scratch.path().join("linktracer.yaml");
    let output = linktracer(&["check", "--config", &config.to_string_lossy()]);
    let shown = printed(&output);
    assert!(shown.contains("service secret, TLS: messages are seen before they are encrypted"), "{shown}");
    assert!(shown.contains("SSL_write_ex of /") && shown.contains("HTTP/2 is not read"), "{shown}");
    daemon.finish();
}

#[test]
fn openssl_calls_that_are_made_again_count_once() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let program = scratch.path().join("tls");
    let mut compile = Command::new("cc");
    compile.args(["-O1", "-o"]).arg(&program).arg(fixture("tls.c"));
    run(compile.args(["-l:libssl.so.3", "-l:libcrypto.so.3", "-lpthread"]));
    let daemon = Daemon::start(scratch.path(), &services(&format!("exe: {}", program.display()), "auto"));
    let mut service = Service::start(&mut Command::new(&program));
    let printed = check(&daemon, &mut service);
    assert!(printed[1] > 0.0, "the reader was not slow");
    assert_eq!(received(&daemon, "repeated"), printed[1]);
    daemon.finish();
}

#[test]
fn with_tls_off_only_that_it_is_tls_is_counted() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let daemon = Daemon::start(scratch.path(), &services("cmdline: \"*fixtures/tls.py off\"", "off"));
    let mut service = Service::start(Command::new("python3").arg(fixture("tls.py")).arg("off"));
    let answers = service.answer()[0];
    wait_for("what is encrypted is counted", LIMIT, || {
        (hits(&daemon, "write", "tls") + hits(&daemon, "sendto", "tls") >= answers).then_some(())
    });
    assert_eq!(daemon.metric("linktracer_events_total", &[]), 0.0);
    daemon.finish();
}

#[test]
fn go_stripped() {
    let named = env::var("LINKTRACER_GO").unwrap_or_default();
    let mut toolchains: Vec<PathBuf> = env::split_paths(&named).filter(|go| go.is_file()).collect();
    let installed = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path());
    toolchains.extend(
        installed
            .filter(|path| path.to_string_lossy().contains("/go-"))
            .map(|path| path.join("bin/go"))
            .filter(|go| go.is_file()),
    );
    let required = env::var_os("LINKTRACER_REQUIRE_GO").is_some_and(|value| value == "1");
    assert!(!toolchains.is_empty() || !required, "LINKTRACER_REQUIRE_GO=1, and there is no Go toolchain");
    if toolchains.is_empty() {
        eprintln!("skipped: no Go toolchain here");
    }
    for go in toolchains {
        let scratch = tempfile::tempdir().expect("a scratch folder");
        let program = scratch.path().join("tls");
        run(Command::new(&go)
            .current_dir(fixture("go-tls"))
            .args(["build", "-buildvcs=false", "-ldflags", "-s -w", "-o"])
            .arg(&program)
            .arg(".")
            .env("GOCACHE", Path::new(env!("CARGO_TARGET_TMPDIR")).join("go-cache"))
            .env("GOPROXY", "off")
            .env("GOTOOLCHAIN", "local")
            .env("CGO_ENABLED", "0")
            .env_remove("GOFLAGS"));
        let daemon = Daemon::start(scratch.path(), &services(&format!("exe: {}", program.display()), "auto"));
        let mut service = Service::start(&mut Command::new(&program));
        check(&daemon, &mut service);
        assert!(
            hits(&daemon, "tls_write", "http2") >= 2.0,
            "both ends of HTTP/2 begin in a way that is known"
        );
        daemon.finish();
    }
}
