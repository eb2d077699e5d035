//! Broken links, one by one, for people who look for the cause of a ratio.
//!
//! The join keeps no ids. So, where ids may be shown, a sample of events is kept here with theirs until
//! they are judged, or pushed out by later ones.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use crate::domain::{Edge, Event, Kind, Labels, Outcome};

/// Examples of each edge.
const PER_EDGE: usize = 5;
/// Events of which ids are kept, of some 100 bytes each.
const MAX_SAMPLED: usize = 16_384;

/// Who and what an event was about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ids {
    /// The request id; empty where there was none.
    pub request_id: Box<str>,
    /// The item id; empty where there was none.
    pub item_id: Box<str>,
    /// The process.
    pub pid: u32,
}

/// A broken link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// Which link.
    pub edge: Edge,
    /// Why it is broken, as the metric's label has it.
    pub reason: &'static str,
    /// When its event happened, in nanoseconds since the Unix epoch.
    pub timestamp_ns: u64,
    /// Service, release and group of its event.
    pub labels: Arc<Labels>,
    /// Of its event; `None` where they may not be shown, and where it was not in the sample.
    pub ids: Option<Ids>,
}

/// The last broken links of each edge.
#[derive(Debug)]
pub struct Examples {
    keeps_ids: bool,
    /// By time and kind; `None` where two events have both in common.
    sampled: BTreeMap<(u64, Kind), Option<Ids>>,
    /// One event of two to the power of this many is sampled.
    rarity: u32,
    /// Oldest first, in the order of [`Edge::ALL`].
    recent: [VecDeque<Example>; Edge::ALL.len()],
}

impl Examples {
    /// None yet.
    pub fn new(keeps_ids: bool) -> Self {
        Self { keeps_ids, sampled: BTreeMap::new(), rarity: 0, recent: <_>::default() }
    }

    /// An event that may turn out to be broken.
    pub fn note(&mut self, event: &Event) {
        let is_subject = matches!(event.kind, Kind::Exposure | Kind::Click);
        if !self.keeps_ids || !is_subject || !self.is_sampled(event.timestamp_ns) {
            return;
        }
        if self.sampled.len() >= MAX_SAMPLED {
            self.make_room();
        }
        let ids =
            Ids { request_id: event.request_id.clone(), item_id: event.item_id.clone(), pid: event.pid };
        self.sampled
            .entry((event.timestamp_ns, event.kind))
            .and_modify(|known| *known = known.take().filter(|known| *known == ids))
            .or_insert(Some(ids));
    }

    /// An outcome, which is an example if it is a broken link.
    pub fn judge(&mut self, outcome: &Outcome) {
        let (edge, reason, subject, labels) = match outcome {
            Outcome::Link { edge, outcome, subject, labels, .. } if outcome.is_broken() == Some(true) => {
                (*edge, outcome.name(), subject, labels)
            }
            Outcome::Triple { outcome, subject, labels } if outcome.is_broken() == Some(true) => {
                (Edge::Triple, outcome.name(), subject, labels)
            }
            _ => return,
        };
        let kind = if edge == Edge::RequestExposure { Kind::Exposure } else { Kind::Click };
        let timestamp_ns = subject.timestamp_ns;
        let ids = self.sampled.get(&(timestamp_ns, kind)).cloned().flatten();
        let recent = &mut self.recent[edge as usize];
        let is_full = recent.len() >= PER_EDGE;
        // One that says more is not given up for one that says less.
        if is_full && ids.is_none() && recent.iter().any(|example| example.ids.is_some()) {
            return;
        }
        if is_full {
            recent.pop_front();
        }
        recent.push_back(Example { edge, reason, timestamp_ns, labels: Arc::clone(labels), ids });
    }

    /// The examples, newest first.
    pub fn recent(&self) -> Vec<Example> {
        let mut all: Vec<Example> = self.recent.iter().flatten().cloned().collect();
        all.sort_by_key(|example| (std::cmp::Reverse(example.timestamp_ns), example.edge));
        all
    }

    fn is_sampled(&self, timestamp_ns: u64) -> bool {
        // Times are often multiples of something; their product with this constant is not.
        let mixed = timestamp_ns.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.rarity == 0 || mixed >> (u64::BITS - self.rarity) == 0
    }

    /// Gives up the older half. When that half is young, fewer are sampled from now on.
    fn make_room(&mut self) {
        /// Most events are judged by then.
        const YOUNG_NS: u64 = 60_000_000_000;
        let Some(((middle_ns, _), _)) = self.sampled.iter().nth(MAX_SAMPLED / 2) else { return };
        let newest_ns = self.sampled.last_key_value().map_or(0, |((timestamp_ns, _), _)| *timestamp_ns);
        let age_ns = newest_ns - middle_ns;
        self.sampled = self.sampled.split_off(&(*middle_ns, Kind::ALL[0]));
        if age_ns < YOUNG_NS {
            self.rarity += 1;
        } else if age_ns > 4 * YOUNG_NS {
            self.rarity = self.rarity.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{LinkOutcome, Subject};

    fn exposure(timestamp_ns: u64, request_id: &str) -> Event {
        Event {
            kind: Kind::Exposure,
            timestamp_ns,
            source: "a".into(),
            pid: 7,
            tid: 7,
            labels: Arc::default(),
            request_id: request_id.into(),
            item_id: "i".into(),
            peer: None,
        }
    }

    fn link(timestamp_ns: u64, outcome: LinkOutcome) -> Outcome {
        let (edge, subject) = (Edge::RequestExposure, Subject::at(timestamp_ns));
        Outcome::Link { edge, outcome, subject, delay_ns: None, labels: Arc::default() }
    }

    fn shown(examples: &Examples) -> Vec<(u64, Option<String>)> {
        let ids = |example: Example| example.ids.map(|ids| ids.request_id.to_string());
        examples.recent().into_iter().map(|example| (example.timestamp_ns, ids(example))).collect()
    }

    #[test]
    fn a_broken_link_is_shown_with_its_ids_where_they_may_be_shown() {
        for keeps_ids in [false, true] {
            let mut examples = Examples::new(keeps_ids);
            examples.note(&exposure(1, "r-1"));
            examples.note(&exposure(2, "r-2"));
            examples.judge(&link(1, LinkOutcome::Orphan));
            examples.judge(&link(2, LinkOutcome::Linked));
            assert_eq!(shown(&examples), [(1, keeps_ids.then(|| "r-1".to_owned()))]);
        }
    }

    #[test]
    fn two_events_of_one_time_are_not_taken_for_each_other() {
        let mut examples = Examples::new(true);
        examples.note(&exposure(1, "r-1"));
        examples.note(&exposure(1, "r-2"));
        examples.judge(&link(1, LinkOutcome::Orphan));
        assert_eq!(shown(&examples), [(1, None)]);
    }

    #[test]
    fn the_newest_are_kept_and_one_with_ids_is_not_given_up_for_one_without() {
        let mut examples = Examples::new(true);
        for time in 1..=9 {
            examples.note(&exposure(time, &format!("r-{time}")));
            examples.judge(&link(time, LinkOutcome::Orphan));
        }
        examples.judge(&link(10, LinkOutcome::Orphan));
        assert_eq!(shown(&examples).iter().map(|(time, _)| *time).collect::<Vec<_>>(), [9, 8, 7, 6, 5]);
    }

    #[test]
    fn however_many_events_come_few_are_remembered_and_some_of_the_last_minute() {
        const SECOND_NS: u64 = 1_000_000_000;
        let mut examples = Examples::new(true);
        for number in 0..2_000_000_u64 {
            examples.note(&exposure(1_700_000_000 * SECOND_NS + number * 100_000, "r"));
            assert!(examples.sampled.len() <= MAX_SAMPLED);
        }
        let oldest_ns = examples.sampled.first_key_value().map_or(0, |((time, _), _)| *time);
        let newest_ns = 1_700_000_000 * SECOND_NS + 2_000_000 * 100_000;
        assert!(newest_ns - oldest_ns > 60 * SECOND_NS, "{} s", (newest_ns - oldest_ns) / SECOND_NS);
    }
}
