//! `cargo xtask lint`: formatting of all files, lints of both sides.
//!
//! The kernel side is linted for the host with the user side's stable compiler: its sources do not depend on the
//! target, and the toolchain that builds it may come without clippy.

use anyhow::Result;

use crate::{cargo, command::visibly, kernel_side::KERNEL_SIDE_VARIABLE, machine::Machine};

const KERNEL_PACKAGE: &str = "tracer-ebpf";

pub(crate) fn main() -> Result<()> {
    run(&Machine::look())
}

/// Stops at the first of them that fails.
pub(crate) fn run(machine: &Machine) -> Result<()> {
    visibly(cargo::plain(machine, "fmt").args(["--all", "--check"]))?;
    visibly(
        cargo::cargo(machine, "clippy")
            .args(["--workspace", "--exclude", KERNEL_PACKAGE, "--all-targets", "--", "--deny", "warnings"])
            .env(KERNEL_SIDE_VARIABLE, "none"),
    )?;
    // A `no_std` program for the host must not unwind.
    let no_unwinding = format!("profile.{}.panic=\"abort\"", cargo::PROFILE);
    visibly(cargo::cargo(machine, "clippy").args([
        "--package",
        KERNEL_PACKAGE,
        "--lib",
        "--bins",
        "--config",
        &no_unwinding,
        "--",
        "--deny",
        "warnings",
    ]))
}
