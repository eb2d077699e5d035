//! From a piece of the input to the events in it.

use std::ops::Range;

use memchr::memchr;

use super::intern::Interner;
use super::line::{self, Fields, LineError, MAX_LINE_BYTES};
use super::pieces::Piece;
use crate::domain::{Event, Kind};

/// Rejected lines beyond this many are counted and no longer named.
pub(super) const MAX_NAMED_REJECTIONS: usize = 20;

/// What one piece came to.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Lines, blank ones included.
    pub(super) lines: u64,
    /// The events, in the order of their lines.
    pub(super) events: Vec<Event>,
    /// How many lines are not events.
    pub(super) rejected: u64,
    /// The first of them: the number within the piece, from 1, and the reason.
    pub(super) named: Vec<(u64, LineError)>,
}

impl Batch {
    /// Reads every line of the piece.
    pub(super) fn read(piece: &Piece, interner: &mut Interner) -> Self {
        let mut batch = Self::default();
        match piece {
            Piece::TooLong => {
                batch.lines = 1;
                batch.reject(LineError::TooLong);
            }
            Piece::Lines(bytes) => batch.read_lines(bytes, interner),
        }
        batch
    }

    fn read_lines(&mut self, bytes: &[u8], interner: &mut Interner) {
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
            self.lines += 1;
            if end - start > MAX_LINE_BYTES {
                self.reject(LineError::TooLong);
            } else if !bytes[start..end].trim_ascii().is_empty() {
                match text_of(start..end).map_err(LineError::from).and_then(line::read) {
                    Ok((kind, fields)) => self.events.push(event(kind, fields, interner)),
                    Err(reason) => self.reject(reason),
                }
            }
            start = end + 1;
        }
    }

    fn reject(&mut self, reason: LineError) {
        self.rejected += 1;
        if self.named.len() < MAX_NAMED_REJECTIONS {
            self.named.push((self.lines, reason));
        }
    }
}

fn event(kind: Kind, fields: Fields<'_>, interner: &mut Interner) -> Event {
    Event {
        kind,
        timestamp_ns: fields.timestamp_ns,
        source: interner.source(&fields.source),
        pid: fields.pid,
        tid: fields.tid,
        labels: interner.labels(&fields.service, &fields.release, &fields.group),
        request_id: fields.request_id.into(),
        item_id: fields.item_id.into(),
        peer: fields.peer.map(Into::into),
    }
}
