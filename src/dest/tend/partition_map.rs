//! Which node masters each partition of each shipped namespace, from what the nodes claim.
//!
//! Every node tells of its own partitions only, each at another time. So claims overlap and leave
//! holes while partitions move. The rules: a higher regime wins; of equal regimes the newest claim
//! wins. A partition that its node gives up goes to another node that claims it. While none does,
//! it stays with the node that gave it up, which hands requests on, until that node was asked once
//! more. Source: `docs/wire.md` sections 8.4 and 9.6, and what common clients do.

use crate::model::{NamespaceId, PARTITION_COUNT, PartitionId};
use crate::wire::replicas::{NamespaceReplicas, PartitionSet};

use crate::dest::NodeIndex;

/// No node.
const NOBODY: u16 = u16::MAX;

/// The map of one destination cluster, for the namespaces shipped there.
#[derive(Debug, Default)]
pub struct PartitionMap {
    /// By namespace of this process; `None` where the namespace is not shipped to this DC.
    tables: Vec<Option<Table>>,
}

/// One namespace: 8 KiB of masters, and half a KiB for each node.
#[derive(Debug)]
struct Table {
    remote: String,
    masters: Box<[u16; PARTITION_COUNT]>,
    /// By node.
    claims: Vec<Claim>,
}

/// What one node says about one namespace.
#[derive(Clone, Debug, Default)]
struct Claim {
    regime: u32,
    masters: PartitionSet,
    /// The node still holds partitions in `Table::masters` that it no longer claims.
    holds_unclaimed: bool,
}

impl PartitionMap {
    /// Takes the namespaces to be mapped, each with its name at the destination. Namespaces new or
    /// renamed start empty. Returns whether there are such, so that nodes must be asked again.
    pub fn set_namespaces(&mut self, namespaces: &[(NamespaceId, String)]) -> bool {
        let mut old = std::mem::take(&mut self.tables);
        let mut changed = false;
        for (id, remote) in namespaces {
            let kept = old.get_mut(id.index()).and_then(Option::take);
            let table = kept.filter(|table| table.remote == *remote).unwrap_or_else(|| {
                changed = true;
                Table::new(remote)
            });
            if self.tables.len() <= id.index() {
                self.tables.resize_with(id.index() + 1, || None);
            }
            self.tables[id.index()] = Some(table);
        }
        changed
    }

    /// The node to send a record of this partition to; `None` when no node claims it.
    #[inline]
    pub fn master(&self, namespace: NamespaceId, partition: PartitionId) -> Option<NodeIndex> {
        let table = self.tables.get(namespace.index())?.as_ref()?;
        match table.masters[partition.index()] {
            NOBODY => None,
            node => Some(NodeIndex(node)),
        }
    }

    /// Takes everything a node claims; a namespace it does not name is one it has no part in.
    /// Returns whether any partition changed hands.
    pub fn update(&mut self, node: NodeIndex, claims: &[NamespaceReplicas]) -> bool {
        let mut changed = false;
        for table in self.tables.iter_mut().flatten() {
            let claim = claims.iter().find(|claim| claim.namespace == table.remote);
            let regime = claim.map_or(0, |claim| claim.regime);
            let masters = claim.and_then(|claim| claim.columns.first()).cloned();
            changed |= table.update(node, regime, masters.unwrap_or_default());
        }
        changed
    }

    /// Takes away what the node gave up earlier and nobody took. Called when the node has been
    /// asked once more since and has claimed nothing new. Returns whether anything changed.
    pub fn settle(&mut self, node: NodeIndex) -> bool {
        self.tables.iter_mut().flatten().fold(false, |changed, table| table.settle(node) | changed)
    }

    /// Forgets a node; its partitions go to whoever else claims them. Returns whether it had any.
    pub fn remove(&mut self, node: NodeIndex) -> bool {
        self.tables.iter_mut().flatten().fold(false, |changed, table| table.remove(node) | changed)
    }

    /// Whether any partition is routed to the node.
    pub fn has_partitions(&self, node: NodeIndex) -> bool {
        self.tables.iter().flatten().any(|table| table.masters.contains(&node.0))
    }
}

impl Table {
    fn new(remote: &str) -> Self {
        let masters = Box::new([NOBODY; PARTITION_COUNT]);
        Self { remote: remote.to_owned(), masters, claims: Vec::new() }
    }

    fn update(&mut self, node: NodeIndex, regime: u32, masters: PartitionSet) -> bool {
        if self.claims.len() <= node.index() {
            self.claims.resize_with(node.index() + 1, Claim::default);
        }
        let claim = Claim { regime, masters, holds_unclaimed: false };
        let before = std::mem::replace(&mut self.claims[node.index()], claim);
        let mut changed = false;
        for partition in PartitionId::all() {
            let holder = self.masters[partition.index()];
            let next = self.next_master(partition, node, &before);
            self.masters[partition.index()] = next;
            changed |= next != holder;
        }
        changed
    }

    /// Who holds a partition after `node` has replaced what it claimed `before`.
    fn next_master(&mut self, partition: PartitionId, node: NodeIndex, before: &Claim) -> u16 {
        let holder = self.masters[partition.index()];
        let claim = &self.claims[node.index()];
        if claim.masters.contains(partition) {
            let is_new = !before.masters.contains(partition);
            let takes = holder == node.0 || self.yields(holder, claim.regime, is_new);
            return if takes { node.0 } else { holder };
        }
        if holder != node.0 {
            return holder;
        }
        match self.claimant(partition) {
            NOBODY => {
                self.claims[node.index()].holds_unclaimed = true;
                holder
            }
            other => other,
        }
    }

    /// Whether a partition's holder gives way to a claim of that regime.
    fn yields(&self, holder: u16, regime: u32, claim_is_new: bool) -> bool {
        let Some(held) = self.claims.get(usize::from(holder)) else { return true };
        regime > held.regime || (regime == held.regime && claim_is_new)
    }

    /// The node that claims a partition with the highest regime.
    fn claimant(&self, partition: PartitionId) -> u16 {
        let claims = self.claims.iter().enumerate();
        let claims = claims.filter(|(_, claim)| claim.masters.contains(partition));
        claims.max_by_key(|(_, claim)| claim.regime).map_or(NOBODY, |(node, _)| node as u16)
    }

    fn settle(&mut self, node: NodeIndex) -> bool {
        let Some(held) = self.claims.get_mut(node.index()) else { return false };
        if !std::mem::take(&mut held.holds_unclaimed) {
            return false;
        }
        self.reassign(node)
    }

    fn remove(&mut self, node: NodeIndex) -> bool {
        if let Some(held) = self.claims.get_mut(node.index()) {
            *held = Claim::default();
        }
        self.reassign(node)
    }

    /// Gives what the node holds without claiming it to its claimants, or to nobody.
    fn reassign(&mut self, node: NodeIndex) -> bool {
        let mut changed = false;
        for partition in PartitionId::all() {
            if self.masters[partition.index()] == node.0 {
                self.masters[partition.index()] = self.claimant(partition);
                changed |= self.masters[partition.index()] != node.0;
            }
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeIndex = NodeIndex(0);
    const B: NodeIndex = NodeIndex(1);
    const NS: NamespaceId = NamespaceId(2);

    fn claims(
        namespace: &str,
        regime: u32,
        owned: impl Fn(usize) -> bool,
    ) -> Vec<NamespaceReplicas> {
        let masters = PartitionId::all().filter(|partition| owned(partition.index())).collect();
        vec![NamespaceReplicas { namespace: namespace.into(), regime, columns: vec![masters] }]
    }

    fn mapped() -> PartitionMap {
        let mut map = PartitionMap::default();
        assert!(map.set_namespaces(&[(NS, "there".into())]));
        map
    }

    fn claim(
        map: &mut PartitionMap,
        node: NodeIndex,
        regime: u32,
        owned: impl Fn(usize) -> bool,
    ) -> bool {
        map.update(node, &claims("there", regime, owned))
    }

    fn masters(map: &PartitionMap, partitions: &[u16]) -> Vec<Option<NodeIndex>> {
        partitions.iter().map(|&index| map.master(NS, PartitionId::new(index))).collect()
    }

    #[test]
    fn two_halves_make_a_whole() {
        let mut map = mapped();
        assert!(claim(&mut map, A, 0, |p| p < 2048));
        assert!(claim(&mut map, B, 0, |p| p >= 2048));
        assert_eq!(masters(&map, &[0, 2047, 2048, 4095]), [Some(A), Some(A), Some(B), Some(B)]);
        assert!(!claim(&mut map, B, 0, |p| p >= 2048), "nothing new");
        assert_eq!(map.master(NamespaceId(0), PartitionId::new(0)), None, "not shipped");
    }

    #[test]
    fn the_newest_of_equal_claims_wins_and_the_older_is_not_renewed_by_repeating_it() {
        let mut map = mapped();
        claim(&mut map, A, 0, |_| true);
        assert!(claim(&mut map, B, 0, |p| p == 7));
        assert!(!claim(&mut map, A, 0, |_| true));
        assert_eq!(masters(&map, &[6, 7]), [Some(A), Some(B)]);
    }

    #[test]
    fn a_lower_regime_takes_nothing_from_a_higher_one() {
        let mut map = mapped();
        claim(&mut map, A, 5, |_| true);
        assert!(!claim(&mut map, B, 4, |_| true));
        assert_eq!(masters(&map, &[0]), [Some(A)]);
        assert!(claim(&mut map, B, 6, |p| p < 8), "even with old bits");
        assert_eq!(masters(&map, &[7, 8]), [Some(B), Some(A)]);
    }

    #[test]
    fn a_partition_given_up_goes_to_its_claimant_or_stays_until_asked_once_more() {
        let mut map = mapped();
        claim(&mut map, B, 0, |p| p < 2);
        claim(&mut map, A, 0, |_| true);
        assert!(claim(&mut map, A, 0, |p| p > 3));
        assert_eq!(masters(&map, &[0, 1, 2, 3, 4]), [Some(B), Some(B), Some(A), Some(A), Some(A)]);
        assert!(claim(&mut map, B, 0, |p| p < 3));
        assert!(!map.settle(B) && map.settle(A));
        assert_eq!(masters(&map, &[2, 3, 4]), [Some(B), None, Some(A)]);
        assert!(!map.settle(A));
    }

    #[test]
    fn a_removed_node_leaves_its_partitions_to_other_claimants() {
        let mut map = mapped();
        claim(&mut map, A, 0, |p| p < 10);
        claim(&mut map, B, 0, |p| p < 20);
        assert!(map.has_partitions(B) && !map.has_partitions(A));
        assert!(map.remove(B));
        assert_eq!(masters(&map, &[9, 10]), [Some(A), None]);
        assert!(!map.has_partitions(B) && !map.remove(B));
    }

    #[test]
    fn namespaces_come_go_and_are_renamed() {
        let mut map = mapped();
        claim(&mut map, A, 0, |_| true);
        assert!(!map.set_namespaces(&[(NS, "there".into())]), "kept");
        assert_eq!(masters(&map, &[0]), [Some(A)]);
        assert!(map.set_namespaces(&[(NS, "elsewhere".into()), (NamespaceId(0), "x".into())]));
        assert_eq!(masters(&map, &[0]), [None]);
        map.update(A, &claims("x", 0, |_| true));
        assert_eq!(map.master(NamespaceId(0), PartitionId::new(0)), Some(A));
        map.update(A, &[]);
        assert!(map.settle(A), "the node no longer has the namespace");
        assert_eq!(map.master(NamespaceId(0), PartitionId::new(0)), None);
    }
}
