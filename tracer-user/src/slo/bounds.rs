//! Between what values the true broken-link ratio lies when events were lost.
//!
//! The derivation, edge by edge, is in docs/semantics.md ("Bounds when events were lost"). Here it is
//! only arithmetic: what was counted and what was lost in, two numbers out.

use serde::{Deserialize, Serialize};

use crate::domain::Edge;

/// How many events of each kind were lost, at most. An event of unknown kind is in each that it may
/// have been.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Losses {
    /// Lost requests.
    pub requests: u64,
    /// Lost exposures.
    pub exposures: u64,
    /// Lost clicks.
    pub clicks: u64,
    /// Lost reports.
    pub reports: u64,
    /// Nobody knows how many were lost.
    pub uncounted: bool,
}

impl Losses {
    /// Whether nothing was lost.
    pub fn is_none(self) -> bool {
        self == Self::default()
    }

    /// Both losses together.
    pub fn with(self, other: Self) -> Self {
        Self {
            requests: self.requests.saturating_add(other.requests),
            exposures: self.exposures.saturating_add(other.exposures),
            clicks: self.clicks.saturating_add(other.clicks),
            reports: self.reports.saturating_add(other.reports),
            uncounted: self.uncounted || other.uncounted,
        }
    }
}

/// What the events that were lost may have to do with the links of one edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Doubt {
    /// Broken links that would be whole, had the other end not been lost.
    pub(super) explained: u64,
    /// Links in no ratio that would be whole.
    pub(super) seen: u64,
    /// Broken links that can be explained at all: those that have their ids.
    pub(super) explainable: u64,
    /// Whole links that may be broken.
    pub(super) spoiled: u64,
    /// Links whose own event was lost. Each may stand in the place of one that was judged: that one
    /// would have been a duplicate.
    pub(super) own: u64,
    /// Links that are not judged yet and would be, and whole.
    pub(super) waiting: u64,
}

/// The least and the greatest that a ratio can be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    /// The least.
    pub lower: f64,
    /// The greatest.
    pub upper: f64,
}

impl Bounds {
    /// Nothing is known.
    pub const UNKNOWN: Self = Self { lower: 0.0, upper: 1.0 };

    /// The bounds of `broken` links of `broken + whole`; `None` when there is and can be no link.
    pub(super) fn of(broken: u64, whole: u64, doubt: &Doubt) -> Option<Self> {
        let explained = doubt.explained.min(doubt.explainable);
        let replaced = doubt.own.min(doubt.explainable - explained);
        let sum = |counts: &[u64]| counts.iter().fold(0_u64, |sum, count| sum.saturating_add(*count));
        let lower = ratio(
            broken.saturating_sub(explained + replaced),
            sum(&[whole, explained, doubt.seen, doubt.own, doubt.waiting]),
        );
        let worse = sum(&[doubt.spoiled, doubt.own]);
        let upper = ratio(sum(&[broken, worse]), whole.saturating_sub(worse));
        match (lower, upper) {
            (Some(lower), Some(upper)) => Some(Self { lower, upper }),
            // Where there is no link, there is none that a lost event could have broken.
            (None, _) => None,
            // Nothing was judged yet, and what waits or could not be judged would be whole.
            (Some(lower), None) => Some(Self { lower, upper: lower }),
        }
    }

    /// How far they are apart.
    pub fn width(self) -> f64 {
        self.upper - self.lower
    }
}

#[expect(clippy::cast_precision_loss, reason = "a ratio needs no more than 53 bits")]
fn ratio(broken: u64, whole: u64) -> Option<f64> {
    let all = broken.saturating_add(whole);
    (all > 0).then(|| broken as f64 / all as f64)
}

/// For how long after it a lost event can still have to do with new links.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reach {
    /// From a request to its exposures, in nanoseconds.
    pub exposure_window_ns: u64,
    /// From an exposure to its clicks, in nanoseconds.
    pub click_window_ns: u64,
    /// From a click to its report, in nanoseconds.
    pub report_window_ns: u64,
    /// The tolerance of clocks, in nanoseconds.
    pub skew_ns: u64,
}

impl Reach {
    /// How much later than a lost event the events are, at most, whose links of this edge it can
    /// change: of a lost request, exposure, click and report. `None`: it changes no link of the edge.
    pub(super) fn after_ns(&self, edge: Edge) -> [Option<u64>; 4] {
        let Self { exposure_window_ns, click_window_ns, skew_ns, .. } = *self;
        let sum = |spans: &[u64]| spans.iter().fold(0_u64, |sum, span| sum.saturating_add(*span));
        match edge {
            Edge::RequestExposure => [Some(exposure_window_ns), Some(click_window_ns), None, None],
            Edge::ExposureClick => [None, Some(click_window_ns), Some(click_window_ns), None],
            Edge::ClickReport => [None, None, Some(click_window_ns), Some(0)],
            Edge::Triple => [
                // A click of a repetition of an exposure of the request.
                Some(sum(&[exposure_window_ns, click_window_ns, click_window_ns, skew_ns])),
                Some(sum(&[click_window_ns, click_window_ns])),
                Some(click_window_ns),
                None,
            ],
        }
    }

    /// How much earlier than a lost event they are, at most.
    pub(super) fn before_ns(&self) -> u64 {
        self.report_window_ns.max(self.skew_ns.saturating_mul(2))
    }
}

#[cfg(test)]
mod tests {
    use super::{Bounds, Doubt};

    #[track_caller]
    fn check(broken: u64, whole: u64, doubt: Doubt, expected: Option<(f64, f64)>) {
        let bounds = Bounds::of(broken, whole, &doubt).map(|bounds| (bounds.lower, bounds.upper));
        assert_eq!(bounds, expected);
    }

    #[test]
    fn without_doubt_both_bounds_are_the_ratio() {
        check(1, 3, Doubt { explainable: 1, ..Doubt::default() }, Some((0.25, 0.25)));
        check(0, 0, Doubt::default(), None);
    }

    #[test]
    fn what_is_explained_is_whole_at_best_and_broken_at_worst() {
        check(3, 1, Doubt { explained: 2, explainable: 3, ..Doubt::default() }, Some((0.25, 0.75)));
        // A link without an id is broken whatever was lost.
        check(3, 1, Doubt { explained: 2, explainable: 1, ..Doubt::default() }, Some((0.5, 0.75)));
    }

    #[test]
    fn a_lost_event_is_a_link_of_its_own_that_may_stand_for_another() {
        check(0, 4, Doubt { own: 1, ..Doubt::default() }, Some((0.0, 0.25)));
        check(1, 3, Doubt { own: 1, explainable: 1, ..Doubt::default() }, Some((0.0, 0.5)));
        check(1, 3, Doubt { own: 1, ..Doubt::default() }, Some((0.2, 0.5)));
        check(0, 1, Doubt { own: 5, ..Doubt::default() }, Some((0.0, 1.0)));
    }

    #[test]
    fn what_waits_or_was_unseen_can_only_be_whole() {
        check(1, 3, Doubt { waiting: 1, seen: 3, ..Doubt::default() }, Some((0.125, 0.25)));
        check(0, 0, Doubt { waiting: 1, ..Doubt::default() }, Some((0.0, 0.0)));
    }

    #[test]
    fn whole_links_can_be_spoiled_and_no_more_of_them_than_there_are() {
        check(1, 3, Doubt { spoiled: 2, ..Doubt::default() }, Some((0.25, 0.75)));
        check(1, 3, Doubt { spoiled: 9, ..Doubt::default() }, Some((0.25, 1.0)));
    }
}
