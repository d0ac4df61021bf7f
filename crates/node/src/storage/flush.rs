//! The task that carries a namespace's pieces to the device and makes them durable.
//!
//! Several writes are under way at a time, in log order. The start measures what a durable write
//! costs. Where it costs about as much as another, every write is durable. Elsewhere a flush of the
//! device makes everything durable that was written before it: it is begun at once when commits
//! wait, else every `flush-max-ms`, and earlier when blocks that are needed become free by it.
//!
//! The first write or flush that fails poisons the namespace: what the device holds is unknown from
//! then on, so nothing later is acknowledged (the kernel reports such an error once and forgets). A
//! flush concerns what all shards have written. So when a flush of one shard fails, the next flush
//! of every other shard poisons that shard's part of the namespace, whatever the kernel says of it.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::block::WRITE_ALIGN;
use super::index::Location;
use super::log::LogPositions;
use super::space::{Space, Stream};
use super::store::{FlushEnd, SharedStore, Store};
use super::write::{Piece, WRITING_BYTES};
use longship::model::{NamespaceId, Tick};
use longship::ship::mutation::{Mutation, planted};
use longship_rt::arena::AppendBuffer;
use longship_rt::disk_ring::DiskOp;

const SLOW_DEVICE_BYTES_PER_S: u64 = 1 << 20;
/// A write that takes longer says that less should be under way.
const SLOW_WRITE_MS: u64 = 100;

/// A write under way.
struct Write {
    begun: Tick,
    stream: Stream,
    /// The position behind it.
    end: u64,
    to: Location,
    op: DiskOp<Rc<AppendBuffer>>,
}

/// What is under way for one namespace.
struct Carrier {
    namespace: NamespaceId,
    writes: Vec<Write>,
    /// Bytes that may be under way; one write always may.
    writing_bytes_max: u64,
    /// What the last write took.
    last_write_ms: u64,
    /// Flushes of the devices, and the position they will make durable.
    sync: Vec<DiskOp<()>>,
    sync_positions: LogPositions,
    next_sync: Tick,
}

/// Carries pieces until the store stops and everything is durable. One task per namespace, in the
/// queue for disk work.
pub async fn run(store: SharedStore, namespace: NamespaceId) {
    let wake = store.borrow().flush_wakes[namespace.index()].clone();
    let mut carrier = Carrier {
        namespace,
        writes: Vec::new(),
        writing_bytes_max: store.borrow().writing_bytes_max,
        last_write_ms: 0,
        sync: Vec::new(),
        sync_positions: LogPositions::default(),
        next_sync: Tick(0),
    };
    loop {
        let due = carrier.step(&mut store.borrow_mut());
        if carrier.is_done(&store.borrow()) {
            break;
        }
        let mut woken = pin!(wake.wait_until(due.0));
        poll_fn(|cx| match carrier.poll(&store, cx) {
            true => Poll::Ready(()),
            false => woken.as_mut().poll(cx).map(drop),
        })
        .await;
    }
    let mut store = store.borrow_mut();
    store.flush_ends[namespace.index()] = FlushEnd::Flushed;
    store.flushed.set();
}

/// Closes every open block, takes nothing more, and waits until the flush tasks have made everything
/// durable, or cannot, and what is durable is visible. Then leaves checkpoints for a warm start. Gives
/// the namespaces of which not all is durable; what is not by `deadline` is said in the log.
///
/// A device that hangs takes nothing from other namespaces: theirs are saved after half of the time.
pub async fn stop(store: &RefCell<Store>, deadline: Tick) -> Vec<NamespaceId> {
    let (flushed, clock) = {
        let mut store = store.borrow_mut();
        store.is_stopping = true;
        store.stop_deadline = deadline;
        let spaces =
            if planted(Mutation::StopsUnflushed) { &mut [] } else { &mut store.spaces[..] };
        for space in spaces {
            space.head.close_block(&mut space.log);
            space.mover.close_block(&mut space.log);
        }
        let tasks =
            [&store.flush_wakes, &store.defrag_wakes, &store.expire_wakes, &store.raid_wakes];
        tasks.into_iter().flatten().for_each(|wake| wake.set());
        (store.flushed.clone(), store.clock.clone())
    };
    let half = match deadline {
        Tick::NEVER => Tick::NEVER.0,
        deadline => clock.now() + deadline.0.saturating_sub(clock.now()) / 2,
    };
    for until in [half, deadline.0] {
        while store.borrow().is_under_way() {
            if !flushed.wait_until(until).await && clock.now() >= until {
                break;
            }
        }
        store.borrow_mut().save_checkpoints(deadline);
    }
    let store = store.borrow();
    store.tell_unflushed();
    let ends = store.spaces.iter().zip(&store.flush_ends);
    let ends = (0..).map(NamespaceId).zip(ends);
    let is_left =
        |(_, (space, end)): &(_, (&Space, &FlushEnd))| space.is_poisoned || **end == FlushEnd::Runs;
    ends.filter(is_left).map(|(namespace, _)| namespace).collect()
}

impl Carrier {
    /// Begins whatever may begin now, and tells when to come again at the latest.
    fn step(&mut self, store: &mut Store) -> Tick {
        let now = Tick(store.clock.now());
        let space = &mut store.spaces[self.namespace.index()];
        if space.is_poisoned {
            return Tick::NEVER;
        }
        if let Some(needed) = space.log.urgently_needed() {
            space.head.cut_to(needed.writes, &mut space.log);
            space.mover.cut_to(needed.moves, &mut space.log);
        }
        let mut due = Tick::NEVER;
        for stream in [Stream::Writes, Stream::Moves] {
            due = due.min(self.write_pieces(store, stream, now));
        }
        let sync_due = self.begin_sync(store, now);
        due.min(sync_due.unwrap_or(Tick::NEVER))
    }

    /// Begins the writes of one log, and tells when its next flush is due.
    fn write_pieces(&mut self, store: &mut Store, stream: Stream, now: Tick) -> Tick {
        if self.is_too_late(store, now) {
            return Tick::NEVER;
        }
        let space = &mut store.spaces[self.namespace.index()];
        let durable = space.durable_writes && !planted(Mutation::FlushSkipped);
        let (head, log) = match stream {
            Stream::Writes => (&mut space.head, &mut space.log),
            Stream::Moves => (&mut space.mover, &mut space.log),
        };
        let due = head.cut_due(log, now);
        while has_room(&self.writes, self.writing_bytes_max)
            && let Some(Piece { block, memory, range, end, .. }) = head.next_piece()
        {
            debug_assert!(range.start.is_multiple_of(WRITE_ALIGN));
            let (device, block_offset) = log.geometry().offset(block);
            let offset = block_offset + range.start as u64;
            let to = Location { block, offset: range.start as u32, extent: range.len() as u32 };
            let op = store.ring.write(space.files[device], offset, memory, range, durable);
            self.writes.push(Write { begun: now, stream, end, to, op });
        }
        due.unwrap_or(Tick::NEVER)
    }

    /// Begins a flush of the devices when it is time; tells when it will be.
    fn begin_sync(&mut self, store: &mut Store, now: Tick) -> Option<Tick> {
        let is_stopping = store.is_stopping;
        let space = store.space(self.namespace);
        let written = space.written();
        let is_due = self.sync.is_empty() && !written.are_within(space.durable());
        if !is_due || self.is_too_late(store, now) {
            return None;
        }
        let space = &mut store.spaces[self.namespace.index()];
        let is_wanted = space.commit || is_stopping || space.log.urgently_needed().is_some();
        if !is_wanted && now < self.next_sync {
            return Some(self.next_sync);
        }
        if planted(Mutation::FlushSkipped) {
            store.synced(self.namespace, written);
            return None;
        }
        self.sync_positions = written;
        self.next_sync = now.plus_ms(space.flush_max_ms);
        self.sync.extend(space.files.iter().map(|file| store.ring.flush(*file)));
        None
    }

    /// Takes in what has finished; true when there was something.
    fn poll(&mut self, store: &SharedStore, cx: &mut Context<'_>) -> bool {
        let mut failure = None;
        let mut arrived = false;
        let mut index = 0;
        while index < self.writes.len() {
            match Pin::new(&mut self.writes[index].op).poll(cx) {
                Poll::Pending => index += 1,
                Poll::Ready((_, result)) => {
                    let now = Tick(store.borrow().clock.now());
                    let Write { begun, stream, end, to, .. } = self.writes.remove(index);
                    self.last_write_ms = now.us_since(begun) / 1000;
                    let is_slow = begun.plus_ms(SLOW_WRITE_MS) < now;
                    let most = store.borrow().writing_bytes_max;
                    self.writing_bytes_max = next_bound(self.writing_bytes_max, most, is_slow);
                    arrived = true;
                    match result {
                        Err(error) if !planted(Mutation::WriteErrorForgiven) => {
                            let place = store.borrow().place(self.namespace, to);
                            failure =
                                Some(format!("{place}: a write of {} bytes: {error}", to.extent));
                        }
                        _ => store.borrow_mut().piece_arrived(self.namespace, stream, end),
                    }
                }
            }
        }
        let syncing = !self.sync.is_empty();
        self.sync.retain_mut(|op| match Pin::new(op).poll(cx) {
            Poll::Pending => true,
            Poll::Ready(((), Ok(_))) => false,
            Poll::Ready(((), Err(error))) => {
                let store = store.borrow();
                let volume = store.volume(self.namespace);
                volume.flush_failed();
                failure = Some(format!("namespace {}: a flush: {error}", volume.namespace));
                false
            }
        });
        if let Some(failure) = failure {
            store.borrow_mut().poison(self.namespace, &failure);
            arrived = true;
        } else if syncing && self.sync.is_empty() {
            store.borrow_mut().synced(self.namespace, self.sync_positions);
            arrived = true;
        }
        arrived
    }

    /// Whether what begins now would not be over by the end of a stop, and hold up that of the process.
    fn is_too_late(&self, store: &Store, now: Tick) -> bool {
        store.is_stopping && now.plus_ms(self.write_ms(now)) >= store.stop_deadline
    }

    /// What a write takes, as far as is known: one that is under way tells of a device that has
    /// become slow long before it is over.
    fn write_ms(&self, now: Tick) -> u64 {
        let oldest = self.writes.iter().map(|write| now.us_since(write.begun) / 1000).max();
        self.last_write_ms.max(oldest.unwrap_or(0))
    }

    fn is_done(&self, store: &Store) -> bool {
        let space = store.space(self.namespace);
        let is_idle = self.writes.is_empty() && self.sync.is_empty();
        let is_safe = space.is_quiet() && space.written().are_within(space.durable())
            || planted(Mutation::StopsUnflushed);
        store.is_stopping && is_idle && (is_safe || space.is_poisoned)
    }
}

/// Whether another write may begin.
fn has_room(writes: &[Write], bytes_max: u64) -> bool {
    writes.iter().map(|write| u64::from(write.to.extent)).sum::<u64>() < bytes_max
}

/// The bound after a write: half of it after a slow one, more after a quick one.
fn next_bound(bytes_max: u64, most: u64, is_slow: bool) -> u64 {
    if is_slow { (bytes_max / 2).max(1) } else { (2 * bytes_max).min(most) }
}

/// Bytes that may be under way, for a process whose stop is to be over within that.
pub(super) fn writing_bytes_max(stop: Duration) -> u64 {
    let bytes = (stop.as_secs_f64() - 1.0) * SLOW_DEVICE_BYTES_PER_S as f64;
    (bytes as u64).clamp(*WRITING_BYTES.start(), *WRITING_BYTES.end())
}

impl Store {
    /// Keeps no more writes under way than a stop of that time can wait for.
    pub fn stop_within(&mut self, stop: Duration) {
        self.writing_bytes_max = writing_bytes_max(stop);
    }

    fn piece_arrived(&mut self, namespace: NamespaceId, stream: Stream, end: u64) {
        let space = &mut self.spaces[namespace.index()];
        if !space.is_poisoned {
            space.piece_arrived(stream, end);
            self.durability_changed(namespace);
        }
    }

    fn synced(&mut self, namespace: NamespaceId, positions: LogPositions) {
        let volume = self.volume(namespace);
        if volume.has_failed_flush() {
            let failure =
                format!("namespace {}: a flush failed on another shard", volume.namespace);
            return self.poison(namespace, &failure);
        }
        let space = &mut self.spaces[namespace.index()];
        if !space.is_poisoned {
            space.made_durable(positions);
            self.durability_changed(namespace);
        }
    }

    fn poison(&mut self, namespace: NamespaceId, failure: &str) {
        let space = &mut self.spaces[namespace.index()];
        if !space.is_poisoned {
            tracing::error!(
                "{failure}; what the device holds is unknown, so nothing more is acknowledged \
                 until the node is started again"
            );
        }
        space.is_poisoned = true;
        self.durability_changed(namespace);
    }
}

impl Space {
    /// Whether nothing is left to be written.
    pub(super) fn is_quiet(&self) -> bool {
        self.head.is_quiet() && self.mover.is_quiet()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_under_way_than_a_stop_can_wait_for_and_less_where_writes_are_slow() {
        for (stop_ms, bytes) in [(1000, 1 << 20), (4000, 3 << 20), (10_000, 8 << 20)] {
            let most = writing_bytes_max(Duration::from_millis(stop_ms));
            assert_eq!(most, bytes, "{stop_ms}");
            let after = |bound, is_slow| (0..100).fold(bound, |b, _| next_bound(b, most, is_slow));
            assert_eq!(after(most, true), 1, "one write at a time");
            assert_eq!(after(1, false), most);
        }
    }
}
