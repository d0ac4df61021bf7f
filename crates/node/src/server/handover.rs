//! Requests for partitions of another shard of this process: handed over, answered where they came.
//!
//! Clients and shippers that know the partition map go straight to the owner; this is for the
//! others. A request travels as the bytes of its body and comes back as the bytes of its reply,
//! each through a bounded mailbox. What is under way has three bounds: its number, so that a reply
//! always finds room; the bytes of the requests; and the bytes of the replies. Those are counted
//! before they are made, together with what the asking shard's clients have not read yet.
//! Namespaces have equal shares of the first two: requests for one whose device hangs take nothing
//! from those for others.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::ops::Deref;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context as TaskContext, Poll, Waker};

use longship::model::{NamespaceId, ShardIndex, SrcId};
use longship::wire::bits::info1;
use longship::wire::{Request, ResultCode, reply};
use longship_rt::mailbox::{Inbox, Receiver, Sender, mailbox};
use longship_rt::shard::{Queue, need_preempt, spawn, yield_now};

use crate::limits::{HANDED_BYTES_MAX, HANDED_MAX, HANDED_WAITING_MAX, REPLY_POOL_BYTES};
use crate::server::service::{Context, Progress, Service};
use crate::server::work::Work;

/// Messages taken from a mailbox before others get their turn.
const DRAIN_MAX: usize = 256;

/// A request on its way to the owner.
#[derive(Debug)]
pub struct Handed {
    from: ShardIndex,
    slot: u32,
    src_id: SrcId,
    body: Box<[u8]>,
}

/// Its reply on the way back.
#[derive(Debug)]
pub struct Returned {
    slot: u32,
    reply: Flying,
}

/// A reply that is on its way to the client's shard, or waits there for its turn: the whole frame.
#[derive(Debug, Default)]
pub struct Flying {
    bytes: Vec<u8>,
    _room: Option<Room>,
}

impl Flying {
    fn new(bytes: Vec<u8>, flying: &Arc<AtomicUsize>) -> Self {
        Self { _room: Some(Room::new(bytes.len(), flying)), bytes }
    }
}

/// Room for a reply that is on its way, or yet to be made.
#[derive(Debug)]
struct Room {
    bytes: usize,
    flying: Arc<AtomicUsize>,
}

impl Room {
    fn new(bytes: usize, flying: &Arc<AtomicUsize>) -> Self {
        flying.fetch_add(bytes, Ordering::Relaxed);
        Self { bytes, flying: Arc::clone(flying) }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.flying.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Deref for Flying {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Bytes of replies that a shard's clients are to get: the way others know that they do not read.
#[derive(Clone, Debug, Default)]
struct Owed {
    /// Held by its connections; see [`crate::server::memory::Memory::replies`].
    held: Arc<AtomicUsize>,
    /// Of other shards, not yet with a connection.
    flying: Arc<AtomicUsize>,
}

impl Owed {
    fn is_too_much(&self) -> bool {
        self.held.load(Ordering::Relaxed) + self.flying.load(Ordering::Relaxed) >= REPLY_POOL_BYTES
    }
}

/// The way back to a shard.
#[derive(Clone)]
pub(crate) struct Back {
    sender: Sender<Returned>,
    owed: Owed,
}

/// A shard's ends of the mailboxes between all shards.
pub struct Doors {
    /// Where requests go, by shard.
    to: Vec<Sender<Handed>>,
    /// Where replies go, by shard.
    back: Vec<Back>,
    /// Requests of others.
    requests: Receiver<Handed>,
    /// Replies of others.
    replies: Receiver<Returned>,
}

/// Makes the mailboxes between `shard_count` shards; one set of ends per shard, in order.
///
/// # Errors
/// The process has no descriptor left.
pub fn doors(shard_count: u16) -> io::Result<Vec<Doors>> {
    let shards = usize::from(shard_count);
    let (mut to, mut back, mut ends) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..shards {
        let (request_sender, requests) = mailbox(HANDED_WAITING_MAX)?;
        let (reply_sender, replies) = mailbox(HANDED_MAX)?;
        to.push(request_sender);
        back.push(Back { sender: reply_sender, owed: Owed::default() });
        ends.push((requests, replies));
    }
    let doors =
        |(requests, replies)| Doors { to: to.clone(), back: back.clone(), requests, replies };
    Ok(ends.into_iter().map(doors).collect())
}

/// The asking side of one shard.
pub struct Desk {
    shard: ShardIndex,
    to: Vec<Sender<Handed>>,
    slots: RefCell<Slots>,
    replies_held: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct Slots {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// What is under way, by namespace.
    shares: Vec<Share>,
}

/// Requests of a namespace that have not been answered.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    count: usize,
    bytes: usize,
}

/// What a request takes of which share until it is answered.
#[derive(Clone, Copy, Debug)]
struct Claim {
    namespace: NamespaceId,
    bytes: usize,
}

#[derive(Debug)]
enum Slot {
    Free,
    /// Under way; who waits for it, once somebody does.
    Asked(Claim, Option<Waker>),
    /// Under way, and nobody waits any more.
    Abandoned(Claim),
    Answered(Flying),
}

/// A request under way. Gives the whole reply frame.
pub struct Ticket {
    desk: Rc<Desk>,
    slot: u32,
}

impl Desk {
    /// Hands a request over.
    ///
    /// # Errors
    /// DEVICE_OVERLOAD, which every client retries, when too much of its namespace is under way.
    pub fn hand_over(
        self: &Rc<Self>,
        to: ShardIndex,
        namespace: NamespaceId,
        src_id: SrcId,
        body: &[u8],
    ) -> Result<Ticket, ResultCode> {
        let claim = Claim { namespace, bytes: body.len() };
        let slot = self.slots.borrow_mut().take(claim).ok_or(ResultCode::DEVICE_OVERLOAD)?;
        let request = Handed { from: self.shard, slot, src_id, body: body.into() };
        if self.to[usize::from(to.0)].push(request).is_err() {
            let mut slots = self.slots.borrow_mut();
            slots.answered(claim);
            slots.give_back(slot);
            return Err(ResultCode::DEVICE_OVERLOAD);
        }
        Ok(Ticket { desk: Rc::clone(self), slot })
    }

    /// Where this shard tells the others how many bytes of replies its connections hold.
    pub fn replies_held(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.replies_held)
    }

    /// Requests under way at other shards.
    pub fn under_way(&self) -> usize {
        self.slots.borrow().shares.iter().map(|share| share.count).sum()
    }

    fn returned(&self, Returned { slot, reply }: Returned) {
        let mut slots = self.slots.borrow_mut();
        match std::mem::replace(&mut slots.slots[slot as usize], Slot::Answered(reply)) {
            Slot::Asked(claim, waker) => {
                slots.answered(claim);
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            Slot::Abandoned(claim) => {
                slots.answered(claim);
                slots.give_back(slot);
            }
            Slot::Free | Slot::Answered(_) => unreachable!("a request is answered once"),
        }
    }
}

impl Slots {
    fn new(namespaces: usize) -> Self {
        let shares = vec![Share::default(); namespaces];
        Self { slots: Vec::new(), free: Vec::new(), shares }
    }

    fn take(&mut self, claim: Claim) -> Option<u32> {
        let of = self.shares.len();
        let share = &mut self.shares[claim.namespace.index()];
        let has_room =
            share.count < HANDED_MAX / of && share.bytes + claim.bytes <= HANDED_BYTES_MAX / of;
        if share.count > 0 && !has_room {
            return None;
        }
        share.count += 1;
        share.bytes += claim.bytes;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::Free);
            self.slots.len() as u32 - 1
        });
        self.slots[slot as usize] = Slot::Asked(claim, None);
        Some(slot)
    }

    fn answered(&mut self, Claim { namespace, bytes }: Claim) {
        let share = &mut self.shares[namespace.index()];
        share.count -= 1;
        share.bytes -= bytes;
    }

    fn give_back(&mut self, slot: u32) {
        self.slots[slot as usize] = Slot::Free;
        self.free.push(slot);
    }
}

impl Future for Ticket {
    type Output = Flying;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Flying> {
        match &mut self.desk.slots.borrow_mut().slots[self.slot as usize] {
            Slot::Answered(reply) => Poll::Ready(std::mem::take(reply)),
            Slot::Asked(_, waker) => {
                *waker = Some(cx.waker().clone());
                Poll::Pending
            }
            Slot::Free | Slot::Abandoned(_) => unreachable!("the ticket holds the slot"),
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut slots = self.desk.slots.borrow_mut();
        match slots.slots[self.slot as usize] {
            Slot::Asked(claim, _) => slots.slots[self.slot as usize] = Slot::Abandoned(claim),
            _ => slots.give_back(self.slot),
        }
    }
}

/// Opens a shard's doors, on the shard: starts the tasks that serve the others and take their
/// replies.
///
/// # Errors
/// The process has no descriptor left.
pub fn open<S: Service>(shard: ShardIndex, doors: Doors, service: &Rc<S>) -> io::Result<Rc<Desk>> {
    let Doors { to, back, requests, replies } = doors;
    let (requests, replies) = (requests.open()?, replies.open()?);
    let replies_held = Arc::clone(&back[usize::from(shard.0)].owed.held);
    let slots = RefCell::new(Slots::new(service.namespace_count()));
    let desk = Rc::new(Desk { shard, to, slots, replies_held });
    spawn(Queue::Sockets, take_replies(Rc::clone(&desk), replies));
    spawn(Queue::Sockets, serve_others(Rc::clone(service), requests, back));
    Ok(desk)
}

async fn take_replies(desk: Rc<Desk>, mut replies: Inbox<Returned>) {
    let mut batch = Vec::with_capacity(DRAIN_MAX);
    while replies.wait().await.is_ok() {
        replies.drain(&mut batch, DRAIN_MAX);
        batch.drain(..).for_each(|returned| desk.returned(returned));
    }
}

async fn serve_others<S: Service>(service: Rc<S>, mut requests: Inbox<Handed>, back: Vec<Back>) {
    let mut batch = Vec::with_capacity(DRAIN_MAX);
    let mut work = Work::default();
    while requests.wait().await.is_ok() {
        requests.drain(&mut batch, DRAIN_MAX);
        let mut now = service.note_time();
        for Handed { from, slot, src_id, body } in batch.drain(..) {
            if work.is_due() && need_preempt() {
                yield_now().await;
                now = service.note_time();
            }
            let context = Context { now, src_id };
            let mut reply = Vec::new();
            let back = back[usize::from(from.0)].clone();
            if reads(&body) && back.owed.is_too_much() {
                reply::push_code(&mut reply, ResultCode::DEVICE_OVERLOAD);
                give_back(&back, slot, reply);
                continue;
            }
            let outcome = service.carry_out(Request::parse(&body), context, &mut reply);
            work.bytes += body.len() + reply.len() + service.take_work();
            match outcome {
                Progress::Read(_) | Progress::Long(_) | Progress::Committing(..) => {}
                Progress::Answered => {
                    give_back(&back, slot, reply);
                    continue;
                }
                // Never handed on: the asker and this shard do not agree on the owner.
                Progress::Elsewhere(..) => {
                    reply::push_code(&mut reply, ResultCode::UNAVAILABLE);
                    give_back(&back, slot, reply);
                    continue;
                }
            }
            let room = match outcome {
                Progress::Read(target) | Progress::Long(target) => {
                    let wish = Request::parse(&body).map(|request| S::wish(&request, &body));
                    service.reply_bytes_max(wish.unwrap_or_default(), target)
                }
                _ => 0,
            };
            let room = Room::new(room, &back.owed.flying);
            // Misrouted and not done at once: rare enough for a task of its own.
            let service = Rc::clone(&service);
            spawn(Queue::Sockets, async move {
                match outcome {
                    Progress::Read(target) | Progress::Long(target) => {
                        let fetched = service.fetch_for_other(target).await;
                        service.finish(&body, context, fetched, &mut reply).await;
                    }
                    Progress::Committing(target, position) => {
                        if let Err(code) = service.committed(target, position).await {
                            reply.clear();
                            reply::push_code(&mut reply, code);
                        }
                    }
                    Progress::Answered | Progress::Elsewhere(..) => {}
                }
                drop(room);
                give_back(&back, slot, reply);
            });
        }
    }
}

/// Whether the reply to a request may be a large one.
pub(crate) fn reads(body: &[u8]) -> bool {
    body.get(1).is_some_and(|bits| bits & info1::READ != 0)
}

pub(crate) fn give_back(back: &Back, slot: u32, reply: Vec<u8>) {
    debug_assert!(!reply.is_empty(), "a slot without a reply shifts all that follow it");
    let reply = Flying::new(reply, &back.owed.flying);
    if back.sender.push(Returned { slot, reply }).is_err() {
        // A shard that has stopped waits for nothing.
        assert!(back.sender.is_closed(), "the mailbox has room for every slot of its shard");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(namespace: u8, bytes: usize) -> Claim {
        Claim { namespace: NamespaceId(namespace), bytes }
    }

    #[test]
    fn requests_under_way_have_a_bound_in_bytes() {
        let mut slots = Slots::new(1);
        let large = slots.take(claim(0, 20 << 20)).expect("one larger than the bound passes alone");
        assert_eq!(slots.take(claim(0, 1)), None);
        slots.answered(claim(0, 20 << 20));
        slots.give_back(large);
        assert!((0..8).all(|_| slots.take(claim(0, 1 << 20)).is_some()));
        assert_eq!(slots.take(claim(0, 1)), None);
    }

    #[test]
    fn requests_that_are_never_answered_leave_other_namespaces_their_share() {
        for bytes in [10, 100_000] {
            let mut slots = Slots::new(3);
            let mut fill = |namespace: u8| {
                let taken = std::iter::from_fn(|| slots.take(claim(namespace, bytes)));
                taken.take(HANDED_MAX + 1).count()
            };
            let counts = [0, 1, 2].map(&mut fill);
            assert!(counts[0] > 20 && counts == [counts[0]; 3], "{counts:?}");
            assert!(counts.iter().sum::<usize>() <= HANDED_MAX, "a reply finds no room");
        }
    }

    #[test]
    fn replies_that_wait_for_others_take_no_share() {
        let (doors, desk) = (doors(1).unwrap().remove(0), Slots::new(1));
        let desk = Rc::new(Desk {
            shard: ShardIndex(0),
            to: doors.to,
            slots: RefCell::new(desk),
            replies_held: Arc::default(),
        });
        let hand_over = || desk.hand_over(ShardIndex(0), NamespaceId(0), SrcId::NONE, &[0; 10]);
        let waiting: Vec<Ticket> = (0..HANDED_MAX).map_while(|_| hand_over().ok()).collect();
        assert_eq!((waiting.len(), desk.under_way()), (HANDED_MAX, HANDED_MAX));
        for ticket in &waiting {
            desk.returned(Returned { slot: ticket.slot, reply: Flying::default() });
        }
        assert_eq!(desk.under_way(), 0);
        drop(waiting);
        assert_eq!(desk.slots.borrow().free.len(), HANDED_MAX);
    }

    #[test]
    fn a_shard_whose_clients_do_not_read_is_owed_too_much() {
        let owed = Owed::default();
        let flying = Flying::new(vec![0; REPLY_POOL_BYTES / 2], &owed.flying);
        assert!(!owed.is_too_much());
        owed.held.store(REPLY_POOL_BYTES / 2, Ordering::Relaxed);
        assert!(owed.is_too_much());
        drop(flying);
        assert!(!owed.is_too_much());
    }

    #[test]
    fn a_reply_for_a_shard_that_has_stopped_is_dropped() {
        let (sender, receiver) = mailbox(1).unwrap();
        drop(receiver);
        assert!(sender.is_closed());
        give_back(&Back { sender, owed: Owed::default() }, 0, vec![0; 30]);
    }
}
