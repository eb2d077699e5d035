//! Each rule of docs/semantics.md by example, its boundaries included.

mod clicks;
mod doubt;
mod exposures;
mod horizon;
mod late_events;
mod memory;
mod reports;
mod requests;
mod snapshot;
mod ties;
mod watermark;

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Join, JoinConfig, Reports};
use crate::domain::{Counts, Event, Kind, Labels, Outcome};

const EXPOSURE_WINDOW: u64 = 100;
const CLICK_WINDOW: u64 = 200;
const REPORT_WINDOW: u64 = 30;
const SKEW: u64 = 10;
/// A time from which every window reaches back to after the epoch.
const T: u64 = 10_000;

fn config() -> JoinConfig {
    JoinConfig {
        exposure_window_ns: EXPOSURE_WINDOW,
        click_window_ns: CLICK_WINDOW,
        report_window_ns: REPORT_WINDOW,
        lateness_ns: 0,
        skew_ns: SKEW,
        idle_timeout_ns: u64::MAX,
        reports: Reports::none(),
        memory_limit_bytes: u64::MAX,
    }
}

fn reporting() -> JoinConfig {
    JoinConfig { reports: Reports::All, ..config() }
}

fn event(kind: Kind, timestamp_ns: u64, request_id: &str, item_id: &str) -> Event {
    Event {
        kind,
        timestamp_ns,
        source: "node-a".into(),
        pid: 7,
        tid: 7,
        labels: Arc::new(Labels { service: "web".into(), ..Labels::default() }),
        request_id: request_id.into(),
        item_id: item_id.into(),
        peer: None,
    }
}

fn request(timestamp_ns: u64) -> Event {
    event(Kind::Request, timestamp_ns, "r", "")
}

fn exposure(timestamp_ns: u64) -> Event {
    event(Kind::Exposure, timestamp_ns, "r", "i")
}

fn click(timestamp_ns: u64) -> Event {
    event(Kind::Click, timestamp_ns, "r", "i")
}

fn report(timestamp_ns: u64) -> Event {
    event(Kind::Report, timestamp_ns, "", "")
}

fn other_item(event: Event) -> Event {
    Event { item_id: "other".into(), ..event }
}

fn on(source: &str, event: Event) -> Event {
    Event { source: source.into(), ..event }
}

/// What an outcome says, without its labels: `exposure_click linked 10`.
fn words(outcome: &Outcome) -> Option<String> {
    Some(match outcome {
        Outcome::Received { .. } => return None,
        Outcome::Duplicate { kind, .. } => format!("{} duplicate", kind.name()),
        Outcome::Late { kind, .. } => format!("{} late", kind.name()),
        Outcome::Evicted { kind, .. } => format!("{} evicted", kind.name()),
        Outcome::LateWithoutOutcome { kind, .. } => format!("{} without outcome", kind.name()),
        Outcome::Request { outcome, .. } => format!("request {}", outcome.name()),
        Outcome::Link { edge, outcome, delay_ns: Some(delay_ns), .. } => {
            format!("{} {} {delay_ns}", edge.name(), outcome.name())
        }
        Outcome::Link { edge, outcome, delay_ns: None, .. } => format!("{} {}", edge.name(), outcome.name()),
        Outcome::Triple { outcome, .. } => format!("triple {}", outcome.name()),
    })
}

fn sorted(mut words: Vec<String>) -> Vec<String> {
    words.sort();
    words
}

/// Pushes the events in this order to this join and lets every window run out: `expected` are the
/// outcomes, in any order, but for the one per event that says it was received.
#[track_caller]
fn check_join<const EVENTS: usize>(mut join: Join, events: [Event; EVENTS], expected: &[&str]) {
    let mut outcomes = Vec::new();
    for event in events {
        join.push(event, &mut outcomes);
    }
    join.finish(&mut outcomes);
    assert!(join.pending().is_empty(), "something waits after the end: {:?}", join.pending());
    let found = sorted(outcomes.iter().filter_map(words).collect());
    assert_eq!(found, sorted(expected.iter().map(|words| (*words).to_owned()).collect()));
}

#[track_caller]
fn check<const EVENTS: usize>(events: [Event; EVENTS], expected: &[&str]) {
    check_join(Join::new(config()), events, expected);
}

#[track_caller]
fn check_reports<const EVENTS: usize>(events: [Event; EVENTS], expected: &[&str]) {
    check_join(Join::new(reporting()), events, expected);
}

#[test]
fn what_waits_is_counted_under_the_table_it_waits_in() {
    let mut join = Join::new(JoinConfig { lateness_ns: 5, reports: Reports::All, ..config() });
    let mut outcomes = Vec::new();
    for event in [request(T), other_item(exposure(T)), exposure(T + 1), click(T + 1), report(T + 6)] {
        join.push(
            Event { request_id: event.request_id.replace('r', "asked").into(), ..event },
            &mut outcomes,
        );
    }
    for event in [exposure(T + 2), click(T + 2), other_item(click(T + 2)), click(T + 7)] {
        join.push(event, &mut outcomes);
    }
    join.push(event(Kind::Request, T, "unanswered", ""), &mut outcomes);
    join.heartbeat(&"node-a".into(), T + 10, &mut outcomes);
    let tables = [
        ("reorder_buffer", 2),
        ("requests", 1),
        ("exposures", 1),
        ("clicks", 1),
        ("click_reports", 3),
        ("triples", 1),
        ("request_ids", 3),
    ];
    assert_eq!(join.pending().tables(), tables);
}
