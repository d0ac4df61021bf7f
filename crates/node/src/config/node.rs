//! What one node is told about itself: service, network, logging and namespaces.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

/// The `service` context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceConfig {
    /// Name clients may insist on; `None` answers `null`.
    pub cluster_name: Option<String>,
    /// Folder of identity, marks and the `ports` file; the start fails without it.
    pub work_directory: PathBuf,
    /// Number of shards; 0 takes one per allowed core.
    pub shards: u16,
    /// CPUs the shards may use; empty allows all the process may use.
    pub cpu_set: CpuSet,
    /// Whether the second hardware thread of a core may carry a shard of its own.
    pub smt: bool,
    /// Cores left to the operating system, interrupts and other threads.
    pub leave_cores: u16,
    /// From where the node may be changed and shipped to, besides its own loopback.
    pub admin_allow: Networks,
    /// Client connections at most, all shards together.
    pub proto_fd_max: u32,
    /// How long a stop may drain before it ends anyway.
    pub stop_deadline_ms: u32,
    /// Node id of shard 0.
    pub node_id: NodeId,
}

impl Default for ServiceConfig {
    fn default() -> Self {
        Self {
            cluster_name: None,
            admin_allow: Networks::default(),
            work_directory: PathBuf::new(),
            shards: 0,
            cpu_set: CpuSet::default(),
            smt: false,
            leave_cores: 0,
            proto_fd_max: 15_000,
            stop_deadline_ms: 10_000,
            node_id: NodeId(None),
        }
    }
}

/// Addresses that begin with the same bits. Written like `10.0.0.0/8`, `fd00::/8`, or `192.0.2.7`
/// for one alone; `any` is every address there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// Its bits behind `prefix` are zero.
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// Every address.
    pub const ANY: Self = Self { address: IpAddr::V4(Ipv4Addr::UNSPECIFIED), prefix: 0 };

    /// Reads the written form; bits behind the prefix do not matter.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "any" => return Some(Self::ANY),
            "localhost" => return Self::parse("127.0.0.0/8"),
            _ => {}
        }
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let address = address.to_canonical();
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let is_number = |text: &&str| text.bytes().all(|byte| byte.is_ascii_digit());
        let prefix = match prefix {
            Some(prefix) => Some(prefix).filter(is_number)?.parse().ok()?,
            None => bits,
        };
        (prefix <= bits).then(|| Self { address: masked(address, prefix), prefix })
    }

    /// Whether an address is in it; one of IPv4 written as IPv6 counts as the former.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        *self == Self::ANY
            || address.is_ipv4() == self.address.is_ipv4()
                && masked(address, self.prefix) == self.address
    }
}

fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            Ipv4Addr::from_bits(address.to_bits() & mask).into()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            Ipv6Addr::from_bits(address.to_bits() & mask).into()
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = if self.address.is_ipv4() { 32 } else { 128 };
        match self.prefix {
            _ if *self == Self::ANY => f.write_str("any"),
            prefix if prefix == bits => write!(f, "{}", self.address),
            prefix => write!(f, "{}/{prefix}", self.address),
        }
    }
}

/// Some networks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(pub Vec<Network>);

impl Networks {
    /// Whether an address is in one of them.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }
}

/// A node id; `None` makes one at the first start and keeps it in the work directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeId(pub Option<u64>);

/// A set of CPU numbers, as the operating system counts them: ascending, no duplicates. Written
/// like `0-3,5`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuSet(pub Vec<usize>);

impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let runs = self.0.chunk_by(|a, b| a + 1 == *b);
        for (index, run) in runs.enumerate() {
            let comma = if index == 0 { "" } else { "," };
            match run {
                [one] => write!(f, "{comma}{one}")?,
                [first, .., last] => write!(f, "{comma}{first}-{last}")?,
                [] => {}
            }
        }
        Ok(())
    }
}

/// The `network` context; so far its `service` part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkConfig {
    /// Address the listeners bind to.
    pub address: IpAddr,
    /// Port of shard 0; shard k listens on port + k. 0 lets the system pick each.
    pub port: u16,
    /// Addresses told to clients instead of the bound one.
    pub access_addresses: Vec<String>,
    /// Addresses told to clients that ask for the alternate ones.
    pub alternate_access_addresses: Vec<String>,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            port: 3000,
            access_addresses: Vec::new(),
            alternate_access_addresses: Vec::new(),
        }
    }
}

/// The `logging` context. No sink given: the console at `info`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoggingConfig {
    /// Where log lines go, in the order given.
    pub sinks: Vec<LogSink>,
}

/// One destination of log lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSink {
    /// A file, or `None` for the console.
    pub file: Option<PathBuf>,
    /// Least level per module (`any` for the rest), in the order given.
    pub contexts: Vec<(String, LogLevel)>,
}

/// Severity, in the reference system's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// The process cannot go on.
    Critical,
    /// Somebody should look.
    Warning,
    /// Normal life.
    Info,
    /// For diagnosis.
    Debug,
    /// Everything.
    Detail,
}

impl LogLevel {
    /// How each is written.
    pub(super) const WORDS: [(&str, Self); 5] = [
        ("critical", Self::Critical),
        ("warning", Self::Warning),
        ("info", Self::Info),
        ("debug", Self::Debug),
        ("detail", Self::Detail),
    ];

    /// The word for a level of other systems.
    pub(super) fn meant(word: &str) -> Option<&'static str> {
        const OTHERS: [(&str, &str); 6] = [
            ("warn", "warning"),
            ("error", "critical"),
            ("err", "critical"),
            ("fatal", "critical"),
            ("notice", "info"),
            ("trace", "detail"),
        ];
        OTHERS.iter().find(|(other, _)| other.eq_ignore_ascii_case(word)).map(|(_, own)| *own)
    }
}

/// One `namespace` context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceConfig {
    /// Its name.
    pub name: String,
    /// Whether writes may carry a time to live while `nsup-period` is 0.
    pub allow_ttl_without_nsup: bool,
    /// Life of records whose writer names none; 0 is for ever.
    pub default_ttl_s: u32,
    /// Largest stored record.
    pub max_record_size: u32,
    /// Pause between two passes of expiry; 0 turns expiry off.
    pub nsup_period_s: u32,
    /// Refuse writes that do not come from a shipper.
    pub reject_non_xdr_writes: bool,
    /// Refuse writes that come from a shipper.
    pub reject_xdr_writes: bool,
    /// Copies of each partition; one process holds one.
    pub replication_factor: u8,
    /// Pause between two looks for tombstones that every DC has seen.
    pub xdr_tomb_raider_period_s: u32,
    /// The `storage-engine device` context.
    pub storage: StorageConfig,
}

impl NamespaceConfig {
    /// A namespace of that name with every item at its default and no storage.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            allow_ttl_without_nsup: false,
            default_ttl_s: 0,
            max_record_size: 1 << 20,
            nsup_period_s: 0,
            reject_non_xdr_writes: false,
            reject_xdr_writes: false,
            replication_factor: 1,
            xdr_tomb_raider_period_s: 120,
            storage: StorageConfig::default(),
        }
    }
}

/// The `storage-engine device` context of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageConfig {
    /// Acknowledge, show and ship a write only once it is on the device.
    pub commit_to_device: bool,
    /// Blocks used less than this are rewritten.
    pub defrag_lwm_pct: u8,
    /// Raw block devices; empty when files are used.
    pub devices: Vec<PathBuf>,
    /// Files, each of [`StorageConfig::filesize`] bytes; empty when devices are used.
    pub files: Vec<PathBuf>,
    /// Size of each file in bytes.
    pub filesize: u64,
    /// Longest time a partly filled block waits for its flush.
    pub flush_max_ms: u32,
    /// Unflushed bytes per device above which writes are refused with 18.
    pub max_write_cache: u64,
    /// Bytes of recently written blocks kept in memory for the namespace.
    pub post_write_cache: u64,
    /// Used share of the storage above which writes are refused with 8; 0 turns the check off.
    pub stop_writes_used_pct: u8,
    /// Bytes of a write block: a power of two.
    pub write_block_size: u32,
}

impl Default for StorageConfig {
    fn default() -> Self {
        Self {
            commit_to_device: false,
            defrag_lwm_pct: 50,
            devices: Vec::new(),
            files: Vec::new(),
            filesize: 0,
            flush_max_ms: 1000,
            max_write_cache: 64 << 20,
            post_write_cache: 256 << 20,
            stop_writes_used_pct: 70,
            write_block_size: 1 << 20,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_the_addresses_that_begin_like_it() {
        let check = |text: &str, shown: &str, inside: &[&str], outside: &[&str]| {
            let network = Network::parse(text).unwrap();
            assert_eq!(network.to_string(), shown);
            let contains = |address: &&str| network.contains(address.parse().unwrap());
            assert!(inside.iter().all(contains), "{text}");
            assert!(!outside.iter().any(contains), "{text}");
        };
        check("10.1.2.3/8", "10.0.0.0/8", &["10.9.9.9", "::ffff:10.0.0.1"], &["11.0.0.0", "::a00"]);
        check("192.0.2.7", "192.0.2.7", &["192.0.2.7"], &["192.0.2.6", "192.0.2.8", "::1"]);
        check("192.0.2.7/32", "192.0.2.7", &["192.0.2.7"], &["192.0.2.6"]);
        check("fd00::1/8", "fd00::/8", &["fdff::1"], &["fe00::", "10.0.0.1"]);
        check("::1", "::1", &["::1"], &["::2"]);
        check("::/0", "::/0", &["fe80::1"], &["10.0.0.1"]);
        check("any", "any", &["10.0.0.1", "fe80::1"], &[]);
        check("0.0.0.0/0", "any", &["10.0.0.1"], &[]);
        check("localhost", "127.0.0.0/8", &["127.3.0.1"], &["10.0.0.1"]);
        for text in ["", "10.0.0.0/33", "fd00::/129", "10.0.0/8", "host", "1.2.3.4/", "1.2.3.4/+8"]
        {
            assert_eq!(Network::parse(text), None, "{text}");
        }
    }

    #[test]
    fn cpu_sets_print_as_ranges() {
        let check = |cpus: &[usize], text| assert_eq!(CpuSet(cpus.to_vec()).to_string(), text);
        check(&[], "");
        check(&[4], "4");
        check(&[0, 1], "0-1");
        check(&[0, 1, 2, 3, 5, 8, 9], "0-3,5,8-9");
    }
}
