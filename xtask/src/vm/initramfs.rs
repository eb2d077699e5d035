//! Puts together what the guest boots into: busybox, `init.sh`, the command lines, and files with their libraries.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{BufWriter, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail, ensure};

use super::{GuestCommand, GuestFile, cpio::Archive, libraries};

const INIT: &str = include_str!("init.sh");

/// What makes the host's libraries findable in the guest, for the loader and for tracers that look names up in it.
const LOADER_CACHE: &str = "/etc/ld.so.cache";

/// Directories that things are mounted on or linked into before anything creates them.
const DIRECTORIES: [&str; 7] = ["/bin", "/sbin", "/usr/bin", "/usr/sbin", "/etc", "/dev", "/commands"];

/// Where `init.sh` mounts something, so that files of the archive would be hidden.
const MOUNTED_OVER: [&str; 5] = ["/proc", "/sys", "/dev", "/tmp", "/run"];

/// Writes the archive to `image`.
pub(super) fn write(
    image: &Path,
    busybox: &Path,
    commands: &[GuestCommand],
    files: &[GuestFile],
) -> Result<()> {
    let file = File::create(image).with_context(|| format!("creating {}", image.display()))?;
    let contents = contents(busybox, files)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    pack(Archive::new(BufWriter::new(file)), &contents, commands, now)
}

fn pack<W: Write>(
    mut archive: Archive<W>,
    contents: &BTreeMap<PathBuf, PathBuf>,
    commands: &[GuestCommand],
    now: u64,
) -> Result<()> {
    for directory in directories(contents.keys()) {
        archive.directory(&directory)?;
    }
    // The kernel opens the console for init before init can mount anything.
    archive.character_device("/dev/console", (5, 1))?;
    archive.file("/init", 0o755, INIT.as_bytes())?;
    archive.file("/now", 0o644, now.to_string().as_bytes())?;
    archive.file("/etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\n")?;
    archive.file("/etc/hosts", 0o644, b"127.0.0.1 localhost linktracer-guest\n::1 localhost\n")?;
    for (index, command) in commands.iter().enumerate() {
        archive.file(&format!("/commands/{index}"), 0o644, format!("{}\n", command.line).as_bytes())?;
    }
    for (guest, host) in contents {
        let content = fs::read(host).with_context(|| format!("reading {}", host.display()))?;
        let mode =
            fs::metadata(host).with_context(|| format!("reading {}", host.display()))?.permissions().mode();
        archive.file(&guest.to_string_lossy(), mode & 0o777, &content)?;
    }
    archive.finish()?;
    Ok(())
}

/// Guest path to host path, libraries included.
fn contents(busybox: &Path, files: &[GuestFile]) -> Result<BTreeMap<PathBuf, PathBuf>> {
    let mut contents = BTreeMap::from([(PathBuf::from("/bin/busybox"), busybox.to_path_buf())]);
    for file in files {
        ensure!(file.host.is_file(), "no file {} to take into the virtual machine", file.host.display());
        ensure!(
            file.guest.is_absolute(),
            "{} is not an absolute path in the virtual machine",
            file.guest.display()
        );
        let hidden = MOUNTED_OVER.iter().find(|place| file.guest.starts_with(place));
        if let Some(place) = hidden {
            bail!("{} would not be seen: the virtual machine mounts over {place}", file.guest.display());
        }
        contents.insert(file.guest.clone(), file.host.clone());
    }
    let mut needed = Vec::new();
    for host in contents.values() {
        needed.extend(libraries::of(host)?);
    }
    if Path::new(LOADER_CACHE).is_file() {
        needed.push(LOADER_CACHE.into());
    }
    contents.extend(libraries::with_companions(needed).into_iter().map(|path| (path.clone(), path)));
    Ok(contents)
}

/// Every directory on the way to a file, parents first.
fn directories<'a>(files: impl Iterator<Item = &'a PathBuf>) -> BTreeSet<String> {
    let fixed = DIRECTORIES.iter().map(Path::new);
    let parents = files.filter_map(|file| file.parent()).chain(fixed);
    parents
        .flat_map(Path::ancestors)
        .filter(|directory| directory.parent().is_some())
        .map(|directory| directory.to_string_lossy().into_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_come_before_what_is_in_them() {
        let files = [PathBuf::from("/usr/lib/x/y.so")];
        let all: Vec<String> = directories(files.iter()).into_iter().collect();
        let place = |path: &str| all.iter().position(|directory| directory == path);
        assert!(place("/usr") < place("/usr/lib") && place("/usr/lib") < place("/usr/lib/x"), "{all:?}");
        assert!(place("/").is_none() && place("/bin").is_some());
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let file = GuestFile { host: "/nowhere/at/all".into(), guest: "/x".into() };
        let error = contents(Path::new("/bin/sh"), &[file]).expect_err("the file is not there");
        assert!(error.to_string().contains("/nowhere/at/all"), "{error}");
    }
}
