//! What bounds what operators, destinations and strangers can make shipping do: ARCHITECTURE.md tells
//! what happens at each bound. The relations that the rest of the code counts on are asserted at the
//! end. A constant that is a rule of one file stays in that file.

use longship_rt::arena::BUFFER_BYTES_MAX;

// What is configured.

/// Destinations at most.
pub const DC_COUNT_MAX: usize = 64;
/// Seeds of a DC at most.
pub const SEED_COUNT_MAX: usize = 64;
/// Entries of any other list at most.
pub const LIST_ENTRIES_MAX: usize = 1024;
/// Namespaces at most.
pub const NAMESPACE_COUNT_MAX: usize = 32;
/// Bytes of a DC's or a namespace's name at most.
pub const NAME_BYTES_MAX: usize = 31;
/// Contexts inside contexts at most; the deepest real one has five.
pub(crate) const CONTEXT_DEPTH_MAX: usize = 16;

// What waits, on one shard.

/// Changes of a DC that are being read, sent or answered. Over a link of 156 ms there and back, 1 M
/// records/s keep 156,000 in flight.
pub(crate) const WINDOW_RECORDS: u32 = 196_608;
/// Bytes on the wire of what one node was sent and has not answered.
pub(crate) const WINDOW_BYTES: usize = 64 << 20;
/// Decided changes of one namespace that wait to be read. Where its device hangs, no more of them
/// wait, and the rest of the window is left to other namespaces.
pub(crate) const UNREAD_MAX: usize = 2048;
/// Changes of a DC waiting for a retry, a hot key's time, a grace re-ship or a dead letter.
pub(crate) const WAITING_MAX: u32 = 131_072;
/// Of these, entries made because a key is hot.
pub(crate) const HOT_KEYS_MAX: u32 = 32_768;
/// Changes a lane may ship before the next lane has its turn.
pub(crate) const LANE_TURN: u32 = 50;
/// Changes a namespace may ship before the next namespace of its DC has its turn.
pub(crate) const NAMESPACE_TURN: u32 = 256;
/// Bytes of a DC's queues.
pub(crate) const QUEUE_BYTES: usize = 256 << 20;
/// Bytes of what recovery found of one of its namespaces.
pub(crate) const WALKED_BYTES: usize = 4 << 20;
/// Size of a batch; one record larger than that gets one of its own.
pub const BATCH_BYTES: usize = 64 << 10;
/// Encoded bytes that wait for one node's connection. Once there are so many, nothing more is
/// encoded for that node.
pub(crate) const OUTBOX_BYTES: usize = 4 << 20;
/// Memory for the batches of all DCs of a shard; touched only as far as it is used.
pub const BATCH_ARENA_BYTES: usize = 256 << 20;
/// Changes that wait for being taken up; one more leaves its partition to recovery.
pub(crate) const CHANGES_WAITING_MAX: usize = 1 << 16;
/// Questions that wait for their answers.
pub(crate) const QUESTIONS_MAX: usize = 64;
/// Orders of the control loop that wait for being followed.
pub(crate) const ORDERS_MAX: usize = 1024;

// Commands and dead letters.

/// Commands that are remembered, because another port may bring the same one again. One that was
/// forgotten is judged anew.
pub(crate) const COMMANDS_REMEMBERED_MAX: usize = 256;
/// Most letters of one namespace of a DC. Beyond, its lanes rest and keep what they would give up.
pub(crate) const LETTERS_MAX: usize = 10_000;
/// Longer keys are not kept: the digest names the record.
pub(crate) const LETTER_KEY_BYTES_MAX: usize = 1024;
/// Copies of damaged files of letters that are kept: each may be all there is of them.
pub(crate) const LETTER_COPIES_MAX: usize = 16;
/// Letters in one answer, at the most and if nothing else is asked for.
pub(crate) const LETTERS_SHOWN_MAX: usize = 1000;

// What a destination says.

/// Nodes of one destination cluster at most; further peers are ignored, with a warning.
pub(crate) const NODE_COUNT_MAX: usize = 256;
/// Nodes that are looked at in a list of peers: far more than a cluster has.
pub(crate) const PEERS_MAX: usize = 1024;
/// Addresses that are looked at of one node in such a list.
pub(crate) const PEER_HOSTS_MAX: usize = 256;
/// Bytes of a node's id or host name; longer ones are passed over.
pub(crate) const HOST_BYTES_MAX: usize = 255;
/// Longest info answer taken: a `replicas` of 32 namespaces with 32 copies is 700 KiB.
pub(crate) const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Lines of an answer that are looked at: more than are ever asked for at once.
pub(crate) const ANSWER_LINES_MAX: usize = 128;
/// How much is kept of the cause of a refusal.
pub(crate) const CAUSE_CHARS_MAX: usize = 400;
/// Lines of the log about one destination at once, from each shard and about its troubles as all
/// shards see them; one a second more.
pub(crate) const LOG_LINES_MAX: u64 = 64;

// Where a destination is looked for.

/// Hosts kept of one target at most; seeds are as many as are configured.
pub(crate) const HOSTS_MAX: usize = 256;
/// Addresses kept from one name at most.
pub(crate) const ADDRESSES_PER_NAME_MAX: usize = 16;
/// Names that wait or are remembered, at most. Most come from the configuration, some from what
/// destinations list.
pub(crate) const NAMES_MAX: usize = 1024;
/// Threads that resolve names.
pub(crate) const RESOLVER_THREADS_MAX: usize = 4;
/// Attempts at once to reach nodes that do not answer, however many such nodes there are and
/// whatever addresses are listed of them.
pub(crate) const NODES_TRIED_AT_ONCE: u64 = 32;
/// Milliseconds between two further attempts.
pub(crate) const TRY_NODE_MS: u64 = 10;
/// New connections to one address at once, whatever they are for and however they end.
pub(crate) const CONNECTIONS_AT_ONCE: u64 = 10;
/// Milliseconds between two further connections to that address.
pub(crate) const CONNECTION_EVERY_MS: u64 = 200;
/// Addresses whose connections are counted. When there is need, one that has rested for two seconds
/// is forgotten.
pub(crate) const ADDRESSES_MAX: usize = 1024;

// How long somebody waits for a destination.

/// A node that owes answers and has sent none for so long gets no more records.
pub(crate) const SILENT_MS: u64 = 1000;
/// In flight to a node may be what it answers in this time.
pub(crate) const LATE_MS: u64 = 2000;
/// How long a DC that was deleted waits for what it is owed.
pub(crate) const DRAIN_MS: u64 = 5000;
/// A connection that owes answers is given up when for so long no reply has come, and no byte of
/// the oldest unanswered batch was taken by the destination's system. Source: `docs/behaviour.md`
/// section 5.4.
pub(crate) const DEAD_MS: u64 = 10_000;
/// How long a straggler is feared after its connection died.
pub(crate) const GRACE_MS: u32 = 15_000;

// What a hello may hold.

/// Streams one shard of a source may have: one for each DC, and some that are ending.
pub(crate) const STREAMS_MAX: usize = 256;
/// Stores a destination may tell of.
pub(crate) const STORES_MAX: usize = 32;
/// No destination is believed to lose more.
pub(crate) const LOSS_WINDOW_MS_MAX: u64 = 24 * 3600 * 1000;
/// Longest DC name taken.
pub(crate) const HELLO_DC_BYTES_MAX: usize = 63;

// Values.

/// Deepest nesting of GeoJSON's arrays and objects; a MultiPolygon in a Feature takes six.
pub(crate) const GEOJSON_DEPTH_MAX: usize = 32;

// A hello has room for every DC of a shard while as many others end, and for any DC's name. Its
// answer has room for every namespace.
const _: () = assert!(2 * DC_COUNT_MAX <= STREAMS_MAX && NAME_BYTES_MAX <= HELLO_DC_BYTES_MAX);
const _: () = assert!(NAMESPACE_COUNT_MAX <= STORES_MAX);
// One command orders each DC about once; several ports may bring it for every DC.
const _: () =
    assert!(2 * DC_COUNT_MAX <= ORDERS_MAX && 2 * DC_COUNT_MAX <= COMMANDS_REMEMBERED_MAX);
// What one namespace may have waiting leaves most of the window to others.
const _: () = assert!(NAMESPACE_COUNT_MAX * UNREAD_MAX <= WINDOW_RECORDS as usize / 2);
// What is encoded for a node is a small part of what it may be owed.
const _: () = assert!(BATCH_BYTES <= OUTBOX_BYTES && OUTBOX_BYTES <= WINDOW_BYTES / 4);
// Keys that are hot leave others room to wait.
const _: () = assert!(HOT_KEYS_MAX <= WAITING_MAX / 2);
// Every DC has a share of the batch memory that holds a batch, and the largest buffer.
const _: () = assert!(BATCH_ARENA_BYTES / DC_COUNT_MAX >= 2 * BATCH_BYTES);
const _: () = assert!(BUFFER_BYTES_MAX <= BATCH_ARENA_BYTES / 4);
// A list of peers may name more nodes than are taken, never fewer; seeds are hosts as well.
const _: () = assert!(NODE_COUNT_MAX <= PEERS_MAX && SEED_COUNT_MAX <= HOSTS_MAX);
// Patience with a node ends in steps: it gets no more records; its answers count as late; a deleted
// DC stops waiting for it; its connection is cut. A straggler is feared for longer than a silent
// connection is kept.
const _: () = assert!(SILENT_MS < LATE_MS && LATE_MS < DRAIN_MS && DRAIN_MS < DEAD_MS);
const _: () = assert!(DEAD_MS < GRACE_MS as u64);
// All nodes of a destination are tried within what a connection may be dead for.
const _: () = assert!(NODE_COUNT_MAX as u64 * TRY_NODE_MS < DEAD_MS);
const _: () = assert!(LETTERS_SHOWN_MAX <= LETTERS_MAX);
