//! What a node says about itself over the info protocol: who it is, what it serves, who its peers
//! are. One table of commands, each a pure function.
//!
//! Each shard is a node of its own: own port, own id, the partitions it owns; its siblings are its
//! peers. The list of nodes never changes while the process lives, so generations are constants.
//! Figures about storage and traffic come from [`crate::admin::figures`], everything about shipping
//! from the `info` module. Source: `docs/wire.md` section 8, `docs/destinations.md` section 2.

use longship::info::{Row, find};
use longship::model::{PartitionId, ShardIndex};
use longship::wire::info::Command;
use longship::wire::peers::{Peer, Peers};
use longship::wire::replicas::{self, NamespaceReplicas};
use longship::wire::{ResultCode, info};

use crate::config::Config;
use crate::server::Asker;

/// The protocol level announced: clients switch on partition queries and the like, but neither
/// transactions (8.0) nor what came after.
pub const BUILD: &str = "7.0.0.0";
/// What this node does, in the words clients look for; nothing it would refuse, but for `pscans`:
/// without it the Go and Java clients refuse the whole cluster. The last one is how a shipper knows
/// a Longship node.
const FEATURES: &str = "cluster-stable;peers;pipelining;pscans;replicas;longship-hello";
const EDITION: &str = "Longship Community Edition";
/// Never changes, and is above what clients start from.
const GENERATION: u64 = 1;

/// Who a shard is to the world. The same on every shard but for `shard`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeIdentity {
    /// Node id of shard 0; shard k is this plus k.
    pub node_id: u64,
    /// This shard.
    pub shard: ShardIndex,
    /// Port of each shard, in order.
    pub ports: Vec<u16>,
    /// Name clients may insist on.
    pub cluster_name: Option<String>,
    /// Addresses told to clients instead of the one they came to.
    pub access_addresses: Vec<String>,
    /// Addresses told to clients that ask for the alternate ones.
    pub alternate_access_addresses: Vec<String>,
    /// Names of the namespaces, in order of their ids.
    pub namespaces: Vec<String>,
}

impl NodeIdentity {
    /// Of one shard of a process started with `config`; `ports` are those of all its shards.
    pub fn of(config: &Config, node_id: u64, shard: ShardIndex, ports: Vec<u16>) -> Self {
        Self {
            node_id,
            shard,
            ports,
            cluster_name: config.service.cluster_name.clone(),
            access_addresses: config.network.access_addresses.clone(),
            alternate_access_addresses: config.network.alternate_access_addresses.clone(),
            namespaces: config.namespace_names(),
        }
    }

    /// Number of shards of the process.
    pub fn shard_count(&self) -> u16 {
        self.ports.len() as u16
    }

    /// Node id of one shard, as every client sees it.
    pub fn node(&self, shard: ShardIndex) -> String {
        format!("{:X}", self.node_id + u64::from(shard.0))
    }

    /// The node that stands for the cluster.
    pub fn principal(&self) -> String {
        self.node(ShardIndex(0))
    }

    fn port(&self, shard: ShardIndex) -> u16 {
        self.ports[usize::from(shard.0)]
    }

    fn shards(&self) -> impl Iterator<Item = ShardIndex> {
        (0..self.shard_count()).map(ShardIndex)
    }

    /// Hosts of every shard, the same for all: they differ by port.
    fn hosts(&self, asker: &Asker) -> Vec<String> {
        match self.access_addresses.as_slice() {
            [] => vec![asker.local.to_canonical().to_string()],
            addresses => addresses.to_vec(),
        }
    }

    fn services(&self, hosts: &[String]) -> String {
        let port = self.port(self.shard);
        let service = |host: &String| {
            if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
        };
        hosts.iter().map(service).collect::<Vec<_>>().join(",")
    }

    fn peers(&self, hosts: &[String]) -> String {
        let peer = |shard| Peer {
            node: self.node(shard),
            tls_name: String::new(),
            hosts: hosts.iter().map(|host| (host.clone(), Some(self.port(shard)))).collect(),
        };
        let others = self.shards().filter(|shard| *shard != self.shard);
        let nodes = if hosts.is_empty() { Vec::new() } else { others.map(peer).collect() };
        let default_port = Some(self.port(self.shard));
        Peers { generation: GENERATION, default_port, nodes }.format()
    }

    fn replicas(&self) -> String {
        let owned = PartitionId::of_shard(self.shard, self.shard_count()).collect();
        let replicas = |namespace: &String| NamespaceReplicas {
            namespace: namespace.clone(),
            regime: 0,
            columns: vec![Clone::clone(&owned)],
        };
        replicas::format(&self.namespaces.iter().map(replicas).collect::<Vec<_>>())
    }

    /// Changes when the set of nodes does: a digest of their ids.
    pub fn cluster_key(&self) -> String {
        let mixed =
            self.node_id.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ u64::from(self.shard_count());
        format!("{:X}", mixed >> 16)
    }

    /// Answers a command about identity; `None` for every other.
    pub fn answer(&self, command: &Command<'_>, asker: &Asker) -> Option<String> {
        let row = find(TABLE, command.name)?;
        Some((row.answer)(self, asker))
    }
}

type Answer = fn(&NodeIdentity, &Asker) -> String;

/// Who the shard is.
pub(super) const TABLE: &[Row<Answer>] = &[
    Row::reads("build", "", "the protocol level, as a version", |_, _| BUILD.to_owned()),
    Row::reads("cluster-name", "", "the name clients may insist on", |node, _| {
        node.cluster_name.clone().unwrap_or_else(|| "null".to_owned())
    }),
    Row::reads(
        "cluster-stable",
        "",
        "the key of the cluster, which changes with its nodes",
        |node, _| node.cluster_key(),
    ),
    Row::reads("connection", "", "what kind of connection this is", |_, _| {
        "admin=false".to_owned()
    }),
    Row::reads("edition", "", "what serves here", |_, _| EDITION.to_owned()),
    Row::reads("feature-key", "", "an error: enterprise only", |_, _| enterprise_only()),
    Row::reads("features", "", "what this node does, in the words clients look for", |_, _| {
        FEATURES.to_owned()
    }),
    Row::reads("health-outliers", "", "none", |_, _| String::new()),
    Row::reads("namespaces", "", "names of the namespaces", |node, _| node.namespaces.join(";")),
    Row::reads("node", "", "this shard's node id", |node, _| node.node(node.shard)),
    Row::reads("partition-generation", "", "never changes", |_, _| GENERATION.to_string()),
    Row::reads("partitions", "", "how many partitions there are", |_, _| {
        longship::model::PARTITION_COUNT.to_string()
    }),
    Row::reads(
        "peers-clear-alt",
        "",
        "the other shards, at their alternate addresses",
        |node, _| node.peers(&node.alternate_access_addresses),
    ),
    Row::reads(
        "peers-clear-std",
        "",
        "the other shards, with node id and address",
        |node, asker| node.peers(&node.hosts(asker)),
    ),
    Row::reads("peers-generation", "", "never changes", |_, _| GENERATION.to_string()),
    Row::reads("rack-ids", "", "an error: enterprise only", |_, _| enterprise_only()),
    Row::reads("racks", "", "an error: enterprise only", |_, _| enterprise_only()),
    Row::reads("rebalance-generation", "", "never changes", |_, _| GENERATION.to_string()),
    Row::reads("release", "", "edition, version and system", |_, _| release()),
    Row::reads("replicas", "", "which partitions this shard has", |node, _| node.replicas()),
    Row::reads("roster", "", "an error: enterprise only", |_, _| enterprise_only()),
    Row::reads("service-clear-alt", "", "the alternate addresses of this shard", |node, _| {
        node.services(&node.alternate_access_addresses)
    }),
    Row::reads("service-clear-std", "", "the addresses of this shard", |node, asker| {
        node.services(&node.hosts(asker))
    }),
    Row::reads("sindex-list", "", "none", |_, _| String::new()),
    Row::reads("status", "", "`ok`", |_, _| "ok".to_owned()),
    Row::reads("udf-list", "", "none", |_, _| String::new()),
    Row::reads("version", "", "edition and build", |_, _| format!("{EDITION} build {BUILD}")),
];

fn enterprise_only() -> String {
    info::error(ResultCode::ENTERPRISE_ONLY, "enterprise only")
}

fn release() -> String {
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    let sha = env!("CARGO_PKG_VERSION");
    format!("edition={EDITION};version={BUILD};os={os};arch={arch};sha=longship-{sha}")
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

    use super::*;

    const PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4000);
    const ASKER: Asker = Asker { local: IpAddr::V4(Ipv4Addr::LOCALHOST), peer: PEER };

    fn identity() -> NodeIdentity {
        NodeIdentity {
            node_id: 0xBB90_0000_0001_0000,
            shard: ShardIndex(1),
            ports: vec![3000, 3001, 3002],
            cluster_name: None,
            access_addresses: vec![],
            alternate_access_addresses: vec![],
            namespaces: vec!["test".into(), "bar".into()],
        }
    }

    fn ask(identity: &NodeIdentity, line: &str, asker: &Asker) -> String {
        identity.answer(&Command::parse(line.as_bytes()).unwrap(), asker).unwrap()
    }

    #[test]
    fn a_shard_is_a_node_among_its_siblings() {
        let check = |line, expected| assert_eq!(ask(&identity(), line, &ASKER), expected, "{line}");
        check("node", "BB90000000010001");
        check("build", "7.0.0.0");
        check("cluster-name", "null");
        check("namespaces", "test;bar");
        check("partition-generation", "1");
        check("service-clear-std", "127.0.0.1:3001");
        check("service-clear-alt", "");
        check("racks:", "ERROR:25:enterprise only");
        check("connection", "admin=false");
        check(
            "peers-clear-std",
            "1,3001,[[BB90000000010000,,[127.0.0.1:3000]],[BB90000000010002,,[127.0.0.1:3002]]]",
        );
        check("peers-clear-alt", "1,3001,[]");
        let features = ask(&identity(), "features", &ASKER);
        assert!(features.split(';').any(|feature| feature == "pscans"), "{features}");
        assert!(features.split(';').any(|feature| feature == "longship-hello"), "{features}");
        for refused in ["batch-any", "pquery", "query-show", "udf", "cdt-list", "cdt-map"] {
            assert!(!features.split(';').any(|feature| feature == refused), "{features}");
        }
    }

    #[test]
    fn addresses_are_the_configured_ones_or_the_one_the_client_came_to() {
        let mut identity = identity();
        let mapped = IpAddr::V6(Ipv4Addr::new(10, 0, 0, 7).to_ipv6_mapped());
        let mapped = Asker { local: mapped, peer: PEER };
        assert_eq!(ask(&identity, "service-clear-std", &mapped), "10.0.0.7:3001");
        let v6 = Asker { local: IpAddr::V6(Ipv6Addr::LOCALHOST), peer: PEER };
        assert_eq!(ask(&identity, "service-clear-std", &v6), "[::1]:3001");
        identity.access_addresses = vec!["192.0.2.1".into(), "192.0.2.2".into()];
        identity.alternate_access_addresses = vec!["198.51.100.1".into()];
        assert_eq!(ask(&identity, "service-clear-std", &ASKER), "192.0.2.1:3001,192.0.2.2:3001");
        let peers = Peers::parse(&ask(&identity, "peers-clear-std", &ASKER)).unwrap();
        let first = &peers.nodes[0];
        assert_eq!(first.hosts[1], ("192.0.2.2".to_owned(), Some(3000)));
        assert_eq!(ask(&identity, "service-clear-alt", &ASKER), "198.51.100.1:3001");
        let peers = Peers::parse(&ask(&identity, "peers-clear-alt", &ASKER)).unwrap();
        assert_eq!(peers.nodes.len(), 2);
    }

    #[test]
    fn shards_share_the_partitions_without_a_gap() {
        let mut owners = [0; longship::model::PARTITION_COUNT];
        for shard in 0..3 {
            let identity = NodeIdentity { shard: ShardIndex(shard), ..identity() };
            let answer = ask(&identity, "replicas", &ASKER);
            assert!(!answer.ends_with(';'));
            let namespaces = replicas::parse(&answer).unwrap();
            assert_eq!(namespaces.len(), 2);
            assert_eq!((namespaces[0].regime, namespaces[0].columns.len()), (0, 1));
            namespaces[1].columns[0].iter().for_each(|partition| owners[partition.index()] += 1);
        }
        assert!(owners.iter().all(|count| *count == 1));
    }

    #[test]
    fn the_table_is_sorted_and_knows_its_limits() {
        assert!(TABLE.is_sorted_by(|a, b| a.name < b.name));
        let unknown = Command::parse(b"statistics").unwrap();
        assert_eq!(identity().answer(&unknown, &ASKER), None);
    }
}
