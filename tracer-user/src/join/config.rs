//! What a user can choose about the join, and the durations that follow from it.

use std::collections::BTreeSet;

use crate::domain::Labels;

/// Which services' clicks are judged on `click_report`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reports {
    /// Those of every service.
    All,
    /// Those of the services named here.
    Services(BTreeSet<Box<str>>),
}

impl Reports {
    /// No service has reports.
    pub fn none() -> Self {
        Self::Services(BTreeSet::new())
    }

    pub(super) fn is_none(&self) -> bool {
        matches!(self, Self::Services(services) if services.is_empty())
    }

    pub(super) fn include(&self, labels: &Labels) -> bool {
        match self {
            Self::All => true,
            Self::Services(services) => services.contains(&labels.service),
        }
    }
}

/// The windows of the join, all in nanoseconds and all inclusive at both ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinConfig {
    /// From a request to its exposures.
    pub exposure_window_ns: u64,
    /// From an exposure to its clicks.
    pub click_window_ns: u64,
    /// From a click to the report that covers it.
    pub report_window_ns: u64,
    /// How far out of order the events of one source may arrive.
    pub lateness_ns: u64,
    /// How far the clocks of two sources may disagree.
    pub skew_ns: u64,
    /// A source this far behind the newest one no longer holds the watermark back.
    pub idle_timeout_ns: u64,
    /// Which services configure a report.
    pub reports: Reports,
    /// The most memory that the join's state may take, in bytes, spare capacity included. Past it
    /// the oldest state is evicted. It cannot be kept below [`JoinConfig::MIN_MEMORY_LIMIT_BYTES`].
    pub memory_limit_bytes: u64,
}

impl Default for JoinConfig {
    fn default() -> Self {
        const SECOND_NS: u64 = 1_000_000_000;
        Self {
            exposure_window_ns: 600 * SECOND_NS,
            click_window_ns: 1800 * SECOND_NS,
            report_window_ns: 30 * SECOND_NS,
            lateness_ns: 2 * SECOND_NS,
            skew_ns: SECOND_NS / 10,
            idle_timeout_ns: 10 * SECOND_NS,
            reports: Reports::none(),
            memory_limit_bytes: 1 << 30,
        }
    }
}

impl JoinConfig {
    /// What an empty join takes, and room for the events that are taken between two looks at the
    /// limit.
    pub const MIN_MEMORY_LIMIT_BYTES: u64 = 1 << 20;

    /// How long a sighting of a request can matter to an event that is not late: the oldest request
    /// that an exposure may look back to, still needed when that exposure stops waiting.
    pub(super) fn request_retention_ns(&self) -> u64 {
        self.exposure_window_ns.saturating_add(self.skew_ns)
    }

    /// The same for a sighting of an exposure or of a click.
    pub(super) fn click_retention_ns(&self) -> u64 {
        self.click_window_ns.saturating_add(self.skew_ns)
    }

    /// The longest that any of them can matter.
    pub(super) fn retention_ns(&self) -> u64 {
        self.request_retention_ns().max(self.click_retention_ns())
    }
}
