//! promtool, the checker that comes with Prometheus.

use std::{
    ffi::OsStr,
    process::{Command, Output},
};

use crate::printed;

/// Runs `promtool` with these arguments.
///
/// # Panics
/// It is not there, or it does not end with exit code 0.
#[track_caller]
pub fn promtool(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Output {
    let output = Command::new("promtool").args(arguments).output();
    let output = output.expect("`cargo xtask test` puts promtool on the path");
    assert!(output.status.success(), "{}", printed(&output));
    output
}
