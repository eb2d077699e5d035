//! One line: what it says, every field checked, nothing guessed.
//!
//! serde_json reads it, with texts borrowed from the line. Deliberately absent: a parser of our own; what
//! was measured is in docs/performance.md.

use std::borrow::Cow;
use std::str::Utf8Error;

use serde::Deserialize;
use thiserror::Error;

use crate::domain::Kind;

/// Longer lines are rejected without being kept in memory. The end of the line is not counted.
pub const MAX_LINE_BYTES: usize = 1 << 20;

/// Why a line is not an event.
#[derive(Debug, Error)]
pub enum LineError {
    /// It is longer than [`MAX_LINE_BYTES`].
    #[error("line is longer than {MAX_LINE_BYTES} bytes")]
    TooLong,
    /// It is not text.
    #[error("not UTF-8, column {}", .0.valid_up_to() + 1)]
    NotText(#[from] Utf8Error),
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

/// What a line says of an event, as far as the join asks. Texts that are absent or `null` are empty, and so are ids that the kind does not
/// have; numbers that are absent are 0.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    pub(super) timestamp_ns: u64,
    pub(super) source: Cow<'a, str>,
    pub(super) request_id: Cow<'a, str>,
    pub(super) item_id: Cow<'a, str>,
    pub(super) pid: u32,
    pub(super) service: Cow<'a, str>,
    pub(super) release: Cow<'a, str>,
    pub(super) group: Cow<'a, str>,
}

/// The format of a line. Keys that are not here are ignored. What begins with `_` only has to be of
/// its type.
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
    #[serde(rename = "tid")]
    _tid: Option<u32>,
    #[serde(borrow)]
    service: Option<Text<'a>>,
    #[serde(borrow)]
    release: Option<Text<'a>>,
    #[serde(borrow)]
    group: Option<Text<'a>>,
    #[serde(borrow, rename = "peer")]
    _peer: Option<Text<'a>>,
}

/// Text that is borrowed from the line unless it has escapes. Within an `Option`, serde borrows a
/// `Cow` only with this wrapper.
#[derive(Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Reads one line, which is not blank.
pub(super) fn read(text: &str) -> Result<(Kind, Fields<'_>), LineError> {
    // serde would take the fields from an array, too.
    if !text.trim_ascii_start().starts_with('{') {
        serde_json::from_str::<serde::de::IgnoredAny>(text)?;
        return Err(LineError::NotAnObject);
    }
    let line: Line<'_> = serde_json::from_str(text)?;
    let kind = Kind::ALL.into_iter().find(|kind| kind.name() == line.kind.0);
    let kind = kind.ok_or_else(|| LineError::UnknownKind(abridged(&line.kind.0)))?;
    let has_request_id = kind != Kind::Report;
    let has_item_id = matches!(kind, Kind::Exposure | Kind::Click);
    let fields = Fields {
        timestamp_ns: line.ts,
        source: plain(line.source),
        request_id: plain(line.request_id.filter(|_| has_request_id)),
        item_id: plain(line.item_id.filter(|_| has_item_id)),
        pid: line.pid.unwrap_or(0),
        service: plain(line.service),
        release: plain(line.release),
        group: plain(line.group),
    };
    Ok((kind, fields))
}

/// Absent and `null` are the same as empty.
fn plain(field: Option<Text<'_>>) -> Cow<'_, str> {
    field.map_or(Cow::Borrowed(""), |text| text.0)
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
