//! The pods of this node that are known.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use super::{Fact, News, Place, Pod, PodView};

/// Pods that are kept; the kubelet runs a few hundred at most.
const MAX_PODS: usize = 8192;
/// A pod that the API says is gone is remembered this long: its last processes may still be.
const REMEMBER_FOR: Duration = Duration::from_secs(60);

/// The pods, and how current they are.
#[derive(Debug, Default)]
pub struct PodBook {
    /// Nobody tells about pods.
    is_alone: bool,
    pods: HashMap<u64, Known>,
    /// Which pod an id means.
    by_uid: HashMap<String, u64>,
    by_container: HashMap<String, u64>,
    next_number: u64,
    was_listed: bool,
}

#[derive(Debug)]
struct Known {
    pod: Pod,
    gone: Option<Instant>,
}

impl PodBook {
    /// One that is told about pods.
    pub fn followed() -> Self {
        Self::default()
    }

    /// One that nobody tells anything.
    pub fn alone() -> Self {
        Self { is_alone: true, ..Self::default() }
    }

    /// Whether nobody tells about pods.
    pub const fn is_alone(&self) -> bool {
        self.is_alone
    }

    /// Pods that are known and not gone.
    pub fn count(&self) -> usize {
        self.pods.values().filter(|known| known.gone.is_none()).count()
    }

    /// Takes what the API said. True when pods are known now that were not, or other things of them.
    pub fn learn(&mut self, news: News, now: Instant) -> bool {
        match news {
            News::Listed(pods) => {
                for known in self.pods.values_mut() {
                    known.gone.get_or_insert(now);
                }
                self.forget_gone(now);
                for pod in pods {
                    self.keep(pod);
                }
                self.was_listed = true;
                true
            }
            News::Applied(pod) => {
                self.forget_gone(now);
                self.keep(pod)
            }
            News::Deleted(pod) => {
                let number = pod.uids.iter().find_map(|uid| self.by_uid.get(uid));
                if let Some(known) = number.and_then(|number| self.pods.get_mut(number)) {
                    known.gone.get_or_insert(now);
                }
                false
            }
            News::Following | News::Failed(_) => false,
        }
    }

    /// What is known of the pod of a process in this place. Without anybody to ask, the namespace is what the
    /// process says itself. `is_overdue`: it was waited for long enough, so that a container that no pod of a
    /// complete list has is of none.
    pub(in super::super) fn view<'a>(
        &'a self,
        place: &Place,
        said: Option<&'a str>,
        is_overdue: bool,
    ) -> PodView<'a> {
        let (pod_uid, container_id) = match place {
            Place::Host => return PodView::ABSENT,
            Place::Unknown if self.is_alone => return PodView::ABSENT,
            Place::Unknown => return PodView::NOT_YET,
            Place::Container { pod_uid, container_id } => (pod_uid.as_deref(), container_id.as_deref()),
        };
        if self.is_alone {
            let namespace = said.filter(|_| pod_uid.is_some()).map_or(Fact::Absent, Fact::Is);
            return PodView { namespace, ..PodView::ABSENT };
        }
        let by_container = || container_id.and_then(|id| self.by_container.get(id));
        let number = pod_uid.and_then(|uid| self.by_uid.get(uid)).or_else(by_container);
        let Some(Known { pod, .. }) = number.and_then(|number| self.pods.get(number)) else {
            let is_of_none = pod_uid.is_none() && is_overdue && self.was_listed;
            return if is_of_none { PodView::ABSENT } else { PodView::NOT_YET };
        };
        let image = container_id.map_or(Fact::Absent, |id| {
            let container = pod.containers.iter().find(|container| container.id == id);
            container.map_or(Fact::NotYet, |container| Fact::Is(&container.image))
        });
        PodView { namespace: Fact::Is(&pod.namespace), labels: Fact::Is(&pod.labels), image }
    }

    /// Was there ever a complete list?
    pub const fn was_listed(&self) -> bool {
        self.was_listed
    }

    /// True when that changes anything.
    fn keep(&mut self, pod: Pod) -> bool {
        let known = pod.uids.iter().find_map(|uid| self.by_uid.get(uid)).copied();
        if known.is_none() && self.pods.len() >= MAX_PODS {
            return false;
        }
        let number = known.unwrap_or(self.next_number);
        self.next_number += u64::from(known.is_none());
        let before = self.pods.remove(&number);
        let is_new = before.as_ref().is_none_or(|known| known.pod != pod);
        if let Some(known) = before {
            self.unlist(number, &known.pod);
        }
        self.by_uid.extend(pod.uids.iter().map(|uid| (uid.clone(), number)));
        self.by_container.extend(pod.containers.iter().map(|container| (container.id.clone(), number)));
        self.pods.insert(number, Known { pod, gone: None });
        is_new
    }

    fn forget_gone(&mut self, now: Instant) {
        let is_over = |gone: &Instant| now.duration_since(*gone) >= REMEMBER_FOR;
        let over: Vec<u64> = self
            .pods
            .iter()
            .filter(|(_, known)| known.gone.as_ref().is_some_and(is_over))
            .map(|(number, _)| *number)
            .collect();
        for number in over {
            if let Some(known) = self.pods.remove(&number) {
                self.unlist(number, &known.pod);
            }
        }
    }

    fn unlist(&mut self, number: u64, pod: &Pod) {
        for uid in &pod.uids {
            if self.by_uid.get(uid) == Some(&number) {
                self.by_uid.remove(uid);
            }
        }
        for container in &pod.containers {
            if self.by_container.get(&container.id) == Some(&number) {
                self.by_container.remove(&container.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::{MAX_PODS, PodBook, REMEMBER_FOR};
    use crate::discover::pods::{Container, Fact, Image, News, Place, Pod};

    fn pod(uid: &str, containers: &[&str]) -> Pod {
        let container = |id: &&str| Container {
            id: (*id).into(),
            image: Image { name: format!("image-{id}"), ..Image::default() },
        };
        Pod {
            uids: vec![uid.into()],
            namespace: "shop".into(),
            labels: [("app".into(), "recommend".into())].into(),
            containers: containers.iter().map(container).collect(),
        }
    }

    fn place(pod: Option<&str>, container: Option<&str>) -> Place {
        Place::Container { pod_uid: pod.map(Into::into), container_id: container.map(Into::into) }
    }

    #[track_caller]
    fn check(book: &PodBook, place: &Place, overdue: bool, namespace: Fact<&str>, image: Fact<&str>) {
        let view = book.view(place, Some("said"), overdue);
        assert_eq!(view.namespace, namespace, "{place:?}");
        let name = match view.image {
            Fact::Is(image) => Fact::Is(&*image.name),
            Fact::Absent => Fact::Absent,
            Fact::NotYet => Fact::NotYet,
        };
        assert_eq!(name, image, "{place:?}");
    }

    #[test]
    fn a_process_is_joined_with_its_pod_by_either_id() {
        let (mut book, now) = (PodBook::followed(), Instant::now());
        let in_pod = place(Some("u1"), Some("c1"));
        check(&book, &in_pod, false, Fact::NotYet, Fact::NotYet);
        book.learn(News::Listed(vec![pod("u1", &[])]), now);
        // The pod comes before the kubelet says what its containers are.
        check(&book, &in_pod, false, Fact::Is("shop"), Fact::NotYet);
        assert!(book.learn(News::Applied(pod("u1", &["c1"])), now));
        assert!(!book.learn(News::Applied(pod("u1", &["c1"])), now), "the same again");
        check(&book, &in_pod, false, Fact::Is("shop"), Fact::Is("image-c1"));
        check(&book, &place(None, Some("c1")), false, Fact::Is("shop"), Fact::Is("image-c1"));
        check(&book, &place(Some("u1"), None), false, Fact::Is("shop"), Fact::Absent);
        check(&book, &Place::Host, false, Fact::Absent, Fact::Absent);
        check(&book, &Place::Unknown, true, Fact::NotYet, Fact::NotYet);
    }

    #[test]
    fn a_container_of_no_pod_is_of_none_once_the_list_is_complete_and_the_wait_over() {
        let (mut book, plain) = (PodBook::followed(), place(None, Some("c9")));
        check(&book, &plain, true, Fact::NotYet, Fact::NotYet);
        book.learn(News::Listed(Vec::new()), Instant::now());
        check(&book, &plain, false, Fact::NotYet, Fact::NotYet);
        check(&book, &plain, true, Fact::Absent, Fact::Absent);
        check(&book, &place(Some("u9"), Some("c9")), true, Fact::NotYet, Fact::NotYet);
    }

    #[test]
    fn a_pod_that_is_gone_is_remembered_for_a_while_and_a_new_list_replaces_the_old() {
        let (mut book, now) = (PodBook::followed(), Instant::now());
        book.learn(News::Listed(vec![pod("u1", &["c1"]), pod("u2", &["c2"])]), now);
        book.learn(News::Deleted(pod("u1", &["c1"])), now);
        assert_eq!(book.count(), 1);
        check(&book, &place(Some("u1"), Some("c1")), false, Fact::Is("shop"), Fact::Is("image-c1"));
        let later = now + REMEMBER_FOR;
        book.learn(News::Listed(vec![pod("u3", &["c3"])]), later);
        check(&book, &place(Some("u1"), Some("c1")), false, Fact::NotYet, Fact::NotYet);
        check(&book, &place(Some("u2"), Some("c2")), false, Fact::Is("shop"), Fact::Is("image-c2"));
        book.learn(News::Listed(vec![pod("u3", &["c3"])]), later + REMEMBER_FOR);
        check(&book, &place(Some("u2"), Some("c2")), false, Fact::NotYet, Fact::NotYet);
        assert_eq!((book.count(), book.by_uid.len(), book.by_container.len()), (1, 1, 1));
    }

    #[test]
    fn without_an_api_there_is_the_namespace_that_a_process_in_a_pod_says() {
        let book = PodBook::alone();
        check(&book, &place(Some("u1"), Some("c1")), false, Fact::Is("said"), Fact::Absent);
        check(&book, &place(None, Some("c1")), false, Fact::Absent, Fact::Absent);
        check(&book, &Place::Unknown, false, Fact::Absent, Fact::Absent);
    }

    #[test]
    fn the_book_is_bounded() {
        let mut book = PodBook::followed();
        let pods = (0..=MAX_PODS).map(|number| pod(&format!("u{number}"), &[])).collect();
        book.learn(News::Listed(pods), Instant::now());
        assert_eq!(book.count(), MAX_PODS);
    }
}
