//! What the Go toolchain writes into a program about how it was built.
//!
//! Format from the documentation of the package `debug/buildinfo`: a header of 32 bytes, aligned to
//! 16. Since Go 1.18 the version and the module information follow it, each a varint length and
//! that many bytes; before, the header holds pointers to two Go strings. The module information
//! has 16 bytes of marker on either side, and lines of fields separated by tabs.

use std::path::Path;

use crate::symbols::{
    SymbolError,
    image::{Image, u64_at},
    mapped,
};

const MAGIC: &[u8] = b"\xff Go buildinf:";
const HEADER_LEN: usize = 32;
/// Flag bits at offset 15: the other byte order, and strings that follow the header.
const FLAG_BIG_ENDIAN: u8 = 1;
const FLAG_INLINE: u8 = 2;
const MARKER_LEN: usize = 16;
/// A program with thousands of modules has half a megabyte.
const MAX_LEN: u64 = 4 << 20;

/// How a Go program was built.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BuildInfo {
    /// The toolchain, for example `go1.27.3`.
    pub go_version: String,
    /// The import path of its main package; empty where the program does not say.
    pub path: String,
    /// The module of its main package.
    pub main: Option<ModuleVersion>,
    /// The modules it was built with; one that is replaced is listed as what replaces it.
    pub dependencies: Vec<ModuleVersion>,
    /// Build settings such as `CGO_ENABLED`, `-ldflags` and `vcs.revision`, in the file's order.
    pub settings: Vec<(String, String)>,
}

/// A module and its version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModuleVersion {
    /// Its path.
    pub path: String,
    /// Its version, `(devel)` for one that has none.
    pub version: String,
}

impl BuildInfo {
    /// The value of a build setting that is not empty.
    pub fn setting(&self, key: &str) -> Option<&str> {
        let found = self.settings.iter().find(|(name, _)| name == key)?;
        Some(found.1.as_str()).filter(|value| !value.is_empty())
    }

    /// The commit it was built from.
    pub fn revision(&self) -> Option<&str> {
        self.setting("vcs.revision")
    }

    fn parse(version: &str, modules: &str) -> Self {
        let mut info = Self { go_version: version.to_owned(), ..Self::default() };
        for line in modules.lines() {
            let (kind, rest) = line.split_once('\t').unwrap_or((line, ""));
            let module = || {
                let mut fields = rest.split('\t').map(str::to_owned);
                ModuleVersion {
                    path: fields.next().unwrap_or_default(),
                    version: fields.next().unwrap_or_default(),
                }
            };
            match kind {
                "path" => rest.clone_into(&mut info.path),
                "mod" => info.main = Some(module()),
                "dep" => info.dependencies.push(module()),
                "=>" => match (info.dependencies.last_mut(), info.main.as_mut()) {
                    (Some(replaced), _) | (None, Some(replaced)) => *replaced = module(),
                    (None, None) => {}
                },
                "build" => {
                    if let Some((key, value)) = rest.split_once('=') {
                        info.settings.push((key.to_owned(), unquoted(value)));
                    }
                }
                _ => {}
            }
        }
        info
    }
}

/// Values with spaces or quotes are written as Go string literals.
fn unquoted(value: &str) -> String {
    let inner = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    inner.map_or_else(|| value.to_owned(), |inner| inner.replace("\\\"", "\"").replace("\\\\", "\\"))
}

/// How the Go program at `path` was built; `None` for a program that does not say.
///
/// # Errors
/// [`SymbolError::Unreadable`] and [`SymbolError::NotElf`].
pub fn build_info(path: &Path) -> Result<Option<BuildInfo>, SymbolError> {
    build_info_in(path, &mapped(path)?)
}

/// As [`build_info`], of a file that is in memory already; `path` is for messages.
///
/// # Errors
/// [`SymbolError::NotElf`].
pub fn build_info_in(path: &Path, bytes: &[u8]) -> Result<Option<BuildInfo>, SymbolError> {
    let image = Image::parse(bytes).map_err(|problem| SymbolError::not_elf(path, problem))?;
    Ok(read(&image))
}

pub(in crate::symbols) fn read(image: &Image<'_>) -> Option<BuildInfo> {
    let (version, marked) = strings(image)?;
    let inner = marked.len().checked_sub(MARKER_LEN).and_then(|end| marked.get(MARKER_LEN..end));
    let modules = inner.and_then(|inner| str::from_utf8(inner).ok()).unwrap_or_default();
    Some(BuildInfo::parse(version, modules))
}

pub(super) fn version(image: &Image<'_>) -> Option<String> {
    strings(image).map(|(version, _)| version.to_owned())
}

/// The version and the module information with its markers.
fn strings<'a>(image: &Image<'a>) -> Option<(&'a str, &'a [u8])> {
    let named = image.section(b".go.buildinfo").and_then(|address| strings_at(image, address));
    named.or_else(|| {
        let places = image.segments().iter().flat_map(|segment| {
            memchr::memmem::find_iter(segment.bytes, MAGIC).map(|at| segment.address + at as u64)
        });
        places
            .filter(|address| address.is_multiple_of(16))
            .take(16)
            .find_map(|place| strings_at(image, place))
    })
}

fn strings_at<'a>(image: &Image<'a>, address: u64) -> Option<(&'a str, &'a [u8])> {
    let bytes = image.from(address)?;
    let header = bytes.get(..HEADER_LEN)?;
    let flags = header[15];
    if !header.starts_with(MAGIC) || flags & FLAG_BIG_ENDIAN != 0 {
        return None;
    }
    let (version, modules) = if flags & FLAG_INLINE != 0 {
        let (version, rest) = inline_string(&bytes[HEADER_LEN..])?;
        (version, inline_string(rest).map_or(&[][..], |(modules, _)| modules))
    } else {
        let string = |at: u64| {
            let place = image.pointer(address.checked_add(at)?)?;
            let len = u64_at(image.at(place.checked_add(8)?, 8)?, 0)?;
            image.at(image.pointer(place)?, len).filter(|_| len <= MAX_LEN)
        };
        (string(16)?, string(24).unwrap_or_default())
    };
    let version = str::from_utf8(version).ok()?;
    let is_version = version.len() < 256 && (version.starts_with("go1") || version.starts_with("devel "));
    is_version.then_some((version, modules))
}

/// A varint length and that many bytes, and what follows them.
fn inline_string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut len: u64 = 0;
    for (index, byte) in bytes.iter().take(9).enumerate() {
        len |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            let rest = &bytes[index + 1..];
            return rest.split_at_checked(usize::try_from(len).ok()?).filter(|_| len <= MAX_LEN);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{BuildInfo, ModuleVersion, inline_string};

    #[test]
    fn the_lines_of_the_module_information_are_told_apart() {
        let text = "path\texample.com/a/cmd\nmod\texample.com/a\t(devel)\t\ndep\texample.com/b\tv1.2.3\th1:x=\n\
                    dep\texample.com/c\tv1.0.0\n=>\texample.com/d\tv1.1.0\th1:y=\nbuild\tCGO_ENABLED=0\n\
                    build\t-ldflags=\"-s -w\"\nbuild\tvcs.revision=0a1b2c\n";
        let info = BuildInfo::parse("go1.27.3", text);
        let module = |path: &str, version: &str| ModuleVersion { path: path.into(), version: version.into() };
        assert_eq!(info.path, "example.com/a/cmd");
        assert_eq!(info.main, Some(module("example.com/a", "(devel)")));
        assert_eq!(info.dependencies, [module("example.com/b", "v1.2.3"), module("example.com/d", "v1.1.0")]);
        assert_eq!(info.setting("-ldflags"), Some("-s -w"));
        assert_eq!(info.revision(), Some("0a1b2c"));
    }

    #[test]
    fn a_length_that_leads_out_of_the_file_is_no_string() {
        assert_eq!(inline_string(&[2, b'a', b'b', b'c']), Some((&b"ab"[..], &b"c"[..])));
        assert_eq!(inline_string(&[4, b'a']), None);
        assert_eq!(inline_string(&[0xff; 20]), None);
        assert_eq!(inline_string(&[]), None);
    }
}
