//! `cargo xtask bench`: the tables of docs/performance.md, from release builds.

mod recording;
mod replay;

use std::fs;

use anyhow::Result;
use clap::Subcommand;

use crate::{cargo, command::visibly, machine::Machine};

const PACKAGE: &str = "bench";

#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: Option<What>,
    /// Passed on to the benchmark of the join; `--help` after `--` names them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

#[derive(Subcommand)]
enum What {
    /// `linktracer replay` of a large recording, beside a plain program of one thread that does the same
    Replay(replay::Arguments),
}

pub(crate) fn main(arguments: &Arguments) -> Result<()> {
    let machine = Machine::look();
    println!("{}\n", machine_line());
    match &arguments.what {
        Some(What::Replay(arguments)) => replay::main(&machine, arguments),
        None => {
            // With the profile that is shipped.
            let mut run = cargo::plain(&machine, "run");
            visibly(run.args(["--release", "--quiet", "--package", PACKAGE, "--"]).args(&arguments.options))
        }
    }
}

/// What the figures depend on.
fn machine_line() -> String {
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
