//! Every metric: its name, its help text and its labels, in one place.
//!
//! Labels are closed sets or values that `discover` has bounded; an id is never a label. Outcomes of
//! the join become counters here and nowhere else.

mod delay;
mod kernel;
mod metrics;
mod name;
mod numbers;

pub use kernel::{KernelCollector, loses_events};
pub use metrics::{ConfigReload, Metrics, RECEIVED_DISCARDED, RECEIVED_EVENT, RECEIVED_PROCESS};
pub use name::Metric;
pub use numbers::Numbers;
