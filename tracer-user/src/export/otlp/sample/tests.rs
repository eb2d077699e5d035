//! What is told of events that went through the real join, as the daemon has it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, mpsc::Receiver},
};

use prometheus::{IntCounterVec, Opts};

use super::{super::Tap, MAX_CLICKS, MAX_EVENTS, Sample, Triple};
use crate::{
    config::OtlpSettings,
    domain::{Edge, Event, Kind, Labels},
    export::otlp,
    join::{Join, JoinConfig},
};

const MS: u64 = 1_000_000;
/// A time from which every window reaches back to after the epoch.
const START_NS: u64 = 1_700_000_000_000_000_000;

fn event(kind: Kind, at_ms: u64, request_id: &str, item_id: &str) -> Event {
    Event {
        kind,
        timestamp_ns: START_NS + at_ms * MS,
        source: "node-a".into(),
        pid: 7,
        tid: 7,
        labels: Arc::new(Labels { service: "web".into(), ..Labels::default() }),
        request_id: request_id.into(),
        item_id: item_id.into(),
        peer: None,
    }
}

/// A request `r`, or an exposure or a click of it.
fn of_r(kind: Kind, at_ms: u64, item_id: &str) -> Event {
    event(kind, at_ms, "r", item_id)
}

fn settings(broken_per_second: u32, complete_per_second: u32) -> OtlpSettings {
    OtlpSettings { endpoint: "http://[::1]".into(), show_ids: true, broken_per_second, complete_per_second }
}

struct Daemon {
    join: Join,
    tap: Tap,
    counts: IntCounterVec,
    triples: Receiver<Triple>,
}

impl Daemon {
    fn new(settings: &OtlpSettings) -> Self {
        let counts = IntCounterVec::new(Opts::new("triples", "-"), &["outcome"]).expect("a name");
        let (queue, triples) = otlp::queue();
        let mut tap = Tap::new(settings);
        tap.open(queue, counts.clone());
        Self { join: Join::new(JoinConfig::default()), tap, counts, triples }
    }

    fn take(&mut self, events: impl IntoIterator<Item = Event>) {
        let mut out = Vec::new();
        for event in events {
            self.tap.note(&event);
            self.join.push(event, &mut out);
            out.drain(..).for_each(|outcome| self.tap.judge(&outcome));
        }
    }

    /// Nothing older than this comes any more.
    fn heartbeat(&mut self, at_ms: u64) {
        let mut out = Vec::new();
        self.join.heartbeat(&"node-a".into(), START_NS + at_ms * MS, &mut out);
        out.iter().for_each(|outcome| self.tap.judge(outcome));
    }

    fn finish(&mut self) {
        let mut out = Vec::new();
        self.join.finish(&mut out);
        out.iter().for_each(|outcome| self.tap.judge(outcome));
    }

    fn counts(&self) -> BTreeMap<&'static str, u64> {
        let count = |fate: otlp::Fate| (fate.name(), self.counts.with_label_values(&[fate.name()]).get());
        otlp::Fate::ALL.into_iter().map(count).filter(|(_, count)| *count > 0).collect()
    }
}

/// A triple in short: the click's time, what broke it, the kind and time of what it leads to, and what is told with it:
/// kind, time, reason, time of the request.
type Short = (
    u64,
    Option<(Edge, &'static str)>,
    Option<(Kind, u64)>,
    Vec<(Kind, u64, Option<&'static str>, Option<u64>)>,
);

fn short(triple: &Triple) -> Short {
    let ms = |timestamp_ns: u64| (timestamp_ns - START_NS) / MS;
    let told = triple.told.iter().map(|told| {
        let request = told.request.as_ref().map(|part| ms(part.timestamp_ns));
        (told.part.kind, ms(told.part.timestamp_ns), told.broken, request)
    });
    let leads_to = triple.leads_to.as_ref().map(|part| (part.kind, ms(part.timestamp_ns)));
    (ms(triple.click.timestamp_ns), triple.broken, leads_to, told.collect())
}

#[track_caller]
fn check(events: impl IntoIterator<Item = Event>, expected: &[Short], counts: &[(&'static str, u64)]) {
    let mut daemon = Daemon::new(&settings(1000, 1000));
    daemon.take(events);
    daemon.finish();
    let told: Vec<Short> = daemon.triples.try_iter().map(|triple| short(&triple)).collect();
    assert_eq!(told, expected);
    assert_eq!(daemon.counts(), counts.iter().copied().collect());
}

use Kind::{Click, Exposure, Request};

const ORPHAN_CLICK: Option<(Edge, &str)> = Some((Edge::ExposureClick, "orphan"));

#[test]
fn a_complete_triple_is_told_whole_and_its_request_only_once() {
    check(
        [
            of_r(Request, 0, ""),
            of_r(Exposure, 100, "a"),
            of_r(Exposure, 110, "b"),
            of_r(Click, 200, "b"),
            of_r(Click, 300, "a"),
        ],
        &[
            (
                200,
                None,
                Some((Exposure, 110)),
                vec![(Request, 0, None, None), (Exposure, 110, None, Some(0))],
            ),
            (300, None, Some((Exposure, 100)), vec![(Exposure, 100, None, Some(0))]),
        ],
        &[],
    );
}

#[test]
fn a_click_leads_to_the_last_time_its_item_was_shown_and_that_to_the_request_of_the_first() {
    check(
        [
            of_r(Request, 0, ""),
            of_r(Request, 50, ""),
            of_r(Exposure, 100, "a"),
            of_r(Exposure, 150, "a"),
            of_r(Click, 200, "a"),
            of_r(Click, 250, "a"),
        ],
        &[(
            200,
            None,
            Some((Exposure, 150)),
            vec![(Request, 50, None, None), (Exposure, 150, None, Some(50))],
        )],
        &[],
    );
}

#[test]
fn clocks_that_disagree_within_the_tolerance_tear_nothing_apart() {
    check(
        [of_r(Click, 0, "a"), of_r(Exposure, 50, "a"), of_r(Request, 100, "")],
        &[(0, None, Some((Exposure, 50)), vec![(Request, 100, None, None), (Exposure, 50, None, Some(100))])],
        &[],
    );
}

#[test]
fn a_click_without_its_exposure_leads_to_the_request() {
    check(
        [of_r(Request, 0, ""), of_r(Click, 200, "a")],
        &[(200, ORPHAN_CLICK, Some((Request, 0)), vec![(Request, 0, None, None)])],
        &[],
    );
    check([of_r(Click, 200, "a")], &[(200, ORPHAN_CLICK, None, vec![])], &[]);
}

#[test]
fn a_mismatch_comes_with_what_was_shown_instead() {
    check(
        [of_r(Request, 0, ""), of_r(Exposure, 100, "a"), of_r(Click, 200, "b")],
        &[(
            200,
            Some((Edge::ExposureClick, "mismatch")),
            Some((Request, 0)),
            vec![(Request, 0, None, None), (Exposure, 100, None, Some(0))],
        )],
        &[],
    );
}

#[test]
fn an_exposure_without_its_request_is_told_as_broken() {
    check(
        [of_r(Exposure, 100, "a"), of_r(Click, 200, "a")],
        &[(
            200,
            Some((Edge::RequestExposure, "orphan")),
            Some((Exposure, 100)),
            vec![(Exposure, 100, Some("orphan"), None)],
        )],
        &[],
    );
}

#[test]
fn a_click_without_an_id_is_told_alone_or_with_the_request_that_it_names() {
    let missing = Some((Edge::ExposureClick, "missing_id"));
    check(
        [
            event(Request, 0, "", ""),
            event(Exposure, 100, "", "a"),
            event(Click, 200, "", "a"),
            of_r(Request, 300, ""),
            of_r(Click, 400, ""),
        ],
        &[
            (200, missing, None, vec![]),
            (400, missing, Some((Request, 300)), vec![(Request, 300, None, None)]),
        ],
        &[],
    );
}

#[test]
fn what_cannot_be_judged_is_neither_told_nor_counted() {
    let mut daemon = Daemon::new(&settings(1000, 1000));
    for kind in [Request, Exposure] {
        daemon.join.set_horizon(kind, START_NS);
    }
    daemon.take([of_r(Exposure, 100, "a"), of_r(Click, 200, "a"), of_r(Click, 300, "b")]);
    daemon.finish();
    assert_eq!(daemon.triples.try_iter().count(), 0);
    assert_eq!(daemon.counts(), BTreeMap::new());
    assert!(daemon.tap.sample.clicks.is_empty());
}

#[test]
fn two_clicks_of_one_nanosecond_are_not_taken_for_each_other() {
    check([event(Click, 200, "r", "a"), event(Click, 200, "s", "a")], &[], &[("not_sampled", 2)]);
    // Of two exposures, the click's own is not known for sure, and so is what became of it.
    check(
        [
            event(Request, 0, "r", ""),
            event(Exposure, 100, "r", "a"),
            event(Exposure, 100, "s", "a"),
            event(Click, 200, "r", "a"),
        ],
        &[],
        &[("not_sampled", 1)],
    );
}

#[test]
fn what_was_judged_before_a_restart_is_not_told_again_and_its_events_are_known() {
    let mut daemon = Daemon::new(&settings(1000, 1000));
    let out = daemon.tap.out.take().expect("is open");
    daemon.take([
        of_r(Request, 0, ""),
        of_r(Exposure, 100, "a"),
        of_r(Click, 200, "a"),
        of_r(Exposure, 5000, "b"),
    ]);
    daemon.heartbeat(7100);
    daemon.tap.open(out.0, out.1);
    daemon.take([of_r(Click, 8000, "b")]);
    daemon.finish();
    let told: Vec<Short> = daemon.triples.try_iter().map(|triple| short(&triple)).collect();
    let parts = vec![(Request, 0, None, None), (Exposure, 5000, None, Some(0))];
    assert_eq!(told, [(8000, None, Some((Exposure, 5000)), parts)]);
    assert_eq!(daemon.counts(), BTreeMap::new());
}

#[test]
fn each_triple_has_one_fate_and_broken_ones_have_room_of_their_own() {
    let mut daemon = Daemon::new(&settings(3, 2));
    // Ten complete and ten broken within a tenth of a second.
    let events = (0..10_u64).flat_map(|number| {
        let id = format!("r-{number}");
        let at_ms = number * 10;
        [
            event(Request, at_ms, &id, ""),
            event(Exposure, at_ms + 1, &id, "a"),
            event(Click, at_ms + 2, &id, "a"),
            event(Click, at_ms + 3, &id, "b"),
        ]
    });
    daemon.take(events);
    daemon.finish();
    let broken = daemon.triples.try_iter().map(|triple| triple.broken.is_some());
    assert_eq!(broken.fold((0, 0), |(yes, no), is| if is { (yes + 1, no) } else { (yes, no + 1) }), (3, 2));
    assert_eq!(daemon.counts(), BTreeMap::from([("over_limit", 15)]));
}

#[test]
fn a_queue_that_nobody_empties_stops_nobody() {
    const CLICKS: u64 = 5000;
    let mut daemon = Daemon::new(&settings(u32::MAX, 0));
    daemon.take((0..CLICKS).map(|number| event(Click, number, &format!("r-{number}"), "a")));
    daemon.finish();
    let queued = daemon.triples.try_iter().count() as u64;
    assert_eq!(queued, otlp::QUEUE_LEN as u64);
    assert_eq!(daemon.counts(), BTreeMap::from([("queue_full", CLICKS - queued)]));
}

#[test]
fn however_much_comes_little_is_kept_of_whole_request_ids_and_every_broken_click_is_told() {
    const IDS: u64 = 200_000;
    let mut daemon = Daemon::new(&settings(u32::MAX, u32::MAX));
    let (mut whole, mut broken) = (0, 0);
    let mut count = |daemon: &Daemon| {
        for triple in daemon.triples.try_iter() {
            if triple.broken.is_some() {
                broken += 1;
            } else {
                whole += 1;
                assert_eq!(triple.told.len(), 2, "{triple:?}");
            }
        }
    };
    for number in 0..IDS {
        let id = format!("r-{number}");
        let at_ms = number * 3;
        daemon.take([event(Request, at_ms, &id, ""), event(Exposure, at_ms + 1, &id, "a")]);
        let item_id = if number % 100 == 0 { "b" } else { "a" };
        daemon.take([event(Click, at_ms + 2, &id, item_id)]);
        count(&daemon);
        let Sample { clicks, records, by_age, exposures, events, .. } = &daemon.tap.sample;
        assert!(*events <= MAX_EVENTS && clicks.len() <= MAX_CLICKS);
        assert!(exposures.len() <= *events && by_age.len() == records.len() && records.len() <= *events);
    }
    daemon.finish();
    count(&daemon);
    assert_eq!(broken, IDS / 100);
    let rarity = daemon.tap.sample.rarity;
    assert!(rarity >= 2, "600 s, of which 300 s should fit: {rarity}");
    assert!(whole > 0, "some were kept whole");
    assert_eq!(daemon.counts(), BTreeMap::from([("not_sampled", IDS - IDS / 100 - whole)]));
    // What is kept is all that came of its id.
    let sample = &daemon.tap.sample;
    let parts: BTreeSet<usize> = sample.records.values().map(|record| record.events.len()).collect();
    assert_eq!(parts, BTreeSet::from([2]));
    let counted: usize = sample.records.values().map(|record| record.events.len()).sum();
    assert_eq!(counted, sample.events);

    // Calmer times, and more of them is kept again.
    let later_ms = IDS * 3 + 3_600_000;
    for number in 0..10 * 3_000 {
        let id = format!("later-{number}");
        daemon.take([event(Request, later_ms + number * 100, &id, "")]);
    }
    assert_eq!(daemon.tap.sample.rarity, 0, "3,000 in 300 s fit");
}

#[test]
fn one_request_id_that_never_ends_takes_no_more_than_its_share() {
    let mut sample = Sample::default();
    for number in 0..1000 {
        sample.note(&of_r(Exposure, number, "a"));
    }
    assert!(sample.events < 100, "{}", sample.events);
}
