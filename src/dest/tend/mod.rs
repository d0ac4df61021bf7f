//! How a destination's nodes are found, watched and given up.
//!
//! Pure: [`Tend`] says what to ask whom and when, and takes the answers; connections, clocks and
//! name resolution are its caller's. Seeds are asked while no node answers. A node that answers is
//! asked once a second for two counters; when one has moved, for its peers or its partitions. Its
//! peers become nodes. A node goes when another one that answers no longer lists it and it fails
//! (or owns nothing), or when another node answers in its place. Without such a witness it is asked
//! on, beside the seeds: it may only have been stopped, and then nothing it acknowledged is lost.
//! The destination's cluster name is ignored. Source: `docs/wire.md` section 8, and what common
//! clients do.
//!
//! | file | holds |
//! |---|---|
//! | `known` | what is known of the seeds and of each node, and when to ask next |
//! | `answers` | reading what a node answers to info commands |
//! | `addresses` | how often each is connected to, whose turn is next, and where several answer |
//! | `places` | addresses to try, and the hook that resolves names off the shard |
//! | `partition_map` | which node masters each partition, from what the nodes claim |
//! | `facts` | what a destination tells of a namespace that decides whether writes can work |

mod addresses;
mod answers;
mod facts;
mod known;
mod partition_map;
mod places;

use std::net::SocketAddr;

use crate::limits::{NODE_COUNT_MAX, NODES_TRIED_AT_ONCE, TRY_NODE_MS};
use crate::model::{NamespaceId, PartitionId, Tick};
use crate::wire::peers::Peers;
use crate::wire::replicas;

use self::addresses::Addresses;
use self::answers::{Answers, is_sane};
use self::known::{Node, NodeSet, NodeSlot, Questions, Seeds};
use self::places::Attempt;
use super::NodeIndex;

pub use self::answers::BadAnswer;
pub use self::facts::NamespaceFacts;
pub use self::partition_map::PartitionMap;
pub use self::places::{Resolver, Resolving};

/// Between two looks at a node that answers.
const PERIOD_MS: u64 = 1000;
/// Signs of a wrong map bring the next look forward, but not closer to the last than this.
const POKE_MS_MIN: u64 = 100;
/// Between two looks at a namespace's facts.
const FACTS_MS: u64 = 10_000;
/// Between two attempts at a node of which no address is known.
const NO_ADDRESS_MS: u64 = 1000;
/// Port of a peer listed without one.
const DEFAULT_PORT: u16 = 3000;
/// What is to be reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TendSpec {
    /// Where to look first: host and port.
    pub seeds: Vec<(String, u16)>,
    /// Reach peers by their alternate addresses.
    pub alternate_addresses: bool,
    /// The namespaces shipped, each with its name at the destination.
    pub namespaces: Vec<(NamespaceId, String)>,
}

/// Whom a conversation is with. Each has at most one question open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Whichever seed answers.
    Seeds,
    /// A node.
    Node(NodeIndex),
}

/// Who makes connections: at most one each at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A conversation.
    Tending(Target),
    /// A node's sender.
    Shipping(NodeIndex),
}

/// What a target's conversation does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Resolve a name; answer with [`Tend::resolved`] or [`Tend::failed`].
    Resolve {
        /// Host name.
        host: String,
        /// Port of the addresses wanted.
        port: u16,
    },
    /// Send info commands; answer with [`Tend::answered`] or [`Tend::failed`].
    Ask {
        /// To whom.
        address: SocketAddr,
        /// One command per line.
        commands: String,
    },
    /// Come back then, or when poked.
    Wait {
        /// [`Tick::NEVER`] waits for a poke.
        until: Tick,
    },
    /// The node is gone: the conversation ends.
    Stop,
}

/// What happened, for whoever routes by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// A node was found; its conversation begins.
    Found(NodeIndex),
    /// The node answers, for the first time or again.
    Answers(NodeIndex),
    /// Other addresses are listed of a node that does not answer: its conversation has to try them.
    Moved(NodeIndex),
    /// The node is given up. Its index is free after [`Tend::release`].
    Lost(NodeIndex),
    /// The last node that answered does no more: the seeds are asked again.
    NoneAnswers,
    /// Some partition changed hands.
    MapChanged,
    /// A namespace's facts changed.
    FactsChanged(NamespaceId),
}

/// The destination cluster as one (DC, shard) sees it.
#[derive(Debug)]
pub struct Tend {
    spec: TendSpec,
    seeds: Seeds,
    nodes: Vec<NodeSlot>,
    map: PartitionMap,
    facts: Vec<(NamespaceId, NamespaceFacts)>,
    notes: Vec<Note>,
    /// When all nodes that do not answer have had their turns.
    tried_until: Tick,
    addresses: Addresses,
}

impl Tend {
    /// Nothing is known yet.
    pub fn new(spec: TendSpec) -> Self {
        let mut tend = Self {
            spec: TendSpec::default(),
            seeds: Seeds::default(),
            nodes: Vec::new(),
            map: PartitionMap::default(),
            facts: Vec::new(),
            notes: Vec::new(),
            tried_until: Tick(0),
            addresses: Addresses::default(),
        };
        tend.configure(spec, Tick(0));
        tend
    }

    /// Takes a changed specification. Nodes stay unless no former seed is left or addresses of
    /// another kind are wanted.
    pub fn configure(&mut self, spec: TendSpec, now: Tick) {
        let kept_seed = self.spec.seeds.iter().any(|seed| spec.seeds.contains(seed));
        if !kept_seed || spec.alternate_addresses != self.spec.alternate_addresses {
            for index in 0..self.nodes.len() {
                self.remove(NodeIndex(index as u16), now);
            }
        }
        if spec.seeds != self.spec.seeds {
            self.seeds = Seeds { due: now, ..Seeds::default() };
            self.seeds.places.set(&spec.seeds, false);
            self.addresses.forget_shared();
        }
        if self.map.set_namespaces(&spec.namespaces) {
            for node in self.held_mut() {
                node.wanted = Questions::ALL;
                node.due = now;
            }
            self.notes.push(Note::MapChanged);
        }
        if spec != self.spec {
            // What a seed is asked now is no longer what is to be known.
            self.seeds.open = None;
        }
        self.spec = spec;
        self.merge_facts();
    }

    /// The node to send a partition's records to.
    #[inline]
    pub fn route(&self, namespace: NamespaceId, partition: PartitionId) -> Option<NodeIndex> {
        self.map.master(namespace, partition)
    }

    /// Whether any partition is routed to the node.
    pub fn is_routed(&self, node: NodeIndex) -> bool {
        self.map.has_partitions(node)
    }

    /// What the destination says of a namespace, all nodes together.
    pub fn facts(&self, namespace: NamespaceId) -> NamespaceFacts {
        let found = self.facts.iter().find(|&&(id, _)| id == namespace);
        found.map_or_else(NamespaceFacts::default, |&(_, facts)| facts)
    }

    /// Identity and address of a node that answers.
    pub fn node(&self, node: NodeIndex) -> Option<(&str, SocketAddr)> {
        let node = self.held(node).filter(|node| node.answers)?;
        match node.places.next() {
            Attempt::Address(address) => Some((&node.id, address)),
            Attempt::Name(..) | Attempt::Exhausted => None,
        }
    }

    /// Identity of a node that is not given up.
    pub fn id(&self, node: NodeIndex) -> Option<&str> {
        self.held(node).map(|node| node.id.as_str())
    }

    /// Whether a node of that id is known, and not given up.
    pub fn knows(&self, id: &str) -> bool {
        self.find(id).is_some()
    }

    /// Which address several nodes answer at; else why some node did not answer when last asked,
    /// or, while none answers, every seed; else which node found no room.
    pub fn problem(&self, now: Tick) -> Option<&str> {
        if self.spec.seeds.is_empty() && self.held_count() == 0 {
            return Some("it has no node-address-port");
        }
        if let Some(shared) = self.addresses.problem(now) {
            return Some(shared);
        }
        let held = || self.nodes.iter().filter_map(NodeSlot::held);
        // Nobody asks the seeds while a node answers: what they said last is no news then.
        let seeds = self.seeds.problem.as_ref().filter(|_| !self.is_answered());
        let found = held().find_map(|node| node.problem.as_ref()).or(seeds);
        found.or_else(|| held().find_map(|node| node.crowd.as_ref())).map(String::as_str)
    }

    /// Whether some node answers.
    pub fn is_answered(&self) -> bool {
        self.nodes.iter().filter_map(NodeSlot::held).any(|node| node.answers)
    }

    /// Whether every node that is known answers, and there is one.
    pub fn all_answer(&self) -> bool {
        self.is_answered() && self.nodes.iter().filter_map(NodeSlot::held).all(|node| node.answers)
    }

    /// Moves out what has happened, in order.
    pub fn drain_notes(&mut self, out: &mut Vec<Note>) {
        out.append(&mut self.notes);
    }

    /// Frees the index of a node that was given up.
    pub fn release(&mut self, node: NodeIndex) {
        let slot = &mut self.nodes[node.index()];
        assert!(matches!(slot, NodeSlot::Gone), "only indexes of lost nodes are released");
        *slot = NodeSlot::Free;
        // Those for which there was no room are looked up again.
        for node in self.held_mut().filter(|node| node.crowd.is_some()) {
            node.peers_generation = None;
        }
    }

    /// Something hints at a stale map (a node refused a partition, a connection broke): look soon.
    pub fn poke(&mut self, now: Tick) {
        for node in self.held_mut().filter(|node| node.answers) {
            node.due = node.due.min(now.max(node.asked.plus_ms(POKE_MS_MIN)));
        }
    }

    /// A connection to this address is to be made. Whoever makes one asks first, and makes it at
    /// once or asks again then: it keeps its place in the line there until it asks for another.
    pub fn connect(&mut self, caller: Caller, address: SocketAddr, now: Tick) -> Result<(), Tick> {
        let id = match caller {
            Caller::Tending(Target::Seeds) => None,
            Caller::Tending(Target::Node(node)) | Caller::Shipping(node) => {
                let node = self.nodes.get(node.index()).and_then(NodeSlot::held);
                Some(node.ok_or(Tick::NEVER)?.id.as_str())
            }
        };
        self.addresses.connect(caller, id, address, now)
    }

    /// A shipping connection to this address reached the node `found` instead: several share it,
    /// behind a load balancer for instance. Another address of the node is tried, where its peers
    /// list one.
    pub fn distrust(&mut self, node: NodeIndex, address: SocketAddr, found: &str, now: Tick) {
        if is_sane(found) {
            self.addresses.answered(address, found, now);
        }
        if let Some(node) = self.held_mut_at(node)
            && node.places.next() == Attempt::Address(address)
            && !node.places.failed()
        {
            node.places.refill();
        }
    }

    /// What the conversation with `target` does next, given where it is connected to.
    pub fn next(&mut self, target: Target, link: Option<SocketAddr>, now: Tick) -> Step {
        match target {
            Target::Seeds => self.next_seed(link, now),
            Target::Node(index) => self.next_node(index, link, now),
        }
    }

    /// When `target` can be asked at `address`, if not now.
    fn reach(
        &mut self,
        target: Target,
        address: SocketAddr,
        link: Option<SocketAddr>,
        now: Tick,
    ) -> Option<Tick> {
        if link == Some(address) {
            return None;
        }
        self.connect(Caller::Tending(target), address, now).err()
    }

    fn next_seed(&mut self, link: Option<SocketAddr>, now: Tick) -> Step {
        if self.is_answered() || self.spec.seeds.is_empty() {
            return Step::Wait { until: Tick::NEVER };
        }
        if now < self.seeds.due {
            return Step::Wait { until: self.seeds.due };
        }
        match self.seeds.places.next() {
            Attempt::Address(address) => match self.reach(Target::Seeds, address, link, now) {
                Some(until) => Step::Wait { until },
                None => {
                    self.seeds.open = Some(address);
                    Step::Ask { address, commands: self.commands(Questions::ALL) }
                }
            },
            Attempt::Name(host, port) => Step::Resolve { host, port },
            Attempt::Exhausted => Step::Wait { until: Tick::NEVER },
        }
    }

    fn next_node(&mut self, index: NodeIndex, link: Option<SocketAddr>, now: Tick) -> Step {
        let Some(node) = self.held(index) else { return Step::Stop };
        if now < node.due {
            return Step::Wait { until: node.due };
        }
        if !node.answers && !node.has_turn {
            let turn = self.take_turn(now);
            let node = self.expect_held(index);
            (node.due, node.has_turn) = (turn, true);
            return self.next_node(index, link, now);
        }
        let place = node.places.next();
        if let Attempt::Address(address) = place
            && let Some(until) = self.reach(Target::Node(index), address, link, now)
        {
            return Step::Wait { until };
        }
        let node = self.expect_held(index);
        node.has_turn = false;
        match place {
            Attempt::Address(address) => {
                let questions = node.ask(now);
                Step::Ask { address, commands: self.commands(questions) }
            }
            Attempt::Name(host, port) => Step::Resolve { host, port },
            Attempt::Exhausted => {
                node.places.refill();
                node.due = now.plus_ms(NO_ADDRESS_MS);
                Step::Wait { until: node.due }
            }
        }
    }

    /// When another node that does not answer may be tried.
    fn take_turn(&mut self, now: Tick) -> Tick {
        let until = self.tried_until.max(now);
        self.tried_until = until.plus_ms(TRY_NODE_MS);
        let ahead_us = until.us_since(now).saturating_sub(NODES_TRIED_AT_ONCE * TRY_NODE_MS * 1000);
        Tick(now.0 + ahead_us)
    }

    /// The commands for `questions`. The generation of partitions always comes before the
    /// partitions, so that a change between the two is seen again the next time.
    fn commands(&self, questions: Questions) -> String {
        let mut commands = String::new();
        if questions.basics {
            commands += "node\nbuild\npeers-generation\n";
        }
        if questions.basics || questions.replicas {
            commands += "partition-generation\n";
        }
        if questions.replicas {
            commands += "replicas\n";
        }
        if questions.peers {
            commands += self.peers_command();
            commands += "\n";
        }
        if questions.facts {
            for (_, remote) in &self.spec.namespaces {
                commands += &format!("namespace/{remote}\n");
            }
        }
        commands
    }

    const fn peers_command(&self) -> &'static str {
        if self.spec.alternate_addresses { "peers-clear-alt" } else { "peers-clear-std" }
    }

    /// A name was resolved.
    pub fn resolved(&mut self, target: Target, host: &str, addresses: &[SocketAddr], now: Tick) {
        if addresses.is_empty() {
            return self.failed(target, &format!("{host} has no address"), now);
        }
        match target {
            Target::Seeds => self.seeds.places.resolved(host, addresses),
            Target::Node(index) => {
                if let Some(node) = self.held_mut_at(index) {
                    node.places.resolved(host, addresses);
                }
            }
        }
    }

    /// An attempt came to nothing: no address, no connection, no answer in time.
    pub fn failed(&mut self, target: Target, problem: &str, now: Tick) {
        match target {
            Target::Seeds => self.seeds.failed(problem, now),
            Target::Node(index) => {
                if let Some(node) = self.held_mut_at(index) {
                    let answered = node.answers;
                    node.failed(problem, now);
                    if answered && !self.is_answered() {
                        self.ask_seeds(now);
                    }
                    self.reap(now);
                }
            }
        }
    }

    fn ask_seeds(&mut self, now: Tick) {
        self.seeds.places.refill();
        self.seeds.due = now;
        self.notes.push(Note::NoneAnswers);
    }

    /// An answer came from where `target` was asked: the body of an info frame.
    pub fn answered(
        &mut self,
        target: Target,
        from: SocketAddr,
        body: &[u8],
        now: Tick,
    ) -> Result<(), BadAnswer> {
        if let Ok(id) = Answers(body).node_id() {
            self.addresses.answered(from, id, now);
        }
        let taken = match target {
            Target::Seeds => self.take_seed(from, body, now),
            Target::Node(index) => match self.held(index) {
                Some(node) => self.take_node(index, node.open, body, now),
                None => Ok(()),
            },
        };
        if let Err(bad) = &taken {
            if let (BadAnswer::OtherNode { .. }, Target::Node(index)) = (bad, target)
                && let Some(node) = self.held_mut_at(index)
            {
                // It will not come back here; only its peers' word keeps it.
                node.replaced = true;
            }
            self.failed(target, &format!("{from}: {bad}"), now);
        }
        taken
    }

    fn take_seed(&mut self, from: SocketAddr, body: &[u8], now: Tick) -> Result<(), BadAnswer> {
        if self.seeds.open.take() != Some(from) {
            // What is to be reached was changed while it was asked.
            return Ok(());
        }
        let answers = Answers(body);
        let id = answers.node_id()?;
        answers.check_build()?;
        if answers.number("partition-generation")? < 0 {
            return Err(BadAnswer::NotReady);
        }
        self.seeds.passes = 0;
        self.seeds.problem = None;
        let hosts = [(from.ip().to_string(), from.port())];
        match self.find_or_add(id, &hosts, now) {
            Some(index) => {
                // One that is known and was asked elsewhere, in vain.
                let node = self.expect_held(index);
                node.places.found_at(from);
                (node.asked, node.wanted) = (now, Questions::default());
                let taken = self.take_node(index, Questions::ALL, body, now);
                if taken.is_err() {
                    self.expect_held(index).wanted = Questions::ALL;
                }
                taken
            }
            None => {
                // None answers, so whoever owns nothing there is the first to go.
                let idle = self.held_indexes().find(|index| !self.map.has_partitions(*index));
                idle.into_iter().for_each(|index| self.remove(index, now));
                Err(BadAnswer::NoRoom)
            }
        }
    }

    /// Takes what a node that is held answers to what it was asked.
    fn take_node(
        &mut self,
        index: NodeIndex,
        asked: Questions,
        body: &[u8],
        now: Tick,
    ) -> Result<(), BadAnswer> {
        let answers = Answers(body);
        let mut moved = Questions::default();
        if asked.basics {
            moved = self.take_basics(index, &answers, asked, now)?;
        }
        if asked.peers {
            self.take_peers(index, &answers, now)?;
        }
        if asked.replicas {
            self.take_replicas(index, &answers)?;
        }
        if asked.facts {
            self.take_facts(index, &answers, now);
        }
        let node = self.expect_held(index);
        node.failures = 0;
        node.replaced = false;
        node.problem = None;
        node.wanted = node.wanted.and(moved);
        node.due = if node.wanted.is_none() { now.plus_ms(PERIOD_MS) } else { now };
        if !std::mem::replace(&mut node.answers, true) {
            self.notes.push(Note::Answers(index));
        }
        self.reap(now);
        Ok(())
    }

    /// Checks identity and finds what has changed since the last look.
    fn take_basics(
        &mut self,
        index: NodeIndex,
        answers: &Answers<'_>,
        asked: Questions,
        now: Tick,
    ) -> Result<Questions, BadAnswer> {
        let node = self.expect_held(index);
        let id = answers.node_id()?;
        if id != node.id {
            let (expected, found) = (node.id.clone(), id.to_owned());
            return Err(BadAnswer::OtherNode { expected, found });
        }
        answers.check_build()?;
        let partitions = answers.number("partition-generation")?;
        if partitions < 0 {
            return Err(BadAnswer::NotReady);
        }
        let replicas_moved = node.partition_generation != Some(partitions);
        // A server without the counter has its peers read every time.
        let peers = answers.number("peers-generation").ok();
        let peers_moved = peers.is_none() || node.peers_generation != peers;
        let facts = node.facts_due <= now && !self.spec.namespaces.is_empty();
        if !replicas_moved && self.map.settle(index) {
            self.notes.push(Note::MapChanged);
        }
        Ok(Questions {
            basics: false,
            peers: peers_moved && !asked.peers,
            replicas: replicas_moved && !asked.replicas,
            facts: facts && !asked.facts,
        })
    }

    fn take_replicas(&mut self, index: NodeIndex, answers: &Answers<'_>) -> Result<(), BadAnswer> {
        let generation = answers.number("partition-generation")?;
        let text = answers.get("replicas").unwrap_or_default();
        let claims = replicas::parse(text).map_err(|_| answers.bad("replicas"))?;
        if self.map.update(index, &claims) {
            self.notes.push(Note::MapChanged);
        }
        self.expect_held(index).partition_generation = Some(generation);
        Ok(())
    }

    fn take_peers(
        &mut self,
        index: NodeIndex,
        answers: &Answers<'_>,
        now: Tick,
    ) -> Result<(), BadAnswer> {
        let command = self.peers_command();
        let text = answers.get(command).unwrap_or_default();
        let list = Peers::parse(text).map_err(|_| answers.bad(command))?;
        let default_port = list.default_port.unwrap_or(DEFAULT_PORT);
        let (mut crowd, mut peers) = (None, NodeSet::default());
        for peer in &list.nodes {
            let hosts = peer.hosts.iter().filter(|(host, _)| is_sane(host));
            let hosts: Vec<(String, u16)> = hosts
                .map(|(host, port)| (host.clone(), port.unwrap_or(default_port)))
                .filter(|(_, port)| *port > 0)
                .collect();
            if !is_sane(&peer.node) {
                continue;
            }
            // A list without an address says nothing: what is known of the node stays as it is.
            let known = match hosts.is_empty() {
                true => self.find(&peer.node),
                false => self.find_or_add(&peer.node, &hosts, now),
            };
            match known {
                Some(found) if !hosts.is_empty() => {
                    let node = self.expect_held(found);
                    if node.places.set(&hosts, node.answers) && !node.answers {
                        self.notes.push(Note::Moved(found));
                    }
                }
                None if !hosts.is_empty() => crowd = Some(&peer.node),
                _ => {}
            }
            known.into_iter().for_each(|found| peers.insert(found));
        }
        let crowd = crowd.map(|id| format!("node {id} is ignored: {NODE_COUNT_MAX} are known"));
        let node = self.expect_held(index);
        node.crowd = crowd;
        node.peers_generation = Some(list.generation as i64);
        node.peers = peers;
        Ok(())
    }

    fn take_facts(&mut self, index: NodeIndex, answers: &Answers<'_>, now: Tick) {
        let read = |(id, remote): &(NamespaceId, String)| {
            let answer = answers.get(&format!("namespace/{remote}"));
            (*id, NamespaceFacts::parse(answer.unwrap_or_default()))
        };
        let facts = self.spec.namespaces.iter().map(read).collect();
        let node = self.expect_held(index);
        node.facts = facts;
        node.facts_due = now.plus_ms(FACTS_MS);
        self.merge_facts();
    }

    fn merge_facts(&mut self) {
        let merge = |&(id, _): &(NamespaceId, String)| {
            let said = self.nodes.iter().filter_map(NodeSlot::held).flat_map(|node| &node.facts);
            let said = said.filter(|(of, _)| *of == id).map(|&(_, facts)| facts);
            (id, said.fold(NamespaceFacts::default(), NamespaceFacts::and))
        };
        let merged: Vec<_> = self.spec.namespaces.iter().map(merge).collect();
        for &(id, facts) in &merged {
            if facts != self.facts(id) {
                self.notes.push(Note::FactsChanged(id));
            }
        }
        self.facts = merged;
    }

    fn find(&self, id: &str) -> Option<NodeIndex> {
        let known = |slot: &NodeSlot| slot.held().is_some_and(|node| node.id == id);
        self.nodes.iter().position(known).map(|index| NodeIndex(index as u16))
    }

    fn find_or_add(&mut self, id: &str, hosts: &[(String, u16)], now: Tick) -> Option<NodeIndex> {
        if let Some(index) = self.find(id) {
            return Some(index);
        }
        let free = self.nodes.iter().position(|slot| matches!(slot, NodeSlot::Free));
        let index = free.unwrap_or(self.nodes.len());
        if index >= NODE_COUNT_MAX {
            return None;
        }
        if free.is_none() {
            self.nodes.push(NodeSlot::Free);
        }
        self.nodes[index] = NodeSlot::Held(Box::new(Node::new(id, hosts, now)));
        let index = NodeIndex(index as u16);
        self.notes.push(Note::Found(index));
        Some(index)
    }

    /// Gives up the nodes that are no part of the cluster any more.
    fn reap(&mut self, now: Tick) {
        for index in self.held_indexes() {
            if self.is_gone(index) {
                self.remove(index, now);
            }
        }
    }

    /// A node that another live one lists stays. Without being listed it stays while it answers and
    /// owns partitions, or while there is nobody to ask and no other node in its place.
    fn is_gone(&self, index: NodeIndex) -> bool {
        let Some(node) = self.held(index) else { return false };
        let others = self.nodes.iter().filter_map(NodeSlot::held).filter(|other| {
            other.id != node.id && other.answers && other.peers_generation.is_some()
        });
        let mut witnesses = 0;
        for other in others {
            if other.peers.contains(index) {
                return false;
            }
            witnesses += 1;
        }
        match witnesses {
            0 => node.replaced,
            _ => node.failures > 0 || !self.map.has_partitions(index),
        }
    }

    fn remove(&mut self, index: NodeIndex, now: Tick) {
        if self.held(index).is_none() {
            return;
        }
        self.nodes[index.index()] = NodeSlot::Gone;
        self.addresses.leave(Caller::Tending(Target::Node(index)));
        self.addresses.leave(Caller::Shipping(index));
        // Whoever gets its index is not meant.
        self.held_mut().for_each(|node| node.peers.remove(index));
        if self.map.remove(index) {
            self.notes.push(Note::MapChanged);
        }
        self.notes.push(Note::Lost(index));
        self.merge_facts();
        if !self.is_answered() {
            self.ask_seeds(now);
        }
    }

    fn held(&self, index: NodeIndex) -> Option<&Node> {
        self.nodes.get(index.index()).and_then(NodeSlot::held)
    }

    fn held_mut_at(&mut self, index: NodeIndex) -> Option<&mut Node> {
        self.nodes.get_mut(index.index()).and_then(NodeSlot::held_mut)
    }

    fn expect_held(&mut self, index: NodeIndex) -> &mut Node {
        self.held_mut_at(index).expect("callers have found the node in the same call")
    }

    fn held_mut(&mut self) -> impl Iterator<Item = &mut Node> {
        self.nodes.iter_mut().filter_map(NodeSlot::held_mut)
    }

    fn held_indexes(&self) -> impl Iterator<Item = NodeIndex> + use<> {
        let held = self.nodes.iter().enumerate().filter(|(_, slot)| slot.held().is_some());
        let held: Vec<usize> = held.map(|(index, _)| index).collect();
        held.into_iter().map(|index| NodeIndex(index as u16))
    }

    fn held_count(&self) -> usize {
        self.nodes.iter().filter_map(NodeSlot::held).count()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use crate::wire::info::InfoFrame;
    use crate::wire::replicas::NamespaceReplicas;

    use super::*;

    const NS: NamespaceId = NamespaceId(0);

    /// A node that answers by the book.
    #[derive(Clone)]
    struct Fake {
        id: &'static str,
        build: &'static str,
        partition_generation: i64,
        peers_generation: i64,
        peers: String,
        owns: fn(usize) -> bool,
        namespace: &'static str,
    }

    fn fake(id: &'static str, peers: &str, owns: fn(usize) -> bool) -> Fake {
        let peers = format!("1,3000,[{peers}]");
        let namespace = "nsup-period=1";
        Fake {
            id,
            build: "7.0.0.1",
            partition_generation: 1,
            peers_generation: 1,
            peers,
            owns,
            namespace,
        }
    }

    impl Fake {
        fn answer(&self, command: &str) -> String {
            match command {
                "node" => self.id.into(),
                "build" => self.build.into(),
                "partition-generation" => self.partition_generation.to_string(),
                "peers-generation" => self.peers_generation.to_string(),
                "peers-clear-std" => self.peers.clone(),
                "namespace/there" => self.namespace.into(),
                "replicas" => {
                    let owned = PartitionId::all().filter(|p| (self.owns)(p.index()));
                    let columns = vec![owned.collect()];
                    let namespace = "there".into();
                    replicas::format(&[NamespaceReplicas { namespace, regime: 0, columns }])
                }
                _ => "ERROR:4:unrecognized command".into(),
            }
        }
    }

    /// A destination in virtual time: whoever is not in `nodes` refuses connections.
    struct World {
        tend: Tend,
        now: Tick,
        nodes: HashMap<SocketAddr, Fake>,
        names: HashMap<String, Vec<SocketAddr>>,
        notes: Vec<Note>,
        asked: Vec<(SocketAddr, String)>,
        running: Vec<Target>,
        links: Vec<(Target, SocketAddr)>,
        /// Connections made by conversations.
        connects: usize,
        /// Each answer is that of another node, as from behind a load balancer.
        balanced: bool,
    }

    fn at(last: u8) -> SocketAddr {
        ([10, 0, 0, last], 3000).into()
    }

    impl World {
        fn new(seeds: &[&str], nodes: &[(u8, Fake)]) -> Self {
            let mut world = Self {
                tend: Tend::new(spec(seeds)),
                now: Tick(1_000_000),
                nodes: nodes.iter().map(|(last, node)| (at(*last), node.clone())).collect(),
                names: HashMap::new(),
                notes: Vec::new(),
                asked: Vec::new(),
                running: vec![Target::Seeds],
                links: Vec::new(),
                connects: 0,
                balanced: false,
            };
            world.run_ms(0);
            world
        }

        /// Lets every conversation go on for that long.
        fn run_ms(&mut self, ms: u64) {
            let end = self.now.plus_ms(ms);
            loop {
                let mut next = Tick::NEVER;
                let mut at = 0;
                while let Some(&target) = self.running.get(at) {
                    match self.tend.next(target, self.link(target), self.now) {
                        Step::Wait { until } => {
                            assert!(until > self.now);
                            if target == Target::Seeds {
                                self.links.retain(|(of, _)| *of != target);
                            }
                            next = next.min(until);
                            at += 1;
                        }
                        Step::Stop => drop(self.running.remove(at)),
                        step => {
                            self.perform(target, step);
                            (next, at) = (Tick::NEVER, 0);
                        }
                    }
                    self.take_notes();
                }
                if next > end {
                    self.now = end;
                    return;
                }
                self.now = next;
            }
        }

        fn perform(&mut self, target: Target, step: Step) {
            match step {
                Step::Resolve { host, .. } => {
                    let addresses = self.names.get(&host).cloned().unwrap_or_default();
                    self.tend.resolved(target, &host, &addresses, self.now);
                }
                Step::Ask { address, commands } => {
                    self.asked.push((address, commands.replace('\n', " ")));
                    self.connects += usize::from(self.link(target) != Some(address));
                    self.links.retain(|(of, _)| *of != target);
                    let Some(node) = self.nodes.get_mut(&address) else {
                        return self.tend.failed(target, "refused", self.now);
                    };
                    if self.balanced {
                        node.id = format!("N{}", self.asked.len()).leak();
                    }
                    let mut frame = Vec::new();
                    let mut answers = InfoFrame::begin(&mut frame);
                    for command in commands.lines() {
                        answers.answer(command.as_bytes(), &node.answer(command));
                    }
                    drop(answers);
                    if self.tend.answered(target, address, &frame[8..], self.now).is_ok() {
                        self.links.push((target, address));
                    }
                }
                Step::Wait { .. } | Step::Stop => unreachable!("handled by the caller"),
            }
        }

        fn link(&self, target: Target) -> Option<SocketAddr> {
            self.links.iter().find(|(of, _)| *of == target).map(|&(_, address)| address)
        }

        fn take_notes(&mut self) {
            let from = self.notes.len();
            self.tend.drain_notes(&mut self.notes);
            for note in &self.notes[from..] {
                if let Note::Found(index) = note {
                    self.running.push(Target::Node(*index));
                }
            }
        }

        /// Ids of the masters of these partitions; "" for none.
        fn masters(&self, partitions: &[u16]) -> Vec<&str> {
            let route = |&index: &u16| self.tend.route(NS, PartitionId::new(index));
            let id = |index| self.tend.held(index).map_or("?", |node| node.id.as_str());
            partitions.iter().map(|p| route(p).map_or("", id)).collect()
        }

        fn ids(&self) -> Vec<&str> {
            self.tend.nodes.iter().filter_map(NodeSlot::held).map(|node| node.id.as_str()).collect()
        }
    }

    fn spec(seeds: &[&str]) -> TendSpec {
        TendSpec {
            seeds: seeds.iter().map(|&host| (host.into(), 3000)).collect(),
            alternate_addresses: false,
            namespaces: vec![(NS, "there".into())],
        }
    }

    fn pair() -> World {
        let one = fake("A1", "[B2,,[10.0.0.2]]", |p| p < 2048);
        let other = fake("B2", "[A1,,[10.0.0.1:3000]]", |p| p >= 2048);
        World::new(&["10.0.0.1"], &[(1, one), (2, other)])
    }

    #[test]
    fn one_seed_leads_to_all_nodes_and_the_whole_map_in_one_question_each() {
        let world = pair();
        assert_eq!(world.ids(), ["A1", "B2"]);
        assert_eq!(world.masters(&[0, 2047, 2048, 4095]), ["A1", "A1", "B2", "B2"]);
        let all = "node build peers-generation partition-generation replicas peers-clear-std \
                   namespace/there ";
        assert_eq!(world.asked, [(at(1), all.into()), (at(2), all.into())]);
        assert_eq!(world.tend.node(NodeIndex(1)), Some(("B2", at(2))));
        assert_eq!(world.tend.facts(NS).takes_ttl, Some(true));
        let answers = world.notes.iter().filter(|note| matches!(note, Note::Answers(_))).count();
        assert_eq!((answers, world.tend.problem(world.now)), (2, None));
    }

    #[test]
    fn a_quiet_cluster_is_asked_for_two_counters_a_second() {
        let mut world = pair();
        world.asked.clear();
        world.run_ms(3000);
        let basics = "node build peers-generation partition-generation ";
        assert_eq!(world.asked.len(), 6);
        assert!(world.asked.iter().all(|(_, commands)| commands == basics));
    }

    #[test]
    fn an_answer_is_held_against_what_was_asked_and_what_came_to_be_wanted_meanwhile_is_asked_next()
    {
        let more = |world: &World, alternate_addresses| {
            let mut more = TendSpec { alternate_addresses, ..world.tend.spec.clone() };
            more.namespaces.push((NamespaceId(1), "here".into()));
            more
        };
        let mut world = pair();
        world.run_ms(1000);
        let node = Target::Node(NodeIndex(0));
        let Step::Ask { address, commands } =
            world.tend.next(node, world.link(node), world.now.plus_ms(1000))
        else {
            panic!("it is due")
        };
        assert!(!commands.contains("peers-clear-std"), "{commands}");
        world.now = world.now.plus_ms(1000);
        world.tend.configure(more(&world, false), world.now);
        let body = b"node\tA1\nbuild\t7.0.0.1\npeers-generation\t1\npartition-generation\t1\n";
        assert_eq!(world.tend.answered(node, address, body, world.now), Ok(()));
        world.asked.clear();
        world.run_ms(0);
        let all = "node build peers-generation partition-generation replicas peers-clear-std \
                   namespace/there namespace/here ";
        assert!(world.asked.contains(&(at(1), all.into())), "{:?}", world.asked);

        // The same of a seed: what it was asked is no longer what is to be known.
        let mut world = World::new(&[], &[]);
        world.tend.configure(spec(&["10.0.0.1"]), world.now);
        let Step::Ask { address, .. } = world.tend.next(Target::Seeds, None, world.now) else {
            panic!("it is due")
        };
        world.tend.configure(more(&world, true), world.now);
        assert_eq!(world.tend.answered(Target::Seeds, address, body, world.now), Ok(()));
        assert_eq!(world.tend.problem(world.now), None);
        let again = world.tend.next(Target::Seeds, Some(address), world.now);
        assert!(
            matches!(again, Step::Ask { commands, .. } if commands.contains("peers-clear-alt"))
        );
    }

    #[test]
    fn moved_partitions_are_seen_within_a_period_and_at_once_when_poked() {
        let mut world = pair();
        let hand_over = |world: &mut World| {
            let one = world.nodes.get_mut(&at(1)).unwrap();
            (one.owns, one.partition_generation) = (|_| false, 2);
            let other = world.nodes.get_mut(&at(2)).unwrap();
            (other.owns, other.partition_generation) = (|_| true, 2);
        };
        world.run_ms(300);
        hand_over(&mut world);
        world.tend.poke(world.now);
        world.asked.clear();
        world.run_ms(0);
        assert_eq!(world.masters(&[0, 4095]), ["B2", "B2"]);
        assert!(world.asked.iter().any(|(_, asked)| asked == "partition-generation replicas "));
        world.tend.poke(world.now);
        world.asked.clear();
        world.run_ms(99);
        assert!(world.asked.is_empty(), "not again within a tenth of a second");

        let mut world = pair();
        hand_over(&mut world);
        world.run_ms(1000);
        assert_eq!(world.masters(&[0, 4095]), ["B2", "B2"]);
    }

    #[test]
    fn nobody_masters_what_was_given_up_and_not_taken_by_the_next_look() {
        let mut world = pair();
        let one = world.nodes.get_mut(&at(1)).unwrap();
        (one.owns, one.partition_generation) = (|p| p == 1, 2);
        world.run_ms(1000);
        assert_eq!(world.masters(&[0, 1]), ["A1", "A1"], "it may still hand requests on");
        world.run_ms(1000);
        assert_eq!(world.masters(&[0, 1]), ["", "A1"]);
    }

    #[test]
    fn a_node_that_fails_stays_while_listed_and_goes_when_not() {
        let mut world = pair();
        let gone = world.nodes.remove(&at(2)).unwrap();
        world.run_ms(30_000);
        assert_eq!(world.ids(), ["A1", "B2"], "its peer vouches for it");
        assert_eq!(world.tend.node(NodeIndex(1)), None, "but it does not answer");
        assert!(world.tend.is_answered() && !world.tend.all_answer());
        assert!(world.tend.problem(world.now).is_some());

        let one = world.nodes.get_mut(&at(1)).unwrap();
        (one.peers, one.peers_generation) = ("2,3000,[]".into(), 2);
        (one.owns, one.partition_generation) = (|_| true, 2);
        world.run_ms(1000);
        assert_eq!(world.ids(), ["A1"]);
        assert_eq!(world.masters(&[4095]), ["A1"]);
        assert!(world.notes.contains(&Note::Lost(NodeIndex(1))));

        world.nodes.insert(at(2), gone);
        let one = world.nodes.get_mut(&at(1)).unwrap();
        (one.peers, one.peers_generation) = ("3,3000,[[B2,,[10.0.0.2]]]".into(), 3);
        world.run_ms(1000);
        assert_eq!(world.ids(), ["A1", "B2"]);
        let held =
            matches!(world.tend.nodes[..], [NodeSlot::Held(_), NodeSlot::Gone, NodeSlot::Held(_)]);
        assert!(held, "the index is not given out before it is released");
        world.tend.release(NodeIndex(1));
        assert!(matches!(world.tend.nodes[1], NodeSlot::Free));
        let listed = world.tend.held(NodeIndex(0)).unwrap().peers;
        assert!(listed.contains(NodeIndex(2)) && !listed.contains(NodeIndex(1)));
    }

    #[test]
    fn a_healthy_node_that_nobody_lists_and_that_owns_nothing_goes() {
        let mut world = pair();
        let one = world.nodes.get_mut(&at(1)).unwrap();
        (one.peers, one.peers_generation) = ("2,3000,[]".into(), 2);
        world.run_ms(1000);
        assert_eq!(world.ids(), ["A1", "B2"], "it still owns partitions");
        let other = world.nodes.get_mut(&at(2)).unwrap();
        (other.owns, other.partition_generation) = (|_| false, 2);
        world.run_ms(2000);
        assert_eq!(world.ids(), ["A1"]);
    }

    #[test]
    fn when_none_answers_the_seeds_are_asked_too_with_growing_pauses() {
        let mut world = World::new(&["10.0.0.9", "10.0.0.1"], &[(1, fake("A1", "", |_| true))]);
        assert_eq!(world.masters(&[0]), ["A1"]);
        let one = world.nodes.remove(&at(1)).unwrap();
        world.run_ms(15_000);
        assert_eq!(world.tend.node(NodeIndex(0)), None, "it does not answer");
        assert!(!world.tend.is_answered() && world.tend.problem(world.now).is_some());
        assert!(world.notes.contains(&Note::NoneAnswers));
        world.asked.clear();
        world.run_ms(20_000);
        assert_eq!(world.asked.len(), 40 + 80, "the node and two seeds every half second");
        world.nodes.insert(at(1), one);
        world.run_ms(500);
        assert_eq!(world.tend.node(NodeIndex(0)), Some(("A1", at(1))));
        assert_eq!(world.masters(&[0]), ["A1"]);
        let lost = world.notes.iter().any(|note| matches!(note, Note::Lost(_)));
        assert!(!lost, "it was stopped for a while; nothing says that it was restarted");
        world.asked.clear();
        world.run_ms(5000);
        assert!(world.asked.iter().all(|(address, _)| *address == at(1)), "seeds have rest");
    }

    #[test]
    fn what_seeds_said_while_none_answered_is_over_when_a_node_answers_again() {
        let mut world = World::new(&["10.0.0.1"], &[(1, fake("A1", "", |_| true))]);
        let one = world.nodes.remove(&at(1)).unwrap();
        world.run_ms(2000);
        assert_eq!(world.tend.problem(world.now), Some("refused"));
        world.nodes.insert(at(1), one);
        // The node is asked before the seeds are, which then have rest.
        world.running = vec![Target::Node(NodeIndex(0))];
        world.run_ms(1000);
        world.running.push(Target::Seeds);
        world.run_ms(1000);
        assert_eq!((world.tend.is_answered(), world.tend.problem(world.now)), (true, None));
    }

    #[test]
    fn a_node_for_which_there_was_no_room_is_told_and_taken_once_there_is() {
        let list: Vec<String> =
            (0..NODE_COUNT_MAX).map(|n| format!("[C{n:X},,[10.9.9.9]]")).collect();
        let listing = fake("A1", &list.join(","), |_| true);
        let mut world = World::new(&["10.0.0.1"], &[(1, listing)]);
        assert_eq!(world.ids().len(), NODE_COUNT_MAX);
        let problem = |world: &World| world.tend.problem(world.now).unwrap_or_default().to_owned();
        world.run_ms(3000);
        assert!(problem(&world).contains("refused") || problem(&world).contains("ignored"));
        let one = world.nodes.get_mut(&at(1)).unwrap();
        (one.peers, one.peers_generation) = ("2,3000,[[B2,,[10.0.0.2]]]".into(), 2);
        world.nodes.insert(at(2), fake("B2", "[A1,,[10.0.0.1]]", |_| false));
        world.run_ms(2000);
        for slot in 1..NODE_COUNT_MAX {
            world.tend.release(NodeIndex(slot as u16));
        }
        world.run_ms(2000);
        assert_eq!((world.ids(), world.tend.problem(world.now)), (vec!["A1", "B2"], None));
    }

    #[test]
    fn of_an_endless_list_of_peers_nothing_is_taken_or_kept() {
        let list: Vec<String> = (0..2000).map(|n| format!("[C{n:X},,[10.9.9.9]]")).collect();
        let mut world = World::new(&["10.0.0.1"], &[(1, fake("A1", &list.join(","), |_| true))]);
        let problem = world.tend.problem(world.now).unwrap_or_default();
        assert!(problem.starts_with("10.0.0.1:3000: answered peers-clear-std with"), "{problem}");
        assert_eq!(world.ids(), ["A1"]);
        let one = world.nodes.get_mut(&at(1)).unwrap();
        let many = list[..1000].join(",");
        (one.peers, one.peers_generation) = (format!("2,3000,[{many}]"), 2);
        world.run_ms(2000);
        assert_eq!(world.ids().len(), NODE_COUNT_MAX);
        let listed = world.tend.held(NodeIndex(0)).unwrap().peers;
        let count = (0..NODE_COUNT_MAX).filter(|at| listed.contains(NodeIndex(*at as u16))).count();
        assert_eq!(count, NODE_COUNT_MAX - 1);
    }

    #[test]
    fn nodes_and_addresses_without_number_are_tried_one_after_the_other() {
        let hosts: Vec<String> = (0..200).map(|n| format!("10.9.8.{n}")).collect();
        let hosts = hosts.join(",");
        let list: Vec<String> = (0..250).map(|n| format!("[C{n:X},,[{hosts}]]")).collect();
        let listing = fake("A1", &list.join(","), |_| true);
        let mut world = World::new(&["10.0.0.1"], &[(1, listing)]);
        let tried =
            |world: &World| world.asked.iter().filter(|(address, _)| *address != at(1)).count();
        assert!(tried(&world) <= 40, "{} at once", tried(&world));
        world.asked.clear();
        world.run_ms(10_000);
        assert!((500..1100).contains(&tried(&world)), "{} in 10 s", tried(&world));
        assert!(world.asked.iter().filter(|(address, _)| *address == at(1)).count() >= 10);
    }

    #[test]
    fn a_single_node_that_comes_back_elsewhere_is_found_through_its_seed() {
        let mut world = World::new(&["dc.example"], &[(1, fake("A1", "", |_| true))]);
        world.names.insert("dc.example".into(), vec![at(1)]);
        world.run_ms(1000);
        assert_eq!(world.tend.node(NodeIndex(0)), Some(("A1", at(1))));
        let one = world.nodes.remove(&at(1)).unwrap();
        world.run_ms(5000);
        world.nodes.insert(at(5), one);
        world.names.insert("dc.example".into(), vec![at(5)]);
        world.run_ms(1000);
        assert_eq!(world.tend.node(NodeIndex(0)), Some(("A1", at(5))));
        assert_eq!(world.ids(), ["A1"]);
    }

    #[test]
    fn a_peer_listed_without_an_address_neither_blocks_the_seeds_nor_loses_a_good_one() {
        let listing = fake("A1", "[B2,,[]],[,,[10.0.0.7]]", |_| true);
        let mut world = World::new(&["10.0.0.1"], &[(1, listing)]);
        assert_eq!(world.ids(), ["A1"]);
        let one = world.nodes.remove(&at(1)).unwrap();
        world.run_ms(22_000);
        world.nodes.insert(at(1), one);
        world.run_ms(1000);
        assert_eq!(world.masters(&[0]), ["A1"], "asked again");

        let mut world = pair();
        let one = world.nodes.get_mut(&at(1)).unwrap();
        (one.peers, one.peers_generation) = ("2,3000,[[B2,,[]]]".into(), 2);
        world.run_ms(2000);
        let other = world.nodes.remove(&at(2)).unwrap();
        world.run_ms(5000);
        world.nodes.insert(at(2), other);
        world.run_ms(2000);
        assert_eq!(world.tend.node(NodeIndex(1)), Some(("B2", at(2))), "its good address stays");
    }

    #[test]
    fn another_id_at_the_same_address_replaces_a_single_node_at_once() {
        let mut world = World::new(&["10.0.0.1"], &[(1, fake("A1", "", |_| true))]);
        world.nodes.insert(at(1), fake("C3", "", |_| true));
        world.run_ms(1000);
        assert_eq!((world.ids(), world.masters(&[0])), (vec!["C3"], vec!["C3"]));
    }

    #[test]
    fn names_are_resolved_and_nodes_that_move_are_followed() {
        let mut world = World::new(&["dc.example"], &[]);
        assert_eq!(world.tend.problem(world.now), Some("dc.example has no address"));
        world.names.insert("dc.example".into(), vec![at(8), at(1)]);
        world.nodes.insert(at(1), fake("A1", "[B2,,[b.example]]", |_| false));
        world.nodes.insert(at(2), fake("B2", "[A1,,[10.0.0.1]]", |_| true));
        world.names.insert("b.example".into(), vec![at(2)]);
        world.run_ms(2000);
        assert_eq!(world.tend.node(NodeIndex(1)), Some(("B2", at(2))));
        let moved = world.nodes.remove(&at(2)).unwrap();
        world.nodes.insert(at(5), moved);
        world.names.insert("b.example".into(), vec![at(5)]);
        world.run_ms(3000);
        assert_eq!(world.tend.node(NodeIndex(1)), Some(("B2", at(5))));
    }

    #[test]
    fn an_address_that_answers_as_another_node_each_time_is_asked_a_few_times_a_second_and_told() {
        let mut world = World::new(&["10.0.0.1"], &[(1, fake("A1", "", |_| true))]);
        (world.balanced, world.connects) = (true, 0);
        for _ in 0..10_000 {
            // As shipping connections do, which reach another node as well.
            world.tend.poke(world.now);
            world.run_ms(1);
        }
        assert!((30..=60).contains(&world.connects), "{} connections", world.connects);
        let problem = world.tend.problem(world.now).unwrap_or_default();
        assert!(problem.starts_with("10.0.0.1:3000 answers as several nodes"), "{problem}");

        world.balanced = false;
        world.run_ms(11_000);
        assert_eq!((world.tend.is_answered(), world.tend.problem(world.now)), (true, None));
    }

    /// A node that lists so many others at its own address.
    fn crowded(others: usize) -> World {
        let list: Vec<String> = (0..others).map(|n| format!("[N{n},,[10.0.0.1]]")).collect();
        let mut world = World::new(&["10.0.0.1"], &[(1, fake("A1", &list.join(","), |_| true))]);
        // Whenever several may ask, the one that is there is the last to.
        world.running.reverse();
        world.run_ms(10_000);
        world
    }

    #[test]
    fn a_node_is_reached_however_many_others_are_listed_at_its_address() {
        for others in [4, 40, 255] {
            let mut world = crowded(others);
            let problem = world.tend.problem(world.now).unwrap_or_default();
            assert!(problem.starts_with("10.0.0.1:3000: node N"), "{problem}");
            assert!(problem.contains(", node A1 answered: correct the address"), "{problem}");
            for cut in 0..5 {
                world.links.clear();
                world.tend.failed(Target::Node(NodeIndex(0)), "closed", world.now);
                world.run_ms(3500);
                assert!(world.tend.node(NodeIndex(0)).is_some(), "{others} others, cut {cut}");
                // What ships there connects as well.
                let shipping = Caller::Shipping(NodeIndex(0));
                let turn = world.tend.connect(shipping, at(1), world.now);
                assert!(turn <= Err(world.now.plus_ms(600)), "{others} others: {turn:?}");
            }
        }
    }

    #[test]
    fn a_node_listed_at_another_address_than_that_of_a_crowd_is_found_there_soon() {
        let mut world = crowded(255);
        let other = fake("N254", "[A1,,[10.0.0.1]]", |_| false);
        world.nodes.insert(at(2), other);
        let list: Vec<String> = (0..254).map(|n| format!("[N{n},,[10.0.0.1]]")).collect();
        let one = world.nodes.get_mut(&at(1)).unwrap();
        (one.peers, one.peers_generation) =
            (format!("2,3000,[{},[N254,,[10.0.0.2]]]", list.join(",")), 2);
        world.notes.clear();
        world.run_ms(5000);
        let moved = NodeIndex(255);
        assert!(world.notes.contains(&Note::Moved(moved)));
        assert_eq!(world.tend.node(moved), Some(("N254", at(2))));
        let one = world.nodes.get_mut(&at(1)).unwrap();
        (one.peers, one.peers_generation) = ("3,3000,[[N254,,[10.0.0.2]]]".into(), 3);
        world.run_ms(2000);
        assert_eq!((world.ids(), world.tend.problem(world.now)), (vec!["A1", "N254"], None));
    }

    #[test]
    fn an_address_that_others_share_gives_way_to_the_one_peers_list() {
        let shared = fake("A1", "[B2,,[10.0.0.2]]", |_| true);
        let listing = fake("B2", "[A1,,[10.0.0.1]]", |_| false);
        let direct = (1, shared.clone());
        let mut world = World::new(&["10.0.0.9"], &[(9, shared), (2, listing), direct]);
        assert_eq!(world.tend.node(NodeIndex(0)), Some(("A1", at(9))));
        world.tend.distrust(NodeIndex(0), at(9), "B2", world.now);
        assert_eq!(world.tend.node(NodeIndex(0)), Some(("A1", at(1))));
        world.tend.distrust(NodeIndex(0), at(9), "B2", world.now);
        world.run_ms(3000);
        assert_eq!(world.tend.node(NodeIndex(0)), Some(("A1", at(1))));
    }

    #[test]
    fn nodes_that_are_too_old_or_not_ready_or_talk_nonsense_are_not_used() {
        let check = |change: fn(&mut Fake), problem: &str| {
            let mut node = fake("A1", "", |_| true);
            change(&mut node);
            let world = World::new(&["10.0.0.1"], &[(1, node)]);
            assert_eq!(world.masters(&[0]), [""], "{problem}");
            assert!(world.tend.node(NodeIndex(0)).is_none());
            let found = world.tend.problem(world.now).unwrap_or_default();
            assert!(found.starts_with(&format!("10.0.0.1:3000: {problem}")), "{found}");
        };
        check(|node| node.build = "4.8.0.1", "build 4.8.0.1 is older than 4.9");
        check(|node| node.partition_generation = -1, "the node is not ready");
        check(|node| node.id = "ERROR:80:not authenticated", "answered node with");
        check(|node| node.peers = "nonsense".into(), "answered peers-clear-std with \"nonsense\"");
    }

    #[test]
    fn facts_are_looked_up_again_and_changes_are_noted() {
        let mut world = pair();
        for last in [1, 2] {
            world.nodes.get_mut(&at(last)).unwrap().namespace = "type=unknown";
        }
        world.notes.clear();
        world.run_ms(11_000);
        assert_eq!(world.tend.facts(NS).exists, Some(false));
        assert!(world.notes.contains(&Note::FactsChanged(NS)));
    }

    #[test]
    fn a_changed_specification_keeps_nodes_that_still_belong() {
        let mut world = pair();
        let mut renamed = spec(&["10.0.0.1", "10.0.0.2"]);
        renamed.namespaces.push((NamespaceId(1), "there".into()));
        world.tend.configure(renamed, world.now);
        world.run_ms(0);
        let both = world.tend.route(NamespaceId(1), PartitionId::new(0));
        assert_eq!((world.ids().len(), both), (2, Some(NodeIndex(0))));

        world.tend.configure(spec(&["10.0.0.7"]), world.now);
        world.run_ms(0);
        assert!(world.ids().is_empty());
        assert_eq!(world.running, [Target::Seeds]);
        world.tend.configure(TendSpec::default(), world.now);
        world.run_ms(60_000);
    }
}
