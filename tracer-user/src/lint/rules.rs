//! What is wrong with a template, and why.
//!
//! Conditions are tried out on results that happen: none, NaN, several series, and numbers around those that the
//! condition compares with.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{
    condition::ConditionError,
    query::{self, QueryFault},
    template::{Conditions, Metric, Phase, Placed, Template, filled_in},
};

/// With an error every 10 s, fewer than this are over while a server restarts.
const LEAST_ERROR_LIMIT: u64 = 10;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Line, from 1.
    pub line: usize,
    /// Name of the metric.
    pub metric: String,
    /// Short name of what is wrong.
    pub rule: &'static str,
    /// What is wrong.
    pub message: String,
    /// What comes of it, and what would be right.
    pub why: &'static str,
}

/// Everything that is wrong with a template, in the order of its lines.
pub fn findings(template: &Template) -> Vec<Finding> {
    let mut findings = Vec::new();
    for metric in template.metrics.iter().filter(|metric| metric.query.is_some()) {
        let mut checked = Checked { metric, arguments: stand_ins(template), findings: Vec::new() };
        checked.conditions();
        checked.limits();
        checked.query();
        findings.append(&mut checked.findings);
    }
    findings.sort_by_key(|finding| finding.line);
    findings
}

/// Default values of the arguments, and for those without one something that can stand in most places.
fn stand_ins(template: &Template) -> BTreeMap<String, String> {
    let stand_in = |value: &Option<String>| value.clone().unwrap_or_else(|| "1".to_owned());
    template.arguments.iter().map(|(name, value)| (name.clone(), stand_in(value))).collect()
}

struct Checked<'a> {
    metric: &'a Metric,
    arguments: BTreeMap<String, String>,
    findings: Vec<Finding>,
}

impl Checked<'_> {
    fn find(&mut self, line: usize, rule: &'static str, message: impl Into<String>, why: &'static str) {
        let metric = self.metric.name.clone();
        self.findings.push(Finding { line, metric, rule, message: message.into(), why });
    }

    fn conditions(&mut self) {
        match self.metric.conditions(&self.arguments) {
            Err((placed, error)) => self.refused(&placed, &error),
            Ok(conditions) => self.try_out(&conditions),
        }
    }

    fn refused(&mut self, placed: &Placed, error: &ConditionError) {
        let (rule, why) = match error {
            ConditionError::Field(_) => (
                "field-of-result",
                "Every measurement is an Error, and after consecutiveErrorLimit of them the release is aborted. \
                 Take one metric for each number, and result[0].",
            ),
            ConditionError::ListAsNumber => (
                "list-as-number",
                "Every measurement is an Error, and after consecutiveErrorLimit of them the release is aborted. \
                 Write: len(result) == 1 && result[0] ...",
            ),
            _ => (
                "condition-unreadable",
                "Where Argo cannot evaluate it either, every measurement is an Error, and the release is aborted.",
            ),
        };
        self.find(placed.line, rule, format!("`{}`: {error}", placed.text), why);
    }

    fn try_out(&mut self, conditions: &Conditions) {
        let line = [&self.metric.failure, &self.metric.success]
            .into_iter()
            .flatten()
            .map(|placed| placed.line)
            .min()
            .unwrap_or(self.metric.line);
        match conditions.assess(&[]) {
            Phase::Error => self.find(
                line,
                "no-data-guard",
                "no data is an Error",
                "A query without a result makes result[0] an Error, and after consecutiveErrorLimit of them the \
                 release is aborted. Begin both conditions with: len(result) == 1 &&",
            ),
            Phase::Failed => self.find(
                line,
                "no-data-guard",
                "no data counts as a failure",
                "A fault of the measurement rolls the release back. Give both conditions, each beginning with: \
                 len(result) == 1 &&",
            ),
            Phase::Successful => self.find(
                line,
                "no-data-guard",
                "no data counts as a success",
                "A release that nothing is known of is promoted. Give both conditions, each beginning with: \
                 len(result) == 1 &&",
            ),
            Phase::Inconclusive => {}
        }
        let nan = conditions.assess(&[f64::NAN]);
        if matches!(nan, Phase::Successful | Phase::Failed) {
            let what = if nan == Phase::Successful { "success" } else { "failure" };
            self.find(
                line,
                "nan",
                format!("NaN counts as a {what}"),
                "NaN is what a division of nothing by nothing gives; no comparison with it holds. Give both \
                 conditions, so that what neither holds for is Inconclusive.",
            );
        }
        let tried = trial_numbers(conditions);
        let phases: BTreeSet<&str> = tried.iter().map(|number| word(conditions.assess(&[*number]))).collect();
        for (phase, rule) in [(Phase::Failed, "never-fails"), (Phase::Successful, "never-succeeds")] {
            if !phases.contains(word(phase)) {
                self.find(
                    line,
                    rule,
                    format!("no number tried is {}: {tried:?}", word(phase)),
                    "The metric always says the same, whatever is measured.",
                );
            }
        }
        let first_of_two = |number: &f64| {
            matches!(conditions.assess(&[*number, *number]), Phase::Successful | Phase::Failed)
        };
        if tried.iter().any(first_of_two) {
            self.find(
                line,
                "several-series",
                "several series count as one result",
                "Which one comes first is chance. Begin both conditions with: len(result) == 1 &&",
            );
        }
    }

    fn limits(&mut self) {
        let metric = self.metric;
        let number = |key: &str| {
            let placed = metric.settings.get(key)?;
            Some((placed.line, filled_in(&placed.text, &self.arguments).parse::<u64>().ok()?))
        };
        let (count, failure) = (number("count"), number("failureLimit"));
        let (inconclusive, errors) = (number("inconclusiveLimit"), number("consecutiveErrorLimit"));
        let has = |key: &str| metric.settings.contains_key(key);
        if !has("consecutiveErrorLimit") || errors.is_some_and(|(_, limit)| limit < LEAST_ERROR_LIMIT) {
            self.find(
                errors.map_or(metric.line, |(line, _)| line),
                "error-limit",
                "a short outage of Prometheus aborts the release",
                "After an Error Argo asks again every 10 s, and the default of consecutiveErrorLimit is 4. About \
                 30 is 5 minutes.",
            );
        }
        if !has("inconclusiveLimit") {
            self.find(
                metric.line,
                "inconclusive-limit",
                "the first measurement without a result stops the release",
                "The default of inconclusiveLimit is 0. About 30 lets the data come.",
            );
        }
        if let (Some((_, count)), Some((line, limit))) = (count, inconclusive)
            && limit >= count
        {
            self.find(
                line,
                "inconclusive-passes",
                format!("{count} measurements without a result are a success: inconclusiveLimit is {limit}"),
                "More than inconclusiveLimit of them are needed to stop, and when count is reached the run is a \
                 success. Set inconclusiveLimit below count.",
            );
        }
        if let (Some((_, count)), Some((line, limit))) = (count, failure)
            && limit >= count
        {
            self.find(
                line,
                "never-fails",
                format!("{count} failures are not enough: failureLimit is {limit}"),
                "More than failureLimit failures are needed, consecutive or not. Set it below count.",
            );
        }
        if let Some((line, 2..)) = count
            && !has("interval")
        {
            self.find(
                line,
                "no-interval",
                "count without interval",
                "Argo refuses a metric that is measured more than once without an interval.",
            );
        }
    }

    fn query(&mut self) {
        let Some(Placed { line, text }) = self.metric.query.clone() else { return };
        for fault in query::faults(&filled_in(&text, &self.arguments)) {
            match fault {
                QueryFault::Unreadable(reason) => {
                    let reason = reason.lines().next().unwrap_or_default().to_owned();
                    self.find(
                        line,
                        "query-unreadable",
                        format!("the query cannot be read: {reason}"),
                        "Every measurement is an Error, and after consecutiveErrorLimit of them the release is \
                         aborted.",
                    );
                }
                QueryFault::SeveralMetrics(names) => self.find(
                    line,
                    "several-metrics",
                    format!("one query asks for several things: {}", names.join(", ")),
                    "The result is a list without names: which number is which cannot be told. Take one metric for \
                     each.",
                ),
                QueryFault::FillsIn(number) => {
                    let phase = self.metric.conditions(&self.arguments).map(|conditions| conditions.assess(&[number]));
                    if let Ok(phase @ (Phase::Successful | Phase::Failed)) = phase {
                        self.find(
                            line,
                            "fills-in",
                            format!("where there is no data the query answers {number}, which is {}", word(phase)),
                            "A fault of the measurement looks like one. Leave `or vector(...)` out, and guard both \
                             conditions with: len(result) == 1 &&",
                        );
                    }
                }
            }
        }
    }
}

fn word(phase: Phase) -> &'static str {
    match phase {
        Phase::Successful => "a success",
        Phase::Failed => "a failure",
        Phase::Inconclusive => "inconclusive",
        Phase::Error => "an error",
    }
}

/// Numbers on, below and above each number that the conditions name.
fn trial_numbers(conditions: &Conditions) -> Vec<f64> {
    let named =
        [&conditions.success, &conditions.failure].into_iter().flatten().flat_map(|one| one.numbers());
    let mut tried: Vec<f64> = named
        .chain([0.0])
        .flat_map(|number| [number - 1.0, number - 1e-6, number, number + 1e-6, number + 1.0])
        .collect();
    tried.sort_by(f64::total_cmp);
    tried.dedup();
    tried
}
