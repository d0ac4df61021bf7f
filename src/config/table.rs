//! The table of shipping's items, in the order in which `get-config` shows them.

use super::grammar::item::{Access, Item};
use super::grammar::kind::{Kind, NameRule, Step, Unit};
use super::grammar::value::{Field, Refused, choice_fields};
use super::{BinPolicy, DcConfig, DcNamespaceConfig, WritePolicy, XdrConfig};

choice_fields! {
    BinPolicy { "all" = All, "only-specified" = OnlySpecified }
        later ["only-changed", "changed-and-specified", "changed-or-specified", "no-bins"]
    WritePolicy { "auto" = Auto, "update" = Update, "replace" = Replace } later []
}

macro_rules! field {
    ($name:ident) => {
        Access::Field { get: |config| &config.$name, get_mut: |config| &mut config.$name }
    };
}

use Kind::{HostPort, Name, Plain};

pub(super) static XDR: &[Item<XdrConfig>] = &[
    Item::dynamic(
        "src-id",
        Kind::number(0, 255, Unit::Count),
        field!(src_id),
        "Identity of this cluster, the same on its nodes and on no other cluster; 0 is unset.",
    ),
    Item::not_yet("trace-sample", "0"),
];

pub(super) static DC: &[Item<DcConfig>] = &[
    Item::not_yet("auth-mode", "none"),
    Item::not_yet("auth-password-file", "null"),
    Item::not_yet("auth-user", "null"),
    Item::not_yet("connector", "false"),
    Item::dynamic(
        "doorbell",
        Plain,
        field!(doorbell),
        "Ship at the write that finds the DC idle; false waits for the next lap.",
    ),
    Item::dynamic(
        "max-recoveries-interleaved",
        Kind::number(0, u32::MAX as u64, Unit::Count),
        field!(max_recoveries_interleaved),
        "Partitions of each namespace recovered at the same time; 0 is no limit.",
    ),
    Item::dynamic(
        "node-address-port",
        HostPort,
        field!(seeds),
        "A node of the destination to start from; the others are discovered.",
    ),
    Item::dynamic(
        "period-ms",
        Kind::number(5, 1000, Unit::Ms),
        field!(period_ms),
        "Lap period: the sweep for what waits on time (delay, hot keys, retries).",
    ),
    Item::dynamic(
        "recovery-threads",
        Kind::number(1, 32, Unit::Count),
        field!(recovery_threads),
        "Width of the recovery walk.",
    ),
    Item::not_yet("tls-name", "null"),
    Item::not_yet("use-alternate-access-address", "false"),
];

pub(super) static DC_NAMESPACE: &[Item<DcNamespaceConfig>] = &[
    Item::dynamic(
        "bin-policy",
        Plain,
        field!(bin_policy),
        "Which bins of a changed record ship; only-specified ships a listed bin's removal too.",
    ),
    Item::not_yet("compression-level", "1"),
    Item::not_yet("compression-threshold", "128"),
    Item::dynamic(
        "delay-ms",
        Kind::number(0, 5000, Unit::Ms),
        field!(delay_ms),
        "Age a change must reach before it ships; not above `hot-key-ms`.",
    ),
    Item::not_yet("enable-compression", "false"),
    Item::dynamic(
        "forward",
        Plain,
        field!(forward),
        "Ship changes that were themselves shipped here.",
    ),
    Item::dynamic(
        "hot-key-ms",
        Kind::number(0, 5000, Unit::Ms),
        field!(hot_key_ms),
        "A key changed again within this time ships once for both changes; 0 is off.",
    ),
    Item::list(
        "ignore-bin",
        "ignored-bins",
        Name(NameRule::Bin),
        field!(ignored_bins),
        "A bin that never ships.",
    ),
    Item::dynamic(
        "ignore-expunges",
        Plain,
        field!(ignore_expunges),
        "Do not ship client deletes that are not durable.",
    ),
    Item::list(
        "ignore-set",
        "ignored-sets",
        Name(NameRule::Set),
        field!(ignored_sets),
        "A set that never ships.",
    ),
    Item::dynamic(
        "max-throughput",
        Kind::stepped(0, 100_000_000, Unit::Count, Step::MultipleOf(100)),
        field!(max_throughput),
        "Records per second, all shards together; 0 pauses shipping.",
    ),
    Item::dynamic(
        "remote-namespace",
        Name(NameRule::Namespace),
        field!(remote_namespace),
        "The namespace at the destination, when its name differs.",
    ),
    Item::dynamic(
        "sc-replication-wait-ms",
        Kind::number(5, 1000, Unit::Ms),
        field!(sc_replication_wait_ms),
        "For strong consistency; accepted, without effect until there is such a mode.",
    ),
    Item::list(
        "ship-bin",
        "shipped-bins",
        Name(NameRule::Bin),
        field!(shipped_bins),
        "A bin that ships under `bin-policy only-specified`.",
    ),
    Item::not_yet("ship-bin-luts", "false"),
    Item::dynamic(
        "ship-nsup-deletes",
        Plain,
        field!(ship_nsup_deletes),
        "Ship expiries and evictions as deletes.",
    ),
    Item::dynamic(
        "ship-only-specified-sets",
        Plain,
        field!(ship_only_specified_sets),
        "Ship only the sets named by `ship-set`; records without a set then stay.",
    ),
    Item::list(
        "ship-set",
        "shipped-sets",
        Name(NameRule::Set),
        field!(shipped_sets),
        "A set that ships under `ship-only-specified-sets true`.",
    ),
    Item::not_yet("ship-versions-interval", "60"),
    Item::not_yet("ship-versions-policy", "latest"),
    Item::dynamic(
        "transaction-queue-limit",
        Kind::stepped(1024, 1 << 20, Unit::Count, Step::PowerOfTwo),
        field!(transaction_queue_limit),
        "Queued changes per partition; one more drops the queue and starts a recovery.",
    ),
    Item::dynamic(
        "write-policy",
        Plain,
        field!(write_policy),
        "Replace or update the destination's record; auto replaces when no bin is withheld. \
         An update keeps bins that are gone here, even by a delete that had not shipped.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_of_later_releases_are_known_but_refused() {
        let mut policy = BinPolicy::All;
        assert_eq!(policy.put("only-changed", Kind::Plain), Err(Refused::NotYet));
        assert_eq!(policy.put("some", Kind::Plain), Err(Refused::NotAllowed));
        assert_eq!(policy.put("only-specified", Kind::Plain), Ok(()));
        assert_eq!(policy, BinPolicy::OnlySpecified);
    }
}
