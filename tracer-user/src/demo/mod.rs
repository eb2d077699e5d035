//! `linktracer demo`: a small recommendation service with faults of known number, traced by a daemon, and the
//! truth beside what was measured.
//!
//! [`plan`] decides everything beforehand from a seed, out of `cases`, which are written with `script`; [`fixture`] has the processes,
//! [`load`] drives them, [`daemon`] is the traced side's other end, [`measure`] reads its metrics, and
//! [`report`] prints. Called by the binary, and by the end-to-end tests through it.
//!
//! Invariants: the demo knows nothing of the tracer but its configuration file and what it publishes; the
//! truth is arithmetic over the plan, never a join; whatever happens, the processes and files that it made
//! are gone when [`run`] returns.

mod cases;
pub mod daemon;
pub mod fixture;
pub mod http;
pub mod load;
pub mod measure;
pub mod plan;
pub mod report;
pub mod reserved;
mod script;
pub mod tally;
pub mod watch;

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;

use std::{
    env, fs,
    io::Write,
    net::SocketAddr,
    num::NonZeroU32,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, anyhow, bail};
use clap::ValueEnum;

use self::{
    daemon::{Daemon, Setup, Windows},
    fixture::{Collector, Fixture},
    load::Services,
    measure::Scrape,
    plan::{Plan, SERVICE_MAX_ID_LEN},
    tally::Tally,
    watch::{Interrupt, Progress, poll},
};
use crate::config::HookChoice;

/// The name under which the demo's service is configured.
pub const SERVICE: &str = "demo";

const WINDOWS: Windows = Windows {
    exposure: Duration::from_secs(10),
    click: Duration::from_secs(60),
    report: Duration::from_secs(5),
};

/// How long what waits may take beyond its windows.
const SETTLE_GRACE: Duration = Duration::from_secs(60);

/// Runs a small service with faults of known number under the tracer, and compares.
#[derive(Debug, Clone, clap::Args)]
pub struct DemoArgs {
    /// Recommendation requests to make
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub requests: u64,

    /// Makes no more than so many HTTP requests a second [default: as many as the service answers]
    #[arg(long, value_name = "N")]
    pub rate: Option<NonZeroU32>,

    /// Repeats the load of an earlier demo [default: another one each time]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,

    /// Which kernel hooks the daemon uses
    #[arg(long, value_enum, default_value = "auto")]
    pub hooks: HookChoice,

    /// The system call by which the service sends its answers
    #[arg(long, value_enum, default_value_t = SendKind::Sendto)]
    pub send: SendKind,

    /// Writes the truth to this file, as JSON
    #[arg(long, value_name = "FILE")]
    pub truth: Option<PathBuf>,

    /// Writes what was measured to this file, as JSON
    #[arg(long, value_name = "FILE")]
    pub measured: Option<PathBuf>,

    /// Has the daemon record its events to this file
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,

    /// Keeps daemon and service running after the comparison, until Ctrl-C
    #[arg(long)]
    pub keep: bool,

    /// Has the daemon send triples as traces to this receiver of OTLP: http://127.0.0.1:4318
    #[arg(long, value_name = "URL")]
    pub otlp: Option<String>,

    /// Starts the daemon by this command, which ends with executing the rest of its words: `setpriv ...`
    #[arg(long, value_name = "COMMAND")]
    pub within: Option<String>,

    /// Where the daemon publishes its metrics; port 0 picks a free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
}

/// The system call by which the service sends its answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[expect(missing_docs, reason = "each is the system call of its name")]
pub enum SendKind {
    Write,
    Writev,
    Sendto,
    Sendmsg,
    Sendmmsg,
}

impl SendKind {
    /// The system call's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Writev => "writev",
            Self::Sendto => "sendto",
            Self::Sendmsg => "sendmsg",
            Self::Sendmmsg => "sendmmsg",
        }
    }
}

/// Runs the demo and prints to `out`. `max_id_len` is the capture limit of ids in bytes. Returns whether
/// every measured count equals the truth.
///
/// Blocks, and catches SIGINT and SIGTERM meanwhile.
pub fn run(args: &DemoArgs, max_id_len: usize, out: &mut dyn Write) -> Result<bool> {
    if max_id_len + 1 >= SERVICE_MAX_ID_LEN {
        bail!("the demo service cannot send ids beyond a capture limit of {max_id_len} bytes");
    }
    let interrupt = Interrupt::catch()?;
    let seed = args.seed.unwrap_or_else(clock_seed);
    let plan = Plan::new(seed, args.requests, max_id_len);
    writeln!(out, "seed {seed}: {} requests with their clicks in {} lanes", args.requests, plan.lanes.len())?;
    write_json(args.truth.as_deref(), &plan.truth)?;

    // Dropped in reverse: the services, the daemon, the collector, and the files last.
    let fixture = Fixture::unpack()?;
    let collector = Collector::start()?;
    let program = env::current_exe().context("find the path of this program")?;
    let setup = Setup {
        service: SERVICE,
        fixture: &fixture,
        collector: collector.address(),
        hooks: args.hooks,
        listen: args.listen,
        windows: WINDOWS,
        record: args.record.as_deref(),
        otlp: args.otlp.as_deref(),
        within: args.within.as_deref(),
    };
    // First of all: what starts after the capture is seen from its beginning.
    let mut daemon = Daemon::start(&program, &setup)?;
    let mut demo =
        Demo { args, plan: &plan, fixture: &fixture, collector: &collector, interrupt: &interrupt };
    let equal = match demo.trace(&mut daemon, out) {
        Err(error) if !interrupt.is_set() => return Err(with_log(&error, &daemon.log_tail())),
        result => result?,
    };
    let log = daemon.log().to_owned();
    daemon.stop().map_err(|error| with_log(&error, &daemon::log_tail(&log)))?;
    Ok(equal)
}

/// What stays the same while a demo runs.
struct Demo<'a> {
    args: &'a DemoArgs,
    plan: &'a Plan,
    fixture: &'a Fixture,
    collector: &'a Collector,
    interrupt: &'a Interrupt,
}

impl Demo<'_> {
    /// Everything that needs a running daemon.
    fn trace(&mut self, daemon: &mut Daemon, out: &mut dyn Write) -> Result<bool> {
        daemon.wait_ready(self.interrupt)?;
        let services = Services::start(self.fixture, self.collector.address(), self.args.send.name())?;
        // No wait for the daemon to find them: what a process does from its first instruction on counts.
        self.load(&services, daemon, out)?;
        let scrape = self.settle(daemon, out)?;
        let measured = scrape.tally(SERVICE)?;
        write_json(self.args.measured.as_deref(), &measured)?;
        report::funnel(&measured, out)?;
        report::kernel_hits(&scrape.kernel_hits()?, out)?;
        let equal = report::comparison(&self.plan.truth, &measured, out)?;
        if !equal {
            report::skipped(&self.plan.truth, &measured, scrape.skipped()?, out)?;
        }
        if self.args.keep {
            self.hold_open(daemon, out)?;
        }
        Ok(equal)
    }

    fn load(&self, services: &Services, daemon: &mut Daemon, out: &mut dyn Write) -> Result<()> {
        let mut progress = Progress::new("load", self.plan.steps);
        let took = load::run(self.plan, services, self.args.rate, |done| {
            self.interrupt.check()?;
            daemon.check_running()?;
            progress.show(done, "", out)
        })?;
        drop(progress);
        load::verify(&self.plan.truth, services.sdk_calls()?, self.collector)?;
        let per_second = self.plan.steps as f64 / took.as_secs_f64();
        writeln!(out, "load: {:.1} s, {per_second:.0} HTTP requests a second", took.as_secs_f64())?;
        Ok(())
    }

    /// Waits until nothing waits in the join any more and the counts stand still.
    fn settle(&self, daemon: &mut Daemon, out: &mut dyn Write) -> Result<Scrape> {
        let limit = WINDOWS.exposure + WINDOWS.click + WINDOWS.report + SETTLE_GRACE;
        let (mut most, mut waiting) = (0, 0);
        let mut progress: Option<Progress> = None;
        let mut last: Option<Tally> = None;
        let settled = poll(limit, Duration::from_millis(500), self.interrupt, || {
            daemon.check_running()?;
            let scrape = Scrape::fetch(daemon.address())?;
            waiting = scrape.waiting()?;
            if waiting > most || progress.is_none() {
                most = waiting;
                progress = Some(Progress::new("settled", most));
            }
            if let Some(progress) = &mut progress {
                progress.show(most - waiting, "once their windows are over", out)?;
            }
            let tally = scrape.tally(SERVICE)?;
            let stands_still = last.replace(tally.clone()) == Some(tally);
            Ok((waiting == 0 && stands_still).then_some(scrape))
        })?;
        let seconds = limit.as_secs();
        settled.with_context(|| format!("{waiting} events still wait for their judgement after {seconds} s"))
    }

    fn hold_open(&self, daemon: &mut Daemon, out: &mut dyn Write) -> Result<()> {
        writeln!(out, "metrics: http://{}/metrics (Ctrl-C ends the demo)", daemon.address())?;
        out.flush()?;
        while !self.interrupt.is_set() {
            daemon.check_running()?;
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }
}

fn write_json(file: Option<&Path>, tally: &Tally) -> Result<()> {
    let Some(file) = file else { return Ok(()) };
    fs::write(file, format!("{:#}\n", tally.to_json())).with_context(|| format!("write {}", file.display()))
}

fn with_log(error: &anyhow::Error, log_tail: &str) -> anyhow::Error {
    anyhow!("{error:#}\nthe daemon's last log lines:\n{log_tail}")
}

/// Any number will do; it is printed.
fn clock_seed() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since_epoch.as_secs() << 10 | u64::from(since_epoch.subsec_millis())
}
