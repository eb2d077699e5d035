//! Ids that repeat though they should not: a release that sends one request id for all its requests, say, or one item id for
//! all items.
//!
//! What repeats is counted once, so such a release has few exposures and few broken links, and its figures look better
//! than those of any other. That ids repeat is no fault by itself: a request that is sent on to twenty servers is seen
//! twenty times, and an SDK may report what is on the screen again and again. It is one where it changes how much a request
//! shows, because then what repeats were not the same exposures and requests.

use serde::Serialize;

use crate::domain::Kind;

/// Of requests or exposures, how many more may repeat in one release than in the other.
const MAX_REPEATED_DIFFERENCE: f64 = 0.05;

/// By so much may what a request shows differ beside that, in parts of the smaller of the two.
const MAX_SHOWN_DIFFERENCE: f64 = 0.05;

/// Events of one kind of a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Seen {
    /// All of them.
    pub events: u64,
    /// Those that repeat an earlier one within its window: docs/semantics.md, "Duplicates".
    pub repeated: u64,
}

impl Seen {
    /// `None` without any events.
    pub fn repeated_share(&self) -> Option<f64> {
        (self.events > 0).then(|| self.repeated as f64 / self.events as f64)
    }

    /// Those that do not repeat one.
    pub const fn firsts(&self) -> u64 {
        self.events.saturating_sub(self.repeated)
    }
}

/// What of a release repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Repeats {
    /// Requests.
    pub requests: Seen,
    /// Exposures.
    pub exposures: Seen,
}

impl Repeats {
    /// So many events of this kind were taken in.
    pub fn add_events(&mut self, kind: Kind, count: u64) {
        if let Some(seen) = self.of(kind) {
            seen.events += count;
        }
    }

    /// So many of them were found to repeat an earlier one.
    pub fn add_repeated(&mut self, kind: Kind, count: u64) {
        if let Some(seen) = self.of(kind) {
            seen.repeated += count;
        }
    }

    const fn of(&mut self, kind: Kind) -> Option<&mut Seen> {
        match kind {
            Kind::Request => Some(&mut self.requests),
            Kind::Exposure => Some(&mut self.exposures),
            Kind::Click | Kind::Report => None,
        }
    }

    /// Exposures for each request, what repeats left out; `None` where no request is seen.
    pub fn shown(&self) -> Option<f64> {
        let requests = self.requests.firsts();
        (requests > 0).then(|| self.exposures.firsts() as f64 / requests as f64)
    }

    /// The kinds whose ids repeat in one of the two and not in the other, with both shares, where that changes how much a
    /// request shows. Where a release has no requests it is not known how much they show, and exposures that repeat have
    /// to do.
    pub fn differences(&self, other: &Self) -> Vec<(Kind, [f64; 2])> {
        let shows_the_same = match (self.shown(), other.shown()) {
            (Some(one), Some(two)) => (one - two).abs() <= MAX_SHOWN_DIFFERENCE * one.min(two),
            _ => false,
        };
        if shows_the_same {
            return Vec::new();
        }
        let kinds = [
            (Kind::Request, self.requests, other.requests),
            (Kind::Exposure, self.exposures, other.exposures),
        ];
        let differences = kinds.into_iter().filter_map(|(kind, one, two)| {
            let (one, two) = (one.repeated_share()?, two.repeated_share()?);
            ((one - two).abs() > MAX_REPEATED_DIFFERENCE).then_some((kind, [one, two]))
        });
        differences.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{Kind, Repeats, Seen};

    /// What repeats, after `new` that do not.
    const fn seen(new: u64, repeated: u64) -> Seen {
        Seen { events: new + repeated, repeated }
    }

    const GOOD: Repeats = Repeats { requests: seen(10_000, 0), exposures: seen(100_000, 1_000) };

    #[track_caller]
    fn check(canary: Repeats, expected: &[Kind]) {
        for (one, two) in [(GOOD, canary), (canary, GOOD)] {
            let kinds: Vec<Kind> = one.differences(&two).into_iter().map(|(kind, _)| kind).collect();
            assert_eq!(kinds, expected, "{one:?} and {two:?}");
        }
    }

    #[test]
    fn one_request_id_for_all_is_found_whether_or_not_its_items_repeat() {
        check(
            Repeats { requests: seen(1, 9_999), exposures: seen(400, 99_600) },
            &[Kind::Request, Kind::Exposure],
        );
        check(Repeats { requests: seen(1, 9_999), exposures: seen(98_000, 2_000) }, &[Kind::Request]);
        // One request in ten: a tenth of all is shown for one request.
        check(Repeats { requests: seen(9_001, 999), exposures: seen(99_000, 1_000) }, &[Kind::Request]);
    }

    #[test]
    fn one_item_id_for_all_is_found() {
        check(Repeats { requests: seen(10_000, 0), exposures: seen(10_000, 90_000) }, &[Kind::Exposure]);
    }

    #[test]
    fn what_is_seen_several_times_and_is_the_same_is_no_fault() {
        check(Repeats { requests: seen(10_000, 190_000), ..GOOD }, &[]);
        check(Repeats { exposures: seen(100_000, 100_000), ..GOOD }, &[]);
    }

    #[test]
    fn a_release_that_shows_more_is_no_fault() {
        check(Repeats { exposures: seen(200_000, 2_000), ..GOOD }, &[]);
    }

    #[test]
    fn where_no_request_is_seen_exposures_have_to_do() {
        let without = |exposures| Repeats { requests: seen(0, 0), exposures };
        assert_eq!(without(seen(10, 0)).differences(&without(seen(10, 90))), [(Kind::Exposure, [0.0, 0.9])]);
        assert_eq!(without(seen(10, 0)).differences(&without(seen(100, 1))), []);
        assert_eq!(Repeats::default().differences(&GOOD), []);
    }
}
