//! The part of the table that has to do with Kubernetes: processes that are not settled yet.
//!
//! A process whose service, or whose release, only Kubernetes can tell is looked at once, while it is there, and
//! decided when what is needed is known. What is decided is said once, as a [`Settlement`].

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Entry, Identity, Member, Place, PodBook, Process, Processes, proc};
use crate::discover::{
    files,
    pods::News,
    waiting::{Candidate, Decision, Wait},
};

/// Processes that wait at a time, those that ended a moment ago among them; what comes beyond is not known.
const MAX_WAITS: usize = 4096;
/// Cgroups whose place is remembered, for processes that are gone when they are looked at.
const MAX_PLACES: usize = 4096;

/// What became of a process that waited.
#[derive(Debug, Clone)]
pub enum Settled {
    /// It is of a service.
    Of(Process),
    /// It is of none.
    OfNone,
    /// The wait is over without an answer. There may be one later.
    Unknown,
}

/// A process is known, or its wait is over.
#[derive(Debug, Clone)]
pub struct Settlement {
    /// The number of its wait.
    pub wait: u64,
    /// Itself and its children, those that run.
    pub pids: Vec<u32>,
    /// What it is.
    pub settled: Settled,
    /// Records of it were given up before.
    pub is_late: bool,
}

/// Processes that are not settled, and what could settle them.
pub(super) struct Unsettled {
    pods: PodBook,
    pod_wait: Duration,
    waits: BTreeMap<u64, Wait>,
    next_wait: u64,
    /// By the id of a version 2 cgroup.
    places: HashMap<u64, Place>,
}

/// A look at a process that fits a service but for what Kubernetes may have to say.
pub(super) struct Look<'a> {
    pub(super) pid: u32,
    /// The first service that it fits.
    pub(super) first: usize,
    pub(super) exe: Option<&'a str>,
    pub(super) place: Place,
}

impl Unsettled {
    pub(super) fn new(pods: PodBook, pod_wait: Duration) -> Self {
        Self { pods, pod_wait, waits: BTreeMap::new(), next_wait: 0, places: HashMap::new() }
    }

    /// Where the process is. One that is gone was where others with its cgroup are, if that is known.
    pub(super) fn place(&mut self, pid: u32, cgroup_id: Option<u64>) -> Place {
        // One that has ended is in no cgroup any more.
        let Some(text) = proc::cgroups(pid).ok().filter(|_| proc::is_running(pid)) else {
            let known = cgroup_id.and_then(|id| self.places.get(&id));
            return known.cloned().unwrap_or(Place::Unknown);
        };
        let place = Place::parse(&text);
        // Where containers have cgroups of version 1 alone, that of version 2 is everybody's.
        if let Some(cgroup_id) = cgroup_id
            && place == Place::of_unified(&text)
            && place != Place::Host
        {
            if self.places.len() >= MAX_PLACES {
                self.places.clear();
            }
            self.places.insert(cgroup_id, place.clone());
        }
        place
    }
}

impl Processes {
    /// The wait that will tell what the process is, while its records are to be held; looked at now if that was not
    /// done before. `probe`: the service whose probe it hit, if it was one.
    pub fn wait_of(&mut self, pid: u32, probe: Option<usize>) -> Option<u64> {
        let Member::Waiting(number) = *self.member(pid) else { return None };
        let wait = self.unsettled.waits.get_mut(&number)?;
        let is_held = !wait.is_overdue && may_be_of(wait, probe);
        wait.has_records |= is_held;
        is_held.then_some(number)
    }

    /// Is it, unlike a process of no service, not known what the process is? `probe` as for [`Self::wait_of`].
    pub fn is_unknown(&self, pid: u32, probe: Option<usize>) -> bool {
        match self.table.get(&pid).map(|entry| &entry.member) {
            Some(Member::Unknown) => true,
            Some(Member::Waiting(number)) => {
                self.unsettled.waits.get(number).is_some_and(|wait| may_be_of(wait, probe))
            }
            _ => false,
        }
    }

    /// Services that the process may be of, by their position in the configuration.
    pub fn services_of(&self, pid: u32) -> Vec<usize> {
        match self.table.get(&pid).map(|entry| &entry.member) {
            Some(Member::Of(process)) => vec![process.service],
            Some(Member::Waiting(number)) => {
                let wait = self.unsettled.waits.get(number);
                wait.into_iter()
                    .flat_map(|wait| &wait.candidates)
                    .map(|candidate| candidate.service)
                    .collect()
            }
            _ => Vec::new(),
        }
    }

    /// Takes what Kubernetes says. True when it is something new of pods.
    pub fn learn_pods(&mut self, news: News) -> bool {
        self.unsettled.pods.learn(news, Instant::now())
    }

    /// The pods that are known.
    pub const fn pods(&self) -> &PodBook {
        &self.unsettled.pods
    }

    /// Processes that wait, and those whose wait is over without an answer, as far as they run.
    pub fn count_unsettled(&self) -> (usize, usize) {
        let running = self.table.values().filter(|entry| entry.ended.is_none());
        let mut counts = (0, 0);
        for entry in running {
            match entry.member {
                Member::Waiting(number)
                    if self.unsettled.waits.get(&number).is_some_and(|wait| !wait.is_overdue) =>
                {
                    counts.0 += 1;
                }
                Member::Waiting(_) | Member::Unknown => counts.1 += 1,
                Member::OfNone | Member::Of(_) => {}
            }
        }
        counts
    }

    /// Decides what can be decided: by what is new of pods, if anything is, and what has waited for long enough.
    /// `now_ns` in nanoseconds since the Unix epoch.
    pub fn settle(&mut self, has_news: bool, now_ns: u64) -> Vec<Settlement> {
        let (now, limit) = (Instant::now(), self.unsettled.pod_wait);
        let is_due = |wait: &Wait| has_news || !wait.is_overdue && wait.is_over(limit, now);
        let waits = self.unsettled.waits.iter();
        let due: Vec<u64> = waits.filter(|(_, wait)| is_due(wait)).map(|(number, _)| *number).collect();
        if !due.is_empty() {
            self.forget_waits();
        }
        due.into_iter().filter_map(|number| self.settle_one(number, limit, now_ns)).collect()
    }

    /// Waits no longer for what this wait would tell.
    pub fn give_up(&mut self, wait: u64, now_ns: u64) -> Option<Settlement> {
        self.settle_one(wait, Duration::ZERO, now_ns)
    }

    fn settle_one(&mut self, number: u64, limit: Duration, now_ns: u64) -> Option<Settlement> {
        let wait = self.unsettled.waits.get_mut(&number)?;
        let was_given_up = wait.is_overdue && !wait.is_unlabelled;
        let was_overdue = wait.is_overdue;
        wait.is_overdue |= wait.is_over(limit, Instant::now());
        let settled = match wait.decide(&self.services, &self.unsettled.pods) {
            Decision::Of(candidate) => Settled::Of(self.process(candidate.service, candidate.identity)),
            // Its events count from now on, until more is known under a release that is not.
            Decision::Unlabelled(candidate) if wait.is_overdue && !wait.is_unlabelled => {
                wait.is_unlabelled = true;
                let process = self.process(candidate.service, candidate.identity);
                Settled::Of(Process { relabelled_by: Some(number), ..process })
            }
            Decision::OfNone if !wait.is_unlabelled => Settled::OfNone,
            Decision::NotYet if wait.is_overdue && !was_overdue => Settled::Unknown,
            Decision::Unlabelled(_) | Decision::OfNone | Decision::NotYet => return None,
        };
        let pids = self.replace(number, &settled, now_ns);
        let goes_on = match &settled {
            Settled::Of(process) => process.relabelled_by.is_some(),
            Settled::OfNone => false,
            Settled::Unknown => true,
        };
        if !goes_on {
            self.unsettled.waits.remove(&number);
        }
        Some(Settlement { wait: number, pids, settled, is_late: was_given_up })
    }

    /// Has the table say of the processes of a wait what it told. Returns those that run.
    fn replace(&mut self, number: u64, settled: &Settled, now_ns: u64) -> Vec<u32> {
        let mut pids = Vec::new();
        for (pid, entry) in &mut self.table {
            let earlier = match &entry.member {
                Member::Waiting(of) if *of == number => None,
                Member::Of(process) if process.relabelled_by == Some(number) => {
                    Some((now_ns, Arc::clone(&process.labels)))
                }
                _ => continue,
            };
            entry.member = match settled {
                Settled::Of(process) => Member::Of(Process { earlier, ..process.clone() }),
                Settled::OfNone => Member::OfNone,
                Settled::Unknown => Member::Waiting(number),
            };
            if entry.ended.is_none() {
                pids.push(*pid);
                if matches!(settled, Settled::Of(process) if process.followed.is_some()) {
                    self.followed.insert(*pid);
                }
            }
        }
        pids
    }

    pub(super) fn look_with_pod(&mut self, look: &Look<'_>) -> Member {
        let Look { pid, first, exe, place } = look;
        let services = Arc::clone(&self.services);
        let mut candidates = Vec::new();
        for (index, service) in services.iter().enumerate().skip(*first) {
            if index != *first && !files::matches(service, *pid, *exe) {
                continue;
            }
            let identity = Identity::read(service, *pid, &mut self.builds);
            candidates.push(Candidate { service: index, identity });
            // Those after it have no chance.
            if !service.processes.asks_for_pod() {
                break;
            }
        }
        let said = self.unsettled.pods.is_alone().then(|| said_namespace(*pid)).flatten();
        let wait = Wait {
            place: place.clone(),
            said,
            candidates,
            began: Instant::now(),
            is_overdue: false,
            is_unlabelled: false,
            has_records: false,
        };
        match wait.decide(&services, &self.unsettled.pods) {
            Decision::Of(candidate) => Member::Of(self.process(candidate.service, candidate.identity)),
            Decision::OfNone => Member::OfNone,
            Decision::Unlabelled(candidate) if wait.place == Place::Unknown => {
                Member::Of(self.process(candidate.service, candidate.identity))
            }
            Decision::NotYet if wait.place == Place::Unknown => Member::Unknown,
            _ if self.unsettled.waits.len() >= MAX_WAITS => Member::Unknown,
            Decision::Unlabelled(_) | Decision::NotYet => {
                let number = self.unsettled.next_wait;
                self.unsettled.next_wait += 1;
                self.unsettled.waits.insert(number, wait);
                Member::Waiting(number)
            }
        }
    }

    /// Forgets waits that no process has any more and no record: that of a program which was replaced at once, say.
    pub(super) fn forget_waits(&mut self) {
        let waited_for = |entry: &Entry| match &entry.member {
            Member::Waiting(number) => Some(*number),
            Member::Of(process) => process.relabelled_by,
            Member::OfNone | Member::Unknown => None,
        };
        let needed: BTreeSet<u64> = self.table.values().filter_map(waited_for).collect();
        self.unsettled
            .waits
            .retain(|number, wait| needed.contains(number) || wait.has_records && !wait.is_overdue);
    }
}

/// May a process that hit this probe be of the service whose probe it is?
fn may_be_of(wait: &Wait, probe: Option<usize>) -> bool {
    probe.is_none_or(|probe| wait.candidates.iter().any(|candidate| candidate.service == probe))
}

/// The namespace that a process in a pod says it is in, where nobody else can be asked.
fn said_namespace(pid: u32) -> Option<String> {
    let said = proc::environment_variable(pid, "POD_NAMESPACE").ok().flatten();
    said.filter(|namespace| !namespace.is_empty())
}

#[cfg(test)]
mod tests {
    use std::{path::Path, process, sync::Arc, time::Duration, time::Instant};

    use super::{Candidate, Entry, Identity, Member, Place, Processes, Settled, Settlement, Wait};
    use crate::{
        config::Config,
        discover::{
            Verdict,
            pods::{Container, Image, News, Pod, PodBook},
        },
    };

    /// A number that no process has.
    const CHILD: u32 = 4_000_010;

    /// A table in which this process waits for its pod, as one of the first service.
    fn waiting(wanted: &str) -> Processes {
        let text = format!(
            "services: [{{ name: a, match: {{ {wanted} }}, release: [image_tag], request: {{ id: {{ header: x }} }} }}, {{ name: b, match: {{ exe: /b }}, request: {{ id: {{ header: x }} }} }}]"
        );
        let services: Arc<[_]> = Config::parse(&text, Path::new("test.yaml")).expect("valid").services.into();
        let mut processes =
            Processes::new(Arc::clone(&services), PodBook::followed(), Duration::from_secs(3600));
        let identity = Identity::read(&services[0], process::id(), &mut processes.builds);
        let wait = Wait {
            place: Place::Container { pod_uid: Some("u1".into()), container_id: Some("c1".into()) },
            said: None,
            candidates: vec![Candidate { service: 0, identity }],
            began: Instant::now(),
            is_overdue: false,
            is_unlabelled: false,
            has_records: false,
        };
        processes.unsettled.waits.insert(0, wait);
        processes.table.insert(process::id(), Entry::running(Member::Waiting(0)));
        processes
    }

    fn pod(namespace: &str, containers: &[&str]) -> News {
        let image = Image { name: "shop:7".into(), ..Image::default() };
        let container = |id: &&str| Container { id: (*id).into(), image: image.clone() };
        News::Applied(Pod {
            uids: vec!["u1".into()],
            namespace: namespace.into(),
            containers: containers.iter().map(container).collect(),
            ..Pod::default()
        })
    }

    #[track_caller]
    fn only(settlements: Vec<Settlement>) -> Settlement {
        let [settlement] = <[Settlement; 1]>::try_from(settlements).expect("one is settled");
        settlement
    }

    #[test]
    fn a_process_and_its_child_wait_together_and_are_known_together() {
        let mut processes = waiting("namespace: shop");
        let this = process::id();
        assert_eq!(processes.on_fork(this, CHILD), Verdict::Trace);
        assert_eq!((processes.wait_of(this, None), processes.wait_of(CHILD, Some(0))), (Some(0), Some(0)));
        assert_eq!(processes.wait_of(this, Some(1)), None, "it cannot be of that service");
        assert!(processes.get(this).is_none());
        assert!(processes.settle(false, 5).is_empty(), "nothing is new");
        assert!(processes.learn_pods(pod("shop", &[])));
        assert!(processes.settle(true, 5).is_empty(), "its release is not known");
        assert!(processes.learn_pods(pod("shop", &["c1"])));
        let Settlement { wait: 0, mut pids, settled: Settled::Of(of), is_late: false } =
            only(processes.settle(true, 5))
        else {
            panic!("is of the service");
        };
        pids.sort_unstable();
        assert_eq!((pids, &*of.labels_at(0).release), (vec![this, CHILD], "7"));
        assert_eq!(processes.get(CHILD).map(|process| process.service), Some(0));
        assert!(processes.unsettled.waits.is_empty());
    }

    #[test]
    fn a_process_that_is_of_no_service_is_forgotten() {
        let mut processes = waiting("namespace: shop");
        processes.learn_pods(pod("other", &[]));
        let settlement = only(processes.settle(true, 5));
        assert!(matches!(settlement.settled, Settled::OfNone) && settlement.pids == [process::id()]);
        assert!(processes.get(process::id()).is_none() && !processes.is_unknown(process::id(), None));
    }

    #[test]
    fn what_is_given_up_is_unknown_until_it_is_known_late() {
        let mut processes = waiting("namespace: shop");
        let this = process::id();
        let settlement = processes.give_up(0, 5).expect("it waited");
        assert!(matches!(settlement.settled, Settled::Unknown) && !settlement.is_late);
        assert!(processes.wait_of(this, None).is_none() && processes.is_unknown(this, None));
        assert!(!processes.is_unknown(this, Some(1)));
        assert_eq!(processes.count_unsettled(), (0, 1));
        processes.forget_waits();
        processes.learn_pods(pod("shop", &["c1"]));
        let settlement = only(processes.settle(true, 9));
        assert!(settlement.is_late && matches!(settlement.settled, Settled::Of(_)));
    }

    #[test]
    fn a_release_that_is_known_late_holds_from_then_on() {
        let mut processes = waiting("namespace: shop");
        let this = process::id();
        processes.learn_pods(pod("shop", &[]));
        let settlement = processes.give_up(0, 5).expect("it waited");
        assert!(matches!(settlement.settled, Settled::Of(_)) && !settlement.is_late);
        assert_eq!(
            processes.get(this).map(|process| process.labels_at(7).release.to_string()),
            Some("".into())
        );
        processes.forget_waits();
        processes.learn_pods(pod("shop", &["c1"]));
        assert!(!only(processes.settle(true, 9)).is_late, "nothing was lost");
        let release = |processes: &mut Processes, at_ns| {
            processes.get(this).map(|process| process.labels_at(at_ns).release.to_string()).expect("is known")
        };
        assert_eq!((release(&mut processes, 8), release(&mut processes, 9)), ("".into(), "7".into()));
        assert!(processes.unsettled.waits.is_empty());
    }

    #[test]
    fn one_that_is_gone_was_where_the_last_of_its_cgroup_was() {
        let mut processes = waiting("namespace: shop, exe: \"/srv/*\"");
        let place = Place::Container { pod_uid: Some("u1".into()), container_id: Some("c1".into()) };
        processes.unsettled.places.insert(77, place);
        processes.learn_pods(pod("shop", &["c1"]));
        processes.on_exec(CHILD, "/srv/short", 77);
        assert_eq!(processes.get(CHILD).map(|process| process.service), Some(0));
        assert_eq!(processes.on_exec(CHILD + 1, "/srv/short", 78), Verdict::Trace);
        assert!(processes.get(CHILD + 1).is_none() && processes.is_unknown(CHILD + 1, None));
        assert_eq!(processes.on_exec(CHILD + 2, "/bin/other", 77), Verdict::Forget);
    }
}
