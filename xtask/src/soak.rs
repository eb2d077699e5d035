//! `cargo xtask soak`: the daemon under processes and ids that come and go, for as long as one likes.
//!
//! The load and what has to hold are in `tests/tests/soak.rs`; this builds, says for how long, and shows its table.

use anyhow::Result;

use crate::{
    cargo,
    command::visibly,
    machine::Machine,
    setup::{self, Purpose},
};

/// Tells the test for how many minutes; without it, the test is a short one.
const MINUTES_VARIABLE: &str = "LINKTRACER_SOAK_MINUTES";

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// For how long
    #[arg(long, default_value_t = 30)]
    minutes: u64,
}

pub(crate) fn main(arguments: &Arguments) -> Result<()> {
    let machine = Machine::look();
    setup::run(&machine, Purpose::Demo)?;
    let binary = cargo::build(&machine)?;
    let mut test = cargo::cargo(&machine, "test");
    test.args(["--package", "tests", "--test", "soak", "--", "--nocapture"]);
    test.env(cargo::BINARY_VARIABLE, binary).env(MINUTES_VARIABLE, arguments.minutes.to_string());
    visibly(&mut test)
}
