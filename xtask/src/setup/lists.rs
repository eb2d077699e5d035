//! Lists of packages of other releases of Debian, kept apart from the machine's own: packages can be fetched by them, and
//! nothing is installed by them that was not meant to be.
//!
//! They come from the archives that the machine itself uses, and are checked against the keys that Debian's own
//! package of keys has put on it.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, ensure};

use super::steps::require_apt;
use crate::{
    command::{command, quietly},
    machine::Machine,
};

const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The lists of some releases.
pub(crate) struct OtherLists {
    directory: PathBuf,
}

impl OtherLists {
    /// Fetches the lists of `suites`, such as `trixie-backports` or `bookworm-security`.
    pub(crate) fn fetch(machine: &Machine, suites: &[&str]) -> Result<Self> {
        require_apt(machine)?;
        ensure!(
            fs::metadata(KEYS).is_ok(),
            "no keys at {KEYS}: the packages of other releases are fetched on Debian only"
        );
        let sources = sources(suites)?;
        let lists = Self { directory: machine.cache.join("lists").join(suites.join("+")) };
        for folder in ["lists/partial", "archives/partial"] {
            let folder = lists.directory.join(folder);
            fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        }
        fs::write(lists.sources(), sources.join("\n")).context("writing the sources")?;
        quietly(command("apt-get", ["update"]).args(lists.options()))
            .with_context(|| format!("fetching the lists of {}", suites.join(", ")))?;
        Ok(lists)
    }

    /// The package of the highest version among those whose names begin with `prefix` and end with `suffix`.
    pub(crate) fn newest(&self, prefix: &str, suffix: &str) -> Result<String> {
        let names = quietly(command("apt-cache", ["pkgnames", prefix]).args(self.options()))?;
        newest(names.lines().filter(|name| name.ends_with(suffix)))
            .with_context(|| format!("no package {prefix}*{suffix} in {}", self.directory.display()))
    }

    /// What makes apt use these lists and no others.
    pub(super) fn options(&self) -> Vec<String> {
        let directory = self.directory.display();
        [
            format!("Dir::Etc::sourcelist={}", self.sources().display()),
            "Dir::Etc::sourceparts=-".to_owned(),
            format!("Dir::State::lists={directory}/lists"),
            format!("Dir::Cache={directory}"),
            "Acquire::Languages=none".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
        ]
        .into_iter()
        .flat_map(|option| ["--option".to_owned(), option])
        .collect()
    }

    fn sources(&self) -> PathBuf {
        self.directory.join("sources.list")
    }
}

/// The lines of a `sources.list` for `suites`, of the archives that this machine's apt uses.
pub(crate) fn sources(suites: &[&str]) -> Result<Vec<String>> {
    let targets = quietly(&mut command("apt-get", ["indextargets", "--format", "$(LABEL) $(REPO_URI)"]))?;
    suites
        .iter()
        .map(|suite| {
            let label = if suite.ends_with("-security") { "Debian-Security" } else { "Debian" };
            let archive =
                archive(&targets, label).with_context(|| format!("apt uses no archive of {label} here"))?;
            Ok(format!("deb [signed-by={KEYS}] {archive} {suite} main"))
        })
        .collect()
}

fn archive<'a>(targets: &'a str, label: &str) -> Option<&'a str> {
    targets.lines().find_map(|line| line.split_once(' ').filter(|(of, _)| *of == label).map(|(_, uri)| uri))
}

/// By the numbers in the names, in order: 7.3.4 is after 7.2.12.
fn newest<'a>(names: impl Iterator<Item = &'a str>) -> Option<String> {
    let numbers = |name: &str| {
        let digits = name.split(|character: char| !character.is_ascii_digit());
        digits.filter_map(|number| number.parse::<u32>().ok()).collect::<Vec<_>>()
    };
    names.max_by_key(|name| numbers(name)).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_is_found_by_number_and_not_by_letter() {
        let names = [
            "linux-image-7.2.12+deb13-cloud-amd64",
            "linux-image-7.3.4+deb13-cloud-amd64",
            "linux-image-7.2.9+deb13-cloud-amd64",
        ];
        assert_eq!(newest(names.into_iter()).as_deref(), Some(names[1]));
        assert_eq!(newest(std::iter::empty()), None);
    }

    #[test]
    fn an_archive_is_found_by_its_label() {
        let targets = "Debian-Security mirror:/security/\nDebian mirror:/main/\n";
        assert_eq!(archive(targets, "Debian"), Some("mirror:/main/"));
        assert_eq!(archive(targets, "Other"), None);
    }
}
