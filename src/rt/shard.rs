//! A shard's thread: one executor, pinned to one core, with four task queues. glommio behind a
//! small face.
//!
//! What glommio needs to be told, and where it is done here (numbers are issues of
//! DataDog/glommio; "read" means read in its source, 0.9.0):
//!
//! - Its reactor (sockets, timers) turns only when every queue is empty or the preempt timer fires,
//!   100 ms by default (read). A task that keeps rescheduling itself would starve sockets for that
//!   long. Hence [`TURN`] for the executor and for each queue that waits on the outside.
//! - A wake from another thread into a queue without a latency waits for that timer too (#434), so
//!   mailbox readers live in [`Queue::Sockets`].
//! - The first sleep of a process takes 30-50 ms, because it registers a memory barrier with the
//!   kernel (#652). A shard sleeps once before its body runs.
//! - Each spawn takes a process-wide lock: spawn long-lived tasks, never one per record.
//! - It registers its own I/O memory on three rings against the memlock limit: kept to the smallest.

use std::cell::Cell;
use std::future::Future;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::{io, mem, process};

use glommio::timer::Timer;
use glommio::{
    GlommioError, Latency, LocalExecutor, LocalExecutorBuilder, Placement, Shares, TaskQueueHandle,
};

/// Longest time the queues run before the reactor looks at sockets, timers and wakes again.
/// At 100 us the executor live-locked here; above it, sockets wait for nothing.
const TURN: Duration = Duration::from_micros(200);

/// Entries in each of glommio's rings; also the number of completions that end a turn early.
const RING_DEPTH: usize = 512;

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

/// Where a task waits its turn. Each queue gets time in proportion to its shares, counted only
/// against queues that have work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// Client and destination connections, accepts, mailbox readers: short and urgent.
    Sockets,
    /// The disk ring's driver and what waits on it.
    Disk,
    /// DC tasks and service tasks: as much of the core as serving clients gets.
    Ship,
    /// Checkpoints, expiry, defragmentation, statistics: a thirtieth of a busy core.
    Background,
}

impl Queue {
    const ALL: [Self; 4] = [Self::Sockets, Self::Disk, Self::Ship, Self::Background];

    /// Name, shares, and whether its tasks end the turn of others when they become ready.
    const fn plan(self) -> (&'static str, usize, Latency) {
        match self {
            Self::Sockets => ("sockets", 1000, Latency::Matters(TURN)),
            Self::Disk => ("disk", 1000, Latency::Matters(TURN)),
            Self::Ship => ("ship", 1000, Latency::NotImportant),
            Self::Background => ("background", 100, Latency::NotImportant),
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
    /// The executor could not be made: the core does not exist or is not allowed, io_uring is
    /// missing or forbidden, or the memlock limit is under 512 KiB.
    #[error("cannot start the executor of shard {index} on core {core:?}: {reason}")]
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
    let (ready, started) = mpsc::sync_channel(1);
    let thread = thread::Builder::new()
        .name(name)
        .spawn(move || {
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
                let sockets = queues.handle(Queue::Sockets);
                QUEUES.with(|cell| cell.set(Some(queues)));
                Timer::new(Duration::from_micros(1)).await;
                let _ = ready.send(Ok(()));
                let body = glommio::spawn_local_into(async move { body().await }, sockets);
                body.expect("the queue was made above").await
            });
            mem::forget(abort);
            Some(output)
        })
        .map_err(|source| ShardError::Thread { index, source })?;
    match started.recv() {
        Ok(Ok(())) => Ok(ShardThread { thread }),
        Ok(Err(reason)) => Err(ShardError::Executor { index, core, reason }),
        Err(mpsc::RecvError) => unreachable!("the thread answers or the process aborts"),
    }
}

fn make_executor(core: Option<usize>) -> Result<LocalExecutor, GlommioError<()>> {
    let placement = core.map_or(Placement::Unbound, Placement::Fixed);
    LocalExecutorBuilder::new(placement)
        .io_memory(IO_MEMORY_BYTES)
        .ring_depth(RING_DEPTH)
        .preempt_timer(TURN)
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
            let (name, shares, latency) = queue.plan();
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
    let queues = QUEUES.get().expect("tasks are spawned on a shard");
    glommio::spawn_local_into(future, queues.handle(queue))
        .expect("the queues live as long as the shard")
        .detach();
}

/// Lets every other ready task of this queue run first, and the other queues when this one's time
/// is up. The reactor turns once per turn of 200 us, not once per yield.
pub async fn yield_now() {
    futures_lite::future::yield_now().await;
}

/// Whether the turn is over: others wait, or the reactor has something. A loop that may run long
/// asks between items (two loads, no system call) and yields.
#[inline]
pub fn need_preempt() -> bool {
    glommio::executor().need_preempt()
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_core_that_does_not_exist_is_an_error_that_names_it() {
        let error = spawn_shard(spec(Some(100_000)), || async {}).unwrap_err();
        assert!(error.to_string().contains("100000"), "{error}");
    }
}
