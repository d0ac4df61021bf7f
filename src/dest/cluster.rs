//! A destination cluster as one (DC, shard) uses it: route, send, drain.
//!
//! The rules are in [`super::tend`] and [`super::pipeline`], the tasks in `tasks`.

use std::cell::{Cell, RefCell};
use std::ops::Deref;
use std::rc::{Rc, Weak};

use crate::limits::LOG_LINES_MAX;
use crate::model::{NamespaceId, PartitionId, SrcId, Tick};
use longship_rt::event::Event;
use longship_rt::metrics::LogBudget;
use longship_rt::shard::{Queue, spawn};

use super::NodeIndex;
use super::arrivals::{Arrivals, NodeEvent, Traffic};
use super::connection::now;
use super::fault::Fault;
use super::link::Patience;
use super::pipeline::{Outgoing, Reply, Window};
use super::source::ShipperIdentity;
use super::tasks::Inner;
use super::tend::{NamespaceFacts, Resolver, Target, Tend, TendSpec};

/// Everything a cluster is started with.
pub struct Setup {
    /// What is to be reached.
    pub spec: TendSpec,
    /// Who ships.
    pub identity: ShipperIdentity,
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

impl<B: Deref<Target = [u8]> + 'static> Cluster<B> {
    /// Begins to look for the destination. Call on the shard that will use it.
    pub fn start(setup: Setup) -> Self {
        let Setup { spec, identity, window, patience, resolver, wake } = setup;
        let cluster = Self(Rc::new(Inner {
            tend: RefCell::new(Tend::new(spec)),
            arrivals: Rc::new(Arrivals::new(wake)),
            nodes: RefCell::default(),
            seeds: Event::new(),
            boots: RefCell::default(),
            stream: Cell::new(identity.source.begin_stream()),
            src_id: Cell::new(identity.src_id),
            identity,
            window,
            patience,
            resolver,
            stopped: Cell::new(false),
            lines: LogBudget::of_lines(LOG_LINES_MAX),
            told: RefCell::default(),
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

    /// Takes no more batches, lets every connection drain and closes it, answered or not, after
    /// `patience_ms`. [`NodeEvent::Gone`] comes for each node; nothing happens after the last, and
    /// nothing of the cluster is left, whether or not anybody drains those notices.
    pub fn stop(&self, patience_ms: u64) {
        self.0.stopped.set(true);
        self.0.identity.source.end_stream(self.0.stream.get());
        self.configure(TendSpec::default());
        if self.0.nodes.borrow().iter().flatten().next().is_some() {
            let rest = Rc::downgrade(&self.0);
            spawn(Queue::Sockets, cut_after(rest, now().plus_ms(patience_ms)));
        }
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

    /// Whether there is a connection to the node, whose window is full.
    pub fn is_full(&self, node: NodeIndex) -> bool {
        self.0.connection(node).is_some_and(|one| one.is_up() && !one.has_room())
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

    /// Number of the connection to the node, if there is one.
    pub fn connection(&self, node: NodeIndex) -> Option<u64> {
        self.0.connection(node).and_then(|one| one.number())
    }

    /// Whether no batch waits for the node's socket: a part-filled one may as well leave now.
    #[inline]
    pub fn is_free(&self, node: NodeIndex) -> bool {
        self.0.connection(node).is_some_and(|one| one.is_up() && one.pipeline().is_drained())
    }

    /// Moves out replies and notices, in the order they came. Cheap when `replies` is empty: the
    /// vectors change places.
    pub fn drain(&self, replies: &mut Vec<Reply>, notices: &mut Vec<NodeEvent>) {
        let mut came = self.0.arrivals.replies.borrow_mut();
        if replies.is_empty() {
            std::mem::swap(&mut *came, replies);
        } else {
            replies.append(&mut came);
        }
        let from = notices.len();
        notices.append(&mut self.0.arrivals.notices.borrow_mut());
        for notice in &notices[from..] {
            if let NodeEvent::Gone { node } = notice {
                self.0.end_one(*node);
            }
        }
    }

    /// A buffer whose batch has left.
    pub fn take_spare(&self) -> Option<B> {
        self.0.arrivals.spare.borrow_mut().pop()
    }

    /// Changes who ships: every connection is opened anew, with a hello that says so.
    pub fn set_src_id(&self, src_id: SrcId) {
        if self.0.src_id.replace(src_id) != src_id {
            self.renew(|_| true, "our src-id changed");
        }
    }

    /// What is shipped here has changed: records may have come from another cluster of this shard,
    /// or go to one. A new stream begins. Every connection is opened anew, and nothing is sent
    /// before a hello has told the destination which streams there are now.
    pub fn begin_stream(&self) {
        let source = &self.0.identity.source;
        source.end_stream(self.0.stream.replace(source.begin_stream()));
        self.renew(|_| true, "what is shipped changed");
    }

    /// Opens the connections to some nodes anew, so that their hellos tell what is now.
    fn renew(&self, which: impl Fn(NodeIndex) -> bool, why: &'static str) {
        for (index, node) in self.0.nodes.borrow().iter().enumerate() {
            if let Some(node) = node.as_ref().filter(|_| which(NodeIndex(index as u16))) {
                node.connection.end(Fault::Renewed(why));
            }
        }
    }

    /// Something hints at a stale map: asks the nodes again, at most ten times a second.
    pub fn poke(&self) {
        self.0.poke();
    }

    /// Ends the connection to a node, which then is opened anew. What it owes comes back with
    /// [`NodeEvent::Down`].
    pub fn cut(&self, node: NodeIndex, why: &'static str) {
        if let Some(connection) = self.0.connection(node) {
            connection.end(Fault::Cut(why));
        }
    }

    /// Looks whether every connection that owes answers moves, and cuts those that do not. A
    /// connection moves when an answer comes, or when the destination's system takes more of the
    /// oldest unanswered batch. It is cut after 10 s without either; after a second if nothing is
    /// routed to its node any more. Call it about once a second and after
    /// [`NodeEvent::MapChanged`].
    pub fn look(&self, now: Tick) {
        let tend = self.0.tend.borrow();
        for (index, node) in self.0.nodes.borrow().iter().enumerate() {
            let is_left = || !tend.is_routed(NodeIndex(index as u16));
            if let Some(node) = node {
                node.connection.look(is_left, now);
            }
        }
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

    /// What a node calls itself.
    pub fn name(&self, node: NodeIndex) -> Option<String> {
        self.0.tend.borrow().id(node).map(str::to_owned)
    }

    /// Whether a node of that id is one of the destination's.
    pub fn knows(&self, id: &str) -> bool {
        self.0.tend.borrow().knows(id)
    }

    /// What the destination says of a namespace.
    pub fn facts(&self, namespace: NamespaceId) -> NamespaceFacts {
        self.0.tend.borrow().facts(namespace)
    }

    /// Another cluster of this shard has ended, with writes on their way: a hello of this one keeps
    /// them from arriving later, where the two reach the same node.
    pub fn fence_off(&self, ended: &Self) {
        let (tend, other) = (self.0.tend.borrow(), ended.0.tend.borrow());
        let ids: Vec<&str> = owing(&ended.0, &other);
        let is_shared = |node| tend.id(node).is_some_and(|id| ids.contains(&id));
        self.renew(is_shared, "another DC of the same destination was deleted");
    }

    /// What keeps some node from taking what is shipped, if something does; for people.
    pub fn problem(&self) -> Option<String> {
        let (now, tend) = (now(), self.0.tend.borrow());
        if let Some(problem) = tend.problem(now) {
            return Some(problem.to_owned());
        }
        let nodes = self.0.nodes.borrow();
        nodes.iter().enumerate().find_map(|(index, node)| {
            let id = tend.id(NodeIndex(index as u16))?;
            node.as_ref()?.problem(id, now)
        })
    }

    /// Counts since the start.
    pub fn traffic(&self) -> Traffic {
        self.0.arrivals.traffic.get()
    }
}

/// The nodes that writes of a cluster may still be on their way to.
fn owing<'t, B: Deref<Target = [u8]>>(inner: &Inner<B>, tend: &'t Tend) -> Vec<&'t str> {
    let nodes = inner.nodes.borrow();
    let owes = nodes.iter().enumerate().filter(|(_, node)| {
        node.as_ref()
            .is_some_and(|node| node.in_doubt.get() || node.connection.pipeline().records() > 0)
    });
    owes.filter_map(|(index, _)| tend.id(NodeIndex(index as u16))).collect()
}

/// Ends what connections of a stopped cluster are left then.
async fn cut_after<B: Deref<Target = [u8]> + 'static>(rest: Weak<Inner<B>>, until: Tick) {
    Event::new().wait_until(until.0).await;
    let Some(rest) = rest.upgrade() else { return };
    for node in rest.nodes.borrow().iter().flatten() {
        node.connection.end(Fault::Cut("stopped, and the destination does not answer"));
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::io;
    use std::net::SocketAddr;

    use crate::dest::SourceId;
    use crate::dest::stand_in::{Manner, NAMESPACE, StandIn, code_of, push_frame};
    use crate::dest::{Reboot, Resolving, Source, Unanswered};
    use crate::wire::hello::{HelloAnswer, Key};
    use longship_rt::shard::{ShardSpec, spawn_shard};

    use super::*;

    const NS: NamespaceId = NamespaceId(0);
    const PATIENCE_US: u64 = 20_000_000;

    fn on_a_shard<F: Future<Output = ()> + 'static>(body: impl FnOnce() -> F + Send + 'static) {
        let spec = ShardSpec { index: 0, core: None, name: "shard-0".into() };
        spawn_shard(spec, body).unwrap().join();
    }

    struct Names(Vec<SocketAddr>);

    impl Resolver for Names {
        fn resolve(&self, host: &str, _port: u16) -> Resolving {
            let known = if host == "dc.example" { Some(self.0.clone()) } else { None };
            Box::pin(async move { known.ok_or_else(|| io::ErrorKind::NotFound.into()) })
        }
    }

    /// An engine in miniature.
    struct Engine {
        cluster: Cluster<Vec<u8>>,
        wake: Event,
        replies: Vec<Reply>,
        notices: Vec<NodeEvent>,
        sent: u32,
    }

    fn spec(seeds: &[SocketAddr]) -> TendSpec {
        TendSpec {
            seeds: seeds.iter().map(|at| (at.ip().to_string(), at.port())).collect(),
            alternate_addresses: false,
            namespaces: vec![(NS, NAMESPACE.into())],
        }
    }

    fn source() -> Rc<Source> {
        let key = Key::from_seed([7; 32]).unwrap();
        Source::new(SourceId { key, process: 40, node: 0xB0 }, 0)
    }

    impl Engine {
        fn start(spec: TendSpec, window: Window, names: Vec<SocketAddr>) -> Self {
            Self::of(source(), spec, window, names)
        }

        fn of(source: Rc<Source>, spec: TendSpec, window: Window, names: Vec<SocketAddr>) -> Self {
            let identity = ShipperIdentity { source, src_id: SrcId(3), dc: "faraway".into() };
            let patience = Patience { connect_ms: 500, answer_ms: 100 };
            let (resolver, wake) = (Rc::new(Names(names)), Event::new());
            let setup = Setup { spec, identity, window, patience, resolver, wake: wake.clone() };
            let cluster = Cluster::start(setup);
            Self { cluster, wake, replies: Vec::new(), notices: Vec::new(), sent: 0 }
        }

        fn reaching(seeds: &[SocketAddr]) -> Self {
            Self::start(spec(seeds), Window::default(), Vec::new())
        }

        /// Drains until `done` gives something.
        async fn until<T>(&mut self, mut done: impl FnMut(&mut Self) -> Option<T>) -> T {
            let deadline_us = now().0 + PATIENCE_US;
            loop {
                let mut replies = Vec::new();
                self.cluster.drain(&mut replies, &mut self.notices);
                self.replies.append(&mut replies);
                if let Some(result) = done(self) {
                    return result;
                }
                let woken = self.wake.wait_until(deadline_us.min(now().0 + 10_000)).await;
                assert!(woken || now().0 < deadline_us, "waited long enough: {:?}", self.notices);
            }
        }

        async fn nodes(&mut self, count: usize) {
            self.until(|engine| (engine.cluster.nodes() == count).then_some(())).await;
        }

        /// Removes and gives the first notice that fits.
        async fn notice<T>(&mut self, fits: impl Fn(&mut NodeEvent) -> Option<T>) -> T {
            self.until(|engine| {
                let found = engine.notices.iter_mut().enumerate();
                let (at, result) = { found }.find_map(|(at, n)| Some((at, fits(n)?)))?;
                engine.notices.remove(at);
                Some(result)
            })
            .await
        }

        async fn down(&mut self) -> (Fault, Unanswered) {
            self.notice(|notice| match notice {
                NodeEvent::Down { fault, unanswered, .. } => {
                    let fault = std::mem::replace(fault, Fault::Drained);
                    Some((fault, std::mem::take(unanswered)))
                }
                _ => None,
            })
            .await
        }

        fn route(&self, partition: u16) -> Route {
            self.cluster.route(NS, PartitionId::new(partition))
        }

        /// Sends the next `records` as one batch.
        fn send(&mut self, node: NodeIndex, records: u32) -> bool {
            let tags: Vec<u32> = (self.sent..self.sent + records).collect();
            let mut buffer = self.cluster.take_spare().unwrap_or_default();
            buffer.clear();
            tags.iter().for_each(|&tag| push_frame(&mut buffer, tag, 150));
            let bytes = buffer.len();
            let sent = self.cluster.send(node, Outgoing { buffer, bytes }, &tags).is_ok();
            self.sent += if sent { records } else { 0 };
            sent
        }

        async fn answered(&mut self, count: usize) {
            self.until(|engine| (engine.replies.len() >= count).then_some(())).await;
            assert_eq!(self.replies.len(), count);
            for reply in self.replies.drain(..) {
                assert_eq!(reply.code, code_of(reply.tag));
            }
        }
    }

    fn longship(boot: u64) -> Option<HelloAnswer> {
        let (loss_window_ms, stores) = (10 * boot, Vec::new());
        Some(HelloAnswer { boot, loss_window_ms, src_id: SrcId(9), stores })
    }

    fn pair() -> (StandIn, StandIn) {
        let one = StandIn::start("A1", |p| p < 2048);
        let other = StandIn::start("B2", |p| p >= 2048);
        one.change(|state| state.peers = vec![("B2", other.address)]);
        other.change(|state| state.peers = vec![("A1", one.address)]);
        (one, other)
    }

    #[test]
    fn records_go_to_the_node_that_masters_their_partition() {
        on_a_shard(|| async {
            let (one, other) = pair();
            let mut engine = Engine::reaching(&[one.address]);
            assert_eq!(engine.route(0), Route::NoNode);
            engine.nodes(2).await;
            let (Route::Open(low), Route::Open(high)) = (engine.route(2047), engine.route(2048))
            else {
                panic!("both nodes take batches")
            };
            assert!(engine.send(low, 700) && engine.send(high, 300) && engine.send(low, 1));
            engine.answered(1001).await;
            assert_eq!(one.state().received, (0..700).chain([1000]).collect::<Vec<_>>());
            assert_eq!(other.state().received, (700..1000).collect::<Vec<_>>());
            let traffic = engine.cluster.traffic();
            assert_eq!((traffic.bytes_sent, traffic.batches_sent), (1001 * 150, 3));
            assert_eq!((traffic.bytes_received, traffic.replies), (1001 * 30, 1001));
            assert_eq!((traffic.round_trips.count, traffic.losses), (3, 0));
            assert_eq!(engine.cluster.under_way(), (0, 0));
            assert!(engine.cluster.take_spare().is_some());
            assert_eq!(engine.cluster.facts(NS).exists, Some(true));
        });
    }

    #[test]
    fn a_moved_partition_is_followed_when_poked() {
        on_a_shard(|| async {
            let (one, other) = pair();
            let mut engine = Engine::reaching(&[other.address]);
            engine.nodes(2).await;
            let before = engine.route(0);
            one.change(|state| (state.owns, state.partition_generation) = (|_| false, 2));
            other.change(|state| (state.owns, state.partition_generation) = (|_| true, 2));
            engine.notices.clear();
            engine.cluster.poke();
            engine.notice(|notice| matches!(notice, NodeEvent::MapChanged).then_some(())).await;
            engine.until(|engine| (engine.route(0) != before).then_some(())).await;
            assert_eq!(engine.route(0), engine.route(4095));
        });
    }

    #[test]
    fn a_restart_is_told_by_the_boot_id_before_the_node_is_up_again() {
        on_a_shard(|| async {
            let node = StandIn::start("A1", |_| true);
            node.change(|state| state.hello = longship(1));
            let mut engine = Engine::reaching(&[node.address]);
            let up = |notice: &mut NodeEvent| match notice {
                NodeEvent::Up { node, hello, .. } => Some((*node, hello.clone())),
                _ => None,
            };
            let (index, hello) = engine.notice(up).await;
            assert_eq!(hello, longship(1));
            assert!(engine.send(index, 5));
            engine.answered(5).await;
            let answered_by = now();

            node.cut_all();
            engine.down().await;
            engine.notice(up).await;
            let rebooted = |notice: &NodeEvent| matches!(notice, NodeEvent::Rebooted(_));
            assert!(!engine.notices.iter().any(rebooted), "the same boot id");

            node.change(|state| state.hello = longship(2));
            node.cut_all();
            engine.down().await;
            let reboot = engine
                .until(|engine| {
                    let at = engine
                        .notices
                        .iter()
                        .position(|n| matches!(n, NodeEvent::Rebooted(_) | NodeEvent::Up { .. }))?;
                    match engine.notices.remove(at) {
                        NodeEvent::Rebooted(reboot) => Some(reboot),
                        other => panic!("{other:?} came first"),
                    }
                })
                .await;
            assert!(reboot.last_answer.is_some_and(|tick| tick <= answered_by));
            let expected = Reboot {
                node: index,
                previous_boot: 1,
                boot: 2,
                last_answer: reboot.last_answer,
                loss_window_ms: 20,
                src_id: SrcId(9),
            };
            assert_eq!(reboot, expected);
            assert_eq!(engine.notice(up).await, (index, longship(2)));
            assert_eq!(node.state().epochs, [1, 2, 3]);
        });
    }

    #[test]
    fn another_node_at_the_same_address_is_a_reboot_of_the_former() {
        on_a_shard(|| async {
            let node = StandIn::start("A1", |_| true);
            node.change(|state| state.hello = longship(1));
            let mut engine = Engine::reaching(&[node.address]);
            engine.nodes(1).await;
            node.change(|state| (state.id, state.hello) = ("C3", longship(5)));
            node.cut_all();
            let gone = |notice: &mut NodeEvent| match notice {
                NodeEvent::Gone { node } => Some(*node),
                _ => None,
            };
            assert_eq!(engine.notice(gone).await, NodeIndex(0));
            let reboot = engine
                .notice(|notice| match notice {
                    NodeEvent::Rebooted(reboot) => Some(*reboot),
                    _ => None,
                })
                .await;
            assert_eq!((reboot.previous_boot, reboot.boot), (1, 5));
            engine.nodes(1).await;
            assert!(matches!(engine.route(0), Route::Open(_)));
        });
    }

    #[test]
    fn a_connection_cut_inside_a_batch_gives_back_what_was_not_answered_in_order() {
        on_a_shard(|| async {
            let node = StandIn::start("A1", |_| true);
            node.change(|state| state.manner = Manner::CutAfter(450));
            let mut engine = Engine::reaching(&[node.address]);
            engine.nodes(1).await;
            for _ in 0..4 {
                assert!(engine.send(NodeIndex(0), 200));
            }
            let (_, unanswered) = engine.down().await;
            let answered = engine.replies.len();
            assert!(answered <= 450);
            assert_eq!(unanswered.tags, (answered as u32..800).collect::<Vec<_>>());
            assert!(answered + unanswered.in_doubt >= 600, "three batches were begun for sure");
            assert_eq!(engine.cluster.under_way(), (0, 0));

            engine.replies.clear();
            node.change(|state| state.manner = Manner::Answer);
            engine.nodes(1).await;
            assert!(engine.send(NodeIndex(0), 10));
            engine.answered(10).await;
            assert_eq!(engine.cluster.traffic().losses, 1);
        });
    }

    #[test]
    fn a_reply_stream_that_cannot_be_followed_closes_the_connection() {
        on_a_shard(|| async {
            let node = StandIn::start("A1", |_| true);
            let mut engine = Engine::reaching(&[node.address]);
            for manner in [Manner::Garbage, Manner::Double] {
                node.change(|state| state.manner = manner);
                engine.nodes(1).await;
                assert!(engine.send(NodeIndex(0), 1));
                let (fault, unanswered) = engine.down().await;
                match manner {
                    Manner::Garbage => assert!(matches!(fault, Fault::Reply(_)), "{fault}"),
                    // Depending on how the two replies are read, one may still be matched.
                    _ => assert!(matches!(fault, Fault::Surplus(_)), "{fault}"),
                }
                assert_eq!(unanswered.tags.len() + engine.replies.len(), 1);
                engine.replies.clear();
                engine.sent = 0;
            }
        });
    }

    #[test]
    fn a_destination_that_does_not_answer_fills_the_window_and_can_be_cut() {
        on_a_shard(|| async {
            let node = StandIn::start("A1", |_| true);
            node.change(|state| state.manner = Manner::Stall);
            let window = Window { records: 2000, bytes: 64 << 20, batches_waiting: 64 };
            let mut engine = Engine::start(spec(&[node.address]), window, Vec::new());
            engine.nodes(1).await;
            for _ in 0..5 {
                assert!(engine.send(NodeIndex(0), 400));
            }
            assert_eq!(engine.route(0), Route::Full(NodeIndex(0)));
            assert!(!engine.send(NodeIndex(0), 1));
            engine.cluster.cut(NodeIndex(0), "a reply is overdue");
            let (fault, unanswered) = engine.down().await;
            assert!(matches!(fault, Fault::Cut("a reply is overdue")), "{fault}");
            assert_eq!(unanswered.tags.len(), 2000);

            engine.nodes(1).await;
            engine.sent = 0;
            assert!(engine.send(NodeIndex(0), 400));
            node.change(|state| state.manner = Manner::Answer);
            engine.answered(400).await;
            assert_eq!(engine.route(0), Route::Open(NodeIndex(0)));
        });
    }

    #[test]
    fn a_node_that_takes_all_it_is_sent_and_answers_nothing_is_told_and_cut() {
        on_a_shard(|| async {
            let node = StandIn::start("A1", |_| true);
            node.change(|state| state.manner = Manner::Stall);
            let mut engine = Engine::reaching(&[node.address]);
            engine.nodes(1).await;
            let (begun, mut sent) = (now(), 0);
            for s in 1..=10 {
                // A writer goes on, as far as it is let.
                let is_open = matches!(engine.route(0), Route::Open(_));
                sent += u64::from(is_open && engine.send(NodeIndex(0), 10));
                let taken = |engine: &mut Engine| {
                    let connection = engine.cluster.0.connection(NodeIndex(0))?;
                    let has_left = engine.cluster.traffic().batches_sent == sent;
                    (has_left && connection.is_taken()).then_some(())
                };
                engine.until(taken).await;
                engine.cluster.look(begun.plus_ms(1000 * s));
                let is_full = engine.route(0) == Route::Full(NodeIndex(0));
                assert!(is_full || s < 4, "after {s} s it is still sent to");
            }
            assert!(sent <= 4, "{sent}");
            let problem = engine.cluster.problem().unwrap_or_default();
            assert!(problem.contains("node A1 owes "), "{problem}");
            engine.cluster.look(begun.plus_ms(13_000));
            let (fault, unanswered) = engine.down().await;
            assert!(fault.to_string().contains("has sent none for 10 s"), "{fault}");
            assert_eq!(unanswered.tags.len() as u64, 10 * sent);
        });
    }

    #[test]
    fn a_connection_is_cut_once_nothing_has_moved_for_ten_seconds() {
        on_a_shard(|| async {
            let node = StandIn::start("A1", |_| true);
            node.change(|state| state.manner = Manner::Stall);
            let mut engine = Engine::reaching(&[node.address]);
            engine.nodes(1).await;
            engine.cluster.look(now().plus_ms(60_000));
            assert!(engine.send(NodeIndex(0), 400), "who owes nothing may be silent");
            let begun = |engine: &mut Engine| {
                let sent = engine.cluster.traffic().batches_sent;
                (sent == 1).then_some(())
            };
            engine.until(begun).await;
            // What its system has acknowledged meanwhile counts as a move.
            engine.cluster.look(now().plus_ms(2000));
            engine.cluster.look(now().plus_ms(9900));
            assert_eq!(engine.route(0), Route::Full(NodeIndex(0)), "silent: it gets no more");
            let problem = engine.cluster.problem().unwrap_or_default();
            assert!(problem.contains("node A1 owes 400 answers"), "{problem}");
            node.change(|state| state.manner = Manner::Answer);
            engine.answered(400).await;
            assert_eq!(engine.route(0), Route::Open(NodeIndex(0)));

            node.change(|state| state.manner = Manner::Stall);
            assert!(engine.send(NodeIndex(0), 7));
            engine.until(|engine| (engine.cluster.traffic().batches_sent == 2).then_some(())).await;
            engine.cluster.look(now().plus_ms(2000));
            engine.cluster.look(now().plus_ms(12_100));
            let (fault, unanswered) = engine.down().await;
            assert!(matches!(fault, Fault::Cut(_)), "{fault}");
            assert_eq!(unanswered.tags.len(), 7);
        });
    }

    #[test]
    fn a_connection_lost_again_and_again_is_a_problem() {
        on_a_shard(|| async {
            let node = StandIn::start("A1", |_| true);
            let mut engine = Engine::reaching(&[node.address]);
            for _ in 0..3 {
                engine.nodes(1).await;
                assert_eq!(engine.cluster.problem(), None);
                engine.cluster.cut(NodeIndex(0), "for a test");
                engine.down().await;
            }
            let problem = engine.until(|engine| engine.cluster.problem()).await;
            assert!(problem.contains("A1 was lost 3 times") && problem.contains("for a test"));
        });
    }

    #[test]
    fn what_a_silent_node_owes_comes_back_when_the_map_has_left_it() {
        on_a_shard(|| async {
            let (one, other) = pair();
            let mut engine = Engine::reaching(&[other.address]);
            engine.nodes(2).await;
            let Route::Open(low) = engine.route(0) else { panic!("it takes batches") };
            one.change(|state| state.manner = Manner::Stall);
            assert!(engine.send(low, 50));
            engine.until(|engine| (engine.cluster.traffic().batches_sent == 1).then_some(())).await;
            engine.cluster.look(now().plus_ms(2000));
            engine.cluster.look(now().plus_ms(4000));
            assert_eq!(engine.cluster.nodes(), 2, "the map still says so");
            one.change(|state| (state.owns, state.partition_generation) = (|_| false, 2));
            other.change(|state| (state.owns, state.partition_generation) = (|_| true, 2));
            engine.cluster.poke();
            engine
                .until(|engine| {
                    matches!(engine.route(0), Route::Open(at) if at != low).then_some(())
                })
                .await;
            engine.cluster.look(now().plus_ms(6000));
            engine.cluster.look(now().plus_ms(8000));
            let (fault, unanswered) = engine.down().await;
            assert!(matches!(fault, Fault::Cut(_)), "{fault}");
            assert_eq!((unanswered.tags.len(), unanswered.in_doubt), (50, 50));
        });
    }

    #[test]
    fn a_silent_node_leaves_the_others_room_in_the_window() {
        on_a_shard(|| async {
            let (one, other) = pair();
            one.change(|state| state.manner = Manner::Stall);
            let window = Window { records: 1000, bytes: 64 << 20, batches_waiting: 64 };
            let mut engine = Engine::start(spec(&[one.address]), window, Vec::new());
            engine.nodes(2).await;
            let (Route::Open(low), Route::Open(high)) = (engine.route(0), engine.route(4095))
            else {
                panic!("both nodes take batches")
            };
            while matches!(engine.route(0), Route::Open(_)) {
                assert!(engine.send(low, 40));
            }
            let (owed, _) = engine.cluster.under_way();
            assert!((800..840).contains(&owed), "{owed}");
            for _ in 0..20 {
                assert!(engine.send(high, 50));
                engine.answered(50).await;
            }
            assert_eq!(other.state().received.len(), 1000);
        });
    }

    #[test]
    fn a_write_that_the_destination_does_not_read_can_be_cut() {
        on_a_shard(|| async {
            let node = StandIn::start("A1", |_| true);
            node.change(|state| state.manner = Manner::Stall);
            let window = Window { records: 1 << 20, bytes: 1 << 30, batches_waiting: 4 };
            let mut engine = Engine::start(spec(&[node.address]), window, Vec::new());
            engine.nodes(1).await;
            // More than both sockets' buffers hold.
            let tags: Vec<u32> = (0..400).collect();
            let mut buffer = Vec::new();
            tags.iter().for_each(|&tag| push_frame(&mut buffer, tag, 64 << 10));
            let bytes = buffer.len();
            let mut sent = 0;
            while matches!(engine.route(0), Route::Open(_)) {
                let batch = Outgoing { buffer: buffer.clone(), bytes };
                assert!(engine.cluster.send(NodeIndex(0), batch, &tags).is_ok());
                sent += 1;
                longship_rt::shard::yield_now().await;
            }
            engine.cluster.cut(NodeIndex(0), "overdue");
            let (fault, unanswered) = engine.down().await;
            assert!(matches!(fault, Fault::Cut("overdue")), "{fault}");
            assert_eq!(unanswered.tags.len(), 400 * sent);
        });
    }

    #[test]
    fn unreachable_seeds_are_passed_over_and_named_ones_resolved() {
        on_a_shard(|| async {
            let closed = {
                let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
                listener.local_addr().unwrap()
            };
            let mute = StandIn::start("D4", |_| true);
            mute.change(|state| state.mute = true);
            let node = StandIn::start("A1", |_| true);
            let mut spec = spec(&[closed, mute.address]);
            spec.seeds.push(("nowhere.example".into(), 3000));
            let mut engine = Engine::start(spec.clone(), Window::default(), vec![node.address]);
            let problem = |engine: &mut Engine| engine.cluster.problem();
            let problem = engine.until(problem).await;
            assert!(problem.contains("cannot connect"), "{problem}");
            let resolving = |engine: &mut Engine| {
                engine.cluster.problem().filter(|problem| problem.contains("nowhere.example"))
            };
            engine.until(resolving).await;
            spec.seeds.push(("dc.example".into(), 3000));
            engine.cluster.configure(spec);
            engine.nodes(1).await;
            assert_eq!(engine.cluster.problem(), None);
        });
    }

    #[test]
    fn stopping_drains_what_is_under_way_and_ends_every_node() {
        on_a_shard(|| async {
            let node = StandIn::start("A1", |_| true);
            node.change(|state| state.manner = Manner::Stall);
            let mut engine = Engine::reaching(&[node.address]);
            engine.nodes(1).await;
            assert!(engine.send(NodeIndex(0), 100));
            engine.cluster.stop(PATIENCE_US / 1000);
            assert!(!engine.send(NodeIndex(0), 1), "nothing new");
            node.change(|state| state.manner = Manner::Answer);
            engine.answered(100).await;
            let (fault, unanswered) = engine.down().await;
            assert!(matches!(fault, Fault::Drained) && unanswered == Unanswered::default());
            let gone =
                |notice: &mut NodeEvent| matches!(notice, NodeEvent::Gone { .. }).then_some(());
            engine.notice(gone).await;
            assert_eq!((engine.cluster.nodes(), engine.cluster.traffic().losses), (0, 0));
            engine.until(|engine| (Rc::strong_count(&engine.cluster.0) == 1).then_some(())).await;
        });
    }

    #[test]
    fn hellos_name_the_streams_there_are_and_a_change_of_what_is_shipped_begins_one() {
        on_a_shard(|| async {
            let node = StandIn::start("A1", |_| true);
            node.change(|state| state.hello = longship(1));
            let source = source();
            let start = |seeds: [SocketAddr; 1]| {
                Engine::of(Rc::clone(&source), spec(&seeds), Window::default(), Vec::new())
            };
            let mut west = start([node.address]);
            west.nodes(1).await;
            let mut east = start([node.address]);
            east.nodes(1).await;
            west.cluster.begin_stream();
            assert!(!west.send(NodeIndex(0), 1) || west.down().await.1.tags == [0]);
            west.nodes(1).await;
            west.cluster.stop(PATIENCE_US / 1000);
            east.cluster.begin_stream();
            let said = |node: &StandIn| node.state().streams.len() >= 4;
            east.until(|_| said(&node).then_some(())).await;
            east.nodes(1).await;
            let streams: Vec<Vec<u64>> = node.state().streams.clone();
            assert_eq!(streams, [vec![1], vec![1, 2], vec![2, 3], vec![4]]);
        });
    }

    #[test]
    fn a_refused_hello_is_the_problem_until_it_is_taken() {
        on_a_shard(|| async {
            let node = StandIn::start("A1", |_| true);
            let refusal = "ERROR:81:192.0.2.7 may not change this node";
            node.change(|state| (state.hello, state.refusal) = (longship(1), Some(refusal)));
            let mut engine = Engine::reaching(&[node.address]);
            let problem = engine.until(|engine| engine.cluster.problem()).await;
            let expected = ": 192.0.2.7 may not change this node";
            assert!(problem.ends_with(expected), "{problem}");
            assert_eq!(engine.cluster.nodes(), 0);
            node.change(|state| state.refusal = None);
            engine.nodes(1).await;
            assert_eq!(engine.cluster.problem(), None);
        });
    }

    #[test]
    fn a_destination_with_our_own_src_id_is_told_of() {
        on_a_shard(|| async {
            let node = StandIn::start("A1", |_| true);
            let (src_id, stores) = (SrcId(3), Vec::new());
            let hello = HelloAnswer { boot: 1, loss_window_ms: 0, src_id, stores };
            node.change(|state| state.hello = Some(hello));
            let mut engine = Engine::reaching(&[node.address]);
            engine.nodes(1).await;
            let problem = engine.cluster.problem().unwrap_or_default();
            assert!(problem.contains("the src-id of this cluster"), "{problem}");
            node.change(|state| state.hello = longship(1));
            node.cut_all();
            engine.until(|engine| engine.cluster.problem().is_none().then_some(())).await;
        });
    }

    #[test]
    fn a_destination_that_hangs_keeps_nothing_of_a_cluster_that_was_stopped() {
        on_a_shard(|| async {
            let node = StandIn::start("A1", |_| true);
            node.change(|state| state.manner = Manner::Stall);
            let mut engine = Engine::reaching(&[node.address]);
            engine.nodes(1).await;
            assert!(engine.send(NodeIndex(0), 100));
            engine.cluster.stop(50);
            // Nobody drains any more: the DC is gone.
            let begun = now();
            while Rc::strong_count(&engine.cluster.0) > 1 {
                assert!(now() < begun.plus_ms(PATIENCE_US / 1000), "something is kept");
                engine.wake.wait_until(now().plus_ms(5).0).await;
            }
            assert_eq!(engine.cluster.under_way(), (0, 0), "no batch is kept");
        });
    }

    #[test]
    fn an_address_that_is_another_node_each_time_is_connected_to_a_few_times_a_second() {
        on_a_shard(|| async {
            let node = StandIn::start("A1", |_| true);
            let mut engine = Engine::reaching(&[node.address]);
            engine.nodes(1).await;
            let (begun, before) = (now(), node.state().sockets.len());
            engine.cluster.cut(NodeIndex(0), "for a test");
            let told = |engine: &Engine| {
                engine.cluster.problem().is_some_and(|it| it.contains("answers as several nodes"))
            };
            for turn in 0.. {
                node.change(|node| node.id = format!("N{turn}").leak());
                Event::new().wait_until(now().0 + 1000).await;
                engine.cluster.drain(&mut engine.replies, &mut engine.notices);
                let waited_us = now().us_since(begun);
                if waited_us > 1_500_000 && told(&engine) {
                    break;
                }
                assert!(waited_us < PATIENCE_US, "{:?}", engine.cluster.problem());
            }
            let (made, ms) = (node.state().sockets.len() - before, now().us_since(begun) / 1000);
            assert!(made as u64 <= 11 + ms / 200, "{made} connections in {ms} ms");
            engine.nodes(1).await;
        });
    }
}
