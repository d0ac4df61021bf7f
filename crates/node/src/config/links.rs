//! Several clusters' configurations seen together: who ships to whom, where each cluster's writes
//! arrive, and what is wrong with that before anything is started.
//!
//! A file is a cluster. A change made at a cluster takes any of its links; a change that was shipped
//! in takes only links with `forward true`. Followed for every namespace and every set that some
//! rule names, and for one that none names.

use std::collections::BTreeSet;
use std::fmt;

use longship::config::grammar::text::{self, Node};
use longship::config::{DcConfig, DcNamespaceConfig};

use super::Config;

/// One cluster's file.
#[derive(Clone, Debug)]
pub struct ClusterFile {
    /// Its name, for the words of what is wrong.
    pub file: String,
    /// Its text, which tells lines.
    pub text: String,
    /// What the file says, parsed.
    pub config: Config,
}

/// What is wrong between clusters, with its place and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which file.
    pub file: String,
    /// Line in it, from 1.
    pub line: u32,
    /// What is wrong there, and the remedy.
    pub what: Wrong,
}

/// What can be wrong between clusters. Links are named by their files.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Wrong {
    /// Two clusters would be taken for one.
    #[error("src-id {src_id} is also that of {other}: give each cluster its own")]
    SrcIdTwice {
        /// The `src-id` that both have.
        src_id: u8,
        /// File of the other cluster.
        other: String,
    },
    /// A DC whose seed is a node of its own cluster.
    #[error("seed {seed} is this cluster itself")]
    Itself {
        /// `HOST:PORT`.
        seed: String,
    },
    /// Seeds of one DC belong to different clusters.
    #[error("seed {seed} leads to {other}, the first one to {first}: a DC is one cluster")]
    TwoClusters {
        /// `HOST:PORT`.
        seed: String,
        /// File of the cluster that it leads to.
        other: String,
        /// File of the cluster that the first seed leads to.
        first: String,
    },
    /// The destination lacks the namespace.
    #[error("{other} has no namespace `{namespace}`: add it there, or set `remote-namespace`")]
    NoNamespace {
        /// The name at the destination.
        namespace: String,
        /// File of the destination's cluster.
        other: String,
    },
    /// The destination refuses every shipped write.
    #[error("{other} has `reject-xdr-writes true` in namespace `{namespace}`: set it to false")]
    Rejected {
        /// The name at the destination.
        namespace: String,
        /// File of the destination's cluster.
        other: String,
    },
    /// Changes from elsewhere would go round for ever.
    #[error(
        "forwarding loop {}: set `forward false` in one of these links", .path.join(" -> ")
    )]
    Loop {
        /// Files of the clusters, the first one again at the end.
        path: Vec<String>,
    },
    /// A way leads there, but changes stop on it.
    #[error(
        "writes to namespace `{namespace}`{} here never reach {other}, though {via} ships there: \
         add a DC for it here, or set `forward true` in {via}'s link", OfSet(.set)
    )]
    Unreached {
        /// The namespace in this cluster.
        namespace: String,
        /// The set; empty for any that no rule names.
        set: String,
        /// File of the cluster that misses them.
        other: String,
        /// File of the last cluster that has them.
        via: String,
    },
    /// Without an identity a cluster gets its own changes back, perhaps over newer ones.
    #[error("needs a src-id: {via} ships this cluster's changes back to it")]
    Echo {
        /// File of the cluster that ships them back.
        via: String,
    },
}

struct OfSet<'a>(&'a str);

impl fmt::Display for OfSet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, ", set `{}`,", self.0) }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.what)
    }
}

/// What several files say together.
#[derive(Debug)]
pub struct Links<'a> {
    clusters: &'a [ClusterFile],
    links: Vec<Link<'a>>,
    faults: Vec<Fault>,
}

/// A namespace of a DC.
#[derive(Clone, Copy, Debug)]
struct Link<'a> {
    from: usize,
    /// `None`: none of the files.
    to: Option<usize>,
    dc: &'a DcConfig,
    namespace: &'a DcNamespaceConfig,
    line: u32,
}

/// Ports that a cluster may take which makes as many shards as it has cores.
const SHARDS_MAX: u16 = 1024;

/// A namespace of a cluster.
type ClusterNamespace<'a> = (usize, &'a str);

impl Link<'_> {
    fn remote(&self) -> &str {
        self.namespace.remote_name()
    }

    fn ships(&self, set: &str) -> bool {
        let lists = |list: &[String]| list.iter().any(|name| name == set);
        let DcNamespaceConfig { shipped_sets, ignored_sets, .. } = self.namespace;
        let wanted = !self.namespace.ship_only_specified_sets || lists(shipped_sets);
        wanted && !lists(ignored_sets)
    }
}

impl<'a> Links<'a> {
    /// Follows every link of `clusters`.
    pub fn of(clusters: &'a [ClusterFile]) -> Self {
        let mut links = Self { clusters, links: Vec::new(), faults: Vec::new() };
        for from in 0..clusters.len() {
            links.link(from);
        }
        links.check_identities();
        links.check_ends();
        links.check_loops();
        links.check_reach();
        links
    }

    /// Everything that is wrong.
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }

    fn blame(&mut self, cluster: usize, line: u32, what: Wrong) {
        let fault = Fault { file: self.name(cluster), line, what };
        if !self.faults.contains(&fault) {
            self.faults.push(fault);
        }
    }

    fn name(&self, cluster: usize) -> String {
        self.clusters[cluster].file.clone()
    }

    fn link(&mut self, from: usize) {
        let clusters = self.clusters;
        let ClusterFile { config, text, .. } = &clusters[from];
        let (nodes, _) = text::read(text);
        for dc in &config.xdr.dcs {
            let dc_line = line_of(&nodes, &["xdr", &format!("dc {}", dc.name)]);
            let to = self.destination(from, dc, dc_line);
            for namespace in &dc.namespaces {
                let path =
                    ["xdr", &format!("dc {}", dc.name), &format!("namespace {}", namespace.name)];
                let line = line_of(&nodes, &path);
                self.links.push(Link { from, to, dc, namespace, line });
            }
        }
    }

    /// The cluster that a DC's seeds belong to.
    fn destination(&mut self, from: usize, dc: &DcConfig, line: u32) -> Option<usize> {
        let mut first = None;
        for (host, port) in &dc.seeds {
            let seed = format!("{host}:{port}");
            let Some(to) = owner_of(self.clusters, host, *port) else { continue };
            let known = *first.get_or_insert(to);
            if to == from {
                self.blame(from, line, Wrong::Itself { seed });
            } else if known != to {
                let (other, first) = (self.name(to), self.name(known));
                self.blame(from, line, Wrong::TwoClusters { seed, other, first });
            }
        }
        first
    }

    fn check_identities(&mut self) {
        for cluster in 1..self.clusters.len() {
            let src_id = self.clusters[cluster].config.xdr.src_id;
            let same = |other: &&ClusterFile| other.config.xdr.src_id == src_id;
            let other = self.clusters[..cluster].iter().find(same);
            if let Some(other) = other.filter(|_| src_id != 0) {
                let (line, other) = (self.xdr_line(cluster), other.file.clone());
                self.blame(cluster, line, Wrong::SrcIdTwice { src_id, other });
            }
        }
    }

    fn xdr_line(&self, cluster: usize) -> u32 {
        line_of(&text::read(&self.clusters[cluster].text).0, &["xdr"])
    }

    /// Whether each destination takes what is shipped to it.
    fn check_ends(&mut self) {
        for link in self.links.clone() {
            let Some(to) = link.to else { continue };
            let (namespace, other) = (link.remote().to_owned(), self.name(to));
            let found = self.clusters[to].config.namespaces.iter().find(|ns| ns.name == namespace);
            match found {
                None => self.blame(link.from, link.line, Wrong::NoNamespace { namespace, other }),
                Some(found) if found.reject_xdr_writes => {
                    self.blame(link.from, link.line, Wrong::Rejected { namespace, other });
                }
                Some(_) => {}
            }
        }
    }

    /// Sets that some rule names, and one that none does.
    fn sets(&self) -> BTreeSet<&'a str> {
        let named = self.links.iter().flat_map(|link| {
            link.namespace.shipped_sets.iter().chain(&link.namespace.ignored_sets)
        });
        named.map(String::as_str).chain([""]).collect()
    }

    /// Links from a place that a set takes, to one of the files.
    fn links_from(
        &self,
        place: ClusterNamespace<'_>,
        set: &str,
    ) -> impl Iterator<Item = &Link<'a>> {
        let starts = move |link: &&Link<'_>| (link.from, &*link.namespace.name) == place;
        self.links.iter().filter(starts).filter(move |link| link.to.is_some() && link.ships(set))
    }

    fn check_loops(&mut self) {
        for set in self.sets() {
            for link in self.links.clone() {
                let begin = (link.from, &*link.namespace.name);
                let Some(path) = self.way_round(begin, set) else { continue };
                // Said once, at the file given first.
                if path.iter().all(|(cluster, _)| *cluster >= link.from) {
                    let path = path.iter().map(|(cluster, _)| self.name(*cluster)).collect();
                    self.blame(link.from, link.line, Wrong::Loop { path });
                }
            }
        }
    }

    /// The shortest way of forwarding links from a place back to it.
    fn way_round(
        &self,
        begin: ClusterNamespace<'a>,
        set: &str,
    ) -> Option<Vec<ClusterNamespace<'a>>> {
        let mut ways: Vec<Vec<ClusterNamespace<'_>>> = vec![vec![begin]];
        let mut seen = BTreeSet::new();
        let mut at = 0;
        while let Some(way) = ways.get(at).cloned() {
            at += 1;
            let last = *way.last()?;
            for link in self.links_from(last, set).filter(|link| link.namespace.forward) {
                let next = self.end_of(link)?;
                let longer = [&way[..], &[next]].concat();
                if next == begin {
                    return Some(longer);
                }
                if seen.insert(next) {
                    ways.push(longer);
                }
            }
        }
        None
    }

    /// Where a link to one of the files ends.
    fn end_of(&self, link: &Link<'a>) -> Option<ClusterNamespace<'a>> {
        let remote = link.namespace.remote_name();
        Some((link.to?, remote))
    }

    /// Where changes made at a place arrive, and the link each came by last. With `all`, as if
    /// everything were forwarded.
    fn reach(
        &self,
        begin: ClusterNamespace<'a>,
        set: &str,
        all: bool,
    ) -> Vec<(ClusterNamespace<'a>, Link<'a>)> {
        let mut reached: Vec<(ClusterNamespace<'_>, Link<'_>)> = Vec::new();
        let mut open = vec![begin];
        while let Some(place) = open.pop() {
            let is_local = place == begin;
            let taken = |link: &&Link<'_>| is_local || all || link.namespace.forward;
            for link in self.links_from(place, set).filter(taken) {
                let Some(next) = self.end_of(link) else { continue };
                if !reached.iter().any(|(known, _)| *known == next) {
                    reached.push((next, *link));
                    if next != begin {
                        open.push(next);
                    }
                }
            }
        }
        reached
    }

    fn check_reach(&mut self) {
        let sets = self.sets();
        for cluster in 0..self.clusters.len() {
            let clusters = self.clusters;
            let config = &clusters[cluster].config;
            for namespace in &config.namespaces {
                let begin = (cluster, &*namespace.name);
                for set in &sets {
                    self.check_reach_of(begin, set, config.xdr.src_id);
                }
            }
        }
    }

    fn check_reach_of(&mut self, begin: ClusterNamespace<'a>, set: &str, src_id: u8) {
        let reached = self.reach(begin, set, false);
        let line = self.xdr_line(begin.0);
        if let Some((_, link)) = reached.iter().find(|(place, _)| *place == begin)
            && src_id == 0
        {
            let via = self.name(link.from);
            self.blame(begin.0, line, Wrong::Echo { via });
        }
        let arrives =
            |place: &ClusterNamespace<'_>| reached.iter().any(|(known, _)| known == place);
        let could = self.reach(begin, set, true);
        let missed = could.iter().filter(|(place, _)| *place != begin && !arrives(place));
        // What lies behind the first stop is missed with it.
        let first = missed.filter(|(_, link)| {
            let from = (link.from, &*link.namespace.name);
            from == begin || arrives(&from)
        });
        for (place, link) in first.collect::<Vec<_>>() {
            let wrong = Wrong::Unreached {
                namespace: begin.1.to_owned(),
                set: set.to_owned(),
                other: self.name(place.0),
                via: self.name(link.from),
            };
            self.blame(begin.0, line, wrong);
        }
    }
}

/// What was understood, for people.
impl fmt::Display for Links<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, ClusterFile { file, config, .. }) in self.clusters.iter().enumerate() {
            let name = config.service.cluster_name.as_deref().unwrap_or("without a name");
            let src_id = match config.xdr.src_id {
                0 => "none".to_owned(),
                src_id => src_id.to_string(),
            };
            let (address, port) = (config.network.address, config.network.port);
            writeln!(f, "{file}: cluster {name} at {address}:{port}, src-id {src_id}")?;
            for link in self.links.iter().filter(|link| link.from == index) {
                let to = link.to.map_or_else(|| "none of these files".into(), |to| self.name(to));
                let (dc, namespace) = (&link.dc.name, &link.namespace.name);
                let (remote, forward) = (link.remote(), link.namespace.forward);
                let sets = Sets(link.namespace);
                write!(f, "  dc {dc}: {namespace} -> {to}, namespace {remote}{sets}")?;
                writeln!(f, "{}", if forward { ", forwarding" } else { "" })?;
            }
            for namespace in &config.namespaces {
                let reached = self.reach((index, &namespace.name), "", false);
                let mut names: Vec<String> = reached
                    .iter()
                    .filter(|((to, _), _)| *to != index)
                    .map(|((to, _), _)| self.name(*to))
                    .collect();
                names.sort();
                names.dedup();
                if !names.is_empty() {
                    let names = names.join(", ");
                    writeln!(f, "  writes to {} here arrive at {names}", namespace.name)?;
                }
            }
        }
        Ok(())
    }
}

/// Which sets a link ships.
struct Sets<'a>(&'a DcNamespaceConfig);

impl fmt::Display for Sets<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(DcNamespaceConfig { shipped_sets, ignored_sets, .. }) = self;
        if self.0.ship_only_specified_sets {
            let names =
                if shipped_sets.is_empty() { "none".into() } else { shipped_sets.join(" ") };
            write!(f, ", sets {names}")?;
        }
        if !ignored_sets.is_empty() {
            write!(f, ", without sets {}", ignored_sets.join(" "))?;
        }
        Ok(())
    }
}

/// The cluster that listens there: of those whose ports may reach so far, the nearest below.
fn owner_of(clusters: &[ClusterFile], host: &str, port: u16) -> Option<usize> {
    let listens = |cluster: &ClusterFile| {
        let network = &cluster.config.network;
        let ports = match cluster.config.service.shards {
            0 => SHARDS_MAX,
            shards => shards,
        };
        let told = network.access_addresses.iter().chain(&network.alternate_access_addresses);
        let at_host = network.address.to_string() == host
            || (network.address.is_loopback() && host == "localhost")
            || told.into_iter().any(|address| address == host)
            // Listens everywhere and does not say where that is: only the port tells.
            || network.address.is_unspecified() && network.access_addresses.is_empty();
        at_host && (network.port..=network.port.saturating_add(ports - 1)).contains(&port)
    };
    let found = clusters.iter().enumerate().filter(|(_, cluster)| listens(cluster));
    found.max_by_key(|(_, cluster)| cluster.config.network.port).map(|(index, _)| index)
}

/// The line of a context, found by the words that open it and those around it; 1 if there is none.
fn line_of(nodes: &[Node<'_>], path: &[&str]) -> u32 {
    let Some((first, rest)) = path.split_first() else { return 1 };
    let found = nodes.iter().find(|node| node.words.join(" ") == *first);
    found.map_or(1, |node| match node.body.as_deref() {
        Some(body) if !rest.is_empty() => line_of(body, rest).max(node.line),
        _ => node.line,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cluster `name` on `port` with DCs: name, port, items of namespace `test`.
    fn cluster(name: &str, port: u16, src_id: u8, dcs: &[(&str, u16, &str)]) -> ClusterFile {
        let dcs = dcs.iter().map(|(dc, port, items)| {
            format!(
                "dc {dc} {{\nnode-address-port 127.0.0.1 {port}\nnamespace test {{\n{items}\n}}\n}}\n"
            )
        });
        let text = format!(
            "service {{\nwork-directory /w/{name}\nshards 4\n}}\nnetwork {{\nservice {{\naddress \
             127.0.0.1\nport {port}\n}}\n}}\nnamespace test {{\nstorage-engine device {{\nfile \
             /w/{name}/d\nfilesize 64M\n}}\n}}\nxdr {{\nsrc-id {src_id}\n{}}}\n",
            dcs.collect::<String>()
        );
        let config = Config::parse(&text, name).unwrap();
        ClusterFile { file: name.to_owned(), text, config }
    }

    fn check(clusters: &[ClusterFile], expected: &[&str]) {
        let links = Links::of(clusters);
        let faults: Vec<String> = links.faults().iter().map(ToString::to_string).collect();
        assert_eq!(faults, expected, "{links}");
    }

    #[test]
    fn sound_links_pass() {
        check(&[cluster("a", 3100, 0, &[("b", 3201, "")]), cluster("b", 3200, 0, &[])], &[]);
        check(
            &[
                cluster("a", 3100, 1, &[("b", 3200, "")]),
                cluster("b", 3200, 2, &[("a", 3100, ""), ("away", 9000, "")]),
            ],
            &[],
        );
        check(
            &[
                cluster(
                    "hub",
                    3100,
                    1,
                    &[("s", 3200, "forward true"), ("t", 3300, "forward true")],
                ),
                cluster("s", 3200, 2, &[("hub", 3100, "")]),
                cluster("t", 3300, 3, &[("hub", 3100, "")]),
            ],
            &[],
        );
    }

    #[test]
    fn a_loop_is_told_once_with_its_way() {
        check(
            &[
                cluster("a", 3100, 1, &[("b", 3200, "forward true")]),
                cluster("b", 3200, 2, &[("c", 3300, "forward true")]),
                cluster("c", 3300, 3, &[("a", 3100, "forward true")]),
            ],
            &["a:21: forwarding loop a -> b -> c -> a: set `forward false` in one of these links"],
        );
        // No set can go all the way round.
        let only =
            |set: &str| format!("forward true\nship-only-specified-sets true\nship-set {set}");
        check(
            &[
                cluster("a", 3100, 1, &[("b", 3200, &only("x"))]),
                cluster("b", 3200, 2, &[("a", 3100, &only("y"))]),
            ],
            &[],
        );
    }

    #[test]
    fn a_missing_link_is_told_where_it_is_missing() {
        check(
            &[
                cluster("a", 3100, 1, &[("b", 3200, "")]),
                cluster("b", 3200, 2, &[("c", 3300, "")]),
                cluster("c", 3300, 3, &[]),
            ],
            &[
                "a:17: writes to namespace `test` here never reach c, though b ships there: add a DC \
               for it here, or set `forward true` in b's link",
            ],
        );
        // A mesh with one link missing.
        let faults = [
            cluster("a", 3100, 1, &[("b", 3200, ""), ("c", 3300, "")]),
            cluster("b", 3200, 2, &[("a", 3100, ""), ("c", 3300, "")]),
            cluster("c", 3300, 3, &[("a", 3100, "")]),
        ];
        check(
            &faults,
            &[
                "c:17: writes to namespace `test` here never reach b, though a ships there: add a DC \
               for it here, or set `forward true` in a's link",
            ],
        );
    }

    #[test]
    fn ends_and_identities_are_checked() {
        check(
            &[
                cluster("a", 3100, 7, &[("b", 3200, "remote-namespace other"), ("a", 3103, "")]),
                cluster("b", 3200, 7, &[]),
            ],
            &[
                "a:25: seed 127.0.0.1:3103 is this cluster itself",
                "b:17: src-id 7 is also that of a: give each cluster its own",
                "a:21: b has no namespace `other`: add it there, or set `remote-namespace`",
            ],
        );
        check(
            &[
                cluster("hub", 3100, 1, &[("s", 3200, "forward true")]),
                cluster("s", 3200, 0, &[("hub", 3100, "")]),
            ],
            &["s:17: needs a src-id: hub ships this cluster's changes back to it"],
        );
    }
}
