//! Which processes belong to which service and release.
//!
//! Looks at /proc and keeps a table by process id, fed by the exec, fork and exit records of the
//! kernel side and, as a net, by a look at all of /proc now and then. It decides; the kernel's table
//! of targets is written by `run.rs`.

mod files;
mod identity;
mod labels;
mod proc;
mod release_file;
mod releases;
mod table;

pub use files::{matching_processes, probe_files};
pub use table::{Process, Processes, Verdict};
