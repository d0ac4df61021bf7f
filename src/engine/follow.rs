//! How a shard follows the orders of the control loop. Pure: the simulator's shards follow with it.

use std::sync::Arc;

use super::checkpoint::{Checkpoints, Taken};
use super::control::{Left, Notice, Order};
use super::gap::DeleteGap;
use super::letters::Letter;
use super::positions::Beginning;
use crate::config::DcConfig;
use crate::host::{Hole, Host, Mark};
use crate::model::{DcIndex, Digest, Lut, NamespaceId, PartitionId, ShardIndex, SrcId, Tick};
use crate::ship::Now;

/// How far a shard is on its way, as the control loop orders it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// DCs and their positions are not in place yet.
    Starting,
    /// It takes requests.
    Serving,
    /// It takes no more requests, but other shards may still hand some over.
    Stopping,
    /// No shard takes requests: what is left is shipped and flushed.
    Finishing,
}

/// What a DC that is made ships nothing before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Until then a destination without the fence may take what an earlier process, or a DC that is
    /// gone, has left on dead connections.
    pub until: Tick,
    /// Nothing ships before this, fence or not: what is feared came from another origin.
    pub anyway_until: Tick,
}

/// The DCs of a shard, as orders change them. All but [`Dcs::make`] are asked of those there are.
pub trait Dcs {
    /// The storage server's part on this shard.
    type Host: Host;

    /// Does something with the host.
    fn with_host<R>(&mut self, f: impl FnOnce(&mut Self::Host) -> R) -> R;

    /// The DCs of the shard, in no order.
    fn all(&self) -> Vec<DcIndex>;

    /// Whether there is one of that index.
    fn has(&self, dc: DcIndex) -> bool;

    /// Makes one, without namespaces.
    fn make(&mut self, dc: DcIndex, config: &Arc<DcConfig>, src_id: SrcId, hold: Hold);

    /// Makes one be as configured.
    fn configure(
        &mut self,
        dc: DcIndex,
        config: Arc<DcConfig>,
        src_id: SrcId,
        starts: &[(NamespaceId, Beginning)],
    );

    /// Brings positions up to date, all at once, and tells what that settles.
    fn sweep(&mut self, dc: DcIndex);

    /// Positions of its lanes.
    fn marks(&self, dc: DcIndex, out: &mut Vec<Mark>);

    /// Positions of a namespace were taken: letters that leave by them go with them, and are told.
    fn take_left(&mut self, dc: DcIndex, namespace: NamespaceId);

    /// Letters that leave with the positions taken last.
    fn left(&self, dc: DcIndex, namespace: NamespaceId) -> Option<Left>;

    /// Ends one: its connections are closed within [`FollowerSeed::closes_ms`].
    fn end(&mut self, dc: DcIndex);

    /// Tells a DC which changes that it gave up have a durable letter, by slot; `refusal` says why
    /// some have none.
    fn buried(&mut self, dc: DcIndex, slots: &[(u32, bool)], refusal: Option<String>);

    /// Tells a new DC or namespace which records have a letter from before.
    fn letters_kept(&mut self, dc: DcIndex, namespace: NamespaceId, records: &[(Digest, Lut)]);

    /// Gives a DC letters to ship again.
    fn replay(&mut self, dc: DcIndex, namespace: NamespaceId, letters: &[Letter]);

    /// Tells a DC what its destination lacks.
    fn set_holes(&mut self, dc: DcIndex, holes: Arc<[(NamespaceId, Hole)]>);
}

/// How far a checkpoint has come.
#[derive(Debug)]
pub enum Piece {
    /// What positions rely on is not on the device.
    Waits,
    /// Positions were taken.
    Taken,
    /// To be told.
    Told(Notice),
}

/// What a shard's DCs leave behind when they end: good once what it relies on is on the devices.
#[derive(Debug, Default)]
pub struct LastWords {
    marks: Vec<Mark>,
    letters: Vec<Left>,
}

impl LastWords {
    /// Not all that was acknowledged of the `unflushed` namespaces is on their devices: their positions
    /// count no more, others' do.
    pub fn notice(self, unflushed: &[NamespaceId]) -> Notice {
        let Self { mut marks, mut letters } = self;
        marks.retain(|mark| !unflushed.contains(&mark.lane.namespace));
        letters.retain(|left| !unflushed.contains(&left.namespace));
        Notice::Stopped { marks, letters, durable: unflushed.is_empty() }
    }
}

/// What a [`Follower`] is made from.
#[derive(Clone, Copy, Debug)]
pub struct FollowerSeed {
    /// This shard.
    pub shard: ShardIndex,
    /// Shards of the process.
    pub shard_count: u16,
    /// Number of namespaces.
    pub namespaces: usize,
    /// This cluster's identity at the start.
    pub src_id: SrcId,
    /// How long what is left on a dead connection may still arrive.
    pub grace_ms: u64,
    /// How long connections of a DC that ended may stay open.
    pub closes_ms: u64,
    /// An earlier process may have left something on its way.
    pub has_past: bool,
    /// Destinations do not know this process for a successor of that one.
    pub is_new_source: bool,
}

/// What a shard knows of the control loop's orders.
#[derive(Debug)]
pub struct Follower {
    seed: FollowerSeed,
    feared_until: Tick,
    feared_anyway_until: Tick,
    src_id: SrcId,
    phase: Phase,
    /// Why positions cannot be stored.
    marks_refused: Option<String>,
    checkpoints: Checkpoints,
}

impl Follower {
    /// Nothing was ordered yet.
    pub fn new(seed: FollowerSeed, now: Tick) -> Self {
        let FollowerSeed { shard, shard_count, namespaces, src_id, grace_ms, .. } = seed;
        let until = |is_feared| if is_feared { now.plus_ms(grace_ms) } else { Tick(0) };
        Self {
            seed,
            feared_until: until(seed.has_past),
            feared_anyway_until: until(seed.has_past && seed.is_new_source),
            src_id,
            phase: Phase::Starting,
            marks_refused: None,
            checkpoints: Checkpoints::new(shard, shard_count, namespaces),
        }
    }

    /// How far it is.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// This cluster's identity, as it was told last.
    pub fn src_id(&self) -> SrcId {
        self.src_id
    }

    /// Why positions cannot be stored, if they cannot.
    pub fn marks_refused(&self) -> &Option<String> {
        &self.marks_refused
    }

    /// Whether positions that were told wait for their answer: no others are taken meanwhile.
    pub fn awaits_answer(&self) -> bool {
        self.checkpoints.awaits_answer()
    }

    /// A piece of a checkpoint. When `is_late`, positions of namespaces whose devices are slow are left
    /// for another time.
    pub fn checkpoint(&mut self, dcs: &mut impl Dcs, is_late: bool) -> Piece {
        let all = dcs.all();
        match dcs.with_host(|host| self.checkpoints.flushed(host, is_late)) {
            Taken::Waits => Piece::Waits,
            Taken::Flushed(round, namespaces, marks) => {
                let of = |namespace| all.iter().map(move |dc| (*dc, namespace));
                let places = namespaces.into_iter().flat_map(of);
                let letters = places.filter_map(|(dc, id)| dcs.left(dc, id)).collect();
                let shard = self.seed.shard;
                Piece::Told(Notice::Marks { shard, round, marks, letters })
            }
            Taken::Outdated => {
                let mut marks = Vec::new();
                all.iter().for_each(|dc| dcs.marks(*dc, &mut marks));
                let taken = dcs.with_host(|host| self.checkpoints.take(&marks, host));
                for namespace in taken {
                    all.iter().for_each(|dc| dcs.take_left(*dc, namespace));
                }
                Piece::Taken
            }
        }
    }

    /// The last positions, and what goes with them.
    pub fn last_words(&self, dcs: &mut impl Dcs) -> LastWords {
        let mut last = LastWords::default();
        for dc in dcs.all() {
            dcs.sweep(dc);
            dcs.marks(dc, &mut last.marks);
            for namespace in (0..self.seed.namespaces).map(|n| NamespaceId(n as u8)) {
                dcs.take_left(dc, namespace);
                last.letters.extend(dcs.left(dc, namespace));
            }
        }
        last
    }

    /// What a DC that is made now ships nothing before.
    pub fn hold(&self) -> Hold {
        Hold { until: self.feared_until, anyway_until: self.feared_anyway_until }
    }

    /// Follows an order. Gives what the control loop is to be told.
    pub fn obey(&mut self, order: Order, dcs: &mut impl Dcs, now: Now) -> Option<Notice> {
        let followed = |serial| Notice::Followed { serial, marks: Vec::new(), gaps: Vec::new() };
        match order {
            Order::Dc { serial, dc, config: None, .. } => {
                self.checkpoints.changed();
                if dcs.has(dc) {
                    dcs.end(dc);
                    self.feared_until = now.tick.plus_ms(self.seed.closes_ms + self.seed.grace_ms);
                }
                return Some(followed(serial));
            }
            Order::Dc { serial, dc, config: Some((config, src_id)), starts } => {
                self.checkpoints.changed();
                let gaps = self.gaps(&config.name, &starts, dcs);
                if !dcs.has(dc) {
                    dcs.make(dc, &config, src_id, self.hold());
                }
                dcs.configure(dc, config, src_id, &starts);
                let mut marks = Vec::new();
                dcs.marks(dc, &mut marks);
                // From there on tombstones stay, at once.
                dcs.with_host(|host| self.checkpoints.begin(&marks, host));
                return Some(Notice::Followed { serial, marks, gaps });
            }
            Order::Namespace { serial, namespace, key, value } => {
                dcs.with_host(|host| host.set(namespace, &key, &value));
                return Some(followed(serial));
            }
            Order::Replay { serial, dc, namespace, letters } => {
                if dcs.has(dc) {
                    dcs.replay(dc, namespace, &letters);
                }
                return Some(followed(serial));
            }
            Order::Buried { dc, slots, refusal } if dcs.has(dc) => {
                dcs.buried(dc, &slots, refusal);
            }
            Order::LettersKept { dc, namespace, records } if dcs.has(dc) => {
                dcs.letters_kept(dc, namespace, &records);
            }
            Order::Holes { dc, holes } if dcs.has(dc) => dcs.set_holes(dc, holes),
            // Of a DC that has ended.
            Order::Buried { .. } | Order::LettersKept { .. } | Order::Holes { .. } => {}
            Order::Identity(src_id) => self.src_id = src_id,
            Order::MarksStored(round) => {
                dcs.with_host(|host| self.checkpoints.stored(round, host));
            }
            Order::MarksNotStored(round) => self.checkpoints.not_stored(round),
            Order::MarksRefused(why) => self.marks_refused = why,
            Order::Serve => self.enter(Phase::Serving),
            Order::Stop => self.enter(Phase::Stopping),
            Order::Finish => self.enter(Phase::Finishing),
            // For whoever asked.
            Order::Answer { .. } | Order::Resolved { .. } | Order::Letters { .. } => {}
        }
        None
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase.max(self.phase);
    }

    /// What starts of a DC's namespaces cannot find again.
    fn gaps(
        &self,
        dc: &str,
        starts: &[(NamespaceId, Beginning)],
        dcs: &mut impl Dcs,
    ) -> Vec<DeleteGap> {
        let FollowerSeed { shard, shard_count, .. } = self.seed;
        let mut gaps = Vec::new();
        for (namespace, start) in starts {
            let horizon = dcs.with_host(|host| host.tombstone_horizon(*namespace));
            let partitions = PartitionId::of_shard(shard, shard_count);
            gaps.extend(DeleteGap::of((dc, *namespace), start, partitions, horizon));
        }
        gaps
    }
}
