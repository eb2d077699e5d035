//! `linktracer compare`: two releases side by side, from a Prometheus server or from recorded events.
//!
//! Gathers what was counted, and prints what [`slo`](crate::slo) makes of it.

mod changes;
mod chart;
mod recording;
mod report;
mod server;

use std::{
    io::Write,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result};
use clap::Args;

use crate::{
    prometheus_api::{Prometheus, ServerArgs},
    replay::{JoinArgs, OutputFormat},
    slo::{
        comparison::{Aim, Arm},
        doubt::Conditions,
    },
};

/// Compare two releases: did users click less, or did links break?
#[derive(Debug, Clone, Args)]
#[command(group = clap::ArgGroup::new("from").required(true).args(["prometheus", "file"]))]
pub struct CompareArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Recorded events instead of a server: JSON lines, joined as `replay` does.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The release to compare with.
    #[arg(long, value_name = "RELEASE")]
    stable: String,
    /// The release in question.
    #[arg(long, value_name = "RELEASE")]
    canary: String,
    /// Only this service; without it all services together.
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,
    /// How far back to look, from `--at`.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = humantime::parse_duration)]
    window: Duration,
    /// The end of the window, such as `2026-11-22T18:00:00Z`; without it, now.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_rfc3339_weak, conflicts_with = "file")]
    at: Option<SystemTime>,
    /// Probability of a wrong verdict, over all looks at a window that only grows.
    #[arg(long, value_name = "SHARE", default_value_t = Aim::default().alpha, value_parser = share)]
    alpha: f64,
    /// The relative loss that does not matter.
    #[arg(long, value_name = "SHARE", default_value_t = Aim::default().margin, value_parser = share)]
    margin: f64,
    /// A page `/releases` of a daemon, to say what changed: a URL such as `http://node:9464/releases`, or a file. May be
    /// given more than once.
    #[arg(long, value_name = "URL")]
    releases: Vec<String>,
    /// How to print it.
    #[arg(long, value_enum, default_value_t = OutputFormat::Text)]
    output: OutputFormat,
    #[command(flatten)]
    join: JoinArgs,
}

/// What was counted of both releases, and under which conditions.
struct Gathered {
    stable: Arm,
    canary: Arm,
    conditions: Conditions,
    /// Where it comes from, for people.
    origin: String,
}

/// Compares and prints. Fails when the events cannot be had or the result cannot be written.
pub fn run(args: &CompareArgs, mut output: impl Write, errors: impl Write) -> Result<()> {
    let gathered = match (&args.server.prometheus, &args.file) {
        (_, Some(file)) => recording::gather(args, file, errors)?,
        (Some(url), None) => {
            let server = Prometheus::new(url, args.server.token_file.as_ref())?;
            server::gather(args, &server, args.at.unwrap_or_else(SystemTime::now))?
        }
        (None, None) => unreachable!("the command line asks for one of them"),
    };
    let changes = (!args.releases.is_empty())
        .then(|| changes::between(&args.releases, args.service.as_deref(), &args.stable, &args.canary))
        .transpose()?;
    let report = report::Report::new(args, &gathered, changes);
    match args.output {
        OutputFormat::Text => output.write_all(report.text(&gathered.origin).as_bytes()),
        OutputFormat::Json => {
            let object = serde_json::to_string(&report).context("serialise the comparison")?;
            writeln!(output, "{object}")
        }
    }
    .and_then(|()| output.flush())
    .context("write the comparison")
}

/// A share of the command line: within 0 and 1, both excluded.
pub(crate) fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if share > 0.0 && share < 1.0 => Ok(share),
        _ => Err("not a number between 0 and 1".to_owned()),
    }
}
