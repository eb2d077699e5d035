//! The words of the field as plain types: what was observed ([`Event`]) and what it came to
//! ([`Outcome`]).
//!
//! Deliberately absent: I/O, clocks, metrics, and any import from the other modules of this crate.
//! Everything else may import this.

mod counts;
mod event;
mod outcome;

pub use counts::{
    ClickReportCounts, Counts, DuplicateCounts, EdgeCounts, ExposureClickCounts, KindCounts, RequestCounts,
    RequestExposureCounts, TripleCounts,
};
pub use event::{Event, Kind, Labels};
pub use outcome::{Edge, LinkOutcome, Outcome, RequestOutcome, TripleOutcome};
