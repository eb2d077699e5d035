//! Which shared libraries a program needs, as the dynamic loader itself resolves them.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::command::{command, quietly};

/// What programs compiled in the guest's run time need without anybody having linked them here; all come with the C
/// library but the last, the compiler's.
const COMPANIONS: [&str; 6] =
    ["libc.so.6", "libpthread.so.0", "libm.so.6", "libdl.so.2", "librt.so.1", "libgcc_s.so.1"];

/// The libraries of a program and the loader, as paths; none for a static program.
pub(crate) fn of(program: &Path) -> Result<Vec<PathBuf>> {
    // A static program is an error to ldd, and so is a file that is no program at all: a script, some data.
    let output = quietly(command("ldd", []).arg(program));
    Ok(output.map(|text| parse(&text)).unwrap_or_default())
}

/// `libraries` with those of the C library beside them, where the same folder has them.
pub(super) fn with_companions(mut libraries: Vec<PathBuf>) -> Vec<PathBuf> {
    let libc = libraries.iter().find(|path| path.file_name().is_some_and(|name| name == "libc.so.6"));
    if let Some(folder) = libc.and_then(|path| path.parent()).map(Path::to_path_buf) {
        libraries.extend(COMPANIONS.iter().map(|name| folder.join(name)).filter(|path| path.is_file()));
    }
    libraries.sort();
    libraries.dedup();
    libraries
}

fn parse(text: &str) -> Vec<PathBuf> {
    let paths = text.lines().filter_map(|line| {
        // `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)`, and the loader without an arrow.
        let found = line.split_once("=>").map_or(line, |(_, found)| found).trim();
        found.starts_with('/').then(|| found.split(" (0x").next().unwrap_or(found))
    });
    paths.map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_the_loader_are_found_and_the_kernels_page_is_not() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd4)\n\
                    \tlibgcc_s.so.1 => /lib/x86_64-linux-gnu/libgcc_s.so.1 (0x00007f1)\n\
                    \tlibmissing.so => not found\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f2)\n";
        assert_eq!(
            parse(text),
            ["/lib/x86_64-linux-gnu/libgcc_s.so.1", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from)
        );
    }

    #[test]
    fn a_static_program_needs_none() {
        assert!(parse("\tnot a dynamic executable\n").is_empty());
        assert!(parse("\tstatically linked\n").is_empty());
    }
}
