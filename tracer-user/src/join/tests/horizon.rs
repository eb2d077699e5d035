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

/// A request before a gap, its exposure in it, a repetition and a click on it after it: what was not captured makes none of
/// them broken, and what is found across the gap is linked.
#[test]
fn after_a_gap_what_may_have_had_its_partner_in_it_is_never_broken() {
    let gap_ns = T + 20;
    let after = |events: &[Event], expected: &[&str]| {
        let mut join = Join::new(reporting());
        let mut outcomes = Vec::new();
        for event in events.iter().filter(|event| event.timestamp_ns < gap_ns) {
            join.push(event.clone(), &mut outcomes);
        }
        join.note_gap(gap_ns, &mut outcomes);
        for event in events.iter().filter(|event| event.timestamp_ns >= gap_ns) {
            join.push(event.clone(), &mut outcomes);
        }
        join.finish(&mut outcomes);
        assert!(join.pending().is_empty(), "{:?}", join.pending());
        let found = sorted(outcomes.iter().filter_map(words).collect());
        assert_eq!(found, sorted(expected.iter().map(|words| (*words).to_owned()).collect()));
    };
    after(&[request(T)], &["request evicted"]);
    after(&[request(gap_ns)], &["request unexposed"]);
    after(
        &[request(T), exposure(gap_ns + 1)],
        &["request exposed", &format!("request_exposure linked {}", gap_ns + 1 - T)],
    );
    // Past the window of its request, and it may repeat one in the gap.
    let repeated_ns = gap_ns + EXPOSURE_WINDOW;
    after(&[exposure(repeated_ns)], &["request_exposure unseen"]);
    after(
        &[exposure(repeated_ns), click(repeated_ns + 1)],
        &["request_exposure unseen", "exposure_click linked 1", "triple unseen"],
    );
    after(&[exposure(gap_ns + CLICK_WINDOW)], &["request_exposure orphan"]);
    // The report of a click before it.
    after(&[click(T)], &["exposure_click unseen", "triple unseen"]);
    let whole_ns = gap_ns + CLICK_WINDOW;
    after(&[click(whole_ns)], &["exposure_click orphan", "click_report unreported", "triple broken"]);
}
