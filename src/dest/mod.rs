//! Where frames go: destination clusters, their partition maps, and pipelined connections.
//!
//! Each shard keeps, for each DC, its own picture of the destination and its own connections; no
//! two shards share any. On a record's way this module stands between the encoded batch and the
//! result codes that come back for it. It never looks into a record, decides nothing about retries
//! and never resolves a name on a shard.
//!
//! | file | holds |
//! |---|---|
//! | [`tend`] | nodes, partitions, facts: what is known and what to ask next \[pure\] |
//! | [`pipeline`] | what is under way on a connection: batches, tags, window \[pure\] |
//! | `replies` | replies in pieces of any size, matched once they are whole \[pure\] |
//! | `allowance` | how much of that window a node gets, by what it answers \[pure\] |
//! | [`link`] | info commands over a socket; opening a shipping connection; the hello |
//! | [`source`] | who ships: what the hellos of one shard say |
//! | [`connection`] | the sender and the receiver of a shipping connection |
//! | `fault` | why such a connection ended |
//! | `losses` | connections that are lost again and again \[pure\] |
//! | [`arrivals`] | replies, notices and spare buffers on their way to the engine |
//! | [`cluster`] | the handle: route, send, drain |
//! | `destination` | what an engine needs of it, or of a model of it |
//! | `tasks` | the tasks behind it |

mod allowance;
pub mod arrivals;
pub mod cluster;
pub mod connection;
mod destination;
mod fault;
pub mod link;
mod losses;
pub mod pipeline;
mod replies;
pub mod source;
#[cfg(test)]
mod stand_in;
mod tasks;
pub mod tend;

pub use arrivals::{NodeEvent, Reboot, Traffic};
pub use cluster::{Cluster, Route, Setup};
pub use destination::Destination;
pub use fault::Fault;
pub use link::Patience;
pub use pipeline::{Outgoing, Reply, RoundTrips, Unanswered, Window};
pub use replies::{Replies, Taken};
pub use source::{ShipperIdentity, Source, SourceId};
pub use tend::{NamespaceFacts, Resolver, Resolving, Tend, TendSpec};

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
