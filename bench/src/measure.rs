//! One measurement: fills the join and the plain one with the same events, block by block in turns, and
//! goes on from there with the clock running.
//!
//! Times are processor time of this thread, because other work may be going on on the machine. Making the
//! events is not measured.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::hint::black_box;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tracer_user::domain::{Counts, Kind, Labels};
use tracer_user::join::{Engine, Evicted, Fingerprinter, JoinConfig, JoinEvent, LabelsTable, Reports};

use crate::naive::Naive;
use crate::workload::{Shape, Workload};

/// Events pushed in a row before it is the other join's turn.
const BLOCK: usize = 1 << 16;
/// Blocks whose steps are timed one by one.
const STEP_BLOCKS: usize = 32;

/// What to measure.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// The stream of events.
    pub shape: Shape,
    /// Events to measure once the click window is full.
    pub events: u64,
    /// Measure the plain join as well.
    pub with_naive: bool,
    /// Bound on the join's memory in bytes.
    pub memory_limit_bytes: u64,
}

/// What came out.
#[derive(Debug)]
pub struct Report {
    /// Exposures within the click window at the end.
    pub pending: u64,
    /// Of the join, in millions a second.
    pub events_per_us: f64,
    /// State of the join in bytes, spare room included.
    pub bytes: u64,
    /// Speed of the plain join in millions a second, and its state in bytes.
    pub naive: Option<(f64, u64)>,
    /// Single steps of the join.
    pub steps: Steps,
    /// The same number of steps that do nothing, measured alike: what the machine and the clock add.
    pub empty_steps: Steps,
    /// How long taking a snapshot stopped the join.
    pub snapshot: Duration,
    /// Steps of the join while the snapshot is held.
    pub steps_meanwhile: Steps,
    /// What the join gave up.
    pub evicted: Evicted,
    /// Every outcome of the join.
    pub counts: Counts,
}

/// How long single steps took, in nanoseconds.
#[derive(Debug, Clone, Copy)]
pub struct Steps {
    /// Half of them took less.
    pub median_ns: u64,
    /// 99.9 % of them took less.
    pub most_ns: u64,
    /// The longest of all.
    pub longest_ns: u64,
}

impl Steps {
    fn of(mut steps: Vec<u64>) -> Self {
        steps.sort_unstable();
        let at = |thousandth: usize| steps.get(steps.len() * thousandth / 1000).copied().unwrap_or(0);
        Self { median_ns: at(500), most_ns: at(999), longest_ns: steps.last().copied().unwrap_or(0) }
    }
}

/// Events and the processor time that they took.
#[derive(Debug, Default)]
struct Measured {
    events: u64,
    taken: Duration,
}

impl Measured {
    fn events_per_us(&self) -> f64 {
        self.events as f64 / self.taken.as_secs_f64() / 1e6
    }
}

/// The join with what it is fed and what it gives.
struct Bench {
    workload: Workload,
    block: Vec<JoinEvent>,
    engine: Engine,
    counts: Counts,
    /// Exposures by second, over the click window.
    exposures: VecDeque<(u64, u64)>,
}

/// Measures, with plain maps that hash with `S` beside the join.
pub fn measure<S: BuildHasher + Default>(plan: Plan) -> Report {
    let config = JoinConfig { memory_limit_bytes: plan.memory_limit_bytes, ..JoinConfig::default() };
    let labels = LabelsTable::new(Reports::none()).key(&Labels::default().into()).0;
    let mut naive = plan.with_naive.then(|| Naive::<S>::new(config.clone()));
    let mut bench = Bench {
        workload: Workload::new(plan.shape, labels),
        block: Vec::new(),
        engine: Engine::new(config),
        counts: Counts::default(),
        exposures: VecDeque::new(),
    };
    let (mut join, mut plain) = <(Measured, Measured)>::default();
    let to_fill = plan.shape.events_to_fill() + BLOCK as u64;
    let mut filled = 0;
    while join.events < plan.events {
        let is_full = filled >= to_fill;
        bench.next_block();
        let taken = bench.push_block();
        if is_full {
            join.taken += taken;
            join.events += BLOCK as u64;
        }
        if let Some(naive) = &mut naive {
            let begin = cpu_time();
            bench.block.iter().for_each(|event| naive.push(event));
            if is_full {
                plain.taken += cpu_time() - begin;
                plain.events += BLOCK as u64;
            }
        }
        filled += BLOCK as u64;
    }
    let pending = bench.exposures.iter().map(|(_, count)| count).sum::<u64>();
    let bytes = bench.engine.memory_bytes();
    let naive = naive.map(|naive| (plain.events_per_us(), naive.memory_bytes()));
    let (steps, empty_steps) = bench.time_steps(STEP_BLOCKS);
    let begin = cpu_time();
    let snapshot = bench.engine.snapshot(&Fingerprinter::random(), Vec::new(), &mut bench.counts);
    let stopped = cpu_time() - begin;
    let (steps_meanwhile, _) = bench.time_steps(STEP_BLOCKS);
    drop(snapshot);
    bench.engine.finish(&mut bench.counts);
    Report {
        pending,
        events_per_us: join.events_per_us(),
        bytes,
        naive,
        steps,
        empty_steps,
        snapshot: stopped,
        steps_meanwhile,
        evicted: bench.engine.evicted(),
        counts: bench.counts,
    }
}

impl Bench {
    /// Makes the next events and counts the exposures among them.
    fn next_block(&mut self) {
        self.workload.fill(&mut self.block, BLOCK);
        let window_seconds = JoinConfig::default().click_window_ns / 1_000_000_000;
        for event in self.block.iter().filter(|event| event.kind == Kind::Exposure) {
            let second = event.timestamp_ns / 1_000_000_000;
            match self.exposures.back_mut() {
                Some((last, count)) if *last >= second => *count += 1,
                _ => self.exposures.push_back((second, 1)),
            }
            while self.exposures.front().is_some_and(|(first, _)| first + window_seconds < second) {
                self.exposures.pop_front();
            }
        }
    }

    /// Pushes the block; how long it took.
    fn push_block(&mut self) -> Duration {
        let begin = cpu_time();
        for event in &self.block {
            self.engine.push(event, &mut self.counts);
        }
        cpu_time() - begin
    }

    /// Pushes blocks and times each step, and beside each a step that does nothing.
    fn time_steps(&mut self, blocks: usize) -> (Steps, Steps) {
        let (mut steps, mut empty_steps) = (Vec::new(), Vec::new());
        for _ in 0..blocks {
            self.next_block();
            for event in &self.block {
                let begin = cpu_time();
                black_box(event);
                let middle = cpu_time();
                self.engine.push(event, &mut self.counts);
                let end = cpu_time();
                empty_steps.push(nanoseconds(middle - begin));
                steps.push(nanoseconds(end - middle));
            }
        }
        (Steps::of(steps), Steps::of(empty_steps))
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Processor time of this thread.
fn cpu_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}
