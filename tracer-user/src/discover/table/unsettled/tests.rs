use std::{path::Path, process, sync::Arc, time::Duration, time::Instant};

use super::{Candidate, Change, Entry, Identity, Member, Place, Processes, Settled, Settlement, Wait};
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
    let mut processes = Processes::new(Arc::clone(&services), PodBook::followed(), Duration::from_secs(3600));
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
    assert_eq!(processes.get(this).map(|process| process.labels_at(7).release.to_string()), Some("".into()));
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

/// The table that a restart makes of this one.
fn again(processes: &Processes) -> Processes {
    let mut again =
        Processes::new(Arc::clone(&processes.services), PodBook::followed(), Duration::from_secs(3600));
    for change in processes.as_changes() {
        again.make_again(&change);
    }
    again
}

#[test]
fn a_restart_changes_nothing_of_what_waits() {
    let mut before = waiting("namespace: shop");
    let this = process::id();
    before.on_fork(this, CHILD);
    assert_eq!(before.wait_of(CHILD, None), Some(0));
    let mut after = again(&before);
    let mut by_steps =
        Processes::new(Arc::clone(&before.services), PodBook::followed(), Duration::from_secs(3600));
    before.unsettled.changed.insert(0);
    before.changes.insert(0, Change::Unsettled { pid: this, wait: Some(0) });
    for change in before.take_changes() {
        by_steps.make_again(&change);
    }
    for processes in [&mut after, &mut by_steps] {
        processes.look_again(7);
        assert_eq!((processes.wait_of(this, None), processes.wait_of(CHILD, Some(1))), (Some(0), None));
        processes.learn_pods(pod("shop", &["c1"]));
        let Settlement { wait: 0, pids, settled: Settled::Of(of), .. } = only(processes.settle(true, 5))
        else {
            panic!("is of the service");
        };
        assert_eq!((pids.len(), &*of.labels().release), (2, "7"));
        let known = again(processes);
        assert_eq!(known.services_of(CHILD), [0], "what is settled is so after the next restart, too");
        assert!(!known.has_wait(0));
    }
    assert_eq!(after.unsettled.next_wait, 1, "no number is used twice");
}

#[test]
fn what_is_unknown_or_without_its_release_stays_so_over_a_restart() {
    let mut processes = waiting("namespace: shop");
    let this = process::id();
    processes.table.insert(CHILD, Entry::running(Member::Unknown));
    processes.learn_pods(pod("shop", &[]));
    assert!(processes.give_up(0, 5).is_some());
    let mut after = again(&processes);
    assert!(after.is_unknown(CHILD, None));
    after.learn_pods(pod("shop", &["c1"]));
    assert!(matches!(only(after.settle(true, 9)).settled, Settled::Of(_)));
    let release = after.get(this).map(|process| process.labels_at(9).release.to_string());
    assert_eq!(release.as_deref(), Some("7"));
}

#[test]
fn a_wait_for_a_service_that_is_no_longer_configured_is_for_nothing() {
    let before = waiting("namespace: shop");
    let text = "services: [{ name: other, match: { namespace: shop }, request: { id: { header: x } } }]";
    let services: Arc<[_]> = Config::parse(text, Path::new("test.yaml")).expect("valid").services.into();
    let mut after = Processes::new(services, PodBook::followed(), Duration::from_secs(3600));
    for change in before.as_changes() {
        after.make_again(&change);
    }
    after.learn_pods(pod("shop", &["c1"]));
    assert!(matches!(only(after.settle(true, 5)).settled, Settled::OfNone));
}
