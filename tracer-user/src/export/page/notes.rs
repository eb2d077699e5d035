//! Whether the numbers can be relied on, in words. Pure.

use std::collections::BTreeMap;

use super::{
    reading::Reading,
    view::{Row, grouped},
};
use crate::{domain::Kind, export::http::ProbeState, slo::repeats::Repeats, telemetry::Metric};

/// A sentence on the tracer's own state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// It is a reason to doubt the numbers.
    pub doubt: bool,
    /// The sentence.
    pub text: String,
}

/// Of a daemon: its probes, what was lost, since when it saw everything, and which ids repeat.
pub(super) fn live(rows: &[Row], reading: &Reading, probes: &[ProbeState], now: u64) -> Vec<Note> {
    let mut notes = vec![probes_note(probes)];
    let suspicious = probes.iter().filter(|probe| probe.unheard_requests > 0);
    notes.extend(suspicious.map(|ProbeState { name, unheard_requests, .. }| {
        doubt(format!(
            "{name} was not hit in the last {} requests of its service.",
            grouped(*unheard_requests)
        ))
    }));
    for (series, processes) in reading.gauges(Metric::TargetProcesses) {
        if processes < 1.0 {
            let service = series.label("service");
            notes.push(doubt(format!("No process of {service} runs on this node.")));
        }
    }
    notes.push(loss_note(rows));
    for (series, horizon) in reading.gauges(Metric::CoverageHorizon) {
        notes.push(horizon_note(series.label("kind"), horizon, now));
    }
    for (_, lag) in reading.gauges(Metric::WatermarkLag) {
        if lag > LAG_LIMIT_SECONDS {
            notes.push(doubt(format!("The join is {lag:.0} seconds behind the clock.")));
        }
    }
    notes.extend(repeats_notes(rows));
    notes
}

/// Of a recording, which has what was seen, and nothing of what was not.
pub(super) fn of_recording(rows: &[Row], rejected: u64) -> Vec<Note> {
    let mut notes = vec![doubt(
        "A recording does not say what its daemon lost while it was made, or what it did not cover."
            .to_owned(),
    )];
    notes.push(match rejected {
        0 => fine("Every line of it could be read.".to_owned()),
        count => {
            doubt(format!("{} lines could not be read, and each may have been an event.", grouped(count)))
        }
    });
    notes.extend(repeats_notes(rows));
    notes
}

/// A join that is further behind than this does not keep up; `lateness` is 2 s by default.
const LAG_LIMIT_SECONDS: f64 = 10.0;

fn probes_note(probes: &[ProbeState]) -> Note {
    let missing: Vec<_> =
        probes.iter().filter_map(|probe| Some((&probe.name, probe.missing.as_ref()?))).collect();
    if missing.is_empty() {
        let awaited = probes.iter().filter(|probe| probe.awaited.is_some()).count();
        return fine(match awaited {
            0 => format!("Probes in place: all {}.", probes.len()),
            some => format!("Probes in place: {}; {some} wait for a process to start.", probes.len() - some),
        });
    }
    let reasons: Vec<String> = missing.iter().map(|(name, reason)| format!("{name} ({reason})")).collect();
    doubt(format!("{} of {} probes are not in place: {}.", missing.len(), probes.len(), reasons.join("; ")))
}

fn loss_note(rows: &[Row]) -> Note {
    let mut lost: Vec<(u64, &str)> = rows
        .iter()
        .filter(|(series, _)| series.is(Metric::LostEvents))
        .map(|(series, row)| (row.iter().sum(), series.label("reason")))
        .filter(|(count, _)| *count > 0)
        .collect();
    if lost.is_empty() {
        return fine("No event was lost in the time shown.".to_owned());
    }
    lost.sort_unstable_by(|a, b| b.cmp(a));
    let reasons: Vec<String> =
        lost.iter().map(|(count, reason)| format!("{} {reason}", grouped(*count))).collect();
    let all = lost.iter().map(|(count, _)| count).sum();
    doubt(format!(
        "{} events were lost in the time shown ({}): a link may look broken because its other end is one of them.",
        grouped(all),
        reasons.join(", ")
    ))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float saturates as an integer"
)]
fn horizon_note(kind: &str, horizon: f64, now: u64) -> Note {
    if horizon <= 0.0 {
        return fine(format!("Every {kind} since the start of its process was seen."));
    }
    let minutes = now.saturating_sub(horizon as u64) / 60;
    fine(format!(
        "Every {kind} of the last {minutes} minutes was seen; links that reach back further are not judged (unseen)."
    ))
}

/// With fewer events than this, ids may repeat by chance.
const FEWEST_EVENTS: u64 = 500;

/// Releases in which ids repeat that do not in the one that counted most.
fn repeats_notes(rows: &[Row]) -> Vec<Note> {
    let mut by_service: BTreeMap<&str, BTreeMap<&str, Repeats>> = BTreeMap::new();
    for (series, row) in rows {
        let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.name() == series.label("kind")) else {
            continue;
        };
        let releases = by_service.entry(series.label("service")).or_default();
        let repeats = releases.entry(series.label("release")).or_default();
        let count = row.iter().sum();
        if series.is(Metric::Events) {
            repeats.add_events(kind, count);
        } else if series.is(Metric::Duplicates) {
            repeats.add_repeated(kind, count);
        }
    }
    let mut notes = Vec::new();
    for (service, mut releases) in by_service {
        releases.retain(|_, repeats| repeats.exposures.events >= FEWEST_EVENTS);
        let most = releases.iter().max_by_key(|(_, repeats)| repeats.exposures.firsts());
        let Some((usual_release, usual)) = most else { continue };
        for (release, repeats) in &releases {
            for (kind, [of_usual, of_release]) in usual.differences(repeats) {
                notes.push(doubt(format!(
                    "{:.1} % of the {}s of release {release} of {service} repeat an earlier one, and {:.1} % of those of \
                     {usual_release}: what repeats is not counted, so the two cannot be compared.",
                    of_release * 100.0,
                    kind.name(),
                    of_usual * 100.0
                )));
            }
        }
    }
    notes
}

fn fine(text: String) -> Note {
    Note { doubt: false, text }
}

fn doubt(text: String) -> Note {
    Note { doubt: true, text }
}

#[cfg(test)]
mod tests {
    use super::{Metric, Note, ProbeState, Reading, Row, live, of_recording};
    use crate::export::page::reading::tests::series;

    fn doubts(notes: &[Note]) -> Vec<&str> {
        notes.iter().filter(|note| note.doubt).map(|note| &*note.text).collect()
    }

    #[test]
    fn loss_and_missing_probes_are_said_and_are_reasons_for_doubt() {
        let missing = Some("no file".into());
        let probe = ProbeState { name: "s/click".into(), missing, awaited: None, unheard_requests: 0 };
        let lost = (series(Metric::LostEvents, &[("reason", "ring_full")]), vec![1000, 234]);
        let notes = live(&[lost], &Reading::default(), &[probe], 0);
        let doubts = doubts(&notes);
        assert_eq!(doubts[0], "1 of 1 probes are not in place: s/click (no file).");
        assert!(doubts[1].starts_with("1,234 events were lost in the time shown (1,234 ring_full)"));
    }

    #[test]
    fn without_any_fault_there_is_no_doubt() {
        let probe = ProbeState { name: "s/click".into(), missing: None, awaited: None, unheard_requests: 0 };
        let notes = live(&[], &Reading::default(), &[probe], 0);
        assert!(doubts(&notes).is_empty(), "{notes:?}");
    }

    #[test]
    fn of_a_recording_it_is_said_what_it_cannot_say() {
        let notes = of_recording(&[], 1234);
        let doubts = doubts(&notes);
        assert_eq!(doubts.len(), 2, "{doubts:?}");
        assert!(doubts[1].starts_with("1,234 lines could not be read"), "{doubts:?}");
    }

    #[test]
    fn a_release_whose_ids_repeat_is_named_beside_the_one_that_counted_most() {
        let row = |metric, kind, release, count| -> Row {
            let labels = [("kind", kind), ("service", "s"), ("release", release), ("group", "")];
            (series(metric, &labels), vec![count])
        };
        let rows = [
            row(Metric::Events, "request", "old", 600),
            row(Metric::Events, "exposure", "old", 6_000),
            row(Metric::Events, "request", "new", 600),
            row(Metric::Duplicates, "request", "new", 599),
            row(Metric::Events, "exposure", "new", 6_000),
            row(Metric::Duplicates, "exposure", "new", 100),
            // Too few to tell.
            row(Metric::Events, "exposure", "rare", 499),
            row(Metric::Duplicates, "exposure", "rare", 498),
        ];
        let notes = of_recording(&rows, 0);
        let expected = "99.8 % of the requests of release new of s repeat an earlier one, and 0.0 % of those of old: what \
                        repeats is not counted, so the two cannot be compared.";
        assert_eq!(doubts(&notes)[1..], [expected]);
    }
}
