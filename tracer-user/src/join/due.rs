//! Events that the watermark has passed, on their way to being taken.
//!
//! An event looks at a slot of the index, then at a head, then at a line of entries, and each of them comes from memory,
//! which takes as long as a hundred steps of the join. So a batch is made ready in stages, one each time that another
//! batch is taken, and in each the processor is only told what the next stage will read. Nothing is decided here.

use super::event::JoinEvent;
use super::index::{Index, Place};
use super::packed::arena::{Arena, Handle};

/// Events taken at once. More would make the longest step longer, and no faster on the whole.
pub(super) const BATCH: usize = 24;

/// Events with what is known of where their groups are.
#[derive(Debug)]
pub(super) struct Batch {
    events: Vec<JoinEvent>,
    /// The page of the index that the group of an event is in, unless that is split meanwhile.
    pages: [u32; BATCH],
    /// Where the group of an event probably is, if it is a packed one.
    guesses: [Handle; BATCH],
}

impl Default for Batch {
    fn default() -> Self {
        Self { events: Vec::new(), pages: [0; BATCH], guesses: [Handle::NONE; BATCH] }
    }
}

/// Events in order, each batch one stage further than the one behind it.
#[derive(Debug, Default)]
pub(super) struct Due {
    /// The first is ready; of the last, the slots are being fetched.
    stages: [Box<Batch>; 3],
}

impl Batch {
    /// Every event, and where its group probably is.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&JoinEvent, Handle)> {
        self.events.iter().zip(self.guesses.iter().copied())
    }

    /// For at most [`BATCH`] other events.
    pub(super) fn refill(&mut self) -> &mut Vec<JoinEvent> {
        self.events.clear();
        self.guesses = [Handle::NONE; BATCH];
        &mut self.events
    }
}

impl Due {
    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.stages.iter().all(|batch| batch.events.is_empty())
    }

    /// The next events, in exchange for those behind all others. The rest moves up.
    pub(super) fn exchange(&mut self, batch: &mut Box<Batch>) {
        let [ready, ..] = &mut self.stages;
        std::mem::swap(ready, batch);
        self.stages.rotate_left(1);
    }

    /// Gets each batch ready for its next stage.
    pub(super) fn prepare(&mut self, index: &Index, arena: &Arena) {
        let [next, second, last] = &mut self.stages;
        for (event, guess) in next.iter() {
            arena.prefetch_entries(guess, event.item);
        }
        for ((event, page), guess) in second.events.iter().zip(&second.pages).zip(&mut second.guesses) {
            if let Some(Place::Packed(handle)) = index.guess(*page, event.request) {
                arena.prefetch_head(handle);
                *guess = handle;
            }
        }
        for (event, page) in last.events.iter().zip(&mut last.pages) {
            *page = index.prefetch(event.request);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Kind;
    use crate::join::{Fingerprinter, LabelsKey};

    #[test]
    fn events_come_out_in_order_after_three_batches_with_the_place_that_the_index_had_meanwhile() {
        let (mut due, mut index, mut arena) = (Due::default(), Index::default(), Arena::default());
        let prints = Fingerprinter::random();
        let event = |number: usize| JoinEvent {
            timestamp_ns: number as u64,
            request: prints.request(&number.to_string()),
            item: prints.item("item"),
            source: prints.source("source"),
            pid: 1,
            labels: LabelsKey(0),
            kind: Kind::Exposure,
            wants_report: false,
        };
        let (mut batch, mut taken) = (Box::<Batch>::default(), Vec::new());
        for round in 0..8 {
            let events = batch.refill();
            if round < 5 {
                events.extend((round * BATCH..(round + 1) * BATCH).map(event));
            }
            due.exchange(&mut batch);
            taken.extend(batch.iter().map(|(event, guess)| (*event, guess)));
            due.prepare(&index, &arena);
            // One round after it was added, an event is looked up: the groups of every second one are there by then.
            for number in (round * BATCH..(round + 1) * BATCH).step_by(2) {
                let handle = arena.new_group(event(number).request, 0, true, None);
                index.insert(event(number).request, Place::Packed(handle));
            }
            assert_eq!(taken.len(), (round + 1).saturating_sub(3) * BATCH);
        }
        assert!(due.is_empty());
        for (number, (taken, guess)) in taken.into_iter().enumerate() {
            assert_eq!(taken, event(number));
            let group = arena.head_if_live(guess).map(|head| head.request());
            assert_eq!(group, (number % 2 == 0).then_some(taken.request), "{number}");
        }
    }
}
