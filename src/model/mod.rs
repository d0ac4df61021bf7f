//! The domain's words, for every module. Pure data: no I/O, no clock, no configuration.
//!
//! | word | meaning |
//! |---|---|
//! | digest | 20-byte hash of set and user key: a record's identity inside its namespace |
//! | partition | one of 4096 slices of the digest space; belongs to exactly one shard |
//! | LUT | last update time of a record, ms since 2010-01-01 UTC, 40 bits |
//! | version | LUT and a sequence number within it; strictly increasing per shard; orders copies of a record |
//! | lane | one (DC, namespace, partition): the unit that is queued, settled and recovered |
//! | LST | last ship time of a lane, *exclusive*: every change with LUT < LST is settled |
//! | change | what a writer tells the shipper about one write: identity, version, flags; never data |
//! | mark | the persisted LST of a lane |
//! | verdict | what a reply means for a change: success, retry, plain delete, abandon or refuse |
//! | tick | monotonic microseconds since the process started; the only time rules see |

mod change;
mod digest;
mod ids;
mod record;
mod time;

pub use change::{Change, ChangeKind, Walked};
pub(crate) use digest::fold;
pub use digest::{Digest, DigestHash, DigestHasher, DigestMap};
pub use ids::{
    DcIndex, LaneId, NamespaceId, PARTITION_COUNT, PartitionId, SetId, ShardIndex, SrcId, StoreRun,
};
pub use record::{BIN_NAME_BYTES_MAX, Generation, RecordFlags, RecordView, SET_NAME_BYTES_MAX};
pub use time::{CLIENT_EPOCH_UNIX_MS, Lut, Tick, TtlSpec, Version, VoidTime};
