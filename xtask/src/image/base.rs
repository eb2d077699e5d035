//! What the build of the image begins with: the image that deploy/Containerfile names, or a stand-in for it.
//!
//! The stand-in is for machines that reach Debian's packages and no registry of images. It is the same Debian with the
//! tools that the other one has and the build uses, and this machine's Rust at the places where the other one has it. So
//! that the steps of the build reach what this machine reaches, it has this machine's way to packages, too: apt's and
//! cargo's settings, and the authorities whose certificates are accepted. None of that goes into the image that is built
//! in it.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::{Arguments, podman};
use crate::{
    cargo,
    command::{command, quietly, quietly_within, visibly},
    kernel_side::find_program,
    machine::Machine,
    setup::{self, Purpose, short},
};

/// How long a registry may take to say what it has.
const ASK_LIMIT: Duration = Duration::from_secs(30);

const SUITES: [&str; 3] = ["bookworm", "bookworm-updates", "bookworm-security"];
/// Beside the smallest Debian that has apt.
const PACKAGES: &str = "ca-certificates,gcc,libc6-dev,make";

/// The settings of the image that is stood in for.
const ENVIRONMENT: [&str; 3] = [
    "ENV RUSTUP_HOME=/usr/local/rustup",
    "ENV CARGO_HOME=/usr/local/cargo",
    "ENV PATH=/usr/local/cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
];

/// Where Debian's `update-ca-certificates` looks for authorities of one's own.
const AUTHORITIES: &str = "usr/local/share/ca-certificates";

/// The base image that a Containerfile names.
pub(super) fn of(containerfile: &str) -> Result<&str> {
    containerfile
        .lines()
        .find_map(|line| line.strip_prefix("ARG BASE="))
        .with_context(|| format!("{} has no line `ARG BASE=...`", super::CONTAINERFILE))
}

/// The base to build in, made where that is asked for or the only way.
pub(super) fn choose(machine: &Machine, containerfile: &str, arguments: &Arguments) -> Result<String> {
    if let Some(base) = &arguments.base {
        return Ok(base.clone());
    }
    let named = of(containerfile)?;
    if arguments.local_base {
        return stand_in(machine, named);
    }
    let here = || quietly(&mut podman(["image", "exists", named])).is_ok();
    if here() || quietly_within(&mut podman(["manifest", "inspect", named]), ASK_LIMIT).is_ok() {
        return Ok(named.to_owned());
    }
    println!("image: {named} cannot be fetched here");
    stand_in(machine, named)
}

/// The stand-in's name; it is made where there is none yet.
fn stand_in(machine: &Machine, instead_of: &str) -> Result<String> {
    let tag = instead_of.rsplit_once(':').map_or("latest", |(_, tag)| tag);
    let name = format!("localhost/linktracer-stand-in:{tag}");
    if quietly(&mut podman(["image", "exists", &name])).is_ok() {
        println!("image: building in {name}, the stand-in for {instead_of} that is here");
        return Ok(name);
    }
    println!("image: making {name}, a stand-in for {instead_of}: Debian's packages and this machine's Rust");
    setup::run(machine, Purpose::StandIn)?;
    let started = Instant::now();
    let folder = machine.cache.join(format!("stand-in-{}", std::process::id()));
    let result = fill(machine, &folder).and_then(|()| import(&folder, &name));
    let tidied = fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()));
    result.and(tidied)?;
    println!("image: made it in {}", short(started.elapsed()));
    Ok(name)
}

fn fill(machine: &Machine, folder: &Path) -> Result<()> {
    fs::create_dir_all(&machine.cache).with_context(|| format!("creating {}", machine.cache.display()))?;
    debian(folder)?;
    rust(machine, folder)?;
    let authorities = Path::new("/").join(AUTHORITIES);
    if authorities.is_dir() {
        copy_folder(&authorities, &folder.join(AUTHORITIES))?;
    }
    quietly(command("chroot", []).arg(folder).arg("update-ca-certificates")).map(drop)
}

fn debian(folder: &Path) -> Result<()> {
    let mut bootstrap = command("mmdebstrap", ["--quiet", "--mode=root", "--variant=minbase"]);
    bootstrap.arg(format!("--include={PACKAGES}"));
    let settings = quietly(&mut command("apt-config", ["dump", "--no-empty"]))?;
    bootstrap.args(fetching(&settings).map(|line| format!("--aptopt={line}")));
    visibly(bootstrap.arg(SUITES[0]).arg(folder).args(setup::sources(&SUITES)?))
}

/// Of all of apt's settings, those that say how this machine reaches packages.
fn fetching(settings: &str) -> impl Iterator<Item = &str> {
    const KINDS: [&str; 4] = ["Acquire::http", "Acquire::Check-", "Acquire::Retries", "Acquire::ForceIPv"];
    settings.lines().filter(|line| KINDS.iter().any(|kind| line.starts_with(kind)))
}

/// This machine's toolchain and rustup, where the image that is stood in for has its own.
fn rust(machine: &Machine, folder: &Path) -> Result<()> {
    let rustup =
        find_program("rustup").context("the stand-in gets the Rust of rustup, and there is none here")?;
    let mut ask = command("rustup", ["show", "active-toolchain"]);
    let answer = quietly(ask.current_dir(&machine.workspace))?;
    let name = answer.split_whitespace().next().context("rustup names no toolchain")?;
    let sysroot = quietly(command("rustc", ["--print", "sysroot"]).current_dir(&machine.workspace))?;
    let toolchain = folder.join("usr/local/rustup/toolchains").join(name);
    copy_folder(Path::new(sysroot.trim()), &toolchain)?;
    // Books: more than half of it.
    drop(fs::remove_dir_all(toolchain.join("share/doc/rust/html")));

    let programs = folder.join("usr/local/cargo/bin");
    fs::create_dir_all(&programs).with_context(|| format!("creating {}", programs.display()))?;
    let rustup = fs::canonicalize(&rustup).with_context(|| format!("following {}", rustup.display()))?;
    fs::copy(&rustup, programs.join("rustup")).with_context(|| format!("copying {}", rustup.display()))?;
    for name in ["cargo", "rustc", "rustdoc"] {
        std::os::unix::fs::symlink("rustup", programs.join(name))
            .with_context(|| format!("linking {name}"))?;
    }
    // Another registry than cargo's own, a proxy.
    let settings = cargo::home().join("config.toml");
    if settings.is_file() {
        fs::copy(&settings, folder.join("usr/local/cargo/config.toml"))
            .context("copying cargo's settings")?;
    }
    Ok(())
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("creating {}", to.display()))?;
    quietly(command("cp", ["--archive"]).arg(from.join(".")).arg(to)).map(drop)
}

fn import(folder: &Path, name: &str) -> Result<()> {
    let mut pack = command("tar", ["--create", "--numeric-owner", "--directory"]);
    let mut pack = pack.arg(folder).arg(".").stdout(Stdio::piped()).spawn().context("starting tar")?;
    let changes = ENVIRONMENT.iter().flat_map(|change| ["--change", change]);
    let mut import: Command = podman(["import", "--quiet"].into_iter().chain(changes));
    import.args(["-", name]).stdout(Stdio::null());
    let status = import.stdin(pack.stdout.take().context("tar has an output")?).status();
    let packed = pack.wait().context("waiting for tar")?;
    ensure!(status.context("starting podman")?.success(), "`podman import` has failed");
    ensure!(packed.success(), "tar has failed: {packed}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_is_the_default_of_the_argument() {
        assert_eq!(of("# x\nARG BASE=a/b:c\nFROM $BASE AS build\n").expect("it names one"), "a/b:c");
        assert!(of("FROM a\n").is_err());
    }

    #[test]
    fn of_apts_settings_those_about_fetching_are_taken_along() {
        let settings = "APT::Sandbox::User \"_apt\";\nAcquire::http::Proxy \"http://proxy:3128\";\n\
                        Acquire::IndexTargets::deb::Packages::MetaKey \"x\";\nAcquire::Check-Date \"false\";\n";
        let taken: Vec<&str> = fetching(settings).collect();
        assert_eq!(taken, ["Acquire::http::Proxy \"http://proxy:3128\";", "Acquire::Check-Date \"false\";"]);
    }
}
