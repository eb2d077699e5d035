//! What the join decided.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Kind, Labels};

/// An edge between two events of one id, or the whole triple.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Edge {
    /// Does the exposure have its request?
    RequestExposure,
    /// Does the click have its exposure?
    ExposureClick,
    /// Was the click reported?
    ClickReport,
    /// Are click, exposure and request one chain?
    Triple,
}

impl Edge {
    /// Every edge, in the order of the funnel.
    pub const ALL: [Self; 4] = [Self::RequestExposure, Self::ExposureClick, Self::ClickReport, Self::Triple];

    /// The edge's name in files and in metric labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RequestExposure => "request_exposure",
            Self::ExposureClick => "exposure_click",
            Self::ClickReport => "click_report",
            Self::Triple => "triple",
        }
    }
}

/// What became of one link. Which outcomes an edge can have is in docs/semantics.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LinkOutcome {
    /// Both ends were seen (`request_exposure`, `exposure_click`).
    Linked,
    /// Another item of the same request was shown instead (`exposure_click` only).
    Mismatch,
    /// The other end is missing (`request_exposure`, `exposure_click`).
    Orphan,
    /// The event carries no id to link by (`request_exposure`, `exposure_click`).
    MissingId,
    /// The other end may have been before the coverage horizon; left out of every ratio.
    Unseen,
    /// A report covers the click (`click_report` only).
    Reported,
    /// No report covers the click (`click_report` only).
    Unreported,
}

impl LinkOutcome {
    /// Every outcome.
    pub const ALL: [Self; 7] = [
        Self::Linked,
        Self::Mismatch,
        Self::Orphan,
        Self::MissingId,
        Self::Unseen,
        Self::Reported,
        Self::Unreported,
    ];

    /// The outcome's name in files and in metric labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Linked => "linked",
            Self::Mismatch => "mismatch",
            Self::Orphan => "orphan",
            Self::MissingId => "missing_id",
            Self::Unseen => "unseen",
            Self::Reported => "reported",
            Self::Unreported => "unreported",
        }
    }

    /// Does it count as broken in its edge's ratio? `None` when it is left out.
    pub const fn is_broken(self) -> Option<bool> {
        match self {
            Self::Linked | Self::Reported => Some(false),
            Self::Mismatch | Self::Orphan | Self::MissingId | Self::Unreported => Some(true),
            Self::Unseen => None,
        }
    }
}

/// What became of one triple (one click that is not a duplicate).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TripleOutcome {
    /// Click, exposure and request are one chain.
    Complete,
    /// At least one link of the chain is broken.
    Broken,
    /// Some link could not be judged and none is known to be broken.
    Unseen,
}

impl TripleOutcome {
    /// Every outcome.
    pub const ALL: [Self; 3] = [Self::Complete, Self::Broken, Self::Unseen];

    /// The outcome's name in files and in metric labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Broken => "broken",
            Self::Unseen => "unseen",
        }
    }

    /// Does it count as broken in the ratio of triples? `None` when it is left out.
    pub const fn is_broken(self) -> Option<bool> {
        match self {
            Self::Complete => Some(false),
            Self::Broken => Some(true),
            Self::Unseen => None,
        }
    }
}

/// What became of one new request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RequestOutcome {
    /// Something was shown for it.
    Exposed,
    /// Nothing was shown for it within the exposure window.
    Unexposed,
    /// It carries no id.
    MissingId,
}

impl RequestOutcome {
    /// The outcome's name in files and in metric labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exposed => "exposed",
            Self::Unexposed => "unexposed",
            Self::MissingId => "missing_id",
        }
    }
}

/// The event that a link or a triple is about, as far as it matters which one it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Subject {
    /// When it happened, in nanoseconds since the Unix epoch.
    pub timestamp_ns: u64,
    /// Stand for the events that would make the link whole, had they only been lost: links with the
    /// same number in the same place wait for the same event. 0: no such event would. In the first
    /// place the request (on `request_exposure` and the triple) or the report of the process (on
    /// `click_report`), in the second one the exposure of the item (on `exposure_click` and the triple).
    /// A link that is whole may have none.
    pub causes: [u64; 2],
}

impl Subject {
    /// An event at this time that nothing can explain, or that needs no explanation.
    pub const fn at(timestamp_ns: u64) -> Self {
        Self { timestamp_ns, causes: [0, 0] }
    }
}

/// One decision of the join. The labels are always those of the event that is judged: the exposure
/// on `request_exposure`; the click on `exposure_click`, `click_report` and the triple. `L` is how
/// they are given: shared, or as a small key that stands for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome<L = Arc<Labels>> {
    /// An event was taken in. Exactly one of these per event pushed.
    Received {
        /// What was observed.
        kind: Kind,
        /// Counted under.
        labels: L,
    },
    /// The event repeats an earlier one.
    Duplicate {
        /// What was observed.
        kind: Kind,
        /// Counted under.
        labels: L,
    },
    /// The event was older than the watermark when it arrived. Comes beside whatever else becomes of it.
    Late {
        /// What was observed.
        kind: Kind,
        /// Counted under.
        labels: L,
    },
    /// A late event came to nothing that can be counted: what would have completed it may have been
    /// forgotten before it arrived. It appears in no ratio; this keeps its place in the accounting.
    LateWithoutOutcome {
        /// What was observed.
        kind: Kind,
        /// Counted under.
        labels: L,
    },
    /// The event was waiting when its state was given up to keep the memory bound, and nothing can be
    /// said of it. Only requests come to this: what else waits becomes unseen.
    Evicted {
        /// What was observed.
        kind: Kind,
        /// Counted under.
        labels: L,
    },
    /// A new request was judged.
    Request {
        /// The judgement.
        outcome: RequestOutcome,
        /// Counted under.
        labels: L,
    },
    /// A link was judged. Never [`Edge::Triple`].
    Link {
        /// Which link.
        edge: Edge,
        /// The judgement.
        outcome: LinkOutcome,
        /// The event that is judged.
        subject: Subject,
        /// Time from the earlier end to the later one in nanoseconds, for a `Linked` outcome; 0 when
        /// the clocks disagree within the tolerance.
        delay_ns: Option<u64>,
        /// Counted under.
        labels: L,
    },
    /// A triple was judged.
    Triple {
        /// The judgement.
        outcome: TripleOutcome,
        /// The click.
        subject: Subject,
        /// Counted under.
        labels: L,
    },
}

impl<L> Outcome<L> {
    /// The same decision with its labels given in another way.
    pub fn map_labels<M>(self, map: impl FnOnce(L) -> M) -> Outcome<M> {
        match self {
            Self::Received { kind, labels } => Outcome::Received { kind, labels: map(labels) },
            Self::Duplicate { kind, labels } => Outcome::Duplicate { kind, labels: map(labels) },
            Self::Late { kind, labels } => Outcome::Late { kind, labels: map(labels) },
            Self::LateWithoutOutcome { kind, labels } => {
                Outcome::LateWithoutOutcome { kind, labels: map(labels) }
            }
            Self::Evicted { kind, labels } => Outcome::Evicted { kind, labels: map(labels) },
            Self::Request { outcome, labels } => Outcome::Request { outcome, labels: map(labels) },
            Self::Link { edge, outcome, subject, delay_ns, labels } => {
                Outcome::Link { edge, outcome, subject, delay_ns, labels: map(labels) }
            }
            Self::Triple { outcome, subject, labels } => {
                Outcome::Triple { outcome, subject, labels: map(labels) }
            }
        }
    }
}
