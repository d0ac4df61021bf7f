//! What a seed decides of a world of nodes before it begins.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use crate::rng::Rng;

/// Port of shard 0 of every node.
const PORT: u16 = 3000;
/// Every second key is in the second.
pub(super) const NAMESPACES: [&str; 2] = ["test", "more"];

/// One DC of a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) forward: bool,
}

/// Everything a seed decides.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) sites: usize,
    /// None where a node is alone.
    pub(super) links: Vec<Link>,
    /// Sites whose clients write.
    pub(super) writers: Vec<usize>,
    /// Shards of each.
    pub(super) shards: Vec<u16>,
    /// Whether each acknowledges what is on its device only.
    commits: Vec<[bool; 2]>,
    /// Faults there are at all, of those there could be.
    faults: u64,
    pub(super) virtual_s: u64,
    /// Clients of each site that writes, each with keys of its own.
    pub(super) clients: u32,
    /// Keys of each of them.
    pub(super) keys: u32,
    /// Between two requests of a client, in microseconds, at most.
    pub(super) pause_us: u64,
    /// Bytes of a value, at most.
    pub(super) value_bytes: u64,
    hot_key_ms: u64,
    delay_ms: u64,
    max_throughput: u64,
    raider_s: u64,
    /// DCs name their hosts.
    names_hosts: bool,
    pub(super) file_mb: u64,
    cache_mb: u64,
    /// Files of each namespace, side by side.
    files: u64,
    /// Some records expire.
    pub(super) expires: bool,
    nsup_s: u64,
    defrag_pct: u64,
}

/// What breaks, or is done by operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodesFault {
    /// Connections between two hosts end; what was sent is gone.
    Cut,
    /// The same, and what was sent arrives all the same.
    LateCut,
    /// A host neither sends nor gets anything for a while.
    Stall,
    /// A process dies and starts again.
    Kill,
    /// A process stops in good order and starts again.
    Restart,
    /// A DC is paused for a while.
    Pause,
    /// A DC is rewound.
    Rewind,
    /// A DC's settings change.
    Retune,
    /// A DC is deleted, and made again.
    Recreate,
    /// The same with another number of shards.
    Reshard,
    /// A node takes nothing that is shipped, for a while.
    Refuse,
    /// A node takes small records only, for a while: what is shipped to it has dead letters.
    TooBig,
    /// The power of a host fails: what no flush has covered is there, gone, or torn.
    Power,
    /// A device answers nothing for a while.
    Hang,
    /// Some of a device cannot be read for a while.
    Unreadable,
    /// A device takes no write any more; the process is started again.
    Unwritable,
    /// The wall clock of a host is set.
    Clock,
    /// What starts or stops dies, or is stopped, before it has come to an end.
    Midway,
    /// A node takes no new data, as if its device were full, for a while.
    Full,
    /// A destination is put back to a copy that was made when it stopped.
    Restore,
    /// A process dies, and its work directory is lost.
    LoseWork,
}

impl NodesFault {
    /// All of them.
    pub const ALL: [Self; 21] = [
        Self::Cut,
        Self::LateCut,
        Self::Stall,
        Self::Kill,
        Self::Restart,
        Self::Pause,
        Self::Rewind,
        Self::Retune,
        Self::Recreate,
        Self::Reshard,
        Self::Refuse,
        Self::TooBig,
        Self::Power,
        Self::Hang,
        Self::Unreadable,
        Self::Unwritable,
        Self::Clock,
        Self::Midway,
        Self::Full,
        Self::Restore,
        Self::LoseWork,
    ];

    /// It happens between nodes.
    const fn is_of_links(self) -> bool {
        use NodesFault::{Cut, LateCut, Pause, Recreate, Refuse, Restore, Retune, Rewind, TooBig};
        matches!(
            self,
            Cut | LateCut | Pause | Rewind | Retune | Recreate | Refuse | TooBig | Restore
        )
    }
}

/// Whether a fault is among some.
const fn has(faults: u64, fault: NodesFault) -> bool {
    faults >> fault as u8 & 1 == 1
}

impl Plan {
    pub(super) fn of(seed: u64) -> Self {
        let rng = &mut Rng::at(seed, 0x6E6F_6465);
        let link = |from, to, forward| Link { from, to, forward };
        let (sites, links) = match rng.below(4) {
            0 => (2, vec![link(0, 1, false)]),
            1 => (2, vec![link(0, 1, false), link(1, 0, false)]),
            2 => (3, vec![link(0, 1, false), link(1, 2, true)]),
            _ => (3, vec![link(0, 2, false), link(1, 2, false)]),
        };
        let mut writers: Vec<usize> =
            links.iter().filter(|link| !link.forward).map(|link| link.from).collect();
        writers.dedup();
        let ships: Vec<bool> =
            (0..sites).map(|site| links.iter().any(|link| link.from == site)).collect();
        // Devices that are nearly full.
        let is_heavy = rng.percent(5);
        Self {
            seed,
            clients: 1,
            keys: if is_heavy { 200 } else { 24 },
            writers,
            shards: (0..sites).map(|_| rng.pick(&[1, 1, 2, 3])).collect(),
            // What is shipped must not be taken back by a crash.
            commits: ships
                .iter()
                .map(|ships| [(); 2].map(|()| *ships || rng.percent(30)))
                .collect(),
            faults: rng.draw() | rng.draw(),
            virtual_s: rng.pick(&[5, 15, 40]) + rng.below(20),
            pause_us: if is_heavy { 20_000 } else { rng.pick(&[2_000, 50_000, 400_000]) },
            value_bytes: if is_heavy { 90_000 } else { rng.pick(&[10, 400, 20_000]) },
            hot_key_ms: rng.pick(&[0, 100, 500]),
            delay_ms: rng.pick(&[0, 0, 0, 100]),
            max_throughput: rng.pick(&[100_000, 100_000, 400]),
            raider_s: rng.pick(&[1, 5, 86_400]),
            names_hosts: rng.percent(30),
            file_mb: rng.pick(&[16, 16, 64]),
            cache_mb: rng.pick(&[0, 2, 8]),
            files: rng.pick(&[1, 1, 2, 3]),
            expires: rng.percent(40),
            nsup_s: rng.pick(&[1, 3]),
            defrag_pct: rng.pick(&[50, 50, 90]),
            sites,
            links,
        }
    }

    /// One node that ships nothing: small devices that are written over and over, and often nearly
    /// full, under several clients, and lives that are short.
    pub(super) fn alone(seed: u64) -> Self {
        let rng = &mut Rng::at(seed, 0x616C_6F6E_6500);
        let clients = rng.pick(&[1, 2, 4]);
        let faults = rng.draw() | rng.draw();
        // With other shards, what a shard holds is no more what it has taken: it wants room to share out.
        let (sizes_mb, sizes_bytes, alive_pcts) = match has(faults, NodesFault::Reshard) {
            true => ([4, 4, 8], [400, 4_000, 20_000], [20, 40, 60]),
            false => ([2, 2, 4], [400, 20_000, 90_000], [60, 90, 120]),
        };
        let (files, file_mb) = (rng.pick(&[1, 1, 2, 3]), rng.pick(&sizes_mb));
        let value_bytes = rng.pick(&sizes_bytes);
        // Of the devices, in per cent, that would be alive if all keys were there.
        let alive_pct = rng.pick(&alive_pcts);
        let keys_bytes = NAMESPACES.len() as u64 * files * (file_mb << 20) * alive_pct / 100;
        let keys = (keys_bytes / (value_bytes / 2) / u64::from(clients)).clamp(4, 100);
        Self {
            sites: 1,
            links: Vec::new(),
            writers: vec![0],
            clients,
            keys: keys as u32,
            shards: vec![rng.pick(&[1, 1, 2, 3])],
            commits: vec![[true, rng.percent(50)]],
            faults,
            virtual_s: 1 + rng.below(4),
            pause_us: rng.pick(&[1_000, 5_000, 20_000]),
            value_bytes,
            raider_s: rng.pick(&[1, 1, 86_400]),
            file_mb,
            files,
            ..Self::of(seed)
        }
    }

    /// Whether its one node ships nothing.
    pub(super) fn is_alone(&self) -> bool {
        self.links.is_empty()
    }

    pub(super) fn has(&self, fault: NodesFault) -> bool {
        // When a record expires is not known where clocks are set.
        has(self.faults, fault)
            && !(self.expires && fault == NodesFault::Clock)
            && !(self.is_alone() && fault.is_of_links())
    }

    /// Keys of all clients of a site.
    pub(super) const fn keys_of_site(&self) -> u32 {
        self.clients * self.keys
    }

    /// Where a key is.
    pub(super) const fn namespace(key: u32) -> &'static str {
        NAMESPACES[key as usize % 2]
    }

    /// Whether a site shows of a key only what is on its device.
    pub(super) fn commits(&self, site: usize, key: u32) -> bool {
        self.commits[site][key as usize % 2]
    }

    /// Nothing is written there but by shipping, and nothing is shipped from there.
    pub(super) fn only_receives(&self, site: usize) -> bool {
        self.links.iter().all(|link| link.from != site)
    }

    /// Its files of data.
    pub(super) fn data_files(&self, site: usize) -> impl Iterator<Item = String> {
        let names = move |at| NAMESPACES.iter().map(move |name| format!("{name}{site}-{at}.dat"));
        (0..self.files).flat_map(names)
    }

    /// The DC of a link.
    pub(super) fn dc(link: &Link) -> String {
        format!("dc{}", link.to)
    }

    pub(super) const fn host(site: usize) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(10, 0, site as u8, 1))
    }

    pub(super) const fn address(site: usize, shard: u16) -> SocketAddr {
        SocketAddr::new(Self::host(site), PORT + shard)
    }

    /// A site as DCs name it.
    pub(super) fn host_name(&self, site: usize) -> String {
        let host = Self::host(site);
        if self.names_hosts { format!("host-{host}") } else { host.to_string() }
    }

    /// Whose records a site holds when all is at rest.
    pub(super) fn reaches(&self, writer: usize) -> Vec<usize> {
        let mut reached = vec![writer];
        let mut at = 0;
        while let Some(&site) = reached.get(at) {
            at += 1;
            let on = |link: &&Link| link.from == site && (link.forward || site == writer);
            let next: Vec<usize> = self.links.iter().filter(on).map(|link| link.to).collect();
            reached.extend(next.into_iter().filter(|to| *to != writer));
        }
        reached
    }

    /// What makes a DC what its file says.
    pub(super) fn dc_items(&self, link: &Link) -> Vec<(String, String)> {
        let item = |name: &str, value: &dyn ToString| (name.to_owned(), value.to_string());
        let delay_ms = self.delay_ms.min(self.hot_key_ms);
        vec![
            item("forward", &link.forward),
            item("hot-key-ms", &self.hot_key_ms),
            item("delay-ms", &delay_ms),
            item("max-throughput", &self.max_throughput),
            item("ship-nsup-deletes", &self.expires),
        ]
    }

    /// The configuration file of a site.
    pub(super) fn text(&self, site: usize, folder: &Path) -> String {
        let folder = folder.display();
        let (host, port) = (Self::host(site), PORT);
        let mut text = format!(
            "service {{\n work-directory {folder}/work{site}\n admin-allow 0.0.0.0/0\n\
             proto-fd-max 200\n}}\n\
             network {{ service {{\n address {host}\n port {port}\n}} }}\n"
        );
        for (name, commit) in NAMESPACES.into_iter().zip(self.commits[site]) {
            let Self { raider_s, cache_mb, files, nsup_s, defrag_pct, .. } = *self;
            let file = |at| format!("file {folder}/{name}{site}-{at}.dat\n");
            let files: String = (0..files).map(file).collect();
            text += &format!(
                "namespace {name} {{\n xdr-tomb-raider-period {raider_s}\n nsup-period {nsup_s}\n\
                 storage-engine device {{\n{files}filesize 16M\n\
                 commit-to-device {commit}\n defrag-lwm-pct {defrag_pct}\n\
                 write-block-size 128K\n post-write-cache {cache_mb}M\n}}\n}}\n"
            );
        }
        text += &format!("xdr {{\n src-id {}\n", site + 1);
        for link in self.links.iter().filter(|link| link.from == site) {
            let (dc, there) = (Self::dc(link), self.host_name(link.to));
            text += &format!(" dc {dc} {{\n node-address-port {there} {PORT}\n");
            for namespace in NAMESPACES {
                text += &format!(" namespace {namespace} {{\n");
                for (name, value) in self.dc_items(link) {
                    text += &format!("  {name} {value}\n");
                }
                text += " }\n";
            }
            text += "}\n";
        }
        text + "}\n"
    }
}
