//! Records of processes that are not settled yet, and everything behind them.
//!
//! The join takes events in about the order of their times. So while a record waits for what its process is, all
//! events that came after it wait, too, and so does the watermark: nothing becomes late by it, and what is counted in
//! the end is what would have been counted had it been known at once. What a wait tells, and when it is given up, is
//! decided in `discover`; what is done with what comes out, in `run/pods.rs`.
//!
//! A held record has left the ring, so each change of what is held is journaled as changes of connections are.

use std::{collections::VecDeque, sync::Arc};

use serde::{Deserialize, Serialize};
use tracer_common::counters::Hook;

use super::hook_index;
use crate::domain::{Event, Labels};

/// What may be held, in bytes. Past it, the wait of what was held first is given up.
const MAX_BYTES: usize = 64 << 20;

/// What a wait has told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Told {
    /// The process is counted under these labels.
    Of(Arc<Labels>),
    /// It is of no service.
    OfNone,
    /// Nothing in time.
    Unknown,
}

/// What is held, oldest first.
#[derive(Debug, Default)]
pub struct Held {
    queue: VecDeque<Item>,
    records: usize,
    bytes: usize,
    /// What changed since it was last asked for.
    changes: Vec<HeldChange>,
}

/// Something that is held. Cheap to copy: a checkpoint and the journal have it, too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Item {
    /// A record of a process that waits.
    Record(HeldRecord),
    /// An event behind one.
    Event(Arc<Event>),
}

/// A record as it came from the kernel side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldRecord {
    /// The hook that it came from.
    #[serde(with = "hook_index")]
    pub hook: Hook,
    /// All of it.
    pub bytes: Arc<[u8]>,
    wait: u64,
    told: Option<Told>,
}

/// A change of what is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldChange(Change);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Change {
    /// Something more is held.
    Held(Item),
    /// Whoever waited for this knows.
    Settled { wait: u64, told: Told },
    /// The first one left.
    Released,
}

/// What is held no longer.
#[derive(Debug)]
pub enum Released {
    /// A record, and what its process is.
    Record(HeldRecord, Told),
    /// An event.
    Event(Event),
}

impl Held {
    /// Holds a record until it is known what this wait tells.
    pub fn hold(&mut self, wait: u64, hook: Hook, bytes: &[u8]) {
        self.change(Change::Held(Item::Record(HeldRecord { hook, bytes: bytes.into(), wait, told: None })));
    }

    /// Gives an event back when nothing is held, so that it goes on at once; else holds it.
    pub fn pass(&mut self, event: Event) -> Option<Event> {
        if self.queue.is_empty() {
            return Some(event);
        }
        self.change(Change::Held(Item::Event(event.into())));
        None
    }

    /// Takes what a wait has told.
    pub fn settle(&mut self, wait: u64, told: Told) {
        if self.waits().any(|known| known == wait) {
            self.change(Change::Settled { wait, told });
        }
    }

    /// The next one that waits for nothing.
    pub fn release(&mut self) -> Option<Released> {
        if self.first_wait().is_some() {
            return None;
        }
        let item = self.pop()?;
        self.changes.push(HeldChange(Change::Released));
        match item {
            Item::Record(mut record) => {
                let told = record.told.take()?;
                Some(Released::Record(record, told))
            }
            Item::Event(event) => Some(Released::Event(Arc::unwrap_or_clone(event))),
        }
    }

    /// The wait that has to be given up, where too much is held.
    pub fn overfull(&self) -> Option<u64> {
        if self.bytes <= MAX_BYTES { None } else { self.first_wait() }
    }

    /// The wait of what was held first, while it is not settled.
    pub fn first_wait(&self) -> Option<u64> {
        match self.queue.front() {
            Some(Item::Record(HeldRecord { wait, told: None, .. })) => Some(*wait),
            _ => None,
        }
    }

    /// What was held first, if it is a record.
    pub fn first_record(&self) -> Option<&[u8]> {
        match self.queue.front() {
            Some(Item::Record(record)) => Some(&record.bytes),
            _ => None,
        }
    }

    /// The wait of each record that is not settled.
    pub fn waits(&self) -> impl Iterator<Item = u64> {
        self.queue.iter().filter_map(|item| match item {
            Item::Record(HeldRecord { wait, told: None, .. }) => Some(*wait),
            _ => None,
        })
    }

    /// Is nothing held?
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Records that wait, and events behind them.
    pub fn counts(&self) -> (usize, usize) {
        (self.records, self.queue.len() - self.records)
    }

    /// Records of a hook that wait.
    pub fn count_of(&self, hook: Hook) -> usize {
        let of_hook = |item: &&Item| matches!(item, Item::Record(record) if record.hook == hook);
        self.queue.iter().filter(of_hook).count()
    }

    /// What changed since the last call.
    pub fn take_changes(&mut self) -> Vec<HeldChange> {
        std::mem::take(&mut self.changes)
    }

    /// The changes that make this out of nothing.
    pub fn as_changes(&self) -> Vec<HeldChange> {
        self.queue.iter().map(|item| HeldChange(Change::Held(item.clone()))).collect()
    }

    /// Makes a change again that was made before a restart.
    pub fn make_again(&mut self, change: HeldChange) {
        self.make(change.0);
    }

    fn change(&mut self, change: Change) {
        self.changes.push(HeldChange(change.clone()));
        self.make(change);
    }

    fn make(&mut self, change: Change) {
        match change {
            Change::Held(item) => {
                self.records += usize::from(matches!(item, Item::Record(_)));
                self.bytes += item.len();
                self.queue.push_back(item);
            }
            Change::Settled { wait, told } => {
                for item in &mut self.queue {
                    if let Item::Record(record) = item
                        && record.wait == wait
                    {
                        record.told.get_or_insert_with(|| told.clone());
                    }
                }
            }
            Change::Released => drop(self.pop()),
        }
    }

    fn pop(&mut self) -> Option<Item> {
        let item = self.queue.pop_front()?;
        self.records -= usize::from(matches!(item, Item::Record(_)));
        self.bytes -= item.len();
        Some(item)
    }
}

impl Item {
    /// What it takes, in bytes.
    fn len(&self) -> usize {
        let more = match self {
            Self::Record(record) => record.bytes.len(),
            Self::Event(event) => {
                let texts = event.request_id.len() + event.item_id.len();
                size_of::<Event>() + texts + event.peer.as_ref().map_or(0, |peer| peer.len())
            }
        };
        size_of::<Self>() + more
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tracer_common::counters::Hook;

    use super::{Held, MAX_BYTES, Released, Told};
    use crate::domain::{Event, Kind, Labels};

    fn event(timestamp_ns: u64) -> Event {
        Event {
            kind: Kind::Click,
            timestamp_ns,
            source: "node-a".into(),
            pid: 1,
            tid: 1,
            labels: Arc::new(Labels::default()),
            request_id: "r".into(),
            item_id: "i".into(),
            peer: None,
        }
    }

    fn released(held: &mut Held) -> Vec<String> {
        let name = |released| match released {
            Released::Record(record, Told::OfNone) => format!("record {} of none", record.bytes.len()),
            Released::Record(record, Told::Unknown) => format!("record {} unknown", record.bytes.len()),
            Released::Record(record, Told::Of(labels)) => {
                format!("record {} of {}", record.bytes.len(), labels.service)
            }
            Released::Event(event) => format!("event {}", event.timestamp_ns),
        };
        std::iter::from_fn(|| held.release()).map(name).collect()
    }

    #[test]
    fn what_came_later_waits_behind_what_is_held_and_leaves_in_order() {
        let mut held = Held::default();
        assert!(held.pass(event(1)).is_some(), "nothing is held");
        held.hold(7, Hook::Click, &[0; 10]);
        assert!(held.pass(event(2)).is_none());
        held.hold(8, Hook::Write, &[0; 11]);
        held.hold(7, Hook::Click, &[0; 12]);
        assert!(held.pass(event(3)).is_none());
        assert_eq!((held.counts(), held.count_of(Hook::Click)), ((3, 2), 2));
        held.settle(8, Told::OfNone);
        assert!(released(&mut held).is_empty(), "the first is not settled");
        held.settle(7, Told::Unknown);
        let expected = ["record 10 unknown", "event 2", "record 11 of none", "record 12 unknown", "event 3"];
        assert_eq!(released(&mut held), expected);
        assert!(held.is_empty() && held.bytes == 0 && held.records == 0);
        assert!(held.pass(event(4)).is_some());
    }

    #[test]
    fn too_much_is_given_up_from_the_oldest_on() {
        let mut held = Held::default();
        held.hold(1, Hook::Write, &[0; 10]);
        while held.overfull().is_none() {
            held.hold(2, Hook::Write, &[0; 4096]);
        }
        assert!(held.bytes > MAX_BYTES && held.bytes < MAX_BYTES + 8192);
        assert_eq!(held.overfull(), Some(1));
        held.settle(1, Told::Unknown);
        assert_eq!(released(&mut held), ["record 10 unknown"]);
        assert_eq!(held.first_wait(), Some(2));
    }

    #[test]
    fn its_changes_make_it_again_at_every_moment() {
        let labels = Arc::new(Labels { service: "shop".into(), ..Labels::default() });
        let steps: [&dyn Fn(&mut Held); 8] = [
            &|held| held.hold(1, Hook::Click, b"first"),
            &|held| drop(held.pass(event(1))),
            &|held| held.hold(2, Hook::Write, b"second"),
            &|held| held.settle(2, Told::OfNone),
            &|held| held.settle(3, Told::OfNone),
            &|held| held.settle(1, Told::Of(Arc::clone(&labels))),
            &|held| drop(held.release()),
            &|held| drop(held.release()),
        ];
        let (mut live, mut replayed) = (Held::default(), Held::default());
        for step in steps {
            step(&mut live);
            for change in live.take_changes() {
                replayed.make_again(change);
            }
            let mut restored = Held::default();
            for change in live.as_changes() {
                restored.make_again(change);
            }
            for other in [&replayed, &restored] {
                assert_eq!(
                    (&other.queue, other.records, other.bytes),
                    (&live.queue, live.records, live.bytes)
                );
                assert!(other.changes.is_empty(), "what is made again is no change");
            }
        }
        assert_eq!(released(&mut live), ["record 6 of none"]);
    }
}
