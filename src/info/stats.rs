//! Statistics as text: the reference system's names first, then what it hides. Source:
//! `docs/behaviour.md` sections 3 and 4.1.

use std::fmt::Write as _;

use crate::engine::DcReport;
use crate::model::Tick;
use crate::ship::{CheckSum, Stats};

/// `get-stats:context=xdr;dc=D`.
pub(crate) fn of_dc(report: &DcReport) -> String {
    let total = &report.total;
    let mut text = reference(total, Some(report.nodes));
    put(&mut text, "latency_ms", total.latency_us / 1000);
    put(&mut text, "lap_us", report.lap_us);
    ours(&mut text, total, report.now);
    put(&mut text, "limited_by", report.limited_by.name());
    put(&mut text, "destination_answers_per_s", report.answers_per_s);
    put(&mut text, "lag_us_p50", report.lag_us.quantile(0.5));
    put(&mut text, "lag_us_p99", report.lag_us.quantile(0.99));
    put(&mut text, "lag_us_max", report.lag_us.max());
    let problem = report.problem.as_deref().unwrap_or("none");
    put(&mut text, "problem", problem.replace([';', '='], ","));
    text
}

/// `get-stats:context=xdr;dc=D;namespace=N`.
pub(crate) fn of_namespace(stats: &Stats, now: Tick) -> String {
    let mut text = reference(stats, None);
    ours(&mut text, stats, now);
    text
}

/// `xdr-check:dc=D`: for each namespace what was taken and what became of it.
pub(crate) fn check(report: &DcReport) -> String {
    let line = |(namespace, stats): &(String, Stats)| {
        let CheckSum { taken, accounted } = stats.check_sum();
        let balanced = taken == accounted;
        format!("namespace={namespace}:taken={taken}:accounted={accounted}:balanced={balanced}")
    };
    report.namespaces.iter().map(line).collect::<Vec<_>>().join(";")
}

/// The reference system's statistics, in its order.
fn reference(stats: &Stats, nodes: Option<usize>) -> String {
    let (counters, gauges) = (&stats.counters, &stats.gauges);
    let mut text = String::with_capacity(768);
    put(&mut text, "lag", stats.lag_ms.max(stats.recovery_lag_ms) / 1000);
    put(&mut text, "bytes_shipped", counters.bytes_shipped);
    put(&mut text, "in_queue", gauges.in_queue);
    put(&mut text, "in_progress", gauges.in_progress);
    put(&mut text, "success", counters.success);
    put(&mut text, "abandoned", counters.abandoned);
    put(&mut text, "not_found", counters.not_found);
    put(&mut text, "filtered_out", counters.filtered_out);
    put(&mut text, "retry_no_node", counters.retry_no_node);
    put(&mut text, "retry_conn_reset", counters.retry_conn_reset);
    put(&mut text, "retry_dest", counters.retry_dest);
    put(&mut text, "recoveries", counters.recoveries);
    put(&mut text, "recoveries_pending", stats.recoveries_pending);
    put(&mut text, "hot_keys", counters.hot_keys);
    put(&mut text, "uncompressed_pct", "0.000");
    put(&mut text, "compression_ratio", "1.000");
    if let Some(nodes) = nodes {
        put(&mut text, "nodes", nodes);
    }
    put(&mut text, "throughput", stats.throughput);
    text
}

/// What the reference system does not tell.
fn ours(text: &mut String, stats: &Stats, now: Tick) {
    let (counters, gauges) = (&stats.counters, &stats.gauges);
    put(text, "paused", stats.paused);
    put(text, "submitted", counters.submitted);
    put(text, "walked", counters.walked);
    put(text, "merged", counters.merged);
    put(text, "dropped_to_recovery", counters.dropped_to_recovery);
    put(text, "discarded", counters.discarded);
    put(text, "retrying", gauges.retrying);
    put(text, "retry_read", counters.retry_read);
    put(text, "dead_letters", stats.dead_letters);
    put(text, "grace_reships", counters.grace_reships);
    put(text, "latency_us", stats.latency_us);
    put(text, "live_lag_ms", stats.lag_ms);
    put(text, "recovery_lag_ms", stats.recovery_lag_ms);
    put(text, "oldest_unshipped_ms", stats.lag_ms.max(stats.recovery_lag_ms));
    put(text, "backlog_records", stats.backlog_records());
    put(text, "backlog_bytes", stats.backlog_bytes);
    put(text, "catch_up_s", known(stats.catch_up_s()));
    let recovery = &stats.recovery;
    put(text, "recovery_partitions_waiting", recovery.lanes_waiting);
    put(text, "recovery_partitions_walking", recovery.lanes_walking);
    put(text, "recovery_examined", recovery.examined);
    put(text, "recovery_found", recovery.taken);
    put(text, "recovery_shipped", counters.recovered);
    put(text, "recovery_left_s", known(recovery.left_s(now)));
}

/// An estimate, where there is one.
fn known(seconds: Option<u64>) -> String {
    seconds.map_or_else(|| "unknown".to_owned(), |seconds| seconds.to_string())
}

fn put(text: &mut String, name: &str, value: impl std::fmt::Display) {
    let separator = if text.is_empty() { "" } else { ";" };
    let _ = write!(text, "{separator}{name}={value}");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names of `docs/behaviour.md` section 4.1, which exporters and asadm look for.
    #[test]
    fn every_statistic_of_the_reference_is_there() {
        let text = reference(&Stats::default(), Some(2));
        let names: Vec<&str> =
            text.split(';').filter_map(|pair| Some(pair.split_once('=')?.0)).collect();
        let expected = "lag bytes_shipped in_queue in_progress success abandoned not_found \
                        filtered_out retry_no_node retry_conn_reset retry_dest recoveries \
                        recoveries_pending hot_keys uncompressed_pct compression_ratio nodes \
                        throughput";
        assert_eq!(names, expected.split_whitespace().collect::<Vec<_>>());
    }
}
