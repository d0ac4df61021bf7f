//! What does it cost to hand one change from a writer's thread to a shard?
//!
//! Nanoseconds per item of 32 bytes through the mailbox's ring and, with the same loop around them,
//! crossbeam's `ArrayQueue` (bounded, many consumers) and `SegQueue` (unbounded, allocates), and
//! std's `sync_channel`. `one thread` pushes and pops on a hot cache: the instructions alone.
//! `two threads` has a writer on core 1 and a reader on core 0 that never sleeps: the cache line
//! that travels. Sketch: one compare-and-swap and one fence (about 20 cycles each), one line moved
//! per item: 10-15 ns on one thread, below 100 ns between two. The price of waking a reader that
//! sleeps (one eventfd write, 12-16 us here) is not in it: it is paid once per sleep.
use std::hint::{black_box, spin_loop};
use std::sync::{Arc, LazyLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use core_affinity::CoreId;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main};
use crossbeam_queue::{ArrayQueue, SegQueue};
use longship_rt::mpsc::{Consumer, Producer, ring};

type Item = [u64; 4];

const CAPACITY: usize = 4096;
const ITEM: Item = [1, 2, 3, 4];

/// What the loops below need of a queue: a sending end and a receiving end.
trait Queue: Sync {
    const NAME: &'static str;
    type Receiver: Receiver;
    fn new() -> (Self, Self::Receiver)
    where
        Self: Sized;
    fn push(&self, item: Item) -> bool;
}

trait Receiver {
    fn pop(&mut self) -> Option<Item>;
}

impl Queue for Producer<Item> {
    const NAME: &'static str = "mailbox ring";
    type Receiver = Consumer<Item>;
    fn new() -> (Self, Self::Receiver) {
        ring(CAPACITY)
    }
    fn push(&self, item: Item) -> bool {
        Producer::push(self, item).is_ok()
    }
}

impl Receiver for Consumer<Item> {
    fn pop(&mut self) -> Option<Item> {
        Consumer::pop(self)
    }
}

/// A queue that both ends share.
struct Shared<Q>(Arc<Q>);

impl Queue for Shared<ArrayQueue<Item>> {
    const NAME: &'static str = "crossbeam ArrayQueue";
    type Receiver = Self;
    fn new() -> (Self, Self) {
        let queue = Arc::new(ArrayQueue::new(CAPACITY));
        (Self(queue.clone()), Self(queue))
    }
    fn push(&self, item: Item) -> bool {
        self.0.push(item).is_ok()
    }
}

impl Receiver for Shared<ArrayQueue<Item>> {
    fn pop(&mut self) -> Option<Item> {
        self.0.pop()
    }
}

impl Queue for Shared<SegQueue<Item>> {
    const NAME: &'static str = "crossbeam SegQueue";
    type Receiver = Self;
    fn new() -> (Self, Self) {
        let queue = Arc::new(SegQueue::new());
        (Self(queue.clone()), Self(queue))
    }
    fn push(&self, item: Item) -> bool {
        // Held to the others' bound, which an unbounded queue needs to be told.
        let room = self.0.len() < CAPACITY;
        if room {
            self.0.push(item);
        }
        room
    }
}

impl Receiver for Shared<SegQueue<Item>> {
    fn pop(&mut self) -> Option<Item> {
        self.0.pop()
    }
}

impl Queue for mpsc::SyncSender<Item> {
    const NAME: &'static str = "std sync_channel";
    type Receiver = mpsc::Receiver<Item>;
    fn new() -> (Self, Self::Receiver) {
        mpsc::sync_channel(CAPACITY)
    }
    fn push(&self, item: Item) -> bool {
        self.try_send(item).is_ok()
    }
}

impl Receiver for mpsc::Receiver<Item> {
    fn pop(&mut self) -> Option<Item> {
        self.try_recv().ok()
    }
}

/// Pushes and pops 64 at a time, so that the queue is neither empty nor full for long.
fn one_thread<Q: Queue>(group: &mut BenchmarkGroup<'_, WallTime>) {
    const BURST: u64 = 64;
    group.bench_function(Q::NAME, |bencher| {
        let (queue, mut receiver) = Q::new();
        bencher.iter_custom(|items| {
            let begin = Instant::now();
            for _ in 0..items.div_ceil(BURST) {
                for _ in 0..BURST {
                    assert!(queue.push(black_box(ITEM)));
                }
                for _ in 0..BURST {
                    black_box(receiver.pop());
                }
            }
            begin.elapsed()
        });
    });
}

fn two_threads<Q: Queue + Send>(group: &mut BenchmarkGroup<'_, WallTime>) {
    group.bench_function(Q::NAME, |bencher| {
        bencher.iter_custom(|items| {
            let (queue, mut receiver) = Q::new();
            pin(0);
            thread::scope(|scope| {
                scope.spawn(move || {
                    pin(1);
                    for _ in 0..items {
                        while !queue.push(black_box(ITEM)) {
                            spin_loop();
                        }
                    }
                });
                let begin = Instant::now();
                let mut left = items;
                while left > 0 {
                    match receiver.pop() {
                        Some(item) => {
                            black_box(item);
                            left -= 1;
                        }
                        None => spin_loop(),
                    }
                }
                begin.elapsed()
            })
        });
    });
}

/// With one core allowed both ends share it, and the figures say nothing.
fn pin(index: usize) {
    // Read once: a pinned thread sees only its own core.
    static CORES: LazyLock<Vec<CoreId>> =
        LazyLock::new(|| core_affinity::get_core_ids().unwrap_or_default());
    if let Some(core) = CORES.get(index) {
        core_affinity::set_for_current(*core);
    }
}

fn mailbox(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("one thread");
    group.measurement_time(Duration::from_secs(2));
    one_thread::<Producer<Item>>(&mut group);
    one_thread::<Shared<ArrayQueue<Item>>>(&mut group);
    one_thread::<Shared<SegQueue<Item>>>(&mut group);
    one_thread::<mpsc::SyncSender<Item>>(&mut group);
    group.finish();
    let mut group = criterion.benchmark_group("two threads");
    group.measurement_time(Duration::from_secs(2));
    two_threads::<Producer<Item>>(&mut group);
    two_threads::<Shared<ArrayQueue<Item>>>(&mut group);
    two_threads::<Shared<SegQueue<Item>>>(&mut group);
    two_threads::<mpsc::SyncSender<Item>>(&mut group);
    group.finish();
}

criterion_group!(benches, mailbox);
criterion_main!(benches);
