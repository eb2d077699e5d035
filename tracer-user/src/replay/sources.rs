//! Whether the clocks of a recording's sources agree, and what to say where they do not.
//!
//! Nothing is corrected: the join takes times as they are. But where one source is always behind the others, links between
//! its events and theirs may be missed, or all of its events may be late, and the counts alone do not show why.

use std::collections::HashMap;
use std::time::Duration;

use crate::join::SourcePrint;

/// Sources beyond this many are not watched.
const MAX_SOURCES: usize = 1000;
/// A source with fewer events than this may be behind by chance.
const FEW_EVENTS: u64 = 10;

/// What is known of one source.
#[derive(Debug)]
struct Source {
    print: SourcePrint,
    name: Box<str>,
    events: u64,
    late: u64,
    /// How far each of its events was behind the newest one of all others by then, at least; in nanoseconds.
    least_behind_ns: u64,
}

/// Every source, in the order of their first events.
#[derive(Debug, Default)]
pub(super) struct Sources {
    all: Vec<Source>,
    numbers: HashMap<SourcePrint, usize>,
    last: usize,
    /// The newest time that any source has told, and which; and the newest of all others.
    newest: Option<(u64, usize)>,
    second_ns: Option<u64>,
}

impl Sources {
    /// Gives a source its name, unless it has one.
    pub(super) fn name(&mut self, print: SourcePrint, name: &str) {
        if self.all.len() < MAX_SOURCES && !self.numbers.contains_key(&print) {
            self.numbers.insert(print, self.all.len());
            let (events, late, least_behind_ns) = (0, 0, u64::MAX);
            self.all.push(Source { print, name: name.into(), events, late, least_behind_ns });
        }
    }

    /// An event of this time, in nanoseconds since the Unix epoch, in order of arrival.
    pub(super) fn see(&mut self, print: SourcePrint, timestamp_ns: u64, is_late: bool) {
        if self.all.get(self.last).is_none_or(|source| source.print != print) {
            let Some(number) = self.numbers.get(&print) else { return };
            self.last = *number;
        }
        let number = self.last;
        let Some(source) = self.all.get_mut(number) else { return };
        source.events += 1;
        source.late += u64::from(is_late);
        let (newest_ns, of) = self.newest.unwrap_or((timestamp_ns, number));
        let of_others_ns = if of == number { self.second_ns } else { Some(newest_ns) };
        if let Some(of_others_ns) = of_others_ns {
            source.least_behind_ns = source.least_behind_ns.min(of_others_ns.saturating_sub(timestamp_ns));
        }
        if of == number {
            self.newest = Some((timestamp_ns.max(newest_ns), number));
        } else if timestamp_ns > newest_ns {
            self.second_ns = Some(newest_ns);
            self.newest = Some((timestamp_ns, number));
        } else {
            self.second_ns = self.second_ns.max(Some(timestamp_ns));
        }
    }

    /// A sentence for each source that is always further behind the others than clocks may disagree.
    pub(super) fn complaints(&self, skew_ns: u64, lateness_ns: u64) -> Vec<String> {
        let is_behind = |source: &&Source| {
            source.events >= FEW_EVENTS && (skew_ns + 1..u64::MAX).contains(&source.least_behind_ns)
        };
        let span = |ns: u64| humantime::format_duration(Duration::from_nanos(ns)).to_string();
        let complain = |Source { name, events, late, least_behind_ns, .. }: &Source| {
            // To the millisecond: the rest is chance.
            let behind = span((least_behind_ns - 1) / 1_000_000 * 1_000_000);
            format!(
                "source `{}`: each of its {events} events came more than {behind} behind what other sources had told by \
                 then, and {late} of them were late: its clock is behind, or recordings were put together that are \
                 not merged by time (--skew is {}, --lateness {})",
                name.escape_debug(),
                span(skew_ns),
                span(lateness_ns),
            )
        };
        self.all.iter().filter(is_behind).map(complain).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Sources;
    use crate::join::Fingerprinter;

    const SECOND_NS: u64 = 1_000_000_000;
    const SKEW_NS: u64 = SECOND_NS / 10;

    /// What is said of two sources that take turns, `behind_ns` apart.
    fn complaints(behind_ns: u64, events: u64) -> Vec<String> {
        let prints = Fingerprinter::random();
        let mut sources = Sources::default();
        let print = |name: &str| prints.source(name);
        for name in ["ahead", "behind"] {
            sources.name(print(name), name);
        }
        for number in 0..events {
            let now_ns = 1000 * SECOND_NS + number * SECOND_NS;
            sources.see(print("ahead"), now_ns, false);
            sources.see(print("behind"), now_ns - behind_ns, behind_ns > 2 * SECOND_NS);
        }
        sources.complaints(SKEW_NS, 2 * SECOND_NS)
    }

    #[test]
    fn a_source_that_is_always_behind_is_told_and_one_within_the_skew_is_not() {
        assert!(complaints(0, 100).is_empty());
        assert!(complaints(SKEW_NS, 100).is_empty());
        assert!(complaints(SKEW_NS + 1, 9).is_empty(), "so few may be behind by chance");
        let [said] = &complaints(20 * SECOND_NS, 100)[..] else { panic!("one is behind") };
        assert!(
            said.starts_with("source `behind`: each of its 100 events came more than 19s 999ms behind"),
            "{said}"
        );
        assert!(said.contains("100 of them were late"), "{said}");
        let [said] = &complaints(SKEW_NS + 1, 100)[..] else { panic!("one is behind") };
        assert!(said.contains("more than 100ms behind") && said.contains("0 of them were late"), "{said}");
    }
}
