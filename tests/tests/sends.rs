//! Messages in every shape that leaves a process, and reports on kept-alive connections: what was
//! counted is what the sender says that it sent.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use rustix::process::Signal;
use tests::{
    daemon::{Daemon, Pinned, free_address, sum},
    wait_for,
};
use tracer_user::demo::measure::Scrape;

const LIMIT: Duration = Duration::from_secs(60);

/// The sender, killed when this is dropped.
struct Sender(Child);

impl Sender {
    /// The folder is in its command line, so that the daemon of a test tells it from those of others.
    fn start(scratch: &Path, arguments: &[&str]) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/sends.py");
        let mut command = Command::new("python3");
        let child = command
            .arg(script)
            .args(arguments)
            .arg(scratch)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        Self(child.expect("python3 is there"))
    }

    /// Lets it send, and returns what it says that it sent.
    fn send(&mut self) -> f64 {
        self.0.stdin.as_mut().expect("is piped").write_all(b"\n").expect("it waits");
        let mut line = String::new();
        BufReader::new(self.0.stdout.take().expect("is piped")).read_line(&mut line).expect("is text");
        line.trim().parse().expect("a number")
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A daemon that traces the sender of these arguments.
fn daemon(scratch: &Path, what: &str, probes: &str) -> Daemon {
    let services = format!(
        "services:\n  - name: sender\n    match: {{ cmdline: \"*fixtures/sends.py {what}*{}\" }}\n{probes}\njoin: {{ exposure_window: 1s, lateness: 500ms }}\n",
        scratch.display()
    );
    Daemon::start(scratch, &services)
}

fn lost(daemon: &Daemon, reason: &str) -> f64 {
    daemon.metric("linktracer_lost_events_total", &[("reason", reason)])
}

fn received(daemon: &Daemon, outcome: &str) -> f64 {
    daemon.metric("linktracer_received_records_total", &[("outcome", outcome)])
}

/// Waits until every request is judged, and checks that none was another's duplicate and that the
/// books are balanced.
#[track_caller]
fn check_requests(daemon: &Daemon, expected: f64) {
    wait_for("every request is judged", LIMIT, || {
        let judged = daemon.metric("linktracer_requests_total", &[("outcome", "unexposed")]);
        assert!(judged <= expected, "{judged} of {expected}\n{}", daemon.page("/metrics").1);
        (judged == expected).then_some(())
    });
    assert_eq!(daemon.metric("linktracer_duplicates_total", &[("kind", "request")]), 0.0);
    assert_eq!(received(daemon, "event"), daemon.metric("linktracer_events_total", &[]));
    // Other processes of the machine are started all the time, and each makes records: at rest it holds.
    wait_for("each record tells one thing, and more are counted", LIMIT, || {
        let scrape = Scrape::fetch(daemon.address()).expect("the daemon answers");
        let submitted = sum(&scrape, "linktracer_kernel_hits_total", &[("outcome", "submitted")]);
        let further = sum(&scrape, "linktracer_further_messages_total", &[]);
        let told = sum(&scrape, "linktracer_received_records_total", &[]);
        (submitted + further == told).then_some(())
    });
    for reason in ["ring_full", "read_fault", "undecodable", "header_too_long", "unfinished"] {
        assert_eq!(lost(daemon, reason), 0.0, "{reason}");
    }
}

#[test]
fn ids_in_headers_however_they_are_cut() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let daemon = daemon(scratch.path(), "header", "    request: { id: { header: X-Request-Id } }");
    let mut sender = Sender::start(scratch.path(), &["header"]);
    let sent = sender.send();
    check_requests(&daemon, sent);
    assert!(daemon.metric("linktracer_further_messages_total", &[]) >= 90.0, "ten messages in one call");
    assert!(received(&daemon, "repeated") > 0.0, "sends that were refused");
    daemon.finish();
}

/// What is not in memory cannot be read. It is lost when it was sent, and not when it went into a pipe.
#[test]
fn what_is_not_in_memory_is_lost_where_it_was_sent() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let daemon = daemon(scratch.path(), "absent", "    request: { id: { header: X-Request-Id } }");
    let mut sender = Sender::start(scratch.path(), &["absent"]);
    sender.send();
    wait_for("the last one is judged", LIMIT, || {
        (daemon.metric("linktracer_requests_total", &[("outcome", "unexposed")]) == 1.0).then_some(())
    });
    assert_eq!(lost(&daemon, "read_fault"), 100.0);
    daemon.finish();
}

/// A daemon that is killed has half of a message in its memory and the other half ahead of it.
#[test]
fn messages_in_parts_are_counted_once_by_daemons_that_are_killed() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let pinned = Pinned::new(scratch.path());
    let text = format!(
        "ring_buffer_size: 64MiB\n{}services:\n  - name: sender\n    match: {{ cmdline: \"*fixtures/sends.py slowly {}\" }}\n    request: {{ id: {{ header: X-Request-Id }} }}\n\
         join: {{ exposure_window: 1s, lateness: 500ms }}\n",
        pinned.settings(),
        scratch.path().display()
    );
    let mut daemon = Daemon::start(scratch.path(), &text);
    let mut sender = Sender::start(scratch.path(), &["slowly"]);
    let sending = thread::spawn(move || {
        let sent = sender.send();
        (sender, sent)
    });
    let mut kills = 0;
    while !sending.is_finished() {
        thread::sleep(Duration::from_millis(17));
        daemon.signal(Signal::KILL);
        drop(daemon);
        daemon = Daemon::start(scratch.path(), &text);
        kills += 1;
    }
    assert!(kills > 5, "{kills} daemons were killed meanwhile");
    let (sender, sent) = sending.join().expect("it sends");
    check_requests(&daemon, sent);
    drop(sender);
    daemon.finish();
    drop(pinned);
}

#[test]
fn ids_in_bodies_that_come_later() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let request = "    request: { id: { body: meta.request_id } }";
    let daemon = daemon(scratch.path(), "body", request);
    let mut sender = Sender::start(scratch.path(), &["body"]);
    let sent = sender.send();
    check_requests(&daemon, sent);
    assert_eq!(received(&daemon, "no_request_id"), 100.0);
    assert_eq!(lost(&daemon, "body_too_long"), 100.0);
    daemon.finish();
}

#[test]
fn only_the_configured_direction_counts() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let request = "    request: { direction: request, id: { body: meta.request_id } }";
    let daemon = daemon(scratch.path(), "body", request);
    let mut sender = Sender::start(scratch.path(), &["body"]);
    assert_eq!(sender.send(), 300.0);
    check_requests(&daemon, 100.0);
    daemon.finish();
}

#[test]
fn reports_on_kept_alive_connections_by_network_name_and_address() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let ports = [(); 4].map(|()| free_address().port());
    let [network, name, address, elsewhere] = ports;
    let to = format!("[\"127.0.0.0/8:{network}\", \"localhost:{name}\", \"[::1]:{address}\"]");
    let probes = format!("    request: {{ id: {{ header: X-Request-Id }} }}\n    report: {{ to: {to} }}");
    let daemon = daemon(scratch.path(), "reports", &probes);
    assert_eq!(daemon.page("/readyz").0, 200, "{}", daemon.page("/readyz").1);
    let ports = ports.map(|port| port.to_string());
    let [a, b, c, d] = ports.each_ref().map(String::as_str);
    let mut sender = Sender::start(scratch.path(), &["reports", a, b, c, d]);
    let sent = sender.send();
    assert_eq!(sent, 404.0, "four connections, a hundred sends on each");
    let events = || daemon.metric("linktracer_events_total", &[("kind", "report")]);
    wait_for("every report is seen", LIMIT, || (events() >= sent).then_some(()));
    wait_for("what goes elsewhere is seen too", LIMIT, || {
        (received(&daemon, "no_request_id") == 100.0).then_some(())
    });
    assert_eq!(events(), sent, "port {elsewhere} is no collector");
    daemon.finish();
}

/// Runs the daemon with a list of hosts of its own, in which `collector.test` is not, and then is.
#[test]
fn a_name_that_is_not_known_yet_is_asked_for_again() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let hosts: PathBuf = scratch.path().join("hosts");
    std::fs::write(&hosts, "127.0.0.1 localhost\n").expect("is writable");
    let script = format!("mount --bind {} /etc/hosts && exec \"$@\"", hosts.display());
    let ports = [(); 4].map(|()| free_address().port());
    let probes = format!("    report: {{ to: [\"collector.test:{}\"] }}", ports[1]);
    let services = format!(
        "services:\n  - name: sender\n    match: {{ cmdline: \"*fixtures/sends.py reports*{}\" }}\n{probes}\njoin: {{ lateness: 500ms }}\n",
        scratch.path().display()
    );
    let wrapper = ["unshare", "--mount", "sh", "-c", &script, "sh"];
    let daemon = Daemon::start_within(&wrapper, scratch.path(), &services);
    let (status, text) = daemon.page("/readyz");
    assert_eq!(status, 503, "{text}");
    assert!(text.contains("no address is known of collector.test"), "{text}");
    let lookups =
        |outcome: &str| daemon.metric("linktracer_collector_lookups_total", &[("outcome", outcome)]);
    assert!(lookups("failed") >= 1.0, "{}", daemon.log());

    // Written in place: what is mounted is the file, not its name.
    std::fs::write(&hosts, "127.0.0.1 localhost collector.test\n").expect("is writable");
    wait_for("the name has an address", LIMIT, || (daemon.page("/readyz").0 == 200).then_some(()));
    assert!(lookups("answered") >= 1.0);
    let ports = ports.map(|port| port.to_string());
    let [a, b, c, d] = ports.each_ref().map(String::as_str);
    let mut sender = Sender::start(scratch.path(), &["reports", a, b, c, d]);
    sender.send();
    wait_for("every report is seen", LIMIT, || {
        let events = daemon.metric("linktracer_events_total", &[("kind", "report")]);
        assert!(events <= 101.0, "{events}");
        (events == 101.0).then_some(())
    });
    daemon.finish();
}
