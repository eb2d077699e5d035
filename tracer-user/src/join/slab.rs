//! Storage with stable keys, so that tables and deadlines can point at one thing.

use std::ops::{Index, IndexMut};

/// Values by key; the key of a removed value is used again.
#[derive(Debug)]
pub(super) struct Slab<T> {
    slots: Vec<Option<T>>,
    free: Vec<usize>,
}

impl<T> Slab<T> {
    pub(super) fn insert(&mut self, value: T) -> usize {
        match self.free.pop() {
            Some(key) => {
                self.slots[key] = Some(value);
                key
            }
            None => {
                self.slots.push(Some(value));
                self.slots.len() - 1
            }
        }
    }

    pub(super) fn remove(&mut self, key: usize) -> Option<T> {
        let value = self.slots[key].take();
        debug_assert!(value.is_some(), "invariant 4: slot {key} is already empty");
        if value.is_some() {
            self.free.push(key);
        }
        value
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().flatten()
    }
}

impl<T> Index<usize> for Slab<T> {
    type Output = T;

    fn index(&self, key: usize) -> &T {
        self.slots[key].as_ref().expect("invariant 4: a key lives as long as whatever holds it")
    }
}

impl<T> IndexMut<usize> for Slab<T> {
    fn index_mut(&mut self, key: usize) -> &mut T {
        self.slots[key].as_mut().expect("invariant 4: a key lives as long as whatever holds it")
    }
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }
}
