//! `cargo xtask simulate`: how often comparisons, baselines and canary gates are right, as the tables of
//! docs/decisions.md. The same numbers every time.

use anyhow::Result;

use crate::{
    cargo,
    command::visibly,
    machine::Machine,
    setup::{self, Purpose},
};

pub(crate) fn main() -> Result<()> {
    let machine = Machine::look();
    setup::run(&machine, Purpose::Build)?;
    visibly(cargo::cargo(&machine, "run").args(["--quiet", "--package", "tests", "--bin", "simulate"]))
}
