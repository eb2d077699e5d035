//! The bounds of the broken-link ratio against the truth: random histories, of which random events are
//! lost before the join sees them. What the ratio would have been without that has to be between them.
//!
//! `PROPTEST_CASES` sets how many histories are tried.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use tests::reference::{self, Input};
use tracer_user::domain::{Edge, Event, Kind, Labels, Outcome};
use tracer_user::join::{Join, JoinConfig, Reports};
use tracer_user::slo::{BrokenLinks, Losses, Ratio, Reach, Waiting};

const BASE_NS: u64 = 1_000_000;
const SOURCE: &str = "node-a";

fn runner_config() -> ProptestConfig {
    let defaults = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => defaults,
        None => ProptestConfig { cases: 10_000, ..defaults },
    }
}

/// Windows from click windows of at least `click_window_ns`.
fn join_configs(click_window_ns: u64) -> impl Strategy<Value = JoinConfig> {
    let windows = (0..=14_u64, click_window_ns..=click_window_ns + 14, 0..=8_u64, 0..=6_u64, 0..=4_u64);
    windows.prop_map(|(exposure_window_ns, click_window_ns, report_window_ns, lateness_ns, skew_ns)| {
        JoinConfig {
            exposure_window_ns,
            click_window_ns,
            report_window_ns,
            lateness_ns,
            skew_ns,
            reports: Reports::All,
            ..JoinConfig::default()
        }
    })
}

fn reach(config: &JoinConfig) -> Reach {
    Reach {
        exposure_window_ns: config.exposure_window_ns,
        click_window_ns: config.click_window_ns,
        report_window_ns: config.report_window_ns,
        skew_ns: config.skew_ns,
    }
}

fn ids() -> impl Strategy<Value = &'static str> {
    prop_oneof![1 => Just(""), 8 => Just("a"), 4 => Just("b"), 2 => Just("c")]
}

/// An event, and whether it is lost.
fn events(span_ns: u64) -> impl Strategy<Value = (Event, bool)> {
    let kinds = prop_oneof![
        3 => Just(Kind::Request),
        4 => Just(Kind::Exposure),
        4 => Just(Kind::Click),
        1 => Just(Kind::Report),
    ];
    let services = prop_oneof![Just("web"), Just("app")];
    (kinds, 0..=span_ns, 1..=2_u32, services, ids(), ids(), prop::bool::weighted(0.15)).prop_map(
        |(kind, offset_ns, pid, service, request_id, item_id, is_lost)| {
            let event = Event {
                kind,
                timestamp_ns: BASE_NS + offset_ns,
                source: SOURCE.into(),
                pid,
                tid: pid,
                labels: Arc::new(Labels { service: service.into(), ..Labels::default() }),
                request_id: if kind == Kind::Report { "".into() } else { request_id.into() },
                item_id: if matches!(kind, Kind::Exposure | Kind::Click) {
                    item_id.into()
                } else {
                    "".into()
                },
                peer: None,
            };
            (event, is_lost)
        },
    )
}

/// In the order of time, so that none is late.
fn histories(span_ns: u64, most: usize) -> impl Strategy<Value = Vec<(Event, bool)>> {
    vec(events(span_ns), 0..most).prop_map(|mut events| {
        events.sort_by_key(|(event, _)| (event.timestamp_ns, event.kind));
        events
    })
}

fn losses<'a>(lost: impl Iterator<Item = &'a Event>) -> Losses {
    let mut losses = Losses::default();
    for event in lost {
        match event.kind {
            Kind::Request => losses.requests += 1,
            Kind::Exposure => losses.exposures += 1,
            Kind::Click => losses.clicks += 1,
            Kind::Report => losses.reports += 1,
        }
    }
    losses
}

type Ratios = BTreeMap<(Edge, Box<str>), Ratio>;

fn by_key(ratios: Vec<Ratio>) -> Ratios {
    ratios.into_iter().map(|ratio| ((ratio.edge, ratio.labels.service.clone()), ratio)).collect()
}

/// Every true ratio is between the bounds that were published.
fn check(published: &Ratios, truth: &Ratios) -> Result<(), TestCaseError> {
    for (key, truth) in truth {
        let Some(ratio) = truth.tally.ratio() else { continue };
        // Where nothing was judged, nothing is said.
        let Some((published, bounds)) = published.get(key).and_then(|found| Some((found, found.bounds?)))
        else {
            continue;
        };
        prop_assert!(
            bounds.lower <= ratio && ratio <= bounds.upper,
            "{key:?}: {ratio} ({:?}) is not within {bounds:?} ({:?})",
            truth.tally,
            published.tally
        );
    }
    Ok(())
}

/// One join with its window.
struct Side {
    join: Join,
    links: BrokenLinks,
    outcomes: Vec<Outcome>,
}

impl Side {
    fn new(config: &JoinConfig, window_ns: u64) -> Self {
        let links = BrokenLinks::new(window_ns, reach(config));
        Self { join: Join::new(config.clone()), links, outcomes: Vec::new() }
    }

    /// Everything up to this time was handed in; the ratios of the window up to it.
    fn publish(&mut self, now_ns: u64) -> Ratios {
        self.join.heartbeat(&SOURCE.into(), now_ns, &mut self.outcomes);
        self.outcomes.drain(..).for_each(|outcome| self.links.count(&outcome));
        let pending = self.join.pending();
        let waiting = Waiting {
            exposures: pending.exposures,
            clicks: pending.clicks,
            click_reports: pending.click_reports,
            triples: pending.triples,
        };
        by_key(self.links.ratios(now_ns, &waiting))
    }
}

proptest! {
    #![proptest_config(runner_config())]

    /// Whole histories, judged to the end: every way in which a lost event can change links, repeated
    /// exposures and clicks included. The truth is that of the reference.
    #[test]
    fn the_truth_is_within_the_bounds(config in join_configs(0), history in histories(60, 60)) {
        let all: Vec<Input> = history.iter().map(|(event, _)| Input::Event(event.clone())).collect();
        let mut truth = BrokenLinks::new(120, reach(&config));
        reference::join(&config, &all).iter().for_each(|outcome| truth.count(outcome));

        let (mut join, mut links) = (Join::new(config.clone()), BrokenLinks::new(120, reach(&config)));
        let mut outcomes = Vec::new();
        for (event, _) in history.iter().filter(|(_, is_lost)| !is_lost) {
            join.push(event.clone(), &mut outcomes);
        }
        join.finish(&mut outcomes);
        outcomes.iter().for_each(|outcome| links.count(outcome));
        let lost = history.iter().filter(|(_, is_lost)| *is_lost).map(|(event, _)| event);
        links.lose(BASE_NS, BASE_NS + 60, losses(lost));
        let nothing_waits = Waiting::default();
        let published = by_key(links.ratios(BASE_NS + 60, &nothing_waits));
        check(&published, &by_key(truth.ratios(BASE_NS + 60, &nothing_waits)))?;
    }

    /// A window that slides over a long history, published again and again: a loss counts as long as it
    /// can change anything that is in the window, and what waits is taken into account. Items are new in
    /// each click window: nothing is repeated for longer.
    #[test]
    fn the_truth_is_within_the_bounds_at_any_time(
        config in join_configs(10),
        window_slices in 1..=3_u64,
        history in histories(300, 150),
    ) {
        let window_ns = window_slices * 60;
        let (mut truth, mut seen) = (Side::new(&config, window_ns), Side::new(&config, window_ns));
        let mut history = history.into_iter().map(|(mut event, is_lost)| {
            if !event.item_id.is_empty() {
                let epoch = event.timestamp_ns / config.click_window_ns;
                event.item_id = format!("{}-{epoch}", event.item_id).into();
            }
            (event, is_lost)
        }).peekable();
        for now_ns in (BASE_NS..BASE_NS + 800).step_by(7) {
            let mut lost = Vec::new();
            while let Some((event, is_lost)) = history.next_if(|(event, _)| event.timestamp_ns <= now_ns) {
                truth.join.push(event.clone(), &mut truth.outcomes);
                if is_lost {
                    lost.push(event);
                } else {
                    seen.join.push(event, &mut seen.outcomes);
                }
            }
            seen.links.lose(now_ns - 7, now_ns, losses(lost.iter()));
            check(&seen.publish(now_ns), &truth.publish(now_ns))?;
        }
        prop_assert!(!seen.links.is_doubtful(BASE_NS + 800), "a loss is never forgotten");
    }
}
