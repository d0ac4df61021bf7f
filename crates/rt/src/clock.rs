//! Time as the shards see it: a monotonic count of microseconds and the wall clock in
//! milliseconds, real or set by hand.
//!
//! Nothing below the loops reads a clock: a loop reads it once per turn and hands `now` down. That
//! keeps the system call off the record path and lets a test or the simulator own time.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Where a loop takes its time from. Clones read the same time.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    Real,
    Manual(Arc<ManualTime>),
}

#[derive(Debug)]
struct ManualTime {
    now_us: AtomicU64,
    wall_ms: AtomicU64,
}

impl Clock {
    /// The machine's clock.
    pub const fn real() -> Self {
        Self(Source::Real)
    }

    /// Microseconds since the process first asked. Never goes back; about 25 ns when real.
    #[inline]
    pub fn now(&self) -> u64 {
        match &self.0 {
            Source::Real => real_now_us(),
            Source::Manual(time) => time.now_us.load(Ordering::Relaxed),
        }
    }

    /// Unix milliseconds. May step either way when somebody sets the machine's clock.
    #[inline]
    pub fn wall_ms(&self) -> u64 {
        match &self.0 {
            Source::Real => real_wall_ms(),
            Source::Manual(time) => time.wall_ms.load(Ordering::Relaxed),
        }
    }
}

fn real_now_us() -> u64 {
    #[cfg(any(test, feature = "testing"))]
    if let Some(now_us) = crate::virtual_shard::now_us() {
        return now_us;
    }
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_micros() as u64
}

fn real_wall_ms() -> u64 {
    #[cfg(any(test, feature = "testing"))]
    if let Some(wall_ms) = crate::virtual_shard::wall_ms() {
        return wall_ms;
    }
    // A machine set to before 1970 reads as 1970.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// Names this run of the system, whose end may have been a power failure; empty when it does not tell.
pub fn boot_id() -> Vec<u8> {
    #[cfg(any(test, feature = "testing"))]
    if let Some(shard) = crate::virtual_shard::current() {
        return shard.boot().to_be_bytes().to_vec();
    }
    fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default()
}

/// Moves a manual clock. Readings and moves may come from any thread.
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<ManualTime>);

impl ManualClock {
    /// A clock that stands still until told otherwise.
    pub fn new(now_us: u64, wall_ms: u64) -> Self {
        let time = ManualTime { now_us: now_us.into(), wall_ms: wall_ms.into() };
        Self(Arc::new(time))
    }

    /// The reading side.
    pub fn clock(&self) -> Clock {
        Clock(Source::Manual(Arc::clone(&self.0)))
    }

    /// Lets time pass on both scales; the wall clock counts whole milliseconds.
    pub fn advance_us(&self, us: u64) {
        let before = self.0.now_us.fetch_add(us, Ordering::Relaxed);
        let whole_ms = (before + us) / 1000 - before / 1000;
        self.0.wall_ms.fetch_add(whole_ms, Ordering::Relaxed);
    }

    /// Steps the wall clock, forwards or back; monotonic time does not notice.
    pub fn set_wall_ms(&self, wall_ms: u64) {
        self.0.wall_ms.store(wall_ms, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_real_clock_never_goes_back() {
        let clock = Clock::real();
        let readings: Vec<u64> = (0..1000).map(|_| clock.now()).collect();
        assert!(readings.is_sorted());
        assert!(clock.wall_ms() > 1_500_000_000_000);
    }

    #[test]
    fn a_manual_clock_moves_only_by_hand_and_its_wall_clock_may_step_back() {
        let manual = ManualClock::new(500, 10_000);
        let clock = manual.clock();
        assert_eq!((clock.now(), clock.wall_ms()), (500, 10_000));
        manual.advance_us(499);
        assert_eq!((clock.now(), clock.wall_ms()), (999, 10_000));
        manual.advance_us(1);
        assert_eq!((clock.now(), clock.wall_ms()), (1000, 10_001));
        manual.set_wall_ms(3);
        assert_eq!((clock.now(), clock.wall_ms()), (1000, 3));
    }
}
