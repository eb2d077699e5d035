//! The only place that knows all stages: hook, ring, ingest, join, export.
//!
//! [`run`] is the daemon. It checks before it touches anything, attaches, starts one worker thread
//! that takes everything from the ring to the metrics, and serves HTTP beside it. The worker is the
//! only one that writes; when it dies, the process ends with its reason.

mod coverage;
mod expected;
mod held;
mod losses;
mod pods;
mod privileges;
mod publish;
mod suspicion;
mod tls;
mod worker;

use std::{
    collections::BTreeSet,
    net::TcpListener,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use tokio::sync::oneshot;

use crate::{
    attach::{Kernel, Settings, target_flags},
    config::Config,
    discover::{self, Processes},
    domain::Kind,
    export::{
        http::{self, Status},
        recording::Recording,
    },
    hold::{Gate, Policy},
    ingest::{
        clock::{self, Clock},
        interpret::Interpreter,
    },
    join::{Join, JoinConfig, Reports},
    preflight,
    telemetry::{KernelCollector, Metrics},
};
use coverage::Coverage;
use held::Held;
use losses::LossMeter;
use pods::Pods;
use publish::Publisher;
use suspicion::Suspicion;
use worker::Worker;

/// What the daemon is told beside its configuration.
#[derive(Debug, Default)]
pub struct Options {
    /// Write every event to this file.
    pub record: Option<PathBuf>,
    /// Serve `/metrics` and the rest.
    pub serve: bool,
    /// End after this long.
    pub duration: Option<Duration>,
    /// Let the kernel side log what it loses.
    pub kernel_log: bool,
}

/// Runs until SIGTERM, SIGINT or the end of `options.duration`, then takes what is left on the ring.
///
/// # Errors
/// Something that tracing needs is missing (before anything is attached), or the worker failed.
pub fn run(config: &Config, options: &Options) -> anyhow::Result<()> {
    let mut checks = preflight::run(config);
    if !options.serve {
        checks.retain(|check| check.subject != preflight::LISTEN);
    }
    let failures: Vec<String> = preflight::failures(&checks).map(ToString::to_string).collect();
    if !failures.is_empty() {
        anyhow::bail!("cannot trace here, nothing was attached:\n{}", failures.join("\n"));
    }
    let listener = options.serve.then(|| TcpListener::bind(config.listen)).transpose();
    let listener = listener.with_context(|| format!("cannot listen on {}", config.listen))?;
    let recording = options.record.as_deref().map(Recording::create).transpose()?;

    // Files and the port are open by now, whoever they belong to.
    privileges::keep_for_tracing().context("cannot give up capabilities")?;
    let (worker, status) = prepare(config, options, recording)?;
    let stop = Arc::new(AtomicBool::new(false));
    let (done, worker_done) = oneshot::channel();
    let handle = std::thread::Builder::new()
        .name("ingest".to_owned())
        .spawn({
            let stop = Arc::clone(&stop);
            move || {
                let result = worker.work(&stop);
                // Nobody listens any more only when the process is on its way out.
                let _ = done.send(result);
            }
        })
        .context("cannot start the ingest thread")?;

    privileges::keep_for_serving().context("cannot give up capabilities")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start the HTTP server")?;
    let result = runtime.block_on(serve(listener, status, options.duration, &stop, worker_done));
    if handle.join().is_err() && result.is_ok() {
        anyhow::bail!("the ingest thread panicked");
    }
    result
}

/// Loads and attaches everything and switches capture on.
fn prepare(
    config: &Config,
    options: &Options,
    recording: Option<Recording>,
) -> anyhow::Result<(Worker, Arc<Status>)> {
    let settings = Settings {
        offsets: preflight::layout::read(&config.btf)?,
        ring_bytes: config.ring_buffer_size,
        hooks: config.hooks,
        has_collectors: config.services.iter().any(|service| service.report.is_some()),
        pending_flags: config.services.iter().map(target_flags).fold(0, std::ops::BitOr::bitor),
        kernel_log: options.kernel_log,
    };
    let metrics = Metrics::new().context("metrics")?;
    let clock = Clock::start()?;
    let (pods, book) = Pods::start(config, &metrics)?;
    let (mut kernel, channels) = Kernel::load(&settings)?;
    for attached in kernel.hooks() {
        tracing::info!(hook = attached.hook.name(), kind = attached.kind.name(), "attached");
    }
    let counters = Arc::new(channels.counters);
    let collector =
        KernelCollector::new(Arc::clone(&counters), metrics.received.clone()).context("metrics")?;
    metrics.registry.register(Box::new(collector)).context("metrics")?;
    let status = Arc::new(Status::new(&config.source, metrics.registry.clone(), clock::monotonic_ns));

    let services: Arc<[_]> = config.services.clone().into();
    let mut processes = Processes::new(Arc::clone(&services), book, config.discover.pod_wait);
    let mut coverage = Coverage::new(Arc::clone(&services), kernel.hooks());
    // Processes are followed by now, so none can slip in between this look and the events.
    let running = processes.scan();
    for pid in &running {
        let flags = processes.services_of(*pid).into_iter().map(|service| target_flags(&services[service]));
        kernel.trace_process(*pid, flags.fold(0, std::ops::BitOr::bitor))?;
    }
    coverage.attach_known_files(&mut kernel, &processes, &metrics, &clock)?;
    for pid in &running {
        coverage.expect(*pid, &processes.services_of(*pid), clock.now_ns(), false);
    }
    let join = Join::new(join_config(config));
    metrics.state_limit_bytes.set(i64::try_from(config.join.memory_limit).unwrap_or(i64::MAX));
    let source: Arc<str> = config.source.as_str().into();
    let interpreter = Interpreter::new(Arc::clone(&services), Arc::clone(&source), clock);
    let names = interpreter.collectors().names();
    let answers = (!names.is_empty()).then(|| discover::resolve(names)).transpose();
    let mut worker = Worker {
        interpreter,
        suspicion: Suspicion::new(&config.services),
        services,
        answers: answers.context("cannot start the thread that looks up names")?,
        collectors: BTreeSet::new(),
        readings: Vec::new(),
        publisher: Publisher::new(
            metrics,
            Arc::clone(&status),
            clock,
            Arc::clone(&source),
            LossMeter::new(counters),
            config,
        ),
        ring: channels.ring,
        source,
        kernel,
        processes,
        coverage,
        pods,
        held: Held::default(),
        join,
        recording,
        clock,
        gate: None,
    };
    worker.tell_collectors()?;
    worker.wait_for_names()?;
    worker.kernel.set_capture(true)?;
    // Only now: what runs already is probed as it is.
    worker.gate = config.discover.hold_exec.then(|| Gate::start(&Policy::of(config))).transpose()?;
    if !running.is_empty() {
        let now_ns = clock.now_ns();
        for kind in [Kind::Request, Kind::Exposure] {
            worker.join.set_horizon(kind, now_ns);
        }
        let moves = &worker.publisher.metrics.horizon_moves;
        moves.with_label_values(&["process_older_than_capture"]).inc();
    }
    tracing::info!(
        running = running.len(),
        sleepable_uprobes = worker.kernel.sleepable(),
        ready = worker.coverage.is_complete(),
        "capture is on"
    );
    worker.coverage.set_pods(worker.pods.state(worker.processes.pods()));
    status.set_probes(worker.coverage.states());
    Ok((worker, status))
}

/// Serves HTTP until there is a reason to stop, then has the worker finish.
async fn serve(
    listener: Option<TcpListener>,
    status: Arc<Status>,
    duration: Option<Duration>,
    stop: &AtomicBool,
    mut worker_done: oneshot::Receiver<anyhow::Result<()>>,
) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let server = async {
        match listener {
            Some(listener) => http::serve(listener, status).await,
            None => std::future::pending().await,
        }
    };
    let time_is_up = async {
        match duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(server, time_is_up);
    let reason = tokio::select! {
        result = &mut worker_done => return result.context("the ingest thread died")?.context("the ingest thread failed"),
        result = &mut server => Err(result.map_or_else(anyhow::Error::from, |()| anyhow::anyhow!("the HTTP server ended"))),
        _ = terminate.recv() => Ok("SIGTERM"),
        _ = interrupt.recv() => Ok("SIGINT"),
        () = &mut time_is_up => Ok("end of the duration"),
    };
    if let Ok(reason) = reason {
        tracing::info!(reason, "finishing: capture goes off, the ring is emptied");
    }
    stop.store(true, Ordering::Relaxed);
    // The pages stay up meanwhile, for a last scrape.
    let finished = tokio::select! {
        result = &mut worker_done => result.context("the ingest thread died")?,
        result = &mut server, if reason.is_ok() => Err(result.map_or_else(anyhow::Error::from, |()| anyhow::anyhow!("the HTTP server ended"))),
    };
    reason.and(finished)
}

fn join_config(config: &Config) -> JoinConfig {
    let settings = &config.join;
    let ns = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    let with_reports = config.services.iter().filter(|service| service.report.is_some());
    JoinConfig {
        exposure_window_ns: ns(settings.exposure_window),
        click_window_ns: ns(settings.click_window),
        report_window_ns: ns(settings.report_window),
        lateness_ns: ns(settings.lateness),
        skew_ns: ns(settings.skew),
        memory_limit_bytes: settings.memory_limit,
        reports: Reports::Services(with_reports.map(|service| service.name.as_str().into()).collect()),
        ..JoinConfig::default()
    }
}
