//! What CTR is usual at this hour, and from which value on it is unusually low.
//!
//! Hours of the past days are fitted with a beta-binomial model: the CTR of an hour varies from day to
//! day around the mean of its hour of day, and on top of that its clicks are counted, not known. Both
//! kinds of scatter go into the threshold, so that it is lower for a small sample than for a large one.
//! The plain Beta fit by moments, which takes each hour's CTR as exact, is there for comparison; how
//! often either calls a usual hour unusual is in docs/decisions.md.
//!
//! Where too little is known there is no baseline, and a reason; never a number that is none.

use std::fmt;

use serde::Serialize;
use statrs::function::{beta::beta_reg, erf::erf_inv};

/// Two days.
pub const MIN_HOURS: usize = 48;

/// In all hours together.
pub const MIN_CLICKS: u64 = 500;

/// Of the sample that is judged. With fewer, hardly any number of clicks would be unusually low.
pub const MIN_EXPECTED_CLICKS: f64 = 20.0;

/// Where the two shapes of a beta distribution would be without bound.
const MIN_CORRELATION: f64 = 1e-9;
const MAX_CORRELATION: f64 = 0.99;

/// Samples larger than this are taken as continuous.
const MAX_COUNTED: u64 = 10_000_000;

const HOURS_OF_DAY: usize = 24;
const SECONDS_PER_HOUR: u64 = 3_600;

/// What was counted within one hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hour {
    /// When it began, in seconds since the Unix epoch.
    pub start_seconds: u64,
    /// Exposures.
    pub exposures: u64,
    /// Clicks; more than exposures count as as many.
    pub clicks: u64,
}

/// Which hour of the day (UTC) a time is in.
pub fn hour_of_day(unix_seconds: u64) -> usize {
    (unix_seconds / SECONDS_PER_HOUR % 24) as usize
}

/// How a baseline is fitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Scatter between days and of counting, by hour of day.
    BetaBinomial,
    /// A beta distribution with mean and variance of the hours' CTRs, whatever their size.
    BetaMoments,
}

/// Why there is no baseline.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum NoBaseline {
    /// Fewer than [`MIN_HOURS`] hours had exposures.
    TooFewHours {
        /// How many had.
        hours: usize,
    },
    /// Fewer than [`MIN_CLICKS`] clicks in all of them.
    TooFewClicks {
        /// How many.
        clicks: u64,
    },
    /// Every hour had the same CTR, or it varied as much as it can: no beta distribution does that.
    NoVariance,
    /// The sample to be judged is too small.
    SampleTooSmall {
        /// How many clicks it would usually have.
        expected_clicks: f64,
    },
}

impl fmt::Display for NoBaseline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooFewHours { hours } => {
                write!(f, "{hours} hours with exposures; at least {MIN_HOURS} are needed")
            }
            Self::TooFewClicks { clicks } => {
                write!(f, "{clicks} clicks in all hours; at least {MIN_CLICKS} are needed")
            }
            Self::NoVariance => f.write_str("the hours' CTRs fit no beta distribution"),
            Self::SampleTooSmall { expected_clicks } => write!(
                f,
                "the sample would usually have {expected_clicks:.1} clicks; at least {MIN_EXPECTED_CLICKS} \
                 are needed"
            ),
        }
    }
}

/// A fitted model.
#[derive(Debug, Clone, PartialEq)]
pub struct Baseline {
    hours: usize,
    shape: Shape,
}

#[derive(Debug, Clone, PartialEq)]
enum Shape {
    BetaBinomial {
        /// Mean CTR by hour of day, and the correlation between clicks of one hour: scatter from day to
        /// day, and what is not known of the mean.
        by_hour: Box<[(f64, f64); HOURS_OF_DAY]>,
    },
    BetaMoments {
        a: f64,
        b: f64,
    },
}

impl Baseline {
    /// Fits the hours; those without exposures are left out.
    ///
    /// # Errors
    /// There is too little to fit.
    pub fn fit(hours: &[Hour], method: Method) -> Result<Self, NoBaseline> {
        let usable: Vec<Hour> = hours
            .iter()
            .filter(|hour| hour.exposures > 0)
            .map(|hour| Hour { clicks: hour.clicks.min(hour.exposures), ..*hour })
            .collect();
        let clicks: u64 = usable.iter().map(|hour| hour.clicks).sum();
        if usable.len() < MIN_HOURS {
            return Err(NoBaseline::TooFewHours { hours: usable.len() });
        }
        if clicks < MIN_CLICKS {
            return Err(NoBaseline::TooFewClicks { clicks });
        }
        let shape = match method {
            Method::BetaBinomial => Shape::BetaBinomial { by_hour: Box::new(beta_binomial(&usable)) },
            Method::BetaMoments => beta_moments(&usable)?,
        };
        Ok(Self { hours: usable.len(), shape })
    }

    /// How many hours it was fitted to.
    pub const fn hours(&self) -> usize {
        self.hours
    }

    /// The CTR below which a sample of `exposures` at this hour of the day (0 to 23, UTC) is with
    /// probability `quantile` at most, as long as nothing is unusual.
    ///
    /// # Errors
    /// The sample is too small.
    pub fn quantile(&self, quantile: f64, hour: usize, exposures: u64) -> Result<f64, NoBaseline> {
        match &self.shape {
            Shape::BetaBinomial { by_hour } => {
                let (mean, correlation) = by_hour[hour % HOURS_OF_DAY];
                let expected_clicks = mean * exposures as f64;
                if expected_clicks < MIN_EXPECTED_CLICKS {
                    return Err(NoBaseline::SampleTooSmall { expected_clicks });
                }
                Ok(beta_binomial_quantile(quantile, exposures, mean, correlation))
            }
            Shape::BetaMoments { a, b } => Ok(beta_quantile(quantile, *a, *b)),
        }
    }
}

/// Mean and variance of the CTRs, whatever the sizes of the hours.
fn beta_moments(hours: &[Hour]) -> Result<Shape, NoBaseline> {
    let ratios: Vec<f64> = hours.iter().map(|hour| hour.clicks as f64 / hour.exposures as f64).collect();
    let mean = ratios.iter().sum::<f64>() / ratios.len() as f64;
    let squares: f64 = ratios.iter().map(|ratio| (ratio - mean) * (ratio - mean)).sum();
    let variance = squares / (ratios.len() as f64 - 1.0);
    let total = mean * (1.0 - mean) / variance - 1.0;
    // Equal ratios differ by what their sum is rounded to.
    if variance > mean * mean * 1e-20 && total > 0.0 {
        Ok(Shape::BetaMoments { a: mean * total, b: (1.0 - mean) * total })
    } else {
        Err(NoBaseline::NoVariance)
    }
}

/// What the hours of one hour of the day add up to.
#[derive(Clone, Copy, Default)]
struct OfDay {
    exposures: f64,
    clicks: f64,
    /// Of the squares of exposures.
    squares: f64,
}

fn beta_binomial(hours: &[Hour]) -> [(f64, f64); HOURS_OF_DAY] {
    let mut all = OfDay::default();
    let mut of_day = [OfDay::default(); HOURS_OF_DAY];
    for hour in hours {
        let exposures = hour.exposures as f64;
        for sums in [&mut all, &mut of_day[hour_of_day(hour.start_seconds)]] {
            sums.exposures += exposures;
            sums.clicks += hour.clicks as f64;
            sums.squares += exposures * exposures;
        }
    }
    let overall = within_unit(all.clicks / all.exposures);
    let raw = of_day
        .map(|sums| if sums.exposures > 0.0 { within_unit(sums.clicks / sums.exposures) } else { overall });
    let correlation = correlation(hours, &of_day, &raw);
    // Relative variance of each raw mean, from counting and from day to day.
    let variances: Vec<f64> = of_day
        .iter()
        .map(|sums| {
            let spread = 1.0 + (sums.squares / sums.exposures - 1.0).max(0.0) * correlation;
            (1.0 - overall) / (overall * sums.exposures) * spread
        })
        .collect();
    let seen: Vec<usize> = (0..HOURS_OF_DAY).filter(|&hour| of_day[hour].exposures > 0.0).collect();
    let effect = |hour: usize| raw[hour] / overall - 1.0;
    // How much hours of day really differ: what is left when the scatter of their means is taken away.
    let between: f64 = seen.iter().map(|&hour| effect(hour) * effect(hour) - variances[hour]).sum::<f64>()
        / seen.len() as f64;
    let between = between.max(0.0);
    std::array::from_fn(|hour| {
        // A mean of few samples is drawn towards that of all hours.
        let (weight, unknown) = if of_day[hour].exposures > 0.0 {
            let weight = between / (between + variances[hour]);
            (weight, weight * variances[hour])
        } else {
            (0.0, between)
        };
        let mean = within_unit(overall * (1.0 + weight * effect(hour)));
        let known = correlation + mean / (1.0 - mean) * unknown;
        (mean, known.clamp(MIN_CORRELATION, MAX_CORRELATION))
    })
}

/// How much clicks of one hour go together, by moments: what the squared residuals have beyond counting.
/// Each residual is smaller than it should be by its own part in its mean, which is made up for.
fn correlation(hours: &[Hour], of_day: &[OfDay; HOURS_OF_DAY], means: &[f64; HOURS_OF_DAY]) -> f64 {
    let (mut beyond, mut weight) = (0.0, 0.0);
    for hour in hours {
        let at = hour_of_day(hour.start_seconds);
        let exposures = hour.exposures as f64;
        let residual = hour.clicks as f64 - exposures * means[at];
        let counting = exposures * means[at] * (1.0 - means[at]);
        let own_part = 1.0 - exposures / of_day[at].exposures;
        beyond += residual * residual / counting - own_part;
        weight += own_part * (exposures - 1.0);
    }
    if weight > 0.0 { (beyond / weight).clamp(0.0, MAX_CORRELATION) } else { 0.0 }
}

/// The largest share t / n of which fewer than t clicks come with probability `quantile` at most.
fn beta_binomial_quantile(quantile: f64, exposures: u64, mean: f64, correlation: f64) -> f64 {
    let n = exposures as f64;
    if exposures > MAX_COUNTED {
        let correlation = ((1.0 + (n - 1.0) * correlation) / n).clamp(MIN_CORRELATION, MAX_CORRELATION);
        let total = 1.0 / correlation - 1.0;
        return beta_quantile(quantile, mean * total, (1.0 - mean) * total);
    }
    let total = 1.0 / correlation - 1.0;
    let (a, b) = (mean * total, (1.0 - mean) * total);
    // Weights relative to that of the middle, whose own would be below what a number can hold.
    let middle = (mean * n).floor();
    let step = |k: f64| (n - k) * (k + a) / ((k + 1.0) * (n - k - 1.0 + b));
    let mut above = Vec::new();
    let (mut weight, mut k) = (1.0, middle);
    while k < n && weight > f64::EPSILON * 1e-4 {
        weight *= step(k);
        k += 1.0;
        above.push(weight);
    }
    let mut below = Vec::new();
    (weight, k) = (1.0, middle);
    while k > 0.0 && weight > f64::EPSILON * 1e-4 {
        k -= 1.0;
        weight /= step(k);
        below.push(weight);
    }
    let all: f64 = below.iter().sum::<f64>() + 1.0 + above.iter().sum::<f64>();
    let mut threshold = middle - below.len() as f64;
    let mut fewer = 0.0;
    for weight in below.iter().rev().chain([&1.0]).chain(&above) {
        fewer += weight;
        if fewer > quantile * all {
            break;
        }
        threshold += 1.0;
    }
    threshold / n
}

/// Where a beta distribution has `quantile` below it.
fn beta_quantile(quantile: f64, a: f64, b: f64) -> f64 {
    /// From here on a normal distribution with a correction for the skewness is as good, and series that
    /// converge slowly are not needed.
    const NEARLY_NORMAL: f64 = 200.0;
    let total = a + b;
    let mean = a / total;
    if a.min(b) > NEARLY_NORMAL {
        let z = std::f64::consts::SQRT_2 * erf_inv(2.0 * quantile - 1.0);
        let deviation = (mean * (1.0 - mean) / (total + 1.0)).sqrt();
        let skewness = 2.0 * (b - a) * (total + 1.0).sqrt() / ((total + 2.0) * (a * b).sqrt());
        return (mean + deviation * (z + (z * z - 1.0) * skewness / 6.0)).clamp(0.0, 1.0);
    }
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if beta_reg(a, b, middle) < quantile {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

/// Away from the ends, where no distribution has a shape.
fn within_unit(share: f64) -> f64 {
    share.clamp(1e-9, 1.0 - 1e-9)
}

#[cfg(test)]
mod tests;
