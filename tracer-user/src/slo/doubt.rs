//! Why a comparison is not to be trusted: something was lost, the two releases were not captured alike,
//! or they did not run side by side.
//!
//! Where there is a doubt there is no verdict, whatever the counts say: a fault of the tracer must never
//! look like a fault of a release.

use std::fmt;

use serde::Serialize;

use super::comparison::Arm;

/// Of all events. A lost request makes orphans of all its exposures, 20 of them perhaps; so this is a
/// share of 0.2 % broken links at most, a tenth of what a comparison looks for.
pub const MAX_LOST_SHARE: f64 = 1e-4;

/// Of exposures or clicks of one release. What is unseen is in no ratio, so this changes one by less.
pub const MAX_UNSEEN_SHARE: f64 = 0.01;

/// Of the canary's share of exposures, from one half of the window to the other.
pub const MAX_SPLIT_CHANGE: f64 = 0.2;

/// What happened to the tracer and to the traffic while the two releases were counted.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Conditions {
    /// Events taken in, of all services.
    pub events: u64,
    /// Events that were seen and could not be kept.
    pub lost: u64,
    /// Events that came too late to be judged.
    pub unjudged: u64,
    /// How often the coverage horizon moved because a process was found too late.
    pub late_coverage: u64,
    /// Probes that could not be put in place, for as long back as processes of now may have run without them.
    pub missing_probes: u64,
    /// Daemons that answered within the window and no longer do.
    pub silent_daemons: u64,
    /// Whether each release, stable first, was there for a click window before the window began;
    /// `None` where that cannot be said.
    pub settled: [Option<bool>; 2],
    /// The canary's share of exposures in the first and in the second half of the window; `None` where
    /// there were none.
    pub halves: [Option<f64>; 2],
}

/// A reason to say nothing.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Doubt {
    /// A release showed nothing.
    NoExposures {
        /// Which.
        release: String,
    },
    /// Events were lost, or came too late to be judged.
    EventsLost {
        /// How many.
        lost: u64,
        /// Of how many taken in.
        events: u64,
    },
    /// Too much of a release reaches back beyond the coverage horizon.
    Unseen {
        /// Which release.
        release: String,
        /// What share of its exposures or clicks, the larger of the two.
        share: f64,
    },
    /// Ids repeat in one release and not in the other, and what is shown for a request differs: what repeats is counted
    /// once, so the two are not counted alike.
    IdsRepeat {
        /// `request` or `exposure`.
        kind: &'static str,
        /// The share of those that repeat an earlier one, of the stable release.
        stable: f64,
        /// And of the canary.
        canary: f64,
    },
    /// Processes were traced too late.
    LateCoverage {
        /// How often.
        moves: u64,
    },
    /// Probes could not be put in place: what they would have seen looks as if it had not happened.
    MissingProbes {
        /// How often one could not.
        count: u64,
    },
    /// Daemons stopped answering.
    SilentDaemons {
        /// How many.
        count: u64,
    },
    /// A release began too recently: clicks on what it has shown are still to come.
    TooYoung {
        /// Which.
        release: String,
    },
    /// The traffic was split differently within the window, so the releases saw different hours.
    SplitChanged {
        /// The canary's share of exposures in the first half.
        first: f64,
        /// And in the second.
        second: f64,
    },
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoExposures { release } => write!(f, "release {release} showed nothing"),
            Self::EventsLost { lost, events } => write!(
                f,
                "{lost} events were lost or came too late to be judged, beside {events} taken in \
                 (docs/operations.md, Lost events)"
            ),
            Self::Unseen { release, share } => write!(
                f,
                "{:.1} % of release {release} reaches back beyond the coverage horizon",
                share * 100.0
            ),
            Self::IdsRepeat { kind, stable, canary } => write!(
                f,
                "{:.1} % of the stable release's {kind}s repeat an earlier one, and {:.1} % of the canary's, and a request \
                 shows another number of items: are ids made anew? (docs/operations.md, Ids repeat)",
                stable * 100.0,
                canary * 100.0
            ),
            Self::LateCoverage { moves } => {
                write!(f, "the coverage horizon moved {moves} times because a process was traced too late")
            }
            Self::MissingProbes { count } => {
                write!(f, "probes that could not be put in place, so that a function is not seen: {count}")
            }
            Self::SilentDaemons { count } => {
                write!(f, "daemons that answered within the window and no longer do: {count}")
            }
            Self::TooYoung { release } => write!(
                f,
                "release {release} was not there for a click window before the window began: \
                 clicks on what it has shown are still to come"
            ),
            Self::SplitChanged { first, second } => write!(
                f,
                "the canary's share of the traffic changed within the window, from {:.1} % to {:.1} %: \
                 the releases saw different hours",
                first * 100.0,
                second * 100.0
            ),
        }
    }
}

/// Everything that speaks against comparing `stable` with `canary`, each with its name.
pub fn doubts(stable: (&str, &Arm), canary: (&str, &Arm), conditions: &Conditions) -> Vec<Doubt> {
    let mut doubts = Vec::new();
    let lost = conditions.lost.saturating_add(conditions.unjudged);
    if lost as f64 > MAX_LOST_SHARE * conditions.events as f64 {
        doubts.push(Doubt::EventsLost { lost, events: conditions.events });
    }
    if conditions.late_coverage > 0 {
        doubts.push(Doubt::LateCoverage { moves: conditions.late_coverage });
    }
    if conditions.missing_probes > 0 {
        doubts.push(Doubt::MissingProbes { count: conditions.missing_probes });
    }
    if conditions.silent_daemons > 0 {
        doubts.push(Doubt::SilentDaemons { count: conditions.silent_daemons });
    }
    for (kind, [of_stable, of_canary]) in stable.1.repeats.differences(&canary.1.repeats) {
        doubts.push(Doubt::IdsRepeat { kind: kind.name(), stable: of_stable, canary: of_canary });
    }
    for ((name, arm), settled) in [stable, canary].into_iter().zip(conditions.settled) {
        let release = || name.to_owned();
        let share = unseen_share(arm);
        if arm.exposures == 0 {
            doubts.push(Doubt::NoExposures { release: release() });
        } else if settled == Some(false) {
            doubts.push(Doubt::TooYoung { release: release() });
        }
        if share > MAX_UNSEEN_SHARE {
            doubts.push(Doubt::Unseen { release: release(), share });
        }
    }
    if let [Some(first), Some(second)] = conditions.halves
        && (second - first).abs() > MAX_SPLIT_CHANGE * first.max(second)
    {
        doubts.push(Doubt::SplitChanged { first, second });
    }
    doubts
}

fn unseen_share(arm: &Arm) -> f64 {
    let share = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
    let unseen_clicks = arm.clicks.saturating_sub(arm.linked).saturating_sub(arm.broken);
    share(arm.unseen_exposures, arm.exposures).max(share(unseen_clicks, arm.clicks))
}

#[cfg(test)]
mod tests {
    use super::{Arm, Conditions, Doubt, doubts};
    use crate::slo::repeats::{Repeats, Seen};

    const ARM: Arm = Arm {
        requests: 10_000,
        exposed: 10_000,
        exposures: 100_000,
        clicks: 5_000,
        linked: 4_990,
        broken: 10,
        unseen_exposures: 0,
        repeats: Repeats {
            requests: Seen { events: 10_000, repeated: 0 },
            exposures: Seen { events: 100_000, repeated: 0 },
        },
    };

    fn good() -> Conditions {
        Conditions {
            events: 210_000,
            settled: [Some(true); 2],
            halves: [Some(0.5), Some(0.5)],
            ..Conditions::default()
        }
    }

    #[track_caller]
    fn check(stable: Arm, canary: Arm, conditions: &Conditions, expected: &[Doubt]) {
        assert_eq!(doubts(("old", &stable), ("new", &canary), conditions), expected);
    }

    #[test]
    fn without_loss_and_side_by_side_there_is_no_doubt() {
        check(ARM, ARM, &good(), &[]);
        check(ARM, ARM, &Conditions { settled: [None; 2], halves: [None; 2], ..good() }, &[]);
    }

    #[test]
    fn one_lost_event_in_ten_thousand_is_tolerated_and_more_is_not() {
        check(ARM, ARM, &Conditions { lost: 20, unjudged: 1, ..good() }, &[]);
        let lost = Doubt::EventsLost { lost: 22, events: 210_000 };
        check(ARM, ARM, &Conditions { lost: 20, unjudged: 2, ..good() }, &[lost]);
        let nothing = Arm::default();
        let expected = ["old", "new"].map(|release| Doubt::NoExposures { release: release.into() });
        check(nothing, nothing, &Conditions::default(), &expected);
    }

    #[test]
    fn what_is_unseen_of_one_release_is_a_doubt_about_both() {
        let unseen = |share| Doubt::Unseen { release: "new".into(), share };
        check(ARM, Arm { unseen_exposures: 1_000, ..ARM }, &good(), &[]);
        check(ARM, Arm { unseen_exposures: 2_000, ..ARM }, &good(), &[unseen(0.02)]);
        check(ARM, Arm { linked: 4_490, ..ARM }, &good(), &[unseen(0.1)]);
    }

    #[test]
    fn ids_that_repeat_in_the_canary_are_a_doubt_however_good_it_looks() {
        let requests = Seen { events: 10_000, repeated: 9_999 };
        let repeats = Repeats { requests, exposures: Seen { events: 100_000, repeated: 0 } };
        let expected = Doubt::IdsRepeat { kind: "request", stable: 0.0, canary: 0.9999 };
        check(ARM, Arm { repeats, ..ARM }, &good(), &[expected]);
    }

    #[test]
    fn a_young_release_missing_coverage_silent_daemons_and_another_split_are_doubts() {
        let conditions = Conditions {
            late_coverage: 2,
            missing_probes: 3,
            silent_daemons: 1,
            settled: [Some(true), Some(false)],
            halves: [Some(0.1), Some(0.5)],
            ..good()
        };
        let expected = [
            Doubt::LateCoverage { moves: 2 },
            Doubt::MissingProbes { count: 3 },
            Doubt::SilentDaemons { count: 1 },
            Doubt::TooYoung { release: "new".into() },
            Doubt::SplitChanged { first: 0.1, second: 0.5 },
        ];
        check(ARM, ARM, &conditions, &expected);
        for doubt in expected {
            assert!(!doubt.to_string().contains("NaN"), "{doubt}");
        }
    }
}
