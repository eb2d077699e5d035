//! How much waits, and whether every event is accounted for.

use std::fmt;

use crate::domain::{Counts, Kind, KindCounts};

/// The sizes of the join's tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pending {
    /// Events in the reorder buffer.
    pub buffered: KindCounts,
    /// Requests for which nothing has been shown yet.
    pub requests: u64,
    /// Exposures without their request.
    pub exposures: u64,
    /// Clicks without their exposure.
    pub clicks: u64,
    /// Clicks not yet covered by a report.
    pub click_reports: u64,
    /// Clicks linked to an exposure that waits itself.
    pub triples: u64,
    /// Request ids of which anything is remembered.
    pub request_ids: u64,
}

/// Events of a kind that are in no place, or in two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Imbalance {
    /// What was observed.
    pub kind: Kind,
    /// Events taken in.
    pub received: u64,
    /// Events found: in an outcome, duplicate, without an id, waiting, or late without an outcome.
    pub found: u64,
}

impl fmt::Display for Imbalance {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, received, found } = self;
        write!(formatter, "{received} {} events were received and {found} are accounted for", kind.name())
    }
}

impl std::error::Error for Imbalance {}

impl Pending {
    /// Each table's name in metric labels and its size.
    pub fn tables(&self) -> [(&'static str, u64); 7] {
        let buffered = Kind::ALL.map(|kind| self.buffered[kind]);
        [
            ("reorder_buffer", sum(&buffered)),
            ("requests", self.requests),
            ("exposures", self.exposures),
            ("clicks", self.clicks),
            ("click_reports", self.click_reports),
            ("triples", self.triples),
            ("request_ids", self.request_ids),
        ]
    }

    /// Whether everything has been decided and forgotten.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Checks that each event counted as received is in exactly one place. `counts` must hold every
    /// outcome of the join. A click's place is its `exposure_click` link. A report is judged by the
    /// clicks it covers and has no place after the buffer.
    pub fn check_accounting(&self, counts: &Counts) -> Result<(), Imbalance> {
        let late = &counts.late_without_outcome;
        let requests = &counts.requests;
        let exposures = &counts.edges.request_exposure;
        let clicks = &counts.edges.exposure_click;
        let request = [requests.exposed, requests.unexposed, requests.missing_id];
        let exposure = [exposures.linked, exposures.orphan, exposures.missing_id, exposures.unseen];
        let click = [clicks.linked, clicks.mismatch, clicks.orphan, clicks.missing_id, clicks.unseen];
        let evicted = counts.evicted[Kind::Request];
        let settled = [
            (
                Kind::Request,
                evicted + sum(&request) + counts.duplicate.request + late[Kind::Request] + self.requests,
            ),
            (
                Kind::Exposure,
                sum(&exposure) + counts.duplicate.exposure + late[Kind::Exposure] + self.exposures,
            ),
            (Kind::Click, sum(&click) + counts.duplicate.click + late[Kind::Click] + self.clicks),
        ];
        for (kind, settled) in settled {
            let received = counts.events[kind];
            let found = settled + self.buffered[kind];
            if received != found {
                return Err(Imbalance { kind, received, found });
            }
        }
        self.check_triples(counts)
    }

    /// Each click that is linked, broken or unseen has one triple, or waits for it.
    fn check_triples(&self, counts: &Counts) -> Result<(), Imbalance> {
        let clicks = &counts.edges.exposure_click;
        let triples = &counts.edges.triple;
        let received = clicks.linked + clicks.mismatch + clicks.orphan + clicks.missing_id + clicks.unseen;
        let found = triples.complete + triples.broken + triples.unseen + self.triples;
        if received == found { Ok(()) } else { Err(Imbalance { kind: Kind::Click, received, found }) }
    }
}

fn sum(counts: &[u64]) -> u64 {
    counts.iter().sum()
}
