//! What was observed.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// What kind of thing was observed. The order of the variants is the order in which the join takes
/// events of one timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// A recommendation request left (or its answer did), carrying a request id.
    Request,
    /// The tracking SDK's exposure function ran.
    Exposure,
    /// The tracking SDK's click function ran.
    Click,
    /// A click report connected to a collector.
    Report,
}

impl Kind {
    /// Every kind, in the order of ties.
    pub const ALL: [Self; 4] = [Self::Request, Self::Exposure, Self::Click, Self::Report];

    /// The kind's name in files and in metric labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Exposure => "exposure",
            Self::Click => "click",
            Self::Report => "report",
        }
    }
}

/// What an event is counted under. One allocation per process release, shared by its events.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Labels {
    /// The configured name of the service; empty when unknown.
    pub service: Box<str>,
    /// What the process runs: commit or version; empty when unknown.
    pub release: Box<str>,
    /// The A/B group of the process; empty when it has none.
    pub group: Box<str>,
}

/// One observation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// What was observed.
    pub kind: Kind,
    /// When, in nanoseconds since the Unix epoch.
    pub timestamp_ns: u64,
    /// The capturing node. It has its own clock and its own watermark.
    pub source: Arc<str>,
    /// Process id on that node (the thread group's).
    pub pid: u32,
    /// Thread id on that node.
    pub tid: u32,
    /// What the event is counted under.
    pub labels: Arc<Labels>,
    /// Request id. Empty when the service passed none; always empty on a report.
    pub request_id: Box<str>,
    /// Item id. Empty when the service passed none; always empty on a request and on a report.
    pub item_id: Box<str>,
    /// The other end of the connection, as `address:port`, where there is one.
    pub peer: Option<Box<str>>,
}
