//! From lines to events: every field checked, nothing guessed.

use std::borrow::Cow;
use std::io::{self, BufRead};

use serde::Deserialize;
use thiserror::Error;

use super::intern::Interner;
use crate::domain::{Event, Kind};

/// Longer lines are rejected without being kept in memory. The end of the line is not counted.
pub const MAX_LINE_BYTES: usize = 1 << 20;

/// Reads events from JSON lines, in constant memory.
#[derive(Debug)]
pub struct EventReader<R> {
    input: R,
    line: u64,
    buffer: Vec<u8>,
    interner: Interner,
}

/// One line that is not blank.
#[derive(Debug)]
pub struct Record {
    /// The line's number, from 1.
    pub line: u64,
    /// The event, or why the line is not one.
    pub event: Result<Event, LineError>,
}

/// Why a line is not an event.
#[derive(Debug, Error)]
pub enum LineError {
    /// It is longer than [`MAX_LINE_BYTES`].
    #[error("line is longer than {MAX_LINE_BYTES} bytes")]
    TooLong,
    /// It is JSON, but not an object.
    #[error("not a JSON object")]
    NotAnObject,
    /// It is not JSON, or a field is missing or of the wrong type.
    #[error("{}", without_line(.0))]
    Malformed(#[from] serde_json::Error),
    /// The kind is none of ours.
    #[error("unknown kind {0:?}, expected request, exposure, click or report")]
    UnknownKind(String),
}

impl<R: BufRead> EventReader<R> {
    /// Reads from the beginning of `input`.
    pub fn new(input: R) -> Self {
        Self { input, line: 0, buffer: Vec::new(), interner: Interner::default() }
    }

    /// The next line that is not blank; `None` at the end. Fails only when the input cannot be read.
    pub fn next_record(&mut self) -> io::Result<Option<Record>> {
        while let Some(length) = self.read_line()? {
            let event = match length {
                Length::TooLong => Err(LineError::TooLong),
                Length::Whole if self.buffer.trim_ascii().is_empty() => continue,
                Length::Whole => parse(&self.buffer, &mut self.interner),
            };
            return Ok(Some(Record { line: self.line, event }));
        }
        Ok(None)
    }

    /// Reads one line into the buffer, without its end; `None` when there is no more.
    fn read_line(&mut self) -> io::Result<Option<Length>> {
        self.buffer.clear();
        let mut length = Length::Whole;
        let mut is_end = true;
        loop {
            let chunk = match self.input.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                chunk => chunk?,
            };
            if chunk.is_empty() {
                break;
            }
            is_end = false;
            let newline = chunk.iter().position(|byte| *byte == b'\n');
            let text = &chunk[..newline.unwrap_or(chunk.len())];
            if self.buffer.len() + text.len() > MAX_LINE_BYTES {
                length = Length::TooLong;
                self.buffer.clear();
            }
            if matches!(length, Length::Whole) {
                self.buffer.extend_from_slice(text);
            }
            let consumed = text.len() + usize::from(newline.is_some());
            self.input.consume(consumed);
            if newline.is_some() {
                break;
            }
        }
        if is_end {
            return Ok(None);
        }
        self.line += 1;
        Ok(Some(length))
    }
}

#[derive(Debug, Clone, Copy)]
enum Length {
    Whole,
    TooLong,
}

/// The format of a line. Keys that are not here are ignored.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    kind: Text<'a>,
    ts: u64,
    #[serde(borrow)]
    source: Option<Text<'a>>,
    #[serde(borrow)]
    request_id: Option<Text<'a>>,
    #[serde(borrow)]
    item_id: Option<Text<'a>>,
    pid: Option<u32>,
    tid: Option<u32>,
    #[serde(borrow)]
    service: Option<Text<'a>>,
    #[serde(borrow)]
    release: Option<Text<'a>>,
    #[serde(borrow)]
    group: Option<Text<'a>>,
    #[serde(borrow)]
    peer: Option<Text<'a>>,
}

/// Text that is borrowed from the line unless it has escapes. Within an `Option`, serde borrows a
/// `Cow` only with this wrapper.
#[derive(Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

fn parse(bytes: &[u8], interner: &mut Interner) -> Result<Event, LineError> {
    // serde would take the fields from an array, too.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        serde_json::from_slice::<serde::de::IgnoredAny>(bytes)?;
        return Err(LineError::NotAnObject);
    }
    let line: Line<'_> = serde_json::from_slice(bytes)?;
    let kind = Kind::ALL.into_iter().find(|kind| kind.name() == line.kind.0);
    let kind = kind.ok_or_else(|| LineError::UnknownKind(abridged(&line.kind.0)))?;
    let has_request_id = kind != Kind::Report;
    let has_item_id = matches!(kind, Kind::Exposure | Kind::Click);
    Ok(Event {
        kind,
        timestamp_ns: line.ts,
        source: interner.source(text(&line.source)),
        pid: line.pid.unwrap_or(0),
        tid: line.tid.unwrap_or(0),
        labels: interner.labels(text(&line.service), text(&line.release), text(&line.group)),
        request_id: if has_request_id { text(&line.request_id).into() } else { "".into() },
        item_id: if has_item_id { text(&line.item_id).into() } else { "".into() },
        peer: line.peer.map(|peer| peer.0.into()),
    })
}

/// Absent and `null` are the same as empty.
fn text<'a>(field: &'a Option<Text<'_>>) -> &'a str {
    field.as_ref().map_or("", |text| &*text.0)
}

/// serde_json counts lines within what it was given, where there is always one.
fn without_line(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    match message.strip_suffix(&place) {
        Some(reason) => format!("{}, column {}", abridged(reason), error.column()),
        None => abridged(&message),
    }
}

/// Enough of a text to recognise it in a message: it may quote a value of any length.
fn abridged(text: &str) -> String {
    const MAX_CHARS: usize = 160;
    let mut abridged: String = text.chars().take(MAX_CHARS).collect();
    if abridged.len() < text.len() {
        abridged.push('…');
    }
    abridged
}
