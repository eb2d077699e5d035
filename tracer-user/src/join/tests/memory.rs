//! What is remembered, and that it ends.

use super::*;
use crate::join::JoinEvent;

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

/// More within the lateness than there is room for: each relief gives up half of the buffer, and the next one
/// comes when it is full again.
#[test]
fn of_a_buffer_that_is_too_small_is_relieved_by_halves() {
    const LIMIT_BYTES: u64 = 4 << 20;
    let hours = JoinConfig { memory_limit_bytes: LIMIT_BYTES, ..JoinConfig::default() };
    let mut join = Join::new(hours);
    let mut outcomes = Vec::new();
    const EVENTS: u64 = 300_000;
    for number in 0..EVENTS {
        join.push(event(Kind::Request, HOUR_NS + number * 1000, &format!("r-{number}"), ""), &mut outcomes);
        assert!(join.memory_bytes() <= LIMIT_BYTES, "{} bytes after {number}", join.memory_bytes());
        outcomes.clear();
    }
    // Half of the limit has room for this many; a bucket is not given back before it is empty.
    let room = LIMIT_BYTES / 2 / size_of::<JoinEvent>() as u64;
    let reliefs = join.evicted().forced_watermarks;
    assert!((1..=4 * EVENTS / room).contains(&reliefs), "{reliefs} reliefs, room for {room}");
}

/// More than the limit has room for: the limit is kept all the time, the oldest goes first, and what
/// reaches back to it is unseen.
#[test]
fn is_bounded_by_the_limit_and_evicts_the_oldest() {
    const LIMIT_BYTES: u64 = 4 << 20;
    let hours = JoinConfig { memory_limit_bytes: LIMIT_BYTES, skew_ns: 0, ..JoinConfig::default() };
    let mut join = Join::new(JoinConfig { lateness_ns: 0, ..hours });
    let mut outcomes = Vec::new();
    let id = |number: u64| format!("r-{number}");
    for number in 0..50_000 {
        let timestamp_ns = HOUR_NS + number * 1_000_000;
        join.push(event(Kind::Request, timestamp_ns, &id(number), ""), &mut outcomes);
        join.push(event(Kind::Exposure, timestamp_ns + 1, &id(number), "i"), &mut outcomes);
        assert!(join.memory_bytes() <= LIMIT_BYTES, "{} bytes after {number}", join.memory_bytes());
        outcomes.clear();
    }
    let now_ns = HOUR_NS + 50_000 * 1_000_000;
    let evicted = join.evicted().request_ids;
    assert!((1000..49_000).contains(&evicted), "{evicted} request ids were evicted");
    let newest_ns = HOUR_NS + (evicted - 1) * 1_000_000;
    assert_eq!(join.horizon_ns(Kind::Request), newest_ns + 1);
    assert_eq!(join.horizon_ns(Kind::Exposure), newest_ns + 2);
    join.push(event(Kind::Click, now_ns, &id(evicted - 1), "i"), &mut outcomes);
    join.push(event(Kind::Click, now_ns, &id(evicted), "i"), &mut outcomes);
    join.finish(&mut outcomes);
    let clicks: Vec<String> =
        outcomes.iter().filter_map(words).filter(|words| words.starts_with("exposure_click")).collect();
    let delay_ns = now_ns - (HOUR_NS + evicted * 1_000_000 + 1);
    assert_eq!(
        sorted(clicks),
        ["exposure_click linked ".to_owned() + &delay_ns.to_string(), "exposure_click unseen".to_owned()]
    );
}

/// Ids that come and go by the hundred thousand, each with an exposure and a click that wait, and so in an open group: what
/// they leave behind counts as well, and is given back. Afterwards there is room as before.
#[test]
fn is_bounded_in_a_flood_and_usable_after_it() {
    const LIMIT_BYTES: u64 = 8 << 20;
    let mut join = Join::new(JoinConfig { memory_limit_bytes: LIMIT_BYTES, ..JoinConfig::default() });
    let mut outcomes = Vec::new();
    let mut push = |join: &mut Join, kind: Kind, number: u64, timestamp_ns: u64| {
        join.push(event(kind, timestamp_ns, &format!("r-{number}"), "i"), &mut outcomes);
        assert!(join.memory_bytes() <= LIMIT_BYTES, "{} bytes after {number}", join.memory_bytes());
        outcomes.clear();
    };
    for number in 0..100_000 {
        push(&mut join, Kind::Exposure, number, HOUR_NS + number * 50_000);
        push(&mut join, Kind::Click, number, HOUR_NS + number * 50_000 + 1);
    }
    assert!(join.evicted().request_ids > 50_000, "{:?}", join.evicted());
    assert!(
        join.pending().request_ids > 5000,
        "deadlines of the evicted take their place: {:?}",
        join.pending()
    );
    join.heartbeat(&"node-a".into(), 2 * HOUR_NS, &mut Vec::new());
    let evicted = join.evicted();
    // As many as there is room for, all in packed groups.
    for number in 0..42_000 {
        let timestamp_ns = 2 * HOUR_NS + number * 40_000_000;
        push(&mut join, Kind::Request, 1_000_000 + number, timestamp_ns);
        push(&mut join, Kind::Exposure, 1_000_000 + number, timestamp_ns + 1);
    }
    assert_eq!(join.evicted(), evicted, "{:?}", join.pending());
}

/// However coarsely it is kept until when something is remembered.
#[test]
fn of_an_id_is_evicted_with_its_newest_sighting_and_not_before() {
    const SECOND_NS: u64 = 1_000_000_000;
    let config = JoinConfig {
        exposure_window_ns: 100 * SECOND_NS,
        click_window_ns: 100 * SECOND_NS,
        ..JoinConfig::default()
    };
    for step in 0..100 {
        let requested_ns = 1_700_000_000 * SECOND_NS + step;
        let seen_ns = requested_ns + SECOND_NS + step * SECOND_NS / 90;
        let (mut join, mut outcomes) = (Join::new(config.clone()), Vec::new());
        join.push(request(requested_ns), &mut outcomes);
        join.push(exposure(seen_ns), &mut outcomes);
        // By now nobody waits for the exposures of the request, and all that is left to do is to forget it.
        join.heartbeat(&"node-a".into(), requested_ns + 103 * SECOND_NS, &mut outcomes);
        for (until_ns, evicted) in [(seen_ns - 1, 0), (seen_ns, 1)] {
            join.evict_until(until_ns, &mut outcomes);
            assert_eq!(join.evicted().request_ids, evicted, "{step}");
        }
    }
}

/// Windows so long that a packed group does not say to the nanosecond until when it is kept.
fn seconds() -> JoinConfig {
    const SECOND_NS: u64 = 1_000_000_000;
    JoinConfig {
        exposure_window_ns: 2 * SECOND_NS,
        click_window_ns: 10 * SECOND_NS,
        skew_ns: 0,
        idle_timeout_ns: u64::MAX,
        ..config()
    }
}

/// What the join says of a click at `click_ns` when everything up to `until_ns` is evicted before it.
fn click_after_eviction(mut join: Join, until_ns: u64, click_ns: u64) -> Vec<String> {
    let mut outcomes = Vec::new();
    join.evict_until(until_ns, &mut outcomes);
    outcomes.clear();
    join.push(click(click_ns), &mut outcomes);
    join.finish(&mut outcomes);
    sorted(outcomes.iter().filter_map(words).collect())
}

/// However often a group has been opened and packed again, it is as old as it is.
#[test]
fn of_what_was_opened_often_is_evicted_in_its_turn() {
    let mut join = Join::new(seconds());
    let mut outcomes = Vec::new();
    join.push(exposure(HOUR_NS), &mut outcomes);
    join.heartbeat(&"node-a".into(), HOUR_NS + 1_000_000_000, &mut outcomes);
    // Each of these is late and comes first, so that times are counted from another one.
    for number in 1..=100 {
        join.push(exposure(HOUR_NS - number), &mut outcomes);
    }
    let delay_ns = 2_000_000_000;
    let evicted = ["exposure_click unseen", "triple unseen"];
    assert_eq!(click_after_eviction(join, HOUR_NS, HOUR_NS + delay_ns), evicted);
}

/// The newest sighting can be forgotten before older ones are: from then on the group is older than it was.
#[test]
fn of_what_was_too_new_is_evicted_once_its_newest_sighting_is_forgotten() {
    const SECOND_NS: u64 = 1_000_000_000;
    // A group of so many exposures is not packed again once it was opened.
    for (exposures, is_open) in [(1, false), (50, true)] {
        let mut join = Join::new(seconds());
        let mut outcomes = Vec::new();
        join.push(request(HOUR_NS), &mut outcomes);
        for number in 0..exposures {
            join.push(event(Kind::Exposure, HOUR_NS, "r", &format!("i-{number}")), &mut outcomes);
        }
        join.push(request(HOUR_NS + SECOND_NS), &mut outcomes);
        join.heartbeat(&"node-a".into(), HOUR_NS + SECOND_NS + 1, &mut outcomes);
        join.push(event(Kind::Exposure, HOUR_NS, "r", "late"), &mut outcomes);
        assert_eq!(join.engine().open.groups.len() > 0, is_open);
        let mut evicted_at = |since_hour_ns| {
            join.heartbeat(&"node-a".into(), HOUR_NS + since_hour_ns, &mut outcomes);
            join.evict_until(HOUR_NS, &mut outcomes);
            join.evicted().request_ids
        };
        // The request is remembered until three seconds after the hour.
        assert_eq!(evicted_at(SECOND_NS + 1), 0, "the request is newer");
        assert_eq!(evicted_at(3 * SECOND_NS), 0, "the request is still remembered");
        assert_eq!(evicted_at(3 * SECOND_NS + 1), 1);
    }
}

/// A group that is opened for each late click and packed again leaves its deadlines behind, for half an hour of event time.
#[test]
fn of_groups_that_are_opened_again_and_again_is_nothing_but_the_groups() {
    const IDS: u64 = 100;
    const ITEMS: u64 = 20;
    let mut join = Join::new(JoinConfig { lateness_ns: 0, ..JoinConfig::default() });
    let mut outcomes = Vec::new();
    let id = |number: u64| format!("r-{}", number % IDS);
    for number in 0..IDS {
        join.push(event(Kind::Request, HOUR_NS + number, &id(number), ""), &mut outcomes);
        for item in 0..ITEMS {
            join.push(event(Kind::Exposure, HOUR_NS + number, &id(number), &item.to_string()), &mut outcomes);
        }
        join.push(event(Kind::Click, HOUR_NS + number, &id(number), "0"), &mut outcomes);
    }
    let before = join.memory_bytes();
    for number in 0..100_000 {
        let now_ns = HOUR_NS + IDS + number * 1_000_000;
        join.heartbeat(&"node-a".into(), now_ns, &mut outcomes);
        join.push(event(Kind::Click, now_ns - 1, &id(number), "0"), &mut outcomes);
        outcomes.clear();
    }
    let more = join.memory_bytes() - before;
    assert!(more < 2 << 20, "{more} bytes more than {before}");
}

/// No watermark passes the end of time, so nothing would ever leave the buffer.
#[test]
fn of_events_at_the_end_of_time_is_bounded() {
    const LIMIT_BYTES: u64 = 4 << 20;
    let mut join = Join::new(JoinConfig { memory_limit_bytes: LIMIT_BYTES, ..JoinConfig::default() });
    let mut outcomes = Vec::new();
    let mut counts = Counts::default();
    for number in 0..200_000 {
        join.push(event(Kind::Request, u64::MAX, &format!("r-{number}"), ""), &mut outcomes);
        assert!(join.memory_bytes() <= LIMIT_BYTES, "{} bytes after {number}", join.memory_bytes());
        counts.extend(outcomes.drain(..).as_slice());
    }
    join.finish(&mut outcomes);
    counts.extend(&outcomes);
    assert_eq!(counts.requests.unexposed + counts.evicted[Kind::Request], 200_000, "{counts:?}");
}

/// Clicks that wait for a report, and nothing else that could be given up in their place.
#[test]
fn of_clicks_that_wait_for_a_report_is_bounded_with_all_that_leads_to_them() {
    const LIMIT_BYTES: u64 = 4 << 20;
    let reporting = JoinConfig { reports: Reports::All, lateness_ns: 0, ..JoinConfig::default() };
    let mut join = Join::new(JoinConfig { memory_limit_bytes: LIMIT_BYTES, ..reporting });
    let mut outcomes = Vec::new();
    for number in 0..500_000 {
        join.push(event(Kind::Click, HOUR_NS + number * 10_000, "", ""), &mut outcomes);
        assert!(join.memory_bytes() <= LIMIT_BYTES, "{} bytes after {number}", join.memory_bytes());
        outcomes.clear();
    }
    assert!(join.evicted().click_reports > 0);
}

/// A snapshot says nothing of how the state lay in memory. A join that goes on from one at its limit gives up about as much
/// as the one that it was made of.
#[test]
fn is_given_up_by_a_restored_join_as_by_any_other() {
    const LIMIT_BYTES: u64 = 16 << 20;
    let limited = JoinConfig { memory_limit_bytes: LIMIT_BYTES, lateness_ns: 0, ..JoinConfig::default() };
    let mut outcomes = Vec::new();
    let mut go_on = |join: &mut Join, numbers: std::ops::Range<u64>| {
        for number in numbers {
            let (timestamp_ns, id) = (HOUR_NS + number * 1_000_000, format!("r-{number}"));
            join.push(event(Kind::Request, timestamp_ns, &id, ""), &mut outcomes);
            for item in 0..3 + number % 40 {
                join.push(event(Kind::Exposure, timestamp_ns + 1, &id, &item.to_string()), &mut outcomes);
            }
            assert!(join.memory_bytes() <= LIMIT_BYTES, "{} bytes after {number}", join.memory_bytes());
            outcomes.clear();
        }
        join.evicted().request_ids
    };
    let mut join = Join::new(limited.clone());
    let before = go_on(&mut join, 0..60_000);
    assert!(before > 10_000, "{before} request ids are evicted");
    let mut restored = Join::restore(limited, join.snapshot(&mut Vec::new())).expect("it is whole");
    let (live, restored) =
        (go_on(&mut join, 60_000..65_000) - before, go_on(&mut restored, 60_000..65_000) - before);
    assert!(restored <= live + live / 10, "{restored} request ids, and {live} in the join that went on");
}
