//! Events as JSON lines in a file, for `linktracer replay`; packed by zstd when the name asks for it.

use std::{
    fs::File,
    io::{self, BufWriter, Write as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use crate::{domain::Event, replay::write_event};

/// Files of this extension are packed.
const PACKED_EXTENSION: &str = "zst";
/// zstd's own default: a fifth of the size or less, faster than events come.
const ZSTD_LEVEL: i32 = 3;
const BUFFER_BYTES: usize = 1 << 20;

/// A file that events are written to.
pub struct Recording {
    path: PathBuf,
    output: Output,
}

type Sink = Box<dyn io::Write + Send>;

enum Output {
    Plain(BufWriter<Sink>),
    Packed(BufWriter<zstd::Encoder<'static, Sink>>),
}

impl Recording {
    /// Creates the file, or takes standard output for `-`. A name that ends in `.zst` makes it a file
    /// packed by zstd. An existing file is not overwritten.
    ///
    /// # Errors
    /// The file exists or cannot be created.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        let sink: Sink = if path == Path::new("-") {
            Box::new(io::stdout())
        } else {
            let file = File::create_new(path).with_context(|| {
                format!("cannot create the recording {}\n  remedy: name a file that does not exist yet, in a folder that does", path.display())
            })?;
            Box::new(file)
        };
        let output = if path.extension().is_some_and(|extension| extension == PACKED_EXTENSION) {
            let mut encoder = zstd::Encoder::new(sink, ZSTD_LEVEL)?;
            encoder.include_checksum(true)?;
            Output::Packed(BufWriter::with_capacity(BUFFER_BYTES, encoder))
        } else {
            Output::Plain(BufWriter::with_capacity(BUFFER_BYTES, sink))
        };
        Ok(Self { path: path.to_path_buf(), output })
    }

    /// Writes one event.
    ///
    /// # Errors
    /// The file cannot be written, as when the disk is full.
    pub fn write(&mut self, event: &Event) -> anyhow::Result<()> {
        match &mut self.output {
            Output::Plain(output) => write_event(event, output),
            Output::Packed(output) => write_event(event, output),
        }
        .with_context(|| cannot_write(&self.path))
    }

    /// Hands everything written so far to the system. Of a packed file, that much can be read already.
    ///
    /// # Errors
    /// The file cannot be written, as when the disk is full.
    pub fn flush(&mut self) -> anyhow::Result<()> {
        match &mut self.output {
            Output::Plain(output) => output.flush(),
            Output::Packed(output) => output.flush(),
        }
        .with_context(|| cannot_write(&self.path))
    }

    /// Hands everything to the system and ends the file. Without this, a packed file reads as cut off.
    ///
    /// # Errors
    /// The file cannot be written, as when the disk is full.
    pub fn finish(mut self) -> anyhow::Result<()> {
        self.flush()?;
        let Self { path, output } = self;
        match output {
            Output::Plain(_) => Ok(()),
            Output::Packed(output) => {
                let encoder = output.into_inner().map_err(io::IntoInnerError::into_error);
                encoder.and_then(zstd::Encoder::finish).and_then(|mut sink| sink.flush())
            }
        }
        .with_context(|| cannot_write(&path))
    }
}

fn cannot_write(path: &Path) -> String {
    format!("cannot write the recording {}", path.display())
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Read as _};

    use super::Recording;
    use crate::domain::{Event, Kind};

    fn event(timestamp_ns: u64) -> Event {
        Event {
            kind: Kind::Report,
            timestamp_ns,
            source: "".into(),
            pid: 0,
            tid: 0,
            labels: std::sync::Arc::default(),
            request_id: "".into(),
            item_id: "".into(),
            peer: None,
        }
    }

    #[test]
    fn what_was_flushed_of_a_packed_recording_can_be_read_and_it_is_whole_when_finished() {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let path = folder.path().join("events.jsonl.zst");
        let mut recording = Recording::create(&path).expect("a new file");
        recording.write(&event(1)).expect("there is room");
        recording.flush().expect("there is room");
        let mut text = String::new();
        let mut decoder = zstd::Decoder::new(fs::File::open(&path).expect("is there")).expect("is zstd");
        assert!(decoder.read_to_string(&mut text).is_err(), "not finished");
        assert_eq!(text, "{\"kind\":\"report\",\"ts\":1}\n");
        recording.write(&event(2)).expect("there is room");
        recording.finish().expect("there is room");
        let whole = zstd::decode_all(fs::File::open(&path).expect("is there")).expect("whole");
        assert_eq!(whole, b"{\"kind\":\"report\",\"ts\":1}\n{\"kind\":\"report\",\"ts\":2}\n");
    }

    #[test]
    fn a_plain_recording_is_lines_and_an_existing_file_is_kept() {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let path = folder.path().join("events.jsonl");
        let mut recording = Recording::create(&path).expect("a new file");
        recording.write(&event(1)).expect("there is room");
        recording.finish().expect("there is room");
        assert_eq!(fs::read(&path).expect("is there"), b"{\"kind\":\"report\",\"ts\":1}\n");
        assert!(Recording::create(&path).is_err());
    }
}
