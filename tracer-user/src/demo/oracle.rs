//! A second opinion for the tests: carries out a plan in the mind, as the service would, writes down every
//! event, and judges each by looking for what it needs. Knows the service's URLs and the join's words, and
//! nothing of cases. Windows count as endless, because a demo is shorter than they are.

use std::collections::{HashMap, HashSet};

use super::{
    plan::{Plan, SERVICE_MAX_ID_LEN, Step, Target},
    tally::{ID_TOO_LONG, Key, Tally},
};
use crate::domain::{Edge, Kind, LinkOutcome, RequestOutcome, TripleOutcome};

/// An event; its place in the list is its time. Pids are targets, and ids are empty where a kind has none.
pub(super) struct Seen {
    pub(super) kind: Kind,
    pub(super) target: Target,
    pub(super) request_id: String,
    pub(super) item_id: String,
}

/// Everything that happens when the plan is carried out.
pub(super) fn watch(plan: &Plan, max_id_len: usize) -> Oracle {
    let mut oracle = Oracle { max_id_len, seen: Vec::new(), lost: 0 };
    let mut victim_lives = true;
    for step in plan.lanes.iter().flatten().flatten() {
        match step {
            Step::Recommend { target, path } => {
                assert!(*target != Target::Victim || victim_lives, "asks the dead");
                oracle.recommend(*target, path);
            }
            Step::Click { target, path } => oracle.click(*target, path),
            Step::Settle(_) => {}
            Step::KillVictim => victim_lives = false,
        }
    }
    assert!(!victim_lives);
    oracle
}

pub(super) struct Oracle {
    max_id_len: usize,
    pub(super) seen: Vec<Seen>,
    lost: u64,
}

impl Oracle {
    fn see(&mut self, kind: Kind, target: Target, request_id: &str, item_id: &str) {
        assert!(request_id.len() <= SERVICE_MAX_ID_LEN && item_id.len() <= SERVICE_MAX_ID_LEN);
        if request_id.len() > self.max_id_len || item_id.len() > self.max_id_len {
            assert!(matches!(kind, Kind::Exposure | Kind::Click), "this {kind:?}'s loss is not in the truth");
            self.lost += 1;
        } else {
            self.seen.push(Seen { kind, target, request_id: request_id.into(), item_id: item_id.into() });
        }
    }

    fn recommend(&mut self, target: Target, path: &str) {
        let query = query(path, "/recommend");
        if query.get("header") != Some(&"none") {
            self.see(Kind::Request, target, query["id"], "");
        }
        let exposed_id = query.get("expose_id").unwrap_or(&query["id"]);
        let items = query["items"];
        for item in items.split(',').filter(|_| !items.is_empty()) {
            for _ in 0..repeat(&query) {
                self.see(Kind::Exposure, target, exposed_id, item);
            }
        }
    }

    fn click(&mut self, target: Target, path: &str) {
        let query = query(path, "/click");
        for _ in 0..repeat(&query) {
            self.see(Kind::Click, target, query["id"], query["item"]);
        }
        if target != Target::Silent {
            // It connects, and it sends.
            self.see(Kind::Report, target, "", "");
            self.see(Kind::Report, target, "", "");
        }
    }

    /// What a tracer that sees everything counts.
    pub(super) fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        tally.add(Key::Lost(ID_TOO_LONG.into()), self.lost);
        let requests: HashSet<&str> = self.of(Kind::Request).map(|(_, seen)| &*seen.request_id).collect();
        let mut exposures: HashMap<&str, HashSet<&str>> = HashMap::new();
        for (_, seen) in self.of(Kind::Exposure).filter(|(_, seen)| !seen.item_id.is_empty()) {
            exposures.entry(&seen.request_id).or_default().insert(&seen.item_id);
        }
        // By process, when its last report was: it covers every click before it.
        let last_report: HashMap<Target, usize> =
            self.of(Kind::Report).map(|(time, seen)| (seen.target, time)).collect();

        let mut known = HashSet::new();
        for (time, seen) in self.seen.iter().enumerate() {
            tally.add(Key::Event(seen.kind), 1);
            let (id, item) = (seen.request_id.as_str(), seen.item_id.as_str());
            let missing = id.is_empty() || (seen.kind != Kind::Request && item.is_empty());
            if seen.kind == Kind::Report {
                continue;
            }
            if !missing && !known.insert((seen.kind, id, item)) {
                tally.add(Key::Duplicate(seen.kind), 1);
                continue;
            }
            match seen.kind {
                Kind::Request => {
                    let outcome = match (missing, exposures.contains_key(id)) {
                        (true, _) => RequestOutcome::MissingId,
                        (false, true) => RequestOutcome::Exposed,
                        (false, false) => RequestOutcome::Unexposed,
                    };
                    tally.add(Key::Request(outcome), 1);
                }
                Kind::Exposure => {
                    let outcome = match (missing, requests.contains(id)) {
                        (true, _) => LinkOutcome::MissingId,
                        (false, true) => LinkOutcome::Linked,
                        (false, false) => LinkOutcome::Orphan,
                    };
                    tally.add(Key::Link(Edge::RequestExposure, outcome), 1);
                }
                Kind::Click => {
                    let outcome = match (missing, exposures.get(id)) {
                        (true, _) => LinkOutcome::MissingId,
                        (false, Some(items)) if items.contains(item) => LinkOutcome::Linked,
                        (false, Some(_)) => LinkOutcome::Mismatch,
                        (false, None) => LinkOutcome::Orphan,
                    };
                    tally.add(Key::Link(Edge::ExposureClick, outcome), 1);
                    let complete = outcome == LinkOutcome::Linked && requests.contains(id);
                    let triple = if complete { TripleOutcome::Complete } else { TripleOutcome::Broken };
                    tally.add(Key::Triple(triple), 1);
                    let reported = last_report.get(&seen.target).is_some_and(|&report| report > time);
                    let report = if reported { LinkOutcome::Reported } else { LinkOutcome::Unreported };
                    tally.add(Key::Link(Edge::ClickReport, report), 1);
                }
                Kind::Report => {}
            }
        }
        tally
    }

    fn of(&self, kind: Kind) -> impl Iterator<Item = (usize, &Seen)> {
        self.seen.iter().enumerate().filter(move |(_, seen)| seen.kind == kind)
    }
}

fn query<'a>(path: &'a str, expected: &str) -> HashMap<&'a str, &'a str> {
    let (place, query) = path.split_once('?').expect("a path with a query");
    assert_eq!(place, expected);
    query.split('&').map(|pair| pair.split_once('=').expect("key=value")).collect()
}

fn repeat(query: &HashMap<&str, &str>) -> u32 {
    query.get("repeat").map_or(1, |text| text.parse().expect("a number"))
}
