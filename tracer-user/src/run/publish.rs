//! Outcomes of the join and the state of the daemon become metrics.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use tracer_common::counters::Hook;

use super::coverage::Coverage;
use crate::{
    discover::Processes,
    domain::{Edge, Kind, Labels, Outcome},
    export::http::Status,
    ingest::{clock::Clock, interpret::Reading},
    join::{Evicted, Join},
    slo::{RatioWindow, Tally},
    telemetry::{Metrics, RECEIVED_EVENT, RECEIVED_PROCESS},
};

/// The ratio's window: 60 slices of 15 s are 15 minutes.
const SLICE_NS: u64 = 15_000_000_000;
const SLICES: usize = 60;
/// The slower gauges are set this often.
const PUBLISH_INTERVAL: Duration = Duration::from_secs(1);

type RatioKey = (Edge, Box<str>, Box<str>);

/// Feeds the metrics.
pub(super) struct Publisher {
    pub(super) metrics: Metrics,
    status: Arc<Status>,
    clock: Clock,
    source: Arc<str>,
    window: RatioWindow<(Edge, Arc<Labels>)>,
    published: BTreeSet<RatioKey>,
    evicted: Evicted,
    last: Option<Instant>,
}

impl Publisher {
    pub(super) fn new(metrics: Metrics, status: Arc<Status>, clock: Clock, source: Arc<str>) -> Self {
        let window = RatioWindow::new(SLICE_NS, SLICES);
        Self {
            metrics,
            status,
            clock,
            source,
            window,
            published: BTreeSet::new(),
            evicted: Evicted::default(),
            last: None,
        }
    }

    /// Counts what became of a record.
    pub(super) fn count_reading(&self, hook: Hook, reading: &Reading) {
        let outcome = match reading {
            Reading::Event(_) => RECEIVED_EVENT,
            Reading::Process { .. } => RECEIVED_PROCESS,
            Reading::Nothing(reason) => reason.name(),
        };
        self.metrics.received.with_label_values(&[hook.name(), outcome]).inc();
    }

    /// Counts outcomes and takes them out of `out`.
    pub(super) fn count(&mut self, out: &mut Vec<Outcome>, now_ns: u64) {
        for outcome in out.drain(..) {
            self.metrics.count(&outcome);
            let (edge, broken, labels) = match outcome {
                Outcome::Link { edge, outcome, labels, .. } => (edge, outcome.is_broken(), labels),
                Outcome::Triple { outcome, labels } => (Edge::Triple, outcome.is_broken(), labels),
                _ => continue,
            };
            if let Some(broken) = broken {
                self.window.add(now_ns, &(edge, labels), broken);
            }
        }
    }

    /// Sets the gauges.
    pub(super) fn publish(&mut self, join: &Join, processes: &Processes, coverage: &Coverage, now_ns: u64) {
        self.status.note_drain();
        self.metrics.set_pending(&join.pending());
        self.publish_evicted(join);
        for kind in [Kind::Request, Kind::Exposure] {
            self.metrics.set_horizon(kind, join.horizon_ns(kind));
        }
        let watermark_ns = join.watermark_ns().unwrap_or(now_ns);
        self.metrics.set_watermark_lag(now_ns.saturating_sub(watermark_ns));
        if self.last.is_some_and(|last| last.elapsed() < PUBLISH_INTERVAL) {
            return;
        }
        self.last = Some(Instant::now());
        self.publish_ratios(now_ns);
        self.metrics.set_clock_step(self.clock.step_ns());
        self.metrics.set_state_bytes(join.memory_bytes());
        for (service, count) in processes.count_by_service() {
            let name = coverage.service_name(service);
            self.metrics.processes.with_label_values(&[name]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        for (service, hook, count) in coverage.attached() {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.metrics.attached.with_label_values(&[service, hook]).set(count);
        }
        self.status.set_probes(coverage.states());
        self.status.set_releases(processes.releases(&self.source));
    }

    /// What the join gave up to keep its memory limit. It has moved the horizon for that.
    fn publish_evicted(&mut self, join: &Join) {
        let evicted = join.evicted();
        let since = evicted.since(&self.evicted);
        if since == Evicted::default() {
            return;
        }
        if self.evicted == Evicted::default() {
            tracing::warn!(
                "join.memory_limit is reached: the oldest state is given up, and what reaches back to it is unseen; \
                 linktracer_evicted_total counts it"
            );
        }
        self.evicted = evicted;
        self.metrics.add_evicted(&since);
        self.metrics.horizon_moves.with_label_values(&["evicted"]).inc();
    }

    /// The ratio of an edge is that of all groups of a release together.
    fn publish_ratios(&mut self, now_ns: u64) {
        let mut sums: BTreeMap<RatioKey, Tally> = BTreeMap::new();
        for ((edge, labels), tally) in self.window.tallies(now_ns) {
            *sums.entry((edge, labels.service.clone(), labels.release.clone())).or_default() += tally;
        }
        let gone: Vec<RatioKey> =
            self.published.iter().filter(|key| !sums.contains_key(*key)).cloned().collect();
        for (edge, service, release) in gone {
            self.metrics.set_ratio(edge, &service, &release, None);
        }
        for ((edge, service, release), tally) in &sums {
            self.metrics.set_ratio(*edge, service, release, tally.ratio());
        }
        self.published = sums.into_keys().collect();
    }
}
