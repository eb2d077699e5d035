//! What becomes of an exposure.

use super::*;

#[test]
fn without_a_request_id_or_an_item_id_is_a_missing_id() {
    check(
        [event(Kind::Exposure, T, "", "i"), event(Kind::Exposure, T, "r", "")],
        &["request_exposure missing_id", "request_exposure missing_id"],
    );
}

#[test]
fn within_the_click_window_of_the_first_is_a_duplicate() {
    check([exposure(T), exposure(T + CLICK_WINDOW)], &["request_exposure orphan", "exposure duplicate"]);
    check(
        [exposure(T), exposure(T + CLICK_WINDOW + 1)],
        &["request_exposure orphan", "request_exposure orphan"],
    );
}

#[test]
fn of_another_item_is_no_duplicate() {
    check(
        [request(T), exposure(T), other_item(exposure(T))],
        &["request exposed", "request_exposure linked 0", "request_exposure linked 0"],
    );
}

#[test]
fn is_linked_by_a_retry_of_its_request() {
    let retry = T + EXPOSURE_WINDOW;
    check(
        [request(T), request(retry), exposure(retry + EXPOSURE_WINDOW)],
        &["request unexposed", "request duplicate", "request_exposure linked 100"],
    );
}

/// Longer than an entry of a packed group can say.
#[test]
fn is_linked_to_its_request_however_long_the_window_is() {
    const MINUTE_NS: u64 = 60_000_000_000;
    let mut join = Join::new(JoinConfig { exposure_window_ns: 100 * MINUTE_NS, ..config() });
    let mut outcomes = Vec::new();
    join.push(request(T), &mut outcomes);
    join.push(other_item(exposure(T + 1)), &mut outcomes);
    join.heartbeat(&"node-a".into(), T + 70 * MINUTE_NS, &mut outcomes);
    check_join(
        join,
        [exposure(T + 80 * MINUTE_NS), other_item(exposure(T + 100 * MINUTE_NS))],
        &["request_exposure linked 4800000000000", "request_exposure linked 6000000000000"],
    );
}
