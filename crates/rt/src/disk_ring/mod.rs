//! The disk ring: one io_uring per shard, beside the executor's own, that carries record reads,
//! whole-block reads and log writes.
//!
//! An operation starts the moment it is asked for; the shard's *driver* ([`DiskRing::drive`], a
//! long-lived task) hands everything asked for since its last pass to the kernel in one system call
//! and reaps what has come back. Finished operations wake their [`DiskOp`] future, or go to a
//! [`Completions`] that a task drains in batches.
//!
//! What callers can rely on:
//!
//! - `Ok(n)` means all `n` bytes that were asked for. Short transfers are resumed; one that meets
//!   the end of the file is `UnexpectedEof` (read) or `WriteZero` (write). Requests larger than the
//!   device takes at once go out in pieces, one after the other.
//! - Memory belongs to its operation until the kernel has answered, however early the future is
//!   dropped. Dropping the ring waits for what is in flight; what does not come back is leaked.
//! - Each file belongs to a *lane*, which has at most `depth` operations with the kernel; more wait
//!   in order. Their number is bounded by the buffers there are. A device that hangs holds up the
//!   lane of its file and no other.
//!
//! # Safety argument
//!
//! The kernel is given addresses in `ops.rs` only, and only of memory held by the operation's slot,
//! which keeps it (and by it the mapping) until the final completion of that slot. Test
//! `an_operation_keeps_its_buffer_after_its_future_is_dropped` would notice.

mod drive;
pub mod file;
#[cfg(any(test, feature = "testing"))]
pub mod journal;
mod ops;
pub mod probe;
mod setup;
#[cfg(any(test, feature = "testing"))]
mod virtual_device;
mod workers;

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::future::Future;
use std::io;
use std::marker::PhantomData;
use std::ops::Range;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use self::ops::{Held, Kind, Ops, Owner, Settled, Step};
pub use self::setup::{FILES_MAX as RING_FILES_MAX, RingError, check};
pub use self::workers::worker_switches;
use super::arena::{AppendBuffer, Arena, Buffer};
use super::clock::Clock;
use super::event::Event;

/// Between two looks for slow devices.
const LOOK_US: u64 = 1_000_000;

/// A file the ring knows, in its registered table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId(u16);

/// For how many whole seconds the oldest operations on a file have been under way, as of the last
/// look; 0 where there are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waits {
    /// Of reads.
    pub read_s: u32,
    /// Of writes and flushes.
    pub write_s: u32,
}

/// One shard's disk ring. Clones share it; `!Send`: it is used on the thread that made it.
#[derive(Clone)]
pub struct DiskRing(Rc<Shared>);

struct Shared {
    ops: RefCell<Ops>,
    arena: Arena,
    /// The driver, while it waits for work or for completions.
    sleeper: Cell<Option<Waker>>,
    stopping: Cell<bool>,
}

impl DiskRing {
    /// Sets up a ring for up to `depth` operations with the kernel at a time (rounded up to a power
    /// of two), on the calling thread, and registers `arena` with it, which also fills in its
    /// memory. When the registration is refused the ring works without and says so in the log.
    ///
    /// # Errors
    ///
    /// [`RingError`] tells why there is no ring and what to do about it.
    pub fn new(depth: u32, arena: &Arena) -> Result<Self, RingError> {
        Self::with_lanes(1, depth, arena)
    }

    /// A ring with so many lanes of up to `depth` operations each; of fewer where that would be
    /// more than a ring may have.
    ///
    /// # Errors
    ///
    /// [`RingError`], as of [`DiskRing::new`].
    pub fn with_lanes(lanes: u32, depth: u32, arena: &Arena) -> Result<Self, RingError> {
        let lanes = lanes.max(1);
        let ops = Ops::new(setup::open(lanes.saturating_mul(depth))?, lanes, arena)?;
        let ring = Self(Rc::new(Shared {
            ops: RefCell::new(ops),
            arena: arena.clone(),
            sleeper: Cell::new(None),
            stopping: Cell::new(false),
        }));
        #[cfg(any(test, feature = "testing"))]
        if let Some(shard) = super::virtual_shard::current() {
            shard.note_ring(&ring);
        }
        Ok(ring)
    }

    /// Makes a file known to the ring, which keeps it open. Files are opened by
    /// [`file::open_direct`].
    ///
    /// # Errors
    ///
    /// [`RingError::TooManyFiles`], or the kernel's refusal.
    pub fn add_file(&self, file: File) -> Result<FileId, RingError> {
        self.add_file_to(0, file)
    }

    /// Adds a file whose operations use that lane; a number behind the last lane counts from the
    /// first again.
    ///
    /// # Errors
    ///
    /// As of [`DiskRing::add_file`].
    pub fn add_file_to(&self, lane: usize, file: File) -> Result<FileId, RingError> {
        self.0.ops.borrow_mut().add_file(lane, file).map(FileId)
    }

    /// Starts a read of `len` bytes at `offset` into the beginning of `buffer`.
    ///
    /// # Panics
    ///
    /// When `len` is over the buffer's length.
    pub fn read(&self, file: FileId, offset: u64, buffer: Buffer, len: usize) -> DiskOp<Buffer> {
        self.begin(Kind::Read, file, offset, buffer, 0..len)
    }

    /// Starts a write of `memory[range]` (a [`Buffer`], or an `Rc<AppendBuffer>` that is still
    /// being filled behind the range) at `offset`. A `durable` write completes once it would
    /// survive a power failure (`RWF_DSYNC`).
    ///
    /// # Panics
    ///
    /// When `range` is not within the memory, or not within what is filled.
    pub fn write<M: Memory>(
        &self,
        file: FileId,
        offset: u64,
        memory: M,
        range: Range<usize>,
        durable: bool,
    ) -> DiskOp<M> {
        self.begin(Kind::Write { durable }, file, offset, memory, range)
    }

    /// Starts a flush: everything written and completed before survives a power failure once it
    /// completes (fdatasync). Costs a kernel worker thread; durable writes do not.
    pub fn flush(&self, file: FileId) -> DiskOp<()> {
        self.begin(Kind::Flush, file, 0, (), 0..0)
    }

    /// Has the result of `op` delivered to `sink` under `tag` instead of to a future.
    pub fn submit_tagged(&self, mut op: DiskOp<Buffer>, tag: u64, sink: &Rc<Completions>) {
        let owner = Owner::Sink { tag, sink: Rc::clone(sink) };
        let Some(slot) = op.slot.take() else { return };
        let settled = self.0.ops.borrow_mut().set_owner(slot, owner);
        settled.carry_out();
    }

    /// Operations started and not yet finished.
    pub fn in_flight(&self) -> usize {
        self.0.ops.borrow().unfinished()
    }

    /// Whether the arena is registered with the kernel.
    pub fn is_registered(&self) -> bool {
        self.0.ops.borrow().is_registered()
    }

    /// How long a file has kept operations waiting.
    pub fn waits(&self, file: FileId) -> Waits {
        self.0.ops.borrow().waits(file.0)
    }

    /// Sees once a second to it that operations which a slow device keeps in the kernel's worker
    /// threads leave some to those of other lanes, and how long each has been at it. One task per ring, until [`DiskRing::stop`].
    pub async fn watch(self) {
        let clock = Clock::real();
        while !self.0.stopping.get() {
            Event::new().wait_until(clock.now() + LOOK_US).await;
            self.look();
        }
    }

    /// One look, which [`DiskRing::watch`] takes once a second; gives the number of threads that the
    /// kernel may use.
    pub fn look(&self) -> u32 {
        self.0.ops.borrow_mut().look()
    }

    /// Has operations fail, as a broken device would fail them, until told otherwise.
    #[cfg(any(test, feature = "testing"))]
    pub fn break_device(&self, faults: Vec<Fault>) {
        let settled = self.0.ops.borrow_mut().set_faults(faults);
        settled.into_iter().for_each(Settled::carry_out);
        self.kick();
    }

    /// Keeps what is written from now on for [`DiskRing::written`].
    #[cfg(any(test, feature = "testing"))]
    pub fn keep_journal(&self) {
        self.0.ops.borrow_mut().keep_journal();
    }

    /// Leaves on its files what a power failure leaves, as `roll` gives a number below its argument.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn fail_power(&self, roll: impl Fn(u64) -> u64) {
        self.0.ops.borrow_mut().fail_power(roll);
    }

    /// What was written, in order.
    #[cfg(any(test, feature = "testing"))]
    pub fn written(&self) -> Vec<journal::Written> {
        self.0.ops.borrow().written()
    }

    /// One pass: hands over what was started, reaps a bounded number of completions, and gives
    /// their number. At most one system call, and none when there is nothing to do. The driver
    /// does this all the time; a task about to look at its [`Completions`] may do it too.
    pub fn turn(&self) -> usize {
        self.0.ops.borrow_mut().enter();
        let reaped = self.0.ops.borrow_mut().reap();
        for &(slot, result) in reaped.as_slice() {
            // Carried out with the borrow released: a waker may drop a task that owns a DiskOp.
            let settled = self.0.ops.borrow_mut().settle(slot, result);
            settled.carry_out();
        }
        reaped.as_slice().len()
    }

    /// Ends the driver once nothing is in flight any more. Operations may still be started until
    /// then.
    pub fn stop(&self) {
        self.0.stopping.set(true);
        self.kick();
    }

    fn begin<M: Memory>(
        &self,
        kind: Kind,
        file: FileId,
        offset: u64,
        memory: M,
        range: Range<usize>,
    ) -> DiskOp<M> {
        let held = memory.into_held();
        let step = Step::new(kind, file.0, offset, &held, range, &self.0.arena);
        let slot = self.0.ops.borrow_mut().begin(step, held);
        self.kick();
        DiskOp { slot: Some(slot), ring: Rc::clone(&self.0), memory: PhantomData }
    }

    fn kick(&self) {
        if let Some(waker) = self.0.sleeper.take() {
            waker.wake();
        }
    }
}

/// What a broken device fails, with EIO: whatever touches these bytes of any file.
#[cfg(any(test, feature = "testing"))]
#[derive(Clone, Debug)]
pub enum Fault {
    /// Nothing of this lane is answered, until the faults are others.
    Hang(usize),
    /// Reads of any of these bytes.
    Read(Range<u64>),
    /// Writes of any of these bytes.
    Write(Range<u64>),
    /// Every flush.
    Flush,
}

/// Memory an operation can work on: [`Buffer`], `Rc<AppendBuffer>`, or none.
pub trait Memory: sealed::Memory {}

impl<M: sealed::Memory> Memory for M {}

mod sealed {
    use super::{AppendBuffer, Buffer, Held, Rc};

    pub trait Memory: Unpin {
        fn into_held(self) -> Held;
        fn from_held(held: Held) -> Self;
    }

    const KIND: &str = "an operation's future has the memory type the operation was begun with";

    impl Memory for Buffer {
        fn into_held(self) -> Held {
            Held::Owned(self)
        }
        fn from_held(held: Held) -> Self {
            let Held::Owned(buffer) = held else { unreachable!("{KIND}") };
            buffer
        }
    }

    impl Memory for Rc<AppendBuffer> {
        fn into_held(self) -> Held {
            Held::Shared(self)
        }
        fn from_held(held: Held) -> Self {
            let Held::Shared(buffer) = held else { unreachable!("{KIND}") };
            buffer
        }
    }

    impl Memory for () {
        fn into_held(self) -> Held {
            Held::Nothing
        }
        fn from_held(_: Held) -> Self {}
    }
}

/// An operation already under way; gives its memory back with the result. Dropping it early lets
/// the operation run to its end unobserved.
#[must_use = "dropping it loses the result, not the operation"]
pub struct DiskOp<M: Memory> {
    /// None once the result is taken or somebody else waits for it.
    slot: Option<u32>,
    ring: Rc<Shared>,
    memory: PhantomData<M>,
}

impl<M: Memory> Future for DiskOp<M> {
    type Output = (M, io::Result<usize>);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let slot = self.slot.expect("a finished operation is not polled again");
        let (held, result) = ready!(self.ring.ops.borrow_mut().poll(slot, cx));
        self.slot = None;
        Poll::Ready((M::from_held(held), result))
    }
}

impl<M: Memory> Drop for DiskOp<M> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            let settled = self.ring.ops.borrow_mut().set_owner(slot, Owner::Nobody);
            settled.carry_out();
        }
    }
}

/// A finished tagged operation.
#[derive(Debug)]
pub struct Done {
    /// As given to [`DiskRing::submit_tagged`].
    pub tag: u64,
    /// The memory read into or written from.
    pub buffer: Buffer,
    /// All the bytes asked for, or why not.
    pub result: io::Result<usize>,
}

/// Where finished tagged operations collect until their task drains them. Shared by `Rc`.
#[derive(Default)]
pub struct Completions {
    done: RefCell<Vec<Done>>,
    waker: Cell<Option<Waker>>,
}

impl Completions {
    /// An empty one.
    pub fn new() -> Rc<Self> {
        Rc::default()
    }

    /// Moves everything finished to the end of `out`.
    pub fn drain(&self, out: &mut Vec<Done>) {
        out.append(&mut self.done.borrow_mut());
    }

    /// Ready when there is something to drain; otherwise the task is woken once there is.
    pub fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.done.borrow().is_empty() {
            return Poll::Ready(());
        }
        self.waker.set(Some(cx.waker().clone()));
        Poll::Pending
    }

    fn push(&self, done: Done) {
        self.done.borrow_mut().push(done);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Settled {
    /// Tells whoever waits. Runs without any borrow of the ring.
    fn carry_out(self) {
        match self {
            Settled::Quiet => {}
            Settled::Wake(waker) => waker.wake(),
            Settled::Deliver { sink, done } => sink.push(done),
            Settled::Discard(held) => drop(held),
        }
    }
}

#[cfg(test)]
mod tests;
