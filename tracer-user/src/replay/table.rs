//! The counts as a table for people.

use crate::domain::{Counts, Edge, Kind};

const NAME_WIDTH: usize = 18;
const CELL_WIDTH: usize = 14;

/// Lines of equal columns, in blocks of one heading each. What cannot be is a dash.
pub(super) fn render(counts: &Counts) -> String {
    let mut text = String::new();
    let mut row = |name: &str, cells: &[&str]| {
        let cells: String = cells.iter().map(|cell| format!("{cell:>CELL_WIDTH$}")).collect();
        text.push_str(format!("{name:<NAME_WIDTH$}{cells}").trim_end());
        text.push('\n');
    };
    let ratio = |edge| match counts.broken_link_ratio(edge) {
        Some(ratio) => format!("{:.3}%", ratio * 100.0),
        None => "-".to_owned(),
    };

    let exposures = &counts.edges.request_exposure;
    let clicks = &counts.edges.exposure_click;
    let reports = &counts.edges.click_report;
    let triples = &counts.edges.triple;
    let requests = &counts.requests;
    let [orphan, missing_id, unseen] =
        [exposures.orphan, exposures.missing_id, exposures.unseen].map(|count| count.to_string());
    row("edge", &["broken ratio", "linked", "mismatch", "orphan", "missing id", "unseen"]);
    row(
        Edge::RequestExposure.name(),
        &[&ratio(Edge::RequestExposure), &exposures.linked.to_string(), "-", &orphan, &missing_id, &unseen],
    );
    let [linked, mismatch, orphan, missing_id, unseen] =
        [clicks.linked, clicks.mismatch, clicks.orphan, clicks.missing_id, clicks.unseen]
            .map(|count| count.to_string());
    row(
        Edge::ExposureClick.name(),
        &[&ratio(Edge::ExposureClick), &linked, &mismatch, &orphan, &missing_id, &unseen],
    );
    row("", &[]);
    row("", &["broken ratio", "reported", "unreported"]);
    row(
        Edge::ClickReport.name(),
        &[&ratio(Edge::ClickReport), &reports.reported.to_string(), &reports.unreported.to_string()],
    );
    row("", &[]);
    row("", &["broken ratio", "complete", "broken", "unseen"]);
    let [complete, broken, unseen] =
        [triples.complete, triples.broken, triples.unseen].map(|count| count.to_string());
    row(Edge::Triple.name(), &[&ratio(Edge::Triple), &complete, &broken, &unseen]);
    row("", &[]);
    row("", &["exposed", "unexposed", "missing id"]);
    let [exposed, unexposed, missing_id] =
        [requests.exposed, requests.unexposed, requests.missing_id].map(|count| count.to_string());
    row("requests", &[&exposed, &unexposed, &missing_id]);
    row("", &[]);
    row("", &["received", "duplicate", "late", "no outcome"]);
    for kind in Kind::ALL {
        let duplicate = match kind {
            Kind::Request => counts.duplicate.request.to_string(),
            Kind::Exposure => counts.duplicate.exposure.to_string(),
            Kind::Click => counts.duplicate.click.to_string(),
            Kind::Report => "-".to_owned(),
        };
        // Too late for one, or evicted before there was one.
        let without = match kind {
            Kind::Report => "-".to_owned(),
            _ => (counts.late_without_outcome[kind] + counts.evicted[kind]).to_string(),
        };
        let [received, late] = [counts.events[kind], counts.late[kind]].map(|count| count.to_string());
        row(kind.name(), &[&received, &duplicate, &late, &without]);
    }
    row("rejected lines", &[&counts.rejected.to_string()]);
    text
}
