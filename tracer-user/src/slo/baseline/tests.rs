//! Edge cases and known values. How often a usual hour is called unusual is measured by
//! tests/tests/simulations.rs.

use super::{Baseline, Hour, Method, NoBaseline, beta_binomial_quantile, beta_quantile, hour_of_day};

/// A week in which each hour has `exposures`, and the CTR that `ctr` gives for day and hour of day.
fn week(exposures: u64, ctr: impl Fn(u64, u64) -> f64) -> Vec<Hour> {
    (0..168)
        .map(|hour| Hour {
            start_seconds: hour * 3_600,
            exposures,
            clicks: part(exposures, ctr(hour / 24, hour % 24)),
        })
        .collect()
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of a count is one")]
fn part(of: u64, share: f64) -> u64 {
    (of as f64 * share).round() as u64
}

#[test]
fn too_little_is_no_baseline() {
    let week = week(1_000, |_, _| 0.05);
    for method in [Method::BetaBinomial, Method::BetaMoments] {
        assert_eq!(Baseline::fit(&[], method), Err(NoBaseline::TooFewHours { hours: 0 }));
        assert_eq!(Baseline::fit(&week[..47], method), Err(NoBaseline::TooFewHours { hours: 47 }));
        let empty: Vec<Hour> = week.iter().map(|hour| Hour { exposures: 0, ..*hour }).collect();
        assert_eq!(Baseline::fit(&empty, method), Err(NoBaseline::TooFewHours { hours: 0 }));
        let unclicked: Vec<Hour> = week.iter().map(|hour| Hour { clicks: 0, ..*hour }).collect();
        assert_eq!(Baseline::fit(&unclicked, method), Err(NoBaseline::TooFewClicks { clicks: 0 }));
    }
    assert_eq!(Baseline::fit(&week, Method::BetaMoments), Err(NoBaseline::NoVariance));
    let baseline = Baseline::fit(&week, Method::BetaBinomial).expect("is enough");
    let too_small = NoBaseline::SampleTooSmall { expected_clicks: 0.0 };
    assert_eq!(baseline.quantile(0.05, 0, 0), Err(too_small));
    assert!(baseline.quantile(0.05, 0, 399).is_err());
    assert!(baseline.quantile(0.05, 0, 400).is_ok());
}

#[test]
fn the_threshold_follows_the_hour_of_day_and_the_size_of_the_sample() {
    let hours = week(100_000, |day, hour| if hour < 8 { 0.03 } else { 0.06 } + 0.0003 * day as f64);
    let baseline = Baseline::fit(&hours, Method::BetaBinomial).expect("is enough");
    let threshold = |hour, exposures| baseline.quantile(0.05, hour, exposures).expect("is enough");
    assert!((0.028..0.032).contains(&threshold(3, 100_000)), "{}", threshold(3, 100_000));
    assert!((0.058..0.062).contains(&threshold(12, 100_000)), "{}", threshold(12, 100_000));
    assert!(threshold(12, 1_000) < threshold(12, 10_000) && threshold(12, 10_000) < threshold(12, 1_000_000));
    let median = baseline.quantile(0.5, 12, 1_000_000).expect("is enough");
    assert!((median - 0.0609).abs() < 0.0003, "{median}");
}

#[test]
fn any_sample_and_any_hours_give_a_number_within_0_and_1() {
    let full: Vec<Hour> = week(1_000, |_, _| 1.0);
    let more_clicks_than_exposures =
        full.iter().map(|hour| Hour { clicks: 5_000, ..*hour }).collect::<Vec<_>>();
    let one_a_day = week(10_000, |_, hour| if hour == 5 { 0.9 } else { 0.0 });
    let huge = week(1 << 50, |day, _| 0.01 * (day + 1) as f64);
    for hours in [full, more_clicks_than_exposures, one_a_day, huge] {
        let baseline = Baseline::fit(&hours, Method::BetaBinomial).expect("is enough");
        for hour in 0..24 {
            for exposures in [1, 1_000, 1_000_000, 10_000_001, 1 << 60] {
                if let Ok(threshold) = baseline.quantile(0.05, hour, exposures) {
                    assert!((0.0..=1.0).contains(&threshold), "{hour} {exposures} {threshold}");
                }
            }
        }
    }
}

#[test]
fn quantiles_of_the_beta_binomial_are_those_of_its_definition() {
    // Beta(1, 1) makes every number of clicks equally probable: correlation 1/3.
    for (quantile, expected) in [(0.05, 0.0), (0.1, 1.0), (0.5, 5.0), (0.95, 10.0)] {
        assert_eq!(beta_binomial_quantile(quantile, 10, 0.5, 1.0 / 3.0) * 10.0, expected, "{quantile}");
    }
    // Without correlation it is the binomial: of 100 at 0.5, 41 or fewer come with probability 0.0443.
    assert_eq!(beta_binomial_quantile(0.05, 100, 0.5, 1e-9) * 100.0, 42.0);
    // Both ways to a quantile of the beta distribution agree where one gives way to the other, but for a thousandth of the
    // standard deviation, which is what the next term of the expansion would add.
    let (series, normal) = (beta_quantile(0.05, 200.0, 3_800.0), beta_quantile(0.05, 200.01, 3_800.19));
    let deviation = (0.05 * 0.95 / 4_001.0_f64).sqrt();
    assert!((series - normal).abs() < deviation / 1_000.0, "{series} {normal} {deviation}");
    assert!((beta_quantile(0.25, 1.0, 1.0) - 0.25).abs() < 1e-12);
    // Beyond what is counted through, it goes on as before.
    let (counted, continuous) = (
        beta_binomial_quantile(0.05, 10_000_000, 0.05, 1e-5),
        beta_binomial_quantile(0.05, 10_000_001, 0.05, 1e-5),
    );
    assert!((counted - continuous).abs() < 1e-6, "{counted} {continuous}");
}

#[test]
fn hours_of_day_are_those_of_utc() {
    assert_eq!([0, 3_599, 3_600, 86_399, 86_400].map(hour_of_day), [0, 0, 1, 23, 0]);
}
