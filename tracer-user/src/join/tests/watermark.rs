//! How event time moves, to its ends.

use super::*;

#[track_caller]
fn check_watermark(idle_timeout_ns: u64, progress: &[(&str, u64)], expected: Option<u64>) {
    let mut join = Join::new(JoinConfig { lateness_ns: 5, idle_timeout_ns, ..config() });
    for (source, timestamp_ns) in progress {
        join.heartbeat(&(*source).into(), *timestamp_ns, &mut Vec::new());
    }
    assert_eq!(join.watermark_ns(), expected);
}

#[test]
fn is_unknown_before_anything_is_heard() {
    check_watermark(50, &[], None);
    check_watermark(50, &[("a", 0)], Some(0));
}

#[test]
fn is_the_lateness_behind_the_slowest_source() {
    check_watermark(50, &[("a", 100)], Some(95));
    check_watermark(50, &[("b", 80), ("a", 100)], Some(75));
    check_watermark(50, &[("b", 80), ("a", 100), ("b", 90)], Some(85));
}

#[test]
fn never_goes_back() {
    check_watermark(50, &[("a", 100), ("b", 80)], Some(95));
    check_watermark(50, &[("a", 100), ("a", 10)], Some(95));
}

#[test]
fn does_not_wait_for_a_source_that_is_idle() {
    check_watermark(50, &[("b", 50), ("a", 100)], Some(45));
    check_watermark(50, &[("b", 49), ("a", 100)], Some(95));
}

#[test]
fn waits_again_for_a_source_that_comes_back() {
    check_watermark(50, &[("b", 0), ("a", 100), ("b", 60), ("a", 105), ("a", 110)], Some(95));
    check_watermark(50, &[("b", 0), ("a", 100), ("b", 99), ("a", 110)], Some(95));
    check_watermark(50, &[("b", 0), ("a", 100), ("b", 105), ("a", 120)], Some(100));
}

#[test]
fn passes_by_heartbeats_alone() {
    let mut join = Join::new(config());
    let mut outcomes = Vec::new();
    join.push(exposure(T), &mut outcomes);
    join.heartbeat(&"node-a".into(), T + SKEW, &mut outcomes);
    assert_eq!(join.pending().exposures, 1);
    join.heartbeat(&"node-a".into(), T + SKEW + 1, &mut outcomes);
    assert_eq!(join.pending().exposures, 0);
}

#[test]
fn and_timestamps_at_the_ends_of_time_do_not_overflow() {
    check(
        [request(0), exposure(0), click(u64::MAX), request(u64::MAX), exposure(u64::MAX)],
        &[
            "request exposed",
            "request_exposure linked 0",
            "request exposed",
            "request_exposure linked 0",
            "exposure_click linked 0",
            "triple complete",
        ],
    );
}

#[test]
fn windows_without_end_do_not_overflow() {
    let endless = JoinConfig {
        exposure_window_ns: u64::MAX,
        click_window_ns: u64::MAX,
        report_window_ns: u64::MAX,
        skew_ns: u64::MAX,
        ..config()
    };
    check_join(
        Join::new(endless),
        [click(0), exposure(T), request(u64::MAX)],
        &["request exposed", "request_exposure linked 0", "exposure_click linked 0", "triple complete"],
    );
}
