//! Bounds on the log: how often a line may be written, and the two lines of a state that comes and
//! goes.
//!
//! Whatever a peer, a disk or a client can bring about again and again is logged through one of
//! these. They are written on cold paths only and may be shared between threads, so a `static`
//! serves a whole process and a field serves one DC, node or namespace.

use std::sync::atomic::{AtomicU64, Ordering};

const NEVER: u64 = u64::MAX;

/// Lets a line into the log once a period.
///
/// ```
/// use longship_rt::metrics::LogLimit;
/// static REFUSED: LogLimit = LogLimit::every_s(10);
/// // Where it happens, with the time in microseconds:
/// let now_us = 0;
/// if let Some(held_back) = REFUSED.pass(now_us) {
///     // warn!("refused: ... ({held_back} more since the last line)");
///     assert_eq!(held_back, 0);
/// }
/// ```
#[derive(Debug)]
pub struct LogLimit {
    period_us: u64,
    passed_us: AtomicU64,
    held_back: AtomicU64,
}

impl LogLimit {
    /// One line in so many seconds.
    pub const fn every_s(period_s: u64) -> Self {
        Self {
            period_us: period_s * 1_000_000,
            passed_us: AtomicU64::new(NEVER),
            held_back: AtomicU64::new(0),
        }
    }

    /// Whether to write the line now: with the number of lines held back since the last one.
    /// `now_us` is [`crate::clock::Clock::now`].
    pub fn pass(&self, now_us: u64) -> Option<u64> {
        let passed_us = self.passed_us.load(Ordering::Relaxed);
        let is_due = passed_us == NEVER || now_us.saturating_sub(passed_us) >= self.period_us;
        // Of several threads only the one that moves the time on writes the line.
        let passes = is_due
            && self
                .passed_us
                .compare_exchange(passed_us, now_us, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if !passes {
            self.held_back.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(self.held_back.swap(0, Ordering::Relaxed))
    }
}

/// Lets lines into the log as long as they are few: so many at once, and one more every second.
///
/// For events that each deserve a line, such as those of connections, but that a peer can bring
/// about again and again.
#[derive(Debug)]
pub struct LogBudget {
    lines_max: u64,
    /// When the budget is whole again.
    whole_us: AtomicU64,
    held_back: AtomicU64,
}

impl LogBudget {
    /// So many lines at once.
    pub const fn of_lines(lines_max: u64) -> Self {
        Self { lines_max, whole_us: AtomicU64::new(0), held_back: AtomicU64::new(0) }
    }

    /// Whether to write a line now, see [`LogLimit::pass`].
    pub fn pass(&self, now_us: u64) -> Option<u64> {
        const LINE_US: u64 = 1_000_000;
        let whole_us = self.whole_us.load(Ordering::Relaxed).max(now_us);
        if whole_us - now_us > (self.lines_max - 1) * LINE_US {
            self.held_back.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        self.whole_us.store(whole_us + LINE_US, Ordering::Relaxed);
        Some(self.held_back.swap(0, Ordering::Relaxed))
    }
}

/// A state that operators want to hear of twice: when it begins, and when it has ended.
///
/// It is known by its events (a refused write, a failed lookup). It begins with the first one and
/// ends when none has come for the calm period, so that a state that flickers stays one state.
#[derive(Debug)]
pub struct Alarm {
    calm_us: u64,
    /// When the last event came; [`NEVER`] while the state does not hold.
    last_us: AtomicU64,
}

impl Alarm {
    /// Ends when there was no event for so many seconds.
    pub const fn calm_after_s(calm_s: u64) -> Self {
        Self { calm_us: calm_s * 1_000_000, last_us: AtomicU64::new(NEVER) }
    }

    /// An event. True when it is the first: log that the state has begun.
    pub fn raise(&self, now_us: u64) -> bool {
        self.last_us.swap(now_us.min(NEVER - 1), Ordering::Relaxed) == NEVER
    }

    /// Looks whether the state has ended; to be asked now and then. True once: log that it has.
    pub fn lapse(&self, now_us: u64) -> bool {
        let last_us = self.last_us.load(Ordering::Relaxed);
        let has_ended = last_us != NEVER && now_us.saturating_sub(last_us) >= self.calm_us;
        let end =
            || self.last_us.compare_exchange(last_us, NEVER, Ordering::Relaxed, Ordering::Relaxed);
        has_ended && end().is_ok()
    }

    /// Looks in the same way where the cause can be seen without an event: while it `holds`, so does
    /// the state, if it has begun.
    pub fn look(&self, holds: bool, now_us: u64) -> bool {
        if !holds {
            return self.lapse(now_us);
        }
        let goes_on = |last_us| (last_us != NEVER).then_some(now_us.min(NEVER - 1));
        let _ = self.last_us.fetch_update(Ordering::Relaxed, Ordering::Relaxed, goes_on);
        false
    }

    /// Whether the state holds, as far as it has been looked at.
    pub fn is_raised(&self) -> bool {
        self.last_us.load(Ordering::Relaxed) != NEVER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_period_tells_of_those_held_back() {
        let limit = LogLimit::every_s(10);
        assert_eq!(limit.pass(0), Some(0), "the first is never held back");
        for now_us in [1, 2, 9_999_999] {
            assert_eq!(limit.pass(now_us), None);
        }
        assert_eq!(limit.pass(10_000_000), Some(3));
        assert_eq!(limit.pass(10_000_001), None);
        assert_eq!(limit.pass(90_000_000), Some(1));
    }

    #[test]
    fn many_lines_at_once_use_up_the_budget_and_one_a_second_does_not() {
        let budget = LogBudget::of_lines(3);
        let at = |second: u64| budget.pass(second * 1_000_000);
        assert_eq!([at(1), at(1), at(1), at(1), at(1)], [Some(0), Some(0), Some(0), None, None]);
        assert_eq!([at(2), at(2)], [Some(2), None]);
        assert!((3..100).all(|second| at(second).is_some()));
        assert_eq!([at(200), at(200), at(200), at(200)], [Some(0), Some(0), Some(0), None]);
    }

    #[test]
    fn a_state_is_told_once_when_it_begins_and_once_when_it_has_ended() {
        let alarm = Alarm::calm_after_s(5);
        assert!(!alarm.lapse(0) && !alarm.is_raised());
        assert!(alarm.raise(1_000_000));
        assert!(!alarm.raise(2_000_000) && alarm.is_raised());
        assert!(!alarm.lapse(6_999_999), "counted from the last event");
        assert!(alarm.lapse(7_000_000));
        assert!(!alarm.lapse(8_000_000) && !alarm.is_raised());
        assert!(!alarm.look(true, 8_000_000) && !alarm.is_raised(), "a cause is no event");
        assert!(alarm.raise(8_000_001), "it may begin again");
        assert!(!alarm.look(true, 20_000_000) && !alarm.look(false, 24_999_999));
        assert!(alarm.look(false, 25_000_000));
    }
}
