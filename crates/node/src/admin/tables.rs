//! The figures of a shard, of the whole and of a namespace. Names are those asadm and exporters look
//! for (`docs/destinations.md` section 1). A figure that cannot exist here (migrations, secondary
//! indexes) is given as what it truly is: zero.

use longship::info::figure::Unit::{Bytes, Count, Ms, None as Bare, Percent, S};
use longship::info::figure::{Figure, Value};
use longship::model::Lut;

use crate::admin::figures::Figures;
use crate::config::NamespaceConfig;
use crate::storage::index::SET_ID_MAX;
use crate::storage::space::SpaceStats;

// `fail_too_many_sets` says how many.
const _: () = assert!(SET_ID_MAX == 4095);

/// What `statistics` tells of.
pub(super) struct Whole {
    pub(super) shard_count: u64,
    pub(super) cluster_key: String,
    pub(super) principal: String,
    pub(super) uptime_s: u64,
    pub(super) connections: u64,
    pub(super) connections_opened: u64,
    pub(super) request_bytes: u64,
    pub(super) reply_bytes: u64,
    pub(super) objects: u64,
    pub(super) tombstones: u64,
    pub(super) handed_over: u64,
}

/// `statistics`.
pub(super) const WHOLE: &[Figure<Whole>] = &[
    Figure::gauge("cluster_size", Count, "shards, each of which is a node", |of| {
        of.shard_count.into()
    }),
    Figure::text("cluster_key", "changes when the set of nodes does", |of| {
        of.cluster_key.clone().into()
    }),
    Figure::gauge("cluster_integrity", Bare, "all nodes see each other", |_| true.into()),
    Figure::gauge("cluster_is_member", Bare, "this node belongs to it", |_| true.into()),
    Figure::text("paxos_principal", "the node that stands for the cluster", |of| {
        of.principal.clone().into()
    }),
    Figure::gauge("migrate_allowed", Bare, "partitions never move", |_| true.into()),
    Figure::gauge("migrate_partitions_remaining", Count, "partitions never move", |_| zero()),
    Figure::counter("uptime", S, "since the process was started", |of| of.uptime_s.into()),
    Figure::gauge("client_connections", Count, "open connections", |of| of.connections.into()),
    Figure::counter("client_connections_opened", Count, "connections ever accepted", |of| {
        of.connections_opened.into()
    }),
    Figure::gauge("client_request_bytes", Bytes, "memory of requests not yet whole", |of| {
        of.request_bytes.into()
    }),
    Figure::gauge("client_reply_bytes", Bytes, "memory of replies not yet read", |of| {
        of.reply_bytes.into()
    }),
    Figure::gauge("objects", Count, "records", |of| of.objects.into()),
    Figure::gauge("tombstones", Count, "deleted records still remembered", |of| {
        of.tombstones.into()
    }),
    Figure::gauge("proxy_in_progress", Count, "requests that another shard answers", |of| {
        of.handed_over.into()
    }),
];

/// What `namespace/NS` tells of.
pub(super) struct One {
    pub(super) shard_count: u64,
    pub(super) stats: SpaceStats,
    pub(super) rules: NamespaceConfig,
    pub(super) figures: Figures,
}

fn zero() -> Value {
    Value::Number(0)
}

/// `namespace/NS`: figures, and the items that tools look for among them.
pub(super) const ONE: &[Figure<One>] = &[
    Figure::gauge("ns_cluster_size", Count, "shards", |of| of.shard_count.into()),
    Figure::gauge("effective_replication_factor", Count, "copies", |_| 1.into()),
    Figure::gauge("objects", Count, "records", |of| of.stats.objects.into()),
    Figure::gauge("master_objects", Count, "records", |of| of.stats.objects.into()),
    Figure::gauge("prole_objects", Count, "there are no copies", |_| zero()),
    Figure::gauge("non_replica_objects", Count, "there are no copies", |_| zero()),
    Figure::gauge("tombstones", Count, "deleted records still remembered", |of| {
        of.stats.tombstones.into()
    }),
    Figure::gauge("master_tombstones", Count, "deleted records still remembered", |of| {
        of.stats.tombstones.into()
    }),
    Figure::gauge("prole_tombstones", Count, "there are no copies", |_| zero()),
    Figure::gauge("non_replica_tombstones", Count, "there are no copies", |_| zero()),
    Figure::gauge("stop_writes", Bare, "writes of new data are refused", |of| {
        of.stats.refuses_writes.into()
    }),
    Figure::counter("evicted_objects", Count, "nothing is evicted", |_| zero()),
    Figure::gauge("migrate_tx_partitions_remaining", Count, "partitions never move", |_| zero()),
    Figure::gauge("migrate_rx_partitions_remaining", Count, "partitions never move", |_| zero()),
    Figure::text("index-type", "where the index is", |_| "shmem".into()),
    Figure::gauge("index_used_bytes", Bytes, "memory of the index", |of| {
        of.stats.index_bytes.into()
    }),
    Figure::text("sindex-type", "there are no secondary indexes", |_| "shmem".into()),
    Figure::gauge("sindex_used_bytes", Bytes, "there are no secondary indexes", |_| zero()),
    Figure::text("storage-engine", "where the records are", |_| "device".into()),
    Figure::gauge("data_total_bytes", Bytes, "the shard's part of the devices", |of| {
        of.stats.total_bytes.into()
    }),
    Figure::gauge("data_used_bytes", Bytes, "records and tombstones", |of| {
        of.stats.used_bytes.into()
    }),
    Figure::gauge("data_avail_pct", Percent, "blocks that may be written now", |of| {
        let SpaceStats { free_blocks, total_blocks, .. } = of.stats;
        (free_blocks * 100).checked_div(total_blocks).unwrap_or(0).into()
    }),
    Figure::gauge("storage-engine.stop-writes-used-pct", Percent, "the item", |of| {
        u64::from(of.rules.storage.stop_writes_used_pct).into()
    }),
    Figure::gauge("write_cache_bytes", Bytes, "taken and not yet on the device", |of| {
        of.stats.write_cache_bytes.into()
    }),
    Figure::counter("cache_reads", Count, "reads answered from memory", |of| {
        of.stats.cache_hits.into()
    }),
    Figure::counter("device_reads", Count, "records read from the device", |of| {
        of.stats.device_reads.into()
    }),
    Figure::counter("device_reads_merged", Count, "of these, such as came with another", |of| {
        of.stats.merged_reads.into()
    }),
    Figure::counter("device_read_errors", Count, "reads that failed", |of| {
        of.stats.read_errors.into()
    }),
    Figure::counter("defrag_moved_records", Count, "records moved to free a block", |of| {
        of.stats.moved_records.into()
    }),
    Figure::counter("defrag_moved_bytes", Bytes, "the same", |of| of.stats.moved_bytes.into()),
    Figure::counter("expired_objects", Count, "records expired", |of| {
        of.stats.expired_records.into()
    }),
    Figure::counter("tombstones_raided", Count, "tombstones dropped", |of| {
        of.stats.raided_tombstones.into()
    }),
    Figure::gauge("tombstone_horizon", Ms, "time of the newest of them, since 1970", |of| {
        let horizon = of.stats.tombstone_horizon;
        if horizon == Lut::ZERO { zero() } else { horizon.unix_ms().into() }
    }),
    Figure::gauge("device_write_wait_s", S, "age of the oldest write or flush under way", |of| {
        of.stats.write_wait_s.into()
    }),
    Figure::gauge("device_read_wait_s", S, "age of the oldest read under way", |of| {
        of.stats.read_wait_s.into()
    }),
    Figure::gauge(
        "device_failed",
        Bare,
        "it takes writes again after a start; see the log",
        |of| of.stats.is_poisoned.into(),
    ),
    Figure::counter(
        "fail_device_overload",
        Count,
        "writes refused: the device is slow, or has failed",
        |of| of.stats.refused_overload.into(),
    ),
    Figure::counter("fail_out_of_space", Count, "writes refused: there is no room", |of| {
        of.stats.refused_full.into()
    }),
    Figure::counter("fail_too_many_sets", Count, "writes refused: 4095 sets are there", |of| {
        of.stats.refused_sets.into()
    }),
    Figure::gauge("default-ttl", S, "the item", |of| u64::from(of.rules.default_ttl_s).into()),
    Figure::gauge("nsup-period", S, "the item", |of| u64::from(of.rules.nsup_period_s).into()),
    Figure::gauge("allow-ttl-without-nsup", Bare, "the item", |of| {
        of.rules.allow_ttl_without_nsup.into()
    }),
    Figure::gauge("max-record-size", Bytes, "the item", |of| {
        u64::from(of.rules.max_record_size).into()
    }),
    Figure::gauge("reject-non-xdr-writes", Bare, "the item", |of| {
        of.rules.reject_non_xdr_writes.into()
    }),
    Figure::gauge("reject-xdr-writes", Bare, "the item", |of| of.rules.reject_xdr_writes.into()),
    Figure::counter("client_read_success", Count, "reads done", |of| {
        of.figures.read.success.value().into()
    }),
    Figure::counter("client_read_error", Count, "reads refused", |of| {
        of.figures.read.error.value().into()
    }),
    Figure::counter("client_read_timeout", Count, "nothing is given up for time", |_| zero()),
    Figure::counter("client_read_not_found", Count, "reads of no record", |of| {
        of.figures.read.not_found.value().into()
    }),
    Figure::counter("client_write_success", Count, "writes done", |of| {
        of.figures.write.success.value().into()
    }),
    Figure::counter("client_write_error", Count, "writes refused", |of| {
        of.figures.write.error.value().into()
    }),
    Figure::counter("client_write_timeout", Count, "nothing is given up for time", |_| zero()),
    Figure::counter("client_write_not_found", Count, "writes of no record", |of| {
        of.figures.write.not_found.value().into()
    }),
    Figure::counter("client_delete_success", Count, "deletes done", |of| {
        of.figures.delete.success.value().into()
    }),
    Figure::counter("client_delete_error", Count, "deletes refused", |of| {
        of.figures.delete.error.value().into()
    }),
    Figure::counter("client_delete_timeout", Count, "nothing is given up for time", |_| zero()),
    Figure::counter("client_delete_not_found", Count, "deletes of no record", |of| {
        of.figures.delete.not_found.value().into()
    }),
    Figure::counter("xdr_client_write_success", Count, "writes of shippers done", |of| {
        of.figures.xdr_write.success.value().into()
    }),
    Figure::counter("xdr_client_write_error", Count, "writes of shippers refused", |of| {
        of.figures.xdr_write.error.value().into()
    }),
    Figure::counter("xdr_client_write_timeout", Count, "nothing is given up for time", |_| zero()),
    Figure::counter("xdr_client_write_not_found", Count, "writes of shippers of no record", |of| {
        of.figures.xdr_write.not_found.value().into()
    }),
    Figure::counter("xdr_client_delete_success", Count, "deletes of shippers done", |of| {
        of.figures.xdr_delete.success.value().into()
    }),
    Figure::counter("xdr_client_delete_error", Count, "deletes of shippers refused", |of| {
        of.figures.xdr_delete.error.value().into()
    }),
    Figure::counter("xdr_client_delete_timeout", Count, "nothing is given up for time", |_| zero()),
    Figure::counter(
        "xdr_client_delete_not_found",
        Count,
        "deletes of shippers of no record",
        |of| of.figures.xdr_delete.not_found.value().into(),
    ),
    Figure::counter("fail_generation", Count, "writes refused for the generation", |of| {
        of.figures.fail_generation.value().into()
    }),
    Figure::counter("fail_key_busy", Count, "no record is ever busy", |_| zero()),
    Figure::counter("fail_record_too_big", Count, "writes refused for their size", |of| {
        of.figures.fail_record_too_big.value().into()
    }),
    Figure::counter("fail_xdr_forbidden", Count, "writes refused for their origin", |of| {
        of.figures.fail_xdr_forbidden.value().into()
    }),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_figures_have_one_name_and_each_says_what_it_is() {
        fn check<T>(table: &[Figure<T>]) {
            for (index, figure) in table.iter().enumerate() {
                assert!(!figure.help.is_empty(), "{}", figure.name);
                let again = table[..index].iter().any(|other| other.name == figure.name);
                assert!(!again, "{}", figure.name);
            }
        }
        check(WHOLE);
        check(ONE);
    }
}
