//! Longship ships record changes from SSD-backed storage to remote datacenters, fast and without
//! losing one.
//!
//! # The life of one write
//!
//! 1. A client's write reaches the shard that owns its partition (`crates/node`); storage gives it a
//!    version, publishes it in the index and appends it to the open write block (`crates/node/src/storage`), and
//!    the change is submitted: one step, no await between.
//! 2. Submission fans out, one push per *lane* (DC x namespace x partition): 25 bytes, digest and
//!    LUT, never data ([`ship`]).
//! 3. The *DC task* decides what may ship now: retries first, then lanes, under delay, hot-key
//!    rule, throttle and window ([`ship`], run by [`engine`]).
//! 4. A *service task* on the same core reads the record as it is now, from the write-block cache
//!    or the disk ring ([`host`], [`longship_rt`]), filters, projects and encodes it straight into the open
//!    batch of the destination node that masters the partition ([`dest`]). One send per batch.
//! 5. Replies come back in order; each becomes a verdict; the verdict settles the change and lets
//!    the lane's last ship time (LST) move. LSTs are checkpointed, so that a restart resumes and
//!    never skips.
//!
//! Modules are listed in reading order. `ARCHITECTURE.md` has the map and the invariants.

#[doc(hidden)]
pub mod config;
#[doc(hidden)]
pub mod dest;
#[doc(hidden)]
pub mod engine;
pub mod host;
#[doc(hidden)]
pub mod info;
pub mod model;
#[doc(hidden)]
pub mod ship;
pub mod shipper;
#[doc(hidden)]
#[cfg(any(test, feature = "sim"))]
pub mod sim;
#[doc(hidden)]
pub mod wire;
