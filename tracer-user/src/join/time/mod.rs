//! What goes by time: the watermark, the reorder buffer, and queues of what is due.
//!
//! *Invariant*: none of them ever moves more than a small piece at once, so that no step is long.

pub(super) mod fifo;
pub(super) mod queue;
pub(super) mod reorder;
pub(super) mod watermark;
pub(super) mod wheel;

/// Which deadlines are due.
#[derive(Debug, Clone, Copy)]
pub(super) enum Until {
    /// Those before this time, in nanoseconds since the Unix epoch.
    Before(u64),
    /// All.
    TheEnd,
}

impl Until {
    pub(super) fn is_due(self, deadline_ns: u64) -> bool {
        match self {
            Self::Before(time_ns) => deadline_ns < time_ns,
            Self::TheEnd => true,
        }
    }
}
