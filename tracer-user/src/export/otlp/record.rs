//! What is kept of the requests and exposures of one request id.

use std::sync::Arc;

use crate::domain::{Event, Kind, Labels, LinkOutcome};

/// Events of one request id; of those that come after them nothing is kept.
const MAX_EVENTS: usize = 64;

/// An event as it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) kind: Kind,
    /// In nanoseconds since the Unix epoch.
    pub(super) timestamp_ns: u64,
    /// Empty where there is none.
    pub(super) item_id: Box<str>,
    pub(super) pid: u32,
    pub(super) labels: Arc<Labels>,
}

impl From<&Event> for Part {
    fn from(event: &Event) -> Self {
        Self {
            kind: event.kind,
            timestamp_ns: event.timestamp_ns,
            item_id: event.item_id.clone(),
            pid: event.pid,
            labels: Arc::clone(&event.labels),
        }
    }
}

/// What the join said of a link: the outcome, and how long before the event its other end was, in nanoseconds.
pub(super) type Verdict = (LinkOutcome, Option<u64>);

/// A request or an exposure.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) part: Part,
    /// Of `request_exposure`, of an exposure that does not repeat another.
    pub(super) verdict: Option<Verdict>,
    /// It was told.
    pub(super) told: bool,
}

/// The requests and exposures of a request id, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) newest_ns: u64,
    pub(super) events: Vec<Kept>,
}

impl Record {
    /// Keeps an event. Returns whether there was room.
    pub(super) fn add(&mut self, event: &Event) -> bool {
        if self.events.len() >= MAX_EVENTS {
            return false;
        }
        self.newest_ns = self.newest_ns.max(event.timestamp_ns);
        self.events.push(Kept { part: event.into(), verdict: None, told: false });
        true
    }

    /// The event of this kind and item to which a link of `at_ns` and this delay leads. A delay of 0 is also what the
    /// join says of an event that is later by clocks that disagree.
    pub(super) fn other_end(&self, kind: Kind, item_id: &str, at_ns: u64, delay_ns: u64) -> Option<usize> {
        let of_kind = |part: &Part| part.kind == kind && *part.item_id == *item_id;
        if delay_ns > 0 {
            let wanted_ns = at_ns - delay_ns;
            return self.find(|part| of_kind(part) && part.timestamp_ns == wanted_ns);
        }
        let after = self.parts().filter(|(_, part)| of_kind(part) && part.timestamp_ns >= at_ns);
        after.min_by_key(|(_, part)| part.timestamp_ns).map(|(index, _)| index)
    }

    /// The last request at this time or before.
    pub(super) fn last_request(&self, at_ns: u64) -> Option<usize> {
        let before =
            self.parts().filter(|(_, part)| part.kind == Kind::Request && part.timestamp_ns <= at_ns);
        before.max_by_key(|(_, part)| part.timestamp_ns).map(|(index, _)| index)
    }

    /// What the join said of the exposure that this one is, or repeats.
    pub(super) fn verdict(&self, exposure: usize) -> Option<Verdict> {
        self.judged(exposure).and_then(|index| self.events[index].verdict)
    }

    /// The request that the exposure is linked to.
    pub(super) fn request_of(&self, exposure: usize) -> Option<usize> {
        let judged = self.judged(exposure)?;
        let (outcome, delay_ns) = self.events[judged].verdict?;
        let at_ns = self.events[judged].part.timestamp_ns;
        (outcome == LinkOutcome::Linked)
            .then(|| self.other_end(Kind::Request, "", at_ns, delay_ns.unwrap_or(0)))
            .flatten()
    }

    /// Judged exposures at this time or before, the last `most` of them.
    pub(super) fn last_exposures(&self, at_ns: u64, most: usize) -> Vec<usize> {
        let judged = |kept: &Kept| kept.verdict.is_some() && kept.part.timestamp_ns <= at_ns;
        let all: Vec<usize> = (0..self.events.len()).filter(|index| judged(&self.events[*index])).collect();
        all[all.len().saturating_sub(most)..].to_vec()
    }

    fn judged(&self, exposure: usize) -> Option<usize> {
        let Part { item_id, timestamp_ns, .. } = &self.events[exposure].part;
        let is_of = |kept: &Kept| {
            kept.verdict.is_some() && kept.part.item_id == *item_id && kept.part.timestamp_ns <= *timestamp_ns
        };
        let judged = (0..self.events.len()).filter(|index| is_of(&self.events[*index]));
        judged.max_by_key(|index| self.events[*index].part.timestamp_ns)
    }

    fn parts(&self) -> impl Iterator<Item = (usize, &Part)> {
        self.events.iter().map(|kept| &kept.part).enumerate()
    }

    fn find(&self, is_it: impl Fn(&Part) -> bool) -> Option<usize> {
        self.parts().find(|(_, part)| is_it(part)).map(|(index, _)| index)
    }
}
