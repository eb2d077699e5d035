//! Baselines and comparisons: numbers in, verdict out.
//!
//! Pure: no I/O, no clock (time is an argument), no metrics, no log.

mod anytime;
pub mod baseline;
pub mod comparison;
pub mod doubt;
mod ratio_window;

pub use ratio_window::{RatioWindow, Tally};
