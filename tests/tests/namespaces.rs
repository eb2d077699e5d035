//! Services in mount namespaces of their own, as containers are.

use std::{fs, net::SocketAddr, path::Path, process::Command, time::Duration};

use tests::{daemon::Daemon, server::Contained, wait_for};
use tracer_user::demo::{
    fixture::{Collector, Fixture},
    http::Connection,
};

const LIMIT: Duration = Duration::from_secs(30);
/// Processes of each kind.
const PROCESSES: usize = 5;

/// Runs `mounts` in new mount, pid, host name and IPC namespaces, then the service that they made appear. Its mounts
/// go with its namespace.
fn start(mounts: &str, service: &Path, collector: SocketAddr) -> Contained {
    let script = format!("set -e; {mounts}; exec {} --port 0 --collector {collector}", service.display());
    let mut command = Command::new("unshare");
    command.args(["--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "sh", "-c", &script]);
    Contained::start(&mut command)
}

#[test]
fn ten_processes_in_ten_namespaces_are_all_seen_and_each_event_once() {
    let fixture = Fixture::unpack().expect("unpacks");
    let collector = Collector::start().expect("starts");
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let place = scratch.path().join("app");
    fs::create_dir(&place).expect("is writable");
    let service = place.join(fixture.service().file_name().expect("a file"));
    let args = "args: \"(request_id cstr, item_id cstr)\"";
    let services = format!(
        "services:\n  - name: demo\n    match: {{ exe: \"{}/*\" }}\n    release: [\"env:BUILD_COMMIT_TAG\"]\n    \
         request: {{ id: {{ header: X-Request-Id }} }}\n    \
         exposure: {{ library: librecsdk.so, symbol: trackExposure, {args} }}\n    \
         click: {{ library: librecsdk.so, symbol: trackClick, {args} }}\n    report: {{ to: [\"{}\"] }}\n\
         join: {{ lateness: 500ms }}\n",
        place.display(),
        collector.address(),
    );
    let daemon = Daemon::start(scratch.path(), &services);

    // The same path in each, and nothing there for the daemon: a copy of its own, or an overlay of one file.
    let (lower, place) = (fixture.root().display(), place.display());
    let copy = format!("mount -t tmpfs tmpfs {place}; cp -p {lower}/* {place}/ 2>/dev/null || true");
    let overlay = format!(
        "mount -t tmpfs tmpfs {place}; mkdir {place}/u {place}/w; \
         mount -t overlay overlay -o lowerdir={lower},upperdir={place}/u,workdir={place}/w {place}"
    );
    let mut contained = Vec::new();
    for number in 0..2 * PROCESSES {
        let copied = number % 2 == 0;
        contained.push(start(if copied { &copy } else { &overlay }, &service, collector.address()));
        // Each copy is a file of its own, all overlays show one.
        let files = (number / 2 + 1 + usize::from(number > 0)) as f64;
        wait_for("its library has its probes", LIMIT, || {
            let attached = daemon.metric("linktracer_attached_probes", &[("hook", "click")]);
            assert!(attached <= files, "{attached} files, not {files}\n{}", daemon.log());
            (attached == files).then_some(())
        });
    }
    for (number, process) in contained.iter().enumerate() {
        let mut connection = Connection::open(process.address).expect("connects");
        for call in 0..10 {
            for path in ["recommend?id=", "click?id="] {
                let items = if path.starts_with('r') { "items" } else { "item" };
                let path = format!("/{path}r{number}-{call}&{items}=a");
                assert!(connection.get(&path).expect("answers").status < 300);
            }
        }
    }
    let expected = (2 * PROCESSES * 10) as f64;
    wait_for("every triple is complete", LIMIT, || {
        let complete = [("edge", "triple"), ("outcome", "complete")];
        (daemon.metric("linktracer_links_total", &complete) == expected).then_some(())
    });
    for kind in ["request", "exposure", "click"] {
        assert_eq!(daemon.metric("linktracer_events_total", &[("kind", kind)]), expected, "{kind}");
    }
    wait_for("every process is known", LIMIT, || {
        (daemon.metric("linktracer_target_processes", &[]) == (2 * PROCESSES) as f64).then_some(())
    });
    drop(contained);
    daemon.finish();
}
