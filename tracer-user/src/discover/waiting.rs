//! Processes that may be of a service, where only Kubernetes can say, and that has not said yet.
//!
//! Keeps what was read of such a process while it was there, and decides when there is something new. Knows neither
//! the table of processes nor what is done with their records meanwhile: `table` and `run/held.rs`.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{
    identity::Identity,
    pods::{Fact, Place, PodBook, PodView},
};
use crate::config::{ProcessMatch, Service};

/// A process, and its children of the same program, that wait to be told from others.
#[derive(Debug)]
pub(super) struct Wait {
    pub(super) place: Place,
    /// The namespace that the process says itself.
    pub(super) said: Option<String>,
    /// Services that it is of but for what Kubernetes has to say, in the order of the configuration.
    pub(super) candidates: Vec<Candidate>,
    pub(super) began: Instant,
    /// It was waited for long enough: records are not held any more.
    pub(super) is_overdue: bool,
    /// The service is known, and its events are counted under a release that is not.
    pub(super) is_unlabelled: bool,
}

/// A service that a process may be of.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub(super) service: usize,
    pub(super) identity: Identity,
}

/// What can be said of a process now.
#[derive(Debug)]
pub(super) enum Decision {
    /// It is of this service.
    Of(Candidate),
    /// It is of this service, but what it runs is not known yet.
    Unlabelled(Candidate),
    /// It is of none.
    OfNone,
    /// Nothing yet.
    NotYet,
}

impl Wait {
    /// Decides by what is known now.
    pub(super) fn decide(&self, services: &[Service], pods: &PodBook) -> Decision {
        let view = pods.view(&self.place, self.said.as_deref(), self.is_overdue);
        for candidate in &self.candidates {
            match fits(&services[candidate.service].processes, &view) {
                Fact::Is(()) => {
                    let mut candidate = candidate.clone();
                    let is_complete = candidate.identity.learn(&view);
                    return if is_complete {
                        Decision::Of(candidate)
                    } else {
                        Decision::Unlabelled(candidate)
                    };
                }
                Fact::Absent => {}
                Fact::NotYet => return Decision::NotYet,
            }
        }
        Decision::OfNone
    }

    /// Has it waited for `limit`?
    pub(super) fn is_over(&self, limit: Duration, now: Instant) -> bool {
        now.saturating_duration_since(self.began) >= limit
    }
}

/// Does what Kubernetes says fit? `Absent`: it does not.
fn fits(wanted: &ProcessMatch, view: &PodView<'_>) -> Fact<()> {
    let image = wanted.image.as_ref().map(|pattern| {
        let image = view.image;
        image.filter(|image| pattern.matches(&image.name) || pattern.matches(&image.resolved)).map(drop)
    });
    let namespace = wanted.namespace.as_ref().map(|pattern| {
        view.namespace.filter(|namespace| pattern.matches(namespace)).map(drop)
    });
    let labels = wanted.pod_labels.iter().map(|(name, pattern)| {
        let has = |labels: &&BTreeMap<String, String>| {
            labels.get(name).is_some_and(|value| pattern.matches(value))
        };
        view.labels.filter(has).map(drop)
    });
    let all: Vec<Fact<()>> = image.into_iter().chain(namespace).chain(labels).collect();
    // One that does not fit decides, whatever the others are.
    [Fact::Absent, Fact::NotYet].into_iter().find(|fact| all.contains(fact)).unwrap_or(Fact::Is(()))
}
