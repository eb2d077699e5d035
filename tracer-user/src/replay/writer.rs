//! From events to lines: the inverse of the reader.

use std::io::{self, Write};

use serde::Serialize;

use crate::domain::Event;

/// Fields that are empty are left out: the reader puts them back.
#[derive(Serialize)]
struct Line<'a> {
    kind: &'static str,
    ts: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    source: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    request_id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    item_id: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    pid: u32,
    #[serde(skip_serializing_if = "is_zero")]
    tid: u32,
    #[serde(skip_serializing_if = "str::is_empty")]
    service: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    release: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    group: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<&'a str>,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Writes the event as one line, its end included. Reading the line gives an equal event, as long as
/// the event carries only the ids that its kind has.
pub fn write_event(event: &Event, mut output: impl Write) -> io::Result<()> {
    let line = Line {
        kind: event.kind.name(),
        ts: event.timestamp_ns,
        source: &event.source,
        request_id: &event.request_id,
        item_id: &event.item_id,
        pid: event.pid,
        tid: event.tid,
        service: &event.labels.service,
        release: &event.labels.release,
        group: &event.labels.group,
        peer: event.peer.as_deref(),
    };
    serde_json::to_writer(&mut output, &line)?;
    output.write_all(b"\n")
}
