//! Where frames go: destination clusters, their partition maps, and pipelined connections.
//!
//! Each shard keeps, for each DC, its own picture of the destination and its own connections; no
//! two shards share any. On a record's way this module stands between the encoded batch and the
//! result codes that come back for it. It never looks into a record, decides nothing about retries
//! and never resolves a name on a shard.
//!
//! | file | holds |
//! |---|---|
//! | [`partition_map`] | which node masters each partition, from what the nodes claim \[pure\] |
//! | [`facts`] | what a destination tells of a namespace that decides whether writes can work \[pure\] |
//! | [`places`] | addresses to try, and the hook that resolves names off the shard |
//! | `answers` | reading what a node answers to info commands \[pure\] |
//! | [`tend`] | how nodes are found, watched and given up: answers in, questions out \[pure\] |
//! | [`pipeline`] | what is under way on a connection: batches, tags, window \[pure\] |
//! | [`link`] | info commands over a socket; opening a shipping connection; the hello |
//! | [`connection`] | the sender and the receiver of a shipping connection |
//! | [`inbox`] | replies, notices and spare buffers on their way to the engine |
//! | [`cluster`] | the handle: route, send, drain; the tasks behind it |

mod answers;
pub mod cluster;
pub mod connection;
pub mod facts;
pub mod inbox;
pub mod link;
pub mod partition_map;
pub mod pipeline;
pub mod places;
pub mod tend;

pub use answers::BadAnswer;
pub use cluster::{Cluster, Identity, Route, Setup};
pub use connection::Fault;
pub use facts::NamespaceFacts;
pub use inbox::{Notice, Reboot, Traffic};
pub use link::Patience;
pub use partition_map::PartitionMap;
pub use pipeline::{Outgoing, Reply, RoundTrips, Unanswered, Window};
pub use places::{Resolver, Resolving};
pub use tend::{Tend, TendSpec};

/// A node of a destination cluster as one (DC, shard) numbers it: dense, and given out again only
/// after everybody has been told that its former holder is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeIndex(pub u16);

impl NodeIndex {
    /// The index as an array index.
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Nodes of one destination cluster at most; further peers are ignored, with a warning.
pub const NODE_COUNT_MAX: usize = 256;
