//! Whole nodes in virtual time: what runs between the sockets and the devices of each is the product,
//! and so is everything between a client's request and the answer of the destination. A seed decides
//! who ships to whom, what clients write, how long the network and the devices take, which task goes on
//! when, and what breaks: connections, hosts that stall, processes that die, stop and start again,
//! operators.
//!
//! The oracles know only what a client knows: what it asked, and how that was answered ([`story`]).
//! A node may also be alone, and ship nothing: then its devices are small, written over and over and
//! often nearly full, its clients many and its lives short ([`run_alone`]).
//!
//! This is slower than the world of the rules by two orders, and sees what that one cannot: the tasks,
//! the sockets, the files, the start and the stop. Keys of hash tables are not the seed's: a run that
//! depends on their order may go otherwise the next time.

mod client;
mod life;
mod plan;
mod story;

pub use life::NodesOutcome;
pub(crate) use life::{run, run_alone};
pub use plan::NodesFault;
