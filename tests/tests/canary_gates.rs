//! The templates of deploy/argo: they fit Argo's schema, nothing is wrong with them, and in every case that was thought of
//! each comes to the right phase. Queries are run by promtool over the recording rules; conditions are evaluated as Argo
//! evaluates them.

use std::{collections::BTreeMap, fmt::Write as _, fs};

use saphyr::{LoadableYamlNode as _, Scalar, Yaml};
use serde_json::{Value, json};
use tests::templates::{FILES, check_gates, defaults, read, repository};
use tracer_user::lint::{findings, template::Phase};

/// YAML as JSON.
fn json_of(yaml: &Yaml<'_>) -> Value {
    match yaml {
        Yaml::Mapping(map) => {
            let key = |key: &Yaml<'_>| key.as_str().expect("keys are strings").to_owned();
            Value::Object(map.iter().map(|(name, value)| (key(name), json_of(value))).collect())
        }
        Yaml::Sequence(items) => Value::Array(items.iter().map(json_of).collect()),
        Yaml::Value(Scalar::String(text)) => json!(text),
        Yaml::Value(Scalar::Integer(number)) => json!(number),
        Yaml::Value(Scalar::FloatingPoint(number)) => json!(f64::from(*number)),
        Yaml::Value(Scalar::Boolean(value)) => json!(value),
        _ => Value::Null,
    }
}

/// Forbids what a schema does not name, as the API server would prune it.
fn close(schema: &mut Value) {
    if let Value::Object(map) = schema {
        if map.contains_key("properties") && !map.contains_key("additionalProperties") {
            map.insert("additionalProperties".to_owned(), Value::Bool(false));
        }
        // Kubernetes writes "a number or a string" in its own way.
        if map.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
            map.insert("type".to_owned(), json!(["integer", "string"]));
        }
        map.values_mut().for_each(close);
    } else if let Value::Array(items) = schema {
        items.iter_mut().for_each(close);
    }
}

fn schema() -> jsonschema::Validator {
    let text = fs::read_to_string(repository().join("deploy/argo/schema/analysis-template.schema.json"));
    let mut schema: Value = serde_json::from_str(&text.expect("is text")).expect("is JSON");
    close(&mut schema);
    // The API server knows what metadata is.
    schema["properties"]["metadata"] = json!({ "type": "object" });
    jsonschema::validator_for(&schema).expect("is a schema")
}

#[test]
fn the_templates_fit_the_schema_and_one_with_a_typing_error_does_not() {
    let schema = schema();
    for file in FILES {
        let text = fs::read_to_string(repository().join("deploy/argo").join(file)).expect("is text");
        let check = |text: &str| {
            let documents = Yaml::load_from_str(text).expect("is YAML");
            let instance = json_of(&documents[0]);
            schema.iter_errors(&instance).map(|error| error.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(check(&text), Vec::<String>::new(), "{file}");
        for (from, to) in
            [("successCondition", "succesCondition"), ("count: 36", "count: [36]"), ("query: ", "querry: ")]
        {
            assert!(text.contains(from), "{file}: {from}");
            assert!(!check(&text.replace(from, to)).is_empty(), "{file}: {to} passes");
        }
    }
}

#[test]
fn lint_finds_nothing_wrong_with_them() {
    for file in FILES {
        assert_eq!(findings(&read(file)), [], "{file}");
    }
}

/// Argo gives a rollout up after this many errors in a row, 10 s apart. A server that restarts takes less.
#[test]
fn a_server_that_is_down_for_five_minutes_rolls_nothing_back() {
    for file in FILES {
        for metric in read(file).metrics {
            let limit: u64 = metric.settings["consecutiveErrorLimit"].text.parse().expect("is a number");
            assert!(limit * 10 >= 300, "{file}");
            // Errors do not count as measurements: what is missing then is made up for.
            let conditions = metric.conditions(&defaults(&read(file))).expect("are well formed");
            assert_eq!(conditions.assess(&[]), Phase::Inconclusive, "{file}");
            assert_eq!(conditions.assess(&[f64::NAN]), Phase::Inconclusive, "{file}");
        }
    }
}

/// What the two releases and the tracer do: series in promtool's notation. Times are minutes; everything is counted by
/// two daemons, half by each.
struct Case {
    series: String,
}

/// Steps of a counter: so many minutes at so much a minute.
type Steps<'a> = &'a [(u64, u64)];

/// What each daemon counts of a release, per minute.
struct Release<'a> {
    requests: Steps<'a>,
    /// Those that repeat an earlier one.
    repeated: Steps<'a>,
    /// Those that something is shown for, and those that nothing is.
    exposed: Steps<'a>,
    unexposed: Steps<'a>,
    exposures: Steps<'a>,
    linked: Steps<'a>,
    orphan: Steps<'a>,
}

const MINUTES: u64 = 240;
const NEVER: Steps<'static> = &[(MINUTES, 0)];

/// 4,000 requests, 1 % of which show nothing, 40,000 exposures and 2,000 clicks a minute, 0.5 % of them orphans.
const HEALTHY: Release<'static> = Release {
    requests: &[(MINUTES, 4_000)],
    repeated: NEVER,
    exposed: &[(MINUTES, 3_960)],
    unexposed: &[(MINUTES, 40)],
    exposures: &[(MINUTES, 40_000)],
    linked: &[(MINUTES, 1_990)],
    orphan: &[(MINUTES, 10)],
};

fn counter(steps: Steps<'_>, stale_at: Option<u64>) -> String {
    let (mut minute, mut value) = (0, 0);
    let mut samples = Vec::new();
    for (minutes, rate) in steps {
        for _ in 0..*minutes {
            samples.push(if stale_at.is_some_and(|at| minute >= at) {
                "_".to_owned()
            } else {
                value.to_string()
            });
            if stale_at == Some(minute) {
                *samples.last_mut().expect("was pushed") = "stale".to_owned();
            }
            value += rate;
            minute += 1;
        }
    }
    samples.join(" ")
}

impl Case {
    /// Both releases; the daemons in `stale` stop answering at that minute.
    fn new(
        releases: &[(&str, Release<'_>)],
        lost: Steps<'_>,
        attach_errors: Steps<'_>,
        stale: [Option<u64>; 2],
    ) -> Self {
        let mut case = Self { series: String::new() };
        for (instance, stale_at) in ["a", "b"].into_iter().zip(stale) {
            let mut add = |name: &str, labels: &str, steps: Steps<'_>| {
                let comma = if labels.is_empty() { "" } else { ", " };
                let values = counter(steps, stale_at);
                writeln!(
                    case.series,
                    "      - {{ series: '{name}{{instance=\"{instance}\"{comma}{labels}}}', values: '{values}' }}"
                )
                .expect("in memory");
            };
            let one: Vec<(u64, u64)> = vec![(1, 1), (MINUTES - 1, 0)];
            // A gauge of 1: a counter that took one step before the first minute.
            add("linktracer_build_info", "version=\"1\"", &one);
            add("linktracer_target_processes", "service=\"s\"", &one);
            add("linktracer_window_trustworthy", "service=\"s\"", &one);
            add("linktracer_lost_events_total", "reason=\"ring_full\"", lost);
            add("linktracer_late_without_outcome_total", "kind=\"click\"", NEVER);
            add("linktracer_attach_errors_total", "reason=\"symbol_not_found\"", attach_errors);
            for (release, counted) in releases {
                let labels = |rest: &str| format!("{rest}, service=\"s\", release=\"{release}\", group=\"\"");
                let Release { requests, repeated, exposed, unexposed, exposures, linked, orphan } = counted;
                add("linktracer_requests_total", &labels("outcome=\"exposed\""), exposed);
                add("linktracer_requests_total", &labels("outcome=\"unexposed\""), unexposed);
                add("linktracer_events_total", &labels("kind=\"request\""), requests);
                add("linktracer_duplicates_total", &labels("kind=\"request\""), repeated);
                add("linktracer_events_total", &labels("kind=\"exposure\""), exposures);
                for (edge, outcome, steps) in [
                    ("request_exposure", "linked", exposures),
                    ("exposure_click", "linked", linked),
                    ("exposure_click", "orphan", orphan),
                    ("triple", "complete", linked),
                    ("triple", "broken", orphan),
                ] {
                    let edge = format!("edge=\"{edge}\", outcome=\"{outcome}\"");
                    add("linktracer_links_total", &labels(&edge), steps);
                }
            }
        }
        case
    }

    /// What each gate measures at `minute`, what Argo makes of it, and the alerts that fire then.
    #[track_caller]
    fn check(&self, minute: u64, expected: [(Option<f64>, Phase); FILES.len()], alerts: &[(&str, &str)]) {
        let look = (minute, expected.map(|(value, _)| value));
        let phases = check_gates(&self.series, ["old", "new"], &[look], alerts);
        assert_eq!(phases, [expected.map(|(_, phase)| phase)]);
    }
}

const ALIVE: [Option<u64>; 2] = [None; 2];
const PASSED: Phase = Phase::Successful;
const FAILED: Phase = Phase::Failed;
const UNCLEAR: (Option<f64>, Phase) = (None, Phase::Inconclusive);

#[test]
fn a_healthy_release_passes() {
    let case = Case::new(&[("old", HEALTHY), ("new", HEALTHY)], NEVER, NEVER, ALIVE);
    case.check(
        225,
        [(Some(0.0), PASSED), (Some(0.0), PASSED), (Some(0.0), PASSED), (Some(0.0), PASSED)],
        &[],
    );
}

#[test]
fn broken_links_fail_the_gate_on_links_and_no_other() {
    let broken = Release { linked: &[(MINUTES, 1_944)], orphan: &[(MINUTES, 56)], ..HEALTHY };
    let case = Case::new(&[("old", HEALTHY), ("new", broken)], NEVER, NEVER, ALIVE);
    case.check(
        225,
        [(Some(0.0), PASSED), (Some(0.0), PASSED), (Some(0.023), FAILED), (Some(0.0), PASSED)],
        &[("LinktracerBrokenLinksUp", "new")],
    );
}

#[test]
fn fewer_clicks_fail_the_gates_on_clicks_and_no_other() {
    let drop = Release { linked: &[(MINUTES, 1_944)], orphan: &[(MINUTES, 10)], ..HEALTHY };
    let case = Case::new(&[("old", HEALTHY), ("new", drop)], NEVER, NEVER, ALIVE);
    case.check(
        225,
        [(Some(3.0), FAILED), (Some(1.0), FAILED), (Some(0.0001), PASSED), (Some(0.0), PASSED)],
        &[],
    );
}

/// Its SDK does not run for a fifth of the requests.
#[test]
fn requests_that_show_nothing_fail_their_gate_and_no_other() {
    let blind = Release {
        exposed: &[(MINUTES, 3_168)],
        unexposed: &[(MINUTES, 832)],
        exposures: &[(MINUTES, 32_000)],
        linked: &[(MINUTES, 1_592)],
        orphan: &[(MINUTES, 8)],
        ..HEALTHY
    };
    let case = Case::new(&[("old", HEALTHY), ("new", blind)], NEVER, NEVER, ALIVE);
    case.check(
        225,
        [(Some(0.0), PASSED), (Some(0.0), PASSED), (Some(0.0), PASSED), (Some(0.198), FAILED)],
        &[("LinktracerRequestsUnexposed", "new")],
    );
}

#[test]
fn a_release_that_recovers_is_not_rolled_back_for_its_past() {
    let recovering = Release { linked: &[(180, 1_790), (MINUTES - 180, 1_990)], ..HEALTHY };
    let case = Case::new(&[("old", HEALTHY), ("new", recovering)], NEVER, NEVER, ALIVE);
    // While it was low it was; half an hour later it is not.
    case.check(
        180,
        [(Some(3.0), FAILED), (Some(1.0), FAILED), (Some(0.0006), PASSED), (Some(0.0), PASSED)],
        &[],
    );
    case.check(
        225,
        [(Some(0.0), PASSED), (Some(0.0), PASSED), (Some(0.0), PASSED), (Some(0.0), PASSED)],
        &[],
    );
}

#[test]
fn without_data_of_the_release_nothing_is_said() {
    Case::new(&[("old", HEALTHY)], NEVER, NEVER, ALIVE).check(225, [UNCLEAR; FILES.len()], &[]);
}

#[test]
fn with_few_requests_and_clicks_nothing_is_said() {
    let exposures: Steps<'_> = &[(MINUTES, 400)];
    let (exposed, linked, orphan) = (&[(MINUTES, 40)], &[(MINUTES, 10)], &[(MINUTES, 5)]);
    let rare = Release { exposed, unexposed: NEVER, exposures, linked, orphan, ..HEALTHY };
    Case::new(&[("old", HEALTHY), ("new", rare)], NEVER, NEVER, ALIVE).check(
        225,
        [UNCLEAR; FILES.len()],
        &[],
    );
}

#[test]
fn when_the_tracer_is_down_nothing_is_said() {
    let both = Case::new(&[("old", HEALTHY), ("new", HEALTHY)], NEVER, NEVER, [Some(210); 2]);
    both.check(225, [UNCLEAR; FILES.len()], &[("LinktracerDaemonAbsent", "")]);
    // One of two: what is left may be any part of each release.
    let one = Case::new(&[("old", HEALTHY), ("new", HEALTHY)], NEVER, NEVER, [None, Some(215)]);
    one.check(225, [UNCLEAR; FILES.len()], &[("LinktracerDaemonAbsent", "")]);
}

#[test]
fn when_the_tracer_loses_clicks_nothing_is_said() {
    let seen = Release { linked: &[(150, 1_990), (MINUTES - 150, 1_790)], ..HEALTHY };
    let case = Case::new(&[("old", HEALTHY), ("new", seen)], &[(150, 0), (MINUTES - 150, 200)], NEVER, ALIVE);
    case.check(225, [UNCLEAR; FILES.len()], &[("LinktracerEventsLost", "")]);
}

#[test]
fn when_a_probe_of_the_release_is_missing_nothing_is_said() {
    let unseen = Release { linked: &[(MINUTES, 990)], orphan: &[(MINUTES, 10)], ..HEALTHY };
    let errors: Steps<'_> = &[(30, 0), (1, 1), (MINUTES - 31, 0)];
    Case::new(&[("old", HEALTHY), ("new", unseen)], NEVER, errors, ALIVE).check(
        225,
        [UNCLEAR; FILES.len()],
        &[],
    );
}

/// All its figures are good: the few exposures that are left are linked and clicked.
#[test]
fn when_a_release_sends_one_request_id_for_all_nothing_is_said() {
    let one_id = Release { repeated: &[(150, 0), (MINUTES - 150, 4_000)], ..HEALTHY };
    let case = Case::new(&[("old", HEALTHY), ("new", one_id)], NEVER, NEVER, ALIVE);
    case.check(225, [UNCLEAR; FILES.len()], &[("LinktracerIdsRepeat", "new")]);
}

/// It sends each request to two servers.
#[test]
fn a_release_whose_requests_are_seen_twice_passes() {
    let requests: Steps<'_> = &[(150, 4_000), (MINUTES - 150, 8_000)];
    let twice = Release { requests, repeated: &[(150, 0), (MINUTES - 150, 4_000)], ..HEALTHY };
    let case = Case::new(&[("old", HEALTHY), ("new", twice)], NEVER, NEVER, ALIVE);
    case.check(
        225,
        [(Some(0.0), PASSED), (Some(0.0), PASSED), (Some(0.0), PASSED), (Some(0.0), PASSED)],
        &[],
    );
}

/// Limits as Argo adds measurements up: more failures than failureLimit, more inconclusive ones than inconclusiveLimit,
/// and a success when count is reached.
#[test]
fn a_rollout_that_nothing_is_known_of_is_not_promoted() {
    for file in FILES {
        let template = read(file);
        let settings: BTreeMap<&str, u64> = ["count", "failureLimit", "inconclusiveLimit"]
            .into_iter()
            .map(|key| (key, template.metrics[0].settings[key].text.parse().expect("is a number")))
            .collect();
        assert!(settings["inconclusiveLimit"] < settings["count"], "{file}");
        assert!(settings["failureLimit"] < settings["count"], "{file}");
    }
}
