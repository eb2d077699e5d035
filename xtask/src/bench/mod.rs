//! `cargo xtask bench`: how fast it is, in release builds.

mod join;
mod recording;
mod replay;
mod service;

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Subcommand;

use crate::{
    cargo,
    command::visibly,
    machine::Machine,
    setup::{self, Purpose},
};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// The join on one core: speed, memory and steps, beside a plain join
    Join(join::Arguments),
    /// `linktracer replay` of a large recording, beside a plain program of one thread that does the same
    Replay(replay::Arguments),
    /// What tracing costs the traced service: the same load without a daemon and with one, in turns
    Service(service::Arguments),
}

pub(crate) fn main(arguments: &Arguments) -> Result<()> {
    let machine = Machine::look();
    let traces = matches!(arguments.what, What::Service(_));
    setup::run(&machine, if traces { Purpose::Demo } else { Purpose::Build })?;
    match &arguments.what {
        What::Join(arguments) => join::main(&machine, arguments),
        What::Replay(arguments) => replay::main(&machine, arguments),
        What::Service(arguments) => service::main(&machine, arguments),
    }
}

/// Builds `linktracer` and a program of the package `bench` as they are shipped; the folder that they are in.
fn build(machine: &Machine, program: &str) -> Result<PathBuf> {
    for (package, binary) in [("tracer-user", "linktracer"), ("bench", program)] {
        visibly(cargo::plain(machine, "build").args(["--release", "--package", package, "--bin", binary]))?;
    }
    let of_tests = cargo::binary(machine).with_file_name("");
    Ok(of_tests.parent().context("the target folder")?.join("release"))
}
