//! Values of metrics at one moment, as the registry gives them. Reads; keeps nothing.

use std::collections::BTreeMap;

use prometheus::proto::MetricFamily;

use crate::telemetry::Metric;

/// A series: its metric and its labels in alphabetical order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Series {
    metric: &'static str,
    labels: Vec<(String, String)>,
}

impl Series {
    /// Is it one of that metric?
    pub fn is(&self, metric: Metric) -> bool {
        self.metric == metric.name()
    }

    /// The value of a label; empty when it has none of that name.
    pub fn label(&self, name: &str) -> &str {
        self.labels.iter().find(|(label, _)| label == name).map_or("", |(_, value)| value)
    }
}

/// What every counter and gauge that the page shows says at one moment.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    pub(super) counters: BTreeMap<Series, u64>,
    pub(super) gauges: BTreeMap<Series, f64>,
}

/// What is shown as growth.
const COUNTERS: [Metric; 6] = [
    Metric::Events,
    Metric::Duplicates,
    Metric::Links,
    Metric::Requests,
    Metric::LostEvents,
    Metric::CoverageHorizonMoves,
];
/// What is shown as it is.
const GAUGES: [Metric; 4] =
    [Metric::BrokenLinkRatio, Metric::CoverageHorizon, Metric::TargetProcesses, Metric::WatermarkLag];

impl Reading {
    /// Takes from the registry's families what the page shows.
    pub fn of(families: &[MetricFamily]) -> Self {
        let mut reading = Self::default();
        for family in families {
            let among = |metrics: &[Metric]| {
                metrics.iter().map(|metric| metric.name()).find(|name| *name == family.name())
            };
            if let Some(name) = among(&COUNTERS) {
                reading.counters.extend(
                    rows(family, name)
                        .map(|(series, metric)| (series, whole(metric.get_counter().get_value()))),
                );
            } else if let Some(name) = among(&GAUGES) {
                reading.gauges.extend(
                    rows(family, name).map(|(series, metric)| (series, metric.get_gauge().get_value())),
                );
            }
        }
        reading
    }

    /// The series of a gauge and their values.
    pub fn gauges(&self, metric: Metric) -> impl Iterator<Item = (&Series, f64)> {
        self.gauges
            .iter()
            .filter(move |(series, _)| series.is(metric))
            .map(|(series, value)| (series, *value))
    }
}

fn rows<'a>(
    family: &'a MetricFamily,
    name: &'static str,
) -> impl Iterator<Item = (Series, &'a prometheus::proto::Metric)> {
    family.get_metric().iter().map(move |metric| {
        let labels = metric.get_label();
        let mut labels: Vec<_> =
            labels.iter().map(|pair| (pair.name().to_owned(), pair.value().to_owned())).collect();
        labels.sort();
        (Series { metric: name, labels }, metric)
    })
}

/// A counter of whole things, which the registry gives as a float.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded just before")]
fn whole(value: f64) -> u64 {
    value.clamp(0.0, 9e15).round() as u64
}

#[cfg(test)]
pub(super) mod tests {
    use super::{Metric, Reading, Series};

    /// A series for tests.
    pub(in crate::export::page) fn series(metric: Metric, labels: &[(&str, &str)]) -> Series {
        let mut labels: Vec<_> =
            labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        labels.sort();
        Series { metric: metric.name(), labels }
    }

    #[test]
    fn counters_and_gauges_are_taken_from_a_registry_with_their_labels() {
        let metrics = crate::telemetry::Metrics::new().expect("metrics");
        metrics.processes.with_label_values(&["recommend"]).set(3);
        metrics.horizon_moves.with_label_values(&["attached_late"]).inc_by(7);
        let reading = Reading::of(&metrics.registry.gather());
        let processes: Vec<_> = reading.gauges(Metric::TargetProcesses).collect();
        assert_eq!(processes.len(), 1);
        assert_eq!((processes[0].0.label("service"), processes[0].1), ("recommend", 3.0));
        let moves = series(Metric::CoverageHorizonMoves, &[("reason", "attached_late")]);
        assert_eq!(reading.counters.get(&moves), Some(&7));
    }
}
