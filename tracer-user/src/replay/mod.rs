//! `linktracer replay`: recorded events in, the counts of the live daemon out.
//!
//! Bytes are read and unpacked (`input`), cut into pieces of whole lines (`pieces`), and taken apart on
//! several threads (`pipeline`, `batch`, `line`) while the calling thread joins. Everything is read
//! once and forgotten, so a recording of any length takes the memory of its windows. A line that is not
//! an event is counted and named, and never ends the run; input that ends in an error gives the counts
//! of what came before it, and the error.
//!
//! Deliberately absent: any clock in what is counted. A recording joined twice gives the same counts
//! twice.

mod batch;
mod input;
mod line;
mod page;
mod pieces;
mod pipeline;
mod progress;
mod sources;
mod table;
mod writer;

#[cfg(test)]
mod line_tests;
#[cfg(test)]
mod packing_tests;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::{Args, ValueEnum};
pub use indicatif::ProgressDrawTarget;

pub use line::{LineError, MAX_LINE_BYTES};
pub use writer::write_event;

use crate::domain::{Counts, Kind, Outcome};
use crate::join::{Engine, Evicted, Fingerprinter, JoinConfig, JoinEvent, LabelsKey, LabelsTable, Reports};
use batch::{Batch, MAX_NAMED_REJECTIONS, PieceReader, Recorded};
use input::{Input, Packing};
use page::Page;
use pieces::{Cut, Pieces};
use progress::Progress;
use sources::Sources;

/// Join recorded events and print what became of them.
#[derive(Debug, Clone, Args)]
pub struct ReplayArgs {
    /// File of events, one JSON object a line, as it is or packed by gzip or zstd; `-` reads standard
    /// input.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// How to print the counts.
    #[arg(long, value_enum, default_value_t = OutputFormat::Text)]
    pub output: OutputFormat,

    /// Then show them on the page of the daemon, at this address, until Ctrl-C.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub serve: Option<SocketAddr>,

    /// How to join them.
    #[command(flatten)]
    pub join: JoinArgs,
}

/// How recorded events are joined: the windows and what else the join is told.
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

    /// The most memory for what is remembered and waits, 16MiB to 128GiB. Past it the oldest is given up.
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = crate::config::memory_limit)]
    pub memory_limit: u64,

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
            memory_limit_bytes: self.memory_limit,
            reports: if self.reports {
                Reports::All
            } else {
                Reports::Services(self.service_reports.iter().cloned().collect())
            },
        }
    }
}

/// Replays the file, or `input` when the file is `-`; prints the counts to `output`, names what was
/// rejected on `errors`, and shows how far it has come on `progress`. Then serves the page, where that is asked for, until
/// SIGINT or SIGTERM.
///
/// # Errors
/// The file cannot be opened, the counts cannot be written, or the page cannot be served. The input cannot be read to its end:
/// then the counts of what was read are printed all the same.
pub fn run(
    args: &ReplayArgs,
    input: impl Read + Send,
    mut output: impl Write,
    mut errors: impl Write,
    progress: ProgressDrawTarget,
) -> anyhow::Result<()> {
    let mut counts = Counts::default();
    let mut page = args.serve.map(Page::open).transpose()?;
    let visit = |outcome: &Outcome<LabelsKey>, labels: &LabelsTable| {
        counts.apply(outcome);
        if let Some(page) = &mut page {
            page.judge(&outcome.map_labels(|key| Arc::clone(labels.get(key))));
        }
    };
    let Joined { rejected, end } = if args.file == Path::new("-") {
        join_input(&args.join, "stdin", input, &mut errors, Progress::new(progress, None), visit)?
    } else {
        let (name, file, length) = open(&args.file)?;
        join_input(&args.join, &name, file, &mut errors, Progress::new(progress, length), visit)?
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
    .context("write the counts")?;
    end?;
    match page {
        Some(page) => page.serve(&args.file.display().to_string(), rejected, errors),
        None => Ok(()),
    }
}

/// Joins every line of the file, hands each outcome to `visit`, names what was rejected on `errors`, and
/// returns how many lines that were.
///
/// # Errors
/// The file cannot be read to its end. The outcomes of what was read were handed over.
pub fn join_file(
    args: &JoinArgs,
    path: &Path,
    errors: impl Write,
    mut visit: impl FnMut(&Outcome),
) -> anyhow::Result<u64> {
    let (name, file, _) = open(path)?;
    let progress = Progress::new(ProgressDrawTarget::hidden(), None);
    let joined = join_input(args, &name, file, errors, progress, |outcome, labels| {
        visit(&outcome.map_labels(|key| Arc::clone(labels.get(key))));
    })?;
    joined.end.map(|()| joined.rejected)
}

/// The counts of what is read of `input`, in pieces of `piece_bytes` bytes and more, and how it ended, all on the calling
/// thread. What comes out does not depend on `piece_bytes`, which the fuzz target holds it to.
pub fn counts_by_pieces(
    args: &JoinArgs,
    input: impl Read + Send,
    piece_bytes: usize,
) -> (Counts, io::Result<()>) {
    let mut counts = Counts::default();
    let mut replay = Replay::new(args);
    let mut reader = PieceReader::new(Fingerprinter::random());
    let mut visit = |outcome: &Outcome<LabelsKey>, _: &LabelsTable| counts.apply(outcome);
    let end = Input::open(input).and_then(|input| {
        let mut pieces = Pieces::new(input.bytes, piece_bytes);
        while let Some(piece) = pieces.next_piece().map_err(|cut| cut.error)? {
            replay.take(&reader.read(&piece), &mut visit);
        }
        Ok(())
    });
    let rejected = replay.rejected;
    replay.finish(visit);
    counts.rejected = rejected;
    (counts, end)
}

/// The file, its name for messages, and its length in bytes where it has one.
fn open(path: &Path) -> anyhow::Result<(String, File, Option<u64>)> {
    let name = path.display().to_string();
    let file = File::open(path).with_context(|| format!("open {name}"))?;
    let length = file.metadata().ok().filter(std::fs::Metadata::is_file).map(|metadata| metadata.len());
    Ok((name, file, length))
}

/// What is said of an input beside its outcomes.
struct Joined {
    /// Lines that are no events.
    rejected: u64,
    /// Whether it could be read to its end.
    end: anyhow::Result<()>,
}

/// Joins every line of `input` and hands each outcome to `visit`.
fn join_input(
    args: &JoinArgs,
    name: &str,
    input: impl Read + Send,
    mut errors: impl Write,
    progress: Progress,
    mut visit: impl FnMut(&Outcome<LabelsKey>, &LabelsTable),
) -> anyhow::Result<Joined> {
    let Input { packing, bytes, taken } = Input::open(input).with_context(|| format!("read {name}"))?;
    let mut replay = Replay::new(args);
    let reader = PieceReader::new(Fingerprinter::random());
    let end = pipeline::run(bytes, pipeline::PIECE_BYTES, pipeline::parsers(), &reader, |batch| {
        progress.advance(taken.load(Ordering::Relaxed), batch.events.len());
        replay.name_rejected(&batch, |line, reason| {
            // Whoever closed the error stream does not want to know.
            progress.aside(|| drop(writeln!(errors, "{name}:{line}: {reason}")));
        });
        replay.take(&batch, &mut visit);
    });
    progress.finish();
    let end = end.map_err(|cut| replay.describe(&cut, name, packing));
    let rejected = replay.rejected;
    let said = replay.complaints(args);
    let evicted = replay.finish(visit);
    if let Some(unnamed @ 1..) = rejected.checked_sub(MAX_NAMED_REJECTIONS as u64) {
        let _ = writeln!(errors, "{name}: {unnamed} more lines were rejected");
    }
    for complaint in said {
        let _ = writeln!(errors, "{name}: {complaint}");
    }
    if evicted != Evicted::default() {
        let Evicted { request_ids, click_reports, forced_watermarks } = evicted;
        let _ = writeln!(
            errors,
            "{name}: the memory limit was reached: {request_ids} request ids and {click_reports} clicks that waited \
             for a report were given up, the watermark moved early {forced_watermarks} times, and what reaches back \
             to them is unseen; --memory-limit raises it"
        );
    }
    Ok(Joined { rejected, end })
}

/// The join of what was read so far.
struct Replay {
    engine: Engine,
    labels: LabelsTable,
    sources: Sources,
    lines: u64,
    rejected: u64,
}

impl Replay {
    fn new(args: &JoinArgs) -> Self {
        let config = args.join_config();
        let labels = LabelsTable::new(config.reports.clone());
        let mut engine = Engine::new(config);
        if let Some(start_ns) = args.coverage_start {
            engine.set_horizon(Kind::Request, start_ns);
            engine.set_horizon(Kind::Exposure, start_ns);
        }
        Self { engine, labels, sources: Sources::default(), lines: 0, rejected: 0 }
    }

    /// Names the rejected lines of a batch that is taken next, as long as there are few.
    fn name_rejected(&self, batch: &Batch, mut name: impl FnMut(u64, &LineError)) {
        for ((line, reason), number) in batch.named.iter().zip(self.rejected..) {
            if number < MAX_NAMED_REJECTIONS as u64 {
                name(self.lines + line, reason);
            }
        }
    }

    /// Joins the events of a batch.
    fn take(&mut self, batch: &Batch, visit: &mut impl FnMut(&Outcome<LabelsKey>, &LabelsTable)) {
        self.rejected += batch.rejected;
        self.lines += batch.lines;
        let keys: Vec<_> = batch.labels.sets().iter().map(|labels| self.labels.key(labels)).collect();
        for (print, name) in &batch.sources {
            self.sources.name(*print, name);
        }
        for event in &batch.events {
            let Recorded { kind, timestamp_ns, source, pid, request, item, labels } = *event;
            let (labels, wants_report) = keys[labels];
            let is_late = self.engine.watermark_ns().is_some_and(|watermark_ns| timestamp_ns < watermark_ns);
            self.sources.see(source, timestamp_ns, is_late);
            let event = JoinEvent { timestamp_ns, request, item, source, pid, labels, kind, wants_report };
            self.engine.push(&event, &mut |decision| visit(&decision, &self.labels));
        }
    }

    /// What is odd about the input as a whole, for a person.
    fn complaints(&self, args: &JoinArgs) -> Vec<String> {
        let mut complaints = self.sources.complaints(args.skew.0, args.lateness.0);
        let unknown = args.service_reports.iter().filter(|service| !self.labels.has_service(service));
        complaints.extend(
            unknown.map(|service| {
                format!("--service-report `{service}`: no event is of a service of that name")
            }),
        );
        complaints
    }

    /// Lets every window run out. Returns what was given up to keep the memory limit.
    fn finish(mut self, mut visit: impl FnMut(&Outcome<LabelsKey>, &LabelsTable)) -> Evicted {
        self.engine.finish(&mut |decision| visit(&decision, &self.labels));
        self.engine.evicted()
    }

    /// Why and where reading ended before its time, for a person.
    fn describe(&self, cut: &Cut, name: &str, packing: Packing) -> anyhow::Error {
        let Cut { error, byte, lost_bytes } = cut;
        let lines = self.lines;
        let unpacked = if packing == Packing::Plain { "" } else { " unpacked" };
        let what = match (packing, error.kind()) {
            (Packing::Gzip | Packing::Zstd, io::ErrorKind::UnexpectedEof) => {
                format!("the {} data is cut off", packing.name())
            }
            _ => format!("it cannot be read any further ({error})"),
        };
        let lost = match lost_bytes {
            0 => String::new(),
            length => format!(", {length} bytes into line {}, which is not counted", lines + 1),
        };
        anyhow!(
            "{name}: {what} after line {lines} (byte {byte}{unpacked}){lost}\n  \
             the counts are those of the {lines} lines before"
        )
    }
}
