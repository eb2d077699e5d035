//! `cargo xtask bench`: how fast it is, as whole processes in release builds.

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
    /// `linktracer replay` of a large recording, beside a plain program of one thread that does the same
    Replay(replay::Arguments),
}

pub(crate) fn main(arguments: &Arguments) -> Result<()> {
    let machine = Machine::look();
    match &arguments.what {
        What::Replay(arguments) => replay::main(&machine, arguments),
    }
}
