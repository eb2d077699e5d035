//! What was lost since the last look, in the terms of the ratio's bounds.

use tracer_common::counters::{HitOutcome, Hook, counter_index};

use crate::{attach::Counters, ingest::interpret::Reason, slo::Losses};

/// Reads what the kernel side counts as lost, and adds what was lost after it.
#[derive(Default)]
pub(super) struct LossMeter {
    /// The counts of the last look, by place in the kernel side's table. What is not there is 0.
    known: Vec<u64>,
    /// Lost here since the last look.
    lost_here: Losses,
}

impl LossMeter {
    /// Goes on with a kernel side that had counted this much by the last look.
    pub(super) fn go_on_from(&mut self, known: Vec<u64>) {
        self.known = known;
    }

    /// What the kernel side had counted by the last look.
    pub(super) fn known(&self) -> &[u64] {
        &self.known
    }

    /// So many records of this hook became no event.
    pub(super) fn note(&mut self, hook: Hook, reason: Reason, count: u64) {
        if reason == Reason::Undecodable {
            // One event of some kind each.
            let (requests, exposures, clicks, reports) = (count, count, count, count);
            let some = Losses { requests, exposures, clicks, reports, uncounted: false };
            self.lost_here = self.lost_here.with(some);
        } else if Reason::LOSSES.contains(&reason) {
            self.lost_here = self.lost_here.with(losses_of(hook, count));
        }
    }

    /// Something was lost, nobody knows how much.
    pub(super) fn note_uncounted(&mut self) {
        self.lost_here.uncounted = true;
    }

    /// What was lost since the last call. Counts begin at 0 when the kernel side is loaded.
    pub(super) fn take(&mut self, counters: &Counters) -> Losses {
        let mut losses = std::mem::take(&mut self.lost_here);
        let places = Hook::ALL.into_iter().flat_map(|hook| HitOutcome::LOSSES.map(|outcome| (hook, outcome)));
        for (hook, outcome) in places {
            // A counter that cannot be read is logged at the scrape; what it would say is not known.
            let Ok(count) = counters.read(hook, outcome) else {
                losses.uncounted = true;
                continue;
            };
            let place = counter_index(hook, outcome) as usize;
            if self.known.len() <= place {
                self.known.resize(place + 1, 0);
            }
            let new = count.saturating_sub(std::mem::replace(&mut self.known[place], count));
            if new > 0 {
                losses = losses.with(match outcome {
                    // Everything that the process does from here on.
                    HitOutcome::TargetsFull => Losses { uncounted: true, ..Losses::default() },
                    _ => losses_of(hook, new),
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
