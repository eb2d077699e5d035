//! The table of processes.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use super::{
    files,
    identity::{Builds, Identity},
    labels::{LabelBook, OTHER},
    proc,
    releases::ReleaseBook,
};
use crate::{
    config::{SdkProbe, Service},
    domain::{Labels, Releases},
};

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

/// A change of the table. What is known of the processes of services follows from these alone, without
/// another look at /proc.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// A process belongs to the service that its labels name.
    Belongs {
        /// Which process.
        pid: u32,
        /// What its events are counted under.
        labels: Arc<Labels>,
    },
    /// A process no longer runs; what it did last may still come.
    Ended {
        /// Which process.
        pid: u32,
    },
    /// Nothing more is known of a process id.
    Forgotten {
        /// Which one.
        pid: u32,
    },
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
    /// What changed since it was last asked for.
    changes: Vec<Change>,
}

/// What is known of one process id.
struct Entry {
    /// `None`: looked at, and of no service.
    process: Option<Process>,
    /// Since when it no longer runs.
    ended: Option<Instant>,
}

impl Entry {
    const fn running(process: Option<Process>) -> Self {
        Self { process, ended: None }
    }
}

impl Processes {
    /// An empty table for these services.
    pub fn new(services: Arc<[Service]>) -> Self {
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
            changes: Vec::new(),
        }
    }

    /// What changed since the last call.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// The changes that make this table out of an empty one.
    pub fn as_changes(&self) -> Vec<Change> {
        let mut changes = Vec::with_capacity(self.table.len());
        for (pid, entry) in &self.table {
            let Some(process) = &entry.process else { continue };
            changes.push(Change::Belongs { pid: *pid, labels: Arc::clone(&process.labels) });
            if entry.ended.is_some() {
                changes.push(Change::Ended { pid: *pid });
            }
        }
        changes
    }

    /// Makes a change again that was made before a restart. A service that is no longer configured has
    /// no processes.
    pub fn make_again(&mut self, change: &Change) {
        match change {
            Change::Belongs { pid, labels } => {
                let now = Instant::now();
                let labels = self.labels.again(labels, now);
                let service = self.services.iter().position(|service| *service.name == *labels.service);
                if let Some(service) = service {
                    let process = Process { service, labels, earlier: None, followed: None };
                    self.table.insert(*pid, Entry::running(Some(process)));
                }
            }
            Change::Ended { pid } => {
                if let Some(entry) = self.table.get_mut(pid) {
                    entry.ended.get_or_insert_with(Instant::now);
                }
            }
            Change::Forgotten { pid } => drop(self.table.remove(pid)),
        }
    }

    /// After a restart: looks at the processes that still run, whose release may have changed since.
    /// What they did before `now_ns`, in nanoseconds since the Unix epoch, stays what it was.
    pub fn look_again(&mut self, now_ns: u64) {
        for pid in self.running() {
            let known = self.table.get(&pid).and_then(|entry| entry.process.clone());
            let (Some(known), Some(mut process)) = (known, self.look_at(pid, None)) else { continue };
            if process.service == known.service {
                process.earlier = Some((now_ns, known.labels));
                self.note(pid, Some(process));
            }
        }
    }

    /// Labels under which something was counted before a restart: they can be forgotten like any others.
    pub fn remember_labels(&mut self, labels: impl IntoIterator<Item = Labels>) {
        let now = Instant::now();
        for labels in labels {
            self.labels.again(&Arc::new(labels), now);
        }
    }

    /// Ids of all processes of services that are not known to have ended.
    pub fn running(&self) -> Vec<u32> {
        let running = |entry: &Entry| entry.process.is_some() && entry.ended.is_none();
        self.table.iter().filter(|(_, entry)| running(entry)).map(|(pid, _)| *pid).collect()
    }

    /// The process, looked at now if that was not done before.
    pub fn get(&mut self, pid: u32) -> Option<&Process> {
        if !self.table.contains_key(&pid) {
            let process = self.look_at(pid, None);
            if process.is_none() || self.note(pid, process) == Verdict::Forget {
                // What is of no service is noted, too: it was asked for, and may be again at once.
                self.table.insert(pid, Entry::running(None));
            }
        }
        self.table.get(&pid).and_then(|entry| entry.process.as_ref())
    }

    /// A process replaced its program by the one at `exe`.
    pub fn on_exec(&mut self, pid: u32, exe: &str) -> Verdict {
        let process = self.look_at(pid, Some(exe));
        self.note(pid, process)
    }

    /// A process made a child. The child is what its parent is until it replaces its program.
    pub fn on_fork(&mut self, parent: u32, child: u32) -> Verdict {
        let process = self.get(parent).cloned();
        self.note(child, process)
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
        let due = |pid: &u32| {
            !self.table.contains_key(pid)
                && (!self.of_none.contains(pid) || pid % SCANS_OF_ALL == self.scans % SCANS_OF_ALL)
        };
        let mut pids: Vec<u32> = running.iter().copied().filter(due).collect();
        pids.retain(|pid| {
            let process = self.look_at(*pid, None);
            self.note(*pid, process) == Verdict::Trace
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
        gone.sort_unstable();
        gone.dedup();
        gone
    }

    /// Labels that no process has had for so long that nothing more can come under them.
    pub fn forget_labels(&mut self) -> Vec<Arc<Labels>> {
        let now = Instant::now();
        let mut running: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        for entry in self.table.values().filter(|entry| entry.ended.is_none()) {
            if let Some(Process { labels, .. }) = &entry.process {
                self.labels.touch(labels, now);
                *running.entry((&labels.service, &labels.release)).or_default() += 1;
            }
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
        let process = self.table.get(&pid).and_then(|entry| entry.process.as_ref());
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
        let Some(process) = running.and_then(|entry| entry.process.as_mut()) else {
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
        self.changes.push(Change::Belongs { pid, labels: Arc::clone(&labels) });
        process.earlier = Some((since_ns, std::mem::replace(&mut process.labels, labels)));
    }

    /// How many processes each service has.
    pub fn count_by_service(&self) -> BTreeMap<usize, usize> {
        let mut counts: BTreeMap<usize, usize> =
            (0..self.services.len()).map(|service| (service, 0)).collect();
        let running = self.table.values().filter(|entry| entry.ended.is_none());
        for process in running.filter_map(|entry| entry.process.as_ref()) {
            *counts.entry(process.service).or_default() += 1;
        }
        counts
    }

    /// Ids of the running processes of a service.
    pub fn of_service(&self, service: usize) -> Vec<u32> {
        let of_service = |entry: &Entry| {
            entry.ended.is_none() && entry.process.as_ref().is_some_and(|process| process.service == service)
        };
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

    fn look_at(&mut self, pid: u32, exe: Option<&str>) -> Option<Process> {
        let service = self.services.iter().position(|service| files::matches(service, pid, exe))?;
        let identity = Identity::read(&self.services[service], pid, &mut self.builds);
        let name = &self.services[service].name;
        let labels = self.labels.labels(name, &identity.release(), &identity.group, Instant::now());
        // What is behind "other" is not one release.
        if *labels.release != *OTHER {
            self.releases.note(&labels, identity.facts(), unix_seconds());
        }
        let followed = (!identity.files.is_empty()).then(|| Box::new(Followed { identity, looked_ns: 0 }));
        Some(Process { service, labels, earlier: None, followed })
    }

    /// Keeps a process of a service; of what is of none, only the number.
    fn note(&mut self, pid: u32, process: Option<Process>) -> Verdict {
        match process {
            Some(process) => {
                self.changes.push(Change::Belongs { pid, labels: Arc::clone(&process.labels) });
                if process.followed.is_some() {
                    self.followed.insert(pid);
                }
                self.of_none.remove(&pid);
                self.table.insert(pid, Entry::running(Some(process)));
                Verdict::Trace
            }
            None => {
                if self.table.remove(&pid).is_some() {
                    self.changes.push(Change::Forgotten { pid });
                }
                self.of_none.insert(pid);
                Verdict::Forget
            }
        }
    }
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use std::{path::Path, process::Command, time::Instant};

    use super::{Processes, REMEMBER_FOR, SCANS_OF_ALL, Verdict};
    use crate::config::Config;

    fn table(exe: &str) -> Processes {
        let text = format!(
            "services: [{{ name: a, match: {{ exe: \"{exe}\" }}, group: \"env:AB_GROUP\", request: {{ id: {{ header: x }} }} }}]"
        );
        let config = Config::parse(&text, Path::new("test.yaml")).expect("valid");
        Processes::new(config.services.into())
    }

    #[test]
    fn a_process_is_recognised_with_its_group_and_forgotten_when_it_ends() {
        let sleep = std::fs::canonicalize("/bin/sleep").expect("every system has it");
        let mut processes = table(&sleep.to_string_lossy());
        let mut child = Command::new(&sleep).arg("60").env("AB_GROUP", "treatment").spawn().expect("starts");
        let pid = child.id();
        // It counts as started before the kernel has noted where its environment is. The daemon asks
        // when the exec record says that the program runs, or when the program has done something.
        while std::fs::read(format!("/proc/{pid}/environ")).expect("is ours").is_empty() {
            std::thread::yield_now();
        }
        let group = processes.get(pid).map(|process| process.labels_at(0).group.to_string());
        assert_eq!(processes.on_exit(pid), None, "it still runs");
        child.kill().expect("is ours");
        // Not waited for yet: a zombie does not run any more.
        while std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z")) {
            std::thread::yield_now();
        }
        let verdict = processes.on_exit(pid);
        child.wait().expect("is ours");
        assert_eq!(group.as_deref(), Some("treatment"));
        assert_eq!(verdict, Some(Verdict::Forget));
        assert_eq!(processes.count_by_service().get(&0), Some(&0));
    }

    #[test]
    fn what_a_process_did_last_is_still_its_own_for_a_while_after_its_end() {
        let this = std::env::current_exe().expect("runs from a file");
        let mut processes = table(&this.to_string_lossy());
        let (parent, gone) = (std::process::id(), 4_000_000);
        assert_eq!(processes.on_fork(parent, gone), Verdict::Trace);
        let now = Instant::now();
        assert_eq!(processes.sweep_at(&[gone], now), [gone]);
        assert!(processes.get(gone).is_some(), "its last records may still come");
        assert_eq!(processes.count_by_service().get(&0), Some(&1));
        assert!(processes.sweep_at(&[], now + REMEMBER_FOR).is_empty());
        assert!(processes.get(gone).is_none());
    }

    #[test]
    fn the_changes_of_a_table_make_it_again() {
        let this = std::env::current_exe().expect("runs from a file");
        let (mut before, mut after) = (table(&this.to_string_lossy()), table(&this.to_string_lossy()));
        let (parent, gone) = (std::process::id(), 4_000_000);
        before.on_fork(parent, gone);
        before.sweep(&[]);
        for change in before.take_changes() {
            after.make_again(&change);
        }
        assert_eq!(after.running(), [parent]);
        assert!(after.table.contains_key(&gone), "its last records may still come");
        let mut again = table(&this.to_string_lossy());
        for change in after.as_changes() {
            again.make_again(&change);
        }
        assert_eq!((again.running(), again.table.len()), (after.running(), after.table.len()));
        assert_eq!(again.take_changes(), [], "what is made again is no change");
    }

    #[test]
    fn a_child_is_what_its_parent_is() {
        let this = std::env::current_exe().expect("runs from a file");
        let mut processes = table(&this.to_string_lossy());
        let pid = std::process::id();
        assert_eq!(processes.on_fork(pid, 4_000_000), Verdict::Trace);
        assert_eq!(processes.get(4_000_000).map(|process| process.service), Some(0));
    }

    #[test]
    fn a_process_of_no_service_is_looked_at_again_in_one_of_twelve_scans() {
        let mut processes = table("/no/such/program");
        processes.scan();
        let pid = std::process::id();
        assert!(processes.of_none.contains(&pid));
        // Were it to be one by now:
        let this = std::env::current_exe().expect("runs from a file");
        processes.services = table(&this.to_string_lossy()).services;
        let found: Vec<u32> = (0..SCANS_OF_ALL).filter(|_| processes.scan().contains(&pid)).collect();
        assert_eq!(found.len(), 1);
        assert!(!processes.of_none.contains(&pid));
    }

    #[test]
    fn a_process_of_no_service_is_forgotten() {
        let mut processes = table("/no/such/program");
        assert_eq!(processes.on_exec(std::process::id(), "/x"), Verdict::Forget);
        assert!(processes.get(std::process::id()).is_none());
        assert!(processes.get(4_000_001).is_none());
    }

    #[test]
    fn a_process_that_is_gone_is_recognised_by_the_path_it_executed() {
        let mut processes = table("/usr/bin/recommend-*");
        assert_eq!(processes.on_exec(4_000_002, "/usr/bin/recommend-7"), Verdict::Trace);
    }
}
