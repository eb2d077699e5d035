//! What is remembered, and that it ends.

use super::*;

const HOUR_NS: u64 = 3_600_000_000_000;

/// One visit in each hour of a year, every third without its exposure: nothing of it is left
/// when its windows have run out.
#[test]
fn of_a_year_is_empty_after_the_last_window() {
    let mut join = Join::new(JoinConfig { reports: Reports::All, ..JoinConfig::default() });
    let mut outcomes = Vec::new();
    let mut counts = Counts::default();
    for pid in 1..=365 * 24 {
        let hour = u64::from(pid);
        let (timestamp_ns, id) = (hour * HOUR_NS, format!("r-{hour}"));
        join.push(event(Kind::Request, timestamp_ns, &id, ""), &mut outcomes);
        if hour % 3 > 0 {
            join.push(event(Kind::Exposure, timestamp_ns + 1, &id, "i"), &mut outcomes);
        }
        join.push(Event { pid, ..event(Kind::Click, timestamp_ns + 2, &id, "i") }, &mut outcomes);
        join.push(report(timestamp_ns + 3), &mut outcomes);
        assert!(join.pending().request_ids <= 2, "{:?}", join.pending());
        counts.extend(outcomes.drain(..).as_slice());
    }
    join.heartbeat(&"node-a".into(), 366 * 24 * HOUR_NS, &mut outcomes);
    counts.extend(&outcomes);
    assert!(join.pending().is_empty(), "{:?}", join.pending());
    assert!(join.engine().is_empty(), "{:?}", join.engine());
    assert_eq!(counts.edges.triple.complete, 365 * 24 * 2 / 3);
    assert_eq!(counts.edges.triple.broken, 365 * 24 / 3);
}

/// A service that sends one constant request id must not make the join slow or fill it up.
#[test]
fn of_one_request_id_is_bounded_by_its_windows() {
    let mut join = Join::new(config());
    let mut outcomes = Vec::new();
    for step in 0..100_000 {
        let item = format!("i-{step}");
        join.push(request(T + step), &mut outcomes);
        join.push(event(Kind::Exposure, T + step, "r", &item), &mut outcomes);
        join.push(event(Kind::Click, T + step, "r", "never exposed"), &mut outcomes);
        outcomes.clear();
    }
    let remembered = usize::try_from(CLICK_WINDOW + SKEW).expect("a small number") + 2;
    assert!(join.engine().open.longest() <= remembered, "{} of {remembered}", join.engine().open.longest());
}

#[test]
fn of_events_too_late_to_matter_is_nothing() {
    let mut join = Join::new(reporting());
    let mut outcomes = Vec::new();
    join.heartbeat(&"node-a".into(), T, &mut outcomes);
    for event in [request(1), exposure(2), click(3), report(4)] {
        join.push(event, &mut outcomes);
    }
    assert!(join.engine().is_empty(), "{:?}", join.engine());
}
