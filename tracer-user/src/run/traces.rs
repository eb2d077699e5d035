//! The thread that sends traces, from its start to its end.
//!
//! It has no privileges, writes nothing but one counter, and nobody waits for it: when it dies, or the receiver is slow,
//! the queue in front of it is full, which is counted.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::Duration,
};

use anyhow::Context as _;
use prometheus::IntCounterVec;

use super::privileges;
use crate::{
    config::Config,
    export::otlp::{Exporter, Triple},
};

/// At the end, what is still in the queue has so long to be sent.
const LAST_CALL: Duration = Duration::from_secs(3);

/// The thread.
pub(super) struct Traces {
    /// Disconnected when the thread has ended.
    ended: Receiver<()>,
}

impl Traces {
    /// Starts it, for a configuration that says where to send to.
    pub(super) fn start(
        config: &Config,
        triples: Receiver<Triple>,
        counts: IntCounterVec,
    ) -> anyhow::Result<Self> {
        let settings = config.otlp.as_ref().context("no receiver of traces is configured")?;
        let exporter = Exporter::new(settings, &config.source, triples, counts)?;
        let (running, ended) = channel();
        let work = move || {
            let _running = running;
            match privileges::keep_nothing() {
                Ok(()) => exporter.run(),
                Err(error) => tracing::error!(%error, "cannot give up capabilities; no traces are sent"),
            }
        };
        std::thread::Builder::new()
            .name("traces".to_owned())
            .spawn(work)
            .context("cannot start the exporter")?;
        Ok(Self { ended })
    }

    /// The queue is closed: waits a while until what is in it was sent.
    pub(super) fn finish(self) {
        if self.ended.recv_timeout(LAST_CALL) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("the receiver did not take the last traces in time; they are dropped");
        }
    }
}
