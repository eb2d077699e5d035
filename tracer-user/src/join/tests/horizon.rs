//! What absence proves, and since when.

use super::*;

fn horizon(kind: Kind, timestamp_ns: u64) -> Join {
    let mut join = Join::new(config());
    join.set_horizon(kind, timestamp_ns);
    join
}

#[test]
fn of_requests_makes_an_orphan_exposure_unseen() {
    let start = T - EXPOSURE_WINDOW;
    check_join(horizon(Kind::Request, start), [exposure(T)], &["request_exposure orphan"]);
    check_join(horizon(Kind::Request, start + 1), [exposure(T)], &["request_exposure unseen"]);
}

#[test]
fn of_exposures_makes_an_orphan_or_mismatched_click_unseen() {
    let start = T - CLICK_WINDOW;
    let unseen = ["exposure_click unseen", "triple unseen"];
    check_join(horizon(Kind::Exposure, start), [click(T)], &["exposure_click orphan", "triple broken"]);
    check_join(horizon(Kind::Exposure, start + 1), [click(T)], &unseen);
    check_join(
        horizon(Kind::Exposure, start + 1),
        [other_item(exposure(T)), click(T)],
        &[&["request_exposure orphan"][..], &unseen].concat(),
    );
}

#[test]
fn leaves_the_triple_of_an_unseen_exposure_unseen() {
    check_join(
        horizon(Kind::Request, T),
        [exposure(T), click(T)],
        &["request_exposure unseen", "exposure_click linked 0", "triple unseen"],
    );
}

#[test]
fn takes_nothing_from_what_is_linked() {
    check_join(
        horizon(Kind::Request, T + 1),
        [request(T), exposure(T)],
        &["request exposed", "request_exposure linked 0"],
    );
}

#[test]
fn never_moves_down() {
    let mut join = horizon(Kind::Request, T);
    join.set_horizon(Kind::Request, 0);
    check_join(join, [exposure(T)], &["request_exposure unseen"]);
}

#[test]
fn at_the_epoch_covers_everything() {
    check_join(horizon(Kind::Request, 0), [exposure(0)], &["request_exposure orphan"]);
}
