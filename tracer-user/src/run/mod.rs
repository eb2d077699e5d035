//! The only place that knows all stages: hook, ring, ingest, join, export.
//!
//! [`run`] is the daemon. It checks before it touches anything, attaches, starts one worker thread
//! that takes everything from the ring to the metrics, and serves HTTP beside it. The worker is the
//! only one that writes; when it dies, the process ends with its reason.

mod collectors;
mod coverage;
mod durability;
mod expected;
mod losses;
mod memory;
mod pods;
mod prepare;
mod privileges;
mod publish;
mod reload;
mod sites;
mod state;
mod suspicion;
mod takeover;
mod tls;
mod traces;
mod worker;

use std::{
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
    config::Config,
    export::{
        http::{self, Status},
        otlp,
        recording::Recording,
    },
    join::{JoinConfig, Reports},
    preflight,
};
pub use reload::ConfigFile;
use reload::Reload;
use traces::Traces;

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
    /// Keep the state, where the configuration says where.
    pub durable: bool,
}

/// Runs with `config`, which `file` has, until SIGTERM, SIGINT or the end of `options.duration`, then takes what is left
/// on the ring.
///
/// # Errors
/// Something that tracing needs is missing (before anything is attached), or the worker failed.
pub fn run(config: &Config, file: &ConfigFile, options: &Options) -> anyhow::Result<()> {
    memory::give_back_large_blocks();
    let mut checks = preflight::run(config);
    if !options.serve {
        checks.retain(|check| check.subject != preflight::LISTEN);
    }
    if !options.durable {
        checks.retain(|check| check.subject != preflight::STATE_DIR);
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
    let (traces, triples) = config.otlp.as_ref().filter(|_| options.serve).map(|_| otlp::queue()).unzip();
    let (worker, status) = prepare::prepare(config, options, recording, traces)?;
    let counts = worker.state.publisher.metrics.otlp_triples.clone();
    let metrics = worker.state.publisher.metrics.config_reload.clone();
    let mut reload =
        Reload::start(file, config, options, metrics).context("cannot start the reload thread")?;
    let stop = Arc::new(AtomicBool::new(false));
    let (done, worker_done) = oneshot::channel();
    let (caught_up, is_caught_up) = oneshot::channel();
    let handle = std::thread::Builder::new()
        .name("ingest".to_owned())
        .spawn({
            let stop = Arc::clone(&stop);
            move || {
                let result = worker.work(&stop, caught_up);
                // Nobody listens any more only when the process is on its way out.
                let _ = done.send(result);
            }
        })
        .context("cannot start the ingest thread")?;

    privileges::keep_nothing().context("cannot give up capabilities")?;
    let traces = triples.map(|triples| Traces::start(config, triples, counts)).transpose()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start the HTTP server")?;
    let pages = serve(listener, status, is_caught_up, &mut reload, options.duration, &stop, worker_done);
    let result = runtime.block_on(pages);
    if handle.join().is_err() && result.is_ok() {
        anyhow::bail!("the ingest thread panicked");
    }
    if let Some(traces) = traces {
        traces.finish();
    }
    match result? {
        End::ForGood => Ok(()),
        End::ToBeginAnew => Err(reload.execute()),
    }
}

/// Why serving came to its end.
#[derive(Debug, Clone, Copy)]
enum End {
    ForGood,
    /// With another configuration.
    ToBeginAnew,
}

/// Serves HTTP until there is a reason to stop, then has the worker finish.
async fn serve(
    listener: Option<TcpListener>,
    status: Arc<Status>,
    is_caught_up: oneshot::Receiver<()>,
    reload: &mut Reload,
    duration: Option<Duration>,
    stop: &AtomicBool,
    mut worker_done: oneshot::Receiver<anyhow::Result<()>>,
) -> anyhow::Result<End> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let mut hangup = signal(SignalKind::hangup()).context("cannot wait for SIGHUP")?;
    let server = async {
        // Whoever asks earlier waits: after a restart, counts may not seem to have gone back.
        let _ = is_caught_up.await;
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
    let reason = loop {
        break tokio::select! {
            result = &mut worker_done => {
                result.context("the ingest thread died")?.context("the ingest thread failed")?;
                return Ok(End::ForGood);
            }
            result = &mut server => Err(result.map_or_else(anyhow::Error::from, |()| anyhow::anyhow!("the HTTP server ended"))),
            _ = terminate.recv() => Ok(("SIGTERM", End::ForGood)),
            _ = interrupt.recv() => Ok(("SIGINT", End::ForGood)),
            () = &mut time_is_up => Ok(("end of the duration", End::ForGood)),
            told = hangup.recv() => match told {
                Some(()) => {
                    reload.read();
                    continue;
                }
                None => Err(anyhow::anyhow!("cannot wait for SIGHUP any longer")),
            },
            () = reload.is_taken() => Ok(("another configuration", End::ToBeginAnew)),
        };
    };
    if let Ok((reason, _)) = reason {
        tracing::info!(reason, "finishing: capture goes off, the ring is emptied");
    }
    stop.store(true, Ordering::Relaxed);
    // The pages stay up meanwhile, for a last scrape.
    let finished = tokio::select! {
        result = &mut worker_done => result.context("the ingest thread died")?,
        result = &mut server, if reason.is_ok() => Err(result.map_or_else(anyhow::Error::from, |()| anyhow::anyhow!("the HTTP server ended"))),
    };
    let (_, end) = reason?;
    finished.map(|()| end)
}

/// Ends what earlier runs left at work in the kernel. Returns how many kernel sides there were. What is
/// in `state_dir` stays.
///
/// # Errors
/// A daemon is running, or something cannot be removed.
pub fn detach(config: &Config) -> anyhow::Result<usize> {
    takeover::detach(&config.pin_dir)
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
