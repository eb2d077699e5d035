//! What an event older than the watermark can do, and what it cannot.

use super::*;

fn lateness(lateness_ns: u64) -> Join {
    Join::new(JoinConfig { lateness_ns, ..config() })
}

/// A join, with reports, whose watermark has come to `watermark_ns`.
fn at(watermark_ns: u64) -> Join {
    let mut join = Join::new(reporting());
    join.heartbeat(&"node-a".into(), watermark_ns, &mut Vec::new());
    join
}

#[test]
fn are_those_older_than_the_watermark() {
    check_join(lateness(5), [exposure(T), request(T - 5)], &["request exposed", "request_exposure linked 5"]);
    check_join(
        lateness(5),
        [exposure(T), request(T - 6)],
        &["request late", "request exposed", "request_exposure linked 6"],
    );
}

#[test]
fn complete_what_waits_for_them() {
    check_join(
        Join::new(config()),
        [exposure(T), click(T), on("node-b", request(T + 1)), request(T - 1)],
        &[
            "request late",
            "request duplicate",
            "request exposed",
            "request_exposure linked 1",
            "exposure_click linked 0",
            "triple complete",
        ],
    );
}

#[test]
fn are_completed_by_what_is_remembered() {
    check_join(
        at(T),
        [request(T), on("node-a", request(T + 50)), exposure(T + 10)],
        &["request exposed", "request duplicate", "exposure late", "request_exposure linked 10"],
    );
}

#[test]
fn are_never_found_broken() {
    let long_ago = T - 1000;
    check_join(at(T), [request(long_ago)], &["request late", "request without outcome"]);
    check_join(at(T), [exposure(long_ago)], &["exposure late", "exposure without outcome"]);
    check_join(at(T), [click(long_ago)], &["click late", "click without outcome"]);
    check_join(at(T), [report(long_ago)], &["report late"]);
}

#[test]
fn wait_like_any_other_when_they_still_can() {
    check_join(at(T), [exposure(T - SKEW)], &["exposure late", "exposure without outcome"]);
    check_join(
        at(T),
        [exposure(T - SKEW), request(T)],
        &["exposure late", "request exposed", "request_exposure linked 0"],
    );
    check_join(
        at(T),
        [exposure(T - SKEW - 1), request(T)],
        &["exposure late", "exposure without outcome", "request unexposed"],
    );
}

#[test]
fn without_an_id_are_broken_because_no_wait_would_tell_more() {
    check_join(
        at(T),
        [event(Kind::Click, T - 1, "", "i")],
        &["click late", "exposure_click missing_id", "triple broken"],
    );
}

#[test]
fn can_be_reported_and_not_unreported() {
    let without = ["click late", "click without outcome"];
    check_join(at(T), [click(T - 1), report(T)], &[&without[..], &["click_report reported"]].concat());
    check_join(at(T), [click(T - 1)], &without);
}

#[test]
fn before_the_first_are_its_duplicates() {
    check_join(
        at(T),
        [exposure(T), request(T), on("node-a", request(T + 1)), exposure(T - 1)],
        &[
            "request exposed",
            "request_exposure linked 0",
            "request duplicate",
            "exposure late",
            "exposure duplicate",
        ],
    );
}

#[test]
fn exposures_without_outcome_leave_a_triple_unseen() {
    check_join(
        Join::new(config()),
        [other_item(exposure(T)), exposure(T - SKEW - 1), click(T + 1)],
        &[
            "request_exposure orphan",
            "exposure late",
            "exposure without outcome",
            "exposure_click linked 12",
            "triple unseen",
        ],
    );
}

#[test]
fn clicks_linked_to_a_broken_exposure_are_broken_triples() {
    check(
        [exposure(T), other_item(exposure(T + 50)), click(T + 1)],
        &[
            "request_exposure orphan",
            "request_exposure orphan",
            "click late",
            "exposure_click linked 1",
            "triple broken",
        ],
    );
}

/// What a late event comes to when an earlier one was taken and the watermark has come this far.
#[track_caller]
fn check_remembered(earlier: Event, watermark_ns: u64, late: Event, expected: &str) {
    let mut join = Join::new(reporting());
    let mut outcomes = Vec::new();
    join.push(earlier, &mut outcomes);
    join.heartbeat(&"node-a".into(), watermark_ns, &mut outcomes);
    outcomes.clear();
    join.push(late, &mut outcomes);
    let found: Vec<String> = outcomes.iter().filter_map(words).collect();
    assert!(found.iter().any(|words| words == expected), "{expected} is not among {found:?}");
}

#[test]
fn see_requests_until_no_exposure_in_order_could_need_them() {
    let end = T + EXPOSURE_WINDOW + SKEW;
    check_remembered(request(T), end, exposure(T + 1), "request_exposure linked 1");
    check_remembered(request(T), end + 1, exposure(T + 1), "exposure without outcome");
    check_remembered(request(T), end, request(T + 1), "request duplicate");
    check_remembered(request(T), end + 1, request(T + 1), "request without outcome");
}

#[test]
fn see_exposures_and_clicks_until_no_click_in_order_could_need_them() {
    let end = T + CLICK_WINDOW + SKEW;
    check_remembered(exposure(T), end, click(T + 1), "exposure_click linked 1");
    check_remembered(exposure(T), end + 1, click(T + 1), "click without outcome");
    check_remembered(exposure(T), end, exposure(T + 1), "exposure duplicate");
    check_remembered(exposure(T), end + 1, exposure(T + 1), "exposure without outcome");
    check_remembered(click(T), end, click(T + 1), "click duplicate");
    check_remembered(click(T), end + 1, click(T + 1), "click without outcome");
}

#[test]
fn see_reports_for_their_window() {
    let end = T + REPORT_WINDOW;
    check_remembered(report(T), end, click(T), "click_report reported");
    let mut join = at(T - 1);
    let mut outcomes = Vec::new();
    join.push(report(T), &mut outcomes);
    join.heartbeat(&"node-a".into(), end + 1, &mut outcomes);
    join.push(click(T), &mut outcomes);
    join.finish(&mut outcomes);
    assert!(!outcomes.iter().filter_map(words).any(|words| words.starts_with("click_report")));
}

#[test]
fn expose_a_request_that_waits_and_is_as_much_as_the_skew_after_them() {
    let linked = ["exposure late", "request duplicate", "request_exposure linked 0"];
    check([request(T), request(T + 1), exposure(T - SKEW)], &[&linked[..], &["request exposed"]].concat());
    check(
        [request(T), request(T + 1), exposure(T - SKEW - 1)],
        &["exposure late", "request duplicate", "exposure without outcome", "request unexposed"],
    );
}

#[test]
fn that_waited_in_vain_leave_a_triple_unseen() {
    check_join(
        at(T),
        [exposure(T - SKEW), Event { pid: 8, ..click(T) }, Event { pid: 8, ..report(T) }],
        &[
            "exposure late",
            "exposure without outcome",
            "exposure_click linked 10",
            "triple unseen",
            "click_report reported",
        ],
    );
}
