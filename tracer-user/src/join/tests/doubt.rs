//! What may repeat something that was evicted is never broken, and neither is what depends on it.

use super::*;

/// A join that has evicted everything up to T, when it saw an exposure and a click of the pair.
fn evicted_at_t(config: JoinConfig) -> Join {
    evicted_after(config, &[request(T), exposure(T), click(T)])
}

/// A join that saw these events at T and has evicted everything up to then.
fn evicted_after(config: JoinConfig, events: &[Event]) -> Join {
    let mut join = Join::new(config);
    let mut outcomes = Vec::new();
    for event in events {
        join.push(event.clone(), &mut outcomes);
    }
    join.heartbeat(&"node-a".into(), T + 1, &mut outcomes);
    join.evict_until(T, &mut outcomes);
    assert_eq!(join.evicted().request_ids, 1);
    join
}

/// In truth the second is a repetition of what was evicted, the third is new and the fourth repeats the
/// third. After the eviction the second is new, the third its repetition, and the fourth new.
#[test]
fn goes_on_along_a_chain_of_repeated_exposures() {
    check_join(
        evicted_at_t(config()),
        [exposure(T + 80), exposure(T + 210), exposure(T + 290)],
        &["request_exposure unseen", "exposure duplicate", "request_exposure unseen"],
    );
}

#[test]
fn goes_on_along_a_chain_of_repeated_clicks() {
    let reports = evicted_at_t(reporting());
    let unseen = ["exposure_click unseen", "triple unseen"];
    check_join(
        reports,
        [click(T + 80), click(T + 210), click(T + 290)],
        &[&unseen[..], &["click duplicate"], &unseen].concat(),
    );
}

/// Nothing is linked to the exposure at T + 290 but a click, whose triple would be broken.
#[test]
fn reaches_the_triples_of_a_doubtful_exposure() {
    check_join(
        evicted_at_t(config()),
        [exposure(T + 80), exposure(T + 210), exposure(T + 290), click(T + 480)],
        &[
            "request_exposure unseen",
            "exposure duplicate",
            "request_exposure unseen",
            "exposure_click linked 190",
            "triple unseen",
        ],
    );
}

/// A click in doubt can be linked, and would be broken through its exposure.
#[test]
fn reaches_the_triples_of_a_doubtful_click() {
    let outcomes_of_clicks = ["exposure_click unseen", "triple unseen", "click duplicate"];
    check_join(
        evicted_at_t(config()),
        [click(T + 80), click(T + 210), exposure(T + 285), click(T + 290)],
        &[&outcomes_of_clicks[..], &["request_exposure orphan", "exposure_click linked 5", "triple unseen"]]
            .concat(),
    );
}

/// In truth the click is linked to the exposure that was evicted and not to the one after it, which is new and no
/// repetition, and has no request indeed.
#[test]
fn reaches_the_triple_of_a_click_that_would_have_been_linked_to_what_was_evicted() {
    let join = || evicted_after(config(), &[request(T), exposure(T)]);
    let linked = ["request_exposure orphan", "exposure_click linked 0"];
    let outcomes = [&linked[..], &["triple unseen"]].concat();
    check_join(join(), [click(T + 200), exposure(T + 205)], &outcomes);
    // The window of this one does not reach back so far.
    let outcomes = [&linked[..], &["triple broken"]].concat();
    check_join(join(), [click(T + 201), exposure(T + 205)], &outcomes);
}

/// After a pause of more than the click window everybody agrees on what is new.
#[test]
fn ends_with_a_pause_longer_than_the_click_window() {
    check_join(
        evicted_at_t(reporting()),
        [exposure(T + 80), click(T + 80), exposure(T + 281), click(T + 281)],
        &[
            "request_exposure unseen",
            "exposure_click linked 0",
            "triple unseen",
            "request_exposure orphan",
            "exposure_click linked 0",
            "triple broken",
            "click_report unreported",
        ],
    );
}

/// The chain is older than what is remembered of it but for one repetition; giving that up is an eviction as well.
#[test]
fn survives_another_eviction() {
    let mut join = evicted_at_t(reporting());
    let mut outcomes = Vec::new();
    for event in [click(T + 80), click(T + 210)] {
        join.push(event, &mut outcomes);
    }
    join.heartbeat(&"node-a".into(), T + 300, &mut outcomes);
    join.evict_until(T + 210, &mut outcomes);
    assert_eq!(join.evicted().request_ids, 2);
    check_join(join, [click(T + 400)], &["exposure_click unseen", "triple unseen"]);
}
