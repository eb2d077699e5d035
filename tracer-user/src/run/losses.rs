//! What was lost since the last look, in the terms of the ratio's bounds.

use std::sync::Arc;

use tracer_common::counters::{HitOutcome, Hook};

use crate::{attach::Counters, ingest::interpret::Reason, slo::Losses};

/// Reads what the kernel side counts as lost, and adds what was lost after it.
pub(super) struct LossMeter {
    counters: Arc<Counters>,
    /// The counts of the last look.
    known: Vec<(Hook, HitOutcome, u64)>,
    /// Lost here since the last look.
    lost_here: Losses,
}

impl LossMeter {
    /// Counts begin at 0 when the kernel side is loaded.
    pub(super) fn new(counters: Arc<Counters>) -> Self {
        let losses =
            Hook::ALL.into_iter().flat_map(|hook| HitOutcome::LOSSES.map(|outcome| (hook, outcome, 0)));
        Self { counters, known: losses.collect(), lost_here: Losses::default() }
    }

    /// A record of this hook became no event.
    pub(super) fn note(&mut self, hook: Hook, reason: Reason) {
        if reason == Reason::Undecodable {
            // One event of some kind.
            let one = Losses { requests: 1, exposures: 1, clicks: 1, reports: 1, uncounted: false };
            self.lost_here = self.lost_here.with(one);
        } else if Reason::LOSSES.contains(&reason) {
            self.lost_here = self.lost_here.with(losses_of(hook, 1));
        }
    }

    /// What was lost since the last call.
    pub(super) fn take(&mut self) -> Losses {
        let mut losses = std::mem::take(&mut self.lost_here);
        for (hook, outcome, known) in &mut self.known {
            // A counter that cannot be read is logged at the scrape; what it would say is not known.
            let Ok(count) = self.counters.read(*hook, *outcome) else {
                losses.uncounted = true;
                continue;
            };
            let new = count.saturating_sub(*known);
            *known = count;
            if new > 0 {
                losses = losses.with(match outcome {
                    // Everything that the process does from here on.
                    HitOutcome::TargetsFull => Losses { uncounted: true, ..Losses::default() },
                    _ => losses_of(*hook, new),
                });
            }
        }
        losses
    }
}

/// What so many lost hits of a hook can have been, at most.
fn losses_of(hook: Hook, count: u64) -> Losses {
    let none = Losses::default();
    match hook {
        // A message with a request id, or one to a collector.
        Hook::Sendto | Hook::Sendmsg | Hook::Sendmmsg | Hook::Write | Hook::Writev | Hook::TlsWrite => {
            Losses { requests: count, reports: count, ..none }
        }
        Hook::Connect => Losses { reports: count, ..none },
        Hook::Exposure => Losses { exposures: count, ..none },
        Hook::Click => Losses { clicks: count, ..none },
        // Whatever a process does before the daemon finds it in /proc.
        Hook::Exec | Hook::Fork => Losses { uncounted: count > 0, ..none },
        Hook::Exit => none,
    }
}

#[cfg(test)]
mod tests {
    use super::{Hook, losses_of};

    #[test]
    fn every_hook_but_the_last_loses_something_when_it_loses() {
        for hook in Hook::ALL {
            assert_eq!(losses_of(hook, 1).is_none(), hook == Hook::Exit, "{}", hook.name());
            assert!(losses_of(hook, 0).is_none());
        }
    }
}
