//! What tracing costs the traced service: the demo's service under the same load, without a daemon and with one, in
//! turns.
//!
//! The same processes serve all turns, so that a pair of turns differs by the daemon alone. Each turn has two loads for
//! each kind of request: one at a steady rate below what the service can serve, for processor time and latency, and one
//! as fast as it answers. That the daemon did trace is seen from its counts, which have to be what was sent.
//!
//! Knows nothing of the tracer but its configuration and its metrics, like the demo whose parts it uses.

mod load;
mod processor;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use tracer_user::{
    config::HookChoice,
    demo::{
        daemon::{Daemon, Setup, Windows},
        fixture::{Collector, Fixture, ServiceProcess},
        measure::Scrape,
        plan::Target,
        watch::{Interrupt, Progress},
    },
};

use self::{
    load::{Latencies, fast, steady},
    processor::processor_time,
};

/// Items of a page.
const ITEMS: usize = 10;
const SERVICE: &str = "measured";
/// By when all records that a turn made must have been counted.
const SETTLE_LIMIT: Duration = Duration::from_secs(30);

/// What to measure.
#[derive(Debug)]
pub struct Plan {
    /// The `linktracer` to measure.
    pub program: PathBuf,
    /// Pairs of turns, without and with.
    pub pairs: u32,
    /// Of each load.
    pub duration: Duration,
    /// Requests a second of the steady load.
    pub rate: u32,
    /// Which kernel hooks the daemon uses.
    pub hooks: HookChoice,
}

/// A kind of request to the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// An answer with a request id, and ten calls of `trackExposure`.
    Page,
    /// An answer with a request id, and no call.
    Answer,
    /// One call of `trackClick`, and a report over a connection of its own.
    Click,
    /// As `Page`, of a service that the configuration does not name.
    UntracedPage,
}

impl Request {
    /// Every kind, in the order of the table.
    pub const ALL: [Self; 4] = [Self::Page, Self::Answer, Self::Click, Self::UntracedPage];

    /// What it is called in the table.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Page => "a page: an answer and 10 exposures",
            Self::Answer => "an answer alone",
            Self::Click => "a click and its report",
            Self::UntracedPage => "a page of a service that is not traced",
        }
    }

    fn path(self, id: u64) -> String {
        match self {
            Self::Page | Self::UntracedPage => {
                let items: Vec<String> = (0..ITEMS).map(|item| format!("item-{item:010}")).collect();
                format!("/recommend?id=request-{id:016x}&items={}", items.join(","))
            }
            Self::Answer => format!("/recommend?id=request-{id:016x}&items="),
            Self::Click => format!("/click?id=request-{id:016x}&item=item-0000000000"),
        }
    }
}

/// What one kind of request took in one turn.
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    /// Processor time of the service a request at the steady rate, in nanoseconds.
    pub service_ns: f64,
    /// Processor time of the daemon a request at the steady rate, in nanoseconds; 0 without one.
    pub daemon_ns: f64,
    /// Half of the answers at the steady rate came within this, in nanoseconds.
    pub median_ns: u64,
    /// 99 % of the answers at the steady rate came within this, in nanoseconds.
    pub most_ns: u64,
    /// Requests a second as fast as the service answers.
    pub per_second: f64,
}

/// One kind of request, without the daemon and with it, in one pair of turns.
#[derive(Debug, Clone, Copy)]
pub struct Pair {
    /// Which kind.
    pub request: Request,
    /// Without the daemon.
    pub without: Figures,
    /// With the daemon.
    pub with: Figures,
}

/// Everything that is there in all turns.
struct Bench<'a> {
    plan: &'a Plan,
    /// Dropped in this order: the services before what they use.
    traced: ServiceProcess,
    untraced: ServiceProcess,
    collector: Collector,
    fixture: Fixture,
    /// The same files once more: others to the kernel.
    _elsewhere: Fixture,
    interrupt: Interrupt,
    next_id: u64,
}

/// Requests of each kind that were sent in a turn.
#[derive(Debug, Default, Clone, Copy)]
struct Sent {
    pages: u64,
    answers: u64,
    clicks: u64,
}

impl Sent {
    fn note(&mut self, request: Request, count: u64) {
        match request {
            Request::Page => self.pages += count,
            Request::Answer => self.answers += count,
            Request::Click => self.clicks += count,
            Request::UntracedPage => {}
        }
    }
}

/// Runs all pairs of turns.
///
/// # Errors
/// A process does not start or end, the daemon did not count what was sent, or somebody interrupts.
pub fn measure(plan: &Plan) -> Result<Vec<Pair>> {
    let (fixture, elsewhere, collector) = (Fixture::unpack()?, Fixture::unpack()?, Collector::start()?);
    let start = |fixture| ServiceProcess::start(fixture, Target::Main, collector.address(), "sendto");
    let mut bench = Bench {
        plan,
        traced: start(&fixture)?,
        untraced: start(&elsewhere)?,
        collector,
        fixture,
        _elsewhere: elsewhere,
        interrupt: Interrupt::catch()?,
        next_id: 0,
    };
    let mut progress = Progress::new("pairs of turns", plan.pairs.into());
    // The first turn of all warms up, and is not counted.
    bench.turn(None)?;
    let mut pairs = Vec::new();
    for number in 0..plan.pairs {
        let without = bench.turn(None)?;
        let with = bench.traced_turn()?;
        let turns = Request::ALL.into_iter().zip(without).zip(with);
        pairs.extend(turns.map(|((request, without), with)| Pair { request, without, with }));
        progress.show(u64::from(number) + 1, "", &mut std::io::stderr())?;
    }
    Ok(pairs)
}

impl Bench<'_> {
    fn traced_turn(&mut self) -> Result<[Figures; Request::ALL.len()]> {
        let setup = Setup {
            service: SERVICE,
            fixture: &self.fixture,
            collector: self.collector.address(),
            hooks: self.plan.hooks,
            listen: ([127, 0, 0, 1], 0).into(),
            windows: Windows {
                exposure: Duration::from_secs(600),
                click: Duration::from_secs(1800),
                report: Duration::from_secs(30),
            },
            record: None,
            otlp: None,
            within: None,
        };
        let mut daemon = Daemon::start(&self.plan.program, &setup)?;
        daemon.wait_ready(&self.interrupt)?;
        let figures = self.turn(Some(&daemon))?;
        daemon.stop()?;
        Ok(figures)
    }

    /// One load of each sort for each kind of request.
    fn turn(&mut self, daemon: Option<&Daemon>) -> Result<[Figures; Request::ALL.len()]> {
        let mut sent = Sent::default();
        let mut figures = Vec::new();
        for request in Request::ALL {
            self.interrupt.check()?;
            figures.push(self.load(request, daemon, &mut sent)?);
        }
        figures.try_into().ok().context("one for each kind")
    }

    /// Each load begins when the daemon has come to the end of the one before.
    fn load(&mut self, request: Request, daemon: Option<&Daemon>, sent: &mut Sent) -> Result<Figures> {
        let service = if request == Request::UntracedPage { &self.untraced } else { &self.traced };
        let (address, service) = (service.address(), service.id());
        let Plan { duration, rate, .. } = *self.plan;
        let first = self.next_id;

        let mut spent = [Duration::ZERO; 2];
        let latencies = steady(
            address,
            rate,
            duration,
            |id| request.path(first + id),
            |begins| {
                let of_daemon = daemon.map_or(Ok(Duration::ZERO), |daemon| processor_time(daemon.id()))?;
                let now = [processor_time(service)?, of_daemon];
                spent = if begins { now } else { [now[0] - spent[0], now[1] - spent[1]] };
                Ok(())
            },
        )?;
        let Latencies { count, median_ns, most_ns } = latencies;
        sent.note(request, count);
        daemon.map_or(Ok(()), |daemon| self.check(daemon, *sent))?;

        let second = first + count;
        let begun = Instant::now();
        let fast_count = fast(address, duration, |id| request.path(second + id))?;
        let per_second = fast_count as f64 / begun.elapsed().as_secs_f64();
        sent.note(request, fast_count);
        daemon.map_or(Ok(()), |daemon| self.check(daemon, *sent))?;

        self.next_id = second + fast_count;
        let [service_ns, daemon_ns] = spent.map(|time| time.as_nanos() as f64 / count.max(1) as f64);
        Ok(Figures { service_ns, daemon_ns, median_ns, most_ns, per_second })
    }

    /// Waits until the daemon has counted what was sent, all of it and nothing else, and has joined it: what is within the
    /// lateness is worked on later, and would be counted for the next load.
    fn check(&self, daemon: &Daemon, sent: Sent) -> Result<()> {
        let expected = [
            ("request", sent.pages + sent.answers),
            ("exposure", sent.pages * ITEMS as u64),
            ("click", sent.clicks),
        ];
        let deadline = Instant::now() + SETTLE_LIMIT;
        loop {
            let scrape = Scrape::fetch(daemon.address())?;
            let counted = |kind: &str| {
                let is_it = |sample: &&tracer_user::demo::measure::Sample| {
                    sample.name == "linktracer_events_total" && sample.label("kind") == kind
                };
                scrape.samples().iter().filter(is_it).map(|sample| sample.value).sum::<f64>()
            };
            let counts = expected.map(|(kind, sent)| (kind, sent as f64, counted(kind)));
            let buffered = scrape.samples().iter().any(|sample| {
                sample.name == "linktracer_pending"
                    && sample.label("table") == "reorder_buffer"
                    && sample.value > 0.0
            });
            if !buffered && counts.iter().all(|(_, sent, counted)| sent == counted) {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "the daemon did not count what was sent (kind, sent, counted): {counts:?}\n{}",
                daemon.log_tail()
            );
            self.interrupt.check()?;
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}
