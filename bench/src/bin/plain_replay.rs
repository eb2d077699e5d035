//! `plain_replay FILE`: what `linktracer replay FILE --output json` does, in the plainest way, as the
//! floor beside it. One thread reads a line, makes an event of it and joins it. Its input has no faults.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use serde::Deserialize;
use tracer_user::domain::{Counts, Event, Kind, Labels};
use tracer_user::join::{Join, JoinConfig};

#[derive(Deserialize)]
struct Line {
    kind: String,
    ts: u64,
    #[serde(default)]
    source: String,
    #[serde(default)]
    request_id: String,
    #[serde(default)]
    item_id: String,
    #[serde(default)]
    pid: u32,
    #[serde(default)]
    tid: u32,
    #[serde(default)]
    service: String,
    #[serde(default)]
    release: String,
    #[serde(default)]
    group: String,
    peer: Option<String>,
}

fn main() -> anyhow::Result<()> {
    let path = std::env::args_os().nth(1).context("usage: plain_replay FILE")?;
    let mut input = BufReader::new(File::open(path)?);
    let mut join = Join::new(JoinConfig::default());
    let (mut counts, mut outcomes, mut line) = (Counts::default(), Vec::new(), Vec::new());
    while input.read_until(b'\n', &mut line)? > 0 {
        join.push(event(serde_json::from_slice(&line)?)?, &mut outcomes);
        counts.extend(outcomes.iter());
        outcomes.clear();
        line.clear();
    }
    join.finish(&mut outcomes);
    counts.extend(outcomes.iter());
    #[expect(clippy::print_stdout, reason = "it is what the program is for")]
    {
        println!("{}", serde_json::to_string(&counts)?);
    }
    Ok(())
}

fn event(line: Line) -> anyhow::Result<Event> {
    let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.name() == line.kind) else {
        bail!("unknown kind {}", line.kind);
    };
    let Line { service, release, group, .. } = line;
    Ok(Event {
        kind,
        timestamp_ns: line.ts,
        source: line.source.into(),
        pid: line.pid,
        tid: line.tid,
        labels: Arc::new(Labels { service: service.into(), release: release.into(), group: group.into() }),
        request_id: line.request_id.into(),
        item_id: line.item_id.into(),
        peer: line.peer.map(Into::into),
    })
}
