//! Triples as traces, for whoever looks at one broken link beside the service's own traces.
//!
//! [`Tap`] sees events and outcomes on their way, and puts triples into a queue; [`Exporter`] takes them out in a thread
//! of its own and sends them by OTLP (HTTP with protobuf). The queue is bounded and the tap never waits: what the
//! receiver cannot take is counted. What a trace looks like is in docs/operations.md, "Traces".
//!
//! Deliberately absent: reports (a report is of no click in particular), triples whose outcome is `unseen`, and what was
//! judged before a restart, which would be told twice. Called by `run`.

mod budget;
mod exporter;
mod ids;
mod record;
mod sample;
mod spans;

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use prometheus::IntCounterVec;

use self::{budget::Budget, sample::Sample};
pub use self::{
    exporter::{Exporter, ExporterError},
    sample::Triple,
};
use crate::{
    config::OtlpSettings,
    domain::{Event, Outcome},
};

/// Triples that wait for the receiver, of a few KiB each at most.
const QUEUE_LEN: usize = 1024;

/// What became of a triple, as the metric's label has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The receiver took it.
    Exported,
    /// Not enough of it was kept.
    NotSampled,
    /// There were more in this second than are allowed.
    OverLimit,
    /// Too many waited for the receiver.
    QueueFull,
    /// The receiver did not take it.
    Failed,
}

impl Fate {
    /// Every fate.
    pub const ALL: [Self; 5] =
        [Self::Exported, Self::NotSampled, Self::OverLimit, Self::QueueFull, Self::Failed];

    /// The label's value.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exported => "exported",
            Self::NotSampled => "not_sampled",
            Self::OverLimit => "over_limit",
            Self::QueueFull => "queue_full",
            Self::Failed => "failed",
        }
    }
}

/// The queue from the tap to the exporter.
pub fn queue() -> (SyncSender<Triple>, Receiver<Triple>) {
    sync_channel(QUEUE_LEN)
}

/// Picks the triples that are told.
#[derive(Debug)]
pub struct Tap {
    sample: Sample,
    broken: Budget,
    complete: Budget,
    /// Where to, and what is counted; nothing is told before [`Tap::open`].
    out: Option<(SyncSender<Triple>, IntCounterVec)>,
}

impl Tap {
    /// One that keeps events and tells nothing yet.
    pub fn new(settings: &OtlpSettings) -> Self {
        Self {
            sample: Sample::default(),
            broken: Budget::new(settings.broken_per_second),
            complete: Budget::new(settings.complete_per_second),
            out: None,
        }
    }

    /// From now on triples go into the queue, and all that are judged are counted by [`Fate`].
    pub fn open(&mut self, queue: SyncSender<Triple>, counts: IntCounterVec) {
        for fate in Fate::ALL {
            counts.with_label_values(&[fate.name()]);
        }
        self.out = Some((queue, counts));
    }

    /// An event that goes into the join now.
    pub fn note(&mut self, event: &Event) {
        self.sample.note(event);
    }

    /// An outcome of the join.
    pub fn judge(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Link { .. } => self.sample.note_link(outcome),
            Outcome::Triple { outcome, subject, .. } => match outcome.is_broken() {
                Some(is_broken) => self.tell(subject.timestamp_ns, is_broken),
                None => self.sample.forget_click(subject.timestamp_ns),
            },
            _ => {}
        }
    }

    fn tell(&mut self, click_ns: u64, is_broken: bool) {
        let found = self.sample.take(click_ns, is_broken);
        let Some((queue, counts)) = &self.out else { return };
        let budget = if is_broken { &mut self.broken } else { &mut self.complete };
        let fate = match found {
            None => Fate::NotSampled,
            Some(_) if !budget.take(click_ns) => Fate::OverLimit,
            Some(found) => match queue.try_send(self.sample.triple(&found)) {
                // The exporter counts what becomes of it.
                Ok(()) => return self.sample.set_told(&found),
                Err(_) => Fate::QueueFull,
            },
        };
        counts.with_label_values(&[fate.name()]).inc();
    }
}
