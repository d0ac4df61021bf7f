//! The task that carries a namespace's pieces to the device and makes them durable.
//!
//! Several writes are under way at a time, in log order. Where the drive keeps what it has taken
//! through a power failure, every write is a durable one; elsewhere one flush of the device makes
//! everything written before it durable: at once when commits wait, every `flush-max-ms` otherwise,
//! and earlier when blocks wait for it to become free.
//!
//! The first write or flush that fails poisons the namespace: what the device holds is unknown from
//! then on, so nothing later is acknowledged (the kernel reports such an error once and forgets).

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use super::block::WRITE_ALIGN;
use super::store::{SharedStore, Store};
use crate::model::{NamespaceId, Tick};
use crate::rt::arena::AppendBuffer;
use crate::rt::disk_ring::DiskOp;

/// A write under way: the position behind it.
type Write = (u64, DiskOp<Rc<AppendBuffer>>);

/// What is under way for one namespace.
struct Carrier {
    namespace: NamespaceId,
    writes: Vec<Write>,
    /// Flushes of the devices, and the position they will make durable.
    sync: Vec<DiskOp<()>>,
    sync_position: u64,
    next_sync: Tick,
}

/// Carries pieces until the store stops and everything is durable. One task per namespace, in the
/// queue for disk work.
pub async fn run(store: SharedStore, namespace: NamespaceId) {
    let wake = store.borrow().flush_wakes[namespace.index()].clone();
    let mut carrier = Carrier {
        namespace,
        writes: Vec::new(),
        sync: Vec::new(),
        sync_position: 0,
        next_sync: Tick(0),
    };
    loop {
        let due = carrier.step(&mut store.borrow_mut());
        if carrier.is_done(&store.borrow()) {
            break;
        }
        let mut woken = pin!(wake.wait_until(due.0));
        poll_fn(|cx| {
            let arrived = carrier.poll(&store, cx);
            if arrived || woken.as_mut().poll(cx).is_ready() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }
}

/// Closes every open block and lets the flush tasks end once all is durable. Nothing is to be
/// written any more.
pub fn begin_stop(store: &RefCell<Store>) {
    let mut store = store.borrow_mut();
    store.is_stopping = true;
    for space in &mut store.spaces {
        space.head.close_block(&mut space.log);
    }
    store.flush_wakes.iter().for_each(|wake| wake.set());
}

impl Carrier {
    /// Begins whatever may begin now, and tells when to come again at the latest.
    fn step(&mut self, store: &mut Store) -> Tick {
        let now = Tick(store.clock.now());
        let space = &mut store.spaces[self.namespace.index()];
        if space.is_poisoned {
            return Tick::NEVER;
        }
        let cut_due = space.head.cut_due(&mut space.log, now);
        while let Some(piece) = space.head.next_piece() {
            debug_assert!(piece.range.start.is_multiple_of(WRITE_ALIGN));
            let (device, block_offset) = space.log.geometry().offset(piece.block);
            let offset = block_offset + piece.range.start as u64;
            let durable = space.durable_writes;
            let write =
                store.ring.write(space.files[device], offset, piece.memory, piece.range, durable);
            self.writes.push((piece.end, write));
        }
        let sync_due = self.begin_sync(store, now);
        cut_due.unwrap_or(Tick::NEVER).min(sync_due.unwrap_or(Tick::NEVER))
    }

    /// Begins a flush of the devices when it is time; tells when it will be.
    fn begin_sync(&mut self, store: &mut Store, now: Tick) -> Option<Tick> {
        let is_stopping = store.is_stopping;
        let space = &mut store.spaces[self.namespace.index()];
        let written = space.head.written();
        if !self.sync.is_empty() || written <= space.head.durable() {
            return None;
        }
        let is_wanted = space.commit
            || is_stopping
            || space.log.free_count() <= 2 * space.log.reserve() && space.log.cooling_count() > 0;
        if !is_wanted && now < self.next_sync {
            return Some(self.next_sync);
        }
        self.sync_position = written;
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
            let (end, op) = &mut self.writes[index];
            match Pin::new(op).poll(cx) {
                Poll::Pending => index += 1,
                Poll::Ready((_, result)) => {
                    let end = *end;
                    drop(self.writes.remove(index));
                    arrived = true;
                    match result {
                        Ok(_) => store.borrow_mut().piece_arrived(self.namespace, end),
                        Err(error) => failure = Some(error),
                    }
                }
            }
        }
        let syncing = !self.sync.is_empty();
        self.sync.retain_mut(|op| match Pin::new(op).poll(cx) {
            Poll::Pending => true,
            Poll::Ready(((), Ok(_))) => false,
            Poll::Ready(((), Err(error))) => {
                failure = Some(error);
                false
            }
        });
        if let Some(error) = failure {
            store.borrow_mut().poison(self.namespace, &error);
            arrived = true;
        } else if syncing && self.sync.is_empty() {
            store.borrow_mut().synced(self.namespace, self.sync_position);
            arrived = true;
        }
        arrived
    }

    fn is_done(&self, store: &Store) -> bool {
        let space = store.space(self.namespace);
        let is_idle = self.writes.is_empty() && self.sync.is_empty();
        let is_safe = space.head.is_quiet() && space.head.durable() >= space.head.written();
        store.is_stopping && is_idle && (is_safe || space.is_poisoned)
    }
}

impl Store {
    fn piece_arrived(&mut self, namespace: NamespaceId, end: u64) {
        let space = &mut self.spaces[namespace.index()];
        if !space.is_poisoned {
            space.head.arrived(end, space.durable_writes, &mut space.log);
            self.durability_changed(namespace);
        }
    }

    fn synced(&mut self, namespace: NamespaceId, position: u64) {
        let space = &mut self.spaces[namespace.index()];
        if !space.is_poisoned {
            space.head.made_durable(position, &mut space.log);
            self.durability_changed(namespace);
        }
    }

    fn poison(&mut self, namespace: NamespaceId, error: &io::Error) {
        let space = &mut self.spaces[namespace.index()];
        if !space.is_poisoned {
            tracing::error!(
                "namespace {}: writing the log failed ({error}); nothing more is acknowledged",
                namespace.0
            );
        }
        space.is_poisoned = true;
        self.durability_changed(namespace);
    }
}
