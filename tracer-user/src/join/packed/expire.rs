//! Removes packed groups of which nothing is remembered, a few at a time.

use super::arena::Handle;
use super::head::Head;
use crate::join::engine::Engine;
use crate::join::index::Place;

impl Engine {
    /// Removes packed groups of which nothing is remembered, looking at this many.
    pub(in super::super) fn expire_packed(&mut self, most: usize) {
        self.expire(most);
        self.prefetch_expiring(most);
    }

    fn expire(&mut self, most: usize) {
        for _ in 0..most {
            let Some((handle, bucket)) = self.wheel.pop_before(self.now_ns) else { return };
            let Some(head) = self.packed_in(handle, bucket) else { continue };
            let (request, until_ns) = (head.request(), head.kept_until_ns());
            if self.is_over(until_ns) {
                self.index.remove(request, Place::Packed(handle));
                self.arena.free_group(handle);
            } else {
                self.look_at(handle, until_ns);
            }
        }
    }

    /// Has fetched what will be looked at when this many groups have been, and what of them leads further.
    fn prefetch_expiring(&mut self, most: usize) {
        if !self.wheel.is_due(self.now_ns) {
            return;
        }
        for handle in self.wheel.next().skip(most).take(most) {
            self.arena.prefetch_head(*handle);
        }
        for handle in self.wheel.next().take(most) {
            // What was clicked is mostly not over yet.
            if let Some(head) = self.arena.head_if_live(*handle)
                && self.is_over(head.kept_until_ns())
            {
                self.index.prefetch(head.request());
                self.arena.prefetch_extents(&head);
            }
        }
    }

    /// The group that was put into this bucket, if it is still there.
    pub(in super::super) fn packed_in(&self, handle: Handle, bucket: u16) -> Option<Head> {
        self.arena.head_if_live(handle).filter(|head| head.expiry_bucket() == bucket)
    }

    /// Has the wheel look at a group when this time is over.
    pub(in super::super) fn look_at(&mut self, handle: Handle, until_ns: u64) {
        let bucket = self.wheel.insert(handle, until_ns);
        self.arena.head_mut(handle).set_expiry_bucket(bucket);
    }
}
