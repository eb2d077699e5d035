//! `linktracer replay`: recorded events in, the counts of the live daemon out.
//!
//! Lines are read one at a time and forgotten, so a recording of any length takes the memory of its
//! windows. A line that is not an event is counted and named, and never ends the run.
//!
//! Deliberately absent: any clock. A recording joined twice gives the same counts twice.

mod intern;
mod reader;
mod table;
mod writer;

#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};

pub use reader::{EventReader, LineError, MAX_LINE_BYTES, Record};
pub use writer::write_event;

use crate::domain::{Counts, Kind, Outcome};
use crate::join::{Join, JoinConfig, Reports};

/// Rejected lines beyond this many are counted and no longer named.
const MAX_NAMED_REJECTIONS: u64 = 20;

/// Join recorded events and print what became of them.
#[derive(Debug, Clone, Args)]
pub struct ReplayArgs {
    /// File of events, one JSON object a line; `-` reads standard input.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// How to print the counts.
    #[arg(long, value_enum, default_value_t = OutputFormat::Text)]
    pub output: OutputFormat,

    /// How to join them.
    #[command(flatten)]
    pub join: JoinArgs,
}

/// How recorded events are joined: the options of the windows.
#[derive(Debug, Clone, Args)]
pub struct JoinArgs {
    /// Longest time from a request to its exposures.
    #[arg(long, value_name = "DURATION", default_value_t = Span(JoinConfig::default().exposure_window_ns))]
    pub exposure_window: Span,

    /// Longest time from an exposure to its clicks.
    #[arg(long, value_name = "DURATION", default_value_t = Span(JoinConfig::default().click_window_ns))]
    pub click_window: Span,

    /// Longest time from a click to the report that covers it.
    #[arg(long, value_name = "DURATION", default_value_t = Span(JoinConfig::default().report_window_ns))]
    pub report_window: Span,

    /// How far out of order the events of one source may be.
    #[arg(long, value_name = "DURATION", default_value_t = Span(JoinConfig::default().lateness_ns))]
    pub lateness: Span,

    /// How far the clocks of two sources may disagree.
    #[arg(long, value_name = "DURATION", default_value_t = Span(JoinConfig::default().skew_ns))]
    pub skew: Span,

    /// A source this far behind the newest one is no longer waited for.
    #[arg(long, value_name = "DURATION", default_value_t = Span(JoinConfig::default().idle_timeout_ns))]
    pub idle_timeout: Span,

    /// Judge whether the clicks of this service were reported; may be given more than once.
    #[arg(long = "service-report", value_name = "SERVICE")]
    pub service_reports: Vec<Box<str>>,

    /// Judge whether clicks were reported, for every service.
    #[arg(long)]
    pub reports: bool,

    /// Time since which the recording is complete, in nanoseconds since the Unix epoch. What would
    /// need to know of requests or exposures before it counts as unseen. Absent: it is complete.
    #[arg(long, value_name = "NS")]
    pub coverage_start: Option<u64>,
}

/// How to print the counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// A table for people.
    Text,
    /// One JSON object.
    Json,
}

/// A duration in nanoseconds, written with units: `10m`, `100ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub u64);

impl FromStr for Span {
    type Err = humantime::DurationError;

    /// Durations beyond 584 years, which nanoseconds cannot hold, become the longest possible.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let duration = humantime::parse_duration(text)?;
        Ok(Self(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(Duration::from_nanos(self.0)).fmt(formatter)
    }
}

impl JoinArgs {
    /// The join that the options ask for.
    pub fn join_config(&self) -> JoinConfig {
        JoinConfig {
            exposure_window_ns: self.exposure_window.0,
            click_window_ns: self.click_window.0,
            report_window_ns: self.report_window.0,
            lateness_ns: self.lateness.0,
            skew_ns: self.skew.0,
            idle_timeout_ns: self.idle_timeout.0,
            reports: if self.reports {
                Reports::All
            } else {
                Reports::Services(self.service_reports.iter().cloned().collect())
            },
        }
    }
}

/// Replays the file, or `input` when the file is `-`; prints the counts to `output` and names what
/// was rejected on `errors`. Fails when the file cannot be read or the counts cannot be written.
pub fn run(
    args: &ReplayArgs,
    input: impl BufRead,
    mut output: impl Write,
    errors: impl Write,
) -> anyhow::Result<()> {
    let mut counts = Counts::default();
    let rejected = if args.file == Path::new("-") {
        join_lines(&args.join, "stdin", input, errors, |outcome| counts.apply(outcome))?
    } else {
        join_file(&args.join, &args.file, errors, |outcome| counts.apply(outcome))?
    };
    counts.rejected = rejected;
    match args.output {
        OutputFormat::Text => output.write_all(table::render(&counts).as_bytes()),
        OutputFormat::Json => {
            let object = serde_json::to_string(&counts).context("serialise the counts")?;
            writeln!(output, "{object}")
        }
    }
    .and_then(|()| output.flush())
    .context("write the counts")
}

/// Joins every line of the file and hands each outcome to `visit`; as [`join_lines`].
pub fn join_file(
    args: &JoinArgs,
    path: &Path,
    errors: impl Write,
    visit: impl FnMut(&Outcome),
) -> anyhow::Result<u64> {
    let name = path.display().to_string();
    let file = File::open(path).with_context(|| format!("open {name}"))?;
    join_lines(args, &name, BufReader::with_capacity(1 << 18, file), errors, visit)
}

/// Joins every line of `input`, hands each outcome to `visit`, names what was rejected on `errors`, and
/// returns how many lines that were. Fails when the input cannot be read.
fn join_lines(
    args: &JoinArgs,
    name: &str,
    input: impl BufRead,
    mut errors: impl Write,
    mut visit: impl FnMut(&Outcome),
) -> anyhow::Result<u64> {
    let mut join = Join::new(args.join_config());
    if let Some(start_ns) = args.coverage_start {
        join.set_horizon(Kind::Request, start_ns);
        join.set_horizon(Kind::Exposure, start_ns);
    }
    let mut rejected = 0;
    let mut outcomes = Vec::new();
    let mut reader = EventReader::new(input);
    while let Some(Record { line, event }) = reader.next_record().with_context(|| format!("read {name}"))? {
        match event {
            Ok(event) => join.push(event, &mut outcomes),
            Err(reason) => {
                rejected += 1;
                if rejected <= MAX_NAMED_REJECTIONS {
                    // Whoever closed the error stream does not want to know.
                    let _ = writeln!(errors, "{name}:{line}: {reason}");
                }
            }
        }
        outcomes.drain(..).for_each(|outcome| visit(&outcome));
    }
    join.finish(&mut outcomes);
    outcomes.iter().for_each(visit);
    if let Some(unnamed @ 1..) = rejected.checked_sub(MAX_NAMED_REJECTIONS) {
        let _ = writeln!(errors, "{name}: {unnamed} more lines were rejected");
    }
    Ok(rejected)
}
