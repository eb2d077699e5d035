//! A join that goes on from a snapshot.
//!
//! What was read back may be anything. Every group, event and process of it is looked at and entered anew, as if it were
//! new to the join: tables, counts of what waits and bounds follow from what was entered and are never read. So what is
//! wrong in itself is refused, and what is merely untrue makes a join whose tables agree with each other all the same.
//! No more memory is taken than a few times what was read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::config::JoinConfig;
use super::engine::Engine;
use super::event::JoinEvent;
use super::index::Place;
use super::open::{Group, Key, Pair};
use super::packed::arena::{Arena, Block, Class, Handle};
use super::packed::entry::{Entry, Tag};
use super::packed::waits::{Wait, WaitKey};
use super::reports::Process;
use super::snapshot::{Snapshot, SnapshotState};

/// A snapshot that a join cannot go on from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// Segments are missing, or are not those of the state.
    #[error("the segments do not belong to the state")]
    Segments,
    /// Times contradict each other.
    #[error("the times of the state contradict each other")]
    Time,
    /// What is known of a request id contradicts itself.
    #[error("what the state knows of a request id contradicts itself")]
    Group,
    /// What is known of the reports of a process contradicts itself.
    #[error("what the state knows of the reports of a process contradicts itself")]
    Process,
}

impl Engine {
    /// A join that goes on from a snapshot. Its windows may be others than before.
    ///
    /// # Errors
    /// The snapshot is not one that a join has made, or is damaged.
    pub fn restore(config: JoinConfig, snapshot: Snapshot) -> Result<Self, RestoreError> {
        let Snapshot { state, segments } = snapshot;
        let mut engine = Self::new(config);
        engine.restore_time(&state)?;
        engine.restore_packed(&state.classes, segments, state.waits)?;
        engine.restore_open(state.groups, state.pairs)?;
        engine.restore_processes(state.processes)?;
        for event in state.buffered {
            engine.restore_buffered(event)?;
        }
        // The first look at the deadlines finds out.
        engine.next_deadline_ns = 0;
        engine.next_open_deadline_ns = 0;
        #[cfg(debug_assertions)]
        {
            engine.counts = None;
        }
        Ok(engine)
    }

    fn restore_time(&mut self, state: &SnapshotState) -> Result<(), RestoreError> {
        if state.now_ns != state.progress.watermark_ns() {
            return Err(RestoreError::Time);
        }
        self.watermark.restore(state.progress, &state.sources);
        self.now_ns = state.now_ns;
        self.request_horizon_ns = state.request_horizon_ns;
        self.exposure_horizon_ns = state.exposure_horizon_ns;
        self.doubts = state.doubts;
        self.evicted = state.evicted;
        Ok(())
    }

    fn restore_buffered(&mut self, event: JoinEvent) -> Result<(), RestoreError> {
        if event.timestamp_ns < self.now_ns {
            return Err(RestoreError::Time);
        }
        self.pending.buffered[event.kind] += 1;
        self.reorder.push(&event);
        Ok(())
    }

    fn restore_packed(
        &mut self,
        classes: &[Option<Class>],
        segments: Vec<Option<Arc<Block>>>,
        waits: Vec<(WaitKey, Wait)>,
    ) -> Result<(), RestoreError> {
        let before = Arena::of_shared(classes, segments).ok_or(RestoreError::Segments)?;
        let mut waits: BTreeMap<WaitKey, Wait> = waits.into_iter().collect();
        let (mut requests, mut entries) = (Vec::new(), Vec::new());
        for place in before.places(Class::Head) {
            if before.head_if_live(place).is_some() {
                let handle = self
                    .restore_group(&before, place, &mut waits, &mut entries)
                    .ok_or(RestoreError::Group)?;
                let head = self.arena.head(handle);
                if head.request_waits() {
                    requests.push((head.base_ns(), handle));
                }
            }
        }
        if !waits.is_empty() {
            return Err(RestoreError::Group);
        }
        self.pending.requests += requests.len() as u64;
        requests.sort_unstable_by_key(|(request_ns, _)| *request_ns);
        for (request_ns, handle) in requests {
            self.waiting_requests.push(request_ns, handle);
        }
        entries.sort_unstable_by_key(|(timestamp_ns, _)| *timestamp_ns);
        for (timestamp_ns, entry) in entries {
            self.waiting_entries.push(timestamp_ns, entry);
        }
        Ok(())
    }

    /// Enters a packed group anew. What of it waits goes from `waits` into `waiting`.
    fn restore_group(
        &mut self,
        before: &Arena,
        place: Handle,
        waits: &mut BTreeMap<WaitKey, Wait>,
        waiting: &mut Vec<(u64, (Handle, u8))>,
    ) -> Option<Handle> {
        let was = before.head(place);
        let (request, base_ns, at_base) = (was.request(), was.base_ns(), was.has_request_at_base());
        let labels = was.request_waits().then(|| was.labels());
        let is_sound = before.is_sound(place)
            && base_ns <= self.now_ns
            && (at_base || labels.is_none())
            && self.place_of(request).is_none();
        if !is_sound {
            return None;
        }
        let handle = self.arena.new_group(request, base_ns, at_base, labels);
        if at_base {
            let until_ns = self.remembered_until_ns(Tag::Request, base_ns);
            self.arena.head_mut(handle).keep_until(until_ns);
        }
        for (number, entry) in (0_u8..).zip(before.entries(place).into_iter().skip(usize::from(at_base))) {
            let Entry { timestamp_ns, item, tag } = entry;
            let is_request = matches!(tag, Tag::Request | Tag::RequestAgain);
            if timestamp_ns > self.now_ns || is_request != item.is_missing() {
                return None;
            }
            let until_ns = self.remembered_until_ns(tag, timestamp_ns);
            self.arena.add_entry(handle, entry, until_ns);
            if matches!(tag, Tag::ExposureWaits | Tag::ClickWaits) {
                let wait =
                    waits.remove(&(place.0, number)).filter(|wait| wait.timestamp_ns == timestamp_ns)?;
                self.waits.insert((handle.0, number), wait);
                waiting.push((timestamp_ns, (handle, number)));
                let is_exposure = tag == Tag::ExposureWaits;
                *(if is_exposure { &mut self.pending.exposures } else { &mut self.pending.clicks }) += 1;
            }
        }
        // Where the windows have become shorter it may be over, and what waits in it has to be judged first.
        self.look_at(handle, self.arena.head(handle).kept_until_ns().max(self.now_ns));
        self.index.insert(request, Place::Packed(handle));
        Some(handle)
    }

    fn restore_open(&mut self, groups: Vec<Group>, pairs: Vec<(Key, Pair)>) -> Result<(), RestoreError> {
        let mut pairs: BTreeMap<Key, Pair> = pairs.into_iter().collect();
        for group in groups {
            if self.place_of(group.request).is_some() {
                return Err(RestoreError::Group);
            }
            self.restore_open_group(group, &mut pairs).ok_or(RestoreError::Group)?;
        }
        if pairs.is_empty() { Ok(()) } else { Err(RestoreError::Group) }
    }

    fn restore_processes(&mut self, processes: Vec<Process>) -> Result<(), RestoreError> {
        let mut known = BTreeSet::new();
        for process in processes {
            if !known.insert(process.id()) || !process.is_sound() {
                return Err(RestoreError::Process);
            }
            self.restore_process(process);
        }
        Ok(())
    }
}
