//! Packed groups: request ids of which everything is decided, but that the request may wait for its
//! first exposure, and exposures and clicks for what never comes. Nearly all are, nearly always.
//!
//! `take` has what happens most: an event in order that only adds to what is remembered. Whatever else
//! happens, the group is opened first and the rules are followed there.
//!
//! *Invariants*: a packed group has at most one exposure of each item, and no entry from the future; so
//! in order, nothing in it is later than the event. No click is linked to an exposure that waits.

pub(super) mod arena;
pub(super) mod entry;
mod expire;
pub(super) mod head;
pub(super) mod line;
mod record;
mod take;
pub(super) mod waits;
