//! Sends triples to a receiver of OTLP.
//!
//! The crate makes the bodies, tries again where the protocol says so, and reads `OTEL_EXPORTER_OTLP_HEADERS`; the
//! connection is that of our HTTP client. Spans that are not taken within [`DEADLINE`] are given up and counted.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use prometheus::IntCounterVec;
use tokio::runtime::{Builder, Runtime};

use super::{Fate, sample::Triple, spans};
use crate::{config::OtlpSettings, domain::Labels};

/// Triples that are sent together.
const MAX_BATCH: usize = 128;
/// The first of a batch waits this long for others.
const BATCH_DELAY: Duration = Duration::from_secs(1);
/// For one request and its answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// For a request with its repetitions.
const DEADLINE: Duration = Duration::from_secs(10);
/// Bytes of an answer that are read.
const MAX_ANSWER: u64 = 64 * 1024;

/// The exporter cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ExporterError {
    /// By the crate for OTLP.
    #[error("cannot export to {endpoint}: {error}")]
    Build {
        /// The receiver.
        endpoint: String,
        /// Why.
        error: ExporterBuildError,
    },
    /// The system refused.
    #[error("cannot start the exporter: {0}")]
    Runtime(#[from] std::io::Error),
}

/// The receiving end of the queue.
#[derive(Debug)]
pub struct Exporter {
    triples: Receiver<Triple>,
    exporter: SpanExporter,
    runtime: Runtime,
    endpoint: String,
    source: String,
    show_ids: bool,
    counts: IntCounterVec,
    /// The last batch was taken.
    is_heard: bool,
}

impl Exporter {
    /// One that tells what is in the queue in the name of the node `source`. Nothing is sent yet.
    ///
    /// # Errors
    /// Never with what the configuration lets pass, as long as the system has a file descriptor left.
    pub fn new(
        settings: &OtlpSettings,
        source: &str,
        triples: Receiver<Triple>,
        counts: IntCounterVec,
    ) -> Result<Self, ExporterError> {
        let endpoint = format!("{}/v1/traces", settings.endpoint);
        let built = SpanExporter::builder()
            .with_http()
            .with_http_client(Client::new())
            .with_endpoint(&endpoint)
            .with_timeout(DEADLINE)
            .build();
        let exporter = built.map_err(|error| ExporterError::Build { endpoint: endpoint.clone(), error })?;
        Ok(Self {
            triples,
            exporter,
            runtime: Builder::new_current_thread().build()?,
            endpoint,
            source: source.to_owned(),
            show_ids: settings.show_ids,
            counts,
            is_heard: true,
        })
    }

    /// Sends what comes until the queue is closed, and what is in it then.
    pub fn run(mut self) {
        while let Ok(first) = self.triples.recv() {
            let mut batch = vec![first];
            let until = Instant::now() + BATCH_DELAY;
            while batch.len() < MAX_BATCH {
                match self.triples.recv_timeout(until.saturating_duration_since(Instant::now())) {
                    Ok(triple) => batch.push(triple),
                    Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
                }
            }
            self.send(&batch);
        }
    }

    /// Sends a batch, one request for each set of labels: a request has one resource.
    fn send(&mut self, batch: &[Triple]) {
        let mut by_labels: BTreeMap<Arc<Labels>, Vec<SpanData>> = BTreeMap::new();
        for (labels, span) in batch.iter().flat_map(|triple| spans::of(triple, self.show_ids)) {
            by_labels.entry(labels).or_default().push(span);
        }
        let result = by_labels.into_iter().try_for_each(|(labels, spans)| {
            self.exporter.set_resource(&spans::resource(&self.source, &labels));
            self.runtime.block_on(self.exporter.export(spans))
        });
        let fate = if result.is_ok() { Fate::Exported } else { Fate::Failed };
        self.counts.with_label_values(&[fate.name()]).inc_by(batch.len() as u64);
        let was_heard = std::mem::replace(&mut self.is_heard, result.is_ok());
        let endpoint = &self.endpoint;
        match result {
            Err(error) if was_heard => {
                tracing::warn!(%error, %endpoint, "the receiver does not take traces; they are dropped and counted until it does");
            }
            Ok(()) if !was_heard => tracing::info!(%endpoint, "the receiver takes traces again"),
            _ => {}
        }
    }
}

/// Our HTTP client as the crate for OTLP wants it. It blocks, in a thread that has nothing else to do.
#[derive(Debug)]
struct Client(ureq::Agent);

impl Client {
    fn new() -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            // What is said beside a status, and what follows from it, is for the crate to judge.
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false);
        Self(config.build().into())
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (head, body) = request.into_parts();
        let (head, mut body) = self.0.run(Request::from_parts(head, &body[..]))?.into_parts();
        let answer = body.with_config().limit(MAX_ANSWER).read_to_vec()?;
        Ok(Response::from_parts(head, answer.into()))
    }
}

#[cfg(test)]
mod tests;
