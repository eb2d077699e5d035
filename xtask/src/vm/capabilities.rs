//! Which capabilities the tracer needs on which kernel: found by running the demo as a user who is not root, with several
//! sets of them.
//!
//! Called by `cargo xtask vm --capabilities`. What each is for is in docs/operations.md, which the table goes into.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use anyhow::{Context, Result, bail, ensure};

use super::{GuestCommand, GuestFile, Limits, Status, daemon, kernel};
use crate::{kernel_side::find_program, machine::Machine};

/// The sets that are tried, from which one sees what can be left out.
const SETS: [&[&str]; 8] = [
    &["bpf", "perfmon", "sys_ptrace", "dac_read_search"],
    &["bpf", "perfmon", "sys_ptrace", "dac_read_search", "sys_admin"],
    &["sys_ptrace", "dac_read_search", "sys_admin"],
    &["dac_read_search", "sys_admin"],
    &["sys_ptrace", "sys_admin"],
    &["perfmon", "sys_ptrace", "dac_read_search"],
    &["bpf", "sys_ptrace", "dac_read_search"],
    &["bpf", "perfmon", "dac_read_search"],
];

/// Starts a program with some capabilities; in the guest.
const SETPRIV: &str = "/usr/bin/setpriv";

/// Between these lines of the document is the table.
const DOCUMENT: &str = "docs/operations.md";
const BEGIN: &str = "<!-- written by `cargo xtask vm --kernel all --capabilities --write` -->";
const END: &str = "<!-- end -->";

/// Runs the demo with each set on each kernel; a set that works nowhere, or differently than the document says, is no
/// failure but a line of the table. Fails when no set works.
pub(super) fn run(
    machine: &Machine,
    binary: &Path,
    names: &[&str],
    limits: Limits,
    write: bool,
) -> Result<()> {
    let setpriv = find_program("setpriv").context("no setpriv: install util-linux")?;
    let files = [daemon(binary.to_path_buf()), GuestFile { host: setpriv, guest: SETPRIV.into() }];
    let commands = SETS.map(|set| GuestCommand { line: command_line(set) });
    let mut results: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
    for name in names {
        let kernel = kernel::find(machine, name)?;
        let statuses = super::run(machine, &kernel, &commands, &files, limits)?;
        ensure!(
            statuses.iter().any(|status| status.code == 0),
            "kernel {name}: no set of capabilities is enough"
        );
        for (set, status) in statuses.iter().enumerate() {
            results.entry(set).or_default().push(word(status));
        }
    }
    let table = table(names, &results);
    println!("\n{table}");
    if write {
        let path = machine.workspace.join(DOCUMENT);
        let text = fs::read_to_string(&path).with_context(|| format!("reading {DOCUMENT}"))?;
        fs::write(&path, with_table(&text, &table)?).with_context(|| format!("writing {DOCUMENT}"))?;
    }
    Ok(())
}

/// As a user who owns nothing; what is not named is in no set of the process.
fn command_line(set: &[&str]) -> String {
    let capabilities = set.iter().map(|name| format!(",+{name}")).collect::<String>();
    format!(
        // By its path: the guest's shell has a smaller program of that name built in.
        "cd /tmp; {SETPRIV} --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all{capabilities} \
         --ambient-caps=-all{capabilities} --bounding-set=-all{capabilities} linktracer demo --requests 50"
    )
}

fn word(status: &Status) -> &'static str {
    match status.code {
        0 => "exact",
        // A demo that ran and counted wrong is something else than one that could not run.
        _ if status.output.contains("counts differ") => "wrong",
        _ => "-",
    }
}

fn table(names: &[&str], results: &BTreeMap<usize, Vec<&str>>) -> String {
    let mut text = format!("| capabilities | {} |\n|---|{}\n", names.join(" | "), "---|".repeat(names.len()));
    for (set, words) in results {
        let capabilities: Vec<String> =
            SETS[*set].iter().map(|name| format!("`{}`", name.to_uppercase())).collect();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| {} | {} |", capabilities.join(", "), words.join(" | "));
    }
    text
}

fn with_table(text: &str, table: &str) -> Result<String> {
    let Some((before, rest)) = text.split_once(BEGIN) else { bail!("{DOCUMENT} has no line {BEGIN}") };
    let Some((_, after)) = rest.split_once(END) else { bail!("{DOCUMENT} has no line {END}") };
    Ok(format!("{before}{BEGIN}\n\n{table}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_goes_between_its_lines_and_can_be_written_again() {
        let text = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        let once = with_table(&text, "| new |\n").expect("has both lines");
        assert_eq!(once, format!("a\n{BEGIN}\n\n| new |\n\n{END}\nb\n"));
        assert_eq!(with_table(&once, "| new |\n").expect("has both lines"), once);
        assert!(with_table("nothing", "x").is_err());
    }

    #[test]
    fn a_row_names_its_capabilities() {
        let table = table(&["6.1"], &BTreeMap::from([(3, vec!["exact"])]));
        assert!(table.contains("| `DAC_READ_SEARCH`, `SYS_ADMIN` | exact |"), "{table}");
    }
}
