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
    // A replaced file keeps its old name with this mark.
    let path = path.strip_suffix(b" (deleted)").unwrap_or(&path);
    Ok(String::from_utf8_lossy(path).into_owned())
}

/// The arguments, joined by spaces.
pub(super) fn command_line(pid: u32) -> io::Result<String> {
    let bytes = read_bounded(&format!("/proc/{pid}/cmdline"))?;
    let arguments: Vec<_> = bytes.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
    Ok(arguments.join(" ").trim_end().to_owned())
}

/// Path of the cgroup in the version 2 hierarchy.
pub(super) fn cgroup(pid: u32) -> io::Result<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
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

/// Files that the process has mapped, as it sees them, each once.
pub(super) fn mapped_files(pid: u32) -> io::Result<Vec<String>> {
    let text = fs::read(format!("/proc/{pid}/maps"))?;
    let mut files: Vec<String> = text
        .split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let start = line.iter().position(|byte| *byte == b'/')?;
            Some(String::from_utf8_lossy(&line[start..]).into_owned())
        })
        .collect();
    files.sort();
    files.dedup();
    Ok(files)
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
