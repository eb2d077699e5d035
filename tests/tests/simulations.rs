//! What docs/decisions.md says of intervals, verdicts, baselines and gates, with fewer repetitions. `cargo xtask simulate`
//! has the tables.

use tests::simulation::{
    Rate,
    baselines::{Service, false_alarms},
    comparisons::{Release, STABLE, coverage, ever_said},
    gates::{Gate, Traffic, roll_out},
};
use tracer_user::slo::baseline::Method;

const SEED: u64 = 7;

#[track_caller]
fn within(rate: Rate, low: f64, high: f64) {
    assert!((low..=high).contains(&rate.share()), "{rate} ({} of {})", rate.hits, rate.of);
}

#[test]
fn intervals_contain_the_truth_in_19_of_20_cases() {
    let canaries = [
        STABLE,
        Release { linked_share: STABLE.linked_share - 0.023, ..STABLE },
        Release { click_rate: STABLE.click_rate * 0.977, ..STABLE },
    ];
    for canary in canaries {
        for exposures in [20_000, 500_000] {
            // 0.95, and four standard deviations of 4,000 repetitions below; more is as good.
            for rate in coverage(STABLE, canary, exposures, 4_000, SEED) {
                within(rate, 0.936, 1.0);
            }
        }
    }
}

#[test]
fn a_verdict_asked_for_40_times_is_wrong_in_one_of_20_cases_at_most() {
    let healthy = ever_said(STABLE, 100_000, 40, 100, SEED);
    within(healthy.worse, 0.0, 0.05);
    within(healthy.healthy, 0.95, 1.0);
    let broken =
        ever_said(Release { linked_share: STABLE.linked_share - 0.023, ..STABLE }, 100_000, 40, 100, SEED);
    within(broken.worse, 0.95, 1.0);
    within(broken.healthy, 0.0, 0.05);
    let drop = ever_said(Release { click_rate: STABLE.click_rate * 0.977, ..STABLE }, 100_000, 40, 100, SEED);
    within(drop.worse, 0.95, 1.0);
    within(drop.healthy, 0.0, 0.05);
}

#[test]
fn the_baseline_calls_one_usual_hour_in_20_unusual() {
    let service = Service { least: 1_000, most: 100_000 };
    let [all, quiet, busy] = false_alarms(service, Method::BetaBinomial, 2_000, SEED);
    within(all, 0.03, 0.065);
    within(quiet, 0.02, 0.08);
    within(busy, 0.02, 0.08);
}

#[test]
fn the_gates_spare_a_healthy_release_and_stop_one_that_loses_clicks() {
    let traffic = |exposures, loss| Traffic { exposures, ctr: 0.05, loss };
    let plain = roll_out(Gate::Plain, traffic(10_000, 0.0), 500, SEED);
    within(plain.rolled_back, 0.98, 1.0);
    for gate in [Gate::SelfHealing, Gate::DualThreshold] {
        let small = roll_out(gate, traffic(10_000, 0.0), 500, SEED);
        assert_eq!((small.rolled_back.hits, small.silent.share()), (0, 1.0), "{gate:?}");
        let healthy = roll_out(gate, traffic(1_000_000, 0.0), 500, SEED);
        within(healthy.rolled_back, 0.0, 0.01);
        let drop = roll_out(gate, traffic(1_000_000, 0.023), 500, SEED);
        within(drop.rolled_back, 0.9, 1.0);
    }
}
