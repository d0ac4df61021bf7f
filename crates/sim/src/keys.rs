//! The records of a world: each key's digest, namespace, lane and set.

use std::collections::BTreeMap;

use crate::store::Key;
use crate::world::{LANES, SETS, SHARDS, lane_of};
use longship::model::{Digest, NamespaceId, SetId, ShardIndex};

/// All keys; every site has the same.
#[derive(Debug)]
pub(crate) struct Keys {
    digests: Vec<Digest>,
    by_digest: BTreeMap<(u8, [u8; 20]), Key>,
    per_namespace: u16,
}

impl Keys {
    /// So many keys in each of so many namespaces.
    pub(crate) fn new(per_namespace: u16, namespaces: usize) -> Self {
        let count = per_namespace * namespaces as u16;
        let digests: Vec<Digest> = (0..count).map(digest_of).collect();
        let keys = digests.iter().enumerate();
        let by_digest = keys
            .map(|(key, digest)| (((key / usize::from(per_namespace)) as u8, digest.0), key as Key))
            .collect();
        Self { digests, by_digest, per_namespace }
    }

    pub(crate) fn count(&self) -> Key {
        self.digests.len() as Key
    }

    pub(crate) fn digest(&self, key: Key) -> Digest {
        self.digests[usize::from(key)]
    }

    pub(crate) fn key(&self, namespace: NamespaceId, digest: &Digest) -> Key {
        self.by_digest[&(namespace.0, digest.0)]
    }

    pub(crate) fn namespace(&self, key: Key) -> NamespaceId {
        NamespaceId((key / self.per_namespace) as u8)
    }

    pub(crate) fn of(&self, namespace: NamespaceId) -> std::ops::Range<Key> {
        let first = namespace.index() as Key * self.per_namespace;
        first..first + self.per_namespace
    }

    pub(crate) fn lane(&self, key: Key) -> usize {
        lane_of(self.digest(key).partition())
    }

    pub(crate) fn set(&self, key: Key) -> SetId {
        SetId(key % SETS.len() as u16)
    }
}

fn digest_of(key: Key) -> Digest {
    let mut digest = Digest::of_integer("sim", i64::from(key));
    let partition = u16::from(digest.0[4]) % LANES as u16 * SHARDS;
    digest.0[..2].copy_from_slice(&partition.to_le_bytes());
    debug_assert_eq!(digest.partition().shard(SHARDS), ShardIndex(0));
    digest
}
