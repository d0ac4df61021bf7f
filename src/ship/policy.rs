//! What one DC ships of one namespace, in the form the hot path asks for.

use super::mutation::{Mutation, planted};
use crate::config::{BinPolicy, DcNamespaceConfig, WritePolicy};
use crate::model::{Lut, SrcId};

/// Which sets are shipped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetRule {
    /// Only `ship` is shipped; records without a set then stay.
    pub only_specified: bool,
    /// Sets shipped when only specified ones are.
    pub ship: Vec<String>,
    /// Sets never shipped.
    pub ignore: Vec<String>,
}

impl SetRule {
    /// Whether records of `set` (empty: no set) are shipped.
    #[inline]
    pub fn admits(&self, set: &str) -> bool {
        if !self.only_specified && self.ignore.is_empty() {
            return true;
        }
        let listed = |list: &[String]| list.iter().any(|name| name == set);
        !listed(&self.ignore) && (!self.only_specified || (!set.is_empty() && listed(&self.ship)))
    }
}

/// Which bins are shipped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BinRule {
    /// All but these.
    AllBut(Vec<Box<[u8]>>),
    /// Only these; one that the record lacks ships as its removal.
    Only(Vec<Box<[u8]>>),
}

/// What one DC ships of one namespace, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Namespace at the destination.
    pub remote_namespace: String,
    /// Which sets.
    pub sets: SetRule,
    /// Which bins.
    pub bins: BinRule,
    /// Replace the record at the destination or update it.
    pub write: WritePolicy,
    /// Ship changes that were themselves shipped here.
    pub forward: bool,
    /// Do not ship client deletes that are not durable.
    pub ignore_expunges: bool,
    /// Ship expiries and evictions as deletes.
    pub ship_nsup_deletes: bool,
    /// A key changed again within this time ships once for both; 0 is off.
    pub hot_key_ms: u32,
    /// Age a queue entry must reach before it is picked.
    pub delay_ms: u32,
    /// This shard's share of the process's throughput; 0 pauses.
    pub records_per_s: u32,
    /// Entries of one lane's queue.
    pub queue_entries_max: u32,
}

impl Policy {
    /// How long a change still has to grow until `delay-ms` lets it ship, by its own time: it may
    /// have been made a while ago. One from the future counts as old enough: the clock was set back,
    /// and its age is not known.
    #[inline]
    pub(super) fn delay_left_ms(&self, lut: Lut, wall: Lut) -> u64 {
        if self.delay_ms == 0 {
            return 0;
        }
        let delay_ms = u64::from(self.delay_ms);
        let (lut, wall) = (lut.ms(), wall.ms());
        if lut >= wall + delay_ms { 0 } else { (lut + delay_ms).saturating_sub(wall) }
    }

    /// Resolves a configuration for shard `shard` of `shard_count`.
    pub fn new(config: &DcNamespaceConfig, shard: u16, shard_count: u16) -> Self {
        let bytes = |names: &[String]| names.iter().map(|n| n.as_bytes().into()).collect();
        Self {
            remote_namespace: config.remote_name().to_owned(),
            sets: SetRule {
                only_specified: config.ship_only_specified_sets,
                ship: config.shipped_sets.clone(),
                ignore: config.ignored_sets.clone(),
            },
            bins: match config.bin_policy {
                BinPolicy::All => BinRule::AllBut(bytes(&config.ignored_bins)),
                BinPolicy::OnlySpecified => BinRule::Only(bytes(&config.shipped_bins)),
            },
            write: config.write_policy,
            forward: config.forward,
            ignore_expunges: config.ignore_expunges,
            ship_nsup_deletes: config.ship_nsup_deletes,
            hot_key_ms: config.hot_key_ms,
            delay_ms: config.delay_ms,
            records_per_s: share(config.max_throughput, shard, shard_count),
            queue_entries_max: config.transaction_queue_limit,
        }
    }

    /// Whether a record last written by the shipper of `src_id` would be an echo at `destination`.
    #[inline]
    pub fn is_echo(shipped: bool, src_id: SrcId, destination: SrcId) -> bool {
        shipped && src_id != SrcId::NONE && src_id == destination && !planted(Mutation::Echo)
    }
}

/// A shard's part of a rate of the process: the parts add up to the whole, except that no shard of
/// a running process gets nothing.
fn share(whole: u32, shard: u16, shard_count: u16) -> u32 {
    let (count, shard) = (u32::from(shard_count), u32::from(shard));
    let part = whole / count + u32::from(shard < whole % count);
    if whole == 0 { 0 } else { part.max(1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_admitted_by_both_lists() {
        let check = |only: bool, ship: &[&str], ignore: &[&str], set: &str, expected: bool| {
            let names = |list: &[&str]| list.iter().map(|&name| name.to_owned()).collect();
            let rule = SetRule { only_specified: only, ship: names(ship), ignore: names(ignore) };
            assert_eq!(rule.admits(set), expected, "{rule:?} {set:?}");
        };
        check(false, &[], &[], "a", true);
        check(false, &[], &[], "", true);
        check(false, &["b"], &[], "a", true);
        check(false, &[], &["a"], "a", false);
        check(false, &[], &["a"], "", true);
        check(true, &["a"], &[], "a", true);
        check(true, &["a"], &[], "b", false);
        check(true, &["a"], &[], "", false);
        check(true, &["a"], &["a"], "a", false);
        check(true, &[], &[], "a", false);
    }

    #[test]
    fn shares_of_a_rate_add_up_and_none_is_starved() {
        for (whole, shards) in [(100_000, 3), (100, 7), (1_000_000, 64), (0, 2)] {
            let parts: Vec<u32> = (0..shards).map(|shard| share(whole, shard, shards)).collect();
            assert_eq!(parts.iter().sum::<u32>(), whole);
        }
        assert!((0..128).all(|shard| share(100, shard, 128) == 1));
    }

    #[test]
    fn only_a_known_origin_can_be_echoed() {
        assert!(Policy::is_echo(true, SrcId(3), SrcId(3)));
        assert!(!Policy::is_echo(true, SrcId(3), SrcId(4)));
        assert!(!Policy::is_echo(true, SrcId::NONE, SrcId::NONE));
        assert!(!Policy::is_echo(false, SrcId(3), SrcId(3)));
    }
}
