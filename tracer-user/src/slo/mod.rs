//! Baselines and comparisons: numbers in, verdict out.
//!
//! Pure: no I/O, no clock (time is an argument), no metrics, no log.

mod ratio_window;

pub use ratio_window::{RatioWindow, Tally};
