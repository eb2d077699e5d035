//! The kernel side's counters as metrics, read when somebody asks.
//!
//! Counts of kernel sides before the present one are added, where the daemon remembers them.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus::{
    IntCounterVec, Opts,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use tracer_common::counters::{HitOutcome, Hook, counter_index};

use super::{Metric, RECEIVED_DISCARDED};
use crate::{attach::Counters, ingest::interpret::Reason};

/// Reads the kernel side's counters at each scrape, and adds up what was lost on either side.
pub struct KernelCollector {
    counters: Arc<Counters>,
    /// Counts of earlier kernel sides, by place in [`Counters::all`]; less what is not to be shown of the present one, so
    /// they may wrap.
    earlier: Vec<u64>,
    received: IntCounterVec,
    hits: IntCounterVec,
    skipped: IntCounterVec,
    lost: IntCounterVec,
    /// Two scrapes at a time must not both add what is new.
    turn: Mutex<()>,
}

impl KernelCollector {
    /// A collector of these counters and the `earlier` counts; `received` counts what became of the
    /// records.
    ///
    /// # Errors
    /// Never with the names of [`Metric`].
    pub fn new(
        counters: Arc<Counters>,
        earlier: Vec<u64>,
        received: IntCounterVec,
    ) -> prometheus::Result<Self> {
        let vector = |metric: Metric, labels: &[&str]| {
            IntCounterVec::new(Opts::new(metric.name(), metric.help()), labels)
        };
        let hits = vector(Metric::KernelHits, &["probe", "outcome"])?;
        let skipped = vector(Metric::SkippedHits, &["probe"])?;
        let lost = vector(Metric::LostEvents, &["reason"])?;
        Ok(Self { counters, earlier, received, hits, skipped, lost, turn: Mutex::new(()) })
    }

    fn refresh(&self) {
        // `hit` is read last, so that it is never less than the sum of the others.
        for outcome in HitOutcome::ALL.iter().rev() {
            for hook in Hook::ALL {
                let earlier = self.earlier.get(counter_index(hook, *outcome) as usize).copied();
                match self.counters.read(hook, *outcome) {
                    Ok(count) => {
                        let count = count.wrapping_add(earlier.unwrap_or_default());
                        raise(&self.hits, &[hook.name(), outcome.name()], count);
                    }
                    Err(error) => tracing::warn!(%error, hook = hook.name(), "kernel counter cannot be read"),
                }
            }
        }
        for hook in Hook::ALL {
            let earlier = self.earlier.get(Counters::place_of_skipped(hook)).copied();
            let skipped = self.counters.skipped(hook).wrapping_add(earlier.unwrap_or_default());
            raise(&self.skipped, &[hook.name()], skipped);
        }
        for (reason, count) in self.losses() {
            raise(&self.lost, &[reason], count);
        }
    }

    /// What was lost, by reason: in the kernel, and of the records that arrived.
    fn losses(&self) -> Vec<(&'static str, u64)> {
        let in_kernel = |outcome: HitOutcome| -> u64 {
            Hook::ALL
                .iter()
                .filter(|hook| loses_events(**hook, outcome))
                .map(|hook| self.hits.with_label_values(&[hook.name(), outcome.name()]).get())
                .sum()
        };
        let received = |reason: Reason| -> u64 {
            Hook::ALL
                .iter()
                .map(|hook| self.received.with_label_values(&[hook.name(), reason.name()]).get())
                .sum()
        };
        let mut losses: Vec<(&'static str, u64)> =
            HitOutcome::LOSSES.iter().map(|outcome| (outcome.name(), in_kernel(*outcome))).collect();
        for reason in Reason::LOSSES {
            match losses.iter_mut().find(|(name, _)| *name == reason.name()) {
                Some((_, count)) => *count += received(reason),
                None => losses.push((reason.name(), received(reason))),
            }
        }
        let discarded =
            |hook: &Hook| self.received.with_label_values(&[hook.name(), RECEIVED_DISCARDED]).get();
        let discarding = Hook::ALL.iter().filter(|hook| loses_events(**hook, HitOutcome::RingFull));
        losses.push((RECEIVED_DISCARDED, discarding.map(discarded).sum()));
        losses
    }
}

/// Is that outcome of that hook a lost event? The hooks that follow processes lose news of a process,
/// which the daemon makes up for by looking at /proc; but when the table of processes is full, whatever
/// the process does is lost.
pub const fn loses_events(hook: Hook, outcome: HitOutcome) -> bool {
    !matches!(hook, Hook::Exec | Hook::Fork | Hook::Exit) || matches!(outcome, HitOutcome::TargetsFull)
}

/// Brings a counter to a count that was kept elsewhere.
fn raise(counters: &IntCounterVec, labels: &[&str], count: u64) {
    let counter = counters.with_label_values(labels);
    counter.inc_by(count.saturating_sub(counter.get()));
}

impl Collector for KernelCollector {
    fn desc(&self) -> Vec<&Desc> {
        let mut all = self.hits.desc();
        all.extend(self.skipped.desc());
        all.extend(self.lost.desc());
        all
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.refresh();
        let mut families = self.hits.collect();
        families.extend(self.skipped.collect());
        families.extend(self.lost.collect());
        families
    }
}
