//! Edge cases, and what the three kinds of release look like. How often intervals and verdicts are right
//! is measured by tests/tests/simulations.rs.

use super::{Aim, Arm, Comparison, Verdict, compare, split};

/// A release with this share of broken clicks.
fn release(exposures: u64, click_rate: f64, broken_share: f64) -> Arm {
    let clicks = part(exposures, click_rate);
    let broken = part(clicks, broken_share);
    Arm { exposures, clicks, linked: clicks - broken, broken, ..Arm::default() }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of a count is one")]
fn part(of: u64, share: f64) -> u64 {
    (of as f64 * share).round() as u64
}

fn numbers(comparison: &Comparison) -> Vec<f64> {
    let findings = [comparison.clicking, comparison.linking].into_iter().chain(comparison.showing);
    let mut numbers: Vec<f64> =
        findings.flat_map(|finding| [Some(finding.change_low), finding.change_high]).flatten().collect();
    if let Some(split) = comparison.split {
        for estimate in [split.total, split.links_broke, split.clicked_less] {
            numbers.extend([estimate.value, estimate.low, estimate.high]);
        }
    }
    numbers
}

#[test]
fn the_two_parts_add_up_to_the_whole_change() {
    for (stable, canary) in [
        (release(500_000, 0.05, 0.005), release(400_000, 0.048, 0.03)),
        (release(10, 0.3, 0.5), release(1_000_000, 0.9, 0.0)),
        (release(1_000, 0.05, 0.0), release(1_000, 0.0, 0.0)),
        (release(1_000, 0.0, 0.0), release(1_000, 0.0, 0.0)),
    ] {
        let split = split(&stable, &canary).expect("both have exposures");
        let sum = split.links_broke.value + split.clicked_less.value;
        assert!((sum - split.total.value).abs() < 1e-15, "{split:?}");
        let measured =
            canary.linked_ctr().expect("has exposures") - stable.linked_ctr().expect("has exposures");
        assert!((measured - split.total.value).abs() < 1e-15, "{split:?}");
    }
}

#[test]
fn no_count_makes_a_number_that_is_not_one() {
    let sizes = [0, 1, 2, 50, 1_000_000, u64::from(u32::MAX), 1 << 60];
    for exposures in sizes {
        for clicks in sizes {
            for broken in [0, clicks / 2, clicks] {
                let (requests, exposed) = (clicks, broken);
                let odd = Arm {
                    requests,
                    exposed,
                    exposures,
                    clicks,
                    linked: clicks - broken,
                    broken,
                    ..Arm::default()
                };
                let shown = Arm { requests: 100, exposed: 99, ..release(1_000, 0.05, 0.01) };
                for plain in [Arm::default(), release(1_000, 0.05, 0.01), shown, odd] {
                    for comparison in
                        [compare(&plain, &odd, Aim::default()), compare(&odd, &plain, Aim::default())]
                    {
                        assert!(
                            numbers(&comparison).iter().all(|number| number.is_finite()),
                            "{plain:?} {odd:?} {comparison:?}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn nothing_decides_nothing() {
    for (stable, canary) in [
        (Arm::default(), Arm::default()),
        (release(1_000_000, 0.05, 0.0), Arm::default()),
        (release(1_000, 0.0, 0.0), release(1_000, 0.0, 0.0)),
        (release(1_000, 0.05, 0.0), release(1_000, 0.05, 0.0)),
    ] {
        assert_eq!(compare(&stable, &canary, Aim::default()).verdict, Verdict::Undecided, "{stable:?}");
    }
    assert_eq!(split(&Arm::default(), &release(1_000, 0.05, 0.0)), None);
}

#[test]
fn broken_links_and_fewer_clicks_are_told_apart() {
    let stable = release(3_000_000, 0.05, 0.005);
    let verdicts = |canary: &Arm| {
        let comparison = compare(&stable, canary, Aim { margin: 0.02, ..Aim::default() });
        (comparison.verdict, comparison.clicking.verdict, comparison.linking.verdict)
    };
    assert_eq!(
        verdicts(&release(3_000_000, 0.05, 0.005)),
        (Verdict::Healthy, Verdict::Healthy, Verdict::Healthy)
    );
    assert_eq!(
        verdicts(&release(3_000_000, 0.05, 0.028)),
        (Verdict::Worse, Verdict::Healthy, Verdict::Worse)
    );
    assert_eq!(
        verdicts(&release(3_000_000, 0.05 * 0.977, 0.005)),
        (Verdict::Worse, Verdict::Worse, Verdict::Healthy)
    );
    assert_eq!(
        verdicts(&release(3_000_000, 0.05 * 1.023, 0.005)),
        (Verdict::Healthy, Verdict::Healthy, Verdict::Healthy)
    );
}

/// Exposures and clicks are missing together, so neither rate says anything.
#[test]
fn requests_that_nothing_is_shown_for_are_found() {
    let verdicts = |exposed_of_stable: u64, exposed_of_canary: u64| {
        let arm = |exposed: u64| Arm { requests: 100_000, exposed, ..release(exposed * 300, 0.05, 0.005) };
        let comparison = compare(&arm(exposed_of_stable), &arm(exposed_of_canary), Aim::default());
        let showing = comparison.showing.expect("both have requests");
        (comparison.verdict, showing.verdict, comparison.clicking.verdict, comparison.linking.verdict)
    };
    let others = (Verdict::Healthy, Verdict::Healthy);
    assert_eq!(verdicts(99_000, 99_000), (Verdict::Healthy, Verdict::Healthy, others.0, others.1));
    assert_eq!(verdicts(99_000, 70_000), (Verdict::Worse, Verdict::Worse, others.0, others.1));
    // Of a service that shows something for one request in ten, a hundredth of all is a tenth of what is shown.
    assert_eq!(verdicts(10_000, 9_000), (Verdict::Worse, Verdict::Worse, Verdict::Healthy, Verdict::Healthy));
    assert_eq!(verdicts(70_000, 99_000), (Verdict::Healthy, Verdict::Healthy, others.0, others.1));
}
