//! Which processes belong to which service and release.
//!
//! Looks at /proc and keeps a table by process id, fed by the exec, fork and exit records of the
//! kernel side and, as a net, by a look at all of /proc now and then. It decides; the kernel's table
//! of targets is written by `run.rs`.

mod collectors;
mod files;
mod identity;
mod labels;
pub mod pods;
mod proc;
mod program;
mod release_file;
mod releases;
mod table;
mod waiting;

pub use collectors::{Answer, Collectors, resolve};
pub use files::{file_of_process, matching_processes, probe_files};
pub(crate) use proc::cgroup;
pub use program::files_of_program;
pub use table::{Change, Process, Processes, Settled, Settlement, Verdict};
