//! The seccomp profile that is deployed: the daemon runs under it, exactly, and what it does not have is refused.

use std::{
    process::{Command, Output},
    time::Duration,
};

use rustix::process::Signal;
use tests::{
    daemon::{Daemon, Pinned, free_address},
    kubernetes::ApiServer,
    linktracer, printed, wait_for, within_seccomp,
};

fn run_within(words: &[&str]) -> Output {
    let [python, loader, profile] = within_seccomp();
    Command::new(python).args([loader, profile]).args(words).output().expect("python3 starts")
}

#[test]
fn the_demo_is_exact_under_the_profile() {
    let within = within_seccomp().join(" ");
    let recording = tempfile::tempdir().expect("a scratch folder");
    let recording = recording.path().join("events.jsonl.zst");
    let recording = recording.to_str().expect("UTF-8");
    let output = linktracer(&["demo", "--requests=400", "--record", recording, "--within", &within]);
    assert!(output.status.success(), "{}", printed(&output));
    assert!(printed(&output).contains("counts equal"), "{}", printed(&output));
}

#[test]
fn state_and_probes_stay_under_the_profile() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let pinned = Pinned::new(scratch.path());
    let text = format!(
        "{}checkpoint_interval: 1s\nservices:\n  - name: a\n    match: {{ cmdline: \"*{}*\" }}\n    request: {{ id: {{ header: X-Request-Id }} }}\n",
        pinned.settings(),
        scratch.path().display()
    );
    let within = within_seccomp();
    let within: Vec<&str> = within.iter().map(String::as_str).collect();
    let daemon = Daemon::start_within(&within, scratch.path(), &text);
    wait_for("a checkpoint by the way", Duration::from_secs(30), || {
        (daemon.metric("linktracer_checkpoint_pause_seconds_count", &[]) > 1.0).then_some(())
    });
    assert_eq!(daemon.metric("linktracer_checkpoint_failures_total", &[]), 0.0, "{}", daemon.log());
    daemon.signal(Signal::KILL);
    drop(daemon);
    let daemon = Daemon::start_within(&within, scratch.path(), &text);
    assert!(daemon.log().contains("going on where the last run ended"), "{}", daemon.log());
    daemon.finish();
    drop(pinned);
}

#[test]
fn the_pods_of_the_node_are_followed_under_the_profile() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    // By name, as it may be in a file: names are looked up then, too.
    let server = ApiServer::start_at(free_address());
    let kubeconfig = ApiServer::kubeconfig_for("localhost", server.address(), scratch.path());
    let variable = format!("KUBECONFIG={}", kubeconfig.display());
    let within = within_seccomp();
    let within: Vec<&str> = within.iter().map(String::as_str).chain(["env", &variable]).collect();
    let text = "discover: { node_name: node-a }\nservices:\n  - name: a\n    match: { pod_labels: { app: linktracer-seccomp-test } }\n    request: { id: { header: X-Request-Id } }\n";
    let daemon = Daemon::start_within(&within, scratch.path(), text);
    wait_for("pods are followed", Duration::from_secs(30), || {
        (daemon.metric("linktracer_pod_watch_up", &[]) == 1.0).then_some(())
    });
    // What changes reaches it, and a connection that broke is made again.
    server.apply(pod("one"));
    wait_for("the pod is known", Duration::from_secs(30), || {
        (daemon.metric("linktracer_known_pods", &[]) == 1.0).then_some(())
    });
    server.break_watches();
    server.apply(pod("two"));
    wait_for("the second is known", Duration::from_secs(30), || {
        (daemon.metric("linktracer_known_pods", &[]) == 2.0).then_some(())
    });
    daemon.finish();
}

fn pod(name: &str) -> serde_json::Value {
    serde_json::json!({
        "apiVersion": "v1", "kind": "Pod", "spec": { "nodeName": "node-a", "containers": [] },
        "metadata": { "name": name, "namespace": "shop", "uid": name, "labels": {} },
    })
}

#[test]
fn what_a_tracer_has_no_use_for_is_refused() {
    // Of these, those that work here without the profile.
    let forbidden: [&[&str]; 5] = [
        &["unshare", "--mount", "true"],
        &["nsenter", "--target", "1", "--mount", "true"],
        &["chroot", "/", "true"],
        &["unshare", "--net", "true"],
        &["keyctl", "show"],
    ];
    let mut tried = 0;
    for words in forbidden {
        let free = Command::new(words[0]).args(&words[1..]).output();
        if free.is_ok_and(|output| output.status.success()) {
            tried += 1;
            let output = run_within(words);
            assert!(!output.status.success(), "{words:?}");
            assert!(printed(&output).contains("Operation not permitted"), "{words:?}: {}", printed(&output));
        }
    }
    assert!(tried >= 2, "which needs root");
    let allowed = run_within(&["true"]);
    assert!(allowed.status.success(), "{}", printed(&allowed));
}
