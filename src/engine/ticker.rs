//! The lines about shipping in the log, every 10 s: `docs/behaviour.md` section 4.1.

use super::DcReport;
use crate::ship::Stats;

/// One line for the DC, then one for each of its namespaces.
pub(super) fn lines(dc: &str, report: &DcReport) -> Vec<String> {
    let latency_ms = report.total.latency_us / 1000;
    let nodes = format!("xdr-dc {dc}: nodes {} latency-ms {latency_ms}", report.nodes);
    let namespaces = report.namespaces.iter();
    std::iter::once(nodes)
        .chain(namespaces.map(|namespace| line(dc, &namespace.name, &namespace.stats)))
        .collect()
}

fn line(dc: &str, namespace: &str, stats: &Stats) -> String {
    let (counters, gauges) = (&stats.counters, &stats.gauges);
    let lag = stats.lag_ms.max(stats.recovery_lag_ms) / 1000;
    format!(
        "{{{namespace}}} xdr-dc {dc}: lag {lag} throughput {} bytes-shipped {} in-queue {} \
         in-progress {} complete ({},{},{},{}) retries ({},{},{}) recoveries ({},{}) hot-keys {}",
        stats.throughput,
        counters.bytes_shipped,
        gauges.in_queue,
        gauges.in_progress,
        counters.success,
        counters.abandoned,
        counters.not_found,
        counters.filtered_out,
        counters.retry_no_node,
        counters.retry_conn_reset,
        counters.retry_dest,
        counters.recoveries,
        stats.recoveries_pending,
        counters.hot_keys,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ship::{Counters, Gauges};

    #[test]
    fn a_line_has_the_shape_that_log_readers_look_for() {
        let counters = Counters {
            success: 11,
            abandoned: 2,
            not_found: 3,
            filtered_out: 4,
            retry_no_node: 5,
            retry_conn_reset: 6,
            retry_dest: 7,
            recoveries: 8,
            hot_keys: 9,
            bytes_shipped: 1234,
            ..Counters::default()
        };
        let gauges = Gauges { in_queue: 20, in_progress: 30, ..Gauges::default() };
        let recoveries_pending = 10;
        let stats = Stats {
            counters,
            gauges,
            recoveries_pending,
            throughput: 500,
            lag_ms: 1500,
            ..Stats::default()
        };
        assert_eq!(
            line("west", "demo", &stats),
            "{demo} xdr-dc west: lag 1 throughput 500 bytes-shipped 1234 in-queue 20 \
             in-progress 30 complete (11,2,3,4) retries (5,6,7) recoveries (8,10) hot-keys 9"
        );
    }
}
