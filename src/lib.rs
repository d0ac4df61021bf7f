//! Longship ships record changes from SSD-backed storage to remote datacenters, fast and without
//! losing one.
//!
//! It is what a storage server links to get cross-datacenter replication: the server keeps its
//! records as it likes, implements [`host::Host`] over them (or [`shipper::MemoryStore`], if they are
//! in memory), starts a [`shipper::Shipper`], and tells it of each change. Destinations are
//! Aerospike clusters and Longship nodes.
//!
//! # What it promises
//!
//! Every datacenter (DC) comes to hold the newest version of each record that its filters admit.
//! Delivery is at least once and state-based: what ships is the record as it is when it is read. No
//! writer ever waits for a DC, and no DC for another. Queues have bounds; what falls out of one is
//! found again by walking the host's records. A restart goes on from durable positions.
//!
//! # What it is not
//!
//! Not a log of changes: versions in between may never ship. Not a consensus protocol: two DCs that
//! write one record at the same time both ship it, and the last to arrive wins. Not a store: it
//! keeps positions and dead letters, never records.
//!
//! # An example
//!
//! A store that is a map. `examples/embed.rs` goes on with restarts and deletes, and looks whether
//! all arrived; `crates/node` is a complete server.
//!
//! ```
//! use std::collections::HashMap;
//! use std::sync::{Arc, RwLock};
//! use std::time::Duration;
//!
//! use longship::config::DcConfig;
//! use longship::host::{OwnedRecord, Walked};
//! use longship::model::{
//!     ChangeKind, Digest, Lut, NamespaceId, PartitionId, RecordView, Version,
//! };
//! use longship::shipper::{
//!     MemoryHost, MemoryStore, Namespace, Shipper, ShipperConfig, StoreFacts,
//! };
//!
//! #[derive(Clone, Default)]
//! struct Map(Arc<RwLock<HashMap<Digest, Version>>>);
//! struct Stored(Digest, Version);
//!
//! impl OwnedRecord for Stored {
//!     fn view(&self) -> RecordView<'_> {
//!         // One bin, `s`, with the text `hi`, as the client protocol writes it.
//!         RecordView::new(self.0, self.1, 1, b"\0\0\0\x07\x02\x03\0\x01shi")
//!     }
//! }
//!
//! impl MemoryStore for Map {
//!     type Record = Stored;
//!
//!     fn get(&self, _: NamespaceId, digest: &Digest) -> Option<Stored> {
//!         self.0.read().unwrap().get(digest).map(|version| Stored(*digest, *version))
//!     }
//!
//!     fn changed(&self, _: NamespaceId, lanes: &[(PartitionId, Lut)]) -> Vec<Walked> {
//!         let map = self.0.read().unwrap();
//!         let from = |digest: &Digest| {
//!             lanes.iter().find(|(partition, _)| *partition == digest.partition()).map(|lane| lane.1)
//!         };
//!         let wanted = map.iter().filter(|(digest, version)| {
//!             from(digest).is_some_and(|from| version.lut() >= from)
//!         });
//!         wanted.map(|(digest, version)| Walked::new(*digest, *version, ChangeKind::Write)).collect()
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let folder = folder.path();
//! let mut west = DcConfig::named("west");
//! west.seeds.push(("192.0.2.1".to_owned(), 3000));
//! west.add_namespace("test")?;
//! let mut config = ShipperConfig::new(folder);
//! config.xdr.dcs.push(west);
//! let store = StoreFacts { id: 1, is_empty: true, ..StoreFacts::default() };
//! config.namespaces.push(Namespace { name: "test".to_owned(), store });
//! let map = Map::default();
//! let of_shards = map.clone();
//! let shipper = Shipper::start(config, move |seed| {
//!     Ok::<_, String>(MemoryHost::new(of_shards.clone(), seed))
//! })?;
//!
//! // On any thread: a ticket, the write, the submission.
//! let mut writer = shipper.writer();
//! let digest = Digest::of_string("demo", "user1");
//! let ticket = writer.begin(NamespaceId(0), digest)?;
//! map.0.write().unwrap().insert(digest, ticket.version());
//! ticket.submit(|_| {});
//!
//! // What is on its way, and commands as an operator gives them.
//! while shipper.report("west")?[0].total.counters.submitted == 0 {}
//! let shard = longship::model::ShardIndex(0);
//! let answer = shipper.info(shard, "set-config:context=xdr;dc=west;max-throughput=5000;namespace=test")?;
//! assert_eq!(answer, "ok");
//! // What could not ship is shipped after the next start.
//! shipper.stop(Duration::from_secs(1))?;
//! # Ok(())
//! # }
//! ```
//!
//! # The life of one write
//!
//! 1. A client's write reaches the shard that owns its partition (`crates/node`); storage gives it
//!    a version, publishes it in the index and appends it to the open write block
//!    (`crates/node/src/storage`), and the change is submitted: one step, no await between.
//! 2. Submission fans out, one push per *lane* (DC x namespace x partition): 25 bytes, digest and
//!    LUT, never data ([`ship`]).
//! 3. The *DC task* decides what may ship now: retries first, then lanes, under delay, hot-key
//!    rule, throttle and window ([`ship`], run by [`engine`]).
//! 4. A *service task* on the same core reads the record as it is now, from the write-block cache
//!    or the disk ring ([`host`], [`longship_rt`]), filters, projects and encodes it straight into
//!    the open batch of the destination node that masters the partition ([`dest`]). One send per
//!    batch.
//! 5. Replies come back in order; each becomes a verdict; the verdict settles the change and lets
//!    the lane's last ship time (LST) move. LSTs are checkpointed, so that a restart resumes and
//!    never skips.
//!
//! Modules are listed in reading order. `ARCHITECTURE.md` has the map and the invariants, `docs/` the
//! decisions and what is known of the reference system, its protocol and the hardware.

pub mod config;
#[doc(hidden)]
pub mod dest;
#[doc(hidden)]
pub mod engine;
pub mod host;
#[doc(hidden)]
pub mod info;
mod limits;
pub mod model;
#[doc(hidden)]
pub mod ship;
pub mod shipper;
#[doc(hidden)]
pub mod wire;
