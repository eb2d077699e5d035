//! The pods of this node: the thread that follows them, and what the worker does with what it says.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, sync_channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;

use super::{held::Released, privileges, worker::Worker};
use crate::{
    config::Config,
    discover::{
        Processes, Settled, Settlement,
        pods::{self, Failure, News, PodBook},
    },
    domain::Outcome,
    export::http::ProbeState,
    ingest::{
        decode::decode,
        interpret::{Reading, Reason, lose},
    },
    telemetry::Metrics,
};

/// News that the thread may be ahead of the worker; then it waits.
const QUEUE: usize = 256;
/// The start waits this long for the first list: an API that does not answer is no reason not to trace.
const FIRST_LIST: Duration = Duration::from_secs(2);

/// What comes from the API, and how that stands.
pub(super) struct Pods {
    /// None where pods are not followed.
    news: Option<Receiver<News>>,
    /// Since when they are not followed, and why; `None` while they are.
    down: Option<(Instant, Option<Failure>)>,
}

impl Pods {
    /// Starts to follow the pods where that is configured and there is an API, and waits a while for the first list.
    /// Returns what is known then.
    pub(super) fn start(config: &Config, metrics: &Metrics) -> anyhow::Result<(Self, PodBook)> {
        let Some(api) = pods::wanted(config) else {
            return Ok((Self { news: None, down: None }, PodBook::alone()));
        };
        let (told, news) = sync_channel(QUEUE);
        let node = config.discover.node_name.clone();
        let follow = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            match privileges::keep_none().map_err(Into::into).and(runtime) {
                Ok(runtime) => runtime.block_on(pods::follow(api, &node, told)),
                Err(error) => tracing::error!(%error, "the pods of this node cannot be followed"),
            }
        };
        thread::Builder::new()
            .name("pods".to_owned())
            .spawn(follow)
            .context("cannot start the thread that follows pods")?;
        let mut this = Self { news: None, down: Some((Instant::now(), None)) };
        let mut book = PodBook::followed();
        let deadline = Instant::now() + FIRST_LIST;
        while !book.was_listed() {
            match news.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(told) => {
                    this.note(&told, metrics);
                    book.learn(told, Instant::now());
                }
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => anyhow::bail!("the thread that follows pods died"),
            }
        }
        this.news = Some(news);
        Ok((this, book))
    }

    /// The next that the thread has said.
    fn next(&self) -> anyhow::Result<Option<News>> {
        match self.news.as_ref().map(Receiver::try_recv) {
            None | Some(Err(TryRecvError::Empty)) => Ok(None),
            Some(Err(TryRecvError::Disconnected)) => anyhow::bail!("the thread that follows pods died"),
            Some(Ok(news)) => Ok(Some(news)),
        }
    }

    /// Notes how the watch stands.
    fn note(&mut self, news: &News, metrics: &Metrics) {
        match news {
            News::Failed(failure) => {
                tracing::warn!(%failure, "the pods of this node are not followed now; those that are known go on being used");
                metrics.pod_watch_errors.with_label_values(&[failure.reason.name()]).inc();
                let since = self.down.take().map_or_else(Instant::now, |(since, _)| since);
                self.down = Some((since, Some(failure.clone())));
            }
            News::Following => {
                if self.down.take().is_some() {
                    tracing::info!("the pods of this node are followed");
                }
            }
            News::Listed(_) | News::Applied(_) | News::Deleted(_) => {}
        }
    }

    /// Publishes how the watch stands.
    pub(super) fn publish(&self, processes: &Processes, metrics: &Metrics) {
        if self.news.is_some() {
            let age = self.down.as_ref().map_or(Duration::ZERO, |(since, _)| since.elapsed());
            metrics.set_pod_watch(self.down.is_none(), age, processes.pods().count());
        }
        let (waiting, unknown) = processes.count_unsettled();
        metrics.set_unsettled(waiting, unknown);
    }

    /// What readiness has to say of it; nothing where pods are not followed.
    pub(super) fn state(&self, book: &PodBook) -> Option<ProbeState> {
        self.news.as_ref()?;
        let why = self.down.as_ref().map(|(_, failure)| match failure {
            Some(failure) => failure.to_string(),
            None => "the API has not answered yet".to_owned(),
        });
        let (missing, awaited) = match why {
            Some(why) if book.was_listed() => (
                None,
                Some(format!("the pods of this node are not followed: {why}; those known before are used")),
            ),
            Some(why) => (Some(format!("the pods of this node are not known: {why}")), None),
            None => (None, None),
        };
        Some(ProbeState { name: "kubernetes/pods".to_owned(), missing, awaited, unheard_requests: 0 })
    }
}

impl Worker {
    /// Takes what there is to know of pods, and lets go on what waited for it.
    pub(super) fn learn_pods(&mut self, out: &mut Vec<Outcome>) -> anyhow::Result<()> {
        let mut has_news = false;
        while let Some(news) = self.pods.next()? {
            self.pods.note(&news, &self.publisher.metrics);
            has_news |= self.processes.learn_pods(news);
        }
        self.coverage.set_pods(self.pods.state(self.processes.pods()));
        for settlement in self.processes.settle(has_news, self.clock.now_ns()) {
            self.settle(settlement);
        }
        while let Some(wait) = self.held.overfull() {
            self.give_up_wait(wait);
            self.release_held(out)?;
        }
        self.release_held(out)
    }

    /// Nothing waits any more.
    pub(super) fn give_up_waits(&mut self, out: &mut Vec<Outcome>) -> anyhow::Result<()> {
        while let Some(wait) = self.held.first_wait() {
            self.give_up_wait(wait);
            self.release_held(out)?;
        }
        Ok(())
    }

    fn give_up_wait(&mut self, wait: u64) {
        match self.processes.give_up(wait, self.clock.now_ns()) {
            Some(settlement) => self.settle(settlement),
            // Its process was forgotten long ago.
            None => self.held.settle(wait, &Settled::Unknown),
        }
    }

    /// Does what follows from what a process is.
    fn settle(&mut self, settlement: Settlement) {
        let Settlement { wait, pids, settled, is_late } = settlement;
        self.held.settle(wait, &settled);
        let outcome = match &settled {
            Settled::Of(process) => {
                for pid in &pids {
                    self.trace(*pid);
                    self.coverage.keep_expecting(*pid, Some(process.service));
                }
                if is_late {
                    let now_ns = self.clock.now_ns();
                    let metrics = &self.publisher.metrics;
                    self.coverage.move_horizon("pod_unknown", now_ns, &mut self.join, metrics);
                }
                "matched"
            }
            Settled::OfNone => {
                for pid in &pids {
                    self.kernel.forget_process(*pid);
                    self.coverage.keep_expecting(*pid, None);
                }
                "not_matched"
            }
            Settled::Unknown => {
                tracing::warn!(
                    ?pids,
                    "what Kubernetes has to say of these processes did not come in time: what they do is lost until it does"
                );
                "given_up"
            }
        };
        self.publisher.metrics.pod_waits.with_label_values(&[outcome]).inc();
    }

    /// Takes in what waits for nothing any more.
    fn release_held(&mut self, out: &mut Vec<Outcome>) -> anyhow::Result<()> {
        while let Some(released) = self.held.release() {
            let (record, settled) = match released {
                Released::Event(event) => {
                    self.take_event(*event, out)?;
                    continue;
                }
                Released::Record(record, settled) => (record, settled),
            };
            let mut readings = Vec::new();
            match (settled, decode(&record.bytes)) {
                (Settled::Of(process), Ok(decoded)) => {
                    self.interpreter.read_held(&decoded, &process, &mut |reading| readings.push(reading));
                }
                (Settled::OfNone, _) => readings.push(Reading::Nothing(Reason::NotTraced)),
                (Settled::Unknown, Ok(decoded)) => lose(&decoded, &mut |reading| readings.push(reading)),
                // It was decoded before.
                (_, Err(_)) => readings.push(Reading::Nothing(Reason::Undecodable)),
            }
            self.publisher.count_further(record.hook, readings.len().saturating_sub(1));
            for reading in readings {
                self.publisher.count_reading(record.hook, &reading);
                if let Reading::Event(event) = reading {
                    self.take_event(event, out)?;
                }
            }
        }
        let (records, events) = self.held.counts();
        self.publisher.metrics.set_held_back(records, events);
        Ok(())
    }
}
