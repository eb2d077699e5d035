//! `cargo xtask setup`: makes a new machine ready, and costs next to nothing on one that is.
//!
//! A list of steps ([`steps::for_purpose`]), each of which knows a cheap way to see that it is done. Whatever needs to be
//! waited for happens only in a step that is not.

mod apt;
mod linker;
mod lists;
mod mounts;
mod steps;
mod toolchain;

use std::{
    io::Write,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

pub(crate) use self::{
    apt::fetch_into,
    lists::{OtherLists, sources},
    steps::{
        EXPR, NGINX, PROMETHEUS, Step, busybox, chart_checkers, extracted, go_binary, node_folder,
        otlp_receiver, promtool_3,
    },
};
use crate::machine::Machine;

/// What the machine is to be made ready for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Purpose {
    /// Compile both sides
    Build,
    /// Compile, and trace on this machine
    Demo,
    /// Everything: compile, trace here and in virtual machines, check metrics
    Test,
    /// Compile, and trace in virtual machines
    Vm,
    /// Compile, trace on this machine, check metrics
    #[value(skip)]
    Native,
    /// Try every reader of foreign bytes on inputs that are made up
    Fuzz,
    /// Build and run a container image
    Image,
    /// Make a base for building an image, where none can be fetched
    #[value(skip)]
    StandIn,
    /// Check the Helm chart, with nothing compiled
    #[value(skip)]
    Deploy,
    /// Run something else in virtual machines, with nothing compiled
    #[value(skip)]
    GuestOnly,
}

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// What the machine is to be made ready for
    #[arg(long = "for", value_name = "PURPOSE", default_value = "demo")]
    purpose: Purpose,
}

pub(crate) fn main(arguments: &Arguments) -> Result<()> {
    run(&Machine::look(), arguments.purpose)
}

/// Does what is missing for `purpose`, in order, and stops at the first step that fails.
pub(crate) fn run(machine: &Machine, purpose: Purpose) -> Result<()> {
    let started = Instant::now();
    let steps = steps::for_purpose(purpose);
    let missing: Vec<usize> = (0..steps.len()).filter(|&index| !(steps[index].is_there)(machine)).collect();
    refuse_without_root(machine, missing.iter().map(|&index| &steps[index]))?;
    for &index in &missing {
        let step = &steps[index];
        // An earlier step may have brought this one along.
        if (step.is_there)(machine) {
            continue;
        }
        print!("[{}/{}] {}: {} ... ", index + 1, steps.len(), step.name, step.doing);
        drop(std::io::stdout().flush());
        let began = Instant::now();
        match (step.install)(machine) {
            Ok(what) if (step.is_there)(machine) => println!("{what} in {}", short(began.elapsed())),
            Ok(what) => {
                println!("{what}, and yet it is not there");
                bail!("setup: {}\n{}", step.name, step.by_hand(machine.packager));
            }
            Err(error) => {
                println!("failed after {}", short(began.elapsed()));
                bail!("setup: {}: {error:#}\n{}", step.name, step.by_hand(machine.packager));
            }
        }
    }
    let done = if missing.is_empty() { "everything is there" } else { "done" };
    println!("setup: {done} ({})", short(started.elapsed()));
    Ok(())
}

/// Says everything that needs root before the first step starts, not when the first of them is reached.
fn refuse_without_root<'a>(machine: &Machine, missing: impl Iterator<Item = &'a Step>) -> Result<()> {
    if machine.root {
        return Ok(());
    }
    let lines: Vec<String> = missing
        .filter(|step| step.needs_root)
        .map(|step| format!("  {}\n{}", step.name, step.by_hand(machine.packager)))
        .collect();
    if lines.is_empty() {
        return Ok(());
    }
    bail!(
        "setup: these need root, and this is not root:\n{}\n\
         Run it as root, or install them by hand and run it again.\n\
         Once the compilers are there, these run without root: `cargo xtask test --unit-only` and `linktracer replay FILE`.",
        lines.join("\n")
    );
}

/// `0.2 s`, `71 s`, `12 min 5 s`.
pub(crate) fn short(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..10 => format!("{:.1} s", duration.as_secs_f64()),
        10..120 => format!("{seconds} s"),
        _ => format!("{} min {} s", seconds / 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        assert_eq!(short(Duration::from_millis(234)), "0.2 s");
        assert_eq!(short(Duration::from_secs(71)), "71 s");
        assert_eq!(short(Duration::from_secs(725)), "12 min 5 s");
    }
}
