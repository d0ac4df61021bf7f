//! Thread-per-core mechanisms without one domain word; home of almost all unsafe code.

pub mod arena;
pub mod clock;
pub mod disk_ring;
pub mod event;
pub mod net;
pub mod shard;
mod turn;
