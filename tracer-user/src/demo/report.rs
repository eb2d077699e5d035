//! What the demo prints: the funnel, and the truth beside what was measured.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    iter,
};

use anyhow::Result;
use comfy_table::{Cell, CellAlignment, Table, presets::UTF8_FULL_CONDENSED};

use super::tally::{Key, Tally};
use crate::domain::{Edge, Kind, RequestOutcome, TripleOutcome};

const BAR_WIDTH: u64 = 40;

/// Prints how many of each stage were measured, with bars in proportion.
pub fn funnel(measured: &Tally, out: &mut dyn Write) -> Result<()> {
    let stages = [
        ("requests", Key::Event(Kind::Request)),
        ("requests exposed", Key::Request(RequestOutcome::Exposed)),
        ("exposures", Key::Event(Kind::Exposure)),
        ("clicks", Key::Event(Kind::Click)),
        ("complete triples", Key::Triple(TripleOutcome::Complete)),
    ]
    .map(|(name, key)| (name, measured.get(&key)));
    let widest = stages.iter().map(|&(_, count)| count).max().unwrap_or_default().max(1);
    writeln!(out)?;
    for (name, count) in stages {
        // Rounded up, so that little still shows.
        let width = (count * BAR_WIDTH).div_ceil(widest);
        writeln!(out, "{name:>16} {count:>9}  {}", "█".repeat(usize::try_from(width)?))?;
    }
    writeln!(out)?;
    Ok(())
}

/// Prints truth and measurement row by row, then one line of verdict. Returns whether all counts are equal.
pub fn comparison(truth: &Tally, measured: &Tally, out: &mut dyn Write) -> Result<bool> {
    let keys: BTreeSet<&Key> = truth.keys().chain(measured.keys()).collect();
    let (total, mut different) = (keys.len(), 0);
    let mut table = new_table(["", "truth", "measured", ""]);
    for key in keys {
        let (expected, found) = (truth.get(key), measured.get(key));
        let mark = match i128::from(found) - i128::from(expected) {
            0 => "=".to_owned(),
            difference => {
                different += 1;
                format!("≠ {difference:+}")
            }
        };
        table.add_row(row(key.path().join(" "), [expected.to_string(), found.to_string(), mark]));
    }
    for edge in Edge::ALL {
        let ratios = [truth, measured].map(|tally| percent(tally.broken_link_ratio(edge)));
        let [expected, found] = ratios;
        table.add_row(row(format!("broken_link_ratio {}", edge.name()), [expected, found, String::new()]));
    }
    writeln!(out, "{table}")?;
    if different == 0 {
        writeln!(out, "all {total} counts equal")?;
    } else {
        writeln!(out, "{different} of {total} counts differ")?;
    }
    Ok(different == 0)
}

/// Says so when every event that is missing is one that the kernel did not tell of: it skipped at least as many calls of
/// hooks. Nothing else may differ in number.
pub fn skipped(truth: &Tally, measured: &Tally, skipped: u64, out: &mut dyn Write) -> Result<()> {
    let missing = |kind| {
        let key = Key::Event(kind);
        truth.get(&key).checked_sub(measured.get(&key))
    };
    let [Some(requests), Some(reports)] = [Kind::Request, Kind::Report].map(missing) else { return Ok(()) };
    let others = [Kind::Exposure, Kind::Click].map(missing) == [Some(0), Some(0)];
    if others && requests + reports > 0 && requests + reports <= skipped {
        writeln!(
            out,
            "the kernel skipped {skipped} calls of hooks and counted them: {} events are missing for it",
            requests + reports
        )?;
    }
    Ok(())
}

/// Prints what the kernel side says became of its hits, with a column for each thing that happened. Nothing here has a truth: sends of other processes
/// come and go.
pub fn kernel_hits(probes: &BTreeMap<String, BTreeMap<String, u64>>, out: &mut dyn Write) -> Result<()> {
    let happened: BTreeSet<&str> = probes
        .values()
        .flatten()
        .filter(|&(_, &count)| count > 0)
        .map(|(outcome, _)| outcome.as_str())
        .collect();
    if happened.is_empty() {
        return Ok(());
    }
    let mut table = new_table(iter::once("probe").chain(happened.iter().copied()));
    for (probe, outcomes) in probes {
        let counts = happened.iter().map(|&outcome| outcomes.get(outcome).copied().unwrap_or_default());
        table.add_row(row(probe.clone(), counts.map(|count| count.to_string())));
    }
    writeln!(out, "{table}\n")?;
    Ok(())
}

fn new_table<'a>(header: impl IntoIterator<Item = &'a str>) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(header);
    table
}

fn row(name: String, cells: impl IntoIterator<Item = String>) -> Vec<Cell> {
    let cells = cells.into_iter().map(|text| Cell::new(text).set_alignment(CellAlignment::Right));
    iter::once(Cell::new(name)).chain(cells).collect()
}

fn percent(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{:.3} %", ratio * 100.0))
}
