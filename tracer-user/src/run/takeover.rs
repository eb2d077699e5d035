//! What a start finds: nothing, or what an earlier daemon left in `state_dir` and in the kernel.
//!
//! Three ways to go on:
//! - *new*: nothing was kept.
//! - *continued*: the kernel side that the state belongs to is still at work. Nothing was missed, unless
//!   its ring overflowed.
//! - *gap*: the state is there, and the kernel side is not, or is of another build or configuration, or
//!   went on without the journal. It is stopped, what it had counted is carried over, and what was on
//!   its ring is counted as discarded. Where it is not certain that the counts are all that was published, they begin
//!   at 0.

use std::{path::Path, sync::Arc, time::Duration};

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
    config::Config,
    durable::{Checkpoint, DaemonState, RingPlace, StateDir},
    ingest::{
        clock::{self, Clock, ClockError},
        decode::decode,
    },
    join::{Evicted, Join, JoinConfig},
};

const UNREADABLE: &str = "cannot read the pin_dir";
pub(super) const STUCK: &str = "cannot remove what is in the pin_dir";

/// What was restored.
pub(super) struct Restored {
    pub(super) daemon: DaemonState,
    /// The number of the batch that comes next.
    pub(super) next_sequence: u64,
    /// Position of the ring up to which everything is in the state.
    pub(super) position: u64,
    /// It is what the daemon before ended with by itself.
    is_last: bool,
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
    /// A kernel side that the state belongs to and that is not gone on with: it is stopped, and can go once the state that
    /// has its counts is on the disk.
    pub(super) stopped: Option<PinSet>,
    /// Counts of kernel sides before the one that is used now.
    pub(super) earlier_hits: Vec<u64>,
    /// Up to when everything is in the state, in kernel time; `None` where nobody knows.
    pub(super) complete_until_ns: Option<u64>,
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

/// What a checkpoint says, made ready to go on from.
pub(super) struct Kept {
    pub(super) daemon: DaemonState,
    join: Join,
}

/// Reads the checkpoint in the folder. One that cannot be gone on from is kept aside; `None` then, and when there is none.
pub(super) fn read(dir: &StateDir, config: &Config, join: &JoinConfig) -> anyhow::Result<Option<Kept>> {
    let Some(Checkpoint { daemon, join: snapshot }) = dir.read_checkpoint()? else { return Ok(None) };
    if daemon.source != config.source {
        let (then, now) = (&daemon.source, &config.source);
        dir.refuse(&format!("it is of the source `{then}`, and this one is `{now}`"))?;
        return Ok(None);
    }
    let join = match Join::restore(join.clone(), snapshot) {
        Ok(join) => join,
        Err(error) => {
            dir.refuse(&error)?;
            return Ok(None);
        }
    };
    // Within one boot the clock goes on as it was.
    if let Some(watermark_ns) = join.watermark_ns().filter(|_| daemon.boot_id != boot_id()) {
        let behind = Duration::from_nanos(watermark_ns.saturating_sub(Clock::start()?.now_ns()));
        if !behind.is_zero() {
            dir.refuse(&format!(
                "the clock is {} s behind what is kept, so everything would be late",
                behind.as_secs_f64()
            ))?;
            return Ok(None);
        }
    }
    Ok(Some(Kept { daemon, join }))
}

/// Restores the state from what was kept and the journals since.
pub(super) fn restore(dir: &StateDir, kept: Kept, state: &mut State) -> anyhow::Result<Restored> {
    let Kept { mut daemon, join } = kept;
    for hits in [&mut daemon.hits, &mut daemon.earlier_hits, &mut daemon.losses.known] {
        if daemon.counters != Counters::COUNT as u64 {
            hits.clear();
        }
    }
    state.restore(&daemon, join);
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
    let is_last = daemon.is_last && batches == 0;
    Ok(Restored { daemon, next_sequence, position, is_last })
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
    let Some(folder) = folder else {
        let earlier_hits = restored.map_or_else(Vec::new, |restored| settle(restored, None, state));
        return Ok(Takeover {
            pins: None,
            continued: None,
            stopped: None,
            earlier_hits,
            complete_until_ns: None,
        });
    };
    let pins = folder.set(fingerprint);
    if let Some(restored) = restored
        && let Some(continued) = continued(&pins, boot_id, restored)
    {
        for other in folder.sets().context(UNREADABLE)?.iter().filter(|other| **other != pins) {
            other.remove().context(STUCK)?;
        }
        let mut earlier_hits = restored.daemon.earlier_hits.clone();
        if !is_made_again(restored, state) {
            let counters = pins.counters().context(UNREADABLE)?;
            earlier_hits = begin_at_zero(&counters.all(), &earlier_hits, state);
        }
        let complete_until_ns = complete_until_ns(&pins, restored);
        return Ok(Takeover {
            pins: Some(pins),
            continued: Some(continued),
            stopped: None,
            earlier_hits,
            complete_until_ns,
        });
    }
    let is_ours = |old: &PinSet| {
        restored.is_some_and(|restored| {
            restored.daemon.ring.is_some() && place(old, boot_id) == restored.daemon.ring
        })
    };
    // No two have one ring.
    let (mut ours, others): (Vec<PinSet>, Vec<PinSet>) =
        folder.sets().context(UNREADABLE)?.into_iter().partition(is_ours);
    for other in others {
        tracing::info!("a kernel side was found that the state does not belong to; it is removed");
        other.stop();
        other.remove().context(STUCK)?;
    }
    let mut stopped = ours.pop();
    if let Some(old) = &mut stopped {
        // Under that name nobody goes on with it, whatever happens from here on.
        old.set_aside(folder).context(STUCK)?;
    }
    let earlier_hits = restored.map_or_else(Vec::new, |restored| settle(restored, stopped.as_ref(), state));
    let complete_until_ns =
        restored.zip(stopped.as_ref()).and_then(|(restored, old)| complete_until_ns(old, restored));
    let pins = Some(folder.new_set(fingerprint));
    Ok(Takeover { pins, continued: None, stopped, earlier_hits, complete_until_ns })
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
    if !pins.captures() {
        tracing::warn!("capture was switched off, by a `detach` or a start that did not come to its end");
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

/// Up to when everything that a kernel side has told is in the restored state, in kernel time: to its first record that is
/// not. As far had the join come before at the most, so what it had judged and published by then is judged again before
/// anything else is done.
fn complete_until_ns(pins: &PinSet, restored: &Restored) -> Option<u64> {
    let now_ns = clock::monotonic_ns();
    let mut ring = pins.ring()?;
    if ring.released_position() > restored.position {
        return None;
    }
    match ring.first_from(restored.position) {
        Some(bytes) => decode(bytes).ok().map(|record| record.head.monotonic_ns),
        None => Some(now_ns),
    }
}

/// Closes the account of the kernel side before, which is stopped for it, or is gone. Counts what is on its ring as
/// discarded, and returns its hits and those of others before it.
///
/// Counts go on only where none of them can be lower than what was published: to Prometheus that would be a new beginning,
/// and the whole of it an increase. Where that is not certain, they begin at 0.
fn settle(restored: &Restored, old: Option<&PinSet>, state: &State) -> Vec<u64> {
    let Restored { daemon, position, .. } = restored;
    let is_journaled = |old: &PinSet| old.ring().is_some_and(|ring| ring.released_position() <= *position);
    let goes_on = is_made_again(restored, state) && (restored.is_last || old.is_some_and(is_journaled));
    let counted = old.and_then(PinSet::stop).map(|counters| counters.all());
    // What is not known of one that is gone is what it did after the checkpoint.
    let last = counted.as_ref().unwrap_or(&daemon.hits);
    let mut hits: Vec<u64> = (0..Counters::COUNT)
        .map(|place| {
            let count = |hits: &[u64]| hits.get(place).copied().unwrap_or_default();
            count(&daemon.earlier_hits).wrapping_add(count(last))
        })
        .collect();
    let mut discarded = Vec::new();
    for hook in Hook::ALL {
        let received = state.received_from(hook);
        let submitted = &mut hits[counter_index(hook, HitOutcome::Submitted) as usize];
        if counted.is_none() {
            // What it had submitted and nobody received is not known; this is the least that it can have been.
            *submitted = received;
        }
        discarded.push((hook, submitted.saturating_sub(received)));
    }
    if !goes_on {
        state.begin_counting_anew();
        hits.fill(0);
        for (hook, lost) in &discarded {
            hits[counter_index(*hook, HitOutcome::Submitted) as usize] = *lost;
        }
    }
    for (hook, lost) in discarded.into_iter().filter(|(_, lost)| *lost > 0) {
        tracing::warn!(hook = hook.name(), lost, "records are thrown away with the ring that they are on");
        state.count_discarded(hook, lost);
    }
    balance(&mut hits);
    hits
}

/// Is the restored state to the last link what was published, where the journal is whole? How much has to go to keep the
/// memory limit depends on how the state lies in memory, which a restart changes.
fn is_made_again(restored: &Restored, state: &State) -> bool {
    restored.is_last || state.join.evicted() == Evicted::default()
}

/// Has every count begin at 0 while a kernel side that had come to these `hits` goes on: returns what to add to them, which
/// wraps. What it has submitted and nobody has received yet is still to come.
fn begin_at_zero(hits: &[u64], earlier: &[u64], state: &State) -> Vec<u64> {
    let mut added: Vec<u64> = hits.iter().map(|count| 0_u64.wrapping_sub(*count)).collect();
    for hook in Hook::ALL {
        let place = counter_index(hook, HitOutcome::Submitted) as usize;
        added[place] = at(earlier, hook, HitOutcome::Submitted).wrapping_sub(state.received_from(hook));
    }
    balance(&mut added);
    state.begin_counting_anew();
    added
}

/// Makes the hits of each hook the sum of their outcomes.
fn balance(hits: &mut [u64]) {
    for hook in Hook::ALL {
        let outcomes = HitOutcome::ALL.iter().filter(|outcome| **outcome != HitOutcome::Hit);
        let sum = outcomes.fold(0_u64, |sum, outcome| sum.wrapping_add(at(hits, hook, *outcome)));
        hits[counter_index(hook, HitOutcome::Hit) as usize] = sum;
    }
}
