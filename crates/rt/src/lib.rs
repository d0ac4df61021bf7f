//! Thread-per-core mechanisms without one domain word; home of almost all unsafe code.
//!
//! A *shard* ([`shard`]) is one pinned thread with an executor, a disk ring ([`disk_ring`]), memory
//! registered with it ([`arena`]), sockets ([`net`]) and a mailbox for the other threads
//! ([`mailbox`]); [`placement`] says which shard goes where, from what [`topology`] knows of the
//! machine. What shards count lies in [`metrics`]. Outside this crate nobody names glommio,
//! io-uring, hwlocality or libc.

pub mod affinity;
pub mod arena;
pub mod blocking;
pub mod bytes;
pub mod clock;
pub mod descriptors;
pub mod disk_ring;
pub mod event;
mod eventfd;
pub mod file_lock;
pub mod heap;
mod limits;
pub mod mailbox;
pub mod makes_files;
pub mod metrics;
pub mod mpsc;
pub mod net;
pub mod placement;
pub mod prefetch;
pub mod random;
pub mod remedy;
pub mod shard;
mod sync;
pub mod topology;
mod turn;
#[cfg(any(test, feature = "testing"))]
pub mod virtual_net;
#[cfg(any(test, feature = "testing"))]
pub mod virtual_shard;
