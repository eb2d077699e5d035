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
pub const FILES: [&str; 4] =
    ["self-healing.yaml", "dual-threshold.yaml", "broken-links.yaml", "unexposed-requests.yaml"];

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

/// What is expected of one measurement of each template: the one value that its query gives, or none.
pub type Look = [Option<f64>; FILES.len()];

/// Has promtool run the query of every template of [`FILES`] over the recording rules and these `input_series`, a sample a
/// minute, for release `canary` of service `s` beside `stable`, at each of the minutes in `looks`; each must answer as
/// expected. `alerts` are those that fire at the last of them, by name and release (empty where there is none).
///
/// Returns what Argo makes of each measurement.
///
/// # Panics
/// One of them answers otherwise.
#[track_caller]
pub fn check_gates(
    input_series: &str,
    [stable, canary]: [&str; 2],
    looks: &[(u64, Look)],
    alerts: &[(&str, &str)],
) -> Vec<[Phase; FILES.len()]> {
    let rules = repository().join("deploy/prometheus");
    let mut text = format!(
        "rule_files: [{}, {}]\nevaluation_interval: 1m\ntests:\n  - interval: 1m\n    input_series:\n{input_series}    promql_expr_test:\n",
        rules.join("recording.yaml").display(),
        rules.join("alerts.yaml").display(),
    );
    let mut ask = |minute: u64, query: &str, samples: &str| {
        let query = serde_json::to_string(query).expect("is text");
        writeln!(text, "      - {{ eval_time: {minute}m, expr: {query}, exp_samples: [{samples}] }}")
            .expect("in memory");
    };
    let mut phases = vec![[Phase::Error; FILES.len()]; looks.len()];
    for (place, file) in FILES.into_iter().enumerate() {
        let template = read(file);
        let mut arguments = defaults(&template);
        let named = [("service", "s"), ("stable", stable), ("canary", canary)];
        arguments.extend(named.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let metric = &template.metrics[0];
        let query = filled_in(&metric.query.as_ref().expect("asks Prometheus").text, &arguments);
        assert!(!query.contains("{{"), "{file}: {query}");
        let conditions = metric.conditions(&arguments).expect("are well formed");
        for ((minute, expected), phases) in looks.iter().zip(&mut phases) {
            let sample = expected[place].map(|value| format!("{{ labels: '{{}}', value: {value} }}"));
            ask(*minute, &query, &sample.unwrap_or_default());
            phases[place] = conditions.assess(&expected[place].into_iter().collect::<Vec<_>>());
        }
    }
    let firing: Vec<String> = alerts
        .iter()
        .map(|(name, release)| {
            let release = if release.is_empty() { String::new() } else { format!(", release=\"{release}\"") };
            format!("{{ labels: '{{alertname=\"{name}\"{release}}}', value: 1 }}")
        })
        .collect();
    let last = looks.last().expect("there is a look").0;
    ask(last, "group by (alertname, release) (ALERTS{alertstate=\"firing\"})", &firing.join(", "));
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let file = scratch.path().join("case.yaml");
    fs::write(&file, text).expect("is writable");
    promtool(["test".as_ref(), "rules".as_ref(), file.as_os_str()]);
    phases
}
