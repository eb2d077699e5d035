//! An event as the join sees it: ids as fingerprints, labels as a small key.

use serde::{Deserialize, Serialize};

use crate::domain::{Kind, Subject};

/// A request id as a fingerprint of 128 bits, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestPrint(pub(super) [u64; 2]);

/// An item id as a fingerprint of 39 bits, or none. It is only ever compared within one request id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ItemPrint(pub(super) u64);

/// The name of a source as a fingerprint of 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SourcePrint(pub(super) u64);

/// Stands for one set of labels; [`LabelsTable`](super::LabelsTable) gives it out and knows what it means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LabelsKey(pub(super) u32);

impl RequestPrint {
    /// There is no request id.
    pub const MISSING: Self = Self([0, 0]);

    pub(super) fn is_missing(self) -> bool {
        self == Self::MISSING
    }
}

impl ItemPrint {
    /// There is no item id.
    pub const MISSING: Self = Self(0);
    /// Bits of it that are used.
    pub(super) const BITS: u32 = 39;
    pub(super) const MASK: u64 = (1 << Self::BITS) - 1;

    pub(super) fn is_missing(self) -> bool {
        self == Self::MISSING
    }
}

/// Spreads small numbers over all bits.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Stands for the request of an id, for [`Subject::causes`]; never 0.
fn request_cause(request: RequestPrint) -> u64 {
    request.0[0] | 1
}

/// Stands for the exposure of an item of a request, likewise.
fn exposure_cause(request: RequestPrint, item: ItemPrint) -> u64 {
    (request.0[1] ^ item.0.wrapping_mul(SPREAD)) | 1
}

/// An exposure that has no request.
pub(super) fn unlinked_exposure(timestamp_ns: u64, request: RequestPrint) -> Subject {
    Subject { timestamp_ns, causes: [request_cause(request), 0] }
}

/// A click that has no exposure, and its triple.
pub(super) fn unlinked_click(timestamp_ns: u64, request: RequestPrint, item: ItemPrint) -> Subject {
    Subject { timestamp_ns, causes: [0, exposure_cause(request, item)] }
}

/// A click whose exposure may have no request.
pub(super) fn triple(timestamp_ns: u64, request: RequestPrint, item: ItemPrint) -> Subject {
    Subject { timestamp_ns, causes: [request_cause(request), exposure_cause(request, item)] }
}

/// A click that a report of its process would cover.
pub(super) fn click_of_process(timestamp_ns: u64, (source, pid): (SourcePrint, u32)) -> Subject {
    Subject { timestamp_ns, causes: [(source.0 ^ u64::from(pid).wrapping_mul(SPREAD)) | 1, 0] }
}

/// One observation, of 56 bytes and without an allocation of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinEvent {
    /// When, in nanoseconds since the Unix epoch.
    pub timestamp_ns: u64,
    /// The request id; missing on a report.
    pub request: RequestPrint,
    /// The item id; missing on a request and on a report.
    pub item: ItemPrint,
    /// The capturing node.
    pub source: SourcePrint,
    /// Process id on that node.
    pub pid: u32,
    /// What the event is counted under.
    pub labels: LabelsKey,
    /// What was observed.
    pub kind: Kind,
    /// The service configures a report, so its clicks are judged on `click_report`.
    pub wants_report: bool,
}

impl JoinEvent {
    /// Whether it lacks an id that its kind must have.
    pub(super) fn lacks_an_id(&self) -> bool {
        match self.kind {
            Kind::Request => self.request.is_missing(),
            Kind::Exposure | Kind::Click => self.request.is_missing() || self.item.is_missing(),
            Kind::Report => false,
        }
    }
}

const _: () = assert!(size_of::<JoinEvent>() == 56);
