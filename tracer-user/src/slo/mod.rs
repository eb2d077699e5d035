//! Baselines and comparisons: numbers in, verdict out.
//!
//! Pure: no I/O, no clock (time is an argument), no metrics, no log.
//!
//! [`BrokenLinks`] is the broken-link ratio over a sliding window. It counts links (`ratio_window`) with
//! what would explain them (`groups`), remembers what was lost for as long as that matters (`loss_log`),
//! and says between what values the ratio is (`bounds`). [`Examples`] are the last broken links, one by one.

mod anytime;
pub mod baseline;
mod bounds;
mod broken_links;
pub mod comparison;
pub mod doubt;
mod examples;
mod groups;
mod loss_log;
mod ratio_window;
pub mod repeats;

pub use bounds::{Bounds, Losses, Reach};
pub use broken_links::{BrokenLinks, Ratio, Waiting};
pub use examples::{Example, Examples, Ids};
