//! Where reports go: what names are answered with reaches both sides.

use std::{
    sync::mpsc::{Receiver, TryRecvError},
    time::{Duration, Instant},
};

use super::worker::Worker;
use crate::discover::Answer;

/// The start waits this long for the names of collectors: a resolver that does not answer is no reason
/// not to trace.
const FIRST_ANSWERS: Duration = Duration::from_secs(3);

impl Worker {
    /// Waits a while until each name of a collector was asked for once.
    pub(super) fn wait_for_names(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + FIRST_ANSWERS;
        for _ in self.interpreter.collectors().names() {
            let Some(answers) = &self.answers else { break };
            let Ok(answer) = answers.recv_timeout(deadline.saturating_duration_since(Instant::now())) else {
                break;
            };
            self.learn(&answer)?;
        }
        Ok(())
    }

    /// Takes what names of collectors were answered with.
    pub(super) fn learn_names(&mut self) -> anyhow::Result<()> {
        loop {
            match self.answers.as_ref().map(Receiver::try_recv) {
                None | Some(Err(TryRecvError::Empty)) => return Ok(()),
                Some(Err(TryRecvError::Disconnected)) => anyhow::bail!("the thread that looks up names died"),
                Some(Ok(answer)) => self.learn(&answer)?,
            }
        }
    }

    /// Has both sides know the addresses of a collector.
    pub(super) fn learn(&mut self, answer: &Answer) -> anyhow::Result<()> {
        self.state.publisher.count_answer(answer);
        self.interpreter.learn(answer);
        self.tell_collectors()
    }

    /// Brings the kernel side's table of collectors to what they are now.
    pub(super) fn tell_collectors(&mut self) -> anyhow::Result<()> {
        let table = self.interpreter.collectors().table();
        for (network, port) in self.collectors.difference(&table) {
            self.kernel.remove_collector(*network, *port);
        }
        for (network, port) in table.difference(&self.collectors) {
            self.kernel.add_collector(*network, *port)?;
        }
        self.collectors = table;
        self.coverage.set_unknown_names(self.interpreter.collectors());
        Ok(())
    }
}
