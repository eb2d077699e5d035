//! The table of processes as changes that make it again after a restart.

use std::{sync::Arc, time::Instant};

use serde::{Deserialize, Serialize};

use super::{Entry, Member, Process, Processes};
use crate::{discover::waiting::Wait, domain::Labels};

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
        /// The wait that will tell what it runs, where that is not known.
        wait: Option<u64>,
    },
    /// Of which service a process is, only Kubernetes can say.
    Unsettled {
        /// Which process.
        pid: u32,
        /// The wait that will tell; `None` when nothing ever will.
        wait: Option<u64>,
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
    /// A wait is this by now.
    Wait(WaitChange),
}

/// What a wait is by now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitChange {
    number: u64,
    /// `None` when it is over.
    wait: Option<Box<Wait>>,
    /// The names of the services of its candidates: another run may have them at other positions.
    services: Vec<String>,
}

impl Change {
    pub(super) fn belongs(pid: u32, process: &Process) -> Self {
        Self::Belongs { pid, labels: Arc::clone(&process.labels), wait: process.relabelled_by }
    }

    /// The change that makes a process this, if anything has to be known of it.
    pub(super) fn of(pid: u32, member: &Member) -> Option<Self> {
        match member {
            Member::Of(process) => Some(Self::belongs(pid, process)),
            Member::Waiting(number) => Some(Self::Unsettled { pid, wait: Some(*number) }),
            Member::Unknown => Some(Self::Unsettled { pid, wait: None }),
            Member::OfNone => None,
        }
    }
}

impl Processes {
    /// What changed since the last call.
    pub fn take_changes(&mut self) -> Vec<Change> {
        let waits = std::mem::take(&mut self.unsettled.changed);
        let mut changes: Vec<Change> = waits.into_iter().map(|number| self.wait_change(number)).collect();
        changes.append(&mut self.changes);
        changes
    }

    /// The changes that make this table out of an empty one.
    pub fn as_changes(&self) -> Vec<Change> {
        let mut changes: Vec<Change> =
            self.unsettled.waits.keys().map(|number| self.wait_change(*number)).collect();
        for (pid, entry) in &self.table {
            let Some(change) = Change::of(*pid, &entry.member) else { continue };
            changes.push(change);
            if entry.ended.is_some() {
                changes.push(Change::Ended { pid: *pid });
            }
        }
        changes
    }

    fn wait_change(&self, number: u64) -> Change {
        let wait = self.unsettled.waits.get(&number).cloned().map(Box::new);
        let candidates = wait.iter().flat_map(|wait| &wait.candidates);
        let services = candidates.map(|candidate| self.services[candidate.service].name.clone()).collect();
        Change::Wait(WaitChange { number, wait, services })
    }

    /// Makes a change again that was made before a restart. A service that is no longer configured has
    /// no processes, and nothing waits to be of it.
    pub fn make_again(&mut self, change: &Change) {
        match change {
            Change::Belongs { pid, labels, wait } => {
                if let Some(process) = self.process_under(labels) {
                    let process = Process { relabelled_by: *wait, ..process };
                    self.table.insert(*pid, Entry::running(Member::Of(process)));
                }
            }
            Change::Unsettled { pid, wait } => {
                let member = wait.map_or(Member::Unknown, Member::Waiting);
                self.table.insert(*pid, Entry::running(member));
            }
            Change::Ended { pid } => {
                if let Some(entry) = self.table.get_mut(pid) {
                    entry.ended.get_or_insert_with(Instant::now);
                }
            }
            Change::Forgotten { pid } => drop(self.table.remove(pid)),
            Change::Wait(change) => self.make_wait_again(change),
        }
    }

    fn make_wait_again(&mut self, change: &WaitChange) {
        let WaitChange { number, wait, services } = change;
        let unsettled = &mut self.unsettled;
        unsettled.next_wait = unsettled.next_wait.max(number.saturating_add(1));
        let Some(wait) = wait else {
            unsettled.waits.remove(number);
            return;
        };
        let mut wait = Wait::clone(wait);
        let mut names = services.iter();
        wait.candidates.retain_mut(|candidate| {
            let name = names.next();
            let service = self.services.iter().position(|service| Some(&service.name) == name);
            candidate.service = service.unwrap_or_default();
            service.is_some()
        });
        unsettled.waits.insert(*number, wait);
    }

    /// A process that is counted under labels of before a restart; `None` when its service is no longer configured.
    pub fn process_under(&mut self, labels: &Arc<Labels>) -> Option<Process> {
        let labels = self.labels.again(labels, Instant::now());
        let service = self.services.iter().position(|service| *service.name == *labels.service)?;
        Some(Process { service, labels, earlier: None, followed: None, relabelled_by: None })
    }

    /// After a restart: looks at the processes that still run, whose release may have changed since.
    /// What they did before `now_ns`, in nanoseconds since the Unix epoch, stays what it was.
    pub fn look_again(&mut self, now_ns: u64) {
        for pid in self.running() {
            let Some(Member::Of(known)) = self.table.get(&pid).map(|entry| entry.member.clone()) else {
                continue;
            };
            match self.look_at(pid, None) {
                Member::Of(process) if process.service == known.service => {
                    let earlier = Some((now_ns, known.labels));
                    self.note(pid, Member::Of(Process { earlier, ..process }));
                }
                // It stays what it was until Kubernetes says more.
                Member::Waiting(number) if self.unsettled.relabels(number, known.service) => {
                    self.note(pid, Member::Of(Process { relabelled_by: Some(number), ..known }));
                }
                _ => {}
            }
        }
    }

    /// After a time that nobody knows anything of: forgets what processes were, because their ids may be those of others
    /// by now. What waits for Kubernetes stays: its records are held, and are told by the wait.
    pub fn forget_known(&mut self) {
        let Self { table, changes, followed, .. } = self;
        table.retain(|pid, entry| {
            let is_known = matches!(&entry.member, Member::Of(process) if process.relabelled_by.is_none());
            if is_known {
                followed.remove(pid);
                changes.push(Change::Forgotten { pid: *pid });
            }
            !is_known
        });
    }

    /// Labels under which something was counted before a restart: they can be forgotten like any others.
    pub fn remember_labels(&mut self, labels: impl IntoIterator<Item = Labels>) {
        let now = Instant::now();
        for labels in labels {
            self.labels.again(&Arc::new(labels), now);
        }
    }

    /// Ids of all processes of services, or that may be of one, that are not known to have ended.
    pub fn running(&self) -> Vec<u32> {
        let running = |entry: &Entry| {
            entry.ended.is_none() && matches!(entry.member, Member::Of(_) | Member::Waiting(_))
        };
        self.table.iter().filter(|(_, entry)| running(entry)).map(|(pid, _)| *pid).collect()
    }
}
