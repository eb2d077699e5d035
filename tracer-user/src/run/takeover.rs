//! What a start finds: nothing, or what an earlier daemon left in `state_dir` and in the kernel.
//!
//! Three ways to go on:
//! - *new*: nothing was kept.
//! - *continued*: the kernel side that the state belongs to is still at work. Nothing was missed, unless
//!   its ring overflowed.
//! - *gap*: the state is there, and the kernel side is not, or is of another build or configuration, or
//!   went on without the journal. It is stopped, what it had counted is carried over, and what was on
//!   its ring is counted as discarded.

use std::{path::Path, sync::Arc};

use anyhow::Context as _;
use tracer_common::counters::{HitOutcome, Hook, counter_index};

use super::{
    durability::{at, ring_full},
    state::State,
};
use crate::{
    attach::{
        Counters,
        pins::{PinFolder, PinSet},
    },
    durable::{DaemonState, RingPlace, StateDir},
    ingest::clock::{Clock, ClockError},
    join::JoinConfig,
};

const UNREADABLE: &str = "cannot read the pin_dir";
const STUCK: &str = "cannot remove what is in the pin_dir";

/// What was restored.
pub(super) struct Restored {
    pub(super) daemon: DaemonState,
    /// The number of the batch that comes next.
    pub(super) next_sequence: u64,
    /// Position of the ring up to which everything is in the state.
    pub(super) position: u64,
}

/// A kernel side to go on with.
pub(super) struct Continued {
    /// Position of its ring up to which everything is in the state.
    pub(super) position: u64,
    /// Events that had found no room on its ring by the checkpoint.
    pub(super) ring_full: u64,
}

/// How to go on.
pub(super) struct Takeover {
    /// Where the kernel side is pinned, or will be.
    pub(super) pins: Option<PinSet>,
    pub(super) continued: Option<Continued>,
    /// Counts of kernel sides before the one that is used now.
    pub(super) earlier_hits: Vec<u64>,
}

/// The present boot's name; empty where the kernel does not say.
pub(super) fn boot_id() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

/// The clock to go on with: within one boot the offset stays what it was.
pub(super) fn clock(boot_id: &str, daemon: Option<&DaemonState>) -> Result<Clock, ClockError> {
    match daemon {
        Some(daemon) if daemon.boot_id == boot_id => Ok(Clock::with_offset(daemon.clock_offset_ns)),
        _ => Clock::start(),
    }
}

/// Restores the state from what is in the folder. `None` when there is nothing that can be used.
pub(super) fn restore(
    dir: &StateDir,
    config: &JoinConfig,
    checkpoint: crate::durable::Checkpoint,
    state: &mut State,
) -> anyhow::Result<Restored> {
    let crate::durable::Checkpoint { mut daemon, join } = checkpoint;
    for hits in [&mut daemon.hits, &mut daemon.earlier_hits, &mut daemon.losses.known] {
        if daemon.counters != Counters::COUNT as u64 {
            hits.clear();
        }
    }
    state.restore(config.clone(), &daemon, join)?;
    let mut position = daemon.position;
    let mut batches = 0_u64;
    let source = Arc::clone(&state.source);
    let next_sequence = dir
        .replay(&daemon, &source, |batch| {
            position = batch.position;
            batches += 1;
            state.replay(batch)
        })
        .context("the journal")?;
    tracing::info!(batches, position, "the state was restored from its checkpoint and the journal");
    Ok(Restored { daemon, next_sequence, position })
}

/// Finds out whether the kernel side of the restored state can be gone on with, and clears away any
/// other.
pub(super) fn take_over(
    folder: Option<&PinFolder>,
    fingerprint: &str,
    boot_id: &str,
    restored: Option<&Restored>,
    state: &State,
) -> anyhow::Result<Takeover> {
    let earlier = restored.map(|restored| restored.daemon.earlier_hits.clone());
    let Some(folder) = folder else {
        let earlier_hits = earlier.map(|_| settled_hits(restored, state)).unwrap_or_default();
        return Ok(Takeover { pins: None, continued: None, earlier_hits });
    };
    let pins = folder.set(fingerprint);
    if let Some(continued) = restored.and_then(|restored| continued(&pins, boot_id, restored)) {
        for other in folder.sets().context(UNREADABLE)?.iter().filter(|other| **other != pins) {
            other.remove().context(STUCK)?;
        }
        let earlier_hits = earlier.unwrap_or_default();
        return Ok(Takeover { pins: Some(pins), continued: Some(continued), earlier_hits });
    }
    let mut earlier_hits = earlier.map(|_| settled_hits(restored, state)).unwrap_or_default();
    for old in folder.sets().context(UNREADABLE)? {
        let is_ours = restored.is_some_and(|restored| place(&old, boot_id) == restored.daemon.ring);
        match old.stop() {
            Some(counters) if is_ours => earlier_hits = discard(&counters, restored, state),
            _ => tracing::info!("a kernel side was found that the state does not belong to; it is removed"),
        }
        old.remove().context(STUCK)?;
    }
    Ok(Takeover { pins: Some(folder.new_set(fingerprint)), continued: None, earlier_hits })
}

/// Stops and removes every kernel side in the folder. Returns how many there were.
pub(super) fn detach(folder: &Path) -> anyhow::Result<usize> {
    if !folder.exists() {
        return Ok(0);
    }
    let sets = PinFolder::open(folder)?.sets().context(UNREADABLE)?;
    for set in &sets {
        set.stop();
        set.remove().context(STUCK)?;
    }
    Ok(sets.len())
}

/// The ring of a set of pins.
pub(super) fn place(pins: &PinSet, boot_id: &str) -> Option<RingPlace> {
    let id = pins.ring()?.id().ok()?;
    Some(RingPlace { boot_id: boot_id.to_owned(), id })
}

fn continued(pins: &PinSet, boot_id: &str, restored: &Restored) -> Option<Continued> {
    let ring = pins.ring()?;
    if restored.daemon.ring != place(pins, boot_id) {
        return None;
    }
    let released = ring.released_position();
    if released > restored.position {
        tracing::warn!(
            released,
            journaled = restored.position,
            "records were taken that the journal does not have: the disk was full, or the journal is damaged"
        );
        return None;
    }
    Some(Continued { position: restored.position, ring_full: ring_full(&restored.daemon.hits) })
}

/// Counts what is on a ring that is thrown away, and returns the hits up to its end.
fn discard(counters: &Counters, restored: Option<&Restored>, state: &State) -> Vec<u64> {
    let last = counters.all();
    let before = restored.map(|restored| restored.daemon.earlier_hits.as_slice()).unwrap_or_default();
    let before = before.iter().copied().chain(std::iter::repeat(0));
    let mut hits: Vec<u64> = last.iter().zip(before).map(|(last, before)| last + before).collect();
    for hook in Hook::ALL {
        let received = state.received_from(hook);
        let lost = at(&hits, hook, HitOutcome::Submitted).saturating_sub(received);
        if lost > 0 {
            tracing::warn!(
                hook = hook.name(),
                lost,
                "records are thrown away with the ring that they are on"
            );
            state.count_discarded(hook, lost);
        }
    }
    balance(&mut hits);
    hits
}

/// Hits up to the end of a kernel side that is gone, and its ring with it. What it had submitted that
/// was not received is not known; what was received is the least that it can have been.
fn settled_hits(restored: Option<&Restored>, state: &State) -> Vec<u64> {
    let Some(Restored { daemon, .. }) = restored else { return Vec::new() };
    let mut hits: Vec<u64> = (0..Counters::COUNT)
        .map(|place| {
            let count = |hits: &[u64]| hits.get(place).copied().unwrap_or_default();
            count(&daemon.earlier_hits) + count(&daemon.hits)
        })
        .collect();
    for hook in Hook::ALL {
        let received = state.received_from(hook);
        hits[counter_index(hook, HitOutcome::Submitted) as usize] = received;
    }
    balance(&mut hits);
    hits
}

/// Makes the hits of each hook the sum of their outcomes.
fn balance(hits: &mut [u64]) {
    for hook in Hook::ALL {
        let outcomes = HitOutcome::ALL.iter().filter(|outcome| **outcome != HitOutcome::Hit);
        let sum = outcomes.map(|outcome| at(hits, hook, *outcome)).sum();
        hits[counter_index(hook, HitOutcome::Hit) as usize] = sum;
    }
}
