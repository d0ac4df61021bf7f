//! What a cluster has for its engine: replies, notices and spare buffers, with one event to wake it.

use std::cell::{Cell, RefCell};
use std::ops::Deref;

use crate::model::{NamespaceId, SrcId, Tick};
use crate::wire::hello::HelloAnswer;
use longship_rt::event::Event;

use super::NodeIndex;
use super::fault::Fault;
use super::pipeline::{Outgoing, Reply, RoundTrips, Unanswered};

/// Something the engine acts on, in the order it happened.
#[derive(Debug)]
pub enum NodeEvent {
    /// The node takes batches from now on.
    Up {
        /// Index of the node.
        node: NodeIndex,
        /// Number of the connection, which no other of the cluster has had.
        connection: u64,
        /// What it said of itself, if it is a Longship node.
        hello: Option<HelloAnswer>,
    },
    /// The connection to a node ended; until the next [`NodeEvent::Up`] it takes no batch.
    Down {
        /// Index of the node.
        node: NodeIndex,
        /// Why.
        fault: Fault,
        /// Tags of what it had been given and has not answered.
        unanswered: Unanswered,
    },
    /// A Longship node was restarted since it last answered: what it acknowledged shortly before
    /// may be lost. Comes before the [`NodeEvent::Up`] of its new connection.
    Rebooted(Reboot),
    /// A node whose restart may cost acknowledged changes has answered a question, and it is still
    /// the process that the connection reached.
    Alive {
        /// Index of the node.
        node: NodeIndex,
        /// When it was asked.
        asked: Tick,
    },
    /// The node is no longer part of the cluster. Its index may be given to another node once this
    /// notice has been drained.
    Gone {
        /// Index of the node.
        node: NodeIndex,
    },
    /// Some partitions changed hands.
    MapChanged,
    /// What the destination says of a namespace changed; see
    /// [`Cluster::facts`](super::Cluster::facts).
    FactsChanged(NamespaceId),
}

/// A destination node's restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reboot {
    /// The node, which may have come back under another index.
    pub node: NodeIndex,
    /// Boot id before.
    pub previous_boot: u64,
    /// Boot id now.
    pub boot: u64,
    /// Its last reply before; `None` when it had not answered anything to this process.
    pub last_answer: Option<Tick>,
    /// The larger of the loss windows stated before and now, in ms.
    pub loss_window_ms: u64,
    /// `src-id` of its cluster.
    pub src_id: SrcId,
}

/// Counts since the start, all nodes together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes of batches given to the sockets.
    pub bytes_sent: u64,
    /// Bytes of replies.
    pub bytes_received: u64,
    /// Batches given to the sockets.
    pub batches_sent: u64,
    /// Replies.
    pub replies: u64,
    /// Times the sockets were read with something to show for it.
    pub receives: u64,
    /// Connections opened.
    pub connects: u64,
    /// Connections lost otherwise than by our own will.
    pub losses: u64,
    /// Round trips, one per batch.
    pub round_trips: RoundTrips,
}

/// Buffers kept for batches to come, and the largest of them.
const SPARE_MAX: usize = 8;
const SPARE_BYTES_MAX: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct Arrivals<B> {
    pub(super) replies: RefCell<Vec<Reply>>,
    pub(super) notices: RefCell<Vec<NodeEvent>>,
    pub(super) spare: RefCell<Vec<B>>,
    pub(super) traffic: Cell<Traffic>,
    /// Records given to any connection and not answered.
    pub(super) under_way: Cell<usize>,
    pub(super) wake: Event,
}

impl<B: Deref<Target = [u8]>> Arrivals<B> {
    pub(super) fn new(wake: Event) -> Self {
        Self {
            replies: RefCell::default(),
            notices: RefCell::default(),
            spare: RefCell::default(),
            traffic: Cell::default(),
            under_way: Cell::default(),
            wake,
        }
    }

    pub(super) fn notify(&self, notice: NodeEvent) {
        self.notices.borrow_mut().push(notice);
        self.wake.set();
    }

    pub(super) fn count(&self, count: impl FnOnce(&mut Traffic)) {
        let mut traffic = self.traffic.get();
        count(&mut traffic);
        self.traffic.set(traffic);
    }

    /// A batch went out, or failed to: either way its buffer is free.
    pub(super) fn sent(&self, batch: Outgoing<B>) {
        self.count(|traffic| {
            traffic.bytes_sent += batch.bytes as u64;
            traffic.batches_sent += 1;
        });
        self.keep(batch.buffer);
    }

    /// Keeps a buffer for a batch to come, if it is an ordinary one and not too many are kept; others
    /// go back to whom they were taken from.
    pub(super) fn keep(&self, buffer: B) {
        let mut spare = self.spare.borrow_mut();
        if spare.len() < SPARE_MAX && buffer.len() <= SPARE_BYTES_MAX {
            spare.push(buffer);
        }
    }

    /// Replies were appended.
    pub(super) fn answered(&self, bytes: usize, replies: usize, ended: RoundTrips) {
        self.count(|traffic| {
            traffic.bytes_received += bytes as u64;
            traffic.replies += replies as u64;
            traffic.receives += 1;
            traffic.round_trips.count += ended.count;
            traffic.round_trips.total_us += ended.total_us;
        });
        self.wake.set();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spare_buffers_are_ordinary_ones_and_few() {
        let arrivals = Arrivals::new(Event::new());
        arrivals.keep(vec![0; SPARE_BYTES_MAX + 1]);
        assert!(arrivals.spare.borrow().is_empty(), "a large one goes back to its memory");
        for _ in 0..100 {
            arrivals.keep(vec![0; SPARE_BYTES_MAX]);
        }
        assert_eq!(arrivals.spare.borrow().len(), SPARE_MAX);
    }
}
