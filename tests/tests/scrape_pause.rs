//! How long the thread that counts stands still for a scrape, by the number of series.
//!
//! `cargo test --profile checked -p tests --test scrape_pause -- --nocapture` prints the table of docs/performance.md.
#![expect(clippy::print_stdout, reason = "the table, for who asks with --nocapture")]

use std::{
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use tracer_user::{
    domain::{Edge, Labels, LinkOutcome, Outcome, Subject},
    export::scrape::Scrapes,
    telemetry::Metrics,
};

const OUTCOMES: [LinkOutcome; 4] =
    [LinkOutcome::Linked, LinkOutcome::Orphan, LinkOutcome::MissingId, LinkOutcome::Unseen];

/// Metrics of a service of so many releases, each with so many groups, of which every link has had every outcome.
fn metrics(releases: usize, groups: usize) -> Metrics {
    let metrics = Metrics::new().expect("the names are valid");
    for (release, group) in (0..releases).flat_map(|release| (0..groups).map(move |group| (release, group))) {
        let release = format!("v1.20.{release}").into();
        let labels = Labels { service: "recommend".into(), release, group: format!("group-{group}").into() };
        let labels = Arc::new(labels);
        for (edge, outcome) in Edge::ALL.into_iter().flat_map(|edge| OUTCOMES.map(|outcome| (edge, outcome)))
        {
            let subject = Subject { timestamp_ns: 1, causes: [0, 0] };
            let labels = Arc::clone(&labels);
            metrics.count(&Outcome::Link { edge, outcome, subject, delay_ns: Some(1_000_000_000), labels });
        }
    }
    metrics
}

/// How many series there are, and the shortest of some answers.
fn measure(metrics: &Metrics) -> (usize, Duration) {
    let scrapes = Scrapes::default();
    let mut shortest = Duration::MAX;
    let mut series = 0;
    for _ in 0..10 {
        let mut ask = pin!(scrapes.ask());
        let mut context = Context::from_waker(Waker::noop());
        assert!(ask.as_mut().poll(&mut context).is_pending());
        let begun = Instant::now();
        scrapes.take().expect("one asks").answer(&metrics.registry);
        shortest = shortest.min(begun.elapsed());
        let Poll::Ready(Some(figures)) = ask.as_mut().poll(&mut context) else { panic!("it is answered") };
        series = figures.iter().map(|family| family.get_metric().len()).sum();
    }
    (series, shortest)
}

#[test]
fn a_scrape_has_every_series_and_its_pause_is_measured() {
    println!("| releases | groups each | series | pause |\n|---:|---:|---:|---:|");
    let (without, _) = measure(&metrics(0, 0));
    for (releases, groups) in [(2, 2), (8, 4), (32, 4), (32, 32)] {
        let (series, pause) = measure(&metrics(releases, groups));
        let links = releases * groups * Edge::ALL.len() * OUTCOMES.len();
        // And the histogram of delays.
        assert_eq!(series - without, links + releases * groups);
        println!("| {releases} | {groups} | {series} | {:.2} ms |", 1e3 * pause.as_secs_f64());
    }
}
