//! What to say about a name that is not in the table: an old name, a later one, or a slip of the
//! pen.

use super::error::ItemError;
use super::table::{self, Item};

/// Names of older releases and of things this system does without, with what to write instead.
const OLD: &[(&str, &str)] = &[
    ("allow-nonxdr-writes", "write `reject-non-xdr-writes`, with the opposite value"),
    ("allow-xdr-writes", "write `reject-xdr-writes`, with the opposite value"),
    ("datacenter", "write `dc NAME {`"),
    ("dc-node-address-port", "write `node-address-port HOST PORT`"),
    ("dc-ship-bins", "write `bin-policy` and `ship-bin` in the DC's namespace"),
    ("dc-use-alternate-services", "write `use-alternate-access-address`"),
    ("enable-xdr", "a namespace ships when a DC lists it: `xdr { dc D { namespace N { } } }`"),
    ("forward-xdr-writes", "write `forward` in the DC's namespace"),
    ("high-water-disk-pct", "there is no eviction; see `stop-writes-used-pct`"),
    ("high-water-memory-pct", "there is no eviction; see `stop-writes-used-pct`"),
    ("hotkey-time-ms", "write `hot-key-ms` in the DC's namespace"),
    ("ignore-bins", "write `ignore-bin NAME`, once for each"),
    ("ignore-sets", "write `ignore-set NAME`, once for each"),
    ("max-ship-throughput", "write `max-throughput` in the DC's namespace"),
    ("node-address-ports", "write `node-address-port HOST PORT`, once for each"),
    ("ns-forward-xdr-writes", "write `forward` in the DC's namespace"),
    ("ns-hotkey-time-ms", "write `hot-key-ms` in the DC's namespace"),
    ("ship-bins", "write `ship-bin NAME`, once for each"),
    ("ship-sets", "write `ship-set NAME`, once for each"),
    ("stop-writes-pct", "write `stop-writes-used-pct` in `storage-engine device`"),
    ("xdr-hotkey-time-ms", "write `hot-key-ms` in the DC's namespace"),
    ("xdr-max-ship-throughput", "write `max-throughput` in the DC's namespace"),
    ("xdr-period", "write `period-ms` in the DC"),
    ("xdr-remote-datacenter", "write `namespace NAME { }` inside the DC"),
    ("xdr-ship-bins", "write `bin-policy` and `ship-bin` in the DC's namespace"),
    ("xdr-shipping-enabled", "0 as a DC's `max-throughput` pauses it"),
];

/// Names the reference system knows, and why they cannot just be ignored.
const WITHOUT: &[(&str, &str)] = &[
    ("access-port", "clients are told the port listened on: map it one to one"),
    ("alternate-access-port", "clients are told the port listened on: map it one to one"),
    ("cold-start-empty", "to begin with empty storage, remove its files with the node stopped"),
    ("compression", "records are stored as they come and would take more space"),
    ("default-set-ttl", "there are no settings of single sets"),
    ("disable-expunge", "deletes that are not durable are accepted"),
    ("disallow-expunge", "deletes that are not durable are accepted"),
    ("disallow-null-setname", "records without a set are accepted"),
    ("encryption", "records would be stored in clear"),
    ("encryption-key-file", "records would be stored in clear"),
    ("evict-sys-memory-pct", "there is no eviction; see `stop-writes-used-pct`"),
    ("evict-tenths-pct", "there is no eviction; see `stop-writes-used-pct`"),
    ("evict-used-pct", "there is no eviction; see `stop-writes-used-pct`"),
    ("group", "start the process as that group"),
    ("min-cluster-size", "one process is one cluster here: a node cannot wait for others"),
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
    ("tls-port", "there is no TLS yet: clients that ask for it cannot connect"),
    ("user", "start the process as that user"),
    ("vault", "secrets are read from files only"),
    ("xdr-bin-tombstone-ttl", "there is no shipping by bin times"),
];

/// Names the reference system knows, in any context, without a meaning here; and why it is safe to
/// read them over.
const IGNORED: &[(&str, &str)] = &[
    ("active-rack", "one process is one cluster here"),
    ("admin", "info commands are answered at the service port"),
    ("auto-pin", "shards are always pinned; choose CPUs with `cpu-set`, `smt`, `leave-cores`"),
    ("background-query-max-rps", "each shard is one thread that does all of its work"),
    ("batch-index-threads", "each shard is one thread that does all of its work"),
    ("batch-max-buffers-per-queue", "each shard is one thread that does all of its work"),
    ("batch-max-requests", "each shard is one thread that does all of its work"),
    ("batch-max-unused-buffers", "each shard is one thread that does all of its work"),
    ("cache-replica-writes", "a node holds one copy of each partition"),
    ("conflict-resolution-policy", "one process is one cluster here"),
    ("conflict-resolve-writes", "one process is one cluster here"),
    ("data-in-memory", "recent blocks stay in memory: see `post-write-cache`"),
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
    ("disable-odsync", "see `commit-to-device`"),
    ("enable-benchmarks-batch-sub", "only changes what is measured or logged; see `get-stats`"),
    ("enable-benchmarks-fabric", "only changes what is measured or logged; see `get-stats`"),
    ("enable-benchmarks-ops-sub", "only changes what is measured or logged; see `get-stats`"),
    ("enable-benchmarks-read", "only changes what is measured or logged; see `get-stats`"),
    ("enable-benchmarks-storage", "only changes what is measured or logged; see `get-stats`"),
    ("enable-benchmarks-udf", "only changes what is measured or logged; see `get-stats`"),
    ("enable-benchmarks-write", "only changes what is measured or logged; see `get-stats`"),
    ("enable-health-check", "only changes what is measured or logged; see `get-stats`"),
    ("enable-hist-info", "only changes what is measured or logged; see `get-stats`"),
    ("enable-hist-proxy", "only changes what is measured or logged; see `get-stats`"),
    ("fabric", "one process is one cluster here"),
    ("feature-key-file", "there is nothing to unlock"),
    ("geo2dsphere-within", "there are no geo queries"),
    ("heartbeat", "one process is one cluster here"),
    ("index-stage-size", "the index grows as needed, 64 bytes a record at most"),
    ("index-type", "the index is in memory and rebuilt from the storage"),
    ("info", "info commands are answered at the service port"),
    ("info-threads", "each shard is one thread that does all of its work"),
    ("inline-short-queries", "each shard is one thread that does all of its work"),
    ("log-local-time", "log lines carry UTC"),
    ("log-millis", "log lines carry microseconds"),
    ("max-used-service-threads", "each shard ships its own partitions; there is nothing to cap"),
    ("max-write-queue", "see `max-write-cache`, in bytes"),
    ("memory-size", "the index grows as needed, 64 bytes a record at most"),
    ("microsecond-histograms", "only changes what is measured or logged; see `get-stats`"),
    ("migrate-fill-delay", "one process is one cluster here"),
    ("migrate-max-num-incoming", "one process is one cluster here"),
    ("migrate-order", "one process is one cluster here"),
    ("migrate-sleep", "one process is one cluster here"),
    ("migrate-threads", "one process is one cluster here"),
    ("mod-lua", "there are no user-defined functions"),
    ("node-id-interface", "one process is one cluster here"),
    ("nsup-hist-period", "only changes what is measured or logged; see `get-stats`"),
    ("nsup-threads", "each shard is one thread that does all of its work"),
    ("partition-tree-sprigs", "the index grows as needed, 64 bytes a record at most"),
    ("paxos-single-replica-limit", "one process is one cluster here"),
    ("pidfile", "the process stays in the foreground: its supervisor knows its id"),
    ("post-write-queue", "see `post-write-cache`, in bytes per namespace"),
    ("prefer-uniform-balance", "one process is one cluster here"),
    ("proto-fd-idle-ms", "idle connections cost little and are kept"),
    ("query-max-done", "each shard is one thread that does all of its work"),
    ("query-threads-limit", "each shard is one thread that does all of its work"),
    ("rack-id", "one process is one cluster here"),
    ("read-page-cache", "storage is always read with direct I/O"),
    ("run-as-daemon", "the process stays in the foreground"),
    ("salt-allocations", "only changes how memory is handled"),
    ("scan-threads-limit", "each shard is one thread that does all of its work"),
    (
        "serialize-tomb-raider",
        "storage finds its own pace; see `defrag-lwm-pct` and `xdr-tomb-raider-period`",
    ),
    ("service-threads", "there is one thread for each shard: see `shards`"),
    ("sindex-stage-size", "there are no secondary indexes"),
    ("sindex-type", "there are no secondary indexes"),
    ("stay-quiesced", "one process is one cluster here"),
    ("ticker-interval", "only changes what is measured or logged; see `get-stats`"),
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
    ("transaction-max-ms", "requests are answered or refused at once"),
    ("transaction-pending-limit", "each shard is one thread that does all of its work"),
    ("transaction-queues", "each shard is one thread that does all of its work"),
    ("transaction-retry-ms", "each shard is one thread that does all of its work"),
    ("transaction-threads-per-queue", "each shard is one thread that does all of its work"),
    ("truncate-threads", "each shard is one thread that does all of its work"),
    ("xdr-digestlog-path", "there is no digest log: missed changes are found in the storage"),
    ("xdr-tomb-raider-threads", "each shard is one thread that does all of its work"),
];

/// Other names the reference system knows, and this one does not do yet.
const LATER: &[&str] =
    &["auth-password-file", "compression-acceleration", "default-read-touch-ttl-pct"];

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
pub(crate) fn nearest(
    name: &str,
    known: impl Iterator<Item = &'static str>,
) -> Option<&'static str> {
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
