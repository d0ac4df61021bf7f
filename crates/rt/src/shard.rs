//! A shard's thread: one executor, pinned to one core, with four task queues. glommio behind a
//! small face.
//!
//! What glommio needs to be told, and where it is done here (numbers are issues of
//! DataDog/glommio; "read" means read in its source, 0.9.0):
//!
//! - Its preempt timer loses tasks, so it is set out of reach and turns end by agreement: `turn`.
//! - A wake from another thread through one of its wakers may be lost the same way (#494, read). No
//!   waker leaves its shard: threads wake a shard through a mailbox, and `spawn_blocking` is not
//!   used.
//! - The first sleep of a process takes 30-50 ms, because it registers a memory barrier with the
//!   kernel (#652). A shard sleeps once before its body runs.
//! - Each spawn takes a process-wide lock: spawn long-lived tasks, never one per record.
//! - Tasks that still wait when an executor ends are leaked with all they own (#448). A shard keeps
//!   hold of its tasks and drops them itself.
//! - It registers its own I/O memory on three rings against the memlock limit: kept to the smallest.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Mutex, PoisonError, mpsc};
use std::task::{Context, Poll, ready};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{io, mem, process};

use glommio::timer::Timer;
use glommio::{
    GlommioError, Latency, LocalExecutor, LocalExecutorBuilder, Placement, Shares, TaskQueueHandle,
};

use super::disk_ring::{self, RingError};
use super::limits::{self, MEMLOCK_BYTES_MIN};
use super::turn;
#[cfg(any(test, feature = "testing"))]
use super::virtual_shard::VirtualShard;

/// When glommio itself would end a turn: never (see `turn`).
const PREEMPT_NEVER: Duration = Duration::from_secs(1 << 30);

/// Entries in each of glommio's rings (1.2 MiB in all). So many completions in one pass would end a
/// turn, which can lose tasks as the timer does (read, not seen): more than sockets wake at once.
const RING_DEPTH: usize = 4096;

/// The least glommio takes. Our buffers come from the arena.
const IO_MEMORY_BYTES: usize = 64 << 10;

/// Which thread to make.
#[derive(Clone, Debug)]
pub struct ShardSpec {
    /// Counts from zero; part of error messages only.
    pub index: u16,
    /// Operating system's number of the cpu to pin to; `None` leaves it to the scheduler.
    pub core: Option<usize>,
    /// Name of the thread, as `ps` and `perf` show it (15 bytes at most reach them).
    pub name: String,
}

/// Where a task waits. Each queue gets time in proportion to its shares, counted only against
/// queues that have work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// Client and destination connections, accepts, mailbox readers: short and urgent.
    Sockets,
    /// The disk ring's driver and what waits on it.
    Disk,
    /// What the shard does of its own accord: as much of the core as its sockets get.
    Work,
    /// Checkpoints, expiry, defragmentation, statistics: a thirtieth of a busy core.
    Background,
}

impl Queue {
    const ALL: [Self; 4] = [Self::Sockets, Self::Disk, Self::Work, Self::Background];

    const fn plan(self) -> (&'static str, usize) {
        match self {
            Self::Sockets => ("sockets", 1000),
            Self::Disk => ("disk", 1000),
            Self::Work => ("work", 1000),
            Self::Background => ("background", 100),
        }
    }
}

/// Why a shard could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShardError {
    /// The system gave no thread.
    #[error("cannot start the thread of shard {index}: {source}")]
    Thread {
        /// The shard.
        index: u16,
        /// The system's answer.
        source: io::Error,
    },
    /// io_uring is missing or forbidden.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// The executor would refuse to start.
    #[error(
        "the limit of locked memory is {} KiB, and must be {} KiB for each shard or more: raise it with \
         `ulimit -l`, LimitMEMLOCK= in the systemd unit, or --ulimit memlock= of a container",
        limit_bytes / 1024, MEMLOCK_BYTES_MIN / 1024
    )]
    LockedMemory {
        /// The limit.
        limit_bytes: u64,
    },
    /// The executor could not be made: the core does not exist or is not allowed, or the system
    /// refused something else.
    #[error("cannot start the executor of shard {index}{}: {reason}{}", on_core(*.core), if_refused(reason))]
    Executor {
        /// The shard.
        index: u16,
        /// The core it was to be pinned to.
        core: Option<usize>,
        /// glommio's own words.
        reason: String,
    },
}

/// A running shard.
#[derive(Debug)]
pub struct ShardThread<T = ()> {
    thread: JoinHandle<Option<T>>,
    /// Disconnected as the last thing the thread does. Nobody locks it: a receiver alone could not
    /// be shared.
    ended: Mutex<mpsc::Receiver<Infallible>>,
}

impl<T> ShardThread<T> {
    /// Waits for the shard's body to end and gives its result.
    pub fn join(self) -> T {
        self.thread
            .join()
            .ok()
            .flatten()
            .expect("a shard that started ends with its body's result or aborts the process")
    }

    /// Like [`join`](Self::join), but `None` after `patience`: the thread is then left to itself. A
    /// body may have ended long before, since what its tasks own may be slow to drop: a disk ring
    /// waits for its device.
    pub fn join_within(mut self, patience: Duration) -> Option<T> {
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        match ended.recv_timeout(patience) {
            Err(mpsc::RecvTimeoutError::Timeout) => None,
            Err(mpsc::RecvTimeoutError::Disconnected) => Some(self.join()),
        }
    }
}

/// Waits until all of them have ended, but for no longer than `patience` together. Gives the names of
/// those that have not: their threads are left to themselves.
pub fn join_all_within(
    threads: impl IntoIterator<Item = ShardThread<()>>,
    patience: Duration,
) -> Vec<String> {
    let deadline = Instant::now() + patience;
    let left = threads.into_iter().filter_map(|thread| {
        let name = thread.thread.thread().name().unwrap_or_default().to_owned();
        let patience = deadline.saturating_duration_since(Instant::now());
        thread.join_within(patience).is_none().then_some(name)
    });
    left.collect()
}

/// Starts a shard: a thread named after the spec, pinned, its executor ready. `body` runs there in
/// [`Queue::Sockets`]; when its future ends, the shard ends, and tasks still there are dropped.
///
/// Returns once the executor runs. A panic on the shard, in any task, aborts the process: what the
/// shard owned can no longer be trusted, and nobody else could serve it.
pub fn spawn_shard<F, Fut>(spec: ShardSpec, body: F) -> Result<ShardThread<Fut::Output>, ShardError>
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future + 'static,
    Fut::Output: Send + 'static,
{
    let ShardSpec { index, core, name } = spec;
    disk_ring::check()?;
    let limit_bytes = limits::memlock_bytes();
    if limit_bytes < MEMLOCK_BYTES_MIN {
        return Err(ShardError::LockedMemory { limit_bytes });
    }
    let (ready, started) = mpsc::sync_channel(1);
    let (end, ended) = mpsc::channel();
    let thread = thread::Builder::new()
        .name(name)
        .spawn(move || {
            let _end = end;
            let executor = match make_executor(core) {
                Ok(executor) => executor,
                Err(error) => {
                    let _ = ready.send(Err(error.to_string()));
                    return None;
                }
            };
            let abort = AbortOnUnwind;
            let output = executor.run(async move {
                let queues = Queues::create();
                QUEUES.set(Some(queues));
                Timer::new(Duration::from_micros(1)).await;
                spawn(Queue::Sockets, turn::drive());
                let _ = ready.send(Ok(()));
                let body = async move { body().await };
                let body = glommio::spawn_local_into(body, queues.handle(Queue::Sockets));
                let output = body.expect("the queue was made above").await;
                Tasks::end().await;
                output
            });
            mem::forget(abort);
            Some(output)
        })
        .map_err(|source| ShardError::Thread { index, source })?;
    match started.recv() {
        Ok(Ok(())) => Ok(ShardThread { thread, ended: Mutex::new(ended) }),
        Ok(Err(reason)) => Err(ShardError::Executor { index, core, reason }),
        Err(mpsc::RecvError) => unreachable!("the thread answers or the process aborts"),
    }
}

/// What to do where the executor was refused something: the first thing it does is to be pinned.
fn if_refused(reason: &str) -> &'static str {
    if reason.to_ascii_lowercase().contains("permission denied") {
        "; it may not be pinned: allow sched_setaffinity in the container's seccomp profile or in \
         SystemCallFilter= of the systemd unit"
    } else {
        ""
    }
}

fn on_core(core: Option<usize>) -> String {
    core.map(|core| format!(" on CPU {core}")).unwrap_or_default()
}

fn make_executor(core: Option<usize>) -> Result<LocalExecutor, GlommioError<()>> {
    let placement = core.map_or(Placement::Unbound, Placement::Fixed);
    LocalExecutorBuilder::new(placement)
        .io_memory(IO_MEMORY_BYTES)
        .ring_depth(RING_DEPTH)
        .preempt_timer(PREEMPT_NEVER)
        .make()
}

/// Aborts when dropped: reached only by unwinding.
struct AbortOnUnwind;

impl Drop for AbortOnUnwind {
    fn drop(&mut self) {
        tracing::error!("a shard panicked: the process ends here");
        process::abort();
    }
}

thread_local! {
    static QUEUES: Cell<Option<Queues>> = const { Cell::new(None) };
}

#[derive(Clone, Copy)]
struct Queues([TaskQueueHandle; 4]);

impl Queues {
    fn create() -> Self {
        Self(Queue::ALL.map(|queue| {
            let (name, shares) = queue.plan();
            let latency = Latency::Matters(PREEMPT_NEVER);
            glommio::executor().create_task_queue(Shares::Static(shares), latency, name)
        }))
    }

    fn handle(self, queue: Queue) -> TaskQueueHandle {
        self.0[queue as usize]
    }
}

/// Starts a task on the current shard. For tasks that live long: each start takes a process-wide
/// lock and allocates.
///
/// # Panics
///
/// When the calling thread is not a shard.
pub fn spawn(queue: Queue, future: impl Future<Output = ()> + 'static) {
    #[cfg(any(test, feature = "testing"))]
    if let Some(shard) = crate::virtual_shard::current() {
        return shard.spawn(future);
    }
    let queues = QUEUES.get().expect("tasks are spawned on a shard");
    let task = TASKS.with_borrow_mut(|tasks| tasks.add(Box::pin(future)));
    glommio::spawn_local_into(task, queues.handle(queue))
        .expect("the queues live as long as the shard")
        .detach();
}

thread_local! {
    static TASKS: RefCell<Tasks> = const { RefCell::new(Tasks { slots: Vec::new(), free: Vec::new() }) };
}

type TaskBody = Rc<RefCell<Option<Pin<Box<dyn Future<Output = ()>>>>>>;

/// The shard's tasks, so that the last act of the shard can be to drop them.
#[derive(Default)]
struct Tasks {
    slots: Vec<Option<TaskBody>>,
    free: Vec<usize>,
}

impl Tasks {
    fn add(&mut self, future: Pin<Box<dyn Future<Output = ()>>>) -> Task {
        let body = Rc::new(RefCell::new(Some(future)));
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[slot] = Some(Rc::clone(&body));
        Task { body, slot }
    }

    /// Drops every task but the running one, then lets the reactor close what they held open.
    async fn end() {
        // A future may spawn others when it is dropped.
        loop {
            let Self { slots, .. } = TASKS.take();
            if slots.is_empty() {
                break;
            }
            for body in slots.into_iter().flatten() {
                let future = body.borrow_mut().take();
                drop(future);
            }
        }
        Timer::new(Duration::from_micros(1)).await;
    }
}

/// What glommio runs: a task that can be ended from outside.
struct Task {
    body: TaskBody,
    slot: usize,
}

impl Future for Task {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut body = self.body.borrow_mut();
        let Some(future) = body.as_mut() else { return Poll::Ready(()) };
        ready!(future.as_mut().poll(cx));
        let finished = body.take();
        drop(body);
        drop(finished);
        TASKS.with_borrow_mut(|tasks| {
            if let Some(slot) = tasks.slots.get_mut(self.slot) {
                *slot = None;
                tasks.free.push(self.slot);
            }
        });
        Poll::Ready(())
    }
}

/// Lets others run first: the queue with the best claim, and the reactor if the turn is over.
pub async fn yield_now() {
    #[cfg(any(test, feature = "testing"))]
    if crate::virtual_shard::is_here() {
        return VirtualShard::yield_now().await;
    }
    if turn::is_over() {
        turn::lasting().await;
    } else {
        glommio::executor().yield_task_queue_now().await;
    }
}

/// Whether the turn of 200 us is over. A loop that may run long without awaiting anything asks
/// between items, or between handfuls of them (one clock reading, 25 ns), and yields.
#[inline]
pub fn need_preempt() -> bool {
    turn::is_over()
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::sync::Arc;

    use super::*;
    use crate::clock::Clock;
    use crate::event::Event;

    fn spec(core: Option<usize>) -> ShardSpec {
        ShardSpec { index: 0, core, name: "shard-0".into() }
    }

    #[test]
    fn a_shard_runs_its_body_on_a_named_thread_and_gives_back_its_result() {
        let shard = spawn_shard(spec(Some(0)), || async {
            let (send, receive) = std::sync::mpsc::channel();
            for queue in Queue::ALL {
                let send = send.clone();
                spawn(queue, async move { send.send(queue).unwrap() });
            }
            drop(send);
            let mut ran = Vec::new();
            while ran.len() < Queue::ALL.len() {
                yield_now().await;
                ran.extend(receive.try_iter());
            }
            (thread::current().name().map(str::to_owned), ran.len())
        });
        assert_eq!(shard.unwrap().join(), (Some("shard-0".into()), 4));
    }

    #[test]
    fn tasks_that_keep_each_other_busy_starve_neither_timers_nor_other_queues() {
        let shard = spawn_shard(spec(None), || async {
            let (here, there) = (Event::new(), Event::new());
            for (wait, set) in [(here.clone(), there.clone()), (there, here.clone())] {
                spawn(Queue::Work, async move {
                    loop {
                        wait.wait().await;
                        set.set();
                    }
                });
            }
            spawn(Queue::Disk, async {
                loop {
                    yield_now().await;
                }
            });
            here.set();
            let begin = Clock::real().now();
            for _ in 0..10 {
                Event::new().wait_until(Clock::real().now() + 1000).await;
            }
            Clock::real().now() - begin
        });
        let took_us = shard.unwrap().join();
        assert!((10_000..1_000_000).contains(&took_us), "{took_us}");
    }

    #[test]
    fn what_tasks_own_is_dropped_when_the_shard_ends() {
        let owned = Arc::new(());
        let theirs = Arc::clone(&owned);
        let shard = spawn_shard(spec(None), || async move {
            for queue in Queue::ALL {
                let theirs = Arc::clone(&theirs);
                spawn(queue, async move {
                    Event::new().wait().await;
                    drop(theirs);
                });
            }
            yield_now().await;
        });
        shard.unwrap().join();
        assert_eq!(Arc::strong_count(&owned), 1);
    }

    #[test]
    fn a_shard_whose_tasks_are_slow_to_drop_is_left_after_a_while() {
        struct Slow(mpsc::Receiver<()>);
        impl Drop for Slow {
            fn drop(&mut self) {
                let _ = self.0.recv();
            }
        }
        let start = || {
            let (release, held) = mpsc::channel();
            let shard = spawn_shard(spec(None), || async move {
                let slow = Slow(held);
                spawn(Queue::Work, async move {
                    Event::new().wait().await;
                    drop(slow);
                });
                7
            });
            (release, shard.unwrap())
        };
        let (release, shard) = start();
        assert_eq!(shard.join_within(Duration::from_millis(20)), None);
        drop(release);
        let (release, shard) = start();
        drop(release);
        assert_eq!(shard.join_within(Duration::from_secs(20)), Some(7));
    }

    /// Runs itself in a child process, once per place a panic can come from.
    #[test]
    fn a_panic_on_a_shard_aborts_the_process() {
        const CHILD: &str = "LONGSHIP_TEST_PANIC_IN";
        if let Ok(place) = std::env::var(CHILD) {
            let shard = spawn_shard(spec(None), move || async move {
                match Queue::ALL.into_iter().find(|queue| queue.plan().0 == place) {
                    None => panic!("in the body"),
                    Some(queue) => spawn(queue, async { panic!("in a task") }),
                }
                Event::new().wait().await;
            });
            shard.unwrap().join();
            return;
        }
        for place in ["body", "sockets", "work"] {
            let child = process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "shard::tests::a_panic_on_a_shard_aborts_the_process"])
                .env(CHILD, place)
                .output()
                .unwrap();
            assert_eq!(child.status.signal(), Some(libc::SIGABRT), "{place}: {child:?}");
        }
    }

    #[test]
    fn a_core_that_does_not_exist_is_an_error_that_names_it() {
        let error = spawn_shard(spec(Some(100_000)), || async {}).unwrap_err();
        assert!(error.to_string().contains("100000"), "{error}");
    }
}
