//! What shards and the control loop tell each other.

use std::net::SocketAddr;
use std::sync::Arc;

use super::super::command::Command;
use super::super::gap::DeleteGap;
use super::super::letters::{Leaving, Letter};
use super::super::positions::Beginning;
use super::super::trouble::Trouble;
use crate::config::DcConfig;
use crate::host::{Hole, Mark};
use crate::model::{DcIndex, Digest, Lut, NamespaceId, ShardIndex, SrcId};
use crate::wire::hello::NamespaceStore;

/// What is to be known while marks cannot be stored; for people.
pub(in crate::engine) const UNSTORED: &str = "until they are stored, a restart ships again from \
     the former marks";

/// What the control loop is told.
#[derive(Debug)]
pub enum Notice {
    /// A port received a command that changes configuration.
    Command {
        /// The shard whose port it was.
        shard: ShardIndex,
        /// Comes back in the [`Order::Answer`].
        ticket: u64,
        /// What it asks for; whether it can be done is not judged yet.
        command: Command,
    },
    /// A shard wants a host name resolved.
    Resolve {
        /// The shard that asks, and gets the answer.
        shard: ShardIndex,
        /// Comes back in the [`Order::Resolved`].
        ticket: u64,
        /// Host name without its port.
        host: String,
        /// Goes into each address.
        port: u16,
    },
    /// A shard gave changes up.
    Abandoned(Burial),
    /// A port asks for the dead letters of its shard.
    Letters {
        /// The shard that asks, and gets the answer.
        shard: ShardIndex,
        /// Comes back in the [`Order::Letters`].
        ticket: u64,
        /// Name of the DC.
        dc: String,
        /// Name of the namespace at the source.
        namespace: String,
        /// Only letters behind this digest.
        after: Option<Digest>,
        /// So many of them.
        count: usize,
    },
    /// What is wrong with a DC on a shard has changed.
    Troubles {
        /// The shard that tells.
        shard: ShardIndex,
        /// Name of the DC.
        dc: String,
        /// All that is wrong there now; empty when nothing is.
        troubles: Vec<Trouble>,
    },
    /// Records with a dead letter have changed since, and need it no longer, unless a crash takes the
    /// change back.
    LettersOutdated {
        /// Name of the DC.
        dc: String,
        /// Name of the namespace at the source.
        namespace: String,
        /// Each record, and what the LUT of its letter is below.
        records: Vec<(Digest, Lut)>,
        /// Which leaving of letters that is.
        leaving: Leaving,
    },
    /// A shard has taken letters of an [`Order::Replay`] up, or had room for none.
    Replayed {
        /// Name of the DC.
        dc: String,
        /// Name of the namespace at the source.
        namespace: String,
        /// What its lanes took up again.
        taken: Vec<Digest>,
    },
    /// Replayed letters have come to an end that no restart of the destination takes back.
    ReplaySettled {
        /// Name of the DC.
        dc: String,
        /// Name of the namespace at the source.
        namespace: String,
        /// The records whose letters these are.
        letters: Vec<Digest>,
        /// Which leaving of letters that is.
        leaving: Leaving,
    },
    /// Replays were given up: their letters stay, and can be replayed again.
    ReplayDropped {
        /// Name of the DC.
        dc: String,
        /// Name of the namespace at the source.
        namespace: String,
        /// The records whose letters these are.
        letters: Vec<Digest>,
    },
    /// A destination said of its stores, when a connection was opened.
    Stores {
        /// Index of the DC whose destination it is.
        dc: DcIndex,
        /// Boot id of the process that said it.
        boot: u64,
        /// One for each namespace of the destination, whether it is shipped to or not.
        stores: Vec<NamespaceStore>,
    },
    /// A shard has followed [`Order::Dc`], [`Order::Namespace`] or [`Order::Replay`].
    Followed {
        /// Which order.
        serial: u64,
        /// Positions of the lanes that began with it.
        marks: Vec<Mark>,
        /// What they cannot find again.
        gaps: Vec<DeleteGap>,
    },
    /// A shard's positions at a checkpoint.
    Marks {
        /// The shard whose positions these are.
        shard: ShardIndex,
        /// Which telling this is; it comes back with [`Order::MarksStored`].
        round: u64,
        /// Every lane of the shard.
        marks: Vec<Mark>,
        /// Letters that nobody needs any more.
        letters: Vec<Left>,
    },
    /// Stop the process.
    Stop,
    /// A shard takes no more requests and has answered all it took.
    Quiet,
    /// A shard has drained, flushed and closed.
    Stopped {
        /// The shard's last positions.
        marks: Vec<Mark>,
        /// Letters that nobody needs any more.
        letters: Vec<Left>,
        /// Everything it had acknowledged is on its devices.
        durable: bool,
    },
}

/// Changes that a shard gave up, to be kept as letters.
#[derive(Debug)]
pub struct Burial {
    /// The shard that gave them up, and hears of it with [`Order::Buried`].
    pub shard: ShardIndex,
    /// Index of the DC, the same on every shard.
    pub dc: DcIndex,
    /// Each letter, with the slot that names its change on that shard.
    pub letters: Vec<(u32, Letter)>,
}

/// Why letters of a namespace have left the list is on the source's device by now, up to a leaving: no
/// crash brings back what they stood for, so that they may leave their file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// Index of the DC that the letters are of.
    pub dc: DcIndex,
    /// Namespace at the source.
    pub namespace: NamespaceId,
    /// The last leaving that is covered, and with it those of the same shard before it.
    pub upto: Leaving,
}

/// What the control loop tells a shard; it follows in the order told.
#[derive(Clone, Debug)]
pub enum Order {
    /// Make a DC be as configured; `None` deletes it.
    Dc {
        /// Given back in [`Notice::Followed`].
        serial: u64,
        /// Index of the DC, never that of a deleted one.
        dc: DcIndex,
        /// Its configuration, and this cluster's identity towards it.
        config: Option<(Arc<DcConfig>, SrcId)>,
        /// Where namespaces that begin with this order start; the others go on.
        starts: Vec<(NamespaceId, Beginning)>,
    },
    /// Set an item of a namespace of this node, which was judged before.
    Namespace {
        /// Given back in [`Notice::Followed`].
        serial: u64,
        /// The namespace, as this node numbers it.
        namespace: NamespaceId,
        /// Name of the item.
        key: String,
        /// Its new value, as the command spelled it.
        value: String,
    },
    /// This cluster's `src-id` changed.
    Identity(SrcId),
    /// The answer to [`Notice::Command`].
    Answer {
        /// From [`Notice::Command`].
        ticket: u64,
        /// `ok`, with what the operator should know behind it, or why not.
        result: Result<String, String>,
    },
    /// The answer to [`Notice::Resolve`].
    Resolved {
        /// From the question.
        ticket: u64,
        /// What the system knows, or why not.
        addresses: Result<Vec<SocketAddr>, String>,
    },
    /// What came of [`Notice::Abandoned`].
    Buried {
        /// Index of the DC whose changes these are.
        dc: DcIndex,
        /// Each change, and whether its letter is durable.
        slots: Vec<(u32, bool)>,
        /// Why some are not.
        refusal: Option<String>,
    },
    /// Letters that were kept before a DC or namespace was there.
    LettersKept {
        /// Index of the DC.
        dc: DcIndex,
        /// Namespace at the source.
        namespace: NamespaceId,
        /// Each record and the LUT of its change. Each shard picks those of its partitions.
        records: Arc<[(Digest, Lut)]>,
    },
    /// The answer to [`Notice::Letters`].
    Letters {
        /// From the question.
        ticket: u64,
        /// In order of their digests.
        letters: Vec<Letter>,
        /// How many there are behind them.
        more: usize,
    },
    /// Take up changes that were given up. Each shard picks those of its partitions.
    Replay {
        /// Given back in [`Notice::Followed`].
        serial: u64,
        /// Index of the DC.
        dc: DcIndex,
        /// Namespace at the source.
        namespace: NamespaceId,
        /// The letters of the namespace, of every shard.
        letters: Arc<[Letter]>,
    },
    /// What the destination of a DC lacks, as far as its stores tell.
    Holes {
        /// Index of the DC.
        dc: DcIndex,
        /// All holes that are known, by namespace at the source; they take the place of those told
        /// before.
        holes: Arc<[(NamespaceId, Hole)]>,
    },
    /// Positions sent in the [`Notice::Marks`] of that round are durable.
    MarksStored(u64),
    /// They could not be made durable.
    MarksNotStored(u64),
    /// Why positions, whoever's they are, cannot be stored now; `None` once they can again.
    MarksRefused(Option<String>),
    /// Every DC of the file is in place: take requests.
    Serve,
    /// Take no more requests, answer what was taken, and say so. Other shards may still hand over.
    Stop,
    /// No shard takes requests any more: ship what is left, flush, and say so.
    Finish,
}
