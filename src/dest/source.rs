//! This shard as a source: what its hellos say, shared by the clusters of all its DCs.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::model::SrcId;
use crate::wire::hello::{Challenge, Hello, Key, Origin};

/// Which process ships: the same on all its shards.
#[derive(Clone, Debug)]
pub struct SourceId {
    /// Kept with the storage, through all its processes.
    pub key: Key,
    /// Higher than that of every earlier process with this key.
    pub process: u64,
    /// Node id of the first shard, for people.
    pub node: u64,
}

/// What one shard of a source says in its hellos.
#[derive(Debug)]
pub struct Source {
    id: SourceId,
    origin: Origin,
    shard: u16,
    epoch: Cell<u64>,
    /// Streams of this shard, ascending.
    streams: RefCell<Vec<u64>>,
    stream_next: Cell<u64>,
}

/// Who ships, as the hello says it.
#[derive(Clone, Debug)]
pub struct ShipperIdentity {
    /// This shard; the same for all its clusters.
    pub source: Rc<Source>,
    /// This cluster's `src-id`.
    pub src_id: SrcId,
    /// The DC's name.
    pub dc: String,
}

impl Source {
    /// Shard `shard` of a process.
    pub fn new(id: SourceId, shard: u16) -> Rc<Self> {
        let origin = id.key.origin();
        let (epoch, streams, stream_next) = (Cell::default(), RefCell::default(), Cell::new(1));
        Rc::new(Self { id, origin, shard, epoch, streams, stream_next })
    }

    /// A new stream: one DC under one set of rules. Its hellos end, at the destination, whatever
    /// streams of this shard have ended carried.
    pub(super) fn begin_stream(&self) -> u64 {
        let stream = self.stream_next.get();
        self.stream_next.set(stream + 1);
        self.streams.borrow_mut().push(stream);
        stream
    }

    pub(super) fn end_stream(&self, stream: u64) {
        self.streams.borrow_mut().retain(|known| *known != stream);
    }

    /// The hello of a connection of one of the streams to the node with id `to`, as things are now.
    pub(super) fn hello(
        &self,
        stream: u64,
        (dc, src_id): (&str, SrcId),
        (to, challenge): (&str, &Challenge),
    ) -> String {
        self.epoch.set(self.epoch.get() + 1);
        let hello = Hello {
            origin: self.origin,
            process: self.id.process,
            node: self.id.node,
            shard: self.shard,
            stream,
            streams: self.streams.borrow().clone(),
            epoch: self.epoch.get(),
            src_id,
            dc,
        };
        self.id.key.sign(&hello, to, challenge)
    }

    /// The question whether somebody else goes by this process's name, see
    /// [`STANDING`](crate::wire::hello::STANDING).
    pub(super) fn standing_question(&self) -> String {
        let SourceId { process, node, .. } = self.id;
        let (name, origin) = (crate::wire::hello::STANDING, self.origin.to_hex());
        format!("{name}:origin={origin};process={process};node={node:X}")
    }
}
