//! What evicted state leaves in doubt, and a time that nobody captured.
//!
//! Once the memory of exposures or clicks up to a time was given up, nobody can say of an exposure or a
//! click that reaches back to that time whether it repeats one of them. It may be completed like any
//! other, and is never found broken: with all its memory, the join might have called it a duplicate.
//!
//! Doubt goes on: whether the next one counts as new depends on which of those before it did. So one that
//! follows a repetition of a doubtful one within the click window is doubtful as well. That is known of
//! each one in an open group; what is here goes by time alone.

use serde::{Deserialize, Serialize};

use super::config::JoinConfig;
use crate::domain::{Kind, Outcome, RequestOutcome, TripleOutcome};

/// Up to when memory was given up, by kind: the nanosecond after the newest sighting that was evicted, or the end of the
/// last gap, or 0.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct Doubts {
    /// Of gaps alone: a request before this may have been exposed in one.
    pub(super) requests_ns: u64,
    pub(super) exposures_ns: u64,
    pub(super) clicks_ns: u64,
}

impl Doubts {
    /// Nothing was captured for some time before this one, in nanoseconds since the Unix epoch.
    pub(super) fn note_gap(&mut self, until_ns: u64) {
        for doubt_ns in [&mut self.requests_ns, &mut self.exposures_ns, &mut self.clicks_ns] {
            *doubt_ns = until_ns.max(*doubt_ns);
        }
    }

    /// What becomes of a request of this time that nothing was seen to be shown for.
    pub(super) fn unexposed<L>(&self, request_ns: u64, labels: L) -> Outcome<L> {
        if request_ns < self.requests_ns {
            Outcome::Evicted { kind: Kind::Request, labels }
        } else {
            Outcome::Request { outcome: RequestOutcome::Unexposed, labels }
        }
    }

    /// An exposure at this time may repeat one that was evicted itself.
    pub(super) fn is_exposure_in_doubt(&self, config: &JoinConfig, exposure_ns: u64) -> bool {
        exposure_ns.saturating_sub(config.click_window_ns) < self.exposures_ns
    }

    /// A click at this time may repeat one that was evicted itself.
    pub(super) fn is_click_in_doubt(&self, config: &JoinConfig, click_ns: u64) -> bool {
        click_ns.saturating_sub(config.click_window_ns) < self.clicks_ns
    }

    /// A click at this time that is linked to this sighting may have lost a better one: of those before it, any would
    /// have been.
    pub(super) fn may_lack_a_sighting(&self, config: &JoinConfig, click_ns: u64, sighted_ns: u64) -> bool {
        sighted_ns > click_ns && click_ns.saturating_sub(config.click_window_ns) < self.exposures_ns
    }

    /// The triple of a click at this time, when the exposure that it is linked to makes this of it.
    pub(super) fn triple(&self, config: &JoinConfig, click_ns: u64, outcome: TripleOutcome) -> TripleOutcome {
        if outcome == TripleOutcome::Broken && self.is_click_in_doubt(config, click_ns) {
            TripleOutcome::Unseen
        } else {
            outcome
        }
    }
}
