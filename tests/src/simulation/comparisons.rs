//! `slo::comparison`: do 95 % intervals contain the truth in 95 % of cases, and how often is a verdict wrong that is
//! asked for again and again?

use rand::rngs::StdRng;
use tracer_user::slo::comparison::{Aim, Arm, Verdict, compare, split};

use super::{Rate, binomial, chance};

/// What a release does.
#[derive(Debug, Clone, Copy)]
pub struct Release {
    /// Clicks per exposure.
    pub click_rate: f64,
    /// Share of clicks whose links are whole.
    pub linked_share: f64,
}

/// What is measured with, in every case.
pub const STABLE: Release = Release { click_rate: 0.05, linked_share: 0.995 };

/// Counts `exposures` more of a release.
fn show(random: &mut StdRng, arm: &mut Arm, release: Release, exposures: u64) {
    let clicks = binomial(random, exposures, release.click_rate);
    let linked = binomial(random, clicks, release.linked_share);
    arm.exposures += exposures;
    arm.clicks += clicks;
    arm.linked += linked;
    arm.broken += clicks - linked;
}

/// How often the intervals of the whole change, of broken links and of fewer clicks contain the truth.
pub fn coverage(stable: Release, canary: Release, exposures: u64, repetitions: u64, seed: u64) -> [Rate; 3] {
    let mut random = chance(seed);
    let mut rates = [Rate::default(); 3];
    let mean = |a: f64, b: f64| f64::midpoint(a, b);
    let broke = mean(stable.click_rate, canary.click_rate) * (canary.linked_share - stable.linked_share);
    let less = mean(stable.linked_share, canary.linked_share) * (canary.click_rate - stable.click_rate);
    for _ in 0..repetitions {
        let (mut a, mut b) = (Arm::default(), Arm::default());
        show(&mut random, &mut a, stable, exposures);
        show(&mut random, &mut b, canary, exposures);
        let Some(split) = split(&a, &b) else { continue };
        let estimates = [split.total, split.links_broke, split.clicked_less];
        for ((rate, estimate), truth) in rates.iter_mut().zip(estimates).zip([broke + less, broke, less]) {
            rate.count(estimate.low <= truth && truth <= estimate.high);
        }
    }
    rates
}

/// How often each verdict was ever given, over `looks` looks at a window that grows by `exposures` per release each time.
#[derive(Debug, Clone, Copy, Default)]
pub struct EverSaid {
    /// At any look.
    pub worse: Rate,
    /// At any look.
    pub healthy: Rate,
}

/// Compares as `linktracer compare` does, at every look.
pub fn ever_said(canary: Release, exposures: u64, looks: u64, repetitions: u64, seed: u64) -> EverSaid {
    let mut random = chance(seed);
    let mut said = EverSaid::default();
    for _ in 0..repetitions {
        let (mut a, mut b) = (Arm::default(), Arm::default());
        let (mut worse, mut healthy) = (false, false);
        for _ in 0..looks {
            show(&mut random, &mut a, STABLE, exposures);
            show(&mut random, &mut b, canary, exposures);
            match compare(&a, &b, Aim::default()).verdict {
                Verdict::Worse => worse = true,
                Verdict::Healthy => healthy = true,
                Verdict::Undecided => {}
            }
        }
        said.worse.count(worse);
        said.healthy.count(healthy);
    }
    said
}

/// How often a z-test at 5 % says that clicks per exposure differ, at any of the looks.
pub fn z_test_ever_differs(canary: Release, exposures: u64, looks: u64, repetitions: u64, seed: u64) -> Rate {
    const Z: f64 = 1.959_963_984_540_054;
    let mut random = chance(seed);
    let mut rate = Rate::default();
    for _ in 0..repetitions {
        let (mut a, mut b) = (Arm::default(), Arm::default());
        let mut differs = false;
        for _ in 0..looks {
            show(&mut random, &mut a, STABLE, exposures);
            show(&mut random, &mut b, canary, exposures);
            let (n, x, y) = (a.exposures as f64, a.clicks as f64, b.clicks as f64);
            let pooled = (x + y) / (2.0 * n);
            differs |= (x - y).abs() / n > Z * (pooled * (1.0 - pooled) * 2.0 / n).sqrt();
        }
        rate.count(differs);
    }
    rate
}
