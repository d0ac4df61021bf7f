//! Figures of a DC, or of one of its namespaces: the reference system's first, in its order, then
//! what it hides. Source: `docs/behaviour.md` sections 3 and 4.1.

use super::figure::Unit::{Bytes, Count, Ms, None as Bare, PerSecond, S, Us};
use super::figure::{Figure, Value, info_text};
use crate::engine::{DcReport, NamespaceReport};
use crate::model::Tick;
use crate::ship::{CheckSum, LimitedBy, Stats};

/// A DC, or a namespace of it, as it was at a time.
pub struct Shipped {
    stats: Stats,
    limited_by: LimitedBy,
    problem: Option<String>,
    now: Tick,
    /// What is the DC's own.
    dc: Option<DcReport>,
}

impl Shipped {
    fn of_dc<V: Into<Value>>(&self, value: impl FnOnce(&DcReport) -> V) -> Value {
        self.dc.as_ref().map_or(Value::Absent, |dc| value(dc).into())
    }
}

/// Every figure of shipping.
pub const SHIPPED: &[Figure<Shipped>] = &[
    Figure::gauge("lag", S, "age of the oldest change not shipped", |of| {
        (oldest_ms(&of.stats) / 1000).into()
    }),
    Figure::counter("bytes_shipped", Bytes, "bytes of frames sent", |of| {
        of.stats.counters.bytes_shipped.into()
    }),
    Figure::gauge("in_queue", Count, "changes waiting in memory", |of| {
        of.stats.gauges.in_queue.into()
    }),
    Figure::gauge("in_progress", Count, "changes being read, sent or answered", |of| {
        of.stats.gauges.in_progress.into()
    }),
    Figure::counter("success", Count, "changes the destination has acknowledged", |of| {
        of.stats.counters.success.into()
    }),
    Figure::counter("abandoned", Count, "changes refused for good, kept as dead letters", |of| {
        of.stats.counters.abandoned.into()
    }),
    Figure::counter("not_found", Count, "changes whose record was gone when read", |of| {
        of.stats.counters.not_found.into()
    }),
    Figure::counter("filtered_out", Count, "changes held back by a filter after the read", |of| {
        of.stats.counters.filtered_out.into()
    }),
    Figure::counter(
        "retry_no_node",
        Count,
        "changes that found no node of the destination",
        |of| of.stats.counters.retry_no_node.into(),
    ),
    Figure::counter("retry_conn_reset", Count, "changes returned by a lost connection", |of| {
        of.stats.counters.retry_conn_reset.into()
    }),
    Figure::counter("retry_dest", Count, "changes answered with a temporary error", |of| {
        of.stats.counters.retry_dest.into()
    }),
    Figure::counter("recoveries", Count, "partitions recovered from storage", |of| {
        of.stats.counters.recoveries.into()
    }),
    Figure::gauge("recoveries_pending", Count, "partitions in recovery, or waiting for it", |of| {
        of.stats.recoveries_pending.into()
    }),
    Figure::counter("hot_keys", Count, "changes merged with one of the same record", |of| {
        of.stats.counters.hot_keys.into()
    }),
    Figure::gauge("uncompressed_pct", Bare, "there is no compression", |_| "0.000".into()),
    Figure::gauge("compression_ratio", Bare, "there is no compression", |_| "1.000".into()),
    Figure::gauge("nodes", Count, "nodes of the destination that take batches", |of| {
        of.of_dc(|dc| dc.nodes as u64)
    }),
    Figure::gauge("throughput", PerSecond, "changes acknowledged, over some seconds", |of| {
        of.stats.throughput.into()
    }),
    Figure::gauge("latency_ms", Ms, "from dispatch to acknowledgement, on average", |of| {
        of.of_dc(|dc| dc.total.latency_us / 1000)
    }),
    Figure::gauge("lap_us", Us, "the last lap over all partitions that shipped something", |of| {
        of.of_dc(|dc| dc.lap_us)
    }),
    Figure::gauge("paused", Bare, "nothing ships until an operator says so", |of| {
        of.stats.paused.into()
    }),
    Figure::counter("submitted", Count, "changes taken from writers", |of| {
        of.stats.counters.submitted.into()
    }),
    Figure::counter("walked", Count, "changes taken from recovery", |of| {
        of.stats.counters.walked.into()
    }),
    Figure::counter("merged", Count, "changes merged into a newer one of the same record", |of| {
        of.stats.counters.merged.into()
    }),
    Figure::counter("dropped_to_recovery", Count, "changes left to a recovery", |of| {
        of.stats.counters.dropped_to_recovery.into()
    }),
    Figure::counter("discarded", Count, "changes given up with their DC or namespace", |of| {
        of.stats.counters.discarded.into()
    }),
    Figure::gauge("retrying", Count, "changes that wait for another try", |of| {
        of.stats.gauges.retrying.into()
    }),
    Figure::counter("retry_read", Count, "reads that failed and were tried again", |of| {
        of.stats.counters.retry_read.into()
    }),
    Figure::gauge("dead_letters", Count, "changes given up and kept", |of| {
        of.stats.dead_letters.into()
    }),
    Figure::counter("grace_reships", Count, "changes shipped again for fear of stragglers", |of| {
        of.stats.counters.grace_reships.into()
    }),
    Figure::gauge("latency_us", Us, "from dispatch to acknowledgement, on average", |of| {
        of.stats.latency_us.into()
    }),
    Figure::gauge("live_lag_ms", Ms, "the lag of partitions not in recovery", |of| {
        of.stats.lag_ms.into()
    }),
    Figure::gauge("recovery_lag_ms", Ms, "the lag of partitions in recovery", |of| {
        of.stats.recovery_lag_ms.into()
    }),
    Figure::gauge("oldest_unshipped_ms", Ms, "age of the oldest change not shipped", |of| {
        oldest_ms(&of.stats).into()
    }),
    Figure::gauge("backlog_records", Count, "changes to ship, those not found yet too", |of| {
        of.stats.backlog_records().into()
    }),
    Figure::gauge("backlog_bytes", Bytes, "the same by the average size", |of| {
        of.stats.backlog_bytes.into()
    }),
    Figure::gauge("catch_up_s", S, "until the backlog has shipped, at this throughput", |of| {
        of.stats.catch_up_s().into()
    }),
    Figure::gauge("recovery_partitions_waiting", Count, "partitions waiting for recovery", |of| {
        of.stats.recovery.lanes_waiting.into()
    }),
    Figure::gauge("recovery_partitions_walking", Count, "partitions in recovery", |of| {
        of.stats.recovery.lanes_walking.into()
    }),
    Figure::gauge("recovery_examined", Count, "records looked at by these recoveries", |of| {
        of.stats.recovery.examined.into()
    }),
    Figure::gauge("recovery_found", Count, "changes found by them", |of| {
        of.stats.recovery.taken.into()
    }),
    Figure::counter(
        "recovery_shipped",
        Count,
        "changes found by recovery and acknowledged",
        |of| of.stats.counters.recovered.into(),
    ),
    Figure::gauge("recovery_left_s", S, "until these recoveries have found all", |of| {
        recovery_left_s(of).into()
    }),
    Figure::text("limited_by", "what keeps it from shipping more", |of| {
        of.limited_by.name().into()
    }),
    Figure::gauge("destination_answers_per_s", PerSecond, "answers, whatever they say", |of| {
        of.of_dc(|dc| dc.answers_per_s)
    }),
    Figure::gauge("lag_us_p50", Us, "from submission to acknowledgement: half were faster", |of| {
        of.of_dc(|dc| dc.lag_us.quantile(0.5))
    }),
    Figure::gauge("lag_us_p99", Us, "the same: 99 of 100 were faster", |of| {
        of.of_dc(|dc| dc.lag_us.quantile(0.99))
    }),
    Figure::gauge("lag_us_max", Us, "the same: the slowest", |of| of.of_dc(|dc| dc.lag_us.max())),
    Figure::text("problem", "what an operator should look at", |of| {
        of.problem.as_deref().unwrap_or("none").into()
    }),
];

/// Of the namespace that takes longest.
fn recovery_left_s(of: &Shipped) -> Option<u64> {
    match &of.dc {
        None => left_s(&of.stats, of.limited_by, of.now),
        Some(dc) => dc.namespaces.iter().try_fold(0, |longest, namespace| {
            let left_s = left_s(&namespace.stats, namespace.limited_by, of.now)?;
            Some(left_s.max(longest))
        }),
    }
}

/// Unknown while nothing moves: what went before tells nothing of that.
fn left_s(stats: &Stats, limited_by: LimitedBy, now: Tick) -> Option<u64> {
    let stands = stats.throughput == 0 && limited_by == LimitedBy::Destination;
    let left_s = stats.recovery.left_s(now);
    left_s.filter(|&left_s| left_s == 0 || !(stats.paused || stands))
}

fn oldest_ms(stats: &Stats) -> u64 {
    stats.lag_ms.max(stats.recovery_lag_ms)
}

/// `get-stats:context=xdr;dc=D`.
pub(super) fn of_dc(report: DcReport) -> String {
    let (stats, limited_by, now) = (report.total, report.limited_by, report.now);
    let problem = report.problem.clone();
    info_text(SHIPPED, &Shipped { stats, limited_by, problem, now, dc: Some(report) })
}

/// `get-stats:context=xdr;dc=D;namespace=N`.
pub(super) fn of_namespace(report: &NamespaceReport, now: Tick) -> String {
    let (stats, limited_by, problem) = (report.stats, report.limited_by, report.problem.clone());
    info_text(SHIPPED, &Shipped { stats, limited_by, problem, now, dc: None })
}

/// `xdr-check:dc=D`: for each namespace what was taken and what became of it.
pub(super) fn check(report: &DcReport) -> String {
    let line = |NamespaceReport { name, stats, .. }: &NamespaceReport| {
        let CheckSum { taken, accounted } = stats.check_sum();
        let balanced = taken == accounted;
        format!("namespace={name}:taken={taken}:accounted={accounted}:balanced={balanced}")
    };
    report.namespaces.iter().map(line).collect::<Vec<_>>().join(";")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ship::RecoveryProgress;
    use longship_rt::metrics::Histogram;

    /// The names of `docs/behaviour.md` section 4.1, which exporters and asadm look for.
    const REFERENCE: &str = "lag bytes_shipped in_queue in_progress success abandoned not_found \
                             filtered_out retry_no_node retry_conn_reset retry_dest recoveries \
                             recoveries_pending hot_keys uncompressed_pct compression_ratio nodes \
                             throughput";

    fn names(text: &str) -> Vec<&str> {
        text.split(';').filter_map(|pair| Some(pair.split_once('=')?.0)).collect()
    }

    #[test]
    fn the_figures_of_the_reference_come_first_and_a_namespace_has_all_but_its_dcs() {
        let why = Some("a; b=c".to_owned());
        let report = DcReport {
            total: Stats::default(),
            namespaces: Vec::new(),
            nodes: 2,
            lap_us: 0,
            limited_by: LimitedBy::Nothing,
            answers_per_s: 0,
            problem: why.clone(),
            lag_us: Histogram::default().snapshot(),
            now: Tick(0),
        };
        let dc = of_dc(report);
        assert_eq!(names(&dc).len(), SHIPPED.len());
        let reference: Vec<&str> = REFERENCE.split_whitespace().collect();
        assert_eq!(names(&dc)[..reference.len()], reference);
        assert!(dc.ends_with("problem=a, b,c"), "{dc}");
        let namespace = NamespaceReport {
            name: "demo".to_owned(),
            stats: Stats::default(),
            limited_by: LimitedBy::Throttle,
            problem: why,
        };
        let namespace = of_namespace(&namespace, Tick(0));
        assert!(namespace.ends_with("limited_by=throttle;problem=a, b,c"), "{namespace}");
        let own = ["nodes", "latency_ms", "lap_us", "destination_answers_per_s"];
        let own: Vec<&str> =
            own.into_iter().chain(["lag_us_p50", "lag_us_p99", "lag_us_max"]).collect();
        let all = names(&dc);
        let expected: Vec<&str> = all.into_iter().filter(|name| !own.contains(name)).collect();
        assert_eq!(names(&namespace), expected);
    }

    #[test]
    fn what_stands_still_has_no_end_in_sight() {
        let since = Some(Tick(0));
        let recovery = RecoveryProgress {
            lanes_walking: 1,
            queued: 5,
            found: 10,
            since,
            ..Default::default()
        };
        let check = |throughput, paused, limited_by, expected| {
            let stats = Stats { recovery, throughput, paused, ..Stats::default() };
            assert_eq!(left_s(&stats, limited_by, Tick(3_000_000)), expected);
        };
        check(10, false, LimitedBy::Destination, Some(3));
        check(0, false, LimitedBy::Destination, None);
        check(0, false, LimitedBy::Reads, Some(3));
        check(10, true, LimitedBy::Throttle, None);
    }

    #[test]
    fn no_two_figures_have_one_name_and_each_says_what_it_is() {
        for (index, figure) in SHIPPED.iter().enumerate() {
            assert!(!figure.help.is_empty(), "{}", figure.name);
            let again = SHIPPED[..index].iter().any(|other| other.name == figure.name);
            assert!(!again, "{}", figure.name);
        }
    }
}
