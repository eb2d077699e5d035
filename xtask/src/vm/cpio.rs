//! Writes archives in the form the kernel unpacks at boot (`newc`), so that no other program is needed for it.

use std::io::{Result, Write};

const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// An archive under construction; nothing is complete before [`Archive::finish`].
pub(super) struct Archive<W> {
    output: W,
    entries: u32,
}

struct Entry<'a> {
    path: &'a str,
    mode: u32,
    device: (u32, u32),
    content: &'a [u8],
}

impl<W: Write> Archive<W> {
    pub(super) fn new(output: W) -> Self {
        Self { output, entries: 0 }
    }

    /// A directory; those above it must have come before.
    pub(super) fn directory(&mut self, path: &str) -> Result<()> {
        self.entry(&Entry { path, mode: DIRECTORY | 0o755, device: (0, 0), content: &[] })
    }

    pub(super) fn file(&mut self, path: &str, permissions: u32, content: &[u8]) -> Result<()> {
        self.entry(&Entry { path, mode: FILE | permissions, device: (0, 0), content })
    }

    /// A character device, for the time before `/dev` is mounted.
    pub(super) fn character_device(&mut self, path: &str, device: (u32, u32)) -> Result<()> {
        self.entry(&Entry { path, mode: CHARACTER_DEVICE | 0o600, device, content: &[] })
    }

    pub(super) fn finish(mut self) -> Result<W> {
        self.entry(&Entry { path: "TRAILER!!!", mode: 0, device: (0, 0), content: &[] })?;
        self.output.flush()?;
        Ok(self.output)
    }

    fn entry(&mut self, entry: &Entry<'_>) -> Result<()> {
        self.entries += 1;
        let path = entry.path.trim_start_matches('/');
        let size = u32::try_from(entry.content.len()).map_err(std::io::Error::other)?;
        let name_size = u32::try_from(path.len() + 1).map_err(std::io::Error::other)?;
        let (major, minor) = entry.device;
        // Inode, mode, owner, group, links, time, size, device of the file, device it is, name's length, checksum.
        let fields = [self.entries, entry.mode, 0, 0, 1, 0, size, 0, 0, major, minor, name_size, 0];
        self.output.write_all(b"070701")?;
        for field in fields {
            write!(self.output, "{field:08X}")?;
        }
        self.output.write_all(path.as_bytes())?;
        self.output.write_all(b"\0")?;
        self.pad(110 + path.len() + 1)?;
        self.output.write_all(entry.content)?;
        self.pad(entry.content.len())
    }

    /// Header with name, and content, each end on a multiple of four.
    fn pad(&mut self, length: usize) -> Result<()> {
        self.output.write_all(&[0; 3][..length.next_multiple_of(4) - length])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_header_name_and_content_each_padded_to_four() {
        let mut archive = Archive::new(Vec::new());
        archive.file("/ab", 0o644, b"hello").expect("memory takes everything");
        let bytes = archive.finish().expect("memory takes everything");
        let (header, rest) = bytes.split_at(110);
        assert_eq!(
            std::str::from_utf8(header),
            Ok(concat!(
                "070701", "00000001", "000081A4", "00000000", "00000000", "00000001", "00000000", "00000005",
                "00000000", "00000000", "00000000", "00000000", "00000003", "00000000"
            ))
        );
        // 110 + 3 bytes of name are padded to 116.
        assert_eq!(&rest[..6], b"ab\0\0\0\0");
        assert_eq!(&rest[6..14], b"hello\0\0\0");
        assert_eq!(&rest[14..20], b"070701");
        assert_eq!(bytes.len() % 4, 0);
    }

    #[test]
    fn the_end_is_marked() {
        let bytes = Archive::new(Vec::new()).finish().expect("memory takes everything");
        assert!(bytes.windows(11).any(|window| window == b"TRAILER!!!\0"));
    }
}
