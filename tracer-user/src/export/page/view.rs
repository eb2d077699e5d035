//! What the page shows: readings sorted by service, edge and release. Pure.

use std::collections::BTreeMap;

use super::{
    history::History,
    notes::{self, Note},
    reading::{Reading, Series},
};
use crate::{
    domain::{Edge, LinkOutcome, TripleOutcome},
    export::http::ProbeState,
    slo::{Example, Ids},
    telemetry::Metric,
};

/// Everything on the page.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// The node.
    pub source: String,
    /// How many minutes are shown, the running one included; at most 61. Of a recording 1: all of it.
    pub minutes: usize,
    /// Of which time a recording is; `None` on the page of a daemon.
    pub recorded: Option<Recorded>,
    /// Whether the numbers can be relied on, in words.
    pub notes: Vec<Note>,
    /// By name.
    pub services: Vec<Service>,
}

/// From the first event to the last one that was judged, in nanoseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recorded {
    /// The first.
    pub from_ns: u64,
    /// The last.
    pub to_ns: u64,
}

/// A service's last hour.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// Its configured name.
    pub name: String,
    /// All releases together.
    pub funnel: Funnel,
    /// In the order of [`Edge::ALL`].
    pub edges: Vec<EdgeHistory>,
    /// By release and group.
    pub releases: Vec<Release>,
    /// The last broken links, newest first.
    pub examples: Vec<BrokenLink>,
}

/// One broken link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokenLink {
    /// Which.
    pub edge: Edge,
    /// Why.
    pub reason: &'static str,
    /// How long ago its event happened, in seconds.
    pub seconds_ago: u64,
    /// What its process runs; empty when unknown.
    pub release: String,
    /// Its A/B group; empty when it has none.
    pub group: String,
    /// Its ids, where they may be shown and were kept.
    pub ids: Option<Ids>,
}

/// From request to click, in what was judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Funnel {
    /// New requests.
    pub requests: u64,
    /// Those for which something was shown.
    pub exposed: u64,
    /// Exposures, without duplicates.
    pub exposures: u64,
    /// Clicks, without duplicates.
    pub clicks: u64,
    /// Clicks whose exposure was seen.
    pub linked_clicks: u64,
    /// Clicks whose exposure and request were seen.
    pub complete: u64,
}

impl Funnel {
    /// Clicks / exposures; `None` without exposures.
    pub fn click_through_rate(&self) -> Option<f64> {
        share(self.clicks, self.exposures)
    }

    /// Clicks that are linked to their exposure / exposures; `None` without exposures.
    pub fn linked_click_through_rate(&self) -> Option<f64> {
        share(self.linked_clicks, self.exposures)
    }

    fn add(&mut self, series: &Series, count: u64) {
        let outcome = series.label("outcome");
        if series.is(Metric::Requests) {
            self.requests += count;
            if outcome == "exposed" {
                self.exposed += count;
            }
            return;
        }
        match series.label("edge") {
            edge if edge == Edge::RequestExposure.name() => self.exposures += count,
            edge if edge == Edge::ExposureClick.name() => {
                self.clicks += count;
                if outcome == LinkOutcome::Linked.name() {
                    self.linked_clicks += count;
                }
            }
            edge if edge == Edge::Triple.name() && outcome == TripleOutcome::Complete.name() => {
                self.complete += count;
            }
            _ => {}
        }
    }
}

/// What became of an edge's links, minute by minute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EdgeHistory {
    /// The edge.
    pub edge: Edge,
    /// Links that are whole.
    pub whole: u64,
    /// Links that cannot be judged.
    pub unseen: u64,
    /// Broken ones by reason, each with its number a minute, oldest first. Reasons that occurred.
    pub broken: Vec<(String, Vec<u64>)>,
}

impl EdgeHistory {
    fn new(edge: Edge) -> Self {
        Self { edge, whole: 0, unseen: 0, broken: Vec::new() }
    }

    /// All broken ones.
    pub fn broken_count(&self) -> u64 {
        self.broken.iter().flat_map(|(_, row)| row).sum()
    }

    /// Broken / (broken + whole); `None` when there is neither.
    pub fn ratio(&self) -> Option<f64> {
        share(self.broken_count(), self.broken_count() + self.whole)
    }

    /// Why most of the broken ones are.
    fn main_reason(&self) -> Option<&str> {
        // What breaks a triple is said of the other edges.
        let broken = self.broken.iter().filter(|_| self.edge != Edge::Triple);
        let counted = broken.map(|(reason, row)| (row.iter().sum::<u64>(), reason));
        counted.max().map(|(_, reason)| reason.as_str())
    }

    fn add(&mut self, outcome: &str, row: &[u64]) {
        let count: u64 = row.iter().sum();
        match is_broken(outcome) {
            Some(false) => self.whole += count,
            None => self.unseen += count,
            Some(true) if count == 0 => {}
            Some(true) => match self.broken.iter_mut().find(|(reason, _)| reason == outcome) {
                Some((_, sums)) => sums.iter_mut().zip(row).for_each(|(sum, more)| *sum += more),
                None => self.broken.push((outcome.to_owned(), row.to_vec())),
            },
        }
    }
}

/// A release in one A/B group.
#[derive(Debug, Clone, PartialEq)]
pub struct Release {
    /// What it runs; empty when unknown.
    pub release: String,
    /// Its A/B group; empty when it has none.
    pub group: String,
    /// Its own.
    pub funnel: Funnel,
    /// Broken-link ratio of each edge, in the order of [`Edge::ALL`]; `None` where there is nothing to judge.
    pub ratios: Vec<Option<f64>>,
    /// The reason of most of its broken links, of each edge but the triple; `None` where none is broken.
    pub reasons: Vec<Option<String>>,
}

/// Does an outcome of `linktracer_links_total` count as broken? `None` when it is in no ratio.
fn is_broken(outcome: &str) -> Option<bool> {
    let links = LinkOutcome::ALL.iter().map(|known| (known.name(), known.is_broken()));
    let triples = TripleOutcome::ALL.iter().map(|known| (known.name(), known.is_broken()));
    links.chain(triples).find(|(name, _)| *name == outcome).and_then(|(_, broken)| broken)
}

impl View {
    /// The page of `source` at `now`, in seconds since the Unix epoch.
    pub fn new(
        source: &str,
        history: &History,
        reading: &Reading,
        (probes, examples): (&[ProbeState], &[Example]),
        now: u64,
    ) -> Self {
        let rows = history.rows(reading);
        Self {
            source: source.to_owned(),
            minutes: history.columns(),
            recorded: None,
            notes: notes::live(&rows, reading, probes, now),
            services: services(&rows, reading, examples, now),
        }
    }

    /// The page of the recording `name`, of which so many lines could not be read, once all of it was counted.
    pub fn of_recording(
        name: &str,
        recorded: Recorded,
        reading: &Reading,
        examples: &[Example],
        rejected: u64,
    ) -> Self {
        let mut history = History::default();
        history.record(&Reading::default());
        let rows = history.rows(reading);
        let now = recorded.to_ns / 1_000_000_000;
        Self {
            source: name.to_owned(),
            minutes: history.columns(),
            recorded: Some(recorded),
            notes: notes::of_recording(&rows, rejected),
            services: services(&rows, reading, examples, now),
        }
    }
}

fn services(rows: &[Row], reading: &Reading, examples: &[Example], now: u64) -> Vec<Service> {
    let mut by_service: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
    for (series, _) in reading.gauges(Metric::TargetProcesses) {
        by_service.entry(series.label("service")).or_default();
    }
    for row in rows {
        if row.0.is(Metric::Links) || row.0.is(Metric::Requests) {
            by_service.entry(row.0.label("service")).or_default().push(row);
        }
    }
    by_service.into_iter().map(|(name, rows)| service(name, &rows, examples, now)).collect()
}

/// A series and its growth by minute.
pub(super) type Row = (Series, Vec<u64>);

fn service(name: &str, rows: &[&Row], examples: &[Example], now: u64) -> Service {
    let mut by_release: BTreeMap<(&str, &str), Vec<&Row>> = BTreeMap::new();
    for row in rows {
        let key = (row.0.label("release"), row.0.label("group"));
        by_release.entry(key).or_default().push(row);
    }
    let releases = by_release.into_iter().map(|((release, group), rows)| {
        let edges = edges(&rows);
        Release {
            release: release.to_owned(),
            group: group.to_owned(),
            funnel: funnel(&rows),
            ratios: edges.iter().map(EdgeHistory::ratio).collect(),
            reasons: edges.iter().map(|edge| edge.main_reason().map(str::to_owned)).collect(),
        }
    });
    Service {
        name: name.to_owned(),
        funnel: funnel(rows),
        edges: edges(rows),
        // A release that did nothing in the hour has nothing to say.
        releases: releases.filter(|release| release.funnel != Funnel::default()).collect(),
        examples: examples
            .iter()
            .filter(|example| &*example.labels.service == name)
            .map(|example| broken_link(example, now))
            .collect(),
    }
}

fn broken_link(example: &Example, now: u64) -> BrokenLink {
    let Example { edge, reason, timestamp_ns, labels, ids } = example;
    BrokenLink {
        edge: *edge,
        reason,
        seconds_ago: now.saturating_sub(timestamp_ns / 1_000_000_000),
        release: labels.release.to_string(),
        group: labels.group.to_string(),
        ids: ids.clone(),
    }
}

fn funnel(rows: &[&Row]) -> Funnel {
    let mut funnel = Funnel::default();
    for (series, row) in rows {
        funnel.add(series, row.iter().sum());
    }
    funnel
}

fn edges(rows: &[&Row]) -> Vec<EdgeHistory> {
    let mut edges: Vec<EdgeHistory> = Edge::ALL.into_iter().map(EdgeHistory::new).collect();
    for (series, row) in rows.iter().filter(|row| row.0.is(Metric::Links)) {
        let edge = edges.iter_mut().find(|edge| edge.edge.name() == series.label("edge"));
        if let Some(edge) = edge {
            edge.add(series.label("outcome"), row);
        }
    }
    edges
}

#[expect(clippy::cast_precision_loss, reason = "a ratio needs no more than 53 bits")]
fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// A number with its thousands apart.
pub(super) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Edge, Funnel, History, Metric, ProbeState, Reading, Recorded, View, grouped};
    use crate::export::page::reading::tests::series;

    fn link(edge: &str, outcome: &str, release: &str, count: u64) -> (super::Series, u64) {
        let labels =
            [("edge", edge), ("outcome", outcome), ("service", "s"), ("release", release), ("group", "")];
        (series(Metric::Links, &labels), count)
    }

    fn reading() -> Reading {
        let requests = [("outcome", "exposed"), ("service", "s"), ("release", "a"), ("group", "")];
        let counters = [
            link("request_exposure", "linked", "a", 900),
            link("request_exposure", "orphan", "b", 60),
            link("request_exposure", "missing_id", "b", 20),
            link("request_exposure", "unseen", "b", 20),
            link("exposure_click", "linked", "a", 30),
            link("exposure_click", "mismatch", "b", 10),
            link("triple", "complete", "a", 29),
            link("triple", "broken", "b", 11),
            (series(Metric::Requests, &requests), 100),
            (series(Metric::LostEvents, &[("reason", "ring_full")]), 1234),
        ];
        Reading { counters: counters.into(), ..Reading::default() }
    }

    fn view(reading: &Reading, probes: &[ProbeState]) -> View {
        let mut history = History::default();
        history.record(&Reading::default());
        history.record(&Reading::default());
        View::new("node-a", &history, reading, (probes, &[]), 0)
    }

    #[test]
    fn the_funnel_counts_what_is_no_duplicate_whatever_became_of_it() {
        let view = view(&reading(), &[]);
        let funnel = Funnel {
            requests: 100,
            exposed: 100,
            exposures: 1000,
            clicks: 40,
            linked_clicks: 30,
            complete: 29,
        };
        assert_eq!(view.services[0].funnel, funnel);
        assert_eq!(funnel.click_through_rate(), Some(0.04));
        assert_eq!(funnel.linked_click_through_rate(), Some(0.03));
    }

    #[test]
    fn broken_links_stand_by_edge_and_reason_and_what_is_unseen_is_in_no_ratio() {
        let view = view(&reading(), &[]);
        let edge = &view.services[0].edges[0];
        assert_eq!((edge.edge, edge.whole, edge.unseen), (Edge::RequestExposure, 900, 20));
        assert_eq!(edge.broken, [("missing_id".to_owned(), vec![0, 20]), ("orphan".to_owned(), vec![0, 60])]);
        assert_eq!(edge.ratio(), Some(80.0 / 980.0));
    }

    #[test]
    fn releases_stand_apart() {
        let view = view(&reading(), &[]);
        let releases = &view.services[0].releases;
        let ratios: Vec<_> = releases.iter().map(|r| (r.release.as_str(), r.ratios.clone())).collect();
        assert_eq!(
            ratios,
            [
                ("a", vec![Some(0.0), Some(0.0), None, Some(0.0)]),
                ("b", vec![Some(1.0), Some(1.0), None, Some(1.0)])
            ]
        );
    }

    #[test]
    fn a_release_has_the_reason_of_most_of_its_broken_links() {
        let view = view(&reading(), &[]);
        let reasons: Vec<_> =
            view.services[0].releases.iter().map(|release| release.reasons.clone()).collect();
        let some = |reason: &str| Some(reason.to_owned());
        assert_eq!(reasons, [vec![None; 4], vec![some("orphan"), some("mismatch"), None, None]]);
    }

    #[test]
    fn of_a_recording_all_is_shown() {
        let recorded = Recorded { from_ns: 0, to_ns: 1 };
        let view = View::of_recording("a.jsonl", recorded, &reading(), &[], 1234);
        assert_eq!((view.services[0].funnel.clicks, view.minutes), (40, 1));
    }

    #[test]
    fn thousands_are_apart() {
        assert_eq!(["0", "999", "1,000", "1,234,567"], [0, 999, 1000, 1_234_567].map(grouped));
    }
}
