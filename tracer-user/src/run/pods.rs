//! The pods of this node: the thread that follows them, and what the worker does with what it says.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, TryRecvError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;

use super::{
    privileges,
    state::State,
    worker::{MAX_RECORDS_PER_BATCH, Worker},
};
use crate::{
    config::Config,
    discover::{
        Settled, Settlement,
        pods::{self, Failure, News, PodBook},
    },
    durable::{Batch, Input},
    export::http::ProbeState,
    ingest::{
        decode::decode,
        held::{HeldRecord, Released, Told},
        interpret::{Reading, Reason, lose},
    },
    telemetry::{Metrics, RECEIVED_EVENT},
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
    was_asked: bool,
}

impl Pods {
    /// Starts to follow the pods where that is configured and there is an API, and waits a while for the first list.
    /// Returns what is known then.
    pub(super) fn start(config: &Config, metrics: &Metrics) -> anyhow::Result<(Self, PodBook)> {
        let Some(api) = pods::wanted(config) else {
            return Ok((Self { news: None, down: None, was_asked: false }, PodBook::alone()));
        };
        let (told, news) = sync_channel(QUEUE);
        let node = config.discover.node_name.clone();
        let follow = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            match privileges::keep_nothing().map_err(Into::into).and(runtime) {
                Ok(runtime) => runtime.block_on(pods::follow(api, &node, told)),
                Err(error) => tracing::error!(%error, "the pods of this node cannot be followed"),
            }
        };
        thread::Builder::new()
            .name("pods".to_owned())
            .spawn(follow)
            .context("cannot start the thread that follows pods")?;
        let mut this = Self { news: None, down: Some((Instant::now(), None)), was_asked: false };
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
    pub(super) fn publish(&self, state: &State) {
        if self.news.is_none() {
            return;
        }
        let State { processes, held, publisher, .. } = state;
        let metrics = &publisher.metrics;
        let age = self.down.as_ref().map_or(Duration::ZERO, |(since, _)| since.elapsed());
        metrics.set_pod_watch(self.down.is_none(), age, processes.pods().count());
        let (waiting, unknown) = processes.count_unsettled();
        metrics.set_unsettled(waiting, unknown);
        let (records, events) = held.counts();
        metrics.set_held_back(records, events);
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
    pub(super) fn learn_pods(&mut self) -> anyhow::Result<()> {
        // What is known at the start may be news for whoever waits since the last run.
        let mut has_news = !std::mem::replace(&mut self.pods.was_asked, true);
        while let Some(news) = self.pods.next()? {
            self.pods.note(&news, &self.state.publisher.metrics);
            has_news |= self.state.processes.learn_pods(news);
        }
        self.coverage.set_pods(self.pods.state(self.state.processes.pods()));
        let settlements = self.state.processes.settle(has_news, self.clock.now_ns());
        self.settle(settlements)?;
        while let Some(wait) = self.state.held.overfull() {
            self.give_up_wait(wait)?;
            self.release_held()?;
        }
        self.release_held()
    }

    /// Nothing waits any more.
    pub(super) fn give_up_waits(&mut self) -> anyhow::Result<()> {
        while let Some(wait) = self.state.held.first_wait() {
            self.give_up_wait(wait)?;
            self.release_held()?;
        }
        Ok(())
    }

    /// After a restart: what waited to be of a service that is no longer configured is of none.
    pub(super) fn drop_waits(&mut self) {
        let State { held, processes, .. } = &mut self.state;
        let over: BTreeSet<u64> = held.waits().filter(|wait| !processes.has_wait(*wait)).collect();
        for wait in over {
            held.settle(wait, Told::OfNone);
        }
    }

    fn give_up_wait(&mut self, wait: u64) -> anyhow::Result<()> {
        match self.state.processes.give_up(wait, self.clock.now_ns()) {
            Some(settlement) => self.settle(vec![settlement]),
            // Its process was forgotten long ago.
            None => {
                self.state.held.settle(wait, Told::Unknown);
                Ok(())
            }
        }
    }

    /// Does what follows from what processes are.
    fn settle(&mut self, settlements: Vec<Settlement>) -> anyhow::Result<()> {
        // Before anything is journaled: the table has forgotten these waits already.
        for Settlement { wait, settled, .. } in &settlements {
            self.state.held.settle(*wait, told(settled));
        }
        settlements.into_iter().try_for_each(|settlement| self.carry_out(settlement))
    }

    fn carry_out(&mut self, settlement: Settlement) -> anyhow::Result<()> {
        let Settlement { pids, settled, is_late, .. } = settlement;
        let outcome = match settled {
            Settled::Of(process) => {
                for pid in &pids {
                    self.trace(*pid);
                    self.coverage.keep_expecting(*pid, Some(process.service));
                }
                if is_late {
                    self.move_horizon("pod_unknown", self.clock.now_ns())?;
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
        self.state.publisher.metrics.pod_waits.with_label_values(&[outcome]).inc();
        Ok(())
    }

    /// Takes in what waits for nothing any more, and journals that it left in one batch with what it turned out to be.
    fn release_held(&mut self) -> anyhow::Result<()> {
        let (mut batch, mut count) = (Batch::default(), 0_usize);
        while let Some(released) = self.state.held.release() {
            match released {
                Released::Event(event) => {
                    self.suspect(&event);
                    batch.inputs.push(Input::Event(event));
                }
                Released::Record(record, told) => self.read_released(&record, told, &mut batch),
            }
            count += 1;
            if count.is_multiple_of(MAX_RECORDS_PER_BATCH) {
                self.commit(std::mem::take(&mut batch))?;
            }
        }
        if count > 0 {
            self.commit(batch)?;
        }
        Ok(())
    }

    fn read_released(&mut self, record: &HeldRecord, told: Told, batch: &mut Batch) {
        let mut readings = Vec::new();
        let tell = &mut |reading| readings.push(reading);
        let State { processes, streams, .. } = &mut self.state;
        match (told, decode(&record.bytes)) {
            (Told::Of(labels), Ok(decoded)) => match processes.process_under(&labels) {
                Some(process) => self.interpreter.read_of(&decoded, &process, streams, tell),
                None => tell(Reading::Nothing(Reason::NotTraced)),
            },
            (Told::OfNone, _) => tell(Reading::Nothing(Reason::NotTraced)),
            (Told::Unknown, Ok(decoded)) => lose(&decoded, tell),
            // It was decoded before.
            (_, Err(_)) => tell(Reading::Nothing(Reason::Undecodable)),
        }
        batch.count_further(record.hook.name(), (readings.len() as u64).saturating_sub(1));
        for reading in readings {
            let outcome = match reading {
                Reading::Event(event) => {
                    self.suspect(&event);
                    batch.inputs.push(Input::Event(event));
                    RECEIVED_EVENT
                }
                Reading::Nothing(reason) => reason.name(),
                // News of a process is never held.
                Reading::Process { .. } => continue,
            };
            batch.count(record.hook.name(), outcome);
        }
    }
}

/// What a settlement means for records that are held.
fn told(settled: &Settled) -> Told {
    match settled {
        Settled::Of(process) => Told::Of(Arc::clone(process.labels())),
        Settled::OfNone => Told::OfNone,
        Settled::Unknown => Told::Unknown,
    }
}
