//! `cargo xtask bench join`: the tables of docs/performance.md about the join.

use std::fs;

use anyhow::Result;

use crate::{cargo, command::visibly, machine::Machine};

const PACKAGE: &str = "bench";
const BINARY: &str = "bench";

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Passed on to the benchmark; `--help` names them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

/// Measures and prints the tables.
pub(super) fn main(machine: &Machine, arguments: &Arguments) -> Result<()> {
    println!("{}\n", machine_line());
    // With the profile that is shipped.
    let mut run = cargo::plain(machine, "run");
    run.args(["--release", "--quiet", "--package", PACKAGE, "--bin", BINARY, "--"]);
    visibly(run.args(&arguments.options))
}

/// What the figures depend on.
pub(super) fn machine_line() -> String {
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let processors = read("/proc/cpuinfo");
    let model = processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let count = processors.lines().filter(|line| line.starts_with("processor")).count();
    let kernel = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    format!(
        "{count} x {}, kernel {}, load {}",
        model.map_or("unknown processor", |(_, model)| model),
        kernel.trim(),
        load.split(' ').next().unwrap_or_default()
    )
}
