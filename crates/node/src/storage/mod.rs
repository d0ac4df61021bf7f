//! The reference host: a log-structured record store on direct I/O with an in-memory index.
//!
//! One [`store::Store`] per shard holds all namespaces. A write goes, in one step, into the open
//! block of the shard's log ([`mod@write`]) and into the index ([`index`]); blocks travel to the device
//! behind it ([`flush`]). A read finds the record's place in the index and its bytes in a block
//! still in memory, or on the device ([`read`]). A block is written again when nothing in it is
//! alive and what replaced it is durable ([`log`]); what is alive in mostly dead blocks is moved
//! ([`defrag`]). Records whose time has come turn into tombstones ([`expire`]), and those go when
//! nobody needs them any more ([`raid`]). After a clean stop the next start takes the index from a
//! checkpoint ([`warm`]), otherwise it reads the log and builds the index again ([`cold_start`]).
//!
//! In reading order: what lies on the device ([`flat`], [`block`], [`device`], [`geometry`],
//! [`volume`]) and which devices a namespace may be opened on ([`admit`], [`refusal`], [`known`],
//! [`accepted`], [`accept`]); what is in memory ([`index`], [`sets`], [`log`], [`mod@write`]); one
//! namespace and all of them ([`space`], [`store`]); what takes time ([`flush`], [`read`],
//! [`defrag`], [`expire`], [`raid`], [`cold_start`], and off the shards [`zero`]); and
//! [`mod@start`], above them all.
//!
//! It must never lose what it called durable, never write a device that it does not recognise as
//! its own, and never wait inside a borrow of the store.
//!
//! # What a crash can lose
//!
//! - By default a write is acknowledged, visible and shipped while it is still in memory. When the
//!   process dies, at most the writes of the last `flush-max-ms` are gone. When the power fails, at
//!   most those of the last two `flush-max-ms`: one until a block is written, one until the device
//!   is told to keep it (on drives without a volatile cache the second is nothing).
//! - With `commit-to-device` a write is acknowledged, visible and shipped once it would survive a
//!   power failure. A crash loses nothing acknowledged; what was not acknowledged may be there.

pub mod accept;
mod accepted;
pub mod admit;
#[cfg(feature = "sim")]
pub mod audit;
pub mod block;
pub mod cold_start;
pub mod damage;
pub mod defrag;
pub mod device;
pub mod expire;
pub mod flat;
pub mod flush;
pub mod geometry;
pub mod index;
pub mod keeper;
pub mod known;
pub mod log;
pub mod loss;
pub mod progress;
pub mod raid;
pub mod read;
pub mod refusal;
pub mod sets;
pub mod space;
pub mod start;
pub mod store;
pub mod volume;
pub mod write;
pub mod zero;

mod epochs;
mod open;
mod pieces;
mod walk;
mod warm;
mod whole;

#[cfg(test)]
mod tests;
