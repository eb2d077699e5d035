//! `linktracer baseline`: what CTR is usual at this hour, and from which value on it is unusually low.
//!
//! Asks a Prometheus server for the hours of the past days and prints what [`slo::baseline`](crate::slo::baseline) makes
//! of them, or serves it as metrics. Hours in which events were lost are left out.

mod gather;
mod serve;

use std::{
    io::Write,
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result};
use clap::Args;
use serde::Serialize;

use crate::{
    prometheus_api::{Prometheus, ServerArgs},
    replay::OutputFormat,
    slo::baseline::{Baseline, Method, NoBaseline},
};

/// Say what CTR is usual at this hour, from the past week.
#[derive(Debug, Clone, Args)]
#[command(group = clap::ArgGroup::new("from").required(true).args(["prometheus"]))]
pub struct BaselineArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// The service.
    #[arg(long, value_name = "SERVICE")]
    service: String,
    /// How far back to learn from.
    #[arg(long, value_name = "DURATION", default_value = "7d", value_parser = humantime::parse_duration)]
    history: Duration,
    /// The sample to judge: so much up to `--at`.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = humantime::parse_duration)]
    window: Duration,
    /// When the sample ends, such as `2026-11-22T18:00:00Z`; without it, now.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_rfc3339_weak, conflicts_with = "listen")]
    at: Option<SystemTime>,
    /// How to fit the hours.
    #[arg(long, value_enum, default_value_t = Method::BetaBinomial)]
    method: Method,
    /// A sample below this quantile is unusually low; it and others are given. May be given more than once.
    #[arg(long, value_name = "SHARE", default_values_t = [0.05, 0.5, 0.95], value_parser = super::compare::share)]
    quantile: Vec<f64>,
    /// How to print it.
    #[arg(long, value_enum, default_value_t = OutputFormat::Text, conflicts_with = "listen")]
    output: OutputFormat,
    /// Serve it as metrics here, in place of printing it once.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// How often to ask again.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = humantime::parse_duration, requires = "listen")]
    every: Duration,
}

/// What is usual, and what is.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Judged {
    service: String,
    method: Method,
    /// Hours that the baseline was fitted to.
    hours: usize,
    /// Hours left out because events were lost in them.
    hours_left_out: usize,
    /// The sample.
    exposures: u64,
    clicks: u64,
    ctr: Option<f64>,
    /// Empty when there is no baseline.
    baseline: Vec<Quantile>,
    /// Why there is none.
    no_baseline: Option<NoBaseline>,
    /// Whether the sample is below the lowest of the quantiles; `None` without a baseline.
    unusually_low: Option<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Quantile {
    quantile: f64,
    ctr: f64,
}

/// Prints the baseline once, or serves it until SIGTERM or SIGINT.
///
/// # Errors
/// The server cannot be asked, or the result cannot be written; while serving, only what keeps it from serving.
pub fn run(args: &BaselineArgs, mut output: impl Write) -> Result<()> {
    let url = args.server.prometheus.as_deref().unwrap_or_default();
    let server = Prometheus::new(url, args.server.token_file.as_ref())?;
    if let Some(address) = args.listen {
        return serve::serve(args.clone(), server, address);
    }
    let judged = judge(args, &server, args.at.unwrap_or_else(SystemTime::now))?;
    match args.output {
        OutputFormat::Text => output.write_all(judged.text().as_bytes()),
        OutputFormat::Json => {
            writeln!(output, "{}", serde_json::to_string(&judged).context("serialise the baseline")?)
        }
    }
    .and_then(|()| output.flush())
    .context("write the baseline")
}

fn judge(args: &BaselineArgs, server: &Prometheus, at: SystemTime) -> Result<Judged> {
    let gathered = gather::gather(args, server, at)?;
    let quantiles = |baseline: &Baseline| {
        let mut quantiles = Vec::new();
        for &quantile in &args.quantile {
            let ctr = baseline.quantile(quantile, gathered.hour_of_day, gathered.exposures)?;
            quantiles.push(Quantile { quantile, ctr });
        }
        quantiles.sort_by(|a, b| a.quantile.total_cmp(&b.quantile));
        Ok(quantiles)
    };
    let fitted = Baseline::fit(&gathered.hours, args.method);
    let hours = fitted.as_ref().map_or(0, Baseline::hours);
    let (baseline, no_baseline) = match fitted.and_then(|fitted| quantiles(&fitted)) {
        Ok(baseline) => (baseline, None),
        Err(reason) => (Vec::new(), Some(reason)),
    };
    let ctr = (gathered.exposures > 0).then(|| gathered.clicks as f64 / gathered.exposures as f64);
    Ok(Judged {
        service: args.service.clone(),
        method: args.method,
        hours,
        hours_left_out: gathered.left_out,
        exposures: gathered.exposures,
        clicks: gathered.clicks,
        ctr,
        unusually_low: baseline.first().and_then(|lowest| Some(ctr? < lowest.ctr)),
        baseline,
        no_baseline,
    })
}

impl Judged {
    fn text(&self) -> String {
        let percent = |share: f64| format!("{:.3} %", share * 100.0);
        let mut text = format!(
            "{}: {} clicks on {} exposures, CTR {}\n",
            self.service,
            self.clicks,
            self.exposures,
            self.ctr.map_or("-".to_owned(), percent)
        );
        if let Some(reason) = &self.no_baseline {
            return text + &format!("no baseline: {reason}\n");
        }
        text.push_str(&format!("usual at this hour, for a sample of this size, from {} hours", self.hours));
        if self.hours_left_out > 0 {
            text.push_str(&format!(" ({} more left out: events were lost)", self.hours_left_out));
        }
        text.push('\n');
        for Quantile { quantile, ctr } in &self.baseline {
            text.push_str(&format!("  {:>5} quantile  {}\n", quantile, percent(*ctr)));
        }
        let verdict = if self.unusually_low == Some(true) { "unusually low" } else { "not unusually low" };
        text + verdict + "\n"
    }
}
