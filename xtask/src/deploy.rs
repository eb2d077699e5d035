//! `cargo xtask deploy`: checks the Helm chart and the kustomize base, which is rendered from it. What is checked stands
//! in deploy/helm/check.py; this finds the packages for it.

use anyhow::Result;

use crate::{
    command::{command, visibly},
    machine::Machine,
    setup::{self, Purpose},
};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Write deploy/kustomize/base anew from the chart
    #[arg(long)]
    write: bool,
}

pub(crate) fn main(arguments: &Arguments) -> Result<()> {
    let machine = Machine::look();
    setup::run(&machine, Purpose::Deploy)?;
    run(&machine, arguments.write)
}

/// Fails with the list of problems on standard output.
pub(crate) fn run(machine: &Machine, write: bool) -> Result<()> {
    let script = machine.workspace.join("deploy/helm/check.py");
    let mut check = command("python3", ["-B"]);
    check.arg(script).args(write.then_some("--write"));
    visibly(check.env("PYTHONPATH", setup::chart_checkers(machine)))
}
