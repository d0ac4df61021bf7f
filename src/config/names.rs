//! What to say about a name that is not in the table: an old name, a later one, or a slip of the
//! pen.

use super::error::ItemError;
use super::table::{self, Item};

/// Names of older releases and of things this system does without, with what to write instead.
const OLD: &[(&str, &str)] = &[
    ("allow-nonxdr-writes", "write `reject-non-xdr-writes`, with the opposite value"),
    ("allow-xdr-writes", "write `reject-xdr-writes`, with the opposite value"),
    ("alternate-address", "write `alternate-access-address`"),
    ("datacenter", "write `dc NAME {`"),
    ("dc-int-ext-ipmap", "see `use-alternate-access-address`"),
    ("dc-node-address-port", "write `node-address-port HOST PORT`"),
    ("dc-security-config-file", "there is no login and no TLS towards destinations yet"),
    ("dc-ship-bins", "write `bin-policy` and `ship-bin` in the DC's namespace"),
    ("dc-use-alternate-services", "write `use-alternate-access-address`"),
    ("disable-nsup", "write `nsup-period 0`"),
    ("enable-xdr", "a namespace ships when a DC lists it: `xdr { dc D { namespace N { } } }`"),
    ("external-address", "write `access-address`"),
    ("forward-xdr-writes", "write `forward` in the DC's namespace"),
    ("high-water-disk-pct", "there is no eviction; see `stop-writes-used-pct`"),
    ("high-water-memory-pct", "there is no eviction; see `stop-writes-used-pct`"),
    ("high-water-pct", "there is no eviction; see `stop-writes-used-pct`"),
    ("hotkey-time-ms", "write `hot-key-ms` in the DC's namespace"),
    ("ignore-bins", "write `ignore-bin NAME`, once for each"),
    ("ignore-sets", "write `ignore-set NAME`, once for each"),
    ("interface-address", "write the address itself as `address`"),
    ("low-water-pct", "there is no eviction; see `stop-writes-used-pct`"),
    ("max-ship-throughput", "write `max-throughput` in the DC's namespace"),
    ("max-used-pct", "write `stop-writes-used-pct`"),
    ("min-avail-pct", "write `stop-writes-used-pct`"),
    ("network-interface-name", "write the address itself as `address`"),
    ("node-address-ports", "write `node-address-port HOST PORT`, once for each"),
    ("ns-forward-xdr-writes", "write `forward` in the DC's namespace"),
    ("ns-hotkey-time-ms", "write `hot-key-ms` in the DC's namespace"),
    ("nsup-interval", "write `nsup-period` in the namespace"),
    ("sets-enable-xdr", "write `ship-set` or `ignore-set` in the DC's namespace"),
    ("ship-bins", "write `ship-bin NAME`, once for each"),
    ("ship-sets", "write `ship-set NAME`, once for each"),
    ("stop-writes-pct", "write `stop-writes-used-pct` in `storage-engine device`"),
    ("xdr-batch-num-retry", "shipping has none of its own since release 5: take the line out"),
    ("xdr-batch-retry-sleep", "shipping has none of its own since release 5: take the line out"),
    (
        "xdr-check-data-before-delete",
        "shipping has none of its own since release 5: take the line out",
    ),
    ("xdr-client-threads", "shipping has none of its own since release 5: take the line out"),
    ("xdr-compression-threshold", "see `enable-compression` in the DC's namespace"),
    (
        "xdr-delete-shipping-enabled",
        "shipping has none of its own since release 5: take the line out",
    ),
    ("xdr-digestlog-iowait-ms", "shipping has none of its own since release 5: take the line out"),
    ("xdr-errorlog-frequency", "shipping has none of its own since release 5: take the line out"),
    ("xdr-errorlog-level", "shipping has none of its own since release 5: take the line out"),
    ("xdr-errorlog-path", "shipping has none of its own since release 5: take the line out"),
    ("xdr-hotkey-maxskip", "shipping has none of its own since release 5: take the line out"),
    ("xdr-hotkey-time-ms", "write `hot-key-ms` in the DC's namespace"),
    ("xdr-info-port", "shipping has none of its own since release 5: take the line out"),
    (
        "xdr-info-request-timeout-ms",
        "shipping has none of its own since release 5: take the line out",
    ),
    ("xdr-info-timeout", "shipping has none of its own since release 5: take the line out"),
    ("xdr-local-node-port", "shipping has none of its own since release 5: take the line out"),
    ("xdr-local-port", "shipping has none of its own since release 5: take the line out"),
    ("xdr-max-ship-throughput", "write `max-throughput` in the DC's namespace"),
    (
        "xdr-min-digestlog-free-pct",
        "shipping has none of its own since release 5: take the line out",
    ),
    ("xdr-named-pipe-path", "shipping has none of its own since release 5: take the line out"),
    ("xdr-nsup-deletes-enabled", "write `ship-nsup-deletes` in the DC's namespace"),
    ("xdr-period", "write `period-ms` in the DC"),
    ("xdr-pidfile", "shipping has none of its own since release 5: take the line out"),
    ("xdr-read-threads", "shipping has none of its own since release 5: take the line out"),
    ("xdr-remote-datacenter", "write `namespace NAME { }` inside the DC"),
    ("xdr-ship-bins", "write `bin-policy` and `ship-bin` in the DC's namespace"),
    ("xdr-ship-delay", "write `delay-ms` in the DC's namespace"),
    ("xdr-shipping-enabled", "0 as a DC's `max-throughput` pauses it"),
    ("xdr-threads", "shipping has none of its own since release 5: take the line out"),
    ("xdr-write-timeout", "shipping has none of its own since release 5: take the line out"),
];

/// Names the reference system knows, and why they cannot just be ignored.
const WITHOUT: &[(&str, &str)] = &[
    ("access-port", "clients are told the port listened on: map it one to one"),
    ("alternate-access-port", "clients are told the port listened on: map it one to one"),
    ("cold-start-empty", "to begin with empty storage, remove its files with the node stopped"),
    ("compression", "records are stored as they come and would take more space"),
    ("compression-level", "there is no compression yet"),
    ("default-set-ttl", "there are no settings of single sets"),
    ("disable-expunge", "deletes that are not durable are accepted"),
    (
        "disable-localhost",
        "the loopback is always served with `address any`; a firewall can close it",
    ),
    ("disallow-expunge", "deletes that are not durable are accepted"),
    ("disallow-null-setname", "records without a set are accepted"),
    ("encryption", "records would be stored in clear"),
    ("encryption-key-file", "records would be stored in clear"),
    ("encryption-old-key-file", "records would be stored in clear"),
    ("evict-indexes-memory-pct", "there is no eviction; see `stop-writes-used-pct`"),
    ("evict-sys-memory-pct", "there is no eviction; see `stop-writes-used-pct`"),
    ("evict-tenths-pct", "there is no eviction; see `stop-writes-used-pct`"),
    ("evict-used-pct", "there is no eviction; see `stop-writes-used-pct`"),
    ("group", "start the process as that group"),
    (
        "indexes-memory-budget",
        "the index grows as needed, 64 bytes a record at most; see `stop-writes-used-pct`",
    ),
    ("max-ttl", "a life may be as long as 10 years"),
    ("min-cluster-size", "one process is one cluster here: a node cannot wait for others"),
    ("os-group-perms", "files are made for the user alone"),
    ("secrets-address-port", "secrets are read from files only"),
    ("secrets-tls-context", "secrets are read from files only"),
    ("secrets-uds-path", "secrets are read from files only"),
    (
        "security",
        "there is no access control yet: who reaches the port reads and writes; guard it with a firewall and take the section out",
    ),
    ("set", "there are no limits for single sets: take the section out"),
    ("sindex", "there are no secondary indexes: take the section out"),
    ("stop-writes-avail-pct", "write `stop-writes-used-pct`"),
    ("stop-writes-sys-memory-pct", "memory is bounded by the index; see `stop-writes-used-pct`"),
    ("storage-engine memory", "records live on files or devices: write `storage-engine device {`"),
    ("storage-engine pmem", "records live on files or devices: write `storage-engine device {`"),
    ("strong-consistency", "a node holds one copy of each partition and promises no more"),
    ("strong-consistency-allow-expunge", "there is no strong consistency"),
    ("syslog", "write `console {` or `file PATH {`; systemd keeps what goes to the console"),
    ("tls", "there is no TLS yet: clients that ask for it cannot connect"),
    ("tls-access-address", "there is no TLS yet"),
    ("tls-address", "there is no TLS yet"),
    ("tls-authenticate-client", "there is no TLS yet"),
    ("tls-mode", "there is no TLS yet"),
    ("tls-name", "there is no TLS yet"),
    ("tls-port", "there is no TLS yet: clients that ask for it cannot connect"),
    ("user", "start the process as that user"),
    ("vault", "secrets are read from files only"),
    ("vault-ca", "secrets are read from files only"),
    ("vault-namespace", "secrets are read from files only"),
    ("vault-path", "secrets are read from files only"),
    ("vault-token-file", "secrets are read from files only"),
    ("vault-url", "secrets are read from files only"),
    ("xdr-bin-tombstone-ttl", "there is no shipping by bin times"),
];

/// Names the reference system knows, in any context, without a meaning here; and why it is safe to
/// read them over.
const IGNORED: &[(&str, &str)] = &[
    ("active-rack", "one process is one cluster here"),
    ("admin", "info commands are answered at the service port"),
    ("advertise-ipv6", "clients are told the `address` bound to, whatever its kind"),
    ("allow-inline-transactions", "each shard is one thread that does all of its work"),
    ("auto-pin", "shards are always pinned; choose CPUs with `cpu-set`, `smt`, `leave-cores`"),
    ("auto-revive", "one process is one cluster here"),
    ("background-query-max-rps", "each shard is one thread that does all of its work"),
    ("batch-index-threads", "each shard is one thread that does all of its work"),
    ("batch-max-buffers-per-queue", "each shard is one thread that does all of its work"),
    ("batch-max-requests", "each shard is one thread that does all of its work"),
    ("batch-max-unused-buffers", "each shard is one thread that does all of its work"),
    ("batch-priority", "each shard is one thread that does all of its work"),
    ("batch-threads", "each shard is one thread that does all of its work"),
    ("batch-without-digests", "there are no batches yet"),
    ("cache-replica-writes", "a node holds one copy of each partition"),
    ("cgroup-mem-tracking", "only changes how memory is handled"),
    ("cold-start-evict-ttl", "there is no eviction"),
    ("commit-min-size", "see `commit-to-device`"),
    ("conflict-resolution-policy", "one process is one cluster here"),
    ("conflict-resolve-writes", "one process is one cluster here"),
    ("data-in-index", "recent blocks stay in memory: see `post-write-cache`"),
    ("data-in-memory", "recent blocks stay in memory: see `post-write-cache`"),
    ("debug-allocations", "only changes how memory is handled"),
    (
        "defrag-queue-min",
        "storage finds its own pace; see `defrag-lwm-pct` and `xdr-tomb-raider-period`",
    ),
    (
        "defrag-sleep",
        "storage finds its own pace; see `defrag-lwm-pct` and `xdr-tomb-raider-period`",
    ),
    (
        "defrag-startup-minimum",
        "storage finds its own pace; see `defrag-lwm-pct` and `xdr-tomb-raider-period`",
    ),
    ("direct-files", "storage is always read and written with direct I/O"),
    ("disable-cold-start-eviction", "there is no eviction"),
    ("disable-mrt-writes", "there are no transactions of several records"),
    ("disable-odirect", "storage is always read and written with direct I/O"),
    ("disable-odsync", "see `commit-to-device`"),
    ("disable-udf-execution", "there are no user-defined functions"),
    ("disable-write-dup-res", "a node holds one copy of each partition"),
    ("downgrading", "there is no earlier release"),
    ("dump-message-above-size", "only changes what is measured or logged; see `get-stats`"),
    ("enable-benchmarks-batch-sub", "only changes what is measured or logged; see `get-stats`"),
    ("enable-benchmarks-fabric", "only changes what is measured or logged; see `get-stats`"),
    ("enable-benchmarks-ops-sub", "only changes what is measured or logged; see `get-stats`"),
    ("enable-benchmarks-read", "only changes what is measured or logged; see `get-stats`"),
    ("enable-benchmarks-storage", "only changes what is measured or logged; see `get-stats`"),
    ("enable-benchmarks-udf", "only changes what is measured or logged; see `get-stats`"),
    ("enable-benchmarks-udf-sub", "only changes what is measured or logged; see `get-stats`"),
    ("enable-benchmarks-write", "only changes what is measured or logged; see `get-stats`"),
    ("enable-health-check", "only changes what is measured or logged; see `get-stats`"),
    ("enable-hist-info", "only changes what is measured or logged; see `get-stats`"),
    ("enable-hist-proxy", "only changes what is measured or logged; see `get-stats`"),
    ("enable-osync", "see `commit-to-device`"),
    ("enforce-best-practices", "`tuning/check` tells how the machine is set"),
    ("evict-hist-buckets", "there is no eviction"),
    ("fabric", "one process is one cluster here"),
    ("fabric-dump-msgs", "only changes what is measured or logged; see `get-stats`"),
    ("feature-key-file", "there is nothing to unlock"),
    ("flush-files", "see `flush-max-ms`"),
    ("flush-size", "a block is written when it is full, or after `flush-max-ms`"),
    ("force-long-queries", "there are no queries and scans"),
    ("fsync-max-sec", "see `flush-max-ms`"),
    ("geo2dsphere-within", "there are no geo queries"),
    ("heartbeat", "one process is one cluster here"),
    ("hist-track-back", "only changes what is measured or logged; see `get-stats`"),
    ("hist-track-slice", "only changes what is measured or logged; see `get-stats`"),
    ("hist-track-thresholds", "only changes what is measured or logged; see `get-stats`"),
    ("ignore-migrate-fill-delay", "one process is one cluster here"),
    ("indent-allocations", "only changes how memory is handled"),
    ("index-stage-size", "the index grows as needed, 64 bytes a record at most"),
    ("index-type", "the index is in memory and rebuilt from the storage"),
    ("info", "info commands are answered at the service port"),
    ("info-max-ms", "info commands are answered at once"),
    ("info-threads", "each shard is one thread that does all of its work"),
    ("inline-short-queries", "each shard is one thread that does all of its work"),
    ("keep-caps-ssd-health", "only changes what is measured or logged; see `get-stats`"),
    ("ldt-benchmarks", "only changes what is measured or logged; see `get-stats`"),
    ("load-at-startup", "the index is in memory and rebuilt from the storage"),
    ("log-local-time", "log lines carry UTC"),
    ("log-millis", "log lines carry microseconds"),
    ("max-msgs-per-type", "only changes how memory is handled"),
    ("max-query-threads", "there are no queries and scans"),
    ("max-used-service-threads", "each shard ships its own partitions; there is nothing to cap"),
    ("max-write-queue", "see `max-write-cache`, in bytes"),
    ("memory-accounting", "only changes how memory is handled"),
    ("memory-size", "the index grows as needed, 64 bytes a record at most"),
    ("microsecond-histograms", "only changes what is measured or logged; see `get-stats`"),
    ("migrate-fill-delay", "one process is one cluster here"),
    ("migrate-max-num-incoming", "one process is one cluster here"),
    ("migrate-max-num-outgoing", "one process is one cluster here"),
    ("migrate-order", "one process is one cluster here"),
    ("migrate-retransmit-ms", "one process is one cluster here"),
    ("migrate-rx-lifetime-ms", "one process is one cluster here"),
    ("migrate-skip-unreadable", "one process is one cluster here"),
    ("migrate-sleep", "one process is one cluster here"),
    ("migrate-threads", "one process is one cluster here"),
    ("mod-lua", "there are no user-defined functions"),
    ("mrt-duration", "there are no transactions of several records"),
    ("node-id-interface", "one process is one cluster here"),
    ("nsup-delete-sleep", "each shard is one thread that does all of its work"),
    ("nsup-hist-period", "only changes what is measured or logged; see `get-stats`"),
    ("nsup-startup-evict", "there is no eviction"),
    ("nsup-threads", "each shard is one thread that does all of its work"),
    ("obj-size-hist-max", "only changes what is measured or logged; see `get-stats`"),
    ("object-size-hist-period", "only changes what is measured or logged; see `get-stats`"),
    ("partition-balance-threads", "one process is one cluster here"),
    ("partition-tree-locks", "the index grows as needed, 64 bytes a record at most"),
    ("partition-tree-sprigs", "the index grows as needed, 64 bytes a record at most"),
    ("paxos-single-replica-limit", "one process is one cluster here"),
    ("persist", "records are always kept on the storage"),
    ("pidfile", "the process stays in the foreground: its supervisor knows its id"),
    ("poison-allocations", "only changes how memory is handled"),
    ("post-write-queue", "see `post-write-cache`, in bytes per namespace"),
    ("prefer-uniform-balance", "one process is one cluster here"),
    ("prole-extra-ttl", "one process is one cluster here"),
    ("proto-fd-idle-ms", "idle connections cost little and are kept"),
    ("quarantine-allocations", "only changes how memory is handled"),
    ("query-batch-size", "there are no queries and scans"),
    ("query-bufpool-size", "there are no queries and scans"),
    ("query-in-transaction-thread", "there are no queries and scans"),
    ("query-long-q-max-size", "there are no queries and scans"),
    ("query-max-done", "each shard is one thread that does all of its work"),
    ("query-priority", "there are no queries and scans"),
    ("query-rec-count-bound", "there are no queries and scans"),
    ("query-req-in-query-thread", "there are no queries and scans"),
    ("query-short-q-max-size", "there are no queries and scans"),
    ("query-threads", "there are no queries and scans"),
    ("query-threads-limit", "each shard is one thread that does all of its work"),
    ("query-threshold", "there are no queries and scans"),
    ("query-untracked-time-ms", "there are no queries and scans"),
    ("query-worker-threads", "there are no queries and scans"),
    ("rack-id", "one process is one cluster here"),
    ("read-consistency-level-override", "a node holds one copy of each partition"),
    ("read-page-cache", "storage is always read with direct I/O"),
    ("repl-wait-ms", "one process is one cluster here"),
    ("respond-client-on-master-completion", "a node holds one copy of each partition"),
    ("reuse-address", "addresses are reused"),
    ("run-as-daemon", "the process stays in the foreground"),
    ("salt-allocations", "only changes how memory is handled"),
    ("scan-max-active", "there are no queries and scans"),
    ("scan-max-done", "there are no queries and scans"),
    ("scan-max-udf-transactions", "there are no user-defined functions"),
    ("scan-threads", "there are no queries and scans"),
    ("scan-threads-limit", "each shard is one thread that does all of its work"),
    ("scheduler-mode", "`tuning/check` tells how the machine is set"),
    (
        "serialize-tomb-raider",
        "storage finds its own pace; see `defrag-lwm-pct` and `xdr-tomb-raider-period`",
    ),
    ("service-threads", "there is one thread for each shard: see `shards`"),
    ("sindex-builder-threads", "there are no secondary indexes"),
    ("sindex-gc-max-rate", "there are no secondary indexes"),
    ("sindex-gc-period", "there are no secondary indexes"),
    ("sindex-populator-scan-priority", "there are no secondary indexes"),
    ("sindex-stage-size", "there are no secondary indexes"),
    ("sindex-startup-device-scan", "there are no secondary indexes"),
    ("sindex-type", "there are no secondary indexes"),
    ("single-bin", "a record may have any number of bins"),
    ("single-query-threads", "there are no queries and scans"),
    ("single-scan-threads", "there are no queries and scans"),
    ("snub-nodes", "one process is one cluster here"),
    ("stay-quiesced", "one process is one cluster here"),
    ("storage-benchmarks", "only changes what is measured or logged; see `get-stats`"),
    ("sub-threads", "each shard is one thread that does all of its work"),
    ("ticker-interval", "only changes what is measured or logged; see `get-stats`"),
    ("tls-refresh-period", "there is no TLS yet"),
    (
        "tomb-raider-eligible-age",
        "storage finds its own pace; see `defrag-lwm-pct` and `xdr-tomb-raider-period`",
    ),
    (
        "tomb-raider-period",
        "storage finds its own pace; see `defrag-lwm-pct` and `xdr-tomb-raider-period`",
    ),
    (
        "tomb-raider-sleep",
        "storage finds its own pace; see `defrag-lwm-pct` and `xdr-tomb-raider-period`",
    ),
    ("transaction-duplicate-threads", "each shard is one thread that does all of its work"),
    ("transaction-max-ms", "requests are answered or refused at once"),
    ("transaction-pending-limit", "each shard is one thread that does all of its work"),
    ("transaction-queues", "each shard is one thread that does all of its work"),
    ("transaction-repeatable-read", "a node holds one copy of each partition"),
    ("transaction-retry-ms", "each shard is one thread that does all of its work"),
    ("transaction-threads-per-queue", "each shard is one thread that does all of its work"),
    ("truncate-threads", "each shard is one thread that does all of its work"),
    ("udf-runtime-gmax-memory", "there are no user-defined functions"),
    ("udf-runtime-max-memory", "there are no user-defined functions"),
    ("use-queue-per-device", "each shard is one thread that does all of its work"),
    ("write-commit-level-override", "a node holds one copy of each partition"),
    ("write-duplicate-resolution-disable", "a node holds one copy of each partition"),
    ("write-threads", "each shard is one thread that does all of its work"),
    ("xdr-digestlog-path", "there is no digest log: missed changes are found in the storage"),
    ("xdr-tomb-raider-threads", "each shard is one thread that does all of its work"),
];

/// Other names the reference system knows, and this one does not do yet.
const LATER: &[&str] = &[
    "apply-ttl-reductions",
    "auth-password-file",
    "compression-acceleration",
    "default-read-touch-ttl-pct",
];

/// The item of that name in `table` and the value to give it, or what to tell about the name.
/// `contexts` are further names that would have been right in its place.
pub(super) fn find<'v, T>(
    table: &'static [Item<T>],
    contexts: &[&'static str],
    name: &str,
    value: &'v str,
) -> Result<(&'static Item<T>, &'v str), ItemError> {
    let (spelled, value) = match (name, value) {
        ("enable-set", set) => ("ship-set", set),
        ("ship-only-specified-bins", "true" | "yes") => ("bin-policy", "only-specified"),
        ("ship-only-specified-bins", "false" | "no") => ("bin-policy", "all"),
        ("ship-only-specified-bins", other) => ("bin-policy", other),
        as_given => as_given,
    };
    match table.iter().find(|item| item.name == spelled) {
        Some(item) => Ok((item, value)),
        None => {
            let known = table.iter().map(|item| item.name).chain(contexts.iter().copied());
            Err(explain(name, known))
        }
    }
}

/// Why `name` is not among the `known`.
pub(super) fn explain(name: &str, known: impl Iterator<Item = &'static str>) -> ItemError {
    if let Some(&(_, hint)) = OLD.iter().find(|(old, _)| *old == name) {
        return ItemError::Old { hint };
    }
    if let Some(&(_, reason)) = WITHOUT.iter().find(|(other, _)| *other == name) {
        return ItemError::Without { reason };
    }
    if let Some(&(_, reason)) = IGNORED.iter().find(|(other, _)| *other == name) {
        return ItemError::NoMeaning { reason };
    }
    if LATER.contains(&name) {
        return ItemError::NotYet { only: None };
    }
    if let Some(place) = home(name) {
        return ItemError::Elsewhere { place };
    }
    ItemError::Unknown { nearest: nearest(name, known) }
}

/// The one context that has an item of that name.
fn home(name: &str) -> Option<&'static str> {
    fn has<T>(table: &[Item<T>], name: &str) -> bool {
        table.iter().any(|item| item.name == name)
    }
    let homes = [
        ("service", has(table::SERVICE, name)),
        ("network/service", has(table::NETWORK_SERVICE, name)),
        ("namespace N", has(table::NAMESPACE, name)),
        ("namespace N/storage-engine device", has(table::STORAGE, name)),
        ("xdr", has(table::XDR, name)),
        ("xdr/dc D", has(table::DC, name)),
        ("xdr/dc D/namespace N", has(table::DC_NAMESPACE, name)),
    ];
    homes.iter().find(|(_, is_home)| *is_home).map(|(place, _)| *place)
}

/// The known name with the fewest edits to `name`, if they are few enough to be a slip.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > NAME_COMPARED_MAX {
        return None;
    }
    let slips_max = 1 + name.len() / 4;
    known
        .map(|candidate| (edits(name, candidate), candidate))
        .filter(|(edits, _)| *edits <= slips_max)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// Longer words are no slip of any name.
const NAME_COMPARED_MAX: usize = 64;

/// Levenshtein distance in bytes.
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edit_distance_counts_single_changes() {
        for (a, b, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "abc", 0),
            ("kitten", "sitting", 3),
            ("ab", "ba", 2),
        ] {
            assert_eq!(edits(a, b), expected, "{a} {b}");
            assert_eq!(edits(b, a), expected, "{b} {a}");
        }
    }

    #[test]
    fn slips_find_their_name_and_strangers_find_none() {
        let known = ["hot-key-ms", "delay-ms", "forward", "period-ms"];
        for (name, expected) in [
            ("hot-kye-ms", Some("hot-key-ms")),
            ("hotkey-ms", Some("hot-key-ms")),
            ("forwrad", Some("forward")),
            ("banana", None),
            ("", None),
        ] {
            assert_eq!(nearest(name, known.into_iter()), expected, "{name}");
        }
        assert_eq!(nearest(&"x".repeat(100_000), known.into_iter()), None);
    }
}
