//! What /proc says of one process.

use std::{
    fs, io,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::PathBuf,
};

/// Longest command line and environment that is read, in bytes.
const MAX_READ: usize = 256 * 1024;

/// Path of the executable as the process itself sees it.
pub(super) fn exe(pid: u32) -> io::Result<String> {
    let path = fs::read_link(format!("/proc/{pid}/exe"))?.into_os_string().into_vec();
    let path = path.strip_suffix(DELETED).unwrap_or(&path);
    Ok(String::from_utf8_lossy(path).into_owned())
}

/// The arguments, joined by spaces.
pub(super) fn command_line(pid: u32) -> io::Result<String> {
    let bytes = read_bounded(&format!("/proc/{pid}/cmdline"))?;
    let arguments: Vec<_> = bytes.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
    Ok(arguments.join(" ").trim_end().to_owned())
}

/// The cgroups of every hierarchy, one a line, as the kernel lists them.
pub(super) fn cgroups(pid: u32) -> io::Result<String> {
    fs::read_to_string(format!("/proc/{pid}/cgroup"))
}

/// Path of the cgroup in the version 2 hierarchy.
pub(crate) fn cgroup(pid: u32) -> io::Result<String> {
    let text = cgroups(pid)?;
    Ok(text.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default().to_owned())
}

/// The value of a variable in the environment that the process started with.
pub(super) fn environment_variable(pid: u32, name: &str) -> io::Result<Option<String>> {
    let bytes = read_bounded(&format!("/proc/{pid}/environ"))?;
    Ok(bytes.split(|byte| *byte == 0).find_map(|entry| {
        let value = entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        Some(String::from_utf8_lossy(value).into_owned())
    }))
}

/// A file that a process has mapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mapped {
    /// Its path when it was mapped.
    pub(super) path: String,
    /// Where in memory, as `/proc/PID/map_files` names it.
    range: String,
}

impl Mapped {
    /// The file itself, even when its name is gone or stands for another one by now.
    pub(super) fn file(&self, pid: u32) -> PathBuf {
        PathBuf::from(format!("/proc/{pid}/map_files/{}", self.range))
    }
}

/// What a replaced or removed file's name ends in.
const DELETED: &[u8] = b" (deleted)";

/// The executable itself, whatever root the process has and whether or not it still has a name.
pub(super) fn executable(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/exe"))
}

/// Files that the process has mapped, each path once.
pub(super) fn mapped_files(pid: u32) -> io::Result<Vec<Mapped>> {
    let mut files = mapped_in(&fs::read(format!("/proc/{pid}/maps"))?);
    files.sort_by(|one, other| one.path.cmp(&other.path));
    files.dedup_by(|one, other| one.path == other.path);
    Ok(files)
}

/// The lines of `/proc/PID/maps` that have a file.
fn mapped_in(text: &[u8]) -> Vec<Mapped> {
    let line = |line: &[u8]| {
        let path = &line[line.iter().position(|byte| *byte == b'/')?..];
        let range = line.split(|byte| *byte == b' ').next()?;
        // The links of map_files have no leading zeros, the lines of maps have some.
        let (start, end) = str::from_utf8(range).ok()?.split_once('-')?;
        let number = |text: &str| u64::from_str_radix(text, 16).ok();
        Some(Mapped {
            path: String::from_utf8_lossy(path.strip_suffix(DELETED).unwrap_or(path)).into_owned(),
            range: format!("{:x}-{:x}", number(start)?, number(end)?),
        })
    };
    text.split(|byte| *byte == b'\n').filter_map(line).collect()
}

/// A path of the process, as this process reaches it, whatever mounts the other one sees.
pub(super) fn reach(pid: u32, path: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/root{path}"))
}

/// Is there such a process, and does it still run? A zombie does not.
pub(super) fn is_running(pid: u32) -> bool {
    let Ok(stat) = fs::read(format!("/proc/{pid}/stat")) else { return false };
    // The name stands in parentheses and may hold some itself; the state follows the last one.
    let state = stat.iter().rposition(|byte| *byte == b')').and_then(|at| stat.get(at + 2));
    match state {
        // The main thread of a process whose other threads go on is a zombie, too.
        Some(b'Z' | b'X') => fs::read_dir(format!("/proc/{pid}/task")).is_ok_and(|tasks| tasks.count() > 1),
        Some(_) => true,
        None => false,
    }
}

/// Ids of all processes.
pub(super) fn process_ids() -> io::Result<Vec<u32>> {
    let entries = fs::read_dir("/proc")?;
    let names = entries.filter_map(Result::ok).map(|entry| entry.file_name());
    Ok(names.filter_map(|name| std::str::from_utf8(name.as_bytes()).ok()?.parse().ok()).collect())
}

fn read_bounded(path: &str) -> io::Result<Vec<u8>> {
    use io::Read as _;
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(MAX_READ as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::{mapped_files, mapped_in};

    #[test]
    fn a_line_of_the_maps_is_a_file_and_its_place() {
        let text = b"00400000-0040a000 r-xp 00000000 08:01 5 /usr/lib/a b.so (deleted)\n\
                     7f00-7f10 rw-p 00000000 00:00 0 \n7ffc-7ffd rw-p 00000000 00:00 0 [stack]\n";
        let files = mapped_in(text);
        assert_eq!(files.len(), 1);
        assert_eq!(files[0].path, "/usr/lib/a b.so");
        assert_eq!(files[0].file(7).to_str(), Some("/proc/7/map_files/400000-40a000"));
    }

    #[test]
    fn what_this_process_has_mapped_can_be_reached() {
        let files = mapped_files(std::process::id()).expect("is this process");
        let own = std::env::current_exe().expect("runs from a file");
        let found = files.iter().find(|file| file.path == own.to_string_lossy()).expect("is mapped");
        let target =
            std::fs::read_link(found.file(std::process::id())).expect("the kernel names the range so");
        assert_eq!(target, own);
    }
}
