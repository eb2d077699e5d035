//! Hours of the past, and the sample to judge, asked of a Prometheus server.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Result;

use super::BaselineArgs;
use crate::{
    prometheus_api::{Prometheus, Range, quoted, whole},
    slo::{
        baseline::{Hour, hour_of_day},
        doubt::MAX_LOST_SHARE,
    },
};

const HOUR: Duration = Duration::from_secs(3_600);

pub(super) struct Gathered {
    pub(super) hours: Vec<Hour>,
    /// Hours in which too much was lost.
    pub(super) left_out: usize,
    pub(super) exposures: u64,
    pub(super) clicks: u64,
    /// Of the middle of the sample.
    pub(super) hour_of_day: usize,
}

pub(super) fn gather(args: &BaselineArgs, server: &Prometheus, at: SystemTime) -> Result<Gathered> {
    let sample_start = unix_seconds(at).saturating_sub(args.window.as_secs());
    // Whole hours that ended before the sample began.
    let last_end = sample_start / HOUR.as_secs() * HOUR.as_secs();
    let first_end = last_end.saturating_sub(args.history.as_secs()) + HOUR.as_secs();
    let range = Range {
        start: UNIX_EPOCH + Duration::from_secs(first_end),
        end: UNIX_EPOCH + Duration::from_secs(last_end),
        step: HOUR,
    };
    // By the second at which the hour ended; absent where there was nothing.
    let hourly = |query: String| {
        let series = server.range(&format!("sum({query})"), range)?;
        let points = series.iter().flat_map(|series| &series.points);
        Ok::<BTreeMap<u64, u64>, anyhow::Error>(
            points.map(|(end, count)| (whole(*end), whole(*count))).collect(),
        )
    };
    let exposures = hourly(increase(args, "request_exposure", HOUR))?;
    let clicks = hourly(increase(args, "exposure_click", HOUR))?;
    let events = hourly("increase(linktracer_events_total[1h])".to_owned())?;
    let lost = hourly("increase(linktracer_lost_events_total[1h])".to_owned())?;
    let at_end = |counts: &BTreeMap<u64, u64>, end: u64| counts.get(&end).copied().unwrap_or(0);
    let is_whole = |end: u64| at_end(&lost, end) as f64 <= MAX_LOST_SHARE * at_end(&events, end) as f64;
    let hours: Vec<Hour> = exposures
        .iter()
        .filter(|(end, _)| is_whole(**end))
        .map(|(end, exposures)| Hour {
            start_seconds: end - HOUR.as_secs(),
            exposures: *exposures,
            clicks: at_end(&clicks, *end),
        })
        .collect();
    let sample =
        |edge: &str| Ok::<u64, anyhow::Error>(whole(server.sum(&increase(args, edge, args.window), at)?));
    Ok(Gathered {
        left_out: exposures.len() - hours.len(),
        hours,
        exposures: sample("request_exposure")?,
        clicks: sample("exposure_click")?,
        hour_of_day: hour_of_day(sample_start + args.window.as_secs() / 2),
    })
}

fn increase(args: &BaselineArgs, edge: &str, over: Duration) -> String {
    format!(
        "increase(linktracer_links_total{{edge=\"{edge}\",service={}}}[{}s])",
        quoted(&args.service),
        over.as_secs().max(1)
    )
}

fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
