//! The daemon with a service whose every step the test makes itself.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use rustix::process::Signal;
use tests::{binary, daemon::Daemon, printed, wait_for};
use tracer_user::demo::{
    fixture::{Collector, Fixture, ServiceProcess},
    http::Connection,
    plan::Target,
};

const LIMIT: Duration = Duration::from_secs(30);

/// A configuration for the fixture's service; `library` as the daemon is told it.
fn config(fixture: &Fixture, library: &str, collector: SocketAddr) -> String {
    let args = "\"(request_id cstr, item_id cstr)\"";
    format!(
        "services:\n  - name: demo\n    match: {{ exe: {exe} }}\n    release: [\"env:BUILD_COMMIT_TAG\"]\n    group: \"env:AB_GROUP\"\n    \
         request: {{ id: {{ header: X-Request-Id }} }}\n    \
         exposure: {{ library: {library}, symbol: trackExposure, args: {args} }}\n    \
         click: {{ library: {library}, symbol: trackClick, args: {args} }}\n    report: {{ to: [\"{collector}\"] }}\n\
         join: {{ exposure_window: 5s, click_window: 60s, report_window: 2s, lateness: 500ms }}\n",
        exe = fixture.service().display(),
    )
}

fn get(connection: &mut Connection, path: &str) {
    let response = connection.get(path).expect("the service answers");
    assert!(response.status < 300, "{path}: {}", response.status);
}

/// Waits until the daemon published this count, and that it does not go beyond it.
#[track_caller]
fn expect_metric(daemon: &Daemon, name: &str, labels: &[(&str, &str)], count: f64) {
    let what = format!("{name} {labels:?} is {count}");
    wait_for(&what, LIMIT, || {
        let value = daemon.metric(name, labels);
        assert!(value <= count, "{what}, and was {value}\n{}", daemon.log());
        (value == count).then_some(())
    });
}

#[track_caller]
fn expect_link(daemon: &Daemon, edge: &str, outcome: &str, count: f64) {
    expect_metric(daemon, "linktracer_links_total", &[("edge", edge), ("outcome", outcome)], count);
}

#[test]
fn what_a_service_did_before_the_daemon_came_is_unseen_and_not_broken() {
    let fixture = Fixture::unpack().expect("unpacks");
    let collector = Collector::start().expect("starts");
    let service =
        ServiceProcess::start(&fixture, Target::Main, collector.address(), "write").expect("starts");
    let mut connection = Connection::open(service.address()).expect("connects");
    get(&mut connection, "/recommend?id=early&items=a");

    let daemon = Daemon::start(fixture.root(), &config(&fixture, &library(&fixture), collector.address()));
    get(&mut connection, "/click?id=early&item=a");
    get(&mut connection, "/recommend?id=r&items=a,b&expose_id=earlier");
    get(&mut connection, "/recommend?id=s&items=a");
    get(&mut connection, "/click?id=s&item=a");

    expect_link(&daemon, "exposure_click", "linked", 1.0);
    expect_link(&daemon, "exposure_click", "unseen", 1.0);
    expect_link(&daemon, "request_exposure", "linked", 1.0);
    expect_link(&daemon, "request_exposure", "unseen", 2.0);
    expect_link(&daemon, "triple", "complete", 1.0);
    expect_link(&daemon, "triple", "unseen", 1.0);
    expect_link(&daemon, "click_report", "reported", 2.0);
    for edge in ["request_exposure", "exposure_click"] {
        expect_link(&daemon, edge, "orphan", 0.0);
    }
    let horizon = daemon.metric("linktracer_coverage_horizon_timestamp_seconds", &[("kind", "request")]);
    assert!(horizon > 1e9, "{horizon}");
    daemon.finish();
}

#[test]
fn a_service_that_starts_later_is_seen_from_its_first_instruction_in_every_process() {
    let fixture = Fixture::unpack().expect("unpacks");
    let collector = Collector::start().expect("starts");
    let daemon = Daemon::start(fixture.root(), &config(&fixture, &library(&fixture), collector.address()));
    for number in 0..20 {
        let service =
            ServiceProcess::start(&fixture, Target::Main, collector.address(), "sendto").expect("starts");
        let mut connection = Connection::open(service.address()).expect("connects");
        get(&mut connection, &format!("/recommend?id=r{number}&items=a"));
        get(&mut connection, &format!("/click?id=r{number}&item=a"));
    }
    expect_link(&daemon, "triple", "complete", 20.0);
    expect_link(&daemon, "click_report", "reported", 20.0);
    let labels = [("release", "demo"), ("group", "control"), ("service", "demo"), ("kind", "click")];
    expect_metric(&daemon, "linktracer_events_total", &labels, 20.0);
    expect_metric(&daemon, "linktracer_coverage_horizon_timestamp_seconds", &[], 0.0);
    wait_for("no process is left", LIMIT, || {
        (daemon.metric("linktracer_target_processes", &[("service", "demo")]) == 0.0).then_some(())
    });
    daemon.finish();
}

#[test]
fn a_process_that_lived_and_died_while_the_daemon_did_not_look_is_seen_all_the_same() {
    let fixture = Fixture::unpack().expect("unpacks");
    let collector = Collector::start().expect("starts");
    let daemon = Daemon::start(fixture.root(), &config(&fixture, &library(&fixture), collector.address()));
    daemon.signal(Signal::STOP);
    {
        let service =
            ServiceProcess::start(&fixture, Target::Main, collector.address(), "write").expect("starts");
        let mut connection = Connection::open(service.address()).expect("connects");
        // More records than the daemon takes in one turn, after which it looks who still runs.
        for number in 0..100 {
            get(&mut connection, &format!("/recommend?id=r{number}&items=a&repeat=200"));
            get(&mut connection, &format!("/click?id=r{number}&item=a"));
        }
    }
    daemon.signal(Signal::CONT);
    expect_metric(&daemon, "linktracer_events_total", &[("kind", "exposure")], 20_000.0);
    expect_link(&daemon, "triple", "complete", 100.0);
    expect_link(&daemon, "click_report", "reported", 100.0);
    daemon.finish();
}

#[test]
fn a_library_that_no_process_has_yet_is_waited_for_and_its_probe_is_not_missing() {
    let fixture = Fixture::unpack().expect("unpacks");
    let collector = Collector::start().expect("starts");
    // A name that is found nowhere until a process maps it: the executable is known by a pattern only.
    let text = config(&fixture, "librecsdk.so", collector.address())
        .replace(&fixture.service().display().to_string(), &format!("{}/*", fixture.root().display()));
    let daemon = Daemon::start(fixture.root(), &text);
    let (status, body) = daemon.page("/readyz");
    assert_eq!(status, 200, "nothing runs, so nothing is missed: {body}");
    assert!(body.contains("demo/click: waiting: no process of the service runs; librecsdk.so"), "{body}");
    assert!(body.contains("demo/request: attached"), "{body}");

    let service =
        ServiceProcess::start(&fixture, Target::Main, collector.address(), "write").expect("starts");
    wait_for("the probe is in place", LIMIT, || {
        daemon.page("/readyz").1.contains("demo/click: attached").then_some(())
    });
    let mut connection = Connection::open(service.address()).expect("connects");
    get(&mut connection, "/recommend?id=r&items=a");
    get(&mut connection, "/click?id=r&item=a");
    expect_link(&daemon, "triple", "complete", 1.0);
    expect_metric(&daemon, "linktracer_attached_probes", &[("hook", "click")], 1.0);
    daemon.finish();
}

#[test]
fn the_thread_that_answers_can_do_nothing_with_what_the_daemon_was_started_with() {
    let fixture = Fixture::unpack().expect("unpacks");
    let collector = Collector::start().expect("starts");
    let daemon = Daemon::start(fixture.root(), &config(&fixture, &library(&fixture), collector.address()));
    let threads: Vec<(String, bool)> = fs::read_dir(format!("/proc/{}/task", daemon.id()))
        .expect("it runs")
        .map(|thread| {
            let path = thread.expect("a thread").path();
            let name = fs::read_to_string(path.join("comm")).expect("it runs").trim().to_owned();
            let status = fs::read_to_string(path.join("status")).expect("it runs");
            let mut sets = status.lines().filter(|line| {
                ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"].iter().any(|set| line.starts_with(set))
            });
            (name, sets.all(|set| set.ends_with("\t0000000000000000")))
        })
        .collect();
    let has_nothing = |name: &str| {
        let thread = threads.iter().find(|(thread, _)| thread == name);
        thread.unwrap_or_else(|| panic!("{name} is among {threads:?}")).1
    };
    assert!(has_nothing("linktracer"), "the main thread serves: {threads:?}");
    assert!(!has_nothing("ingest"), "it has to attach to whatever starts later: {threads:?}");
    daemon.finish();
}

#[test]
fn every_hit_and_every_record_is_accounted_for() {
    let fixture = Fixture::unpack().expect("unpacks");
    let collector = Collector::start().expect("starts");
    let daemon = Daemon::start(fixture.root(), &config(&fixture, &library(&fixture), collector.address()));
    let service =
        ServiceProcess::start(&fixture, Target::Main, collector.address(), "writev").expect("starts");
    let mut connection = Connection::open(service.address()).expect("connects");
    let long = "x".repeat(129);
    for number in 0..200 {
        get(&mut connection, &format!("/recommend?id=r{number}&items=a,b,c"));
        get(&mut connection, &format!("/recommend?id={long}&items=a"));
        get(&mut connection, &format!("/click?id=r{number}&item=b"));
    }
    drop(connection);
    expect_link(&daemon, "triple", "complete", 200.0);
    // One scrape is one moment for the daemon's counts; the kernel's go on while others use the machine,
    // so only the hooks of the traced service alone stand still.
    let hits = |probe: &str, outcome: &str| {
        daemon.metric("linktracer_kernel_hits_total", &[("probe", probe), ("outcome", outcome)])
    };
    for probe in ["exposure", "click"] {
        let others = [
            "submitted",
            "ring_full",
            "read_fault",
            "id_too_long",
            "filtered",
            "out_of_bounds",
            "targets_full",
        ];
        let sum: f64 = others.iter().map(|outcome| hits(probe, outcome)).sum();
        assert_eq!(hits(probe, "hit"), sum, "{probe}");
        let received = daemon.metric("linktracer_received_records_total", &[("probe", probe)]);
        assert_eq!(hits(probe, "submitted"), received, "{probe}");
    }
    assert_eq!((hits("exposure", "hit"), hits("exposure", "id_too_long")), (800.0, 200.0));
    let lost = daemon.metric("linktracer_lost_events_total", &[("reason", "id_too_long")]);
    assert_eq!(lost, 400.0, "200 exposures by the kernel side, 200 requests by the daemon");
    daemon.finish();
}

#[test]
fn every_send_on_a_kept_alive_connection_to_the_collector_is_a_report() {
    let fixture = Fixture::unpack().expect("unpacks");
    // Takes what comes and never closes, unlike the demo's collector.
    let patient = TcpListener::bind("127.0.0.1:0").expect("the loopback has a free port");
    let address = patient.local_addr().expect("is bound");
    let daemon = Daemon::start(fixture.root(), &config(&fixture, &library(&fixture), address));
    let service = ServiceProcess::start(&fixture, Target::Main, address, "write").expect("starts");
    let mut connection = Connection::open(service.address()).expect("connects");
    for number in 0..10 {
        get(&mut connection, &format!("/recommend?id=r{number}&items=a"));
        get(&mut connection, &format!("/click?id=r{number}&item=a&keep="));
        // Longer than the window, every few: the one connection at the start covers none of the later clicks.
        if number % 5 == 4 {
            expect_link(&daemon, "click_report", "reported", f64::from(number + 1));
        }
    }
    expect_metric(&daemon, "linktracer_events_total", &[("kind", "report")], 11.0);
    let sends = [("probe", "write"), ("outcome", "event")];
    wait_for("ten reports by write, beside ten answers", LIMIT, || {
        (daemon.metric("linktracer_received_records_total", &sends) == 20.0).then_some(())
    });
    expect_link(&daemon, "click_report", "unreported", 0.0);
    daemon.finish();
}

/// Overlay mounts, taken away when this is dropped.
struct Overlays(Vec<PathBuf>);

impl Overlays {
    fn mount(lower: &Path, folder: &Path, count: usize) -> Self {
        let mut mounts = Self(Vec::new());
        for number in 0..count {
            let parts = ["upper", "work", "merged"].map(|part| folder.join(format!("{part}{number}")));
            for part in &parts {
                fs::create_dir(part).expect("is writable");
            }
            let [upper, work, merged] = parts.each_ref().map(|part| path_text(part));
            let options = format!("lowerdir={},upperdir={upper},workdir={work}", path_text(lower));
            let output =
                Command::new("mount").args(["-t", "overlay", "overlay", "-o", &options, &merged]).output();
            let output = output.expect("mount starts");
            assert!(output.status.success(), "{}", printed(&output));
            mounts.0.push(PathBuf::from(merged));
        }
        mounts
    }
}

impl Drop for Overlays {
    fn drop(&mut self) {
        for mount in &self.0 {
            // Nothing runs from it any more; if it does, the failure shows as a folder that cannot be removed.
            let _ = Command::new("umount").arg(mount).status();
        }
    }
}

#[test]
fn one_library_behind_three_overlay_mounts_is_one_library() {
    let fixture = Fixture::unpack().expect("unpacks");
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let collector = Collector::start().expect("starts");
    let overlays = Overlays::mount(fixture.root(), scratch.path(), 3);
    let text = config(&fixture, "librecsdk.so", collector.address())
        .replace(&fixture.service().display().to_string(), &format!("{}/*/*", scratch.path().display()));
    let daemon = Daemon::start(scratch.path(), &text);
    let name = fixture.service().file_name().expect("a file").to_owned();
    for (number, mount) in overlays.0.iter().enumerate() {
        let mut service = Command::new(mount.join(&name));
        service.args(["--port", "0", "--collector", &collector.address().to_string()]);
        let mut child = service.stdout(Stdio::piped()).spawn().expect("starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("is piped")).read_line(&mut line).expect("is text");
        let port =
            line.trim().strip_prefix("listening ").and_then(|port| port.parse().ok()).expect("its port");
        wait_for("the probes are in place", LIMIT, || {
            daemon.page("/readyz").1.contains("demo/click: attached").then_some(())
        });
        let mut connection = Connection::open(SocketAddr::from(([127, 0, 0, 1], port))).expect("connects");
        get(&mut connection, &format!("/recommend?id=r{number}&items=a"));
        get(&mut connection, &format!("/click?id=r{number}&item=a"));
        child.kill().expect("is our child");
        child.wait().expect("is our child");
    }
    expect_link(&daemon, "triple", "complete", 3.0);
    expect_metric(&daemon, "linktracer_events_total", &[("kind", "exposure")], 3.0);
    expect_metric(&daemon, "linktracer_events_total", &[("kind", "click")], 3.0);
    expect_metric(&daemon, "linktracer_duplicates_total", &[], 0.0);
    expect_metric(&daemon, "linktracer_attached_probes", &[("hook", "click")], 1.0);
    daemon.finish();
}

#[test]
fn record_writes_what_replay_reads() {
    let fixture = Fixture::unpack().expect("unpacks");
    let collector = Collector::start().expect("starts");
    let path = |name: &str| fixture.root().join(name);
    fs::write(path("c.yaml"), config(&fixture, &library(&fixture), collector.address()))
        .expect("is writable");
    let mut recorder = Command::new(binary())
        .args(["record", "--duration", "8s", "--config"])
        .arg(path("c.yaml"))
        .arg("--output")
        .arg(path("events.jsonl"))
        .stderr(fs::File::create(path("record.log")).expect("is writable"))
        .spawn()
        .expect("the binary starts");
    wait_for("capture is on", LIMIT, || {
        fs::read_to_string(path("record.log")).is_ok_and(|log| log.contains("capture is on")).then_some(())
    });
    let service =
        ServiceProcess::start(&fixture, Target::Main, collector.address(), "sendmsg").expect("starts");
    let mut connection = Connection::open(service.address()).expect("connects");
    get(&mut connection, "/recommend?id=r&items=a");
    get(&mut connection, "/click?id=r&item=a");
    assert!(recorder.wait().expect("is our child").success());
    let output = Command::new(binary()).args(["replay", "--output=json"]).arg(path("events.jsonl")).output();
    let output = output.expect("the binary starts");
    let counts: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(
        counts["events"],
        serde_json::json!({"request": 1, "exposure": 1, "click": 1, "report": 2}),
        "{}",
        printed(&output)
    );
    assert_eq!(counts["edges"]["triple"]["complete"], 1);
}

fn library(fixture: &Fixture) -> String {
    path_text(&fixture.library())
}

fn path_text(path: &Path) -> String {
    path.to_str().expect("UTF-8").to_owned()
}
