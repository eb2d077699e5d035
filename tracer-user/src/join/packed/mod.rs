//! Packed groups: request ids of which everything is decided, but that the request may wait for its
//! first exposure. Nearly all are, nearly always.
//!
//! `take` has what happens most: an event in order that only adds to what is remembered. Whatever else
//! happens, the group is opened first and the rules are followed there.
//!
//! *Invariants*: a packed group has no exposure and no click that waits, at most one exposure of each
//! item, and no entry from the future; so in order, nothing in it is later than the event.

pub(super) mod arena;
pub(super) mod line;
pub(super) mod record;
mod take;
