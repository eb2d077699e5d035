//! `service_cost PROGRAM`: what tracing by this `linktracer` costs the traced service, as the table of
//! docs/performance.md. `cargo xtask bench service` builds both and runs it.

use std::{
    io::{Write as _, stdout},
    path::PathBuf,
    time::Duration,
};

use bench::service::{Figures, Pair, Plan, Request, measure};
use clap::Parser;
use tracer_user::config::HookChoice;

/// Measure what tracing costs the traced service.
#[derive(Debug, Parser)]
struct Arguments {
    /// The `linktracer` to measure
    program: PathBuf,
    /// Pairs of turns: without the daemon, and with it
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pairs: u32,
    /// How long each load is, in milliseconds
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u64).range(100..))]
    milliseconds: u64,
    /// Requests a second of the steady load
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(10..))]
    rate: u32,
    /// Which kernel hooks the daemon uses
    #[arg(long, value_enum, default_value = "auto")]
    hooks: HookChoice,
}

fn main() -> anyhow::Result<()> {
    let Arguments { program, pairs, milliseconds, rate, hooks } = Arguments::parse();
    let pairs =
        measure(&Plan { program, pairs, duration: Duration::from_millis(milliseconds), rate, hooks })?;
    let mut out = stdout().lock();
    writeln!(
        out,
        "| request | processor time of the service: without | with | more | requests a second, with : without | median latency: without | with | 99 %: without | with | processor time of the daemon |\n\
         |---|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
    )?;
    for request in Request::ALL {
        let pairs: Vec<&Pair> = pairs.iter().filter(|pair| pair.request == request).collect();
        writeln!(out, "{}", row(request, &pairs))?;
    }
    writeln!(out, "\nThe median of the pairs, and in brackets the lowest and the highest of them.")?;
    Ok(())
}

fn row(request: Request, pairs: &[&Pair]) -> String {
    let us = |of: &dyn Fn(&Pair) -> f64| format!("{:.1} µs", Spread::of(pairs, of).median / 1e3);
    let service = |figures: &Figures| figures.service_ns;
    let more = Spread::of(pairs, &|pair| service(&pair.with) - service(&pair.without));
    let speed = Spread::of(pairs, &|pair| pair.with.per_second / pair.without.per_second);
    format!(
        "| {} | {} | {} | {:.1} µs ({:.1} to {:.1}) | {:.2} ({:.2} to {:.2}) | {} | {} | {} | {} | {} |",
        request.name(),
        us(&|pair| service(&pair.without)),
        us(&|pair| service(&pair.with)),
        more.median / 1e3,
        more.lowest / 1e3,
        more.highest / 1e3,
        speed.median,
        speed.lowest,
        speed.highest,
        us(&|pair| pair.without.median_ns as f64),
        us(&|pair| pair.with.median_ns as f64),
        us(&|pair| pair.without.most_ns as f64),
        us(&|pair| pair.with.most_ns as f64),
        us(&|pair| pair.with.daemon_ns),
    )
}

/// A figure over all pairs.
struct Spread {
    lowest: f64,
    median: f64,
    highest: f64,
}

impl Spread {
    fn of(pairs: &[&Pair], figure: &dyn Fn(&Pair) -> f64) -> Self {
        let mut figures: Vec<f64> = pairs.iter().map(|pair| figure(pair)).collect();
        figures.sort_by(f64::total_cmp);
        let at = |index: usize| figures.get(index).copied().unwrap_or(f64::NAN);
        let (half, even) = (figures.len() / 2, figures.len().is_multiple_of(2));
        let median = if even { f64::midpoint(at(half.wrapping_sub(1)), at(half)) } else { at(half) };
        Self { lowest: at(0), median, highest: at(figures.len().wrapping_sub(1)) }
    }
}
