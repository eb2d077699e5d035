//! The table of processes.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

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

/// Every process that was looked at and of which something may still come.
pub struct Processes {
    services: Arc<[Service]>,
    labels: LabelBook,
    builds: Builds,
    releases: ReleaseBook,
    table: HashMap<u32, Entry>,
    /// Processes whose release can change, and the one to begin with next.
    followed: BTreeSet<u32>,
    next_followed: u32,
    looks_left: u32,
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
            followed: BTreeSet::new(),
            next_followed: 0,
            looks_left: MAX_LOOKS_PER_TURN,
        }
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
            }
            Verdict::Forget
        })
    }

    /// Looks at every running process that is not in the table. Returns those that belong to a service.
    pub fn scan(&mut self) -> Vec<u32> {
        let mut pids = proc::process_ids().unwrap_or_default();
        pids.retain(|pid| !self.table.contains_key(pid));
        pids.retain(|pid| {
            let process = self.look_at(*pid, None);
            process.is_some() && self.note(*pid, process) == Verdict::Trace
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
                true
            }
            // The number is used again: whoever has it now is looked at anew.
            (Some(_), true) => false,
            (Some(ended), false) => now.duration_since(ended) < REMEMBER_FOR,
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
        files::file_of_process(probe, pid)
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

    /// Keeps a process of a service; what is of none takes no room, whatever else runs on the machine.
    fn note(&mut self, pid: u32, process: Option<Process>) -> Verdict {
        match process {
            Some(process) => {
                if process.followed.is_some() {
                    self.followed.insert(pid);
                }
                self.table.insert(pid, Entry::running(Some(process)));
                Verdict::Trace
            }
            None => {
                self.table.remove(&pid);
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

    use super::{Processes, REMEMBER_FOR, Verdict};
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
    fn a_child_is_what_its_parent_is() {
        let this = std::env::current_exe().expect("runs from a file");
        let mut processes = table(&this.to_string_lossy());
        let pid = std::process::id();
        assert_eq!(processes.on_fork(pid, 4_000_000), Verdict::Trace);
        assert_eq!(processes.get(4_000_000).map(|process| process.service), Some(0));
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
