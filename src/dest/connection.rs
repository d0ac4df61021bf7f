//! One pipelined shipping connection: batches go out one send at a time, replies come back in bulk.
//!
//! Two long-lived tasks per connection share this state. The sender opens the connection, then
//! writes batch after batch; the receiver reads into one buffer, turns what it finds into result
//! codes and wakes the engine once per read. Whoever meets a fault first names it; the sender shuts
//! the socket, waits for the receiver to take what had arrived, and gives the rest back as
//! unanswered. No task is spawned and nothing is allocated per batch.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;

use futures_lite::future;

use crate::limits::{DEAD_MS, SILENT_MS};
use crate::model::Tick;
use longship_rt::clock::Clock;
use longship_rt::event::Event;
use longship_rt::net::{ReadHalf, SendQueue, Socket, WriteHalf};

use super::arrivals::Arrivals;
use super::fault::Fault;
use super::pipeline::{Outgoing, Pipeline, Unanswered, Window};
use super::replies::Replies;

/// Replies are read in pieces of this size: 2184 at a time.
const RECEIVE_BYTES: usize = 64 << 10;
/// Batches are written in pieces of this size, most of them in one.
const SEND_BYTES: usize = 256 << 10;
/// A node may have in flight at most so many times what the window leaves free for the others.
const SHARE: usize = 4;

/// Whether a connection takes batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readiness {
    /// Not connected.
    Down,
    /// Takes batches; the number of the connection.
    Up(u64),
}

#[derive(Debug)]
pub(super) struct Connection<B> {
    arrivals: Rc<Arrivals<B>>,
    /// Bound on the records of all connections of the DC together.
    records_max: usize,
    pipeline: RefCell<Pipeline<B>>,
    /// It owes an answer, see [`Pipeline::silent_since`], and has for a while.
    silent: Cell<bool>,
    /// Bytes given to the system on this connection.
    written: Cell<u64>,
    send_queue: Cell<Option<SendQueue>>,
    phase: Cell<Readiness>,
    /// Takes no more batches and closes, for good, once everything is answered.
    retired: Cell<bool>,
    fault: RefCell<Option<Fault>>,
    last_answer: Cell<Option<Tick>>,
    /// For the sender: a batch, a fault, or an address to connect to.
    pub(super) work: Event,
    /// For the sender while it writes: stop at once.
    cut: Event,
    /// For the receiver: a half to read from, or its end.
    handed: Event,
    read_half: RefCell<Option<ReadHalf>>,
    /// For the sender: the receiver has let go of its half.
    let_go: Event,
}

impl<B: std::ops::Deref<Target = [u8]>> Connection<B> {
    pub(super) fn new(window: Window, arrivals: Rc<Arrivals<B>>) -> Self {
        Self {
            arrivals,
            records_max: window.records,
            pipeline: RefCell::new(Pipeline::new(window)),
            silent: Cell::new(false),
            written: Cell::new(0),
            send_queue: Cell::new(None),
            phase: Cell::new(Readiness::Down),
            retired: Cell::new(false),
            fault: RefCell::new(None),
            last_answer: Cell::new(None),
            work: Event::new(),
            cut: Event::new(),
            handed: Event::new(),
            read_half: RefCell::new(None),
            let_go: Event::new(),
        }
    }

    #[inline]
    pub(super) fn is_up(&self) -> bool {
        self.number().is_some()
    }

    /// Its number, while it takes batches.
    #[inline]
    pub(super) fn number(&self) -> Option<u64> {
        match self.phase.get() {
            Readiness::Up(number) if !self.retired.get() => Some(number),
            _ => None,
        }
    }

    /// Whether it takes a batch. However many nodes fall silent, the window keeps room for others.
    #[inline]
    pub(super) fn has_room(&self) -> bool {
        let pipeline = self.pipeline.borrow();
        let free = self.records_max.saturating_sub(self.arrivals.under_way.get());
        !self.silent.get() && pipeline.has_room() && pipeline.records() < free * SHARE
    }

    /// Reads the pipeline's figures.
    #[inline]
    pub(super) fn pipeline(&self) -> std::cell::Ref<'_, Pipeline<B>> {
        self.pipeline.borrow()
    }

    pub(super) fn push(&self, batch: Outgoing<B>, tags: &[u32]) -> Result<(), Outgoing<B>> {
        if !self.is_up() {
            return Err(batch);
        }
        self.pipeline.borrow_mut().push(batch, tags)?;
        self.arrivals.under_way.update(|records| records + tags.len());
        self.work.set();
        Ok(())
    }

    /// Looks whether anything moves; call it about once a second, and when the map has changed.
    /// `is_left`: nothing is routed to the node any more, so that what it owes is better sent
    /// elsewhere than waited for.
    pub(super) fn look(&self, is_left: impl Fn() -> bool, now: Tick) {
        self.look_at_taken(now);
        let since = self.pipeline.borrow().silent_since();
        let waits_ms = since.map_or(0, |since| now.us_since(since) / 1000);
        self.silent.set(waits_ms >= SILENT_MS);
        if waits_ms >= DEAD_MS {
            const _: () = assert!(DEAD_MS == 10_000, "the text says so");
            self.end(Fault::Cut("it owes answers, and has sent none for 10 s"));
        } else if waits_ms >= SILENT_MS && is_left() {
            self.end(Fault::Cut("the partition map has left it, and it owes answers"));
        }
    }

    /// Of a connection that owes an answer for a while: how many it owes, and for how many ms
    /// nothing has come.
    pub(super) fn silence(&self, now: Tick) -> Option<(usize, u64)> {
        let pipeline = self.pipeline.borrow();
        let since = pipeline.silent_since().filter(|_| self.silent.get())?;
        Some((pipeline.records(), now.us_since(since) / 1000))
    }

    /// One large record may be on its way for long: looks what the peer's system has taken.
    fn look_at_taken(&self, now: Tick) {
        let Some(Ok(queued)) = self.send_queue.get().map(SendQueue::bytes) else { return };
        let taken = self.written.get().saturating_sub(queued);
        self.pipeline.borrow_mut().note_taken(taken, now);
    }

    /// Whether the peer's system has all that was written.
    #[cfg(test)]
    pub(super) fn is_taken(&self) -> bool {
        self.send_queue.get().is_some_and(|queue| queue.bytes().is_ok_and(|bytes| bytes == 0))
    }

    /// Ends the connection now.
    pub(super) fn end(&self, fault: Fault) {
        if self.phase.get() == Readiness::Down {
            return;
        }
        self.fault.borrow_mut().get_or_insert(fault);
        self.cut.set();
        self.work.set();
    }

    /// Ends it for good, once drained.
    pub(super) fn retire(&self) {
        self.retired.set(true);
        self.work.set();
        self.handed.set();
    }

    pub(super) fn is_retired(&self) -> bool {
        self.retired.get()
    }

    /// When the last reply came, on this or an earlier connection to the node.
    pub(super) fn last_answer(&self) -> Option<Tick> {
        self.last_answer.get()
    }

    /// The sender's side of open connection `number`, from its first batch to its end.
    pub(super) async fn carry(&self, number: u64, socket: Socket) -> (Fault, Unanswered) {
        if self.cut.is_set() {
            // Left over from the end of the connection before.
            self.cut.wait().await;
        }
        let (read, mut write) = socket.split();
        self.pipeline.borrow_mut().start_over();
        self.written.set(0);
        self.send_queue.set(Some(write.send_queue()));
        self.read_half.replace(Some(read));
        self.handed.set();
        self.phase.set(Readiness::Up(number));

        self.send(&mut write).await;
        write.shutdown();
        self.let_go.wait().await;
        self.phase.set(Readiness::Down);
        self.handed.set();
        self.send_queue.set(None);
        self.silent.set(false);
        let fault = self.fault.take().expect("sending ends by a fault");
        let mut spare = Vec::new();
        let unanswered = self.pipeline.borrow_mut().lose(&mut spare);
        spare.into_iter().for_each(|buffer| self.arrivals.keep(buffer));
        self.arrivals.under_way.update(|records| records - unanswered.tags.len());
        (fault, unanswered)
    }

    /// Writes what is given, until there is a fault.
    async fn send(&self, write: &mut WriteHalf) {
        while self.fault.borrow().is_none() {
            let begun = self.pipeline.borrow_mut().begin(now());
            let Some(batch) = begun else {
                if self.retired.get() && self.pipeline.borrow().records() == 0 {
                    return self.end(Fault::Drained);
                }
                // The socket is free: a part-filled batch may leave.
                self.arrivals.wake.set();
                self.work.wait().await;
                continue;
            };
            let stop = async {
                self.cut.wait().await;
                Err(io::ErrorKind::ConnectionAborted.into())
            };
            let sent = future::or(self.write(write, &batch.buffer[..batch.bytes]), stop).await;
            self.arrivals.sent(batch);
            if let Err(error) = sent {
                self.end(Fault::Send(error));
            }
        }
    }

    async fn write(&self, write: &mut WriteHalf, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(SEND_BYTES) {
            write.write_all(piece).await?;
            self.written.update(|written| written + piece.len() as u64);
        }
        Ok(())
    }

    /// The receiver's task: lives as long as the node.
    pub(super) async fn receive(self: Rc<Self>) {
        loop {
            let taken = self.read_half.take();
            if let Some(mut read) = taken {
                let fault = self.read_replies(&mut read).await;
                self.end(fault);
                self.let_go.set();
            } else if self.retired.get() && self.phase.get() == Readiness::Down {
                return;
            } else {
                self.handed.wait().await;
            }
        }
    }

    async fn read_replies(&self, read: &mut ReadHalf) -> Fault {
        let mut answers = Replies::new(RECEIVE_BYTES);
        loop {
            let came = match read.read(answers.room()).await {
                Ok(0) => return Fault::ClosedByPeer,
                Ok(came) => came,
                Err(error) => return Fault::Receive(error),
            };
            if let Err(fault) = self.take_replies(&mut answers, came) {
                return fault;
            }
        }
    }

    /// Settles the replies that are whole now that so many bytes more came.
    fn take_replies(&self, answers: &mut Replies, came: usize) -> Result<(), Fault> {
        let mut pipeline = self.pipeline.borrow_mut();
        let mut replies = self.arrivals.replies.borrow_mut();
        let now = now();
        let (taken, result) = answers.take(came, now, &mut pipeline, &mut replies);
        if taken.replies > 0 {
            self.last_answer.set(Some(now));
            self.silent.set(false);
            self.arrivals.under_way.update(|records| records - taken.replies);
            self.arrivals.answered(taken.bytes, taken.replies, taken.ended);
            if self.retired.get() && pipeline.records() == 0 {
                self.work.set();
            }
        }
        result
    }
}

/// The monotonic clock, as rules see it.
pub(super) fn now() -> Tick {
    Tick(Clock::real().now())
}
