//! The journal: everything that changed the daemon's state since its last checkpoint.
//!
//! A batch is written before the ring gives its records back to the kernel, so at any moment a record
//! is in the ring, in the journal, or in both; each batch says up to which position of the ring it
//! goes, so one that is in both is known. Nothing here waits for the disk: what is written survives the
//! process. What the machine's end costs is in docs/operations.md.

use std::{
    borrow::Cow,
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{self, BufReader, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::frames::{FileError, Format, FrameReader, HEADER_LEN, push_frame};
use crate::{
    discover::Change,
    domain::{Event, Kind, Labels},
    ingest::{held::HeldChange, http::StreamChange},
};

const FORMAT: Format = Format { magic: *b"LTJOURNL", version: 2 };

/// Something that changes the daemon's state. The state follows from these alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// An event.
    Event(Event),
    /// Nothing older than this can come, in nanoseconds since the Unix epoch.
    Heartbeat(u64),
    /// What came before this may have been missed, in nanoseconds since the Unix epoch.
    Horizon {
        /// Why, as a metric's label.
        reason: Cow<'static, str>,
        /// Since when everything is known.
        timestamp_ns: u64,
    },
    /// The table of processes changed.
    Process(Change),
}

/// Inputs that are taken in together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Batch {
    /// Its number; each is one more than the last.
    pub sequence: u64,
    /// Position of the ring up to which its records go.
    pub position: u64,
    /// Records by hook and what became of them.
    pub received: Vec<(Cow<'static, str>, Cow<'static, str>, u64)>,
    /// What records told beside the first thing, or what was told without one, by hook.
    pub further: Vec<(Cow<'static, str>, u64)>,
    /// What its records changed of what is remembered of connections.
    pub streams: Vec<StreamChange>,
    /// What changed of what waits for Kubernetes.
    pub held: Vec<HeldChange>,
    /// In order.
    pub inputs: Vec<Input>,
}

impl Batch {
    /// Counts a record.
    pub fn count(&mut self, hook: &'static str, outcome: &'static str) {
        let known = self.received.iter_mut().find(|(its_hook, its, _)| *its_hook == hook && *its == outcome);
        match known {
            Some((.., count)) => *count += 1,
            None => self.received.push((hook.into(), outcome.into(), 1)),
        }
    }

    /// Counts what a record told beside the first thing.
    pub fn count_further(&mut self, hook: &'static str, count: u64) {
        if count == 0 {
            return;
        }
        match self.further.iter_mut().find(|(its_hook, _)| *its_hook == hook) {
            Some((_, known)) => *known += count,
            None => self.further.push((hook.into(), count)),
        }
    }

    /// Nothing happened.
    pub fn is_empty(&self) -> bool {
        let Self { received, further, streams, held, inputs, .. } = self;
        received.is_empty()
            && further.is_empty()
            && streams.is_empty()
            && held.is_empty()
            && inputs.is_empty()
    }
}

/// A batch as it is written. Events borrow, and labels, of which there are few, stand beside them once.
#[derive(Serialize, Deserialize)]
struct Written<'a> {
    sequence: u64,
    position: u64,
    #[serde(borrow)]
    received: Vec<(&'a str, &'a str, u64)>,
    further: Vec<(&'a str, u64)>,
    streams: Cow<'a, [StreamChange]>,
    held: Cow<'a, [HeldChange]>,
    labels: Vec<Arc<Labels>>,
    inputs: Vec<WrittenInput<'a>>,
}

#[derive(Serialize, Deserialize)]
enum WrittenInput<'a> {
    /// The source is the same for all, and nothing that is restored asks for the peer.
    Event {
        kind: Kind,
        timestamp_ns: u64,
        pid: u32,
        tid: u32,
        labels: usize,
        request_id: &'a str,
        item_id: &'a str,
    },
    Heartbeat(u64),
    Horizon {
        reason: &'a str,
        timestamp_ns: u64,
    },
    Process(Change),
}

impl<'a> Written<'a> {
    fn of(batch: &'a Batch) -> Self {
        let mut labels = Vec::new();
        let mut known: HashMap<*const Labels, usize> = HashMap::new();
        let mut inputs = Vec::with_capacity(batch.inputs.len());
        for input in &batch.inputs {
            inputs.push(match input {
                Input::Event(event) => WrittenInput::Event {
                    kind: event.kind,
                    timestamp_ns: event.timestamp_ns,
                    pid: event.pid,
                    tid: event.tid,
                    labels: *known.entry(Arc::as_ptr(&event.labels)).or_insert_with(|| {
                        labels.push(Arc::clone(&event.labels));
                        labels.len() - 1
                    }),
                    request_id: &event.request_id,
                    item_id: &event.item_id,
                },
                Input::Heartbeat(timestamp_ns) => WrittenInput::Heartbeat(*timestamp_ns),
                Input::Horizon { reason, timestamp_ns } => {
                    WrittenInput::Horizon { reason, timestamp_ns: *timestamp_ns }
                }
                Input::Process(change) => WrittenInput::Process(change.clone()),
            });
        }
        let received = batch.received.iter().map(|(hook, outcome, count)| (&**hook, &**outcome, *count));
        let further = batch.further.iter().map(|(hook, count)| (&**hook, *count)).collect();
        let Batch { sequence, position, .. } = *batch;
        let (streams, held) = (Cow::Borrowed(&*batch.streams), Cow::Borrowed(&*batch.held));
        Self { sequence, position, received: received.collect(), further, streams, held, labels, inputs }
    }

    /// The batch again, all its events of `source`. `None` when it asks for labels that it has not.
    fn into_batch(self, source: &Arc<str>) -> Option<Batch> {
        let mut inputs = Vec::with_capacity(self.inputs.len());
        for input in self.inputs {
            inputs.push(match input {
                WrittenInput::Event { kind, timestamp_ns, pid, tid, labels, request_id, item_id } => {
                    Input::Event(Event {
                        kind,
                        timestamp_ns,
                        source: Arc::clone(source),
                        pid,
                        tid,
                        labels: Arc::clone(self.labels.get(labels)?),
                        request_id: request_id.into(),
                        item_id: item_id.into(),
                        peer: None,
                    })
                }
                WrittenInput::Heartbeat(timestamp_ns) => Input::Heartbeat(timestamp_ns),
                WrittenInput::Horizon { reason, timestamp_ns } => {
                    Input::Horizon { reason: reason.to_owned().into(), timestamp_ns }
                }
                WrittenInput::Process(change) => Input::Process(change),
            });
        }
        let received = self.received.into_iter();
        let received =
            received.map(|(hook, outcome, count)| (hook.to_owned().into(), outcome.to_owned().into(), count));
        let further = self.further.into_iter().map(|(hook, count)| (hook.to_owned().into(), count));
        let (received, further) = (received.collect(), further.collect());
        let Self { sequence, position, .. } = self;
        let (streams, held) = (self.streams.into_owned(), self.held.into_owned());
        Some(Batch { sequence, position, received, further, streams, held, inputs })
    }
}

/// The file that batches are appended to.
#[derive(Debug)]
pub struct Journal {
    file: File,
    len: u64,
    buffer: Vec<u8>,
}

impl Journal {
    /// An empty journal. One that is there under this number is replaced: it was made ahead, and its
    /// turn never came.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.write_all(&FORMAT.header())?;
        Ok(Self { file, len: HEADER_LEN as u64, buffer: Vec::new() })
    }

    /// Appends a batch.
    ///
    /// # Errors
    /// It could not be written as a whole. Nothing may be appended after that: it would not be read.
    pub fn append(&mut self, batch: &Batch) -> io::Result<()> {
        self.buffer.clear();
        push_frame(&mut self.buffer, |out| {
            *out = postcard::to_extend(&Written::of(batch), std::mem::take(out)).map_err(io::Error::other)?;
            io::Result::Ok(())
        })?;
        self.file.write_all(&self.buffer)?;
        self.len += self.buffer.len() as u64;
        Ok(())
    }

    /// Its length in bytes.
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Is there no batch in it?
    pub const fn is_empty(&self) -> bool {
        self.len == HEADER_LEN as u64
    }
}

/// The batches of one journal that follow on each other, from the first wanted one on.
pub(super) struct Batches {
    reader: FrameReader<BufReader<File>>,
    source: Arc<str>,
    next_sequence: u64,
}

impl Batches {
    /// Reads a journal; events in it are of `source`, batches before `next_sequence` are passed over.
    ///
    /// # Errors
    /// There is no such file, or it is none of ours.
    pub(super) fn open(path: &Path, source: &Arc<str>, next_sequence: u64) -> Result<Self, FileError> {
        let file = File::open(path).map_err(|error| FileError::Io { path: path.to_path_buf(), error })?;
        let reader = FrameReader::open(BufReader::with_capacity(1 << 20, file), path, FORMAT)?;
        Ok(Self { reader, source: Arc::clone(source), next_sequence })
    }

    /// The number of the batch after the last one that was given out.
    pub(super) const fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// The next batch; `None` at the end of what is whole. Where the process was killed while it wrote,
    /// the rest of its last batch is missing, and the records of that batch are still in the ring.
    ///
    /// # Errors
    /// The file cannot be read, or makes no sense.
    pub(super) fn next(&mut self) -> Result<Option<Batch>, FileError> {
        loop {
            let content = match self.reader.next() {
                Ok(Some(content)) => content,
                Ok(None) => return Ok(None),
                Err(error @ FileError::Torn { .. }) => {
                    tracing::info!(%error, "the journal ends in the middle of a batch, which is left out");
                    return Ok(None);
                }
                Err(error) => return Err(error),
            };
            let batch = postcard::from_bytes::<Written<'_>>(content).ok();
            let batch = batch.and_then(|written| written.into_batch(&self.source));
            let Some(batch) = batch else { return Err(self.reader.nonsense("a batch cannot be read")) };
            if batch.sequence < self.next_sequence {
                continue;
            }
            if batch.sequence > self.next_sequence {
                tracing::warn!(
                    found = batch.sequence,
                    expected = self.next_sequence,
                    "the journal has a hole"
                );
                return Ok(None);
            }
            self.next_sequence += 1;
            return Ok(Some(batch));
        }
    }
}

/// Numbers of the journals in a folder, in order, with their paths.
pub(super) fn journals(folder: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(number) = name.strip_prefix("journal-").and_then(|number| number.parse().ok()) {
            found.push((number, path));
        }
    }
    found.sort_unstable();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::Arc};

    use super::{Batch, Batches, Input, Journal};
    use crate::{
        discover::Change,
        domain::{Event, Kind, Labels},
    };

    fn batch(sequence: u64) -> Batch {
        let labels = |release: &str| {
            Arc::new(Labels { service: "a".into(), release: release.into(), group: "".into() })
        };
        let event = |kind, release: &str| Event {
            kind,
            timestamp_ns: 1_700_000_000_000_000_000 + sequence,
            source: "node".into(),
            pid: 7,
            tid: 8,
            labels: labels(release),
            request_id: format!("r{sequence}").into(),
            item_id: "ä".into(),
            peer: None,
        };
        let mut batch = Batch { sequence, position: sequence * 328, ..Batch::default() };
        batch.count("click", "event");
        batch.count("click", "event");
        batch.count("write", "no_request_id");
        batch.inputs = vec![
            Input::Process(Change::Belongs { pid: 7, labels: labels("old"), wait: None }),
            Input::Heartbeat(5),
            Input::Event(event(Kind::Exposure, "old")),
            Input::Event(event(Kind::Click, "new")),
            Input::Horizon { reason: "attached_late".into(), timestamp_ns: 9 },
            Input::Process(Change::Ended { pid: 7 }),
        ];
        batch
    }

    fn read(path: &std::path::Path, first: u64) -> Vec<Batch> {
        let mut batches = Batches::open(path, &"node".into(), first).expect("is a journal");
        std::iter::from_fn(|| batches.next().expect("makes sense")).collect()
    }

    #[test]
    fn what_is_read_is_what_was_written_from_the_wanted_batch_on() {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let path = folder.path().join("journal-0");
        let mut journal = Journal::create(&path).expect("is writable");
        for sequence in 3..6 {
            journal.append(&batch(sequence)).expect("is writable");
        }
        assert_eq!(journal.len(), fs::metadata(&path).expect("is there").len());
        assert_eq!(read(&path, 3), [batch(3), batch(4), batch(5)]);
        assert_eq!(read(&path, 5), [batch(5)]);
        assert_eq!(read(&path, 2), [], "a batch is missing before these");
    }

    #[test]
    fn wherever_it_was_cut_every_whole_batch_is_read_and_no_other() {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let path = folder.path().join("journal-0");
        let mut journal = Journal::create(&path).expect("is writable");
        let mut ends = Vec::new();
        for sequence in 0..3 {
            journal.append(&batch(sequence)).expect("is writable");
            ends.push(journal.len());
        }
        let bytes = fs::read(&path).expect("is there");
        for len in 16..=bytes.len() {
            fs::write(&path, &bytes[..len]).expect("is writable");
            let whole = ends.iter().filter(|end| **end <= len as u64).count();
            assert_eq!(read(&path, 0).len(), whole, "{len}");
        }
    }
}
