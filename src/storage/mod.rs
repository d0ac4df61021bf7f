//! The reference host: a log-structured record store on direct I/O with an in-memory index.

pub mod block;
pub mod cold_start;
pub mod device;
pub mod flat;
pub mod flush;
pub mod geometry;
pub mod index;
pub mod log;
pub mod read;
pub mod sets;
pub mod space;
pub mod store;
pub mod volume;
pub mod write;

mod bytes;
mod walk;

#[cfg(test)]
mod tests;
