//! The rules of deploy/prometheus: promtool takes them, each has a test, each alert has its runbook, and they ask for
//! metrics that are there.

use std::{collections::BTreeSet, env, fs, path::PathBuf, process::Command};

use tests::{printed, promtool::promtool, templates::repository};
use tracer_user::telemetry::Metric;

fn folder() -> PathBuf {
    repository().join("deploy/prometheus")
}

/// The YAML files of a folder.
fn files(folder: PathBuf) -> Vec<PathBuf> {
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let paths = entries.map(|entry| entry.expect("is readable").path());
    let mut files: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|e| e == "yaml")).collect();
    files.sort();
    files
}

fn text(files: &[PathBuf]) -> String {
    files.iter().map(|file| fs::read_to_string(file).expect("is text")).collect()
}

/// What stands behind each `key: ` of a text.
fn values<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    let pattern = format!("{key}: ");
    text.lines().filter_map(|line| line.trim().trim_start_matches("- ").strip_prefix(&pattern)).collect()
}

#[test]
fn promtool_accepts_the_rules_and_their_tests_pass() {
    let (rules, tests) = (files(folder()), files(folder().join("tests")));
    assert_eq!((rules.len(), tests.len()), (2, 2));
    promtool(["check".into(), "rules".into()].into_iter().chain(rules));
    promtool(["test".into(), "rules".into()].into_iter().chain(tests));
}

/// What is read by Prometheus 2.42 in one way and by 3 in another would differ here.
#[test]
fn promtool_of_prometheus_3_accepts_them_as_well() {
    let program = env::var_os("LINKTRACER_PROMTOOL_3").expect("`cargo xtask test` fetches it and says where");
    let version = Command::new(&program).arg("--version").output().expect("it starts");
    assert!(printed(&version).contains("promtool, version 3."), "{}", printed(&version));
    for (action, files) in [("check", files(folder())), ("test", files(folder().join("tests")))] {
        let output = Command::new(&program).args([action, "rules"]).args(files).output().expect("it starts");
        assert!(output.status.success(), "{}", printed(&output));
    }
}

#[test]
fn every_rule_has_a_test() {
    let (rules, tests) = (text(&files(folder())), text(&files(folder().join("tests"))));
    let records = values(&rules, "record");
    let alerts = values(&rules, "alert");
    assert!(records.len() > 20 && alerts.len() > 5, "{records:?} {alerts:?}");
    for record in records {
        // The name of a metric goes on as long as these characters do.
        let ends =
            |rest: &str| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':');
        let asked = tests.lines().filter(|line| line.contains("expr:"));
        let found = asked.flat_map(|line| line.split(record).skip(1)).any(ends);
        assert!(found, "{record} has no test");
    }
    for alert in alerts {
        let fires = format!("alertname: {alert}\n");
        assert!(tests.contains(&fires), "{alert} has no test in which it fires");
    }
}

#[test]
fn every_alert_says_where_its_runbook_is() {
    let rules = text(&files(folder()));
    let runbooks = values(&rules, "runbook");
    assert_eq!(runbooks.len(), values(&rules, "alert").len());
    let document = fs::read_to_string(repository().join("docs/operations.md")).expect("is text");
    let headings: BTreeSet<String> = document
        .lines()
        .filter_map(|line| Some(line.strip_prefix("##")?.trim_start_matches('#').trim()))
        .map(|heading| heading.to_lowercase().replace(' ', "-"))
        .collect();
    for runbook in runbooks {
        let anchor = runbook.strip_prefix("docs/operations.md#").expect("is a heading of the handbook");
        assert!(headings.contains(anchor), "{anchor} is no heading of docs/operations.md");
    }
}

#[test]
fn the_rules_and_templates_ask_for_metrics_that_are_there() {
    let known: BTreeSet<&str> = Metric::ALL.iter().map(|metric| metric.name()).collect();
    let rules = text(&files(folder()));
    let recorded: BTreeSet<&str> = values(&rules, "record").into_iter().collect();
    let all = rules.clone() + &text(&files(repository().join("deploy/argo")));
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let asked = all.lines().filter(|line| !line.trim_start().starts_with('#'));
    let names = asked.flat_map(|line| line.split(|c: char| !is_name(c)));
    let names: BTreeSet<&str> =
        names.filter(|name| name.contains("linktracer_") && !name.ends_with(':')).collect();
    assert!(names.len() > 20, "{names:?}");
    for name in names {
        let rule_group = rules.contains(&format!("- name: {name}\n"));
        assert!(known.contains(name) || recorded.contains(name) || rule_group, "{name} is no metric");
    }
}
