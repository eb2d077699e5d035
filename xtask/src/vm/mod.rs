//! `cargo xtask vm`: linktracer on another kernel, in a virtual machine made for one run.
//!
//! The guest is a kernel image of a distribution and an initramfs with busybox and the files a caller names; it runs
//! command lines one after the other, tells their exit codes over a serial line of their own, and powers off. Processors
//! are emulated in software: slow, and the same on every machine. Nothing of the host is reachable from inside.
//!
//! Without command lines of its own it holds a kernel against what is known of it: [`matrix`].

mod console;
mod cpio;
mod initramfs;
pub(crate) mod kernel;
pub(crate) mod libraries;
mod matrix;
mod qemu;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result, bail};

use self::kernel::Kernel;
use crate::{
    cargo,
    machine::Machine,
    setup::{self, Purpose, short},
    temporary::TemporaryFolder,
};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Which kernel: 5.10, 6.1, 6.12 or newest, `all` of these, or the path of a kernel image
    #[arg(long, default_value = kernel::DEFAULT)]
    kernel: String,
    /// The guest's memory in MiB
    #[arg(long, default_value_t = 1024, value_name = "MiB")]
    memory: u32,
    /// How long the guest may take in all
    #[arg(long, default_value_t = TIMEOUT.as_secs(), value_name = "SECONDS")]
    timeout: u64,
    /// Write what was found into docs/kernels.md and the file of known counts, instead of comparing with it
    #[arg(long, conflicts_with = "commands")]
    write: bool,
    /// Run these command lines instead of the demo; may be given several times
    #[arg(long = "run", value_name = "COMMAND LINE")]
    commands: Vec<String>,
    /// Take a file along, at the same path in the guest unless another is given; may be given several times
    #[arg(long = "file", value_name = "PATH[:GUEST PATH]")]
    files: Vec<String>,
}

/// For an emulated processor on a machine that is busy with something else.
const TIMEOUT: Duration = Duration::from_secs(1800);

/// One command line for the guest's shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GuestCommand {
    pub(crate) line: String,
}

/// A file of the host and where the guest has it; libraries it needs come along by themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GuestFile {
    pub(crate) host: PathBuf,
    pub(crate) guest: PathBuf,
}

/// How a command of the guest ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) line: String,
    /// As the guest's shell has it: 128 and the signal's number after a signal.
    pub(crate) code: i32,
    /// The guest's own time.
    pub(crate) duration: Duration,
    /// What it printed, with what the kernel said meanwhile.
    pub(crate) output: String,
}

/// What a guest is given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) memory_mib: u32,
    pub(crate) timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory_mib: 1024, timeout: TIMEOUT }
    }
}

pub(crate) fn main(arguments: &Arguments) -> Result<()> {
    let machine = Machine::look();
    let limits = Limits { memory_mib: arguments.memory, timeout: Duration::from_secs(arguments.timeout) };
    if arguments.commands.is_empty() {
        setup::run(&machine, Purpose::Vm)?;
        let binary = cargo::build(&machine)?;
        let names: Vec<&str> = match arguments.kernel.as_str() {
            "all" => kernel::names().collect(),
            name => vec![name],
        };
        return matrix::run(&machine, &binary, &names, limits, arguments.write);
    }
    setup::run(&machine, Purpose::GuestOnly)?;
    let files: Vec<GuestFile> = arguments.files.iter().map(|file| guest_file(file)).collect();
    let commands: Vec<GuestCommand> =
        arguments.commands.iter().map(|line| GuestCommand { line: line.clone() }).collect();
    let kernel = kernel::find(&machine, &arguments.kernel)?;
    judge(&run(&machine, &kernel, &commands, &files, limits)?)
}

/// Holds one kernel against what is known of it, as the tests do.
pub(crate) fn check(machine: &Machine, name: &str) -> Result<()> {
    matrix::run(machine, &cargo::binary(machine), &[name], Limits::default(), false)
}

/// Boots `kernel`, runs `commands` and returns how each of them ended. An error means that the guest did not come
/// through: it did not boot, broke down, or took longer than it may.
pub(crate) fn run(
    machine: &Machine,
    kernel: &Kernel,
    commands: &[GuestCommand],
    files: &[GuestFile],
    limits: Limits,
) -> Result<Vec<Status>> {
    let busybox = setup::busybox(machine)
        .context("no busybox for the virtual machine: run `cargo xtask setup --for vm`")?;
    let place = TemporaryFolder::new("vm")?;
    let image = place.path().join("initramfs");
    initramfs::write(&image, &busybox, commands, files).context("writing the virtual machine's initramfs")?;
    println!("vm {}: booting {}", kernel.name, kernel.origin);
    let session = qemu::run(kernel, &image, &place.path().join("status"), limits)?;
    let mut report = console::parse(&session.status, commands);
    if let Some(boot) = report.boot {
        println!(
            "vm {}: up after {} of its time, ended after {}",
            kernel.name,
            short(boot),
            short(session.duration)
        );
    }
    if session.timed_out {
        let place = report.place(commands);
        bail!(
            "the virtual machine took longer than {}: stopped {place} (see --timeout)",
            short(limits.timeout)
        );
    }
    if !report.complete {
        bail!(
            "the virtual machine ended {}; what it said last is above, and if that is nothing, give it more --memory",
            report.place(commands)
        );
    }
    for (status, output) in report.statuses.iter_mut().zip(console::outputs(&session.console, commands)) {
        status.output = output;
    }
    Ok(report.statuses)
}

fn judge(statuses: &[Status]) -> Result<()> {
    for status in statuses {
        println!("vm: exit code {} after {}: {}", status.code, short(status.duration), status.line);
    }
    let failed = statuses.iter().filter(|status| status.code != 0).count();
    if failed > 0 {
        bail!("{failed} of {} commands failed in the virtual machine", statuses.len());
    }
    Ok(())
}

/// The daemon as a program of the guest.
pub(crate) fn daemon(binary: PathBuf) -> GuestFile {
    GuestFile { host: binary, guest: PathBuf::from("/usr/bin/linktracer") }
}

fn guest_file(text: &str) -> GuestFile {
    let (host, guest) = text.split_once(':').unwrap_or((text, text));
    GuestFile { host: PathBuf::from(host), guest: PathBuf::from(guest) }
}
