//! The table of the node's own items, in the order in which `get-config` shows them.

use longship::config::grammar::item::{Access, Item, because};
use longship::config::grammar::kind::{Kind, NameRule, Step, Unit};

use super::{NamespaceConfig, NetworkConfig, ServiceConfig, StorageConfig};

macro_rules! field {
    ($name:ident) => {
        Access::Field { get: |config| &config.$name, get_mut: |config| &mut config.$name }
    };
}

use Kind::{Name, Plain};

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
            Kind::Single("one device: shadow devices are not supported"),
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
