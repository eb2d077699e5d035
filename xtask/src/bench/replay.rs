//! `cargo xtask bench replay`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use super::recording;
use crate::{command::quietly, machine::Machine};

/// Clock ticks a second in what the kernel tells of processes. It has been 100 on every Linux for as
/// long as there is this interface.
const TICKS_PER_SECOND: u64 = 100;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Events of the recording
    #[arg(long, default_value_t = 5_000_000)]
    events: u64,
    /// How often each program runs; they take turns
    #[arg(long, default_value_t = 3)]
    rounds: u32,
}

/// One run of a program.
struct Run {
    wall: Duration,
    processor: Duration,
    output: String,
}

pub(super) fn main(machine: &Machine, arguments: &Arguments) -> Result<()> {
    let release = super::build(machine, "plain_replay")?;
    let folder = release.with_file_name("bench");
    fs::create_dir_all(&folder)?;
    let plain = folder.join("events.jsonl");
    let packed = folder.join("events.jsonl.gz");
    recording::write(&plain, arguments.events)?;
    let gzip =
        Command::new("gzip").args(["-1", "--stdout"]).arg(&plain).stdout(fs::File::create(&packed)?).status();
    ensure!(gzip.context("starting gzip")?.success(), "gzip failed");
    println!(
        "{} events, {} MB, {} MB packed by gzip",
        arguments.events,
        megabytes(&plain)?,
        megabytes(&packed)?
    );

    let replay = |file: &Path| {
        let mut command = Command::new(release.join("linktracer"));
        command.arg("replay").arg(file).args(["--output", "json"]);
        command
    };
    let floor = || {
        let mut command = Command::new(release.join("plain_replay"));
        command.arg(&plain);
        command
    };
    println!("{:<28} {:>9} {:>16} {:>22}", "", "time", "processor time", "million events/s");
    let mut outputs = Vec::new();
    for _ in 0..arguments.rounds {
        for (name, command) in
            [("replay", replay(&plain)), ("replay, gzip", replay(&packed)), ("plain, one thread", floor())]
        {
            let run = timed(command)?;
            let millions = arguments.events as f64 / run.wall.as_secs_f64() / 1e6;
            println!(
                "{name:<28} {:>7.2} s {:>14.2} s {millions:>22.2}",
                run.wall.as_secs_f64(),
                run.processor.as_secs_f64()
            );
            outputs.push(run.output);
        }
    }
    fs::remove_dir_all(&folder)?;
    if outputs.windows(2).any(|pair| pair[0] != pair[1]) {
        bail!("the programs do not agree: {outputs:#?}");
    }
    Ok(())
}

fn timed(mut command: Command) -> Result<Run> {
    let before = children_processor_time()?;
    let started = Instant::now();
    let output = quietly(command.stdin(Stdio::null()))?;
    Ok(Run { wall: started.elapsed(), processor: children_processor_time()? - before, output })
}

/// What all children that have ended took of the processors.
fn children_processor_time() -> Result<Duration> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    // The name in brackets may have spaces; what comes after it has none. The 16th and 17th fields of
    // all are the 14th and 15th after it.
    let (_, after_name) = stat.rsplit_once(") ").context("the format of /proc/self/stat")?;
    let ticks: Result<Vec<u64>, _> = after_name.split(' ').skip(13).take(2).map(str::parse).collect();
    let ticks: u64 = ticks.context("the format of /proc/self/stat")?.iter().sum();
    Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

fn megabytes(path: &PathBuf) -> Result<u64> {
    Ok(fs::metadata(path)?.len() / 1_000_000)
}
