//! What cases are written with: ids of their own, steps, and words for what they add to the truth.

use super::{
    plan::{Case, Random, SERVICE_MAX_ID_LEN, Step, Target},
    tally::{ID_TOO_LONG, Key, Tally},
};
use crate::domain::{Edge, Kind, LinkOutcome, RequestOutcome, TripleOutcome};

/// Events of one report of the demo's service: it connects, and sends.
pub(super) const REPORT_EVENTS: u64 = 2;

/// What each case adds to the truth.
impl Tally {
    /// One request event that is not a duplicate.
    pub(super) fn request(&mut self, outcome: RequestOutcome) {
        self.add(Key::Event(Kind::Request), 1);
        self.add(Key::Request(outcome), 1);
    }

    /// Exposure events that are not duplicates.
    pub(super) fn exposures(&mut self, count: usize, outcome: LinkOutcome) {
        self.add(Key::Event(Kind::Exposure), count as u64);
        self.add(Key::Link(Edge::RequestExposure, outcome), count as u64);
    }

    /// One click event that is not a duplicate, and its report if it is reported.
    pub(super) fn click(&mut self, link: LinkOutcome, triple: TripleOutcome, report: LinkOutcome) {
        self.add(Key::Event(Kind::Click), 1);
        self.add(Key::Link(Edge::ExposureClick, link), 1);
        self.add(Key::Triple(triple), 1);
        self.add(Key::Link(Edge::ClickReport, report), 1);
        if report == LinkOutcome::Reported {
            self.reports(1);
        }
    }

    /// Events that repeat earlier ones.
    pub(super) fn duplicates(&mut self, kind: Kind, count: usize) {
        self.add(Key::Event(kind), count as u64);
        self.add(Key::Duplicate(kind), count as u64);
    }

    /// Reports that cover no click of their own.
    pub(super) fn reports(&mut self, count: u64) {
        self.add(Key::Event(Kind::Report), count * REPORT_EVENTS);
    }

    /// Calls that never become events because an id is over the limit.
    pub(super) fn lost(&mut self, count: usize) {
        self.add(Key::Lost(ID_TOO_LONG.into()), count as u64);
    }
}

/// The parameters of one recommendation request; by default an empty one at the main process.
pub(super) struct Recommend<'a> {
    pub(super) target: Target,
    pub(super) id: &'a str,
    pub(super) items: &'a [String],
    pub(super) repeat: u32,
    pub(super) expose_id: Option<&'a str>,
    pub(super) header: bool,
}

impl Default for Recommend<'_> {
    fn default() -> Self {
        Self { target: Target::Main, id: "", items: &[], repeat: 1, expose_id: None, header: true }
    }
}

/// Items that exist. Prime, so that a stride through them meets none twice.
const CATALOGUE: usize = 10_007;

/// What the cases are written into.
pub(super) struct Script {
    random: Random,
    /// Makes ids unique.
    serial: u64,
    requests: u64,
    pub(super) max_id_len: usize,
    steps: Vec<Step>,
    /// The sum of what the cases so far add to the truth.
    pub(super) truth: Tally,
}

impl Script {
    pub(super) fn new(seed: u64, max_id_len: usize) -> Self {
        let random = Random::new(seed);
        Self { random, serial: 0, requests: 0, max_id_len, steps: Vec::new(), truth: Tally::default() }
    }

    /// Recommendation requests written so far.
    pub(super) fn requests(&self) -> u64 {
        self.requests
    }

    pub(super) fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    /// Ends the case that is being written.
    pub(super) fn take_case(&mut self) -> Case {
        std::mem::take(&mut self.steps)
    }

    pub(super) fn step(&mut self, step: Step) {
        self.steps.push(step);
    }

    pub(super) fn recommend(&mut self, ask: &Recommend) {
        let mut path = format!("/recommend?id={}&items={}", ask.id, ask.items.join(","));
        if ask.repeat != 1 {
            path.push_str(&format!("&repeat={}", ask.repeat));
        }
        if let Some(id) = ask.expose_id {
            path.push_str(&format!("&expose_id={id}"));
        }
        if !ask.header {
            path.push_str("&header=none");
        }
        self.requests += 1;
        self.step(Step::Recommend { target: ask.target, path });
    }

    pub(super) fn click(&mut self, target: Target, id: &str, item: &str) {
        self.step(Step::Click { target, path: format!("/click?id={id}&item={item}") });
    }

    pub(super) fn click_repeatedly(&mut self, target: Target, id: &str, item: &str, repeat: u32) {
        self.step(Step::Click { target, path: format!("/click?id={id}&item={item}&repeat={repeat}") });
    }

    /// A request id that no other case has.
    pub(super) fn new_id(&mut self) -> String {
        self.serial += 1;
        format!("r{}-{:016x}", self.serial, self.random.bits())
    }

    pub(super) fn item(&mut self) -> String {
        format!("item-{}", self.random.below(CATALOGUE))
    }

    /// 5 to 15 different items.
    pub(super) fn items(&mut self) -> Vec<String> {
        let count = 5 + self.random.below(11);
        let (first, stride) = (self.random.below(CATALOGUE), 1 + self.random.below(CATALOGUE - 1));
        (0..count).map(|index| format!("item-{}", (first + index * stride) % CATALOGUE)).collect()
    }

    pub(super) fn choose(&mut self, items: &[String]) -> String {
        items[self.random.below(items.len())].clone()
    }

    /// The id made as long as `len` bytes, still its own.
    pub(super) fn pad(&self, id: &str, len: usize) -> String {
        format!("{id:x<len$}")
    }

    pub(super) fn one_byte_too_long(&self, id: &str) -> String {
        self.pad(id, self.max_id_len + 1)
    }

    pub(super) fn far_too_long(&self, id: &str) -> String {
        self.pad(id, SERVICE_MAX_ID_LEN)
    }
}
