//! The one table of items: it drives the reading of files, changes at run time, `get-config` and
//! the printed reference.
//!
//! Items stand in the order in which `get-config` shows them.

use super::kind::{Kind, NameRule, Step, Unit};
use super::value::{Field, Refused};
use super::{
    DcConfig, DcNamespaceConfig, ItemError, NamespaceConfig, NetworkConfig, ServiceConfig,
    StorageConfig, XdrConfig,
};

/// One item of the context that `T` holds.
pub(super) struct Item<T> {
    /// Spelling in files and in `set-config`.
    pub(super) name: &'static str,
    /// Spelling in `get-config`.
    pub(super) shown: &'static str,
    /// Range or form of the value.
    pub(super) kind: Kind,
    /// Whether it may change at run time.
    pub(super) change: Change,
    /// What it does, in a sentence.
    pub(super) about: &'static str,
    /// Where the value lives.
    pub(super) access: Access<T>,
}

/// When an item may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// At run time as well.
    Live,
    /// By file and restart, for this reason.
    Restart(&'static str),
}

/// How to reach an item's value.
pub(super) enum Access<T> {
    /// It is a field of `T`.
    Field { get: fn(&T) -> &dyn Field, get_mut: fn(&mut T) -> &mut dyn Field },
    /// Known to the reference system, not built: this is the only value it can have.
    NotYet(&'static str),
}

impl<T> Item<T> {
    /// Changed only by file and restart, since all of the process is built on it.
    const fn fixed(name: &'static str, kind: Kind, access: Access<T>, about: &'static str) -> Self {
        let change = Change::Restart("the process is built on it");
        Self { name, shown: name, kind, change, about, access }
    }

    /// Changed at run time as well.
    const fn dynamic(
        name: &'static str,
        kind: Kind,
        access: Access<T>,
        about: &'static str,
    ) -> Self {
        Self { name, shown: name, kind, change: Change::Live, about, access }
    }

    /// Names added and removed one by one, at run time as well, and shown together.
    const fn list(
        name: &'static str,
        shown: &'static str,
        kind: Kind,
        access: Access<T>,
        about: &'static str,
    ) -> Self {
        Self { name, shown, kind, change: Change::Live, about, access }
    }

    /// Known, not built.
    const fn not_yet(name: &'static str, only: &'static str) -> Self {
        let access = Access::NotYet(only);
        Self { name, shown: name, kind: Kind::Plain, change: Change::Live, about: "", access }
    }

    /// Reads a value into `target`; lists take one more entry.
    pub(super) fn put(&self, target: &mut T, text: &str) -> Result<(), ItemError> {
        match self.access {
            Access::NotYet(only) if text == only => Ok(()),
            Access::NotYet(only) => Err(ItemError::NotYet { only: Some(only) }),
            Access::Field { get_mut, .. } => {
                let field = get_mut(target);
                field.put(text, self.kind).map_err(|refused| match refused {
                    Refused::NotYet => ItemError::NotYet { only: None },
                    Refused::Without(reason) => ItemError::Without { reason },
                    Refused::Full(max) => ItemError::Full { max },
                    Refused::NotAllowed => ItemError::Value {
                        given: text.to_owned(),
                        allowed: field.allowed(self.kind),
                        instead: self.kind.respell(text),
                    },
                })
            }
        }
    }

    /// Takes an entry out of a list; false when it is no list or not in there.
    pub(super) fn take(&self, target: &mut T, text: &str) -> bool {
        match self.access {
            Access::NotYet(_) => false,
            Access::Field { get_mut, .. } => get_mut(target).take(text),
        }
    }

    /// The value, as `get-config` shows it.
    pub(super) fn show(&self, target: &T) -> String {
        match self.access {
            Access::NotYet(only) => only.to_owned(),
            Access::Field { get, .. } => get(target).show(),
        }
    }

    /// The field, unless the item is not built yet.
    pub(super) fn field<'t>(&self, target: &'t T) -> Option<&'t dyn Field> {
        match self.access {
            Access::NotYet(_) => None,
            Access::Field { get, .. } => Some(get(target)),
        }
    }
}

/// The same item, changed only by file and restart for a reason of its own.
const fn because<T>(reason: &'static str, mut item: Item<T>) -> Item<T> {
    item.change = Change::Restart(reason);
    item
}

macro_rules! field {
    ($name:ident) => {
        Access::Field { get: |config| &config.$name, get_mut: |config| &mut config.$name }
    };
}

use Kind::{HostPort, Name, Plain};

pub(super) static SERVICE: &[Item<ServiceConfig>] = &[
    Item::fixed(
        "admin-allow",
        Plain,
        field!(admin_allow),
        "Whence the node may be changed and shipped to, besides its own loopback.",
    ),
    Item::fixed(
        "cluster-name",
        Name(NameRule::Cluster),
        field!(cluster_name),
        "Name of the cluster; clients that expect another one refuse to connect.",
    ),
    Item::fixed(
        "cpu-set",
        Plain,
        field!(cpu_set),
        "CPUs the shards may run on, as the operating system numbers them.",
    ),
    Item::fixed(
        "leave-cores",
        Kind::number(0, 1024, Unit::Count),
        field!(leave_cores),
        "Cores left to the operating system, interrupts and other threads.",
    ),
    Item::fixed(
        "node-id",
        Plain,
        field!(node_id),
        "Node id of shard 0, the others count on; made once and kept when not given.",
    ),
    Item::fixed(
        "proto-fd-max",
        Kind::number(16, 2 << 20, Unit::Count),
        field!(proto_fd_max),
        "Client connections at most; one more is accepted and closed at once.",
    ),
    Item::fixed(
        "shards",
        Kind::number(0, 1024, Unit::Count),
        field!(shards),
        "Pinned threads, each the owner of its part of the data; 0 is one per allowed core.",
    ),
    Item::fixed(
        "smt",
        Plain,
        field!(smt),
        "Let the second hardware thread of a core carry a shard of its own.",
    ),
    Item::fixed(
        "stop-deadline-ms",
        Kind::number(0, 600_000, Unit::Ms),
        field!(stop_deadline_ms),
        "Within this a stop ships what it can, flushes and ends, and says what it left; at least a second. Below 10 s, less is written at a time.",
    ),
    Item::fixed(
        "work-directory",
        Plain,
        field!(work_directory),
        "Folder of the node's identity, shipping marks and `ports` file; must be given.",
    ),
];

pub(super) static NETWORK_SERVICE: &[Item<NetworkConfig>] = &[
    Item::fixed(
        "access-address",
        Name(NameRule::Host),
        field!(access_addresses),
        "Address told to clients instead of the bound one.",
    ),
    Item::fixed("address", Plain, field!(address), "Address the listeners bind to."),
    Item::fixed(
        "alternate-access-address",
        Name(NameRule::Host),
        field!(alternate_access_addresses),
        "Address told to clients that ask for alternate ones.",
    ),
    Item::fixed(
        "port",
        Kind::stepped(0, 65_535, Unit::Count, Step::ZeroOrFrom(1024)),
        field!(port),
        "Port of shard 0, shard k listens on port + k; 0 lets the system pick each.",
    ),
];

pub(super) static NAMESPACE: &[Item<NamespaceConfig>] = &[
    Item::dynamic(
        "allow-ttl-without-nsup",
        Plain,
        field!(allow_ttl_without_nsup),
        "Accept writes with a time to live while `nsup-period` is 0.",
    ),
    Item::dynamic(
        "default-ttl",
        Kind::number(0, 315_360_000, Unit::Seconds),
        field!(default_ttl_s),
        "Life of records whose writer names none; 0 is for ever.",
    ),
    Item::dynamic(
        "max-record-size",
        Kind::number(1 << 10, 8 << 20, Unit::Bytes),
        field!(max_record_size),
        "Largest stored record; 1 MiB or the write block, whichever is less, when not given.",
    ),
    Item::dynamic(
        "nsup-period",
        Kind::number(0, 86_400, Unit::Seconds),
        field!(nsup_period_s),
        "Pause between two passes of expiry; 0 turns expiry off.",
    ),
    Item::dynamic(
        "reject-non-xdr-writes",
        Plain,
        field!(reject_non_xdr_writes),
        "Refuse writes that do not come from a shipper, with result 22.",
    ),
    Item::dynamic(
        "reject-xdr-writes",
        Plain,
        field!(reject_xdr_writes),
        "Refuse writes that come from a shipper, with result 22.",
    ),
    because(
        "a node holds one copy of each partition",
        Item::fixed(
            "replication-factor",
            Kind::number(1, 1, Unit::Count),
            field!(replication_factor),
            "Copies of each partition in the cluster; a single node holds one.",
        ),
    ),
    Item::dynamic(
        "xdr-tomb-raider-period",
        Kind::number(1, 86_400, Unit::Seconds),
        field!(xdr_tomb_raider_period_s),
        "Pause between two looks for tombstones that every DC has got.",
    ),
];

pub(super) static STORAGE: &[Item<StorageConfig>] = &[
    because(
        "what is on its way to the device was promised under the old value",
        Item::fixed(
            "commit-to-device",
            Plain,
            field!(commit_to_device),
            "Acknowledge, show and ship a write only once it is on the device.",
        ),
    ),
    Item::dynamic(
        "defrag-lwm-pct",
        Kind::number(1, 99, Unit::Percent),
        field!(defrag_lwm_pct),
        "Blocks used less than this are rewritten to free them.",
    ),
    because(
        "storage is laid out when it is opened",
        Item::fixed(
            "device",
            Plain,
            field!(devices),
            "A raw block device; several are used side by side.",
        ),
    ),
    because(
        "storage is laid out when it is opened",
        Item::fixed(
            "file",
            Plain,
            field!(files),
            "A file in place of a device; several side by side.",
        ),
    ),
    because(
        "storage is laid out when it is opened",
        Item::fixed(
            "filesize",
            Kind::number(16 << 20, 2 << 40, Unit::Bytes),
            field!(filesize),
            "Size of each file; must be given with `file`.",
        ),
    ),
    Item::dynamic(
        "flush-max-ms",
        Kind::number(1, 10_000, Unit::Ms),
        field!(flush_max_ms),
        "Longest time a partly filled block waits for its flush.",
    ),
    Item::dynamic(
        "max-write-cache",
        Kind::number(4 << 20, 1 << 40, Unit::Bytes),
        field!(max_write_cache),
        "Unflushed bytes per device above which writes are refused with result 18.",
    ),
    Item::dynamic(
        "post-write-cache",
        Kind::number(0, 1 << 40, Unit::Bytes),
        field!(post_write_cache),
        "Recently written blocks kept in memory for the namespace, so that shipping reads no disk.",
    ),
    Item::dynamic(
        "stop-writes-used-pct",
        Kind::number(0, 100, Unit::Percent),
        field!(stop_writes_used_pct),
        "Used share of the storage above which writes are refused with result 8; 0 is off.",
    ),
    because(
        "the devices are formatted with it",
        Item::fixed(
            "write-block-size",
            Kind::stepped(128 << 10, 8 << 20, Unit::Bytes, Step::PowerOfTwo),
            field!(write_block_size),
            "Unit of writing, caching and defragmentation; no record spans two.",
        ),
    ),
];

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
        "Replace or update the destination's record; auto replaces when no bin is withheld.",
    ),
];
