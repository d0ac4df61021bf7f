//! Operations between being asked for and being settled: slots, submission, completion.
//!
//! A slot is an operation. It is `waiting` (has a piece to submit), with the kernel, or finished
//! with a result nobody took yet. Sketch per 4 KiB read: one slot written twice (two cache lines),
//! one SQE, one CQE, a 1/batch share of one system call, one wake-up per batch.
#![expect(unsafe_code, reason = "gives addresses to the kernel")]

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::mem;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use io_uring::{IoUring, cqueue, opcode, squeue, types};

use super::file::limits;
use super::setup::{self, FILES_MAX, RingError};
use super::{Completions, Done, Waits};
use crate::arena::{AppendBuffer, Arena, Buffer};
use crate::eventfd::EventFd;
#[cfg(any(test, feature = "testing"))]
use {
    super::virtual_device::VirtualDevice, crate::virtual_shard, std::os::unix::fs::FileExt,
    std::slice,
};

/// Completions reaped in one pass. Enough to share a system call among (the next sixteen save a
/// tenth as much); few enough that the device has their successors before the rest is looked at,
/// which is worth 5 % and more where completions come in bursts.
const REAP_MAX: usize = 16;

/// How long a device may be silent when the ring is dropped.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Read,
    Write { durable: bool },
    Flush,
}

/// The memory an operation holds while the kernel may touch it.
pub enum Held {
    Nothing,
    Owned(Buffer),
    Shared(Rc<AppendBuffer>),
}

#[cfg(any(test, feature = "testing"))]
impl Held {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Nothing => &[],
            Self::Owned(buffer) => buffer,
            Self::Shared(block) => block.as_slice(),
        }
    }
}

/// Who gets the result.
pub(super) enum Owner {
    Future(Option<Waker>),
    Sink { tag: u64, sink: Rc<Completions> },
    Nobody,
}

/// What remains to be done, in terms the kernel takes. `address` points into the slot's `Held`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    kind: Kind,
    file: u16,
    registered: Option<u16>,
    offset: u64,
    address: *mut u8,
    len: u32,
    done: u32,
}

impl Step {
    pub(super) fn new(
        kind: Kind,
        file: u16,
        offset: u64,
        held: &Held,
        range: Range<usize>,
        arena: &Arena,
    ) -> Self {
        let (buffer, usable) = match held {
            Held::Nothing => (None, 0),
            Held::Owned(buffer) => (Some(buffer), buffer.len()),
            Held::Shared(block) => (Some(block.buffer()), block.filled()),
        };
        assert!(range.start <= range.end && range.end <= usable, "{range:?} of {usable} bytes");
        Self {
            kind,
            file,
            registered: buffer.filter(|b| arena.owns(b)).map(Buffer::registered_index),
            offset,
            address: buffer.map_or(std::ptr::null_mut(), |b| b.address().wrapping_add(range.start)),
            len: range.len() as u32,
            done: 0,
        }
    }

    /// Takes in the kernel's answer to the piece last submitted.
    fn advance(&mut self, answer: i32) -> Progress {
        use Progress::{Again, Finished};
        let moved = match answer {
            moved if moved >= 0 => moved as u32,
            interrupted if interrupted == -libc::EINTR => return Again,
            error => return Finished(Err(io::Error::from_raw_os_error(-error))),
        };
        self.done += moved;
        if self.done >= self.len {
            return Finished(Ok(self.len as usize));
        }
        // Direct reads end on a sector unless the file ends there.
        let ended = moved == 0 || (self.kind == Kind::Read && !self.done.is_multiple_of(512));
        match self.kind {
            Kind::Read if ended => Finished(Err(ErrorKind::UnexpectedEof.into())),
            _ if ended => Finished(Err(ErrorKind::WriteZero.into())),
            _ => Again,
        }
    }

    /// The next piece, of at most `piece_max` bytes. `registered` false: memory is not registered.
    fn entry(&self, piece_max: u32, registered: bool) -> squeue::Entry {
        let fd = types::Fixed(self.file.into());
        let len = (self.len - self.done).min(piece_max);
        let address = self.address.wrapping_add(self.done as usize);
        let offset = self.offset + u64::from(self.done);
        let index = self.registered.filter(|_| registered);
        let rw_flags = match self.kind {
            Kind::Write { durable: true } => libc::RWF_DSYNC,
            _ => 0,
        };
        match (self.kind, index) {
            (Kind::Read, Some(index)) => {
                opcode::ReadFixed::new(fd, address, len, index).offset(offset).build()
            }
            (Kind::Read, None) => opcode::Read::new(fd, address, len).offset(offset).build(),
            (Kind::Write { .. }, Some(index)) => {
                let write = opcode::WriteFixed::new(fd, address, len, index);
                write.offset(offset).rw_flags(rw_flags).build()
            }
            (Kind::Write { .. }, None) => {
                let write = opcode::Write::new(fd, address, len);
                write.offset(offset).rw_flags(rw_flags).build()
            }
            (Kind::Flush, _) => opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build(),
        }
    }
}

#[cfg(any(test, feature = "testing"))]
impl Step {
    /// Does on its file what the kernel would, and gives the answer.
    fn carry_out(&self, file: &File, device: &VirtualDevice) -> i32 {
        let moved = device.moved((self.len - self.done) as usize);
        let offset = self.offset + u64::from(self.done);
        let address = self.address.wrapping_add(self.done as usize);
        let result = match self.kind {
            Kind::Flush => Ok(0),
            Kind::Read => {
                // SAFETY: `address..address + moved` lies in the memory the slot holds (`Step::new`),
                // which nobody else touches until the operation is settled.
                let memory = unsafe { slice::from_raw_parts_mut(address, moved) };
                file.read_at(memory, offset)
            }
            Kind::Write { .. } => {
                // SAFETY: as above; what is filled of a shared block is not written any more.
                file.write_at(unsafe { slice::from_raw_parts(address, moved) }, offset)
            }
        };
        result.map_or_else(|error| -error.raw_os_error().unwrap_or(libc::EIO), |n| n as i32)
    }
}

enum Progress {
    Again,
    Finished(io::Result<usize>),
}

struct Slot {
    step: Step,
    held: Held,
    owner: Owner,
    result: Option<io::Result<usize>>,
    /// Looks there had been when it began; [`ENDED`] when nothing of it is under way.
    begun: u32,
}

const ENDED: u32 = u32::MAX;

/// What is to be done about a finished operation, outside the ring's borrow.
pub(super) enum Settled {
    Quiet,
    Wake(Waker),
    Deliver { sink: Rc<Completions>, done: Done },
    Discard(Held),
}

/// Completions taken off the ring in one pass: slot and the kernel's answer.
pub(super) struct Reaped {
    list: [(u32, i32); REAP_MAX],
    count: usize,
}

impl Reaped {
    pub(super) fn as_slice(&self) -> &[(u32, i32)] {
        &self.list[..self.count]
    }
}

struct RingFile {
    _open: File,
    piece_max: u32,
    lane: usize,
    /// As of the last look.
    waits: Waits,
    /// The same file without direct I/O.
    #[cfg(any(test, feature = "testing"))]
    plain: Option<File>,
}

#[cfg(any(test, feature = "testing"))]
impl RingFile {
    fn plain(&mut self) -> &File {
        let path = format!("/proc/self/fd/{}", self._open.as_raw_fd());
        let open = || File::options().read(true).write(true).open(path);
        self.plain.get_or_insert_with(|| open().expect("a file that is open"))
    }
}

/// Operations on devices that wait for each other, and for no other lane's.
#[derive(Default)]
struct Lane {
    waiting: VecDeque<u32>,
    in_kernel: u32,
    /// With the kernel at the last look.
    in_kernel_then: u32,
    /// Finished pieces since.
    finished: u32,
}

impl Lane {
    /// The device has not answered within a second what it had then.
    const fn is_slow(&self) -> bool {
        self.finished < self.in_kernel_then
    }
}

/// The ring with its operations. Fields drop in order: the ring before the memory it may use.
pub(super) struct Ops {
    ring: IoUring,
    slots: Vec<Slot>,
    _arena: Arena,
    vacant: Vec<u32>,
    lanes: Vec<Lane>,
    files: Vec<RingFile>,
    event_fd: EventFd,
    /// Of each lane.
    depth: u32,
    unfinished: usize,
    registered: bool,
    /// Threads that the kernel may use.
    workers: u32,
    /// How often it was looked.
    looks: u32,
    #[cfg(any(test, feature = "testing"))]
    faults: Vec<super::Fault>,
    /// Answers of devices that hang.
    #[cfg(any(test, feature = "testing"))]
    held_back: Vec<(u32, i32)>,
    #[cfg(any(test, feature = "testing"))]
    journal: Option<super::journal::Journal>,
    /// Answers in the kernel's place, on a virtual shard.
    #[cfg(any(test, feature = "testing"))]
    device: Option<VirtualDevice>,
}

impl Ops {
    pub(super) fn new(mut ring: IoUring, lanes: u32, arena: &Arena) -> Result<Self, RingError> {
        let event_fd = setup::register_event_fd(&mut ring)?;
        #[cfg(any(test, feature = "testing"))]
        let registered = !virtual_shard::is_here() && setup::register_arena(&ring, arena);
        #[cfg(not(any(test, feature = "testing")))]
        let registered = setup::register_arena(&ring, arena);
        let depth = (ring.params().sq_entries() / lanes).max(1);
        let reserve = depth as usize * 2;
        let lane = |_| Lane { waiting: VecDeque::with_capacity(reserve), ..Lane::default() };
        Ok(Self {
            ring,
            slots: Vec::with_capacity(reserve),
            _arena: arena.clone(),
            vacant: Vec::with_capacity(reserve),
            lanes: (0..lanes).map(lane).collect(),
            files: Vec::new(),
            event_fd,
            depth,
            unfinished: 0,
            registered,
            workers: setup::WORKERS_MAX,
            looks: 0,
            #[cfg(any(test, feature = "testing"))]
            faults: Vec::new(),
            #[cfg(any(test, feature = "testing"))]
            held_back: Vec::new(),
            #[cfg(any(test, feature = "testing"))]
            journal: None,
            #[cfg(any(test, feature = "testing"))]
            device: virtual_shard::current().map(VirtualDevice::new),
        })
    }

    pub(super) fn add_file(&mut self, lane: usize, file: File) -> Result<u16, RingError> {
        let index = self.files.len() as u32;
        if index == FILES_MAX {
            return Err(RingError::TooManyFiles);
        }
        self.ring
            .submitter()
            .register_files_update(index, &[file.as_raw_fd()])
            .map_err(|source| RingError::System { action: "register a file", source })?;
        let piece_max = limits(&file).transfer_bytes_max;
        let lane = lane % self.lanes.len();
        self.files.push(RingFile {
            _open: file,
            piece_max,
            lane,
            waits: Waits::default(),
            #[cfg(any(test, feature = "testing"))]
            plain: None,
        });
        Ok(index as u16)
    }

    pub(super) fn begin(&mut self, step: Step, held: Held) -> u32 {
        assert!(usize::from(step.file) < self.files.len(), "a FileId of another ring");
        let lane = self.files[usize::from(step.file)].lane;
        let slot = Slot { step, held, owner: Owner::Future(None), result: None, begun: self.looks };
        let index = match self.vacant.pop() {
            Some(index) => {
                self.slots[index as usize] = slot;
                index
            }
            None => {
                self.slots.push(slot);
                (self.slots.len() - 1) as u32
            }
        };
        #[cfg(any(test, feature = "testing"))]
        self.note_begun(index);
        self.unfinished += 1;
        self.lanes[lane].waiting.push_back(index);
        index
    }

    pub(super) fn unfinished(&self) -> usize {
        self.unfinished
    }

    pub(super) fn is_registered(&self) -> bool {
        self.registered
    }

    pub(super) fn event_fd(&self) -> &EventFd {
        &self.event_fd
    }

    /// Operations are waiting that the kernel has room for.
    pub(super) fn has_submissions(&self) -> bool {
        self.lanes.iter().any(|lane| !lane.waiting.is_empty() && lane.in_kernel < self.depth)
    }

    /// Completions are there, or one system call away.
    pub(super) fn has_completions(&mut self) -> bool {
        if !self.ring.completion().is_empty() {
            return true;
        }
        let queue = self.ring.submission();
        queue.taskrun() || queue.cq_overflow()
    }

    /// Says whether completions shall count on the eventfd.
    pub(super) fn notify(&mut self, enabled: bool) {
        let queue = self.ring.completion();
        if enabled {
            queue.enable_eventfd();
        } else {
            queue.disable_eventfd();
        }
    }

    /// Submits what is waiting and lets the kernel post what has completed, in one system call;
    /// in none when there is neither.
    pub(super) fn enter(&mut self) {
        #[cfg(any(test, feature = "testing"))]
        if self.device.is_some() {
            return self.enter_virtually();
        }
        let (submitter, mut queue, _) = self.ring.split();
        for lane in &mut self.lanes {
            while lane.in_kernel < self.depth {
                let Some(&index) = lane.waiting.front() else { break };
                let step = &self.slots[index as usize].step;
                let piece_max = self.files[usize::from(step.file)].piece_max;
                let entry = step.entry(piece_max, self.registered).user_data(index.into());
                // SAFETY: `address..address + len` lies in the memory the slot holds (`Step::new`),
                // and the slot keeps it until `settle` has seen the completion of this entry; the
                // file stays in the registered table for the ring's life.
                if unsafe { queue.push(&entry) }.is_err() {
                    break;
                }
                lane.waiting.pop_front();
                lane.in_kernel += 1;
            }
        }
        queue.sync();
        let count = queue.len() as u32;
        if count == 0 && !queue.taskrun() && !queue.cq_overflow() {
            return;
        }
        const GETEVENTS: u32 = 1;
        // SAFETY: no argument is passed, so there is no pointer to be wrong; entries up to the tail
        // were pushed above.
        let entered = unsafe { submitter.enter::<libc::sigset_t>(count, 0, GETEVENTS, None) };
        if let Err(error) = entered {
            let later = [libc::EINTR, libc::EAGAIN, libc::EBUSY, libc::ENOMEM];
            let passing = error.raw_os_error().is_some_and(|code| later.contains(&code));
            assert!(passing, "the disk ring is broken: {error}");
        }
    }

    /// Takes completions off the ring.
    pub(super) fn reap(&mut self) -> Reaped {
        let mut reaped = Reaped { list: [(0, 0); REAP_MAX], count: 0 };
        #[cfg(any(test, feature = "testing"))]
        if self.device.is_some() {
            self.reap_virtually(&mut reaped);
            return reaped;
        }
        let taken = self.ring.completion().take(REAP_MAX);
        for (entry, place) in taken.zip(&mut reaped.list) {
            *place = parts(&entry);
            reaped.count += 1;
        }
        reaped
    }

    /// Takes in one completion.
    pub(super) fn settle(&mut self, index: u32, answer: i32) -> Settled {
        #[cfg(any(test, feature = "testing"))]
        if self.hangs(index) {
            self.held_back.push((index, answer));
            return Settled::Quiet;
        }
        #[cfg(any(test, feature = "testing"))]
        let answer = self.fault(index).unwrap_or(answer);
        let slot = &mut self.slots[index as usize];
        let lane = &mut self.lanes[self.files[usize::from(slot.step.file)].lane];
        lane.in_kernel -= 1;
        lane.finished += 1;
        match slot.step.advance(answer) {
            Progress::Again => {
                lane.waiting.push_front(index);
                Settled::Quiet
            }
            Progress::Finished(result) => {
                #[cfg(any(test, feature = "testing"))]
                if let Some(journal) = &mut self.journal {
                    let is_durable = slot.step.kind == Kind::Write { durable: true };
                    match result.is_ok() {
                        true => journal.end(index, is_durable),
                        false => journal.fail(index),
                    }
                }
                self.unfinished -= 1;
                slot.begun = ENDED;
                slot.result = Some(result);
                self.hand_over(index)
            }
        }
    }

    /// Counts what each lane has finished since the last call. What a slow one has with the kernel may
    /// keep as many worker threads waiting: others get their own beside those.
    pub(super) fn look(&mut self) -> u32 {
        self.looks += 1;
        self.find_waits();
        let slow = self.lanes.iter().filter(|lane| lane.is_slow());
        let workers = setup::WORKERS_MAX + slow.map(|lane| lane.in_kernel).sum::<u32>();
        for lane in &mut self.lanes {
            (lane.in_kernel_then, lane.finished) = (lane.in_kernel, 0);
        }
        if workers != self.workers {
            let set = self.ring.submitter().register_iowq_max_workers(&mut [workers, workers]);
            // A refusal leaves it as it was.
            self.workers = if set.is_ok() { workers } else { self.workers };
        }
        self.workers
    }

    /// Finds for how many looks the oldest operations on each file have been under way.
    fn find_waits(&mut self) {
        self.files.iter_mut().for_each(|file| file.waits = Waits::default());
        for Slot { step: Step { kind, file, .. }, begun, .. } in &self.slots {
            if *begun == ENDED {
                continue;
            }
            let waits = &mut self.files[usize::from(*file)].waits;
            let wait = if *kind == Kind::Read { &mut waits.read_s } else { &mut waits.write_s };
            // Between two looks is at least a second, and the first was not a whole one.
            *wait = (*wait).max(self.looks - begun - 1);
        }
    }

    pub(super) fn waits(&self, file: u16) -> Waits {
        self.files[usize::from(file)].waits
    }

    #[cfg(any(test, feature = "testing"))]
    fn enter_virtually(&mut self) {
        let Some(device) = &mut self.device else { return };
        for lane in &mut self.lanes {
            while lane.in_kernel < self.depth
                && let Some(index) = lane.waiting.pop_front()
            {
                device.begin(index, self.slots[index as usize].step.kind);
                lane.in_kernel += 1;
            }
        }
    }

    #[cfg(any(test, feature = "testing"))]
    fn reap_virtually(&mut self, reaped: &mut Reaped) {
        let Some(device) = &mut self.device else { return };
        while reaped.count < REAP_MAX
            && let Some(index) = device.take()
        {
            let step = &self.slots[index as usize].step;
            let file = &self.files[usize::from(step.file)]._open;
            reaped.list[reaped.count] = (index, step.carry_out(file, device));
            reaped.count += 1;
        }
    }

    /// When a virtual device answers next.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn next_due_us(&self) -> Option<u64> {
        self.device.as_ref().map(VirtualDevice::next_due_us)
    }

    #[cfg(any(test, feature = "testing"))]
    pub(super) fn keep_journal(&mut self) {
        self.journal = Some(super::journal::Journal::default());
    }

    #[cfg(any(test, feature = "testing"))]
    pub(super) fn written(&self) -> Vec<super::journal::Written> {
        self.journal.as_ref().map_or(Vec::new(), |journal| journal.writes().to_vec())
    }

    /// Leaves on its files what a power failure leaves.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn fail_power(&mut self, roll: impl Fn(u64) -> u64) {
        let Some(journal) = self.journal.take() else { return };
        for (file, offset, bytes) in journal.fail_power(roll) {
            let file = self.files[file].plain();
            file.write_all_at(bytes, offset).expect("a file that was written before");
        }
    }

    #[cfg(any(test, feature = "testing"))]
    fn note_begun(&mut self, index: u32) {
        let Slot { step: Step { kind, file, offset, address, len, .. }, held, .. } =
            &self.slots[index as usize];
        let Some(journal) = &mut self.journal else { return };
        let file = usize::from(*file);
        match kind {
            Kind::Read => {}
            Kind::Write { .. } => {
                let start = address.addr() - held.bytes().as_ptr().addr();
                let bytes = &held.bytes()[start..start + *len as usize];
                let mut before = vec![0; bytes.len()];
                // What lies behind the end of the file was not there.
                let _ = self.files[file].plain().read_at(&mut before, *offset);
                journal.begin_write(index, (file, *offset), (bytes, before));
            }
            Kind::Flush => journal.begin_flush(index, file),
        }
    }

    /// Has operations fail with EIO from now on.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn set_faults(&mut self, faults: Vec<super::Fault>) -> Vec<Settled> {
        self.faults = faults;
        let held_back = std::mem::take(&mut self.held_back);
        held_back.into_iter().map(|(index, answer)| self.settle(index, answer)).collect()
    }

    #[cfg(any(test, feature = "testing"))]
    fn hangs(&self, index: u32) -> bool {
        let lane = self.files[usize::from(self.slots[index as usize].step.file)].lane;
        self.faults.iter().any(|fault| matches!(fault, super::Fault::Hang(hung) if *hung == lane))
    }

    #[cfg(any(test, feature = "testing"))]
    fn fault(&self, index: u32) -> Option<i32> {
        let Step { kind, offset, len, .. } = self.slots[index as usize].step;
        let bytes = offset..offset + u64::from(len).max(1);
        let hits = |fault: &super::Fault| match (fault, kind) {
            (super::Fault::Read(range), Kind::Read)
            | (super::Fault::Write(range), Kind::Write { .. }) => {
                bytes.start < range.end && range.start < bytes.end
            }
            (super::Fault::Flush, Kind::Flush) => true,
            _ => false,
        };
        self.faults.iter().any(hits).then_some(-libc::EIO)
    }

    /// Gives an operation to somebody else; a finished one is handed over at once.
    pub(super) fn set_owner(&mut self, index: u32, owner: Owner) -> Settled {
        let slot = &mut self.slots[index as usize];
        slot.owner = owner;
        if slot.result.is_some() { self.hand_over(index) } else { Settled::Quiet }
    }

    fn hand_over(&mut self, index: u32) -> Settled {
        let slot = &mut self.slots[index as usize];
        match mem::replace(&mut slot.owner, Owner::Future(None)) {
            Owner::Future(waker) => waker.map_or(Settled::Quiet, Settled::Wake),
            Owner::Nobody => Settled::Discard(self.vacate(index).0),
            Owner::Sink { tag, sink } => {
                let (held, result) = self.vacate(index);
                let Held::Owned(buffer) = held else { return Settled::Discard(held) };
                Settled::Deliver { sink, done: Done { tag, buffer, result } }
            }
        }
    }

    pub(super) fn poll(
        &mut self,
        index: u32,
        cx: &mut Context<'_>,
    ) -> Poll<(Held, io::Result<usize>)> {
        let slot = &mut self.slots[index as usize];
        if slot.result.is_some() {
            return Poll::Ready(self.vacate(index));
        }
        match &mut slot.owner {
            Owner::Future(Some(waker)) => waker.clone_from(cx.waker()),
            owner => *owner = Owner::Future(Some(cx.waker().clone())),
        }
        Poll::Pending
    }

    fn vacate(&mut self, index: u32) -> (Held, io::Result<usize>) {
        let slot = &mut self.slots[index as usize];
        self.vacant.push(index);
        let result = slot.result.take().expect("only finished operations are vacated");
        (mem::replace(&mut slot.held, Held::Nothing), result)
    }
}

impl Drop for Ops {
    /// Runs everything to its end. What a device has not answered by then is leaked, since the
    /// kernel may still write to it.
    fn drop(&mut self) {
        // Nobody else has its memory there, and what was under way when it ends is not done.
        #[cfg(any(test, feature = "testing"))]
        if self.device.is_some() {
            return;
        }
        let patience = types::Timespec::new().sec(1);
        let args = types::SubmitArgs::new().timespec(&patience);
        let mut progress = Instant::now();
        while progress.elapsed() < SILENCE_MAX {
            while self.turn_over() {
                progress = Instant::now();
            }
            if self.unfinished == 0 {
                return;
            }
            // Its only failure that matters is a timeout, which the loop sees for itself.
            let _ = self.ring.submitter().submit_with_args(1, &args);
        }
        tracing::error!("{} disk operations never came back; leaking them", self.unfinished);
        self.slots.drain(..).for_each(mem::forget);
    }
}

impl Ops {
    /// A pass that tells nobody: for the end.
    fn turn_over(&mut self) -> bool {
        self.enter();
        let reaped = self.reap();
        for &(index, answer) in reaped.as_slice() {
            drop(self.settle(index, answer));
        }
        reaped.count > 0
    }
}

fn parts(entry: &cqueue::Entry) -> (u32, i32) {
    (entry.user_data() as u32, entry.result())
}
