//! The kernels that virtual machines boot: distributions' images, fetched as packages and never installed.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    command::{command, quietly},
    machine::Machine,
    setup::{OtherLists, fetch_into},
};

/// The kernel that setup fetches and the tests use.
pub(crate) const DEFAULT: &str = "6.1";

/// The newest kernel that Debian offers for its stable release; another one every few weeks.
pub(crate) const NEWEST: &str = "newest";

/// One kernel that can be asked for by name.
struct Row {
    /// What is typed.
    name: &'static str,
    /// The releases of Debian that have it.
    suites: &'static [&'static str],
    /// How the names of its packages begin.
    prefix: &'static str,
}

/// Of all, the small build without drivers.
const SUFFIX: &str = "-cloud-amd64";

const TABLE: &[Row] = &[
    Row { name: "5.10", suites: &["bullseye", "bullseye-security"], prefix: "linux-image-5.10." },
    Row { name: DEFAULT, suites: &["bookworm", "bookworm-security"], prefix: "linux-image-6.1." },
    Row { name: "6.12", suites: &["bookworm-security"], prefix: "linux-image-6.12." },
    // The image is in a package of its own there.
    Row { name: NEWEST, suites: &["trixie-backports"], prefix: "linux-binary-" },
];

/// The names of all kernels, oldest first.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|row| row.name)
}

/// Files beside a cached image: where it came from, and checksums of the package and of the image.
const ORIGIN: &str = "ORIGIN";
const CHECKSUMS: &str = "SHA256SUMS";
const IMAGE: &str = "vmlinuz";

/// A kernel image on this machine.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    /// As it was asked for.
    pub(crate) name: String,
    /// Package and version, or the path.
    pub(crate) origin: String,
    pub(crate) image: PathBuf,
}

/// The kernel of that name, fetched if need be, or the one at that path.
pub(crate) fn find(machine: &Machine, name: &str) -> Result<Kernel> {
    if name.contains('/') {
        ensure!(Path::new(name).is_file(), "no kernel image at {name}");
        return Ok(Kernel { name: "image".to_owned(), origin: name.to_owned(), image: name.into() });
    }
    cached(machine, name).map_or_else(|| fetch(machine, name), Ok)
}

/// The kernel if it is in the cache and still what it was when it came.
pub(crate) fn cached(machine: &Machine, name: &str) -> Option<Kernel> {
    let directory = directory(machine, name);
    let origin = fs::read_to_string(directory.join(ORIGIN)).ok()?;
    let sums = fs::read_to_string(directory.join(CHECKSUMS)).ok()?;
    let image = directory.join(IMAGE);
    let expected = recorded(&sums, IMAGE)?;
    (checksum(&image).ok()? == expected).then(|| Kernel {
        name: name.to_owned(),
        origin: origin.trim().to_owned(),
        image,
    })
}

/// Fetches the newest image of a line. The package manager checks the package's signature chain.
pub(crate) fn fetch(machine: &Machine, name: &str) -> Result<Kernel> {
    let Some(row) = TABLE.iter().find(|row| row.name == name) else {
        let known: Vec<&str> = names().collect();
        bail!("no kernel is called {name}; known are {}, or give the path of an image", known.join(", "));
    };
    ensure!(
        std::env::consts::ARCH == "x86_64",
        "virtual machines are for x86_64 so far, and this is another machine"
    );
    let lists = OtherLists::fetch(machine, row.suites)?;
    let package = lists.newest(row.prefix, SUFFIX)?;
    let target = directory(machine, name);
    fetch_into(machine, Some(&lists), &package, &target, |place, file| arrange(place, file, &package))
        .with_context(|| format!("fetching {package}"))?;
    cached(machine, name).with_context(|| format!("{} is not complete", target.display()))
}

/// Keeps the image and notes what it is; a kernel's modules are a hundred megabytes that nothing here loads.
fn arrange(place: &Path, file: &Path, package: &str) -> Result<()> {
    let image = image_in(place).with_context(|| format!("{package} has no kernel image"))?;
    fs::rename(&image, place.join(IMAGE)).context("moving the kernel image")?;
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let sums = format!("{}  {name}\n{}  {IMAGE}\n", checksum(file)?, checksum(&place.join(IMAGE))?);
    fs::write(place.join(CHECKSUMS), sums).context("writing checksums")?;
    fs::write(place.join(ORIGIN), format!("{}\n", name.trim_end_matches(".deb")))
        .context("writing the origin")?;
    for rest in ["boot", "lib", "usr"] {
        let rest = place.join(rest);
        if rest.is_dir() {
            fs::remove_dir_all(&rest).with_context(|| format!("removing {}", rest.display()))?;
        }
    }
    Ok(())
}

/// `boot/vmlinuz-VERSION`, or `usr/lib/modules/VERSION/vmlinuz` in newer packages.
fn image_in(place: &Path) -> Option<PathBuf> {
    let entries = |folder: &str| fs::read_dir(place.join(folder)).into_iter().flatten().flatten();
    let in_boot = entries("boot").map(|entry| entry.path());
    let with_modules = entries("usr/lib/modules").map(|entry| entry.path().join(IMAGE));
    let is_image = |path: &PathBuf| {
        path.is_file() && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(IMAGE))
    };
    in_boot.chain(with_modules).find(is_image)
}

fn directory(machine: &Machine, name: &str) -> PathBuf {
    machine.cache.join("kernels").join(name)
}

fn checksum(path: &Path) -> Result<String> {
    let output = quietly(command("sha256sum", ["--"]).arg(path))?;
    Ok(output.split_whitespace().next().unwrap_or_default().to_owned())
}

fn recorded<'a>(sums: &'a str, name: &str) -> Option<&'a str> {
    sums.lines().find_map(|line| line.strip_suffix(name)?.strip_suffix("  "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_is_found_by_the_whole_name() {
        let sums = "aa  old-vmlinuz\nbb  vmlinuz\n";
        assert_eq!(recorded(sums, "vmlinuz"), Some("bb"));
        assert_eq!(recorded(sums, "initrd"), None);
    }

    #[test]
    fn the_table_has_the_default_and_no_name_twice() {
        let names: Vec<&str> = names().collect();
        assert!(names.contains(&DEFAULT));
        assert!(names.iter().all(|name| names.iter().filter(|other| *other == name).count() == 1));
    }
}
