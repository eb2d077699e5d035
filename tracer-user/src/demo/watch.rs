//! Waiting: conditions polled with a deadline, Ctrl-C, and progress that is seen.

use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use signal_hook::{
    SigId,
    consts::{SIGINT, SIGTERM},
};

/// Set by SIGINT or SIGTERM. Everything that waits looks at it, so that an interrupted demo still stops its
/// processes and removes its files on the ordinary way out.
#[derive(Debug, Default)]
pub struct Interrupt {
    flag: Arc<AtomicBool>,
    handlers: Vec<SigId>,
}

impl Interrupt {
    /// Catches the signals from now on.
    pub fn catch() -> Result<Self> {
        let mut interrupt = Self::default();
        for signal in [SIGINT, SIGTERM] {
            let handler = signal_hook::flag::register(signal, Arc::clone(&interrupt.flag))
                .context("install a signal handler")?;
            interrupt.handlers.push(handler);
        }
        Ok(interrupt)
    }

    /// Whether a signal came.
    pub fn is_set(&self) -> bool {
        self.flag.load(Ordering::Relaxed)
    }

    /// An error once a signal came.
    pub fn check(&self) -> Result<()> {
        if self.is_set() {
            bail!("interrupted");
        }
        Ok(())
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        for handler in self.handlers.drain(..) {
            signal_hook::low_level::unregister(handler);
        }
    }
}

/// Asks `attempt` every `interval` until it has a value or `limit` is over; then `None`.
pub fn poll<T>(
    limit: Duration,
    interval: Duration,
    interrupt: &Interrupt,
    mut attempt: impl FnMut() -> Result<Option<T>>,
) -> Result<Option<T>> {
    let deadline = Instant::now() + limit;
    loop {
        interrupt.check()?;
        if let Some(value) = attempt()? {
            return Ok(Some(value));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        thread::sleep(interval);
    }
}

/// A bar on a terminal, a line for every tenth elsewhere.
#[derive(Debug)]
pub struct Progress {
    label: &'static str,
    bar: ProgressBar,
    total: u64,
    told_tenths: u64,
}

impl Progress {
    /// At zero of `total`.
    pub fn new(label: &'static str, total: u64) -> Self {
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{prefix} {bar:40} {pos}/{len} {msg}") {
            bar.set_style(style);
        }
        bar.set_prefix(label);
        Self { label, bar, total, told_tenths: 0 }
    }

    /// Shows how far it is, and what is waited for.
    pub fn show(&mut self, done: u64, message: &str, out: &mut dyn Write) -> Result<()> {
        self.bar.set_position(done);
        self.bar.set_message(message.to_owned());
        let tenths = done.min(self.total) * 10 / self.total.max(1);
        if self.bar.is_hidden() && tenths > self.told_tenths {
            self.told_tenths = tenths;
            let space = if message.is_empty() { "" } else { " " };
            writeln!(out, "{} {}/{}{space}{message}", self.label, done, self.total)?;
            out.flush()?;
        }
        Ok(())
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
