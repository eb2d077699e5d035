//! The cases that a plan is made of. Each writes its script and, beside it, what it adds to the truth; no
//! case shares an id with another, so the truth of a plan is the sum.
//!
//! A case relies on this of the service: what is asked for on one connection happens in order, and a click
//! at the main or victim process is followed by its own report.

use crate::domain::{
    Kind,
    LinkOutcome::{Linked, Mismatch, MissingId, Orphan, Reported, Unreported},
    RequestOutcome,
    TripleOutcome::{Broken, Complete},
};

use super::{
    plan::{Step, Target},
    script::{Recommend, Script},
};

/// A kind of case that has something wrong or unusual in it.
pub(super) struct Fault {
    /// How many such cases there are per thousand requests.
    pub(super) per_mille: u64,
    /// Writes the case of this running number, by which variants alternate.
    pub(super) write: fn(&mut Script, u64),
}

/// Every kind of fault, with its share.
pub(super) const FAULTS: &[Fault] = &[
    Fault { per_mille: 20, write: request_without_header },
    Fault { per_mille: 10, write: exposure_under_another_id },
    Fault { per_mille: 20, write: request_unexposed },
    Fault { per_mille: 10, write: click_without_exposure },
    Fault { per_mille: 10, write: click_on_another_item },
    Fault { per_mille: 10, write: click_not_reported },
    Fault { per_mille: 10, write: exposures_repeated },
    Fault { per_mille: 10, write: clicks_repeated },
    Fault { per_mille: 10, write: request_retried },
    Fault { per_mille: 5, write: request_with_empty_id },
    Fault { per_mille: 5, write: exposures_with_empty_ids },
    Fault { per_mille: 5, write: clicks_with_empty_ids },
    Fault { per_mille: 5, write: exposures_with_long_ids },
    Fault { per_mille: 5, write: clicks_with_long_ids },
    Fault { per_mille: 5, write: ids_of_exactly_the_limit },
];

/// Of the cases with nothing wrong in them, so many per cent get a click.
const CLICKED_PER_CENT: usize = 30;

/// A plain session; some get a click.
pub(super) fn everything_right(script: &mut Script) {
    let (id, items) = (script.new_id(), script.items());
    script.recommend(&Recommend { id: &id, items: &items, ..Recommend::default() });
    script.truth.request(RequestOutcome::Exposed);
    script.truth.exposures(items.len(), Linked);
    if script.random().below(100) < CLICKED_PER_CENT {
        let item = script.choose(&items);
        script.click(Target::Main, &id, &item);
        script.truth.click(Linked, Complete, Reported);
    }
}

/// The answer leaves without its id: there is no request event, and the exposures have nothing to hang on.
fn request_without_header(script: &mut Script, index: u64) {
    let (id, items) = (script.new_id(), script.items());
    script.recommend(&Recommend { id: &id, items: &items, header: false, ..Recommend::default() });
    script.truth.exposures(items.len(), Orphan);
    if index.is_multiple_of(2) {
        script.click(Target::Main, &id, &items[0]);
        script.truth.click(Linked, Broken, Reported);
    }
}

/// The application passes the SDK another id than it answered with. A click under the answer's id finds no
/// exposure, one under the SDK's finds an exposure that hangs on nothing.
fn exposure_under_another_id(script: &mut Script, index: u64) {
    let (id, other, items) = (script.new_id(), script.new_id(), script.items());
    script.recommend(&Recommend { id: &id, items: &items, expose_id: Some(&other), ..Recommend::default() });
    script.truth.request(RequestOutcome::Unexposed);
    script.truth.exposures(items.len(), Orphan);
    if index.is_multiple_of(2) {
        script.click(Target::Main, &id, &items[0]);
        script.truth.click(Orphan, Broken, Reported);
    } else {
        script.click(Target::Main, &other, &items[0]);
        script.truth.click(Linked, Broken, Reported);
    }
}

/// Nothing is shown for the request.
fn request_unexposed(script: &mut Script, _index: u64) {
    let id = script.new_id();
    script.recommend(&Recommend { id: &id, ..Recommend::default() });
    script.truth.request(RequestOutcome::Unexposed);
}

/// A click on a request that showed nothing, or that never was.
fn click_without_exposure(script: &mut Script, index: u64) {
    let id = script.new_id();
    if index.is_multiple_of(2) {
        script.recommend(&Recommend { id: &id, ..Recommend::default() });
        script.truth.request(RequestOutcome::Unexposed);
    }
    let item = script.item();
    script.click(Target::Main, &id, &item);
    script.truth.click(Orphan, Broken, Reported);
}

/// A click on an item that the request did not show.
fn click_on_another_item(script: &mut Script, _index: u64) {
    let (id, mut items) = (script.new_id(), script.items());
    let Some(not_shown) = items.pop() else { return };
    script.recommend(&Recommend { id: &id, items: &items, ..Recommend::default() });
    script.truth.request(RequestOutcome::Exposed);
    script.truth.exposures(items.len(), Linked);
    script.click(Target::Main, &id, &not_shown);
    script.truth.click(Mismatch, Broken, Reported);
}

/// The click's process reports nothing; the exposures come from that process or from another.
fn click_not_reported(script: &mut Script, index: u64) {
    let (id, items) = (script.new_id(), script.items());
    let target = if index.is_multiple_of(2) { Target::Main } else { Target::Silent };
    script.recommend(&Recommend { target, id: &id, items: &items, ..Recommend::default() });
    script.truth.request(RequestOutcome::Exposed);
    script.truth.exposures(items.len(), Linked);
    // The click goes over another connection: only then does the order have to be made sure of.
    script.step(Step::Settle(target));
    script.click(Target::Silent, &id, &items[0]);
    script.truth.click(Linked, Complete, Unreported);
}

/// Every exposure is tracked three times over.
fn exposures_repeated(script: &mut Script, _index: u64) {
    let (id, items) = (script.new_id(), script.items());
    script.recommend(&Recommend { id: &id, items: &items, repeat: 3, ..Recommend::default() });
    script.truth.request(RequestOutcome::Exposed);
    script.truth.exposures(items.len(), Linked);
    script.truth.duplicates(Kind::Exposure, 2 * items.len());
    script.click(Target::Main, &id, &items[0]);
    script.truth.click(Linked, Complete, Reported);
}

/// A click is tracked three times before its report, and once more with a report of its own.
fn clicks_repeated(script: &mut Script, _index: u64) {
    let (id, items) = (script.new_id(), script.items());
    script.recommend(&Recommend { id: &id, items: &items, ..Recommend::default() });
    script.truth.request(RequestOutcome::Exposed);
    script.truth.exposures(items.len(), Linked);
    script.click_repeatedly(Target::Main, &id, &items[0], 3);
    script.truth.click(Linked, Complete, Reported);
    script.truth.duplicates(Kind::Click, 2);
    script.click(Target::Main, &id, &items[0]);
    script.truth.duplicates(Kind::Click, 1);
    script.truth.reports(1);
}

/// The same request is answered twice, the second time with the same items or with none.
fn request_retried(script: &mut Script, index: u64) {
    let (id, items) = (script.new_id(), script.items());
    script.recommend(&Recommend { id: &id, items: &items, ..Recommend::default() });
    script.truth.request(RequestOutcome::Exposed);
    script.truth.exposures(items.len(), Linked);
    let again = if index.is_multiple_of(2) { items.as_slice() } else { &[] };
    script.recommend(&Recommend { id: &id, items: again, ..Recommend::default() });
    script.truth.duplicates(Kind::Request, 1);
    script.truth.duplicates(Kind::Exposure, again.len());
    script.click(Target::Main, &id, &items[0]);
    script.truth.click(Linked, Complete, Reported);
}

/// The header is there and empty, and so is the id that the SDK gets.
fn request_with_empty_id(script: &mut Script, _index: u64) {
    let items = script.items();
    script.recommend(&Recommend { items: &items, ..Recommend::default() });
    script.truth.request(RequestOutcome::MissingId);
    script.truth.exposures(items.len(), MissingId);
}

/// The SDK gets an empty request id or an empty item id.
fn exposures_with_empty_ids(script: &mut Script, index: u64) {
    let (id, mut items) = (script.new_id(), script.items());
    if index.is_multiple_of(2) {
        script.recommend(&Recommend { id: &id, items: &items, expose_id: Some(""), ..Recommend::default() });
        script.truth.request(RequestOutcome::Unexposed);
        script.truth.exposures(items.len(), MissingId);
    } else {
        items[1] = String::new();
        script.recommend(&Recommend { id: &id, items: &items, ..Recommend::default() });
        script.truth.request(RequestOutcome::Exposed);
        script.truth.exposures(items.len() - 1, Linked);
        script.truth.exposures(1, MissingId);
    }
}

/// One click without its request id, one without its item id. Each is a broken triple and is reported.
fn clicks_with_empty_ids(script: &mut Script, _index: u64) {
    let (id, items) = (script.new_id(), script.items());
    script.recommend(&Recommend { id: &id, items: &items, ..Recommend::default() });
    script.truth.request(RequestOutcome::Exposed);
    script.truth.exposures(items.len(), Linked);
    for (request_id, item_id) in [("", items[0].as_str()), (&id, "")] {
        script.click(Target::Main, request_id, item_id);
        script.truth.click(MissingId, Broken, Reported);
    }
}

/// Ids over the capture limit: such exposures are lost, with a reason, and never become events.
fn exposures_with_long_ids(script: &mut Script, index: u64) {
    let (id, mut items) = (script.new_id(), script.items());
    if index.is_multiple_of(2) {
        items[0] = script.one_byte_too_long(&items[0]);
        items[1] = script.far_too_long(&items[1]);
        script.recommend(&Recommend { id: &id, items: &items, ..Recommend::default() });
        script.truth.request(RequestOutcome::Exposed);
        script.truth.exposures(items.len() - 2, Linked);
        script.truth.lost(2);
    } else {
        let too_long = if index % 4 == 1 { script.one_byte_too_long(&id) } else { script.far_too_long(&id) };
        script.recommend(&Recommend {
            id: &id,
            items: &items,
            expose_id: Some(&too_long),
            ..Recommend::default()
        });
        script.truth.request(RequestOutcome::Unexposed);
        script.truth.lost(items.len());
    }
}

/// Clicks with ids over the capture limit are lost; their reports are not.
fn clicks_with_long_ids(script: &mut Script, _index: u64) {
    let (id, items) = (script.new_id(), script.items());
    script.recommend(&Recommend { id: &id, items: &items, ..Recommend::default() });
    script.truth.request(RequestOutcome::Exposed);
    script.truth.exposures(items.len(), Linked);
    let long_items = [script.one_byte_too_long(&items[0]), script.far_too_long(&items[0])];
    let long_ids = [script.one_byte_too_long(&id), script.far_too_long(&id)];
    for item in &long_items {
        script.click(Target::Main, &id, item);
    }
    for long_id in &long_ids {
        script.click(Target::Main, long_id, &items[0]);
    }
    script.truth.lost(4);
    script.truth.reports(4);
}

/// Ids of exactly the capture limit are whole, and link.
fn ids_of_exactly_the_limit(script: &mut Script, _index: u64) {
    let (mut id, mut items) = (script.new_id(), script.items());
    id = script.pad(&id, script.max_id_len);
    items[0] = script.pad(&items[0], script.max_id_len);
    script.recommend(&Recommend { id: &id, items: &items, ..Recommend::default() });
    script.truth.request(RequestOutcome::Exposed);
    script.truth.exposures(items.len(), Linked);
    script.click(Target::Main, &id, &items[0]);
    script.truth.click(Linked, Complete, Reported);
}

/// A process shows items for `sessions` requests and is killed; the clicks arrive at another process, and
/// nothing is wrong with them.
pub(super) fn killed_between_exposure_and_click(script: &mut Script, sessions: u64) {
    let mut shown = Vec::new();
    for _ in 0..sessions {
        let (id, items) = (script.new_id(), script.items());
        script.recommend(&Recommend {
            target: Target::Victim,
            id: &id,
            items: &items,
            ..Recommend::default()
        });
        script.truth.request(RequestOutcome::Exposed);
        script.truth.exposures(items.len(), Linked);
        shown.push((id, script.choose(&items)));
    }
    // The last answer is out before its exposures are tracked.
    script.step(Step::Settle(Target::Victim));
    script.step(Step::KillVictim);
    for (id, item) in shown {
        script.click(Target::Main, &id, &item);
        script.truth.click(Linked, Complete, Reported);
    }
}
