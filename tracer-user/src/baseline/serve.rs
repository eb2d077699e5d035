//! The baseline as metrics, asked for again every few minutes.
//!
//! While there is no baseline, or Prometheus cannot be asked, there is no series: an old threshold would be worse than
//! none.

use std::{
    net::{SocketAddr, TcpListener},
    thread,
    time::SystemTime,
};

use anyhow::{Context as _, Result};
use axum::{Router, http::header::CONTENT_TYPE, response::IntoResponse as _, routing::get};
use prometheus::{Encoder as _, GaugeVec, IntGaugeVec, Opts, Registry, TextEncoder};
use tokio::sync::oneshot;

use super::{BaselineArgs, Judged, judge};
use crate::{prometheus_api::Prometheus, telemetry::Metric};

pub(super) fn serve(args: BaselineArgs, server: Prometheus, address: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    let registry = Registry::new();
    let gauges = Gauges::register(&registry).context("metrics")?;
    // Dropped when the thread ends, which it only does by a panic.
    let (alive, died) = oneshot::channel::<()>();
    thread::Builder::new()
        .name("baseline".to_owned())
        .spawn(move || {
            let _alive = alive;
            loop {
                gauges.publish(&args.service, judge(&args, &server, SystemTime::now()));
                thread::sleep(args.every);
            }
        })
        .context("cannot start the thread that asks")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start the HTTP server")?.block_on(pages(listener, registry, died))
}

struct Gauges {
    ctr: GaugeVec,
    hours: IntGaugeVec,
}

impl Gauges {
    fn register(registry: &Registry) -> prometheus::Result<Self> {
        let of = |metric: Metric| Opts::new(metric.name(), metric.help());
        let ctr = GaugeVec::new(of(Metric::BaselineCtr), &["service", "quantile"])?;
        let hours = IntGaugeVec::new(of(Metric::BaselineHours), &["service"])?;
        registry.register(Box::new(ctr.clone()))?;
        registry.register(Box::new(hours.clone()))?;
        Ok(Self { ctr, hours })
    }

    fn publish(&self, service: &str, judged: Result<Judged>) {
        let (hours, baseline) = match judged {
            Ok(Judged { no_baseline: Some(reason), hours, .. }) => {
                tracing::warn!(service, %reason, "no baseline");
                (hours, Vec::new())
            }
            Ok(judged) => (judged.hours, judged.baseline),
            Err(error) => {
                tracing::warn!(
                    service,
                    error = format!("{error:#}"),
                    "no baseline: Prometheus was not asked"
                );
                (0, Vec::new())
            }
        };
        self.ctr.reset();
        self.hours.with_label_values(&[service]).set(i64::try_from(hours).unwrap_or(i64::MAX));
        for quantile in baseline {
            self.ctr.with_label_values(&[service, &quantile.quantile.to_string()]).set(quantile.ctr);
        }
    }
}

async fn pages(listener: TcpListener, registry: Registry, died: oneshot::Receiver<()>) -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    listener.set_nonblocking(true).context("prepare the socket")?;
    let listener = tokio::net::TcpListener::from_std(listener).context("prepare the socket")?;
    let metrics = move || async move {
        let encoder = TextEncoder::new();
        let mut text = Vec::new();
        // Writing to memory fails for no registry of ours.
        let _ = encoder.encode(&registry.gather(), &mut text);
        ([(CONTENT_TYPE, encoder.format_type().to_owned())], text).into_response()
    };
    let router =
        Router::new().route("/metrics", get(metrics)).route("/healthz", get(|| async { "healthy\n" }));
    tokio::select! {
        result = axum::serve(listener, router) => result.context("serve"),
        _ = died => Err(anyhow::anyhow!("the thread that asks died")),
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}
