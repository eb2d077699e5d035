//! Packages of Debian and Ubuntu: installed, or only fetched and extracted into the cache.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::{Context, Result, bail};

use super::{lists::OtherLists, steps::require_apt};
use crate::{
    command::{command, quietly},
    machine::Machine,
};

/// Refreshing the lists takes longest of all, so it is done at most once and only after something was not found.
static LISTS_ARE_FRESH: AtomicBool = AtomicBool::new(false);

/// The version apt would install; `None` when it knows no such package.
pub(super) fn candidate(package: &str) -> Option<String> {
    parse_candidate(&quietly(&mut command("apt-cache", ["policy", package])).ok()?)
}

/// As [`candidate`], after refreshing the lists if it is not `fit` at first.
pub(super) fn fit_candidate(machine: &Machine, package: &str, fit: fn(&str) -> bool) -> Option<String> {
    let fitting = || candidate(package).filter(|version| fit(version));
    fitting().or_else(|| refresh(machine).ok().and_then(|_| fitting()))
}

/// Installs packages without what they merely recommend, and never at the price of another one.
pub(super) fn install(machine: &Machine, packages: &[&str]) -> Result<()> {
    require_apt(machine)?;
    if !machine.root {
        bail!("installing {} needs root", packages.join(" "));
    }
    if packages.iter().any(|package| candidate(package).is_none()) {
        refresh(machine)?;
    }
    let attempt = || install_by(packages, &[]);
    // Lists of yesterday name files that are gone today.
    attempt().or_else(|error| if refresh(machine)? { attempt() } else { Err(error) })
}

/// As [`install`]; where the release's own packages do not go together with what is installed, from its backports.
pub(super) fn install_or_backport(machine: &Machine, packages: &[&str]) -> Result<()> {
    install(machine, packages).or_else(|error| {
        backport(machine, packages).with_context(|| format!("{error:#}\nand from backports as well"))
    })
}

fn backport(machine: &Machine, packages: &[&str]) -> Result<()> {
    let release = fs::read_to_string("/etc/os-release").context("reading /etc/os-release")?;
    let codename = codename(&release).context("/etc/os-release has no VERSION_CODENAME")?;
    let suites = ["", "-security", "-backports"].map(|suffix| format!("{codename}{suffix}"));
    let [.., backports] = &suites;
    let lists = OtherLists::fetch(machine, &suites.each_ref().map(String::as_str))?;
    let mut options = lists.options();
    options.extend(["--target-release".to_owned(), backports.clone()]);
    install_by(packages, &options)
}

fn install_by(packages: &[&str], options: &[String]) -> Result<()> {
    let fixed =
        ["install", "--yes", "--no-install-recommends", "--no-remove", "--option", "DPkg::Lock::Timeout=300"];
    let mut install = command("apt-get", fixed);
    quietly(install.args(options).args(packages).env("DEBIAN_FRONTEND", "noninteractive")).map(drop)
}

/// Fetches a package and extracts its files into the cache; nothing is installed, no script of it runs.
pub(super) fn extract(machine: &Machine, package: &str) -> Result<PathBuf> {
    let directory = extracted_directory(machine, package);
    fetch_into(machine, None, package, &directory, |_, _| Ok(()))?;
    Ok(directory)
}

/// Where [`extract`] puts a package.
pub(super) fn extracted_directory(machine: &Machine, package: &str) -> PathBuf {
    machine.cache.join("packages").join(package)
}

/// Fetches a package, extracts it beside `directory`, lets `arrange` finish that (it gets the place and the package's
/// file), and only then gives it its name: an interrupted run leaves nothing that looks complete.
///
/// `lists` are those of another release; without them, the machine's own.
pub(crate) fn fetch_into(
    machine: &Machine,
    lists: Option<&OtherLists>,
    package: &str,
    directory: &Path,
    arrange: impl FnOnce(&Path, &Path) -> Result<()>,
) -> Result<()> {
    require_apt(machine)?;
    let unfinished = directory.with_extension(format!("unfinished-{}", std::process::id()));
    let result = fetch_unfinished(machine, lists, package, &unfinished, arrange).and_then(|()| {
        if directory.exists() {
            fs::remove_dir_all(directory).with_context(|| format!("replacing {}", directory.display()))?;
        }
        fs::rename(&unfinished, directory).with_context(|| format!("naming {}", directory.display()))
    });
    if result.is_err() {
        // The error at hand says more than one of tidying up would.
        drop(fs::remove_dir_all(&unfinished));
    }
    result
}

fn fetch_unfinished(
    machine: &Machine,
    lists: Option<&OtherLists>,
    package: &str,
    unfinished: &Path,
    arrange: impl FnOnce(&Path, &Path) -> Result<()>,
) -> Result<()> {
    let download = unfinished.join("download");
    fs::create_dir_all(&download).with_context(|| format!("creating {}", download.display()))?;
    let attempt = || {
        let mut fetch = command("apt-get", ["download", package]);
        if let Some(lists) = lists {
            fetch.args(lists.options());
        }
        if machine.root {
            // Else apt warns that its own unprivileged user cannot write here.
            fetch.args(["--option", "APT::Sandbox::User=root"]);
        }
        quietly(fetch.current_dir(&download))
    };
    attempt().or_else(|error| if refresh(machine)? { attempt() } else { Err(error) })?;
    let file = fs::read_dir(&download)
        .with_context(|| format!("reading {}", download.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .with_context(|| format!("`apt-get download {package}` left no package in {}", download.display()))?;
    quietly(command("dpkg-deb", ["--extract"]).arg(&file).arg(unfinished))?;
    arrange(unfinished, &file)?;
    fs::remove_dir_all(&download).with_context(|| format!("removing {}", download.display()))
}

/// Whether it was worth doing: not without root, and not twice.
fn refresh_lists(machine: &Machine) -> Result<bool> {
    if !machine.root || LISTS_ARE_FRESH.swap(true, Ordering::Relaxed) {
        return Ok(false);
    }
    quietly(&mut command("apt-get", ["update", "--option", "DPkg::Lock::Timeout=300"]))?;
    Ok(true)
}

fn refresh(machine: &Machine) -> Result<bool> {
    refresh_lists(machine).context("refreshing the lists of packages")
}

/// Of the content of `os-release`.
fn codename(release: &str) -> Option<&str> {
    release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="))
}

fn parse_candidate(policy: &str) -> Option<String> {
    let version = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate:"))?.trim();
    (version != "(none)").then(|| version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_candidate_is_the_version_apt_would_install() {
        let policy = "cpio:\n  Installed: (none)\n  Candidate: 2.13+dfsg-7.1\n  Version table:\n";
        assert_eq!(parse_candidate(policy).as_deref(), Some("2.13+dfsg-7.1"));
    }

    #[test]
    fn a_release_says_its_codename() {
        let release =
            "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_CODENAME=bookworm\nID=debian\n";
        assert_eq!(codename(release), Some("bookworm"));
        assert_eq!(codename("ID=arch\n"), None);
    }

    #[test]
    fn an_unknown_package_has_no_candidate() {
        assert_eq!(parse_candidate(""), None);
        assert_eq!(parse_candidate("x:\n  Installed: (none)\n  Candidate: (none)\n"), None);
    }
}
