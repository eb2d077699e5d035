//! `cargo xtask fuzz`: every reader of bytes that somebody else has made, on inputs that are made up.
//!
//! libFuzzer, with the compiler of the rest: its instrumentation needs no unstable option. The committed inputs in
//! `fuzz/corpus` are where it starts; what it finds on the way stays in the build folder, and so does an input that broke
//! something, which is then named.

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{
    cargo,
    command::{both_within, command, quietly_within, visibly},
    kernel_side::KERNEL_SIDE_VARIABLE,
    machine::Machine,
    setup::{self, Purpose, short},
};

/// The readers, named as their files in `fuzz/fuzz_targets`.
const TARGETS: [&str; 7] = ["record", "http", "config", "replay", "symbols", "usdt", "pclntab"];

/// The target that tampers with a Go program, and where it learns which.
const GO_TARGET: &str = "pclntab";
const GO_PROGRAM_VARIABLE: &str = "LINKTRACER_FUZZ_PROGRAM";

/// What `cargo xtask test` spends on each reader.
const SHORT: Duration = Duration::from_secs(5);

/// Beyond these, an input counts as one that broke something.
const MEMORY_LIMIT_MIB: u32 = 512;
const INPUT_LIMIT: Duration = Duration::from_secs(10);

/// Blocks of the program are counted, and what is compared with what is told to libFuzzer, so that it finds numbers and
/// words that a reader looks for.
const INSTRUMENTATION: [&str; 5] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How long each reader is tried
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Only these, several separated by commas
    #[arg(long, value_delimiter = ',', value_parser = TARGETS)]
    targets: Vec<String>,
}

pub(crate) fn main(arguments: &Arguments) -> Result<()> {
    let machine = Machine::look();
    setup::run(&machine, Purpose::Fuzz)?;
    let targets: Vec<&str> = match arguments.targets.as_slice() {
        [] => TARGETS.to_vec(),
        some => some.iter().map(String::as_str).collect(),
    };
    run(&machine, &targets, Duration::from_secs(arguments.seconds))
}

/// Each reader for a few seconds: what broke once, and the beginnings of what may break.
pub(crate) fn briefly(machine: &Machine) -> Result<()> {
    run(machine, &TARGETS, SHORT)
}

fn run(machine: &Machine, targets: &[&str], limit: Duration) -> Result<()> {
    let binaries = build(machine)?;
    let program = go_program(machine)?;
    let mut failed = Vec::new();
    for target in targets {
        let started = Instant::now();
        match try_one(machine, &binaries, target, &program, limit) {
            Ok(line) => println!("fuzz {target}: {line} in {}", short(started.elapsed())),
            Err(error) => {
                println!("fuzz {target}: {error:#}");
                failed.push(*target);
            }
        }
    }
    if failed.is_empty() { Ok(()) } else { bail!("broken by an input: {}", failed.join(", ")) }
}

/// The folder with the binaries.
fn build(machine: &Machine) -> Result<PathBuf> {
    let triple = format!("{}-unknown-linux-gnu", env::consts::ARCH);
    let mut build = cargo::plain(machine, "build");
    // With the target named, build scripts are left alone.
    build.args(["--release", "--manifest-path", "fuzz/Cargo.toml", "--target", &triple, "--target-dir"]);
    build.arg(folder(machine)).env("RUSTFLAGS", INSTRUMENTATION.join(" ")).env(KERNEL_SIDE_VARIABLE, "none");
    visibly(&mut build)?;
    Ok(folder(machine).join(triple).join("release"))
}

/// Runs one target for `limit` and returns how many inputs that were.
fn try_one(
    machine: &Machine,
    binaries: &Path,
    target: &str,
    go_program: &Path,
    limit: Duration,
) -> Result<String> {
    let found = folder(machine).join("found").join(target);
    fs::create_dir_all(&found).with_context(|| format!("creating {}", found.display()))?;
    let mut fuzz = command(&binaries.join(target).to_string_lossy(), []);
    fuzz.arg(&found).arg(machine.workspace.join("fuzz/corpus").join(target));
    fuzz.arg(format!("-max_total_time={}", limit.as_secs()))
        .arg(format!("-timeout={}", INPUT_LIMIT.as_secs()))
        .arg(format!("-rss_limit_mb={MEMORY_LIMIT_MIB}"))
        .arg(format!("-artifact_prefix={}/broken-{target}-", folder(machine).display()))
        .args(["-print_final_stats=1", "-verbosity=0"]);
    if target == GO_TARGET {
        fuzz.env(GO_PROGRAM_VARIABLE, go_program);
    }
    // libFuzzer ends by itself; what hangs before it looks at the clock is ended from outside.
    let lines = both_within(&mut fuzz, limit + INPUT_LIMIT * 6)?;
    let runs = lines.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    let runs = runs.context("libFuzzer did not say how many inputs it tried")?;
    Ok(format!("{} inputs, none broke it,", runs.trim()))
}

/// A small Go program without symbols, for the reader of what stays in it.
fn go_program(machine: &Machine) -> Result<PathBuf> {
    let folder = folder(machine).join("go");
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    fs::write(folder.join("main.go"), "package main\n\nfunc main() { println(\"traced\") }\n")
        .context("writing the Go program")?;
    let program = folder.join("program");
    let mut build = command(&setup::go_binary(machine).to_string_lossy(), ["build", "-ldflags=-s -w", "-o"]);
    build.arg(&program).arg("main.go").current_dir(&folder);
    build.envs([("GOPROXY", "off"), ("GOTOOLCHAIN", "local"), ("GO111MODULE", "off"), ("CGO_ENABLED", "0")]);
    quietly_within(&mut build, Duration::from_secs(600)).context("building the Go program")?;
    Ok(program)
}

fn folder(machine: &Machine) -> PathBuf {
    machine.workspace.join("target/fuzz")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_has_its_file_and_its_first_inputs() {
        let machine = Machine::look();
        let names = |folder: &str| {
            let entries = fs::read_dir(machine.workspace.join("fuzz").join(folder)).expect("is there");
            let mut names: Vec<String> = entries
                .map(|entry| {
                    entry.expect("readable").path().file_stem().expect("named").to_string_lossy().into_owned()
                })
                .collect();
            names.sort();
            names
        };
        let mut targets = TARGETS.map(str::to_owned).to_vec();
        targets.sort();
        assert_eq!(names("fuzz_targets"), targets);
        assert_eq!(names("corpus"), targets);
    }
}
