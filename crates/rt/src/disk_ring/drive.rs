//! The driver: the shard's task that keeps its disk ring moving beside glommio's own rings.
//!
//! While completions come it polls, giving every other task a turn between passes. When a pass
//! finds nothing it first spins for a bounded time (a wake-up through the executor costs as much as
//! a fast read), still giving turns; then it has the kernel count completions on an eventfd and
//! awaits that like any other event of the executor. With nothing in flight it waits for work.
#![expect(unsafe_code, reason = "asks getrusage")]

use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::sync::atomic::{Ordering, fence};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::DiskRing;
use crate::eventfd::Ear;
use crate::{shard, turn};

/// Longest spin for a completion. Sleeping costs 30-50 us of CPU and as much time; a device with 32
/// reads in flight answers within this.
const SPIN: Duration = Duration::from_micros(400);

/// While the driver only spins, the reactor makes a pass this often, for the sake of sockets.
const IDLE_TURN_US: u64 = 30;

/// Looks at the ring between two yields.
const LOOKS: u32 = 16;

impl DiskRing {
    /// Drives the ring until [`DiskRing::stop`]. One task per ring, spawned at start into the
    /// queue for disk work.
    ///
    /// # Panics
    ///
    /// Off the shards, or when the process has no descriptor left.
    pub async fn drive(self) {
        #[cfg(any(test, feature = "testing"))]
        if let Some(shard) = crate::virtual_shard::current() {
            return self.drive_virtually(shard).await;
        }
        let ear = self.0.ops.borrow().event_fd().listen();
        let mut ear = ear.expect("a ring's eventfd can be duplicated");
        let mut spins = SpinRecord::default();
        loop {
            if self.turn() > 0 {
                shard::yield_now().await;
            } else if self.in_flight() == 0 {
                if self.0.stopping.get() {
                    break;
                }
                poll_fn(|cx| self.poll_work(cx)).await;
            } else if !(spins.is_worth_it() && spins.note(self.spin().await)) {
                self.sleep(&mut ear).await;
            }
        }
    }

    /// Drives the ring where devices answer in virtual time.
    #[cfg(any(test, feature = "testing"))]
    async fn drive_virtually(self, shard: std::rc::Rc<crate::virtual_shard::VirtualShard>) {
        loop {
            if self.turn() > 0 {
                shard::yield_now().await;
            } else if self.in_flight() > 0 {
                let mut has_slept = false;
                poll_fn(|cx| {
                    if std::mem::replace(&mut has_slept, true) {
                        return Poll::Ready(());
                    }
                    self.0.sleeper.set(Some(cx.waker().clone()));
                    if let Some(due_us) = self.0.ops.borrow().next_due_us() {
                        shard.wake_at(due_us, cx.waker());
                    }
                    Poll::Pending
                })
                .await;
            } else if self.0.stopping.get() {
                break;
            } else {
                poll_fn(|cx| self.poll_work(cx)).await;
            }
        }
    }

    /// Looks for completions, or operations to submit, for a bounded time in which others run.
    async fn spin(&self) -> bool {
        let begin = Instant::now();
        while begin.elapsed() < SPIN {
            turn::lasting_at_most(IDLE_TURN_US).await;
            shard::yield_now().await;
            for _ in 0..LOOKS {
                if self.has_news() {
                    return true;
                }
                std::hint::spin_loop();
            }
        }
        false
    }

    /// Waits for a completion, an operation to submit, or the end.
    async fn sleep(&self, ear: &mut Ear) {
        self.0.ops.borrow_mut().notify(true);
        // Between the store of "notify" and the look for completions: either the kernel sees the
        // one, or we see the other (it does the same in the opposite order).
        fence(Ordering::SeqCst);
        poll_fn(|cx| {
            if self.has_news() {
                return Poll::Ready(());
            }
            self.0.sleeper.set(Some(cx.waker().clone()));
            ear.poll_rung(cx)
        })
        .await;
        self.0.ops.borrow_mut().notify(false);
    }

    fn has_news(&self) -> bool {
        let mut ops = self.0.ops.borrow_mut();
        ops.has_submissions() || ops.has_completions()
    }

    fn poll_work(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.in_flight() > 0 || self.0.stopping.get() {
            return Poll::Ready(());
        }
        self.0.sleeper.set(Some(cx.waker().clone()));
        Poll::Pending
    }
}

/// Whether to spin: not when it has not paid of late (a slow device, a long flush), and not while
/// other threads want the core.
#[derive(Default)]
struct SpinRecord {
    credit: u8,
    skipped: u8,
    preempted: i64,
}

impl SpinRecord {
    const CREDIT_MAX: u8 = 8;
    /// Without credit, one wait in this many is tried.
    const SKIPS: u8 = 32;

    fn is_worth_it(&mut self) -> bool {
        let preempted = preempted();
        if std::mem::replace(&mut self.preempted, preempted) != preempted {
            self.credit = 0;
        }
        if self.credit == 0 && self.skipped < Self::SKIPS {
            self.skipped += 1;
            return false;
        }
        self.skipped = 0;
        true
    }

    fn note(&mut self, found: bool) -> bool {
        self.credit = match found {
            true => (self.credit + 1).min(Self::CREDIT_MAX),
            false => self.credit.saturating_sub(2),
        };
        found
    }
}

/// How often this thread lost its core to another so far.
fn preempted() -> i64 {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the kernel writes one rusage to `usage`; on failure it stays zeroed.
    unsafe { libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()) };
    // SAFETY: all-zero bytes are a valid rusage, and the kernel writes valid ones.
    unsafe { usage.assume_init() }.ru_nivcsw
}
