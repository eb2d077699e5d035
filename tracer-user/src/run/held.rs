//! Records of processes that are not settled yet, and everything behind them.
//!
//! The join takes events in about the order of their times. So while a record waits for what its process is, all
//! events that came after it wait, too, and so does the watermark: nothing becomes late by it, and what is counted in
//! the end is what would have been counted had it been known at once. What a wait tells, and when it is given up, is
//! decided in `discover`; what is done with what comes out, in `worker`.

use std::collections::VecDeque;

use tracer_common::counters::Hook;

use crate::{discover::Settled, domain::Event};

/// What may be held, in bytes. Past it, the wait of what was held first is given up.
const MAX_BYTES: usize = 64 << 20;

/// What is held, oldest first.
#[derive(Default)]
pub(super) struct Held {
    queue: VecDeque<Item>,
    records: usize,
    bytes: usize,
}

/// Something that is held.
enum Item {
    /// A record of a process that waits.
    Record(HeldRecord),
    /// An event behind one.
    Event(Box<Event>),
}

/// A record as it came from the kernel side.
pub(super) struct HeldRecord {
    pub(super) hook: Hook,
    pub(super) bytes: Box<[u8]>,
    wait: u64,
    settled: Option<Settled>,
}

/// What is held no longer.
pub(super) enum Released {
    Record(HeldRecord, Settled),
    Event(Box<Event>),
}

impl Held {
    /// Holds a record until it is known what this wait tells.
    pub(super) fn hold(&mut self, wait: u64, hook: Hook, bytes: &[u8]) {
        self.records += 1;
        self.bytes += bytes.len() + size_of::<Item>();
        let record = HeldRecord { hook, bytes: bytes.into(), wait, settled: None };
        self.queue.push_back(Item::Record(record));
    }

    /// Gives an event back when nothing is held, so that it goes on at once; else holds it.
    pub(super) fn pass(&mut self, event: Event) -> Option<Event> {
        if self.queue.is_empty() {
            return Some(event);
        }
        let event = Box::new(event);
        self.bytes += event_bytes(&event);
        self.queue.push_back(Item::Event(event));
        None
    }

    /// Takes what a wait has told.
    pub(super) fn settle(&mut self, wait: u64, settled: &Settled) {
        for item in &mut self.queue {
            if let Item::Record(record) = item
                && record.wait == wait
                && record.settled.is_none()
            {
                record.settled = Some(settled.clone());
            }
        }
    }

    /// The next one that waits for nothing.
    pub(super) fn release(&mut self) -> Option<Released> {
        if let Some(Item::Record(HeldRecord { settled: None, .. })) = self.queue.front() {
            return None;
        }
        match self.queue.pop_front()? {
            Item::Record(mut record) => {
                self.records -= 1;
                self.bytes -= record.bytes.len() + size_of::<Item>();
                let settled = record.settled.take()?;
                Some(Released::Record(record, settled))
            }
            Item::Event(event) => {
                self.bytes -= event_bytes(&event);
                Some(Released::Event(event))
            }
        }
    }

    /// The wait that has to be given up, where too much is held.
    pub(super) fn overfull(&self) -> Option<u64> {
        if self.bytes <= MAX_BYTES { None } else { self.first_wait() }
    }

    /// The wait of what was held first, while it is not settled.
    pub(super) fn first_wait(&self) -> Option<u64> {
        match self.queue.front() {
            Some(Item::Record(HeldRecord { wait, settled: None, .. })) => Some(*wait),
            _ => None,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Records that wait, and events behind them.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.records, self.queue.len() - self.records)
    }
}

fn event_bytes(event: &Event) -> usize {
    let texts =
        event.request_id.len() + event.item_id.len() + event.peer.as_ref().map_or(0, |peer| peer.len());
    size_of::<Item>() + size_of::<Event>() + texts
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tracer_common::counters::Hook;

    use super::{Held, MAX_BYTES, Released};
    use crate::{
        discover::Settled,
        domain::{Event, Kind, Labels},
    };

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
            Released::Record(record, Settled::OfNone) => format!("record {} of none", record.bytes.len()),
            Released::Record(record, Settled::Unknown) => format!("record {} unknown", record.bytes.len()),
            Released::Record(record, Settled::Of(_)) => format!("record {}", record.bytes.len()),
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
        held.hold(8, Hook::Click, &[0; 11]);
        held.hold(7, Hook::Click, &[0; 12]);
        assert!(held.pass(event(3)).is_none());
        assert_eq!(held.counts(), (3, 2));
        held.settle(8, &Settled::OfNone);
        assert!(released(&mut held).is_empty(), "the first is not settled");
        held.settle(7, &Settled::Unknown);
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
        held.settle(1, &Settled::Unknown);
        assert_eq!(released(&mut held), ["record 10 unknown"]);
        assert_eq!(held.first_wait(), Some(2));
    }
}
