//! From a piece of the input to the events in it, as the join takes them.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use memchr::memchr;

use super::line::{self, Fields, LineError, MAX_LINE_BYTES};
use super::pieces::Piece;
use crate::domain::{Kind, Labels};
use crate::join::{Fingerprinter, ItemPrint, RequestPrint, SourcePrint};

/// Rejected lines beyond this many are counted and no longer named.
pub(super) const MAX_NAMED_REJECTIONS: usize = 20;

/// Sources of one piece beyond this many are not named.
const MAX_NAMED_SOURCES: usize = 64;

/// Sets of labels that are compared one by one before the map is asked. A recording names few.
const FEW_SETS: usize = 8;

/// What one piece came to.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Lines, blank ones included.
    pub(super) lines: u64,
    /// The events, in the order of their lines.
    pub(super) events: Vec<Recorded>,
    /// What they are counted under.
    pub(super) labels: LabelSets,
    /// Names of sources that this reader came to.
    pub(super) sources: Vec<(SourcePrint, Box<str>)>,
    /// How many lines are not events.
    pub(super) rejected: u64,
    /// The first of them: the number within the piece, from 1, and the reason.
    pub(super) named: Vec<(u64, LineError)>,
}

/// A recorded event, with its ids as the join knows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Recorded {
    pub(super) kind: Kind,
    pub(super) timestamp_ns: u64,
    pub(super) source: SourcePrint,
    pub(super) pid: u32,
    pub(super) request: RequestPrint,
    pub(super) item: ItemPrint,
    /// The place of its labels in the batch.
    pub(super) labels: usize,
}

/// Different sets of labels, each under its number.
#[derive(Debug, Default)]
pub(super) struct LabelSets {
    sets: Vec<Arc<Labels>>,
    /// Those beyond the first few.
    numbers: HashMap<Arc<Labels>, usize>,
    last: usize,
}

/// Reads pieces, one after the other.
#[derive(Debug, Clone)]
pub(super) struct PieceReader {
    prints: Fingerprinter,
    /// The last source and its fingerprint: there are few, and they come in a row.
    last_source: Option<(String, SourcePrint)>,
}

impl PieceReader {
    /// Readers with the same fingerprints read the same ids as the same.
    pub(super) fn new(prints: Fingerprinter) -> Self {
        Self { prints, last_source: None }
    }

    /// Reads every line of the piece.
    pub(super) fn read(&mut self, piece: &Piece) -> Batch {
        let mut batch = Batch::default();
        match piece {
            Piece::TooLong => {
                batch.lines = 1;
                batch.reject(LineError::TooLong);
            }
            Piece::Lines(bytes) => self.read_lines(bytes, &mut batch),
        }
        batch
    }

    fn read_lines(&mut self, bytes: &[u8], batch: &mut Batch) {
        // One look at everything costs a fraction of one look at each text. Where it fails, the lines
        // are looked at one by one.
        let whole = std::str::from_utf8(bytes).ok();
        let text_of = |range: Range<usize>| match whole {
            Some(text) => Ok(&text[range]),
            None => std::str::from_utf8(&bytes[range]),
        };
        let mut start = 0;
        while start < bytes.len() {
            let end = memchr(b'\n', &bytes[start..]).map_or(bytes.len(), |length| start + length);
            batch.lines += 1;
            if end - start > MAX_LINE_BYTES {
                batch.reject(LineError::TooLong);
            } else if !bytes[start..end].trim_ascii().is_empty() {
                match text_of(start..end).map_err(LineError::from).and_then(line::read) {
                    Ok((kind, fields)) => {
                        let event = self.event(kind, &fields, batch);
                        batch.events.push(event);
                    }
                    Err(reason) => batch.reject(reason),
                }
            }
            start = end + 1;
        }
    }

    fn event(&mut self, kind: Kind, fields: &Fields<'_>, batch: &mut Batch) -> Recorded {
        let source = match &self.last_source {
            Some((name, print)) if *name == fields.source => *print,
            _ => self.turn_to_source(&fields.source, batch),
        };
        Recorded {
            kind,
            timestamp_ns: fields.timestamp_ns,
            source,
            pid: fields.pid,
            request: self.prints.request(&fields.request_id),
            item: self.prints.item(&fields.item_id),
            labels: batch.labels.number(&fields.service, &fields.release, &fields.group),
        }
    }
}

impl PieceReader {
    #[cold]
    fn turn_to_source(&mut self, name: &str, batch: &mut Batch) -> SourcePrint {
        let print = self.prints.source(name);
        self.last_source = Some((name.to_owned(), print));
        if batch.sources.len() < MAX_NAMED_SOURCES && batch.sources.iter().all(|(known, _)| *known != print) {
            batch.sources.push((print, name.into()));
        }
        print
    }
}

impl Batch {
    fn reject(&mut self, reason: LineError) {
        self.rejected += 1;
        if self.named.len() < MAX_NAMED_REJECTIONS {
            self.named.push((self.lines, reason));
        }
    }
}

impl LabelSets {
    /// The sets, in the order of their numbers.
    pub(super) fn sets(&self) -> &[Arc<Labels>] {
        &self.sets
    }

    fn number(&mut self, service: &str, release: &str, group: &str) -> usize {
        let is_wanted = |labels: &Arc<Labels>| {
            *labels.service == *service && *labels.release == *release && *labels.group == *group
        };
        if self.sets.get(self.last).is_some_and(is_wanted) {
            return self.last;
        }
        self.last = match self.sets.iter().take(FEW_SETS).position(is_wanted) {
            Some(number) => number,
            None => {
                let labels = Arc::new(Labels {
                    service: service.into(),
                    release: release.into(),
                    group: group.into(),
                });
                self.numbers.get(&labels).copied().unwrap_or_else(|| self.insert(labels))
            }
        };
        self.last
    }

    fn insert(&mut self, labels: Arc<Labels>) -> usize {
        let number = self.sets.len();
        if number >= FEW_SETS {
            self.numbers.insert(Arc::clone(&labels), number);
        }
        self.sets.push(labels);
        number
    }
}

#[cfg(test)]
mod tests {
    use super::LabelSets;

    #[test]
    fn equal_labels_have_one_number_however_many_there_are() {
        let mut labels = LabelSets::default();
        for round in 0..3 {
            for release in 0..100 {
                assert_eq!(labels.number("a", &release.to_string(), ""), release, "round {round}");
            }
        }
        assert_eq!(labels.sets().len(), 100);
        assert_eq!(&*labels.sets()[70].release, "70");
        assert_ne!(labels.number("a", "1", "b"), 1);
    }
}
