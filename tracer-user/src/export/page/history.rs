//! How much each counter grew in each of the last minutes. Pure: whoever has the clock says when a minute is over.

use std::collections::{BTreeMap, VecDeque};

use super::{
    MINUTES,
    reading::{Reading, Series},
};

/// Growth by minute. Bounded by the number of series, which labels bound, times [`MINUTES`].
#[derive(Debug, Default)]
pub struct History {
    /// Whole minutes that are kept, at most [`MINUTES`].
    minutes: usize,
    /// The first reading only says where counters stand.
    begun: bool,
    series: BTreeMap<Series, Column>,
}

#[derive(Debug, Clone, Default)]
struct Column {
    last: u64,
    /// Oldest first; one for each minute since the series was first seen.
    growth: VecDeque<u64>,
}

impl Column {
    /// A counter that is smaller than before began again at nothing.
    fn grown_to(&self, value: u64) -> u64 {
        value.checked_sub(self.last).unwrap_or(value)
    }
}

impl History {
    /// Ends a minute, at the end of which counters stood as `reading` says.
    pub fn record(&mut self, reading: &Reading) {
        if self.begun {
            self.minutes = (self.minutes + 1).min(MINUTES);
        }
        for (series, value) in &reading.counters {
            let column = self.series.entry(series.clone()).or_default();
            if self.begun {
                column.growth.push_back(column.grown_to(*value));
            }
            column.last = *value;
        }
        for (series, column) in &mut self.series {
            if !reading.counters.contains_key(series) {
                column.growth.push_back(0);
                column.last = 0;
            }
            while column.growth.len() > self.minutes {
                column.growth.pop_front();
            }
        }
        self.series.retain(|series, column| {
            reading.counters.contains_key(series) || column.growth.iter().any(|growth| *growth > 0)
        });
        self.begun = true;
    }

    /// How many minutes a row of [`Self::rows`] has: those that are over, and the one that is not.
    pub fn columns(&self) -> usize {
        self.minutes + 1
    }

    /// Growth of each series by minute, oldest first, up to now, when counters stand as `reading` says.
    pub fn rows(&self, reading: &Reading) -> Vec<(Series, Vec<u64>)> {
        let mut all: BTreeMap<&Series, u64> = self.series.keys().map(|series| (series, 0)).collect();
        for (series, value) in &reading.counters {
            let grown = match self.series.get(series) {
                Some(column) => column.grown_to(*value),
                None if self.begun => *value,
                None => 0,
            };
            all.insert(series, grown);
        }
        all.into_iter()
            .map(|(series, now)| {
                let growth = self.series.get(series).map(|column| &column.growth);
                let known = growth.map_or(0, VecDeque::len);
                let mut row = vec![0; self.minutes.saturating_sub(known)];
                row.extend(growth.into_iter().flatten());
                row.push(now);
                (series.clone(), row)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{History, MINUTES, Reading, Series};
    use crate::{export::page::reading::tests::series, telemetry::Metric};

    fn lost(reason: &str) -> Series {
        series(Metric::LostEvents, &[("reason", reason)])
    }

    fn reading(values: &[(&str, u64)]) -> Reading {
        let counters = values.iter().map(|(reason, value)| (lost(reason), *value)).collect();
        Reading { counters, ..Reading::default() }
    }

    #[track_caller]
    fn check(history: &History, now: &[(&str, u64)], expected: &[(&str, &[u64])]) {
        let expected: Vec<_> = expected.iter().map(|(reason, row)| (lost(reason), row.to_vec())).collect();
        assert_eq!(history.rows(&reading(now)), expected);
    }

    #[test]
    fn what_was_counted_before_the_first_reading_is_not_growth() {
        let mut history = History::default();
        check(&history, &[("a", 5)], &[("a", &[0])]);
        history.record(&reading(&[("a", 5)]));
        check(&history, &[("a", 7)], &[("a", &[2])]);
    }

    #[test]
    fn each_minute_has_its_own_growth_and_the_running_one_is_last() {
        let mut history = History::default();
        for value in [5, 7, 7, 10] {
            history.record(&reading(&[("a", value)]));
        }
        check(&history, &[("a", 14)], &[("a", &[2, 0, 3, 4])]);
    }

    #[test]
    fn a_series_that_comes_later_has_nothing_before() {
        let mut history = History::default();
        history.record(&reading(&[]));
        history.record(&reading(&[]));
        history.record(&reading(&[("b", 3)]));
        check(&history, &[("b", 3), ("c", 1)], &[("b", &[0, 3, 0]), ("c", &[0, 0, 1])]);
    }

    #[test]
    fn a_counter_that_began_again_grew_by_what_it_says() {
        let mut history = History::default();
        history.record(&reading(&[("a", 50)]));
        history.record(&reading(&[("a", 3)]));
        check(&history, &[("a", 4)], &[("a", &[3, 1])]);
    }

    #[test]
    fn a_series_that_is_gone_stays_until_its_last_growth_is_an_hour_ago() {
        let mut history = History::default();
        history.record(&reading(&[("a", 0)]));
        history.record(&reading(&[("a", 9)]));
        for _ in 1..MINUTES {
            history.record(&reading(&[]));
        }
        assert_eq!(history.rows(&reading(&[]))[0].1.iter().sum::<u64>(), 9);
        history.record(&reading(&[]));
        check(&history, &[], &[]);
        assert_eq!(history.columns(), MINUTES + 1);
    }
}
