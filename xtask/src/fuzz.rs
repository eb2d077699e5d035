//! `cargo xtask fuzz`: every reader of bytes that somebody else has made, on inputs that are made up.
//!
//! libFuzzer, with the compiler of the rest: its instrumentation needs no unstable option. The committed inputs in
//! `fuzz/corpus` are where it starts; what it finds on the way stays in the build folder, and so does an input that broke
//! something, which is then named. What is asserted stands in the targets.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::{
    cargo,
    command::{command, quietly_within, visibly},
    document::Place,
    kernel_side::KERNEL_SIDE_VARIABLE,
    machine::Machine,
    setup::{self, Purpose},
};

/// The readers, named as their files in `fuzz/fuzz_targets`.
const TARGETS: [&str; 7] = ["config", "http", "pclntab", "record", "replay", "symbols", "usdt"];

/// The target that tampers with a Go program, and where it learns which.
const GO_TARGET: &str = "pclntab";
const GO_PROGRAM_VARIABLE: &str = "LINKTRACER_FUZZ_PROGRAM";

/// What `cargo xtask test` spends on each reader.
const SHORT: Duration = Duration::from_secs(10);
const SHORT_JOBS: usize = 2;

/// Beyond these, an input counts as one that broke something. (A bound on what the reader itself takes is asserted in its
/// target; this is on the whole process, with all inputs that libFuzzer keeps.)
const MEMORY_LIMIT_MIB: u32 = 1024;
const INPUT_LIMIT: Duration = Duration::from_secs(10);

/// Blocks of the program are counted, and what numbers are compared with is told to libFuzzer.
const INSTRUMENTATION: [&str; 7] = [
    "--cfg",
    "fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

const PLACE: Place =
    Place { document: "docs/trust.md", begin: "<!-- written by `cargo xtask fuzz --minutes 10 --write` -->" };

const HEAD: &str =
    "| target | minutes | inputs tried | a second | inputs kept | result |\n|---|---:|---:|---:|---:|---|\n";

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Which readers; all of them unless some are named
    #[arg(value_parser = TARGETS)]
    targets: Vec<String>,
    /// How long each is tried
    #[arg(long, default_value_t = 1)]
    minutes: u64,
    /// How many are tried at a time
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    jobs: u8,
    /// Write the result of each into the table of docs/trust.md
    #[arg(long)]
    write: bool,
}

/// What came of one reader.
struct Outcome {
    target: String,
    minutes: u64,
    tried: u64,
    tried_per_second: u64,
    kept: usize,
    /// The file with the input that broke it.
    broken: Option<PathBuf>,
}

pub(crate) fn main(arguments: &Arguments) -> Result<()> {
    let machine = Machine::look();
    setup::run(&machine, Purpose::Fuzz)?;
    let targets: Vec<&str> = match arguments.targets.as_slice() {
        [] => TARGETS.to_vec(),
        some => some.iter().map(String::as_str).collect(),
    };
    let write = |outcome: &Outcome| match arguments.write {
        true => PLACE.write(&machine, &with_row(&PLACE.read(&machine)?, &outcome.target, &row(outcome))),
        false => Ok(()),
    };
    let limit = Duration::from_secs(60 * arguments.minutes);
    run(&machine, &targets, limit, usize::from(arguments.jobs), write)
}

/// Each reader for a few seconds: what broke once, and the beginnings of what may break.
pub(crate) fn briefly(machine: &Machine) -> Result<()> {
    run(machine, &TARGETS, SHORT, SHORT_JOBS, |_| Ok(()))
}

/// Tries `targets` for `limit` each, `jobs` at a time, and hands out what came of each.
fn run(
    machine: &Machine,
    targets: &[&str],
    limit: Duration,
    jobs: usize,
    mut each: impl FnMut(&Outcome) -> Result<()>,
) -> Result<()> {
    let binaries = build(machine, targets)?;
    let go_program = go_program(machine)?;
    let mut broken = Vec::new();
    print!("{HEAD}");
    let next = AtomicUsize::new(0);
    let (sender, outcomes) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..jobs {
            let (sender, next, binaries, go_program) = (sender.clone(), &next, &binaries, &go_program);
            scope.spawn(move || {
                while let Some(target) = targets.get(next.fetch_add(1, Ordering::Relaxed)) {
                    // Nobody listens any more only after an error, which ends everything.
                    let _ = sender.send(try_one(machine, binaries, target, go_program, limit));
                }
            });
        }
        drop(sender);
        outcomes.iter().try_for_each(|outcome| {
            let outcome = outcome?;
            println!("{}", row(&outcome));
            each(&outcome)?;
            broken.extend(outcome.broken.map(|input| format!("{}: {}", outcome.target, input.display())));
            anyhow::Ok(())
        })
    })?;
    if broken.is_empty() { Ok(()) } else { bail!("broken by an input:\n{}", broken.join("\n")) }
}

/// The folder with the binaries.
fn build(machine: &Machine, targets: &[&str]) -> Result<PathBuf> {
    let triple = format!("{}-unknown-linux-gnu", env::consts::ARCH);
    let mut build = cargo::plain(machine, "build");
    // With the target named, build scripts are left alone.
    build.args(["--release", "--manifest-path", "fuzz/Cargo.toml", "--target", &triple, "--target-dir"]);
    build.arg(folder(machine)).args(targets.iter().flat_map(|target| ["--bin", target]));
    build.env("RUSTFLAGS", INSTRUMENTATION.join(" ")).env(KERNEL_SIDE_VARIABLE, "none");
    visibly(&mut build)?;
    Ok(folder(machine).join(triple).join("release"))
}

/// Runs one target for `limit`.
fn try_one(
    machine: &Machine,
    binaries: &Path,
    target: &str,
    go_program: &Path,
    limit: Duration,
) -> Result<Outcome> {
    let found = folder(machine).join("found").join(target);
    let broken = folder(machine).join("broken").join(target);
    for folder in [&found, &broken] {
        fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    }
    let before = files(&broken)?;
    let mut fuzz = command(&binaries.join(target).to_string_lossy(), []);
    fuzz.arg(&found).arg(machine.workspace.join("fuzz/corpus").join(target));
    fuzz.arg(format!("-max_total_time={}", limit.as_secs()))
        .arg(format!("-timeout={}", INPUT_LIMIT.as_secs()))
        .arg(format!("-rss_limit_mb={MEMORY_LIMIT_MIB}"))
        .arg(format!("-artifact_prefix={}/", broken.display()))
        .args(["-print_final_stats=1", "-verbosity=1"]);
    let words = machine.workspace.join("fuzz/words").join(target);
    if words.is_file() {
        fuzz.arg(format!("-dict={}", words.display()));
    }
    if target == GO_TARGET {
        fuzz.env(GO_PROGRAM_VARIABLE, go_program);
    }
    let log = folder(machine).join(format!("{target}.log"));
    let output = fs::File::create(&log).with_context(|| format!("creating {}", log.display()))?;
    fuzz.stdout(output.try_clone().context("sharing the log")?).stderr(output);
    let status = fuzz.status().with_context(|| format!("starting {target}"))?;
    let text = fs::read_to_string(&log).with_context(|| format!("reading {}", log.display()))?;
    let broken = files(&broken)?.into_iter().find(|file| !before.contains(file));
    if !status.success() && broken.is_none() {
        bail!("{target} ended with {status} and left no input: see {}", log.display());
    }
    let number = |name: &str| statistic(&text, name);
    Ok(Outcome {
        target: target.to_owned(),
        minutes: limit.as_secs() / 60,
        tried: number("number_of_executed_units").unwrap_or_default(),
        tried_per_second: number("average_exec_per_sec").unwrap_or_default(),
        kept: files(&found)?.len(),
        broken,
    })
}

fn statistic(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("stat::")?.strip_prefix(name))?;
    line.trim_start_matches(':').trim().parse().ok()
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    Ok(entries.flatten().map(|entry| entry.path()).collect())
}

fn row(outcome: &Outcome) -> String {
    let Outcome { target, minutes, tried, tried_per_second, kept, broken } = outcome;
    let result = if broken.is_none() { "nothing broke" } else { "BROKEN" };
    format!("| {target} | {minutes} | {tried} | {tried_per_second} | {kept} | {result} |")
}

/// The table with another row for `target`, in the order of the targets.
fn with_row(table: &str, target: &str, row: &str) -> String {
    let known = |target: &str| {
        let start = format!("| {target} |");
        table.lines().find(|line| line.starts_with(&start)).map(str::to_owned)
    };
    let rows = TARGETS.iter().filter_map(|other| {
        let row = if *other == target { Some(row.to_owned()) } else { known(other) };
        row.map(|row| row + "\n")
    });
    HEAD.to_owned() + &rows.collect::<String>()
}

/// A small Go program without symbols, for the reader of what stays in it.
fn go_program(machine: &Machine) -> Result<PathBuf> {
    let folder = folder(machine).join("go");
    let program = folder.join("program");
    if program.is_file() {
        return Ok(program);
    }
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    fs::write(folder.join("main.go"), "package main\n\nfunc main() { println(\"traced\") }\n")
        .context("writing the Go program")?;
    let mut build: Command =
        command(&setup::go_binary(machine).to_string_lossy(), ["build", "-ldflags=-s -w", "-o"]);
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
    fn every_target_has_its_file_its_first_inputs_and_its_row() {
        let machine = Machine::look();
        let names = |folder: &str| {
            let files = files(&machine.workspace.join("fuzz").join(folder)).expect("is there");
            let mut names: Vec<String> = files
                .iter()
                .filter_map(|file| Some(file.file_stem()?.to_string_lossy().into_owned()))
                .collect();
            names.sort();
            names
        };
        assert_eq!(names("fuzz_targets"), TARGETS);
        assert_eq!(names("corpus"), TARGETS);
        let table = PLACE.read(&machine).expect("has its place");
        for target in TARGETS {
            assert!(table.contains(&format!("| {target} |")), "{target}");
        }
    }

    #[test]
    fn a_row_takes_the_place_of_the_one_before() {
        let table = with_row("", "usdt", "| usdt | 1 |");
        let table = with_row(&table, "http", "| http | 1 |");
        assert_eq!(table, format!("{HEAD}| http | 1 |\n| usdt | 1 |\n"));
        assert_eq!(with_row(&table, "usdt", "| usdt | 2 |"), format!("{HEAD}| http | 1 |\n| usdt | 2 |\n"));
    }

    #[test]
    fn what_libfuzzer_says_at_its_end_is_read() {
        let text = "Done\nstat::number_of_executed_units: 1234\nstat::average_exec_per_sec:     56\n";
        assert_eq!(statistic(text, "number_of_executed_units"), Some(1234));
        assert_eq!(statistic(text, "average_exec_per_sec"), Some(56));
        assert_eq!(statistic(text, "nothing"), None);
    }
}
