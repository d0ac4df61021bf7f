//! What stands in for the kernel and its devices on a virtual shard: each operation takes as long as
//! the seed says, so that they end in any order, and is done on its file when it ends.

use std::rc::Rc;

use super::ops::Kind;
use crate::virtual_shard::VirtualShard;

/// The operations that a device has not answered.
pub(super) struct VirtualDevice {
    shard: Rc<VirtualShard>,
    /// When each is answered, and its slot.
    under_way: Vec<(u64, u32)>,
}

impl VirtualDevice {
    pub(super) const fn new(shard: Rc<VirtualShard>) -> Self {
        Self { shard, under_way: Vec::new() }
    }

    pub(super) fn begin(&mut self, slot: u32, kind: Kind) {
        let shard = &self.shard;
        let us = match (shard.roll(100), kind) {
            (0, _) => shard.roll(50_000),
            (1..10, _) | (_, Kind::Flush) => shard.roll(3_000),
            _ => shard.roll(200),
        };
        self.under_way.push((shard.now() + us, slot));
    }

    /// The next that is answered by now.
    pub(super) fn take(&mut self) -> Option<u32> {
        let due = |(_, (due_us, _)): &(usize, &(u64, u32))| *due_us;
        let (at, (due_us, slot)) = self.under_way.iter().enumerate().min_by_key(due)?;
        let (is_due, slot) = (*due_us <= self.shard.now(), *slot);
        is_due.then(|| {
            self.under_way.remove(at);
            slot
        })
    }

    /// When the next is answered.
    pub(super) fn next_due_us(&self) -> u64 {
        self.under_way.iter().map(|(due_us, _)| *due_us).min().unwrap_or(u64::MAX)
    }

    /// How much is moved of so many bytes: sometimes less than was asked for.
    pub(super) fn moved(&self, len: usize) -> usize {
        let sectors = len as u64 / 512;
        if sectors > 1 && self.shard.roll(50) == 0 {
            (1 + self.shard.roll(sectors)) as usize * 512
        } else {
            len
        }
    }
}
