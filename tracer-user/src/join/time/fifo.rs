//! A first-in-first-out queue in pieces, so that growing never moves what is in it.

use std::collections::VecDeque;

use crate::join::prefetch::prefetch;

/// Entries in a piece.
const PIECE: usize = 512;
/// Entries after the next one that are fetched already.
const AHEAD: usize = 8;

#[derive(Debug)]
pub(in super::super) struct Fifo<T> {
    /// Only the first piece is partly taken, only the last is partly filled. None is empty.
    pieces: VecDeque<VecDeque<T>>,
    /// A piece that was emptied, for the next one that is needed.
    spare: Option<VecDeque<T>>,
}

impl<T> Fifo<T> {
    pub(in super::super) fn push(&mut self, value: T) {
        match self.pieces.back_mut() {
            Some(piece) if piece.len() < piece.capacity() => piece.push_back(value),
            _ => {
                let mut piece = self.spare.take().unwrap_or_else(|| VecDeque::with_capacity(PIECE));
                piece.push_back(value);
                self.pieces.push_back(piece);
            }
        }
    }

    pub(in super::super) fn front(&self) -> Option<&T> {
        self.pieces.front()?.front()
    }

    pub(in super::super) fn back(&self) -> Option<&T> {
        self.pieces.back()?.back()
    }

    pub(in super::super) fn pop(&mut self) -> Option<T> {
        let piece = self.pieces.front_mut()?;
        let value = piece.pop_front();
        // It was put there long ago.
        if let Some(later) = piece.get(AHEAD) {
            prefetch(later);
        }
        if piece.is_empty() {
            self.spare = self.pieces.pop_front();
        }
        value
    }

    pub(in super::super) fn len(&self) -> usize {
        self.pieces.iter().map(VecDeque::len).sum()
    }

    /// What it takes, spare room included.
    pub(in super::super) fn bytes(&self) -> u64 {
        let pieces = self.pieces.len() + usize::from(self.spare.is_some());
        (pieces * PIECE * size_of::<T>() + self.pieces.capacity() * size_of::<VecDeque<T>>()) as u64
    }
}

impl<T> Default for Fifo<T> {
    fn default() -> Self {
        Self { pieces: VecDeque::new(), spare: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_back_in_order_what_was_put_in() {
        let mut fifo = Fifo::default();
        let mut expected = 0;
        for number in 0..10_000 {
            fifo.push(number);
            assert_eq!(fifo.back(), Some(&number));
            if number % 3 == 0 {
                assert_eq!((fifo.front().copied(), fifo.pop()), (Some(expected), Some(expected)));
                expected += 1;
            }
        }
        assert!(std::iter::from_fn(|| fifo.pop()).eq(expected..10_000));
        assert_eq!((fifo.front(), fifo.back()), (None, None));
        assert!(fifo.bytes() < 10_000, "{} bytes when empty", fifo.bytes());
    }
}
