//! A week of a service with three rollouts, half of the traffic each: one whose links break, one whose users click less,
//! one that is healthy. The same week every time; traffic and CTR follow the hour of the day, and counts scatter as chance
//! has it.

use std::{collections::BTreeMap, fmt::Write as _};

use tracer_user::prometheus_api::whole;

use crate::simulation::{binomial, chance};

/// 2025-11-17 00:00 UTC, a Monday.
pub const START_SECONDS: u64 = 1_763_337_600;

/// Minutes of the week.
pub const MINUTES: u64 = 7 * 24 * 60;

/// What runs all week.
pub const STABLE: &str = "v1";

/// Minute of the week from which each release gets half of the traffic, for ten hours.
pub const ROLLOUTS: [(&str, u64); 3] =
    [("v2-links", 1_440 + 480), ("v3-clicks", 3 * 1_440 + 480), ("v4-healthy", 5 * 1_440 + 480)];

/// How long each lasts, in minutes.
pub const ROLLOUT_MINUTES: u64 = 600;

/// What was counted so far, by series in Prometheus's notation, at each minute; `None` before it began.
pub struct Week {
    series: BTreeMap<String, Vec<Option<u64>>>,
}

impl Week {
    /// Makes it.
    pub fn new() -> Self {
        let mut random = chance(1_117);
        let mut series = BTreeMap::new();
        let releases = [(STABLE, 0, MINUTES)].into_iter();
        let releases = releases.chain(ROLLOUTS.map(|(name, start)| (name, start, start + ROLLOUT_MINUTES)));
        for (release, start, end) in releases {
            let counted = |minute: u64| (start..end).contains(&minute);
            let shared = |minute: u64| {
                ROLLOUTS.iter().any(|(_, start)| (*start..start + ROLLOUT_MINUTES).contains(&minute))
            };
            let (rate, broken_share) = match release {
                "v2-links" => (1.0, 0.005 + 0.023),
                "v3-clicks" => (0.977, 0.005),
                _ => (1.0, 0.005),
            };
            let mut sums = [0_u64; 4];
            let mut columns: [Vec<Option<u64>>; 4] = Default::default();
            for minute in 0..MINUTES {
                if counted(minute) {
                    let day = (minute % 1_440) as f64 / 1_440.0 * std::f64::consts::TAU;
                    let exposures =
                        100_000.0 * (1.0 - 0.3 * day.cos()) * if shared(minute) { 0.5 } else { 1.0 };
                    let exposures = whole(exposures);
                    let clicks = binomial(&mut random, exposures, 0.1 * (1.0 + 0.1 * day.sin()) * rate);
                    let broken = binomial(&mut random, clicks, broken_share);
                    for (sum, count) in
                        sums.iter_mut().zip([exposures / 10, exposures, clicks - broken, broken])
                    {
                        *sum += count;
                    }
                }
                for (column, sum) in columns.iter_mut().zip(sums) {
                    column.push((minute >= start && minute < end + 60).then_some(sum));
                }
            }
            let labels = |rest: &str| format!("{{{rest},service=\"s\",release=\"{release}\",group=\"\"}}");
            let [requests, exposures, linked, broken] = columns;
            for (name, labels, column) in [
                ("linktracer_requests_total", labels("outcome=\"exposed\""), &requests),
                ("linktracer_events_total", labels("kind=\"exposure\""), &exposures),
                (
                    "linktracer_links_total",
                    labels("edge=\"request_exposure\",outcome=\"linked\""),
                    &exposures,
                ),
                ("linktracer_links_total", labels("edge=\"exposure_click\",outcome=\"linked\""), &linked),
                ("linktracer_links_total", labels("edge=\"exposure_click\",outcome=\"orphan\""), &broken),
                ("linktracer_links_total", labels("edge=\"triple\",outcome=\"complete\""), &linked),
                ("linktracer_links_total", labels("edge=\"triple\",outcome=\"broken\""), &broken),
            ] {
                series.insert(format!("{name}{labels}"), column.clone());
            }
        }
        for (name, value) in [
            ("linktracer_build_info{instance=\"a\"}", 1),
            ("linktracer_target_processes{service=\"s\"}", 2),
            ("linktracer_window_trustworthy{service=\"s\"}", 1),
            ("linktracer_lost_events_total{reason=\"ring_full\"}", 0),
            ("linktracer_late_without_outcome_total{kind=\"click\"}", 0),
        ] {
            series.insert(name.to_owned(), vec![Some(value); index(MINUTES)]);
        }
        Self { series }
    }

    /// Exposures, linked and unlinked clicks of a release in the `minutes` before `end`.
    ///
    /// # Panics
    /// The release was not there then.
    pub fn counted(&self, release: &str, end: u64, minutes: u64) -> [u64; 3] {
        let edges = [
            "edge=\"request_exposure\",outcome=\"linked\"",
            "edge=\"triple\",outcome=\"complete\"",
            "edge=\"triple\",outcome=\"broken\"",
        ];
        edges.map(|edge| {
            let name =
                format!("linktracer_links_total{{{edge},service=\"s\",release=\"{release}\",group=\"\"}}");
            let at = |minute: u64| self.series[&name][index(minute)].expect("the release is there");
            at(end) - at(end - minutes)
        })
    }

    /// As a file for `promtool tsdb create-blocks-from openmetrics`, with a sample each `step` minutes.
    pub fn open_metrics(&self, step: u64) -> String {
        let mut text = String::new();
        let mut family = "";
        for (series, column) in &self.series {
            let name = series.split('{').next().unwrap_or_default();
            if name != family {
                let (of, kind) = name.strip_suffix("_total").map_or((name, "gauge"), |of| (of, "counter"));
                writeln!(text, "# TYPE {of} {kind}").expect("in memory");
                family = name;
            }
            for (minute, value) in (0..).zip(column).step_by(index(step)) {
                if let Some(value) = value {
                    writeln!(text, "{series} {value} {}", START_SECONDS + minute * 60).expect("in memory");
                }
            }
        }
        text + "# EOF\n"
    }

    /// As `input_series` of a promtool test with an interval of a minute: `minutes` up to and with `end`, lines indented
    /// by six.
    pub fn input_series(&self, end: u64, minutes: u64) -> String {
        let mut text = String::new();
        for (series, column) in &self.series {
            let part = &column[index(end - minutes)..=index(end)];
            if part.iter().any(Option::is_some) {
                let sample = |value: &Option<u64>| value.map_or("_".to_owned(), |value| value.to_string());
                let values = part.iter().map(sample).collect::<Vec<_>>().join(" ");
                writeln!(text, "      - {{ series: '{series}', values: '{values}' }}").expect("in memory");
            }
        }
        text
    }
}

impl Default for Week {
    fn default() -> Self {
        Self::new()
    }
}

fn index(minute: u64) -> usize {
    usize::try_from(minute).expect("a week has few minutes")
}
