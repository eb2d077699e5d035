//! Two releases side by side: did users click less, did links break, or was nothing shown?
//!
//! CTR as a service measures it is that of linked clicks: clicks per exposure (the *click rate*) times
//! the share of clicks whose chain of links is whole (the *linked share*). The tracer counts clicks
//! whether or not they are linked, so the two factors can be told apart. Neither says anything of requests that
//! nothing was shown for: where tracking does not run at all, both exposures and clicks are missing, and what is left
//! looks as it did. So the share of requests that something was shown for is compared as well.
//!
//! What is taken for granted, and [`doubt`](super::doubt) looks after: unlinked clicks are still seen,
//! both releases are captured alike, and both ran side by side for longer than a click may take.
//! Exposures of one user are taken as independent.

use serde::Serialize;

use super::{anytime, repeats::Repeats};

/// What was counted of one release. Duplicates are in none of it but in `repeats`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Arm {
    /// Requests of which it is known whether something was shown for them; without an id, it is not.
    pub requests: u64,
    /// Those that something was shown for.
    pub exposed: u64,
    /// Exposures, those without an id included.
    pub exposures: u64,
    /// Clicks, linked or not.
    pub clicks: u64,
    /// Clicks whose whole chain of links is there.
    pub linked: u64,
    /// Clicks of whose chain a link is broken. With `linked` at most all clicks; the rest is unseen.
    pub broken: u64,
    /// Exposures that reach back beyond the coverage horizon.
    pub unseen_exposures: u64,
    /// What of it repeats.
    pub repeats: Repeats,
}

impl Arm {
    /// Share of requests that something was shown for; `None` without requests.
    pub fn exposed_share(&self) -> Option<f64> {
        quotient(self.exposed, self.requests)
    }

    /// Clicks per exposure; `None` without exposures.
    pub fn click_rate(&self) -> Option<f64> {
        quotient(self.clicks, self.exposures)
    }

    /// Share of clicks that are linked, among those of which it is known; `None` without any.
    pub fn linked_share(&self) -> Option<f64> {
        quotient(self.linked, self.linked.saturating_add(self.broken))
    }

    /// Linked clicks per exposure, what a service's own tracking would call CTR.
    pub fn linked_ctr(&self) -> Option<f64> {
        Some(self.click_rate()? * self.linked_share().unwrap_or(0.0))
    }
}

fn quotient(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// A number with its 95 % confidence interval, for one look.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    /// The best guess.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Estimate {
    fn around(value: f64, variance: f64) -> Self {
        /// Of the normal distribution, for 95 % in the middle.
        const Z: f64 = 1.959_963_984_540_054;
        let half = Z * variance.max(0.0).sqrt();
        Self { value, low: value - half, high: value + half }
    }
}

/// The change of linked CTR from stable to canary; `links_broke` + `clicked_less` = `total`. Negative
/// means that the canary has less.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Split {
    /// Linked CTR of the canary minus that of the stable release.
    pub total: Estimate,
    /// What of it is there because the linked share differs.
    pub links_broke: Estimate,
    /// What of it is there because users click more or less often.
    pub clicked_less: Estimate,
}

/// Splits the change of linked CTR; `None` when one release has no exposures.
///
/// Where nothing is known of the linked share of one release, that of the other is taken.
pub fn split(stable: &Arm, canary: &Arm) -> Option<Split> {
    let rates = (stable.click_rate()?, canary.click_rate()?);
    let shares = match (stable.linked_share(), canary.linked_share()) {
        (Some(stable), Some(canary)) => (stable, canary),
        (Some(known), None) | (None, Some(known)) => (known, known),
        (None, None) => (1.0, 1.0),
    };
    let rate_variances = (rate_variance(stable), rate_variance(canary));
    let share_variances = (share_variance(stable), share_variance(canary));
    let mean = |pair: (f64, f64)| f64::midpoint(pair.0, pair.1);
    let change = |pair: (f64, f64)| pair.1 - pair.0;
    let sum = |pair: (f64, f64)| pair.0 + pair.1;
    // A product of two independent factors, to the second order. The mean has a quarter of the sum.
    let product = |factor: f64, its_variance: f64, other: f64, its: f64| {
        Estimate::around(
            factor * other,
            factor * factor * its + other * other * its_variance + its_variance * its,
        )
    };
    let linked = |rate: f64, share: f64, rate_variance: f64, share_variance: f64| {
        share * share * rate_variance + rate * rate * share_variance + rate_variance * share_variance
    };
    let links_broke = product(mean(rates), sum(rate_variances) / 4.0, change(shares), sum(share_variances));
    let clicked_less = product(mean(shares), sum(share_variances) / 4.0, change(rates), sum(rate_variances));
    let total = Estimate::around(
        rates.1 * shares.1 - rates.0 * shares.0,
        linked(rates.0, shares.0, rate_variances.0, share_variances.0)
            + linked(rates.1, shares.1, rate_variances.1, share_variances.1),
    );
    Some(Split { total, links_broke, clicked_less })
}

/// Variance of the click rate, with one click and one other exposure added (after Agresti and Caffo), so
/// that no clicks at all are not taken for certainty.
fn rate_variance(arm: &Arm) -> f64 {
    let trials = arm.exposures as f64 + 2.0;
    let rate = (arm.clicks as f64 + 1.0) / trials;
    // Clicks without an id are not told apart from their repetitions, so there can be more than exposures.
    let spread = if arm.clicks > arm.exposures { 1.0 } else { 1.0 - rate };
    rate * spread / trials
}

fn share_variance(arm: &Arm) -> f64 {
    let trials = arm.linked as f64 + arm.broken as f64 + 2.0;
    let share = (arm.linked as f64 + 1.0) / trials;
    share * (1.0 - share) / trials
}

/// What a comparison aims for.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Aim {
    /// Probability of a wrong verdict, over all looks together; within 0 and 1.
    pub alpha: f64,
    /// The relative loss that does not matter: a release that loses less is healthy.
    pub margin: f64,
}

impl Default for Aim {
    fn default() -> Self {
        Self { alpha: 0.05, margin: 0.023 }
    }
}

/// What is certain enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The canary loses less than the margin.
    Healthy,
    /// The canary loses something, and it may be more than the margin.
    Worse,
    /// Too little was counted to say either.
    Undecided,
}

/// What is known of one of the factors, at every look.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Finding {
    /// What follows.
    pub verdict: Verdict,
    /// Lower bound of the canary's relative change (-0.023: it loses 2.3 %); -1 is "all of it".
    pub change_low: f64,
    /// Upper bound; `None` when nothing bounds it.
    pub change_high: Option<f64>,
}

impl Finding {
    fn new(change_low: f64, change_high: Option<f64>, margin: f64) -> Self {
        let verdict = if change_low > -margin {
            Verdict::Healthy
        } else if change_high.is_some_and(|high| high < 0.0) {
            Verdict::Worse
        } else {
            Verdict::Undecided
        };
        Self { verdict, change_low, change_high }
    }
}

/// What two releases differ in.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Comparison {
    /// Of all findings together: worse when one is, healthy when all are.
    pub verdict: Verdict,
    /// Share of requests that something was shown for, as a relative change; `None` where one release has no requests,
    /// because another process makes them, say.
    pub showing: Option<Finding>,
    /// Clicks per exposure, as a relative change.
    pub clicking: Finding,
    /// Linked share of clicks, as a difference of shares.
    pub linking: Finding,
    /// The change of linked CTR and its two parts; `None` without exposures on both sides.
    pub split: Option<Split>,
}

/// Findings that alpha is shared by.
const FINDINGS: f64 = 3.0;

/// Compares two releases. Each of the three findings has its part of alpha, so that the overall verdict is wrong with
/// probability alpha at most.
pub fn compare(stable: &Arm, canary: &Arm, aim: Aim) -> Comparison {
    let alpha = aim.alpha / FINDINGS;
    let showing = showing(stable, canary, alpha, aim.margin);
    let clicking = if stable.exposures == 0 || canary.exposures == 0 {
        Finding::new(-1.0, None, aim.margin)
    } else {
        let bounds =
            anytime::rate_ratio((canary.clicks, canary.exposures), (stable.clicks, stable.exposures), alpha);
        Finding::new(bounds.low - 1.0, bounds.high.map(|high| high - 1.0), aim.margin)
    };
    let broken_share =
        |arm: &Arm| anytime::share(arm.broken, arm.linked.saturating_add(arm.broken), alpha / 2.0);
    let (of_stable, of_canary) = (broken_share(stable), broken_share(canary));
    // The linked share falls by what the broken share rises.
    let linking = Finding::new(of_stable.0 - of_canary.1, Some(of_stable.1 - of_canary.0), aim.margin);
    let verdicts = [clicking, linking].into_iter().chain(showing).map(|finding| finding.verdict);
    let verdict = if verdicts.clone().any(|verdict| verdict == Verdict::Worse) {
        Verdict::Worse
    } else if verdicts.clone().all(|verdict| verdict == Verdict::Healthy) {
        Verdict::Healthy
    } else {
        Verdict::Undecided
    };
    Comparison { verdict, showing, clicking, linking, split: split(stable, canary) }
}

/// Relative, because of some services' requests few are for something to be shown.
fn showing(stable: &Arm, canary: &Arm, alpha: f64, margin: f64) -> Option<Finding> {
    if stable.requests == 0 || canary.requests == 0 {
        return None;
    }
    let exposed_share = |arm: &Arm| anytime::share(arm.exposed, arm.requests, alpha / 2.0);
    let (of_stable, of_canary) = (exposed_share(stable), exposed_share(canary));
    let high = (of_stable.0 > 0.0).then(|| of_canary.1 / of_stable.0 - 1.0);
    // The upper end of a share of anything is above 0.
    Some(Finding::new(of_canary.0 / of_stable.1 - 1.0, high.filter(|high| high.is_finite()), margin))
}

#[cfg(test)]
mod tests;
