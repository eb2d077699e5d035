//! The Grafana dashboard: JSON whose every query Prometheus takes and whose every metric there is, with the parts that the
//! daemon's page has.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use serde_json::Value;
use tests::printed;
use tracer_user::telemetry::Metric;

fn dashboard() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/grafana/linktracer.json");
    serde_json::from_str(&fs::read_to_string(path).expect("is there")).expect("JSON")
}

/// The queries of all panels, with what Grafana puts in for its variables.
fn queries(dashboard: &Value) -> Vec<String> {
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().expect("targets"));
    targets
        .map(|target| target["expr"].as_str().expect("an expression"))
        .map(|query| query.replace("$__rate_interval", "1m").replace("$__range", "1h"))
        .map(|query| {
            ["$service", "$release", "$group"].iter().fold(query, |query, name| query.replace(name, ".*"))
        })
        .collect()
}

#[test]
fn prometheus_takes_every_query_and_there_is_every_metric() {
    let queries = queries(&dashboard());
    let known: BTreeSet<&str> = Metric::ALL.iter().map(|metric| metric.name()).collect();
    let mut rules = String::from("groups:\n  - name: dashboard\n    rules:\n");
    for (index, query) in queries.iter().enumerate() {
        assert!(!query.contains('$'), "an unknown variable in {query}");
        for (at, _) in query.match_indices("linktracer_") {
            let name =
                query[at..].split(|c: char| !c.is_ascii_lowercase() && c != '_').next().unwrap_or_default();
            assert!(known.contains(name.trim_end_matches("_bucket")), "{name} in {query}");
        }
        let quoted = query.replace('\'', "''");
        rules.push_str(&format!("      - {{ record: 'dashboard:query:{index}', expr: '{quoted}' }}\n"));
    }
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let file = scratch.path().join("rules.yaml");
    fs::write(&file, rules).expect("is writable");
    let output = Command::new("promtool").args(["check", "rules"]).arg(&file).output();
    let output = output.expect("`cargo xtask test` puts promtool on the path");
    assert!(output.status.success(), "{}", printed(&output));
    assert!(
        printed(&output).contains(&format!("SUCCESS: {} rules found", queries.len())),
        "{}",
        printed(&output)
    );
}

#[test]
fn panels_have_titles_of_their_own_and_do_not_overlap() {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().expect("panels");
    let titles: BTreeSet<&str> = panels.iter().filter_map(|panel| panel["title"].as_str()).collect();
    assert_eq!(titles.len(), panels.len());
    for part in ["From request to click", "Releases side by side", "Lost events", "Broken: whole triple"] {
        assert!(titles.contains(part), "{part} is on the page and not on the dashboard");
    }
    let mut taken = BTreeSet::new();
    for panel in panels {
        let place = |key: &str| panel["gridPos"][key].as_u64().expect("a number");
        assert!(place("x") + place("w") <= 24, "{} is too far right", panel["title"]);
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                assert!(taken.insert((x, y)), "{} is upon another", panel["title"]);
            }
        }
    }
}
