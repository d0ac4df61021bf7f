//! Thread-per-core mechanisms without one domain word; home of almost all unsafe code.

pub mod arena;
pub mod clock;
pub mod descriptors;
pub mod disk_ring;
pub mod event;
mod eventfd;
pub mod file_lock;
pub mod heap;
mod limits;
pub mod mailbox;
pub mod mpsc;
pub mod net;
pub mod placement;
pub mod prefetch;
pub mod shard;
mod sync;
pub mod topology;
mod turn;
