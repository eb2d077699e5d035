//! Processes and ids that come and go for a long time: counts stay exact, memory and file descriptors flat.
//!
//! `cargo xtask soak --minutes N`; without it, as one of many tests, a quarter of a minute.

#![expect(clippy::print_stdout, reason = "its figures are a table of docs/performance.md")]

use std::{
    env, fs,
    time::{Duration, Instant},
};

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

const MINUTES_VARIABLE: &str = "LINKTRACER_SOAK_MINUTES";
const SHORT: Duration = Duration::from_secs(15);
const LIMIT: Duration = Duration::from_secs(120);

/// Requests of one process, each with a click.
const REQUESTS: u64 = 200;
const ITEMS: &str = "a,b,c,d,e,f,g,h,i,j";
const EXPOSURES: u64 = 10 * REQUESTS;

/// How much memory may grow from the second quarter to the last, in percent.
const GROWTH_PERCENT: u64 = 5;

fn config(fixture: &Fixture, collector: &Collector) -> String {
    let args = "\"(request_id cstr, item_id cstr)\"";
    format!(
        "ring_buffer_size: 64MiB\nservices:\n  - name: soak\n    match: {{ exe: {exe} }}\n    \
         request: {{ id: {{ header: X-Request-Id }} }}\n    \
         exposure: {{ library: {library}, symbol: trackExposure, args: {args} }}\n    \
         click: {{ library: {library}, symbol: trackClick, args: {args} }}\n    report: {{ to: [\"{to}\"] }}\n\
         join: {{ exposure_window: 2s, click_window: 2s, report_window: 1s, lateness: 500ms }}\n",
        exe = fixture.service().display(),
        library = fixture.library().display(),
        to = collector.address(),
    )
}

/// What the daemon takes.
#[derive(Debug, Clone, Copy)]
struct Size {
    resident_kib: u64,
    descriptors: usize,
}

impl Size {
    fn of(pid: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("every process has it");
        Self {
            resident_kib: line.trim().trim_end_matches(" kB").parse().expect("a number"),
            descriptors: fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").count(),
        }
    }
}

/// The most memory of some samples, in KiB.
fn most(samples: &[Size]) -> u64 {
    samples.iter().map(|size| size.resident_kib).max().unwrap_or_default()
}

/// One process from its start to its end.
fn live(fixture: &Fixture, collector: &Collector, number: u64) {
    let sends = ["write", "writev", "sendto", "sendmsg", "sendmmsg"];
    let send = sends[usize::try_from(number).expect("is small") % sends.len()];
    let service =
        ServiceProcess::start(fixture, Target::Main, collector.address(), send).expect("the service starts");
    let mut connection = Connection::open(service.address()).expect("connects");
    for request in 0..REQUESTS {
        for path in [
            format!("/recommend?id=p{number}-{request}&items={ITEMS}"),
            format!("/click?id=p{number}-{request}&item=c"),
        ] {
            assert!(connection.get(&path).expect("answers").status < 300);
        }
    }
}

#[test]
fn processes_and_ids_come_and_go_and_nothing_grows() {
    let minutes = env::var(MINUTES_VARIABLE).ok().map(|minutes| minutes.parse::<u64>().expect("a number"));
    let duration = minutes.map_or(SHORT, |minutes| Duration::from_secs(60 * minutes));
    let fixture = Fixture::unpack().expect("unpacks");
    let collector = Collector::start().expect("starts");
    let daemon = Daemon::start(fixture.root(), &config(&fixture, &collector));
    let (started, mut processes, mut samples) = (Instant::now(), 0, Vec::new());
    while started.elapsed() < duration {
        live(&fixture, &collector, processes);
        processes += 1;
        samples.push(Size::of(daemon.id()));
    }
    let scrape = wait_for("everything is judged", LIMIT, || {
        let scrape = Scrape::fetch(daemon.address()).expect("the daemon answers");
        let clicks = sum(&scrape, "linktracer_events_total", &[("kind", "click")]);
        (clicks == (processes * REQUESTS) as f64 && scrape.waiting().expect("is published") == 0)
            .then_some(scrape)
    });
    let links =
        |edge, outcome| sum(&scrape, "linktracer_links_total", &[("edge", edge), ("outcome", outcome)]);
    assert_eq!(links("request_exposure", "linked"), (processes * EXPOSURES) as f64);
    assert_eq!(links("exposure_click", "linked"), (processes * REQUESTS) as f64);
    assert_eq!(links("click_report", "reported"), (processes * REQUESTS) as f64);
    assert_eq!(links("triple", "complete"), (processes * REQUESTS) as f64);
    assert_eq!(sum(&scrape, "linktracer_lost_events_total", &[]), 0.0, "nothing was lost");
    let moves = sum(&scrape, "linktracer_coverage_horizon_moves_total", &[]);
    assert_eq!(moves, 0.0, "nothing was missed\n{}", daemon.log());

    let (first, last) = (samples[0], *samples.last().expect("at least one"));
    let quarter = samples.len() / 4;
    let (early, late) = (most(&samples[quarter..2 * quarter.max(1)]), most(&samples[3 * quarter..]));
    println!("| minutes | processes | events | memory in the second quarter | in the last | descriptors |");
    println!("|---:|---:|---:|---:|---:|---:|");
    println!(
        "| {:.1} | {processes} | {} | {:.1} MiB | {:.1} MiB | {} |",
        started.elapsed().as_secs_f64() / 60.0,
        sum(&scrape, "linktracer_events_total", &[]),
        early as f64 / 1024.0,
        late as f64 / 1024.0,
        last.descriptors,
    );
    assert_eq!(last.descriptors, first.descriptors, "file descriptors: {samples:?}");
    // In a short run the tables are still being filled.
    if minutes.is_some() {
        assert!(late * 100 <= early * (100 + GROWTH_PERCENT), "memory grew: {samples:?}");
    }
    daemon.finish();
}
