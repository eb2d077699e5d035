//! Conditions of AnalysisTemplates mean here what they mean to Argo Rollouts: both are asked, this crate and the expr
//! library that Argo evaluates them with, of version 1.8, about every condition below and every result below.
//!
//! `LINKTRACER_EXPR` names the folder of a Go workspace with that library (Debian: golang-github-antonmedv-expr-dev), and
//! `LINKTRACER_GO` a Go toolchain. Without them the test says so and passes, unless `LINKTRACER_REQUIRE_GO=1`.

#![expect(clippy::print_stderr, reason = "what was skipped is for people")]

use std::{
    env,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::json;
use tests::templates::{defaults, read};
use tracer_user::lint::{condition::Condition, template::filled_in};

const CONDITIONS: [&str; 39] = [
    "len(result) == 1 && result[0] < 3",
    "len(result) == 1 && result[0] >= 0.5",
    "len(result) == 1 and result[0] >= 0.5",
    "len(result) == 0 or result[0] > 1",
    "len(result) > 0 && !(result[0] > 1)",
    "not (len(result) == 1)",
    "not len(result) == 1",
    "result[0] < 1",
    "result[0] <= 0.5",
    "result[0] == 0.5",
    "result[0] != 0.5",
    "result[1] > 2",
    "0.5 >= result[0]",
    "result[0] > 1 || result[0] < 1",
    "result[0] > 1 && result[0] < 1 || len(result) == 2",
    "result[0] > 1 && (result[0] < 1 || len(result) == 2)",
    "result[0] * 2 + 1 > 1.5",
    "1 - result[0] / 2 < 0.8",
    "1 - result[0] - 0.2 < 0.8",
    "-result[0] < -0.4",
    "result[0] > 1e-3",
    "result[0] > .25",
    "isNaN(result[0])",
    "len(result) == 1 && !isNaN(result[0]) && !isInf(result[0])",
    "isInf(result[0])",
    "true",
    "false || true",
    "true == (len(result) == 1)",
    "len(result) + 1 == 2",
    // Refused, whatever the result.
    "result < 1",
    "result > 0.95 && len(result) == 1",
    "len(result) == 1 && result >= 1",
    "result.metrics.x < 1",
    "result[0]",
    "len(result)",
    "unknown > 1",
    "default(result, 0) == 0",
    "len(result) && true",
    "result[0] >",
];

const RESULTS: [&[&str]; 8] =
    [&[], &["0.5"], &["3"], &["-1"], &["NaN"], &["+Inf"], &["0.5", "3"], &["3", "0.5", "1"]];

fn here(condition: &str, result: &[&str]) -> String {
    let numbers: Vec<f64> = result.iter().map(|text| text.parse().expect("is a number")).collect();
    match Condition::parse(condition).map(|condition| condition.holds(&numbers)) {
        Err(_) => "refused".to_owned(),
        Ok(Err(_)) => "failed".to_owned(),
        Ok(Ok(holds)) => holds.to_string(),
    }
}

/// A Go toolchain and the workspace with the library.
fn toolchain() -> Option<(PathBuf, PathBuf)> {
    let named = env::var("LINKTRACER_GO").ok().and_then(|named| env::split_paths(&named).next());
    let workspace = env::var_os("LINKTRACER_EXPR").map(PathBuf::from);
    let found = named.filter(|go| go.is_file()).zip(workspace.filter(|folder| folder.is_dir()));
    let required = env::var_os("LINKTRACER_REQUIRE_GO").is_some_and(|value| value == "1");
    assert!(
        found.is_some() || !required,
        "LINKTRACER_REQUIRE_GO=1, and LINKTRACER_GO or LINKTRACER_EXPR is missing"
    );
    found
}

#[test]
fn conditions_mean_what_they_mean_to_argo() {
    let Some((go, workspace)) = toolchain() else {
        eprintln!("skipped: LINKTRACER_GO and LINKTRACER_EXPR are not set");
        return;
    };
    let mut conditions: Vec<String> = CONDITIONS.iter().map(ToString::to_string).collect();
    for file in ["self-healing.yaml", "dual-threshold.yaml", "broken-links.yaml"] {
        let template = read(file);
        for placed in [&template.metrics[0].success, &template.metrics[0].failure].into_iter().flatten() {
            conditions.push(filled_in(&placed.text, &defaults(&template)));
        }
    }
    let cases: Vec<(&str, &[&str])> =
        conditions.iter().flat_map(|condition| RESULTS.map(|result| (condition.as_str(), result))).collect();

    let scratch = tempfile::tempdir().expect("a scratch folder");
    let program = scratch.path().join("conditions");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/conditions/main.go");
    // As Debian's Go packages are used: by their place below GOPATH.
    let built = Command::new(go)
        .args(["build", "-o"])
        .args([&program, &source])
        .envs([("GO111MODULE", "off"), ("GOTOOLCHAIN", "local"), ("GOFLAGS", ""), ("CGO_ENABLED", "0")])
        .env("GOPATH", workspace)
        .output()
        .expect("go starts");
    assert!(built.status.success(), "{}", tests::printed(&built));
    let mut child =
        Command::new(&program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut input = child.stdin.take().expect("is piped");
    let lines: String = cases
        .iter()
        .map(|(condition, result)| json!({ "Condition": condition, "Result": result }).to_string() + "\n")
        .collect();
    let writer = std::thread::spawn(move || input.write_all(lines.as_bytes()));
    let output = child.wait_with_output().expect("is our child");
    writer.join().expect("does not panic").expect("it reads");
    let answers = String::from_utf8(output.stdout).expect("is text");
    let answers: Vec<&str> = answers.lines().collect();
    assert_eq!(answers.len(), cases.len());
    for ((condition, result), answer) in cases.into_iter().zip(answers) {
        assert_eq!(here(condition, result), answer, "`{condition}` of {result:?}");
    }
}
