//! Runs the emulator once and shows the guest's console while it runs.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::{Limits, kernel::Kernel};
use crate::command::wait_until;

const EMULATOR: &str = "qemu-system-x86_64";

/// What is left of a run.
pub(super) struct Session {
    /// Everything the guest told on its second serial line.
    pub(super) status: String,
    /// The lines of its console, as they were shown.
    pub(super) console: Vec<String>,
    pub(super) duration: Duration,
    pub(super) timed_out: bool,
}

/// Boots and waits until the guest has gone down, or stops it at the limit.
pub(super) fn run(kernel: &Kernel, initramfs: &Path, status: &Path, limits: Limits) -> Result<Session> {
    let started = Instant::now();
    let mut emulator = Command::new(EMULATOR)
        // Software emulation: hardware support is missing in most virtual machines, and broken in some.
        .args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2"])
        .args(["-m", &limits.memory_mib.to_string()])
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(initramfs)
        // On a busy machine the emulated timer can be late, which newer kernels would take for a broken one.
        .args(["-append", "console=ttyS0 quiet panic=-1 no_timer_check", "-no-reboot", "-nodefaults"])
        .args(["-display", "none", "-monitor", "none", "-serial", "stdio"])
        .arg("-serial")
        .arg(format!("file:{}", status.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {EMULATOR}: run `cargo xtask setup --for vm`"))?;
    let prefix = format!("vm {} | ", kernel.name);
    let shown = [
        emulator.stdout.take().map(|pipe| show(pipe, prefix.clone())),
        emulator.stderr.take().map(|pipe| show(pipe, prefix)),
    ];
    let ended = wait_until(&mut emulator, Some(started + limits.timeout))?;
    if ended.is_none() {
        emulator.kill().context("stopping the virtual machine")?;
        emulator.wait().context("waiting for the virtual machine")?;
    }
    let [console, _] = shown.map(|reader| reader.and_then(|reader| reader.join().ok()).unwrap_or_default());
    if let Some(exit) = ended.filter(|exit| !exit.success()) {
        bail!("{EMULATOR} ended with {exit}; its message is above");
    }
    // A guest that never came up has told nothing, which the caller sees by itself.
    let status =
        fs::read(status).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    Ok(Session { status, console, duration: started.elapsed(), timed_out: ended.is_none() })
}

/// Shows the lines as they come, and returns them in the end.
fn show(pipe: impl Read + Send + 'static, prefix: String) -> thread::JoinHandle<Vec<String>> {
    thread::spawn(move || {
        let mut shown = Vec::new();
        let mut lines = BufReader::new(pipe).split(b'\n');
        while let Some(Ok(line)) = lines.next() {
            let line = printable(&String::from_utf8_lossy(&line));
            println!("{prefix}{line}");
            shown.push(line);
        }
        shown
    })
}

/// Without the firmware's and the guest's terminal control sequences, which would reach into what is already shown.
fn printable(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        if character == '\u{1b}' {
            // Up to the letter that ends the sequence; a sequence without a bracket is one character long.
            if characters.next() == Some('[') {
                characters.by_ref().find(|c| c.is_ascii_alphabetic());
            }
        } else if character == '\t' || !character.is_control() {
            text.push(character);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_sequences_are_left_out() {
        assert_eq!(printable("\u{1b}c\u{1b}[?7l\u{1b}[2J\u{1b}[0mhello\tworld\r"), "hello\tworld");
    }
}
