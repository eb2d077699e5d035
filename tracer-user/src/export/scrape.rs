//! What every metric says at one moment, for whoever asks.
//!
//! The thread that counts hands it out between two turns, so that no two figures of an answer are of different times: a
//! link that was counted as broken, and the loss that explains it, are in the same answer. Decides nothing.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus::{Registry, proto::MetricFamily};
use tokio::sync::oneshot;

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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use prometheus::IntGauge;

    use super::{Figures, Registry, Scrapes};

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
}
