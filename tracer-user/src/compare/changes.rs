//! What two releases were built from and run with, and where they differ: from the page `/releases` of daemons.

use std::{collections::BTreeSet, fs};

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::{
    domain::{Release, ReleaseFacts, Releases},
    prometheus_api::get,
};

/// Something that is not the same in both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Change {
    /// `commit`, `go version`, `module PATH`, `setting NAME`, `file PATH` and so on.
    what: String,
    /// `None`: it is not there.
    stable: Option<String>,
    canary: Option<String>,
}

/// What is known of the differences.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Changes {
    changes: Vec<Change>,
    /// Releases of which nothing is known.
    unknown: Vec<String>,
}

/// Reads the pages, each a URL or a file, and compares what they say of the two releases.
pub(super) fn between(
    pages: &[String],
    service: Option<&str>,
    stable: &str,
    canary: &str,
) -> Result<Changes> {
    let mut all = Vec::new();
    for page in pages {
        let text = if page.starts_with("http://") || page.starts_with("https://") {
            get(page)?
        } else {
            fs::read_to_string(page).with_context(|| format!("read {page}"))?
        };
        let releases: Releases =
            serde_json::from_str(&text).with_context(|| format!("{page} is no page of releases"))?;
        all.extend(releases.releases);
    }
    // Nodes see the same executables; the first that knows something will do.
    let facts = |name: &str| {
        let of_release = |release: &&Release| {
            release.release == name
                && service.is_none_or(|service| release.service == service)
                && !release.facts.is_empty()
        };
        all.iter().find(of_release).map(|release| &release.facts)
    };
    Ok(match (facts(stable), facts(canary)) {
        (Some(before), Some(after)) => Changes { changes: changes(before, after), unknown: Vec::new() },
        (before, after) => {
            let unknown =
                [(stable, before), (canary, after)].into_iter().filter(|(_, facts)| facts.is_none());
            Changes { changes: Vec::new(), unknown: unknown.map(|(name, _)| name.to_owned()).collect() }
        }
    })
}

fn changes(stable: &ReleaseFacts, canary: &ReleaseFacts) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut compare = |what: String, stable: Option<&String>, canary: Option<&String>| {
        if stable != canary {
            changes.push(Change { what, stable: stable.cloned(), canary: canary.cloned() });
        }
    };
    for (what, stable, canary) in [
        ("commit", &stable.commit, &canary.commit),
        ("go version", &stable.go_version, &canary.go_version),
        ("main module", &stable.main_module, &canary.main_module),
        ("executable", &stable.executable, &canary.executable),
        ("image", &stable.image, &canary.image),
    ] {
        compare(what.to_owned(), stable.as_ref(), canary.as_ref());
    }
    let maps = [
        ("file", &stable.files, &canary.files),
        ("pod label", &stable.pod_labels, &canary.pod_labels),
        ("module", &stable.modules, &canary.modules),
        ("setting", &stable.settings, &canary.settings),
    ];
    for (what, stable, canary) in maps {
        let names: BTreeSet<&String> = stable.keys().chain(canary.keys()).collect();
        for name in names {
            compare(format!("{what} {name}"), stable.get(name), canary.get(name));
        }
    }
    changes
}

impl Changes {
    /// Lines for people.
    pub(super) fn text(&self) -> String {
        if !self.unknown.is_empty() {
            return format!(
                "\nwhat changed is not known: nothing is known of {}\n",
                self.unknown.join(" and ")
            );
        }
        if self.changes.is_empty() {
            return "\nnothing that is known changed\n".to_owned();
        }
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
        let lines = self.changes.iter().map(|change| {
            format!("  {}: {} -> {}\n", change.what, shown(&change.stable), shown(&change.canary))
        });
        format!("\nwhat changed\n{}", lines.collect::<String>())
    }
}

#[cfg(test)]
mod tests {
    use super::{Changes, ReleaseFacts, between, changes};

    fn facts(commit: &str, module: &str, model: &str) -> ReleaseFacts {
        ReleaseFacts {
            commit: Some(commit.into()),
            modules: [("example.com/sdk".into(), module.into()), ("example.com/same".into(), "v1".into())]
                .into(),
            settings: [("CGO_ENABLED".into(), "1".into())].into(),
            files: [("/models/active".into(), model.into())].into(),
            ..ReleaseFacts::default()
        }
    }

    #[test]
    fn only_what_differs_is_shown_and_what_is_gone_is_a_dash() {
        let mut after = facts("b", "v1.3.0", "2026-11");
        after.settings.clear();
        let changes = changes(&facts("a", "v1.2.0", "2026-10"), &after);
        let text = Changes { changes, unknown: Vec::new() }.text();
        let expected = "\nwhat changed\n  commit: a -> b\n  file /models/active: 2026-10 -> 2026-11\n  \
                        module example.com/sdk: v1.2.0 -> v1.3.0\n  setting CGO_ENABLED: 1 -> -\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_release_that_no_page_knows_is_named() {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let page = folder.path().join("releases.json");
        let text = r#"{"source":"n","releases":[{"service":"s","release":"old","first_seen_unix_seconds":1,
            "last_seen_unix_seconds":2,"processes":1,"facts":{"commit":"a"}}]}"#;
        std::fs::write(&page, text).expect("is writable");
        let pages = [page.display().to_string()];
        let between = |service| between(&pages, service, "old", "new").expect("is a page");
        assert_eq!(between(Some("s")).unknown, ["new"]);
        assert_eq!(between(Some("other")).unknown, ["old", "new"]);
        std::fs::write(&page, "[]").expect("is writable");
        assert!(super::between(&pages, None, "old", "new").is_err());
    }
}
