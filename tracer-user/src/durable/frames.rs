//! Files of frames: each frame has its length and a checksum, so that what was cut off or damaged is
//! noticed where it begins, and everything before it is good.
//!
//! A file begins with what it is and in which version. Both kinds of files in `state_dir` are made of
//! frames; what is in them, and in which order, is not known here.

use std::{
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

/// Longest frame in bytes that is read; nothing writes one that comes near it.
const MAX_FRAME_LEN: usize = 64 << 20;
/// Content of a frame, where the writer chooses.
pub(super) const CHUNK_LEN: usize = 1 << 20;
/// What a file is, in bytes: eight that say the kind, four the version, four that are 0.
pub(super) const HEADER_LEN: usize = 16;

/// A kind of file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Format {
    /// Its first eight bytes.
    pub(super) magic: [u8; 8],
    /// Of what follows them.
    pub(super) version: u32,
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Something else.
    #[error("{0} is no file of linktracer")]
    Foreign(PathBuf),
    /// Of another build.
    #[error("{path} has the format {found}, and this build reads {expected}")]
    Version {
        /// Which file.
        path: PathBuf,
        /// What it says.
        found: u32,
        /// What can be read.
        expected: u32,
    },
    /// Cut off or damaged.
    #[error("{path} is cut off or damaged at byte {offset}")]
    Torn {
        /// Which file.
        path: PathBuf,
        /// Where what is good ends.
        offset: u64,
    },
    /// Whole, and yet it makes no sense.
    #[error("{path}: {reason}")]
    Content {
        /// Which file.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// It cannot be read.
    #[error("{path}: {error}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

impl Format {
    /// The beginning of a file.
    pub(super) fn header(self) -> [u8; HEADER_LEN] {
        let mut header = [0; HEADER_LEN];
        header[..8].copy_from_slice(&self.magic);
        header[8..12].copy_from_slice(&self.version.to_le_bytes());
        header
    }
}

/// Appends a frame with this content to `out`.
///
/// # Errors
/// `content` fails.
pub(super) fn push_frame<E>(
    out: &mut Vec<u8>,
    content: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    let start = out.len();
    out.extend([0; 8]);
    content(out)?;
    let len = u32::try_from(out.len() - start - 8).unwrap_or(u32::MAX).to_le_bytes();
    let checksum = checksum(len, &out[start + 8..]);
    out[start..start + 4].copy_from_slice(&len);
    out[start + 4..start + 8].copy_from_slice(&checksum.to_le_bytes());
    Ok(())
}

/// Of a frame's length and content.
fn checksum(len: [u8; 4], content: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&len);
    hasher.update(content);
    hasher.finalize()
}

/// Reads the frames of a file.
pub(super) struct FrameReader<R> {
    input: R,
    path: PathBuf,
    /// Up to here everything was good.
    offset: u64,
    content: Vec<u8>,
}

impl<R: Read> FrameReader<R> {
    /// A reader of a file of this format.
    ///
    /// # Errors
    /// It is another file, or none.
    pub(super) fn open(mut input: R, path: &Path, format: Format) -> Result<Self, FileError> {
        let path = path.to_path_buf();
        let mut header = Vec::new();
        let read = (&mut input).take(HEADER_LEN as u64).read_to_end(&mut header);
        if let Err(error) = read {
            return Err(FileError::Io { path, error });
        }
        let expected = format.header();
        if header.len() < HEADER_LEN || header[..8] != expected[..8] {
            return Err(FileError::Foreign(path));
        }
        if header != expected {
            let found = header[8..12].iter().rev().fold(0, |number, byte| number << 8 | u32::from(*byte));
            return Err(FileError::Version { path, found, expected: format.version });
        }
        Ok(Self { input, path, offset: HEADER_LEN as u64, content: Vec::new() })
    }

    /// The next frame's content; `None` at the end of the file.
    ///
    /// # Errors
    /// What comes next is no whole frame.
    pub(super) fn next(&mut self) -> Result<Option<&[u8]>, FileError> {
        let failed = |error| FileError::Io { path: self.path.clone(), error };
        self.content.clear();
        (&mut self.input).take(8).read_to_end(&mut self.content).map_err(failed)?;
        if self.content.is_empty() {
            return Ok(None);
        }
        let Some((len, rest)) = self.content.split_first_chunk::<4>() else { return Err(self.torn()) };
        let Some(expected) = rest.first_chunk::<4>() else { return Err(self.torn()) };
        let (len, expected) = (*len, u32::from_le_bytes(*expected));
        let content_len = u32::from_le_bytes(len) as usize;
        if content_len > MAX_FRAME_LEN {
            return Err(self.torn());
        }
        self.content.clear();
        (&mut self.input).take(content_len as u64).read_to_end(&mut self.content).map_err(failed)?;
        if self.content.len() != content_len || checksum(len, &self.content) != expected {
            return Err(self.torn());
        }
        self.offset += 8 + content_len as u64;
        Ok(Some(&self.content))
    }

    /// An error about what was read from the file.
    pub(super) fn nonsense(&self, reason: impl Into<String>) -> FileError {
        FileError::Content { path: self.path.clone(), reason: reason.into() }
    }

    fn torn(&self) -> FileError {
        FileError::Torn { path: self.path.clone(), offset: self.offset }
    }
}

/// Writes content of any length as frames that begin with a tag.
pub(super) struct FrameWriter<W> {
    output: W,
    frame: Vec<u8>,
}

impl<W: Write> FrameWriter<W> {
    /// Begins a file of this format.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn begin(mut output: W, format: Format) -> io::Result<Self> {
        output.write_all(&format.header())?;
        Ok(Self { output, frame: Vec::new() })
    }

    /// Writes one frame: the tag and the content.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn frame(&mut self, tag: u8, content: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        self.frame.clear();
        push_frame(&mut self.frame, |out| {
            out.push(tag);
            content(out);
            io::Result::Ok(())
        })?;
        self.output.write_all(&self.frame)
    }

    /// Writes a value over as many frames as it takes.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn value(&mut self, tag: u8, value: &impl serde::Serialize) -> io::Result<()> {
        let mut chunks = Chunks { writer: self, tag, pending: Vec::with_capacity(CHUNK_LEN) };
        postcard::to_io(value, &mut chunks).map_err(io::Error::other)?;
        chunks.flush()
    }

    /// What it wrote to.
    pub(super) fn into_inner(self) -> W {
        self.output
    }
}

struct Chunks<'a, W> {
    writer: &'a mut FrameWriter<W>,
    tag: u8,
    pending: Vec<u8>,
}

impl<W: Write> Write for Chunks<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let take = bytes.len().min(CHUNK_LEN - self.pending.len());
        self.pending.extend(&bytes[..take]);
        if self.pending.len() == CHUNK_LEN {
            self.flush()?;
        }
        Ok(take)
    }

    fn flush(&mut self) -> io::Result<()> {
        let pending = std::mem::take(&mut self.pending);
        self.writer.frame(self.tag, |out| out.extend(&pending))?;
        self.pending = pending;
        self.pending.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{FileError, Format, FrameReader, FrameWriter};

    const FORMAT: Format = Format { magic: *b"TESTFILE", version: 3 };

    fn file(contents: &[&[u8]]) -> Vec<u8> {
        let mut writer = FrameWriter::begin(Vec::new(), FORMAT).expect("in memory");
        for content in contents {
            writer.frame(7, |out| out.extend(*content)).expect("in memory");
        }
        writer.into_inner()
    }

    /// The contents up to the first frame that is not whole, and whether there was one.
    fn read(bytes: &[u8]) -> Result<(Vec<Vec<u8>>, bool), FileError> {
        let mut reader = FrameReader::open(bytes, Path::new("x"), FORMAT)?;
        let mut contents = Vec::new();
        loop {
            match reader.next() {
                Ok(Some(content)) => contents.push(content[1..].to_vec()),
                Ok(None) => return Ok((contents, false)),
                Err(FileError::Torn { .. }) => return Ok((contents, true)),
                Err(error) => return Err(error),
            }
        }
    }

    #[test]
    fn wherever_it_is_cut_what_is_whole_is_read_and_nothing_else() {
        let bytes = file(&[b"first", b"", b"third"]);
        let ends = [16, 16 + 14, 16 + 14 + 9, 16 + 14 + 9 + 14];
        assert_eq!(bytes.len(), ends[3]);
        for len in 16..=bytes.len() {
            let (contents, torn) = read(&bytes[..len]).expect("has its header");
            assert_eq!(contents.len(), ends.iter().filter(|end| **end <= len).count() - 1, "{len}");
            assert_eq!(torn, !ends.contains(&len), "{len}");
        }
    }

    #[test]
    fn every_changed_bit_is_noticed() {
        let bytes = file(&[b"first", b"second"]);
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(!matches!(read(&changed), Ok((_, false))), "{bit}");
        }
    }

    #[test]
    fn another_file_and_another_version_are_told_apart() {
        assert!(matches!(read(b""), Err(FileError::Foreign(_))));
        assert!(matches!(read(b"{\"kind\":\"request\"}"), Err(FileError::Foreign(_))));
        let mut newer = file(&[b"x"]);
        newer[8] = 4;
        assert!(matches!(read(&newer), Err(FileError::Version { found: 4, expected: 3, .. })));
    }
}
