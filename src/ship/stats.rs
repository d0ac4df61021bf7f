//! Counters that add up, and gauges beside them.

use super::recovery::RecoveryProgress;
use crate::model::Lut;

/// What has happened to the changes of a namespace towards a DC, since the namespace was attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Changes taken from writers.
    pub submitted: u64,
    /// Changes taken from recovery walks.
    pub walked: u64,
    /// Acknowledged by the destination.
    pub success: u64,
    /// Given up for a permanent error and kept as dead letters.
    pub abandoned: u64,
    /// Gone when read.
    pub not_found: u64,
    /// Held back by a filter after the read.
    pub filtered_out: u64,
    /// Merged into a newer change of the same record.
    pub merged: u64,
    /// Left to a recovery that covers them.
    pub dropped_to_recovery: u64,
    /// Given up with their DC or namespace.
    pub discarded: u64,
    /// Times that the next change of a lane, or one that waits by itself, first found no destination
    /// node; counted anew when the partition map has changed.
    pub retry_no_node: u64,
    /// Changes returned by a lost connection or a timeout.
    pub retry_conn_reset: u64,
    /// Changes answered with a temporary error.
    pub retry_dest: u64,
    /// Reads that failed and were tried again.
    pub retry_read: u64,
    /// Of `success`, changes that recovery walks found.
    pub recovered: u64,
    /// Lanes recovered.
    pub recoveries: u64,
    /// Submissions merged because their key was waiting or in flight.
    pub hot_keys: u64,
    /// Changes shipped once more because a straggler might have undone them.
    pub grace_reships: u64,
    /// Bytes of frames encoded for sending.
    pub bytes_shipped: u64,
}

/// Where the changes not yet settled are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// In queues: live, walked, or waiting for a hot key's time.
    pub in_queue: u64,
    /// Being read, sent or answered.
    pub in_progress: u64,
    /// Waiting for another try, for their grace re-ship, or for their dead letter to be kept.
    pub retrying: u64,
}

/// Both, for one namespace or summed over a DC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Since the start.
    pub counters: Counters,
    /// Now.
    pub gauges: Gauges,
    /// Nothing ships until an operator resumes the DC or sets a throughput above 0.
    pub paused: bool,
    /// Lanes waiting for recovery or in it.
    pub recoveries_pending: u64,
    /// Acknowledged changes per second, over the last few seconds.
    pub throughput: u64,
    /// Moving average from dispatch to acknowledgement, in microseconds.
    pub latency_us: u64,
    /// Age of the oldest unsettled change of the lanes not in recovery, in ms, at the last sweep.
    pub lag_ms: u64,
    /// Age of the oldest unsettled change of the lanes in recovery, in ms, at the last sweep.
    pub recovery_lag_ms: u64,
    /// How far recoveries have come.
    pub recovery: RecoveryProgress,
    /// Changes of namespaces that are paused, where these are figures of several.
    pub paused_records: u64,
    /// Bytes of the backlog, by the average size of what was shipped.
    pub backlog_bytes: u64,
    /// Dead letters kept.
    pub dead_letters: u64,
}

/// What keeps a DC, or a namespace of it, from shipping more: the worst last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum LimitedBy {
    /// There is nothing more to ship.
    #[default]
    Nothing,
    /// `max-throughput`, `delay-ms`, `hot-key-ms`, `max-recoveries-interleaved` or a pause.
    Throttle,
    /// Changes in flight are at their bound.
    Window,
    /// The budget of the caller: reads, usually.
    Reads,
    /// The destination: no node, a full node, errors, or parked.
    Destination,
}

impl LimitedBy {
    /// As statistics print it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Window => "window",
            Self::Throttle => "throttle",
            Self::Destination => "destination",
            Self::Reads => "reads",
        }
    }
}

/// The two sides of the equation every DC must meet at any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckSum {
    /// Submitted and walked.
    pub taken: u64,
    /// Settled in one of the seven ways, or still here.
    pub accounted: u64,
}

impl CheckSum {
    /// Adds both sides up.
    pub(super) const fn of(c: &Counters, g: &Gauges) -> Self {
        Self {
            taken: c.submitted + c.walked,
            accounted: c.ended() + c.merged + c.dropped_to_recovery + g.backlog(),
        }
    }
}

impl Gauges {
    /// Changes not settled that are known here.
    const fn backlog(&self) -> u64 {
        self.in_queue + self.in_progress + self.retrying
    }

    /// Adds another namespace's.
    pub(super) fn add(&mut self, other: &Self) {
        self.in_queue += other.in_queue;
        self.in_progress += other.in_progress;
        self.retrying += other.retrying;
    }
}

impl Stats {
    /// submitted + walked, and success + abandoned + not_found + filtered_out + merged +
    /// dropped_to_recovery + discarded + in_queue + in_progress + retrying.
    pub const fn check_sum(&self) -> CheckSum {
        CheckSum::of(&self.counters, &self.gauges)
    }

    /// Adds another namespace's figures: sums, and the worst of what does not add.
    pub fn add(&mut self, other: &Self) {
        self.counters.add(&other.counters);
        self.gauges.add(&other.gauges);
        self.recoveries_pending += other.recoveries_pending;
        self.throughput += other.throughput;
        self.latency_us = self.latency_us.max(other.latency_us);
        self.lag_ms = self.lag_ms.max(other.lag_ms);
        self.recovery_lag_ms = self.recovery_lag_ms.max(other.recovery_lag_ms);
        self.recovery.add(&other.recovery);
        let paused = if other.paused { other.backlog_records() } else { 0 };
        self.paused_records += paused.max(other.paused_records);
        self.backlog_bytes += other.backlog_bytes;
        self.dead_letters += other.dead_letters;
    }

    /// Changes not settled that are known here; lanes in recovery have more.
    pub const fn backlog(&self) -> u64 {
        self.gauges.backlog()
    }

    /// All changes not settled: those known here and those that recovery has still to find.
    pub const fn backlog_records(&self) -> u64 {
        self.backlog() + self.recovery.unfound()
    }

    /// Seconds until the backlog is shipped at the present throughput; `None` at none, and when some
    /// of it is paused.
    pub fn catch_up_s(&self) -> Option<u64> {
        if self.backlog_records() == 0 {
            return Some(0);
        }
        (self.throughput > 0 && self.paused_records == 0)
            .then(|| self.backlog_records().div_ceil(self.throughput))
    }
}

impl Counters {
    /// Changes that came to an end of their own. To merge one, or to leave it to a recovery, only
    /// passes on what is to ship: that goes on while nothing ships.
    pub const fn ended(&self) -> u64 {
        self.success + self.abandoned + self.not_found + self.filtered_out + self.discarded
    }

    /// Adds another namespace's figures.
    pub fn add(&mut self, other: &Self) {
        self.submitted += other.submitted;
        self.walked += other.walked;
        self.success += other.success;
        self.abandoned += other.abandoned;
        self.not_found += other.not_found;
        self.filtered_out += other.filtered_out;
        self.merged += other.merged;
        self.dropped_to_recovery += other.dropped_to_recovery;
        self.discarded += other.discarded;
        self.retry_no_node += other.retry_no_node;
        self.retry_conn_reset += other.retry_conn_reset;
        self.retry_dest += other.retry_dest;
        self.retry_read += other.retry_read;
        self.recovered += other.recovered;
        self.recoveries += other.recoveries;
        self.hot_keys += other.hot_keys;
        self.grace_reships += other.grace_reships;
        self.bytes_shipped += other.bytes_shipped;
    }
}

/// Smoothed figures of a namespace.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Averages {
    /// Sixteenths of microseconds.
    latency_x16: u64,
    /// Sixteenths of bytes.
    frame_bytes_x16: u64,
    /// What a record takes at the host.
    record_bytes: u64,
    throughput: u64,
    success_then: u64,
    tick_then: u64,
    /// Recoveries find nothing that changed before this.
    pub(super) oldest: Lut,
    pub(super) lag_ms: u64,
    pub(super) recovery_lag_ms: u64,
}

impl Averages {
    #[inline]
    pub(super) const fn note_latency(&mut self, latency_us: u64) {
        self.latency_x16 = self.latency_x16 - self.latency_x16 / 16 + latency_us;
    }

    #[inline]
    pub(super) const fn note_frame(&mut self, bytes: u64) {
        self.frame_bytes_x16 = match self.frame_bytes_x16 {
            0 => 16 * bytes,
            known => known - known / 16 + bytes,
        };
    }

    pub(super) const fn latency_us(&self) -> u64 {
        self.latency_x16 / 16
    }

    /// Takes what a record takes at the host.
    pub(super) const fn expect(&mut self, record_bytes: u64) {
        self.record_bytes = record_bytes;
    }

    /// Bytes of a change: of its frame, where some were sent, else of its record at the host.
    pub(super) const fn record_bytes(&self) -> u64 {
        match self.frame_bytes_x16 / 16 {
            0 => self.record_bytes,
            bytes => bytes,
        }
    }

    pub(super) const fn throughput(&self) -> u64 {
        self.throughput
    }

    /// Whether something was acknowledged since the last measurement.
    pub(super) const fn has_grown(&self, success: u64) -> bool {
        success > self.success_then
    }

    /// Takes a measurement; call it about once a second.
    pub(super) fn measure(&mut self, success: u64, is_idle: bool, now_us: u64) {
        let us = now_us.saturating_sub(self.tick_then);
        if us < 100_000 {
            return;
        }
        let rate = (success - self.success_then).saturating_mul(1_000_000) / us;
        self.throughput = if rate == 0 { 0 } else { (self.throughput + rate).div_ceil(2) };
        if rate == 0 && is_idle {
            // What the last changes took says nothing about now.
            self.latency_x16 = 0;
        }
        self.success_then = success;
        self.tick_then = now_us;
    }

    pub(super) fn note_lag(&mut self, clock: Lut, live: Option<Lut>, recovery: Option<Lut>) {
        let age = |lst: Option<Lut>| lst.map_or(0, |lst| clock.ms().saturating_sub(lst.ms()));
        self.lag_ms = age(live);
        self.recovery_lag_ms = age(recovery.map(|lst| lst.max(self.oldest)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn catching_up_is_estimated_from_backlog_and_throughput() {
        let check = |in_queue: u64, throughput: u64, expected: Option<u64>| {
            let gauges = Gauges { in_queue, ..Gauges::default() };
            let stats = Stats { gauges, throughput, ..Stats::default() };
            assert_eq!(stats.catch_up_s(), expected);
        };
        check(0, 0, Some(0));
        check(10, 0, None);
        check(1000, 100, Some(10));
        check(1001, 100, Some(11));
        let queued = |throughput, paused| Stats {
            gauges: Gauges { in_queue: 10, ..Gauges::default() },
            throughput,
            paused,
            ..Stats::default()
        };
        let mut both = Stats::default();
        both.add(&queued(10, false));
        assert_eq!(both.catch_up_s(), Some(1));
        both.add(&queued(0, true));
        assert_eq!(both.catch_up_s(), None, "what is paused does not end");
    }

    #[test]
    fn the_size_of_a_change_is_its_records_until_a_frame_was_sent_and_then_the_frames() {
        let mut averages = Averages::default();
        averages.expect(250);
        assert_eq!(averages.record_bytes(), 250);
        averages.note_frame(190);
        assert_eq!(averages.record_bytes(), 190);
        (0..100).for_each(|_| averages.note_frame(100));
        assert!((100..=101).contains(&averages.record_bytes()), "{}", averages.record_bytes());
    }

    #[test]
    fn throughput_follows_the_counter() {
        let mut averages = Averages::default();
        for second in 1..=10 {
            averages.note_latency(700);
            averages.measure(second * 5000, true, second * 1_000_000);
        }
        assert!((4990..=5000).contains(&averages.throughput()));
        averages.measure(50_000, false, 11_000_000);
        assert_eq!(averages.throughput(), 0);
        assert!(averages.latency_us() > 0, "something is on its way");
        averages.measure(50_000, true, 12_000_000);
        assert_eq!(averages.latency_us(), 0);
    }
}
