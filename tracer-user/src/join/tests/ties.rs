//! What comes first among events of one time.

use super::*;

#[test]
fn of_one_time_are_taken_as_request_exposure_click_report() {
    check_reports(
        [report(T), click(T), exposure(T), request(T)],
        &[
            "request exposed",
            "request_exposure linked 0",
            "exposure_click linked 0",
            "triple complete",
            "click_report reported",
        ],
    );
}

#[test]
fn of_one_time_and_kind_are_taken_in_order_of_arrival() {
    let mut join = Join::new(config());
    let mut outcomes = Vec::new();
    let labels = |service: &str| Arc::new(Labels { service: service.into(), ..Labels::default() });
    join.push(Event { labels: labels("first"), ..request(T) }, &mut outcomes);
    join.push(Event { labels: labels("second"), ..request(T) }, &mut outcomes);
    outcomes.clear();
    join.finish(&mut outcomes);
    assert!(outcomes.contains(&Outcome::Duplicate { kind: Kind::Request, labels: labels("second") }));
}

#[test]
fn of_one_time_link_to_what_they_are_taken_after() {
    check(
        [request(T - 5), exposure(T), request(T)],
        &["request exposed", "request duplicate", "request_exposure linked 0"],
    );
    check(
        [request(T - 5), exposure(T - 5), click(T), exposure(T)],
        &[
            "request exposed",
            "request_exposure linked 0",
            "exposure duplicate",
            "exposure_click linked 0",
            "triple complete",
        ],
    );
}
