//! What Kubernetes knows of the processes of this node: their pod's namespace and labels, their container's image.
//!
//! `place` reads from a process's cgroup which container it is in, `watch` follows the node's pods at the API
//! (`object`: what matters of one), `book` keeps them and answers for a place. That something is not known *yet* is an
//! answer of its own here ([`Fact`]): who waits for it, and for how long, is decided in `waiting`.

mod book;
mod object;
mod place;
mod watch;

use std::collections::BTreeMap;

pub use book::PodBook;
pub(super) use place::Place;
pub use watch::{Api, Failure, News, Reason, follow, look, wanted};

/// A pod of this node, as far as it matters here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pod {
    /// The ids that a cgroup may name it by: its own and, for a pod from a file of the kubelet, the file's.
    pub uids: Vec<String>,
    /// Its namespace.
    pub namespace: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Containers that were started, init and ephemeral ones among them.
    pub containers: Vec<Container>,
}

/// A container of a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Container {
    /// The runtime's id, without the runtime's name.
    pub id: String,
    /// What it runs.
    pub image: Image,
}

/// What a container runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    /// As the pod asks for it; `repository:tag`, `repository@digest` or both.
    pub name: String,
    /// As the runtime names it: another name of the same, perhaps.
    pub resolved: String,
    /// What the runtime says its content is; empty when it does not.
    pub id: String,
}

impl Image {
    /// The tag that the pod asks for.
    pub fn tag(&self) -> Option<&str> {
        let name = self.name.split('@').next()?;
        // A port of the registry comes before the last part of the path.
        name.rsplit('/').next()?.split_once(':').map(|(_, tag)| tag)
    }

    /// The digest of what runs, else of what the pod asks for.
    pub fn digest(&self) -> Option<&str> {
        let digest_in = |text| {
            let last = str::rsplit(text, ['@', '/']).next()?;
            (last.starts_with("sha256:") || last.starts_with("sha512:")).then_some(last)
        };
        digest_in(&self.id).or_else(|| digest_in(&self.name))
    }
}

/// What is known of one thing about a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fact<T> {
    /// This.
    Is(T),
    /// There is none: the process is in no pod, or nobody can be asked.
    Absent,
    /// It is not known, and may be later.
    NotYet,
}

impl<T> Fact<T> {
    /// The same of what follows from it.
    pub fn map<U>(self, follows: impl FnOnce(T) -> U) -> Fact<U> {
        match self {
            Self::Is(value) => Fact::Is(follows(value)),
            Self::Absent => Fact::Absent,
            Self::NotYet => Fact::NotYet,
        }
    }

    /// The same if that holds of it, else `Absent`.
    pub fn filter(self, holds: impl FnOnce(&T) -> bool) -> Self {
        match self {
            Self::Is(value) if !holds(&value) => Self::Absent,
            fact => fact,
        }
    }
}

/// What is known of a process's pod.
#[derive(Debug, Clone, Copy)]
pub struct PodView<'a> {
    /// The pod's namespace.
    pub namespace: Fact<&'a str>,
    /// The pod's labels.
    pub labels: Fact<&'a BTreeMap<String, String>>,
    /// The container's image.
    pub image: Fact<&'a Image>,
}

impl PodView<'_> {
    /// It is in none.
    pub const ABSENT: Self = Self { namespace: Fact::Absent, labels: Fact::Absent, image: Fact::Absent };
    /// Nothing is known.
    pub const NOT_YET: Self = Self { namespace: Fact::NotYet, labels: Fact::NotYet, image: Fact::NotYet };
}

#[cfg(test)]
mod tests {
    use super::Image;

    #[track_caller]
    fn check(name: &str, id: &str, tag: Option<&str>, digest: Option<&str>) {
        let image = Image { name: name.into(), resolved: String::new(), id: id.into() };
        assert_eq!((image.tag(), image.digest()), (tag, digest), "{name} {id}");
    }

    #[test]
    fn an_image_has_a_tag_a_digest_both_or_none() {
        check("shop", "", None, None);
        check("shop:1.2", "", Some("1.2"), None);
        check("registry:5000/team/shop", "", None, None);
        check("registry:5000/team/shop:1.2", "docker.io/team/shop@sha256:ab", Some("1.2"), Some("sha256:ab"));
        check("team/shop@sha256:cd", "", None, Some("sha256:cd"));
        check("team/shop:1.2@sha256:cd", "sha256:ef", Some("1.2"), Some("sha256:ef"));
        check("shop:1", "docker-pullable://shop@sha256:01", Some("1"), Some("sha256:01"));
        check("shop:1", "docker://sha256:02", Some("1"), Some("sha256:02"));
    }
}
