//! Probes that are in place and never hit while their service sends requests: the function may have been
//! inlined, replaced by another, or left behind by a release.
//!
//! Counts requests without a call, for each release and group of a service, and knows no time. Whether a
//! probe is in place is asked of its caller, the worker, which also logs and publishes what changes.

use std::{collections::HashMap, sync::Arc};

use crate::{
    attach::SdkFunction,
    config::Service,
    domain::{Event, Kind, Labels},
};

const FUNCTIONS: [SdkFunction; 2] = [SdkFunction::Exposure, SdkFunction::Click];

/// What is known of every service.
pub(super) struct Suspicion {
    rules: HashMap<Box<str>, Rule>,
    /// Requests without a call of each function, of processes with these labels.
    quiet: HashMap<Arc<Labels>, [u64; 2]>,
}

/// What is expected of a service.
struct Rule {
    after: u64,
    is_traced: [bool; 2],
}

/// A probe became suspicious, or is so no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) labels: Arc<Labels>,
    pub(super) function: SdkFunction,
    pub(super) is_suspicious: bool,
    /// Requests that were sent without a call.
    pub(super) requests: u64,
}

impl Suspicion {
    pub(super) fn new(services: &[Service]) -> Self {
        let rule = |service: &Service| {
            let is_traced = [service.exposure.is_some(), service.click.is_some()];
            (service.name.as_str().into(), Rule { after: service.suspicious_after, is_traced })
        };
        let with_requests = services.iter().filter(|service| service.request.is_some());
        Self { rules: with_requests.map(rule).collect(), quiet: HashMap::new() }
    }

    /// Takes note of an event. `is_attached` tells whether a service's probe on a function is in place; it is
    /// asked when a bound is reached, so once in that many requests.
    pub(super) fn note(
        &mut self,
        event: &Event,
        is_attached: impl Fn(&str, SdkFunction) -> bool,
    ) -> Vec<Change> {
        let Some(rule) = self.rules.get(&event.labels.service) else { return Vec::new() };
        let quiet = match self.quiet.get_mut(&event.labels) {
            Some(quiet) => quiet,
            None => self.quiet.entry(Arc::clone(&event.labels)).or_default(),
        };
        let mut changes = Vec::new();
        for (index, function) in FUNCTIONS.into_iter().enumerate().filter(|(index, _)| rule.is_traced[*index])
        {
            let requests = &mut quiet[index];
            let change = |is_suspicious, requests| Change {
                labels: Arc::clone(&event.labels),
                function,
                is_suspicious,
                requests,
            };
            match event.kind {
                Kind::Request => {
                    *requests += 1;
                    if *requests == rule.after {
                        if is_attached(&event.labels.service, function) {
                            changes.push(change(true, *requests));
                        } else {
                            // What is not in place is reported as that.
                            *requests = 0;
                        }
                    }
                }
                Kind::Exposure | Kind::Click if event.kind.name() == function.name() => {
                    if *requests >= rule.after {
                        changes.push(change(false, *requests));
                    }
                    *requests = 0;
                }
                Kind::Exposure | Kind::Click | Kind::Report => {}
            }
        }
        changes
    }

    /// The services' probes that are suspicious now, with the requests that were sent without a call.
    pub(super) fn suspicious(&self) -> impl Iterator<Item = (&Labels, SdkFunction, u64)> {
        self.quiet.iter().flat_map(|(labels, quiet)| {
            let after = self.rules.get(&labels.service).map_or(u64::MAX, |rule| rule.after);
            let all = FUNCTIONS.into_iter().zip(quiet);
            all.filter(move |(_, requests)| **requests >= after)
                .map(|(function, requests)| (&**labels, function, *requests))
        })
    }

    /// Forgets a release or group that is gone.
    pub(super) fn forget(&mut self, labels: &Labels) {
        self.quiet.remove(labels);
    }
}

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::Arc};

    use super::{Change, SdkFunction, Suspicion};
    use crate::{
        config::Config,
        domain::{Event, Kind, Labels},
    };

    const AFTER: u64 = 5;

    fn suspicion() -> Suspicion {
        let args = "args: \"(request_id cstr, item_id cstr)\"";
        let text = format!(
            "services: [{{ name: a, match: {{ exe: /a }}, request: {{ id: {{ header: x }} }}, exposure: {{ symbol: e, {args} }}, suspicious_after: {AFTER} }}]"
        );
        Suspicion::new(&Config::parse(&text, Path::new("test.yaml")).expect("valid").services)
    }

    fn event(kind: Kind, release: &str) -> Event {
        Event {
            kind,
            timestamp_ns: 1,
            source: "s".into(),
            pid: 1,
            tid: 1,
            labels: Arc::new(Labels { service: "a".into(), release: release.into(), group: "".into() }),
            request_id: "r".into(),
            item_id: "".into(),
            peer: None,
        }
    }

    /// What changes in the course of these events.
    fn course(
        suspicion: &mut Suspicion,
        events: &[(Kind, &str, u64)],
        attached: bool,
    ) -> Vec<(String, bool)> {
        let mut changes = Vec::new();
        for (kind, release, count) in events {
            for _ in 0..*count {
                changes.extend(suspicion.note(&event(*kind, release), |_, _| attached));
            }
        }
        let plain = |Change { labels, function, is_suspicious, .. }: Change| {
            assert_eq!(function, SdkFunction::Exposure, "the click is not traced");
            (labels.release.to_string(), is_suspicious)
        };
        changes.into_iter().map(plain).collect()
    }

    #[test]
    fn so_many_requests_without_a_call_are_suspicious_once_and_a_call_ends_it() {
        let mut suspicion = suspicion();
        let requests = |count| (Kind::Request, "r1", count);
        let changes = course(&mut suspicion, &[requests(AFTER - 1), (Kind::Exposure, "r1", 1)], true);
        assert!(changes.is_empty(), "{changes:?}");
        let changes = course(&mut suspicion, &[requests(3 * AFTER)], true);
        assert_eq!(changes, [("r1".to_owned(), true)]);
        assert_eq!(suspicion.suspicious().map(|(_, _, requests)| requests).collect::<Vec<_>>(), [3 * AFTER]);
        let changes = course(&mut suspicion, &[(Kind::Click, "r1", 1), (Kind::Exposure, "r1", 2)], true);
        assert_eq!(changes, [("r1".to_owned(), false)]);
        assert_eq!(suspicion.suspicious().count(), 0);
    }

    #[test]
    fn the_calls_of_one_release_say_nothing_of_another() {
        let mut suspicion = suspicion();
        let changes = course(
            &mut suspicion,
            &[(Kind::Request, "old", 3), (Kind::Request, "new", AFTER), (Kind::Exposure, "old", 9)],
            true,
        );
        assert_eq!(changes, [("new".to_owned(), true)]);
        suspicion.forget(&event(Kind::Request, "new").labels);
        assert_eq!(suspicion.suspicious().count(), 0);
    }

    #[test]
    fn a_probe_that_is_not_in_place_is_not_suspicious() {
        let mut suspicion = suspicion();
        assert!(course(&mut suspicion, &[(Kind::Request, "r", 4 * AFTER - 1)], false).is_empty());
        assert_eq!(course(&mut suspicion, &[(Kind::Request, "r", AFTER + 1)], true).len(), 1);
    }
}
