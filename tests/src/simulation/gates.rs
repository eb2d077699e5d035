//! Canary gates: how often does each roll back a release, healthy or not?
//!
//! The gates of deploy/argo are followed measurement by measurement, as their queries and limits say; their thresholds
//! are read from the templates.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use tracer_user::prometheus_api::whole;

use super::{Rate, binomial, chance};
use crate::templates;

/// Minutes of one slice of traffic: the least common step of windows and measurements.
const SLICE_MINUTES: usize = 5;
const SLICES_PER_WINDOW: usize = 15 / SLICE_MINUTES;
const SLICES_PER_HOUR: usize = 60 / SLICE_MINUTES;

/// Six hours: 24 windows of 15 minutes.
pub const WINDOWS: usize = 24;

/// A rule that rolls releases back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// CTR off by more than 2.3 %, up or down, in three windows in a row, whatever their size.
    Plain,
    /// deploy/argo/self-healing.yaml
    SelfHealing,
    /// deploy/argo/dual-threshold.yaml
    DualThreshold,
}

/// Two releases side by side.
#[derive(Debug, Clone, Copy)]
pub struct Traffic {
    /// Of each release, in 15 minutes.
    pub exposures: u64,
    /// Of the stable release.
    pub ctr: f64,
    /// Of the canary, relative: 0.023 is 2.3 % fewer clicks.
    pub loss: f64,
}

/// How often a gate rolled back, and how often it never could say anything.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ended {
    /// The release was rolled back.
    pub rolled_back: Rate,
    /// No measurement had a result.
    pub silent: Rate,
}

/// Rolls out `repetitions` times, for [`WINDOWS`] windows each.
pub fn roll_out(gate: Gate, traffic: Traffic, repetitions: u64, seed: u64) -> Ended {
    let thresholds = Thresholds::read();
    let mut random = chance(seed);
    let mut ended = Ended::default();
    for _ in 0..repetitions {
        let clicks = [traffic.ctr, traffic.ctr * (1.0 - traffic.loss)]
            .map(|ctr| slices(&mut random, traffic.exposures, ctr));
        let results = match gate {
            Gate::Plain => plain(&clicks),
            Gate::SelfHealing => self_healing(&clicks, &thresholds),
            Gate::DualThreshold => dual_threshold(&clicks, &thresholds),
        };
        let failures = results.iter().filter(|result| **result == Some(true)).count() as u64;
        let limit = if gate == Gate::DualThreshold { thresholds.dual_failure_limit } else { 0 };
        ended.rolled_back.count(failures > limit);
        ended.silent.count(results.iter().all(Option::is_none));
    }
    ended
}

struct Thresholds {
    least_ratio: f64,
    window_clicks: u64,
    most_deficit: f64,
    hour_clicks: u64,
    dual_failure_limit: u64,
}

impl Thresholds {
    fn read() -> Self {
        let number = |arguments: &BTreeMap<String, String>, name: &str| -> f64 {
            arguments[name].parse().expect("the default value is a number")
        };
        let self_healing = templates::read("self-healing.yaml");
        let dual = templates::read("dual-threshold.yaml");
        let (of_self, of_dual) = (templates::defaults(&self_healing), templates::defaults(&dual));
        Self {
            least_ratio: number(&of_self, "least-ratio"),
            window_clicks: whole(number(&of_self, "least-clicks")),
            most_deficit: number(&of_dual, "most-deficit"),
            hour_clicks: whole(number(&of_dual, "least-clicks")),
            dual_failure_limit: dual.metrics[0].settings["failureLimit"].text.parse().expect("is a number"),
        }
    }
}

/// Clicks of each slice.
fn slices(random: &mut StdRng, exposures_per_window: u64, ctr: f64) -> Vec<u64> {
    let exposures = exposures_per_window / SLICES_PER_WINDOW as u64;
    (0..WINDOWS * SLICES_PER_WINDOW).map(|_| binomial(random, exposures, ctr)).collect()
}

/// Clicks of both releases over the slices before `end`.
fn before(clicks: &[Vec<u64>; 2], end: usize, length: usize) -> [u64; 2] {
    [0, 1].map(|release| clicks[release][end - length..end].iter().sum())
}

/// Both show the same number of exposures, so the ratio of CTRs is that of clicks.
fn ratio([stable, canary]: [u64; 2]) -> f64 {
    canary as f64 / stable as f64
}

fn standard_error([stable, canary]: [u64; 2]) -> f64 {
    (1.0 / stable as f64 + 1.0 / canary as f64).sqrt()
}

fn whole_windows(clicks: &[Vec<u64>; 2]) -> Vec<[u64; 2]> {
    (1..=WINDOWS).map(|window| before(clicks, window * SLICES_PER_WINDOW, SLICES_PER_WINDOW)).collect()
}

fn plain(clicks: &[Vec<u64>; 2]) -> Vec<Option<bool>> {
    let off = |window: &[u64; 2]| (ratio(*window) - 1.0).abs() > 0.023;
    whole_windows(clicks).windows(3).map(|three| Some(three.iter().all(off))).collect()
}

fn self_healing(clicks: &[Vec<u64>; 2], thresholds: &Thresholds) -> Vec<Option<bool>> {
    let judged = |window: &[u64; 2]| window.iter().all(|clicks| *clicks >= thresholds.window_clicks);
    let low = |window: &[u64; 2]| ratio(*window) < thresholds.least_ratio + standard_error(*window);
    let windows = whole_windows(clicks);
    windows.windows(3).map(|three| three.iter().all(judged).then(|| three.iter().all(low))).collect()
}

fn dual_threshold(clicks: &[Vec<u64>; 2], thresholds: &Thresholds) -> Vec<Option<bool>> {
    let half = SLICES_PER_HOUR / 2;
    (SLICES_PER_HOUR + half..=WINDOWS * SLICES_PER_WINDOW)
        .map(|end| {
            let now = before(clicks, end, SLICES_PER_HOUR);
            let earlier = before(clicks, end - half, SLICES_PER_HOUR);
            let deficit = 1.0 - ratio(now);
            let judged = now.iter().all(|clicks| *clicks >= thresholds.hour_clicks);
            let low = deficit > thresholds.most_deficit && deficit > 3.0 * standard_error(now);
            judged.then_some(low && deficit > 0.75 * (1.0 - ratio(earlier)))
        })
        .collect()
}
