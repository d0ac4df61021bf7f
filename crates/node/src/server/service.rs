//! What a server is a server of: whoever carries out the requests that it receives. The server keeps
//! connections, order and budgets; what a request does, and where that is kept, it does not know.

use std::future::Future;
use std::rc::Rc;

use longship::engine::Shipper;
use longship::model::{Digest, Lut, NamespaceId, ShardIndex, SrcId};
use longship::wire::{Request, ResultCode};

/// What a request is about: the order among requests is kept for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Namespace of the record.
    pub namespace: NamespaceId,
    /// Digest of the record.
    pub digest: Digest,
}

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Its reply has been appended.
    Answered,
    /// Its reply has been appended, and may be sent once what was done is durable up to this
    /// position.
    Committing(Target, u64),
    /// Nothing has happened yet: what it is about must be fetched.
    Read(Target),
    /// What it is about is there as it was fetched; there is so much to do with it that this is to be
    /// done in portions.
    Long(Target),
    /// Another shard has what it is about.
    Elsewhere(ShardIndex, Target),
}

/// The circumstances of a request.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// The wall clock, read once per batch.
    pub now: Lut,
    /// The cluster a shipping connection comes from, as its hello said.
    pub src_id: SrcId,
}

/// Carries out the requests of one shard. Nothing here waits unless it says so.
pub trait Service: 'static {
    /// Something being fetched. Dropped before its end, it leaves the rest to a task of its own.
    type Fetching: Future<Output = Self::Fetched> + Unpin + 'static;
    /// What came of that, with the right to the memory it takes.
    type Fetched: 'static;
    /// What a request wants to be told: this decides how long its reply may get.
    type Wish: Copy + Default;

    /// How many namespaces there are.
    fn namespace_count(&self) -> usize;

    /// Identity of this cluster, which shippers are told.
    fn src_id(&self) -> SrcId;

    /// Another cluster ships here, as long as what this gives is kept.
    fn note_shipper(&self, shipper: Shipper) -> Rc<Shipper>;

    /// The time for the requests that follow. Once per batch.
    fn note_time(&self) -> Lut;

    /// Looks after what nobody asks for. About once a second.
    fn look_around(&self);

    /// Brings to the cache what the messages in `bodies` are about.
    fn prefetch<'a>(&self, bodies: impl Iterator<Item = &'a [u8]>);

    /// What the request in `body` wants.
    fn wish(request: &Request<'_>, body: &[u8]) -> Self::Wish;

    /// About the most bytes that the reply to the message in `body` may have: for who must wait for
    /// memory before it is carried out.
    fn reply_bytes(&self, body: &[u8]) -> usize;

    /// The most bytes that the reply may have to a request about something of this shard.
    fn reply_bytes_max(&self, wish: Self::Wish, target: Target) -> usize;

    /// Carries out a request and appends its reply to `out`, or says what is to be waited for.
    fn carry_out(
        &self,
        request: Result<Request<'_>, ResultCode>,
        context: Context,
        out: &mut Vec<u8>,
    ) -> Progress;

    /// Bytes looked through since the last call: what requests cost besides their own length and that
    /// of their replies.
    fn take_work(&self) -> usize;

    /// Fetches what a request is about, and goes on as far as that needs nobody.
    fn fetch(&self, target: Target) -> impl Future<Output = Self::Fetching>;

    /// Fetches for a client of another shard. That waits for nothing that clients of this shard may
    /// hold.
    fn fetch_for_other(&self, target: Target) -> Self::Fetching;

    /// Carries out a request with what was fetched for it, and appends its reply once it may be sent.
    fn finish(
        &self,
        body: &[u8],
        context: Context,
        fetched: Self::Fetched,
        out: &mut Vec<u8>,
    ) -> impl Future<Output = ()>;

    /// Waits until what was done is durable up to `position`.
    ///
    /// # Errors
    /// When nobody knows whether it ever will be: what to answer instead.
    fn committed(
        &self,
        target: Target,
        position: u64,
    ) -> impl Future<Output = Result<(), ResultCode>>;
}
