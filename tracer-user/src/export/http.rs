//! `/`, `/metrics`, `/healthz`, `/readyz` and `/releases`.
//!
//! Answers from what others keep up to date; decides nothing.

use std::{
    net::TcpListener,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus::{Encoder as _, TextEncoder};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::{
    page::{self, History, Reading, View},
    scrape::{Figures, Scrapes},
    server,
};
use crate::{domain::Releases, slo::Example};

/// The daemon is unhealthy when it has not looked at the ring for this long, and has no figures to show.
const STALL_LIMIT: Duration = Duration::from_secs(10);

const MINUTE: Duration = Duration::from_secs(60);

/// One probe of the configuration and whether it is in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeState {
    /// Such as `recommend/click`.
    pub name: String,
    /// Why it is not in place though it should be; else `None`.
    pub missing: Option<String>,
    /// What has to come before it can be put in place; nothing is missed until then.
    pub awaited: Option<String>,
    /// Requests that its service sent without one hit, once they are suspiciously many; else 0.
    pub unheard_requests: u64,
}

/// What the pages show, kept up to date by the daemon.
pub struct Status {
    source: String,
    scrapes: Scrapes,
    history: Mutex<History>,
    probes: Mutex<Vec<ProbeState>>,
    examples: Mutex<Vec<Example>>,
    releases: Mutex<Releases>,
    /// Monotonic time of the last look at the ring, in nanoseconds.
    last_drain_ns: AtomicU64,
    monotonic_ns: fn() -> u64,
}

impl Status {
    /// The status of the node `source`, with no probe in place. `monotonic_ns` tells the time.
    pub fn new(source: &str, monotonic_ns: fn() -> u64) -> Self {
        Self {
            source: source.to_owned(),
            scrapes: Scrapes::default(),
            history: Mutex::new(History::default()),
            probes: Mutex::new(Vec::new()),
            examples: Mutex::new(Vec::new()),
            releases: Mutex::new(Releases::default()),
            last_drain_ns: AtomicU64::new(monotonic_ns()),
            monotonic_ns,
        }
    }

    /// Says which probes are in place.
    pub fn set_probes(&self, probes: Vec<ProbeState>) {
        *self.probes.lock().unwrap_or_else(PoisonError::into_inner) = probes;
    }

    /// Says which links broke last.
    pub fn set_examples(&self, examples: Vec<Example>) {
        *self.examples.lock().unwrap_or_else(PoisonError::into_inner) = examples;
    }

    /// Who waits for figures. Somebody has to answer them, again and again.
    pub const fn scrapes(&self) -> &Scrapes {
        &self.scrapes
    }

    /// The figures of now; `None` when nobody says them.
    async fn figures(&self) -> Option<Figures> {
        timeout(STALL_LIMIT, self.scrapes.ask()).await.ok().flatten()
    }

    /// A minute is over, for what the page shows by minute.
    async fn end_minute(&self) {
        if let Some(figures) = self.figures().await {
            self.history.lock().unwrap_or_else(PoisonError::into_inner).record(&Reading::of(&figures));
        }
    }

    /// Says which releases were seen.
    pub fn set_releases(&self, releases: Releases) {
        *self.releases.lock().unwrap_or_else(PoisonError::into_inner) = releases;
    }

    /// Says that the ring was looked at just now.
    pub fn note_drain(&self) {
        self.last_drain_ns.store((self.monotonic_ns)(), Ordering::Relaxed);
    }
}

/// Serves the pages until that fails, and ends a minute of the history every minute.
///
/// # Errors
/// The listener cannot be used.
pub async fn serve(listener: TcpListener, status: Arc<Status>) -> std::io::Result<()> {
    let minutes = async {
        let mut minute = interval(MINUTE);
        minute.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            minute.tick().await;
            status.end_minute().await;
        }
    };
    tokio::select! {
        result = server::serve(listener, router(Arc::clone(&status))) => result,
        () = minutes => Ok(()),
    }
}

fn router(status: Arc<Status>) -> Router {
    Router::new()
        .route("/", get(overview))
        .route("/metrics", get(metrics))
        .route("/healthz", get(health))
        .route("/readyz", get(readiness))
        .route("/releases", get(releases))
        .with_state(status)
}

async fn overview(State(status): State<Arc<Status>>) -> Response {
    let Some(figures) = status.figures().await else { return no_figures() };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let reading = Reading::of(&figures);
    let probes = status.probes.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let examples = status.examples.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let view = {
        let history = status.history.lock().unwrap_or_else(PoisonError::into_inner);
        View::new(&status.source, &history, &reading, (&probes, &examples), now)
    };
    (page::headers(), page::markup(&view).into_string()).into_response()
}

async fn metrics(State(status): State<Arc<Status>>) -> Response {
    let Some(figures) = status.figures().await else { return no_figures() };
    let encoder = TextEncoder::new();
    let mut text = Vec::new();
    match encoder.encode(&figures, &mut text) {
        Ok(()) => ([(CONTENT_TYPE, encoder.format_type().to_owned())], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("metrics cannot be written: {error}\n"))
            .into_response(),
    }
}

/// Better no figures than those of a daemon that has stopped counting.
fn no_figures() -> Response {
    let text =
        format!("no figures: the daemon has not said any for {} s, see /healthz\n", STALL_LIMIT.as_secs());
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

async fn health(State(status): State<Arc<Status>>) -> Response {
    let idle_ns = (status.monotonic_ns)().saturating_sub(status.last_drain_ns.load(Ordering::Relaxed));
    let idle = Duration::from_nanos(idle_ns);
    if idle > STALL_LIMIT {
        let text = format!("unhealthy: the ring buffer was last looked at {} s ago\n", idle.as_secs());
        return (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    }
    "healthy\n".into_response()
}

async fn readiness(State(status): State<Arc<Status>>) -> Response {
    let probes = status.probes.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let ready = !probes.is_empty() && probes.iter().all(|probe| probe.missing.is_none());
    let mut text = format!("{}\n", if ready { "ready" } else { "not ready" });
    for ProbeState { name, missing, awaited, unheard_requests } in &probes {
        match (missing, awaited) {
            (Some(reason), _) => text.push_str(&format!("  {name}: missing: {reason}\n")),
            (None, Some(what)) => text.push_str(&format!("  {name}: waiting: {what}\n")),
            (None, None) if *unheard_requests > 0 => text.push_str(&format!(
                "  {name}: attached, and suspicious: not hit in the last {unheard_requests} requests of its service\n"
            )),
            (None, None) => text.push_str(&format!("  {name}: attached\n")),
        }
    }
    let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, text).into_response()
}

async fn releases(State(status): State<Arc<Status>>) -> Response {
    let releases = status.releases.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match serde_json::to_string_pretty(&releases) {
        Ok(text) => ([(CONTENT_TYPE, "application/json")], text + "\n").into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("releases cannot be written: {error}\n"))
            .into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::{ProbeState, Response, Status, StatusCode, health, metrics, overview, readiness};
    use axum::extract::State;
    use std::sync::Arc;

    fn status(monotonic_ns: fn() -> u64) -> Arc<Status> {
        Arc::new(Status::new("node-a", monotonic_ns))
    }

    async fn body(response: Response) -> String {
        let bytes = axum::body::to_bytes(response.into_body(), 10_000).await.expect("in memory");
        String::from_utf8(bytes.to_vec()).expect("text")
    }

    #[tokio::test]
    async fn it_is_ready_only_when_every_probe_is_in_place_and_says_which_is_not() {
        let status = status(|| 0);
        assert_eq!(readiness(State(Arc::clone(&status))).await.status(), StatusCode::SERVICE_UNAVAILABLE);
        let state = |missing: Option<&str>, awaited: Option<&str>| ProbeState {
            name: "a/click".into(),
            missing: missing.map(Into::into),
            awaited: awaited.map(Into::into),
            unheard_requests: 0,
        };
        status.set_probes(vec![state(Some("no file"), None)]);
        let response = readiness(State(Arc::clone(&status))).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(body(response).await.contains("a/click: missing: no file"));
        status.set_probes(vec![state(None, Some("no process"))]);
        let response = readiness(State(Arc::clone(&status))).await;
        assert_eq!(response.status(), StatusCode::OK, "nothing runs, so nothing is missed");
        assert!(body(response).await.contains("a/click: waiting: no process"));
        status.set_probes(vec![state(None, None)]);
        assert_eq!(readiness(State(Arc::clone(&status))).await.status(), StatusCode::OK);
        status.set_probes(vec![ProbeState { unheard_requests: 7, ..state(None, None) }]);
        let response = readiness(State(status)).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert!(body(response).await.contains("suspicious: not hit in the last 7 requests"));
    }

    #[tokio::test]
    async fn it_is_unhealthy_when_the_ring_was_not_looked_at_for_long() {
        let status = status(|| 11_000_000_000);
        assert_eq!(health(State(Arc::clone(&status))).await.status(), StatusCode::OK);
        status.last_drain_ns.store(0, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(health(State(status)).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
    #[tokio::test(start_paused = true)]
    async fn nothing_is_shown_of_a_daemon_that_does_not_count() {
        let status = status(|| 0);
        for response in [metrics(State(Arc::clone(&status))).await, overview(State(status)).await] {
            assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert!(body(response).await.contains("no figures"));
        }
    }
}
