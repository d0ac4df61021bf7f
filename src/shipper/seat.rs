//! Shipping as a process has it: one part that all shards share, and a seat on each shard.
//!
//! Who has shards of its own, as the node has, gives each of them a [`Seat`] and runs [`Shipping`] on
//! a thread of its own; [`Shipper`](super::Shipper) does both for everybody else.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::{Arc, mpsc};

use crate::engine::{
    ControlLoop, ControlSeed, EngineSeed, FileWait, Notice, Order, ShardEngine, SourceId,
};
use crate::host::{Host, StoreError};
use crate::limits::ORDERS_MAX;
use crate::model::{ShardIndex, SrcId};
use longship_rt::arena::Arena;
use longship_rt::clock::Clock;
use longship_rt::mailbox::{Full, Receiver, Sender, mailbox};

/// Orders shipping to end, from any thread. Clones end the same.
#[derive(Clone, Debug)]
pub struct Stop(mpsc::Sender<Notice>);

impl Stop {
    /// False when it has ended already.
    pub fn stop(&self) -> bool {
        self.0.send(Notice::Stop).is_ok()
    }
}

/// What all shards share of shipping, ready to run.
pub struct Shipping {
    notices: mpsc::Sender<Notice>,
    inbox: mpsc::Receiver<Notice>,
    shards: Vec<Sender<Order>>,
    files: FileWait,
}

/// A shard's part in shipping, on its way to that shard.
pub struct Seat {
    shard: ShardIndex,
    shard_count: u16,
    orders: Receiver<Order>,
    notices: mpsc::Sender<Notice>,
    files: FileWait,
}

/// What a shard brings to its seat.
pub struct SeatSpec<H> {
    /// The storage server, on this shard.
    pub host: Rc<RefCell<H>>,
    /// Memory for batches.
    pub arena: Arena,
    /// Time.
    pub clock: Clock,
    /// Names of the namespaces, in order of their ids.
    pub namespaces: Rc<[String]>,
    /// This process, as a source.
    pub source: SourceId,
    /// Destinations have never seen it: what a former one has left on its way they would take.
    pub is_new_source: bool,
    /// This cluster's identity at the start.
    pub src_id: SrcId,
}

impl Shipping {
    /// What can be ordered before there are shards: the end.
    pub fn new() -> (Self, Stop) {
        let (notices, inbox) = mpsc::channel();
        let stop = Stop(notices.clone());
        (Self { notices, inbox, shards: Vec::new(), files: FileWait::default() }, stop)
    }

    /// A seat for each of so many shards.
    ///
    /// # Errors
    /// No descriptor is left for their mailboxes.
    pub fn seats(&mut self, shard_count: u16) -> io::Result<Vec<Seat>> {
        let seat = |shard| {
            let (sender, orders) = mailbox(ORDERS_MAX)?;
            self.shards.push(sender);
            let (notices, files) = (self.notices.clone(), self.files.clone());
            Ok(Seat { shard: ShardIndex(shard), shard_count, orders, notices, files })
        };
        (0..shard_count).map(seat).collect()
    }

    /// Runs until every shard has stopped, once all have taken their seats; the last positions are
    /// durable then. `on_serving` is called when every DC is in place and its positions are durable:
    /// what is written from then on ships. Says whether everything acknowledged is on the hosts'
    /// devices.
    ///
    /// # Errors
    /// The positions could not be read at the start, or not be stored at the end.
    pub fn run(
        self,
        seed: ControlSeed,
        on_serving: impl FnOnce() + 'static,
    ) -> Result<bool, StoreError> {
        let wall = seed.wall;
        let (looped, inbox) = self.begin(seed)?;
        looped.run(&inbox, wall, on_serving)
    }

    /// The same in virtual time, where no thread may wait.
    ///
    /// # Errors
    /// As of [`Self::run`].
    #[cfg(feature = "sim")]
    pub async fn run_virtually(
        self,
        seed: ControlSeed,
        on_serving: impl FnOnce() + 'static,
    ) -> Result<bool, StoreError> {
        let wall = seed.wall;
        let (looped, inbox) = self.begin(seed)?;
        looped.run_virtually(&inbox, wall, on_serving).await
    }

    fn begin(self, seed: ControlSeed) -> Result<(ControlLoop, mpsc::Receiver<Notice>), StoreError> {
        let Self { notices: _, inbox, shards, files } = self;
        let shard_count = shards.len();
        let tell = Arc::new(move |shard: ShardIndex, order| {
            push(&shards[usize::from(shard.0)], order);
        });
        Ok((ControlLoop::start(seed, shard_count, tell, &files)?, inbox))
    }
}

impl Seat {
    /// Whose it is.
    pub const fn shard(&self) -> ShardIndex {
        self.shard
    }

    /// Shards of the process.
    pub const fn shard_count(&self) -> u16 {
        self.shard_count
    }

    /// Takes it, on the shard: from now on the shard follows orders.
    ///
    /// # Errors
    /// No descriptor is left for its mailbox.
    pub fn take<H: Host>(self, spec: SeatSpec<H>) -> io::Result<ShardEngine<H>> {
        let SeatSpec { host, arena, clock, namespaces, source, src_id, is_new_source } = spec;
        let Self { shard, shard_count, orders, notices, files } = self;
        ShardEngine::start(EngineSeed {
            host,
            arena,
            clock,
            shard,
            shard_count,
            namespaces,
            source,
            is_new_source,
            src_id,
            orders,
            notices,
            files,
        })
    }
}

/// Orders are few and a mailbox is large: a full one means a shard that is busy. Wait for it. A
/// shard that has ended needs no orders.
fn push(shard: &Sender<Order>, order: Order) {
    let mut order = order;
    while let Err(Full(back)) = shard.push(order) {
        if shard.is_closed() {
            return;
        }
        order = back;
        std::thread::yield_now();
    }
}
