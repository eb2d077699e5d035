//! What becomes of a request.

use super::*;

#[test]
fn without_an_id_is_a_missing_id() {
    check([event(Kind::Request, T, "", "")], &["request missing_id"]);
}

#[test]
fn within_the_window_of_the_first_is_a_duplicate() {
    check([request(T), request(T + EXPOSURE_WINDOW)], &["request unexposed", "request duplicate"]);
}

#[test]
fn past_the_window_of_the_first_is_a_new_request() {
    check([request(T), request(T + EXPOSURE_WINDOW + 1)], &["request unexposed", "request unexposed"]);
}

#[test]
fn a_duplicate_does_not_prolong_the_window() {
    check(
        [request(T), request(T + EXPOSURE_WINDOW), request(T + EXPOSURE_WINDOW + 1)],
        &["request unexposed", "request duplicate", "request unexposed"],
    );
}

#[test]
fn is_exposed_by_an_exposure_at_the_end_of_its_window_and_not_past_it() {
    check([request(T), exposure(T + EXPOSURE_WINDOW)], &["request exposed", "request_exposure linked 100"]);
    check([request(T), exposure(T + EXPOSURE_WINDOW + 1)], &["request unexposed", "request_exposure orphan"]);
}

#[test]
fn is_exposed_by_an_exposure_as_much_as_the_skew_before_it() {
    check([exposure(T), request(T + SKEW)], &["request exposed", "request_exposure linked 0"]);
    check([exposure(T), request(T + SKEW + 1)], &["request unexposed", "request_exposure orphan"]);
}

#[test]
fn is_exposed_by_a_duplicate_of_an_exposure() {
    let second = T + EXPOSURE_WINDOW + 1;
    check(
        [request(T), exposure(T), request(second), exposure(second)],
        &["request exposed", "request_exposure linked 0", "request exposed", "exposure duplicate"],
    );
}

#[test]
fn is_not_exposed_by_an_exposure_without_an_item() {
    check(
        [request(T), event(Kind::Exposure, T, "r", "")],
        &["request unexposed", "request_exposure missing_id"],
    );
}
