//! The page of the daemon for a recording: what was replayed, release beside release.
//!
//! Counts with the daemon's own metrics, so that the page says of a recording what it would have said live. It is made
//! once; there is nothing to come. Ids are not shown: the replay forgets them as it reads.

use std::{
    io::Write,
    net::{SocketAddr, TcpListener},
};

use anyhow::{Context as _, Result};
use axum::{Router, http::header::CONTENT_TYPE, response::IntoResponse as _, routing::get};
use prometheus::{Encoder as _, TextEncoder};

use crate::{
    domain::Outcome,
    export::{
        page::{self, Reading, Recorded, View},
        server,
    },
    slo::Examples,
    telemetry::Metrics,
};

/// What the page will show.
pub(super) struct Page {
    listener: TcpListener,
    metrics: Metrics,
    examples: Examples,
    recorded: Option<Recorded>,
}

impl Page {
    /// Begins to listen; nobody is answered yet.
    pub(super) fn open(address: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
        let metrics = Metrics::new().context("metrics")?;
        Ok(Self { listener, metrics, examples: Examples::new(false), recorded: None })
    }

    /// Counts an outcome.
    pub(super) fn judge(&mut self, outcome: &Outcome) {
        self.metrics.count(outcome);
        self.examples.judge(outcome);
        if let Outcome::Link { subject, .. } = outcome {
            let at_ns = subject.timestamp_ns;
            let Recorded { from_ns, to_ns } =
                self.recorded.unwrap_or(Recorded { from_ns: at_ns, to_ns: at_ns });
            self.recorded = Some(Recorded { from_ns: from_ns.min(at_ns), to_ns: to_ns.max(at_ns) });
        }
    }

    /// Says on `notes` where the page is, and serves it until SIGINT or SIGTERM.
    pub(super) fn serve(self, name: &str, rejected: u64, mut notes: impl Write) -> Result<()> {
        let address = self.listener.local_addr().context("the socket has no address")?;
        let recorded = self.recorded.unwrap_or(Recorded { from_ns: 0, to_ns: 0 });
        let reading = Reading::of(&self.metrics.registry.gather());
        let view = View::of_recording(name, recorded, &reading, &self.examples.recent(), rejected);
        let html = page::markup(&view).into_string();
        let mut text = Vec::new();
        let encoder = TextEncoder::new();
        encoder.encode(&self.metrics.registry.gather(), &mut text).context("write the metrics")?;
        let text_type = encoder.format_type().to_owned();
        let router = Router::new()
            .route("/", get(|| async move { (page::headers(), html).into_response() }))
            .route("/metrics", get(|| async move { ([(CONTENT_TYPE, text_type)], text).into_response() }));
        writeln!(notes, "page: http://{address}/ (Ctrl-C ends it)").context("say where the page is")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.context("cannot start the HTTP server")?.block_on(until_told(self.listener, router))
    }
}

async fn until_told(listener: TcpListener, router: Router) -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    tokio::select! {
        result = server::serve(listener, router) => result.context("serve"),
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}
