//! The join: events in, outcomes out. A pure state machine; what it must decide is in
//! docs/semantics.md, rule by rule.
//!
//! Read [`Join::push`] first: an event older than the watermark is taken at once, any other waits in
//! the reorder buffer until the watermark passes it. `requests`, `exposures`, `clicks` and `reports`
//! each tell what becomes of one kind of event, from its arrival to its deadline.
//!
//! *Invariants*, asserted in debug builds:
//! 1. Every event pushed is in exactly one place ([`Pending::check_accounting`]).
//! 2. Event time and the watermark never go back, and no deadline is run out of order with events.
//! 3. Two firsts of one key are more than their window apart.
//! 4. A key of a table lives as long as whatever holds it: forgetting comes after every deadline.
//! 5. What is forgotten has nothing waiting in it.
//!
//! Deliberately absent: I/O, clocks, randomness that could show in a result, logs, metrics. Time
//! is in the events and in heartbeats. `run.rs` and `replay` call this; it calls nobody.

mod clicks;
mod config;
mod deadlines;
mod exposures;
mod pending;
mod queue;
mod reports;
mod requests;
mod slab;
mod state;
mod timeline;
mod watermark;

#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use config::{JoinConfig, Reports};
pub use pending::{Imbalance, Pending};

#[cfg(debug_assertions)]
use crate::domain::Counts;
use crate::domain::{Event, Kind, Outcome};
use deadlines::{Deadlines, Until};
use queue::Queue;
use state::State;
use watermark::Watermark;

/// The join of all sources. Feed it every event; take its outcomes.
#[derive(Debug)]
pub struct Join {
    config: JoinConfig,
    watermark: Watermark,
    /// Events that the watermark has not passed, by timestamp, kind and order of arrival.
    buffer: Queue<(u64, Kind, u64), Event>,
    /// Events pushed so far: breaks the last tie in the buffer.
    arrivals: u64,
    /// Event time: every event and every deadline before it has been taken.
    now_ns: u64,
    /// Coverage horizon of requests; `None` when nothing before it was missed.
    request_horizon_ns: Option<u64>,
    /// Coverage horizon of exposures.
    exposure_horizon_ns: Option<u64>,
    state: State,
    deadlines: Deadlines,
    pending: Pending,
    /// All outcomes so far, for invariant 1.
    #[cfg(debug_assertions)]
    counts: Counts,
}

impl Join {
    /// A join that knows nothing yet and whose coverage is unbounded.
    pub fn new(config: JoinConfig) -> Self {
        Self {
            watermark: Watermark::new(config.lateness_ns, config.idle_timeout_ns),
            config,
            buffer: Queue::default(),
            arrivals: 0,
            now_ns: 0,
            request_horizon_ns: None,
            exposure_horizon_ns: None,
            state: State::default(),
            deadlines: Deadlines::default(),
            pending: Pending::default(),
            #[cfg(debug_assertions)]
            counts: Counts::default(),
        }
    }

    /// Takes in one event and appends what is decided now, about this event or about earlier ones.
    pub fn push(&mut self, event: Event, out: &mut Vec<Outcome>) {
        let first_new = out.len();
        let (kind, timestamp_ns) = (event.kind, event.timestamp_ns);
        out.push(Outcome::Received { kind, labels: Arc::clone(&event.labels) });
        // An event never moves the watermark past itself, so this does not depend on the order of
        // the two lines.
        let late = timestamp_ns < self.watermark.get_ns();
        self.watermark.observe(&event.source, timestamp_ns);
        if late {
            out.push(Outcome::Late { kind, labels: Arc::clone(&event.labels) });
            self.take(event, true, out);
        } else {
            self.pending.buffered[kind] += 1;
            self.buffer.push((timestamp_ns, kind, self.arrivals), event);
            self.arrivals += 1;
        }
        self.advance(out);
        self.check_invariants(first_new, out);
    }

    /// The source has seen everything up to this time, in nanoseconds since the Unix epoch, and has
    /// nothing older to send.
    pub fn heartbeat(&mut self, source: &Arc<str>, timestamp_ns: u64, out: &mut Vec<Outcome>) {
        let first_new = out.len();
        self.watermark.observe(source, timestamp_ns);
        self.advance(out);
        self.check_invariants(first_new, out);
    }

    /// Moves the coverage horizon of a kind up to this time, in nanoseconds since the Unix epoch:
    /// older events of the kind may have been missed. A horizon never moves down. Only those of
    /// requests and exposures are ever asked for; on the other kinds this does nothing.
    pub fn set_horizon(&mut self, kind: Kind, timestamp_ns: u64) {
        let horizon = match kind {
            Kind::Request => &mut self.request_horizon_ns,
            Kind::Exposure => &mut self.exposure_horizon_ns,
            Kind::Click | Kind::Report => return,
        };
        *horizon = (*horizon).max(Some(timestamp_ns));
    }

    /// There are no more events: takes all that are buffered and lets every window run out. Leaves
    /// every table empty and the watermark at the end of time.
    pub fn finish(&mut self, out: &mut Vec<Outcome>) {
        let first_new = out.len();
        while let Some(event) = self.buffer.pop_if(|_| true) {
            self.take_buffered(event, out);
        }
        self.run_deadlines(Until::TheEnd, out);
        self.watermark.close();
        self.now_ns = u64::MAX;
        self.state = State::default();
        self.deadlines = Deadlines::default();
        self.pending.request_ids = 0;
        self.check_invariants(first_new, out);
    }

    /// The watermark in nanoseconds since the Unix epoch: older events are late. `None` before
    /// anything was heard of any source.
    pub fn watermark_ns(&self) -> Option<u64> {
        self.watermark.is_known().then(|| self.watermark.get_ns())
    }

    /// How much waits, table by table.
    pub fn pending(&self) -> Pending {
        self.pending
    }

    /// Takes what the watermark has passed: events and deadlines, interleaved by event time.
    fn advance(&mut self, out: &mut Vec<Outcome>) {
        let watermark_ns = self.watermark.get_ns();
        while let Some(event) = self.buffer.pop_if(|&(timestamp_ns, ..)| timestamp_ns < watermark_ns) {
            self.take_buffered(event, out);
        }
        self.run_deadlines(Until::Before(watermark_ns), out);
        self.move_to(watermark_ns);
    }

    fn take_buffered(&mut self, event: Event, out: &mut Vec<Outcome>) {
        self.pending.buffered[event.kind] -= 1;
        self.run_deadlines(Until::Before(event.timestamp_ns), out);
        self.move_to(event.timestamp_ns);
        self.take(event, false, out);
    }

    fn take(&mut self, event: Event, late: bool, out: &mut Vec<Outcome>) {
        match event.kind {
            Kind::Request => self.take_request(event, late, out),
            Kind::Exposure => self.take_exposure(event, late, out),
            Kind::Click => self.take_click(event, late, out),
            Kind::Report => self.take_report(event, out),
        }
    }

    fn move_to(&mut self, now_ns: u64) {
        debug_assert!(self.now_ns <= now_ns, "invariant 2: {} is before {}", now_ns, self.now_ns);
        self.now_ns = now_ns;
    }

    /// Whether something that lasts until `end_ns`, inclusive, is over.
    fn is_over(&self, end_ns: u64) -> bool {
        end_ns < self.now_ns
    }

    #[cfg(debug_assertions)]
    fn check_invariants(&mut self, first_new: usize, out: &[Outcome]) {
        self.counts.extend(&out[first_new..]);
        let balance = self.pending.check_accounting(&self.counts);
        debug_assert!(balance.is_ok(), "invariant 1: {balance:?}");
    }

    #[cfg(not(debug_assertions))]
    fn check_invariants(&mut self, _first_new: usize, _out: &[Outcome]) {}
}
