//! A file or symbolic link of a process whose content is part of its release, such as the link to the
//! model that it serves.
//!
//! The path is followed within the root of the process: whatever links stand there, nothing outside
//! of its container is read.

use std::{
    fs::File,
    io::{self, Read as _},
    os::fd::{AsRawFd as _, OwnedFd},
};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, open, openat2, readlinkat};
use serde::{Deserialize, Serialize};

/// Of a file's first line, so many bytes are read.
const MAX_LINE_LEN: u64 = 256;
/// The kernel's time stamps are as coarse as its tick, 10 ms at most. A stamp that is younger than
/// this when it is read may stand for two changes.
const SETTLED_AFTER_NS: u64 = 100_000_000;
/// How Kubernetes mounts the files of a ConfigMap or Secret: a link to a link that is swapped.
const KUBERNETES_DATA: &str = "..data/";

/// What a file said, and what tells whether it says something else by now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Reading {
    /// The link's target or the file's first line; never empty.
    pub(super) value: String,
    stamp: Stamp,
}

/// Device, inode and time of change: of the link, and of the file where its content counts.
type Stamp = [Option<(u64, u64, u64)>; 2];

impl Reading {
    /// When the link or file last changed, in nanoseconds since the Unix epoch.
    pub(super) fn changed_ns(&self) -> u64 {
        self.stamp.iter().flatten().map(|(_, _, changed_ns)| *changed_ns).max().unwrap_or_default()
    }

    /// Does the file say the same as at this reading, by `now_ns`? In doubt it does not.
    pub(super) fn holds(&self, pid: u32, path: &str, now_ns: u64) -> bool {
        if now_ns.saturating_sub(self.changed_ns()) < SETTLED_AFTER_NS {
            return false;
        }
        let Ok(place) = Place::find(pid, path) else { return false };
        place.stamp == self.stamp
    }
}

/// What the process `pid` has at `path`: where a link leads to, or the first line of a file.
///
/// # Errors
/// There is no such process or file, it is neither link nor file, or it says nothing.
pub(super) fn read(pid: u32, path: &str) -> io::Result<Reading> {
    let place = Place::find(pid, path)?;
    let value = match &place.what {
        What::Link(target) => relative(target, path),
        What::File(file) => first_line(file)?,
    };
    if value.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "says nothing"));
    }
    Ok(Reading { value, stamp: place.stamp })
}

/// What stands at a path.
struct Place {
    stamp: Stamp,
    what: What,
}

enum What {
    /// A link, and its target.
    Link(String),
    /// A file, opened for its place only.
    File(OwnedFd),
}

impl Place {
    fn find(pid: u32, path: &str) -> io::Result<Self> {
        let root = open(format!("/proc/{pid}/root"), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let within = |flags: OFlags| {
            let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
            openat2(&root, path, flags | OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
        };
        let found = within(OFlags::NOFOLLOW)?;
        let link = fstat(&found)?;
        match FileType::from_raw_mode(link.st_mode) {
            FileType::Symlink => {
                let target = readlinkat(&found, "", Vec::new())?;
                let target = target.to_string_lossy().into_owned();
                if !target.starts_with(KUBERNETES_DATA) {
                    return Ok(Self { stamp: [Some(stamp(&link)), None], what: What::Link(target) });
                }
                let file = within(OFlags::empty())?;
                let of_file = fstat(&file)?;
                if FileType::from_raw_mode(of_file.st_mode) != FileType::RegularFile {
                    return Ok(Self { stamp: [Some(stamp(&link)), None], what: What::Link(target) });
                }
                Ok(Self { stamp: [Some(stamp(&link)), Some(stamp(&of_file))], what: What::File(file) })
            }
            FileType::RegularFile => Ok(Self { stamp: [None, Some(stamp(&link))], what: What::File(found) }),
            other => Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{other:?}"))),
        }
    }
}

fn stamp(stat: &Stat) -> (u64, u64, u64) {
    let seconds = u64::try_from(stat.st_ctime).unwrap_or_default();
    (stat.st_dev, stat.st_ino, seconds.saturating_mul(1_000_000_000).saturating_add(stat.st_ctime_nsec))
}

/// A target in the link's own folder is named without it: `/models/model-7` is `model-7` for `/models/active`.
fn relative(target: &str, link: &str) -> String {
    let folder = link.rfind('/').map_or("", |at| &link[..=at]);
    target.strip_prefix(folder).unwrap_or(target).trim_end_matches('/').to_owned()
}

fn first_line(file: &OwnedFd) -> io::Result<String> {
    // It is known to be a regular file, so that opening it does not wait for anybody.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let opened = rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut bytes = Vec::new();
    File::from(opened).take(MAX_LINE_LEN).read_to_end(&mut bytes)?;
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    Ok(String::from_utf8_lossy(line).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, process};

    use super::{read, relative};

    #[test]
    fn a_link_says_its_target_and_a_file_its_first_line() {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let path = |name: &str| folder.path().join(name);
        let value = |name: &str| {
            read(process::id(), path(name).to_str().expect("UTF-8")).map(|reading| reading.value)
        };
        symlink("model-7", path("link")).expect("is writable");
        symlink(path("model-8"), path("absolute")).expect("is writable");
        fs::write(path("file"), " model-9 \nsecond\n").expect("is writable");
        fs::write(path("empty"), "\nsecond\n").expect("is writable");
        // As Kubernetes mounts a ConfigMap.
        fs::create_dir(path("..2026")).expect("is writable");
        fs::write(path("..2026/version"), "model-10").expect("is writable");
        symlink("..2026", path("..data")).expect("is writable");
        symlink("..data/version", path("version")).expect("is writable");
        assert_eq!(value("link").ok().as_deref(), Some("model-7"));
        assert_eq!(value("absolute").ok().as_deref(), Some("model-8"));
        assert_eq!(value("file").ok().as_deref(), Some("model-9"));
        assert_eq!(value("version").ok().as_deref(), Some("model-10"));
        for nothing in ["empty", "absent", "."] {
            assert!(value(nothing).is_err(), "{nothing}");
        }
    }

    #[test]
    fn nothing_that_could_make_the_reader_wait_is_opened() {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let pipe = folder.path().join("pipe");
        let made = process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo starts");
        assert!(made.success());
        symlink("..data/pipe", folder.path().join("version")).expect("is writable");
        symlink(".", folder.path().join("..data")).expect("is writable");
        assert!(read(process::id(), pipe.to_str().expect("UTF-8")).is_err());
        // A link to it is only a link.
        let link = folder.path().join("version");
        let reading = read(process::id(), link.to_str().expect("UTF-8")).expect("is a link");
        assert_eq!(reading.value, "..data/pipe");
    }

    #[test]
    fn a_change_is_noticed_even_when_the_times_are_the_same() {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let path = folder.path().join("file");
        let text = path.to_str().expect("UTF-8");
        fs::write(&path, "one").expect("is writable");
        let first = read(process::id(), text).expect("is there");
        assert!(
            !first.holds(process::id(), text, first.changed_ns()),
            "another change may come in this tick"
        );
        let later = first.changed_ns() + 1_000_000_000;
        assert!(first.holds(process::id(), text, later));
        fs::remove_file(&path).expect("is there");
        assert!(!first.holds(process::id(), text, later));
    }

    #[test]
    fn only_the_links_own_folder_is_left_out() {
        assert_eq!(relative("/models/model-7", "/models/active"), "model-7");
        assert_eq!(relative("/models/a/model-7/", "/models/active"), "a/model-7");
        assert_eq!(relative("../store/model-7", "/models/active"), "../store/model-7");
        assert_eq!(relative("/store/model-7", "/models/active"), "/store/model-7");
    }
}
