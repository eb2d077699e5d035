//! What goes wrong around the daemon while it traces. (A wall clock that jumps: `cargo xtask vm`.)

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use rustix::process::Signal;
use tests::{daemon::Daemon, printed, wait_for};
use tracer_user::demo::{
    fixture::{Collector, Fixture, ServiceProcess},
    http::Connection,
    plan::Target,
};

const LIMIT: Duration = Duration::from_secs(30);

fn config(fixture: &Fixture, collector: SocketAddr) -> String {
    let args = "\"(request_id cstr, item_id cstr)\"";
    format!(
        "services:\n  - name: demo\n    match: {{ exe: {exe} }}\n    request: {{ id: {{ header: X-Request-Id }} }}\n    \
         exposure: {{ library: {library}, symbol: trackExposure, args: {args} }}\n    \
         click: {{ library: {library}, symbol: trackClick, args: {args} }}\n    report: {{ to: [\"{collector}\"] }}\n\
         join: {{ exposure_window: 5s, click_window: 60s, report_window: 2s, lateness: 500ms }}\n",
        exe = fixture.service().display(),
        library = fixture.library().display(),
    )
}

/// One request with its exposure, its click and its report.
fn triple(connection: &mut Connection, id: &str) {
    for path in [format!("/recommend?id={id}&items=a"), format!("/click?id={id}&item=a")] {
        let response = connection.get(&path).expect("the service answers");
        assert!(response.status < 300, "{path}: {}", response.status);
    }
}

#[track_caller]
fn expect_triples(daemon: &Daemon, count: f64) {
    wait_for("every triple is complete", LIMIT, || {
        let complete =
            daemon.metric("linktracer_links_total", &[("edge", "triple"), ("outcome", "complete")]);
        assert!(complete <= count, "{complete} of {count}");
        (complete == count).then_some(())
    });
    assert_eq!(daemon.metric("linktracer_links_total", &[("edge", "triple"), ("outcome", "broken")]), 0.0);
}

/// Puts another file, of the same content, in the place of `path`, as an upgrade does.
fn replace(path: &Path) {
    let new = path.with_extension("new");
    fs::copy(path, &new).expect("is writable");
    fs::rename(&new, path).expect("is writable");
}

#[test]
fn files_that_are_replaced_or_deleted_while_they_are_traced_go_on_being_traced() {
    let fixture = Fixture::unpack().expect("unpacks");
    let collector = Collector::start().expect("starts");
    let daemon = Daemon::start(fixture.root(), &config(&fixture, collector.address()));
    let start =
        || ServiceProcess::start(&fixture, Target::Main, collector.address(), "write").expect("starts");
    let old = start();
    let mut to_old = Connection::open(old.address()).expect("connects");
    triple(&mut to_old, "before");
    for file in [fixture.library(), fixture.service()] {
        replace(&file);
    }
    triple(&mut to_old, "old-after-replacement");
    let new = start();
    let mut to_new = Connection::open(new.address()).expect("connects");
    // The file is new, so its probe comes after its first process.
    wait_for("the new library has its probe", LIMIT, || {
        (daemon.metric("linktracer_attached_probes", &[("hook", "click")]) == 2.0).then_some(())
    });
    triple(&mut to_new, "new");
    for file in [fixture.library(), fixture.service()] {
        fs::remove_file(file).expect("is ours");
    }
    triple(&mut to_old, "old-after-deletion");
    triple(&mut to_new, "new-after-deletion");
    expect_triples(&daemon, 5.0);
    daemon.finish();
}

#[test]
fn a_container_that_is_gone_is_forgotten_and_the_next_one_is_traced() {
    let fixture = Fixture::unpack().expect("unpacks");
    let collector = Collector::start().expect("starts");
    let daemon = Daemon::start(fixture.root(), &config(&fixture, collector.address()));
    for number in 0..3 {
        let port = tests::daemon::free_address().port();
        let mut container = Command::new("unshare")
            .args(["--mount", "--pid", "--fork", "--kill-child"])
            .arg(fixture.service())
            .args(["--port", &port.to_string(), "--collector", &collector.address().to_string()])
            .spawn()
            .expect("starts");
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut connection = wait_for("the service listens", LIMIT, || Connection::open(address).ok());
        triple(&mut connection, &format!("r{number}"));
        // With its first process, the kernel ends every process of the namespace, and the namespace.
        container.kill().expect("is our child");
        container.wait().expect("is our child");
    }
    expect_triples(&daemon, 3.0);
    wait_for("no process is left", LIMIT, || {
        (daemon.metric("linktracer_target_processes", &[("service", "demo")]) == 0.0).then_some(())
    });
    assert_eq!(daemon.page("/healthz").0, 200);
    daemon.finish();
}

/// A file system that is taken away when this is dropped.
struct Small(PathBuf);

impl Small {
    fn mount(place: &Path) -> Self {
        fs::create_dir(place).expect("is writable");
        let output =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(place).output();
        let output = output.expect("mount starts");
        assert!(output.status.success(), "{}", printed(&output));
        Self(place.to_owned())
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // If something still runs from it, the folder cannot be removed, which shows.
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_worker_that_fails_ends_the_process_with_its_reason() {
    let fixture = Fixture::unpack().expect("unpacks");
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let small = Small::mount(&scratch.path().join("small"));
    let collector = Collector::start().expect("starts");
    let daemon = Daemon::start_recording(
        fixture.root(),
        &config(&fixture, collector.address()),
        &small.0.join("events.jsonl"),
    );
    let service =
        ServiceProcess::start(&fixture, Target::Main, collector.address(), "write").expect("starts");
    let mut connection = Connection::open(service.address()).expect("connects");
    for number in 0..200 {
        triple(&mut connection, &format!("r{number}"));
    }
    let log = daemon.log_path().to_owned();
    let status = daemon.wait();
    let log = fs::read_to_string(log).expect("was written");
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("No space left on device") && log.contains("ingest thread failed"), "{log}");
}

#[test]
fn a_configuration_that_is_wrong_at_sighup_changes_nothing_and_is_named() {
    let fixture = Fixture::unpack().expect("unpacks");
    let collector = Collector::start().expect("starts");
    let text = config(&fixture, collector.address());
    let daemon = Daemon::start(fixture.root(), &text);
    let service =
        ServiceProcess::start(&fixture, Target::Main, collector.address(), "write").expect("starts");
    let mut connection = Connection::open(service.address()).expect("connects");
    triple(&mut connection, "before");
    let (successful, time) = (
        "linktracer_config_last_reload_successful",
        "linktracer_config_last_reload_success_timestamp_seconds",
    );
    let started = daemon.metric(time, &[]);
    assert_eq!(daemon.metric(successful, &[]), 1.0);

    let file = fixture.root().join("linktracer.yaml");
    let good = fs::read_to_string(&file).expect("was written by the start");
    let reload = |text: &str, said: &str| {
        fs::write(&file, text).expect("is writable");
        daemon.signal(Signal::HUP);
        wait_for(said, LIMIT, || daemon.log().contains(said).then_some(()));
    };
    reload(
        &good.replace("click_window: 60s", "click_windw: 60s"),
        "unknown key; did you mean `click_window`?",
    );
    assert!(daemon.log().contains("join.click_windw") && daemon.log().contains("stays in force"));
    wait_for("the metric says so", LIMIT, || (daemon.metric(successful, &[]) == 0.0).then_some(()));
    assert_eq!(daemon.metric(time, &[]), started);
    triple(&mut connection, "with-a-bad-file");

    // Lines that move change nothing.
    reload(&format!("# a comment\n{good}"), "says what is in force");
    assert_eq!(daemon.metric(successful, &[]), 1.0);
    assert!(daemon.metric(time, &[]) > started);
    let other = good.replace("click_window: 60s", "click_window: 61s").replace("name: demo", "name: other");
    reload(&other, "changed=\"services, join\" why_not=\"its state is not kept");
    triple(&mut connection, "with-another-file");
    expect_triples(&daemon, 3.0);
    daemon.finish();
}
