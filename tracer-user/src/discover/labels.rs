//! The labels of a process, with a bound on how many values there can be.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::domain::Labels;

/// Values that the labels `release` and `group` can each have per service; what goes beyond becomes
/// [`OTHER`]. Every value is a set of time series that the operator's Prometheus has to keep.
pub(super) const MAX_VALUES: usize = 32;
/// Longest value in bytes: a commit and a model beside it.
const MAX_VALUE_LEN: usize = 96;
/// A value that no running process has had for this long makes room for a new one, and its series go:
/// longer than the default click window, so that nothing that can still come belongs to it.
const GONE_AFTER: Duration = Duration::from_secs(3600);
/// The value past the bound.
pub(super) const OTHER: &str = "other";

/// Gives out labels; equal ones share an allocation.
#[derive(Default)]
pub(super) struct LabelBook {
    known: HashMap<Labels, Arc<Labels>>,
    /// By service and label: each value, and when a process with it was last seen.
    values: HashMap<(Box<str>, Label), HashMap<Box<str>, Instant>>,
}

/// A label whose values come from processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Label {
    Release,
    Group,
}

impl LabelBook {
    /// The labels of a process of the service that says so of itself.
    pub(super) fn labels(&mut self, service: &str, release: &str, group: &str, now: Instant) -> Arc<Labels> {
        let labels = Labels {
            service: service.into(),
            release: self.bounded(service, Label::Release, release, now),
            group: self.bounded(service, Label::Group, group, now),
        };
        Arc::clone(self.known.entry(labels.clone()).or_insert_with(|| Arc::new(labels)))
    }

    /// Notes that a process with these labels runs.
    pub(super) fn touch(&mut self, labels: &Labels, now: Instant) {
        for (label, value) in [(Label::Release, &labels.release), (Label::Group, &labels.group)] {
            let of_label = self.values.get_mut(&(labels.service.clone(), label));
            if let Some(seen) = of_label.and_then(|values| values.get_mut(value)) {
                *seen = now;
            }
        }
    }

    /// Forgets what no process has had for long, and returns the labels whose series can go.
    pub(super) fn forget_gone(&mut self, now: Instant) -> Vec<Arc<Labels>> {
        for values in self.values.values_mut() {
            values.retain(|_, seen| now.duration_since(*seen) < GONE_AFTER);
        }
        let values = &self.values;
        let is_known = |labels: &Labels, label, value: &str| {
            value == OTHER
                || values.get(&(labels.service.clone(), label)).is_some_and(|known| known.contains_key(value))
        };
        let mut gone = Vec::new();
        self.known.retain(|labels, shared| {
            let stays = is_known(labels, Label::Release, &labels.release)
                && is_known(labels, Label::Group, &labels.group);
            if !stays {
                gone.push(Arc::clone(shared));
            }
            stays
        });
        gone
    }

    fn bounded(&mut self, service: &str, label: Label, value: &str, now: Instant) -> Box<str> {
        let value: Box<str> = clean(value).into();
        let values = self.values.entry((service.into(), label)).or_default();
        if values.len() >= MAX_VALUES && !values.contains_key(&value) {
            return OTHER.into();
        }
        values.insert(value.clone(), now);
        value
    }
}

/// A value from a process is not trusted: short, and nothing that breaks a line. What is too long ends
/// in a number made of all of it, so that two values that begin alike stay two.
fn clean(value: &str) -> String {
    let printable: String = value.chars().filter(|character| !character.is_control()).collect();
    if printable.len() <= MAX_VALUE_LEN {
        return printable;
    }
    // FNV-1a: the number has to be the same on every node and in every version.
    let number = printable
        .bytes()
        .fold(0x811c_9dc5_u32, |sum, byte| (sum ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let mark = format!("~{number:08x}");
    format!("{}{mark}", &printable[..printable.floor_char_boundary(MAX_VALUE_LEN - mark.len())])
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Instant};

    use super::{GONE_AFTER, Label, LabelBook, MAX_VALUES, OTHER, clean};
    use crate::domain::Labels;

    #[test]
    fn values_past_the_bound_become_other_and_known_ones_stay() {
        let (mut book, now) = (LabelBook::default(), Instant::now());
        let mut release = |service: &str, value: &str| book.bounded(service, Label::Release, value, now);
        for number in 0..MAX_VALUES {
            assert_eq!(&*release("a", &format!("r{number}")), format!("r{number}"));
        }
        assert_eq!(&*release("a", "one more"), OTHER);
        assert_eq!(&*release("a", "r0"), "r0");
        assert_eq!(&*release("b", "first"), "first");
    }

    #[test]
    fn a_release_that_no_process_has_any_more_makes_room_and_its_series_go() {
        let (mut book, start) = (LabelBook::default(), Instant::now());
        for number in 0..MAX_VALUES {
            let release = book.bounded("a", Label::Release, &format!("r{number}"), start);
            let labels = Labels { service: "a".into(), release, group: "".into() };
            book.known.insert(labels.clone(), Arc::new(labels));
        }
        book.bounded("a", Label::Group, "", start);
        let later = start + GONE_AFTER;
        let kept = Labels { service: "a".into(), release: "r7".into(), group: "".into() };
        book.touch(&kept, later);
        let gone = book.forget_gone(later);
        assert_eq!(gone.len(), MAX_VALUES - 1);
        assert!(!gone.iter().any(|labels| **labels == kept));
        assert_eq!(&*book.bounded("a", Label::Release, "new", later), "new");
    }

    #[test]
    fn a_value_of_a_lying_process_is_made_harmless() {
        assert_eq!(clean("a\nb\u{7}c"), "abc");
        let (one, two) = (clean(&"ä".repeat(100)), clean(&"ä".repeat(101)));
        assert!(one.len() <= 96 && one.starts_with("ääää"), "{one}");
        assert_ne!(one, two, "they begin alike and are two");
    }
}
