//! The commit that the Go toolchain writes into an executable.
//!
//! Format since Go 1.18, from the documentation of the package `debug/buildinfo`: a section
//! `.go.buildinfo` with a 32-byte header, then the toolchain's version and the module information,
//! each a varint length and that many bytes. The module information has 16 bytes of marker on
//! either side and lines such as `build\tvcs.revision=...`.

use std::{fs::File, path::Path};

use memmap2::Mmap;
use object::{Object as _, ObjectSection as _};

const MAGIC: &[u8] = b"\xff Go buildinf:";
const HEADER_LEN: usize = 32;
/// Flag bit: the strings follow the header.
const FLAG_INLINE: u8 = 2;
const MARKER_LEN: usize = 16;

/// The commit that the executable at `path` was built from, if it is a Go program that says so.
pub(super) fn revision(path: &Path) -> Option<String> {
    let file = File::open(path).ok()?;
    // SAFETY: the map is read-only. A file that is truncated while it is mapped raises a signal; the
    // same holds for every tool that reads binaries, and package managers replace files instead.
    let bytes = unsafe { Mmap::map(&file) }.ok()?;
    let elf = object::File::parse(&*bytes).ok()?;
    revision_in(elf.section_by_name(".go.buildinfo")?.data().ok()?)
}

fn revision_in(section: &[u8]) -> Option<String> {
    let header = section.get(..HEADER_LEN)?;
    if !header.starts_with(MAGIC) || header[15] & FLAG_INLINE == 0 {
        return None;
    }
    let (_version, rest) = string(&section[HEADER_LEN..])?;
    let (modules, _) = string(rest)?;
    let modules = modules.get(MARKER_LEN..modules.len().checked_sub(MARKER_LEN)?)?;
    let modules = std::str::from_utf8(modules).ok()?;
    let line = modules.lines().find_map(|line| line.strip_prefix("build\tvcs.revision="))?;
    Some(line.to_owned()).filter(|revision| !revision.is_empty())
}

/// A varint length and that many bytes, and what follows them.
fn string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut len: u64 = 0;
    for (index, byte) in bytes.iter().take(9).enumerate() {
        len |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            let rest = &bytes[index + 1..];
            return rest.split_at_checked(usize::try_from(len).ok()?);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{FLAG_INLINE, HEADER_LEN, MAGIC, revision_in};

    fn section(modules: &str) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.resize(HEADER_LEN, 0);
        bytes[15] = FLAG_INLINE;
        for text in ["go1.27.3", &format!("{}{modules}{}", "x".repeat(16), "y".repeat(16))] {
            let len = text.len();
            bytes.extend([
                u8::try_from(len & 0x7f).expect("7 bits") | 0x80,
                u8::try_from(len >> 7).expect("small"),
            ]);
            bytes.extend(text.as_bytes());
        }
        bytes
    }

    #[test]
    fn the_commit_is_found() {
        let bytes =
            section("path\tx\nbuild\tvcs=git\nbuild\tvcs.revision=0a1b2c\nbuild\tvcs.modified=false\n");
        assert_eq!(revision_in(&bytes).as_deref(), Some("0a1b2c"));
    }

    #[test]
    fn a_section_that_is_cut_short_at_any_length_has_none() {
        let bytes = section("build\tvcs.revision=0a1b2c\n");
        for len in 0..bytes.len() {
            assert_eq!(revision_in(&bytes[..len]), None, "{len}");
        }
    }
}
