//! `cargo xtask capabilities`: which capabilities the tracer needs on which kernel, found by leaving each of them out.
//!
//! The daemon of the demo runs as a user who owns nothing, with one set of capabilities after the other, while the
//! service that it traces is root's: what reaches into processes of other users has to. On this machine's kernel and in
//! virtual machines. What each is for is in docs/operations.md, which the table goes into.

use std::{
    fmt::Write as _,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::{
    cargo,
    command::{command, quietly},
    document::Place,
    kernel_side::find_program,
    machine::Machine,
    setup::{self, Purpose},
    temporary::TemporaryFolder,
    vm::{self, GuestCommand, GuestFile, Limits, kernel},
};

/// The kernel that this runs on.
const NATIVE: &str = "native";

/// What is tried: everything; without the one that newer kernels ask for; what that one covers left out; and then, from
/// the smallest set that may work on any kernel, one after the other.
const SETS: [&[&str]; 8] = [
    &["sys_admin", "bpf", "perfmon", "sys_ptrace", "dac_read_search"],
    &["bpf", "perfmon", "sys_ptrace", "dac_read_search"],
    &["sys_admin", "sys_ptrace", "dac_read_search"],
    &["perfmon", "sys_ptrace", "dac_read_search"],
    &["bpf", "sys_ptrace", "dac_read_search"],
    &["sys_admin", "bpf", "perfmon", "dac_read_search"],
    &["sys_admin", "bpf", "perfmon", "sys_ptrace"],
    &[],
];

/// Starts a program with some capabilities.
const SETPRIV: &str = "/usr/bin/setpriv";

const PLACE: Place =
    Place { document: "docs/operations.md", begin: "<!-- written by `cargo xtask capabilities --write` -->" };

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Which kernel: native, 5.10, 6.1, 6.12, newest, or `all` of these
    #[arg(long, default_value = "all")]
    kernel: String,
    /// Write the table into docs/operations.md
    #[arg(long)]
    write: bool,
}

pub(crate) fn main(arguments: &Arguments) -> Result<()> {
    let machine = Machine::look();
    ensure!(machine.root, "only root can start a program with capabilities of its choice");
    let setpriv = find_program("setpriv").context("no setpriv: install util-linux")?;
    setup::run(&machine, Purpose::Demo)?;
    let binary = cargo::build(&machine)?;
    let names: Vec<&str> = match arguments.kernel.as_str() {
        "all" => std::iter::once(NATIVE).chain(kernel::names()).collect(),
        name => vec![name],
    };
    if names.iter().any(|name| *name != NATIVE) {
        setup::run(&machine, Purpose::Vm)?;
    }
    let mut columns = Vec::new();
    for name in names {
        let words =
            if name == NATIVE { natively(&binary)? } else { in_guest(&machine, &binary, &setpriv, name)? };
        columns.push((title(name)?, words));
    }
    let table = table(&columns);
    println!("\n{table}");
    if arguments.write {
        PLACE.write(&machine, &table)?;
    }
    let works = |(_, words): &&(String, Vec<String>)| words.iter().any(|word| word == EXACT);
    let broken: Vec<&str> =
        columns.iter().filter(|column| !works(column)).map(|(title, _)| title.as_str()).collect();
    ensure!(broken.is_empty(), "no set of capabilities is enough on {}", broken.join(", "));
    Ok(())
}

/// What the column of a kernel is called.
fn title(name: &str) -> Result<String> {
    if name != NATIVE {
        return Ok(name.to_owned());
    }
    let release = quietly(&mut command("uname", ["-r"]))?;
    let version: Vec<&str> = release.trim().split(['.', '-']).take(2).collect();
    Ok(version.join("."))
}

fn natively(binary: &Path) -> Result<Vec<String>> {
    // The build's folder may not be readable for somebody else.
    let folder = TemporaryFolder::new("capabilities")?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).context("opening the folder")?;
    let copy: PathBuf = folder.path().join("linktracer");
    fs::copy(binary, &copy).context("copying the binary")?;
    let run = |set: &&[&str]| {
        let line = command_line(&copy.to_string_lossy(), set);
        println!("$ {line}");
        let output = Command::new("sh").args(["-c", &line]).output().context("starting the shell")?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        println!("{text}");
        Ok(word(output.status.code().unwrap_or(-1), &text))
    };
    SETS.iter().map(run).collect()
}

fn in_guest(machine: &Machine, binary: &Path, setpriv: &Path, name: &str) -> Result<Vec<String>> {
    let kernel = kernel::find(machine, name)?;
    let files =
        [vm::daemon(binary.to_path_buf()), GuestFile { host: setpriv.to_path_buf(), guest: SETPRIV.into() }];
    let commands = SETS.map(|set| GuestCommand { line: command_line("linktracer", set) });
    let statuses = vm::run(machine, &kernel, &commands, &files, Limits::default())?;
    Ok(statuses.iter().map(|status| word(status.code, &status.output)).collect())
}

/// The demo whose daemon is a user who owns nothing; what is not named is in no set of that process.
fn command_line(linktracer: &str, set: &[&str]) -> String {
    let plus: String = set.iter().map(|name| format!(",+{name}")).collect();
    format!(
        // By its path: the guest's shell has a smaller program of that name built in.
        "{linktracer} demo --requests 50 --within '{SETPRIV} --reuid 65534 --regid 65534 --clear-groups \
         --inh-caps=-all{plus} --ambient-caps=-all{plus} --bounding-set=-all{plus}' 2>&1"
    )
}

const EXACT: &str = "exact";

/// What became of a demo: exact, what the checks name as missing, or what the kernel refused.
fn word(code: i32, output: &str) -> String {
    if code == 0 {
        return EXACT.to_owned();
    }
    if output.contains("counts differ") {
        return "counts differ".to_owned();
    }
    let named = output.lines().filter(|line| line.contains("missing CAP_"));
    let named = named.flat_map(|line| line.split(|c: char| !c.is_ascii_uppercase() && c != '_'));
    let mut missing: Vec<String> =
        named.filter(|word| word.starts_with("CAP_")).map(|word| format!("`{}`", &word[4..])).collect();
    missing.dedup();
    if !missing.is_empty() {
        return format!("asks for {}", missing.join(", "));
    }
    let refusals = ["Permission denied", "Operation not permitted", "`perf_event_open` failed"];
    let refused = output.lines().find(|line| refusals.iter().any(|refusal| line.contains(refusal)));
    refused.map_or_else(|| format!("fails (exit code {code})"), |_| "the kernel refuses".to_owned())
}

fn table(columns: &[(String, Vec<String>)]) -> String {
    let titles: Vec<&str> = columns.iter().map(|(title, _)| title.as_str()).collect();
    let mut text =
        format!("| capabilities | {} |\n|---|{}\n", titles.join(" | "), "---|".repeat(columns.len()));
    for (place, set) in SETS.iter().enumerate() {
        let set: Vec<String> = set.iter().map(|name| format!("`{}`", name.to_uppercase())).collect();
        let set = if set.is_empty() { "none".to_owned() } else { set.join(", ") };
        let words: Vec<&str> = columns.iter().map(|(_, words)| words[place].as_str()).collect();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| {set} | {} |", words.join(" | "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_a_place_for_the_table() {
        assert!(PLACE.read(&Machine::look()).is_ok());
    }

    #[test]
    fn what_became_of_a_demo_is_said_in_a_word() {
        assert_eq!(word(0, "missing CAP_X"), EXACT);
        assert_eq!(word(1, "22 of 36 counts differ"), "counts differ");
        let named =
            "FAILED privileges: missing CAP_BPF (loading), CAP_SYS_PTRACE (looking)\nmissing CAP_SYS_PTRACE";
        assert_eq!(word(1, named), "asks for `BPF`, `SYS_PTRACE`");
        assert_eq!(word(1, "error: cannot attach: `perf_event_open` failed"), "the kernel refuses");
        assert_eq!(word(1, "x: Permission denied (os error 13)"), "the kernel refuses");
        assert_eq!(word(137, ""), "fails (exit code 137)");
    }
}
