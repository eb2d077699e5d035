//! `cargo xtask image`: builds the image of deploy/Containerfile, looks into it, and runs the demo with its daemon.
//!
//! The build is the Containerfile's own: nothing is mounted into it and no step is left out. [`base`] is what it begins
//! with, [`contents`] what must be in the image and what not, [`shown`] that its daemon works as the Helm chart has it
//! started. No part of `cargo xtask test`, but for the tests in here: the build takes many minutes.

mod base;
mod contents;
mod names;
mod shown;

use std::{fs, process::Command, time::Instant};

use anyhow::{Context, Result, ensure};

use crate::{
    command::{command, quietly, visibly},
    machine::Machine,
    setup::{self, Purpose, short},
};

const CONTAINERFILE: &str = "deploy/Containerfile";

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// What the image is to be called
    #[arg(long, default_value = "localhost/linktracer:latest")]
    tag: String,
    /// Build in this image [default: the Containerfile's; where that cannot be fetched, as with --local-base]
    #[arg(long, value_name = "IMAGE", conflicts_with = "local_base")]
    base: Option<String>,
    /// Build in a stand-in for the Containerfile's base: Debian 12 from packages, with this machine's Rust
    #[arg(long)]
    local_base: bool,
    /// Build nothing: look at the image that was built before
    #[arg(long, conflicts_with_all = ["base", "local_base"])]
    built: bool,
}

pub(crate) fn main(arguments: &Arguments) -> Result<()> {
    let machine = Machine::look();
    ensure!(
        machine.root,
        "an image is mounted and its daemon loads programs into the kernel, which needs root"
    );
    setup::run(&machine, Purpose::Image)?;
    let image = &arguments.tag;
    if !arguments.built {
        build(&machine, arguments)?;
    }
    let mounted = contents::Mounted::new(image)?;
    contents::check(image, &mounted)?;
    names::are_resolved(image)?;
    shown::the_demo_is_exact(&machine, image, &mounted)
}

fn build(machine: &Machine, arguments: &Arguments) -> Result<()> {
    let text = containerfile(machine)?;
    let base = base::choose(machine, &text, arguments)?;
    let commit = quietly(command("git", ["rev-parse", "--short=12", "HEAD"]).current_dir(&machine.workspace))
        .unwrap_or_default();
    let started = Instant::now();
    // What each step leaves behind takes gigabytes, and the first of them copies the sources: it is never used again.
    let mut build = podman(["build", "--layers=false", "--network", "host", "--file", CONTAINERFILE]);
    build.args(["--tag", &arguments.tag, "--build-arg", &format!("BASE={base}")]);
    build.args(["--build-arg", &format!("COMMIT={}", commit.trim())]);
    visibly(build.arg(".").current_dir(&machine.workspace))?;
    println!("image: built {} in {base}, in {}", arguments.tag, short(started.elapsed()));
    Ok(())
}

/// `podman`, in a way that works with and without systemd.
fn podman<'a>(words: impl IntoIterator<Item = &'a str>) -> Command {
    let mut podman = command("podman", ["--cgroup-manager", "cgroupfs", "--runtime", "runc"]);
    podman.args(words);
    podman
}

/// `podman run` of a container that is gone with its program, may write nowhere and has no capability, in the network of
/// the machine.
fn without_rights() -> Command {
    let mut run = podman(["run", "--rm", "--read-only", "--network", "host"]);
    // podman's own limits are higher than what a machine without CAP_SYS_RESOURCE may set.
    run.args(["--ulimit", "nofile=4096:4096", "--ulimit", "nproc=4096:4096"]);
    run.args(["--cap-drop", "all"]);
    run
}

fn containerfile(machine: &Machine) -> Result<String> {
    fs::read_to_string(machine.workspace.join(CONTAINERFILE))
        .with_context(|| format!("reading {CONTAINERFILE}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_stage_is_empty_but_for_what_the_build_put_into_its_folder() {
        let text = containerfile(&Machine::look()).expect("it is there");
        let (_, last) = text.rsplit_once("\nFROM ").expect("it has stages");
        let instructions: Vec<&str> = last.lines().take(2).collect();
        assert_eq!(instructions, ["scratch", "COPY --from=build /image/ /"]);
        assert!(!last.contains("RUN"), "there is nothing to run in it");
    }

    #[test]
    fn the_build_is_static_and_of_what_is_locked() {
        let text = containerfile(&Machine::look()).expect("it is there");
        for words in
            ["RUSTFLAGS=\"-C target-feature=+crt-static\"", "--release --locked", "--target \"$target\""]
        {
            assert!(text.contains(words), "{words}");
        }
    }

    #[test]
    fn the_base_has_the_rust_of_this_workspace() {
        let machine = Machine::look();
        let text = containerfile(&machine).expect("it is there");
        let base = base::of(&text).expect("it names one");
        let toolchain =
            fs::read_to_string(machine.workspace.join("rust-toolchain.toml")).expect("it is there");
        let tag = base.strip_prefix("rust:").expect("the image of Rust, by its short name");
        let version = tag.split_once('-').expect("VERSION-NAME").0;
        assert!(toolchain.contains(&format!("channel = \"{version}.")), "{base}\n{toolchain}");
    }

    #[test]
    fn what_is_large_stays_out_of_the_build() {
        let ignored = Machine::look().workspace.join("deploy/Containerfile.dockerignore");
        let ignored = fs::read_to_string(ignored).expect("it is there");
        for folder in [".git", "target"] {
            assert!(ignored.lines().any(|line| line == folder), "{folder}");
        }
    }
}
