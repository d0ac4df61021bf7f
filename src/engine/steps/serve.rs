//! Reads each dispatched record as it is now, encodes it into the open batch of its destination
//! node, and hands batches over.
//!
//! A batch leaves when the socket is free, when it is full, or when there is nothing more to read:
//! never by a timer.

use std::collections::{HashMap, VecDeque};
use std::task::{Context, Poll};

use super::{Budget, DcEngine};
use crate::dest::{Destination, NodeIndex, Outgoing};
use crate::engine::lag::LagSampler;
use crate::engine::letters::Letter;
use crate::host::{Host, OwnedRecord, Peek, ReadDone, ReadOutcome, ReadRequest};
use crate::limits::OUTBOX_BYTES;
use crate::model::{Digest, RecordView, SrcId};
use crate::ship::{
    self, BATCH_BYTES, Batch, Dispatch, Encoded, NoRoom, Now, Outcome, Target, judge,
};
use longship_rt::prefetch;

/// Closed batches that may wait for one node's window.
const CLOSED_MAX: usize = 2;
/// Letters whose read is tried in one call.
const LETTERS_LOOKED_AT: usize = 64;

/// Batches on their way to one destination node.
struct Outbox<B> {
    open: Option<Batch<B>>,
    /// Each with the slots of its frames.
    closed: VecDeque<(Outgoing<B>, Vec<u32>)>,
    /// Bytes of the closed ones.
    closed_bytes: usize,
    /// Emptied lists of slots, for batches to come.
    spare: Vec<Vec<u32>>,
    /// The connection it is encoded for, if one was told of: what a batch says goes by the rules of
    /// its hello, so it leaves by no other.
    connection: Option<u64>,
    /// The `src-id` that hello told, if it is a Longship node: it drops what is unread on older
    /// connections before it serves a new one.
    hello: Option<SrcId>,
}

impl<B: AsMut<[u8]>> Outbox<B> {
    const fn new() -> Self {
        Self {
            open: None,
            closed: VecDeque::new(),
            closed_bytes: 0,
            spare: Vec::new(),
            connection: None,
            hello: None,
        }
    }

    /// Puts the open batch behind the closed ones; drops it if it is empty.
    fn close(&mut self) {
        if let Some(batch) = self.open.take()
            && !batch.is_empty()
        {
            let (buffer, bytes, slots) = batch.into_parts();
            self.closed_bytes += bytes;
            self.closed.push_back((Outgoing { buffer, bytes }, slots));
        }
    }
}

/// What is between dispatch and destination.
pub(super) struct Service<H: Host, B> {
    /// Changes that are sent and not answered, of those sampled for the lag.
    sampled: HashMap<u32, Digest>,
    outboxes: Vec<Outbox<B>>,
    /// Being read from the device, by slot.
    reading: HashMap<u32, Dispatch>,
    /// Letters whose record is being read, by slot.
    letters: HashMap<u32, Letter>,
    /// The namespace that is served first.
    turn: usize,
    done: Vec<ReadDone<H::Record>>,
}

impl<H: Host, B: AsMut<[u8]>> Service<H, B> {
    pub(super) fn new() -> Self {
        Self {
            sampled: HashMap::new(),
            outboxes: Vec::new(),
            reading: HashMap::new(),
            letters: HashMap::new(),
            turn: 0,
            done: Vec::new(),
        }
    }

    /// A sent slot's fate is known. Gives its digest if it belongs to the sample.
    #[inline]
    pub(super) fn landed(&mut self, slot: u32) -> Option<Digest> {
        if self.sampled.is_empty() { None } else { self.sampled.remove(&slot) }
    }

    /// Whether another record may be dispatched to the node.
    #[inline]
    pub(super) fn has_room(&self, node: NodeIndex) -> bool {
        self.outboxes.get(node.index()).is_none_or(|outbox| outbox.closed.len() < CLOSED_MAX)
    }

    /// Whether what is decided for the node is to wait until some of what is encoded has left.
    #[inline]
    fn is_stuffed(&self, node: NodeIndex) -> bool {
        let outbox = self.outboxes.get(node.index());
        outbox.is_some_and(|outbox| outbox.closed_bytes >= OUTBOX_BYTES)
    }

    /// Whether reads are under way at the host.
    fn is_reading(&self) -> bool {
        !self.reading.is_empty() || !self.letters.is_empty()
    }

    /// Whether the record of a change is being read.
    pub(super) fn reads(&self, slot: u32) -> bool {
        self.reading.contains_key(&slot)
    }

    pub(super) fn is_fenced(&self, node: NodeIndex) -> bool {
        self.outboxes.get(node.index()).is_some_and(|outbox| outbox.hello.is_some())
    }

    fn outbox(&mut self, node: NodeIndex) -> &mut Outbox<B> {
        if self.outboxes.len() <= node.index() {
            self.outboxes.resize_with(node.index() + 1, Outbox::new);
        }
        &mut self.outboxes[node.index()]
    }
}

/// What became of a change that was to be served.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ServedOne {
    /// It is on its way, or at its end.
    Yes,
    /// It waits for other reads of its namespace.
    NoQuota,
    /// It waits for its node, and so do the others of its namespace behind it.
    NodeFull,
    /// It waits for memory, as every other does.
    NoMemory,
}

/// What a call of [`DcEngine::serve`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served {
    /// There is more to do at once.
    pub more: bool,
    /// Something was found out that is to be settled or told, or more may be decided.
    pub news: bool,
}

impl<H: Host, D: Destination> DcEngine<H, D> {
    /// Serves what was read and what was dispatched, and hands batches over. `memory` gives a buffer
    /// of at least so many bytes for a batch, or none for now.
    pub fn serve(
        &mut self,
        host: &mut H,
        memory: &impl Fn(usize) -> Option<D::Buffer>,
        now: Now,
        budget: &Budget,
    ) -> Served {
        let before = self.outcomes.len();
        let mut news = self.finish_reads(memory, now);
        self.read_for_letters(host);
        let (mut left, count) = (budget.served, self.work.len());
        let (turn, mut waits) = (self.service.turn, false);
        for at in (turn..count).chain(0..turn) {
            let (waited, had) = (self.work[at].len(), left);
            let end = self.serve_namespace(at, &mut left, host, memory, now);
            // More may be decided.
            news |= waited >= budget.waiting && self.work[at].len() < budget.waiting;
            let has_no_more = matches!(end, ServedOne::NodeFull | ServedOne::NoMemory);
            // A namespace that used up the budget, the room or the memory has its next turn after
            // the others.
            if left == 0 || has_no_more && had - left > 1 {
                self.service.turn = (at + 1) % count;
            }
            if left == 0 || end == ServedOne::NoMemory {
                break;
            }
            waits |= end == ServedOne::NodeFull;
        }
        let has_left = self.hand_over();
        news |= self.outcomes.len() > before;
        Served { more: left == 0 || waits && has_left, news }
    }

    /// Serves what waits of one namespace, `left` at most, and tells how it ended.
    fn serve_namespace(
        &mut self,
        at: usize,
        left: &mut usize,
        host: &mut H,
        memory: &impl Fn(usize) -> Option<D::Buffer>,
        now: Now,
    ) -> ServedOne {
        let had = *left;
        while *left > 0 {
            if (had - *left).is_multiple_of(prefetch::WIDTH) {
                self.prefetch(at, host);
            }
            let Some(dispatch) = self.work[at].pop_front() else { break };
            let served = self.serve_one(host, dispatch, memory, now);
            *left -= 1;
            if served != ServedOne::Yes {
                self.work[at].push_front(dispatch);
                return served;
            }
        }
        ServedOne::Yes
    }

    /// Takes in finished reads, and has begun ones submitted.
    pub fn poll_reads(&mut self, host: &mut H, cx: &mut Context<'_>) -> Poll<()> {
        if !self.service.is_reading() {
            return Poll::Pending;
        }
        host.poll_drain(self.index, cx, &mut self.service.done)
    }

    /// Gives up what has been read, its memory being the host's. True while more is on its way.
    pub fn drop_reads(&mut self) -> bool {
        let service = &mut self.service;
        for ReadDone { tag, .. } in service.done.drain(..) {
            let slot = u32::try_from(tag).expect("tags are the slots that were given");
            service.reading.remove(&slot);
            service.letters.remove(&slot);
        }
        service.is_reading()
    }

    /// Tells the host which records are served next.
    fn prefetch(&self, namespace: usize, host: &H) {
        let work = &self.work[namespace];
        let Some(first) = work.front() else { return };
        let mut digests = [first.digest; prefetch::WIDTH];
        let next = digests.iter_mut().zip(work);
        let count = next.map(|(to, from)| *to = from.digest).count();
        host.prefetch(first.namespace, &digests[..count]);
    }

    /// Serves one change, unless it has to wait.
    fn serve_one(
        &mut self,
        host: &mut H,
        dispatch: Dispatch,
        memory: &impl Fn(usize) -> Option<D::Buffer>,
        now: Now,
    ) -> ServedOne {
        if self.service.is_stuffed(NodeIndex(dispatch.node)) {
            return ServedOne::NodeFull;
        }
        match host.peek(dispatch.namespace, &dispatch.digest) {
            Peek::Here(record) => match self.encode(&dispatch, &record, memory, now) {
                true => ServedOne::Yes,
                false => ServedOne::NoMemory,
            },
            Peek::Gone => {
                self.end(&dispatch, Outcome::NotFound);
                ServedOne::Yes
            }
            Peek::OnDevice => {
                let Dispatch { slot, namespace, digest, .. } = dispatch;
                let read = ReadRequest { tag: u64::from(slot), dc: self.index, namespace, digest };
                if !host.begin(read) {
                    return ServedOne::NoQuota;
                }
                self.service.reading.insert(slot, dispatch);
                ServedOne::Yes
            }
        }
    }

    /// True when a letter is complete.
    fn finish_reads(&mut self, memory: &impl Fn(usize) -> Option<D::Buffer>, now: Now) -> bool {
        let mut done = std::mem::take(&mut self.service.done);
        let mut completed = false;
        while let Some(ReadDone { tag, outcome }) = done.pop() {
            let slot = u32::try_from(tag).expect("tags are the slots that were given");
            if let Some(letter) = self.service.letters.remove(&slot) {
                self.complete_letter(slot, letter, outcome);
                completed = true;
                continue;
            }
            let dispatch = self.service.reading.remove(&slot);
            let dispatch = dispatch.expect("each begun read is done once");
            match outcome {
                _ if self.rules.is_discarded(slot) => self.end(&dispatch, Outcome::Unsent),
                ReadOutcome::Record(record) => {
                    if !self.encode(&dispatch, &record.view(), memory, now) {
                        // No batch memory now: read it again when there is, by then perhaps newer.
                        self.work[dispatch.namespace.index()].push_front(dispatch);
                    }
                }
                ReadOutcome::Gone => self.end(&dispatch, Outcome::NotFound),
                ReadOutcome::Failed => self.end(&dispatch, Outcome::ReadFailed),
                ReadOutcome::NoMemory => self.end(&dispatch, Outcome::NotRead),
            }
        }
        self.service.done = done;
        completed
    }

    /// Reads the records of letters that lack their set and key, as far as the quotas go.
    fn read_for_letters(&mut self, host: &mut H) {
        let Self { given_up, service, index, .. } = self;
        let unread = &mut given_up.unread;
        for at in (unread.len().saturating_sub(LETTERS_LOOKED_AT)..unread.len()).rev() {
            let (slot, namespace, letter) = &unread[at];
            let (tag, namespace, digest) = (u64::from(*slot), *namespace, letter.digest);
            if host.begin(ReadRequest { tag, dc: *index, namespace, digest }) {
                let (slot, _, letter) = unread.swap_remove(at);
                service.letters.insert(slot, letter);
            }
        }
        // Those of a namespace whose device hangs make way for others.
        let most = unread.len().min(LETTERS_LOOKED_AT);
        unread.rotate_right(most);
    }

    fn complete_letter(&mut self, slot: u32, letter: Letter, outcome: ReadOutcome<H::Record>) {
        let letter = match outcome {
            ReadOutcome::Record(record) => {
                let RecordView { set, key, .. } = record.view();
                Letter { set: set.to_owned(), key: key.to_vec(), ..letter }
            }
            ReadOutcome::Gone | ReadOutcome::Failed | ReadOutcome::NoMemory => letter,
        };
        self.given_up.letters.push((slot, letter));
    }

    /// Encodes a record into the open batch of its node. False when there is no memory for a batch.
    fn encode(
        &mut self,
        dispatch: &Dispatch,
        record: &RecordView<'_>,
        memory: &impl Fn(usize) -> Option<D::Buffer>,
        now: Now,
    ) -> bool {
        let Self { rules, service, destination, .. } = self;
        let policy = rules.policy(dispatch.namespace);
        let policy = policy.expect("what is decided of a namespace that goes is dropped");
        let outbox = service.outbox(NodeIndex(dispatch.node));
        let target = Target {
            takes_origin: outbox.hello.is_some(),
            source: self.src_id,
            plain_deletes: dispatch.plain_delete,
        };
        let judgement = judge(record, policy, outbox.hello.unwrap_or(SrcId::NONE), now.wall);
        let mut wanted = BATCH_BYTES;
        loop {
            let Some(batch) = &mut outbox.open else {
                // Buffers for large records are not kept: as ordinary ones they would hold many
                // times what they carry.
                let spare = if wanted == BATCH_BYTES { destination.take_spare() } else { None };
                let Some(buffer) = spare.or_else(|| memory(wanted)) else { return false };
                outbox.open = Some(Batch::new(buffer, outbox.spare.pop().unwrap_or_default()));
                continue;
            };
            let frame =
                |out: &mut [u8]| ship::encode(record, judgement, policy, target, now.wall, out);
            match batch.push(dispatch.slot, frame) {
                None => {
                    self.end(dispatch, Outcome::FilteredOut);
                    return true;
                }
                Some(Ok(Encoded { bytes, sent })) => {
                    if LagSampler::wants(&dispatch.digest) {
                        service.sampled.insert(dispatch.slot, dispatch.digest);
                    }
                    rules.sent(dispatch.slot, record.version, sent, bytes);
                    return true;
                }
                Some(Err(NoRoom { bytes })) => {
                    // An empty batch is too small for it: it travels alone, in a buffer of its size.
                    wanted = bytes.max(BATCH_BYTES);
                    outbox.close();
                }
            }
        }
    }

    pub(super) fn end(&mut self, dispatch: &Dispatch, outcome: Outcome) {
        if LagSampler::wants(&dispatch.digest) {
            self.lag.forgotten(&dispatch.digest);
        }
        self.outcomes.push((dispatch.slot, outcome));
    }

    /// Hands batches to the connections: closed ones while they take them, the open one when its
    /// socket is free. True if any has left.
    fn hand_over(&mut self) -> bool {
        let mut has_left = false;
        for index in 0..self.service.outboxes.len() {
            let node = NodeIndex(index as u16);
            let outbox = &mut self.service.outboxes[index];
            let connection = self.destination.connection(node);
            if connection.is_none() || connection != outbox.connection {
                self.give_back(node);
                continue;
            }
            if outbox.closed.is_empty() && self.destination.is_free(node) {
                outbox.close();
            }
            while let Some((batch, slots)) = outbox.closed.pop_front() {
                let bytes = batch.bytes;
                if let Err(batch) = self.destination.send(node, batch, &slots) {
                    outbox.closed.push_front((batch, slots));
                    break;
                }
                outbox.closed_bytes -= bytes;
                outbox.spare.push(slots);
                has_left = true;
            }
        }
        has_left
    }

    /// A connection to the node is open: what is encoded from now on goes by its hello.
    pub(super) fn connected(&mut self, node: NodeIndex, connection: u64, hello: Option<SrcId>) {
        self.give_back(node);
        let outbox = self.service.outbox(node);
        (outbox.connection, outbox.hello) = (Some(connection), hello);
    }

    /// What is encoded and not handed over ships anew, by the rules as they are then: it must not
    /// wait for the next connection, on which other rules hold.
    pub(super) fn give_back_all(&mut self) {
        for index in 0..self.service.outboxes.len() {
            self.give_back(NodeIndex(index as u16));
        }
    }

    /// What was encoded for the node's connection, which is gone, is dispatched anew. Newest first, so
    /// that lanes keep their order.
    fn give_back(&mut self, node: NodeIndex) {
        let outbox = self.service.outbox(node);
        outbox.close();
        let batches = std::mem::take(&mut outbox.closed);
        outbox.closed_bytes = 0;
        for slot in batches.into_iter().rev().flat_map(|(_, slots)| slots.into_iter().rev()) {
            self.service.landed(slot);
            self.outcomes.push((slot, Outcome::Unsent));
        }
    }
}
