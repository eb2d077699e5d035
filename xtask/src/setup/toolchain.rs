//! Gets a compiler for the kernel side, by whichever way this machine has.
//!
//! In order of what they cost: adding the library's sources to a nightly that is already here (seconds), the
//! distribution's compiler with its sources (a minute), a whole nightly (minutes). Where rustup's archive cannot be
//! reached it may refuse at once or hang, so each call has a limit.

use std::{path::Path, time::Duration};

use anyhow::{Result, bail};

use super::apt;
use crate::{
    command::{command, quietly, quietly_within},
    kernel_side::{self, KernelToolchain, LINKED_TOOLCHAIN, OLDEST_RUSTC_MINOR, Unfit},
    machine::{Machine, Packager},
};

pub(super) const BY_HAND: &str = "rustup toolchain install nightly-2026-05-20 --component rust-src --profile minimal\n\
    or, where apt has them, apt-get install --no-install-recommends rustc-web cargo-web rust-web-src\n\
    and then rustup toolchain link linktracer-bpf /usr";

/// A nightly whose LLVM (22) packaged linkers and Debian's LLVM packages match.
const PINNED_NIGHTLY: &str = "nightly-2026-05-20";

const COMPONENT_LIMIT: Duration = Duration::from_secs(60);
const TOOLCHAIN_LIMIT: Duration = Duration::from_secs(300);

/// A compiler with the sources that belong to it, as Debian and Ubuntu name them: the one kept current for building
/// browsers, and the release's own.
const PACKAGE_SETS: [[&str; 3]; 2] =
    [["rust-web-src", "rustc-web", "cargo-web"], ["rust-src", "rustc", "cargo"]];

pub(super) fn is_there() -> bool {
    kernel_side::find_toolchain().is_ok()
}

pub(super) fn install(machine: &Machine) -> Result<String> {
    if std::env::var_os(kernel_side::TOOLCHAIN_VARIABLE).is_some() {
        // The person has chosen, and that choice would still be the one that counts.
        bail!(kernel_side::find_toolchain().err().unwrap_or_default());
    }
    let mut failures = Vec::new();
    for way in [add_sources, link_distribution, install_nightly] {
        match way(machine).and_then(|()| kernel_side::find_toolchain().map_err(anyhow::Error::msg)) {
            Ok(toolchain) => return Ok(took(&toolchain)),
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    bail!("none of the ways worked:\n- {}", failures.join("\n- "));
}

fn took(toolchain: &KernelToolchain) -> String {
    format!("took `{}`: rustc {}", toolchain.name, toolchain.version)
}

fn add_sources(_: &Machine) -> Result<()> {
    for (name, directory) in kernel_side::candidates() {
        if name.starts_with("nightly") && kernel_side::examine(&name, &directory) == Err(Unfit::NoSources) {
            let mut add = command("rustup", ["component", "add", "rust-src", "--toolchain", &name]);
            return quietly_within(&mut add, COMPONENT_LIMIT).map(drop);
        }
    }
    bail!("rustup has no nightly to add `rust-src` to");
}

fn link_distribution(machine: &Machine) -> Result<()> {
    if machine.packager != Packager::Apt {
        bail!("this is not a Debian or Ubuntu, whose packages this program knows");
    }
    // What is already installed may only lack its link.
    if link().is_ok_and(|()| is_there()) {
        return Ok(());
    }
    let Some(set) = PACKAGE_SETS.iter().find(|set| apt::fit_candidate(machine, set[0], new_enough).is_some())
    else {
        bail!("apt has no Rust with sources of 1.{OLDEST_RUSTC_MINOR} or newer");
    };
    apt::install(machine, set)?;
    link()
}

fn link() -> Result<()> {
    if kernel_side::find_program("rustup").is_none() {
        // Then the compiler on the path is the one that is looked at.
        return Ok(());
    }
    if kernel_side::examine(LINKED_TOOLCHAIN, Path::new("/usr")).is_err() {
        bail!("the compiler in /usr/bin is not complete");
    }
    quietly(&mut command("rustup", ["toolchain", "link", LINKED_TOOLCHAIN, "/usr"])).map(drop)
}

fn install_nightly(_: &Machine) -> Result<()> {
    let words = ["toolchain", "install", PINNED_NIGHTLY, "--component", "rust-src", "--profile", "minimal"];
    quietly_within(&mut command("rustup", words), TOOLCHAIN_LIMIT).map(drop)
}

/// Of a Debian version such as `1.96.0+dfsg1-1`.
fn new_enough(version: &str) -> bool {
    let upstream = version.split_once(':').map_or(version, |(_, rest)| rest);
    let mut numbers =
        upstream.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next().unwrap_or(0)) >= (Some(1), OLDEST_RUSTC_MINOR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compiler_as_old_as_the_release_is_not_taken() {
        assert!(new_enough("1.96.0+dfsg1-1~deb12u2"));
        assert!(new_enough("1:1.95.0-1"));
        assert!(!new_enough("1.85.0+dfsg3-1~deb12u3"));
        assert!(!new_enough("0.66"));
    }

    #[test]
    fn the_compiler_says_its_release_and_llvm() {
        let text = "rustc 1.96.0 (x)\nbinary: rustc\nrelease: 1.96.0\nLLVM version: 22.1.8\n";
        assert_eq!(kernel_side::parse_version(text), Some(("1.96.0".to_owned(), 22)));
        assert_eq!(kernel_side::parse_version("rustc 1.96.0 (x)\n"), None);
    }
}
