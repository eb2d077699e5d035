use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use super::{Change, Processes, REMEMBER_FOR, SCANS_OF_ALL, Verdict};
use crate::{config::Config, discover::pods::PodBook};

fn table(exe: &str) -> Processes {
    let text = format!(
        "services: [{{ name: a, match: {{ exe: \"{exe}\" }}, group: \"env:AB_GROUP\", request: {{ id: {{ header: x }} }} }}]"
    );
    let config = Config::parse(&text, Path::new("test.yaml")).expect("valid");
    Processes::new(config.services.into(), PodBook::alone(), Duration::ZERO)
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
fn after_a_gap_an_id_is_whose_it_is_now() {
    let this = std::env::current_exe().expect("runs from a file");
    let mut before = table(&this.to_string_lossy());
    let this = std::process::id();
    // Before the machine went down, the process that now has this id was one of another program.
    assert_eq!(before.on_fork(this, 1), Verdict::Trace);
    let mut after = table("/somewhere/else");
    for change in before.as_changes() {
        after.make_again(&change);
    }
    assert_eq!(after.running().len(), 2);
    after.forget_known();
    assert!(after.running().is_empty(), "nobody knows who has these ids now");
    assert!(after.get(this).is_none() && after.get(1).is_none());
    let forgotten =
        after.take_changes().into_iter().filter(|change| matches!(change, Change::Forgotten { .. }));
    assert_eq!(forgotten.count(), 2, "and a successor will not know, either");
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
    assert_eq!(processes.on_exec(std::process::id(), "/x", 1), Verdict::Forget);
    assert!(processes.get(std::process::id()).is_none());
    assert!(processes.get(4_000_001).is_none());
}

#[test]
fn a_process_that_is_gone_is_recognised_by_the_path_it_executed() {
    let mut processes = table("/usr/bin/recommend-*");
    assert_eq!(processes.on_exec(4_000_002, "/usr/bin/recommend-7", 1), Verdict::Trace);
}
