//! The join against a second, naive implementation of docs/semantics.md, over random histories.
//!
//! `PROPTEST_CASES` sets how many histories are tried; without it there are as many as CI needs, and with
//! `cargo xtask test --long` twenty times as many. A failure prints the smallest history that still fails.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::{Union, ValueTree as _};
use proptest::test_runner::TestRunner;
use tests::reference::{self, Input};
use tracer_user::domain::{
    Counts, Edge, Event, Kind, Labels, LinkOutcome, Outcome, RequestOutcome, TripleOutcome,
};
use tracer_user::join::{Join, JoinConfig, Reports, Snapshot, SnapshotSegment};

/// Histories last this long. It is short beside their number of events, so that events meet
/// exactly at the ends of windows again and again.
const SPAN_NS: u64 = 60;

/// Where histories begin that are neither at the beginning of time nor at its end.
const START_NS: u64 = 1_700_000_000_000_000_000;

/// In slow motion a history lasts a minute: longer than times are kept to the nanosecond everywhere.
const SLOW: u64 = 1_000_000_000;

/// Or 100 minutes: longer than what is packed can count from its base.
const VERY_SLOW: u64 = 100_000_000_000;

fn runner_config() -> ProptestConfig {
    let defaults = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => defaults,
        None if std::env::var_os("LINKTRACER_LONG_TESTS").is_some() => {
            ProptestConfig { cases: 200_000, ..defaults }
        }
        None => ProptestConfig { cases: 10_000, ..defaults },
    }
}

fn join_configs() -> impl Strategy<Value = JoinConfig> {
    let windows = (0..=14_u64, 0..=14_u64, 0..=8_u64, 0..=6_u64, 0..=4_u64);
    let idle_timeout_ns = prop_oneof![0..=12_u64, Just(1000), Just(u64::MAX)];
    let reports = prop_oneof![
        Just(Reports::All),
        Just(Reports::none()),
        Just(Reports::Services(BTreeSet::from(["web".into()]))),
    ];
    (windows, idle_timeout_ns, reports).prop_map(
        |(
            (exposure_window_ns, click_window_ns, report_window_ns, lateness_ns, skew_ns),
            idle_timeout_ns,
            reports,
        )| {
            JoinConfig {
                exposure_window_ns,
                click_window_ns,
                report_window_ns,
                lateness_ns,
                skew_ns,
                idle_timeout_ns,
                reports,
                memory_limit_bytes: u64::MAX,
            }
        },
    )
}

/// What histories are made of.
#[derive(Debug, Clone, Copy)]
struct Shape {
    /// Inputs of a history at most.
    inputs: usize,
    /// Items that are shown.
    items: u32,
    /// How often each kind is among the events.
    kinds: [(u32, Kind); 4],
}

/// Few items, so that everything that can happen to one happens to it.
const FEW_ITEMS: Shape = Shape {
    inputs: 60,
    items: 3,
    kinds: [(3, Kind::Request), (4, Kind::Exposure), (4, Kind::Click), (2, Kind::Report)],
};

/// Requests that show so many that what is known of them fills every size of room that there is for it.
const MANY_ITEMS: Shape = Shape {
    inputs: 300,
    items: 60,
    kinds: [(1, Kind::Request), (24, Kind::Exposure), (6, Kind::Click), (1, Kind::Report)],
};

/// Few ids, so that they meet; now and then an empty one.
fn ids() -> impl Strategy<Value = &'static str> {
    prop_oneof![1 => Just(""), 6 => Just("a"), 3 => Just("b"), 2 => Just("c")]
}

/// Of so many, those of the first half more often, so that they meet; now and then an empty one.
fn items(count: u32) -> impl Strategy<Value = String> {
    prop_oneof![1 => Just(None), 6 => (0..count.div_ceil(2)).prop_map(Some), 5 => (0..count).prop_map(Some)]
        .prop_map(|number| number.map(|number| number.to_string()).unwrap_or_default())
}

fn kinds(weighted: [(u32, Kind); 4]) -> impl Strategy<Value = Kind> {
    Union::new_weighted(weighted.map(|(weight, kind)| (weight, Just(kind))).to_vec())
}

fn sources() -> impl Strategy<Value = &'static str> {
    prop_oneof![4 => Just("node-a"), 2 => Just("node-b"), 1 => Just("node-c")]
}

fn events(shape: Shape, timestamps: impl Strategy<Value = u64>) -> impl Strategy<Value = Event> {
    let services = prop_oneof![Just("web"), Just("app")];
    (kinds(shape.kinds), timestamps, sources(), 1..=2_u32, services, ids(), items(shape.items)).prop_map(
        |(kind, timestamp_ns, source, pid, service, request_id, item_id)| Event {
            kind,
            timestamp_ns,
            source: source.into(),
            pid,
            tid: pid,
            labels: Arc::new(Labels { service: service.into(), ..Labels::default() }),
            request_id: if kind == Kind::Report { "".into() } else { request_id.into() },
            item_id: if matches!(kind, Kind::Exposure | Kind::Click) { item_id.into() } else { "".into() },
            peer: None,
        },
    )
}

/// Timestamps anywhere in the history, and sometimes at the ends of all time.
fn timestamps(base_ns: u64) -> impl Strategy<Value = u64> {
    prop_oneof![
        200 => (0..=SPAN_NS).prop_map(move |offset_ns| base_ns + offset_ns),
        1 => Just(0),
        1 => Just(u64::MAX),
    ]
}

/// Inputs of every sort in an order of arrival that is mostly within the lateness, and sometimes far
/// out of it.
fn histories(shape: Shape) -> impl Strategy<Value = Vec<Input>> {
    prop_oneof![Just(0), Just(START_NS), Just(u64::MAX - SPAN_NS)].prop_flat_map(move |base_ns| {
        let heartbeats = (sources(), timestamps(base_ns))
            .prop_map(|(source, timestamp_ns)| Input::Heartbeat { source: source.into(), timestamp_ns });
        let horizons = (kinds(FEW_ITEMS.kinds), timestamps(base_ns))
            .prop_map(|(kind, timestamp_ns)| Input::Horizon { kind, timestamp_ns });
        let inputs = prop_oneof![
            30 => events(shape, timestamps(base_ns)).prop_map(Input::Event),
            2 => heartbeats,
            1 => horizons,
            3 => timestamps(base_ns).prop_map(|until_ns| Input::Evict { until_ns }),
            1 => timestamps(base_ns).prop_map(|until_ns| Input::Gap { until_ns }),
            1 => timestamps(base_ns).prop_map(|_| Input::Restart),
        ];
        let delays_ns = prop_oneof![3 => Just(0), 5 => 0..=6_u64, 2 => 0..=SPAN_NS];
        vec((inputs, delays_ns, 0..=SPAN_NS), 0..shape.inputs).prop_map(move |mut arrivals| {
            arrivals.sort_by_key(|(input, delay_ns, anywhen_ns)| match input {
                Input::Event(event) => event.timestamp_ns.saturating_add(*delay_ns),
                Input::Heartbeat { timestamp_ns, .. } | Input::Horizon { timestamp_ns, .. } => {
                    timestamp_ns.saturating_add(*delay_ns)
                }
                Input::Gap { .. } | Input::Evict { .. } | Input::Restart => base_ns + anywhen_ns,
            });
            arrivals.into_iter().map(|(input, ..)| input).collect()
        })
    })
}

/// The same history in slow motion: one nanosecond becomes this many.
fn scaled(scale: u64, config: JoinConfig, mut inputs: Vec<Input>) -> (JoinConfig, Vec<Input>) {
    let slow = |time_ns: u64| match time_ns.checked_sub(START_NS) {
        Some(since_start_ns) => START_NS.saturating_add(since_start_ns.saturating_mul(scale)),
        None => time_ns.saturating_mul(scale).min(START_NS),
    };
    for input in &mut inputs {
        match input {
            Input::Event(event) => event.timestamp_ns = slow(event.timestamp_ns),
            Input::Heartbeat { timestamp_ns, .. } | Input::Horizon { timestamp_ns, .. } => {
                *timestamp_ns = slow(*timestamp_ns);
            }
            Input::Gap { until_ns } | Input::Evict { until_ns } => *until_ns = slow(*until_ns),
            Input::Restart => {}
        }
    }
    let config = JoinConfig {
        exposure_window_ns: slow(config.exposure_window_ns),
        click_window_ns: slow(config.click_window_ns),
        report_window_ns: slow(config.report_window_ns),
        lateness_ns: slow(config.lateness_ns),
        skew_ns: slow(config.skew_ns),
        idle_timeout_ns: slow(config.idle_timeout_ns),
        ..config
    };
    (config, inputs)
}

fn run(config: &JoinConfig, inputs: &[Input]) -> Vec<Outcome> {
    let mut join = Join::new(config.clone());
    let mut outcomes = Vec::new();
    let mut counts = Counts::default();
    for input in inputs {
        let first_new = outcomes.len();
        match input {
            Input::Event(event) => join.push(event.clone(), &mut outcomes),
            Input::Heartbeat { source, timestamp_ns } => join.heartbeat(source, *timestamp_ns, &mut outcomes),
            Input::Horizon { kind, timestamp_ns } => join.set_horizon(*kind, *timestamp_ns),
            Input::Gap { until_ns } => join.note_gap(*until_ns, &mut outcomes),
            Input::Evict { until_ns } => join.evict_until(*until_ns, &mut outcomes),
            Input::Restart => join = restart(join, config, &mut outcomes),
        }
        counts.extend(&outcomes[first_new..]);
        join.pending().check_accounting(&counts).expect("every event is in exactly one place");
    }
    join.finish(&mut outcomes);
    assert!(join.pending().is_empty(), "something waits after the end: {:?}", join.pending());
    outcomes
}

/// A join that went on from the bytes of a snapshot. The one before changes everything meanwhile, which
/// the snapshot must not notice.
fn restart(mut join: Join, config: &JoinConfig, outcomes: &mut Vec<Outcome>) -> Join {
    let pending =
        |join: &Join| (join.pending(), join.evicted(), join.watermark_ns(), join.memory_bytes() > 0);
    let snapshot = join.snapshot(outcomes);
    let before = pending(&join);
    join.finish(&mut Vec::new());
    let (state, segments) = snapshot.into_parts();
    let segments: Vec<Option<Vec<u64>>> =
        segments.map(|segment| segment.map(|segment| segment.words().flatten().copied().collect())).collect();
    let state = serde_json::to_vec(&state).expect("the state can be written");
    let state = serde_json::from_slice(&state).expect("the state can be read");
    let segments = segments.into_iter().map(|words| {
        words.map(|words| SnapshotSegment::from_words(&words).expect("as many words as there were"))
    });
    let join = Join::restore(config.clone(), Snapshot::new(state, segments)).expect("it is whole");
    assert_eq!(pending(&join), before);
    join
}

/// Without what lost events would explain them: that is a number that means nothing elsewhere.
fn without_causes(mut outcome: Outcome) -> Outcome {
    if let Outcome::Link { subject, .. } | Outcome::Triple { subject, .. } = &mut outcome {
        subject.causes = [0, 0];
    }
    outcome
}

fn sorted(outcomes: &[Outcome]) -> Vec<String> {
    let outcomes = outcomes.iter().cloned().map(without_causes);
    let mut sorted: Vec<String> = outcomes.map(|outcome| format!("{outcome:?}")).collect();
    sorted.sort_unstable();
    sorted
}

fn decides_as_the_reference(config: &JoinConfig, inputs: &[Input]) -> Result<(), TestCaseError> {
    let expected = reference::join(config, inputs);
    let outcomes = run(config, inputs);
    prop_assert_eq!(sorted(&outcomes), sorted(&expected));
    prop_assert_eq!(outcomes.iter().collect::<Counts>(), expected.iter().collect::<Counts>());
    Ok(())
}

proptest! {
    // They are longer, so there are a tenth as many.
    #![proptest_config(ProptestConfig { cases: runner_config().cases.div_ceil(10), ..runner_config() })]

    #[test]
    fn of_many_items_the_join_decides_what_the_reference_decides(
        config in join_configs(),
        inputs in histories(MANY_ITEMS),
        scale in prop_oneof![Just(1), Just(SLOW), Just(VERY_SLOW)],
    ) {
        let (config, inputs) = scaled(scale, config, inputs);
        decides_as_the_reference(&config, &inputs)?;
    }
}

proptest! {
    #![proptest_config(runner_config())]

    #[test]
    fn the_join_decides_what_the_reference_decides(
        config in join_configs(),
        inputs in histories(FEW_ITEMS),
        scale in prop_oneof![Just(1), Just(SLOW), Just(VERY_SLOW)],
    ) {
        let (config, inputs) = scaled(scale, config, inputs);
        decides_as_the_reference(&config, &inputs)?;
    }

    /// Each event arrives some time after it happened, at most the lateness. Events of one kind and
    /// time keep their order, because there input order decides which of them is the duplicate.
    #[test]
    fn the_order_of_arrival_within_the_lateness_changes_no_outcome(
        config in join_configs(),
        events in vec(events(FEW_ITEMS, 0..=SPAN_NS), 0..FEW_ITEMS.inputs),
        delays in vec(0..=100_u64, 64),
    ) {
        let mut in_order = events;
        in_order.sort_by_key(|event| (event.timestamp_ns, event.kind));
        let mut shuffled = in_order.clone();
        shuffled.sort_by_key(|event| {
            let slot = (event.timestamp_ns * 4 + event.kind as u64) % 64;
            let delay_ns = delays[usize::try_from(slot).expect("less than 64")] % (config.lateness_ns + 1);
            event.timestamp_ns + delay_ns
        });
        let in_order: Vec<Input> = in_order.into_iter().map(Input::Event).collect();
        let shuffled: Vec<Input> = shuffled.into_iter().map(Input::Event).collect();
        prop_assert_eq!(sorted(&run(&config, &in_order)), sorted(&run(&config, &shuffled)));
    }

    /// With no room at all, everything is evicted again and again, and the watermark is forced: what
    /// is then found broken must be broken with all the room in the world.
    #[test]
    fn without_memory_nothing_is_broken_that_is_not(config in join_configs(), inputs in histories(FEW_ITEMS)) {
        let inputs = with_labels_of_their_own(inputs);
        let with_memory = broken(&run(&config, &inputs));
        let without = JoinConfig { memory_limit_bytes: 0, ..config };
        for link in broken(&run(&without, &inputs)) {
            prop_assert!(with_memory.contains(&link), "{link:?} is broken only without memory");
        }
    }
}

proptest! {
    #![proptest_config(runner_config())]

    /// Of a time in the middle nothing is captured. What is found broken, before it or after it, must be broken with all of it
    /// captured, and so must a request from before it that nothing was shown for.
    #[test]
    fn after_a_gap_nothing_is_broken_that_is_not(
        config in join_configs(),
        events in vec(events(FEW_ITEMS, 0..=SPAN_NS), 0..FEW_ITEMS.inputs),
        begin_ns in 0..=SPAN_NS,
        length_ns in 0..=SPAN_NS / 2,
    ) {
        let end_ns = begin_ns + length_ns;
        let mut inputs: Vec<Input> = events.into_iter().map(Input::Event).collect();
        inputs.sort_by_key(|input| match input {
            Input::Event(event) => (event.timestamp_ns, event.kind),
            _ => unreachable!("there are events only"),
        });
        let inputs = with_labels_of_their_own(inputs);
        let at_ns = |input: &Input| match input {
            Input::Event(event) => event.timestamp_ns,
            _ => unreachable!("there are events only"),
        };
        let captured = run(&config, &inputs);
        let mut with_gap: Vec<Input> =
            inputs.iter().filter(|input| at_ns(input) < begin_ns).cloned().collect();
        with_gap.push(Input::Gap { until_ns: end_ns });
        with_gap.extend(inputs.iter().filter(|input| at_ns(input) >= end_ns).cloned());
        let gapped = run(&config, &with_gap);
        let broken_in_truth = broken(&captured);
        for link in broken(&gapped) {
            prop_assert!(broken_in_truth.contains(&link), "{link:?} is broken only because of the gap");
        }
        let before: BTreeSet<Box<str>> = inputs
            .iter()
            .filter(|input| at_ns(input) < begin_ns)
            .filter_map(|input| match input {
                Input::Event(event) => Some(event.labels.release.clone()),
                _ => None,
            })
            .collect();
        let unexposed_in_truth = unexposed(&captured);
        for request in unexposed(&gapped).intersection(&before) {
            prop_assert!(unexposed_in_truth.contains(request), "{request} is unexposed only because of the gap");
        }
    }
}

/// Else the histories would not test what they are there for.
#[test]
fn the_histories_come_to_every_outcome() {
    let mut runner = TestRunner::deterministic();
    let mut counts = Counts::default();
    for _ in 0..2000 {
        let (config, inputs) = (join_configs(), histories(FEW_ITEMS))
            .new_tree(&mut runner)
            .expect("nothing is filtered out")
            .current();
        counts.extend(&reference::join(&config, &inputs));
    }
    let edges = counts.edges;
    let (exposures, clicks) = (edges.request_exposure, edges.exposure_click);
    let reached = [
        [exposures.linked, exposures.orphan, exposures.missing_id, exposures.unseen],
        [clicks.linked, clicks.mismatch, clicks.orphan, clicks.missing_id],
        [clicks.unseen, edges.triple.complete, edges.triple.broken, edges.triple.unseen],
        [
            edges.click_report.reported,
            edges.click_report.unreported,
            counts.requests.exposed,
            counts.requests.unexposed,
        ],
        [
            counts.requests.missing_id,
            counts.duplicate.request,
            counts.duplicate.exposure,
            counts.duplicate.click,
        ],
        Kind::ALL.map(|kind| counts.late[kind]),
        [
            counts.late_without_outcome[Kind::Request],
            counts.late_without_outcome[Kind::Exposure],
            counts.late_without_outcome[Kind::Click],
            counts.evicted[Kind::Request],
        ],
    ];
    assert!(reached.iter().flatten().all(|count| *count >= 20), "{counts:?}");
}

/// Tells the outcomes of each event from those of the others.
fn with_labels_of_their_own(mut inputs: Vec<Input>) -> Vec<Input> {
    for (number, input) in inputs.iter_mut().enumerate() {
        if let Input::Event(event) = input {
            let release = number.to_string().into();
            event.labels = Arc::new(Labels { release, ..Labels::clone(&event.labels) });
        }
    }
    // A horizon, a gap or an eviction has an effect that depends on when things are decided.
    inputs.retain(|input| !matches!(input, Input::Horizon { .. } | Input::Gap { .. } | Input::Evict { .. }));
    inputs
}

/// The events whose link is broken, by edge. One without an id is broken whatever is remembered.
fn broken(outcomes: &[Outcome]) -> BTreeSet<(Edge, Box<str>)> {
    let broken = outcomes.iter().filter_map(|outcome| match outcome {
        Outcome::Link { outcome: LinkOutcome::MissingId, .. } => None,
        Outcome::Link { edge, outcome, labels, .. } if outcome.is_broken() == Some(true) => {
            Some((*edge, labels.release.clone()))
        }
        Outcome::Triple { outcome: TripleOutcome::Broken, labels, .. } => {
            Some((Edge::Triple, labels.release.clone()))
        }
        _ => None,
    });
    broken.collect()
}

/// The requests that nothing was shown for.
fn unexposed(outcomes: &[Outcome]) -> BTreeSet<Box<str>> {
    let unexposed = outcomes.iter().filter_map(|outcome| match outcome {
        Outcome::Request { outcome: RequestOutcome::Unexposed, labels } => Some(labels.release.clone()),
        _ => None,
    });
    unexposed.collect()
}
