//! Removes packed groups of which nothing is remembered, a few at a time.

use super::arena::Handle;
use super::record::Head;
use crate::join::engine::Engine;
use crate::join::index::Place;

impl Engine {
    /// Removes packed groups of which nothing is remembered, looking at this many.
    pub(in super::super) fn expire_packed(&mut self, most: usize) {
        self.fetch_expiring(most);
        for _ in 0..most {
            let Some((handle, bucket)) = self.wheel.pop_before(self.now_ns) else { return };
            let Some(mut head) = self.packed_in(handle, bucket) else { continue };
            if self.is_over(head.alive_until_ns) {
                self.index.remove(head.request, Place::Packed(handle));
                self.arena.free_group(handle);
            } else {
                head.expiry_bucket = self.wheel.insert(handle, head.alive_until_ns);
                self.arena.set_head(handle, &head);
            }
        }
    }

    /// Looks at the groups that are over next, so that the processor fetches all of them at the same
    /// time. It decides nothing.
    fn fetch_expiring(&mut self, most: usize) {
        if !self.wheel.is_due(self.now_ns) {
            return;
        }
        let next = || self.wheel.next().take(most);
        let heads = next().fold(0, |sum, handle| sum ^ self.arena.look_at(*handle));
        let live = next().filter(|handle| self.arena.head_if_live(**handle).is_some());
        let rest = live.fold(0, |sum, handle| {
            let request = self.arena.request_of(*handle);
            let slot = self.index.guess(request).is_some();
            sum ^ self.arena.look_at_extents(*handle) ^ u64::from(slot)
        });
        std::hint::black_box(heads ^ rest);
    }

    /// The group that was put into this bucket, if it is still there.
    pub(in super::super) fn packed_in(&self, handle: Handle, bucket: u16) -> Option<Head> {
        self.arena.head_if_live(handle).filter(|head| head.expiry_bucket == bucket)
    }
}
