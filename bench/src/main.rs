//! `bench`: fills the join with as many exposures as asked for and measures it from there, beside a
//! plain join of the same events in the same process.

use std::io::Write as _;
use std::time::Duration;

use bench::naive::Naive;
use bench::workload::{Shape, Workload};
use clap::Parser;
use rustix::time::{ClockId, clock_gettime};
use tracer_user::domain::{Counts, Labels};
use tracer_user::join::{Engine, JoinConfig, JoinEvent, LabelsTable, Reports};

/// Events made at once. Making them is not measured.
const BLOCK: usize = 1 << 16;

/// Measure the join from memory, on one core.
#[derive(Debug, Parser)]
struct Arguments {
    /// Exposures that are remembered when the click window has filled up.
    #[arg(long, default_value_t = 10_000_000)]
    pending: u64,
    /// Events to measure after that.
    #[arg(long, default_value_t = 8_000_000)]
    events: u64,
    /// Seconds over which the exposures of a request are spread.
    #[arg(long, default_value_t = 10.0)]
    spread: f64,
    /// Milliseconds by which events arrive late.
    #[arg(long, default_value_t = 50.0)]
    jitter: f64,
    /// Nothing unusual in the stream.
    #[arg(long)]
    clean: bool,
    /// Leave the plain join out.
    #[arg(long)]
    without_naive: bool,
    /// Bound on the join's memory in bytes.
    #[arg(long, default_value_t = u64::MAX)]
    memory_limit: u64,
}

/// What was measured of one join.
#[derive(Debug, Default)]
struct Measured {
    events: u64,
    taken: Duration,
}

impl Measured {
    fn millions_per_second(&self) -> f64 {
        self.events as f64 / self.taken.as_secs_f64() / 1e6
    }
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let shape = Shape {
        pending: arguments.pending,
        spread_ns: (arguments.spread * 1e9) as u64,
        jitter_ns: (arguments.jitter * 1e6) as u64,
        is_clean: arguments.clean,
    };
    let config = JoinConfig { memory_limit_bytes: arguments.memory_limit, ..JoinConfig::default() };
    let labels = LabelsTable::new(Reports::none()).key(&Labels::default().into()).0;
    let mut workload = Workload::new(shape, labels);
    let mut engine = Engine::new(config.clone());
    let mut naive = (!arguments.without_naive).then(|| Naive::new(config));
    let (mut block, mut out, mut counts) = (Vec::new(), Vec::new(), Counts::default());
    let (mut filling, mut measured, mut plain) = <(Measured, Measured, Measured)>::default();
    let to_fill = shape.events_to_fill() + BLOCK as u64;
    let mut exposures = std::collections::VecDeque::new();
    while filling.events < to_fill || measured.events < arguments.events {
        workload.fill(&mut block, BLOCK);
        let part = if filling.events < to_fill { &mut filling } else { &mut measured };
        push_all(&mut engine, &block, &mut out, &mut counts, part);
        if let Some(naive) = &mut naive {
            let begin = cpu_time();
            block.iter().for_each(|event| naive.push(event));
            if measured.events > 0 {
                plain.taken += cpu_time() - begin;
                plain.events += block.len() as u64;
            }
        }
        count_exposures(&block, &mut exposures);
    }
    let pending = exposures.iter().map(|(_, count)| count).sum::<u64>();
    let bytes = engine.memory_bytes();
    let mut steps = Vec::new();
    for _ in 0..8 {
        workload.fill(&mut block, BLOCK);
        time_steps(&mut engine, &block, &mut out, &mut counts, &mut steps);
    }
    steps.sort_unstable();
    let mut stdout = std::io::stdout();
    writeln!(stdout, "pending exposures      {pending}")?;
    writeln!(stdout, "join, filling          {:.2} M events/s", filling.millions_per_second())?;
    writeln!(stdout, "join, full             {:.2} M events/s", measured.millions_per_second())?;
    writeln!(
        stdout,
        "join, memory           {bytes} bytes, {:.1} a pending exposure",
        bytes as f64 / pending as f64
    )?;
    let at = |share: f64| steps[((steps.len() - 1) as f64 * share) as usize] as f64 / 1e3;
    writeln!(
        stdout,
        "join, one step         median {:.2} us, 99 % {:.1} us, 99.9 % {:.1} us, 99.99 % {:.1} us, longest {:.1} us",
        at(0.5),
        at(0.99),
        at(0.999),
        at(0.9999),
        at(1.0)
    )?;
    let begin = cpu_time();
    let snapshot = engine.snapshot(&tracer_user::join::Fingerprinter::random(), Vec::new(), &mut out);
    writeln!(stdout, "snapshot, stop         {:.2} ms", (cpu_time() - begin).as_secs_f64() * 1e3)?;
    workload.fill(&mut block, BLOCK);
    let mut steps = Vec::new();
    time_steps(&mut engine, &block, &mut out, &mut counts, &mut steps);
    steps.sort_unstable();
    writeln!(
        stdout,
        "one step meanwhile     99.9 % {:.1} us, longest {:.1} us",
        steps[steps.len() * 999 / 1000] as f64 / 1e3,
        steps[steps.len() - 1] as f64 / 1e3
    )?;
    drop(snapshot);
    if let Some(naive) = naive {
        let pending = naive.pending_exposures() as f64;
        writeln!(stdout, "plain maps             {:.2} M events/s", plain.millions_per_second())?;
        writeln!(
            stdout,
            "plain maps, memory     {:.1} bytes a pending exposure",
            naive.memory_bytes() as f64 / pending
        )?;
        writeln!(
            stdout,
            "join / plain maps      {:.1}",
            measured.millions_per_second() / plain.millions_per_second()
        )?;
        writeln!(stdout, "{:?}", naive.counts)?;
    }
    engine.finish(&mut out);
    counts.extend(&out);
    writeln!(stdout, "{counts:?} {:?}", engine.evicted())?;
    Ok(())
}

fn push_all(
    engine: &mut Engine,
    events: &[JoinEvent],
    out: &mut Vec<tracer_user::domain::Outcome<tracer_user::join::LabelsKey>>,
    counts: &mut Counts,
    measured: &mut Measured,
) {
    let begin = cpu_time();
    for event in events {
        engine.push(*event, out);
        if out.len() > 1024 {
            counts.extend(out.iter());
            out.clear();
        }
    }
    measured.taken += cpu_time() - begin;
    measured.events += events.len() as u64;
}

/// Processor time of this thread: others use the machine too.
fn cpu_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// Times each step in nanoseconds.
fn time_steps(
    engine: &mut Engine,
    events: &[JoinEvent],
    out: &mut Vec<tracer_user::domain::Outcome<tracer_user::join::LabelsKey>>,
    counts: &mut Counts,
    steps: &mut Vec<u64>,
) {
    for event in events {
        let begin = cpu_time();
        engine.push(*event, out);
        steps.push((cpu_time() - begin).as_nanos() as u64);
        counts.extend(out.iter());
        out.clear();
    }
}

/// Keeps the number of exposures within the click window of the newest event, by second.
fn count_exposures(events: &[JoinEvent], seconds: &mut std::collections::VecDeque<(u64, u64)>) {
    for event in events.iter().filter(|event| event.kind == tracer_user::domain::Kind::Exposure) {
        let second = event.timestamp_ns / 1_000_000_000;
        match seconds.back_mut() {
            Some((last, count)) if *last >= second => *count += 1,
            _ => seconds.push_back((second, 1)),
        }
        while seconds.front().is_some_and(|(first, _)| first + 1800 < second) {
            seconds.pop_front();
        }
    }
}
