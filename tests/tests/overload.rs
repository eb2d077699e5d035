//! More events than the daemon can take, through a ring that holds two hundred of them: what is lost is counted, to the
//! event, against the number that the service itself has counted.
//!
//! `cargo test --profile checked -p tests --test overload -- --nocapture` prints the table of docs/performance.md.

#![expect(clippy::print_stdout, reason = "its figures are a table of docs/performance.md")]

use std::{net::SocketAddr, thread, time::Duration};

use rustix::process::Signal;
use tests::{
    daemon::{Daemon, sum},
    wait_for,
};
use tracer_user::demo::{
    fixture::{Collector, Fixture, ServiceProcess},
    http::Connection,
    measure::Scrape,
    plan::Target,
};

const LIMIT: Duration = Duration::from_secs(120);

/// Connections that are used at a time; the service has a thread for each.
const LANES: usize = 4;
/// Items in an answer, and how often each is tracked.
const ITEMS: usize = 10;
const REPEAT: usize = 100;

/// The share of exposures whose request was not made.
const TRUTH: f64 = 0.0;

/// No other service on a machine sends HTTP like this, so its counts are this service's alone.
const SEND: &str = "sendmmsg";

fn config(fixture: &Fixture) -> String {
    format!(
        "ring_buffer_size: 64KiB\nservices:\n  - name: flood\n    match: {{ exe: {exe} }}\n    \
         request: {{ id: {{ header: X-Request-Id }} }}\n    \
         exposure: {{ library: {library}, symbol: trackExposure, args: \"(request_id cstr, item_id cstr)\" }}\n\
         join: {{ exposure_window: 5s, click_window: 5s, lateness: 500ms }}\n",
        exe = fixture.service().display(),
        library = fixture.library().display(),
    )
}

/// A scrape is one moment, in the middle of the work as well: what was received has come to its end or waits, and the
/// ratio, whose window has all of it, is of the links that are counted.
#[track_caller]
fn check_moment(scrape: &Scrape) {
    let received = sum(scrape, "linktracer_received_records_total", &[("outcome", "event")]);
    let events = sum(scrape, "linktracer_events_total", &[]);
    assert_eq!(received, events);
    let pending = |table| sum(scrape, "linktracer_pending", &[("table", table)]);
    let ends = sum(scrape, "linktracer_requests_total", &[])
        + sum(scrape, "linktracer_links_total", &[("edge", "request_exposure")])
        + sum(scrape, "linktracer_duplicates_total", &[])
        + sum(scrape, "linktracer_late_without_outcome_total", &[]);
    let waiting = pending("requests") + pending("exposures") + pending("reorder_buffer");
    assert_eq!(events, ends + waiting, "{ends} at an end and {waiting} waiting");

    let [linked, orphans] = ["linked", "orphan"].map(|outcome| {
        sum(scrape, "linktracer_links_total", &[("edge", "request_exposure"), ("outcome", outcome)])
    });
    if linked + orphans == 0.0 {
        return;
    }
    let [lower, point, upper] = ["lower", "point", "upper"].map(|bound| {
        sum(scrape, "linktracer_broken_link_ratio", &[("edge", "request_exposure"), ("bound", bound)])
    });
    assert_eq!(point, orphans / (linked + orphans), "{orphans} orphans and {linked} linked");
    assert!(lower <= TRUTH && TRUTH <= upper, "{lower} to {upper}");
    let is_trustworthy = sum(scrape, "linktracer_window_trustworthy", &[("service", "flood")]) == 1.0;
    assert_eq!(is_trustworthy, upper - lower <= 0.01, "{lower} to {upper}");
}

/// What was made, by the service's own count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Made {
    requests: usize,
    exposures: usize,
}

/// Has every lane ask for `requests` answers, `pause` apart, each with its exposures.
fn flood(service: &ServiceProcess, requests: usize, pause: Duration) -> Made {
    let items = (0..ITEMS).map(|item| format!("i{item}")).collect::<Vec<_>>().join(",");
    let address: SocketAddr = service.address();
    thread::scope(|scope| {
        for lane in 0..LANES {
            let items = &items;
            scope.spawn(move || {
                let mut connection = Connection::open(address).expect("connects");
                for number in 0..requests {
                    let path = format!("/recommend?id=r{lane}-{number}&items={items}&repeat={REPEAT}");
                    assert_eq!(connection.get(&path).expect("answers").status, 200);
                    thread::sleep(pause);
                }
            });
        }
    });
    let made = Made { requests: LANES * requests, exposures: LANES * requests * ITEMS * REPEAT };
    // The last answers are out before their exposures are tracked.
    wait_for("every exposure is tracked", LIMIT, || {
        let calls = service.sdk_calls().expect("answers").exposures;
        assert!(calls <= made.exposures as u64, "{calls} of {made:?}");
        (calls == made.exposures as u64).then_some(())
    });
    made
}

/// Waits until nothing is on its way or waits in the join, and the counts stand still.
fn settled(daemon: &Daemon) -> Scrape {
    let mut last = None;
    wait_for("everything is judged", LIMIT, || {
        let scrape = Scrape::fetch(daemon.address()).expect("the daemon answers");
        check_moment(&scrape);
        let received = count(&scrape, "linktracer_received_records_total", &[("probe", "exposure")]);
        let still = last.replace(received) == Some(received);
        (still
            && received == hits(&scrape, "exposure", "submitted")
            && scrape.waiting().expect("is published") == 0)
            .then_some(scrape)
    })
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a counter of whole things")]
fn count(scrape: &Scrape, name: &str, labels: &[(&str, &str)]) -> usize {
    sum(scrape, name, labels) as usize
}

fn hits(scrape: &Scrape, probe: &str, outcome: &str) -> usize {
    count(scrape, "linktracer_kernel_hits_total", &[("probe", probe), ("outcome", outcome)])
}

/// Every identity between what was made and what was judged. Returns what was lost.
#[track_caller]
fn check(name: &str, made: Made, scrape: &Scrape) {
    let losses = ["ring_full", "read_fault", "id_too_long", "out_of_bounds", "targets_full"];
    let lost = |probe| losses.map(|reason| hits(scrape, probe, reason));
    let received = |probe, outcome: &str| {
        count(scrape, "linktracer_received_records_total", &[("probe", probe), ("outcome", outcome)])
    };

    // Kernel: every call of the service is a hit, and every hit is accounted for.
    let [ring_full, others @ ..] = lost("exposure");
    assert_eq!(hits(scrape, "exposure", "hit"), made.exposures, "{name}");
    assert_eq!(hits(scrape, "exposure", "submitted") + ring_full, made.exposures, "{name}");
    assert_eq!(others, [0; 4], "{name}");
    assert!(ring_full > 0, "{name}: nothing was lost, so nothing was tried");
    // Kernel to daemon, and daemon to join.
    assert_eq!(received("exposure", "event"), hits(scrape, "exposure", "submitted"), "{name}");
    let events = |kind| count(scrape, "linktracer_events_total", &[("kind", kind)]);
    assert_eq!(events("exposure"), made.exposures - ring_full, "{name}");
    // Requests: the messages of the service are its answers to us; those to `sdk_calls` carry no id.
    let [requests_full, ..] = lost(SEND);
    let answers = events("request") + received(SEND, "no_request_id") + requests_full;
    assert_eq!(hits(scrape, SEND, "submitted") + requests_full, answers, "{name}");
    let lost_requests = made.requests - events("request");
    assert!(
        lost_requests <= requests_full,
        "{name}: {lost_requests} requests are missing, {requests_full} were lost"
    );
    // Join: every event has exactly one end.
    let links = |outcome| {
        count(scrape, "linktracer_links_total", &[("edge", "request_exposure"), ("outcome", outcome)])
    };
    let duplicates = |kind| count(scrape, "linktracer_duplicates_total", &[("kind", kind)]);
    let ends =
        links("linked") + links("orphan") + links("missing_id") + links("unseen") + duplicates("exposure");
    assert_eq!(ends, events("exposure"), "{name}");
    let requests = |outcome| count(scrape, "linktracer_requests_total", &[("outcome", outcome)]);
    assert_eq!(requests("exposed") + requests("unexposed"), events("request"), "{name}");
    // What is published as lost is what the kernel side lost.
    let published = count(scrape, "linktracer_lost_events_total", &[("reason", "ring_full")]);
    let connects = hits(scrape, "connect", "ring_full");
    assert_eq!(published, ring_full + requests_full + connects, "{name}");

    // No exposure is without its request in truth, whatever the lost ones make it look like.
    let ratio = |bound| {
        sum(scrape, "linktracer_broken_link_ratio", &[("edge", "request_exposure"), ("bound", bound)])
    };
    let [lower, point, upper] = ["lower", "point", "upper"].map(ratio);
    assert!(lower == TRUTH && TRUTH <= point && point <= upper, "{name}: {lower} to {upper}, seen {point}");
    assert_eq!(sum(scrape, "linktracer_window_trustworthy", &[("service", "flood")]), 0.0, "{name}");

    println!(
        "| {name} | {} | {} | {} | {} | {ring_full} | {requests_full} | {:.1} % | {:.1} % to {:.1} % | {:.1} % |",
        made.exposures,
        events("exposure"),
        made.requests,
        events("request"),
        100.0 * point,
        100.0 * lower,
        100.0 * upper,
        100.0 * TRUTH,
    );
}

#[test]
fn what_is_lost_under_overload_is_counted_to_the_event() {
    println!(
        "| run | exposures made | received | requests made | received | exposures lost | messages lost | broken as seen | bounds | truth |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    let fixture = Fixture::unpack().expect("unpacks");
    let collector = Collector::start().expect("starts");
    for (name, stopped, pause_ms) in
        [("a producer faster than the daemon", false, 0), ("a daemon that is stopped for 5 s", true, 100)]
    {
        let daemon = Daemon::start(fixture.root(), &config(&fixture));
        let service =
            ServiceProcess::start(&fixture, Target::Main, collector.address(), SEND).expect("starts");
        let pause = Duration::from_millis(pause_ms);
        let made = thread::scope(|scope| {
            let flood = scope.spawn(|| flood(&service, 50, pause));
            if stopped {
                scope.spawn(|| {
                    thread::sleep(Duration::from_secs(1));
                    daemon.signal(Signal::STOP);
                    thread::sleep(Duration::from_secs(5));
                    daemon.signal(Signal::CONT);
                });
            }
            while !flood.is_finished() {
                check_moment(&daemon.scrape());
            }
            flood.join().expect("does not panic")
        });
        check(name, made, &settled(&daemon));
        drop(service);
        daemon.finish();
    }
}
