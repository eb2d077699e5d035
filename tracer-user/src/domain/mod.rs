//! The words of the field as plain types: what was observed ([`Event`]), what it came to
//! ([`Outcome`]), and what is known of the releases that did it ([`Releases`]).
//!
//! Deliberately absent: I/O, clocks, metrics, and any import from the other modules of this crate.
//! Everything else may import this.

mod counts;
mod event;
mod outcome;
mod release;

pub use counts::{
    ClickReportCounts, Counts, DuplicateCounts, EdgeCounts, ExposureClickCounts, KindCounts, RequestCounts,
    RequestExposureCounts, TripleCounts,
};
pub use event::{Event, Kind, Labels};
pub use outcome::{Edge, LinkOutcome, Outcome, RequestOutcome, Subject, TripleOutcome};
pub use release::{Release, ReleaseFacts, Releases};
