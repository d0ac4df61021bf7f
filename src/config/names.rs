//! What to say about a name that is not in the table: an old name, a later one, or a slip of the
//! pen.

use super::error::ItemError;
use super::table::Item;

/// Names of older releases and of things this system does without, with what to write instead.
const OLD: &[(&str, &str)] = &[
    ("allow-nonxdr-writes", "write `reject-non-xdr-writes`, with the opposite value"),
    ("allow-xdr-writes", "write `reject-xdr-writes`, with the opposite value"),
    ("auto-pin", "shards are always pinned; choose CPUs with `cpu-set`, `smt`, `leave-cores`"),
    ("data-in-memory", "recent blocks stay in memory: see `post-write-cache`"),
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
    ("max-used-service-threads", "each shard ships its own partitions; there is nothing to cap"),
    ("max-write-queue", "write `max-write-cache`, in bytes"),
    ("memory-size", "the index grows as needed, 64 bytes a record at most"),
    ("node-address-ports", "write `node-address-port HOST PORT`, once for each"),
    ("ns-forward-xdr-writes", "write `forward` in the DC's namespace"),
    ("ns-hotkey-time-ms", "write `hot-key-ms` in the DC's namespace"),
    ("post-write-queue", "write `post-write-cache`, in bytes per namespace"),
    ("service-threads", "write `shards`"),
    ("ship-bins", "write `ship-bin NAME`, once for each"),
    ("ship-sets", "write `ship-set NAME`, once for each"),
    ("stop-writes-pct", "write `stop-writes-used-pct` in `storage-engine device`"),
    ("xdr-digestlog-path", "there is no digest log: missed changes are found in the storage"),
    ("xdr-hotkey-time-ms", "write `hot-key-ms` in the DC's namespace"),
    ("xdr-max-ship-throughput", "write `max-throughput` in the DC's namespace"),
    ("xdr-period", "write `period-ms` in the DC"),
    ("xdr-remote-datacenter", "write `namespace NAME { }` inside the DC"),
    ("xdr-ship-bins", "write `bin-policy` and `ship-bin` in the DC's namespace"),
    ("xdr-shipping-enabled", "0 as a DC's `max-throughput` pauses it"),
];

/// Names the reference system knows, in any context, and this one does not do yet.
const LATER: &[&str] = &[
    "access-port",
    "active-rack",
    "admin",
    "alternate-access-port",
    "auth-password-file",
    "background-query-max-rps",
    "batch-index-threads",
    "batch-max-buffers-per-queue",
    "batch-max-requests",
    "cache-replica-writes",
    "cold-start-empty",
    "compression",
    "compression-acceleration",
    "conflict-resolution-policy",
    "conflict-resolve-writes",
    "default-read-touch-ttl-pct",
    "default-set-ttl",
    "defrag-queue-min",
    "defrag-sleep",
    "defrag-startup-minimum",
    "disable-expunge",
    "disable-odsync",
    "disallow-expunge",
    "disallow-null-setname",
    "enable-benchmarks-read",
    "enable-benchmarks-write",
    "enable-health-check",
    "enable-hist-proxy",
    "encryption",
    "encryption-key-file",
    "evict-tenths-pct",
    "evict-used-pct",
    "fabric",
    "feature-key-file",
    "geo2dsphere-within",
    "group",
    "heartbeat",
    "index-stage-size",
    "index-type",
    "info",
    "info-threads",
    "inline-short-queries",
    "log-local-time",
    "microsecond-histograms",
    "migrate-threads",
    "min-cluster-size",
    "mod-lua",
    "nsup-hist-period",
    "nsup-threads",
    "partition-tree-sprigs",
    "pidfile",
    "prefer-uniform-balance",
    "proto-fd-idle-ms",
    "query-threads-limit",
    "rack-id",
    "read-page-cache",
    "security",
    "serialize-tomb-raider",
    "set",
    "sindex",
    "sindex-type",
    "storage-engine memory",
    "storage-engine pmem",
    "strong-consistency",
    "strong-consistency-allow-expunge",
    "syslog",
    "ticker-interval",
    "tls",
    "tls-access-address",
    "tls-address",
    "tls-authenticate-client",
    "tls-port",
    "tomb-raider-eligible-age",
    "tomb-raider-period",
    "tomb-raider-sleep",
    "transaction-max-ms",
    "transaction-pending-limit",
    "transaction-retry-ms",
    "truncate-threads",
    "user",
    "vault",
    "xdr-bin-tombstone-ttl",
    "xdr-tomb-raider-threads",
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
    if LATER.contains(&name) {
        return ItemError::NotYet { only: None };
    }
    ItemError::Unknown { nearest: nearest(name, known) }
}

/// The known name with the fewest edits to `name`, if they are few enough to be a slip.
fn nearest(name: &str, known: impl Iterator<Item = &'static str>) -> Option<&'static str> {
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
