//! What bounds what others can make the node do: ARCHITECTURE.md tells what happens at each bound.
//! The relations that the rest of the code counts on are asserted at the end.

use longship::wire::frame::FRAME_HEADER_BYTES;

/// Size of an idle connection's buffer.
pub(crate) const RECEIVED_BYTES_MIN: usize = 4 << 10;
/// Size up to which the buffer follows a client that fills it; larger only for a larger frame.
pub(crate) const RECEIVED_BYTES_BURST: usize = 256 << 10;
/// Largest body of info commands taken.
pub(crate) const INFO_BYTES_MAX: usize = 128 << 10;
/// Bytes of the request pool, if the largest message is not larger than half of it. Half of it gives
/// 64 connections the largest buffer for bursts.
pub(crate) const REQUEST_POOL_BYTES: usize = 32 << 20;
/// Bytes of the pool of replies, but for one that is larger.
pub(crate) const REPLY_POOL_BYTES: usize = 16 << 20;
/// Bytes of replies that each connection has for itself.
pub(crate) const REPLY_BYTES_FREE: usize = 4 << 10;
/// Replies that are sent before more requests are carried out.
pub(crate) const REPLY_BYTES_MAX: usize = 256 << 10;
/// Most bytes one request of info commands may be answered with.
pub(crate) const INFO_REPLY_BYTES_MAX: usize = 4 << 20;
/// Most bytes of the frame of such an answer.
pub(crate) const INFO_FRAME_BYTES_MAX: usize = INFO_REPLY_BYTES_MAX + FRAME_HEADER_BYTES;
/// Requests between two looks at the clock, if they are small.
pub(crate) const REQUESTS_PER_LOOK: usize = 32;
/// Bytes of requests, of what they find and of their replies between two looks at the clock.
pub(crate) const BYTES_PER_LOOK: usize = 32 << 10;
/// Requests in line at most. With `commit-to-device` the most that one flush acknowledges.
pub(crate) const LINE_MAX: usize = 1024;
/// Reads from the device among them: one client's share of the device.
pub(crate) const LINE_READS_MAX: usize = 256;
/// A line takes no further request once its replies may come to so many bytes.
pub(crate) const LINE_BYTES_MAX: usize = 4 << 20;
/// Requests one shard may have under way at others, of all namespaces.
pub(crate) const HANDED_MAX: usize = 4096;
/// Requests waiting at one shard.
pub(crate) const HANDED_WAITING_MAX: usize = 4096;
/// Bytes of the requests under way at others. One alone of its namespace may be larger than a share.
pub(crate) const HANDED_BYTES_MAX: usize = 8 << 20;
/// Room for the fields of a request and for operations that store nothing.
pub(crate) const MESSAGE_OVERHEAD_BYTES: usize = 1 << 20;
/// How long a connection that ends in order waits for its client to end it, too.
pub(crate) const PARTING_US: u64 = 1_000_000;
/// A client that has got everything and sends nothing for so long is not waited for any longer.
pub(crate) const PARTING_QUIET_US: u64 = 100_000;
/// A client that has ended its side gets what it asked for before, unless that takes longer: a device
/// may hang, and the client may be gone.
pub(crate) const GONE_US: u64 = 2_000_000;
/// A client that makes no headway for so long is closed while memory is tight ...
pub(crate) const PATIENCE_US: u64 = 1_000_000;
/// ... and so much longer for what it holds: 2 MB/s.
pub(crate) const PATIENCE_US_PER_MB: u64 = 500_000;
/// How much is logged of a command that changes the node ...
pub(crate) const COMMAND_CHARS_MAX: usize = 320;
/// ... and of its answer.
pub(crate) const ANSWER_CHARS_MAX: usize = 160;
/// Most bytes of values one request may make: three copies of the largest record.
pub(crate) const MADE_BYTES_MAX: usize = 24 << 20;
/// Longest user key that a tombstone keeps. Whoever reads a tombstone needs the digest; the key is
/// only passed on. A delete is taken when writes are not any more, so what it stores must be small.
pub(crate) const TOMBSTONE_KEY_BYTES_MAX: usize = 1024;
/// Bytes of records of a namespace that the clients of a shard may be reading on it.
pub(crate) const READ_BYTES_MAX: usize = 6 << 20;
/// Bytes of records of a namespace that may be read on a shard for the clients of others.
pub(crate) const OTHERS_READ_BYTES_MAX: usize = 2 << 20;
/// Records of a namespace that one DC may be reading on a shard: a device that hangs holds up those
/// of its own namespace alone.
pub(crate) const READS_PER_DC_MAX: usize = 256;
/// Bytes of memory that these records may take, the last one not counted.
pub(crate) const READ_BYTES_PER_DC_MAX: usize = 1 << 20;
/// Bytes of memory that reads of a namespace for all DCs together may take on a shard. A DC that
/// has nothing under way may begin a read all the same.
pub(crate) const READ_BYTES_OF_DCS_MAX: usize = 6 << 20;
/// Memory for all reads of a namespace on a shard.
pub(crate) const READ_ARENA_BYTES: usize = 16 << 20;
/// Room for results without values: one for each operation there may be.
pub(crate) const RESULTS_OVERHEAD_BYTES: usize = 1 << 20;

// What one shard may have under way finds room at another that has nothing else to do.
const _: () = assert!(HANDED_MAX <= HANDED_WAITING_MAX);
// One connection cannot ask for so much that nothing is left of what all share.
const _: () = assert!(INFO_FRAME_BYTES_MAX <= REPLY_POOL_BYTES / 2);
const _: () = assert!(LINE_BYTES_MAX <= REPLY_POOL_BYTES / 2);
const _: () = assert!(RECEIVED_BYTES_BURST <= REQUEST_POOL_BYTES / 64);
// A buffer for requests takes a whole frame of info commands, or a burst, and never shrinks to nothing.
const _: () =
    assert!(INFO_BYTES_MAX <= RECEIVED_BYTES_BURST && RECEIVED_BYTES_MIN < RECEIVED_BYTES_BURST);
// Replies are sent before they fill a line, and what is free is the least of it.
const _: () = assert!(REPLY_BYTES_FREE < REPLY_BYTES_MAX && REPLY_BYTES_MAX <= LINE_BYTES_MAX);
// A shard's own clients have the larger part of its reads.
const _: () = assert!(OTHERS_READ_BYTES_MAX <= READ_BYTES_MAX);
// Each kind of reader finds the memory that it may have, and one DC leaves some to the others.
const _: () = assert!(
    READ_BYTES_MAX + OTHERS_READ_BYTES_MAX + READ_BYTES_OF_DCS_MAX + READ_BYTES_PER_DC_MAX
        <= READ_ARENA_BYTES
);
const _: () = assert!(READ_BYTES_PER_DC_MAX <= READ_BYTES_OF_DCS_MAX / 2);
// Patience with a client that ends: one that is quiet is left first, then one that is slow to take
// its replies, last one that may be gone.
const _: () = assert!(PARTING_QUIET_US < PARTING_US && PARTING_US < GONE_US);
const _: () = assert!(LINE_READS_MAX <= LINE_MAX);
