//! `cargo xtask bench`: how fast it is, in release builds.

mod join;
mod recording;
mod replay;

use anyhow::Result;
use clap::Subcommand;

use crate::machine::Machine;

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
}

pub(crate) fn main(arguments: &Arguments) -> Result<()> {
    let machine = Machine::look();
    match &arguments.what {
        What::Join(arguments) => join::main(&machine, arguments),
        What::Replay(arguments) => replay::main(&machine, arguments),
    }
}
