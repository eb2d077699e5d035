//! Charts of the page, as SVG without scripts.

use maud::{Markup, html};

use super::view::grouped;

/// A step of the drawing, in its own units.
const COLUMN: usize = 10;
const HEIGHT: u64 = 100;

/// One row of a chart of columns.
pub(super) struct Row<'a> {
    /// What it counts.
    pub(super) name: &'a str,
    /// Number of its colour, 0 to 3.
    pub(super) colour: usize,
    /// One number a minute, oldest first.
    pub(super) counts: &'a [u64],
}

/// A column a minute, rows one upon the other, oldest on the left. `minutes` is the number of columns; the newest is the
/// running minute.
pub(super) fn columns(title: &str, minutes: usize, rows: &[Row<'_>]) -> Markup {
    let sums: Vec<u64> = (0..minutes)
        .map(|at| rows.iter().map(|row| row.counts.get(at).copied().unwrap_or(0)).sum())
        .collect();
    let highest = sums.iter().copied().max().unwrap_or(0).max(1);
    html! {
        svg class="columns" role="img" aria-label=(title) preserveAspectRatio="none"
            viewBox=(format!("0 0 {} {HEIGHT}", minutes * COLUMN)) {
            @for at in 0..minutes {
                g {
                    title { (tip(minutes - 1 - at, rows, at)) }
                    // The whole height is there to be pointed at.
                    rect class="ground" x=(at * COLUMN) y="0" width=(COLUMN) height=(HEIGHT) {}
                    @for (row, bottom, height) in stack(rows, at, highest) {
                        rect class=(format!("c{}", row.colour)) x=(at * COLUMN + 1) width=(COLUMN - 2)
                            y=(format!("{:.1}", scaled(HEIGHT) - bottom - height)) height=(format!("{height:.1}")) {}
                    }
                }
            }
        }
        p class="axis" {
            span { (minutes - 1) " minutes ago" }
            span { "highest: " (grouped(highest_of(&sums))) " a minute" }
            span { "now" }
        }
    }
}

fn highest_of(sums: &[u64]) -> u64 {
    sums.iter().copied().max().unwrap_or(0)
}

fn tip(minutes_ago: usize, rows: &[Row<'_>], at: usize) -> String {
    let counts: Vec<String> = rows
        .iter()
        .map(|row| format!("{} {}", row.name, grouped(row.counts.get(at).copied().unwrap_or(0))))
        .collect();
    format!("{minutes_ago} min ago: {}", counts.join(", "))
}

/// The parts of one column: the row, where the part begins above the ground, and how high it is.
fn stack<'a>(rows: &'a [Row<'a>], at: usize, highest: u64) -> Vec<(&'a Row<'a>, f64, f64)> {
    let mut bottom = 0.0;
    let mut parts = Vec::with_capacity(rows.len());
    for row in rows {
        let count = row.counts.get(at).copied().unwrap_or(0);
        if count > 0 {
            let height = scaled(count) / scaled(highest) * scaled(HEIGHT);
            parts.push((row, bottom, height));
            bottom += height;
        }
    }
    parts
}

#[expect(clippy::cast_precision_loss, reason = "a drawing needs no more than 53 bits")]
fn scaled(count: u64) -> f64 {
    count as f64
}

/// A bar that is `part / whole` of the width; empty when `whole` is 0.
pub(super) fn bar(part: u64, whole: u64) -> Markup {
    let width = if whole == 0 { 0.0 } else { (scaled(part) / scaled(whole) * 100.0).min(100.0) };
    html! {
        svg class="bar" aria-hidden="true" viewBox="0 0 100 10" preserveAspectRatio="none" {
            rect class="ground" width="100" height="10" {}
            rect class="c0" width=(format!("{width:.2}")) height="10" {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Row, bar, columns};

    #[test]
    fn parts_stand_upon_each_other_and_the_highest_column_fills_the_height() {
        let rows = [
            Row { name: "orphan", colour: 0, counts: &[1, 3] },
            Row { name: "mismatch", colour: 1, counts: &[0, 1] },
        ];
        let drawn = columns("broken", 2, &rows).into_string();
        assert!(drawn.contains(r#"<rect class="c0" x="1" width="8" y="75.0" height="25.0">"#), "{drawn}");
        assert!(drawn.contains(r#"<rect class="c0" x="11" width="8" y="25.0" height="75.0">"#), "{drawn}");
        assert!(drawn.contains(r#"<rect class="c1" x="11" width="8" y="0.0" height="25.0">"#), "{drawn}");
        assert!(drawn.contains("<title>0 min ago: orphan 3, mismatch 1</title>"), "{drawn}");
    }

    #[test]
    fn nothing_can_be_drawn_too() {
        assert!(bar(0, 0).into_string().contains(r#"width="0.00""#));
        assert!(columns("nothing", 1, &[]).into_string().contains("highest: 0 a minute"));
    }
}
