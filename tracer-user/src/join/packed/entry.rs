//! What is remembered of an event.

use crate::domain::TripleOutcome;
use crate::join::event::ItemPrint;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Tag {
    /// A new request.
    Request,
    /// A repeated one.
    RequestAgain,
    /// A new exposure, and what it makes of the triple of a click that is linked to it. A packed group
    /// has at most one for each item.
    Exposure(TripleOutcome),
    /// A repeated one: it belongs to the exposure of its item.
    ExposureAgain,
    /// A new click.
    Click,
    /// A new exposure that waits for its request. A packed group has this in place of the first.
    ExposureWaits,
    /// A new click that waits for its exposure.
    ClickWaits,
}

impl Tag {
    pub(super) const fn code(self) -> u64 {
        match self {
            Self::Request => 1,
            Self::RequestAgain => 2,
            // 3 to 5.
            Self::Exposure(outcome) => 3 + outcome as u64,
            Self::ExposureAgain => 6,
            Self::Click => 7,
            Self::ExposureWaits => 8,
            Self::ClickWaits => 9,
        }
    }

    pub(super) const fn from_code(code: u64) -> Option<Self> {
        Some(match code {
            1 => Self::Request,
            2 => Self::RequestAgain,
            3 => Self::Exposure(TripleOutcome::Complete),
            4 => Self::Exposure(TripleOutcome::Broken),
            5 => Self::Exposure(TripleOutcome::Unseen),
            6 => Self::ExposureAgain,
            7 => Self::Click,
            8 => Self::ExposureWaits,
            9 => Self::ClickWaits,
            _ => return None,
        })
    }
}

/// One thing that is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Entry {
    pub(in super::super) timestamp_ns: u64,
    /// Missing on sightings of the request.
    pub(in super::super) item: ItemPrint,
    pub(in super::super) tag: Tag,
}
