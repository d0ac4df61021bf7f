//! The client protocol over byte slices: frames, messages, info text. Pure: no socket, no clock.
//!
//! Parsing borrows from the caller's buffer and never panics, whatever the bytes; encoding appends
//! to a vector or fills a slice that the caller owns. On a record's way this module stands at both
//! ends: a source encodes [`request`]s and reads [`reply`] streams, a destination does the reverse.
//!
//! | file | holds |
//! |---|---|
//! | [`frame`] | the 8-byte frame header |
//! | [`header`] | the 22-byte message header |
//! | [`message`] | a parsed [`message::Request`] and its checks |
//! | [`bits`], [`fields`], [`ops`] | the three alphabets of a message |
//! | [`particle`], [`msgpack`] | bin values: types, validation, canonical form; user keys |
//! | [`bins`] | a record's bins at rest and how they are written |
//! | [`reply`], [`request`] | builders, and the bulk parser of pipelined replies |
//! | [`result`] | result codes |
//! | [`info`], [`replicas`], [`peers`], [`hello`] | the text commands |

pub mod bins;
pub mod bits;
pub mod fields;
pub mod frame;
pub mod geojson;
pub mod header;
pub mod hello;
pub mod info;
pub mod message;
pub mod msgpack;
pub mod ops;
pub mod particle;
pub mod peers;
pub mod replicas;
pub mod reply;
pub mod request;
pub mod result;

#[cfg(test)]
mod captured;
#[cfg(test)]
mod properties;

pub use frame::{Frame, FrameError, FrameHeader, FrameType, next_frame};
pub use header::Header;
pub use message::{Action, Kind, Request};
pub use ops::{Op, OpCode, Ops};
pub use particle::ParticleType;
pub use reply::{Replies, Reply, replies};
pub use request::Head;
pub use result::ResultCode;
