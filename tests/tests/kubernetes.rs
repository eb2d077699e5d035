//! Services that only Kubernetes can tell from others: real processes in cgroups named as the kubelet and the runtimes
//! name them, and a stand-in for the API server that knows their pods.

use std::{fs, net::SocketAddr, path::Path, thread, time::Duration};

use rustix::process::Signal;
use serde_json::{Value, json};
use tests::{
    cgroups::{Cgroups, Version, cgroupfs, container_id, pod_uid, systemd},
    daemon::{Daemon, Pinned, free_address},
    kubernetes::ApiServer,
    linktracer, printed,
    server::Contained,
    wait_for,
};
use tracer_user::{
    demo::{fixture::Fixture, http::Connection},
    domain::{Release, Releases},
};

const LIMIT: Duration = Duration::from_secs(30);
/// Recommendations that a process is asked for, each with one exposure and one click.
const CALLS: u32 = 20;
const NODE: &str = "node-a";

/// What a test has beside the daemon.
struct Scene {
    fixture: Fixture,
    cgroups: Cgroups,
    scratch: tempfile::TempDir,
    api: SocketAddr,
}

impl Scene {
    fn new(version: Version) -> Self {
        Self {
            fixture: Fixture::unpack().expect("unpacks"),
            cgroups: Cgroups::new(version),
            scratch: tempfile::tempdir().expect("a scratch folder"),
            api: free_address(),
        }
    }

    /// A service of the fixture's program; `wanted` is the rest of its `match` and, each after a bar, further keys.
    fn service(&self, name: &str, wanted: &str) -> String {
        let (wanted, keys) = wanted.split_once(" | ").unwrap_or((wanted, ""));
        let keys: String =
            keys.split(" | ").filter(|key| !key.is_empty()).map(|key| format!("    {key}\n")).collect();
        let args = "args: \"(request_id cstr, item_id cstr)\"";
        format!(
            "  - name: {name}\n    match: {{ exe: \"{}\", {wanted} }}\n{keys}    \
             request: {{ id: {{ header: X-Request-Id }} }}\n    \
             exposure: {{ library: librecsdk.so, symbol: trackExposure, {args} }}\n    \
             click: {{ library: librecsdk.so, symbol: trackClick, {args} }}\n",
            self.fixture.service().display(),
        )
    }

    fn daemon(&self, pod_wait: &str, services: &str) -> Daemon {
        self.daemon_with("", pod_wait, services)
    }

    /// `settings`: further lines of the configuration.
    fn daemon_with(&self, settings: &str, pod_wait: &str, services: &str) -> Daemon {
        let kubeconfig = ApiServer::kubeconfig(self.api, self.scratch.path());
        let variable = format!("KUBECONFIG={}", kubeconfig.display());
        let config = format!(
            "{settings}discover: {{ node_name: {NODE}, pod_wait: {pod_wait} }}\nservices:\n{services}join: {{ lateness: 500ms }}\n"
        );
        Daemon::start_within(&["env", &variable], self.scratch.path(), &config)
    }

    /// Starts the service in the cgroup of this path.
    fn start(&self, cgroup: &str, environment: &[(&str, &str)]) -> Contained {
        let mut command = self.cgroups.command(cgroup, &self.fixture.service());
        command.args(["--port", "0", "--silent"]).envs(environment.iter().copied());
        Contained::start(&mut command)
    }
}

/// Asks a process for recommendations, and clicks on each. `name` makes the ids its own.
fn ask(process: &Contained, name: &str) {
    let mut connection = Connection::open(process.address).expect("connects");
    for call in 0..CALLS {
        for path in
            [format!("/recommend?id={name}-{call}&items=a"), format!("/click?id={name}-{call}&item=a")]
        {
            assert!(connection.get(&path).expect("answers").status < 300);
        }
    }
}

/// A container as the kubelet reports it.
fn container(number: u32, image: &str, digest: &str) -> (Value, Value) {
    let status = json!({
        "name": "main", "containerID": format!("containerd://{}", container_id(number)), "image": image,
        "imageID": format!("registry.example/shop@{digest}"), "ready": true, "restartCount": 0,
    });
    (json!({ "name": "main", "image": image }), status)
}

/// A pod with one container, whose status the kubelet has not reported yet where there is none.
fn pod(name: &str, uid: u32, namespace: &str, labels: Value, main: (Value, Option<Value>)) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": namespace, "uid": pod_uid(uid), "labels": labels },
        "spec": { "nodeName": NODE, "containers": [main.0] },
        "status": { "containerStatuses": main.1.into_iter().collect::<Vec<_>>() },
    })
}

fn running(name: &str, number: u32, namespace: &str, labels: Value, image: &str) -> Value {
    let (spec, status) = container(number, image, &format!("sha256:{number:064x}"));
    pod(name, number, namespace, labels, (spec, Some(status)))
}

fn events(daemon: &Daemon, labels: &[(&str, &str)]) -> f64 {
    daemon.metric("linktracer_events_total", labels)
}

/// Waits until so many complete triples are counted under these labels, and fails on one more; then everything else
/// has to be as it follows from that.
#[track_caller]
fn expect_triples(daemon: &Daemon, service: &str, release: &str, group: &str, expected: u32) {
    let expected = f64::from(expected);
    let labels = [("service", service), ("release", release), ("group", group)];
    let of = |more: &[(&str, &str)], name: &str| {
        daemon.metric(name, &labels.iter().chain(more).copied().collect::<Vec<_>>())
    };
    let complete = [("edge", "triple"), ("outcome", "complete")];
    wait_for(&format!("{expected} triples of {service} {release} {group}"), LIMIT, || {
        let triples = of(&complete, "linktracer_links_total");
        assert!(triples <= expected, "{triples} of {expected}");
        (triples == expected).then_some(())
    });
    for kind in ["request", "exposure", "click"] {
        assert_eq!(of(&[("kind", kind)], "linktracer_events_total"), expected, "{kind}\n{}", daemon.log());
    }
}

/// Nothing is broken, late, or lost.
#[track_caller]
fn expect_whole(daemon: &Daemon) {
    for outcome in ["orphan", "mismatch", "missing_id", "broken"] {
        assert_eq!(daemon.metric("linktracer_links_total", &[("outcome", outcome)]), 0.0, "{outcome}");
    }
    assert_eq!(daemon.metric("linktracer_late_events_total", &[]), 0.0);
    assert_eq!(daemon.metric("linktracer_lost_events_total", &[]), 0.0);
}

fn releases(daemon: &Daemon) -> Vec<Release> {
    let (status, text) = daemon.page("/releases");
    assert_eq!(status, 200, "{text}");
    serde_json::from_str::<Releases>(&text).expect("what the page says it is").releases
}

/// Waits until `/readyz` says this: it is set once a second.
#[track_caller]
fn expect_ready(daemon: &Daemon, status: u16, part: &str) {
    wait_for(part, LIMIT, || {
        let (code, text) = daemon.page("/readyz");
        (code == status && text.contains(part)).then_some(())
    });
}

fn wait_for_watch(daemon: &Daemon) {
    wait_for("pods are followed", LIMIT, || {
        (daemon.metric("linktracer_pod_watch_up", &[]) == 1.0).then_some(())
    });
}

fn check_matching(version: Version) {
    let scene = Scene::new(version);
    let server = ApiServer::start_at(scene.api);
    server.apply(running(
        "shop-1",
        1,
        "shop",
        json!({ "app": "recommend", "track": "canary" }),
        "registry:5000/shop/recommend:1.4",
    ));
    server.apply(running(
        "shop-2",
        2,
        "shop",
        json!({ "app": "recommend" }),
        "registry:5000/shop/recommend:1.4",
    ));
    server.apply(running("edge-1", 3, "edge", json!({ "app": "edge", "version": "v7" }), "edge"));
    server.apply(running("other", 4, "shop", json!({ "app": "other" }), "registry:5000/shop/recommend:1.4"));
    server.apply(running(
        "elsewhere",
        5,
        "test",
        json!({ "app": "recommend" }),
        "registry:5000/shop/recommend:1.4",
    ));
    let services = scene.service(
        "shop",
        "namespace: shop, pod_labels: { app: recommend } | release: [\"env:BUILD_COMMIT_TAG\", image_tag] | group: \"pod_label:track\"",
    ) + &scene.service("edge", "namespace: \"e*\", image: \"*edge*\" | release: [\"pod_label:version\", image_digest]");
    // One runs before the daemon.
    let first = scene.start(&systemd(&pod_uid(1), "cri-containerd", &container_id(1)), &[]);
    let daemon = scene.daemon("10s", &services);
    let second = scene.start(&cgroupfs(&pod_uid(2), &container_id(2)), &[("BUILD_COMMIT_TAG", "a1b2c3")]);
    let edge = scene.start(&systemd(&pod_uid(3), "crio", &container_id(3)), &[]);
    let others = [
        scene.start(&systemd(&pod_uid(4), "docker", &container_id(4)), &[]),
        scene.start(&cgroupfs(&pod_uid(5), &container_id(5)), &[]),
        scene.start("system.slice/shop.service", &[]),
    ];
    for (number, process) in [&first, &second, &edge].into_iter().chain(&others).enumerate() {
        ask(process, &format!("p{number}"));
    }
    expect_triples(&daemon, "shop", "1.4", "canary", CALLS);
    expect_triples(&daemon, "shop", "a1b2c3", "", CALLS);
    expect_triples(&daemon, "edge", "v7", "", CALLS);
    expect_whole(&daemon);
    assert_eq!(events(&daemon, &[]), f64::from(3 * 3 * CALLS), "the others are of no service");
    wait_for("three are traced", LIMIT, || {
        (daemon.metric("linktracer_target_processes", &[]) == 3.0).then_some(())
    });
    assert_eq!(daemon.metric("linktracer_known_pods", &[]), 5.0);
    let seen =
        wait_for("all releases are known", LIMIT, || Some(releases(&daemon)).filter(|seen| seen.len() == 3));
    let facts = |release: &str| {
        let found = seen.iter().find(|known| known.release == release);
        found.unwrap_or_else(|| panic!("{release}: {seen:#?}")).facts.clone()
    };
    assert_eq!(
        facts("1.4").image.as_deref(),
        Some(&*format!("registry:5000/shop/recommend:1.4@sha256:{:064x}", 1))
    );
    assert_eq!(facts("1.4").pod_labels, [("track".to_owned(), "canary".to_owned())].into());
    assert_eq!(facts("v7").pod_labels, [("version".to_owned(), "v7".to_owned())].into());
    expect_ready(&daemon, 200, "kubernetes/pods: attached");
    drop((first, second, edge, others));
    daemon.finish();
}

#[test]
fn processes_are_told_apart_by_namespace_label_and_image() {
    check_matching(Version::Two);
}

#[test]
#[expect(clippy::print_stderr, reason = "what was skipped is for people")]
fn the_same_where_cgroups_are_of_version_1() {
    if Version::One.is_here() {
        check_matching(Version::One);
    } else {
        eprintln!("skipped: this machine has no hierarchy of version 1");
    }
}

#[test]
fn an_api_that_comes_up_late_changes_no_count() {
    let scene = Scene::new(Version::Two);
    let plain = Scene::new(Version::Two);
    let services = scene.service("shop", "pod_labels: { app: recommend } | release: [image_tag]")
        + &plain.service("plain", "cmdline: \"*\"");
    let daemon = scene.daemon("30s", &services);
    expect_ready(&daemon, 503, "the pods of this node are not known");
    let shop = scene.start(&systemd(&pod_uid(1), "cri-containerd", &container_id(1)), &[]);
    let other = scene.start(&systemd(&pod_uid(2), "cri-containerd", &container_id(2)), &[]);
    let beside = plain.start("system.slice/plain.service", &[]);
    for (process, name) in [(&shop, "shop"), (&other, "other"), (&beside, "plain")] {
        ask(process, name);
    }
    // Each answer is a record, each SDK call is one; of the two that nobody knows they are held, and behind them the
    // events of the third wait.
    let held = |what| daemon.metric("linktracer_held_back", &[("what", what)]);
    wait_for("the records are held", LIMIT, || (held("records") == f64::from(2 * 4 * CALLS)).then_some(()));
    wait_for("and what came later", LIMIT, || (held("events") == f64::from(3 * CALLS)).then_some(()));
    assert_eq!(events(&daemon, &[]), 0.0);
    wait_for("both wait", LIMIT, || {
        (daemon.metric("linktracer_unsettled_processes", &[("state", "waiting")]) == 2.0).then_some(())
    });
    // The second one is gone before anybody says what it was.
    drop(other);
    let server = ApiServer::start_at(scene.api);
    server.apply(running("shop-1", 1, "shop", json!({ "app": "recommend" }), "shop:9"));
    server.apply(running("other", 2, "shop", json!({ "app": "other" }), "shop:9"));
    expect_triples(&daemon, "shop", "9", "", CALLS);
    expect_triples(&daemon, "plain", "", "", CALLS);
    expect_whole(&daemon);
    assert_eq!(events(&daemon, &[]), f64::from(2 * 3 * CALLS));
    let waits = |outcome| daemon.metric("linktracer_pod_waits_total", &[("outcome", outcome)]);
    assert_eq!((waits("matched"), waits("not_matched"), waits("given_up")), (1.0, 1.0, 0.0));
    assert!(daemon.metric("linktracer_pod_watch_errors_total", &[("reason", "unreachable")]) >= 1.0);
    wait_for_watch(&daemon);
    assert_eq!(daemon.metric("linktracer_pod_watch_age_seconds", &[]), 0.0);
    expect_ready(&daemon, 200, "kubernetes/pods: attached");
    drop((shop, beside));
    daemon.finish();
}

#[test]
fn daemons_that_are_killed_while_records_wait_count_each_once() {
    let scene = Scene::new(Version::Two);
    let plain = Scene::new(Version::Two);
    let pinned = Pinned::new(scene.scratch.path());
    let services = scene.service("shop", "pod_labels: { app: recommend } | release: [image_tag]")
        + &plain.service("plain", "cmdline: \"*\"");
    let start = || scene.daemon_with(pinned.settings(), "30s", &services);
    let expect_held = |daemon: &Daemon, records: u32, events: u32| {
        let held = |what| daemon.metric("linktracer_held_back", &[("what", what)]);
        let wanted = (f64::from(records), f64::from(events));
        wait_for(&format!("{wanted:?} are held"), LIMIT, || {
            ((held("records"), held("events")) == wanted).then_some(())
        });
    };
    let daemon = start();
    let shop = scene.start(&systemd(&pod_uid(1), "cri-containerd", &container_id(1)), &[]);
    let other = scene.start(&systemd(&pod_uid(2), "cri-containerd", &container_id(2)), &[]);
    let beside = plain.start("system.slice/plain.service", &[]);
    for (process, name) in [(&shop, "shop"), (&other, "other"), (&beside, "plain")] {
        ask(process, name);
    }
    expect_held(&daemon, 2 * 4 * CALLS, 3 * CALLS);
    daemon.signal(Signal::KILL);
    drop(daemon);
    // While nobody runs, what is done waits on the ring, and a process ends.
    ask(&shop, "shop-2");
    ask(&beside, "plain-2");
    drop(other);
    let daemon = start();
    expect_held(&daemon, 3 * 4 * CALLS, 2 * 3 * CALLS);
    ask(&shop, "shop-3");
    expect_held(&daemon, 4 * 4 * CALLS, 2 * 3 * CALLS);
    daemon.finish();
    // Now the first is known, and what it did before anything of the other goes on; the rest waits, though it is
    // settled what it is. Then nothing but that says it: the process is gone, and its pod.
    let server = ApiServer::start_at(scene.api);
    server.apply(running("shop-1", 1, "shop", json!({ "app": "recommend" }), "shop:9"));
    let daemon = start();
    expect_held(&daemon, 3 * 4 * CALLS, 2 * 3 * CALLS);
    assert_eq!(events(&daemon, &[("service", "shop"), ("release", "9")]), f64::from(3 * CALLS));
    assert_eq!(events(&daemon, &[("service", "plain")]), 0.0);
    drop(shop);
    server.delete("shop-1");
    daemon.signal(Signal::KILL);
    drop(daemon);
    let daemon = start();
    expect_held(&daemon, 3 * 4 * CALLS, 2 * 3 * CALLS);
    server.apply(running("other", 2, "shop", json!({ "app": "other" }), "shop:9"));
    expect_triples(&daemon, "shop", "9", "", 3 * CALLS);
    expect_triples(&daemon, "plain", "", "", 2 * CALLS);
    expect_whole(&daemon);
    assert_eq!(events(&daemon, &[]), f64::from(5 * 3 * CALLS));
    expect_held(&daemon, 0, 0);
    let clicks = [("probe", "click")];
    assert_eq!(daemon.metric("linktracer_received_records_total", &clicks), f64::from(6 * CALLS));
    assert_eq!(daemon.metric("linktracer_coverage_horizon_moves_total", &[]), 0.0, "{}", daemon.log());
    drop(beside);
    daemon.finish();
    drop(pinned);
}

#[test]
fn daemons_that_are_killed_at_any_moment_while_pods_become_known_count_each_once() {
    const PODS: u32 = 12;
    let scene = Scene::new(Version::Two);
    let pinned = Pinned::new(scene.scratch.path());
    let server = ApiServer::start_at(scene.api);
    let services = scene.service("shop", "namespace: shop | release: [image_tag]");
    let start = || scene.daemon_with(pinned.settings(), "30s", &services);
    let mut daemon = start();
    // They run on: one that ends before a daemon has looked at it is known by nobody.
    let mut running_on = Vec::new();
    for number in 1..=PODS {
        let process = scene.start(&systemd(&pod_uid(number), "cri-containerd", &container_id(number)), &[]);
        ask(&process, &format!("p{number}"));
        running_on.push(process);
        let pod = running(&format!("shop-{number}"), number, "shop", json!({}), "shop:1");
        // From before the daemon hears of the pod to after everything was taken in.
        server.apply(pod);
        thread::sleep(Duration::from_millis(u64::from(number * 7 % PODS) * 4));
        daemon.signal(Signal::KILL);
        drop(daemon);
        daemon = start();
    }
    // What each is outlived the daemon that was told.
    for (number, process) in running_on.iter().enumerate() {
        ask(process, &format!("again{number}"));
    }
    expect_triples(&daemon, "shop", "1", "", 2 * PODS * CALLS);
    expect_whole(&daemon);
    let clicks = [("probe", "click")];
    assert_eq!(daemon.metric("linktracer_received_records_total", &clicks), f64::from(2 * PODS * CALLS));
    assert_eq!(daemon.metric("linktracer_coverage_horizon_moves_total", &[]), 0.0, "{}", daemon.log());
    drop(running_on);
    daemon.finish();
    drop(pinned);
}

#[test]
fn a_restart_without_the_api_changes_nothing_of_what_is_known() {
    let scene = Scene::new(Version::Two);
    let pinned = Pinned::new(scene.scratch.path());
    let server = ApiServer::start_at(scene.api);
    server.apply(running("shop", 1, "shop", json!({}), "shop:3"));
    let services = scene.service("shop", "namespace: shop | release: [image_tag]");
    let start = || scene.daemon_with(pinned.settings(), "1s", &services);
    let daemon = start();
    let process = scene.start(&systemd(&pod_uid(1), "cri-containerd", &container_id(1)), &[]);
    ask(&process, "first");
    expect_triples(&daemon, "shop", "3", "", CALLS);
    drop(server);
    daemon.finish();
    let daemon = start();
    // Longer than anything waits for it.
    wait_for("the API stays away", LIMIT, || {
        (daemon.metric("linktracer_pod_watch_age_seconds", &[]) > 4.0).then_some(())
    });
    ask(&process, "second");
    expect_triples(&daemon, "shop", "3", "", 2 * CALLS);
    expect_whole(&daemon);
    assert_eq!(daemon.metric("linktracer_coverage_horizon_moves_total", &[]), 0.0, "{}", daemon.log());
    drop(process);
    daemon.finish();
    drop(pinned);
}

#[test]
fn a_pod_that_is_deleted_and_replaced_is_another_release() {
    let scene = Scene::new(Version::Two);
    let server = ApiServer::start_at(scene.api);
    server.apply(running("shop", 1, "shop", json!({}), "shop:old"));
    let daemon = scene.daemon("30s", &scene.service("shop", "namespace: shop | release: [image_tag]"));
    let old = scene.start(&systemd(&pod_uid(1), "cri-containerd", &container_id(1)), &[]);
    ask(&old, "old");
    expect_triples(&daemon, "shop", "old", "", CALLS);
    drop(old);
    server.delete("shop");
    // The pod is known before its container is: the kubelet says that a moment after the container runs.
    let (spec, status) = container(2, "shop:new", "sha256:02");
    server.apply(pod("shop", 2, "shop", json!({}), (spec.clone(), None)));
    let new = scene.start(&systemd(&pod_uid(2), "cri-containerd", &container_id(2)), &[]);
    ask(&new, "new");
    wait_for("it waits for its image", LIMIT, || {
        let held = daemon.metric("linktracer_held_back", &[("what", "records")]);
        (held == f64::from(4 * CALLS)).then_some(())
    });
    server.apply(pod("shop", 2, "shop", json!({}), (spec, Some(status))));
    expect_triples(&daemon, "shop", "new", "", CALLS);
    expect_triples(&daemon, "shop", "old", "", CALLS);
    expect_whole(&daemon);
    assert_eq!(daemon.metric("linktracer_known_pods", &[]), 1.0);
    drop(new);
    daemon.finish();
}

#[test]
fn a_watch_that_breaks_goes_on_where_it_was_and_one_that_is_too_old_begins_anew() {
    let scene = Scene::new(Version::Two);
    let server = ApiServer::start_at(scene.api);
    server.apply(running("shop-1", 1, "shop", json!({}), "shop:1"));
    let daemon = scene.daemon("30s", &scene.service("shop", "namespace: shop | release: [image_tag]"));
    wait_for_watch(&daemon);
    assert_eq!(server.counts().0, 2, "the check at the start asks for a list, and so does the watch");

    let check = |number: u32| {
        let cgroup = systemd(&pod_uid(number), "cri-containerd", &container_id(number));
        let process = scene.start(&cgroup, &[]);
        ask(&process, &number.to_string());
        expect_triples(&daemon, "shop", &number.to_string(), "", CALLS);
    };
    check(1);
    // What happens while the connection is broken is told by the next watch, without another list.
    server.break_watches();
    server.apply(running("shop-2", 2, "shop", json!({}), "shop:2"));
    check(2);
    assert_eq!(server.counts().0, 2);
    let errors = |reason| daemon.metric("linktracer_pod_watch_errors_total", &[("reason", reason)]);
    assert_eq!(errors("expired"), 0.0);
    // A watch that is told that its version is too old.
    server.expire_watches();
    server.apply(running("shop-3", 3, "shop", json!({}), "shop:3"));
    check(3);
    assert_eq!((server.counts().0, errors("expired")), (3, 1.0));
    // One that comes back after its version was forgotten, and what happened since with it.
    server.lapse("shop-1", running("shop-4", 4, "shop", json!({}), "shop:4"));
    check(4);
    assert_eq!((server.counts().0, errors("expired")), (4, 2.0));
    wait_for("the deleted one is gone", LIMIT, || {
        (daemon.metric("linktracer_known_pods", &[]) == 3.0).then_some(())
    });
    // The API goes away: what is known goes on being used, and a new process of a known pod is known at once.
    drop(server);
    wait_for("the watch is down", LIMIT, || {
        (daemon.metric("linktracer_pod_watch_up", &[]) == 0.0).then_some(())
    });
    let again = scene.start(&systemd(&pod_uid(4), "cri-containerd", &container_id(4)), &[]);
    ask(&again, "again");
    expect_triples(&daemon, "shop", "4", "", 2 * CALLS);
    expect_whole(&daemon);
    expect_ready(&daemon, 200, "those known before are used");
    assert!(daemon.metric("linktracer_pod_watch_age_seconds", &[]) > 0.0);
    drop(again);
    daemon.finish();
}

#[test]
fn what_nobody_ever_says_is_lost_and_counted_and_the_rest_goes_on() {
    let scene = Scene::new(Version::Two);
    let plain = Scene::new(Version::Two);
    let unlabelled = Scene::new(Version::Two);
    let services = scene.service("shop", "namespace: shop")
        + &plain.service("plain", "cmdline: \"*\"")
        + &unlabelled
            .service("unlabelled", "cmdline: \"*\" | release: [image_tag, \"env:BUILD_COMMIT_TAG\"]");
    let daemon = scene.daemon("1s", &services);
    let shop = scene.start(&systemd(&pod_uid(1), "cri-containerd", &container_id(1)), &[]);
    let beside = plain.start("system.slice/plain.service", &[]);
    let nameless = unlabelled
        .start(&systemd(&pod_uid(2), "cri-containerd", &container_id(2)), &[("BUILD_COMMIT_TAG", "wrong")]);
    let trusted = || daemon.metric("linktracer_window_trustworthy", &[("service", "shop")]);
    wait_for("nothing is lost yet", LIMIT, || (trusted() == 1.0).then_some(()));
    // Held at first, then given up; what comes after that is lost at once.
    ask(&shop, "shop-held");
    ask(&beside, "plain-held");
    ask(&nameless, "nameless-held");
    let waits = |outcome| daemon.metric("linktracer_pod_waits_total", &[("outcome", outcome)]);
    wait_for("the wait is over", LIMIT, || (waits("given_up") == 1.0).then_some(()));
    ask(&shop, "shop-later");
    ask(&beside, "plain-later");
    ask(&nameless, "nameless-later");
    expect_triples(&daemon, "plain", "", "", 2 * CALLS);
    // It is of its service, whatever its image is; that another source stands in for that would be wrong.
    expect_triples(&daemon, "unlabelled", "", "", 2 * CALLS);
    let lost = |probe| {
        daemon.metric("linktracer_received_records_total", &[("probe", probe), ("outcome", "pod_unknown")])
    };
    wait_for("every record is accounted for", LIMIT, || {
        (lost("click") == f64::from(2 * CALLS)).then_some(())
    });
    assert_eq!(lost("exposure"), f64::from(2 * CALLS));
    assert_eq!(lost("sendto"), f64::from(2 * 2 * CALLS), "two answers each");
    assert_eq!(events(&daemon, &[("service", "shop")]), 0.0);
    assert_eq!(
        daemon.metric("linktracer_lost_events_total", &[("reason", "pod_unknown")]),
        f64::from(8 * CALLS)
    );
    wait_for("it is not trusted", LIMIT, || (trusted() == 0.0).then_some(()));
    // Better late than never: from then on it is known, and before that nothing is.
    let server = ApiServer::start_at(scene.api);
    server.apply(running("shop-1", 1, "shop", json!({}), "shop:1"));
    server.apply(running("nameless", 2, "any", json!({}), "any:5"));
    wait_for("it is known", LIMIT, || {
        (daemon.metric("linktracer_target_processes", &[("service", "shop")]) == 1.0).then_some(())
    });
    wait_for("both are known", LIMIT, || (daemon.metric("linktracer_known_pods", &[]) == 2.0).then_some(()));
    let moves = [("reason", "pod_unknown")];
    assert_eq!(daemon.metric("linktracer_coverage_horizon_moves_total", &moves), 1.0);
    ask(&shop, "shop-known");
    expect_triples(&daemon, "shop", "", "", CALLS);
    ask(&nameless, "nameless-known");
    expect_triples(&daemon, "unlabelled", "5", "", CALLS);
    drop((shop, beside, nameless));
    daemon.finish();
}

fn check(folder: &Path, discover: &str, wanted: &str) -> (Option<i32>, String) {
    let config = folder.join("check.yaml");
    let text = format!(
        "listen: {}\ndiscover: {{ node_name: {NODE}{discover} }}\nservices:\n  - name: shop\n    match: {{ {wanted} }}\n    request: {{ id: {{ header: x }} }}\n",
        free_address()
    );
    fs::write(&config, text).expect("the scratch folder is writable");
    let output = linktracer(&["check", "--config", config.to_str().expect("is text")]);
    (output.status.code(), printed(&output))
}

#[test]
fn check_says_what_is_missing_without_an_api() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let (code, text) = check(scratch.path(), "", "pod_labels: { app: a }");
    assert!(
        text.contains(
            "only the Kubernetes API knows `image` and `pod_labels`, and there is no Kubernetes API here"
        ),
        "{text}"
    );
    assert_eq!(code, Some(1), "{text}");
    let (_, text) = check(scratch.path(), ", kubernetes: true", "exe: /a");
    assert!(text.contains("`discover.kubernetes` is `true`, and there is no API here"), "{text}");
    let (_, text) = check(scratch.path(), ", kubernetes: false", "namespace: a");
    assert!(text.contains("a namespace is what processes in a pod say in POD_NAMESPACE"), "{text}");
}
