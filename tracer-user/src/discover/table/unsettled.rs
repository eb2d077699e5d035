//! The part of the table that has to do with Kubernetes: processes that are not settled yet.
//!
//! A process whose service, or whose release, only Kubernetes can tell is looked at once, while it is there, and
//! decided when what is needed is known. What is decided is said once, as a [`Settlement`].

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Change, Entry, Identity, Member, Place, PodBook, Process, Processes, proc};
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
    pub(super) waits: BTreeMap<u64, Wait>,
    pub(super) next_wait: u64,
    /// Waits that changed since they were asked for.
    pub(super) changed: BTreeSet<u64>,
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
        Self {
            pods,
            pod_wait,
            waits: BTreeMap::new(),
            next_wait: 0,
            changed: BTreeSet::new(),
            places: HashMap::new(),
        }
    }

    /// Has this wait tell only what a process runs that is known to be of this service. False when it cannot.
    pub(super) fn relabels(&mut self, number: u64, service: usize) -> bool {
        let wait = self.waits.get_mut(&number);
        let wait = wait.filter(|wait| wait.candidates.iter().any(|candidate| candidate.service == service));
        self.changed.insert(number);
        wait.map(|wait| wait.is_unlabelled = true).is_some()
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
        if self.unsettled.waits.is_empty() && self.unsettled.pods.is_alone() {
            return None;
        }
        let Member::Waiting(number) = *self.member(pid) else { return None };
        let wait = self.unsettled.waits.get_mut(&number)?;
        let is_held = !wait.is_overdue && may_be_of(wait, probe);
        if is_held && !wait.has_records {
            wait.has_records = true;
            self.unsettled.changed.insert(number);
        }
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
        self.unsettled.changed.insert(number);
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
            Decision::NotYet if wait.is_overdue && !was_overdue && !wait.is_unlabelled => Settled::Unknown,
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
            self.changes.push(Change::of(*pid, &entry.member).unwrap_or(Change::Forgotten { pid: *pid }));
            if entry.ended.is_some() {
                self.changes.push(Change::Ended { pid: *pid });
            } else {
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
                self.unsettled.changed.insert(number);
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
        let Unsettled { waits, changed, .. } = &mut self.unsettled;
        waits.retain(|number, wait| {
            let stays = needed.contains(number) || wait.has_records && !wait.is_overdue;
            if !stays {
                changed.insert(*number);
            }
            stays
        });
    }

    /// Forgets running processes that nothing will ever tell of, so that they are looked at anew.
    pub(super) fn forget_unknown(&mut self) {
        let Self { table, changes, .. } = self;
        table.retain(|pid, entry| {
            let stays = entry.ended.is_some() || !matches!(entry.member, Member::Unknown);
            if !stays {
                changes.push(Change::Forgotten { pid: *pid });
            }
            stays
        });
    }

    /// Is there such a wait?
    pub fn has_wait(&self, number: u64) -> bool {
        self.unsettled.waits.contains_key(&number)
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
