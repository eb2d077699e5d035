//! Outcomes of the join and the state of the daemon become metrics.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, mpsc::SyncSender},
    time::{Duration, Instant},
};

use tracer_common::counters::Hook;

use super::{coverage::Coverage, losses::LossMeter, suspicion::Suspicion};
use crate::{
    attach::Counters,
    config::{Config, OtlpSettings, Service},
    discover::{Answer, Processes},
    domain::{Edge, Event, Kind, Outcome},
    durable::{DaemonState, LossState},
    export::{
        http::{ProbeState, Status},
        otlp,
        scrape::{Begun, Pace},
    },
    hold,
    ingest::{clock::Clock, interpret::Reason},
    join::{Evicted, Join},
    slo::{BrokenLinks, Examples, Ratio, Reach, Waiting},
    telemetry::Metrics,
};

/// What was lost is looked up, and the pages are told what they show beside figures, this often.
const PUBLISH_INTERVAL: Duration = Duration::from_secs(1);

type RatioKey = (Edge, Box<str>, Box<str>);

/// Feeds the metrics.
pub(super) struct Publisher {
    pub(super) metrics: Metrics,
    status: Arc<Status>,
    clock: Clock,
    source: Arc<str>,
    links: BrokenLinks,
    examples: Examples,
    /// Triples as traces, where they are wanted.
    traces: Option<otlp::Tap>,
    losses: LossMeter,
    /// What was lost since the last publication was lost after this time.
    losses_after_ns: u64,
    services: Vec<Service>,
    /// A window is trustworthy when its bounds are no further apart than this.
    trusted_width: f64,
    published: BTreeSet<RatioKey>,
    evicted: Evicted,
    held: hold::Counts,
    last: Option<Instant>,
    answers: Pace,
}

impl Publisher {
    pub(super) fn new(
        metrics: Metrics,
        status: Arc<Status>,
        clock: Clock,
        source: Arc<str>,
        config: &Config,
    ) -> Self {
        let ns = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let reach = Reach {
            exposure_window_ns: ns(config.join.exposure_window),
            click_window_ns: ns(config.join.click_window),
            report_window_ns: ns(config.join.report_window),
            skew_ns: ns(config.join.skew),
        };
        Self {
            metrics,
            status,
            clock,
            source,
            links: BrokenLinks::new(ns(config.ratio.window), reach),
            examples: Examples::new(config.show_ids),
            traces: None,
            losses: LossMeter::default(),
            losses_after_ns: 0,
            services: config.services.clone(),
            trusted_width: config.ratio.trusted_width,
            published: BTreeSet::new(),
            evicted: Evicted::default(),
            held: hold::Counts::default(),
            last: None,
            answers: Pace::default(),
        }
    }

    /// Keeps what may be told as traces from now on.
    pub(super) fn prepare_traces(&mut self, settings: &OtlpSettings) {
        self.traces = Some(otlp::Tap::new(settings));
    }

    /// Tells it from now on: what comes before is of a journal, and was judged before a restart.
    pub(super) fn tell_traces(&mut self, queue: SyncSender<otlp::Triple>) {
        if let Some(traces) = &mut self.traces {
            traces.open(queue, self.metrics.otlp_triples.clone());
        }
    }

    /// Goes on from what was counted before a restart.
    pub(super) fn restore(&mut self, daemon: &DaemonState, evicted: Evicted) {
        self.metrics.restore(&daemon.numbers);
        if !self.links.restore(&daemon.losses.links) {
            tracing::warn!("the windows have other lengths than before the restart; the ratio begins anew");
            // What was lost before may still matter, and is told in terms of the windows that there were.
            if daemon.losses.links.is_doubtful(daemon.losses.after_ns) {
                self.losses.note_uncounted();
            }
        }
        self.losses.go_on_from(daemon.losses.known.clone());
        self.losses_after_ns = daemon.losses.after_ns;
        self.evicted = evicted;
    }

    /// What is counted for the ratio, everything that was lost by now included.
    pub(super) fn loss_state(&mut self, join: &Join, counters: &Counters, now_ns: u64) -> LossState {
        self.note_losses(join, counters, now_ns);
        LossState {
            links: self.links.clone(),
            known: self.losses.known().to_vec(),
            after_ns: self.losses_after_ns,
        }
    }

    /// The kernel side is another one than before a restart, and what happened in between is not known.
    pub(super) fn begin_anew(&mut self) {
        self.losses.go_on_from(Vec::new());
        self.losses.note_uncounted();
    }

    /// Counts what became of records.
    pub(super) fn count_received(&mut self, hook: &str, outcome: &str, count: u64) {
        let reason = Reason::ALL.into_iter().find(|reason| reason.name() == outcome);
        let known = Hook::ALL.into_iter().find(|known| known.name() == hook);
        if let (Some(reason), Some(hook)) = (reason, known) {
            self.losses.note(hook, reason, count);
        }
        self.metrics.received.with_label_values(&[hook, outcome]).inc_by(count);
    }

    /// Counts what records told beside the first thing, or what is told without a record.
    pub(super) fn count_further(&self, hook: &str, count: u64) {
        self.metrics.further.with_label_values(&[hook]).inc_by(count);
    }

    /// Publishes what became of held programs.
    pub(super) fn publish_held(&mut self, counts: &hold::Counts) {
        self.metrics.add_held(&counts.since(&self.held), counts.file_systems);
        self.held = *counts;
    }

    /// Counts what a name was answered with.
    pub(super) fn count_answer(&self, answer: &Answer) {
        let outcome = match &answer.addresses {
            Ok(_) => "answered",
            Err(error) => {
                tracing::warn!(%error, name = answer.host, "the name of a collector has no address; it keeps those that it had");
                "failed"
            }
        };
        self.metrics.lookups.with_label_values(&[&answer.host, outcome]).inc();
    }

    /// An event that goes into the join now.
    pub(super) fn note_event(&mut self, event: &Event) {
        self.examples.note(event);
        if let Some(traces) = &mut self.traces {
            traces.note(event);
        }
    }

    /// Counts outcomes and takes them out of `out`.
    pub(super) fn count(&mut self, out: &mut Vec<Outcome>) {
        for outcome in out.drain(..) {
            self.metrics.count(&outcome);
            self.links.count(&outcome);
            self.examples.judge(&outcome);
            if let Some(traces) = &mut self.traces {
                traces.judge(&outcome);
            }
        }
    }

    /// Takes note of what was lost, tells the pages what they show, and answers those who have asked for figures.
    pub(super) fn publish(
        &mut self,
        join: &Join,
        processes: &Processes,
        (coverage, suspicion): (&Coverage, &Suspicion),
        counters: &Counters,
        now_ns: u64,
    ) {
        self.status.note_drain();
        self.publish_evicted(join);
        if self.last.is_none_or(|last| last.elapsed() >= PUBLISH_INTERVAL) {
            self.last = Some(Instant::now());
            self.note_losses(join, counters, now_ns);
            self.links.forget(now_ns);
            self.status.set_probes(with_suspicion(coverage.states(), suspicion));
            self.status.set_examples(self.examples.recent());
            self.status.set_releases(processes.releases(&self.source));
        }
        if !self.answers.allows_answer() {
            return;
        }
        if let Some(asked) = self.status.scrapes().take() {
            let begun = Begun::now();
            self.set_gauges(join, processes, coverage, counters, now_ns);
            asked.answer(&self.metrics.registry);
            self.answers.note(begun);
        }
    }

    fn set_gauges(
        &mut self,
        join: &Join,
        processes: &Processes,
        coverage: &Coverage,
        counters: &Counters,
        now_ns: u64,
    ) {
        self.metrics.set_pending(&join.pending());
        for kind in [Kind::Request, Kind::Exposure] {
            self.metrics.set_horizon(kind, join.horizon_ns(kind));
        }
        let watermark_ns = join.watermark_ns().unwrap_or(now_ns);
        self.metrics.set_watermark_lag(now_ns.saturating_sub(watermark_ns));
        self.publish_ratios(join, counters, now_ns);
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
    }

    /// What the join gave up to keep its memory limit. It has moved the horizon for that.
    pub(super) fn publish_evicted(&mut self, join: &Join) {
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
    fn publish_ratios(&mut self, join: &Join, counters: &Counters, now_ns: u64) {
        self.note_losses(join, counters, now_ns);
        let pending = join.pending();
        let waiting = Waiting {
            exposures: pending.exposures,
            clicks: pending.clicks,
            click_reports: pending.click_reports,
            triples: pending.triples,
        };
        let ratios = self.links.ratios(now_ns, &waiting);
        self.publish_trust(&ratios, now_ns);
        let mut gone = std::mem::take(&mut self.published);
        for Ratio { edge, labels, tally, bounds } in ratios {
            let (Some(ratio), Some(bounds)) = (tally.ratio(), bounds) else { continue };
            let key = (edge, labels.service.clone(), labels.release.clone());
            self.metrics.set_ratio(edge, &key.1, &key.2, Some((ratio, bounds)));
            gone.remove(&key);
            self.published.insert(key);
        }
        for (edge, service, release) in gone {
            self.metrics.set_ratio(edge, &service, &release, None);
        }
    }

    /// Takes note of what was lost since this was called last.
    fn note_losses(&mut self, join: &Join, counters: &Counters, now_ns: u64) {
        let losses = self.losses.take(counters);
        // After the counters were read: what they say was lost by then.
        self.links.lose(self.losses_after_ns, self.clock.now_ns(), losses);
        // A record that is read later can be as old as the watermark is now.
        self.losses_after_ns = join.watermark_ns().unwrap_or(now_ns).min(now_ns);
    }

    /// A service's window is trustworthy when every ratio of it is known well enough; and where an edge that it is probed for
    /// has no link, when nothing was lost that could have been one.
    fn publish_trust(&self, ratios: &[Ratio], now_ns: u64) {
        let mut widest: BTreeMap<(&str, Edge), f64> = BTreeMap::new();
        for Ratio { labels, tally, bounds, edge } in ratios {
            if let (Some(_), Some(bounds)) = (tally.ratio(), bounds) {
                let widest = widest.entry((&labels.service, *edge)).or_insert(0.0);
                *widest = bounds.width().max(*widest);
            }
        }
        for service in &self.services {
            let is_known = |edge: &Edge| match widest.get(&(service.name.as_str(), *edge)) {
                Some(width) => *width <= self.trusted_width,
                None => !self.links.is_edge_doubtful(*edge, now_ns),
            };
            self.metrics.set_trustworthy(&service.name, edges_of(service).iter().all(is_known));
        }
    }
}

/// The edges that a service is probed for: what they are judged by.
fn edges_of(service: &Service) -> Vec<Edge> {
    let Service { exposure, click, report, .. } = service;
    let mut edges = Vec::new();
    if exposure.is_some() {
        edges.push(Edge::RequestExposure);
    }
    if click.is_some() {
        edges.extend([Edge::ExposureClick, Edge::Triple]);
    }
    if click.is_some() && report.is_some() {
        edges.push(Edge::ClickReport);
    }
    edges
}

/// The states of the probes, with what is suspicious about them.
fn with_suspicion(mut states: Vec<ProbeState>, suspicion: &Suspicion) -> Vec<ProbeState> {
    for (labels, function, requests) in suspicion.suspicious() {
        let name = format!("{}/{}", labels.service, function.name());
        if let Some(state) = states.iter_mut().find(|state| state.name == name) {
            state.unheard_requests = state.unheard_requests.max(requests);
        }
    }
    states
}
