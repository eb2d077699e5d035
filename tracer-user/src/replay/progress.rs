//! How far a replay has come, for whoever sits at the terminal. Where there is none, nothing is drawn.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

const REDRAW_INTERVAL: Duration = Duration::from_millis(200);
const WITH_LENGTH: &str =
    "{bar:24} {bytes} of {total_bytes}  {events} events  {events_per_second}/s  {eta} left";
const WITHOUT_LENGTH: &str = "{spinner} {bytes}  {events} events  {events_per_second}/s  {elapsed}";

/// A line that is drawn over and over.
pub(super) struct Progress {
    bar: ProgressBar,
    events: Arc<AtomicU64>,
}

impl Progress {
    /// Draws to `target`; `length` is that of the input in bytes, as far as it is known.
    pub(super) fn new(target: ProgressDrawTarget, length: Option<u64>) -> Self {
        let events = Arc::new(AtomicU64::new(0));
        let template = if length.is_some() { WITH_LENGTH } else { WITHOUT_LENGTH };
        let (total, rate) = (Arc::clone(&events), Arc::clone(&events));
        let style = ProgressStyle::with_template(template)
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .with_key("events", move |_: &ProgressState, out: &mut dyn std::fmt::Write| {
                // Nobody sees a line that cannot be written.
                let _ = write!(out, "{}", HumanCount(total.load(Ordering::Relaxed)));
            })
            .with_key("events_per_second", move |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                let seconds = state.elapsed().as_secs_f64().max(f64::MIN_POSITIVE);
                let _ = write!(out, "{}", HumanCount(per_second(rate.load(Ordering::Relaxed), seconds)));
            });
        let bar = ProgressBar::with_draw_target(length, target).with_style(style);
        bar.enable_steady_tick(REDRAW_INTERVAL);
        Self { bar, events }
    }

    /// So many bytes of the input were taken in all, and so many events more were joined.
    pub(super) fn advance(&self, taken_bytes: u64, events: usize) {
        self.events.fetch_add(events as u64, Ordering::Relaxed);
        self.bar.set_position(taken_bytes);
    }

    /// Says something without the line in between.
    pub(super) fn aside(&self, say: impl FnOnce()) {
        self.bar.suspend(say);
    }

    /// Takes the line away.
    pub(super) fn finish(self) {
        self.bar.finish_and_clear();
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate for people to read")]
#[expect(clippy::cast_precision_loss, reason = "a rate for people to read")]
fn per_second(count: u64, seconds: f64) -> u64 {
    (count as f64 / seconds) as u64
}
