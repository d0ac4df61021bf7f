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
pub(super) struct Checkpoints {
    shard: ShardIndex,
    shard_count: u16,
    /// Taken, and not known to be on the device, by namespace: none waits for another's device.
    taken: Vec<Option<Vec<Mark>>>,
    /// Told, and not known to be stored, by namespace.
    told: Vec<Option<Vec<Mark>>>,
    /// Which telling that was: an answer to an earlier one says nothing of it.
    round: u64,
    /// The last telling that was answered, stored or not.
    answered: u64,
    /// What the host was told last: everything below is settled at every DC, [`Lut::MAX`] where
    /// there is none. Nothing before the first checkpoint.
    settled: HashMap<(NamespaceId, PartitionId), Lut>,
}

/// How far the positions are that were taken last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// What they rely on is not on the device.
    Waits,
    /// They count no more, or none were taken: take others.
    Outdated,
    /// Of these namespaces; to be made durable, and the round to name in [`Checkpoints::stored`] then.
    Flushed(u64, Vec<NamespaceId>, Vec<Mark>),
}

impl Checkpoints {
    /// None was ever taken.
    pub(super) fn new(shard: ShardIndex, shard_count: u16, namespaces: usize) -> Self {
        let (taken, told) = (vec![None; namespaces], vec![None; namespaces]);
        Self { shard, shard_count, taken, told, round: 0, answered: 0, settled: HashMap::new() }
    }

    /// Takes the positions of all DCs as they are now, but for namespaces whose earlier ones still
    /// wait for their device. Gives the others.
    pub(super) fn take(&mut self, marks: &[Mark], host: &mut impl Host) -> Vec<NamespaceId> {
        let mut namespaces = Vec::new();
        for (namespace, taken) in ids(&mut self.taken).filter(|(_, taken)| taken.is_none()) {
            let own = marks.iter().filter(|mark| mark.lane.namespace == namespace);
            *taken = Some(own.copied().collect());
            host.watch_flush(namespace);
            namespaces.push(namespace);
        }
        namespaces
    }

    /// The positions taken, once everything is on the devices that had been published then. A crash
    /// would bring back what it supersedes: older versions, settled only because a newer one was, or
    /// was not to be shipped. When `is_late`, those of namespaces whose device has not followed are
    /// left for another time.
    pub(super) fn flushed(&mut self, host: &impl Host, is_late: bool) -> Taken {
        if self.taken.contains(&None) {
            return Taken::Outdated;
        }
        let is_flushed =
            |namespace| host.is_flushed(namespace) || planted(Mutation::MarksBeforeFlush);
        let count = ids(&mut self.taken).filter(|(namespace, _)| is_flushed(*namespace)).count();
        if count < self.taken.len() && (count == 0 || !is_late) {
            return Taken::Waits;
        }
        let (mut namespaces, mut marks) = (Vec::new(), Vec::new());
        for ((namespace, taken), told) in ids(&mut self.taken).zip(&mut self.told) {
            if is_flushed(namespace) {
                *told = taken.take();
                marks.extend(told.iter().flatten());
                namespaces.push(namespace);
            }
        }
        self.round += 1;
        Taken::Flushed(self.round, namespaces, marks)
    }

    /// What ships where has changed: positions taken before do not count after it.
    pub(super) fn changed(&mut self) {
        self.taken.fill(None);
        self.told.fill(None);
    }

    /// Lanes of a DC are there now, perhaps in the past: from there on tombstones stay, in the same
    /// step. Whoever is answered `ok` finds them.
    pub(super) fn begin(&mut self, marks: &[Mark], host: &mut impl Host) {
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

    /// Whether what was told last waits for its answer. Until then nothing more is to be told:
    /// whoever keeps it may wait for a device that never answers, and all of it would lie before
    /// him.
    pub(super) fn awaits_answer(&self) -> bool {
        self.answered < self.round
    }

    /// What was told in a round could not be stored.
    pub(super) fn not_stored(&mut self, round: u64) {
        self.answered = round.max(self.answered);
    }

    /// What was told in a round is durable. Tombstones may go below the lowest durable position of
    /// every DC, never below one that a crash would take back.
    pub(super) fn stored(&mut self, round: u64, host: &mut impl Host) {
        self.answered = round.max(self.answered);
        if round != self.round && !planted(Mutation::StoredInAnyRound) {
            return;
        }
        let Self { shard, shard_count, told, settled, .. } = self;
        let stored = ids(told).filter_map(|(id, told)| Some((id, told.take()?)));
        for (namespace, marks) in stored {
            let partitions = || PartitionId::of_shard(*shard, *shard_count);
            settled.extend(partitions().map(|partition| ((namespace, partition), Lut::MAX)));
            for Mark { lane, lst } in marks {
                if let Some(below) = settled.get_mut(&(lane.namespace, lane.partition)) {
                    let fastest = planted(Mutation::RaidBeforeSlowest) && *below < Lut::MAX;
                    *below = if fastest { lst.max(*below) } else { lst.min(*below) };
                }
            }
            for partition in partitions() {
                let below = settled[&(namespace, partition)];
                host.settled_below(namespace, partition, (below < Lut::MAX).then_some(below));
            }
        }
    }
}

fn ids<T>(by_namespace: &mut [T]) -> impl Iterator<Item = (NamespaceId, &mut T)> {
    by_namespace.iter_mut().enumerate().map(|(index, of)| (NamespaceId(index as u8), of))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::testing::Tombstones;
    use crate::model::{DcIndex, LaneId};

    #[test]
    fn positions_wait_for_the_device_of_their_own_namespace_alone() {
        const PARTITION: PartitionId = PartitionId::new(5);
        let [hangs, sound] = [NamespaceId(0), NamespaceId(1)];
        let mark = |namespace, ms| Mark {
            lane: LaneId { dc: DcIndex(0), namespace, partition: PARTITION },
            lst: Lut::from_ms(ms),
        };
        let mut host = Tombstones { hanging: vec![hangs], ..Tombstones::default() };
        let mut checkpoints = Checkpoints::new(ShardIndex(0), 1, 2);
        assert_eq!(checkpoints.flushed(&host, true), Taken::Outdated);
        assert_eq!(
            checkpoints.take(&[mark(hangs, 10), mark(sound, 20)], &mut host),
            [hangs, sound]
        );
        assert_eq!(checkpoints.flushed(&host, false), Taken::Waits);
        let flushed = Taken::Flushed(1, vec![sound], vec![mark(sound, 20)]);
        assert_eq!(checkpoints.flushed(&host, true), flushed);
        checkpoints.stored(1, &mut host);
        assert_eq!(host.settled[&(sound, PARTITION)], Some(Lut::from_ms(20)));
        assert_eq!(host.settled[&(sound, PartitionId::new(6))], None, "no DC has it");
        assert!(!host.settled.keys().any(|(namespace, _)| *namespace == hangs), "its deletes stay");
        // What waits is not taken anew, or a device that is only slow would never be in time.
        assert_eq!(checkpoints.flushed(&host, true), Taken::Outdated);
        assert_eq!(checkpoints.take(&[mark(hangs, 11), mark(sound, 21)], &mut host), [sound]);
        host.hanging.clear();
        let both = vec![mark(hangs, 10), mark(sound, 21)];
        assert_eq!(checkpoints.flushed(&host, false), Taken::Flushed(2, vec![hangs, sound], both));
    }

    #[test]
    fn what_was_told_waits_for_its_answer_whatever_that_is() {
        let mut host = Tombstones::default();
        let mut checkpoints = Checkpoints::new(ShardIndex(0), 1, 1);
        let mut tell = |checkpoints: &mut Checkpoints| {
            assert!(!checkpoints.awaits_answer());
            checkpoints.take(&[], &mut host);
            let Taken::Flushed(round, ..) = checkpoints.flushed(&host, false) else {
                panic!("hangs")
            };
            assert!(checkpoints.awaits_answer());
            // A DC was made meanwhile: they count no more, and lie there all the same.
            checkpoints.changed();
            assert!(checkpoints.awaits_answer());
            round
        };
        let round = tell(&mut checkpoints);
        checkpoints.not_stored(round);
        let round = tell(&mut checkpoints);
        checkpoints.stored(round, &mut Tombstones::default());
        assert!(!checkpoints.awaits_answer());
    }

    #[test]
    fn an_answer_to_earlier_positions_says_nothing_of_later_ones() {
        const PARTITION: PartitionId = PartitionId::new(5);
        const NS: NamespaceId = NamespaceId(0);
        let lane = LaneId { dc: DcIndex(0), namespace: NS, partition: PARTITION };
        let mut host = Tombstones::default();
        let mut checkpoints = Checkpoints::new(ShardIndex(0), 1, 1);
        for (round, ms) in [(1, 10), (2, 20)] {
            let marks = vec![Mark { lane, lst: Lut::from_ms(ms) }];
            checkpoints.take(&marks, &mut host);
            assert_eq!(checkpoints.flushed(&host, false), Taken::Flushed(round, vec![NS], marks));
        }
        checkpoints.stored(1, &mut host);
        assert!(
            host.settled.is_empty(),
            "the file has the first, a crash would take back the second"
        );
        checkpoints.stored(2, &mut host);
        assert_eq!(host.settled[&(NS, PARTITION)], Some(Lut::from_ms(20)));
    }
}
