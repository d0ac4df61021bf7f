//! What an engine needs of a destination, whoever plays it: a [`Cluster`], or a simulator's model
//! of one.

use std::ops::Deref;

use crate::model::{NamespaceId, PartitionId, SrcId, Tick};

use super::NodeIndex;
use super::arrivals::NodeEvent;
use super::cluster::{Cluster, Route};
use super::pipeline::{Outgoing, Reply};
use super::tend::NamespaceFacts;

/// A destination as one (DC, shard) uses it. No call blocks or waits.
pub trait Destination {
    /// What a batch is encoded into.
    type Buffer: AsMut<[u8]>;

    /// Where a record of this partition could go right now.
    fn route(&self, namespace: NamespaceId, partition: PartitionId) -> Route;

    /// Whether there is a connection to the node, whose window is full.
    fn is_full(&self, node: NodeIndex) -> bool;

    /// Number of the connection to the node, if there is one: that of its [`NodeEvent::Up`], which may
    /// not have been drained yet.
    fn connection(&self, node: NodeIndex) -> Option<u64>;

    /// Whether no batch waits for the node's socket: a part-filled one may as well leave now.
    fn is_free(&self, node: NodeIndex) -> bool;

    /// Gives a node a batch: whole frames in the first `bytes` of the buffer, and one tag for each,
    /// in order. Without a connection or without room the batch comes back. Copies the tags.
    ///
    /// # Errors
    /// The batch, not taken.
    fn send(
        &mut self,
        node: NodeIndex,
        batch: Outgoing<Self::Buffer>,
        tags: &[u32],
    ) -> Result<(), Outgoing<Self::Buffer>>;

    /// Moves out replies and notices, in the order they came.
    fn drain(&mut self, replies: &mut Vec<Reply>, notices: &mut Vec<NodeEvent>);

    /// A buffer whose batch has left.
    fn take_spare(&mut self) -> Option<Self::Buffer>;

    /// Something hints at a stale map.
    fn poke(&mut self);

    /// Looks whether every connection that owes answers moves. Called about once a second and after
    /// [`NodeEvent::MapChanged`].
    fn look(&mut self, now: Tick);

    /// What the destination says of a namespace.
    fn facts(&self, namespace: NamespaceId) -> NamespaceFacts;

    /// Nodes that can be sent to.
    fn nodes(&self) -> usize;

    /// A node, for people.
    fn name(&self, node: NodeIndex) -> Option<String>;

    /// Whether a node calls itself so.
    fn knows(&self, node: &str) -> bool;

    /// What keeps some node from taking what is shipped, if something does; for people.
    fn problem(&self) -> Option<String>;

    /// Answers so far, whatever they said.
    fn replies(&self) -> u64;

    /// What is shipped here has changed: what older connections carry must not arrive later.
    fn begin_stream(&mut self);

    /// Changes who ships.
    fn set_src_id(&mut self, src_id: SrcId);
}

impl<B: AsMut<[u8]> + Deref<Target = [u8]> + 'static> Destination for Cluster<B> {
    type Buffer = B;

    #[inline]
    fn route(&self, namespace: NamespaceId, partition: PartitionId) -> Route {
        Self::route(self, namespace, partition)
    }

    #[inline]
    fn is_full(&self, node: NodeIndex) -> bool {
        Self::is_full(self, node)
    }

    fn connection(&self, node: NodeIndex) -> Option<u64> {
        Self::connection(self, node)
    }

    fn is_free(&self, node: NodeIndex) -> bool {
        Self::is_free(self, node)
    }

    fn send(
        &mut self,
        node: NodeIndex,
        batch: Outgoing<B>,
        tags: &[u32],
    ) -> Result<(), Outgoing<B>> {
        Self::send(self, node, batch, tags)
    }

    fn drain(&mut self, replies: &mut Vec<Reply>, notices: &mut Vec<NodeEvent>) {
        Self::drain(self, replies, notices);
    }

    fn take_spare(&mut self) -> Option<B> {
        Self::take_spare(self)
    }

    fn poke(&mut self) {
        Self::poke(self);
    }

    fn look(&mut self, now: Tick) {
        Self::look(self, now);
    }

    fn facts(&self, namespace: NamespaceId) -> NamespaceFacts {
        Self::facts(self, namespace)
    }

    fn nodes(&self) -> usize {
        Self::nodes(self)
    }

    fn name(&self, node: NodeIndex) -> Option<String> {
        Self::name(self, node)
    }

    fn knows(&self, node: &str) -> bool {
        Self::knows(self, node)
    }

    fn problem(&self) -> Option<String> {
        Self::problem(self)
    }

    fn replies(&self) -> u64 {
        self.traffic().replies
    }

    fn begin_stream(&mut self) {
        Self::begin_stream(self);
    }

    fn set_src_id(&mut self, src_id: SrcId) {
        Self::set_src_id(self, src_id);
    }
}
