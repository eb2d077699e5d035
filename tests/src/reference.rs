//! A second implementation of docs/semantics.md, in the most obvious way.
//!
//! It keeps everything in plain lists, searches them from end to end, and counts time in integers
//! that cannot overflow. It shares no code with the join that it is compared to, only the types that
//! go in and come out. Where the two differ, the page decides which one is wrong.

use std::collections::BTreeMap;
use std::sync::Arc;

use tracer_user::domain::{
    Edge, Event, Kind, Labels, LinkOutcome, Outcome, RequestOutcome, Subject, TripleOutcome,
};
use tracer_user::join::{JoinConfig, Reports};

/// Nanoseconds since the Unix epoch.
type Time = i128;

const END_OF_TIME: Time = Time::MAX;

/// One thing that can happen to a join.
#[derive(Debug, Clone)]
pub enum Input {
    /// An event arrives.
    Event(Event),
    /// A source has nothing older to send.
    Heartbeat {
        /// Which source.
        source: Arc<str>,
        /// What it has come to, in nanoseconds since the Unix epoch.
        timestamp_ns: u64,
    },
    /// The coverage horizon of a kind moves up.
    Horizon {
        /// Which kind.
        kind: Kind,
        /// To this time, in nanoseconds since the Unix epoch.
        timestamp_ns: u64,
    },
    /// Nothing was captured for some time before this one, in nanoseconds since the Unix epoch.
    Gap {
        /// When capture was on again.
        until_ns: u64,
    },
    /// Request ids whose newest sighting is at this time or before are evicted.
    Evict {
        /// In nanoseconds since the Unix epoch.
        until_ns: u64,
    },
    /// The join is stopped and goes on from a snapshot, which must change nothing.
    Restart,
}

/// Every outcome of these inputs, in no particular order, after every window has run out.
pub fn join(config: &JoinConfig, inputs: &[Input]) -> Vec<Outcome> {
    let mut reference = Reference::new(config.clone());
    for input in inputs {
        match input {
            Input::Event(event) => reference.arrive(event.clone()),
            Input::Heartbeat { source, timestamp_ns } => {
                reference.hear_of(source, Time::from(*timestamp_ns));
            }
            Input::Horizon { kind, timestamp_ns } => {
                let horizon = reference.horizons.entry(*kind).or_insert(0);
                *horizon = (*horizon).max(Time::from(*timestamp_ns));
            }
            Input::Gap { until_ns } => reference.note_gap(Time::from(*until_ns)),
            Input::Evict { until_ns } => reference.evict(Time::from(*until_ns)),
            Input::Restart => {}
        }
        reference.take_what_the_watermark_passed();
    }
    reference.watermark = END_OF_TIME;
    reference.take_what_the_watermark_passed();
    reference.outcomes
}

/// An event with the ids that it needs, as long as it is remembered.
struct Sighting {
    kind: Kind,
    at: Time,
    request_id: Box<str>,
    item_id: Box<str>,
    process: (Arc<str>, u32),
    /// Not a duplicate.
    is_first: bool,
    /// Of an exposure: the place in `exposures` of the one it belongs to.
    exposure: usize,
    /// Of a click: it follows one in doubt, or repeats one.
    follows_doubt: bool,
}

struct Request {
    at: Time,
    request_id: Box<str>,
    labels: Arc<Labels>,
    late: bool,
    waits: bool,
}

struct Exposure {
    at: Time,
    request_id: Box<str>,
    labels: Arc<Labels>,
    late: bool,
    follows_doubt: bool,
    /// What it makes of the triple of a click that is linked to it, once that is known.
    triple: Option<TripleOutcome>,
}

struct Click {
    at: Time,
    request_id: Box<str>,
    item_id: Box<str>,
    process: (Arc<str>, u32),
    labels: Arc<Labels>,
    late: bool,
    follows_doubt: bool,
    waits_for_exposure: bool,
    waits_for_report: bool,
    /// The exposure that its triple waits for.
    triple_waits_for: Option<usize>,
    /// A sighting before it, which it would have been linked to, may have been evicted.
    may_lack_sighting: bool,
}

struct Reference {
    config: JoinConfig,
    newest: BTreeMap<Arc<str>, Time>,
    watermark: Time,
    now: Time,
    buffer: Vec<Event>,
    horizons: BTreeMap<Kind, Time>,
    /// Up to when exposures and clicks were evicted, or not captured.
    doubts: BTreeMap<Kind, Time>,
    /// When the last gap ended.
    gap_until: Time,
    sightings: Vec<Sighting>,
    requests: Vec<Request>,
    exposures: Vec<Exposure>,
    clicks: Vec<Click>,
    outcomes: Vec<Outcome>,
}

impl Reference {
    fn new(config: JoinConfig) -> Self {
        Self {
            config,
            newest: BTreeMap::new(),
            watermark: 0,
            now: 0,
            buffer: Vec::new(),
            horizons: BTreeMap::new(),
            doubts: BTreeMap::new(),
            gap_until: 0,
            sightings: Vec::new(),
            requests: Vec::new(),
            exposures: Vec::new(),
            clicks: Vec::new(),
            outcomes: Vec::new(),
        }
    }

    fn hear_of(&mut self, source: &Arc<str>, at: Time) {
        let newest = self.newest.entry(Arc::clone(source)).or_insert(at);
        *newest = at.max(*newest);
        let newest_of_all = self.newest.values().max().copied().unwrap_or(0);
        let idle_timeout = Time::from(self.config.idle_timeout_ns);
        let live = self.newest.values().filter(|newest| newest_of_all - **newest <= idle_timeout);
        let least = live.min().copied().unwrap_or(0);
        self.watermark = self.watermark.max(least - Time::from(self.config.lateness_ns));
    }

    fn arrive(&mut self, event: Event) {
        let (kind, at) = (event.kind, Time::from(event.timestamp_ns));
        self.outcomes.push(Outcome::Received { kind, labels: Arc::clone(&event.labels) });
        let late = at < self.watermark;
        if late {
            self.outcomes.push(Outcome::Late { kind, labels: Arc::clone(&event.labels) });
            self.take(&event, true);
        } else {
            self.buffer.push(event.clone());
        }
        self.hear_of(&event.source, at);
    }

    fn take_what_the_watermark_passed(&mut self) {
        loop {
            // The first of the least, so input order breaks the last tie.
            let next = (0..self.buffer.len())
                .filter(|index| Time::from(self.buffer[*index].timestamp_ns) < self.watermark)
                .min_by_key(|index| {
                    (self.buffer[*index].timestamp_ns, place_in_tie(self.buffer[*index].kind), *index)
                });
            let Some(next) = next else { break };
            let event = self.buffer.remove(next);
            self.run_to(Time::from(event.timestamp_ns));
            self.take(&event, false);
        }
        self.run_to(self.watermark);
    }

    /// Stops at every moment before `end` at which something is judged or forgotten.
    fn run_to(&mut self, end: Time) {
        loop {
            let requests = self
                .requests
                .iter()
                .filter(|request| request.waits)
                .map(|request| request.at + Time::from(self.config.exposure_window_ns));
            let exposures = self.exposures.iter().filter(|exposure| exposure.triple.is_none());
            let exposures = exposures.map(|exposure| exposure.at + self.skew());
            let clicks = self.clicks.iter().filter(|click| click.waits_for_exposure);
            let clicks = clicks.map(|click| click.at + self.skew());
            let reports = self.clicks.iter().filter(|click| click.waits_for_report);
            let reports = reports.map(|click| click.at + Time::from(self.config.report_window_ns));
            let memories = self.sightings.iter().map(|sighting| self.remembered_until(sighting));
            let moments = requests.chain(exposures).chain(clicks).chain(reports).chain(memories);
            let Some(moment) = moments.min().filter(|moment| *moment < end) else { break };
            self.judge(moment);
            self.forget(moment);
        }
        self.now = end;
    }

    fn take(&mut self, event: &Event, late: bool) {
        match event.kind {
            Kind::Request => self.take_request(event, late),
            Kind::Exposure => self.take_exposure(event, late),
            Kind::Click => self.take_click(event, late),
            Kind::Report => self.add_sighting(event, false, 0, false),
        }
        self.complete();
        // What has no time left to wait is judged at once.
        self.judge(self.now - 1);
        self.forget(self.now - 1);
    }

    fn take_request(&mut self, event: &Event, late: bool) {
        let labels = Arc::clone(&event.labels);
        if event.request_id.is_empty() {
            self.outcomes.push(Outcome::Request { outcome: RequestOutcome::MissingId, labels });
            return;
        }
        let is_first = self.first_of(event).is_none();
        self.add_sighting(event, is_first, 0, false);
        if !is_first {
            self.outcomes.push(Outcome::Duplicate { kind: Kind::Request, labels });
        } else {
            let (at, request_id) = (Time::from(event.timestamp_ns), event.request_id.clone());
            self.requests.push(Request { at, request_id, labels, late, waits: true });
        }
    }

    fn take_exposure(&mut self, event: &Event, late: bool) {
        let labels = Arc::clone(&event.labels);
        if event.request_id.is_empty() || event.item_id.is_empty() {
            self.link(Edge::RequestExposure, event.timestamp_ns.into(), LinkOutcome::MissingId, None, labels);
            return;
        }
        if let Some(exposure) = self.first_of(event).map(|first| first.exposure) {
            self.add_sighting(event, false, exposure, false);
            self.outcomes.push(Outcome::Duplicate { kind: Kind::Exposure, labels });
        } else {
            let follows_doubt = self.last_before(event).is_some_and(|last| {
                let first = &self.exposures[last.exposure];
                first.follows_doubt || self.is_in_doubt(Kind::Exposure, first.at)
            });
            self.add_sighting(event, true, self.exposures.len(), false);
            let (at, request_id) = (Time::from(event.timestamp_ns), event.request_id.clone());
            self.exposures.push(Exposure { at, request_id, labels, late, follows_doubt, triple: None });
        }
    }

    fn take_click(&mut self, event: &Event, late: bool) {
        let labels = Arc::clone(&event.labels);
        let has_ids = !event.request_id.is_empty() && !event.item_id.is_empty();
        let mut follows_doubt = false;
        if !has_ids {
            let at = event.timestamp_ns.into();
            self.link(Edge::ExposureClick, at, LinkOutcome::MissingId, None, Arc::clone(&labels));
            self.triple(at, TripleOutcome::Broken, Arc::clone(&labels));
        } else if let Some(first) = self.first_of(event) {
            let is_doubtful = first.follows_doubt || self.is_in_doubt(Kind::Click, first.at);
            self.add_sighting(event, false, 0, is_doubtful);
            self.outcomes.push(Outcome::Duplicate { kind: Kind::Click, labels });
            return;
        } else {
            let from = Time::from(event.timestamp_ns) - Time::from(self.config.click_window_ns);
            follows_doubt = self
                .of_pair(event)
                .any(|sighting| !sighting.is_first && sighting.follows_doubt && sighting.at >= from);
            self.add_sighting(event, true, 0, follows_doubt);
        }
        self.clicks.push(Click {
            at: Time::from(event.timestamp_ns),
            request_id: event.request_id.clone(),
            item_id: event.item_id.clone(),
            process: (Arc::clone(&event.source), event.pid),
            late,
            follows_doubt,
            waits_for_exposure: has_ids,
            waits_for_report: match &self.config.reports {
                Reports::All => true,
                Reports::Services(services) => services.contains(&labels.service),
            },
            triple_waits_for: None,
            may_lack_sighting: false,
            labels,
        });
    }

    /// The first that this event repeats: the last one at or before it, else the next one after it.
    fn first_of(&self, event: &Event) -> Option<&Sighting> {
        let at = Time::from(event.timestamp_ns);
        let window = match event.kind {
            Kind::Request => self.config.exposure_window_ns,
            _ => self.config.click_window_ns,
        };
        let firsts = || {
            let firsts = self.of_pair(event).filter(|sighting| sighting.is_first);
            firsts.filter(|sighting| (sighting.at - at).abs() <= Time::from(window))
        };
        let before = firsts().filter(|first| first.at <= at).max_by_key(|first| first.at);
        before.or_else(|| firsts().filter(|first| first.at > at).min_by_key(|first| first.at))
    }

    /// The last sighting of the kind and ids of this event, at most the click window before it.
    fn last_before(&self, event: &Event) -> Option<&Sighting> {
        let at = Time::from(event.timestamp_ns);
        let window = at - Time::from(self.config.click_window_ns)..=at;
        self.of_pair(event)
            .filter(|sighting| window.contains(&sighting.at))
            .max_by_key(|sighting| sighting.at)
    }

    fn of_pair(&self, event: &Event) -> impl Iterator<Item = &Sighting> {
        self.sightings.iter().filter(|sighting| {
            sighting.kind == event.kind
                && sighting.request_id == event.request_id
                && sighting.item_id == event.item_id
        })
    }

    fn add_sighting(&mut self, event: &Event, is_first: bool, exposure: usize, follows_doubt: bool) {
        self.sightings.push(Sighting {
            kind: event.kind,
            at: Time::from(event.timestamp_ns),
            request_id: event.request_id.clone(),
            item_id: event.item_id.clone(),
            process: (Arc::clone(&event.source), event.pid),
            is_first,
            exposure,
            follows_doubt,
        });
    }

    /// Links whatever waits and can be linked with what is remembered.
    fn complete(&mut self) {
        for index in 0..self.requests.len() {
            let request = &self.requests[index];
            let (from, to) =
                (request.at - self.skew(), request.at + Time::from(self.config.exposure_window_ns));
            let exposed = self.sightings.iter().any(|sighting| {
                sighting.kind == Kind::Exposure
                    && sighting.request_id == request.request_id
                    && (from..=to).contains(&sighting.at)
            });
            if request.waits && exposed {
                let labels = Arc::clone(&request.labels);
                self.outcomes.push(Outcome::Request { outcome: RequestOutcome::Exposed, labels });
                self.requests[index].waits = false;
            }
        }
        for index in 0..self.exposures.len() {
            let exposure = &self.exposures[index];
            let requests = self.sightings.iter().filter(|sighting| {
                sighting.kind == Kind::Request && sighting.request_id == exposure.request_id
            });
            let window = Time::from(self.config.exposure_window_ns);
            let request = best_match(requests, exposure.at, window, self.skew());
            if let (None, Some(request)) = (exposure.triple, request) {
                let labels = Arc::clone(&exposure.labels);
                let (at, delay) = (exposure.at, (exposure.at - request.at).max(0));
                self.exposures[index].triple = Some(TripleOutcome::Complete);
                self.link(Edge::RequestExposure, at, LinkOutcome::Linked, Some(delay), labels);
            }
        }
        for index in 0..self.clicks.len() {
            self.complete_click(index);
        }
        self.release_triples();
    }

    fn complete_click(&mut self, index: usize) {
        let click = &self.clicks[index];
        let (at, labels) = (click.at, Arc::clone(&click.labels));
        let (waits_for_exposure, waits_for_report) = (click.waits_for_exposure, click.waits_for_report);
        let exposures = self.sightings.iter().filter(|sighting| {
            sighting.kind == Kind::Exposure
                && sighting.request_id == click.request_id
                && sighting.item_id == click.item_id
        });
        let window = Time::from(self.config.click_window_ns);
        let sighting = best_match(exposures, click.at, window, self.skew());
        let sighting = sighting.map(|sighting| (sighting.at, sighting.exposure));
        let delay = sighting.map(|(sighted_at, _)| (click.at - sighted_at).max(0));
        let until = click.at + Time::from(self.config.report_window_ns);
        let reported = self.sightings.iter().any(|sighting| {
            sighting.kind == Kind::Report
                && sighting.process == click.process
                && (click.at..=until).contains(&sighting.at)
        });
        if let (true, Some((sighted_at, exposure))) = (waits_for_exposure, sighting) {
            self.clicks[index].waits_for_exposure = false;
            self.clicks[index].triple_waits_for = Some(exposure);
            // Of the sightings before it, any that was evicted would have been a better one.
            self.clicks[index].may_lack_sighting = sighted_at > at && self.is_in_doubt(Kind::Exposure, at);
            self.link(Edge::ExposureClick, at, LinkOutcome::Linked, delay, Arc::clone(&labels));
        }
        if waits_for_report && reported {
            self.clicks[index].waits_for_report = false;
            self.link(Edge::ClickReport, at, LinkOutcome::Reported, None, labels);
        }
    }

    /// Judges whatever has waited until `moment` or longer.
    fn judge(&mut self, moment: Time) {
        for index in 0..self.requests.len() {
            let request = &self.requests[index];
            if request.waits && request.at + Time::from(self.config.exposure_window_ns) <= moment {
                let (at, labels, late) = (request.at, Arc::clone(&request.labels), request.late);
                self.requests[index].waits = false;
                self.outcomes.push(if late {
                    Outcome::LateWithoutOutcome { kind: Kind::Request, labels }
                } else if at < self.gap_until {
                    Outcome::Evicted { kind: Kind::Request, labels }
                } else {
                    Outcome::Request { outcome: RequestOutcome::Unexposed, labels }
                });
            }
        }
        for index in 0..self.exposures.len() {
            let exposure = &self.exposures[index];
            if exposure.triple.is_none() && exposure.at + self.skew() <= moment {
                self.judge_exposure(index);
            }
        }
        for index in 0..self.clicks.len() {
            let click = &self.clicks[index];
            let (at, labels) = (click.at, Arc::clone(&click.labels));
            let cannot_break = click.late || click.follows_doubt;
            let report_deadline = click.at + Time::from(self.config.report_window_ns);
            if click.waits_for_exposure && click.at + self.skew() <= moment {
                self.judge_click(index);
            }
            if self.clicks[index].waits_for_report && report_deadline <= moment {
                self.clicks[index].waits_for_report = false;
                if !cannot_break && !self.is_in_doubt(Kind::Click, at) {
                    self.link(Edge::ClickReport, at, LinkOutcome::Unreported, None, labels);
                }
            }
        }
        self.release_triples();
    }

    fn judge_exposure(&mut self, index: usize) {
        let Exposure { at, ref labels, late, follows_doubt, .. } = self.exposures[index];
        let labels = Arc::clone(labels);
        let looked_back_to = at - Time::from(self.config.exposure_window_ns);
        if late {
            self.outcomes.push(Outcome::LateWithoutOutcome { kind: Kind::Exposure, labels });
            self.exposures[index].triple = Some(TripleOutcome::Unseen);
        } else if self.is_before_horizon(Kind::Request, looked_back_to)
            || self.is_in_doubt(Kind::Exposure, at)
            || follows_doubt
        {
            self.link(Edge::RequestExposure, at, LinkOutcome::Unseen, None, labels);
            self.exposures[index].triple = Some(TripleOutcome::Unseen);
        } else {
            self.link(Edge::RequestExposure, at, LinkOutcome::Orphan, None, labels);
            self.exposures[index].triple = Some(TripleOutcome::Broken);
        }
    }

    fn judge_click(&mut self, index: usize) {
        self.clicks[index].waits_for_exposure = false;
        let click = &self.clicks[index];
        let (at, labels) = (click.at, Arc::clone(&click.labels));
        let looked_back_to = click.at - Time::from(self.config.click_window_ns);
        let window = looked_back_to..=click.at + self.skew();
        let another_item = self.sightings.iter().any(|sighting| {
            sighting.kind == Kind::Exposure
                && sighting.request_id == click.request_id
                && sighting.item_id != click.item_id
                && window.contains(&sighting.at)
        });
        if click.late {
            self.outcomes.push(Outcome::LateWithoutOutcome { kind: Kind::Click, labels });
            return;
        }
        let is_unseen = self.is_before_horizon(Kind::Exposure, looked_back_to)
            || self.is_in_doubt(Kind::Click, click.at)
            || click.follows_doubt;
        let (outcome, triple) = if is_unseen {
            (LinkOutcome::Unseen, TripleOutcome::Unseen)
        } else if another_item {
            (LinkOutcome::Mismatch, TripleOutcome::Broken)
        } else {
            (LinkOutcome::Orphan, TripleOutcome::Broken)
        };
        self.link(Edge::ExposureClick, at, outcome, None, Arc::clone(&labels));
        self.triple(at, triple, labels);
    }

    fn release_triples(&mut self) {
        for index in 0..self.clicks.len() {
            let is_in_doubt = self.is_in_doubt(Kind::Click, self.clicks[index].at);
            let click = &mut self.clicks[index];
            let is_in_doubt = is_in_doubt || click.follows_doubt || click.may_lack_sighting;
            if let Some(exposure) = click.triple_waits_for
                && let Some(outcome) = self.exposures[exposure].triple
            {
                let outcome = match outcome {
                    TripleOutcome::Broken if is_in_doubt => TripleOutcome::Unseen,
                    outcome => outcome,
                };
                click.triple_waits_for = None;
                let (at, labels) = (click.at, Arc::clone(&click.labels));
                self.triple(at, outcome, labels);
            }
        }
    }

    /// What was not captured is as if it had been evicted, but for what is still there of the time before.
    fn note_gap(&mut self, until: Time) {
        self.gap_until = until.max(self.gap_until);
        for kind in [Kind::Request, Kind::Exposure] {
            let horizon = self.horizons.entry(kind).or_insert(0);
            *horizon = until.max(*horizon);
        }
        for kind in [Kind::Exposure, Kind::Click] {
            let doubt = self.doubts.entry(kind).or_insert(0);
            *doubt = until.max(*doubt);
        }
    }

    /// Forgets request ids whole, as if they had never been seen, and says from when on that matters.
    fn evict(&mut self, until: Time) {
        let matters = |sighting: &&Sighting| match sighting.kind {
            Kind::Request | Kind::Exposure => true,
            Kind::Click => sighting.is_first || sighting.follows_doubt,
            Kind::Report => false,
        };
        let mut newest: BTreeMap<Box<str>, Time> = BTreeMap::new();
        for sighting in self.sightings.iter().filter(matters) {
            let newest = newest.entry(sighting.request_id.clone()).or_insert(sighting.at);
            *newest = sighting.at.max(*newest);
        }
        newest.retain(|_, newest| *newest <= until);
        let is_evicted = |request_id: &str| newest.contains_key(request_id);
        let evicted = self.sightings.iter().filter(matters);
        for sighting in evicted.filter(|sighting| is_evicted(&sighting.request_id)) {
            let after = sighting.at.min(Time::from(u64::MAX) - 1) + 1;
            // There is no horizon of clicks, and no doubt of requests; what is kept here is not asked for.
            let horizon = self.horizons.entry(sighting.kind).or_insert(0);
            *horizon = after.max(*horizon);
            let doubt = self.doubts.entry(sighting.kind).or_insert(0);
            *doubt = after.max(*doubt);
        }
        self.sightings.retain(|sighting| sighting.kind == Kind::Report || !is_evicted(&sighting.request_id));
        for request in self.requests.iter_mut().filter(|request| request.waits) {
            if is_evicted(&request.request_id) {
                request.waits = false;
                let (kind, labels) = (Kind::Request, Arc::clone(&request.labels));
                self.outcomes.push(if request.late {
                    Outcome::LateWithoutOutcome { kind, labels }
                } else {
                    Outcome::Evicted { kind, labels }
                });
            }
        }
        for index in 0..self.exposures.len() {
            let Exposure { at, ref request_id, ref labels, late, triple, .. } = self.exposures[index];
            if triple.is_none() && is_evicted(request_id) {
                let labels = Arc::clone(labels);
                self.exposures[index].triple = Some(TripleOutcome::Unseen);
                if late {
                    self.outcomes.push(Outcome::LateWithoutOutcome { kind: Kind::Exposure, labels });
                } else {
                    self.link(Edge::RequestExposure, at, LinkOutcome::Unseen, None, labels);
                }
            }
        }
        for index in 0..self.clicks.len() {
            let Click { at, ref request_id, ref labels, late, waits_for_exposure, .. } = self.clicks[index];
            if waits_for_exposure && is_evicted(request_id) {
                let labels = Arc::clone(labels);
                self.clicks[index].waits_for_exposure = false;
                if late {
                    self.outcomes.push(Outcome::LateWithoutOutcome { kind: Kind::Click, labels });
                } else {
                    self.link(Edge::ExposureClick, at, LinkOutcome::Unseen, None, Arc::clone(&labels));
                    self.triple(at, TripleOutcome::Unseen, labels);
                }
            }
        }
        self.release_triples();
    }

    /// Whether it may repeat something that was evicted.
    fn is_in_doubt(&self, kind: Kind, at: Time) -> bool {
        let looked_back_to = (at - Time::from(self.config.click_window_ns)).max(0);
        self.doubts.get(&kind).is_some_and(|doubt| looked_back_to < *doubt)
    }

    fn forget(&mut self, moment: Time) {
        let sightings = std::mem::take(&mut self.sightings);
        self.sightings =
            sightings.into_iter().filter(|sighting| self.remembered_until(sighting) > moment).collect();
    }

    fn remembered_until(&self, sighting: &Sighting) -> Time {
        sighting.at
            + match sighting.kind {
                Kind::Request => Time::from(self.config.exposure_window_ns) + self.skew(),
                Kind::Exposure | Kind::Click => Time::from(self.config.click_window_ns) + self.skew(),
                Kind::Report => Time::from(self.config.report_window_ns),
            }
    }

    /// Nothing was before the epoch, so nothing before it was missed.
    fn is_before_horizon(&self, kind: Kind, looked_back_to: Time) -> bool {
        self.horizons.get(&kind).is_some_and(|horizon| looked_back_to.max(0) < *horizon)
    }

    fn skew(&self) -> Time {
        Time::from(self.config.skew_ns)
    }

    fn link(&mut self, edge: Edge, at: Time, outcome: LinkOutcome, delay: Option<Time>, labels: Arc<Labels>) {
        let delay_ns = delay.map(|delay| u64::try_from(delay).expect("between two timestamps"));
        self.outcomes.push(Outcome::Link { edge, outcome, subject: subject(at), delay_ns, labels });
    }

    fn triple(&mut self, at: Time, outcome: TripleOutcome, labels: Arc<Labels>) {
        self.outcomes.push(Outcome::Triple { outcome, subject: subject(at), labels });
    }
}

/// The event of this time. What lost events would explain it is no outcome of the join.
fn subject(at: Time) -> Subject {
    Subject::at(u64::try_from(at).expect("the time of an event"))
}

/// Which events of one timestamp come first.
fn place_in_tie(kind: Kind) -> u8 {
    match kind {
        Kind::Request => 0,
        Kind::Exposure => 1,
        Kind::Click => 2,
        Kind::Report => 3,
    }
}

/// The latest sighting in the window before `at`, else the earliest within `skew` after it. Of
/// several at one time, the last before and the first after.
fn best_match<'a>(
    sightings: impl Iterator<Item = &'a Sighting> + Clone,
    at: Time,
    window: Time,
    skew: Time,
) -> Option<&'a Sighting> {
    let before = sightings.clone().filter(|sighting| (at - window..=at).contains(&sighting.at));
    let after = sightings.filter(|sighting| sighting.at > at && sighting.at <= at + skew);
    before.max_by_key(|sighting| sighting.at).or_else(|| after.min_by_key(|sighting| sighting.at))
}
