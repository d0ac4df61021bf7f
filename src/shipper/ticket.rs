//! Changes made by any thread: who writes takes a ticket, writes, and submits.
//!
//! A ticket is the right to one version. While it is open, and until its change has been taken up by
//! the shard, the shard's version clock stays at or below that version: no position passes a change
//! that is still on its way. Submitting is one push into the shard's mailbox, however many DCs there
//! are; it never waits, allocates or fails. When the mailbox is full the change's partition is left
//! to a recovery from that version on, which finds the record where the writer put it.
//!
//! # Why no change comes below the clock
//!
//! A pass of the shard does four things, in this order: it moves `last` up to the wall clock (L);
//! reads every writer's floor, and how many pushes have begun; takes up all that the mailbox holds
//! and all that was missed; and only then shows the lower of L and the floors as its clock, if it has
//! taken up as many as had begun. (A push that is under way hides those behind it, whose writers may
//! have cleared their floors.) A writer sets its floor to what
//! `last` was, issues its version above `last`, pushes, and clears its floor. Two cases are left. A
//! writer that issues its version after L was set gets L or more. A writer that issued its version
//! before that had set its floor even earlier. Either the pass reads that floor, and shows a clock
//! no higher. Or the writer has cleared it already, which it does only after the push: then the
//! pass finds the change in the mailbox. `last`, the floors and the pass's reading of them are
//! sequentially consistent; clearing a floor makes the push before it visible.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::model::{
    Change, Digest, Lut, NamespaceId, PARTITION_COUNT, PartitionId, ShardIndex, Version,
};
use longship_rt::clock::Clock;
use longship_rt::mailbox::Sender;

/// A floor of nobody: no ticket is open.
const IDLE: u64 = u64::MAX;

/// The versions of one shard, issued to any thread. Clones are the same.
#[derive(Clone, Debug)]
pub struct Versions(Arc<Issued>);

#[derive(Debug)]
struct Issued {
    /// Raw; the highest there is.
    last: AtomicU64,
    /// Milliseconds; moved by the shard only.
    clock: AtomicU64,
    /// What each writer may still submit is not below this: milliseconds, or [`IDLE`].
    floors: Mutex<Vec<Arc<AtomicU64>>>,
    missed: Missed,
    /// No more tickets are given.
    is_closed: AtomicBool,
}

/// What found the mailbox full: the lowest and the highest LUT of each lane.
#[derive(Debug)]
struct Missed {
    any: AtomicBool,
    lanes: Box<[(AtomicU64, AtomicU64)]>,
    shard_count: usize,
}

impl Missed {
    fn new(namespaces: usize, shard_count: u16) -> Self {
        let shard_count = usize::from(shard_count);
        let count = namespaces * PARTITION_COUNT.div_ceil(shard_count);
        let lanes = (0..count).map(|_| (AtomicU64::new(IDLE), AtomicU64::new(0)));
        Self { any: AtomicBool::new(false), lanes: lanes.collect(), shard_count }
    }

    fn lane(&self, namespace: NamespaceId, partition: PartitionId) -> &(AtomicU64, AtomicU64) {
        let per_namespace = PARTITION_COUNT.div_ceil(self.shard_count);
        &self.lanes[namespace.index() * per_namespace + partition.index() / self.shard_count]
    }

    fn note(&self, change: &Change) {
        let (lowest, highest) = self.lane(change.namespace, change.digest.partition());
        let ms = change.version.lut().ms();
        highest.fetch_max(ms, Ordering::Relaxed);
        lowest.fetch_min(ms, Ordering::Relaxed);
        self.any.store(true, Ordering::Release);
    }

    fn take(&self, shard: ShardIndex, mut give: impl FnMut(NamespaceId, PartitionId, Lut, Lut)) {
        if !self.any.swap(false, Ordering::Acquire) {
            return;
        }
        let per_namespace = PARTITION_COUNT.div_ceil(self.shard_count);
        for (at, (lowest, highest)) in self.lanes.iter().enumerate() {
            let from = lowest.swap(IDLE, Ordering::Relaxed);
            if from != IDLE {
                let namespace = NamespaceId((at / per_namespace) as u8);
                let partition = at % per_namespace * self.shard_count + usize::from(shard.0);
                let to = Lut::from_ms(highest.load(Ordering::Relaxed));
                give(namespace, PartitionId::new(partition as u16), Lut::from_ms(from), to);
            }
        }
    }
}

impl Versions {
    /// Of a shard of so many, all above `floor`.
    pub(super) fn new(floor: Version, namespaces: usize, shard_count: u16) -> Self {
        Self(Arc::new(Issued {
            last: AtomicU64::new(floor.raw()),
            clock: AtomicU64::new(floor.lut().ms()),
            floors: Mutex::default(),
            missed: Missed::new(namespaces, shard_count),
            is_closed: AtomicBool::new(false),
        }))
    }

    /// No ticket is given from now on.
    pub(super) fn close(&self) {
        self.0.is_closed.store(true, Ordering::SeqCst);
    }

    /// What [`crate::host::Host::version_clock`] answers: no change that is still to be submitted
    /// has a lower LUT.
    pub fn clock(&self) -> Lut {
        Lut::from_ms(self.0.clock.load(Ordering::Relaxed))
    }

    /// What [`crate::host::Host::issued`] answers: no version has a higher LUT so far.
    pub fn issued(&self) -> Lut {
        Version::from_raw(self.0.last.load(Ordering::SeqCst)).lut()
    }

    pub(super) fn next(&self, wall: Lut) -> Version {
        let next = |raw| Some(Version::from_raw(raw).next(wall).raw());
        let before = self.0.last.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next);
        Version::from_raw(before.unwrap_or_else(|raw| raw)).next(wall)
    }

    fn register(&self) -> Arc<AtomicU64> {
        let floor = Arc::new(AtomicU64::new(IDLE));
        let mut floors = self.0.floors.lock().unwrap_or_else(PoisonError::into_inner);
        floors.push(Arc::clone(&floor));
        floor
    }

    /// The lowest LUT that may still be submitted, of what is not in the mailbox when this returns.
    pub(super) fn horizon(&self, wall: Lut) -> Lut {
        let up_to = Version::first_of(wall).raw();
        let last = self.0.last.fetch_max(up_to, Ordering::SeqCst).max(up_to);
        let mut lowest = Version::from_raw(last).lut().ms();
        let mut floors = self.0.floors.lock().unwrap_or_else(PoisonError::into_inner);
        // A writer that is gone has left nothing open.
        floors.retain(|floor| {
            lowest = lowest.min(floor.load(Ordering::SeqCst));
            Arc::strong_count(floor) > 1
        });
        Lut::from_ms(lowest)
    }

    /// What found the mailbox full since the last call.
    pub(super) fn take_missed(
        &self,
        shard: ShardIndex,
        give: impl FnMut(NamespaceId, PartitionId, Lut, Lut),
    ) {
        self.0.missed.take(shard, give);
    }

    /// Everything below a [`Self::horizon`] has been taken up.
    pub(super) fn show(&self, horizon: Lut) {
        self.0.clock.fetch_max(horizon.ms(), Ordering::Relaxed);
    }
}

/// The way to one shard.
#[derive(Clone)]
pub(super) struct Lane {
    pub(super) versions: Versions,
    pub(super) changes: Sender<Change>,
}

/// No ticket is given: the shipper has stopped, or is about to. Writes that are not to be lost wait
/// for the next one, and take a writer of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped;

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the shipper has stopped: take a writer of one that runs")
    }
}

impl std::error::Error for Stopped {}

/// Takes tickets for one thread; another thread gets its own from
/// [`Shipper::writer`](super::Shipper::writer).
pub struct Writer {
    lanes: Arc<[Lane]>,
    floors: Box<[Arc<AtomicU64>]>,
    clock: Clock,
}

impl Writer {
    pub(super) fn new(lanes: Arc<[Lane]>, clock: Clock) -> Self {
        let floors = lanes.iter().map(|lane| lane.versions.register()).collect();
        Self { lanes, floors, clock }
    }

    /// Opens a ticket for one change of a record: two atomic operations and a reading of the clock.
    /// Until it is submitted, cancelled or dropped it holds back the positions of its shard, so keep it
    /// for as long as the write takes and no longer.
    ///
    /// # Errors
    /// The shipper stops, or has stopped: it would not hear of the change, and no other would.
    pub fn begin(&mut self, namespace: NamespaceId, digest: Digest) -> Result<Ticket<'_>, Stopped> {
        let shard = usize::from(digest.partition().shard(self.lanes.len() as u16).0);
        let lane = &self.lanes[shard];
        let floor = &*self.floors[shard];
        floor.store(lane.versions.issued().ms(), Ordering::SeqCst);
        // After the floor: whoever has closed it, and reads the floors after that, sees this one.
        if lane.versions.0.is_closed.load(Ordering::SeqCst) {
            floor.store(IDLE, Ordering::SeqCst);
            return Err(Stopped);
        }
        let version = lane.versions.next(Lut::of_clock(self.clock.wall_ms()));
        let change = Change::new(namespace, digest, version);
        Ok(Ticket { change, lane, floor, is_settled: false })
    }
}

/// An open change. Dropped without being submitted or cancelled, as in a panic, it may have been
/// made: its partition is left to a recovery, which finds the record if it was written.
#[must_use = "a ticket that is dropped costs a recovery"]
pub struct Ticket<'a> {
    change: Change,
    lane: &'a Lane,
    floor: &'a AtomicU64,
    is_settled: bool,
}

impl Ticket<'_> {
    /// The version the record is to have.
    pub const fn version(&self) -> Version {
        self.change.version
    }

    /// Submits what was written: with that version the record can be read and walked by now.
    /// `about` sets what the ticket cannot know: `previous_lut`, `set`, `kind`, and for what was
    /// shipped in `shipped` and `src_id`. One push; never waits, never fails.
    pub fn submit(mut self, about: impl FnOnce(&mut Change)) {
        let Change { namespace, digest, version, .. } = self.change;
        let mut change = self.change;
        about(&mut change);
        let change = Change { namespace, digest, version, ..change };
        self.is_settled = self.lane.changes.push(change).is_ok();
    }

    /// Nothing was written.
    pub fn cancel(mut self) {
        self.is_settled = true;
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        if !self.is_settled {
            self.lane.versions.0.missed.note(&self.change);
        }
        self.floor.store(IDLE, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ChangeKind;
    use longship_rt::mailbox::mailbox;

    fn at(ms: u64) -> Lut {
        Lut::from_ms(ms)
    }

    fn lane(capacity: usize) -> (Lane, longship_rt::mailbox::Receiver<Change>) {
        let (changes, receiver) = mailbox(capacity).unwrap();
        let versions = Versions::new(Version::first_of(at(5)), 2, 1);
        (Lane { versions, changes }, receiver)
    }

    fn writer(capacity: usize) -> (Writer, Versions, longship_rt::mailbox::Receiver<Change>) {
        let (lane, receiver) = lane(capacity);
        let versions = lane.versions.clone();
        (Writer::new([lane].into(), Clock::real()), versions, receiver)
    }

    #[test]
    fn the_clock_waits_for_open_tickets_and_for_nothing_else() {
        let (lane, _receiver) = lane(16);
        let versions = lane.versions.clone();
        let clock = Clock::real();
        let mut writer = Writer::new([lane].into(), clock.clone());
        let wall = || Lut::of_clock(clock.wall_ms());
        assert_eq!(versions.clock(), at(5), "before the first pass");
        let ticket = writer.begin(NamespaceId(0), Digest::of_string("s", "k")).unwrap();
        let version = ticket.version();
        assert!(version.lut() >= at(6) && versions.issued() >= version.lut());
        let later = wall().plus_ms(10_000);
        let held = versions.horizon(later);
        assert!(held <= version.lut(), "{held} passes an open ticket");
        ticket.submit(|_| {});
        let free = versions.horizon(later);
        assert_eq!(free, later);
        versions.show(free);
        assert_eq!(versions.clock(), later);
        // The clock was shown: nothing comes below it, whatever the wall says.
        let next = writer.begin(NamespaceId(0), Digest::of_string("s", "k")).unwrap().version();
        assert!(next.lut() >= later && next > version);
        versions.show(at(1));
        assert_eq!(versions.clock(), later, "it does not go back");
    }

    #[test]
    fn what_finds_the_mailbox_full_is_left_to_recovery_with_its_span() {
        let (mut writer, versions, _receiver) = writer(2);
        let digest = Digest::of_string("s", "k");
        let luts: Vec<Lut> = (0..5)
            .map(|_| {
                let ticket = writer.begin(NamespaceId(1), digest).unwrap();
                let lut = ticket.version().lut();
                ticket.submit(|change| change.kind = ChangeKind::Delete);
                lut
            })
            .collect();
        let mut missed = Vec::new();
        let mut take = || {
            missed.clear();
            versions.take_missed(ShardIndex(0), |ns, p, from, to| missed.push((ns, p, from, to)));
            missed.clone()
        };
        assert_eq!(take(), [(NamespaceId(1), digest.partition(), luts[2], luts[4])]);
        assert_eq!(take(), [], "told once");
    }

    #[test]
    fn a_ticket_that_is_dropped_may_have_been_written_and_one_that_is_cancelled_was_not() {
        let (mut writer, versions, _receiver) = writer(16);
        let digest = Digest::of_string("s", "k");
        writer.begin(NamespaceId(1), digest).unwrap().cancel();
        versions.take_missed(ShardIndex(0), |_, _, _, _| panic!("it was not written"));
        let lut = writer.begin(NamespaceId(1), digest).unwrap().version().lut();
        let mut missed = Vec::new();
        versions.take_missed(ShardIndex(0), |ns, p, from, to| missed.push((ns, p, from, to)));
        assert_eq!(missed, [(NamespaceId(1), digest.partition(), lut, lut)]);
    }

    #[test]
    fn nobody_takes_a_ticket_of_a_shipper_that_has_stopped() {
        let (mut writer, versions, _receiver) = writer(16);
        let digest = Digest::of_string("s", "k");
        writer.begin(NamespaceId(0), digest).unwrap().submit(|_| {});
        versions.close();
        assert!(writer.begin(NamespaceId(0), digest).is_err());
        let later = Lut::of_clock(Clock::real().wall_ms()).plus_ms(10_000);
        assert_eq!(versions.horizon(later), later, "it leaves no floor");
    }

    #[test]
    fn a_writer_that_goes_leaves_no_floor() {
        let (lane, _receiver) = lane(16);
        let versions = lane.versions.clone();
        drop(Writer::new([lane].into(), Clock::real()));
        versions.horizon(at(9));
        assert!(versions.0.floors.lock().unwrap().is_empty());
    }

    #[test]
    fn no_change_of_any_thread_comes_below_the_clock() {
        const THREADS: usize = 3;
        const EACH: usize = 3000;
        let (lane, receiver) = lane(64);
        let versions = lane.versions.clone();
        let lanes: Arc<[Lane]> = [lane].into();
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let lanes = Arc::clone(&lanes);
                std::thread::spawn(move || {
                    let mut writer = Writer::new(lanes, Clock::real());
                    for n in 0..EACH {
                        let digest = Digest::of_string("s", &format!("{thread}-{n}"));
                        writer.begin(NamespaceId(0), digest).unwrap().submit(|_| {});
                    }
                })
            })
            .collect();
        drop(lanes);
        let spec = longship_rt::shard::ShardSpec { index: 0, core: None, name: "shard-0".into() };
        let shard = longship_rt::shard::spawn_shard(spec, || async move {
            let (mut inbox, mut batch, mut taken) = (receiver.open().unwrap(), Vec::new(), 0);
            while inbox.wait().await.is_ok() {
                let horizon = versions.horizon(Lut::of_clock(Clock::real().wall_ms()));
                let (shown, begun) = (versions.clock(), inbox.begun());
                inbox.drain(&mut batch, usize::MAX);
                versions.take_missed(ShardIndex(0), |_, _, from, _| assert!(from >= shown));
                taken += batch.len();
                for change in batch.drain(..) {
                    assert!(change.version.lut() >= shown, "{change:?} below {shown}");
                }
                if inbox.has_drained(begun) {
                    versions.show(horizon);
                }
            }
            taken
        })
        .unwrap();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!((64..=THREADS * EACH).contains(&shard.join()));
    }
}
