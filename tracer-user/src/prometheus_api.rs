//! Asks a Prometheus server over its HTTP API.
//!
//! Called by `compare` and `baseline`. Values that are no numbers (NaN, infinities) are left out, so that whoever
//! asks has only absence to think of. Deliberately absent: any retry; what asks once says why it failed.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde::Deserialize;

/// An answer takes a server longer only when it is in trouble.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A week of hours of a hundred releases is far below this.
const MAX_ANSWER_BYTES: u64 = 64 << 20;

/// Which server to ask, and as whom.
#[derive(Debug, Clone, Args)]
pub struct ServerArgs {
    /// The Prometheus server, such as `http://prometheus:9090`.
    #[arg(long, value_name = "URL")]
    pub prometheus: Option<String>,
    /// A file with the bearer token that the server asks for.
    #[arg(long, value_name = "FILE", requires = "prometheus")]
    pub token_file: Option<PathBuf>,
}

/// A server.
pub struct Prometheus {
    agent: ureq::Agent,
    url: String,
    token: Option<String>,
}

/// One number of an instant query.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Finite.
    pub value: f64,
}

/// One series of a range query.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Unix time in seconds, and a finite value, in the order of time.
    pub points: Vec<(f64, f64)>,
}

/// A part of time that a range query looks at, point by point.
#[derive(Debug, Clone, Copy)]
pub struct Range {
    /// The first point.
    pub start: SystemTime,
    /// The last point at most.
    pub end: SystemTime,
    /// From point to point.
    pub step: Duration,
}

#[derive(Deserialize)]
struct Answer {
    status: String,
    error: Option<String>,
    data: Option<Data>,
}

#[derive(Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
enum Data {
    Vector(Vec<VectorEntry>),
    Matrix(Vec<MatrixEntry>),
    Scalar((f64, String)),
    String(serde::de::IgnoredAny),
}

#[derive(Deserialize)]
struct VectorEntry {
    metric: BTreeMap<String, String>,
    value: (f64, String),
}

#[derive(Deserialize)]
struct MatrixEntry {
    metric: BTreeMap<String, String>,
    values: Vec<(f64, String)>,
}

impl Prometheus {
    /// The server at `url`.
    ///
    /// # Errors
    /// The URL is none, or the file of the token cannot be read.
    pub fn new(url: &str, token_file: Option<&PathBuf>) -> Result<Self> {
        if !(url.starts_with("http://") || url.starts_with("https://")) {
            bail!("--prometheus {url}: not a URL\n  remedy: begin it with http:// or https://");
        }
        let token = token_file
            .map(|file| fs::read_to_string(file).with_context(|| format!("read {}", file.display())))
            .transpose()?;
        // What the server has to say stands in the body, whatever the status.
        let config =
            ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).http_status_as_error(false).build();
        Ok(Self {
            agent: config.into(),
            url: url.trim_end_matches('/').to_owned(),
            token: token.map(|token| token.trim().to_owned()),
        })
    }

    /// The values of `query` at a time.
    ///
    /// # Errors
    /// The server cannot be reached or refuses the query.
    pub fn instant(&self, query: &str, at: SystemTime) -> Result<Vec<Sample>> {
        let parameters = [("query", query.to_owned()), ("time", unix_seconds(at))];
        let entries = match self.ask("query", &parameters)? {
            Data::Vector(entries) => entries,
            Data::Scalar(value) => vec![VectorEntry { metric: BTreeMap::new(), value }],
            Data::Matrix(_) | Data::String(_) => bail!("{query}: the answer has no instant vector"),
        };
        let samples = entries.into_iter().filter_map(|VectorEntry { metric, value }| {
            Some(Sample { labels: metric, value: finite(&value.1)? })
        });
        Ok(samples.collect())
    }

    /// The sum of all values of `query` at a time; 0 when there are none.
    ///
    /// # Errors
    /// As [`instant`](Self::instant).
    pub fn sum(&self, query: &str, at: SystemTime) -> Result<f64> {
        Ok(self.instant(query, at)?.iter().map(|sample| sample.value).sum())
    }

    /// The values of `query` over a range.
    ///
    /// # Errors
    /// As [`instant`](Self::instant).
    pub fn range(&self, query: &str, range: Range) -> Result<Vec<Series>> {
        let parameters = [
            ("query", query.to_owned()),
            ("start", unix_seconds(range.start)),
            ("end", unix_seconds(range.end)),
            ("step", range.step.as_secs_f64().to_string()),
        ];
        let Data::Matrix(entries) = self.ask("query_range", &parameters)? else {
            bail!("{query}: the answer has no range");
        };
        let series = entries.into_iter().map(|entry| Series {
            labels: entry.metric,
            points: entry.values.iter().filter_map(|(at, value)| Some((*at, finite(value)?))).collect(),
        });
        Ok(series.collect())
    }

    fn ask(&self, endpoint: &str, parameters: &[(&str, String)]) -> Result<Data> {
        let url = format!("{}/api/v1/{endpoint}", self.url);
        let mut request = self.agent.post(&url);
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let form = parameters.iter().map(|(name, value)| (*name, value.as_str()));
        let mut response = request.send_form(form).with_context(|| format!("ask {url}"))?;
        let status = response.status();
        let text = body(&mut response, &url)?;
        let query = &parameters[0].1;
        match serde_json::from_str(&text) {
            Ok(Answer { status, data: Some(data), .. }) if status == "success" => Ok(data),
            Ok(Answer { error: Some(error), .. }) => {
                bail!("{url} refuses the query: {error}\n  query: {query}")
            }
            _ => bail!("{url} does not answer as Prometheus does (status {status})"),
        }
    }
}

/// What is at a URL, as text.
///
/// # Errors
/// It cannot be reached, or it does not answer with status 200.
pub fn get(url: &str) -> Result<String> {
    let mut response = agent().get(url).call().with_context(|| format!("ask {url}"))?;
    let text = body(&mut response, url)?;
    match response.status().as_u16() {
        200 => Ok(text),
        status => bail!("{url} answers with status {status}"),
    }
}

/// What a server has to say stands in the body, so a status is no error by itself.
fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).http_status_as_error(false).build().into()
}

fn body(response: &mut ureq::http::Response<ureq::Body>, url: &str) -> Result<String> {
    let limited = response.body_mut().with_config().limit(MAX_ANSWER_BYTES);
    limited.read_to_string().with_context(|| format!("read the answer of {url}"))
}

/// A value of PromQL in quotes, such as a label is compared with.
pub fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

/// A count that Prometheus estimated, as a whole number.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "is not negative; the cast saturates"
)]
pub fn whole(count: f64) -> u64 {
    count.max(0.0).round() as u64
}

fn finite(text: &str) -> Option<f64> {
    text.parse().ok().filter(|value: &f64| value.is_finite())
}

fn unix_seconds(time: SystemTime) -> String {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64().to_string()
}

#[cfg(test)]
mod tests {
    use super::{finite, quoted};

    #[test]
    fn a_label_value_cannot_end_its_quotes() {
        assert_eq!(quoted("v1"), r#""v1""#);
        assert_eq!(quoted("a\"} or vector(1) #\\\n"), r#""a\"} or vector(1) #\\\n""#);
    }

    #[test]
    fn what_is_no_number_is_absent() {
        assert_eq!(["1.5", "NaN", "+Inf", "-Inf", ""].map(finite), [Some(1.5), None, None, None, None]);
    }
}
