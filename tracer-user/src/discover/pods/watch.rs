//! Follows the pods of one node at the Kubernetes API: a list, then a watch from its version on, and again.
//!
//! The loop is our own, over `kube`'s client: what it publishes of itself is that a watch *stands*, and the loop of
//! `kube-runtime` says so only when a pod changes. It knows nothing of processes, and never ends: what goes wrong is
//! told, and tried again after a pause. Called in a thread of its own.

use std::{
    env, fmt,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::Path,
    pin::pin,
    sync::mpsc::SyncSender,
    time::{Duration, Instant},
};

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1;
use kube::{
    Client,
    api::{ListParams, WatchEvent, WatchParams},
    config::KubeConfigOptions,
};

use super::Pod;
use crate::config::{Config, Service};

/// Pods in one answer to a list.
const PAGE: u32 = 500;
/// A list that takes longer has failed.
const LIST_LIMIT: Duration = Duration::from_secs(30);
/// A watch is asked to end after this long, in seconds; one that says nothing at all for longer is dead.
const WATCH_SECONDS: u32 = 240;
const SILENCE_LIMIT: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 10);
/// Pauses after failures: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A watch that stood this long was a good one.
const GOOD_WATCH: Duration = Duration::from_secs(5);

/// Where the API is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    /// The file that `KUBECONFIG` names.
    Kubeconfig,
    /// What the cluster gives each pod that has a service account.
    InCluster,
}

impl Api {
    /// The API that this process is told of, if any.
    pub fn find() -> Option<Self> {
        /// Where the kubelet mounts it.
        const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
        if env::var_os("KUBECONFIG").is_some_and(|path| !path.is_empty()) {
            Some(Self::Kubeconfig)
        } else {
            (env::var_os("KUBERNETES_SERVICE_HOST").is_some() && Path::new(TOKEN).exists())
                .then_some(Self::InCluster)
        }
    }

    async fn client(self) -> Result<Client, Failure> {
        let failure = |error: &dyn std::error::Error| Failure::new(Reason::Configuration, chain(error));
        let mut config = match self {
            Self::Kubeconfig => kube::Config::from_kubeconfig(&KubeConfigOptions::default())
                .await
                .map_err(|error| failure(&error))?,
            Self::InCluster => kube::Config::incluster().map_err(|error| failure(&error))?,
        };
        // Each failure is told, and the pauses are ours.
        config.default_retry = false;
        Client::try_from(config).map_err(|error| failure(&error))
    }
}

/// The API to follow pods at by this configuration: where it says so or a service needs it, and there is one.
pub fn wanted(config: &Config) -> Option<Api> {
    let is_wanted = match config.discover.kubernetes {
        Some(is_wanted) => is_wanted,
        None => config.services.iter().any(Service::asks_for_pod),
    };
    Api::find().filter(|_| is_wanted)
}

/// What there is to know.
#[derive(Debug)]
pub enum News {
    /// All pods of the node.
    Listed(Vec<Pod>),
    /// The watch stands: what changes from now on is told.
    Following,
    /// A pod is new or other than it was.
    Applied(Pod),
    /// A pod is gone.
    Deleted(Pod),
    /// Pods are not followed now, and why. It is tried again.
    Failed(Failure),
}

/// Why pods are not followed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    /// As a label.
    pub reason: Reason,
    text: String,
}

/// The kinds of failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// What says where the API is cannot be used.
    Configuration,
    /// Nobody answers.
    Unreachable,
    /// It does not allow it, or has another objection.
    Refused,
    /// The version that the watch was to go on from is too old: everything is listed again.
    Expired,
    /// Its answer is not understood.
    Unreadable,
    /// The connection stands and is dead.
    Silent,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 6] = [
        Self::Configuration,
        Self::Unreachable,
        Self::Refused,
        Self::Expired,
        Self::Unreadable,
        Self::Silent,
    ];

    /// The reason's name in metric labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Unreachable => "unreachable",
            Self::Refused => "refused",
            Self::Expired => "expired",
            Self::Unreadable => "unreadable",
            Self::Silent => "silent",
        }
    }
}

impl Failure {
    fn new(reason: Reason, text: impl Into<String>) -> Self {
        Self { reason, text: text.into() }
    }

    fn of_status(status: &kube::core::Status) -> Self {
        const GONE: u16 = 410;
        let reason = if status.code == GONE { Reason::Expired } else { Reason::Refused };
        Self::new(reason, format!("the API says {} {}: {}", status.code, status.reason, status.message))
    }
}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Self {
        match &error {
            kube::Error::Api(status) => Self::of_status(status),
            kube::Error::SerdeError(_) | kube::Error::FromUtf8(_) => {
                Self::new(Reason::Unreadable, chain(&error))
            }
            _ => Self::new(Reason::Unreachable, chain(&error)),
        }
    }
}

/// An error with what caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// Tells about the pods of `node` until nobody listens any more.
pub async fn follow(api: Api, node: &str, news: SyncSender<News>) {
    // So that the daemons of all nodes do not come back at once.
    let mut pauses = Pauses::new(node);
    let mut told = true;
    while told {
        let Err(failure) = round(api, node, &news, &mut pauses).await else { return };
        told = news.send(News::Failed(failure)).is_ok();
        tokio::time::sleep(pauses.next()).await;
    }
}

/// Asks once, within `limit`: how many pods the node has.
///
/// # Errors
/// The API cannot be asked, or does not answer.
pub async fn look(api: Api, node: &str, limit: Duration) -> Result<usize, Failure> {
    let asked = async { Ok(list(&pods_of(api.client().await?), node).await?.0.len()) };
    tokio::time::timeout(limit, asked).await.unwrap_or_else(|_| Err(no_answer(limit)))
}

/// Lists, then watches for as long as that can go on from what was listed. `Ok` when nobody listens.
async fn round(api: Api, node: &str, news: &SyncSender<News>, pauses: &mut Pauses) -> Result<(), Failure> {
    let pods = pods_of(api.client().await?);
    let listed = tokio::time::timeout(LIST_LIMIT, list(&pods, node)).await;
    let (listed, mut version) = listed.unwrap_or_else(|_| Err(no_answer(LIST_LIMIT)))?;
    if news.send(News::Listed(listed)).is_err() {
        return Ok(());
    }
    loop {
        let began = Instant::now();
        let ended = watch(&pods, node, &mut version, news).await;
        let was_good = began.elapsed() >= GOOD_WATCH;
        if was_good {
            pauses.reset();
        }
        match ended {
            Ok(Listens::No) => return Ok(()),
            // The API ends every watch after a while.
            Ok(Listens::Yes) if was_good => {}
            Ok(Listens::Yes) => tokio::time::sleep(pauses.next()).await,
            Err(failure) if matches!(failure.reason, Reason::Unreachable | Reason::Silent) => {
                if news.send(News::Failed(failure)).is_err() {
                    return Ok(());
                }
                tokio::time::sleep(pauses.next()).await;
            }
            Err(failure) => return Err(failure),
        }
    }
}

fn no_answer(limit: Duration) -> Failure {
    Failure::new(Reason::Unreachable, format!("no answer within {} s", limit.as_secs()))
}

fn pods_of(client: Client) -> kube::Api<v1::Pod> {
    kube::Api::all(client)
}

fn selector(node: &str) -> String {
    format!("spec.nodeName={node}")
}

/// All pods of the node, and the version of that.
async fn list(api: &kube::Api<v1::Pod>, node: &str) -> Result<(Vec<Pod>, String), Failure> {
    let mut params = ListParams::default().fields(&selector(node)).limit(PAGE);
    let mut pods = Vec::new();
    loop {
        let page = api.list(&params).await?;
        pods.extend(page.items.iter().map(Pod::from));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok((pods, page.metadata.resource_version.unwrap_or_default())),
        }
    }
}

/// Does anybody still take the news?
enum Listens {
    Yes,
    No,
}

/// Tells what changes after `version`, and moves it, until the API ends the watch.
async fn watch(
    api: &kube::Api<v1::Pod>,
    node: &str,
    version: &mut String,
    news: &SyncSender<News>,
) -> Result<Listens, Failure> {
    let params = WatchParams::default().fields(&selector(node)).timeout(WATCH_SECONDS);
    let stream = tokio::time::timeout(LIST_LIMIT, api.watch(&params, version)).await;
    let mut stream = pin!(stream.map_err(|_| no_answer(LIST_LIMIT))??);
    if news.send(News::Following).is_err() {
        return Ok(Listens::No);
    }
    loop {
        let next = tokio::time::timeout(SILENCE_LIMIT, stream.next()).await;
        let next = next.map_err(|_| Failure::new(Reason::Silent, "the watch has gone silent"))?;
        let (new_version, word) = match next.transpose()? {
            None => return Ok(Listens::Yes),
            Some(WatchEvent::Added(pod) | WatchEvent::Modified(pod)) => {
                (pod.metadata.resource_version.clone(), Some(News::Applied(Pod::from(&pod))))
            }
            Some(WatchEvent::Deleted(pod)) => {
                (pod.metadata.resource_version.clone(), Some(News::Deleted(Pod::from(&pod))))
            }
            Some(WatchEvent::Bookmark(bookmark)) => (Some(bookmark.metadata.resource_version), None),
            Some(WatchEvent::Error(status)) => return Err(Failure::of_status(&status)),
        };
        *version = new_version.unwrap_or_else(|| std::mem::take(version));
        if word.is_some_and(|word| news.send(word).is_err()) {
            return Ok(Listens::No);
        }
    }
}

/// The pauses between tries: each twice the one before, and of other length for each node.
struct Pauses {
    seed: u64,
    failures: u32,
}

impl Pauses {
    fn new(node: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        node.hash(&mut hasher);
        Self { seed: hasher.finish(), failures: 0 }
    }

    const fn reset(&mut self) {
        self.failures = 0;
    }

    fn next(&mut self) -> Duration {
        let longest = FIRST_PAUSE.saturating_mul(1 << self.failures.min(16)).min(LONGEST_PAUSE);
        self.failures += 1;
        // From half of it to all of it.
        let share = self.seed.rotate_left(self.failures * 8) % 512;
        longest.mul_f64((512 + share) as f64 / 1024.0)
    }
}

impl fmt::Display for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kubeconfig => f.write_str("the API that KUBECONFIG names"),
            Self::InCluster => f.write_str("the API of this cluster"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{LONGEST_PAUSE, Pauses};

    #[test]
    fn pauses_grow_to_a_bound_and_differ_between_nodes() {
        let mut pauses = Pauses::new("node-a");
        let first: Vec<_> = (0..40).map(|_| pauses.next()).collect();
        assert!(first[3] > first[0] && first.iter().all(|pause| *pause <= LONGEST_PAUSE));
        assert!(first[39] >= LONGEST_PAUSE / 2);
        let mut others = Pauses::new("node-b");
        assert_ne!(first, (0..40).map(|_| others.next()).collect::<Vec<_>>());
        pauses.reset();
        assert!(pauses.next() < first[3]);
    }
}
