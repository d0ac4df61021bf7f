//! A DC on a desk: one namespace, one destination node, time that moves when told.

use std::collections::HashMap;

use super::dc::{DcShard, Limits, Now, Start};
use super::policy::Policy;
use super::schedule::{Dispatch, Idle, Room, Routes};
use super::settle::{Outcome, Settled};
use super::submit::Admission;
use super::verdict::Sent;
use super::{SweepStep, WalkIndex, WalkRequest};
use crate::config::DcNamespaceConfig;
use crate::model::{
    Change, ChangeKind, Digest, Lut, NamespaceId, PartitionId, SetId, SrcId, Tick, Version, Walked,
};
use crate::wire::ResultCode;

pub(super) const NS: NamespaceId = NamespaceId(0);
/// Wall clock at tick 0.
pub(super) const START_MS: u64 = 1_000_000;

/// What the only destination node does.
#[derive(Clone, Copy, Debug)]
pub(super) struct OneNode {
    pub(super) room: Room,
    /// How often it was asked for room.
    pub(super) asked: u32,
}

impl Routes for OneNode {
    fn room(&mut self, _: NamespaceId, _: PartitionId) -> Room {
        self.asked += 1;
        self.room
    }

    fn is_full(&self, node: u16) -> bool {
        self.room == Room::Full(node)
    }

    fn has_node(&self, _: NamespaceId, _: PartitionId) -> bool {
        self.room != Room::NoNode
    }
}

/// A digest in a chosen partition.
pub(super) fn digest(partition: u16, n: u32) -> Digest {
    let mut bytes = [0; 20];
    bytes[..2].copy_from_slice(&partition.to_le_bytes());
    bytes[8..12].copy_from_slice(&n.wrapping_mul(0x9E37_79B9).to_le_bytes());
    bytes[12..16].copy_from_slice(&n.to_le_bytes());
    Digest(bytes)
}

pub(super) fn policy() -> Policy {
    Policy::new(&DcNamespaceConfig::named("test"), 0, 1)
}

pub(super) struct Desk {
    pub(super) dc: DcShard,
    pub(super) node: OneNode,
    pub(super) ms: u64,
    version: Version,
    /// Version of each record, and whether it is deleted.
    pub(super) records: HashMap<Digest, Version>,
}

impl Desk {
    pub(super) fn new(policy: Policy, limits: Limits) -> Self {
        let mut desk = Self::without_namespace(limits);
        desk.attach(policy, |_| Start::Now);
        desk
    }

    pub(super) fn without_namespace(limits: Limits) -> Self {
        Self {
            dc: DcShard::new(limits, 0, 1),
            node: OneNode { room: Room::Yes(0), asked: 0 },
            ms: 0,
            version: Version::ZERO,
            records: HashMap::new(),
        }
    }

    pub(super) fn plain() -> Self {
        Self::new(policy(), Limits::default())
    }

    pub(super) fn attach(&mut self, policy: Policy, start: impl FnMut(PartitionId) -> Start) {
        self.dc.attach(NS, policy, self.now().wall, self.now(), start);
    }

    /// Another namespace, from now on.
    pub(super) fn attach_beside(&mut self, other: NamespaceId, policy: Policy) {
        let now = self.now();
        self.dc.attach(other, policy, now.wall, now, |_| Start::Now);
    }

    /// Whatever is dispatched counts as sent.
    pub(super) fn detach(&mut self) {
        self.dc.detach(NS, self.now(), |_| false);
        self.check();
    }

    pub(super) fn now(&self) -> Now {
        Now { tick: Tick(self.ms * 1000), wall: Lut::from_ms(START_MS + self.ms) }
    }

    pub(super) fn wait(&mut self, ms: u64) -> &mut Self {
        self.ms += ms;
        self
    }

    /// The change that a write of `digest` now makes.
    pub(super) fn change(&mut self, digest: Digest) -> Change {
        self.version = self.version.next(self.now().wall);
        let previous = self.records.insert(digest, self.version);
        Change {
            namespace: NS,
            digest,
            version: self.version,
            previous_lut: previous.map(Version::lut),
            set: SetId::NONE,
            kind: ChangeKind::Write,
            shipped: false,
            src_id: SrcId::NONE,
        }
    }

    pub(super) fn submit(&mut self, change: &Change) -> Admission {
        let admission = self.dc.submit(change, "", self.now());
        self.check();
        admission
    }

    pub(super) fn write(&mut self, digest: Digest) -> Admission {
        let change = self.change(digest);
        self.submit(&change)
    }

    pub(super) fn dispatch_idle(&mut self, budget: u32) -> (Vec<Dispatch>, Idle) {
        let mut out = Vec::new();
        let idle = self.dc.dispatch(self.now(), &mut self.node, &mut out, budget);
        self.check();
        (out, idle)
    }

    pub(super) fn dispatch(&mut self) -> Vec<Dispatch> {
        self.dispatch_idle(1000).0
    }

    /// Sends what may go to nodes that have so many places.
    pub(super) fn send_to<const N: usize>(
        &mut self,
        places: [u32; N],
        budget: u32,
    ) -> Vec<Dispatch> {
        let mut out = Vec::new();
        self.dc.dispatch(self.now(), &mut Places(places), &mut out, budget);
        out.iter().for_each(|dispatch| self.send(dispatch));
        out
    }

    pub(super) fn settle(&mut self, slot: u32, outcome: Outcome) -> Settled {
        let settled = self.dc.settle(slot, outcome, self.now());
        self.check();
        settled
    }

    /// Reads and sends a change as the record is now.
    pub(super) fn send(&mut self, dispatch: &Dispatch) {
        let version = self.records.get(&dispatch.digest).copied().unwrap_or(self.version);
        self.dc.sent(dispatch.slot, version, Sent::Write, 100);
    }

    pub(super) fn reply(&mut self, slot: u32, code: ResultCode) -> Settled {
        self.settle(slot, Outcome::Reply(code))
    }

    pub(super) fn ok(&mut self, slot: u32) {
        assert_eq!(self.reply(slot, ResultCode::OK), Settled::Done);
    }

    /// Dispatches, reads, sends and acknowledges until nothing is left that may go now.
    pub(super) fn ship_all(&mut self) -> Vec<Dispatch> {
        let mut all = Vec::new();
        loop {
            let out = self.dispatch();
            if out.is_empty() {
                return all;
            }
            for dispatch in &out {
                self.send(dispatch);
            }
            for dispatch in &out {
                self.ok(dispatch.slot);
            }
            all.extend(out);
        }
    }

    pub(super) fn sweep(&mut self) {
        let clock = self.now().wall;
        while self.dc.sweep(2, |_| clock) == SweepStep::More {}
    }

    /// LST of a partition after a sweep, in ms since the desk was set up.
    pub(super) fn lst(&mut self, partition: u16) -> u64 {
        self.sweep();
        self.dc.lst(NS, PartitionId::new(partition)).expect("attached").ms() - START_MS
    }

    /// Mark of a partition after a sweep, in ms since the desk was set up.
    pub(super) fn mark(&mut self, partition: u16) -> u64 {
        self.sweep();
        self.dc.mark(NS, PartitionId::new(partition)).expect("attached").ms() - START_MS
    }

    pub(super) fn begin_walk(&mut self) -> Option<WalkRequest> {
        let clock = self.now().wall;
        self.dc.begin_walk(self.now(), &self.node, |_| clock)
    }

    /// Gives a walk every record there is and ends it.
    pub(super) fn walk_all(&mut self, walk: WalkIndex) {
        let found: Vec<Walked> = self.records.iter().map(|(&d, &v)| walked(d, v)).collect();
        self.dc.walked(walk, &found, |_| "");
        self.check();
        self.dc.walk_done(walk);
        self.check();
    }

    pub(super) fn check(&self) {
        self.dc.audit();
    }
}

/// A record last written by a client.
pub(super) fn walked(digest: Digest, version: Version) -> Walked {
    Walked {
        digest,
        version,
        local_lut: version.lut(),
        set: SetId::NONE,
        kind: ChangeKind::Write,
        shipped: false,
        src_id: SrcId::NONE,
    }
}

/// Partition `n` goes to node `n` modulo `N`, which has room for so many more.
struct Places<const N: usize>([u32; N]);

impl<const N: usize> Routes for Places<N> {
    fn room(&mut self, _: NamespaceId, partition: PartitionId) -> Room {
        let node = partition.index() % N;
        let Some(left) = self.0[node].checked_sub(1) else { return Room::Full(node as u16) };
        self.0[node] = left;
        Room::Yes(node as u16)
    }

    fn is_full(&self, node: u16) -> bool {
        self.0[usize::from(node)] == 0
    }

    fn has_node(&self, _: NamespaceId, _: PartitionId) -> bool {
        true
    }
}
