//! `cargo xtask demo`: from a clean clone to a picture of what linktracer sees, in one command.

use std::{convert::Infallible, ffi::OsString, os::unix::process::CommandExt, process::Command};

use anyhow::{Context, Result};

use crate::{
    cargo,
    machine::Machine,
    setup::{self, Purpose},
};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Passed on to `linktracer demo`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    rest: Vec<OsString>,
}

/// Becomes the demo, so that signals and the exit code are the demo's own; returns only when that fails.
pub(crate) fn main(arguments: &Arguments) -> Result<Infallible> {
    let machine = Machine::look();
    setup::run(&machine, Purpose::Demo)?;
    let binary = cargo::build(&machine)?;
    let error = Command::new(&binary).arg("demo").args(&arguments.rest).exec();
    Err(error).with_context(|| format!("starting {}", binary.display()))
}
