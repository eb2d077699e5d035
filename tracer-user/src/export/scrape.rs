//! What every metric says at one moment, for whoever asks.
//!
//! The thread that counts hands it out between two turns, so that no two figures of an answer are of different times: a
//! link that was counted as broken, and the loss that explains it, are in the same answer. Decides how much of its time
//! answers may take, and nothing else.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use prometheus::{Registry, proto::MetricFamily};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::oneshot;

/// One part in so many of the thread's time is for answers, however often somebody asks.
const SHARE_OF_ANSWERS: u32 = 10;
/// Nobody waits longer than this for the share's sake: whoever asks gives up after a few seconds.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Every metric at one moment.
pub type Figures = Arc<[MetricFamily]>;

/// Those who wait for figures.
#[derive(Default)]
pub struct Scrapes(Mutex<Vec<oneshot::Sender<Figures>>>);

impl Scrapes {
    /// The figures of a moment after this was called. It never comes when nobody answers.
    pub async fn ask(&self) -> Option<Figures> {
        let (sender, answer) = oneshot::channel();
        {
            let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // Those who gave up leave: there are never more than there are connections.
            waiting.retain(|waiting| !waiting.is_closed());
            waiting.push(sender);
        }
        answer.await.ok()
    }

    /// Those who have asked by now; `None` when nobody has.
    pub fn take(&self) -> Option<Asked> {
        let waiting = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        (!waiting.is_empty()).then_some(Asked(waiting))
    }
}

/// Some who wait. What they are answered with has to be published after they were taken.
pub struct Asked(Vec<oneshot::Sender<Figures>>);

impl Asked {
    /// Gives all of them what the registry says now.
    pub fn answer(self, registry: &Registry) {
        let figures: Figures = registry.gather().into();
        for waiting in self.0 {
            // Nobody is there any more when the client went away, or had no more time.
            let _ = waiting.send(Arc::clone(&figures));
        }
    }
}

/// Keeps answers to their share of the time of the thread that gives them.
#[derive(Debug, Default)]
pub struct Pace {
    /// No answer before then.
    until: Option<Instant>,
}

impl Pace {
    /// Whether there is time for an answer.
    pub fn allows_answer(&self) -> bool {
        self.until.is_none_or(|until| until <= Instant::now())
    }

    /// An answer ended that began then.
    pub fn note(&mut self, begun: Begun) {
        self.pause_after(Instant::now(), processor_time().saturating_sub(begun.0));
    }

    /// An answer ended that took so much processor time.
    fn pause_after(&mut self, ended: Instant, took: Duration) {
        self.until = Some(ended + (took * (SHARE_OF_ANSWERS - 1)).min(LONGEST_PAUSE));
    }
}

/// When an answer was begun, in processor time and not in time that goes by: a thread that was stopped in the middle, or
/// had no processor, has taken nothing for answers, and would pay for it with ten times as long a silence.
pub struct Begun(Duration);

impl Begun {
    /// This thread begins an answer.
    pub fn now() -> Self {
        Self(processor_time())
    }
}

/// What this thread has used of the processor.
fn processor_time() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::{
        sync::Arc,
        thread,
        time::{Duration, Instant},
    };

    use prometheus::IntGauge;

    use super::{Begun, Figures, LONGEST_PAUSE, Pace, Registry, SHARE_OF_ANSWERS, Scrapes};

    /// What the only gauge says in these figures.
    fn value(figures: &Figures) -> f64 {
        figures[0].get_metric()[0].get_gauge().get_value()
    }

    #[tokio::test]
    async fn all_who_asked_before_get_one_moment_and_who_asks_later_gets_another() {
        let gauge = IntGauge::new("gauge", "help").expect("a name");
        let registry = Registry::new();
        registry.register(Box::new(gauge.clone())).expect("is new");
        let scrapes = Scrapes::default();
        assert!(scrapes.take().is_none(), "nobody asks");
        let (first, second, ()) = tokio::join!(scrapes.ask(), scrapes.ask(), async {
            let asked = scrapes.take().expect("two ask");
            gauge.set(7);
            asked.answer(&registry);
            assert!(scrapes.take().is_none(), "both are answered");
        });
        let (later, ()) = tokio::join!(scrapes.ask(), async {
            gauge.set(8);
            scrapes.take().expect("one asks").answer(&registry);
        });
        let [first, second, later] = [first, second, later].map(|figures| figures.expect("is answered"));
        assert!(Arc::ptr_eq(&first, &second));
        assert_eq!((value(&first), value(&later)), (7.0, 8.0));
    }

    #[tokio::test]
    async fn who_gave_up_is_not_kept_while_nobody_answers() {
        let scrapes = Scrapes::default();
        for _ in 0..100 {
            let ask = scrapes.ask();
            let gives_up = async {};
            tokio::select! { biased; _ = ask => panic!("nobody answers"), () = gives_up => {} }
        }
        assert_eq!(scrapes.take().map(|asked| asked.0.len()), Some(1));
    }

    #[tokio::test]
    async fn who_is_not_answered_is_told_so() {
        let scrapes = Scrapes::default();
        let (figures, ()) = tokio::join!(scrapes.ask(), async { drop(scrapes.take()) });
        assert!(figures.is_none());
    }
    #[test]
    fn an_answer_is_followed_by_nine_times_its_processor_time_without_one_and_never_by_long() {
        let now = Instant::now();
        let mut pace = Pace::default();
        assert!(pace.allows_answer(), "there was none yet");
        for (took, pause) in [(7, 7 * (SHARE_OF_ANSWERS - 1)), (60_000, 2000)] {
            pace.pause_after(now, Duration::from_millis(took));
            assert_eq!(pace.until, Some(now + Duration::from_millis(pause.into())));
        }
        pace.pause_after(now + LONGEST_PAUSE, Duration::from_secs(1));
        assert!(!pace.allows_answer() || now.elapsed() >= 2 * LONGEST_PAUSE);
    }

    #[test]
    fn a_thread_that_was_stopped_in_an_answer_gives_the_next_at_once() {
        let mut pace = Pace::default();
        let begun = Begun::now();
        thread::sleep(Duration::from_millis(300));
        pace.note(begun);
        let until = pace.until.expect("there was an answer");
        // Three seconds of silence, or two, if the sleep had counted.
        assert!(until < Instant::now() + Duration::from_secs(1));
    }
}
