//! Statistics as text: the reference system's names first, then what it hides. Source: behaviour
//! reference sections 3 and 4.1.

use std::fmt::Write as _;

use crate::engine::DcReport;
use crate::ship::{CheckSum, LimitedBy, Stats};

/// `get-stats:context=xdr;dc=D`.
pub(crate) fn of_dc(report: &DcReport) -> String {
    let total = &report.total;
    let mut text = reference(total, Some(report.nodes));
    put(&mut text, "latency_ms", total.latency_us / 1000);
    put(&mut text, "lap_us", report.lap_us);
    ours(&mut text, total);
    let limited_by = match report.limited_by {
        LimitedBy::Nothing => "nothing",
        LimitedBy::Window => "window",
        LimitedBy::Throttle => "throttle",
        LimitedBy::Destination => "destination",
        LimitedBy::Reads => "reads",
    };
    put(&mut text, "limited_by", limited_by);
    put(&mut text, "lag_us_p50", report.lag_us.quantile(0.5));
    put(&mut text, "lag_us_p99", report.lag_us.quantile(0.99));
    put(&mut text, "lag_us_max", report.lag_us.max());
    let problem = report.problem.as_deref().unwrap_or("none");
    put(&mut text, "problem", problem.replace([';', '='], ","));
    text
}

/// `get-stats:context=xdr;dc=D;namespace=N`.
pub(crate) fn of_namespace(stats: &Stats) -> String {
    let mut text = reference(stats, None);
    ours(&mut text, stats);
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
fn ours(text: &mut String, stats: &Stats) {
    let (counters, gauges) = (&stats.counters, &stats.gauges);
    put(text, "paused", stats.paused);
    put(text, "submitted", counters.submitted);
    put(text, "walked", counters.walked);
    put(text, "merged", counters.merged);
    put(text, "dropped_to_recovery", counters.dropped_to_recovery);
    put(text, "discarded", counters.discarded);
    put(text, "retrying", gauges.retrying);
    put(text, "retry_read", counters.retry_read);
    put(text, "grace_reships", counters.grace_reships);
    put(text, "latency_us", stats.latency_us);
    put(text, "live_lag_ms", stats.lag_ms);
    put(text, "recovery_lag_ms", stats.recovery_lag_ms);
    put(text, "backlog_bytes", stats.backlog_bytes);
}

fn put(text: &mut String, name: &str, value: impl std::fmt::Display) {
    let separator = if text.is_empty() { "" } else { ";" };
    let _ = write!(text, "{separator}{name}={value}");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names of behaviour reference section 3, which exporters and asadm look for.
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
