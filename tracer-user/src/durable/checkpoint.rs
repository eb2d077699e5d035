//! The checkpoint: the daemon's whole state at one moment, in one file.
//!
//! Written by a thread of its own while the join goes on ([`Snapshot`] can be read meanwhile), to a
//! file beside the old one that takes its place only when it is on the disk. So there is always one
//! that is whole.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufReader, BufWriter, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use serde::{Deserialize, Serialize};

use super::frames::{FileError, Format, FrameReader, FrameWriter};
use crate::{
    discover::Change,
    ingest::{held::HeldChange, http::StreamChange},
    join::{Snapshot, SnapshotSegment, SnapshotState},
    slo::BrokenLinks,
    telemetry::Numbers,
};

const FORMAT: Format = Format { magic: *b"LTCHECKP", version: 6 };

/// Everything but the join, in as many frames as it takes.
const TAG_DAEMON: u8 = 1;
/// The join without its segments, likewise.
const TAG_JOIN: u8 = 2;
/// A segment.
const TAG_SEGMENT: u8 = 3;
/// A segment that is not there.
const TAG_NO_SEGMENT: u8 = 4;
/// The last frame.
const TAG_END: u8 = 5;

/// Which ring the records before a checkpoint were taken from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingPlace {
    /// The boot in which the ring exists.
    pub boot_id: String,
    /// The kernel's number of it.
    pub id: u32,
}

/// The sliding window, and what was lost.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LossState {
    /// The window.
    pub links: BrokenLinks,
    /// What the kernel side had counted of losses that the window knows of, by place in its table.
    pub known: Vec<u64>,
    /// What is lost from then on was lost after this time, in nanoseconds since the Unix epoch.
    pub after_ns: u64,
}

/// What the daemon knows beside the join.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DaemonState {
    /// The name of the node.
    pub source: String,
    /// The daemon ended with it: nothing was taken in or published after it.
    pub is_last: bool,
    /// When, in nanoseconds since the Unix epoch.
    pub written_ns: u64,
    /// In which boot.
    pub boot_id: String,
    /// Unix time less monotonic time in that boot, in nanoseconds.
    pub clock_offset_ns: u64,
    /// The ring it goes on with; `None` when it is to be a new one.
    pub ring: Option<RingPlace>,
    /// The number of the first batch that is not in it.
    pub next_sequence: u64,
    /// The journal that this batch is in.
    pub journal: u64,
    /// Position of the ring up to which it goes.
    pub position: u64,
    /// How many different counts the build has that wrote this: those of another one cannot be gone on with.
    pub counters: u64,
    /// Counts of kernel sides before the present one, by place in their table.
    pub earlier_hits: Vec<u64>,
    /// Counts of the present one at that moment.
    pub hits: Vec<u64>,
    /// The daemon's own counts.
    pub numbers: Numbers,
    /// The sliding window, and what was lost.
    pub losses: LossState,
    /// What is remembered of connections.
    pub streams: Vec<StreamChange>,
    /// What waits for Kubernetes.
    pub held: Vec<HeldChange>,
    /// The table of processes.
    pub processes: Vec<Change>,
}

/// A checkpoint.
#[derive(Debug)]
pub struct Checkpoint {
    /// All but the join.
    pub daemon: DaemonState,
    /// The join.
    pub join: Snapshot,
}

/// Writes `checkpoint` to `path` by way of `temporary`, and returns when it is on the disk.
///
/// # Errors
/// It cannot be written. What was at `path` is still there then.
pub(super) fn write(checkpoint: Checkpoint, temporary: &Path, path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(temporary)?;
    let mut writer = FrameWriter::begin(BufWriter::with_capacity(1 << 20, file), FORMAT)?;
    writer.value(TAG_DAEMON, &checkpoint.daemon)?;
    let (state, segments) = checkpoint.join.into_parts();
    writer.value(TAG_JOIN, &state)?;
    let mut count = 0_u64;
    // Each is given back to the join as soon as it is written.
    for segment in segments {
        count += 1;
        match segment {
            Some(segment) => writer.frame(TAG_SEGMENT, |out| {
                out.extend(segment.words().flatten().flat_map(|word| word.to_le_bytes()));
            })?,
            None => writer.frame(TAG_NO_SEGMENT, |_| ())?,
        }
    }
    writer.frame(TAG_END, |out| out.extend(count.to_le_bytes()))?;
    let mut buffered = writer.into_inner();
    buffered.flush()?;
    buffered.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    fs::rename(temporary, path)?;
    // The name is on the disk only when the folder is.
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

/// Reads a checkpoint. `None` when there is no file.
///
/// # Errors
/// There is one, and it cannot be used.
pub(super) fn read(path: &Path) -> Result<Option<Checkpoint>, FileError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(FileError::Io { path: path.to_path_buf(), error }),
    };
    let mut reader = FrameReader::open(BufReader::with_capacity(1 << 20, file), path, FORMAT)?;
    let (mut daemon, mut join) = (Vec::new(), Vec::new());
    let mut segments: Vec<Option<SnapshotSegment>> = Vec::new();
    let mut words = Vec::new();
    let expected = loop {
        let Some(content) = reader.next()? else { return Err(reader.nonsense("its end is missing")) };
        match content.split_first() {
            Some((&TAG_DAEMON, part)) => daemon.extend(part),
            Some((&TAG_JOIN, part)) => join.extend(part),
            Some((&TAG_SEGMENT, part)) => {
                let (bytes, _) = part.as_chunks::<8>();
                words.clear();
                words.extend(bytes.iter().map(|word| u64::from_le_bytes(*word)));
                match SnapshotSegment::from_words(&words) {
                    Some(segment) => segments.push(Some(segment)),
                    None => return Err(reader.nonsense("a segment has another length")),
                }
            }
            Some((&TAG_NO_SEGMENT, _)) => segments.push(None),
            Some((&TAG_END, count)) => break count.first_chunk().map(|count| u64::from_le_bytes(*count)),
            _ => return Err(reader.nonsense("a part of it is of no known kind")),
        }
    };
    if expected != Some(segments.len() as u64) {
        return Err(reader.nonsense("segments are missing"));
    }
    let nonsense = |what: &str, error: postcard::Error| reader.nonsense(format!("{what}: {error}"));
    let daemon = postcard::from_bytes(&daemon).map_err(|error| nonsense("the daemon's state", error))?;
    let state: SnapshotState = postcard::from_bytes(&join).map_err(|error| nonsense("the join", error))?;
    Ok(Some(Checkpoint { daemon, join: Snapshot::new(state, segments) }))
}

#[cfg(test)]
mod tests {
    use siphasher::sip::SipHasher13;

    use super::*;
    use crate::domain::{Event, Kind, Labels};
    use crate::join::{Join, JoinConfig, Reports};

    /// A join with something in every table, and the same fingerprints in every run.
    fn join_of_everything() -> Join {
        let skew_ns = JoinConfig::default().click_window_ns;
        let config = JoinConfig { skew_ns, reports: Reports::All, ..JoinConfig::default() };
        let (state, segments) = Join::new(config.clone()).snapshot(&mut Vec::new()).into_parts();
        let mut state = serde_json::to_value(&state).expect("it is in memory");
        for (number, key) in ["request_key", "item_key", "source_key"].into_iter().enumerate() {
            state["prints"][key] = serde_json::json!([number, number + 10]);
        }
        let state: SnapshotState = serde_json::from_value(state).expect("its keys are numbers");
        let mut join = Join::restore(config, Snapshot::new(state, segments)).expect("it is empty");
        const SECOND_NS: u64 = 1_000_000_000;
        let mut push = |kind, seconds: u64, request_id: &str, item_id: &str| {
            let event = Event {
                kind,
                timestamp_ns: 1_700_000_000 * SECOND_NS + seconds * SECOND_NS + 7,
                source: "node-a".into(),
                pid: 7,
                tid: 7,
                labels: std::sync::Arc::new(Labels { service: "web".into(), ..Labels::default() }),
                request_id: request_id.into(),
                item_id: item_id.into(),
                peer: None,
            };
            join.push(event, &mut Vec::new());
        };
        push(Kind::Request, 0, "shown", "");
        for number in 0..30 {
            push(Kind::Exposure, 1 + number, "shown", &format!("item {number}"));
        }
        push(Kind::Request, 35, "shown", "");
        push(Kind::Exposure, 36, "shown", "item 1");
        push(Kind::Click, 37, "shown", "item 2");
        push(Kind::Report, 38, "", "");
        push(Kind::Request, 39, "waits", "");
        push(Kind::Click, 40, "clicked", "item");
        push(Kind::Exposure, 41, "opened", "item");
        push(Kind::Exposure, 30, "opened", "late item");
        push(Kind::Exposure, 44, "unasked", "item");
        push(Kind::Click, 45, "unasked", "item");
        push(Kind::Exposure, 46, "unasked too", "item");
        push(Kind::Click, 48, "reported", "item");
        push(Kind::Request, 52, "buffered", "");
        join
    }

    /// A file of another version is refused; one of the same version that means something else would make wrong numbers.
    #[test]
    fn the_version_says_what_the_state_of_the_join_means() {
        let mut join = join_of_everything();
        let (state, segments) = join.snapshot(&mut Vec::new()).into_parts();
        assert!(join.pending().tables().iter().all(|(_, pending)| *pending > 0), "{:?}", join.pending());
        let mut bytes = postcard::to_allocvec(&state).expect("it is in memory");
        for segment in segments.flatten() {
            bytes.extend(segment.words().flatten().flat_map(|word| word.to_le_bytes()));
        }
        let digest = SipHasher13::new().hash(&bytes);
        assert_eq!(
            (FORMAT.version, digest),
            (6, 0x5dc6_e2ec_c33b_e24a),
            "what a checkpoint says has changed: raise its version, and put it and the new digest here"
        );
    }
}
