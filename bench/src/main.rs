//! `bench`: measures the join from memory on one core, beside a plain join of the same events, and prints
//! the tables of docs/performance.md. `cargo xtask bench join` builds and runs it.

use std::hash::RandomState;
use std::io::{Write as _, stdout};

use bench::measure::{Plan, Report, Steps, measure};
use bench::naive::FreeHash;
use bench::workload::Shape;
use clap::{Parser, ValueEnum};

/// Measure the join from memory, on one core.
#[derive(Debug, Parser)]
struct Arguments {
    /// Exposures that are remembered when the click window has filled up; one row for each.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000_000, 10_000_000, 50_000_000])]
    pending: Vec<u64>,
    /// Events to measure after that.
    #[arg(long, default_value_t = 8_000_000)]
    events: u64,
    /// Exposures of a request.
    #[arg(long, default_value_t = 20)]
    exposures: u64,
    /// Milliseconds by which events arrive late.
    #[arg(long, default_value_t = 50)]
    jitter: u64,
    /// Nothing unusual in the stream.
    #[arg(long)]
    clean: bool,
    /// Leave the plain join out.
    #[arg(long)]
    without_naive: bool,
    /// What the plain join's maps hash with.
    #[arg(long, value_enum, default_value_t = MapHasher::Fast)]
    hasher: MapHasher,
    /// Bound on the join's memory in bytes.
    #[arg(long, default_value_t = u64::MAX)]
    memory_limit: u64,
    /// Print the counts of the join as well.
    #[arg(long)]
    counts: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum MapHasher {
    /// It costs nothing, because ids are fingerprints already.
    Free,
    /// A fast one, foldhash.
    Fast,
    /// That of the standard library, SipHash.
    Standard,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let mut reports = Vec::new();
    for pending in &arguments.pending {
        let shape = Shape {
            pending: *pending,
            exposures: arguments.exposures.max(1),
            jitter_ns: arguments.jitter.saturating_mul(1_000_000),
            is_clean: arguments.clean,
            ..Shape::usual(*pending)
        };
        let measure = match arguments.hasher {
            MapHasher::Free => measure::<FreeHash>,
            MapHasher::Fast => measure::<foldhash::fast::RandomState>,
            MapHasher::Standard => measure::<RandomState>,
        };
        let report = measure(Plan {
            shape,
            events: arguments.events,
            with_naive: !arguments.without_naive,
            memory_limit_bytes: arguments.memory_limit,
        });
        if arguments.counts {
            writeln!(stdout(), "{:?} {:?}", report.counts, report.evicted)?;
        }
        reports.push(report);
    }
    let mut out = stdout().lock();
    writeln!(
        out,
        "| pending exposures | join, million events/s | plain maps, million events/s | ratio | join, bytes a pending exposure | plain maps |\n|---|---|---|---|---|---|"
    )?;
    for report in &reports {
        writeln!(out, "{}", throughput(report))?;
    }
    writeln!(
        out,
        "\n| pending exposures | step: median | 99.9 % | longest | empty step: median | 99.9 % | longest | snapshot stops for | step meanwhile: 99.9 % | longest |\n|---|---|---|---|---|---|---|---|---|---|"
    )?;
    for report in &reports {
        writeln!(out, "{}", latency(report))?;
    }
    Ok(())
}

fn throughput(report: &Report) -> String {
    let each = |bytes: u64| format!("{:.1}", bytes as f64 / report.pending as f64);
    let (speed, ratio, naive_bytes) = report.naive.map_or_else(Default::default, |(speed, bytes)| {
        (format!("{speed:.2}"), format!("{:.1}", report.events_per_us / speed), each(bytes))
    });
    format!(
        "| {} | {:.2} | {speed} | {ratio} | {} | {naive_bytes} |",
        report.pending,
        report.events_per_us,
        each(report.bytes)
    )
}

fn latency(report: &Report) -> String {
    let us = |ns: u64| format!("{:.2} µs", ns as f64 / 1e3);
    let steps =
        |steps: &Steps| format!("{} | {} | {}", us(steps.median_ns), us(steps.most_ns), us(steps.longest_ns));
    let meanwhile = &report.steps_meanwhile;
    format!(
        "| {} | {} | {} | {:.2} ms | {} | {} |",
        report.pending,
        steps(&report.steps),
        steps(&report.empty_steps),
        report.snapshot.as_secs_f64() * 1e3,
        us(meanwhile.most_ns),
        us(meanwhile.longest_ns)
    )
}
