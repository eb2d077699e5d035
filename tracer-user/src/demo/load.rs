//! Carries out a plan against the running services, and makes sure that it was carried out: the truth is
//! only true if the fixture did what the plan says.

use std::{
    collections::HashMap,
    net::SocketAddr,
    num::NonZeroU32,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};

use super::{
    fixture::{Collector, Fixture, SdkCalls, ServiceProcess},
    http::Connection,
    plan::{Case, LANES, Plan, Step, Target},
    script::REPORT_EVENTS,
    tally::{ID_TOO_LONG, Key, Tally},
};
use crate::domain::Kind;

/// The three service processes of a demo.
#[derive(Debug)]
pub struct Services {
    main: ServiceProcess,
    silent: ServiceProcess,
    victim: Mutex<Victim>,
    victim_address: SocketAddr,
}

#[derive(Debug)]
struct Victim {
    process: ServiceProcess,
    /// As of its last settling: nobody can ask it after it was killed.
    calls: SdkCalls,
}

impl Services {
    /// Starts all of them and waits until they listen.
    pub fn start(fixture: &Fixture, collector: SocketAddr, send: &str) -> Result<Self> {
        let [main, silent, victim] =
            Target::ALL.map(|target| ServiceProcess::start(fixture, target, collector, send));
        let victim = victim?;
        Ok(Self {
            main: main?,
            silent: silent?,
            victim_address: victim.address(),
            victim: Mutex::new(Victim { process: victim, calls: SdkCalls::default() }),
        })
    }

    fn address(&self, target: Target) -> SocketAddr {
        match target {
            Target::Main => self.main.address(),
            Target::Silent => self.silent.address(),
            Target::Victim => self.victim_address,
        }
    }

    /// The SDK's own counts in all processes together, after a load.
    pub fn sdk_calls(&self) -> Result<SdkCalls> {
        let (main, silent) = (self.main.sdk_calls()?, self.silent.sdk_calls()?);
        let victim = self.victim.lock().unwrap_or_else(PoisonError::into_inner).calls;
        Ok(SdkCalls {
            exposures: main.exposures + silent.exposures + victim.exposures,
            clicks: main.clicks + silent.clicks + victim.clicks,
        })
    }
}

/// Carries out the plan, at no more than `rate` steps a second if there is one. `tick` is told the number of
/// steps done every now and then; its error ends the load. When this returns without error, every call of the
/// plan has been made and has returned.
pub fn run(
    plan: &Plan,
    services: &Services,
    rate: Option<NonZeroU32>,
    mut tick: impl FnMut(u64) -> Result<()>,
) -> Result<Duration> {
    let started = Instant::now();
    let pace = rate.map(|rate| Pace { next: started, step: LANE_SECOND / rate.get() });
    let (done, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let (sender, receiver) = mpsc::channel();
    let result = thread::scope(|scope| {
        for cases in &plan.lanes {
            let (sender, done, stop) = (sender.clone(), &done, &stop);
            scope.spawn(move || {
                let mut lane = Lane { services, connections: HashMap::new(), pace, done, stop };
                // The receiver is there as long as this scope.
                let _ = sender.send(lane.run(cases));
            });
        }
        let mut running = plan.lanes.len();
        let mut result = Ok(());
        while running > 0 {
            let ended = match receiver.recv_timeout(Duration::from_millis(100)) {
                Ok(ended) => {
                    running -= 1;
                    ended
                }
                Err(_) => Ok(()),
            };
            let next = ended.and_then(|()| tick(done.load(Ordering::Relaxed)));
            if result.is_ok() && next.is_err() {
                stop.store(true, Ordering::Relaxed);
                result = next;
            }
        }
        result
    });
    result.map(|()| started.elapsed())
}

/// An error unless SDK and collector counted what the truth says.
pub fn verify(truth: &Tally, calls: SdkCalls, collector: &Collector) -> Result<()> {
    let of = |kind| truth.get(&Key::Event(kind));
    let lost = truth.get(&Key::Lost(ID_TOO_LONG.into()));
    ensure!(
        calls.exposures + calls.clicks == of(Kind::Exposure) + of(Kind::Click) + lost,
        "the load was not carried out as planned: the SDK counted {} exposures and {} clicks, the plan has {} and {} and {lost} more with over-long ids",
        calls.exposures,
        calls.clicks,
        of(Kind::Exposure),
        of(Kind::Click),
    );
    ensure!(
        collector.reports() * REPORT_EVENTS == of(Kind::Report),
        "the load was not carried out as planned: the collector got {} reports, the plan has {}",
        collector.reports(),
        of(Kind::Report) / REPORT_EVENTS,
    );
    Ok(())
}

/// What a lane may use of a second, in all lanes' steps: each lane makes its share of the rate.
const LANE_SECOND: Duration = Duration::from_secs(LANES as u64);

/// When a lane may take its next step. Part of the load, not of its order.
#[derive(Debug, Clone, Copy)]
struct Pace {
    next: Instant,
    step: Duration,
}

impl Pace {
    fn wait(&mut self) {
        thread::sleep(self.next.saturating_duration_since(Instant::now()));
        self.next += self.step;
    }
}

/// One thread's connections. Steps of one lane happen one after another.
struct Lane<'a> {
    services: &'a Services,
    connections: HashMap<Target, Connection>,
    pace: Option<Pace>,
    done: &'a AtomicU64,
    stop: &'a AtomicBool,
}

impl Lane<'_> {
    fn run(&mut self, cases: &[Case]) -> Result<()> {
        for step in cases.iter().flatten() {
            if self.stop.load(Ordering::Relaxed) {
                // Whoever set this has the reason.
                return Ok(());
            }
            if let Some(pace) = &mut self.pace {
                pace.wait();
            }
            self.step(step)?;
            self.done.fetch_add(1, Ordering::Relaxed);
        }
        for target in [Target::Main, Target::Silent] {
            if self.connections.contains_key(&target) {
                self.settle(target)?;
            }
        }
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::Recommend { target, path } => self.get(*target, path, 200).map(drop),
            Step::Click { target, path } => self.get(*target, path, 204).map(drop),
            Step::Settle(target) => self.settle(*target),
            Step::KillVictim => self.lock_victim()?.process.kill(),
        }
    }

    fn settle(&mut self, target: Target) -> Result<()> {
        let calls = SdkCalls::from_health(&self.get(target, "/healthz", 200)?)?;
        if target == Target::Victim {
            self.lock_victim()?.calls = calls;
        }
        Ok(())
    }

    fn lock_victim(&self) -> Result<MutexGuard<'_, Victim>> {
        self.services.victim.lock().map_err(|_| anyhow!("another lane failed with the victim in its hands"))
    }

    fn get(&mut self, target: Target, path: &str, expected_status: u16) -> Result<Vec<u8>> {
        if !self.connections.contains_key(&target) {
            self.connections.insert(target, Connection::open(self.services.address(target))?);
        }
        let connection = self.connections.get_mut(&target).context("find the connection just opened")?;
        let answer = connection.get(path).with_context(|| format!("ask the {} service", target.name()))?;
        if answer.status != expected_status {
            bail!("the {} service answers {} where {expected_status} is due", target.name(), answer.status);
        }
        Ok(answer.body)
    }
}
