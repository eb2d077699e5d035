//! Everything that the numbers follow from, and the one way to change it.
//!
//! The same inputs in the same order make the same state: live, and out of the journal after a restart.
//! So nothing here looks at the kernel, at /proc or at a clock.

use std::sync::Arc;

use tracer_common::counters::Hook;

use super::publish::Publisher;
use crate::{
    discover::Processes,
    domain::{Kind, Outcome},
    durable::{Batch, DaemonState, Input},
    export::recording::Recording,
    ingest::{held::Held, http::Streams},
    join::{Join, JoinConfig, Snapshot},
};

/// The reason of a horizon that is the end of a time in which nothing was captured, though more is known of the time before.
pub(super) const RESTART_GAP: &str = "restart_gap";

/// The state.
pub(super) struct State {
    pub(super) join: Join,
    pub(super) publisher: Publisher,
    pub(super) processes: Processes,
    pub(super) streams: Streams,
    /// What waits for Kubernetes.
    pub(super) held: Held,
    pub(super) recording: Option<Recording>,
    pub(super) source: Arc<str>,
    out: Vec<Outcome>,
}

impl State {
    /// A state in which nothing has happened yet.
    pub(super) fn new(
        config: JoinConfig,
        publisher: Publisher,
        processes: Processes,
        recording: Option<Recording>,
        source: Arc<str>,
    ) -> Self {
        Self {
            join: Join::new(config),
            publisher,
            processes,
            streams: Streams::default(),
            held: Held::default(),
            recording,
            source,
            out: Vec::new(),
        }
    }

    /// Becomes the state of a checkpoint.
    pub(super) fn restore(&mut self, daemon: &DaemonState, join: Join) {
        self.join = join;
        self.publisher.restore(daemon, self.join.evicted());
        for change in &daemon.streams {
            self.streams.make_again(change.clone());
        }
        for change in &daemon.held {
            self.held.make_again(change.clone());
        }
        for change in &daemon.processes {
            self.processes.make_again(change);
        }
        self.processes.remember_labels(daemon.numbers.labels());
    }

    /// Takes in a batch that was journaled before a restart.
    pub(super) fn replay(&mut self, mut batch: Batch) -> anyhow::Result<()> {
        for change in batch.streams.drain(..) {
            self.streams.make_again(change);
        }
        for change in batch.held.drain(..) {
            self.held.make_again(change);
        }
        for change in batch.inputs.iter().filter_map(|input| match input {
            Input::Process(change) => Some(change),
            _ => None,
        }) {
            self.processes.make_again(change);
        }
        self.take(batch)
    }

    /// Takes in a batch. Its changes of the table of processes, of connections and of what is held were made while it
    /// was read.
    pub(super) fn take(&mut self, batch: Batch) -> anyhow::Result<()> {
        for (hook, outcome, count) in &batch.received {
            self.publisher.count_received(hook, outcome, *count);
        }
        for (hook, count) in &batch.further {
            self.publisher.count_further(hook, *count);
        }
        for input in batch.inputs {
            match input {
                Input::Event(event) => {
                    if let Some(recording) = &mut self.recording {
                        recording.write(&event)?;
                    }
                    self.publisher.note_event(&event);
                    self.join.push(event, &mut self.out);
                    self.publisher.count(&mut self.out);
                }
                Input::Heartbeat(timestamp_ns) => self.heartbeat(timestamp_ns),
                Input::Horizon { reason, timestamp_ns } => self.move_horizon(&reason, timestamp_ns),
                Input::Process(_) => {}
            }
        }
        Ok(())
    }

    /// Nothing older than this can come, in nanoseconds since the Unix epoch.
    pub(super) fn heartbeat(&mut self, timestamp_ns: u64) {
        self.join.heartbeat(&self.source, timestamp_ns, &mut self.out);
        self.publisher.count(&mut self.out);
    }

    /// The join as it is now, to be read by another thread.
    pub(super) fn snapshot(&mut self) -> Snapshot {
        let snapshot = self.join.snapshot(&mut self.out);
        self.publisher.count(&mut self.out);
        self.publisher.publish_evicted(&self.join);
        snapshot
    }

    /// Records that were taken off the ring, by hook; those that are held are counted when they are let go.
    pub(super) fn received_from(&self, hook: Hook) -> u64 {
        self.publisher.metrics.received_from(hook) + self.held.count_of(hook) as u64
    }

    /// Has every count begin at 0. The join and the window of the ratio go on.
    pub(super) fn begin_counting_anew(&self) {
        tracing::warn!(
            "it is not certain how far the counts had come, so they begin at 0, which Prometheus understands"
        );
        self.publisher.metrics.begin_anew();
    }

    /// Records that were thrown away with the ring that they were on.
    pub(super) fn count_discarded(&self, hook: Hook, count: u64) {
        let outcome = crate::telemetry::RECEIVED_DISCARDED;
        self.publisher.metrics.received.with_label_values(&[hook.name(), outcome]).inc_by(count);
    }

    /// From then on everything is known; what reaches further back may have been missed.
    fn move_horizon(&mut self, reason: &str, timestamp_ns: u64) {
        if reason == RESTART_GAP {
            self.join.note_gap(timestamp_ns, &mut self.out);
            self.publisher.count(&mut self.out);
        } else {
            for kind in [Kind::Request, Kind::Exposure] {
                self.join.set_horizon(kind, timestamp_ns);
            }
        }
        self.publisher.metrics.horizon_moves.with_label_values(&[reason]).inc();
    }
}
