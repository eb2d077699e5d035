//! Evidence that may be looked at again and again.
//!
//! A test that is repeated until it says what one hopes for is wrong far more often than it claims.
//! Here every statement holds at all looks together: with probability 1 - alpha the interval contains
//! the truth at every look from the first click on, whenever one stops.
//!
//! The evidence against a value is the likelihood of what was counted, averaged over a prior around
//! that value, over its likelihood under the value itself (an e-process); the interval is what it does
//! not exclude. Called by [`comparison`](super::comparison).

use statrs::function::beta::ln_beta;

/// The prior on the logarithm of a ratio of rates has about this standard deviation. It costs nothing in
/// validity, and finds differences of about this size soonest.
const PRIOR_DEVIATION: f64 = 0.045;

/// Shares may be near 0 or 1, so the prior on them favours the ends.
const SHARE_PRIOR: f64 = 0.5;

/// Ratios of rates beyond this are not told apart from having no bound.
const MAX_LN_RATIO: f64 = 14.0;

/// Halvings of an interval of at most 28: far below what a count can tell.
const BISECTIONS: usize = 45;

/// What is known of a ratio.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct RatioBounds {
    /// At least this; 0 when nothing bounds it.
    pub(super) low: f64,
    /// At most this; `None` when nothing bounds it.
    pub(super) high: Option<f64>,
}

/// Logarithm of the evidence against "of all clicks, `share` come from the canary": the e-value is above
/// 1 / alpha with probability at most alpha, over all looks. `share` is within 0 and 1, both excluded.
pub(super) fn ln_evidence_against_share(canary_clicks: u64, stable_clicks: u64, share: f64) -> f64 {
    let (canary, stable) = (canary_clicks as f64, stable_clicks as f64);
    let strength = 1.0 / (PRIOR_DEVIATION * PRIOR_DEVIATION);
    // Beta(a, b) has its mean at `share`, and a deviation of the log-odds that does not depend on it.
    let (a, b) = (strength / (1.0 - share), strength / share);
    ln_beta(a + canary, b + stable) - ln_beta(a, b) - canary * share.ln() - stable * (-share).ln_1p()
}

/// Bounds of (canary's clicks per exposure) / (stable's), valid at every look with probability
/// 1 - `alpha`. Exposures are taken as given: each is at least 1.
pub(super) fn rate_ratio(canary: (u64, u64), stable: (u64, u64), alpha: f64) -> RatioBounds {
    let ((canary_clicks, canary_exposures), (stable_clicks, stable_exposures)) = (canary, stable);
    let odds = canary_exposures as f64 / stable_exposures as f64;
    let excluded = |ln_ratio: f64| {
        let odds = odds * ln_ratio.exp();
        let share = (odds / (1.0 + odds)).clamp(f64::MIN_POSITIVE, 1.0 - f64::EPSILON);
        ln_evidence_against_share(canary_clicks, stable_clicks, share) > -alpha.ln()
    };
    // The evidence is least near what was observed and grows on both sides.
    let observed = match (canary_clicks, stable_clicks) {
        (0, 0) => return RatioBounds { low: 0.0, high: None },
        (0, _) => -MAX_LN_RATIO,
        (_, 0) => MAX_LN_RATIO,
        (canary, stable) => (canary as f64 / stable as f64 / odds).ln(),
    };
    let observed = observed.clamp(-MAX_LN_RATIO, MAX_LN_RATIO);
    let low = boundary(observed, -MAX_LN_RATIO, excluded).map_or(0.0, f64::exp);
    let high = boundary(observed, MAX_LN_RATIO, excluded).map(f64::exp);
    RatioBounds { low, high }
}

/// Bounds of a share of which `hits` of `trials` were seen, valid at every look with probability
/// 1 - `alpha`. `hits` is at most `trials`.
pub(super) fn share(hits: u64, trials: u64, alpha: f64) -> (f64, f64) {
    if trials == 0 {
        return (0.0, 1.0);
    }
    let (hits, misses) = (hits as f64, trials.saturating_sub(hits) as f64);
    let average = ln_beta(SHARE_PRIOR + hits, SHARE_PRIOR + misses) - ln_beta(SHARE_PRIOR, SHARE_PRIOR);
    let excluded = |share: f64| {
        // Nothing counted weighs nothing, however unlikely one of it would be.
        let term = |count: f64, ln: f64| if count == 0.0 { 0.0 } else { count * ln };
        average - term(hits, share.ln()) - term(misses, (-share).ln_1p()) > -alpha.ln()
    };
    let observed = hits / (hits + misses);
    (boundary(observed, 0.0, excluded).unwrap_or(0.0), boundary(observed, 1.0, excluded).unwrap_or(1.0))
}

/// Where `excluded` begins between `inside`, which is not, and `end`; `None` when `end` is not either.
fn boundary(inside: f64, end: f64, excluded: impl Fn(f64) -> bool) -> Option<f64> {
    if !excluded(end) {
        return None;
    }
    let (mut inside, mut outside) = (inside, end);
    for _ in 0..BISECTIONS {
        let middle = f64::midpoint(inside, outside);
        if excluded(middle) {
            outside = middle;
        } else {
            inside = middle;
        }
    }
    Some(outside)
}

#[cfg(test)]
mod tests {
    use super::{RatioBounds, ln_evidence_against_share, rate_ratio, share};

    #[test]
    fn without_clicks_nothing_is_known() {
        let nothing = RatioBounds { low: 0.0, high: None };
        assert_eq!(rate_ratio((0, 1), (0, 1), 0.05), nothing);
        assert_eq!(rate_ratio((0, 1_000_000), (0, 1_000_000), 0.05), nothing);
        assert_eq!(ln_evidence_against_share(0, 0, 0.3), 0.0);
        assert_eq!(share(0, 0, 0.05), (0.0, 1.0));
    }

    #[test]
    fn clicks_on_one_side_only_bound_the_ratio_on_one_side_only() {
        let none_of_canary = rate_ratio((0, 10_000), (500, 10_000), 0.05);
        assert_eq!(none_of_canary.low, 0.0);
        assert!(none_of_canary.high.expect("is bounded") < 0.95, "{none_of_canary:?}");
        let none_of_stable = rate_ratio((500, 10_000), (0, 10_000), 0.05);
        assert_eq!(none_of_stable.high, None);
        assert!(none_of_stable.low > 1.05, "{none_of_stable:?}");
    }

    #[test]
    fn the_bounds_lie_around_what_was_observed_for_counts_of_any_size() {
        for clicks in [1, 10, 1_000, 1_000_000, 1_000_000_000_000] {
            let bounds = rate_ratio((clicks, 20 * clicks), (clicks, 20 * clicks), 0.05);
            let high = bounds.high.unwrap_or(f64::INFINITY);
            assert!(bounds.low < 1.0 && high > 1.0, "{clicks}: {bounds:?}");
            let (low, high) = share(clicks, 20 * clicks, 0.05);
            assert!(low < 0.05 && high > 0.05, "{clicks}: {low} {high}");
        }
        let narrow = rate_ratio((1_000_000, 20_000_000), (1_000_000, 20_000_000), 0.05);
        assert!(narrow.low > 0.99 && narrow.high.is_some_and(|high| high < 1.01), "{narrow:?}");
    }

    #[test]
    fn the_bounds_do_not_depend_on_which_release_is_called_the_canary() {
        let (a, b) = ((480, 10_000), (5_200, 100_000));
        let (one, other) = (rate_ratio(a, b, 0.05), rate_ratio(b, a, 0.05));
        let product = one.low * other.high.expect("is bounded");
        assert!((product - 1.0).abs() < 1e-9, "{one:?} {other:?}");
    }

    #[test]
    fn a_share_of_nothing_and_of_everything_keeps_its_end() {
        let (low, high) = share(0, 1_000, 0.05);
        assert!(low == 0.0 && high > 0.0 && high < 0.02, "{low} {high}");
        let (low, high) = share(1_000, 1_000, 0.05);
        assert!(high == 1.0 && low < 1.0 && low > 0.98, "{low} {high}");
    }
}
