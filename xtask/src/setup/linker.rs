//! Builds bpf-linker, against an LLVM that reads what the kernel side's compiler writes.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use super::apt;
use crate::{
    command::{command, quietly},
    kernel_side::{self, LLVM_MAJORS},
    machine::Machine,
    vm::libraries,
};

const VERSION: &str = "0.13.0";

pub(super) const BY_HAND: &str = "your distribution's bpf-linker 0.13 or newer, or with its LLVM's development files (here 22):\n\
    LLVM_PREFIX=/usr/lib/llvm-22 cargo install bpf-linker --version 0.13.0 --no-default-features --features llvm-22 --locked\n\
    (the LLVM must not be older than the compiler's: `rustc -vV` of the kernel side's toolchain says which)";

/// There, new enough, and of an LLVM that is new enough where that can be seen.
pub(super) fn is_there() -> bool {
    let (Ok(linker), Ok(toolchain)) = (kernel_side::find_linker(), kernel_side::find_toolchain()) else {
        return false;
    };
    llvm_of(&linker).is_none_or(|major| major >= toolchain.llvm_major)
}

pub(super) fn install(machine: &Machine) -> Result<String> {
    let toolchain = kernel_side::find_toolchain().map_err(anyhow::Error::msg)?;
    let (major, prefix) = development_files(machine, toolchain.llvm_major)?;
    let feature = format!("llvm-{major}");
    let mut install =
        command("cargo", ["install", "bpf-linker", "--version", VERSION, "--locked", "--force"]);
    install.args(["--no-default-features", "--features", &feature]);
    // A shared folder for compiled crates would keep a linker's worth of LLVM bindings for good.
    install.env("LLVM_PREFIX", &prefix).env_remove("CARGO_TARGET_DIR").current_dir(&machine.workspace);
    quietly(&mut install).context("building bpf-linker")?;
    Ok(format!("done, with LLVM {major}"))
}

/// The LLVM to build against: the oldest here that is not older than the compiler's, else one that apt has.
fn development_files(machine: &Machine, oldest: u32) -> Result<(u32, PathBuf)> {
    let fitting = || oldest.max(*LLVM_MAJORS.start())..=*LLVM_MAJORS.end();
    if let Some(prefix) = env::var_os("LLVM_PREFIX").map(PathBuf::from) {
        let major = llvm_config(&prefix.join("bin/llvm-config"));
        return match major.filter(|major| fitting().contains(major)) {
            Some(major) => Ok((major, prefix)),
            None => bail!("LLVM_PREFIX={} holds no LLVM of {:?}", prefix.display(), fitting()),
        };
    }
    if let Some(found) = fitting().find_map(installed) {
        return Ok(found);
    }
    for major in fitting() {
        let package = format!("llvm-{major}-dev");
        if apt::fit_candidate(machine, &package, |_| true).is_some() {
            apt::install(machine, &[&package])?;
            return installed(major).with_context(|| format!("{package} has brought no llvm-config"));
        }
    }
    bail!("no LLVM of {:?} with development files, here or known to apt", fitting());
}

/// Where distributions put the LLVM of one version: Debian, Fedora, Alpine, then Arch and openSUSE.
fn installed(major: u32) -> Option<(u32, PathBuf)> {
    let own = ["/usr/lib/llvm-", "/usr/lib64/llvm", "/usr/lib/llvm"].map(|start| format!("{start}{major}"));
    let prefixes = own.into_iter().chain(["/usr".to_owned()]).map(PathBuf::from);
    prefixes
        .into_iter()
        .find(|prefix| llvm_config(&prefix.join("bin/llvm-config")) == Some(major))
        // Without its headers and link names it is only good for running programs.
        .filter(|prefix| prefix.join("include/llvm-c").is_dir())
        .map(|prefix| (major, prefix))
}

fn llvm_config(program: &Path) -> Option<u32> {
    let version = quietly(std::process::Command::new(program).arg("--version")).ok()?;
    version.trim().split('.').next()?.parse().ok()
}

/// `None` when LLVM is linked into the program itself.
fn llvm_of(linker: &Path) -> Option<u32> {
    let needed = libraries::of(linker).ok()?;
    needed.iter().find_map(|path| llvm_major(path.file_name()?.to_str()?))
}

/// Of `libLLVM.so.22.1` and of `libLLVM-19.so`, as the older ones are named.
fn llvm_major(name: &str) -> Option<u32> {
    let rest = name.strip_prefix("libLLVM")?.trim_start_matches(".so.").trim_start_matches('-');
    rest.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_tells_the_version() {
        assert_eq!(llvm_major("libLLVM.so.22.1"), Some(22));
        assert_eq!(llvm_major("libLLVM-19.so.1"), Some(19));
        assert_eq!(llvm_major("libc.so.6"), None);
    }
}
