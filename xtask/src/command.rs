//! Runs child processes: silently with their output kept for the error, or visibly.

use std::{
    io::Read,
    os::unix::process::CommandExt,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// How many of a failed child's last lines go into the error.
const TAIL_LINES: usize = 20;

/// How often a child is asked whether it has ended.
const POLL: Duration = Duration::from_millis(10);

/// A command from its words.
pub(crate) fn command<'a>(program: &str, arguments: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

/// Runs to the end and returns what was written to standard output; on failure the error has the last lines of both.
pub(crate) fn quietly(command: &mut Command) -> Result<String> {
    capture(command, None)
}

/// As [`quietly`], and stops the child with its own children when it takes longer than `limit`.
pub(crate) fn quietly_within(command: &mut Command, limit: Duration) -> Result<String> {
    // A group of its own, so that everything it started can be ended with it.
    capture(command.process_group(0), Some(limit))
}

/// Runs with this terminal; an error when it does not exit with 0.
pub(crate) fn visibly(command: &mut Command) -> Result<()> {
    let words = in_words(command);
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("starting `{words}`"))?;
    if !status.success() {
        bail!("`{words}` ended with {status}");
    }
    Ok(())
}

/// The command line as a person would type it, without the environment.
pub(crate) fn in_words(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Waits until the child has ended, at most until `deadline`; `None` when it is still running then.
pub(crate) fn wait_until(child: &mut Child, deadline: Option<Instant>) -> Result<Option<ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait().context("waiting for a child process")? {
            return Ok(Some(status));
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ok(None);
        }
        thread::sleep(POLL);
    }
}

fn capture(command: &mut Command, limit: Option<Duration>) -> Result<String> {
    let words = in_words(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting `{words}`"))?;
    let output = Collected::default();
    let both = Collected::default();
    let readers = [
        child.stdout.take().map(|pipe| collect(pipe, vec![output.clone(), both.clone()])),
        child.stderr.take().map(|pipe| collect(pipe, vec![both.clone()])),
    ];
    let Some(status) = wait_until(&mut child, limit.map(|limit| Instant::now() + limit))? else {
        let group = format!("-{}", child.id());
        // Best effort: what is left to say is the same whether or not the group was still there.
        drop(self::command("kill", ["-KILL", "--", &group]).stderr(Stdio::null()).status());
        drop(child.wait());
        bail!("`{words}` took longer than {} s; its last lines:\n{}", seconds(limit), both.tail());
    };
    for reader in readers.into_iter().flatten() {
        drop(reader.join());
    }
    if !status.success() {
        bail!("`{words}` ended with {status}; its last lines:\n{}", both.tail());
    }
    Ok(output.text())
}

fn seconds(limit: Option<Duration>) -> u64 {
    limit.unwrap_or_default().as_secs()
}

fn collect(mut pipe: impl Read + Send + 'static, into: Vec<Collected>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut buffer = [0; 8192];
        // A pipe that can no longer be read is a child that has gone; its exit status says more than this would.
        while let Ok(length @ 1..) = pipe.read(&mut buffer) {
            into.iter().for_each(|collected| collected.push(&buffer[..length]));
        }
    })
}

#[derive(Clone, Default)]
struct Collected(Arc<Mutex<Vec<u8>>>);

impl Collected {
    fn push(&self, bytes: &[u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    fn tail(&self) -> String {
        let text = self.text();
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        let from = lines.len().saturating_sub(TAIL_LINES);
        lines[from..].iter().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_output_alone_is_returned() {
        let output = quietly(&mut command("sh", ["-c", "echo out; echo err >&2"]));
        assert_eq!(output.expect("the command succeeds"), "out\n");
    }

    #[test]
    fn a_failure_shows_the_last_lines_of_both_outputs() {
        let error = quietly(&mut command("sh", ["-c", "echo out; echo err >&2; exit 3"]));
        let error = error.expect_err("the command fails").to_string();
        assert!(
            error.contains("exit status: 3") && error.contains("out") && error.contains("err"),
            "{error}"
        );
    }

    #[test]
    fn a_command_past_its_limit_is_ended_with_its_children() {
        let started = Instant::now();
        let result =
            quietly_within(&mut command("sh", ["-c", "sleep 60 & wait"]), Duration::from_millis(100));
        assert!(result.is_err());
        assert!(started.elapsed() < Duration::from_secs(30));
    }
}
