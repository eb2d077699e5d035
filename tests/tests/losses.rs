//! Events that the kernel side could not hand over: the bounds of the ratios contain the truth, the
//! window is not trustworthy, and it is again when the loss has left it.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use tests::{daemon::Daemon, wait_for};
use tracer_user::demo::{
    fixture::{Collector, Fixture, ServiceProcess},
    http::Connection,
    measure::WAITING_TABLES,
    plan::Target,
};

const LIMIT: Duration = Duration::from_secs(30);
/// Long enough that the whole test but its end is within one window.
const WINDOW: Duration = Duration::from_secs(60);

/// The share of broken links, on every edge and at any time.
const TRUTH: f64 = 0.2;

const EDGES: [&str; 3] = ["request_exposure", "exposure_click", "triple"];

fn config(fixture: &Fixture) -> String {
    let args = "\"(request_id cstr, item_id cstr)\"";
    format!(
        "ring_buffer_size: 64KiB\nservices:\n  - name: demo\n    match: {{ exe: {exe} }}\n    \
         request: {{ id: {{ header: X-Request-Id }} }}\n    \
         exposure: {{ library: {library}, symbol: trackExposure, args: {args} }}\n    \
         click: {{ library: {library}, symbol: trackClick, args: {args} }}\n\
         join: {{ exposure_window: 2s, click_window: 2s, report_window: 1s, lateness: 500ms }}\n\
         ratio: {{ window: {window}s }}\n",
        exe = fixture.service().display(),
        library = fixture.library().display(),
        window = WINDOW.as_secs(),
    )
}

fn get(connection: &mut Connection, path: &str) {
    let response = connection.get(path).expect("the service answers");
    assert!(response.status < 300, "{path}: {}", response.status);
}

/// Ten exposures and a click for each of these requests; one in five exposes under another id, which
/// breaks its exposures, its click and its triple.
fn traffic(connection: &mut Connection, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let other = if number % 5 == 0 { format!("&expose_id=other-{number}") } else { String::new() };
        get(connection, &format!("/recommend?id=r{number}&items=a,b,c,d,e,f,g,h,i,j{other}"));
        get(connection, &format!("/click?id=r{number}&item=a"));
    }
}

fn ratio(daemon: &Daemon, edge: &str, bound: &str) -> f64 {
    daemon.metric("linktracer_broken_link_ratio", &[("edge", edge), ("bound", bound)])
}

fn trustworthy(daemon: &Daemon) -> f64 {
    daemon.metric("linktracer_window_trustworthy", &[("service", "demo")])
}

fn lost(daemon: &Daemon) -> f64 {
    daemon.metric("linktracer_lost_events_total", &[("reason", "ring_full")])
}

#[test]
fn after_an_overflow_the_truth_is_within_the_bounds_and_trust_comes_back_when_it_has_left_the_window() {
    let fixture = Fixture::unpack().expect("unpacks");
    let collector = Collector::start().expect("starts");
    let daemon = Daemon::start(fixture.root(), &config(&fixture));
    let service =
        ServiceProcess::start(&fixture, Target::Main, collector.address(), "write").expect("starts");
    let mut connection = Connection::open(service.address()).expect("connects");
    let started = Instant::now();

    // Five requests fit into the ring whatever else runs here.
    traffic(&mut connection, 0..5);
    let clicks = || daemon.metric("linktracer_links_total", &[("edge", "triple")]);
    wait_for("every triple is judged", LIMIT, || (clicks() == 5.0).then_some(()));
    assert_eq!(lost(&daemon), 0.0);
    for edge in EDGES {
        let exact = || ["lower", "point", "upper"].map(|bound| ratio(&daemon, edge, bound)) == [TRUTH; 3];
        wait_for(edge, LIMIT, || exact().then_some(()));
    }
    assert_eq!(trustworthy(&daemon), 1.0);
    assert_eq!(daemon.metric("linktracer_exposure_to_click_seconds_count", &[("service", "demo")]), 4.0);

    daemon.signal(Signal::STOP);
    traffic(&mut connection, 5..200);
    daemon.signal(Signal::CONT);
    wait_for("it is not trustworthy", LIMIT, || (trustworthy(&daemon) == 0.0).then_some(()));
    let waiting = || WAITING_TABLES.map(|table| daemon.metric("linktracer_pending", &[("table", table)]));
    wait_for("nothing waits", LIMIT, || (waiting().iter().sum::<f64>() == 0.0).then_some(()));
    assert!(lost(&daemon) > 100.0, "{}", lost(&daemon));
    for edge in EDGES {
        let [lower, upper] = ["lower", "upper"].map(|bound| ratio(&daemon, edge, bound));
        assert!(lower <= TRUTH && TRUTH <= upper && upper - lower > 0.01, "{edge}: {lower} to {upper}");
    }
    let elapsed = started.elapsed();
    assert!(elapsed < WINDOW - Duration::from_secs(2), "{elapsed:?}: the first links have left the window");

    let back = WINDOW + LIMIT;
    wait_for("trust is back", back, || (trustworthy(&daemon) == 1.0).then_some(()));
    // What comes now is exact again.
    traffic(&mut connection, 200..210);
    for edge in EDGES {
        let exact = || ["lower", "point", "upper"].map(|bound| ratio(&daemon, edge, bound)) == [TRUTH; 3];
        wait_for(edge, LIMIT, || exact().then_some(()));
    }
    daemon.finish();
}
