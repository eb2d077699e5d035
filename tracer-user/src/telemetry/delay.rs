//! The histogram of delays, which can go on where another one ended.
//!
//! The library's histograms can only be added to one observation at a time, so what was counted before
//! a restart is kept beside it and added at each scrape.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use prometheus::{
    HistogramOpts, HistogramVec,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use super::numbers::{Delays, SeriesLabels, labels_of};

/// A histogram of seconds by labels.
#[derive(Clone)]
pub(super) struct DelayHistogram {
    pub(super) live: HistogramVec,
    earlier: Arc<Mutex<BTreeMap<SeriesLabels, Delays>>>,
}

impl DelayHistogram {
    pub(super) fn new(options: HistogramOpts, labels: &[&str]) -> prometheus::Result<Self> {
        Ok(Self { live: HistogramVec::new(options, labels)?, earlier: Arc::default() })
    }

    /// Every series, with what came before.
    pub(super) fn delays(&self) -> Vec<Delays> {
        let mut delays = Vec::new();
        for family in self.collect() {
            for metric in family.get_metric() {
                let histogram = metric.get_histogram();
                delays.push(Delays {
                    labels: labels_of(metric.get_label()),
                    count: histogram.get_sample_count(),
                    sum_seconds: histogram.get_sample_sum(),
                    buckets: histogram.get_bucket().iter().map(|bucket| bucket.cumulative_count()).collect(),
                });
            }
        }
        delays
    }

    /// Takes what was counted before. Buckets of another build are left out with their series.
    pub(super) fn add(&self, delays: &[Delays]) {
        for series in delays {
            let labels: HashMap<&str, &str> =
                series.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            // The series has to exist for its earlier counts to be shown.
            match self.live.get_metric_with(&labels) {
                Ok(_) => drop(self.lock().insert(series.labels.clone(), series.clone())),
                Err(error) => tracing::warn!(%error, ?labels, "delays of another build are left out"),
            }
        }
    }

    /// Forgets what was counted before under all of these labels.
    pub(super) fn forget(&self, wanted: &[(&str, &str)]) {
        let has = |labels: &SeriesLabels, (name, value): &(&str, &str)| {
            labels.iter().any(|(own, own_value)| own == name && own_value == value)
        };
        self.lock().retain(|labels, _| !wanted.iter().all(|pair| has(labels, pair)));
    }

    /// Forgets everything.
    pub(super) fn reset(&self) {
        self.lock().clear();
        self.live.reset();
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SeriesLabels, Delays>> {
        self.earlier.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for DelayHistogram {
    fn desc(&self) -> Vec<&Desc> {
        self.live.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let earlier = self.lock();
        let mut families = self.live.collect();
        for family in &mut families {
            for metric in family.mut_metric() {
                let Some(before) = earlier.get(&labels_of(metric.get_label())) else { continue };
                let mut histogram = metric.get_histogram().clone();
                let mut buckets = histogram.get_bucket().to_vec();
                if buckets.len() != before.buckets.len() {
                    continue;
                }
                for (bucket, count) in buckets.iter_mut().zip(&before.buckets) {
                    bucket.set_cumulative_count(bucket.cumulative_count() + count);
                }
                histogram.set_bucket(buckets);
                histogram.set_sample_count(histogram.get_sample_count() + before.count);
                histogram.set_sample_sum(histogram.get_sample_sum() + before.sum_seconds);
                metric.set_histogram(histogram);
            }
        }
        families
    }
}
