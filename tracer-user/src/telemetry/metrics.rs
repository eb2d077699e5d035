//! The metrics that the daemon counts itself.

use std::{collections::HashMap, time::Duration};

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
    core::{Collector as _, MetricVec, MetricVecBuilder},
};
use tracer_common::counters::Hook;

use super::{Metric, Numbers, delay::DelayHistogram};
use crate::{
    build,
    discover::pods,
    domain::{Edge, Kind, Labels, LinkOutcome, Outcome},
    hold,
    ingest::interpret::Reason,
    join::{Evicted, Pending},
    slo::Bounds,
};

/// Bounds of the delay histogram in seconds: from a reflex to the default click window.
const DELAY_BUCKETS: [f64; 14] =
    [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0];

/// Bounds of the pauses for checkpoints in seconds; 5 ms is what they may take.
const PAUSE_BUCKETS: [f64; 8] = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05];

/// Bounds of the histogram of gaps in seconds: from a millisecond to the longest time between two looks.
const GAP_BUCKETS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 5.0];

/// Label values of a record that was of use: it became an event, or news of a process.
pub const RECEIVED_EVENT: &str = "event";
/// See [`RECEIVED_EVENT`].
pub const RECEIVED_PROCESS: &str = "process";
/// Label value of a record that a restart could not go on with: it was thrown away with its ring.
pub const RECEIVED_DISCARDED: &str = "discarded";
/// What a record can be beside a [`Reason`].
const RECEIVED_OUTCOMES: [&str; 3] = [RECEIVED_EVENT, RECEIVED_PROCESS, RECEIVED_DISCARDED];

/// Counters and gauges, registered.
pub struct Metrics {
    /// The registry that `/metrics` shows.
    pub registry: Registry,
    /// Records received, by hook and what they were.
    pub received: IntCounterVec,
    /// What records told beside the first thing, by hook.
    pub further: IntCounterVec,
    /// Look-ups of collectors' names, by name and outcome.
    pub lookups: IntCounterVec,
    /// Probes in place.
    pub attached: IntGaugeVec,
    /// Probes that are in place and not hit.
    pub suspicious: IntGaugeVec,
    /// Processes that are traced.
    pub processes: IntGaugeVec,
    /// Probes that could not be put in place.
    pub attach_errors: IntCounterVec,
    /// Moves of the coverage horizon.
    pub horizon_moves: IntCounterVec,
    events: IntCounterVec,
    links: IntCounterVec,
    duplicates: IntCounterVec,
    late: IntCounterVec,
    late_without_outcome: IntCounterVec,
    requests: IntCounterVec,
    delay: DelayHistogram,
    attach_gap: HistogramVec,
    /// Failures to follow pods, by reason.
    pub pod_watch_errors: IntCounterVec,
    /// Processes that waited for what Kubernetes says, by what became of them.
    pub pod_waits: IntCounterVec,
    pod_watch_up: IntGaugeVec,
    pod_watch_age: GaugeVec,
    known_pods: IntGaugeVec,
    unsettled: IntGaugeVec,
    held_back: IntGaugeVec,
    held: IntCounterVec,
    hold_file_systems: Gauge,
    ratio: GaugeVec,
    trustworthy: IntGaugeVec,
    pending: IntGaugeVec,
    state_bytes: IntGauge,
    /// What the join's state may take.
    pub state_limit_bytes: IntGauge,
    evicted: IntCounterVec,
    evicted_events: IntCounterVec,
    horizon: GaugeVec,
    watermark_lag: Gauge,
    clock_step: Gauge,
    /// What became of the configuration's file when it was last read.
    pub config_reload: ConfigReload,
    checkpoint: Gauge,
    checkpoint_pause: Histogram,
    /// What could not be kept.
    pub checkpoint_failures: IntCounterVec,
    /// Triples as traces, by [`Fate`](crate::export::otlp::Fate). They begin at 0 with each process, because what one that was killed had
    /// told is not known.
    pub otlp_triples: IntCounterVec,
    /// Every counter but these: all of them outlive the process.
    durable: Vec<IntCounterVec>,
}

/// What became of the configuration's file when it was last read.
#[derive(Debug, Clone)]
pub struct ConfigReload {
    successful: Gauge,
    success_time: Gauge,
}

impl ConfigReload {
    /// Publishes when it was valid, in seconds since the Unix epoch, or that it was not.
    pub fn set(&self, valid_at_unix_seconds: Option<f64>) {
        self.successful.set(if valid_at_unix_seconds.is_some() { 1.0 } else { 0.0 });
        if let Some(time) = valid_at_unix_seconds {
            self.success_time.set(time);
        }
    }
}

impl Metrics {
    /// All metrics, those with closed label sets at zero from the start.
    ///
    /// # Errors
    /// Never with the names of [`Metric`].
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let of = |metric: Metric| Opts::new(metric.name(), metric.help());
        let mut durable = Vec::new();
        let mut counters = |metric: Metric, labels: &[&str]| {
            let vector = IntCounterVec::new(of(metric), labels)?;
            registry.register(Box::new(vector.clone()))?;
            durable.push(vector.clone());
            prometheus::Result::Ok(vector)
        };
        let int_gauges = |metric: Metric, labels: &[&str]| {
            let vector = IntGaugeVec::new(of(metric), labels)?;
            registry.register(Box::new(vector.clone()))?;
            prometheus::Result::Ok(vector)
        };
        let gauges = |metric: Metric, labels: &[&str]| {
            let vector = GaugeVec::new(of(metric), labels)?;
            registry.register(Box::new(vector.clone()))?;
            prometheus::Result::Ok(vector)
        };
        let gauge = |metric: Metric| {
            let gauge = Gauge::with_opts(of(metric))?;
            registry.register(Box::new(gauge.clone()))?;
            prometheus::Result::Ok(gauge)
        };
        let int_gauge = |metric: Metric| {
            let gauge = IntGauge::with_opts(of(metric))?;
            registry.register(Box::new(gauge.clone()))?;
            prometheus::Result::Ok(gauge)
        };
        let delay = Metric::ExposureToClick;
        let delay = HistogramOpts::new(delay.name(), delay.help()).buckets(DELAY_BUCKETS.to_vec());
        let delay = DelayHistogram::new(delay, &["service", "release", "group"])?;
        registry.register(Box::new(delay.clone()))?;
        let pause = Metric::CheckpointPause;
        let pause = HistogramOpts::new(pause.name(), pause.help()).buckets(PAUSE_BUCKETS.to_vec());
        let pause = Histogram::with_opts(pause)?;
        registry.register(Box::new(pause.clone()))?;
        let gap = Metric::AttachGap;
        let gap = HistogramOpts::new(gap.name(), gap.help()).buckets(GAP_BUCKETS.to_vec());
        let attach_gap = HistogramVec::new(gap, &["service"])?;
        registry.register(Box::new(attach_gap.clone()))?;
        let otlp_triples = IntCounterVec::new(of(Metric::OtlpTriples), &["outcome"])?;
        registry.register(Box::new(otlp_triples.clone()))?;
        let metrics = Self {
            received: counters(Metric::ReceivedRecords, &["probe", "outcome"])?,
            further: counters(Metric::FurtherMessages, &["probe"])?,
            lookups: counters(Metric::CollectorLookups, &["name", "outcome"])?,
            attached: int_gauges(Metric::AttachedProbes, &["service", "hook"])?,
            suspicious: int_gauges(Metric::SuspiciousProbes, &["service", "release", "group", "hook"])?,
            processes: int_gauges(Metric::TargetProcesses, &["service"])?,
            attach_errors: counters(Metric::AttachErrors, &["reason"])?,
            horizon_moves: counters(Metric::CoverageHorizonMoves, &["reason"])?,
            events: counters(Metric::Events, &["kind", "service", "release", "group"])?,
            links: counters(Metric::Links, &["edge", "outcome", "service", "release", "group"])?,
            duplicates: counters(Metric::Duplicates, &["kind", "service", "release", "group"])?,
            late: counters(Metric::LateEvents, &["kind"])?,
            late_without_outcome: counters(Metric::LateWithoutOutcome, &["kind"])?,
            requests: counters(Metric::Requests, &["outcome", "service", "release", "group"])?,
            delay,
            attach_gap,
            pod_watch_errors: counters(Metric::PodWatchErrors, &["reason"])?,
            pod_waits: counters(Metric::PodWaits, &["outcome"])?,
            pod_watch_up: int_gauges(Metric::PodWatchUp, &[])?,
            pod_watch_age: gauges(Metric::PodWatchAge, &[])?,
            known_pods: int_gauges(Metric::KnownPods, &[])?,
            unsettled: int_gauges(Metric::UnsettledProcesses, &["state"])?,
            held_back: int_gauges(Metric::HeldBack, &["what"])?,
            held: counters(Metric::HeldExecs, &["outcome"])?,
            hold_file_systems: gauge(Metric::HoldFileSystems)?,
            ratio: gauges(Metric::BrokenLinkRatio, &["edge", "service", "release", "bound"])?,
            trustworthy: int_gauges(Metric::WindowTrustworthy, &["service"])?,
            pending: int_gauges(Metric::Pending, &["table"])?,
            state_bytes: int_gauge(Metric::StateBytes)?,
            state_limit_bytes: int_gauge(Metric::StateLimitBytes)?,
            evicted: counters(Metric::Evicted, &["table"])?,
            evicted_events: counters(Metric::EvictedEvents, &["kind"])?,
            horizon: gauges(Metric::CoverageHorizon, &["kind"])?,
            watermark_lag: gauge(Metric::WatermarkLag)?,
            clock_step: gauge(Metric::ClockStep)?,
            checkpoint: gauge(Metric::Checkpoint)?,
            checkpoint_pause: pause,
            checkpoint_failures: counters(Metric::CheckpointFailures, &["what"])?,
            otlp_triples,
            durable,
            config_reload: ConfigReload {
                successful: gauge(Metric::ConfigReloadSuccessful)?,
                success_time: gauge(Metric::ConfigReloadSuccessTime)?,
            },
            registry: registry.clone(),
        };
        int_gauges(Metric::BuildInfo, &["version", "commit"])?
            .with_label_values(&[build::VERSION, build::COMMIT])
            .set(1);
        metrics.start_at_zero();
        Ok(metrics)
    }

    /// Series that a rule may ask for exist before the first event does.
    fn start_at_zero(&self) {
        for kind in Kind::ALL {
            self.late.with_label_values(&[kind.name()]);
            if kind != Kind::Report {
                self.late_without_outcome.with_label_values(&[kind.name()]);
            }
        }
        for what in ["checkpoint", "journal"] {
            self.checkpoint_failures.with_label_values(&[what]);
        }
        self.evicted_events.with_label_values(&[Kind::Request.name()]);
        self.add_evicted(&Evicted::default());
        for hook in Hook::ALL {
            self.further.with_label_values(&[hook.name()]);
            let nothing = Reason::ALL.iter().map(|reason| reason.name());
            for outcome in nothing.chain([RECEIVED_DISCARDED]) {
                self.received.with_label_values(&[hook.name(), outcome]);
            }
        }
        for kind in [Kind::Request, Kind::Exposure] {
            self.horizon.with_label_values(&[kind.name()]);
        }
        for reason in pods::Reason::ALL.iter().map(|reason| reason.name()) {
            self.pod_watch_errors.with_label_values(&[reason]);
        }
        for outcome in ["matched", "not_matched", "given_up"] {
            self.pod_waits.with_label_values(&[outcome]);
        }
        self.set_unsettled(0, 0);
        self.set_held_back(0, 0);
    }

    /// Every count of the daemon's own, for a checkpoint.
    pub fn numbers(&self) -> Numbers {
        Numbers::of(&self.durable, &self.delay)
    }

    /// Goes on from these counts.
    pub fn restore(&self, numbers: &Numbers) {
        numbers.add_to(&self.durable, &self.delay);
    }

    /// All counts that outlive the process begin at 0.
    pub fn begin_anew(&self) {
        self.durable.iter().for_each(IntCounterVec::reset);
        self.delay.reset();
        self.start_at_zero();
    }

    /// Records received from a hook, whatever they were. Messages that shared a record with another are no more records.
    pub fn received_from(&self, hook: Hook) -> u64 {
        let messages: u64 = RECEIVED_OUTCOMES
            .into_iter()
            .chain(Reason::ALL.iter().map(|reason| reason.name()))
            .map(|outcome| self.received.with_label_values(&[hook.name(), outcome]).get())
            .sum();
        messages.saturating_sub(self.further.with_label_values(&[hook.name()]).get())
    }

    /// Publishes when the last checkpoint was on the disk, in nanoseconds since the Unix epoch.
    pub fn set_checkpoint(&self, written_ns: u64) {
        self.checkpoint.set(seconds(written_ns));
    }

    /// Publishes how long the join stood still for a checkpoint.
    pub fn observe_checkpoint_pause(&self, pause: Duration) {
        self.checkpoint_pause.observe(pause.as_secs_f64());
    }

    /// Counts one outcome of the join.
    pub fn count(&self, outcome: &Outcome) {
        match outcome {
            Outcome::Received { kind, labels } => self
                .events
                .with_label_values(&[kind.name(), &labels.service, &labels.release, &labels.group])
                .inc(),
            Outcome::Duplicate { kind, labels } => self
                .duplicates
                .with_label_values(&[kind.name(), &labels.service, &labels.release, &labels.group])
                .inc(),
            Outcome::Late { kind, .. } => self.late.with_label_values(&[kind.name()]).inc(),
            Outcome::LateWithoutOutcome { kind, .. } => {
                self.late_without_outcome.with_label_values(&[kind.name()]).inc();
            }
            Outcome::Evicted { kind, .. } => self.evicted_events.with_label_values(&[kind.name()]).inc(),
            Outcome::Request { outcome, labels } => self
                .requests
                .with_label_values(&[outcome.name(), &labels.service, &labels.release, &labels.group])
                .inc(),
            Outcome::Link { edge, outcome, delay_ns, labels, .. } => {
                self.links
                    .with_label_values(&[
                        edge.name(),
                        outcome.name(),
                        &labels.service,
                        &labels.release,
                        &labels.group,
                    ])
                    .inc();
                if let (Edge::ExposureClick, LinkOutcome::Linked, Some(delay_ns)) = (edge, outcome, delay_ns)
                {
                    self.delay
                        .live
                        .with_label_values(&[&*labels.service, &*labels.release, &*labels.group])
                        .observe(seconds(*delay_ns));
                }
            }
            Outcome::Triple { outcome, labels, .. } => self
                .links
                .with_label_values(&[
                    Edge::Triple.name(),
                    outcome.name(),
                    &labels.service,
                    &labels.release,
                    &labels.group,
                ])
                .inc(),
        }
    }

    /// Takes away every series under these labels.
    pub fn forget(&self, labels: &Labels) {
        let wanted: [(&str, &str); 3] =
            [("service", &labels.service), ("release", &labels.release), ("group", &labels.group)];
        for vector in [&self.events, &self.duplicates, &self.links, &self.requests] {
            remove_series(vector, &wanted);
        }
        remove_series(&self.suspicious, &wanted);
        remove_series(&self.delay.live, &wanted);
        self.delay.forget(&wanted);
    }

    /// Counts a process whose SDK functions could be called for this long, in nanoseconds, before they were probed.
    pub fn observe_attach_gap(&self, service: &str, gap_ns: u64) {
        self.attach_gap.with_label_values(&[service]).observe(seconds(gap_ns));
    }

    /// Adds what became of programs on watched file systems since the last call; so many are watched now.
    #[expect(clippy::cast_precision_loss, reason = "so many file systems there are not")]
    pub fn add_held(&self, since: &hold::Counts, file_systems: u64) {
        let hold::Counts { passed, released, timed_out, refused, file_systems: _ } = *since;
        let outcomes =
            [("passed", passed), ("released", released), ("timed_out", timed_out), ("refused", refused)];
        for (outcome, count) in outcomes {
            self.held.with_label_values(&[outcome]).inc_by(count);
        }
        self.hold_file_systems.set(file_systems as f64);
    }

    /// Publishes whether pods are followed, for how long they are not, and how many are known.
    pub fn set_pod_watch(&self, is_up: bool, age: Duration, known: usize) {
        let none: [&str; 0] = [];
        self.pod_watch_up.with_label_values(&none).set(i64::from(is_up));
        self.pod_watch_age.with_label_values(&none).set(age.as_secs_f64());
        self.known_pods.with_label_values(&none).set(i64::try_from(known).unwrap_or(i64::MAX));
    }

    /// Publishes how many processes wait for what Kubernetes says, and for how many it did not say it in time.
    pub fn set_unsettled(&self, waiting: usize, unknown: usize) {
        for (state, count) in [("waiting", waiting), ("unknown", unknown)] {
            self.unsettled.with_label_values(&[state]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Publishes how many records wait for that, and how many events behind them.
    pub fn set_held_back(&self, records: usize, events: usize) {
        for (what, count) in [("records", records), ("events", events)] {
            self.held_back.with_label_values(&[what]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Publishes what waits in the join.
    pub fn set_pending(&self, pending: &Pending) {
        for (table, count) in pending.tables() {
            self.pending.with_label_values(&[table]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Publishes what the join's state takes, in bytes.
    pub fn set_state_bytes(&self, bytes: u64) {
        self.state_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Adds what the join has given up since the last call.
    pub fn add_evicted(&self, since: &Evicted) {
        for (table, count) in since.tables() {
            self.evicted.with_label_values(&[table]).inc_by(count);
        }
    }

    /// Publishes how many connections are remembered.
    pub fn set_streams(&self, count: usize) {
        self.pending.with_label_values(&["connections"]).set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Publishes how far the watermark is behind, in nanoseconds.
    pub fn set_watermark_lag(&self, lag_ns: u64) {
        self.watermark_lag.set(seconds(lag_ns));
    }

    /// Publishes how far the system clock was stepped, in nanoseconds.
    pub fn set_clock_step(&self, step_ns: i64) {
        self.clock_step.set(seconds(step_ns.unsigned_abs()).copysign(if step_ns < 0 { -1.0 } else { 1.0 }));
    }

    /// Publishes since when everything of a kind was seen, in nanoseconds since the Unix epoch.
    pub fn set_horizon(&self, kind: Kind, horizon_ns: u64) {
        self.horizon.with_label_values(&[kind.name()]).set(seconds(horizon_ns));
    }

    /// Publishes the share of broken links of an edge and between what it lies; `None` takes the series
    /// away.
    pub fn set_ratio(&self, edge: Edge, service: &str, release: &str, ratio: Option<(f64, Bounds)>) {
        let values = ratio.map(|(point, bounds)| [point, bounds.lower, bounds.upper]);
        for (index, bound) in ["point", "lower", "upper"].into_iter().enumerate() {
            let labels = [edge.name(), service, release, bound];
            match values {
                Some(values) => self.ratio.with_label_values(&labels).set(values[index]),
                // It may not be there, which is as good.
                None => drop(self.ratio.remove_label_values(&labels)),
            }
        }
    }

    /// Publishes whether the ratios of a service are known well enough to act on them.
    pub fn set_trustworthy(&self, service: &str, is_trustworthy: bool) {
        self.trustworthy.with_label_values(&[service]).set(i64::from(is_trustworthy));
    }
}

/// Removes the series of a vector that have all of these labels.
fn remove_series<T: MetricVecBuilder>(vector: &MetricVec<T>, wanted: &[(&str, &str)]) {
    for family in vector.collect() {
        for metric in family.get_metric() {
            let pairs: HashMap<&str, &str> =
                metric.get_label().iter().map(|pair| (pair.name(), pair.value())).collect();
            if wanted.iter().all(|(name, value)| pairs.get(name) == Some(value)) {
                // It was there a moment ago, and this thread is the only one that removes.
                let _ = vector.remove(&pairs);
            }
        }
    }
}

/// Nanoseconds as seconds.
#[expect(clippy::cast_precision_loss, reason = "a metric needs no more than 53 bits")]
fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tracer_common::counters::Hook;

    use super::{Metrics, RECEIVED_EVENT};
    use crate::domain::{Kind, Labels, Outcome, Subject, TripleOutcome};

    /// What is discarded with a ring is what was submitted and not received: three messages in one record are one.
    #[test]
    fn messages_that_share_a_record_are_one_record() {
        let metrics = Metrics::new().expect("names are well formed");
        let (write, connect) = (Hook::Write, Hook::Connect);
        metrics.received.with_label_values(&[write.name(), RECEIVED_EVENT]).inc_by(4);
        metrics.further.with_label_values(&[write.name()]).inc_by(2);
        metrics.received.with_label_values(&[connect.name(), RECEIVED_EVENT]).inc_by(3);
        assert_eq!((metrics.received_from(write), metrics.received_from(connect)), (2, 3));
    }

    #[test]
    fn the_series_of_a_release_that_is_gone_go_and_no_others() {
        let metrics = Metrics::new().expect("names are well formed");
        let labels = |release: &str| {
            Arc::new(Labels { service: "a".into(), release: release.into(), group: "".into() })
        };
        for release in ["old", "new"] {
            metrics.count(&Outcome::Received { kind: Kind::Click, labels: labels(release) });
            metrics.count(&Outcome::Triple {
                outcome: TripleOutcome::Broken,
                subject: Subject::default(),
                labels: labels(release),
            });
        }
        metrics.forget(&labels("old"));
        let mut text = String::new();
        prometheus::TextEncoder::new().encode_utf8(&metrics.registry.gather(), &mut text).expect("in memory");
        assert!(!text.contains("release=\"old\""), "{text}");
        assert_eq!(text.matches("release=\"new\"").count(), 2, "{text}");
    }
}
