//! Every metric: its name, its help text and its labels, in one place.
//!
//! Labels are closed sets or values that `discover` has bounded; an id is never a label. Outcomes of
//! the join become counters here and nowhere else.

mod kernel;
mod metrics;
mod name;

pub use kernel::KernelCollector;
pub use metrics::{Metrics, RECEIVED_EVENT, RECEIVED_PROCESS};
pub use name::Metric;
