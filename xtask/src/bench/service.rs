//! `cargo xtask bench service`: the table of docs/performance.md about what tracing costs the traced service.

use std::process::Command;

use anyhow::Result;

use super::join::machine_line;
use crate::{command::visibly, machine::Machine};

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Passed on to the benchmark; `--help` names them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

/// Measures and prints the table.
pub(super) fn main(machine: &Machine, arguments: &Arguments) -> Result<()> {
    let release = super::build(machine, "service_cost")?;
    println!("{}\n", machine_line());
    let mut run = Command::new(release.join("service_cost"));
    visibly(run.arg(release.join("linktracer")).args(&arguments.options))
}
