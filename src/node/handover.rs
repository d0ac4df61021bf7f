//! Requests for partitions of another shard of this process: handed over, answered where they came.
//!
//! Clients and shippers that know the partition map go straight to the owner; this is for the
//! others. A request travels as the bytes of its body and comes back as the bytes of its reply, each
//! through a bounded mailbox. What is under way is bounded by the asking shard's slots, so that a
//! reply always finds room.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context as TaskContext, Poll, Waker};

use crate::model::{ShardIndex, SrcId};
use crate::rt::mailbox::{Inbox, Receiver, Sender, mailbox};
use crate::rt::shard::{Queue, spawn};
use crate::wire::{ResultCode, reply};

use super::execute::{Context, Fetched, Outcome, Records, Submit};

/// Requests one shard may have under way at others.
const SLOTS_MAX: usize = 4096;
/// Requests waiting at one shard.
const REQUESTS_MAX: usize = 4096;
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
    reply: Vec<u8>,
}

/// A shard's ends of the mailboxes between all shards.
pub struct Doors {
    /// Where requests go, by shard.
    to: Vec<Sender<Handed>>,
    /// Where replies go, by shard.
    back: Vec<Sender<Returned>>,
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
        let (request_sender, requests) = mailbox(REQUESTS_MAX)?;
        let (reply_sender, replies) = mailbox(SLOTS_MAX)?;
        to.push(request_sender);
        back.push(reply_sender);
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
}

#[derive(Debug, Default)]
struct Slots {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

#[derive(Debug)]
enum Slot {
    Free,
    /// Under way; who waits for it, once somebody does.
    Asked(Option<Waker>),
    /// Under way, and nobody waits any more.
    Abandoned,
    Answered(Vec<u8>),
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
    /// DEVICE_OVERLOAD, which every client retries, when too much is under way.
    pub fn hand_over(
        self: &Rc<Self>,
        to: ShardIndex,
        src_id: SrcId,
        body: &[u8],
    ) -> Result<Ticket, ResultCode> {
        let slot = self.slots.borrow_mut().take().ok_or(ResultCode::DEVICE_OVERLOAD)?;
        let request = Handed { from: self.shard, slot, src_id, body: body.into() };
        if self.to[usize::from(to.0)].push(request).is_err() {
            self.slots.borrow_mut().give_back(slot);
            return Err(ResultCode::DEVICE_OVERLOAD);
        }
        Ok(Ticket { desk: Rc::clone(self), slot })
    }

    /// Requests under way at other shards.
    pub fn under_way(&self) -> usize {
        let slots = self.slots.borrow();
        slots.slots.len() - slots.free.len()
    }

    fn returned(&self, Returned { slot, reply }: Returned) {
        let mut slots = self.slots.borrow_mut();
        match std::mem::replace(&mut slots.slots[slot as usize], Slot::Answered(reply)) {
            Slot::Asked(waker) => {
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            _ => slots.give_back(slot),
        }
    }
}

impl Slots {
    fn take(&mut self) -> Option<u32> {
        if let Some(slot) = self.free.pop() {
            self.slots[slot as usize] = Slot::Asked(None);
            return Some(slot);
        }
        if self.slots.len() == SLOTS_MAX {
            return None;
        }
        self.slots.push(Slot::Asked(None));
        Some(self.slots.len() as u32 - 1)
    }

    fn give_back(&mut self, slot: u32) {
        self.slots[slot as usize] = Slot::Free;
        self.free.push(slot);
    }
}

impl Future for Ticket {
    type Output = Vec<u8>;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Vec<u8>> {
        match &mut self.desk.slots.borrow_mut().slots[self.slot as usize] {
            Slot::Answered(reply) => Poll::Ready(std::mem::take(reply)),
            Slot::Asked(waker) => {
                *waker = Some(cx.waker().clone());
                Poll::Pending
            }
            Slot::Free | Slot::Abandoned => unreachable!("the ticket holds the slot"),
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut slots = self.desk.slots.borrow_mut();
        match &mut slots.slots[self.slot as usize] {
            Slot::Answered(_) => slots.give_back(self.slot),
            slot => *slot = Slot::Abandoned,
        }
    }
}

/// Opens a shard's doors, on the shard: starts the tasks that serve the others and take their
/// replies.
///
/// # Errors
/// The process has no descriptor left.
pub fn open<S: Submit>(
    shard: ShardIndex,
    doors: Doors,
    records: &Rc<Records<S>>,
) -> io::Result<Rc<Desk>> {
    let Doors { to, back, requests, replies } = doors;
    let (requests, replies) = (requests.open()?, replies.open()?);
    let desk = Rc::new(Desk { shard, to, slots: RefCell::default() });
    spawn(Queue::Sockets, take_replies(Rc::clone(&desk), replies));
    spawn(Queue::Sockets, serve_others(Rc::clone(records), requests, back));
    Ok(desk)
}

async fn take_replies(desk: Rc<Desk>, mut replies: Inbox<Returned>) {
    let mut batch = Vec::with_capacity(DRAIN_MAX);
    while replies.wait().await.is_ok() {
        replies.drain(&mut batch, DRAIN_MAX);
        batch.drain(..).for_each(|returned| desk.returned(returned));
    }
}

async fn serve_others<S: Submit>(
    records: Rc<Records<S>>,
    mut requests: Inbox<Handed>,
    back: Vec<Sender<Returned>>,
) {
    let mut batch = Vec::with_capacity(DRAIN_MAX);
    while requests.wait().await.is_ok() {
        requests.drain(&mut batch, DRAIN_MAX);
        let now = records.note_time();
        for Handed { from, slot, src_id, body } in batch.drain(..) {
            let context = Context { now, src_id };
            let mut reply = Vec::new();
            let back = back[usize::from(from.0)].clone();
            let outcome = records.execute(&body, context, Fetched::No, &mut reply);
            match outcome {
                Outcome::Read(_) | Outcome::Committing(..) => {}
                Outcome::Answered => {
                    give_back(&back, slot, reply);
                    continue;
                }
                // Never handed on: the asker and this shard do not agree on the owner.
                Outcome::Elsewhere(..) => {
                    reply::push_code(&mut reply, ResultCode::UNAVAILABLE);
                    give_back(&back, slot, reply);
                    continue;
                }
            }
            // Misrouted and not done at once: rare enough for a task of its own.
            let records = Rc::clone(&records);
            spawn(Queue::Sockets, async move {
                match outcome {
                    Outcome::Read(target) => {
                        let reading = records.read_for_other(target);
                        records.finish(&body, context, reading, &mut reply).await;
                    }
                    Outcome::Committing(target, position) => {
                        records.confirm(target, position, &mut reply, 0).await;
                    }
                    Outcome::Answered | Outcome::Elsewhere(..) => {}
                }
                give_back(&back, slot, reply);
            });
        }
    }
}

pub(super) fn give_back(back: &Sender<Returned>, slot: u32, reply: Vec<u8>) {
    debug_assert!(!reply.is_empty(), "a slot without a reply shifts all that follow it");
    if back.push(Returned { slot, reply }).is_err() {
        // A shard that has stopped waits for nothing.
        assert!(back.is_closed(), "the mailbox has room for every slot of its shard");
    }
}
