//! Templates with one fault each, and what is said to them.

use super::{findings, template};

/// A template without faults, into which `changes` (what stands there, what is put in its place) brings some.
fn template(changes: &[(&str, &str)]) -> String {
    let mut text = "\
apiVersion: argoproj.io/v1alpha1
kind: AnalysisTemplate
metadata: { name: t }
spec:
  args:
    - name: least
      value: \"0.95\"
  metrics:
    - name: ctr
      interval: 5m
      count: 40
      failureLimit: 3
      consecutiveErrorLimit: 30
      inconclusiveLimit: 30
      successCondition: len(result) == 1 && result[0] >= {{args.least}}
      failureCondition: len(result) == 1 && result[0] < {{ args.least }}
      provider:
        prometheus:
          query: sum(a) / sum(b)
"
    .to_owned();
    for (from, to) in changes {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    text
}

const SUCCESS: &str = "len(result) == 1 && result[0] >= {{args.least}}";
const FAILURE: &str = "      failureCondition: len(result) == 1 && result[0] < {{ args.least }}\n";

#[track_caller]
fn check(changes: &[(&str, &str)], expected: &[(usize, &str)]) {
    let templates = template::read(&template(changes)).expect("is a template");
    let found = findings(&templates[0]);
    let found: Vec<(usize, &str)> = found.iter().map(|finding| (finding.line, finding.rule)).collect();
    assert_eq!(found, expected);
}

#[test]
fn nothing_is_wrong_with_guarded_conditions_and_limits() {
    check(&[], &[]);
}

#[test]
fn a_field_of_the_result_and_the_list_itself_are_always_errors() {
    check(&[(SUCCESS, "result.metrics.ctr >= 0.95")], &[(15, "field-of-result")]);
    check(&[(SUCCESS, "result >= 0.95")], &[(15, "list-as-number")]);
    check(&[(SUCCESS, "result[0] >=")], &[(15, "condition-unreadable")]);
}

#[test]
fn a_missing_guard_is_found_by_what_comes_of_it() {
    // An Error; and of two series the first one decides.
    let unguarded = (SUCCESS, "result[0] >= 0.95");
    check(&[unguarded, (FAILURE, "")], &[(15, "no-data-guard"), (15, "nan"), (15, "several-series")]);
    // A success.
    let only_failure = [("      successCondition: len(result) == 1 && result[0] >= {{args.least}}\n", "")];
    check(&only_failure, &[(15, "no-data-guard"), (15, "nan"), (15, "several-series")]);
    // A failure.
    check(&[(FAILURE, "")], &[(15, "no-data-guard"), (15, "nan"), (15, "several-series")]);
}

#[test]
fn one_that_takes_several_series_is_found() {
    check(&[("len(result) == 1", "len(result) > 0")], &[(15, "several-series")]);
}

#[test]
fn conditions_that_say_the_same_of_every_number_are_found() {
    check(&[(SUCCESS, "len(result) == 1 && result[0] < {{args.least}}")], &[(15, "never-succeeds")]);
    check(&[("result[0] < {{ args.least }}", "len(result) == 2")], &[(15, "never-fails")]);
}

#[test]
fn limits_are_held_against_count() {
    check(&[("      consecutiveErrorLimit: 30\n", "")], &[(9, "error-limit")]);
    check(&[("consecutiveErrorLimit: 30", "consecutiveErrorLimit: 4")], &[(13, "error-limit")]);
    check(&[("      inconclusiveLimit: 30\n", "")], &[(9, "inconclusive-limit")]);
    check(&[("count: 40", "count: 30")], &[(14, "inconclusive-passes")]);
    check(&[("failureLimit: 3", "failureLimit: 40")], &[(12, "never-fails")]);
    check(&[("      interval: 5m\n", "")], &[(10, "no-interval")]);
}

#[test]
fn queries_that_mix_or_hide_are_found() {
    check(&[("sum(a) / sum(b)", "ctr or errors")], &[(19, "several-metrics")]);
    check(&[("sum(a) / sum(b)", "sum(a) / sum(b) or vector(1)")], &[(19, "fills-in")]);
    check(&[("sum(a) / sum(b)", "sum(a")], &[(19, "query-unreadable")]);
}

#[test]
fn a_file_without_a_template_is_said_to_be_none() {
    assert!(template::read("kind: Deployment\n").is_err());
    assert!(template::read("").is_err());
    let error = template::read("a: [").expect_err("is not YAML").to_string();
    assert!(error.starts_with("line ") && error.contains(": not YAML: "), "{error}");
}
