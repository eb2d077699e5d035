//! The table of processes.

mod changes;
#[cfg(test)]
mod tests;
mod unsettled;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use super::{
    files,
    identity::{Builds, Identity},
    labels::{LabelBook, OTHER},
    pods::{Place, PodBook},
    proc,
    releases::ReleaseBook,
};
use crate::{
    config::{SdkProbe, Service},
    domain::{Labels, Releases},
};
pub use changes::Change;
use unsettled::{Look, Unsettled};
pub use unsettled::{Settled, Settlement};

/// A process of no service is looked at again in one of so many scans: it can only have become one by an exec that no
/// record announced, and looking costs tens of microseconds a process.
const SCANS_OF_ALL: u32 = 12;
/// Looks at files that are part of releases, in one turn of the thread that joins: each takes microseconds of it.
const MAX_LOOKS_PER_TURN: u32 = 256;
/// The files of a process that does nothing are looked at this often, in nanoseconds.
const IDLE_LOOK_INTERVAL_NS: u64 = 1_000_000_000;

/// A process that ended is remembered this long: what it did last may still be on its way from the
/// kernel, behind records of others or, of its other threads, behind the record of its end.
const REMEMBER_FOR: Duration = Duration::from_secs(60);

/// A process that belongs to a service.
#[derive(Debug, Clone)]
pub struct Process {
    /// Position of the service in the configuration.
    pub service: usize,
    /// What its events are counted under now.
    labels: Arc<Labels>,
    /// What they were counted under before this time, in nanoseconds since the Unix epoch.
    earlier: Option<(u64, Arc<Labels>)>,
    followed: Option<Box<Followed>>,
    /// The wait that will tell what it runs, where that is not known yet.
    relabelled_by: Option<u64>,
}

/// What a process says of itself, where that can change while it runs.
#[derive(Debug, Clone)]
struct Followed {
    identity: Identity,
    /// When that was looked at last, in nanoseconds since the Unix epoch.
    looked_ns: u64,
}

impl Process {
    /// What an event of this time, in nanoseconds since the Unix epoch, is counted under.
    pub fn labels_at(&self, unix_ns: u64) -> &Arc<Labels> {
        match &self.earlier {
            Some((until_ns, earlier)) if unix_ns < *until_ns => earlier,
            _ => &self.labels,
        }
    }

    /// What its events are counted under now.
    pub const fn labels(&self) -> &Arc<Labels> {
        &self.labels
    }

    /// May it say something else at this time than when it was looked at?
    fn is_due(&self, unix_ns: u64) -> bool {
        self.followed.as_ref().is_some_and(|followed| followed.looked_ns <= unix_ns)
    }
}

/// What is to be done with a process in the kernel's table of targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Its sends and connections are to be captured.
    Trace,
    /// They are not.
    Forget,
}

/// Every process that was looked at and of which something may still come.
pub struct Processes {
    services: Arc<[Service]>,
    labels: LabelBook,
    builds: Builds,
    releases: ReleaseBook,
    table: HashMap<u32, Entry>,
    /// Processes that were looked at and are of no service, as long as they run.
    of_none: HashSet<u32>,
    scans: u32,
    /// Processes whose release can change, and the one to begin with next.
    followed: BTreeSet<u32>,
    next_followed: u32,
    looks_left: u32,
    /// What Kubernetes says, and the processes that wait for it.
    unsettled: Unsettled,
    /// What changed since it was last asked for.
    changes: Vec<Change>,
}

/// What is known of one process id.
struct Entry {
    member: Member,
    /// Since when it no longer runs.
    ended: Option<Instant>,
}

/// What a process is.
#[derive(Debug, Clone)]
enum Member {
    /// Of no service.
    OfNone,
    /// Of one.
    Of(Process),
    /// Of one or none: this wait will tell.
    Waiting(u64),
    /// Of one or none, and nobody will ever tell.
    Unknown,
}

impl Entry {
    const fn running(member: Member) -> Self {
        Self { member, ended: None }
    }

    const fn process(&self) -> Option<&Process> {
        match &self.member {
            Member::Of(process) => Some(process),
            _ => None,
        }
    }

    fn running_process(&self) -> Option<&Process> {
        self.process().filter(|_| self.ended.is_none())
    }
}

impl Processes {
    /// An empty table for these services, with what is known of pods. A process waits for what is not for so long at
    /// most.
    pub fn new(services: Arc<[Service]>, pods: PodBook, pod_wait: Duration) -> Self {
        Self {
            services,
            labels: LabelBook::default(),
            builds: Builds::default(),
            releases: ReleaseBook::default(),
            table: HashMap::new(),
            of_none: HashSet::new(),
            scans: 0,
            followed: BTreeSet::new(),
            next_followed: 0,
            looks_left: MAX_LOOKS_PER_TURN,
            unsettled: Unsettled::new(pods, pod_wait),
            changes: Vec::new(),
        }
    }

    /// The process, looked at now if that was not done before.
    pub fn get(&mut self, pid: u32) -> Option<&Process> {
        match self.member(pid) {
            Member::Of(process) => Some(process),
            _ => None,
        }
    }

    /// A process replaced its program by the one at `exe`. `cgroup_id` is that of its version 2 cgroup.
    pub fn on_exec(&mut self, pid: u32, exe: &str, cgroup_id: u64) -> Verdict {
        let member = self.look_at(pid, Some((exe, cgroup_id)));
        self.note(pid, member)
    }

    /// A process made a child. The child is what its parent is until it replaces its program.
    pub fn on_fork(&mut self, parent: u32, child: u32) -> Verdict {
        let member = self.member(parent).clone();
        self.note(child, member)
    }

    /// The main thread of a process ended. `Forget` when no other thread goes on.
    pub fn on_exit(&mut self, pid: u32) -> Option<Verdict> {
        (!proc::is_running(pid)).then(|| {
            if let Some(entry) = self.table.get_mut(&pid) {
                entry.ended.get_or_insert_with(Instant::now);
                self.changes.push(Change::Ended { pid });
            }
            Verdict::Forget
        })
    }

    /// Looks at every running process that is not known yet, and again at some of those that were of no service.
    /// Returns those that belong to one.
    pub fn scan(&mut self) -> Vec<u32> {
        let running: HashSet<u32> = proc::process_ids().unwrap_or_default().into_iter().collect();
        self.of_none.retain(|pid| running.contains(pid));
        self.scans = self.scans.wrapping_add(1);
        self.forget_unknown();
        let due = |pid: &u32| {
            !self.table.contains_key(pid)
                && (!self.of_none.contains(pid) || pid % SCANS_OF_ALL == self.scans % SCANS_OF_ALL)
        };
        let mut pids: Vec<u32> = running.iter().copied().filter(due).collect();
        pids.retain(|pid| {
            let member = self.look_at(*pid, None);
            self.note(*pid, member) == Verdict::Trace
        });
        pids
    }

    /// Notes which processes no longer run, and returns them together with those of `others` that do
    /// not. Drops those that ended long ago.
    pub fn sweep(&mut self, others: &[u32]) -> Vec<u32> {
        self.sweep_at(others, Instant::now())
    }

    fn sweep_at(&mut self, others: &[u32], now: Instant) -> Vec<u32> {
        let mut gone: Vec<u32> = others.iter().copied().filter(|pid| !proc::is_running(*pid)).collect();
        self.table.retain(|pid, entry| match (entry.ended, proc::is_running(*pid)) {
            (None, true) => true,
            (None, false) => {
                entry.ended = Some(now);
                gone.push(*pid);
                self.changes.push(Change::Ended { pid: *pid });
                true
            }
            // The number is used again: whoever has it now is looked at anew.
            (Some(_), true) => {
                self.changes.push(Change::Forgotten { pid: *pid });
                false
            }
            (Some(ended), false) => {
                let stays = now.duration_since(ended) < REMEMBER_FOR;
                if !stays {
                    self.changes.push(Change::Forgotten { pid: *pid });
                }
                stays
            }
        });
        self.forget_waits();
        gone.sort_unstable();
        gone.dedup();
        gone
    }

    /// Labels that no process has had for so long that nothing more can come under them.
    pub fn forget_labels(&mut self) -> Vec<Arc<Labels>> {
        let now = Instant::now();
        let mut running: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        for Process { labels, .. } in self.table.values().filter_map(Entry::running_process) {
            self.labels.touch(labels, now);
            *running.entry((&labels.service, &labels.release)).or_default() += 1;
        }
        self.releases.count(&running, unix_seconds());
        self.labels.forget_gone(now)
    }

    /// Everything that is known of the releases that were seen on this node.
    pub fn releases(&self, source: &str) -> Releases {
        self.releases.releases(source)
    }

    /// Begins a turn: looks at files that are part of releases of processes that did nothing for a while.
    /// Times as for [`Self::follow`].
    pub fn follow_idle(&mut self, now_ns: u64, step_ns: i64) {
        self.looks_left = MAX_LOOKS_PER_TURN;
        let Some(pid) = self.followed.range(self.next_followed..).next().copied() else {
            self.next_followed = 0;
            return;
        };
        self.next_followed = pid.saturating_add(1);
        let process = self.table.get(&pid).and_then(Entry::process);
        if process.is_none_or(|process| process.is_due(now_ns.saturating_sub(IDLE_LOOK_INTERVAL_NS))) {
            self.follow(pid, now_ns, step_ns);
        }
    }

    /// Is its release partly in a file that has to be looked at before an event of this time, in nanoseconds
    /// since the Unix epoch, can be labelled? Each yes takes one of the looks of this turn.
    pub fn is_look_due(&mut self, pid: u32, unix_ns: u64) -> bool {
        let is_due = self.looks_left > 0 && self.get(pid).is_some_and(|process| process.is_due(unix_ns));
        self.looks_left -= u32::from(is_due);
        is_due
    }

    /// Looks at the files that are part of the release of a process. `now_ns` is the time of events, in
    /// nanoseconds since the Unix epoch; `step_ns` is how far the system's clock has moved against it.
    pub fn follow(&mut self, pid: u32, now_ns: u64, step_ns: i64) {
        let running = self.table.get_mut(&pid).filter(|entry| entry.ended.is_none());
        let Some(Entry { member: Member::Of(process), .. }) = running else {
            self.followed.remove(&pid);
            return;
        };
        let Some(followed) = process.followed.as_mut() else { return };
        let before_ns = std::mem::replace(&mut followed.looked_ns, now_ns);
        let Some(changed_ns) = followed.identity.follow(pid, now_ns.saturating_add_signed(step_ns)) else {
            return;
        };
        let name = &self.services[process.service].name;
        let identity = &followed.identity;
        let labels = self.labels.labels(name, &identity.release(), &identity.group, Instant::now());
        // At the last look it still said the old, whatever time the file gives itself.
        let since_ns = changed_ns.saturating_add_signed(-step_ns).clamp(before_ns.min(now_ns), now_ns);
        tracing::info!(pid, service = name, release = %labels.release, "the release changed");
        if *labels.release != *OTHER {
            self.releases.note(&labels, identity.facts(), unix_seconds());
        }
        process.earlier = Some((since_ns, std::mem::replace(&mut process.labels, labels)));
        self.changes.push(Change::belongs(pid, process));
    }

    /// How many processes each service has.
    pub fn count_by_service(&self) -> BTreeMap<usize, usize> {
        let mut counts: BTreeMap<usize, usize> =
            (0..self.services.len()).map(|service| (service, 0)).collect();
        for process in self.table.values().filter_map(Entry::running_process) {
            *counts.entry(process.service).or_default() += 1;
        }
        counts
    }

    /// Ids of the running processes of a service.
    pub fn of_service(&self, service: usize) -> Vec<u32> {
        let of_service =
            |entry: &Entry| entry.running_process().is_some_and(|process| process.service == service);
        self.table.iter().filter(|(_, entry)| of_service(entry)).map(|(pid, _)| *pid).collect()
    }

    /// The file that a probe goes into in one process, once it is there.
    pub fn probe_file(probe: &SdkProbe, pid: u32) -> Option<PathBuf> {
        files::file_of_process(probe.library.as_deref(), pid)
    }

    /// Is there such a process, and does it still run?
    pub fn is_running(pid: u32) -> bool {
        proc::is_running(pid)
    }

    /// What the process is, looked at now if that was not done before.
    fn member(&mut self, pid: u32) -> &Member {
        if !self.table.contains_key(&pid) {
            let member = self.look_at(pid, None);
            // What is of no service is noted in the table, too: it was asked for, and may be again at once.
            if self.note(pid, member) == Verdict::Forget {
                self.table.insert(pid, Entry::running(Member::OfNone));
            }
        }
        self.table.get(&pid).map_or(&Member::OfNone, |entry| &entry.member)
    }

    /// `executed`: the program that it replaced its own by, and its cgroup then; it may be gone.
    fn look_at(&mut self, pid: u32, executed: Option<(&str, u64)>) -> Member {
        let exe = executed.map(|(exe, _)| exe);
        let fits = |service: &&Service| files::matches(service, pid, exe);
        let Some(first) = self.services.iter().position(|service| fits(&service)) else {
            return Member::OfNone;
        };
        let place = self.unsettled.place(pid, executed.map(|(_, cgroup_id)| cgroup_id));
        let look = Look { pid, first, exe, place };
        self.look_with_pod(&look)
    }

    /// A process of a service, under the labels that follow from what it says.
    fn process(&mut self, service: usize, identity: Identity) -> Process {
        let name = &self.services[service].name;
        let labels = self.labels.labels(name, &identity.release(), &identity.group, Instant::now());
        // What is behind "other" is not one release.
        if *labels.release != *OTHER {
            self.releases.note(&labels, identity.facts(), unix_seconds());
        }
        let followed = (!identity.files.is_empty()).then(|| Box::new(Followed { identity, looked_ns: 0 }));
        Process { service, labels, earlier: None, followed, relabelled_by: None }
    }

    /// Keeps what may be of a service; of what is of none, only the number.
    fn note(&mut self, pid: u32, member: Member) -> Verdict {
        if matches!(member, Member::OfNone) {
            if self.table.remove(&pid).is_some() {
                self.changes.push(Change::Forgotten { pid });
            }
            self.of_none.insert(pid);
            return Verdict::Forget;
        }
        if matches!(&member, Member::Of(process) if process.followed.is_some()) {
            self.followed.insert(pid);
        }
        self.of_none.remove(&pid);
        self.changes.extend(Change::of(pid, &member));
        self.table.insert(pid, Entry::running(member));
        Verdict::Trace
    }
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
