//! What the kernel does for the rings of this process behind their back.

use std::fs;

/// Context switches so far of the kernel threads that serve this process's rings (`iou-wrk-*`).
///
/// They do what cannot be done without blocking: flushes, and every request that left the fast
/// path. While reads and writes run this must not grow; 0 when there are none. Threads that ended
/// (idle ones do, after a few seconds) no longer count.
pub fn worker_switches() -> u64 {
    let Ok(threads) = fs::read_dir("/proc/self/task") else { return 0 };
    let of_thread = |folder: fs::DirEntry| {
        let status = fs::read_to_string(folder.path().join("status")).ok()?;
        status.lines().next()?.contains("iou-wrk-").then(|| switches(&status))
    };
    threads.flatten().filter_map(of_thread).sum()
}

/// The sum of both kinds of context switches in a `/proc/PID/status`.
fn switches(status: &str) -> u64 {
    let counts = status.lines().filter(|line| line.contains("ctxt_switches:"));
    counts.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_switches_count() {
        let status = "Name:\tiou-wrk-7\nPid:\t9\nvoluntary_ctxt_switches:\t41\n\
                      nonvoluntary_ctxt_switches:\t1\n";
        assert_eq!(switches(status), 42);
        assert_eq!(switches("Name:\tx\n"), 0);
    }
}
