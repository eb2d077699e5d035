//! The broken-link ratio of every edge, service and release over a sliding window, and what it can be
//! at least and at most when events were lost.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::bounds::{Bounds, Doubt, Losses, Reach};
use super::loss_log::LossLog;
use super::ratio_window::{Explainable, Judged, RatioWindow, Tally};
use crate::domain::{Edge, Labels, Outcome};

/// Slices of the window. It moves by one of them.
const SLICES: usize = 60;

type Key = (Edge, Arc<Labels>);

/// What waits to be judged, over all services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Waiting {
    /// Exposures that wait for their request.
    pub exposures: u64,
    /// Clicks that wait for their exposure.
    pub clicks: u64,
    /// Clicks that wait for a report.
    pub click_reports: u64,
    /// Triples that wait for their exposure's request.
    pub triples: u64,
}

/// The ratio of one edge of one release of a service.
#[derive(Debug, Clone, PartialEq)]
pub struct Ratio {
    /// Which edge.
    pub edge: Edge,
    /// Service and release; the group is left empty, because all groups are counted together.
    pub labels: Arc<Labels>,
    /// What was counted. Nothing where all that is in the window is in no ratio.
    pub tally: Tally,
    /// Between what the ratio lies; `None` when there is and can be no link.
    pub bounds: Option<Bounds>,
}

/// The window of every edge, service and release.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BrokenLinks {
    window: RatioWindow<Key>,
    losses: LossLog,
    /// So many events of one request id and item that are not duplicates can be within the window.
    repeats: u64,
    /// The last labels asked for, and the same without their group.
    #[serde(skip)]
    last: Option<(Arc<Labels>, Arc<Labels>)>,
}

impl BrokenLinks {
    /// An empty window of `window_ns` nanoseconds for a join of these windows.
    pub fn new(window_ns: u64, reach: Reach) -> Self {
        let slice_ns = (window_ns / SLICES as u64).max(1);
        let window_ns = slice_ns.saturating_mul(SLICES as u64);
        Self {
            window: RatioWindow::new(slice_ns, SLICES),
            losses: LossLog::new(reach, window_ns, slice_ns),
            repeats: window_ns.checked_div(reach.click_window_ns).map_or(u64::MAX, |whole| whole + 1),
            last: None,
        }
    }

    /// Goes on from what was counted earlier, in a window of the same length and for a join of the same windows;
    /// any other cannot be gone on with, and false is returned.
    pub fn restore(&mut self, earlier: &Self) -> bool {
        let is_like = self.window.is_like(&earlier.window) && self.losses.is_like(&earlier.losses);
        if is_like {
            self.clone_from(earlier);
        }
        is_like
    }

    /// Counts an outcome, if it is the judgement of a link or a triple.
    pub fn count(&mut self, outcome: &Outcome) {
        let (edge, broken, subject, labels) = match outcome {
            Outcome::Link { edge, outcome, subject, labels, .. } => {
                (*edge, outcome.is_broken(), subject, labels)
            }
            Outcome::Triple { outcome, subject, labels } => {
                (Edge::Triple, outcome.is_broken(), subject, labels)
            }
            _ => return,
        };
        let link = Judged { timestamp_ns: subject.timestamp_ns, broken, causes: subject.causes };
        let key = (edge, self.without_group(labels));
        self.window.add(&key, &link);
    }

    /// These were lost after `after_ns` and not after `until_ns`, in nanoseconds since the Unix epoch.
    pub fn lose(&mut self, after_ns: u64, until_ns: u64, losses: Losses) {
        self.losses.add(after_ns, until_ns, losses);
    }

    /// Whether anything was lost that can have changed a link of the window that ends at `now_ns`.
    pub fn is_doubtful(&self, now_ns: u64) -> bool {
        Edge::ALL.iter().any(|edge| self.is_edge_doubtful(*edge, now_ns))
    }

    /// The same of links of one edge.
    pub fn is_edge_doubtful(&self, edge: Edge, now_ns: u64) -> bool {
        self.losses.active(edge, now_ns).is_some()
    }

    /// Forgets what is in no window that ends at `now_ns` or later, in nanoseconds since the Unix epoch. To be called
    /// now and then: what is kept would grow.
    pub fn forget(&mut self, now_ns: u64) {
        self.losses.forget(now_ns);
        self.window.forget(now_ns);
    }

    /// The ratios of the window that ends at `now_ns`, in nanoseconds since the Unix epoch.
    pub fn ratios(&mut self, now_ns: u64, waiting: &Waiting) -> Vec<Ratio> {
        self.forget(now_ns);
        let active = Edge::ALL.map(|edge| self.losses.active(edge, now_ns));
        let counted = self.window.tallies();
        let bounds = |key: &Key, tally: Tally| match active[key.0 as usize] {
            None => Bounds::of(tally.broken, tally.sound, &Doubt::default()),
            Some((Losses { uncounted: true, .. }, _)) => Some(Bounds::UNKNOWN),
            Some((losses, since_ns)) => {
                let found = self.window.explainable(key, since_ns, events_by_cause(key.0, losses));
                let doubt = self.doubt(key.0, losses, found, waiting);
                Bounds::of(tally.broken, tally.sound, &doubt)
            }
        };
        let ratios = counted.into_iter().map(|(key, tally)| Ratio {
            bounds: bounds(&key, tally),
            edge: key.0,
            labels: key.1,
            tally,
        });
        ratios.collect()
    }

    /// What such losses can have done to links of the edge.
    fn doubt(&self, edge: Edge, losses: Losses, found: Explainable, waiting: &Waiting) -> Doubt {
        let Losses { requests, exposures, clicks, reports, .. } = losses;
        let repeated = |events: u64| events.saturating_mul(self.repeats);
        // What waits would only be whole by now if what it waits for was lost.
        let waits = |events: u64, count: u64| if events > 0 { count } else { 0 };
        let (own, spoiled, waiting) = match edge {
            Edge::RequestExposure => (exposures, 0, waits(requests, waiting.exposures)),
            Edge::ExposureClick => (clicks, 0, waits(exposures, waiting.clicks)),
            Edge::ClickReport => (clicks, 0, waits(reports, waiting.click_reports)),
            Edge::Triple => {
                (clicks, exposures, waits(requests | exposures, waiting.clicks + waiting.triples))
            }
        };
        Doubt {
            explained: found.explained,
            seen: found.seen,
            explainable: found.in_all,
            spoiled: repeated(spoiled),
            own: repeated(own),
            waiting,
        }
    }

    fn without_group(&mut self, labels: &Arc<Labels>) -> Arc<Labels> {
        if let Some((last, without_group)) = &self.last
            && Arc::ptr_eq(last, labels)
        {
            return Arc::clone(without_group);
        }
        let without_group = Arc::new(Labels { group: "".into(), ..Labels::clone(labels) });
        self.last = Some((Arc::clone(labels), Arc::clone(&without_group)));
        without_group
    }
}

/// How many events were lost of each of the two causes that a link of the edge can have.
fn events_by_cause(edge: Edge, losses: Losses) -> [u64; 2] {
    match edge {
        Edge::RequestExposure => [losses.requests, 0],
        Edge::ExposureClick => [0, losses.exposures],
        Edge::ClickReport => [losses.reports, 0],
        Edge::Triple => [losses.requests, losses.exposures],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{LinkOutcome, Subject, TripleOutcome};

    const REACH: Reach =
        Reach { exposure_window_ns: 600, click_window_ns: 7000, report_window_ns: 60, skew_ns: 1 };

    fn link(edge: Edge, outcome: LinkOutcome, causes: [u64; 2]) -> Outcome {
        let subject = Subject { timestamp_ns: 10_000, causes };
        Outcome::Link { edge, outcome, subject, delay_ns: None, labels: Arc::default() }
    }

    fn triple(outcome: TripleOutcome, causes: [u64; 2]) -> Outcome {
        let subject = Subject { timestamp_ns: 10_000, causes };
        Outcome::Triple { outcome, subject, labels: Arc::default() }
    }

    /// The bounds of the only ratio there is, when these were lost.
    #[track_caller]
    fn check(outcomes: &[Outcome], losses: Losses, expected: (f64, f64)) {
        let mut links = BrokenLinks::new(6000, REACH);
        outcomes.iter().for_each(|outcome| links.count(outcome));
        links.lose(9_990, 10_010, losses);
        let ratios = links.ratios(10_020, &Waiting::default());
        let [Ratio { bounds: Some(bounds), .. }] = ratios[..] else { panic!("{ratios:?}") };
        assert_eq!((bounds.lower, bounds.upper), expected);
    }

    fn requests(requests: u64) -> Losses {
        Losses { requests, ..Losses::default() }
    }

    fn exposures(exposures: u64) -> Losses {
        Losses { exposures, ..Losses::default() }
    }

    fn clicks(clicks: u64) -> Losses {
        Losses { clicks, ..Losses::default() }
    }

    #[test]
    fn a_lost_request_explains_every_orphan_of_one_request_id_and_the_most_first() {
        use LinkOutcome::{Linked, MissingId, Orphan};
        let exposure = |outcome, request| link(Edge::RequestExposure, outcome, [request, 0]);
        let links = [
            exposure(Orphan, 1),
            exposure(Orphan, 1),
            exposure(Orphan, 1),
            exposure(Orphan, 2),
            exposure(MissingId, 0),
            exposure(Linked, 0),
            exposure(Linked, 0),
            exposure(Linked, 0),
        ];
        check(&links, Losses::default(), (0.625, 0.625));
        check(&links, requests(1), (0.25, 0.625));
        check(&links, requests(2), (0.125, 0.625));
        check(&links, requests(9), (0.125, 0.625));
        // Lost clicks and reports are nothing to this edge.
        check(&links, clicks(9), (0.625, 0.625));
        // One more link, or one in the place of another.
        check(&links, exposures(1), (0.5, 0.75));
        check(&links[5..], exposures(1), (0.0, 1.0 / 3.0));
    }

    #[test]
    fn a_lost_exposure_explains_one_click_and_a_lost_click_is_one_more() {
        use LinkOutcome::{Linked, Mismatch, Orphan};
        let click = |outcome, pair| link(Edge::ExposureClick, outcome, [0, pair]);
        let links = [click(Orphan, 1), click(Mismatch, 2), click(Linked, 0), click(Linked, 0)];
        check(&links, requests(5), (0.5, 0.5));
        check(&links, exposures(1), (0.25, 0.5));
        check(&links, exposures(2), (0.0, 0.5));
        check(&links, clicks(1), (0.25, 0.75));
        check(&links[2..], clicks(2), (0.0, 1.0));
    }

    #[test]
    fn a_lost_report_explains_every_click_of_one_process() {
        use LinkOutcome::{Reported, Unreported};
        let click = |outcome, process| link(Edge::ClickReport, outcome, [process, 0]);
        let links = [click(Unreported, 1), click(Unreported, 1), click(Unreported, 2), click(Reported, 0)];
        check(&links, Losses { reports: 1, ..Losses::default() }, (0.25, 0.75));
        check(&links, exposures(1), (0.75, 0.75));
    }

    #[test]
    fn a_triple_is_explained_by_its_request_or_its_exposure_and_spoiled_by_another_exposure() {
        use TripleOutcome::{Broken, Complete};
        let triples = [
            triple(Broken, [1, 5]),
            triple(Broken, [1, 6]),
            triple(Broken, [0, 7]),
            triple(Complete, [0, 0]),
        ];
        check(&triples, requests(1), (0.25, 0.75));
        check(&triples, exposures(1), (0.5, 1.0));
        check(&triples, requests(1).with(exposures(1)), (0.0, 1.0));
        check(&triples, clicks(1), (0.5, 1.0));
    }

    #[test]
    fn what_could_not_be_judged_and_what_waits_may_be_whole() {
        let unseen = link(Edge::RequestExposure, LinkOutcome::Unseen, [3, 0]);
        let orphan = link(Edge::RequestExposure, LinkOutcome::Orphan, [0, 0]);
        check(&[unseen, orphan.clone()], requests(1), (0.5, 1.0));
        let mut links = BrokenLinks::new(6000, REACH);
        links.count(&orphan);
        links.lose(9_990, 10_010, requests(1));
        let ratios = links.ratios(10_020, &Waiting { exposures: 3, ..Waiting::default() });
        assert_eq!(ratios[0].bounds.map(|bounds| (bounds.lower, bounds.upper)), Some((0.25, 1.0)));
    }

    #[test]
    fn an_uncounted_loss_leaves_nothing_known_until_it_has_left_the_window() {
        let mut links = BrokenLinks::new(6000, REACH);
        let orphan = link(Edge::RequestExposure, LinkOutcome::Orphan, [0, 0]);
        links.count(&orphan);
        links.lose(9_990, 10_010, Losses { uncounted: true, ..Losses::default() });
        assert_eq!(links.ratios(10_020, &Waiting::default())[0].bounds, Some(Bounds::UNKNOWN));
        // Twice the click window, the exposure window and the skew, and the window.
        assert!(links.is_doubtful(30_611));
        assert!(!links.is_doubtful(30_612));
    }
}
