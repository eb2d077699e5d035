//! Holds the first exec of a program until its probes are in place (`discover.hold_exec`).
//!
//! A process of its own, the *gate*, asks the kernel (fanotify) to wait for its word before a program on
//! certain file systems is executed. It lets everything pass at once that no service can match, asks the
//! daemon for the rest, and lets that pass too when the daemon has attached, when its time is up, or when
//! the daemon is gone. It is a process because nothing else holds when the daemon hangs, is stopped or
//! killed: the gate goes on without it, and when the gate itself ends, the kernel lets everything pass.
//! The daemon in turn kills a gate that no longer says that it lives.
//!
//! [`Gate`] is the daemon's end, called by `run`; [`serve`] is the gate, called by `cli`. What is attached
//! for a held program is not decided here. Deliberately absent from the gate: reading of files, parsing of
//! programs, waiting for anything but its three sources with a deadline.

mod gate;
mod handle;
mod mounts;
mod protocol;

pub use gate::serve;
pub use handle::{Gate, HoldError};
pub use protocol::{Ask, Counts, Policy, Rule};
