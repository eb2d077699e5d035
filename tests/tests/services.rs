//! Services as people run them, each held against its own count: Go and Rust with their SDKs, and nginx in front.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Result;
use serde_json::Value;
use tests::{
    binary,
    daemon::{Daemon, free_address},
    go::{Link, Way, bare_copy, native, toolchains},
    linktracer, printed,
    server::Server,
    wait_for,
};
use tracer_user::demo::http::{Connection, get_once};

const LIMIT: Duration = Duration::from_secs(60);

fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().expect("a scratch folder")
}

/// What the service says that it did.
fn truth(server: &Server) -> Value {
    let response = get_once(server.address, "/truth").expect("answers");
    serde_json::from_slice(&response.body).expect("is JSON")
}

fn told(truth: &Value, what: &str) -> f64 {
    truth[what].as_f64().expect("a number")
}

/// Waits until so many events of the kind were taken in, and fails on one more.
#[track_caller]
fn expect_events(daemon: &Daemon, service: &str, kind: &str, expected: f64) {
    let events = || daemon.metric("linktracer_events_total", &[("kind", kind), ("service", service)]);
    wait_for(&format!("{expected} events {kind} of {service}"), LIMIT, || {
        assert!(events() <= expected, "{kind}: {} of {expected}", events());
        (events() == expected).then_some(())
    });
}

/// Nothing was lost, and everything is linked as it should be.
#[track_caller]
fn expect_whole(daemon: &Daemon, clicks: f64) {
    let links =
        |edge, outcome| daemon.metric("linktracer_links_total", &[("edge", edge), ("outcome", outcome)]);
    wait_for("every click is judged", LIMIT, || {
        // Of a late event nothing may be said, so this would be waited for in vain.
        let late = daemon.metric("linktracer_late_events_total", &[]);
        assert_eq!(late, 0.0, "an event came later than `lateness` allows\n{}", daemon.log());
        (links("triple", "complete") == clicks).then_some(())
    });
    for edge in ["request_exposure", "exposure_click", "triple"] {
        for outcome in ["orphan", "mismatch", "missing_id", "broken"] {
            assert_eq!(links(edge, outcome), 0.0, "{edge} {outcome}\n{}", daemon.log());
        }
    }
    assert_eq!(daemon.metric("linktracer_lost_events_total", &[]), 0.0);
}

const GO_SDK: &str = "example.com/goservice/sdk.(*Tracker)";
const GO_ARGS: &str = "args: \"(tracker pointer, ctx interface, request_id string, item_id string)\"";

fn go_services(program: &Path, exposure: &str) -> String {
    format!(
        "ring_buffer_size: 64MiB\nservices:\n  - name: go\n    match: {{ exe: {} }}\n    request: {{ id: {{ header: X-Request-Id }} }}\n    exposure: {{ symbol: \"{exposure}\", {GO_ARGS} }}\n    click: {{ symbol: \"{GO_SDK}.TrackClick\", args: \"(tracker pointer, ctx interface, request_id string, position int, item_id string)\" }}\njoin: {{ lateness: 500ms }}\n",
        program.display()
    )
}

/// One service that runs before the daemon and one that is started later, of one program. The first makes 170,000
/// exposures from goroutines whose stacks grow at the probe.
fn check_go(program: &Path) -> u64 {
    const PER_REQUEST: u32 = 340;
    let scratch = scratch();
    let start = || {
        let mut command = Command::new(program);
        Server::start(command.args(["-exposures", &PER_REQUEST.to_string()]))
    };
    let early = start();
    let daemon = Daemon::start(scratch.path(), &go_services(program, &format!("{GO_SDK}.TrackExposure")));
    early.ask(0, 500);
    let late = start();
    late.ask(500, 20);
    let (early, late) = (truth(&early), truth(&late));
    assert_eq!(told(&early, "exposures"), 170_000.0);
    assert_eq!(told(&late, "exposures"), 6_800.0);
    let sum = |what| told(&early, what) + told(&late, what);
    expect_events(&daemon, "go", "request", sum("requests"));
    expect_events(&daemon, "go", "exposure", sum("exposures"));
    expect_events(&daemon, "go", "click", sum("clicks"));
    expect_whole(&daemon, sum("clicks"));
    let writes = [("probe", "write"), ("outcome", "event")];
    assert_eq!(daemon.metric("linktracer_received_records_total", &writes), sum("requests"));
    daemon.finish();
    early["threads"].as_u64().expect("a number")
}

#[test]
fn go_services_plain_and_stripped_position_independent_and_not() -> Result<()> {
    for toolchain in toolchains() {
        for pie in [false, true] {
            for stripped in [false, true] {
                let way = Way { pie, link: Link::Pure };
                let program = toolchain.fixture("goservice", way, stripped, native())?;
                let program = if stripped { bare_copy(&program) } else { program };
                let threads = check_go(&program);
                assert!(threads > 1, "no goroutine was on another thread");
            }
        }
    }
    Ok(())
}

/// One pattern, two functions: those of the two packages called `sdk`.
#[test]
fn a_star_in_a_name_traces_every_function_it_means_once() -> Result<()> {
    for toolchain in toolchains() {
        let program = toolchain.fixture("goservice", Way { pie: true, link: Link::Pure }, true, native())?;
        let program = bare_copy(&program);
        let scratch = scratch();
        let services = go_services(&program, "*/sdk.(*Tracker).TrackExposure");
        let daemon = Daemon::start(scratch.path(), &services);
        let attached = [("service", "go"), ("hook", "exposure")];
        wait_for("both functions are attached", LIMIT, || {
            (daemon.metric("linktracer_attached_probes", &attached) == 2.0).then_some(())
        });
        let server = Server::start(&mut Command::new(&program));
        server.ask(0, 400);
        let truth = truth(&server);
        assert_eq!((told(&truth, "exposures"), told(&truth, "legacy")), (1600.0, 100.0));
        expect_events(&daemon, "go", "exposure", 1700.0);
        expect_events(&daemon, "go", "click", 100.0);
        expect_whole(&daemon, 100.0);
        daemon.finish();
    }
    Ok(())
}

#[test]
fn a_pattern_that_means_too_many_functions_is_refused() -> Result<()> {
    for toolchain in toolchains() {
        let program = toolchain.fixture("goservice", Way { pie: false, link: Link::Pure }, true, native())?;
        let scratch = scratch();
        let config = scratch.path().join("linktracer.yaml");
        fs::write(&config, go_services(&program, "net/http.*"))?;
        let output = linktracer(&["run", "--config", config.to_str().expect("is text")]);
        let text = printed(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(
            text.contains("has more than 64 functions like `net/http.*`; write more of the name"),
            "{text}"
        );
    }
    Ok(())
}

/// The ids of a request are seen at both: nginx sends one upstream and one back, the service answers with it.
#[test]
fn nginx_in_front_of_a_go_service() -> Result<()> {
    const REQUESTS: u32 = 400;
    let Some(toolchain) = toolchains().last() else { return Ok(()) };
    let program = toolchain.fixture("goservice", Way { pie: false, link: Link::Pure }, true, native())?;
    let scratch = scratch();
    let (folder, address) = (scratch.path().display(), free_address());
    let behind = Server::start(&mut Command::new(&program));
    let config = format!(
        "daemon off; pid {folder}/pid; error_log stderr; worker_processes 2;\nevents {{}}\nhttp {{\n  access_log off;\n  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;\n  upstream go {{ server {}; keepalive 4; }}\n  server {{ listen {address}; location / {{ proxy_pass http://go; proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header X-Request-Id $arg_id; }} }}\n}}\n",
        behind.address
    );
    fs::write(scratch.path().join("nginx.conf"), config)?;
    let mut services = go_services(&program, &format!("{GO_SDK}.TrackExposure"));
    let edge = format!(
        "services:\n  - name: edge\n    match: {{ exe: \"**/nginx\", cmdline: \"*{folder}/nginx.conf\" }}\n    request: {{ id: {{ header: X-Request-Id }} }}\n"
    );
    services = services.replacen("services:\n", &edge, 1);
    let daemon = Daemon::start(scratch.path(), &services);
    let child = Command::new("nginx").arg("-c").arg(scratch.path().join("nginx.conf")).spawn();
    let front = Server { child: child.expect("`cargo xtask test` puts nginx on the path"), address };
    wait_for("nginx listens", LIMIT, || Connection::open(address).ok());
    front.ask(0, REQUESTS);
    let expected = f64::from(REQUESTS);
    assert_eq!(told(&truth(&behind), "requests"), expected);
    expect_events(&daemon, "edge", "request", 2.0 * expected);
    expect_events(&daemon, "go", "request", expected);
    expect_events(&daemon, "go", "exposure", 4.0 * expected);
    expect_whole(&daemon, expected / 4.0);
    // Three sightings of one request.
    assert_eq!(daemon.metric("linktracer_duplicates_total", &[("kind", "request")]), 2.0 * expected);
    let sent =
        |probe| daemon.metric("linktracer_received_records_total", &[("probe", probe), ("outcome", "event")]);
    assert_eq!((sent("writev"), sent("write")), (2.0 * expected, expected));
    daemon.finish();
    Ok(())
}

/// The service that `cargo xtask test` builds beside the daemon.
fn rust_service() -> PathBuf {
    let program = binary().with_file_name("rustservice");
    assert!(program.exists(), "{} is not there; run `cargo xtask test`, which builds it", program.display());
    program
}

/// Its SDK's functions have the names that the compiler gave them, with a part that changes from build to build.
#[test]
fn a_rust_service_with_an_sdk_that_takes_str() {
    let scratch = scratch();
    let program = rust_service();
    let services = format!(
        "services:\n  - name: rust\n    match: {{ exe: {} }}\n    request: {{ id: {{ header: X-Request-Id }} }}\n    exposure: {{ symbol: \"*rustservice3sdk14track_exposure*\", args: \"(request_id string, item_id string)\" }}\n    click: {{ symbol: \"*rustservice3sdk11track_click*\", args: \"(item_id string, position int, request_id string)\" }}\njoin: {{ lateness: 500ms }}\n",
        program.display()
    );
    let early = Server::start(&mut Command::new(&program));
    let daemon = Daemon::start(scratch.path(), &services);
    early.ask(0, 500);
    let late = Server::start(&mut Command::new(&program));
    late.ask(500, 100);
    let (early, late) = (truth(&early), truth(&late));
    let sum = |what| told(&early, what) + told(&late, what);
    assert_eq!((sum("requests"), sum("exposures"), sum("clicks")), (600.0, 1800.0, 150.0));
    expect_events(&daemon, "rust", "request", 600.0);
    expect_events(&daemon, "rust", "exposure", 1800.0);
    expect_events(&daemon, "rust", "click", 150.0);
    expect_whole(&daemon, 150.0);
    let writes = [("probe", "writev"), ("outcome", "event")];
    assert_eq!(daemon.metric("linktracer_received_records_total", &writes), 600.0);
    daemon.finish();
}
