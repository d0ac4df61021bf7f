//! Positions of a shard on their way to the marks file, and which tombstones its host may drop.
//!
//! Positions are taken, wait until what they rely on is on the device, are told to whoever keeps
//! them, and count once they are stored. A lane that begins or moves back meanwhile ends that: they
//! do not know of it.

use std::collections::HashMap;

use crate::host::{Host, Mark};
use crate::model::{Lut, NamespaceId, PartitionId, ShardIndex};
use crate::ship::mutation::{Mutation, planted};

/// The checkpoints of one shard.
#[derive(Debug)]
pub struct Checkpoints {
    shard: ShardIndex,
    shard_count: u16,
    namespaces: usize,
    /// Taken, and not known to be on the device.
    taken: Option<Vec<Mark>>,
    /// Told, and not known to be stored.
    told: Option<Vec<Mark>>,
    /// What the host was told last: everything below is settled at every DC, [`Lut::MAX`] where
    /// there is none. Nothing before the first checkpoint.
    settled: HashMap<(NamespaceId, PartitionId), Lut>,
}

/// How far the positions are that were taken last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// What they rely on is not on the device.
    Waits,
    /// They count no more, or none were taken: take others.
    Outdated,
    /// To be made durable.
    Flushed(Vec<Mark>),
}

impl Checkpoints {
    /// None was ever taken.
    pub fn new(shard: ShardIndex, shard_count: u16, namespaces: usize) -> Self {
        let (taken, told, settled) = (None, None, HashMap::new());
        Self { shard, shard_count, namespaces, taken, told, settled }
    }

    /// Takes the positions of all DCs as they are now.
    pub fn take(&mut self, marks: Vec<Mark>, host: &mut impl Host) {
        self.taken = Some(marks);
        host.watch_flush();
    }

    /// The positions taken, once everything is on the device that had been published then. A crash
    /// would bring back what it supersedes: older versions, settled only because a newer one was, or
    /// was not to be shipped.
    pub fn flushed(&mut self, host: &impl Host) -> Taken {
        let Some(marks) = self.taken.take() else { return Taken::Outdated };
        if !host.is_flushed() && !planted(Mutation::MarksBeforeFlush) {
            self.taken = Some(marks);
            return Taken::Waits;
        }
        self.told = Some(marks.clone());
        Taken::Flushed(marks)
    }

    /// What ships where has changed: positions taken before do not count after it.
    pub fn changed(&mut self) {
        self.taken = None;
        self.told = None;
    }

    /// Lanes of a DC are there now, perhaps in the past: from there on tombstones stay, in the same
    /// step. Whoever is answered `ok` finds them.
    pub fn begin(&mut self, marks: &[Mark], host: &mut impl Host) {
        self.changed();
        if planted(Mutation::BeginsWithoutPins) {
            return;
        }
        for Mark { lane, lst } in marks {
            host.needed_from(lane.namespace, lane.partition, *lst);
            if let Some(below) = self.settled.get_mut(&(lane.namespace, lane.partition))
                && lst < below
            {
                *below = *lst;
                host.settled_below(lane.namespace, lane.partition, Some(*lst));
            }
        }
    }

    /// What was told is durable. Tombstones may go below the lowest durable position of every DC,
    /// never below one that a crash would take back.
    pub fn stored(&mut self, host: &mut impl Host) {
        let Some(marks) = self.told.take() else { return };
        self.settled.clear();
        for index in 0..self.namespaces {
            let namespace = NamespaceId(index as u8);
            let partitions = PartitionId::of_shard(self.shard, self.shard_count);
            self.settled.extend(partitions.map(|partition| ((namespace, partition), Lut::MAX)));
        }
        for Mark { lane, lst } in marks {
            if let Some(below) = self.settled.get_mut(&(lane.namespace, lane.partition)) {
                let fastest = planted(Mutation::RaidBeforeSlowest) && *below < Lut::MAX;
                *below = if fastest { lst.max(*below) } else { lst.min(*below) };
            }
        }
        for (&(namespace, partition), &below) in &self.settled {
            host.settled_below(namespace, partition, (below < Lut::MAX).then_some(below));
        }
    }
}
