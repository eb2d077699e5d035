//! How often each thing happened: what `linktracer replay` prints.

use std::ops::{Index, IndexMut};

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use super::{Edge, Kind, LinkOutcome, Outcome, RequestOutcome, TripleOutcome};

/// One number per kind of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KindCounts([u64; Kind::ALL.len()]);

impl Index<Kind> for KindCounts {
    type Output = u64;

    fn index(&self, kind: Kind) -> &u64 {
        &self.0[kind as usize]
    }
}

impl IndexMut<Kind> for KindCounts {
    fn index_mut(&mut self, kind: Kind) -> &mut u64 {
        &mut self.0[kind as usize]
    }
}

impl Serialize for KindCounts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("KindCounts", Kind::ALL.len())?;
        for kind in Kind::ALL {
            object.serialize_field(kind.name(), &self[kind])?;
        }
        object.end()
    }
}

/// Repeated events. Reports have no identity to repeat, so there is no number for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct DuplicateCounts {
    /// Repeated requests.
    pub request: u64,
    /// Repeated exposures.
    pub exposure: u64,
    /// Repeated clicks.
    pub click: u64,
}

/// What became of the `request_exposure` links.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct RequestExposureCounts {
    /// The exposure has its request.
    pub linked: u64,
    /// It has none.
    pub orphan: u64,
    /// It lacks an id.
    pub missing_id: u64,
    /// Its request may have been before the coverage horizon.
    pub unseen: u64,
}

/// What became of the `exposure_click` links.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct ExposureClickCounts {
    /// The click has its exposure.
    pub linked: u64,
    /// Another item of the same request was shown.
    pub mismatch: u64,
    /// Nothing of its request was shown.
    pub orphan: u64,
    /// It lacks an id.
    pub missing_id: u64,
    /// Its exposure may have been before the coverage horizon.
    pub unseen: u64,
}

/// What became of the `click_report` links.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct ClickReportCounts {
    /// A report covers the click.
    pub reported: u64,
    /// None does.
    pub unreported: u64,
}

/// What became of the triples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct TripleCounts {
    /// Click, exposure and request are one chain.
    pub complete: u64,
    /// A link of the chain is broken.
    pub broken: u64,
    /// A link could not be judged and none is known to be broken.
    pub unseen: u64,
}

/// The judgements of every edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct EdgeCounts {
    /// Exposures, by whether they have their request.
    pub request_exposure: RequestExposureCounts,
    /// Clicks, by whether they have their exposure.
    pub exposure_click: ExposureClickCounts,
    /// Clicks, by whether they were reported.
    pub click_report: ClickReportCounts,
    /// Clicks, by whether their whole chain is there.
    pub triple: TripleCounts,
}

impl EdgeCounts {
    /// The edge's known broken links and its known whole ones; what is unseen is in neither.
    pub fn broken_and_whole(&self, edge: Edge) -> (u64, u64) {
        match edge {
            Edge::RequestExposure => {
                let counts = &self.request_exposure;
                (counts.orphan + counts.missing_id, counts.linked)
            }
            Edge::ExposureClick => {
                let counts = &self.exposure_click;
                (counts.mismatch + counts.orphan + counts.missing_id, counts.linked)
            }
            Edge::ClickReport => (self.click_report.unreported, self.click_report.reported),
            Edge::Triple => (self.triple.broken, self.triple.complete),
        }
    }
}

/// What became of the new requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct RequestCounts {
    /// Something was shown for the request.
    pub exposed: u64,
    /// Nothing was.
    pub unexposed: u64,
    /// It lacks an id.
    pub missing_id: u64,
}

/// Every outcome of a run, counted. Serialises to the object that `linktracer replay --output json`
/// prints, keys in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Events taken in, whatever became of them.
    pub events: KindCounts,
    /// Events that repeat an earlier one.
    pub duplicate: DuplicateCounts,
    /// Events older than the watermark on arrival, whatever became of them.
    pub late: KindCounts,
    /// Late events that could not be judged, so that they appear under no edge. Not serialised: it
    /// serves the accounting of events.
    pub late_without_outcome: KindCounts,
    /// Events of which nothing can be said because their state was given up to keep the memory bound.
    /// Not serialised: it serves the accounting of events.
    pub evicted: KindCounts,
    /// Input that was not an event. No outcome counts here: whoever reads the input adds to it.
    pub rejected: u64,
    /// Judged links and triples.
    pub edges: EdgeCounts,
    /// Judged requests.
    pub requests: RequestCounts,
}

impl Counts {
    /// Adds one outcome.
    #[inline(always)]
    pub fn apply<L>(&mut self, outcome: &Outcome<L>) {
        match outcome {
            Outcome::Received { kind, .. } => self.events[*kind] += 1,
            // By far the most of the rest.
            Outcome::Link { edge: Edge::RequestExposure, outcome: LinkOutcome::Linked, .. } => {
                self.edges.request_exposure.linked += 1;
            }
            Outcome::Duplicate { kind: Kind::Request, .. } => self.duplicate.request += 1,
            Outcome::Duplicate { kind: Kind::Exposure, .. } => self.duplicate.exposure += 1,
            Outcome::Duplicate { kind: Kind::Click, .. } => self.duplicate.click += 1,
            Outcome::Duplicate { kind: Kind::Report, .. } => {
                debug_assert!(false, "a report has no identity to repeat");
            }
            Outcome::Late { kind, .. } => self.late[*kind] += 1,
            Outcome::LateWithoutOutcome { kind, .. } => self.late_without_outcome[*kind] += 1,
            Outcome::Evicted { kind, .. } => self.evicted[*kind] += 1,
            Outcome::Request { outcome, .. } => match outcome {
                RequestOutcome::Exposed => self.requests.exposed += 1,
                RequestOutcome::Unexposed => self.requests.unexposed += 1,
                RequestOutcome::MissingId => self.requests.missing_id += 1,
            },
            Outcome::Link { edge, outcome, .. } => self.apply_link(*edge, *outcome),
            Outcome::Triple { outcome, .. } => match outcome {
                TripleOutcome::Complete => self.edges.triple.complete += 1,
                TripleOutcome::Broken => self.edges.triple.broken += 1,
                TripleOutcome::Unseen => self.edges.triple.unseen += 1,
            },
        }
    }

    fn apply_link(&mut self, edge: Edge, outcome: LinkOutcome) {
        let EdgeCounts { request_exposure, exposure_click, click_report, triple: _ } = &mut self.edges;
        let count = match (edge, outcome) {
            (Edge::RequestExposure, LinkOutcome::Linked) => &mut request_exposure.linked,
            (Edge::RequestExposure, LinkOutcome::Orphan) => &mut request_exposure.orphan,
            (Edge::RequestExposure, LinkOutcome::MissingId) => &mut request_exposure.missing_id,
            (Edge::RequestExposure, LinkOutcome::Unseen) => &mut request_exposure.unseen,
            (Edge::ExposureClick, LinkOutcome::Linked) => &mut exposure_click.linked,
            (Edge::ExposureClick, LinkOutcome::Mismatch) => &mut exposure_click.mismatch,
            (Edge::ExposureClick, LinkOutcome::Orphan) => &mut exposure_click.orphan,
            (Edge::ExposureClick, LinkOutcome::MissingId) => &mut exposure_click.missing_id,
            (Edge::ExposureClick, LinkOutcome::Unseen) => &mut exposure_click.unseen,
            (Edge::ClickReport, LinkOutcome::Reported) => &mut click_report.reported,
            (Edge::ClickReport, LinkOutcome::Unreported) => &mut click_report.unreported,
            _ => {
                debug_assert!(false, "{} has no outcome {}", edge.name(), outcome.name());
                return;
            }
        };
        *count += 1;
    }

    /// Broken links of an edge over its broken and whole ones; `None` when it has neither.
    pub fn broken_link_ratio(&self, edge: Edge) -> Option<f64> {
        let (broken, whole) = self.edges.broken_and_whole(edge);
        // Exact up to 2^53 links.
        (broken + whole > 0).then(|| broken as f64 / (broken + whole) as f64)
    }
}

impl<'a, L: 'a> Extend<&'a Outcome<L>> for Counts {
    fn extend<I: IntoIterator<Item = &'a Outcome<L>>>(&mut self, outcomes: I) {
        outcomes.into_iter().for_each(|outcome| self.apply(outcome));
    }
}

impl<'a, L: 'a> FromIterator<&'a Outcome<L>> for Counts {
    fn from_iter<I: IntoIterator<Item = &'a Outcome<L>>>(outcomes: I) -> Self {
        let mut counts = Self::default();
        counts.extend(outcomes);
        counts
    }
}

impl Serialize for Counts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Ratios {
            request_exposure: Option<f64>,
            exposure_click: Option<f64>,
            click_report: Option<f64>,
            triple: Option<f64>,
        }
        let ratios = Ratios {
            request_exposure: self.broken_link_ratio(Edge::RequestExposure),
            exposure_click: self.broken_link_ratio(Edge::ExposureClick),
            click_report: self.broken_link_ratio(Edge::ClickReport),
            triple: self.broken_link_ratio(Edge::Triple),
        };
        let mut object = serializer.serialize_struct("Counts", 7)?;
        object.serialize_field("events", &self.events)?;
        object.serialize_field("duplicate", &self.duplicate)?;
        object.serialize_field("late", &self.late)?;
        object.serialize_field("rejected", &self.rejected)?;
        object.serialize_field("edges", &self.edges)?;
        object.serialize_field("requests", &self.requests)?;
        object.serialize_field("broken_link_ratio", &ratios)?;
        object.end()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::{Labels, Subject};

    fn link(edge: Edge, outcome: LinkOutcome) -> Outcome {
        Outcome::Link {
            edge,
            outcome,
            subject: Subject::default(),
            delay_ns: None,
            labels: Arc::new(Labels::default()),
        }
    }

    #[test]
    fn an_empty_run_serialises_with_null_ratios_and_keys_in_order() {
        let expected = concat!(
            r#"{"events":{"request":0,"exposure":0,"click":0,"report":0},"#,
            r#""duplicate":{"request":0,"exposure":0,"click":0},"#,
            r#""late":{"request":0,"exposure":0,"click":0,"report":0},"rejected":0,"#,
            r#""edges":{"request_exposure":{"linked":0,"orphan":0,"missing_id":0,"unseen":0},"#,
            r#""exposure_click":{"linked":0,"mismatch":0,"orphan":0,"missing_id":0,"unseen":0},"#,
            r#""click_report":{"reported":0,"unreported":0},"#,
            r#""triple":{"complete":0,"broken":0,"unseen":0}},"#,
            r#""requests":{"exposed":0,"unexposed":0,"missing_id":0},"#,
            r#""broken_link_ratio":{"request_exposure":null,"exposure_click":null,"click_report":null,"triple":null}}"#,
        );
        assert_eq!(serde_json::to_string(&Counts::default()).expect("plain numbers"), expected);
    }

    #[test]
    fn a_missing_id_is_broken_and_an_unseen_link_is_in_no_ratio() {
        let outcomes = [
            link(Edge::RequestExposure, LinkOutcome::Linked),
            link(Edge::RequestExposure, LinkOutcome::MissingId),
            link(Edge::RequestExposure, LinkOutcome::Unseen),
            link(Edge::ExposureClick, LinkOutcome::Linked),
            link(Edge::ExposureClick, LinkOutcome::Mismatch),
            link(Edge::ExposureClick, LinkOutcome::Orphan),
            link(Edge::ExposureClick, LinkOutcome::MissingId),
            link(Edge::ClickReport, LinkOutcome::Reported),
            link(Edge::ClickReport, LinkOutcome::Unreported),
        ];
        let counts: Counts = outcomes.iter().collect();
        assert_eq!(counts.broken_link_ratio(Edge::RequestExposure), Some(0.5));
        assert_eq!(counts.broken_link_ratio(Edge::ExposureClick), Some(0.75));
        assert_eq!(counts.broken_link_ratio(Edge::ClickReport), Some(0.5));
        assert_eq!(counts.broken_link_ratio(Edge::Triple), None);
    }
}
