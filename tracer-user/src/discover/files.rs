//! Which files a service's probes go into.

use std::path::{Path, PathBuf};

use super::proc;
use crate::config::{SdkProbe, Service};

/// Folders that shared libraries are looked for in when no process has mapped them yet.
pub(super) const LIBRARY_FOLDERS: [&str; 7] = [
    "/lib",
    "/usr/lib",
    "/usr/local/lib",
    "/lib64",
    "/usr/lib64",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
];

/// Does the process belong to the service? `exe` is for a process that is gone.
pub(super) fn matches(service: &Service, pid: u32, exe: Option<&str>) -> bool {
    let wanted = &service.processes;
    let holds = |pattern: &Option<crate::config::Pattern>, value: &dyn Fn() -> Option<String>| {
        pattern.as_ref().is_none_or(|pattern| value().is_some_and(|value| pattern.matches(&value)))
    };
    holds(&wanted.exe, &|| proc::exe(pid).ok().or_else(|| exe.map(str::to_owned)))
        && holds(&wanted.cmdline, &|| proc::command_line(pid).ok())
        && holds(&wanted.cgroup, &|| proc::cgroup(pid).ok())
}

/// Ids of the running processes that belong to the service.
pub fn matching_processes(service: &Service) -> Vec<u32> {
    let mut found: Vec<u32> = proc::process_ids().unwrap_or_default();
    found.retain(|pid| matches(service, *pid, None));
    found
}

/// The files that the probe goes into, as far as they are known: those that the processes `pids`
/// use, and where none runs, those that the configuration names. As this process reaches them.
pub fn probe_files(service: &Service, probe: &SdkProbe, pids: &[u32]) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        pids.iter().filter_map(|pid| file_of_process(probe.library.as_deref(), *pid)).collect();
    if let Some(file) = file_by_name(service, probe) {
        files.push(file);
    }
    files.sort();
    files.dedup();
    files
}

/// The library of that name or path in one process, once it is there; with `None` its executable. As
/// this process reaches it.
pub fn file_of_process(library: Option<&str>, pid: u32) -> Option<PathBuf> {
    let named = |path: &str| Some(proc::reach(pid, path)).filter(|file| file.exists());
    let mapped = |wanted: &dyn Fn(&str) -> bool| {
        let mapped = proc::mapped_files(pid).ok()?.into_iter().find(|file| wanted(&file.path))?;
        // Without the privilege for the first way there is the name, as long as it holds.
        Some(mapped.file(pid)).filter(|file| file.exists()).or_else(|| named(&mapped.path))
    };
    match library {
        None => Some(proc::executable(pid)).filter(|file| file.exists()),
        Some(library) if library.starts_with('/') => {
            named(library).or_else(|| mapped(&|path| path == library))
        }
        Some(library) => mapped(&|path| is_library(path, library)),
    }
}

/// The file that the configuration alone leads to.
fn file_by_name(service: &Service, probe: &SdkProbe) -> Option<PathBuf> {
    let exe = service.processes.exe.as_ref().and_then(|pattern| pattern.literal());
    let found = match &probe.library {
        None => PathBuf::from(exe?),
        Some(library) if library.starts_with('/') => PathBuf::from(library),
        Some(library) => {
            let beside = exe.and_then(|exe| Path::new(exe).parent());
            let folders = beside.into_iter().chain(LIBRARY_FOLDERS.iter().map(Path::new));
            folders.map(|folder| folder.join(library)).find(|file| file.exists())?
        }
    };
    found.exists().then_some(found)
}

/// Is `file` the library of that name, or a version of it (`librecsdk.so.1` for `librecsdk.so`)?
fn is_library(file: &str, library: &str) -> bool {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.strip_prefix(library).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::is_library;

    #[test]
    fn versions_of_a_library_are_that_library() {
        assert!(is_library("/usr/lib/librecsdk.so", "librecsdk.so"));
        assert!(is_library("/usr/lib/librecsdk.so.1.2", "librecsdk.so"));
        assert!(!is_library("/usr/lib/librecsdk.so2", "librecsdk.so"));
        assert!(!is_library("/usr/lib/otherlibrecsdk.so", "librecsdk.so"));
    }
}
