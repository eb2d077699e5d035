//! Storage with stable keys, so that tables and deadlines can point at one thing.

#![expect(clippy::cast_possible_truncation, reason = "there is no memory for more than 2^32 values")]

use serde::{Deserialize, Serialize};

/// Values in a piece: growing never moves what is there.
const PIECE: usize = 256;

/// Where a value is, and which of those that were there in turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(in super::super) struct Key {
    pub(in super::super) number: u32,
    generation: u32,
}

/// Values by key. A key leads nowhere once its value was removed.
#[derive(Debug)]
pub(in super::super) struct Slab<T> {
    pieces: Vec<Vec<Slot<T>>>,
    free: Vec<u32>,
    len: usize,
    /// The generation of slots that are new: later than any that was given back.
    first_generation: u32,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Slab<T> {
    pub(in super::super) fn len(&self) -> usize {
        self.len
    }

    /// What it takes, free slots included and whatever the values hold elsewhere left out.
    pub(in super::super) fn bytes(&self) -> u64 {
        let pieces = self.pieces.len() * PIECE * size_of::<Slot<T>>();
        let directory = self.pieces.capacity() * size_of::<Vec<Slot<T>>>() + self.free.capacity() * 4;
        (pieces + directory) as u64
    }

    pub(in super::super) fn insert(&mut self, value: T) -> Key {
        self.len += 1;
        if let Some(number) = self.free.pop() {
            let slot = &mut self.pieces[number as usize / PIECE][number as usize % PIECE];
            slot.value = Some(value);
            return Key { number, generation: slot.generation };
        }
        if self.pieces.last().is_none_or(|piece| piece.len() == PIECE) {
            self.pieces.push(Vec::with_capacity(PIECE));
        }
        let last = self.pieces.len() - 1;
        let piece = &mut self.pieces[last];
        let generation = self.first_generation;
        piece.push(Slot { generation, value: Some(value) });
        Key { number: (last * PIECE + piece.len() - 1) as u32, generation }
    }

    pub(in super::super) fn remove(&mut self, key: Key) -> Option<T> {
        let slot = self.slot_mut(key)?;
        let value = slot.value.take()?;
        // After 2^32 values in one slot a deadline could meet the wrong one: it would look at it in vain.
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(key.number);
        self.len -= 1;
        Some(value)
    }

    /// Gives back pieces at the end that nothing is in, when most slots are free: costs no more than having used them.
    pub(in super::super) fn give_back(&mut self) {
        if self.free.len() < self.len + PIECE {
            return;
        }
        while let Some(piece) = self.pieces.pop_if(|piece| piece.iter().all(|slot| slot.value.is_none())) {
            let latest = piece.iter().map(|slot| slot.generation).max().unwrap_or(0);
            self.first_generation = self.first_generation.max(latest);
        }
        let slots = self.pieces.len() * PIECE;
        self.free.retain(|number| (*number as usize) < slots);
        self.free.shrink_to_fit();
    }

    pub(in super::super) fn get(&self, key: Key) -> Option<&T> {
        let slot = self.pieces.get(key.number as usize / PIECE)?.get(key.number as usize % PIECE)?;
        slot.value.as_ref().filter(|_| slot.generation == key.generation)
    }

    pub(in super::super) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        self.slot_mut(key)?.value.as_mut()
    }

    /// The key and value of the one that is at this number now.
    pub(in super::super) fn at(&self, number: u32) -> Option<(Key, &T)> {
        let slot = self.pieces.get(number as usize / PIECE)?.get(number as usize % PIECE)?;
        Some((Key { number, generation: slot.generation }, slot.value.as_ref()?))
    }

    pub(in super::super) fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.pieces.iter().flatten().zip(0..).filter_map(|(slot, number)| {
            let key = Key { number, generation: slot.generation };
            Some((key, slot.value.as_ref()?))
        })
    }

    fn slot_mut(&mut self, key: Key) -> Option<&mut Slot<T>> {
        let slot = self.pieces.get_mut(key.number as usize / PIECE)?.get_mut(key.number as usize % PIECE)?;
        (slot.generation == key.generation).then_some(slot)
    }
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { pieces: Vec::new(), free: Vec::new(), len: 0, first_generation: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_leads_to_its_own_value_only() {
        let mut slab = Slab::default();
        let keys: Vec<Key> = (0..600).map(|number| slab.insert(number)).collect();
        assert_eq!(slab.remove(keys[300]), Some(300));
        let again = slab.insert(1000);
        assert_eq!(again.number, keys[300].number);
        assert_eq!((slab.get(keys[300]), slab.get(again)), (None, Some(&1000)));
        assert_eq!((slab.remove(keys[300]), slab.len()), (None, 600));
        assert_eq!(slab.at(again.number), Some((again, &1000)));
    }

    #[test]
    fn room_that_is_given_back_leaves_no_key_that_leads_to_something_else() {
        let mut slab = Slab::default();
        let keys: Vec<Key> = (0..2000).map(|number| slab.insert(number)).collect();
        let full = slab.bytes();
        for key in keys.iter().filter(|key| key.number != 300) {
            slab.remove(*key);
        }
        slab.give_back();
        assert!(slab.bytes() < full / 2, "{} of {full} bytes", slab.bytes());
        assert_eq!(slab.get(keys[300]), Some(&300));
        let again: Vec<Key> = (0..2000).map(|number| slab.insert(number)).collect();
        assert!(keys.iter().all(|key| key.number == 300 || slab.get(*key).is_none()));
        assert!(again.iter().zip(0..).all(|(key, number)| slab.get(*key) == Some(&number)));
    }
}
