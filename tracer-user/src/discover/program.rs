//! The files that a program will have mapped, before it runs.
//!
//! As the dynamic linker looks for a library, so far as that can be told from outside: the program's own
//! list of folders, `LD_LIBRARY_PATH`, the usual folders. A file too many costs nothing: its probe is
//! never hit.

use std::path::{Path, PathBuf};

use super::{files::LIBRARY_FOLDERS, proc};
use crate::{config::SdkProbe, symbols};

/// Folders that are looked into for one library.
const MAX_FOLDERS: usize = 64;

/// The files that the probe goes into when the process `pid` executes `program`, whose path is `path`. As this
/// process reaches them; none where none is found.
pub fn files_of_program(probe: &SdkProbe, pid: u32, program: &Path, path: &str) -> Vec<PathBuf> {
    let mut found = match &probe.library {
        None => vec![program.to_path_buf()],
        Some(library) if library.starts_with('/') => vec![proc::reach(pid, library)],
        Some(library) => libraries(library, pid, program, path),
    };
    found.retain(|file| file.exists());
    found
}

fn libraries(library: &str, pid: u32, program: &Path, path: &str) -> Vec<PathBuf> {
    let origin = path.rfind('/').map_or("", |at| &path[..at]);
    let own = symbols::library_folders(program).unwrap_or_default();
    let from_environment =
        proc::environment_variable(pid, "LD_LIBRARY_PATH").ok().flatten().unwrap_or_default();
    let folders = own
        .iter()
        .map(|folder| folder.replace("$ORIGIN", origin).replace("${ORIGIN}", origin))
        .chain([origin.to_owned()])
        .chain(from_environment.split(':').map(str::to_owned))
        .chain(LIBRARY_FOLDERS.map(str::to_owned))
        .filter(|folder| folder.starts_with('/'));
    folders
        .take(MAX_FOLDERS)
        .flat_map(|folder| {
            let file = format!("{folder}/{library}");
            // The path of a program in a changed root is not the one that it has there.
            [proc::reach(pid, &file), PathBuf::from(file)]
        })
        .collect()
}
