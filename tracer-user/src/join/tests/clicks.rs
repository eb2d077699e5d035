//! What becomes of a click and of its triple.

use super::*;

#[test]
fn without_an_id_is_a_missing_id_and_a_broken_triple() {
    check(
        [event(Kind::Click, T, "", "i"), event(Kind::Click, T, "r", "")],
        &["exposure_click missing_id", "triple broken", "exposure_click missing_id", "triple broken"],
    );
}

#[test]
fn of_a_whole_chain_is_a_complete_triple() {
    check(
        [request(T), exposure(T + 10), click(T + 30)],
        &["request exposed", "request_exposure linked 10", "exposure_click linked 20", "triple complete"],
    );
}

#[test]
fn within_the_window_of_the_first_is_a_duplicate() {
    check(
        [click(T), click(T + CLICK_WINDOW)],
        &["exposure_click orphan", "triple broken", "click duplicate"],
    );
    check(
        [click(T), click(T + CLICK_WINDOW + 1)],
        &["exposure_click orphan", "triple broken", "exposure_click orphan", "triple broken"],
    );
}

#[test]
fn is_linked_at_the_end_of_the_window_and_not_past_it() {
    check(
        [request(T), exposure(T), click(T + CLICK_WINDOW)],
        &["request exposed", "request_exposure linked 0", "exposure_click linked 200", "triple complete"],
    );
    check(
        [request(T), exposure(T), click(T + CLICK_WINDOW + 1)],
        &["request exposed", "request_exposure linked 0", "exposure_click orphan", "triple broken"],
    );
}

#[test]
fn before_its_exposure_waits_for_the_skew_and_not_longer() {
    check(
        [request(T), click(T), exposure(T + SKEW)],
        &["request exposed", "request_exposure linked 10", "exposure_click linked 0", "triple complete"],
    );
    check(
        [request(T), click(T), exposure(T + SKEW + 1)],
        &["request exposed", "request_exposure linked 11", "exposure_click orphan", "triple broken"],
    );
}

#[test]
fn of_an_item_that_was_not_exposed_is_a_mismatch_when_another_one_was() {
    let exposed = ["request exposed", "request_exposure linked 0"];
    let mismatch = ["exposure_click mismatch", "triple broken"];
    let orphan = ["exposure_click orphan", "triple broken"];
    let other = || other_item(exposure(T));
    check([request(T), other(), click(T + CLICK_WINDOW)], &[exposed, mismatch].concat());
    check([request(T), other(), click(T + CLICK_WINDOW + 1)], &[exposed, orphan].concat());
    check([click(T - SKEW), request(T), other()], &[exposed, mismatch].concat());
    check([click(T - SKEW - 1), request(T), other()], &[exposed, orphan].concat());
}

#[test]
fn whose_own_exposure_is_out_of_the_window_is_no_mismatch_because_of_it() {
    let again = T + CLICK_WINDOW + SKEW + 1;
    check(
        [exposure(T), click(T + CLICK_WINDOW + 1), exposure(again + SKEW)],
        &["request_exposure orphan", "exposure_click orphan", "triple broken", "request_exposure orphan"],
    );
}

#[test]
fn linked_through_a_duplicate_has_the_fate_of_the_first() {
    check(
        [exposure(T), request(T + 50), exposure(T + 60), click(T + 70)],
        &[
            "request_exposure orphan",
            "request exposed",
            "exposure duplicate",
            "exposure_click linked 10",
            "triple broken",
        ],
    );
}

#[test]
fn linked_through_a_duplicate_is_linked_after_the_first_is_forgotten() {
    let duplicate = T + CLICK_WINDOW;
    check(
        [request(T), exposure(T), exposure(duplicate), click(duplicate + CLICK_WINDOW)],
        &[
            "request exposed",
            "request_exposure linked 0",
            "exposure duplicate",
            "exposure_click linked 200",
            "triple complete",
        ],
    );
}

#[test]
fn takes_the_exposure_of_the_latest_sighting() {
    let second = T + CLICK_WINDOW + 1;
    check(
        [request(T), exposure(T), exposure(second), click(second)],
        &[
            "request exposed",
            "request_exposure linked 0",
            "request_exposure orphan",
            "exposure_click linked 0",
            "triple broken",
        ],
    );
}

#[test]
fn linked_to_an_exposure_that_waits_is_judged_with_it() {
    check(
        [exposure(T), click(T), request(T + SKEW)],
        &["request exposed", "request_exposure linked 0", "exposure_click linked 0", "triple complete"],
    );
    check(
        [exposure(T), click(T), request(T + SKEW + 1)],
        &["request unexposed", "request_exposure orphan", "exposure_click linked 0", "triple broken"],
    );
}
