//! The state machine itself, for events whose ids are fingerprints.
//!
//! An event that is not late goes into the reorder buffer; what the watermark has passed is taken from
//! there in batches. Until a batch is taken nothing can tell the difference: events and deadlines
//! only depend on event time, and whatever looks at the state (a late event, a heartbeat, a horizon
//! that moves, a snapshot) has it brought up to the watermark first. While one batch is taken, the
//! processor fetches from memory what the next ones will look at ([`Due`]).

use std::collections::BTreeMap;

use super::config::JoinConfig;
use super::decision::Sink;
use super::doubts::Doubts;
use super::due::{BATCH, Batch, Due};
use super::event::{JoinEvent, RequestPrint, SourcePrint};
use super::evict::{Ageing, Evicted};
use super::index::{Index, Place};
use super::open::{Deadlines, Key, Open, Slab, Waiting, exposure_link, unlinked_click};
use super::packed::arena::{Arena, Handle};
use super::packed::waits::{Wait, WaitKey};
use super::pending::Pending;
use super::reports::Process;
use super::time::Until;
use super::time::queue::Queue;
use super::time::reorder::Reorder;
use super::time::watermark::Watermark;
use super::time::wheel::Wheel;
#[cfg(debug_assertions)]
use crate::domain::Counts;
use crate::domain::{Kind, LinkOutcome, Outcome, RequestOutcome, Subject};

/// Batches taken before the memory limit is looked at again: so few that state grows by less than the limit leaves free.
const BATCHES_PER_LOOK: u32 = 4;
/// Events taken meanwhile, at most.
pub(super) const EVENTS_PER_LOOK: usize = BATCHES_PER_LOOK as usize * BATCH;
/// Groups looked at for expiry with each batch, beside three for each one that was added.
const EXPIRED_BESIDE: usize = 4;
/// The same by a heartbeat, which comes seldom.
const EXPIRED_BY_HEARTBEAT: usize = 1024;

/// The join, for events whose ids are fingerprints.
#[derive(Debug)]
pub struct Engine {
    pub(super) config: JoinConfig,
    pub(super) watermark: Watermark,
    /// Events that the watermark had not passed when it was last looked at.
    pub(super) reorder: Reorder,
    /// Events put into the reorder buffer since then.
    pushed: usize,
    /// Events that the watermark has passed.
    pub(super) due: Due,
    /// Batches taken.
    batches: u32,
    /// For the next batch.
    spare_batch: Option<Box<Batch>>,
    /// Event time: every event and every deadline before it has been taken.
    pub(super) now_ns: u64,
    /// Coverage horizon of requests; 0 when nothing was missed.
    pub(super) request_horizon_ns: u64,
    /// Coverage horizon of exposures.
    pub(super) exposure_horizon_ns: u64,
    /// Horizons that were set since anything was decided.
    new_horizons: Vec<(Kind, u64)>,
    pub(super) doubts: Doubts,
    /// Every group, packed or open, by its request id.
    pub(super) index: Index,
    /// Packed groups.
    pub(super) arena: Arena,
    pub(super) wheel: Wheel,
    /// Packed groups that began with a request and that the wheel does not have yet, by the time of the
    /// request. Most no longer wait for an exposure.
    pub(super) new_requests: Queue<u64, Handle>,
    /// Other packed groups whose request waits for an exposure, by its time.
    pub(super) waiting_requests: Queue<u64, Handle>,
    /// Exposures and clicks of packed groups that wait for what they can be linked to, by their time.
    pub(super) waiting_entries: Queue<u64, (Handle, u8)>,
    /// What is known of them.
    pub(super) waits: BTreeMap<WaitKey, Wait>,
    pub(super) open: Open,
    pub(super) processes: Slab<Process>,
    pub(super) process_of_id: BTreeMap<(SourcePrint, u32), Key>,
    /// What the processes hold outside of their slab.
    pub(super) processes_held_bytes: u64,
    pub(super) deadlines: Deadlines,
    /// No deadline is before this.
    pub(super) next_deadline_ns: u64,
    /// None of an open group or a process is before this.
    pub(super) next_open_deadline_ns: u64,
    pub(super) pending: Pending,
    pub(super) evicted: Evicted,
    /// Groups that were put back, by the last time at which their newest sighting is remembered.
    pub(super) ageing: Queue<u64, Ageing>,
    /// Groups and pairs that went since deadlines that lead nowhere were last taken out, and how many were left then.
    pub(super) gone_with_deadlines: usize,
    pub(super) deadlines_after_look: usize,
    /// All outcomes so far, for the accounting; `None` after a restore.
    #[cfg(debug_assertions)]
    pub(super) counts: Option<Counts>,
}

impl Engine {
    /// A join that knows nothing yet and whose coverage is unbounded.
    pub fn new(config: JoinConfig) -> Self {
        let longest_wait_ns = config.lateness_ns.max(config.idle_timeout_ns / 64);
        Self {
            watermark: Watermark::new(config.lateness_ns, config.idle_timeout_ns),
            reorder: Reorder::new(longest_wait_ns),
            pushed: 0,
            due: Due::default(),
            batches: 0,
            spare_batch: None,
            now_ns: 0,
            request_horizon_ns: 0,
            exposure_horizon_ns: 0,
            new_horizons: Vec::new(),
            doubts: Doubts::default(),
            index: Index::default(),
            arena: Arena::default(),
            wheel: Wheel::new(config.retention_ns()),
            new_requests: Queue::default(),
            waiting_requests: Queue::default(),
            waiting_entries: Queue::default(),
            waits: BTreeMap::new(),
            open: Open::default(),
            processes: Slab::default(),
            process_of_id: BTreeMap::new(),
            processes_held_bytes: 0,
            deadlines: Deadlines::default(),
            next_deadline_ns: u64::MAX,
            next_open_deadline_ns: u64::MAX,
            pending: Pending::default(),
            evicted: Evicted::default(),
            ageing: Queue::default(),
            gone_with_deadlines: 0,
            deadlines_after_look: 0,
            #[cfg(debug_assertions)]
            counts: Some(Counts::default()),
            config,
        }
    }

    /// Takes in one event and hands `out` what is decided by now, about this event or about earlier ones.
    /// Some of it may come with a later call; [`Engine::heartbeat`] leaves nothing back.
    pub fn push(&mut self, event: &JoinEvent, out: &mut impl Sink) {
        self.accounted(out, |engine, out| {
            engine.adopt_horizons(out);
            let JoinEvent { kind, timestamp_ns, source, labels, .. } = *event;
            out.push(Outcome::Received { kind, labels });
            // An event never moves the watermark past itself, so this does not depend on the order of
            // the two lines.
            let late = timestamp_ns < engine.watermark.get_ns();
            engine.watermark.observe(source, timestamp_ns);
            if late {
                engine.take_late(event, out);
                return;
            }
            engine.pending.buffered[kind] += 1;
            engine.reorder.push(event);
            engine.pushed += 1;
            if engine.pushed >= BATCH / 2 {
                engine.catch_up(out);
            }
        });
    }

    #[cold]
    fn take_late(&mut self, event: &JoinEvent, out: &mut impl Sink) {
        out.push(Outcome::Late { kind: event.kind, labels: event.labels });
        self.advance(out);
        self.take(event, true, out);
        self.run_deadlines(Until::Before(self.now_ns), out);
    }

    /// Takes about twice as many events as have been pushed since the last time, so that it catches up when the
    /// watermark has leapt.
    #[inline(never)]
    fn catch_up(&mut self, out: &mut impl Sink) {
        self.pushed = 0;
        let takes_too_much = self.reorder.bytes() > self.config.memory_limit_bytes / 2;
        // What the last relief made due is taken first, batch by batch.
        if takes_too_much && !self.reorder.has_due(self.watermark.get_ns()) {
            self.relieve_buffer();
        }
        let watermark_ns = self.watermark.get_ns();
        if takes_too_much && watermark_ns == u64::MAX {
            // What is at the end of time, no watermark ever passes.
            self.take_due(Until::TheEnd, out);
            return;
        }
        // Whole buckets only: nobody can tell, and so none is put in order twice.
        let until_ns = self.reorder.bucket_begin_ns(watermark_ns);
        self.take_batch(Until::Before(until_ns), out);
    }

    /// The source has seen everything up to this time, in nanoseconds since the Unix epoch, and has
    /// nothing older to send.
    pub fn heartbeat(&mut self, source: SourcePrint, timestamp_ns: u64, out: &mut impl Sink) {
        self.accounted(out, |engine, out| {
            engine.adopt_horizons(out);
            engine.watermark.observe(source, timestamp_ns);
            engine.advance(out);
            engine.expire_packed(EXPIRED_BY_HEARTBEAT);
        });
    }

    /// Moves the coverage horizon of a kind up to this time, in nanoseconds since the Unix epoch:
    /// older events of the kind may have been missed. A horizon never moves down. Only those of
    /// requests and exposures are ever asked for; on the other kinds this does nothing. What fell due
    /// before is judged by the horizon before.
    pub fn set_horizon(&mut self, kind: Kind, timestamp_ns: u64) {
        if matches!(kind, Kind::Request | Kind::Exposure) {
            self.new_horizons.push((kind, timestamp_ns));
        }
    }

    /// Nothing was captured for some time before this one, in nanoseconds since the Unix epoch; what was captured before
    /// that is remembered. Moves both horizons, and leaves in doubt whatever may have had its partner in the gap, or may
    /// repeat something in it: docs/semantics.md, "After a gap". What fell due before is judged as if there were none.
    pub fn note_gap(&mut self, until_ns: u64, out: &mut impl Sink) {
        self.accounted(out, |engine, out| {
            engine.adopt_horizons(out);
            engine.advance(out);
            engine.request_horizon_ns = until_ns.max(engine.request_horizon_ns);
            engine.exposure_horizon_ns = until_ns.max(engine.exposure_horizon_ns);
            engine.doubts.note_gap(until_ns);
        });
    }

    /// There are no more events: takes all that are buffered and lets every window run out. Leaves
    /// every table empty and the watermark at the end of time.
    pub fn finish(&mut self, out: &mut impl Sink) {
        self.accounted(out, |engine, out| {
            engine.adopt_horizons(out);
            engine.take_due(Until::TheEnd, out);
            engine.run_deadlines(Until::TheEnd, out);
            engine.forget_all();
        });
    }

    /// Every event has been taken and every window has run out.
    fn forget_all(&mut self) {
        self.watermark.close();
        let watermark = std::mem::replace(&mut self.watermark, Watermark::new(0, 0));
        *self = Self {
            watermark,
            now_ns: u64::MAX,
            request_horizon_ns: self.request_horizon_ns,
            exposure_horizon_ns: self.exposure_horizon_ns,
            doubts: self.doubts,
            pending: Pending { request_ids: 0, ..self.pending },
            evicted: self.evicted,
            // Whoever decides this counts it.
            #[cfg(debug_assertions)]
            counts: None,
            ..Self::new(self.config.clone())
        };
    }

    /// The watermark in nanoseconds since the Unix epoch: older events are late. `None` before
    /// anything was heard of any source.
    pub fn watermark_ns(&self) -> Option<u64> {
        self.watermark.is_known().then(|| self.watermark.get_ns())
    }

    /// The coverage horizon of a kind in nanoseconds since the Unix epoch, whether it was set or moved
    /// by an eviction; 0 while nothing was missed, and always for clicks and reports.
    pub fn horizon_ns(&self, kind: Kind) -> u64 {
        let adopted_ns = match kind {
            Kind::Request => self.request_horizon_ns,
            Kind::Exposure => self.exposure_horizon_ns,
            Kind::Click | Kind::Report => 0,
        };
        let new = self.new_horizons.iter().filter(|(of_kind, _)| *of_kind == kind);
        new.map(|(_, timestamp_ns)| *timestamp_ns).fold(adopted_ns, u64::max)
    }

    /// How much waits, table by table. Events that can be taken and have not been yet count as
    /// buffered.
    pub fn pending(&self) -> Pending {
        Pending { request_ids: self.index.len() as u64, ..self.pending }
    }

    /// What was given up so far to keep the memory bound.
    pub fn evicted(&self) -> Evicted {
        self.evicted
    }

    /// What the state takes in bytes, spare capacity included.
    pub fn memory_bytes(&self) -> u64 {
        // A node of a map is at least half full.
        let maps = self.process_of_id.len() * 2 * size_of::<((SourcePrint, u32), Key)>()
            + self.waits.len() * 2 * size_of::<(WaitKey, Wait)>();
        self.arena.bytes()
            + self.index.bytes()
            + self.wheel.bytes()
            + self.new_requests.bytes()
            + self.waiting_requests.bytes()
            + self.waiting_entries.bytes()
            + self.reorder.bytes()
            + self.watermark.bytes()
            + self.open.bytes()
            + self.processes.bytes()
            + self.processes_held_bytes
            + self.deadlines.bytes()
            + self.ageing.bytes()
            + maps as u64
    }

    /// Moves the horizons that were set, once everything is decided that was due before.
    pub(super) fn adopt_horizons(&mut self, out: &mut impl Sink) {
        if self.new_horizons.is_empty() {
            return;
        }
        self.advance(out);
        for (kind, timestamp_ns) in self.new_horizons.drain(..) {
            let horizon_ns = match kind {
                Kind::Request => &mut self.request_horizon_ns,
                _ => &mut self.exposure_horizon_ns,
            };
            *horizon_ns = timestamp_ns.max(*horizon_ns);
        }
    }

    /// Whether no group and no process is known.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.index.len() == 0
            && self.process_of_id.is_empty()
            && self.open.groups.len() == 0
            && self.open.pairs.len() == 0
            && self.processes.len() == 0
    }

    /// Takes what the watermark has passed: events and deadlines, interleaved by event time.
    pub(super) fn advance(&mut self, out: &mut impl Sink) {
        let watermark_ns = self.watermark.get_ns();
        self.pushed = 0;
        self.take_due(Until::Before(watermark_ns), out);
        self.run_deadlines(Until::Before(watermark_ns), out);
        self.move_to(watermark_ns);
    }

    fn take_due(&mut self, until: Until, out: &mut impl Sink) {
        while self.take_batch(until, out) {}
    }

    /// Takes the events that are ready and gets the next ones ready. Returns whether there are more.
    fn take_batch(&mut self, until: Until, out: &mut impl Sink) -> bool {
        let mut batch = self.spare_batch.take().unwrap_or_default();
        self.reorder.take(until, BATCH, batch.refill());
        self.due.exchange(&mut batch);
        let groups_before = self.index.len();
        for (event, guess) in batch.iter() {
            self.take_in_order(event, guess, out);
        }
        self.due.prepare(&self.index, &self.arena);
        self.spare_batch = Some(batch);
        // A group is looked at twice or so. So what is over is removed as fast as groups are added.
        let added = self.index.len().saturating_sub(groups_before).min(BATCH);
        self.expire_packed(2 * added + EXPIRED_BESIDE);
        self.batches = self.batches.wrapping_add(1);
        if self.batches.is_multiple_of(BATCHES_PER_LOOK) {
            self.keep_memory_limit(out);
        }
        !self.due.is_empty()
    }

    /// Takes an event in order; `guess` is where its group may be.
    fn take_in_order(&mut self, event: &JoinEvent, guess: Handle, out: &mut impl Sink) {
        self.pending.buffered[event.kind] -= 1;
        if self.next_deadline_ns < event.timestamp_ns {
            self.run_deadlines(Until::Before(event.timestamp_ns), out);
        }
        self.move_to(event.timestamp_ns);
        if !self.take_usual(guess, event, out) {
            self.take_unusual(guess, event, out);
        }
    }

    #[inline(never)]
    fn take_unusual(&mut self, guess: Handle, event: &JoinEvent, out: &mut impl Sink) {
        let is_taken = self.arena.head_if_of(guess, event.request).is_some()
            && !event.lacks_an_id()
            && self.take_packed(guess, event, out);
        if !is_taken {
            self.take(event, false, out);
        }
    }

    #[inline(never)]
    fn take(&mut self, event: &JoinEvent, late: bool, out: &mut impl Sink) {
        if event.lacks_an_id() {
            self.take_without_id(event, late, out);
            return;
        }
        if event.kind == Kind::Report {
            self.take_report(event, out);
            return;
        }
        let place = self.place_of(event.request);
        if !late {
            match place {
                None => {
                    self.add_packed(event, out);
                    return;
                }
                Some(Place::Packed(handle)) if self.take_packed(handle, event, out) => return,
                Some(_) => {}
            }
        }
        let retention_ns = match event.kind {
            Kind::Request => self.config.request_retention_ns(),
            _ => self.config.click_retention_ns(),
        };
        let group = self.open_group(event.request, place, event.timestamp_ns.saturating_add(retention_ns));
        match event.kind {
            Kind::Request => self.take_request(group, event, late, out),
            Kind::Exposure => self.take_exposure(group, event, late, out),
            Kind::Click | Kind::Report => self.take_click(group, event, late, out),
        }
        self.try_pack(group);
    }

    fn take_without_id(&mut self, event: &JoinEvent, late: bool, out: &mut impl Sink) {
        let labels = event.labels;
        let subject = Subject::at(event.timestamp_ns);
        match event.kind {
            Kind::Request => {
                out.push(Outcome::Request { outcome: RequestOutcome::MissingId, labels });
            }
            Kind::Exposure => out.push(exposure_link(LinkOutcome::MissingId, subject, None, labels)),
            Kind::Click | Kind::Report => {
                self.await_report(event, Waiting { labels, late, follows_doubt: false }, out);
                unlinked_click(LinkOutcome::MissingId, subject, labels, out);
            }
        }
    }

    pub(super) fn place_of(&self, request: RequestPrint) -> Option<Place> {
        self.index.find(request, |place| match place {
            Place::Packed(handle) => self.arena.head(handle).request() == request,
            Place::Open(number) => {
                self.open.groups.at(number).is_some_and(|(_, group)| group.request == request)
            }
        })
    }

    fn move_to(&mut self, now_ns: u64) {
        debug_assert!(self.now_ns <= now_ns, "event time goes back: {} is before {}", now_ns, self.now_ns);
        self.now_ns = now_ns;
    }

    /// Whether something that lasts until `end_ns`, inclusive, is over.
    pub(super) fn is_over(&self, end_ns: u64) -> bool {
        end_ns < self.now_ns
    }

    /// Whether an exposure without a request is known to have none, and to be no repetition.
    pub(super) fn is_exposure_covered(&self, exposure_ns: u64) -> bool {
        let looked_back_to_ns = exposure_ns.saturating_sub(self.config.exposure_window_ns);
        looked_back_to_ns >= self.request_horizon_ns
            && !self.doubts.is_exposure_in_doubt(&self.config, exposure_ns)
    }

    /// Whether a click without an exposure is known to have none, and to be no repetition.
    pub(super) fn is_click_covered(&self, click_ns: u64) -> bool {
        let looked_back_to_ns = click_ns.saturating_sub(self.config.click_window_ns);
        looked_back_to_ns >= self.exposure_horizon_ns
            && !self.doubts.is_click_in_doubt(&self.config, click_ns)
    }
}
