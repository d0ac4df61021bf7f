//! The service task: does. Reads each dispatched record as it is now, encodes it into the open
//! batch of its destination node, and hands batches to the connections.
//!
//! A batch leaves when the socket is free, when it is full, or when there is nothing more to read:
//! never by a timer.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use crate::dest::{NodeIndex, Outgoing};
use crate::host::{Host, OwnedRecord, Peek, ReadDone, ReadOutcome, ReadRequest};
use crate::model::{Digest, RecordView, SrcId};
use crate::rt::shard::yield_now;
use crate::ship::{
    self, BATCH_BYTES, Batch, Dispatch, Encoded, NoRoom, Now, Outcome, Target, judge,
};

use super::batch_memory::BatchBuffer;
use super::dc::Dc;
use super::lag::LagSampler;
use super::letters::Letter;

/// Records handled per turn.
const TURN_RECORDS: usize = 256;
/// Records the host is told of ahead.
const PREFETCH_RECORDS: usize = 32;
/// Closed batches that may wait for one node's window.
const CLOSED_MAX: usize = 2;

/// Batches on their way to one destination node.
#[derive(Default)]
struct Outbox {
    open: Option<Batch<BatchBuffer>>,
    /// Each with the slots of its frames.
    closed: VecDeque<(Outgoing<BatchBuffer>, Vec<u32>)>,
    /// Emptied lists of slots, for batches to come.
    spare: Vec<Vec<u32>>,
    /// The `src-id` its hello told, if it is a Longship node: it drops what is unread on older
    /// connections before it serves a new one.
    hello: Option<SrcId>,
}

impl Outbox {
    /// Puts the open batch behind the closed ones; drops it if it is empty.
    fn close(&mut self) {
        if let Some(batch) = self.open.take()
            && !batch.is_empty()
        {
            let (buffer, bytes, slots) = batch.into_parts();
            self.closed.push_back((Outgoing { buffer, bytes }, slots));
        }
    }
}

/// What the service task of one DC owns.
pub(crate) struct Service<H: Host> {
    /// Sent and not answered, of the sample whose lag is measured.
    sampled: HashMap<u32, Digest>,
    outboxes: Vec<Outbox>,
    /// Being read from the device, by slot.
    reading: HashMap<u32, Dispatch>,
    /// Letters whose record is being read, by slot.
    letters: HashMap<u32, Letter>,
    /// The host's read quota is used up: begin these first.
    deferred: VecDeque<Dispatch>,
    done: Vec<ReadDone<H::Record>>,
}

impl<H: Host> Service<H> {
    pub(crate) fn new() -> Self {
        Self {
            sampled: HashMap::new(),
            outboxes: Vec::new(),
            reading: HashMap::new(),
            letters: HashMap::new(),
            deferred: VecDeque::new(),
            done: Vec::new(),
        }
    }

    /// A sent slot's fate is known. Gives its digest if it belongs to the sample.
    #[inline]
    pub(crate) fn landed(&mut self, slot: u32) -> Option<Digest> {
        if self.sampled.is_empty() { None } else { self.sampled.remove(&slot) }
    }

    /// Whether another record may be dispatched to the node.
    #[inline]
    pub(crate) fn has_room(&self, node: NodeIndex) -> bool {
        self.outboxes.get(node.index()).is_none_or(|outbox| outbox.closed.len() < CLOSED_MAX)
    }

    /// Whether reads are under way at the host.
    fn is_reading(&self) -> bool {
        !self.reading.is_empty() || !self.letters.is_empty()
    }

    /// Gives up what has been read, its memory being the host's. True while more is on its way.
    fn drop_reads(&mut self) -> bool {
        for ReadDone { tag, .. } in self.done.drain(..) {
            let slot = u32::try_from(tag).expect("tags are the slots that were given");
            self.reading.remove(&slot);
            self.letters.remove(&slot);
        }
        self.is_reading()
    }

    pub(crate) fn set_hello(&mut self, node: NodeIndex, hello: Option<SrcId>) {
        self.outbox(node).hello = hello;
    }

    pub(crate) fn is_fenced(&self, node: NodeIndex) -> bool {
        self.outboxes.get(node.index()).is_some_and(|outbox| outbox.hello.is_some())
    }

    fn outbox(&mut self, node: NodeIndex) -> &mut Outbox {
        if self.outboxes.len() <= node.index() {
            self.outboxes.resize_with(node.index() + 1, Outbox::default);
        }
        &mut self.outboxes[node.index()]
    }
}

/// Runs until the DC ends.
pub(crate) async fn run<H: Host>(dc: Rc<Dc<H>>) {
    while !dc.ended.get() {
        let now = dc.context.now();
        let more = step(&dc, now);
        if more {
            // Reads go on while others are served from memory.
            poll_fn(|cx| {
                let _ = poll_reads(&dc, cx);
                Poll::Ready(())
            })
            .await;
            yield_now().await;
        } else {
            wait(&dc).await;
        }
    }
    while dc.service.borrow_mut().drop_reads() {
        poll_fn(|cx| poll_reads(&dc, cx)).await;
    }
}

/// Waits for the bell, or for a read to finish.
async fn wait<H: Host>(dc: &Dc<H>) {
    let mut bell = pin!(dc.service_bell.wait());
    poll_fn(|cx| match bell.as_mut().poll(cx) {
        Poll::Ready(_) => Poll::Ready(()),
        Poll::Pending => poll_reads(dc, cx),
    })
    .await;
}

/// Takes in finished reads, and has begun ones submitted.
fn poll_reads<H: Host>(dc: &Dc<H>, cx: &mut Context<'_>) -> Poll<()> {
    let mut service = dc.service.borrow_mut();
    if !service.is_reading() {
        return Poll::Pending;
    }
    dc.context.host.borrow_mut().poll_drain(dc.index, cx, &mut service.done)
}

/// One turn. True when there is more to do at once.
fn step<H: Host>(dc: &Dc<H>, now: Now) -> bool {
    let outcomes_before = dc.outcomes.borrow().len();
    finish_reads(dc, now);
    read_for_letters(dc);
    let mut budget = TURN_RECORDS;
    let mut stuck = false;
    while budget > 0 && !stuck {
        if budget.is_multiple_of(PREFETCH_RECORDS) {
            prefetch(dc);
        }
        let Some(dispatch) = next_work(dc) else { break };
        stuck = !serve(dc, dispatch, now);
        budget -= 1;
    }
    flush(dc);
    if dc.outcomes.borrow().len() > outcomes_before {
        dc.bell.set();
    }
    budget == 0
}

/// Tells the host which records are served next.
fn prefetch<H: Host>(dc: &Dc<H>) {
    let work = dc.work.borrow();
    let Some(first) = work.front() else { return };
    let mut digests = [first.digest; PREFETCH_RECORDS];
    let next = work.iter().take_while(|dispatch| dispatch.namespace == first.namespace);
    let count = digests.iter_mut().zip(next).map(|(to, from)| *to = from.digest).count();
    dc.context.host.borrow().prefetch(first.namespace, &digests[..count]);
}

fn next_work<H: Host>(dc: &Dc<H>) -> Option<Dispatch> {
    let deferred = dc.service.borrow_mut().deferred.pop_front();
    deferred.or_else(|| dc.work.borrow_mut().pop_front())
}

/// Serves one change. False when it has to wait for memory or for the read quota.
fn serve<H: Host>(dc: &Dc<H>, dispatch: Dispatch, now: Now) -> bool {
    let mut host = dc.context.host.borrow_mut();
    match host.peek(dispatch.namespace, &dispatch.digest) {
        Peek::Here(record) => {
            if encode(dc, &dispatch, &record, now) {
                return true;
            }
            dc.service.borrow_mut().deferred.push_front(dispatch);
            false
        }
        Peek::Gone => {
            end(dc, &dispatch, Outcome::NotFound);
            true
        }
        Peek::OnDevice => {
            let Dispatch { slot, namespace, digest, .. } = dispatch;
            let read = ReadRequest { tag: u64::from(slot), dc: dc.index, namespace, digest };
            let begun = host.begin(read);
            let mut service = dc.service.borrow_mut();
            if begun {
                service.reading.insert(slot, dispatch);
            } else {
                service.deferred.push_front(dispatch);
            }
            begun
        }
    }
}

fn finish_reads<H: Host>(dc: &Dc<H>, now: Now) {
    let mut done = std::mem::take(&mut dc.service.borrow_mut().done);
    while let Some(ReadDone { tag, outcome }) = done.pop() {
        let slot = u32::try_from(tag).expect("tags are the slots that were given");
        let letter = dc.service.borrow_mut().letters.remove(&slot);
        if let Some(letter) = letter {
            complete_letter(dc, slot, letter, outcome);
            continue;
        }
        let dispatch = dc.service.borrow_mut().reading.remove(&slot);
        let dispatch = dispatch.expect("each begun read is done once");
        match outcome {
            ReadOutcome::Record(record) => {
                if !encode(dc, &dispatch, &record.view(), now) {
                    // No batch memory now: read it again when there is, by then perhaps newer.
                    dc.service.borrow_mut().deferred.push_front(dispatch);
                }
            }
            ReadOutcome::Gone => end(dc, &dispatch, Outcome::NotFound),
            ReadOutcome::Failed => end(dc, &dispatch, Outcome::ReadFailed),
            ReadOutcome::NoMemory => end(dc, &dispatch, Outcome::NotRead),
        }
    }
    dc.service.borrow_mut().done = done;
}

/// Reads the records of letters that lack their set and key, as far as the quota goes.
fn read_for_letters<H: Host>(dc: &Dc<H>) {
    let mut unread = dc.unread_letters.borrow_mut();
    while let Some((slot, namespace, letter)) = unread.pop() {
        let tag = u64::from(slot);
        let read = ReadRequest { tag, dc: dc.index, namespace, digest: letter.digest };
        if !dc.context.host.borrow_mut().begin(read) {
            unread.push((slot, namespace, letter));
            return;
        }
        dc.service.borrow_mut().letters.insert(slot, letter);
    }
}

fn complete_letter<H: Host>(
    dc: &Dc<H>,
    slot: u32,
    letter: Letter,
    outcome: ReadOutcome<H::Record>,
) {
    let letter = match outcome {
        ReadOutcome::Record(record) => {
            let RecordView { set, key, .. } = record.view();
            Letter { set: set.to_owned(), key: key.to_vec(), ..letter }
        }
        ReadOutcome::Gone | ReadOutcome::Failed | ReadOutcome::NoMemory => letter,
    };
    dc.letters.borrow_mut().push((slot, letter));
    dc.bell.set();
}

/// Encodes a record into the open batch of its node. False when there is no memory for a batch.
fn encode<H: Host>(dc: &Dc<H>, dispatch: &Dispatch, record: &RecordView<'_>, now: Now) -> bool {
    let mut rules = dc.rules.borrow_mut();
    let Some(policy) = rules.policy(dispatch.namespace) else {
        // Detached meanwhile: its slot only waits to be told so.
        end(dc, dispatch, Outcome::Unsent);
        return true;
    };
    let node = NodeIndex(dispatch.node);
    let mut service = dc.service.borrow_mut();
    let outbox = service.outbox(node);
    let target = Target {
        takes_origin: outbox.hello.is_some(),
        source: dc.src_id.get(),
        plain_deletes: dispatch.plain_delete,
    };
    let judgement = judge(record, policy, outbox.hello.unwrap_or(SrcId::NONE), now.wall);
    let mut wanted = BATCH_BYTES;
    loop {
        let Some(batch) = &mut outbox.open else {
            let Some(buffer) = take_buffer(dc, wanted) else { return false };
            outbox.open = Some(Batch::new(buffer, outbox.spare.pop().unwrap_or_default()));
            continue;
        };
        let frame = |out: &mut [u8]| ship::encode(record, judgement, policy, target, now.wall, out);
        match batch.push(dispatch.slot, frame) {
            None => {
                end(dc, dispatch, Outcome::FilteredOut);
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

/// A buffer whose batch has left, or a new one. Buffers for large records are not kept: as ordinary
/// ones they would hold many times what they carry.
fn take_buffer<H: Host>(dc: &Dc<H>, bytes: usize) -> Option<BatchBuffer> {
    let spare = (bytes == BATCH_BYTES).then(|| dc.cluster.take_spare()).flatten();
    spare.or_else(|| dc.memory.take(bytes))
}

fn end<H: Host>(dc: &Dc<H>, dispatch: &Dispatch, outcome: Outcome) {
    if LagSampler::wants(&dispatch.digest) {
        dc.lag.borrow_mut().forgotten(&dispatch.digest);
    }
    dc.outcomes.borrow_mut().push((dispatch.slot, outcome));
}

/// Hands batches to the connections: closed ones while they take them, the open one when its
/// socket is free.
fn flush<H: Host>(dc: &Dc<H>) {
    let mut service = dc.service.borrow_mut();
    for index in 0..service.outboxes.len() {
        let node = NodeIndex(index as u16);
        let outbox = &mut service.outboxes[index];
        if outbox.closed.is_empty() && dc.cluster.is_free(node) {
            outbox.close();
        }
        while let Some((batch, slots)) = outbox.closed.pop_front() {
            if let Err(batch) = dc.cluster.send(node, batch, &slots) {
                outbox.closed.push_front((batch, slots));
                break;
            }
            outbox.spare.push(slots);
        }
        if !dc.cluster.is_up(node) {
            give_back(dc, &mut service, node);
        }
    }
}

/// The node is not connected: what was encoded for it is dispatched anew. Newest first, so that
/// lanes keep their order.
fn give_back<H: Host>(dc: &Dc<H>, service: &mut Service<H>, node: NodeIndex) {
    let outbox = &mut service.outboxes[node.index()];
    outbox.close();
    let batches = std::mem::take(&mut outbox.closed);
    for slot in batches.into_iter().rev().flat_map(|(_, slots)| slots.into_iter().rev()) {
        service.landed(slot);
        dc.outcomes.borrow_mut().push((slot, Outcome::Unsent));
    }
}
