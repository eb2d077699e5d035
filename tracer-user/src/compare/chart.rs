//! Estimates with their intervals on one scale, for a terminal.

use crate::slo::comparison::Estimate;

/// Columns of the scale.
const WIDTH: usize = 49;

/// One line for each estimate: `─` over its interval, `●` at its value, `│` at zero, and above them the
/// scale. Values are shown in hundredths (percentage points).
pub(super) fn render(estimates: &[(&str, Estimate)]) -> String {
    let ends = estimates.iter().flat_map(|(_, estimate)| [estimate.low, estimate.high]);
    let reach = ends.fold(0.0_f64, |reach, end| reach.max(end.abs()));
    // Where everything is zero any scale will do.
    let reach = if reach > 0.0 { reach } else { 0.01 };
    let names = estimates.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
    let end = format!("{:.3}", reach * 100.0);
    let (left, right) = (WIDTH / 2, WIDTH - WIDTH / 2 - 1);
    let mut text = format!("{:names$}  -{end:<left_rest$}0{end:>right$}\n", "", left_rest = left - 1);
    for (name, estimate) in estimates {
        let mut cells = vec![' '; WIDTH];
        for cell in &mut cells[column(estimate.low, reach)..=column(estimate.high, reach)] {
            *cell = '─';
        }
        cells[WIDTH / 2] = '│';
        cells[column(estimate.value, reach)] = '●';
        let line: String = cells.into_iter().collect();
        text.push_str(format!("{name:names$}  {line}").trim_end());
        text.push('\n');
    }
    text
}

/// The column of a value within -`reach` and `reach`.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "is within the width")]
fn column(value: f64, reach: f64) -> usize {
    let middle = (WIDTH / 2) as f64;
    ((value / reach).clamp(-1.0, 1.0) * middle + middle).round() as usize
}

#[cfg(test)]
mod tests {
    use super::{Estimate, render};

    #[test]
    fn values_stand_on_their_side_of_zero_within_their_intervals() {
        let text = render(&[
            ("broke", Estimate { value: -0.001, low: -0.002, high: 0.0 }),
            ("nothing", Estimate { value: 0.0, low: 0.0, high: 0.0 }),
        ]);
        let expected = "         -0.200                  0                   0.200\n\
                        broke    ────────────●───────────│\n\
                        nothing                          ●\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn nothing_to_show_has_a_scale_all_the_same() {
        let zero = Estimate { value: 0.0, low: 0.0, high: 0.0 };
        assert!(render(&[("a", zero)]).contains("-1.000"));
    }
}
