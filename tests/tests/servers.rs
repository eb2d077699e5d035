//! Servers people run, each sending in its own way: every answer's request id is seen once.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tests::{
    daemon::{Daemon, free_address},
    server::Server,
    wait_for,
};
use tracer_user::demo::http::Connection;

const REQUESTS: u32 = 500;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/servers").join(name)
}

fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().expect("a scratch folder")
}

/// Matches the server of this test, which has the scratch folder for its last argument, and no other's.
fn its_command_line(scratch: &tempfile::TempDir) -> String {
    format!("cmdline: \"*servers/?erver.* {}\"", scratch.path().display())
}

fn daemon(scratch: &Path, matching: &str) -> Daemon {
    let services = format!(
        "services:\n  - name: web\n    match: {{ {matching} }}\n    request: {{ id: {{ header: X-Request-Id }} }}\njoin: {{ exposure_window: 1s, lateness: 200ms }}\n"
    );
    Daemon::start(scratch, &services)
}

/// Asks over two kept-alive connections, and checks that each id was seen exactly once.
#[track_caller]
fn check(daemon: Daemon, server: &Server, probe: &str) {
    let mut connections = [0, 1].map(|_| Connection::open(server.address).expect("connects"));
    for number in 0..REQUESTS {
        let path = format!("/recommend?id=r-{number}");
        let response = connections[number as usize % 2].get(&path).expect("answers");
        assert_eq!(response.status, 200);
    }
    let expected = f64::from(REQUESTS);
    wait_for("every request is judged", Duration::from_secs(20), || {
        let judged =
            daemon.metric("linktracer_requests_total", &[("outcome", "unexposed"), ("service", "web")]);
        assert!(judged <= expected, "{judged}");
        (judged == expected).then_some(())
    });
    let seen = daemon.metric("linktracer_received_records_total", &[("probe", probe), ("outcome", "event")]);
    assert_eq!(seen, expected, "{probe}");
    for reason in ["ring_full", "read_fault", "header_too_long", "undecodable"] {
        assert_eq!(daemon.metric("linktracer_lost_events_total", &[("reason", reason)]), 0.0, "{reason}");
    }
    assert_eq!(daemon.metric("linktracer_duplicates_total", &[("kind", "request")]), 0.0);
    daemon.finish();
}

#[test]
fn python_started_before_the_daemon() {
    let scratch = scratch();
    let server = Server::start(Command::new("python3").arg(fixture("server.py")).arg(scratch.path()));
    let daemon = daemon(scratch.path(), &its_command_line(&scratch));
    check(daemon, &server, "sendto");
}

#[test]
fn node_started_after_the_daemon() {
    let version =
        Command::new("node").arg("--version").output().expect("`cargo xtask test` puts node on the path");
    let version = String::from_utf8(version.stdout).expect("is text");
    let major = version.trim_start_matches('v').split('.').next().and_then(|major| major.parse::<u32>().ok());
    assert!(major.is_some_and(|major| major >= 20), "Node 20 or later is meant, this is {version}");
    let scratch = scratch();
    let daemon = daemon(scratch.path(), &its_command_line(&scratch));
    let server = Server::start(Command::new("node").arg(fixture("server.js")).arg(scratch.path()));
    check(daemon, &server, "writev");
}

#[test]
fn java_started_before_the_daemon() {
    let scratch = scratch();
    let server = Server::start(
        Command::new("java")
            .args(["-XX:TieredStopAtLevel=1"])
            .arg(fixture("Server.java"))
            .arg(scratch.path()),
    );
    let daemon = daemon(scratch.path(), &its_command_line(&scratch));
    check(daemon, &server, "write");
}

#[test]
fn java_started_after_the_daemon() {
    let scratch = scratch();
    let daemon = daemon(scratch.path(), &its_command_line(&scratch));
    let server = Server::start(
        Command::new("java")
            .args(["-XX:TieredStopAtLevel=1"])
            .arg(fixture("Server.java"))
            .arg(scratch.path()),
    );
    check(daemon, &server, "write");
}

#[test]
fn nginx_whose_workers_are_forked_from_a_traced_master() {
    let scratch = scratch();
    let address = free_address();
    let folder = scratch.path().display();
    let config = format!(
        "daemon off; pid {folder}/pid; error_log stderr; worker_processes 2;\nevents {{}}\nhttp {{\n  access_log off;\n  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;\n  server {{ listen {address}; location / {{ add_header X-Request-Id $arg_id; return 200 '[]'; }} }}\n}}\n"
    );
    fs::write(scratch.path().join("nginx.conf"), config).expect("is writable");
    let daemon = daemon(scratch.path(), &format!("exe: \"**/nginx\", cmdline: \"*{folder}/nginx.conf\""));
    let child = Command::new("nginx").arg("-c").arg(scratch.path().join("nginx.conf")).spawn();
    let server = Server { child: child.expect("`cargo xtask test` puts nginx on the path"), address };
    wait_for("nginx listens", Duration::from_secs(10), || Connection::open(address).ok());
    check(daemon, &server, "writev");
}
