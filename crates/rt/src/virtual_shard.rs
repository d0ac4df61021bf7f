//! Shards in virtual time, for tests: tasks, events, disk rings, mailboxes and sockets on the calling
//! thread, where a seed decides which task that may run goes on, how long that takes, and when a
//! device or a network answers. A test of an hour takes as long as what is done in it, and the same
//! seed does the same.
//!
//! [`shard::spawn`](crate::shard::spawn), [`shard::yield_now`](crate::shard::yield_now),
//! [`Event`](crate::event::Event), [`Clock::real`](crate::clock::Clock::real),
//! [`DiskRing`](crate::disk_ring::DiskRing), [`mailbox`](crate::mailbox::mailbox) and
//! [`net`](crate::net) ask here first. All shards of all processes share the thread: what tells them
//! apart is the [`Process`] that a task was spawned by. Nothing may wait by blocking.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::net::{IpAddr, Ipv4Addr};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use crate::disk_ring::{DiskRing, Fault};
use crate::virtual_net::Net;

thread_local! {
    static CURRENT: RefCell<Option<Rc<VirtualShard>>> = const { RefCell::new(None) };
}

/// What a poll takes at most, in microseconds.
const POLL_US: u64 = 8;

/// The task that [`run`] was given; others count from one.
const BODY: usize = 0;
/// Whose task that is.
const NOBODY: usize = 0;

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// See the [module](self).
pub(crate) struct VirtualShard {
    now_us: Cell<u64>,
    /// Unix time when `now_us` was zero.
    epoch_ms: u64,
    dice: Cell<u64>,
    tasks: RefCell<Vec<Place>>,
    woken: Arc<Mutex<Vec<usize>>>,
    /// Who is to be woken when, by its task.
    timers: RefCell<BTreeMap<(u64, usize), Waker>>,
    /// Addresses of the processes there ever were.
    processes: RefCell<Vec<IpAddr>>,
    /// Whose task runs.
    running: Cell<usize>,
    /// The task that runs.
    polled: Cell<usize>,
    net: Net,
    /// Of each process.
    rings: RefCell<Vec<(usize, DiskRing)>>,
    /// How often the power of a host has failed.
    boots: RefCell<BTreeMap<IpAddr, u32>>,
    /// How far the wall clock of a host is ahead, in milliseconds.
    ahead_ms: RefCell<BTreeMap<IpAddr, i64>>,
}

/// Where a task is kept: away while it runs, and once it has ended.
struct Place {
    task: Option<Task>,
    waker: Waker,
    process: usize,
}

/// Tasks that end together, at an address of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process(usize);

impl Process {
    /// Starts one with this task, on the virtual shard of this thread.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub fn start(address: IpAddr, first: impl Future<Output = ()> + 'static) -> Self {
        let shard = current().expect("within a virtual shard");
        let mut processes = shard.processes.borrow_mut();
        let process = processes.len();
        processes.push(address);
        drop(processes);
        shard.within(process, |shard| shard.spawn(first));
        Self(process)
    }

    /// Drops all its tasks as they stand. What its sockets have written arrives, and what its rings had
    /// not is gone.
    pub fn kill(self) {
        let Some(shard) = current() else { return };
        shard.rings.borrow_mut().retain(|(process, _)| *process != self.0);
        self.drop_tasks();
    }

    /// Kills it as [`Self::kill`] does, and its host loses what no flush has covered, or some of
    /// it.
    pub fn fail_power(self) {
        let Some(shard) = current() else { return };
        let mut rings = shard.rings.borrow_mut();
        let mine: Vec<_> = rings.extract_if(.., |(process, _)| *process == self.0).collect();
        drop(rings);
        self.drop_tasks();
        mine.iter().for_each(|(_, ring)| ring.fail_power(|sides| shard.roll(sides)));
        let host = shard.processes.borrow()[self.0];
        *shard.boots.borrow_mut().entry(host).or_default() += 1;
    }

    /// Has its devices do that from now on, as [`DiskRing::break_device`].
    pub fn break_devices(self, faults: &[Fault]) {
        let Some(shard) = current() else { return };
        let rings = shard.rings.borrow();
        let mine: Vec<_> = rings.iter().filter(|(process, _)| *process == self.0).collect();
        let mine: Vec<DiskRing> = mine.into_iter().map(|(_, ring)| ring.clone()).collect();
        drop(rings);
        mine.iter().for_each(|ring| ring.break_device(faults.to_vec()));
    }

    fn drop_tasks(self) {
        let Some(shard) = current() else { return };
        shard.within(self.0, |shard| {
            // A future may spawn others when it is dropped.
            loop {
                let mut tasks = shard.tasks.borrow_mut();
                let mine = tasks.iter_mut().filter(|place| place.process == self.0);
                let ended: Vec<Task> = mine.filter_map(|place| place.task.take()).collect();
                drop(tasks);
                if ended.is_empty() {
                    break;
                }
            }
        });
    }

    /// Whether none of its tasks is left.
    pub fn has_ended(self) -> bool {
        let Some(shard) = current() else { return true };
        let tasks = shard.tasks.borrow();
        !tasks.iter().any(|place| place.process == self.0 && place.task.is_some())
    }
}

/// Runs a body, and what it spawns, until the body ends. What it has spawned is dropped then, as it
/// would be with a shard. Time begins at one second, and at `wall_ms` of Unix time.
///
/// # Panics
///
/// When nothing can happen any more though the body has not ended, and with what a task panics.
pub fn run<F: Future>(seed: u64, wall_ms: u64, body: impl FnOnce() -> F) -> F::Output {
    let shard = Rc::new(VirtualShard {
        now_us: Cell::new(1_000_000),
        epoch_ms: wall_ms - 1000,
        dice: Cell::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
        tasks: RefCell::default(),
        woken: Arc::default(),
        timers: RefCell::default(),
        processes: RefCell::new(vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]),
        running: Cell::new(NOBODY),
        polled: Cell::new(BODY),
        net: Net::default(),
        rings: RefCell::default(),
        boots: RefCell::default(),
        ahead_ms: RefCell::default(),
    });
    (0..8).for_each(|_| _ = shard.roll(2));
    let before = CURRENT.replace(Some(Rc::clone(&shard)));
    assert!(before.is_none(), "a virtual shard within another");
    let _end = End;
    let mut body = pin!(body());
    let waker = shard.add(None);
    loop {
        let task = shard.next_task();
        shard.polled.set(task);
        if task == BODY {
            if let Poll::Ready(output) = body.as_mut().poll(&mut Context::from_waker(&waker)) {
                return output;
            }
        } else {
            shard.poll(task);
        }
    }
}

/// Ends the current shard, whether its body has ended or panicked.
struct End;

impl Drop for End {
    fn drop(&mut self) {
        let shard = current();
        if let Some(shard) = &shard {
            shard.rings.take();
        }
        // A future may spawn others when it is dropped.
        while let Some(shard) = &shard {
            let tasks = shard.tasks.take();
            if tasks.is_empty() {
                break;
            }
            drop(tasks);
        }
        CURRENT.take();
    }
}

/// The virtual shard of this thread.
pub(crate) fn current() -> Option<Rc<VirtualShard>> {
    CURRENT.with_borrow(Clone::clone)
}

/// Whether this thread runs one.
pub fn is_here() -> bool {
    CURRENT.with_borrow(Option::is_some)
}

/// Microseconds, in virtual time.
pub(crate) fn now_us() -> Option<u64> {
    CURRENT.with_borrow(|shard| shard.as_ref().map(|shard| shard.now_us.get()))
}

/// Unix milliseconds, in virtual time, by the clock of the host whose task runs.
pub(crate) fn wall_ms() -> Option<u64> {
    let shard = current()?;
    let ahead_ms = shard.ahead_ms.borrow().get(&shard.address()).copied().unwrap_or(0);
    Some((shard.epoch_ms + shard.now_us.get() / 1000).saturating_add_signed(ahead_ms))
}

/// Sets the wall clock of a host so far ahead of what it would say.
pub fn set_clock(host: IpAddr, ahead_ms: i64) {
    let Some(shard) = current() else { return };
    shard.ahead_ms.borrow_mut().insert(host, ahead_ms);
}

impl VirtualShard {
    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        self.add(Some(Box::pin(future)));
    }

    /// Adds a task, which may run at once.
    fn add(&self, task: Option<Task>) -> Waker {
        let mut tasks = self.tasks.borrow_mut();
        let waker = TaskWaker { task: tasks.len(), woken: Arc::clone(&self.woken) };
        let waker = Waker::from(Arc::new(waker));
        waker.wake_by_ref();
        tasks.push(Place { task, waker: waker.clone(), process: self.running.get() });
        waker
    }

    /// What is spawned meanwhile belongs to a process.
    fn within<R>(&self, process: usize, f: impl FnOnce(&Self) -> R) -> R {
        let before = self.running.replace(process);
        let result = f(self);
        self.running.set(before);
        result
    }

    /// Where the process is whose task runs.
    pub(crate) fn address(&self) -> IpAddr {
        self.processes.borrow()[self.running.get()]
    }

    /// A process has a ring more, whose writes are kept.
    pub(crate) fn note_ring(&self, ring: &DiskRing) {
        let process = self.running.get();
        if process != NOBODY {
            ring.keep_journal();
            self.rings.borrow_mut().push((process, ring.clone()));
        }
    }

    /// Which run of its system the process is in whose task runs.
    pub(crate) fn boot(&self) -> u32 {
        self.boots.borrow().get(&self.address()).copied().unwrap_or(0)
    }

    pub(crate) const fn net(&self) -> &Net {
        &self.net
    }

    /// Lets others run first.
    pub(crate) async fn yield_now() {
        let mut has_yielded = false;
        poll_fn(|cx| {
            if std::mem::replace(&mut has_yielded, true) {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }

    /// Wakes the task that runs at a time, unless it has been woken before.
    pub(crate) fn wake_at(&self, due_us: u64, waker: &Waker) {
        if due_us == u64::MAX {
            return;
        }
        let key = (due_us, self.polled.get());
        self.timers.borrow_mut().entry(key).or_insert_with(|| waker.clone());
    }

    /// A number below `sides`.
    pub(crate) fn roll(&self, sides: u64) -> u64 {
        let mut dice = self.dice.get();
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        self.dice.set(dice);
        dice % sides
    }

    pub(crate) fn now(&self) -> u64 {
        self.now_us.get()
    }

    /// One of those that may run, when time has come to that.
    fn next_task(&self) -> usize {
        self.now_us.set(self.now_us.get() + self.roll(POLL_US));
        loop {
            self.wake_due();
            let mut woken = self.woken.lock().unwrap_or_else(PoisonError::into_inner);
            if !woken.is_empty() {
                let at = self.roll(woken.len() as u64) as usize;
                return woken.swap_remove(at);
            }
            drop(woken);
            let next = self.timers.borrow().keys().next().map(|(due_us, _)| *due_us);
            let next = next.expect("all tasks wait, and nothing will happen");
            self.now_us.set(self.now_us.get().max(next));
        }
    }

    fn wake_due(&self) {
        loop {
            let mut timers = self.timers.borrow_mut();
            let Some(first) = timers.first_entry() else { return };
            if first.key().0 > self.now_us.get() {
                return;
            }
            let waker = first.remove();
            drop(timers);
            waker.wake();
        }
    }

    fn poll(&self, task: usize) {
        let place = |place: &mut Place| (place.task.take(), place.waker.clone(), place.process);
        let taken = self.tasks.borrow_mut().get_mut(task).map(place);
        let Some((Some(mut future), waker, process)) = taken else { return };
        let poll = |_: &Self| future.as_mut().poll(&mut Context::from_waker(&waker));
        if self.within(process, poll).is_pending() {
            self.tasks.borrow_mut()[task].task = Some(future);
        }
    }
}

struct TaskWaker {
    task: usize,
    woken: Arc<Mutex<Vec<usize>>>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut woken = self.woken.lock().unwrap_or_else(PoisonError::into_inner);
        if !woken.contains(&self.task) {
            woken.push(self.task);
        }
    }
}

/// Rings in the place of an eventfd.
#[derive(Debug, Default)]
pub(crate) struct VirtualBell(Mutex<(bool, Option<Waker>)>);

impl VirtualBell {
    pub(crate) fn ring(&self) {
        let mut bell = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        bell.0 = true;
        if let Some(waiter) = bell.1.take() {
            waiter.wake();
        }
    }

    pub(crate) fn poll_rung(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut bell = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::take(&mut bell.0) {
            return Poll::Ready(());
        }
        bell.1 = Some(cx.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::event::Event;
    use crate::shard::{self, Queue};

    fn story(seed: u64) -> (Vec<usize>, u64) {
        run(seed, 1_700_000_000_000, || async {
            let told = Rc::new(RefCell::new(Vec::new()));
            let all_done = Event::new();
            for task in 0..5 {
                let (told, all_done) = (Rc::clone(&told), all_done.clone());
                shard::spawn(Queue::Work, async move {
                    for round in 0..3 {
                        let due = Clock::real().now() + 1_000_000 * (round % 2);
                        assert!(!Event::new().wait_until(due).await);
                        shard::yield_now().await;
                        told.borrow_mut().push(task);
                    }
                    if told.borrow().len() == 15 {
                        all_done.set();
                    }
                });
            }
            all_done.wait().await;
            (told.take(), Clock::real().now())
        })
    }

    #[test]
    fn the_same_seed_does_the_same_and_hours_take_no_time() {
        assert_eq!(story(7), story(7));
        assert!((1..20).any(|seed| story(seed).0 != story(7).0), "others do otherwise");
        assert!(story(7).1 >= 2_000_000);
        let begun = std::time::Instant::now();
        run(1, 1_700_000_000_000, || async {
            let (now, wall) = (Clock::real().now(), Clock::real().wall_ms());
            Event::new().wait_until(now + 3_600_000_000).await;
            assert!(Clock::real().wall_ms() - wall >= 3_600_000);
        });
        assert!(begun.elapsed().as_secs() < 60);
    }

    #[test]
    #[should_panic(expected = "all tasks wait, and nothing will happen")]
    fn who_waits_for_nothing_is_told() {
        run(1, 1_700_000_000_000, || async { Event::new().wait().await });
    }

    #[test]
    fn what_was_spawned_is_dropped_with_its_shard() {
        let owned = Rc::new(());
        let theirs = Rc::clone(&owned);
        run(1, 1_700_000_000_000, || async {
            shard::spawn(Queue::Work, async move {
                Event::new().wait().await;
                drop(theirs);
            });
            shard::yield_now().await;
        });
        assert_eq!(Rc::strong_count(&owned), 1);
        assert!(current().is_none());
    }
}
