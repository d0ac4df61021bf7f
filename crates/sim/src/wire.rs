//! A model destination: connections with the product's own pipeline, and a network between that is
//! slow, loses and keeps what may still arrive.

use std::collections::VecDeque;
use std::rc::Rc;

use crate::rng::Rng;
use crate::store::Key;
use crate::world::lane_of;
use longship::dest::pipeline::Pipeline;
use longship::dest::{
    Destination, Fault, NamespaceFacts, NodeEvent, NodeIndex, Outgoing, Replies, Reply, Route,
    Window,
};
use longship::model::{NamespaceId, PartitionId, SrcId, Tick, Version};
use longship::ship::mutation::{Mutation, planted};
use longship::wire::ResultCode;
use longship::wire::reply::{REPLY_BYTES, push_code};

/// A destination that owes an answer for so long gets no more.
const SILENT_MS: u64 = 1000;
/// A connection on which nothing has moved for so long is given up.
const DEAD_MS: u64 = 10_000;
/// Length of a receive buffer: a few replies.
const RECEIVE_BYTES: usize = 256;
/// Buffers kept for batches to come.
const SPARE_MAX: usize = 8;

/// A request on its way.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) key: Key,
    /// The version it carries.
    pub(crate) version: Version,
    pub(crate) frame: Rc<[u8]>,
}

/// A connection to a destination node.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) up: bool,
    pub(crate) epoch: u64,
    pub(crate) pipeline: Pipeline<Vec<u8>>,
    /// Slots of each batch that waits for the socket.
    waiting: VecDeque<Vec<u32>>,
    /// Written, not applied.
    pub(crate) requests: VecDeque<Request>,
    /// Results of what was applied, on their way back.
    pub(crate) replies: VecDeque<ResultCode>,
    answers: Replies,
    /// Bytes of the first of `replies` that have come.
    came: usize,
    silent: bool,
}

impl Conn {
    fn new(window: Window) -> Self {
        Self {
            up: false,
            epoch: 0,
            pipeline: Pipeline::new(window),
            waiting: VecDeque::new(),
            requests: VecDeque::new(),
            replies: VecDeque::new(),
            answers: Replies::new(RECEIVE_BYTES),
            came: 0,
            silent: false,
        }
    }

    /// Whether nothing is under way on it.
    pub(crate) fn is_idle(&self) -> bool {
        self.pipeline.records() == 0
    }

    fn has_room(&self) -> bool {
        !self.silent && self.pipeline.has_room()
    }
}

/// What an engine was handed, for the ledger.
#[derive(Debug)]
pub(crate) enum Handed {
    /// A node's connection of this epoch is open, and a destination that says hello has this id.
    Up(u16, u64, Option<SrcId>),
    /// It was restarted.
    Rebooted,
    /// A connection was lost, with these slots unanswered.
    Down(Vec<u32>),
}

/// A destination as one DC sees it.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) nodes: Vec<Conn>,
    /// Owner of each lane, as the DC knows it.
    pub(crate) owner: Vec<Option<u16>>,
    pub(crate) facts: NamespaceFacts,
    window: Window,
    replies: Vec<Reply>,
    notices: Vec<NodeEvent>,
    spare: Vec<Vec<u8>>,
    /// Handed to the engine, in order.
    pub(crate) handed_replies: VecDeque<Reply>,
    handed_count: u64,
    pub(crate) handed: VecDeque<Handed>,
    /// How often the engine was told of its nodes: what it knew of them may not hold.
    pub(crate) tellings: u64,
    /// Slots in batches that were given.
    pub(crate) sent: Vec<u32>,
    /// Nodes to which the connection is to be ended.
    pub(crate) overdue: Vec<usize>,
    /// What is shipped has changed: all connections are to be opened anew.
    pub(crate) is_outdated: bool,
}

impl Wire {
    pub(crate) fn new(owner: Vec<Option<u16>>, nodes: usize, window: Window) -> Self {
        Self {
            nodes: (0..nodes).map(|_| Conn::new(window)).collect(),
            owner,
            facts: NamespaceFacts::default(),
            window,
            replies: Vec::new(),
            notices: Vec::new(),
            spare: Vec::new(),
            handed_replies: VecDeque::new(),
            handed_count: 0,
            handed: VecDeque::new(),
            sent: Vec::new(),
            overdue: Vec::new(),
            is_outdated: false,
            tellings: 0,
        }
    }

    pub(crate) fn notify(&mut self, notice: NodeEvent) {
        self.notices.push(notice);
    }

    /// Whether nothing is under way, nor waits to be handed over.
    pub(crate) fn is_quiet(&self) -> bool {
        self.nodes.iter().all(Conn::is_idle) && self.replies.is_empty() && self.notices.is_empty()
    }

    /// A new connection is open.
    pub(crate) fn open(&mut self, node: usize, epoch: u64) {
        self.nodes[node] = Conn { up: true, epoch, ..Conn::new(self.window) };
    }

    /// Acknowledged and not settled yet.
    pub(crate) fn acknowledged(&self) -> impl Iterator<Item = u32> + '_ {
        let replies = self.replies.iter().chain(&self.handed_replies);
        replies.filter(|reply| reply.code == ResultCode::OK).map(|reply| reply.tag)
    }

    /// Writes the next batch of a connection: `request` makes one of each frame.
    pub(crate) fn write(
        &mut self,
        node: usize,
        now: Tick,
        mut request: impl FnMut(u32, Rc<[u8]>) -> Request,
    ) -> bool {
        let conn = &mut self.nodes[node];
        let Some(batch) = conn.pipeline.begin(now) else { return false };
        let slots = conn.waiting.pop_front().expect("each batch has its slots");
        let mut bytes = &batch.buffer[..batch.bytes];
        for slot in slots {
            let (frame, rest) = bytes.split_at(frame_bytes(bytes));
            conn.requests.push_back(request(slot, frame.into()));
            bytes = rest;
        }
        assert!(bytes.is_empty(), "a batch holds one frame for each slot");
        self.keep(batch.buffer);
        true
    }

    /// So many replies arrive, and so many bytes of the one behind them; in two pieces.
    pub(crate) fn answer(&mut self, node: usize, count: usize, rng: &mut Rng, now: Tick) {
        let conn = &mut self.nodes[node];
        let count = count.min(conn.replies.len());
        let mut bytes = Vec::new();
        conn.replies.iter().take(count + 1).for_each(|&code| push_code(&mut bytes, code));
        let whole = count * REPLY_BYTES;
        let part = rng.below((bytes.len() - whole).max(1) as u64) as usize;
        let came = std::mem::replace(&mut conn.came, part);
        let bytes = &bytes[came..whole + part];
        let (first, second) = bytes.split_at(rng.below(bytes.len() as u64 + 1) as usize);
        for piece in [first, second] {
            if planted(Mutation::ReplyPieceLost) && came > 0 {
                self.nodes[node].answers = Replies::new(RECEIVE_BYTES);
            }
            let result = self.receive(node, piece, now);
            assert!(result.is_ok(), "a destination answers what it was asked: {result:?}");
        }
        let conn = &mut self.nodes[node];
        conn.replies.drain(..count);
        conn.silent = false;
    }

    /// All replies arrive, and what nobody asked for behind them: one more reply, if nothing is on
    /// its way there that it could be taken for, or no reply at all. The connection is at its end.
    pub(crate) fn answer_amiss(&mut self, node: usize, now: Tick) {
        let conn = &mut self.nodes[node];
        let is_surplus = conn.requests.is_empty();
        let mut bytes = Vec::new();
        conn.replies.drain(..).for_each(|code| push_code(&mut bytes, code));
        bytes.drain(..conn.came);
        if is_surplus {
            push_code(&mut bytes, ResultCode::OK);
        } else {
            bytes.extend([0xFF; 8]);
        }
        let mut pieces = bytes.chunks(RECEIVE_BYTES / 2);
        let faulty = pieces.any(|piece| self.receive(node, piece, now).is_err());
        assert!(faulty, "invariant 2: a reply that nobody asked for was taken");
    }

    fn receive(&mut self, node: usize, bytes: &[u8], now: Tick) -> Result<(), Fault> {
        let conn = &mut self.nodes[node];
        conn.answers.room()[..bytes.len()].copy_from_slice(bytes);
        conn.answers.take(bytes.len(), now, &mut conn.pipeline, &mut self.replies).1
    }

    /// A connection ends. Gives what was written and not applied.
    pub(crate) fn lose(&mut self, node: usize) -> Vec<Request> {
        let conn = &mut self.nodes[node];
        conn.up = false;
        conn.silent = false;
        conn.waiting.clear();
        conn.replies.clear();
        let unanswered = conn.pipeline.lose(&mut self.spare);
        let requests = conn.requests.drain(..).collect();
        let node = NodeIndex(node as u16);
        self.notify(NodeEvent::Down { node, fault: Fault::ClosedByPeer, unanswered });
        requests
    }

    fn keep(&mut self, buffer: Vec<u8>) {
        if self.spare.len() < SPARE_MAX {
            self.spare.push(buffer);
        }
    }

    fn node(&self, node: NodeIndex) -> &Conn {
        &self.nodes[node.index()]
    }
}

/// Length of the first frame.
fn frame_bytes(bytes: &[u8]) -> usize {
    use longship::wire::frame::{FRAME_HEADER_BYTES, FrameHeader};
    let header = bytes.first_chunk::<FRAME_HEADER_BYTES>().expect("whole frames");
    FRAME_HEADER_BYTES + FrameHeader::parse(header).expect("a frame").body_bytes
}

impl Destination for Wire {
    type Buffer = Vec<u8>;

    fn route(&self, _: NamespaceId, partition: PartitionId) -> Route {
        let Some(node) = self.owner[lane_of(partition)].map(NodeIndex) else {
            return Route::NoNode;
        };
        match self.node(node) {
            conn if !conn.up => Route::Down(node),
            conn if conn.has_room() => Route::Open(node),
            _ => Route::Full(node),
        }
    }

    fn is_full(&self, node: NodeIndex) -> bool {
        self.node(node).up && !self.node(node).has_room()
    }

    fn connection(&self, node: NodeIndex) -> Option<u64> {
        let conn = self.node(node);
        conn.up.then_some(conn.epoch)
    }

    fn is_free(&self, node: NodeIndex) -> bool {
        self.node(node).up && self.node(node).pipeline.is_drained()
    }

    fn send(
        &mut self,
        node: NodeIndex,
        batch: Outgoing<Vec<u8>>,
        tags: &[u32],
    ) -> Result<(), Outgoing<Vec<u8>>> {
        let conn = &mut self.nodes[node.index()];
        if !conn.up {
            return Err(batch);
        }
        conn.pipeline.push(batch, tags)?;
        conn.waiting.push_back(tags.to_vec());
        self.sent.extend(tags);
        Ok(())
    }

    fn drain(&mut self, replies: &mut Vec<Reply>, notices: &mut Vec<NodeEvent>) {
        self.handed_count += self.replies.len() as u64;
        self.handed_replies.extend(&self.replies);
        replies.append(&mut self.replies);
        self.tellings += self.notices.len() as u64;
        for notice in &self.notices {
            match notice {
                NodeEvent::Up { node, connection, hello } => {
                    let src_id = hello.as_ref().map(|hello| hello.src_id);
                    self.handed.push_back(Handed::Up(node.0, *connection, src_id));
                }
                NodeEvent::Rebooted(_) => self.handed.push_back(Handed::Rebooted),
                NodeEvent::Down { unanswered, .. } => {
                    self.handed.push_back(Handed::Down(unanswered.tags.clone()));
                }
                _ => {}
            }
        }
        notices.append(&mut self.notices);
    }

    fn nodes(&self) -> usize {
        self.nodes.iter().filter(|conn| conn.up).count()
    }

    fn name(&self, node: NodeIndex) -> Option<String> {
        Some(format!("node {}", node.0))
    }

    fn knows(&self, _: &str) -> bool {
        false
    }

    fn problem(&self) -> Option<String> {
        None
    }

    fn replies(&self) -> u64 {
        self.handed_count
    }

    fn take_spare(&mut self) -> Option<Vec<u8>> {
        self.spare.pop()
    }

    fn poke(&mut self) {}

    fn look(&mut self, now: Tick) {
        for (node, conn) in self.nodes.iter_mut().enumerate().filter(|(_, conn)| conn.up) {
            let since = conn.pipeline.silent_since();
            let waits_ms = since.map_or(0, |since| now.us_since(since) / 1000);
            conn.silent = waits_ms >= SILENT_MS;
            if waits_ms >= DEAD_MS {
                self.overdue.push(node);
            }
        }
    }

    fn facts(&self, _: NamespaceId) -> NamespaceFacts {
        self.facts
    }

    fn begin_stream(&mut self) {
        self.is_outdated = true;
    }

    fn set_src_id(&mut self, _: SrcId) {
        self.is_outdated = true;
    }
}
