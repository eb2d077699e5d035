//! What is read: a file or standard input, plain, gzip or zstd. Which of them it is shows in its first
//! bytes; names are not asked.
//!
//! Deliberately absent: lines. What comes out of here is bytes, unpacked.

use std::io::{self, BufReader, Cursor, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::bufread::MultiGzDecoder;

/// Room for packed bytes that were read and not unpacked yet.
const PACKED_BUFFER_BYTES: usize = 1 << 17;
/// Bytes that tell the packings apart.
const MAGIC_BYTES: usize = 4;

/// How the bytes are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    Plain,
    Gzip,
    Zstd,
}

impl Packing {
    /// What bytes that begin like this are.
    fn of(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            // A frame, or a frame to be skipped, which may be the first one.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::Plain,
        }
    }

    /// Its name in messages.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

/// Bytes that are read and how far reading has come.
pub(super) struct Input<'a> {
    pub(super) packing: Packing,
    /// The bytes, unpacked.
    pub(super) bytes: Box<dyn Read + Send + 'a>,
    /// Bytes taken so far, as they came: packed.
    pub(super) taken: Arc<AtomicU64>,
}

impl<'a> Input<'a> {
    /// Looks at the first bytes and makes what unpacks them. Packed files may consist of several
    /// parts, one after the other, as `cat` makes them.
    ///
    /// # Errors
    /// The first bytes cannot be read.
    pub(super) fn open(mut raw: impl Read + Send + 'a) -> io::Result<Self> {
        let mut start = Vec::with_capacity(MAGIC_BYTES);
        raw.by_ref().take(MAGIC_BYTES as u64).read_to_end(&mut start)?;
        let packing = Packing::of(&start);
        let taken = Arc::new(AtomicU64::new(0));
        let counted = Counted { raw: Cursor::new(start).chain(raw), taken: Arc::clone(&taken) };
        let buffered = |counted| BufReader::with_capacity(PACKED_BUFFER_BYTES, counted);
        let bytes: Box<dyn Read + Send + 'a> = match packing {
            Packing::Plain => Box::new(counted),
            Packing::Gzip => Box::new(MultiGzDecoder::new(buffered(counted))),
            Packing::Zstd => Box::new(zstd::Decoder::with_buffer(buffered(counted))?),
        };
        Ok(Self { packing, bytes, taken })
    }
}

/// Counts what is taken.
struct Counted<R> {
    raw: R,
    taken: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.raw.read(buffer)?;
        self.taken.fetch_add(length as u64, Ordering::Relaxed);
        Ok(length)
    }
}
