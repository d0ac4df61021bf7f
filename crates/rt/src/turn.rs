//! How long tasks may run before the reactor looks at the outside again.
//!
//! glommio would end a turn with a timer of its own. That timer must never fire. When it fires
//! between the reactor's pass and the first task, the executor forgets the tasks that are ready and
//! goes to sleep (glommio 0.9.0: `run_task_queues` returns "nothing ran", and `park` follows). With
//! a timer of 200 us, two shards that only exchange messages stop within a second here. So the
//! timer is set out of reach, and turns end by agreement. Whatever in `rt` a task can await, and
//! could answer at once, first asks here whether the turn is over. If it is, the answer comes only
//! after the reactor's next pass. A task that loops without awaiting asks with
//! `shard::need_preempt`.
//!
//! A turn begins with a pass of the reactor, whatever caused the pass. glommio adds to its count of
//! running time after each pass, so a task that finds a turn over first looks whether that count
//! has grown. Tasks that only wake each other make no pass, and begin no turn.
//!
//! A task that has waited for a pass goes on after it, even if the new turn is over by then. It
//! takes longer than a turn to wake a thousand tasks: they would otherwise only wake each other.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use glommio::timer::Timer;

use super::clock::Clock;

/// A turn is over after this long. A pass of the reactor costs 5 to 10 us here.
const TURN_US: u64 = 200;

/// Tasks woken between two looks at the clock.
const WOKEN_AT_ONCE: usize = 16;

thread_local! {
    static TURN: Turn = const { Turn::new() };
}

struct Turn {
    /// When the last pass was noticed; `u64::MAX` off the shards, where nothing turns.
    began_us: Cell<u64>,
    /// Passes noticed so far.
    passes: Cell<u64>,
    /// Tasks that wait for the reactor's next pass, longest first.
    waiters: RefCell<VecDeque<Waker>>,
    /// The driver, when it has nothing to do.
    driver: Cell<Option<Waker>>,
}

impl Turn {
    const fn new() -> Self {
        Self {
            began_us: Cell::new(u64::MAX),
            passes: Cell::new(0),
            waiters: RefCell::new(VecDeque::new()),
            driver: Cell::new(None),
        }
    }

    /// Whether the reactor has made no pass in the last `us`.
    #[inline]
    fn is_older_than(&self, us: u64) -> bool {
        let now_us = Clock::real().now();
        now_us.saturating_sub(self.began_us.get()) >= us && !self.has_passed(now_us)
    }

    /// Notices a pass made since it was last asked.
    #[cold]
    fn has_passed(&self, now_us: u64) -> bool {
        let passed = !glommio::executor().executor_stats().total_runtime().is_zero();
        if passed {
            self.began_us.set(now_us);
            self.passes.set(self.passes.get() + 1);
        }
        passed
    }

    #[cold]
    fn wait(&self, cx: &mut Context<'_>) {
        self.waiters.borrow_mut().push_back(cx.waker().clone());
        if let Some(driver) = self.driver.take() {
            driver.wake();
        }
    }
}

/// Whether it is time to let the reactor make a pass. One clock reading.
#[inline]
pub(super) fn is_over() -> bool {
    TURN.with(|turn| turn.is_older_than(TURN_US))
}

/// Returns at once while the turn lasts, otherwise after the reactor's next pass.
pub(super) fn lasting() -> Lasting {
    Lasting::default()
}

/// For a task that only passes the time: like [`lasting`], but lets the reactor make a pass as soon
/// as the last one is `us` old.
pub(super) fn lasting_at_most(us: u64) -> Lasting {
    TURN.with(|turn| {
        if turn.is_older_than(us) {
            turn.began_us.set(0);
        }
    });
    lasting()
}

/// Future of [`lasting`].
#[derive(Debug, Default)]
#[must_use = "it is awaited or polled"]
pub(super) struct Lasting {
    /// Passes there had been when it began to wait.
    since: Option<u64>,
}

impl Future for Lasting {
    type Output = ();

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        TURN.with(|turn| {
            let is_due = match self.since {
                None => !turn.is_older_than(TURN_US),
                Some(since) => turn.passes.get() != since,
            };
            if is_due {
                return Poll::Ready(());
            }
            self.since = Some(turn.passes.get());
            turn.wait(cx);
            Poll::Pending
        })
    }
}

/// Turns the reactor for those who wait; one such task runs on every shard, for ever.
pub(super) async fn drive() {
    let mut timer = Timer::new(Duration::ZERO);
    let mut woken = Vec::with_capacity(WOKEN_AT_ONCE);
    TURN.with(|turn| turn.began_us.set(0));
    loop {
        poll_fn(|cx| TURN.with(|turn| turn.poll_waiters(cx))).await;
        pass(&mut timer).await;
        let mut due = TURN.with(|turn| {
            turn.has_passed(Clock::real().now());
            turn.waiters.borrow().len()
        });
        loop {
            let some = due.min(WOKEN_AT_ONCE);
            due -= some;
            TURN.with(|turn| woken.extend(turn.waiters.borrow_mut().drain(..some)));
            woken.drain(..).for_each(Waker::wake);
            if due == 0 {
                break;
            }
            glommio::executor().yield_task_queue_now().await;
            if is_over() {
                break;
            }
        }
    }
}

/// Has the reactor make a pass.
async fn pass(timer: &mut Timer) {
    // A timer that is due fires in the reactor's next pass. It takes a detour to have one: polled
    // when already due it would be ready at once, with no pass made.
    timer.reset(Duration::from_secs(1));
    let mut armed = false;
    poll_fn(|cx| {
        let fired = Pin::new(&mut *timer).poll(cx);
        if !armed {
            armed = true;
            timer.reset(Duration::ZERO);
        }
        fired
    })
    .await;
}

impl Turn {
    fn poll_waiters(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.waiters.borrow().is_empty() {
            self.driver.set(Some(cx.waker().clone()));
            return Poll::Pending;
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::event::Event;
    use crate::shard::{Queue, ShardSpec, spawn, spawn_shard};

    fn on_a_shard<F: Future<Output = ()> + 'static>(body: impl FnOnce() -> F + Send + 'static) {
        let spec = ShardSpec { index: 0, core: None, name: "shard-0".into() };
        spawn_shard(spec, body).unwrap().join();
    }

    fn outlast_the_turn() {
        while !is_over() {
            std::hint::spin_loop();
        }
    }

    #[test]
    fn thousands_that_wait_for_the_same_pass_all_go_on() {
        const TASKS: usize = 10_000;
        const ROUNDS: usize = 3;
        on_a_shard(|| async {
            let left = Rc::new(Cell::new(TASKS));
            let all_done = Event::new();
            for _ in 0..TASKS {
                let (left, all_done) = (Rc::clone(&left), all_done.clone());
                spawn(Queue::Work, async move {
                    for _ in 0..ROUNDS {
                        lasting().await;
                    }
                    left.set(left.get() - 1);
                    if left.get() == 0 {
                        all_done.set();
                    }
                });
            }
            outlast_the_turn();
            all_done.wait().await;
        });
    }

    #[test]
    fn a_pass_nobody_asked_for_begins_a_turn() {
        on_a_shard(|| async {
            outlast_the_turn();
            assert!(is_over(), "and stays so without a pass");
            Timer::new(Duration::from_micros(TURN_US)).await;
            assert!(!is_over());
            outlast_the_turn();
            lasting().await;
            assert!(!is_over());
        });
    }
}
