//! What is in the image: the program, its licences, nothing else; and the program needs nothing else to run.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use super::podman;
use crate::{
    command::{command, quietly},
    licences,
};

const PROGRAM: &str = "usr/bin/linktracer";
const LICENCES: &str = "usr/share/doc/linktracer";

/// The files of an image, to be read for as long as this lives.
pub(super) struct Mounted {
    image: String,
    root: PathBuf,
}

impl Mounted {
    pub(super) fn new(image: &str) -> Result<Self> {
        let root = quietly(&mut podman(["image", "mount", image]))
            .with_context(|| format!("there is no image {image} to look at"))?;
        Ok(Self { image: image.to_owned(), root: PathBuf::from(root.trim()) })
    }

    /// The program, which runs outside of the image as well.
    pub(super) fn program(&self) -> PathBuf {
        self.root.join(PROGRAM)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // A mount that stays is in nobody's way.
        drop(quietly(&mut podman(["image", "unmount", &self.image])));
    }
}

/// Prints what there is, and refuses what should not be there.
pub(super) fn check(image: &str, mounted: &Mounted) -> Result<()> {
    let found = files(&mounted.root, &mounted.root)?;
    let mut expected = vec![(PathBuf::from(PROGRAM))];
    expected.extend(licences::FILES.map(|name| Path::new(LICENCES).join(name)));
    expected.sort();
    let names: Vec<&PathBuf> = found.iter().map(|(name, _)| name).collect();
    for (name, size) in &found {
        println!("image: {size:>10} bytes  /{}", name.display());
    }
    ensure!(
        names.iter().copied().eq(&expected),
        "{image} should have these files and no others: {expected:?}"
    );
    let size = quietly(&mut podman(["image", "inspect", "--format", "{{.Size}}", image]))?;
    println!("image: {image} takes {} bytes", size.trim());

    let read =
        quietly(command("readelf", ["--wide", "--program-headers", "--dynamic"]).arg(mounted.program()))?;
    let needs = needs(&read);
    ensure!(needs.is_empty(), "the program is not static:\n{}", needs.join("\n"));
    println!("image: the program is static: no interpreter, no library");
    Ok(())
}

/// Path below `root` and size in bytes of everything that is no folder, sorted.
fn files(root: &Path, folder: &Path) -> Result<Vec<(PathBuf, u64)>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let entry = entry.with_context(|| format!("reading {}", folder.display()))?;
        let path = entry.path();
        // Of the entry itself, so that a link out of the image is not followed.
        let metadata = entry.metadata().with_context(|| format!("reading {}", path.display()))?;
        if metadata.is_dir() {
            all.extend(files(root, &path)?);
        } else {
            all.push((path.strip_prefix(root).unwrap_or(&path).to_owned(), metadata.len()));
        }
    }
    all.sort();
    Ok(all)
}

/// The lines of `readelf` about a loader or a library.
fn needs(read: &str) -> Vec<&str> {
    let about = |line: &&str| line.trim_start().starts_with("INTERP") || line.contains("(NEEDED)");
    read.lines().filter(about).map(str::trim).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_with_a_loader_or_a_library_is_not_static() {
        let read = "  PHDR           0x000040 0x0000000000000040\n  INTERP         0x000318 0x0000000000000318\n\
                    \x20     [Requesting program interpreter: /lib64/ld-linux-x86-64.so.2]\n\
                    \x200x0000000000000001 (NEEDED)             Shared library: [libc.so.6]\n\
                    \x200x000000000000000c (INIT)               0x1000\n";
        assert_eq!(needs(read).len(), 2, "{:?}", needs(read));
        assert!(needs("  DYNAMIC        0x04fdd0\n 0x000000000000000c (INIT)  0x1000\n").is_empty());
    }
}
