//! What the join decides, and who takes it.
//!
//! Decisions are handed over one by one, and nothing is kept of them: who only counts them pays for no more than that.

use super::engine::Engine;
use super::event::LabelsKey;
use crate::domain::{Counts, Outcome};

/// An outcome inside the join.
pub(super) type Decision = Outcome<LabelsKey>;

/// Takes decisions, in the order in which they are made.
pub trait Sink {
    /// Takes one.
    fn push(&mut self, decision: Outcome<LabelsKey>);
}

impl<F: FnMut(Outcome<LabelsKey>)> Sink for F {
    #[inline]
    fn push(&mut self, decision: Outcome<LabelsKey>) {
        self(decision);
    }
}

impl Sink for Counts {
    // Where it is known which decision it is, as nearly everywhere, no more than one addition is left.
    #[inline(always)]
    fn push(&mut self, decision: Outcome<LabelsKey>) {
        self.apply(&decision);
    }
}

/// Hands decisions on, and counts them in debug builds.
pub(super) struct Accounted<'a, S> {
    to: &'a mut S,
    #[cfg(debug_assertions)]
    counts: Option<Counts>,
}

impl<S: Sink> Sink for Accounted<'_, S> {
    #[inline(always)]
    fn push(&mut self, decision: Outcome<LabelsKey>) {
        #[cfg(debug_assertions)]
        if let Some(counts) = &mut self.counts {
            counts.apply(&decision);
        }
        self.to.push(decision);
    }
}

impl Engine {
    /// Does what decides something. In debug builds it then checks that every event is in exactly one place.
    #[inline(always)]
    pub(super) fn accounted<S: Sink>(
        &mut self,
        out: &mut S,
        decide: impl FnOnce(&mut Self, &mut Accounted<'_, S>),
    ) {
        let mut out = Accounted {
            to: out,
            #[cfg(debug_assertions)]
            counts: self.counts.take(),
        };
        decide(self, &mut out);
        #[cfg(debug_assertions)]
        if let Some(counts) = out.counts {
            let balance = self.pending.check_accounting(&counts);
            assert!(balance.is_ok(), "not every event is in exactly one place: {balance:?}");
            self.counts = Some(counts);
        }
    }
}
