//! The reference host: a log-structured record store on direct I/O with an in-memory index.

pub mod flat;
pub mod index;

mod bytes;
