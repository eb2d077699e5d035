//! Sets of labels by a small key, so that what waits keeps four bytes of them.

use std::collections::HashMap;
use std::sync::Arc;

use super::config::Reports;
use super::event::LabelsKey;
use crate::domain::Labels;

/// More sets of labels than this are not told apart: a set is never taken out again, because it may
/// be anywhere in the state. What comes after them is counted under `other`.
const MAX_SETS: usize = 65_536;
/// The same once their text takes more bytes than this: a recording may say anything.
const MAX_TEXT_BYTES: usize = 16 << 20;
/// The service, release and group of what is not told apart.
const OTHER: &str = "other";

/// Gives each set of labels its key.
#[derive(Debug)]
pub struct LabelsTable {
    reports: Reports,
    sets: Vec<Arc<Labels>>,
    /// Each set with whether its service configures a report.
    keys: HashMap<Arc<Labels>, (LabelsKey, bool)>,
    other: LabelsKey,
    /// What the text of all sets takes.
    text_bytes: usize,
    /// The last set asked for. It is kept alive, so that its address is no other set's.
    last: Option<(Arc<Labels>, LabelsKey, bool)>,
}

impl LabelsTable {
    /// One that knows no labels but `other`. `reports` says which services configure a report.
    pub fn new(reports: Reports) -> Self {
        let other = Arc::new(Labels { service: OTHER.into(), release: OTHER.into(), group: OTHER.into() });
        Self {
            reports,
            sets: vec![other],
            keys: HashMap::new(),
            other: LabelsKey(0),
            text_bytes: 0,
            last: None,
        }
    }

    /// One that knows these sets, as [`LabelsTable::sets`] gave them.
    pub(super) fn with_sets(reports: Reports, sets: Vec<Labels>) -> Self {
        let mut table = Self::new(reports);
        for labels in sets.into_iter().skip(1) {
            table.insert(&Arc::new(labels));
        }
        table
    }

    /// Every set, in the order of their keys.
    pub(super) fn sets(&self) -> Vec<Labels> {
        self.sets.iter().map(|labels| Labels::clone(labels)).collect()
    }

    /// The key of these labels, and whether their service configures a report.
    pub fn key(&mut self, labels: &Arc<Labels>) -> (LabelsKey, bool) {
        if let Some((last, key, wants_report)) = &self.last
            && Arc::ptr_eq(last, labels)
        {
            return (*key, *wants_report);
        }
        let (key, wants_report) = match self.keys.get(labels) {
            Some(known) => *known,
            None if self.sets.len() >= MAX_SETS || self.text_bytes + text_bytes(labels) > MAX_TEXT_BYTES => {
                (self.other, self.reports.include(labels))
            }
            None => self.insert(labels),
        };
        self.last = Some((Arc::clone(labels), key, wants_report));
        (key, wants_report)
    }

    /// The labels that a key stands for.
    pub fn get(&self, key: LabelsKey) -> &Arc<Labels> {
        self.sets.get(key.0 as usize).unwrap_or(&self.sets[0])
    }

    /// Whether labels of this service have been asked for.
    pub fn has_service(&self, service: &str) -> bool {
        self.sets.iter().any(|labels| *labels.service == *service)
    }

    fn insert(&mut self, labels: &Arc<Labels>) -> (LabelsKey, bool) {
        let key = u32::try_from(self.sets.len()).map_or(self.other, LabelsKey);
        let entry = (key, self.reports.include(labels));
        self.text_bytes += text_bytes(labels);
        self.sets.push(Arc::clone(labels));
        self.keys.insert(Arc::clone(labels), entry);
        entry
    }
}

fn text_bytes(labels: &Labels) -> usize {
    let Labels { service, release, group } = labels;
    service.len() + release.len() + group.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(release: usize) -> Arc<Labels> {
        Arc::new(Labels { service: "web".into(), release: release.to_string().into(), group: "".into() })
    }

    #[test]
    fn equal_labels_have_one_key_that_gives_them_back() {
        let mut table = LabelsTable::new(Reports::All);
        let (first, _) = table.key(&labels(1));
        let (second, _) = table.key(&labels(2));
        assert_ne!(first, second);
        assert_eq!(table.key(&labels(1)), (first, true));
        assert_eq!(table.get(second), &labels(2));
    }

    #[test]
    fn past_the_bound_labels_are_other_and_keep_their_report() {
        let mut table = LabelsTable::new(Reports::Services(["web".into()].into()));
        for release in 1..MAX_SETS {
            table.key(&labels(release));
        }
        let (key, wants_report) = table.key(&labels(MAX_SETS));
        assert_eq!((&*table.get(key).release, wants_report), (OTHER, true));
        assert_eq!(table.get(table.keys[&labels(7)].0), &labels(7));
    }
    #[test]
    fn past_the_bound_of_their_text_labels_are_other() {
        let mut table = LabelsTable::new(Reports::none());
        let long = |number: u8| {
            let service = String::from_utf8(vec![b'a' + number; MAX_TEXT_BYTES / 3]).expect("ASCII");
            Arc::new(Labels { service: service.into(), release: "".into(), group: "".into() })
        };
        let services: Vec<String> = (0..5)
            .map(|number| {
                let (key, _) = table.key(&long(number));
                table.get(key).service.chars().take(5).collect()
            })
            .collect();
        assert_eq!(services, ["aaaaa", "bbbbb", "ccccc", OTHER, OTHER]);
    }
}
