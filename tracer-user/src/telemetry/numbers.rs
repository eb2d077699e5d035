//! Counts that outlive the process: taken out of the metrics for a checkpoint, and put back.

use std::collections::{BTreeSet, HashMap};

use prometheus::{IntCounterVec, core::Collector as _, proto::LabelPair};
use serde::{Deserialize, Serialize};

use super::delay::DelayHistogram;
use crate::domain::Labels;

/// The labels of a series, by name and value.
pub(super) type SeriesLabels = Vec<(String, String)>;

/// Every count of the daemon's own at one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Numbers {
    /// By name of the metric and labels.
    counters: Vec<(String, SeriesLabels, u64)>,
    delays: Vec<Delays>,
}

/// A series of the delay histogram.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Delays {
    pub(super) labels: SeriesLabels,
    pub(super) count: u64,
    pub(super) sum_seconds: f64,
    /// As the histogram has them: each bucket with those below it.
    pub(super) buckets: Vec<u64>,
}

impl Numbers {
    /// What these count now.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the library hands out a whole, positive number as a float, exact up to 2^53"
    )]
    pub(super) fn of(counters: &[IntCounterVec], delay: &DelayHistogram) -> Self {
        let mut numbers = Self { counters: Vec::new(), delays: delay.delays() };
        for family in counters.iter().flat_map(IntCounterVec::collect) {
            for metric in family.get_metric() {
                let value = metric.get_counter().get_value() as u64;
                numbers.counters.push((family.name().to_owned(), labels_of(metric.get_label()), value));
            }
        }
        numbers
    }

    /// Adds them to these counters. A metric or a label that this build does not have is left out.
    pub(super) fn add_to(&self, counters: &[IntCounterVec], delay: &DelayHistogram) {
        let by_name: HashMap<String, &IntCounterVec> = counters
            .iter()
            .filter_map(|vector| Some((vector.desc().first()?.fq_name.clone(), vector)))
            .collect();
        for (name, labels, value) in &self.counters {
            let labels: HashMap<&str, &str> =
                labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let counter = by_name.get(name).and_then(|vector| vector.get_metric_with(&labels).ok());
            match counter {
                Some(counter) => counter.inc_by(*value),
                None => tracing::warn!(name, ?labels, value, "a count of another build is left out"),
            }
        }
        delay.add(&self.delays);
    }

    /// Every set of labels that something was counted under.
    pub fn labels(&self) -> BTreeSet<Labels> {
        let of_series = |labels: &SeriesLabels| {
            let value = |wanted: &str| {
                labels.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str().into())
            };
            Some(Labels { service: value("service")?, release: value("release")?, group: value("group")? })
        };
        self.counters.iter().filter_map(|(_, labels, _)| of_series(labels)).collect()
    }
}

pub(super) fn labels_of(pairs: &[LabelPair]) -> SeriesLabels {
    pairs.iter().map(|pair| (pair.name().to_owned(), pair.value().to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::{
        domain::{Edge, Kind, Labels, LinkOutcome, Outcome, Subject},
        telemetry::Metrics,
    };

    #[test]
    fn what_is_put_back_is_shown_as_if_it_had_been_counted_here() {
        let labels = Arc::new(Labels { service: "a".into(), release: "r".into(), group: "".into() });
        let count = |metrics: &Metrics, delay_ns: u64| {
            metrics.count(&Outcome::Received { kind: Kind::Click, labels: Arc::clone(&labels) });
            metrics.count(&Outcome::Link {
                edge: Edge::ExposureClick,
                outcome: LinkOutcome::Linked,
                subject: Subject::default(),
                delay_ns: Some(delay_ns),
                labels: Arc::clone(&labels),
            });
        };
        let (first, second, whole) = (Metrics::new(), Metrics::new(), Metrics::new());
        let [first, second, whole] = [first, second, whole].map(|metrics| metrics.expect("well formed"));
        count(&first, 200_000_000);
        second.restore(&first.numbers());
        count(&second, 40_000_000_000);
        count(&whole, 200_000_000);
        count(&whole, 40_000_000_000);
        assert_eq!(second.numbers(), whole.numbers());
        assert_eq!(second.numbers().labels(), [Labels::clone(&labels)].into());
        second.forget(&labels);
        assert_eq!(second.numbers().labels(), [].into());
    }
}
