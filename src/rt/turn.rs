//! How long tasks may run before the reactor looks at the outside again.
//!
//! glommio would end a turn with a timer of its own. That timer must never fire: when it does so
//! between the reactor's pass and the first task, the executor forgets the tasks that are ready and
//! goes to sleep with them (glommio 0.9.0, `run_task_queues` returns "nothing ran" and `park`
//! follows; with a timer of 200 us, two shards that only exchange messages stop within a second
//! here). So the timer is out of reach, and turns end by agreement: whatever in `rt` a task can
//! await asks here whether the turn is over before it answers at once, and if so answers only after
//! the reactor's next pass. A task that loops without awaiting asks with `shard::need_preempt`.
//!
//! A turn begins when the reactor wakes somebody who waited on the outside. Events alone, tasks
//! that keep each other busy, do not begin one.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use glommio::timer::Timer;

use super::clock::Clock;

/// A turn is over after this long. A pass of the reactor costs 5 to 10 us here.
const TURN_US: u64 = 200;

thread_local! {
    static TURN: Turn = const { Turn::new() };
}

struct Turn {
    /// `u64::MAX` off the shards, where nothing turns.
    ends_us: Cell<u64>,
    /// Tasks that wait for the reactor's next pass.
    waiters: RefCell<Vec<Waker>>,
    /// The driver, when it has nothing to do.
    driver: RefCell<Option<Waker>>,
}

impl Turn {
    const fn new() -> Self {
        Self {
            ends_us: Cell::new(u64::MAX),
            waiters: RefCell::new(Vec::new()),
            driver: RefCell::new(None),
        }
    }
}

/// Says that the reactor has just made a pass.
pub(super) fn began() {
    TURN.with(|turn| {
        if turn.ends_us.get() != u64::MAX {
            turn.ends_us.set(Clock::real().now() + TURN_US);
        }
    });
}

/// Whether it is time to let the reactor make a pass. One clock reading.
#[inline]
pub(super) fn is_over() -> bool {
    TURN.with(|turn| Clock::real().now() >= turn.ends_us.get())
}

/// Ready while the turn lasts; otherwise it wakes the task after the reactor's next pass.
#[inline]
pub(super) fn poll_lasting(cx: &mut Context<'_>) -> Poll<()> {
    if is_over() {
        TURN.with(|turn| turn.wait(cx));
        return Poll::Pending;
    }
    Poll::Ready(())
}

impl Turn {
    #[cold]
    fn wait(&self, cx: &mut Context<'_>) {
        self.waiters.borrow_mut().push(cx.waker().clone());
        let driver = self.driver.take();
        if let Some(driver) = driver {
            driver.wake();
        }
    }
}

/// Returns at once while the turn lasts, otherwise after the reactor's next pass.
pub(super) async fn lasting() {
    poll_fn(poll_lasting).await;
}

/// For a task that only passes the time: like [`lasting`], but lets the reactor make a pass as soon
/// as the last one is `us` old.
pub(super) async fn lasting_at_most(us: u64) {
    TURN.with(|turn| {
        let ends_us = turn.ends_us.get();
        if ends_us != u64::MAX && Clock::real().now() + TURN_US >= ends_us + us {
            turn.ends_us.set(0);
        }
    });
    lasting().await;
}

/// Turns the reactor for those who wait; one such task runs on every shard, for ever.
pub(super) async fn drive() {
    let mut timer = Timer::new(Duration::ZERO);
    let mut woken = Vec::new();
    TURN.with(|turn| turn.ends_us.set(0));
    began();
    loop {
        poll_fn(|cx| {
            TURN.with(|turn| {
                if turn.waiters.borrow().is_empty() {
                    *turn.driver.borrow_mut() = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                Poll::Ready(())
            })
        })
        .await;
        // A timer that is due fires in the reactor's next pass. It takes a detour to have one:
        // polled when already due it would be ready at once, with no pass made.
        timer.reset(Duration::from_secs(1));
        let mut armed = false;
        poll_fn(|cx| {
            let fired = Pin::new(&mut timer).poll(cx);
            if !armed {
                armed = true;
                timer.reset(Duration::ZERO);
            }
            fired
        })
        .await;
        began();
        TURN.with(|turn| woken.append(&mut turn.waiters.borrow_mut()));
        woken.drain(..).for_each(Waker::wake);
    }
}
