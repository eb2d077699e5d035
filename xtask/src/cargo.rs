//! Calls of cargo, all with one profile, so that demo, tests and virtual machines share what is compiled.

use std::{env, path::PathBuf, process::Command};

use crate::{command, machine::Machine};

/// The one profile. Compiling the dependencies and the kernel side a second time would cost minutes.
pub(crate) const PROFILE: &str = "checked";

/// Tells the end-to-end tests which binary to run: they are in another package, which cargo does not tell.
pub(crate) const BINARY_VARIABLE: &str = "LINKTRACER_BIN";

/// The daemon's package and binary.
const PACKAGE: &str = "tracer-user";
const BINARY: &str = "linktracer";

/// `cargo SUBCOMMAND --profile PROFILE` at the repository's top, with the toolchain of the user side.
pub(crate) fn cargo(machine: &Machine, subcommand: &str) -> Command {
    let mut cargo = plain(machine, subcommand);
    cargo.args(["--profile", PROFILE]);
    cargo
}

/// `cargo SUBCOMMAND` at the repository's top.
pub(crate) fn plain(machine: &Machine, subcommand: &str) -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.arg(subcommand).current_dir(&machine.workspace);
    // What cargo told this process about this process's package is not about the next one.
    for (key, _) in env::vars_os() {
        if key.to_str().is_some_and(|key| key.starts_with("CARGO_PKG_") || key.starts_with("CARGO_MANIFEST_"))
        {
            cargo.env_remove(key);
        }
    }
    cargo
}

/// Builds the daemon, with cargo's own progress on the terminal.
pub(crate) fn build(machine: &Machine) -> anyhow::Result<PathBuf> {
    command::visibly(cargo(machine, "build").args(["--package", PACKAGE, "--bin", BINARY]))?;
    Ok(binary(machine))
}

/// Where cargo keeps its settings and what it fetched.
pub(crate) fn home() -> PathBuf {
    let default = || PathBuf::from(env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".cargo");
    env::var_os("CARGO_HOME").map_or_else(default, PathBuf::from)
}

/// Where cargo puts the daemon.
pub(crate) fn binary(machine: &Machine) -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    // The folder is named as the profile, but for `dev`, which is not used here.
    machine.workspace.join(target).join(PROFILE).join(BINARY)
}
