//! The kernels that virtual machines boot: distributions' images, fetched as packages and never installed.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    command::{command, quietly},
    machine::Machine,
    setup::fetch_into,
};

/// The kernel that setup fetches and the tests use.
pub(crate) const DEFAULT: &str = "6.1";

/// One kernel that can be asked for by name.
struct Row {
    /// What is typed.
    name: &'static str,
    /// The release of Debian that has it; apt must know that release.
    suite: &'static str,
    /// The package that depends on the newest image of the line.
    meta: &'static str,
    /// How that image's package must be called, so that another release's is not taken for it.
    image: &'static str,
}

const TABLE: &[Row] =
    &[Row { name: DEFAULT, suite: "bookworm", meta: "linux-image-cloud-amd64", image: "linux-image-6.1." }];

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
        let known: Vec<&str> = TABLE.iter().map(|row| row.name).collect();
        bail!("no kernel is called {name}; known are {}, or give the path of an image", known.join(", "));
    };
    ensure!(
        std::env::consts::ARCH == "x86_64",
        "virtual machines are for x86_64 so far, and this is another machine"
    );
    let package = resolve(row)?;
    let target = directory(machine, name);
    fetch_into(machine, &package, &target, |place, file| arrange(place, file, &package))
        .with_context(|| format!("fetching {package}"))?;
    cached(machine, name).with_context(|| format!("{} is not complete", target.display()))
}

fn resolve(row: &Row) -> Result<String> {
    let depends = quietly(&mut command("apt-cache", ["depends", row.meta]))?;
    let package =
        parse_depends(&depends).with_context(|| format!("apt knows no image behind {}", row.meta))?;
    ensure!(
        package.starts_with(row.image),
        "kernel {} is Debian {}'s, and apt has {package} here: give the path of an image with --kernel",
        row.name,
        row.suite
    );
    Ok(package)
}

/// Keeps the image and notes what it is; a kernel's modules are a hundred megabytes that nothing here loads.
fn arrange(place: &Path, file: &Path, package: &str) -> Result<()> {
    let boot = place.join("boot");
    let image = fs::read_dir(&boot)
        .with_context(|| format!("reading {}", boot.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-")))
        .with_context(|| format!("{package} has no kernel image"))?;
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

fn parse_depends(depends: &str) -> Option<String> {
    let mut names = depends.lines().filter_map(|line| line.trim().strip_prefix("Depends:"));
    names.find_map(|name| name.trim().starts_with("linux-image-").then(|| name.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_meta_package_leads_to_the_image() {
        let depends = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-56-cloud-amd64\n";
        assert_eq!(parse_depends(depends).as_deref(), Some("linux-image-6.1.0-56-cloud-amd64"));
        assert_eq!(parse_depends("x\n  Recommends: linux-image-6.1.0\n"), None);
    }

    #[test]
    fn a_checksum_is_found_by_the_whole_name() {
        let sums = "aa  old-vmlinuz\nbb  vmlinuz\n";
        assert_eq!(recorded(sums, "vmlinuz"), Some("bb"));
        assert_eq!(recorded(sums, "initrd"), None);
    }

    #[test]
    fn the_table_has_the_default_and_no_name_twice() {
        let names: Vec<&str> = TABLE.iter().map(|row| row.name).collect();
        assert!(names.contains(&DEFAULT));
        assert!(names.iter().all(|name| names.iter().filter(|other| *other == name).count() == 1));
    }
}
