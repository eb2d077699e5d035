//! Reads the daemon's published metrics back into counts: the demo knows no more of the tracer than a
//! dashboard does.

use std::{collections::BTreeMap, net::SocketAddr};

use anyhow::{Context as _, Result, bail, ensure};

use super::{
    http,
    tally::{Key, Tally},
};

/// The tables of the join in which something waits for its judgement.
pub const WAITING_TABLES: [&str; 6] =
    ["reorder_buffer", "requests", "exposures", "clicks", "click_reports", "triples"];

/// One line of the Prometheus text format.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The metric's name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

impl Sample {
    /// The value of a label; empty when there is none.
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }

    /// The value as a count; an error when it is none.
    fn count(&self) -> Result<u64> {
        let text = format!("{:.0}", self.value);
        match text.parse() {
            Ok(count) if self.value.fract() == 0.0 => Ok(count),
            _ => bail!("{} is {}, which is not a count", self.name, self.value),
        }
    }
}

/// What the daemon published at one moment.
#[derive(Debug, Clone, Default)]
pub struct Scrape(Vec<Sample>);

impl Scrape {
    /// Asks the daemon.
    pub fn fetch(address: SocketAddr) -> Result<Self> {
        let answer = http::get_once(address, "/metrics")?;
        ensure!(answer.status == 200, "the daemon answers {} to /metrics", answer.status);
        Self::parse(std::str::from_utf8(&answer.body).context("read /metrics as text")?)
    }

    /// Reads the Prometheus text format, and refuses what is not.
    pub fn parse(text: &str) -> Result<Self> {
        let mut samples = Vec::new();
        for (index, line) in text.lines().enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let sample =
                parse_sample(line).with_context(|| format!("/metrics line {}: {line}", index + 1))?;
            samples.push(sample);
        }
        Ok(Self(samples))
    }

    /// The counts of one service, over all its releases and groups. Late events and losses have no service, and a
    /// demo's daemon traces no other. A label value without a place in the comparison is an error.
    pub fn tally(&self, service: &str) -> Result<Tally> {
        let mut tally = Tally::default();
        for sample in &self.0 {
            let path = match sample.name.as_str() {
                "linktracer_events_total" => vec!["events", sample.label("kind")],
                "linktracer_links_total" => vec!["edges", sample.label("edge"), sample.label("outcome")],
                "linktracer_requests_total" => vec!["requests", sample.label("outcome")],
                "linktracer_duplicates_total" => vec!["duplicate", sample.label("kind")],
                "linktracer_late_events_total" => vec!["late", sample.label("kind")],
                "linktracer_lost_events_total" => {
                    tally.add(Key::Lost(sample.label("reason").into()), sample.count()?);
                    continue;
                }
                _ => continue,
            };
            if sample.labels.get("service").is_some_and(|of| of != service) {
                continue;
            }
            let count = sample.count()?;
            match Key::all().find(|key| key.path() == path) {
                Some(key) => tally.add(key, count),
                // A daemon may publish every combination of its labels.
                None if count == 0 => {}
                None => bail!("{} counts {}, which the demo does not know", sample.name, path.join(".")),
            }
        }
        Ok(tally)
    }

    /// How much waits for its judgement, in all tables; an error names the tables that are not published.
    pub fn waiting(&self) -> Result<u64> {
        let mut total = 0;
        for table in WAITING_TABLES {
            let sample = self
                .0
                .iter()
                .find(|sample| sample.name == "linktracer_pending" && sample.label("table") == table)
                .with_context(|| {
                    format!("the daemon does not publish linktracer_pending{{table=\"{table}\"}}")
                })?;
            total += sample.count()?;
        }
        Ok(total)
    }

    /// Calls of hooks that the kernel did not make.
    pub fn skipped(&self) -> Result<u64> {
        let skipped = self.0.iter().filter(|sample| sample.name == "linktracer_skipped_hits_total");
        skipped.map(Sample::count).sum()
    }

    /// Every sample of the scrape.
    pub fn samples(&self) -> &[Sample] {
        &self.0
    }

    /// The kernel side's own account: by probe, how often it was hit and what became of that.
    pub fn kernel_hits(&self) -> Result<BTreeMap<String, BTreeMap<String, u64>>> {
        let mut probes: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
        for sample in self.0.iter().filter(|sample| sample.name == "linktracer_kernel_hits_total") {
            let outcomes = probes.entry(sample.label("probe").to_owned()).or_default();
            *outcomes.entry(sample.label("outcome").to_owned()).or_default() += sample.count()?;
        }
        Ok(probes)
    }
}

/// `name{label="value",...} value [timestamp]`
fn parse_sample(line: &str) -> Result<Sample> {
    let name_end = line.find(|c: char| !is_name_char(c)).context("there is no value")?;
    let (name, mut rest) = line.split_at(name_end);
    ensure!(is_name(name), "{name:?} is not a metric name");
    let mut labels = BTreeMap::new();
    if let Some(list) = rest.strip_prefix('{') {
        rest = parse_labels(list, &mut labels)?;
    }
    ensure!(rest.starts_with([' ', '\t']), "there is no space before the value");
    let mut fields = rest.split_ascii_whitespace();
    let value = parse_value(fields.next().context("there is no value")?)?;
    if let Some(timestamp) = fields.next() {
        timestamp.parse::<i64>().context("read the timestamp")?;
    }
    ensure!(fields.next().is_none(), "there is something after the value");
    Ok(Sample { name: name.to_owned(), labels, value })
}

/// Reads labels up to and with the closing brace; returns what is left.
fn parse_labels<'a>(mut rest: &'a str, labels: &mut BTreeMap<String, String>) -> Result<&'a str> {
    loop {
        if let Some(rest) = rest.strip_prefix('}') {
            return Ok(rest);
        }
        let (name, after) = rest.split_once("=\"").context("a label has no value in quotes")?;
        ensure!(is_name(name) && !name.contains(':'), "{name:?} is not a label name");
        let (value, after) = parse_quoted(after)?;
        ensure!(labels.insert(name.to_owned(), value).is_none(), "label {name} is there twice");
        // A comma may also stand after the last label.
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None if after.starts_with('}') => rest = after,
            None => bail!("there is neither a comma nor a brace after label {name}"),
        }
    }
}

/// Reads a label value up to and with the closing quote; returns what is left.
fn parse_quoted(text: &str) -> Result<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            '"' => return Ok((value, &text[index + 1..])),
            '\\' => match characters.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, escaped @ ('\\' | '"'))) => value.push(escaped),
                _ => bail!("a label value has an escape that is none"),
            },
            _ => value.push(character),
        }
    }
    bail!("a label value does not end")
}

/// Rust reads more spellings of infinity than the format has; they do no harm here.
fn parse_value(text: &str) -> Result<f64> {
    text.parse().with_context(|| format!("{text:?} is not a number"))
}

fn is_name_char(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_' || character == ':'
}

fn is_name(name: &str) -> bool {
    name.chars().all(is_name_char) && name.starts_with(|c: char| !c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, name: &str, labels: &[(&str, &str)], value: f64) {
        let labels = labels.iter().map(|&(name, value)| (name.into(), value.into())).collect();
        let expected = Sample { name: name.into(), labels, value };
        assert_eq!(parse_sample(line).expect("a sample"), expected, "{line}");
    }

    #[test]
    fn samples_are_read_with_labels_escapes_and_timestamps() {
        check("up 1", "up", &[], 1.0);
        check("up{} 1", "up", &[], 1.0);
        check("a:b_total{x=\"1\",y=\"\"} 2.5e3 1700000000000", "a:b_total", &[("x", "1"), ("y", "")], 2500.0);
        check(r#"m{a="q\"\\\n,}",} +Inf"#, "m", &[("a", "q\"\\\n,}")], f64::INFINITY);
        assert!(parse_sample("m NaN").expect("a sample").value.is_nan());
    }

    #[test]
    fn what_is_not_a_sample_is_refused() {
        for line in [
            "up",
            "up ",
            "1up 1",
            "{a=\"b\"} 1",
            "up{a=\"b\"}1",
            "up{a=\"b\" 1",
            "up{a=\"b\"c=\"d\"} 1",
            "up{a=b} 1",
            "up{a=\"b} 1",
            r#"up{a="\t"} 1"#,
            "up{a=\"1\",a=\"2\"} 1",
            "up{,} 1",
            "up one",
            "up 1 2 3",
            "up 1 x",
            "up-1 1",
        ] {
            assert!(parse_sample(line).is_err(), "{line}");
        }
    }

    #[test]
    fn counts_are_whole_and_known() {
        let tally = |text: &str| Scrape::parse(text).and_then(|scrape| scrape.tally("s"));
        assert!(tally("linktracer_events_total{kind=\"click\",service=\"s\"} 1.5").is_err());
        assert!(tally("linktracer_events_total{kind=\"click\",service=\"s\"} -1").is_err());
        assert!(tally("linktracer_events_total{kind=\"click\",service=\"s\"} NaN").is_err());
        assert!(tally("linktracer_events_total{kind=\"clack\",service=\"s\"} 1").is_err());
        assert!(tally("linktracer_events_total{kind=\"clack\",service=\"s\"} 0").is_ok());
    }

    #[test]
    fn a_table_that_is_not_published_is_named() {
        let scrape = Scrape::parse("linktracer_pending{table=\"reorder_buffer\"} 3").expect("a scrape");
        let error = scrape.waiting().expect_err("five tables are missing");
        assert!(error.to_string().contains("requests"), "{error}");
    }
}
