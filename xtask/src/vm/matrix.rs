//! What works on which kernel: the demo with each kind of hook, and what the verifier makes of each program.
//!
//! The counts of instructions that the verifier went through are held against a committed file, because they jump long
//! before a program is refused. Called by `cargo xtask vm` and, for two of the kernels, by `cargo xtask test`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::Path,
};

use anyhow::{Context, Result, bail};

use super::{GuestCommand, Limits, Status, daemon, kernel, short};
use crate::machine::Machine;

/// The committed counts: lines of kernel, program and count.
const KNOWN: &str = "xtask/src/vm/verified.txt";
/// The table for people.
const DOCUMENT: &str = "docs/kernels.md";
/// How far a count may be from the committed one, in percent: more than a compiler's mood, less than a mistake.
const BOUND_PERCENT: u64 = 10;

const COMMANDS: [&str; 4] = [
    "linktracer programs",
    "linktracer demo --requests 400 --hooks kprobe",
    "linktracer demo --requests 400 --hooks tracepoint",
    // The wall clock jumps while the service is traced.
    "(sleep 5; date -s @$(($(date +%s) + 3600)) >/dev/null) & linktracer demo --requests 400 --rate 100",
];

/// What each demo shows: how they are called in messages and in the table.
const DEMOS: [&str; 3] = ["with kprobes", "with tracepoints", "with a clock that jumps an hour"];

/// How a demo's verdict begins when events are missing exactly because the kernel did not call the hooks.
const EXPLAINED: &str = "the kernel skipped";

/// What was found on one kernel.
struct Findings {
    kernel: String,
    origin: String,
    /// By program: how many instructions, `?` where the kernel does not tell, or `refused`.
    programs: BTreeMap<String, String>,
    /// As [`DEMOS`]: whether it is right, and in words.
    demos: [(bool, String); 3],
}

/// Runs everything on each kernel; fails when something does not work, or does not fit what is known.
pub(super) fn run(
    machine: &Machine,
    binary: &Path,
    names: &[&str],
    limits: Limits,
    write: bool,
) -> Result<()> {
    let commands = COMMANDS.map(|line| GuestCommand { line: line.to_owned() });
    let mut all = Vec::new();
    for name in names {
        let kernel = kernel::find(machine, name)?;
        let statuses = super::run(machine, &kernel, &commands, &[daemon(binary.to_path_buf())], limits)?;
        for status in &statuses {
            println!(
                "vm {name}: exit code {} after {}: {}",
                status.code,
                short(status.duration),
                status.line
            );
        }
        all.push(findings(name, &kernel.origin, &statuses)?);
    }
    println!("\n{}", overview(&all));
    let mut problems: Vec<String> = all.iter().flat_map(failed_demos).collect();
    let known_path = machine.workspace.join(KNOWN);
    let known = fs::read_to_string(&known_path).with_context(|| format!("reading {KNOWN}"))?;
    if write && problems.is_empty() {
        fs::write(&known_path, to_lines(&all)).with_context(|| format!("writing {KNOWN}"))?;
        fs::write(machine.workspace.join(DOCUMENT), document(&all))
            .with_context(|| format!("writing {DOCUMENT}"))?;
    } else {
        problems.extend(all.iter().flat_map(|findings| drift(&parse_known(&known), findings)));
    }
    if problems.is_empty() { Ok(()) } else { bail!("{}", problems.join("\n")) }
}

fn findings(name: &str, origin: &str, statuses: &[Status]) -> Result<Findings> {
    let [programs, kprobe, tracepoint, clock] = statuses else { bail!("not every command ended") };
    Ok(Findings {
        kernel: name.to_owned(),
        origin: origin.to_owned(),
        programs: parse_programs(&programs.output),
        demos: [demo(kprobe), demo(tracepoint), demo(clock)],
    })
}

/// Lines of a program's name and a count or a refusal; everything else there is from the kernel.
fn parse_programs(output: &str) -> BTreeMap<String, String> {
    let of_line = |line: &str| {
        let (program, result) = line.split_once(' ')?;
        let result = result.split(':').next().unwrap_or_default();
        let is_result = result == "?" || result == "refused" || result.parse::<u64>().is_ok();
        (is_result && program.contains('_')).then(|| (program.to_owned(), result.to_owned()))
    };
    output.lines().filter_map(of_line).collect()
}

fn demo(status: &Status) -> (bool, String) {
    let explained = status.output.lines().find(|line| line.starts_with(EXPLAINED));
    match (status.code, explained) {
        (0, _) => (true, "exact".to_owned()),
        (_, Some(line)) => (true, line.to_owned()),
        (code, None) => (false, format!("fails (exit code {code})")),
    }
}

fn failed_demos(findings: &Findings) -> Vec<String> {
    let failed = findings.demos.iter().zip(DEMOS).filter(|((good, _), _)| !good);
    failed.map(|((_, words), demo)| format!("kernel {}: {demo} it {words}", findings.kernel)).collect()
}

type Known = BTreeMap<(String, String), String>;

fn parse_known(text: &str) -> Known {
    let of_line = |line: &str| match line.split_whitespace().collect::<Vec<_>>()[..] {
        [kernel, program, count] => Some(((kernel.to_owned(), program.to_owned()), count.to_owned())),
        _ => None,
    };
    text.lines().filter_map(of_line).collect()
}

/// What does not fit the committed counts. A kernel that is not in them (an image given by its path) has nothing to fit.
fn drift(known: &Known, findings: &Findings) -> Vec<String> {
    let of_kernel: BTreeMap<&String, &String> = known
        .iter()
        .filter(|((kernel, _), _)| *kernel == findings.kernel)
        .map(|((_, program), count)| (program, count))
        .collect();
    if of_kernel.is_empty() {
        return Vec::new();
    }
    let programs: BTreeSet<&String> = of_kernel.keys().copied().chain(findings.programs.keys()).collect();
    let problem = |program: &String| {
        let none = "none".to_owned();
        let expected = of_kernel.get(program).copied().unwrap_or(&none);
        let found = findings.programs.get(program).unwrap_or(&none);
        (!fits(expected, found)).then(|| {
            format!(
                "kernel {}, program {program}: the verifier's count is {found}, and {KNOWN} says {expected}, which it may \
                 differ from by {BOUND_PERCENT} %; if that is meant: cargo xtask vm --kernel all --write",
                findings.kernel
            )
        })
    };
    programs.into_iter().filter_map(problem).collect()
}

fn fits(expected: &str, found: &str) -> bool {
    match (expected.parse::<u64>(), found.parse::<u64>()) {
        (Ok(expected), Ok(found)) => expected.abs_diff(found) * 100 <= expected * BOUND_PERCENT,
        _ => expected == found,
    }
}

fn to_lines(all: &[Findings]) -> String {
    let lines = all.iter().flat_map(|findings| {
        findings.programs.iter().map(|(program, count)| format!("{} {program} {count}\n", findings.kernel))
    });
    lines.collect()
}

fn overview(all: &[Findings]) -> String {
    let mut text = format!(
        "| kernel | package | {} | ids on pages that are not in memory |\n|---|---|---|---|---|---|\n",
        DEMOS.join(" | ")
    );
    for findings in all {
        let sleepable =
            findings.programs.get("exposure_uprobe_sleepable").is_some_and(|count| count != "refused");
        let pages = if sleepable { "read" } else { "a `read_fault`" };
        let demos = findings.demos.each_ref().map(|(_, words)| words.as_str()).join(" | ");
        let Findings { kernel, origin, .. } = findings;
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| {kernel} | {origin} | {demos} | {pages} |");
    }
    text
}

fn document(all: &[Findings]) -> String {
    let programs: BTreeSet<&String> = all.iter().flat_map(|findings| findings.programs.keys()).collect();
    let kernels: Vec<&str> = all.iter().map(|findings| findings.kernel.as_str()).collect();
    let mut counts =
        format!("| program | {} |\n|---|{}\n", kernels.join(" | "), "---:|".repeat(kernels.len()));
    for program in programs {
        let cells = all.iter().map(|findings| findings.programs.get(program).map_or("", String::as_str));
        // Writing to a string cannot fail.
        let _ = writeln!(counts, "| `{program}` | {} |", cells.collect::<Vec<_>>().join(" | "));
    }
    format!("{HEAD}\n{}\n{FOOT}\n{counts}", overview(all))
}

const HEAD: &str = "# Kernels

Written by `cargo xtask vm --kernel all --write`, which boots each of these kernels of Debian in a virtual machine and
runs the demo there, with each kind of hook. `exact` means that every count is what the demo made.
";

const FOOT: &str = "Before 5.15 a probe has no attach cookie; the tracer then knows it by the last twelve bits of its place,
and refuses two that are alike. Where the kernel skips calls of a tracepoint (7.2 and later do, while another process is
preempted in the midst of the same one), they are counted: [skipped hits](operations.md#lost-events).

## What there is to verify

Instructions that the verifier goes through, of at most 1,000,000. `?`: the kernel does not tell (before 5.16).
`cargo xtask vm` fails when one is more than 10 % away from what is written here.
";

#[cfg(test)]
mod tests {
    use super::*;

    fn found(programs: &[(&str, &str)]) -> Findings {
        let programs =
            programs.iter().map(|(name, count)| ((*name).to_owned(), (*count).to_owned())).collect();
        let exact = || (true, "exact".to_owned());
        Findings {
            kernel: "6.1".to_owned(),
            origin: "p".to_owned(),
            programs,
            demos: [exact(), exact(), exact()],
        }
    }

    #[test]
    fn counts_are_read_among_messages_of_the_kernel() {
        let output = "write_kprobe 1771\n[    9.1] random: crng 3\nclick_uprobe_sleepable refused: it said no\nfork_tracepoint ?\n";
        let programs: Vec<(String, String)> = parse_programs(output).into_iter().collect();
        let expected =
            [("click_uprobe_sleepable", "refused"), ("fork_tracepoint", "?"), ("write_kprobe", "1771")];
        assert_eq!(programs, expected.map(|(name, count)| (name.to_owned(), count.to_owned())));
    }

    #[test]
    fn a_count_may_drift_by_the_bound_and_no_further() {
        let known = parse_known("6.1 a 1000\n6.1 b ?\n5.10 c 3\n");
        assert!(drift(&known, &found(&[("a", "1100"), ("b", "?")])).is_empty());
        assert_eq!(drift(&known, &found(&[("a", "1101"), ("b", "?")])).len(), 1);
        assert_eq!(drift(&known, &found(&[("a", "refused"), ("b", "7")])).len(), 2);
        assert_eq!(drift(&known, &found(&[("a", "1000"), ("b", "?"), ("new", "1")])).len(), 1);
        assert_eq!(drift(&known, &found(&[])).len(), 2);
    }

    #[test]
    fn a_demo_is_exact_explained_or_wrong() {
        let status = |code, output: &str| Status {
            line: String::new(),
            code,
            duration: std::time::Duration::ZERO,
            output: output.to_owned(),
        };
        assert!(demo(&status(0, "")).0);
        assert!(demo(&status(1, "x\nthe kernel skipped 9 calls\n")).0);
        assert!(!demo(&status(1, "22 of 36 counts differ\n")).0);
    }
}
