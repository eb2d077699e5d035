//! The parts of an AnalysisTemplate that say when a release is rolled back, with their lines.
//!
//! Reads what is there and passes over the rest; whether a file fits the schema of Argo Rollouts is for the cluster to
//! say.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use saphyr::{LoadableYamlNode as _, MarkedYaml, Scalar, YamlData};

use super::condition::{Condition, ConditionError, OutOfRange};

/// A document of kind AnalysisTemplate or ClusterAnalysisTemplate.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    /// `metadata.name`; empty when there is none.
    pub name: String,
    /// Arguments with their default values.
    pub arguments: BTreeMap<String, Option<String>>,
    /// `spec.metrics`.
    pub metrics: Vec<Metric>,
}

/// A text and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// Line, from 1.
    pub line: usize,
    /// The text, as it stands there.
    pub text: String,
}

/// One metric of a template.
#[derive(Debug, Clone, PartialEq)]
pub struct Metric {
    /// Where it begins.
    pub line: usize,
    /// Its name; empty when there is none.
    pub name: String,
    /// `successCondition`.
    pub success: Option<Placed>,
    /// `failureCondition`.
    pub failure: Option<Placed>,
    /// `provider.prometheus.query`; `None` for other providers.
    pub query: Option<Placed>,
    /// `count`, `interval`, `failureLimit`, `inconclusiveLimit` and `consecutiveErrorLimit`, those that are there.
    pub settings: BTreeMap<String, Placed>,
}

/// What a measurement comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It speaks for the release.
    Successful,
    /// It speaks against it.
    Failed,
    /// It says nothing.
    Inconclusive,
    /// It could not be taken.
    Error,
}

/// The two conditions of a metric, arguments filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct Conditions {
    /// `successCondition`.
    pub success: Option<Condition>,
    /// `failureCondition`.
    pub failure: Option<Condition>,
}

impl Conditions {
    /// What Argo Rollouts makes of a result, as `utils/evaluate` does: without one of the conditions, what the
    /// other one denies.
    pub fn assess(&self, result: &[f64]) -> Phase {
        let holds = |condition: &Option<Condition>| {
            condition.as_ref().map(|condition| condition.holds(result)).transpose()
        };
        let (success, failure) = match (holds(&self.success), holds(&self.failure)) {
            (Err(OutOfRange), _) | (_, Err(OutOfRange)) => return Phase::Error,
            (Ok(None), Ok(None)) => (true, false),
            (Ok(Some(success)), Ok(None)) => (success, !success),
            (Ok(None), Ok(Some(failure))) => (!failure, failure),
            (Ok(Some(success)), Ok(Some(failure))) => (success, failure),
        };
        match (success, failure) {
            (_, true) => Phase::Failed,
            (true, false) => Phase::Successful,
            (false, false) => Phase::Inconclusive,
        }
    }
}

impl Metric {
    /// Its conditions, with the values of `arguments`.
    ///
    /// # Errors
    /// One of them cannot be evaluated, whatever the result.
    pub fn conditions(
        &self,
        arguments: &BTreeMap<String, String>,
    ) -> Result<Conditions, (Placed, ConditionError)> {
        let parse = |condition: &Option<Placed>| {
            let parsed = condition.as_ref().map(|placed| {
                Condition::parse(&filled_in(&placed.text, arguments)).map_err(|error| (placed.clone(), error))
            });
            parsed.transpose()
        };
        Ok(Conditions { success: parse(&self.success)?, failure: parse(&self.failure)? })
    }
}

/// The text with `{{args.NAME}}` replaced; an argument without a value stays as it is.
pub fn filled_in(text: &str, arguments: &BTreeMap<String, String>) -> String {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((name, behind)) = after.split_once("}}") else { break };
        filled.push_str(before);
        match name.trim().strip_prefix("args.").and_then(|name| arguments.get(name.trim())) {
            Some(value) => filled.push_str(value),
            None => filled.push_str(&format!("{{{{{name}}}}}")),
        }
        rest = behind;
    }
    filled + rest
}

/// Every template of a YAML file.
///
/// # Errors
/// It is not YAML, or there is no template in it.
pub fn read(text: &str) -> Result<Vec<Template>> {
    let documents = match MarkedYaml::load_from_str(text) {
        Ok(documents) => documents,
        Err(error) => bail!("line {}: not YAML: {}", error.marker().line(), error.info()),
    };
    let is_template = |document: &&MarkedYaml<'_>| {
        let kind = get(document, "kind").and_then(scalar);
        kind.is_some_and(|kind| matches!(&*kind, "AnalysisTemplate" | "ClusterAnalysisTemplate"))
    };
    let templates: Vec<Template> = documents.iter().filter(is_template).map(template).collect();
    if templates.is_empty() {
        bail!("there is no AnalysisTemplate in it");
    }
    Ok(templates)
}

fn template(document: &MarkedYaml<'_>) -> Template {
    let spec = get(document, "spec");
    let arguments = list(spec.and_then(|spec| get(spec, "args"))).filter_map(|argument| {
        Some((scalar(get(argument, "name")?)?, get(argument, "value").and_then(scalar)))
    });
    Template {
        name: get(document, "metadata")
            .and_then(|metadata| scalar(get(metadata, "name")?))
            .unwrap_or_default(),
        arguments: arguments.collect(),
        metrics: list(spec.and_then(|spec| get(spec, "metrics"))).map(metric).collect(),
    }
}

fn metric(yaml: &MarkedYaml<'_>) -> Metric {
    let at = |key: &str| get(yaml, key).and_then(placed);
    let prometheus = get(yaml, "provider").and_then(|provider| get(provider, "prometheus"));
    let settings = ["count", "interval", "failureLimit", "inconclusiveLimit", "consecutiveErrorLimit"];
    Metric {
        line: yaml.span.start.line(),
        name: get(yaml, "name").and_then(scalar).unwrap_or_default(),
        success: at("successCondition"),
        failure: at("failureCondition"),
        query: prometheus.and_then(|prometheus| placed(get(prometheus, "query")?)),
        settings: settings.iter().filter_map(|key| Some(((*key).to_owned(), at(key)?))).collect(),
    }
}

fn get<'a, 'input>(yaml: &'a MarkedYaml<'input>, key: &str) -> Option<&'a MarkedYaml<'input>> {
    let YamlData::Mapping(mapping) = &yaml.data else { return None };
    mapping.iter().find(|(name, _)| scalar(name).is_some_and(|name| name == key)).map(|(_, value)| value)
}

fn list<'a, 'input>(yaml: Option<&'a MarkedYaml<'input>>) -> impl Iterator<Item = &'a MarkedYaml<'input>> {
    let items = yaml.and_then(|yaml| match &yaml.data {
        YamlData::Sequence(items) => Some(items.as_slice()),
        _ => None,
    });
    items.unwrap_or_default().iter()
}

fn placed(yaml: &MarkedYaml<'_>) -> Option<Placed> {
    Some(Placed { line: yaml.span.start.line(), text: scalar(yaml)? })
}

fn scalar(yaml: &MarkedYaml<'_>) -> Option<String> {
    match &yaml.data {
        YamlData::Value(Scalar::String(text)) => Some(text.to_string()),
        YamlData::Value(Scalar::Integer(number)) => Some(number.to_string()),
        YamlData::Value(Scalar::FloatingPoint(number)) => Some(number.to_string()),
        YamlData::Value(Scalar::Boolean(value)) => Some(value.to_string()),
        _ => None,
    }
}
