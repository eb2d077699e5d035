//! One allocation for equal labels and for equal source names.

use std::collections::HashSet;
use std::sync::Arc;

use crate::domain::Labels;

/// A recording names few services and few nodes. One that names more starts afresh at this many, so
/// that memory stays bounded; sharing is an economy and equality never depends on it.
const MAX_INTERNED: usize = 4096;

#[derive(Debug)]
pub(super) struct Interner {
    sources: HashSet<Arc<str>>,
    labels: HashSet<Arc<Labels>>,
    last_labels: Arc<Labels>,
    last_source: Arc<str>,
}

impl Default for Interner {
    fn default() -> Self {
        let (sources, labels) = Default::default();
        Self { sources, labels, last_labels: Arc::default(), last_source: "".into() }
    }
}

impl Interner {
    pub(super) fn source(&mut self, name: &str) -> Arc<str> {
        if *self.last_source == *name {
            return Arc::clone(&self.last_source);
        }
        let shared = match self.sources.get(name) {
            Some(shared) => Arc::clone(shared),
            None => {
                if self.sources.len() >= MAX_INTERNED {
                    self.sources.clear();
                }
                let shared: Arc<str> = name.into();
                self.sources.insert(Arc::clone(&shared));
                shared
            }
        };
        self.last_source = Arc::clone(&shared);
        shared
    }

    pub(super) fn labels(&mut self, service: &str, release: &str, group: &str) -> Arc<Labels> {
        let last = &self.last_labels;
        if *last.service == *service && *last.release == *release && *last.group == *group {
            return Arc::clone(last);
        }
        let labels = Labels { service: service.into(), release: release.into(), group: group.into() };
        let shared = match self.labels.get(&labels) {
            Some(shared) => Arc::clone(shared),
            None => {
                if self.labels.len() >= MAX_INTERNED {
                    self.labels.clear();
                }
                let shared = Arc::new(labels);
                self.labels.insert(Arc::clone(&shared));
                shared
            }
        };
        self.last_labels = Arc::clone(&shared);
        shared
    }
}
