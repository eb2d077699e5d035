//! A stream of events like that of a shop: requests that show 20 items each, a few of which are
//! clicked, with what goes wrong in every real stream mixed in.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use tracer_user::domain::Kind;
use tracer_user::join::{
    Fingerprinter, ItemPrint, JoinConfig, JoinEvent, LabelsKey, RequestPrint, SourcePrint,
};

const SECOND_NS: u64 = 1_000_000_000;
/// 2023-11-14, so that times have all their digits.
const START_NS: u64 = 1_700_000_000 * SECOND_NS;

/// How the stream is made.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Exposures that are remembered at once when the click window has filled up.
    pub pending: u64,
    /// Items shown for a request.
    pub exposures: u64,
    /// The exposures of a request are spread over this long after it.
    pub spread_ns: u64,
    /// Events arrive up to this much after they happened.
    pub jitter_ns: u64,
    /// Leave out everything that is unusual: no loss, no repetition, no wrong item.
    pub is_clean: bool,
}

impl Shape {
    /// 20 exposures over ten seconds, arriving up to 50 ms late.
    pub fn usual(pending: u64) -> Self {
        Self { pending, exposures: 20, spread_ns: 10 * SECOND_NS, jitter_ns: SECOND_NS / 20, is_clean: false }
    }

    /// Time between two requests, in nanoseconds.
    fn request_gap_ns(&self) -> u64 {
        let retention_ns = JoinConfig::default().click_window_ns;
        (retention_ns / (self.pending / self.exposures).max(1)).max(1)
    }

    /// Events that are needed to fill the click window.
    pub fn events_to_fill(&self) -> u64 {
        self.pending + self.pending / self.exposures + self.pending * 3 / 100
    }
}

/// The stream, in order of arrival and without end.
#[derive(Debug)]
pub struct Workload {
    shape: Shape,
    prints: Fingerprinter,
    labels: LabelsKey,
    sources: [SourcePrint; 2],
    /// What is to arrive, by time of arrival.
    coming: BinaryHeap<Reverse<Coming>>,
    requests: u64,
    random: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Coming {
    arrival_ns: u64,
    timestamp_ns: u64,
    request: RequestPrint,
    item: ItemPrint,
    kind: Kind,
    source: SourcePrint,
}

impl Workload {
    /// The same stream each time, but for the keys of its fingerprints. `labels` are those of every
    /// event.
    pub fn new(shape: Shape, labels: LabelsKey) -> Self {
        let prints = Fingerprinter::random();
        let sources = [prints.source("node-a"), prints.source("node-b")];
        let random = 0x9e37_79b9_7f4a_7c15;
        Self { shape, prints, labels, sources, coming: BinaryHeap::new(), requests: 0, random }
    }

    /// The next events, in place of what is in `events`.
    pub fn fill(&mut self, events: &mut Vec<JoinEvent>, count: usize) {
        events.clear();
        events.extend(self.take(count));
    }

    fn below(&mut self, bound: u64) -> u64 {
        // xorshift64*: good enough to spread events, and the same each time.
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        let number = self.random.wrapping_mul(0x2545_f491_4f6c_dd1d);
        if bound == 0 { 0 } else { number % bound }
    }

    /// Whether something happens that happens in so many of a thousand cases.
    fn happens(&mut self, of_thousand: u64) -> bool {
        !self.shape.is_clean && self.below(1000) < of_thousand
    }

    fn send(&mut self, kind: Kind, timestamp_ns: u64, request: RequestPrint, item: ItemPrint) {
        let source = self.sources[usize::from(kind == Kind::Click)];
        let arrival_ns = timestamp_ns + self.below(self.shape.jitter_ns);
        self.coming.push(Reverse(Coming { arrival_ns, timestamp_ns, request, item, kind, source }));
    }

    fn add_request(&mut self) {
        let request_ns = START_NS + self.requests * self.shape.request_gap_ns();
        let request = self.prints.request(&format!("{:016x}", self.requests));
        self.requests += 1;
        if !self.happens(5) {
            self.send(Kind::Request, request_ns, request, ItemPrint::MISSING);
        }
        if self.happens(10) {
            self.send(Kind::Request, request_ns + SECOND_NS / 2, request, ItemPrint::MISSING);
        }
        for item in 0..self.shape.exposures {
            let exposure_ns = request_ns + 1_000_000 + self.below(self.shape.spread_ns);
            let number = self.below(1_000_000) * self.shape.exposures + item;
            let item = self.prints.item(&format!("item-{number}"));
            let is_lost = self.happens(5);
            if !is_lost {
                self.send(Kind::Exposure, exposure_ns, request, item);
            }
            if self.happens(5) {
                self.send(Kind::Exposure, exposure_ns + SECOND_NS, request, item);
            }
            if self.below(100) < 3 {
                let click_ns = exposure_ns + SECOND_NS + self.below(600 * SECOND_NS);
                let clicked = if self.happens(10) { self.prints.item("never shown") } else { item };
                self.send(Kind::Click, click_ns, request, clicked);
            }
        }
    }
}

impl Iterator for Workload {
    type Item = JoinEvent;

    fn next(&mut self) -> Option<JoinEvent> {
        // Nothing of a request is before it.
        let next_ns = |workload: &Self| START_NS + workload.requests * workload.shape.request_gap_ns();
        while self.coming.peek().is_none_or(|Reverse(first)| first.arrival_ns >= next_ns(self)) {
            self.add_request();
        }
        let Reverse(Coming { timestamp_ns, request, item, kind, source, .. }) = self.coming.pop()?;
        let labels = self.labels;
        Some(JoinEvent { timestamp_ns, request, item, source, pid: 7, labels, kind, wants_report: false })
    }
}
