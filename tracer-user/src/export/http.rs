//! `/metrics`, `/healthz`, `/readyz` and `/releases`.
//!
//! Answers from what others keep up to date; decides nothing.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus::{Encoder as _, Registry, TextEncoder};

use crate::domain::Releases;

/// The daemon is unhealthy when it has not looked at the ring for this long.
const STALL_LIMIT: Duration = Duration::from_secs(10);

/// One probe of the configuration and whether it is in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeState {
    /// Such as `recommend/click`.
    pub name: String,
    /// `None` when it is in place, else why it is not.
    pub missing: Option<String>,
}

/// What the pages show, kept up to date by the daemon.
pub struct Status {
    registry: Registry,
    probes: Mutex<Vec<ProbeState>>,
    releases: Mutex<Releases>,
    /// Monotonic time of the last look at the ring, in nanoseconds.
    last_drain_ns: AtomicU64,
    monotonic_ns: fn() -> u64,
}

impl Status {
    /// A status with no probe in place. `monotonic_ns` tells the time.
    pub fn new(registry: Registry, monotonic_ns: fn() -> u64) -> Self {
        Self {
            registry,
            probes: Mutex::new(Vec::new()),
            releases: Mutex::new(Releases::default()),
            last_drain_ns: AtomicU64::new(monotonic_ns()),
            monotonic_ns,
        }
    }

    /// Says which probes are in place.
    pub fn set_probes(&self, probes: Vec<ProbeState>) {
        *self.probes.lock().unwrap_or_else(PoisonError::into_inner) = probes;
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

/// The pages.
pub fn router(status: Arc<Status>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(health))
        .route("/readyz", get(readiness))
        .route("/releases", get(releases))
        .with_state(status)
}

async fn metrics(State(status): State<Arc<Status>>) -> Response {
    let encoder = TextEncoder::new();
    let mut text = Vec::new();
    match encoder.encode(&status.registry.gather(), &mut text) {
        Ok(()) => ([(CONTENT_TYPE, encoder.format_type().to_owned())], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("metrics cannot be written: {error}\n"))
            .into_response(),
    }
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
    for ProbeState { name, missing } in &probes {
        match missing {
            None => text.push_str(&format!("  {name}: attached\n")),
            Some(reason) => text.push_str(&format!("  {name}: missing: {reason}\n")),
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
    use super::{ProbeState, Registry, Response, Status, StatusCode, health, readiness};
    use axum::extract::State;
    use std::sync::Arc;

    fn status(monotonic_ns: fn() -> u64) -> Arc<Status> {
        Arc::new(Status::new(Registry::new(), monotonic_ns))
    }

    async fn body(response: Response) -> String {
        let bytes = axum::body::to_bytes(response.into_body(), 10_000).await.expect("in memory");
        String::from_utf8(bytes.to_vec()).expect("text")
    }

    #[tokio::test]
    async fn it_is_ready_only_when_every_probe_is_in_place_and_says_which_is_not() {
        let status = status(|| 0);
        assert_eq!(readiness(State(Arc::clone(&status))).await.status(), StatusCode::SERVICE_UNAVAILABLE);
        let missing =
            |reason: Option<&str>| ProbeState { name: "a/click".into(), missing: reason.map(Into::into) };
        status.set_probes(vec![missing(Some("no file"))]);
        let response = readiness(State(Arc::clone(&status))).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(body(response).await.contains("a/click: missing: no file"));
        status.set_probes(vec![missing(None)]);
        assert_eq!(readiness(State(status)).await.status(), StatusCode::OK);
    }

    #[tokio::test]
    async fn it_is_unhealthy_when_the_ring_was_not_looked_at_for_long() {
        let status = status(|| 11_000_000_000);
        assert_eq!(health(State(Arc::clone(&status))).await.status(), StatusCode::OK);
        status.last_drain_ns.store(0, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(health(State(status)).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
}
