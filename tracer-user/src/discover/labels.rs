//! The labels of a process, with a bound on how many values there can be.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{go_build_info, proc};
use crate::{
    config::{LabelSource, Service},
    domain::Labels,
};

/// Values that the labels `release` and `group` can each have per service; what goes beyond becomes
/// [`OTHER`]. Every value is a set of time series that the operator's Prometheus has to keep.
pub(super) const MAX_VALUES: usize = 32;
/// Longest value in bytes.
const MAX_VALUE_LEN: usize = 64;
/// The value past the bound.
pub(super) const OTHER: &str = "other";

/// Gives out labels; equal ones share an allocation.
#[derive(Default)]
pub(super) struct LabelBook {
    known: HashMap<Labels, Arc<Labels>>,
    values: HashMap<(String, &'static str), HashSet<String>>,
}

impl LabelBook {
    /// The labels of a process of the service.
    pub(super) fn of_process(&mut self, service: &Service, pid: u32) -> Arc<Labels> {
        let release = service.release.iter().find_map(|source| value(source, pid)).unwrap_or_default();
        let group = service.group.as_ref().and_then(|source| value(source, pid)).unwrap_or_default();
        let labels = Labels {
            service: service.name.as_str().into(),
            release: self.bounded(&service.name, "release", release),
            group: self.bounded(&service.name, "group", group),
        };
        Arc::clone(self.known.entry(labels.clone()).or_insert_with(|| Arc::new(labels)))
    }

    fn bounded(&mut self, service: &str, label: &'static str, value: String) -> Box<str> {
        let value = clean(value);
        let values = self.values.entry((service.to_owned(), label)).or_default();
        if values.contains(&value) {
            return value.into();
        }
        if values.len() >= MAX_VALUES {
            return OTHER.into();
        }
        values.insert(value.clone());
        value.into()
    }
}

fn value(source: &LabelSource, pid: u32) -> Option<String> {
    match source {
        LabelSource::Environment(name) => proc::environment_variable(pid, name).ok()?,
        LabelSource::GoBuildInfo => go_build_info::revision(&proc::reach(pid, &proc::exe(pid).ok()?)),
    }
    .filter(|value| !value.is_empty())
}

/// A value from a process is not trusted: short, and nothing that breaks a line.
fn clean(value: String) -> String {
    let printable = value.chars().filter(|character| !character.is_control());
    let mut clean = String::new();
    for character in printable {
        if clean.len() + character.len_utf8() > MAX_VALUE_LEN {
            break;
        }
        clean.push(character);
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::{LabelBook, MAX_VALUES, OTHER, clean};

    #[test]
    fn values_past_the_bound_become_other_and_known_ones_stay() {
        let mut book = LabelBook::default();
        for number in 0..MAX_VALUES {
            assert_eq!(&*book.bounded("a", "release", format!("r{number}")), format!("r{number}"));
        }
        assert_eq!(&*book.bounded("a", "release", "one more".to_owned()), OTHER);
        assert_eq!(&*book.bounded("a", "release", "r0".to_owned()), "r0");
        assert_eq!(&*book.bounded("b", "release", "first".to_owned()), "first");
    }

    #[test]
    fn a_value_of_a_lying_process_is_made_harmless() {
        assert_eq!(clean("a\nb\u{7}c".to_owned()), "abc");
        assert_eq!(clean("ä".repeat(100)).len(), 64);
    }
}
