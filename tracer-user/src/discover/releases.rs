//! The releases that were seen, each with its facts.

use std::collections::BTreeMap;

use crate::domain::{Labels, Release, ReleaseFacts, Releases};

/// Releases that are kept for each service.
const MAX_RELEASES: usize = 64;

/// Keeps what is known of releases, also of those that no longer run.
#[derive(Default)]
pub(super) struct ReleaseBook {
    /// By service and release.
    known: BTreeMap<(Box<str>, Box<str>), Release>,
}

impl ReleaseBook {
    /// Notes that a process with these labels and facts was seen.
    pub(super) fn note(&mut self, labels: &Labels, mut facts: ReleaseFacts, unix_seconds: u64) {
        let key = (labels.service.clone(), labels.release.clone());
        if !self.known.contains_key(&key) {
            self.make_room(&labels.service);
        }
        let release = self.known.entry(key).or_insert_with(|| Release {
            service: labels.service.to_string(),
            release: labels.release.to_string(),
            first_seen_unix_seconds: unix_seconds,
            ..Release::default()
        });
        release.last_seen_unix_seconds = unix_seconds;
        if release.facts.is_empty() {
            release.facts = facts;
            return;
        }
        if facts.is_empty() {
            return;
        }
        let known = &mut release.facts;
        // The kubelet says the image a moment after a container's start; where nothing waits for that, it can be the
        // one fact that is missing.
        match (&known.image, &facts.image) {
            (None, Some(_)) => known.image.clone_from(&facts.image),
            (Some(_), None) => facts.image.clone_from(&known.image),
            _ => {}
        }
        release.mixed |= facts != *known;
    }

    /// Sets how many processes run each release now.
    pub(super) fn count(&mut self, running: &BTreeMap<(&str, &str), u64>, unix_seconds: u64) {
        for ((service, release), known) in &mut self.known {
            known.processes = running.get(&(&**service, &**release)).copied().unwrap_or_default();
            if known.processes > 0 {
                known.last_seen_unix_seconds = unix_seconds;
            }
        }
    }

    /// All of them, sorted by service, then by release.
    pub(super) fn releases(&self, source: &str) -> Releases {
        Releases { source: source.to_owned(), releases: self.known.values().cloned().collect() }
    }

    /// Leaves out the release of the service that was seen last the longest ago, where there are too many.
    fn make_room(&mut self, service: &str) {
        let of_service = || self.known.iter().filter(|((name, _), _)| &**name == service);
        if of_service().count() >= MAX_RELEASES
            && let Some((oldest, _)) = of_service().min_by_key(|(_, known)| known.last_seen_unix_seconds)
        {
            let oldest = oldest.clone();
            self.known.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_RELEASES, ReleaseBook};
    use crate::domain::{Labels, ReleaseFacts};

    fn labels(release: &str) -> Labels {
        Labels { service: "a".into(), release: release.into(), group: "".into() }
    }

    fn facts(commit: &str) -> ReleaseFacts {
        ReleaseFacts { commit: Some(commit.into()), ..ReleaseFacts::default() }
    }

    #[test]
    fn two_processes_of_one_release_with_other_facts_make_it_mixed() {
        let mut book = ReleaseBook::default();
        book.note(&labels("r"), ReleaseFacts::default(), 1);
        book.note(&labels("r"), facts("1"), 2);
        book.note(&labels("r"), ReleaseFacts::default(), 3);
        let release = |book: &ReleaseBook| book.releases("node").releases.remove(0);
        assert!(!release(&book).mixed, "a process that was gone too soon says nothing");
        assert_eq!(release(&book).facts, facts("1"));
        assert_eq!((release(&book).first_seen_unix_seconds, release(&book).last_seen_unix_seconds), (1, 3));
        book.note(&labels("r"), facts("2"), 4);
        assert!(release(&book).mixed);
        assert_eq!(release(&book).facts, facts("1"));
    }

    #[test]
    fn the_oldest_release_makes_room() {
        let mut book = ReleaseBook::default();
        for number in 0..=MAX_RELEASES as u64 {
            book.note(&labels(&format!("r{number}")), ReleaseFacts::default(), number);
            book.count(&[(("a", "r0"), 1)].into(), number);
        }
        let known: Vec<String> =
            book.releases("node").releases.into_iter().map(|known| known.release).collect();
        assert_eq!(known.len(), MAX_RELEASES);
        assert!(known.contains(&"r0".to_owned()) && !known.contains(&"r1".to_owned()), "r0 still runs");
    }
}
