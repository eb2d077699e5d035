//! Counts by what is counted: the truth that the plan knows, and what a tracer measured, in one form.
//!
//! Deliberately absent: any judgement of events. The truth comes from the arithmetic in `cases.rs`, the
//! measurement from published metrics.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::domain::{Edge, Kind, LinkOutcome, RequestOutcome, TripleOutcome};

/// What is counted. The order of the variants is the order of the table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// An observation, duplicates included.
    Event(Kind),
    /// An observation that repeats an earlier one.
    Duplicate(Kind),
    /// An observation that came after its time had been judged.
    Late(Kind),
    /// A judged link.
    Link(Edge, LinkOutcome),
    /// A judged triple.
    Triple(TripleOutcome),
    /// A judged new request.
    Request(RequestOutcome),
    /// An observation that was lost on the way, by reason.
    Lost(Box<str>),
}

/// The reason under which calls with an over-long id are lost. The only loss that a demo expects.
pub const ID_TOO_LONG: &str = "id_too_long";

/// Losses that are compared with zero even where no metric mentions them.
const UNEXPECTED_LOSSES: [&str; 3] = ["read_fault", "ring_full", "undecodable"];

/// The outcomes that each edge can have.
const LINKS: [(Edge, &[LinkOutcome]); 3] = {
    use LinkOutcome::{Linked, Mismatch, MissingId, Orphan, Reported, Unreported, Unseen};
    [
        (Edge::RequestExposure, &[Linked, Orphan, MissingId, Unseen]),
        (Edge::ExposureClick, &[Linked, Mismatch, Orphan, MissingId, Unseen]),
        (Edge::ClickReport, &[Reported, Unreported]),
    ]
};

const TRIPLES: [TripleOutcome; 3] = [TripleOutcome::Complete, TripleOutcome::Broken, TripleOutcome::Unseen];
const REQUESTS: [RequestOutcome; 3] =
    [RequestOutcome::Exposed, RequestOutcome::Unexposed, RequestOutcome::MissingId];

impl Key {
    /// Every key that has a place in the comparison before anything is measured.
    pub fn all() -> impl Iterator<Item = Self> {
        let links =
            LINKS.iter().flat_map(|&(edge, outcomes)| outcomes.iter().map(move |&o| Self::Link(edge, o)));
        let repeatable = [Kind::Request, Kind::Exposure, Kind::Click];
        (Kind::ALL.into_iter().map(Self::Event))
            .chain(repeatable.into_iter().map(Self::Duplicate))
            .chain(Kind::ALL.into_iter().map(Self::Late))
            .chain(links)
            .chain(TRIPLES.into_iter().map(Self::Triple))
            .chain(REQUESTS.into_iter().map(Self::Request))
            .chain([ID_TOO_LONG].into_iter().chain(UNEXPECTED_LOSSES).map(|reason| Self::Lost(reason.into())))
    }

    /// Where the count stands in the JSON object, which has the shape of replay's.
    pub fn path(&self) -> Vec<&str> {
        match self {
            Self::Event(kind) => vec!["events", kind.name()],
            Self::Duplicate(kind) => vec!["duplicate", kind.name()],
            Self::Late(kind) => vec!["late", kind.name()],
            Self::Link(edge, outcome) => vec!["edges", edge.name(), outcome.name()],
            Self::Triple(outcome) => vec!["edges", Edge::Triple.name(), outcome.name()],
            Self::Request(outcome) => vec!["requests", outcome.name()],
            Self::Lost(reason) => vec!["lost", reason],
        }
    }
}

/// How often each thing was counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally(BTreeMap<Key, u64>);

impl Default for Tally {
    /// Zero of everything.
    fn default() -> Self {
        Self(Key::all().map(|key| (key, 0)).collect())
    }
}

impl Tally {
    /// Counts `count` more.
    pub fn add(&mut self, key: Key, count: u64) {
        *self.0.entry(key).or_default() += count;
    }

    /// The count of one thing.
    pub fn get(&self, key: &Key) -> u64 {
        self.0.get(key).copied().unwrap_or_default()
    }

    /// Everything that has a count, zeros included, in the order of the table.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.0.keys()
    }

    /// The part of an edge's judged links that is broken; `None` when nothing was judged. What could not be
    /// judged (`unseen`) is left out.
    pub fn broken_link_ratio(&self, edge: Edge) -> Option<f64> {
        let (mut broken, mut judged) = (0, 0);
        for (key, &count) in &self.0 {
            let is_broken = match key {
                Key::Link(e, outcome) if *e == edge => match outcome {
                    LinkOutcome::Unseen => continue,
                    LinkOutcome::Linked | LinkOutcome::Reported => false,
                    LinkOutcome::Mismatch
                    | LinkOutcome::Orphan
                    | LinkOutcome::MissingId
                    | LinkOutcome::Unreported => true,
                },
                Key::Triple(outcome) if edge == Edge::Triple => match outcome {
                    TripleOutcome::Unseen => continue,
                    TripleOutcome::Complete => false,
                    TripleOutcome::Broken => true,
                },
                _ => continue,
            };
            judged += count;
            broken += if is_broken { count } else { 0 };
        }
        (judged > 0).then(|| broken as f64 / judged as f64)
    }

    /// The counts and the ratios as replay prints them, and the losses under `lost`.
    pub fn to_json(&self) -> Value {
        let mut root = Map::new();
        for (key, &count) in &self.0 {
            insert(&mut root, &key.path(), json!(count));
        }
        for edge in Edge::ALL {
            insert(&mut root, &["broken_link_ratio", edge.name()], json!(self.broken_link_ratio(edge)));
        }
        Value::Object(root)
    }
}

fn insert(object: &mut Map<String, Value>, path: &[&str], value: Value) {
    match path {
        [] => {}
        [name] => {
            object.insert((*name).into(), value);
        }
        [name, rest @ ..] => {
            if let Value::Object(inner) = object.entry(*name).or_insert_with(|| json!({})) {
                insert(inner, rest, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_object_nests_counts_like_replay() {
        let mut tally = Tally::default();
        tally.add(Key::Link(Edge::ExposureClick, LinkOutcome::Mismatch), 1);
        tally.add(Key::Link(Edge::ExposureClick, LinkOutcome::Linked), 3);
        tally.add(Key::Link(Edge::ExposureClick, LinkOutcome::Unseen), 9);
        tally.add(Key::Triple(TripleOutcome::Complete), 2);
        tally.add(Key::Lost("worn_out".into()), 5);
        let json = tally.to_json();
        assert_eq!(json["edges"]["exposure_click"]["mismatch"], 1);
        assert_eq!(json["edges"]["triple"], json!({"complete": 2, "broken": 0, "unseen": 0}));
        assert_eq!(json["late"], json!({"request": 0, "exposure": 0, "click": 0, "report": 0}));
        assert_eq!(json["lost"]["worn_out"], 5);
        assert_eq!(json["lost"]["ring_full"], 0);
        assert_eq!(json["broken_link_ratio"]["exposure_click"], 0.25);
        assert_eq!(json["broken_link_ratio"]["click_report"], Value::Null);
    }
}
