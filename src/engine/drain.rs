//! Whether a stop still waits for a DC. Pure.
//!
//! A stop ships what it can. What cannot move (its namespace is parked, its node away, a throttle
//! holds it) is left to the next start at once: positions and log have it, and a stop that waited
//! for it would always take as long as it may.

use crate::model::Tick;
use crate::ship::{Counters, LimitedBy, Stats};

/// With changes on their way to a connected node, a stop waits so long for one to settle: longer
/// than the round trip of any link, and than a lost packet takes.
const ANSWER_MS: u64 = 1000;
/// With nothing on its way, a stop waits so long for something to settle: longer than a hot key or
/// a first retry waits.
const QUIET_MS: u64 = 250;

/// What there is to wait for, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Outlook {
    /// Changes not settled and recoveries not ended, of namespaces that are not paused.
    waiting: u64,
    /// On their way.
    in_progress: u64,
    /// Changes settled and found so far.
    moved: u64,
    /// Acknowledged per second.
    throughput: u64,
    limited_by: LimitedBy,
    /// Nobody is there to take anything.
    no_node: bool,
    /// Changes not settled, those of paused namespaces among them.
    changes: u64,
    /// Partitions in recovery likewise: nobody knows yet how many changes each has.
    partitions: u64,
}

impl Outlook {
    /// Of a DC, with figures of each of its namespaces.
    pub(super) fn new(
        stats: impl Iterator<Item = Stats>,
        limited_by: LimitedBy,
        nodes: usize,
    ) -> Self {
        let mut outlook = Self { limited_by, no_node: nodes == 0, ..Self::default() };
        for stats in stats {
            if !stats.paused {
                outlook.waiting += stats.backlog() + stats.recoveries_pending;
            }
            outlook.changes += stats.backlog();
            outlook.partitions += stats.recoveries_pending;
            // Of a paused namespace, only what is on its way is waited for.
            outlook.in_progress += stats.gauges.in_progress;
            outlook.throughput += stats.throughput;
            outlook.moved += moved(&stats.counters);
        }
        outlook
    }

    /// Changes and recoveries that have not come to an end.
    pub(super) const fn left(&self) -> u64 {
        if self.waiting > self.in_progress { self.waiting } else { self.in_progress }
    }

    /// What a stop leaves, for people, if there is anything.
    pub(super) fn left_in_words(&self) -> Option<String> {
        let Self { changes, partitions, .. } = self;
        match (changes, partitions) {
            (0, 0) => None,
            (_, 0) => Some(format!("{changes} changes")),
            (0, partitions) => Some(format!("{partitions} partitions to be recovered")),
            (_, partitions) => {
                Some(format!("{changes} changes and {partitions} partitions to be recovered"))
            }
        }
    }
}

const fn moved(counters: &Counters) -> u64 {
    counters.walked
        + counters.success
        + counters.abandoned
        + counters.not_found
        + counters.filtered_out
        + counters.merged
        + counters.dropped_to_recovery
        + counters.discarded
}

/// A DC on its way to having shipped everything.
#[derive(Debug)]
pub(super) struct Drain {
    moved: u64,
    since: Tick,
}

impl Drain {
    /// From now on.
    pub(super) const fn begin(now: Tick, outlook: &Outlook) -> Self {
        Self { moved: outlook.moved, since: now }
    }

    /// Whether it is worth waiting on.
    pub(super) fn goes_on(&mut self, now: Tick, outlook: &Outlook) -> bool {
        if outlook.no_node || outlook.left() == 0 {
            return false;
        }
        if outlook.moved != self.moved {
            *self = Self::begin(now, outlook);
        }
        let patience_ms = if outlook.in_progress > 0 { ANSWER_MS } else { QUIET_MS };
        let stands = self.since.plus_ms(patience_ms) <= now;
        // It moves, but only as fast as it is let.
        let held = outlook.limited_by == LimitedBy::Throttle
            && outlook.waiting - outlook.in_progress.min(outlook.waiting) > outlook.throughput;
        !stands && !held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Tick {
        Tick(0).plus_ms(ms)
    }

    /// How long a stop waits, at most `bound_ms`, for a DC that looks like that at each moment.
    fn waits_ms(bound_ms: u64, outlook: impl Fn(u64) -> Outlook) -> u64 {
        let mut drain = Drain::begin(ms(0), &outlook(0));
        (0..bound_ms).find(|&at| !drain.goes_on(ms(at), &outlook(at))).unwrap_or(bound_ms)
    }

    const BUSY: Outlook = Outlook {
        waiting: 1000,
        in_progress: 10,
        moved: 0,
        throughput: 50,
        limited_by: LimitedBy::Nothing,
        no_node: false,
        changes: 1000,
        partitions: 0,
    };

    #[test]
    fn what_moves_is_waited_for_until_it_is_done() {
        let shipping = |at: u64| Outlook { waiting: 5000 - at, moved: at, ..BUSY };
        assert_eq!(
            waits_ms(10_000, |at| Outlook { in_progress: 0, ..shipping(at.min(5000)) }),
            5000
        );
        assert_eq!(waits_ms(3000, shipping), 3000);
    }

    #[test]
    fn what_stands_is_left_at_once() {
        let parked = Outlook { in_progress: 0, limited_by: LimitedBy::Destination, ..BUSY };
        assert_eq!(waits_ms(10_000, |_| parked), QUIET_MS);
        assert_eq!(waits_ms(10_000, |_| BUSY), ANSWER_MS, "a destination that hangs");
        assert_eq!(waits_ms(10_000, |_| Outlook { no_node: true, ..BUSY }), 0);
        assert_eq!(waits_ms(10_000, |_| Outlook::default()), 0);
    }

    #[test]
    fn a_throttle_is_waited_for_only_when_it_lets_the_rest_go_within_a_second() {
        let throttled = |waiting: u64| {
            move |at: u64| {
                let limited_by = LimitedBy::Throttle;
                let waiting = waiting.saturating_sub(at / 20);
                Outlook { waiting, in_progress: 0, moved: at / 20, limited_by, ..BUSY }
            }
        };
        assert_eq!(waits_ms(10_000, throttled(10_000)), 0);
        assert_eq!(waits_ms(10_000, throttled(40)), 800);
    }

    #[test]
    fn a_paused_namespace_is_left_but_for_what_is_on_its_way() {
        let stats = |in_queue, in_progress| Stats {
            paused: true,
            gauges: crate::ship::Gauges { in_queue, in_progress, retrying: 0 },
            ..Stats::default()
        };
        let outlook = |stats| Outlook::new([stats].into_iter(), LimitedBy::Throttle, 1);
        assert_eq!(outlook(stats(7, 0)).left(), 0);
        assert_eq!(outlook(stats(7, 2)).left(), 2);
    }

    #[test]
    fn what_is_left_is_told_as_what_it_is() {
        let left = |in_queue, in_progress, recoveries_pending, paused| {
            let gauges = crate::ship::Gauges { in_queue, in_progress, retrying: 0 };
            let stats = Stats { gauges, recoveries_pending, paused, ..Stats::default() };
            Outlook::new([stats].into_iter(), LimitedBy::Nothing, 1).left_in_words()
        };
        let words = |text: &str| Some(text.to_owned());
        assert_eq!(left(0, 0, 0, false), None);
        assert_eq!(left(5, 2, 0, false), words("7 changes"));
        assert_eq!(left(0, 0, 4096, false), words("4096 partitions to be recovered"));
        assert_eq!(left(5, 2, 9, false), words("7 changes and 9 partitions to be recovered"));
        assert_eq!(left(5, 2, 9, true), words("7 changes and 9 partitions to be recovered"));
    }
}
