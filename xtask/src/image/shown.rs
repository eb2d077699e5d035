//! The demo with its daemon in a container of the image, started as the Helm chart has a cluster start it: the same
//! capabilities and no others, root's files read-only, the initial pid namespace, and under the seccomp profile.
//!
//! The load, the service and the comparison are outside, as services are for a daemon on a node. Of all files outside,
//! the container has tracefs, the configuration, and the demo's folder: its configuration names a program by its path,
//! which a daemon looks for among its own files first.

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use anyhow::{Context, Result};

use super::{contents::Mounted, podman, without_rights};
use crate::{
    command::{in_words, quietly, visibly},
    machine::Machine,
    temporary::TemporaryFolder,
};

const SECCOMP: &str = "deploy/seccomp/linktracer.json";
const VALUES: &str = "deploy/helm/linktracer/values.yaml";
const TRACEFS: &str = "/sys/kernel/tracing:/sys/kernel/tracing:ro";
/// Where the command of the image looks for its configuration.
const CONFIGURATION: &str = "/etc/linktracer/linktracer.yaml";

/// Fails when one count is not the truth.
pub(super) fn the_demo_is_exact(machine: &Machine, image: &str, mounted: &Mounted) -> Result<()> {
    let scratch = TemporaryFolder::new("image-demo")?;
    let start = scratch.file("start", &script(machine, image)?)?;
    fs::set_permissions(&start, fs::Permissions::from_mode(0o755)).context("making it executable")?;
    let mut demo = Command::new(mounted.program());
    demo.args(["demo", "--within"]).arg(&start);
    println!("image: the demo, its daemon started by `{} ...`", in_words(&container(machine)?));
    let result = visibly(&mut demo).context("the demo with the daemon of the image");
    // It is gone, unless the demo had to give it up.
    quietly(&mut podman(["rm", "--force", "--ignore", "--time", "0", &container_name()]))?;
    result
}

fn container_name() -> String {
    format!("linktracer-image-{}", std::process::id())
}

/// The demo's words are `PROGRAM run --config FILE`; the image's command is the same, with a path of its own.
fn script(machine: &Machine, image: &str) -> Result<String> {
    let (run, name) = (in_words(&container(machine)?), container_name());
    let volumes = format!("--volume \"${{4%/*}}:${{4%/*}}:ro\" --volume \"$4:{CONFIGURATION}:ro\"");
    Ok(format!("#!/bin/sh\nexec {run} --name {name} {volumes} {image}\n"))
}

/// `podman run`, as the chart has it.
fn container(machine: &Machine) -> Result<Command> {
    let mut run = without_rights();
    run.args(["--cap-add", &capabilities(machine)?.join(","), "--pid", "host"]);
    // Kubernetes leaves this away with SYS_ADMIN; the daemon needs no more than it is given.
    run.args(["--security-opt", "no-new-privileges"]);
    let profile = machine.workspace.join(SECCOMP);
    run.arg("--security-opt").arg(format!("seccomp={}", profile.display()));
    run.args(["--volume", TRACEFS]);
    Ok(run)
}

/// Those that the chart's values have.
fn capabilities(machine: &Machine) -> Result<Vec<String>> {
    let values =
        fs::read_to_string(machine.workspace.join(VALUES)).with_context(|| format!("reading {VALUES}"))?;
    let list = values.lines().find_map(|line| line.strip_prefix("capabilities: [")?.strip_suffix(']'));
    let list = list.with_context(|| format!("{VALUES} has no line `capabilities: [...]`"))?;
    Ok(list.split(',').map(|name| name.trim().to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_container_has_what_the_chart_gives() {
        let words = in_words(&container(&Machine::look()).expect("the chart has values"));
        for part in [
            "--cap-drop all --cap-add SYS_ADMIN,BPF,PERFMON,SYS_PTRACE,DAC_READ_SEARCH",
            "--read-only",
            "--pid host",
            "seccomp/linktracer.json",
        ] {
            assert!(words.contains(part), "{part}: {words}");
        }
        assert!(!words.contains("privileged "), "{words}");
    }
}
