//! Counts of two releases, from recorded events.
//!
//! A recording says nothing of what the tracer lost or since when it saw everything; `--coverage-start`
//! says the latter, and a line that cannot be read is a lost event.

use std::{io::Write, path::Path};

use anyhow::Result;

use super::{CompareArgs, Gathered};
use crate::{
    domain::{Edge, LinkOutcome, Outcome, RequestOutcome, TripleOutcome},
    replay,
    slo::{comparison::Arm, doubt::Conditions},
};

pub(super) fn gather(args: &CompareArgs, file: &Path, errors: impl Write) -> Result<Gathered> {
    let (mut stable, mut canary) = (Arm::default(), Arm::default());
    let mut conditions = Conditions::default();
    let rejected = replay::join_file(&args.join, file, errors, |outcome| {
        match outcome {
            Outcome::Received { .. } => conditions.events += 1,
            Outcome::LateWithoutOutcome { .. } => conditions.unjudged += 1,
            _ => {}
        }
        let (Outcome::Received { labels, .. }
        | Outcome::Duplicate { labels, .. }
        | Outcome::Request { labels, .. }
        | Outcome::Link { labels, .. }
        | Outcome::Triple { labels, .. }) = outcome
        else {
            return;
        };
        if args.service.as_ref().is_some_and(|service| **service != *labels.service) {
            return;
        }
        for (name, arm) in [(&args.stable, &mut stable), (&args.canary, &mut canary)] {
            if **name == *labels.release {
                count(arm, outcome);
            }
        }
    })?;
    conditions.lost = rejected;
    Ok(Gathered { stable, canary, conditions, origin: file.display().to_string() })
}

fn count(arm: &mut Arm, outcome: &Outcome) {
    match outcome {
        Outcome::Received { kind, .. } => arm.repeats.add_events(*kind, 1),
        Outcome::Duplicate { kind, .. } => arm.repeats.add_repeated(*kind, 1),
        Outcome::Request { outcome, .. } => {
            arm.requests += 1;
            arm.exposed += u64::from(*outcome == RequestOutcome::Exposed);
        }
        Outcome::Link { edge: Edge::RequestExposure, outcome, .. } => {
            arm.exposures += 1;
            arm.unseen_exposures += u64::from(*outcome == LinkOutcome::Unseen);
        }
        Outcome::Link { edge: Edge::ExposureClick, .. } => arm.clicks += 1,
        Outcome::Triple { outcome: TripleOutcome::Complete, .. } => arm.linked += 1,
        Outcome::Triple { outcome: TripleOutcome::Broken, .. } => arm.broken += 1,
        _ => {}
    }
}
