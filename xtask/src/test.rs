//! `cargo xtask test`: everything that must hold before a change is taken, from nothing on a new machine.

use std::{
    env,
    ffi::OsString,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use crate::{
    cargo,
    command::visibly,
    deploy, fuzz, lint,
    machine::Machine,
    setup::{self, EXPR, NGINX, PROMETHEUS, Purpose, short},
    vm,
};

/// Names a Go toolchain to the tests that build Go programs.
const GO_VARIABLE: &str = "LINKTRACER_GO";
/// Names the folder of the receiver of OTLP to the test that sends to it.
const OTELTAP_VARIABLE: &str = "LINKTRACER_OTELTAP";
/// Names the checker of Prometheus 3 to the test of the rules.
const PROMTOOL_3_VARIABLE: &str = "LINKTRACER_PROMTOOL_3";
/// Names a Go workspace with the expr library to the test that compares with it.
const EXPR_VARIABLE: &str = "LINKTRACER_EXPR";
/// Makes those tests fail, not skip, where there is none.
const GO_REQUIRED_VARIABLE: &str = "LINKTRACER_REQUIRE_GO";

/// Asks tests that know a long form of themselves for it.
const LONG_VARIABLE: &str = "LINKTRACER_LONG_TESTS";

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Leave the virtual machines out
    #[arg(long, alias = "skip-vm")]
    native_only: bool,
    /// Only what needs neither root nor another machine: lints and the tests of the library
    #[arg(long)]
    unit_only: bool,
    /// Run the long form of the tests that have one
    #[arg(long)]
    long: bool,
}

/// How a stage ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
    /// What it builds on has failed.
    NotRun,
}

struct Stage {
    name: &'static str,
    outcome: Outcome,
    duration: Duration,
}

/// Runs stages one after the other and keeps the score.
#[derive(Default)]
struct Stages {
    all: Vec<Stage>,
}

impl Stages {
    /// Runs a stage if those it builds on have passed; whether it passed.
    fn run(&mut self, name: &'static str, ready: bool, stage: impl FnOnce() -> Result<()>) -> bool {
        let started = Instant::now();
        let outcome = if ready {
            println!("\n== {name}");
            match stage() {
                Ok(()) => Outcome::Passed,
                Err(error) => {
                    eprintln!("{name}: {error:#}");
                    Outcome::Failed
                }
            }
        } else {
            Outcome::NotRun
        };
        let duration = started.elapsed();
        if ready {
            println!("== {name}: {} in {}", outcome.word(), short(duration));
        }
        self.all.push(Stage { name, outcome, duration });
        outcome == Outcome::Passed
    }

    /// A stage that did not run has not passed, so it counts as failed.
    fn score(&self) -> (usize, usize) {
        let passed = self.all.iter().filter(|stage| stage.outcome == Outcome::Passed).count();
        (passed, self.all.len() - passed)
    }

    fn table(&self) -> String {
        let width = self.all.iter().map(|stage| stage.name.len()).max().unwrap_or_default();
        let line = |stage: &Stage| {
            format!("{:width$}  {:>12}  {}\n", stage.name, short(stage.duration), stage.outcome.word())
        };
        self.all.iter().map(line).collect()
    }
}

impl Outcome {
    fn word(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "FAILED",
            Self::NotRun => "not run",
        }
    }
}

/// The last line on standard output is `N passed, M failed`, over the stages.
pub(crate) fn main(arguments: &Arguments) -> Result<ExitCode> {
    let machine = Machine::look();
    if !machine.root && !arguments.unit_only {
        bail!(
            "the end-to-end tests load programs into the kernel and need root, and this is not root.\n\
             Left out would be: the demo on this machine, every test of package `tests`, the virtual machines' setup.\n\
             Run it as root, or run `cargo xtask test --unit-only` for lints and the tests of the library."
        );
    }
    let started = Instant::now();
    let stages = run(&machine, arguments);
    let (passed, failed) = stages.score();
    println!("\n{}{}", stages.table(), format_args!("in all {}\n", short(started.elapsed())));
    println!("{passed} passed, {failed} failed");
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run(machine: &Machine, arguments: &Arguments) -> Stages {
    let mut stages = Stages::default();
    let purpose = match (arguments.unit_only, arguments.native_only) {
        (true, _) => Purpose::Build,
        (false, true) => Purpose::Native,
        (false, false) => Purpose::Test,
    };
    let ready = stages.run("setup", true, || setup::run(machine, purpose));
    stages.run("lint", ready, || lint::run(machine));
    let built = stages.run("build", ready, || build(machine, arguments));
    if arguments.unit_only {
        stages.run("tests of the library", built, || cargo_test(machine, arguments));
        return stages;
    }
    stages.run("deploy", ready, || deploy::run(machine, false));
    stages.run("tests", built, || cargo_test(machine, arguments));
    stages.run("fuzz", ready, || fuzz::briefly(machine));
    if !arguments.native_only {
        stages.run("vm 6.1", built, || vm::check(machine, vm::kernel::DEFAULT));
        stages.run("vm newest", built, || vm::check(machine, vm::kernel::NEWEST));
    }
    stages
}

/// The daemon, and the service in Rust that the end-to-end tests trace.
fn build(machine: &Machine, arguments: &Arguments) -> Result<()> {
    cargo::build(machine)?;
    if arguments.unit_only {
        return Ok(());
    }
    // Together with the daemon's package, so that what both are made of is the same.
    visibly(cargo::cargo(machine, "build").args([
        "--package",
        "tracer-user",
        "--package",
        "rustservice",
        "--bins",
    ]))
}

fn cargo_test(machine: &Machine, arguments: &Arguments) -> Result<()> {
    let mut test = cargo::cargo(machine, "test");
    test.args(["--workspace", "--exclude", "tracer-ebpf", "--exclude", "rustservice", "--no-fail-fast"]);
    if arguments.unit_only {
        test.args(["--exclude", "tests"]);
    }
    if arguments.long {
        test.env(LONG_VARIABLE, "1");
    }
    test.env(cargo::BINARY_VARIABLE, cargo::binary(machine)).env("PATH", path_with_tools(machine));
    if !arguments.unit_only {
        test.env(GO_VARIABLE, setup::go_binary(machine)).env(GO_REQUIRED_VARIABLE, "1");
        test.env(OTELTAP_VARIABLE, setup::otlp_receiver(machine));
        test.env(PROMTOOL_3_VARIABLE, setup::promtool_3(machine));
        if let Some(package) = setup::extracted(machine, EXPR) {
            test.env(EXPR_VARIABLE, package.join("usr/share/gocode"));
        }
    }
    visibly(&mut test)
}

/// The path with the programs that were extracted instead of installed.
fn path_with_tools(machine: &Machine) -> OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let programs = [(PROMETHEUS, "usr/bin"), (NGINX, "usr/sbin")];
    let tools = programs
        .into_iter()
        .filter_map(|(package, folder)| Some(setup::extracted(machine, package)?.join(folder)));
    let node = setup::node_folder(machine);
    let all = node.into_iter().chain(env::split_paths(&path)).chain(tools);
    env::join_paths(all).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_whose_ground_is_missing_is_not_run_and_not_passed() {
        let mut stages = Stages::default();
        let first = stages.run("first", true, || bail!("it is a test"));
        stages.run("second", first, || Ok(()));
        stages.run("third", true, || Ok(()));
        let outcomes: Vec<Outcome> = stages.all.iter().map(|stage| stage.outcome).collect();
        assert_eq!(outcomes, [Outcome::Failed, Outcome::NotRun, Outcome::Passed]);
        assert_eq!(stages.score(), (1, 2));
        assert!(stages.table().lines().all(|line| line.contains(" s  ")));
    }
}
