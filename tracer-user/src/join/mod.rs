//! The join: events in, outcomes out. A pure state machine; what it must decide is in
//! docs/semantics.md, rule by rule.
//!
//! [`Join`] takes events with strings and gives them to an [`Engine`], which knows ids as fingerprints
//! only; whoever needs all its speed makes [`JoinEvent`]s and uses the engine. Read [`Engine::push`]
//! first: a late event is taken at once, any other waits in the reorder buffer (`time`) until the
//! watermark passes it, and is then on its way for two batches (`due`). Then what is known of its request id decides:
//!
//! - `packed`: nearly always. All of a request id in a few cache lines, and the short way for an event
//!   that only adds to it.
//! - `open`: whenever something has to wait, or is unusual. Every rule, in its general form; a group
//!   is opened for that and packed again.
//!
//! What is decided goes to whoever takes it, one by one (`decision`). `index` finds a request id in either, `reports` has
//! the clicks and reports of processes, `evict` the memory bound, `snapshot` the way out of memory and `restore` the way
//! back. `block` and `region` are where tables have their memory.
//!
//! *Invariants*, asserted in debug builds:
//! 1. Every event pushed is in exactly one place ([`Pending::check_accounting`]).
//! 2. Event time and the watermark never go back, and no deadline is run out of order with events.
//! 3. Two firsts of one key are more than their window apart.
//! 4. What is forgotten has nothing waiting in it.
//! 5. Packed or open makes no difference to any outcome.
//!
//! Deliberately absent: I/O, clocks, randomness that could show in a result, logs, metrics. Time
//! is in the events and in heartbeats. `run.rs` and `replay` call this; it calls nobody.

mod adapter;
mod block;
mod compare;
mod config;
mod decision;
mod doubts;
mod due;
mod engine;
mod event;
mod evict;
mod fingerprint;
mod index;
mod labels;
mod open;
mod packed;
mod pending;
mod prefetch;
mod region;
mod reports;
mod restore;
mod snapshot;
mod time;

#[cfg(test)]
mod tests;

pub use adapter::Join;
pub use config::{JoinConfig, Reports};
pub use decision::Sink;
pub use engine::Engine;
pub use event::{ItemPrint, JoinEvent, LabelsKey, RequestPrint, SourcePrint};
pub use evict::Evicted;
pub use fingerprint::Fingerprinter;
pub use labels::LabelsTable;
pub use pending::{Imbalance, Pending};
pub use restore::RestoreError;
pub use snapshot::{Snapshot, SnapshotSegment, SnapshotState};
