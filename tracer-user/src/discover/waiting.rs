//! Processes that may be of a service, where only Kubernetes can say, and that has not said yet.
//!
//! Keeps what was read of such a process while it was there, and decides when there is something new. Knows neither
//! the table of processes nor what is done with their records meanwhile: `table` and `run/held.rs`.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::{
    identity::Identity,
    pods::{Fact, Place, PodBook, PodView},
};
use crate::config::{ProcessMatch, Service};

/// A process, and its children of the same program, that wait to be told from others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Wait {
    pub(super) place: Place,
    /// The namespace that the process says itself.
    pub(super) said: Option<String>,
    /// Services that it is of but for what Kubernetes has to say, in the order of the configuration.
    pub(super) candidates: Vec<Candidate>,
    /// A restart begins it anew.
    #[serde(skip, default = "Instant::now")]
    pub(super) began: Instant,
    /// It was waited for long enough: records are not held any more.
    pub(super) is_overdue: bool,
    /// The service is known, and its events are counted under a release that is not.
    pub(super) is_unlabelled: bool,
    /// Records are held for it.
    pub(super) has_records: bool,
}

/// A service that a process may be of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    let namespace = wanted
        .namespace
        .as_ref()
        .map(|pattern| view.namespace.filter(|namespace| pattern.matches(namespace)).map(drop));
    let labels = wanted.pod_labels.iter().map(|(name, pattern)| {
        let has =
            |labels: &&BTreeMap<String, String>| labels.get(name).is_some_and(|value| pattern.matches(value));
        view.labels.filter(has).map(drop)
    });
    let all: Vec<Fact<()>> = image.into_iter().chain(namespace).chain(labels).collect();
    // One that does not fit decides, whatever the others are.
    [Fact::Absent, Fact::NotYet].into_iter().find(|fact| all.contains(fact)).unwrap_or(Fact::Is(()))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, path::Path};

    use super::fits;
    use crate::{
        config::Config,
        discover::pods::{Fact, Image, PodView},
    };

    #[track_caller]
    fn check(wanted: &str, view: &PodView<'_>, expected: Fact<()>) {
        let text =
            format!("services: [{{ name: a, match: {{ {wanted} }}, request: {{ id: {{ header: x }} }} }}]");
        let config = Config::parse(&text, Path::new("test.yaml")).expect("valid");
        assert_eq!(fits(&config.services[0].processes, view), expected, "{wanted}");
    }

    #[test]
    fn what_does_not_fit_decides_before_what_is_not_known() {
        let image = Image { name: "shop:1".into(), resolved: "docker.io/shop:1".into(), id: String::new() };
        let labels = BTreeMap::from([("app".to_owned(), "a".to_owned())]);
        let known =
            PodView { namespace: Fact::Is("shop"), labels: Fact::Is(&labels), image: Fact::Is(&image) };
        check("exe: /a", &PodView::NOT_YET, Fact::Is(()));
        check("namespace: sh*, image: \"docker.io/*\", pod_labels: { app: a }", &known, Fact::Is(()));
        check("image: \"shop:*\"", &known, Fact::Is(()));
        check("image: \"other:*\"", &known, Fact::Absent);
        check("pod_labels: { app: a, tier: x }", &known, Fact::Absent);
        check("namespace: shop", &PodView::ABSENT, Fact::Absent);
        let starting = PodView { image: Fact::NotYet, ..known };
        check("namespace: shop, image: \"shop:1\"", &starting, Fact::NotYet);
        check("namespace: other, image: \"shop:1\"", &starting, Fact::Absent);
        check("namespace: shop", &starting, Fact::Is(()));
    }
}
