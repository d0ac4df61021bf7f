//! The figures of one shard over the info protocol: `statistics`, `namespace/NS`, `sets`.
//!
//! Names are those asadm and exporters look for. A figure that cannot exist here (migrations,
//! secondary indexes) is given as what it truly is: zero.

use crate::storage::sets::SetCounts;
use crate::storage::space::SpaceStats;
use longship::model::{Lut, NamespaceId};
use longship::wire::info::{Command, escaped};
use longship_rt::clock::Clock;

use crate::admin::info::Pairs;
use crate::server::Server;
use crate::service::execute::Submit;

impl<S: Submit> Server<S> {
    /// Answers a command about figures; `None` for every other.
    pub fn report(&self, command: &Command<'_>) -> Option<String> {
        match (command.name, command.path) {
            ("statistics", _) => Some(self.statistics()),
            ("namespace", name) => Some(
                self.namespace_id(name)
                    .map_or_else(|| "type=unknown".to_owned(), |id| self.namespace(id)),
            ),
            ("sets", path) => Some(self.sets(path)),
            _ => None,
        }
    }

    fn namespace_id(&self, name: &str) -> Option<NamespaceId> {
        let index = self.identity.namespaces.iter().position(|known| known == name)?;
        Some(NamespaceId(index as u8))
    }

    fn namespace_ids(&self) -> impl Iterator<Item = NamespaceId> {
        (0..self.identity.namespaces.len()).map(|index| NamespaceId(index as u8))
    }

    fn statistics(&self) -> String {
        let store = self.records.store().borrow();
        let total = |field: fn(&SpaceStats) -> u64| -> u64 {
            self.namespace_ids().map(|id| field(&store.stats(id))).sum()
        };
        let mut out = Pairs::default();
        out.push("cluster_size", self.identity.shard_count());
        out.push("cluster_key", self.identity.cluster_key());
        out.push("cluster_integrity", true);
        out.push("cluster_is_member", true);
        out.push("paxos_principal", self.identity.principal());
        out.push("migrate_allowed", true);
        out.push("migrate_partitions_remaining", 0);
        out.push("uptime", Clock::real().now() / 1_000_000);
        out.push("client_connections", self.connections.count());
        out.push("client_connections_opened", self.connections.opened());
        let memory = self.connections.memory();
        out.push("client_request_bytes", memory.inbox.in_use());
        out.push("client_reply_bytes", memory.replies.in_use());
        out.push("objects", total(|stats| stats.objects));
        out.push("tombstones", total(|stats| stats.tombstones));
        out.push("proxy_in_progress", self.desk.under_way());
        out.into_text()
    }

    fn namespace(&self, id: NamespaceId) -> String {
        let stats = self.records.store().borrow().stats(id);
        let rules = self.records.rules(id);
        let mut out = Pairs::default();
        out.push("ns_cluster_size", self.identity.shard_count());
        out.push("effective_replication_factor", 1);
        for (what, count) in [("objects", stats.objects), ("tombstones", stats.tombstones)] {
            out.push(what, count);
            out.push(&format!("master_{what}"), count);
            out.push(&format!("prole_{what}"), 0);
            out.push(&format!("non_replica_{what}"), 0);
        }
        out.push("stop_writes", stats.refuses_writes);
        out.push("evicted_objects", 0);
        out.push("migrate_tx_partitions_remaining", 0);
        out.push("migrate_rx_partitions_remaining", 0);
        out.push("index-type", "shmem");
        out.push("index_used_bytes", stats.index_bytes);
        out.push("sindex-type", "shmem");
        out.push("sindex_used_bytes", 0);
        out.push("storage-engine", "device");
        out.push("data_total_bytes", stats.total_bytes);
        out.push("data_used_bytes", stats.used_bytes);
        out.push("data_avail_pct", percent(stats.free_blocks, stats.total_blocks));
        out.push("storage-engine.stop-writes-used-pct", rules.storage.stop_writes_used_pct);
        out.push("write_cache_bytes", stats.write_cache_bytes);
        out.push("cache_reads", stats.cache_hits);
        out.push("device_reads", stats.device_reads);
        out.push("device_reads_merged", stats.merged_reads);
        out.push("device_read_errors", stats.read_errors);
        out.push("defrag_moved_records", stats.moved_records);
        out.push("defrag_moved_bytes", stats.moved_bytes);
        out.push("expired_objects", stats.expired_records);
        out.push("tombstones_raided", stats.raided_tombstones);
        let horizon = stats.tombstone_horizon;
        out.push("tombstone_horizon", if horizon == Lut::ZERO { 0 } else { horizon.unix_ms() });
        out.push("fail_device_overload", stats.refused_overload);
        out.push("fail_out_of_space", stats.refused_full);
        out.push("default-ttl", rules.default_ttl_s);
        out.push("nsup-period", rules.nsup_period_s);
        out.push("allow-ttl-without-nsup", rules.allow_ttl_without_nsup);
        out.push("max-record-size", rules.max_record_size);
        out.push("reject-non-xdr-writes", rules.reject_non_xdr_writes);
        out.push("reject-xdr-writes", rules.reject_xdr_writes);
        self.records.figures(id).report(&mut out);
        out.into_text()
    }

    /// `sets`, `sets/NS` and `sets/NS/SET`.
    fn sets(&self, path: &str) -> String {
        let (namespace, set) = path.split_once('/').unwrap_or((path, ""));
        let store = self.records.store().borrow();
        let all = self.namespace_ids().zip(&self.identity.namespaces);
        let chosen = all.filter(|(_, name)| namespace.is_empty() || namespace == *name);
        chosen
            .flat_map(|(id, name)| store.sets(id).map(move |(set, counts)| (name, set, counts)))
            .filter(|(_, name, _)| !name.is_empty())
            .filter(|(_, name, _)| set.is_empty() || set == *name || set == escaped(name))
            .map(|(namespace, set, counts)| set_line(namespace, set, &counts))
            .collect()
    }
}

fn set_line(namespace: &str, set: &str, counts: &SetCounts) -> String {
    let SetCounts { objects, tombstones, bytes } = counts;
    let set = escaped(set);
    format!(
        "ns={namespace}:set={set}:objects={objects}:tombstones={tombstones}:\
         data_used_bytes={bytes}:truncate_lut=0:sindexes=0:stop-writes-count=0:\
         stop-writes-size=0:disable-eviction=false:enable-index=false;"
    )
}

fn percent(part: u64, whole: u64) -> u64 {
    (part * 100).checked_div(whole).unwrap_or(0)
}
