//! One request on the shard that owns its partition: locate, decide, keep, submit, reply. Never
//! waits: what must be waited for is named, and the rest done by [`Records::finish`] when it is
//! there.

use std::cell::{Cell, Ref, RefCell};
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{self, Poll, ready};

use futures_lite::future::poll_once;

use crate::admin::figures::Figures;
use crate::config::{LiveNamespaces, NamespaceConfig};
use crate::limits::{OTHERS_READ_BYTES_MAX, READ_BYTES_MAX, RESULTS_OVERHEAD_BYTES};
use crate::server::service::{Context, Progress, Target};
use crate::server::turnstile::{Enter, Pass, Turnstile};
use crate::service::apply::{self, Effect, Facts, Image, Old, Refusal, Removal, Scratch};
use crate::storage::index::{EntryPlace, IndexEntry};
use crate::storage::read::read_bytes;
use crate::storage::read::{ReadError, StoredRecord, read};
use crate::storage::space::{WriteRecord, WriteRefused, Written};
use crate::storage::store::{SharedStore, Store, committed};
use longship::engine::{ShardEngine, Shipper};
use longship::host::{Host, OwnedRecord, Peek, RecordSource};
use longship::model::{
    Change, Digest, Generation, Lut, NamespaceId, RecordFlags, RecordView, ShardIndex, SrcId,
    VoidTime,
};
use longship::ship::mutation::{Mutation, planted};
use longship::wire::message::glance;
use longship::wire::reply::{self, OpReply, REPLY_BYTES, Selection};
use longship::wire::{Action, Request, ResultCode};
use longship_rt::prefetch;
use longship_rt::shard::{Queue, need_preempt, spawn, yield_now};

/// Reads for one request at most: each time the record was written meanwhile and has left memory.
const READS_MAX: usize = 8;

/// A read of more bins is answered in portions, from a copy of its record, so that others go on
/// meanwhile.
const BINS_AT_ONCE: usize = 256;

/// Where changes go to be shipped.
pub trait Submit: 'static {
    /// Reads the clocks for the submissions that follow; once per batch.
    fn note_time(&self);

    /// A hint that changes of these records come soon. Does nothing by default.
    fn prefetch(&self, _namespace: NamespaceId, _digests: &[Digest]) {}

    /// Numbers of sets were given back and will name other sets: forgets whatever is remembered by
    /// a number. Does nothing by default.
    fn forget_sets(&self, _namespace: NamespaceId) {}

    /// Takes a change, in the same step as the write, never across an await. `set` is the record's
    /// set name, empty for none. Never fails. The store is borrowed during the call.
    fn submit(&self, change: &Change, set: &str);

    /// Identity of this cluster.
    fn src_id(&self) -> SrcId;

    /// Another cluster ships here, as long as what this gives is kept. Nobody remembers it by default.
    fn note_shipper(&self, shipper: Shipper) -> Rc<Shipper> {
        Rc::new(shipper)
    }
}

impl Submit for ShardEngine<Store> {
    fn note_time(&self) {
        self.note_time();
    }

    fn prefetch(&self, namespace: NamespaceId, digests: &[Digest]) {
        self.prefetch(namespace, digests);
    }

    fn forget_sets(&self, namespace: NamespaceId) {
        self.forget_sets(namespace);
    }

    #[inline]
    fn submit(&self, change: &Change, set: &str) {
        self.submit(change, set);
    }

    fn src_id(&self) -> SrcId {
        self.src_id()
    }

    fn note_shipper(&self, shipper: Shipper) -> Rc<Shipper> {
        self.note_shipper(shipper)
    }
}

/// What a read gave, with the right to the memory it takes.
pub type Read = (Result<Option<StoredRecord>, ReadError>, Pass);

/// A record being read. It begins with its first poll, once there is memory. From then on the device
/// may write to that memory: whoever drops this sooner leaves the rest to a task, so that others get
/// the right to it no earlier than the memory itself.
pub struct Reading(Stage);

enum Stage {
    /// In line for memory.
    Queued(Enter, SharedStore, Target),
    UnderWay(Pin<Box<dyn Future<Output = Read>>>),
    /// It has ended; nobody has taken it yet.
    Ended(Read),
    Taken,
}

impl Reading {
    /// Reads with the pass there is.
    fn with(store: &SharedStore, target: Target, pass: Pass) -> Self {
        let store = Rc::clone(store);
        Self(Stage::UnderWay(Box::pin(async move {
            (read(&store, target.namespace, &target.digest).await, pass)
        })))
    }

    /// Begins it, and goes on as far as that needs nobody.
    pub async fn begun(mut self) -> Self {
        if let Some(read) = poll_once(&mut self).await {
            self.0 = Stage::Ended(read);
        }
        self
    }
}

impl Future for Reading {
    type Output = Read;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Read> {
        let stage = &mut self.get_mut().0;
        if let Stage::Queued(entering, store, target) = stage {
            let pass = ready!(Pin::new(entering).poll(cx));
            if pass.is_void() {
                *stage = Stage::Taken;
                return Poll::Ready((Err(ReadError::Overloaded), pass));
            }
            let Self(begun) = &mut Self::with(store, *target, pass);
            mem::swap(stage, begun);
        }
        if let Stage::UnderWay(read) = stage {
            let read = ready!(read.as_mut().poll(cx));
            *stage = Stage::Taken;
            return Poll::Ready(read);
        }
        match mem::replace(stage, Stage::Taken) {
            Stage::Ended(read) => Poll::Ready(read),
            _ => unreachable!("polled after its end"),
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        if let Stage::UnderWay(read) = mem::replace(&mut self.0, Stage::Taken) {
            spawn(Queue::Sockets, async move { drop(read.await) });
        }
    }
}

/// The record for a request that was told to read it.
#[derive(Clone, Copy, Debug)]
pub enum Fetched<'a> {
    /// Not read.
    No,
    /// Read.
    Record(RecordView<'a>),
    /// It could not be read, and the cause.
    Failed(&'a ReadError),
}

/// What a request wants to be told: this decides how long its reply may get.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wish {
    /// So many times its record, at most.
    times: usize,
    /// Bytes that it writes, and may read back.
    written: usize,
}

impl Wish {
    /// Of the request in `body`.
    pub fn of(request: &Request<'_>, body: &[u8]) -> Self {
        let times = match (request.reads(), request.reads_all()) {
            (false, _) => 0,
            (true, true) => 1,
            (true, false) => usize::from(request.header.op_count).max(1),
        };
        Self { times, written: if request.is_write() { body.len() } else { 0 } }
    }
}

/// A namespace as the server knows it.
#[derive(Debug)]
struct Served {
    name: String,
    figures: Figures,
    /// Bounds the reads for clients of this shard.
    reads: Turnstile,
    /// Bounds the reads done for other shards. A connection that waits for another shard keeps its
    /// passes of `reads` meanwhile: if that shard needed such passes to answer, two shards could
    /// wait for each other for ever. Passes of this turnstile are held by reads that wait for the
    /// device alone.
    others_reads: Turnstile,
}

impl Served {
    fn new(name: String) -> Self {
        Self {
            name,
            figures: Figures::default(),
            reads: Turnstile::new(READ_BYTES_MAX),
            others_reads: Turnstile::new(OTHERS_READ_BYTES_MAX),
        }
    }
}

/// The records of one shard and the rules they are served by.
pub struct Records<S> {
    shard: ShardIndex,
    shard_count: u16,
    store: SharedStore,
    submit: S,
    namespaces: Vec<Served>,
    rules: LiveNamespaces,
    scratch: RefCell<Scratch>,
    /// Bytes of records looked through since somebody asked.
    work: Cell<usize>,
}

/// A request that has passed the checks that need no record.
struct Call<'a> {
    request: Request<'a>,
    action: Action,
    target: Target,
    context: Context,
}

impl<S: Submit> Records<S> {
    /// The records of one of `shard_count` shards, served by the rules of their store.
    pub fn new((shard, shard_count): (ShardIndex, u16), store: SharedStore, submit: S) -> Self {
        let rules = store.borrow().rules().clone();
        Self {
            shard,
            shard_count,
            store,
            submit,
            namespaces: rules.names().into_iter().map(Served::new).collect(),
            rules,
            scratch: RefCell::default(),
            work: Cell::new(0),
        }
    }

    /// The store.
    pub const fn store(&self) -> &SharedStore {
        &self.store
    }

    /// Where changes go.
    pub const fn submit(&self) -> &S {
        &self.submit
    }

    /// The time for the requests that follow. Once per batch.
    #[inline]
    pub fn note_time(&self) -> Lut {
        self.submit.note_time();
        let store = self.store.borrow();
        store.note_time();
        store.wall()
    }

    /// How many namespaces there are.
    pub fn namespace_count(&self) -> usize {
        self.namespaces.len()
    }

    /// The rules of a namespace, as they are now.
    #[inline]
    pub fn rules(&self, namespace: NamespaceId) -> Ref<'_, NamespaceConfig> {
        self.rules.get(namespace)
    }

    /// What was counted for a namespace.
    pub fn figures(&self, namespace: NamespaceId) -> &Figures {
        &self.namespaces[namespace.index()].figures
    }

    /// Shows and submits what has become durable, in the same step: the life-long task of a shard
    /// with a namespace that commits to its device.
    pub async fn publish(self: Rc<Self>) {
        let publishable = self.store.borrow().publishable();
        let mut changes = Vec::new();
        loop {
            publishable.wait().await;
            self.store.borrow_mut().publish(&mut changes);
            self.submit.note_time();
            let store = self.store.borrow();
            for change in changes.drain(..) {
                self.submit.submit(&change, store.set_name(change.namespace, change.set));
            }
        }
    }

    /// Bytes of records looked through since the last call: what requests cost besides their own
    /// length and that of their replies.
    #[inline]
    pub fn take_work(&self) -> usize {
        self.work.take()
    }

    /// About the most bytes that the reply to the message in `body` may have: for who must wait for
    /// memory before it is carried out.
    pub fn reply_bytes(&self, body: &[u8]) -> usize {
        let Ok(request) = Request::parse(body) else { return REPLY_BYTES };
        let (Ok(digest), Ok((namespace, _))) =
            (request.target(), self.namespace(request.namespace))
        else {
            return REPLY_BYTES;
        };
        let wish = Wish::of(&request, body);
        if wish.times > 0 && digest.partition().shard(self.shard_count) != self.shard {
            return results_bytes_max(&self.rules(namespace), &Old::Absent);
        }
        self.reply_bytes_max(wish, Target { namespace, digest })
    }

    /// The most bytes that the reply may have to a request about a record of this shard.
    pub fn reply_bytes_max(&self, wish: Wish, target: Target) -> usize {
        if wish.times == 0 {
            return REPLY_BYTES;
        }
        let max = results_bytes_max(&self.rules(target.namespace), &Old::Absent);
        REPLY_BYTES + ((self.extent(target) + wish.written) * wish.times).min(max)
    }

    /// Bytes of a record on the device; 0 when there is none.
    pub fn extent(&self, Target { namespace, digest }: Target) -> usize {
        let entry = self.store.borrow().lookup(namespace, &digest);
        entry.map_or(0, |entry| entry.location.extent as usize)
    }

    /// A read of a record from the device.
    pub fn read(&self, target: Target) -> Reading {
        self.read_through(&self.namespaces[target.namespace.index()].reads, target)
    }

    /// A read of a record from the device, for a client of another shard.
    pub fn read_for_other(&self, target: Target) -> Reading {
        self.read_through(&self.namespaces[target.namespace.index()].others_reads, target)
    }

    fn read_through(&self, turnstile: &Turnstile, target: Target) -> Reading {
        let entering = turnstile.enter(read_bytes(self.extent(target)));
        Reading(Stage::Queued(entering, Rc::clone(&self.store), target))
    }

    /// Looks whether devices have stopped answering: then no further read waits for them. About once
    /// a second.
    pub fn look_for_stuck_reads(&self) {
        for served in &self.namespaces {
            served.reads.look();
            served.others_reads.look();
        }
    }

    /// Brings to the cache what the messages in `bodies` are about, as far as they are about one
    /// namespace of this shard.
    pub fn prefetch<'a>(&self, bodies: impl Iterator<Item = &'a [u8]>) {
        let mut glances = bodies.take(prefetch::WIDTH).map_while(glance).peekable();
        let Some(&(name, first)) = glances.peek() else { return };
        let mut digests = [first; prefetch::WIDTH];
        let wanted = glances.filter(|(other, _)| *other == name).map(|(_, digest)| digest);
        let count = digests.iter_mut().zip(wanted).map(|(to, digest)| *to = digest).count();
        let is_it = |served: &Served| served.name.as_bytes() == name;
        if let Some(index) = self.namespaces.iter().position(is_it) {
            let (namespace, digests) = (NamespaceId(index as u8), &digests[..count]);
            self.store.borrow().prefetch(namespace, digests);
            self.submit.prefetch(namespace, digests);
        }
    }

    /// Carries out the data message in `body` and appends its reply to `out`.
    #[inline]
    pub fn execute(
        &self,
        body: &[u8],
        context: Context,
        fetched: Fetched<'_>,
        out: &mut Vec<u8>,
    ) -> Progress {
        self.carry_out(Request::parse(body), context, fetched, out)
    }

    /// Carries out a message that has been parsed, or was refused by the parser.
    #[inline]
    pub fn carry_out(
        &self,
        request: Result<Request<'_>, ResultCode>,
        context: Context,
        fetched: Fetched<'_>,
        out: &mut Vec<u8>,
    ) -> Progress {
        if let Ok(request) = &request
            && request.kind.is_answered_by_many()
        {
            // None of these is done here; its client waits for the last answer.
            let code = request.target().err().unwrap_or(ResultCode::UNSUPPORTED_FEATURE);
            reply::push_last(out, code);
            return Progress::Answered;
        }
        match self.check_and_act(request, context, fetched, out) {
            Ok(outcome) => outcome,
            Err(Refusal { code, generation, void_time }) => {
                reply::push(out, code, generation, void_time);
                Progress::Answered
            }
        }
    }

    /// Carries out a request whose record has been read, and appends its reply once it may be sent.
    ///
    /// A record that must be read again is read with the pass there is: who went back to the end of
    /// the queue would wait for those behind it in its own line.
    pub async fn finish(
        &self,
        body: &[u8],
        context: Context,
        (mut read, mut pass): Read,
        out: &mut Vec<u8>,
    ) {
        for _ in 0..READS_MAX {
            let fetched = match &read {
                Ok(Some(record)) => Fetched::Record(record.view()),
                Ok(None) => Fetched::No,
                Err(error) => Fetched::Failed(error),
            };
            let reply_start = out.len();
            let context = Context { now: self.note_time(), ..context };
            match self.execute(body, context, fetched, out) {
                Progress::Long(target) if let Ok(Some(record)) = &read => {
                    return self.select(body, target, &record.view(), out).await;
                }
                Progress::Read(target) | Progress::Long(target) => {
                    drop(read);
                    (read, pass) = Reading::with(&self.store, target, pass).await;
                }
                Progress::Committing(target, position) => {
                    drop((read, pass));
                    return self.confirm(target, position, out, reply_start).await;
                }
                Progress::Answered | Progress::Elsewhere(..) => return,
            }
        }
        reply::push_code(out, ResultCode::KEY_BUSY);
    }

    /// Answers a read of many bins of a record, and lets others go on meanwhile.
    async fn select(
        &self,
        body: &[u8],
        target: Target,
        record: &RecordView<'_>,
        out: &mut Vec<u8>,
    ) {
        let Ok(request) = Request::parse(body) else {
            return reply::push_code(out, ResultCode::PARAMETER);
        };
        let wanted = (request.ops, request.header.op_count);
        let bytes_max = results_bytes_max(&self.rules(target.namespace), &Old::Record(*record));
        let respond_to_all = request.responds_to_all();
        let mut selection = Selection::begin(out, record, wanted, respond_to_all, bytes_max);
        let code = loop {
            match selection.go_on(BINS_AT_ONCE) {
                Ok(false) if need_preempt() => yield_now().await,
                Ok(false) => {}
                Ok(true) => break ResultCode::OK,
                Err(code) => break code,
            }
        };
        if code == ResultCode::OK {
            selection.finish();
        } else {
            drop(selection);
            reply::push_code(out, code);
        }
        self.figures(target.namespace).count(Action::ReadBins, request.is_shipped(), code);
    }

    /// Waits until the write answered from `reply_start` on is durable; the reply then stands, or
    /// is replaced by what went wrong.
    pub async fn confirm(
        &self,
        target: Target,
        position: u64,
        out: &mut Vec<u8>,
        reply_start: usize,
    ) {
        if let Err(code) = self.committed(target, position).await {
            out.truncate(reply_start);
            reply::push_code(out, code);
        }
    }

    /// Waits until the log is durable up to `position`.
    ///
    /// # Errors
    /// Nobody knows whether it is, since the device has failed meanwhile: what was done is in doubt, as
    /// after a timeout. Other codes would say that nothing was done, and the next start may show it.
    pub async fn committed(&self, target: Target, position: u64) -> Result<(), ResultCode> {
        let committed = committed(&self.store, target.namespace, position).await;
        committed.map_err(|_| ResultCode::TIMEOUT)
    }

    fn check_and_act(
        &self,
        request: Result<Request<'_>, ResultCode>,
        context: Context,
        fetched: Fetched<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Progress, Refusal> {
        let request = request?;
        let (namespace, served) = self.namespace(request.namespace)?;
        let digest = request.target()?;
        if request.has_filter {
            return Err(ResultCode::UNSUPPORTED_FEATURE.into());
        }
        let owner = digest.partition().shard(self.shard_count);
        if owner != self.shard {
            return Ok(Progress::Elsewhere(owner, Target { namespace, digest }));
        }
        let rules = self.rules(namespace);
        if request.is_write() {
            apply::admit(&request, &rules).inspect_err(|_| served.figures.count_forbidden())?;
            let gate = self.store.borrow_mut().gate(namespace, request.is_delete());
            if let Err(refused) = gate {
                let action = if request.is_delete() { Action::Delete } else { Action::Write };
                let code = write_failure(refused);
                served.figures.count(action, request.is_shipped(), code);
                return Err(code.into());
            }
        }
        let action = request.action()?;
        let call = Call { request, action, target: Target { namespace, digest }, context };
        let result = self.act(&call, &rules, fetched, out);
        let code = match &result {
            Ok(Progress::Answered | Progress::Committing(..)) => ResultCode::OK,
            Ok(Progress::Read(_) | Progress::Long(_) | Progress::Elsewhere(..)) => return result,
            Err(refusal) => refusal.code,
        };
        served.figures.count(action, call.request.is_shipped(), code);
        result
    }

    fn namespace(&self, name: &str) -> Result<(NamespaceId, &Served), ResultCode> {
        let index = self.namespaces.iter().position(|served| served.name == name);
        let index = index.ok_or(ResultCode::NAMESPACE)?;
        Ok((NamespaceId(index as u8), &self.namespaces[index]))
    }

    fn act(
        &self,
        call: &Call<'_>,
        rules: &NamespaceConfig,
        fetched: Fetched<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Progress, Refusal> {
        let Call { request, action, context, .. } = call;
        let store = self.store.borrow();
        let place = store.find(call.target.namespace, &call.target.digest);
        let Some(old) = locate(&store, &place, call, fetched)? else {
            return Ok(Progress::Read(call.target));
        };
        if let Old::Record(record) = &old {
            self.work.set(self.work.get() + record.bins.len());
        }
        let mut scratch = self.scratch.borrow_mut();
        let kept = match action {
            Action::Delete => {
                let removal = apply::delete(request, &old, &mut scratch)?;
                drop(store);
                let kept = self.keep(call, &place, &call.tombstone(&removal))?;
                reply::push_code(out, ResultCode::OK);
                kept
            }
            Action::Write => {
                let mut reply = OpReply::begin(out, results_bytes_max(rules, &old));
                let effect =
                    apply::write(request, &old, rules, context.now, &mut scratch, &mut reply)?;
                drop(store);
                let (generation, void_time, kept) = match effect {
                    Effect::Put(image) => {
                        let kept = self.keep(call, &place, &call.record(&image))?;
                        (image.generation, image.void_time, kept)
                    }
                    Effect::Remove(removal) => {
                        let kept = self.keep(call, &place, &call.tombstone(&removal))?;
                        (Generation::default(), VoidTime::NEVER, kept)
                    }
                    Effect::Nothing => (Generation::default(), VoidTime::NEVER, Progress::Answered),
                };
                reply.finish(ResultCode::OK, generation, void_time);
                kept
            }
            Action::ReadMetadata | Action::ReadAll | Action::ReadBins => {
                apply::read(request, *action, &old)?;
                if let Old::Record(record) = &old
                    && *action == Action::ReadBins
                    && usize::from(request.header.op_count) > BINS_AT_ONCE
                {
                    let is_fetched =
                        matches!(fetched, Fetched::Record(f) if f.version == record.version);
                    return Ok(match is_fetched {
                        true => Progress::Long(call.target),
                        false => Progress::Read(call.target),
                    });
                }
                answer_read(request, *action, &old, rules, out)?;
                Progress::Answered
            }
        };
        Ok(kept)
    }

    /// The one step: version, log, index, submission. Under `commit-to-device` the last two follow
    /// in [`Records::publish`].
    fn keep(
        &self,
        call: &Call<'_>,
        place: &EntryPlace,
        record: &WriteRecord<'_>,
    ) -> Result<Progress, ResultCode> {
        let namespace = call.target.namespace;
        let mut store = self.store.borrow_mut();
        let written = store.write_at(place, namespace, record, call.context.now);
        let Written { change, position, is_published } = written.map_err(write_failure)?;
        if store.take_sets_given_back(namespace) {
            self.submit.forget_sets(namespace);
        }
        if !is_published {
            return Ok(Progress::Committing(call.target, position));
        }
        self.submit.submit(&change, store.set_name(namespace, change.set));
        Ok(Progress::Answered)
    }
}

impl Call<'_> {
    fn record<'a>(&self, image: &Image<'a>) -> WriteRecord<'a> {
        let &Image { set, key, bins, bin_count, generation, void_time } = image;
        let flags = self.flags(key);
        let (digest, src_id) = (self.target.digest, self.src_id());
        WriteRecord { digest, set, key, bin_count, bins, generation, void_time, flags, src_id }
    }

    fn tombstone<'a>(&self, removal: &Removal<'a>) -> WriteRecord<'a> {
        let &Removal { set, key, durable } = removal;
        let flags = self.flags(key).with(RecordFlags::TOMBSTONE, true);
        WriteRecord {
            digest: self.target.digest,
            set,
            key,
            bin_count: 0,
            bins: &[],
            generation: Generation::default(),
            void_time: VoidTime::NEVER,
            flags: flags.with(RecordFlags::DURABLE, durable),
            src_id: self.src_id(),
        }
    }

    fn flags(&self, key: &[u8]) -> RecordFlags {
        RecordFlags::default()
            .with(RecordFlags::SHIPPED, self.request.is_shipped())
            .with(RecordFlags::HAS_KEY, !key.is_empty())
    }

    /// Cluster of origin: as the record says, else as the connection said.
    fn src_id(&self) -> SrcId {
        match (self.request.is_shipped(), self.request.src_id) {
            (false, _) => SrcId::NONE,
            (true, SrcId::NONE) => self.context.src_id,
            (true, src_id) => src_id,
        }
    }
}

/// The record as far as the request needs it; `None` when it must be read first.
fn locate<'a>(
    store: &'a Store,
    place: &EntryPlace,
    call: &Call<'_>,
    fetched: Fetched<'a>,
) -> Result<Option<Old<'a>>, ResultCode> {
    let Target { namespace, digest } = &call.target;
    let is_write = call.request.is_write();
    let entry = match is_write {
        true => store.latest_at(*namespace, place, digest),
        false => store.lookup_at(*namespace, place, digest),
    };
    let Some(entry) = entry.filter(|entry| is_live(entry, call.context.now)) else {
        return Ok(Some(Old::Absent));
    };
    let IndexEntry { generation, void_time, flags, .. } = entry;
    let (has_key, set) = (flags.has(RecordFlags::HAS_KEY), store.set_name(*namespace, entry.set));
    let facts = Facts { generation, void_time, has_key, set };
    if !apply::needs_old_record(&call.request, call.action, &facts) {
        return Ok(Some(Old::Indexed(facts)));
    }
    if let Fetched::Record(record) = fetched
        && record.version == entry.version
    {
        return Ok(Some(Old::Record(record)));
    }
    let found = match is_write {
        true => store.peek_latest(*namespace, digest),
        false => store.peek(*namespace, digest),
    };
    match (found, fetched) {
        (Peek::Here(record), _) => Ok(Some(Old::Record(record))),
        // What is damaged stays so: it can be replaced and deleted all the same.
        (_, Fetched::Failed(ReadError::Failed))
            if apply::can_go_without(&call.request, call.action) =>
        {
            Ok(Some(Old::Indexed(facts)))
        }
        (_, Fetched::Failed(error)) => Err(read_failure(error)),
        _ => Ok(None),
    }
}

/// Whether clients see a record.
fn is_live(entry: &IndexEntry, now: Lut) -> bool {
    let has_expired = entry.void_time.is_past(now) && !planted(Mutation::ExpiredShown);
    !entry.is_tombstone() && !has_expired
}

fn read_failure(error: &ReadError) -> ResultCode {
    match error {
        ReadError::Overloaded => ResultCode::DEVICE_OVERLOAD,
        ReadError::Failed => ResultCode::SERVER,
    }
}

/// What a client is told whose write was not done. A log that has failed looks like an overloaded one, so that a shipper
/// keeps its changes and tries again until somebody has seen to the device.
fn write_failure(refused: WriteRefused) -> ResultCode {
    match refused {
        WriteRefused::Overloaded | WriteRefused::Poisoned | WriteRefused::Stopping => {
            ResultCode::DEVICE_OVERLOAD
        }
        WriteRefused::Full => ResultCode::OUT_OF_SPACE,
        WriteRefused::TooBig => ResultCode::RECORD_TOO_BIG,
        WriteRefused::TooManySets => ResultCode::PARAMETER,
    }
}

/// Bytes of results that one request may ask for: what it finds and what it leaves, twice the
/// largest record.
fn results_bytes_max(rules: &NamespaceConfig, old: &Old<'_>) -> usize {
    let found = if let Old::Record(record) = old { record.bins.len() } else { 0 };
    2 * (rules.max_record_size as usize).max(found) + RESULTS_OVERHEAD_BYTES
}

fn answer_read(
    request: &Request<'_>,
    action: Action,
    old: &Old<'_>,
    rules: &NamespaceConfig,
    out: &mut Vec<u8>,
) -> Result<(), ResultCode> {
    match (action, old) {
        (Action::ReadAll, Old::Record(record)) => reply::push_record(out, record),
        (_, Old::Record(record)) if action == Action::ReadBins => {
            let wanted = (request.ops, request.header.op_count);
            let bytes_max = results_bytes_max(rules, old);
            reply::push_selected(out, record, wanted, request.responds_to_all(), bytes_max)?;
        }
        _ => {
            let (generation, void_time) =
                old.facts().map(|facts| (facts.generation, facts.void_time)).unwrap_or_default();
            reply::push(out, ResultCode::OK, generation, void_time);
        }
    }
    Ok(())
}
