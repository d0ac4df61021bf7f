//! What shipping says of names that are not its items.

use super::grammar::names::{Vocabulary, Words, has};
use super::table;

/// What to say of names that look like shipping's.
#[doc(hidden)]
pub static WORDS: Words = Words {
    old: OLD,
    without: WITHOUT,
    ignored: IGNORED,
    later: LATER,
    homes: &[
        ("xdr", |name| has(table::XDR, name)),
        ("xdr/dc D", |name| has(table::DC, name)),
        ("xdr/dc D/namespace N", |name| has(table::DC_NAMESPACE, name)),
    ],
    respell,
};

/// What is said where there is nothing but shipping.
pub(super) const VOCABULARY: Vocabulary = &[&WORDS];

/// Items that are written in two ways.
fn respell<'n, 'v>(name: &'n str, value: &'v str) -> (&'n str, &'v str) {
    match (name, value) {
        ("enable-set", set) => ("ship-set", set),
        ("ship-only-specified-bins", "true" | "yes") => ("bin-policy", "only-specified"),
        ("ship-only-specified-bins", "false" | "no") => ("bin-policy", "all"),
        ("ship-only-specified-bins", other) => ("bin-policy", other),
        as_given => as_given,
    }
}

/// Names of older releases and of things this system does without, with what to write instead.
const OLD: &[(&str, &str)] = &[
    ("datacenter", "write `dc NAME {`"),
    ("dc-int-ext-ipmap", "see `use-alternate-access-address`"),
    ("dc-node-address-port", "write `node-address-port HOST PORT`"),
    ("dc-security-config-file", "there is no login and no TLS towards destinations yet"),
    ("dc-ship-bins", "write `bin-policy` and `ship-bin` in the DC's namespace"),
    ("dc-use-alternate-services", "write `use-alternate-access-address`"),
    ("enable-xdr", "a namespace ships when a DC lists it: `xdr { dc D { namespace N { } } }`"),
    ("forward-xdr-writes", "write `forward` in the DC's namespace"),
    ("hotkey-time-ms", "write `hot-key-ms` in the DC's namespace"),
    ("ignore-bins", "write `ignore-bin NAME`, once for each"),
    ("ignore-sets", "write `ignore-set NAME`, once for each"),
    ("max-ship-throughput", "write `max-throughput` in the DC's namespace"),
    ("node-address-ports", "write `node-address-port HOST PORT`, once for each"),
    ("ns-forward-xdr-writes", "write `forward` in the DC's namespace"),
    ("ns-hotkey-time-ms", "write `hot-key-ms` in the DC's namespace"),
    ("sets-enable-xdr", "write `ship-set` or `ignore-set` in the DC's namespace"),
    ("ship-bins", "write `ship-bin NAME`, once for each"),
    ("ship-sets", "write `ship-set NAME`, once for each"),
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
const WITHOUT: &[(&str, &str)] = &[("xdr-bin-tombstone-ttl", "there is no shipping by bin times")];

/// Names the reference system knows, in any context, without a meaning here; and why it is safe to
/// read them over.
const IGNORED: &[(&str, &str)] =
    &[("xdr-digestlog-path", "there is no digest log: missed changes are found in the storage")];

/// Other names the reference system knows, and this one does not do yet.
const LATER: &[&str] = &["auth-password-file"];
