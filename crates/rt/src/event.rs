//! A wake-up between tasks of one shard: set by one, awaited by another, with a deadline if wanted.
//!
//! An event remembers that it was set until a wait takes it, so setting before waiting is not lost
//! and setting twice wakes once. It never leaves its shard; threads wake a shard through a mailbox.
//! Setting costs no system call.
//!
//! A wait with a deadline needs a timer. Inserting one costs about as much as handling a record, so
//! the timer is kept: one that is already due at or before the wanted deadline is left alone, and
//! whoever it wakes early goes on waiting.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use glommio::timer::Timer;

use super::clock::Clock;
use super::turn::{self, Lasting};

/// An auto-reset event with one waiter. Clones are the same event.
#[derive(Clone, Debug, Default)]
pub struct Event(Rc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    set: Cell<bool>,
    waiter: RefCell<Option<Waker>>,
    alarm: RefCell<Option<Alarm>>,
}

/// A timer in the reactor, and whom it will wake when.
#[derive(Debug)]
struct Alarm {
    timer: Timer,
    due_us: u64,
    waiter: Waker,
}

impl Event {
    /// An event that is not set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets it and wakes the waiter. A set event stays set.
    #[inline]
    pub fn set(&self) {
        self.0.set.set(true);
        let waiter = self.0.waiter.take();
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }

    /// Whether the next wait would return at once.
    #[inline]
    pub fn is_set(&self) -> bool {
        self.0.set.get()
    }

    /// Waits until the event is set, and resets it. One task waits at a time.
    pub fn wait(&self) -> impl Future<Output = ()> {
        let wait = self.wait_until(u64::MAX);
        async move {
            wait.await;
        }
    }

    /// Waits until the event is set (resets it, gives true) or until the deadline (gives false), in
    /// microseconds of [`Clock::real`]. `u64::MAX` is never.
    pub fn wait_until(&self, deadline_us: u64) -> WaitUntil<'_> {
        WaitUntil { event: &self.0, deadline_us, lasting: turn::lasting() }
    }
}

/// Future of [`Event::wait_until`].
#[derive(Debug)]
#[must_use = "an event is awaited, not only asked for"]
pub struct WaitUntil<'a> {
    event: &'a Inner,
    deadline_us: u64,
    lasting: Lasting,
}

impl Future for WaitUntil<'_> {
    type Output = bool;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<bool> {
        if self.event.set.get() {
            ready!(Pin::new(&mut self.lasting).poll(cx));
            self.event.set.set(false);
            return Poll::Ready(true);
        }
        if self.deadline_us != u64::MAX {
            let now_us = Clock::real().now();
            if self.deadline_us <= now_us {
                ready!(Pin::new(&mut self.lasting).poll(cx));
                return Poll::Ready(false);
            }
            self.event.ring_by(self.deadline_us, now_us, cx);
        }
        let mut waiter = self.event.waiter.borrow_mut();
        if !waiter.as_ref().is_some_and(|waiter| waiter.will_wake(cx.waker())) {
            *waiter = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for WaitUntil<'_> {
    fn drop(&mut self) {
        self.event.waiter.take();
    }
}

impl Inner {
    /// Makes sure that the task is woken at `deadline_us` or earlier.
    fn ring_by(&self, deadline_us: u64, now_us: u64, cx: &mut Context<'_>) {
        #[cfg(any(test, feature = "testing"))]
        if let Some(shard) = crate::virtual_shard::current() {
            return shard.wake_at(deadline_us, cx.waker());
        }
        let mut alarm = self.alarm.borrow_mut();
        if let Some(alarm) = &*alarm
            && alarm.due_us > now_us
            && alarm.due_us <= deadline_us
            && alarm.waiter.will_wake(cx.waker())
        {
            return;
        }
        let wait = Duration::from_micros(deadline_us - now_us);
        let timer = match alarm.take() {
            Some(Alarm { mut timer, .. }) => {
                timer.reset(wait);
                timer
            }
            None => Timer::new(wait),
        };
        let waiter = cx.waker().clone();
        let alarm = alarm.insert(Alarm { timer, due_us: deadline_us, waiter });
        if Pin::new(&mut alarm.timer).poll(cx).is_ready() {
            // It passed while we looked: come again and see it.
            cx.waker().wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::{Queue, ShardSpec, spawn, spawn_shard};

    fn on_a_shard<F: Future<Output = ()> + 'static>(body: impl FnOnce() -> F + Send + 'static) {
        let spec = ShardSpec { index: 0, core: None, name: "shard-0".into() };
        spawn_shard(spec, body).unwrap().join();
    }

    #[test]
    fn events_wake_once_per_set_and_deadlines_end_waits() {
        on_a_shard(|| async {
            let clock = Clock::real();
            let (ping, pong) = (Event::new(), Event::new());

            ping.set();
            ping.set();
            assert!(ping.is_set());
            ping.wait().await;
            assert!(!ping.is_set(), "a wait resets");

            let (theirs, ours) = (ping.clone(), pong.clone());
            spawn(Queue::Work, async move {
                loop {
                    theirs.wait().await;
                    ours.set();
                }
            });
            for _ in 0..1000 {
                ping.set();
                pong.wait().await;
            }

            let begin = clock.now();
            assert!(!pong.wait_until(begin + 2000).await, "nobody sets it");
            assert!(clock.now() >= begin + 2000);
            assert!(!pong.wait_until(begin).await, "a past deadline ends at once");

            ping.set();
            assert!(pong.wait_until(clock.now() + 10_000_000).await);

            // The alarm of ten seconds is still armed; an earlier deadline replaces it, and a later
            // one survives being woken by an earlier alarm.
            let begin = clock.now();
            assert!(!pong.wait_until(begin + 1000).await);
            assert!(clock.now() < begin + 5_000_000);
            ping.set();
            assert!(pong.wait_until(clock.now() + 1000).await);
            let begin = clock.now();
            assert!(!pong.wait_until(begin + 5000).await);
            assert!(clock.now() >= begin + 5000);
        });
    }
}
