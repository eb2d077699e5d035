//! What is known of each release that was seen: the content of the page `/releases`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Every release that a node has seen, sorted by service, then by release.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Releases {
    /// The node that saw them.
    pub source: String,
    /// At most 64 for each service; past that, the one that was last seen longest ago is left out.
    pub releases: Vec<Release>,
}

/// One release of one service on one node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// The configured name of the service.
    pub service: String,
    /// The value of the label `release`; empty for processes that say none.
    pub release: String,
    /// When a process with it was first seen, in seconds since the Unix epoch.
    pub first_seen_unix_seconds: u64,
    /// When a process with it was last seen running, in seconds since the Unix epoch.
    pub last_seen_unix_seconds: u64,
    /// Processes that run it now.
    pub processes: u64,
    /// Not all of its processes had the facts below: these are those of the first that had any.
    #[serde(default)]
    pub mixed: bool,
    /// What it was built from and runs with.
    #[serde(default)]
    pub facts: ReleaseFacts,
}

/// What a release was built from and runs with. What is not known is absent in JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReleaseFacts {
    /// The executable's path, as its process sees it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub executable: Option<String>,
    /// The commit that Go's toolchain wrote into the executable (`vcs.revision`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// The toolchain, for example `go1.27.3`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub go_version: Option<String>,
    /// The main module's path and version, as `path@version`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub main_module: Option<String>,
    /// Versions of the modules it was built with, by path; at most 1,000.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub modules: BTreeMap<String, String>,
    /// Modules beyond these.
    #[serde(skip_serializing_if = "is_zero")]
    pub modules_left_out: u64,
    /// Build settings such as `CGO_ENABLED` and `-ldflags`; at most 64.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, String>,
    /// The container's image as the pod asks for it, with the digest of what runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The labels of the pod that release or group are taken from, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub pod_labels: BTreeMap<String, String>,
    /// What each configured `file:` said, by path.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, String>,
}

impl ReleaseFacts {
    /// Is nothing known?
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
const fn is_zero(count: &u64) -> bool {
    *count == 0
}

#[cfg(test)]
mod tests {
    use super::{Release, ReleaseFacts, Releases};

    #[test]
    fn what_is_not_known_is_absent_and_what_was_written_is_read_back() {
        let bare = Release { service: "a".into(), release: "r".into(), ..Release::default() };
        let facts = ReleaseFacts {
            commit: Some("0a1b".into()),
            modules: [("example.com/b".into(), "v1.2.3".into())].into(),
            ..ReleaseFacts::default()
        };
        let known = Release { facts, processes: 2, ..bare.clone() };
        let releases = Releases { source: "node-a".into(), releases: vec![bare, known] };
        let text = serde_json::to_string(&releases).expect("plain data");
        assert!(text.contains("\"facts\":{}") && !text.contains("null"), "{text}");
        assert_eq!(serde_json::from_str::<Releases>(&text).expect("what was written"), releases);
    }
}
