//! A priority queue for keys that arrive almost in order.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::fifo::Fifo;

/// Pops the least key first. Keys that arrive in order cost no comparison beyond the last one; those
/// that do not go to a heap. Among equal keys any may come first.
#[derive(Debug)]
pub(in super::super) struct Queue<K, V> {
    in_order: Fifo<Entry<K, V>>,
    out_of_order: BinaryHeap<Entry<K, V>>,
}

#[derive(Debug)]
struct Entry<K, V> {
    key: K,
    value: V,
}

impl<K: Ord + Copy, V> Queue<K, V> {
    pub(in super::super) fn push(&mut self, key: K, value: V) {
        let entry = Entry { key, value };
        match self.in_order.back() {
            Some(last) if key < last.key => self.out_of_order.push(entry),
            _ => self.in_order.push(entry),
        }
    }

    /// The least key.
    pub(in super::super) fn first(&self) -> Option<K> {
        let in_order = self.in_order.front().map(|entry| entry.key);
        let out_of_order = self.out_of_order.peek().map(|entry| entry.key);
        in_order.into_iter().chain(out_of_order).min()
    }

    /// What probably comes next.
    pub(in super::super) fn next(&self) -> Option<&V> {
        self.in_order.front().map(|entry| &entry.value)
    }

    pub(in super::super) fn len(&self) -> usize {
        self.in_order.len() + self.out_of_order.len()
    }

    /// Takes out what is not to be kept, and gives its room back.
    pub(in super::super) fn retain(&mut self, keep: impl Fn(K, &V) -> bool) {
        let mut before = std::mem::take(&mut self.in_order);
        while let Some(entry) = before.pop() {
            if keep(entry.key, &entry.value) {
                self.in_order.push(entry);
            }
        }
        self.out_of_order.retain(|entry| keep(entry.key, &entry.value));
        self.out_of_order.shrink_to_fit();
    }

    /// What it takes, spare room included.
    pub(in super::super) fn bytes(&self) -> u64 {
        self.in_order.bytes() + (self.out_of_order.capacity() * size_of::<Entry<K, V>>()) as u64
    }

    /// Takes the value with the least key if its key is due.
    pub(in super::super) fn pop_if(&mut self, due: impl FnOnce(&K) -> bool) -> Option<V> {
        self.pop_entry_if(due).map(|(_, value)| value)
    }

    /// The same, and the key.
    pub(in super::super) fn pop_entry_if(&mut self, due: impl FnOnce(&K) -> bool) -> Option<(K, V)> {
        let in_order = self.in_order.front();
        let from_heap = match (in_order, self.out_of_order.peek()) {
            (None, None) => return None,
            (None, Some(_)) => true,
            (Some(_), None) => false,
            (Some(in_order), Some(out_of_order)) => out_of_order.key < in_order.key,
        };
        let first = if from_heap { self.out_of_order.peek() } else { in_order };
        if !first.is_some_and(|entry| due(&entry.key)) {
            return None;
        }
        let entry = if from_heap { self.out_of_order.pop() } else { self.in_order.pop() };
        entry.map(|entry| (entry.key, entry.value))
    }
}

impl<K, V> Default for Queue<K, V>
where
    Entry<K, V>: Ord,
{
    fn default() -> Self {
        Self { in_order: Fifo::default(), out_of_order: BinaryHeap::new() }
    }
}

// The heap of the standard library pops its greatest entry: the order is turned round.
impl<K: Ord, V> Ord for Entry<K, V> {
    fn cmp(&self, other: &Self) -> Ordering {
        other.key.cmp(&self.key)
    }
}

impl<K: Ord, V> PartialOrd for Entry<K, V> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<K: Ord, V> PartialEq for Entry<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl<K: Ord, V> Eq for Entry<K, V> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_due_key_comes_first_whatever_the_order_of_arrival() {
        let mut queue = Queue::default();
        for key in [5, 9, 3, 7, 9, 1] {
            queue.push(key, key);
        }
        assert_eq!(queue.pop_if(|&key| key < 1), None);
        let popped: Vec<i32> = std::iter::from_fn(|| queue.pop_if(|&key| key < 9)).collect();
        assert_eq!(popped, [1, 3, 5, 7]);
        assert_eq!(std::iter::from_fn(|| queue.pop_if(|_| true)).count(), 2);
    }

    #[test]
    fn what_is_not_kept_is_gone_with_its_room() {
        let mut queue = Queue::default();
        for key in 0..10_000 {
            queue.push(key, key);
            queue.push(key / 2, key);
        }
        let before = queue.bytes();
        queue.retain(|key, value| *value == key && value % 1000 == 0);
        assert_eq!(queue.len(), 11);
        assert!(queue.bytes() < before / 10, "{} of {before} bytes", queue.bytes());
        let popped: Vec<i32> = std::iter::from_fn(|| queue.pop_if(|_| true)).collect();
        assert_eq!(popped, [0, 0, 1000, 2000, 3000, 4000, 5000, 6000, 7000, 8000, 9000]);
    }
}
