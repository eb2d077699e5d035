//! What a person types: `cargo xtask setup`, `demo`, `vm`, `capabilities`, `fuzz`, `soak`,
//! `simulate`, `lint`, `deploy`, `image`, `licences`, `bench`, `test`.
//!
//! Start reading in [`setup`], whose table of steps is all that a new machine needs. Nothing here knows how the tracer
//! works: it is called as a program, by its command line.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people at a terminal")]

mod bench;
mod capabilities;
mod cargo;
mod command;
mod demo;
mod deploy;
mod document;
mod fuzz;
mod image;
#[path = "../../tracer-user/build/kernel_side.rs"]
#[expect(dead_code, reason = "shared with the build script, which uses the rest")]
mod kernel_side;
mod licences;
mod lint;
mod machine;
mod setup;
mod simulate;
mod soak;
mod temporary;
mod test;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Prepares, builds, shows and tests linktracer", version)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what is missing on this machine; prints one line per thing it does
    Setup(setup::Arguments),
    /// Build linktracer and run its demo: a small service with known faults, traced
    Demo(demo::Arguments),
    /// Run the demo in a virtual machine, on another kernel
    Vm(vm::Arguments),
    /// Run the demo without root and without each capability, on each kernel: the table in docs/operations.md
    Capabilities(capabilities::Arguments),
    /// Try every reader of foreign bytes on inputs that are made up
    Fuzz(fuzz::Arguments),
    /// Print how often comparisons, baselines and canary gates are right: the tables of docs/decisions.md
    Simulate,
    /// Formatting and lints, of both sides
    Lint,
    /// Check the Helm chart against Kubernetes' schemas, and the kustomize base against the chart
    Deploy(deploy::Arguments),
    /// Build the container image, look into it, and run the demo with its daemon
    Image(image::Arguments),
    /// Write the licences of all that is in a static build
    Licences(licences::Arguments),
    /// Trace processes and ids that come and go, for minutes or hours
    Soak(soak::Arguments),
    /// Everything: setup, lints, tests, end to end here and in a virtual machine
    Test(test::Arguments),
    /// Measure how fast it is; the figures in docs/performance.md come from here
    Bench(bench::Arguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().task {
        Task::Setup(arguments) => setup::main(&arguments).map(|()| ExitCode::SUCCESS),
        Task::Demo(arguments) => demo::main(&arguments).map(|never| match never {}),
        Task::Vm(arguments) => vm::main(&arguments).map(|()| ExitCode::SUCCESS),
        Task::Capabilities(arguments) => capabilities::main(&arguments).map(|()| ExitCode::SUCCESS),
        Task::Fuzz(arguments) => fuzz::main(&arguments).map(|()| ExitCode::SUCCESS),
        Task::Simulate => simulate::main().map(|()| ExitCode::SUCCESS),
        Task::Lint => lint::main().map(|()| ExitCode::SUCCESS),
        Task::Deploy(arguments) => deploy::main(&arguments).map(|()| ExitCode::SUCCESS),
        Task::Image(arguments) => image::main(&arguments).map(|()| ExitCode::SUCCESS),
        Task::Licences(arguments) => licences::main(&arguments).map(|()| ExitCode::SUCCESS),
        Task::Soak(arguments) => soak::main(&arguments).map(|()| ExitCode::SUCCESS),
        Task::Test(arguments) => test::main(&arguments),
        Task::Bench(arguments) => bench::main(&arguments).map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
