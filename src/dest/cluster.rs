//! A destination cluster as one (DC, shard) uses it: route, send, drain.
//!
//! Tasks: one conversation with the seeds, and for each node one conversation (info commands), one
//! sender and one receiver. All live as long as what they serve; none holds a lock or crosses
//! shards. Their rules are in [`super::tend`] and [`super::pipeline`].

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::Deref;
use std::rc::Rc;

use crate::model::{NamespaceId, PartitionId, SrcId, Tick};
use crate::rt::event::Event;
use crate::rt::shard::{Queue, spawn};
use crate::wire::hello::{Hello, HelloAnswer};

use super::connection::{Connection, Fault, now};
use super::inbox::{Inbox, Notice, Reboot, Traffic};
use super::link::{Link, LinkError, Patience, open};
use super::pipeline::{Outgoing, Reply, Window};
use super::places::Resolver;
use super::tend::{Note, Step, Target, Tend, TendSpec};
use super::{NODE_COUNT_MAX, NamespaceFacts, NodeIndex};

/// First and longest pause before a connection is tried again.
const PAUSE_MS_MIN: u64 = 50;
const PAUSE_MS_MAX: u64 = 2000;
/// A connection that held this long starts the pauses over.
const HELD_MS: u64 = 5000;

/// Who ships, as the hello says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Random id of this process's storage.
    pub origin: u64,
    /// This cluster's `src-id`.
    pub src_id: SrcId,
    /// The DC's name.
    pub dc: String,
    /// This shard.
    pub shard: u16,
    /// Every hello says a higher epoch than the one before; the first says this plus one. Must be
    /// above all that earlier runs of the process said, so take wall-clock microseconds.
    pub epoch: u64,
}

/// Everything a cluster is started with.
pub struct Setup {
    /// What is to be reached.
    pub spec: TendSpec,
    /// Who ships.
    pub identity: Identity,
    /// What may be under way to one node.
    pub window: Window,
    /// How long to wait for a peer.
    pub patience: Patience,
    /// Resolves host names off the shard.
    pub resolver: Rc<dyn Resolver>,
    /// Set whenever there is something to drain, and when a socket became free.
    pub wake: Event,
}

/// Where a record could go right now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// To this node, which has room.
    Open(NodeIndex),
    /// To this node, whose window is full: wait.
    Full(NodeIndex),
    /// To this node, to which there is no connection at the moment.
    Down(NodeIndex),
    /// No node is known to master the partition.
    NoNode,
}

/// A handle; clones are the same cluster. `B` is the batch buffer.
pub struct Cluster<B>(Rc<Inner<B>>);

impl<B> Clone for Cluster<B> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

struct Inner<B> {
    tend: RefCell<Tend>,
    inbox: Rc<Inbox<B>>,
    /// By index; slots of nodes that are gone keep their last holder until the next.
    nodes: RefCell<Vec<Option<Rc<Node<B>>>>>,
    seeds: Event,
    boots: RefCell<VecDeque<Boot>>,
    identity: Identity,
    epoch: Cell<u64>,
    window: Window,
    patience: Patience,
    resolver: Rc<dyn Resolver>,
    stopped: Cell<bool>,
}

struct Node<B> {
    connection: Rc<Connection<B>>,
    /// Wakes its conversation.
    tend: Event,
    /// Of: conversation ended, sender ended, notice of its going drained.
    ends: Cell<u8>,
}

/// What a node said when it was last connected.
struct Boot {
    id: String,
    address: SocketAddr,
    hello: HelloAnswer,
    last_answer: Option<Tick>,
}

impl<B: Deref<Target = [u8]> + 'static> Cluster<B> {
    /// Begins to look for the destination. Call on the shard that will use it.
    pub fn start(setup: Setup) -> Self {
        let Setup { spec, identity, window, patience, resolver, wake } = setup;
        let cluster = Self(Rc::new(Inner {
            tend: RefCell::new(Tend::new(spec)),
            inbox: Rc::new(Inbox::new(wake)),
            nodes: RefCell::default(),
            seeds: Event::new(),
            boots: RefCell::default(),
            epoch: Cell::new(identity.epoch),
            identity,
            window,
            patience,
            resolver,
            stopped: Cell::new(false),
        }));
        cluster.0.publish();
        spawn(
            Queue::Sockets,
            Rc::clone(&cluster.0).converse(Target::Seeds, cluster.0.seeds.clone()),
        );
        cluster
    }

    /// Takes changed seeds, namespaces or names of them.
    pub fn configure(&self, spec: TendSpec) {
        self.0.tend.borrow_mut().configure(spec, now());
        self.0.publish();
        self.0.seeds.set();
        self.0.nodes.borrow().iter().flatten().for_each(|node| node.tend.set());
    }

    /// Takes no more batches, lets every connection drain and closes it. [`Notice::Gone`] comes for
    /// each node; nothing happens after the last.
    pub fn stop(&self) {
        self.0.stopped.set(true);
        self.configure(TendSpec::default());
    }

    /// Where a record of this partition could go right now.
    #[inline]
    pub fn route(&self, namespace: NamespaceId, partition: PartitionId) -> Route {
        let Some(node) = self.0.tend.borrow().route(namespace, partition) else {
            return Route::NoNode;
        };
        let nodes = self.0.nodes.borrow();
        match nodes.get(node.index()) {
            Some(Some(held)) if held.connection.is_up() => {
                if held.connection.has_room() {
                    Route::Open(node)
                } else {
                    Route::Full(node)
                }
            }
            _ => Route::Down(node),
        }
    }

    /// Gives a node a batch: whole frames in the first `bytes` of the buffer, and one tag for each,
    /// in order. Without a connection or without room the batch comes back. Copies the tags.
    pub fn send(
        &self,
        node: NodeIndex,
        batch: Outgoing<B>,
        tags: &[u32],
    ) -> Result<(), Outgoing<B>> {
        match self.0.connection(node) {
            Some(connection) => connection.push(batch, tags),
            None => Err(batch),
        }
    }

    /// Whether no batch waits for the node's socket: a part-filled one may as well leave now.
    #[inline]
    pub fn is_free(&self, node: NodeIndex) -> bool {
        self.0.connection(node).is_some_and(|one| one.is_up() && one.pipeline().is_drained())
    }

    /// Moves out replies and notices, in the order they came. Cheap when `replies` is empty: the
    /// vectors change places.
    pub fn drain(&self, replies: &mut Vec<Reply>, notices: &mut Vec<Notice>) {
        let mut came = self.0.inbox.replies.borrow_mut();
        if replies.is_empty() {
            std::mem::swap(&mut *came, replies);
        } else {
            replies.append(&mut came);
        }
        let from = notices.len();
        notices.append(&mut self.0.inbox.notices.borrow_mut());
        for notice in &notices[from..] {
            if let Notice::Gone { node } = notice {
                self.0.end_one(*node);
            }
        }
    }

    /// A buffer whose batch has left.
    pub fn take_spare(&self) -> Option<B> {
        self.0.inbox.spare.borrow_mut().pop()
    }

    /// Something hints at a stale map: asks the nodes again, at most ten times a second.
    pub fn poke(&self) {
        self.0.poke();
    }

    /// Ends the connection to a node, which then is opened anew. What it owes comes back with
    /// [`Notice::Down`].
    pub fn cut(&self, node: NodeIndex, why: &'static str) {
        if let Some(connection) = self.0.connection(node) {
            connection.end(Fault::Cut(why));
        }
    }

    /// The node that has owed a reply for longest, and since when.
    pub fn oldest_unanswered(&self) -> Option<(NodeIndex, Tick)> {
        let nodes = self.0.nodes.borrow();
        let owing = nodes.iter().enumerate().filter_map(|(index, node)| {
            let begun = node.as_ref()?.connection.pipeline().oldest_begun()?;
            Some((NodeIndex(index as u16), begun))
        });
        owing.min_by_key(|&(_, begun)| begun)
    }

    /// Records and bytes under way, all nodes together.
    pub fn under_way(&self) -> (usize, usize) {
        let nodes = self.0.nodes.borrow();
        nodes.iter().flatten().fold((0, 0), |(records, bytes), node| {
            let pipeline = node.connection.pipeline();
            (records + pipeline.records(), bytes + pipeline.bytes())
        })
    }

    /// Nodes that take batches.
    pub fn nodes(&self) -> usize {
        let nodes = self.0.nodes.borrow();
        nodes.iter().flatten().filter(|node| node.connection.is_up()).count()
    }

    /// What the destination says of a namespace.
    pub fn facts(&self, namespace: NamespaceId) -> NamespaceFacts {
        self.0.tend.borrow().facts(namespace)
    }

    /// Why nothing answers, if nothing does; for people.
    pub fn problem(&self) -> Option<String> {
        self.0.tend.borrow().problem().map(str::to_owned)
    }

    /// Counts since the start.
    pub fn traffic(&self) -> Traffic {
        self.0.inbox.traffic.get()
    }
}

impl<B: Deref<Target = [u8]> + 'static> Inner<B> {
    /// One conversation: whatever its rules say next, done.
    async fn converse(self: Rc<Self>, target: Target, woken: Event) {
        let mut link = None;
        loop {
            let step = self.tend.borrow_mut().next(target, now());
            match step {
                Step::Resolve { host, port } => self.resolve(target, &host, port).await,
                Step::Ask { address, commands } => {
                    self.ask(target, &mut link, address, &commands).await;
                }
                Step::Wait { until } if !(target == Target::Seeds && self.stopped.get()) => {
                    if target == Target::Seeds {
                        link = None;
                    }
                    woken.wait_until(until.0).await;
                }
                Step::Wait { .. } | Step::Stop => break,
            }
            self.publish();
        }
        if let Target::Node(node) = target {
            self.end_one(node);
        }
    }

    async fn resolve(&self, target: Target, host: &str, port: u16) {
        let resolved = self.resolver.resolve(host, port).await;
        let mut tend = self.tend.borrow_mut();
        match resolved {
            Ok(addresses) => tend.resolved(target, host, &addresses, now()),
            Err(error) => tend.failed(target, &format!("cannot resolve {host}: {error}"), now()),
        }
    }

    async fn ask(
        &self,
        target: Target,
        link: &mut Option<Link>,
        address: SocketAddr,
        commands: &str,
    ) {
        let good = match Self::exchange(link, address, commands, self.patience).await {
            Ok(body) => self.tend.borrow_mut().answered(target, address, body, now()).is_ok(),
            Err(error) => {
                self.tend.borrow_mut().failed(target, &error.to_string(), now());
                false
            }
        };
        if !good {
            *link = None;
        }
    }

    async fn exchange<'a>(
        link: &'a mut Option<Link>,
        address: SocketAddr,
        commands: &str,
        patience: Patience,
    ) -> Result<&'a [u8], LinkError> {
        if link.as_ref().is_none_or(|link| link.address() != address) {
            *link = Some(Link::connect(address, patience).await?);
        }
        link.as_mut().expect("connected above").ask(commands).await
    }

    /// Acts on what the rules found out, and passes it on.
    fn publish(self: &Rc<Self>) {
        let mut notes = Vec::new();
        self.tend.borrow_mut().drain_notes(&mut notes);
        for note in notes {
            match note {
                Note::Found(node) => self.begin(node),
                Note::Answers(node) => {
                    if let Some(connection) = self.connection(node) {
                        connection.work.set();
                    }
                }
                Note::Lost(index) => {
                    if let Some(node) = self.node(index) {
                        node.connection.retire();
                        node.tend.set();
                    }
                    self.seeds.set();
                }
                Note::MapChanged => self.inbox.notify(Notice::MapChanged),
                Note::FactsChanged(namespace) => {
                    self.inbox.notify(Notice::FactsChanged(namespace));
                }
            }
        }
    }

    /// Starts the tasks of a node just found.
    fn begin(self: &Rc<Self>, index: NodeIndex) {
        let connection = Rc::new(Connection::new(self.window, Rc::clone(&self.inbox)));
        let tend = Event::new();
        let node = Rc::new(Node { connection, tend: tend.clone(), ends: Cell::new(0) });
        let mut nodes = self.nodes.borrow_mut();
        if nodes.len() <= index.index() {
            nodes.resize_with(index.index() + 1, || None);
        }
        nodes[index.index()] = Some(Rc::clone(&node));
        spawn(Queue::Sockets, Rc::clone(&node.connection).receive());
        spawn(Queue::Sockets, Rc::clone(self).ship(index, node));
        spawn(Queue::Sockets, Rc::clone(self).converse(Target::Node(index), tend));
    }

    /// A node's sender: connects, carries batches, connects again, until the node is gone.
    async fn ship(self: Rc<Self>, index: NodeIndex, node: Rc<Node<B>>) {
        let connection = &node.connection;
        let mut pause_ms = PAUSE_MS_MIN;
        while !connection.is_retired() {
            let found = self.tend.borrow().node(index).map(|(id, at)| (id.to_owned(), at));
            let Some((id, address)) = found else {
                connection.work.wait().await;
                continue;
            };
            let begun = now();
            let opened = open(&id, address, self.patience, self.hello()).await;
            match opened {
                Ok(opened) if !connection.is_retired() => {
                    self.came_up(index, &id, address, opened.hello);
                    let (fault, unanswered) = connection.carry(opened.socket).await;
                    self.went_down(index, &id, connection.last_answer());
                    if !matches!(fault, Fault::Drained) {
                        self.inbox.count(|traffic| traffic.losses += 1);
                    }
                    tracing::info!(dc = self.identity.dc, node = id, "connection ended: {fault}");
                    self.inbox.notify(Notice::Down { node: index, fault, unanswered });
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(dc = self.identity.dc, node = id, "{error}");
                }
            }
            self.poke();
            if now() >= begun.plus_ms(HELD_MS) {
                pause_ms = PAUSE_MS_MIN;
            }
            let until = now().plus_ms(pause_ms);
            while !connection.is_retired() && connection.work.wait_until(until.0).await {}
            pause_ms = (pause_ms * 2).min(PAUSE_MS_MAX);
        }
        self.inbox.notify(Notice::Gone { node: index });
        self.end_one(index);
    }

    fn hello(&self) -> Hello<'_> {
        let Identity { origin, src_id, dc, shard, .. } = &self.identity;
        self.epoch.set(self.epoch.get() + 1);
        Hello { origin: *origin, src_id: *src_id, dc, shard: *shard, epoch: self.epoch.get() }
    }

    /// Compares boot ids and announces the connection. A node with a new id at a known address took
    /// the place of the one that was there.
    fn came_up(&self, index: NodeIndex, id: &str, address: SocketAddr, hello: Option<HelloAnswer>) {
        self.inbox.count(|traffic| traffic.connects += 1);
        if let Some(hello) = hello {
            let mut boots = self.boots.borrow_mut();
            let by_id = boots.iter().position(|boot| boot.id == id);
            let known = by_id.or_else(|| boots.iter().position(|boot| boot.address == address));
            let mut last_answer = None;
            if let Some(before) = known.and_then(|at| boots.remove(at)) {
                last_answer = before.last_answer;
                if before.hello.boot != hello.boot {
                    self.inbox.notify(Notice::Rebooted(Reboot {
                        node: index,
                        previous_boot: before.hello.boot,
                        boot: hello.boot,
                        last_answer: last_answer.take(),
                        loss_window_ms: before.hello.loss_window_ms.max(hello.loss_window_ms),
                        src_id: hello.src_id,
                    }));
                }
            }
            boots.push_back(Boot { id: id.to_owned(), address, hello, last_answer });
            if boots.len() > 2 * NODE_COUNT_MAX {
                boots.pop_front();
            }
        }
        tracing::info!(dc = self.identity.dc, node = id, %address, "connected");
        self.inbox.notify(Notice::Up { node: index, hello });
    }

    fn went_down(&self, _index: NodeIndex, id: &str, last_answer: Option<Tick>) {
        let mut boots = self.boots.borrow_mut();
        if let Some(boot) = boots.iter_mut().find(|boot| boot.id == id) {
            boot.last_answer = boot.last_answer.max(last_answer);
        }
    }

    fn poke(&self) {
        self.tend.borrow_mut().poke(now());
        self.nodes.borrow().iter().flatten().for_each(|node| node.tend.set());
    }

    /// One of the three ends of a node that is gone; after the last its index is free.
    fn end_one(&self, index: NodeIndex) {
        let Some(node) = self.node(index) else { return };
        node.ends.set(node.ends.get() + 1);
        if node.ends.get() == 3 {
            self.nodes.borrow_mut()[index.index()] = None;
            self.tend.borrow_mut().release(index);
        }
    }

    fn node(&self, index: NodeIndex) -> Option<Rc<Node<B>>> {
        self.nodes.borrow().get(index.index()).cloned().flatten()
    }

    fn connection(&self, index: NodeIndex) -> Option<Rc<Connection<B>>> {
        self.node(index).map(|node| Rc::clone(&node.connection))
    }
}
