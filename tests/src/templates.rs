//! The templates of deploy/argo, as tests and simulations read them.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use tracer_user::lint::template::{self, Phase, Template, filled_in};

use crate::promtool::promtool;

/// Every template.
pub const FILES: [&str; 3] = ["self-healing.yaml", "dual-threshold.yaml", "broken-links.yaml"];

/// The repository's top.
///
/// # Panics
/// Never: this package is in a workspace.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package is in a workspace").to_path_buf()
}

/// The one template of a file of deploy/argo.
///
/// # Panics
/// There is not exactly one.
pub fn read(file: &str) -> Template {
    let path = repository().join("deploy/argo").join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut templates = template::read(&text).unwrap_or_else(|error| panic!("{file}: {error}"));
    assert_eq!(templates.len(), 1, "{file}");
    templates.remove(0)
}

/// Its arguments that have a default value.
pub fn defaults(template: &Template) -> BTreeMap<String, String> {
    template.arguments.iter().filter_map(|(name, value)| Some((name.clone(), value.clone()?))).collect()
}

/// Has promtool run the query of every template (`FILES`) over the recording rules and these `input_series`, a sample a
/// minute, for release `canary` of service `s` beside `stable`. Each must answer at `minute` as expected: the one value, or
/// none; and Argo must make that phase of it. `alerts` are those that then fire, by name and release.
///
/// # Panics
/// One of them is otherwise.
#[track_caller]
pub fn check_gates(
    input_series: &str,
    [stable, canary]: [&str; 2],
    minute: u64,
    expected: [(Option<f64>, Phase); 3],
    alerts: &[(&str, &str)],
) {
    let rules = repository().join("deploy/prometheus");
    let mut text = format!(
        "rule_files: [{}, {}]\nevaluation_interval: 1m\ntests:\n  - interval: 1m\n    input_series:\n{input_series}    promql_expr_test:\n",
        rules.join("recording.yaml").display(),
        rules.join("alerts.yaml").display(),
    );
    let mut ask = |query: &str, samples: &str| {
        let query = serde_json::to_string(query).expect("is text");
        writeln!(text, "      - {{ eval_time: {minute}m, expr: {query}, exp_samples: [{samples}] }}")
            .expect("in memory");
    };
    for (file, (value, phase)) in FILES.into_iter().zip(expected) {
        let template = read(file);
        let mut arguments = defaults(&template);
        let named = [("service", "s"), ("stable", stable), ("canary", canary)];
        arguments.extend(named.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let metric = &template.metrics[0];
        let query = filled_in(&metric.query.as_ref().expect("asks Prometheus").text, &arguments);
        assert!(!query.contains("{{"), "{file}: {query}");
        ask(&query, &value.map_or_else(String::new, |value| format!("{{ labels: '{{}}', value: {value} }}")));
        let result: Vec<f64> = value.into_iter().collect();
        let conditions = metric.conditions(&arguments).expect("are well formed");
        assert_eq!(conditions.assess(&result), phase, "{file}");
    }
    let firing: Vec<String> = alerts
        .iter()
        .map(|(name, release)| {
            let release = if release.is_empty() { String::new() } else { format!(", release=\"{release}\"") };
            format!("{{ labels: '{{alertname=\"{name}\"{release}}}', value: 1 }}")
        })
        .collect();
    ask("group by (alertname, release) (ALERTS{alertstate=\"firing\"})", &firing.join(", "));
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let file = scratch.path().join("case.yaml");
    fs::write(&file, text).expect("is writable");
    promtool(["test".as_ref(), "rules".as_ref(), file.as_os_str()]);
}
