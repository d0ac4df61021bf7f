//! What a source says about one of its DCs, summed over its shards, and waiting until all is
//! shipped.

use std::thread;
use std::time::{Duration, Instant};

use longship::wire::info;

use crate::client::{self, ClientError};

const POLL: Duration = Duration::from_millis(50);
/// Quiet polls in a row that count as settled: longer than hot keys are held back.
const QUIET_POLLS: u32 = 4;
/// How long nothing may move before waiting is given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why shipping did not settle.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShippingError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("{address} does not tell the state of DC {dc}: {answer}")]
    NoStats { address: String, dc: String, answer: String },
    #[error("shipping to DC {dc} has not moved for {PATIENCE:?}: {progress:?}")]
    Stuck { dc: String, progress: Progress },
}

/// A DC's counters. Source: `docs/behaviour.md` section 4.1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) in_queue: u64,
    pub(crate) in_progress: u64,
    pub(crate) recoveries_pending: u64,
    pub(crate) lag: u64,
    pub(crate) success: u64,
    pub(crate) abandoned: u64,
    pub(crate) retries: u64,
    pub(crate) bytes_shipped: u64,
    pub(crate) lag_us_p50: u64,
    pub(crate) lag_us_p99: u64,
}

impl Progress {
    /// Reads a `get-stats` answer; `None` if it is not one. Counters it lacks are zero.
    fn parse(answer: &str) -> Option<Self> {
        let number = |key| {
            let found = info::pairs(answer).find(|(name, _)| *name == key);
            found.and_then(|(_, value)| value.parse::<u64>().ok())
        };
        let or_zero = |key| number(key).unwrap_or_default();
        Some(Self {
            in_queue: number("in_queue")?,
            in_progress: number("in_progress")?,
            recoveries_pending: or_zero("recoveries_pending"),
            lag: number("lag")?,
            success: number("success")?,
            abandoned: or_zero("abandoned"),
            retries: ["retry_no_node", "retry_conn_reset", "retry_dest"].map(or_zero).iter().sum(),
            bytes_shipped: or_zero("bytes_shipped"),
            lag_us_p50: or_zero("lag_us_p50"),
            lag_us_p99: or_zero("lag_us_p99"),
        })
    }

    /// Counters of two shards together; of what is not a count, the worse.
    fn with(self, other: Self) -> Self {
        Self {
            in_queue: self.in_queue + other.in_queue,
            in_progress: self.in_progress + other.in_progress,
            recoveries_pending: self.recoveries_pending + other.recoveries_pending,
            lag: self.lag.max(other.lag),
            success: self.success + other.success,
            abandoned: self.abandoned + other.abandoned,
            retries: self.retries + other.retries,
            bytes_shipped: self.bytes_shipped + other.bytes_shipped,
            lag_us_p50: self.lag_us_p50.max(other.lag_us_p50),
            lag_us_p99: self.lag_us_p99.max(other.lag_us_p99),
        }
    }

    const fn is_quiet(&self) -> bool {
        self.in_queue + self.in_progress + self.recoveries_pending + self.lag == 0
    }
}

/// Asks every shard of a source about a DC.
pub(crate) fn progress(shards: &[String], dc: &str) -> Result<Progress, ShippingError> {
    let command = format!("get-stats:context=xdr;dc={dc}");
    shards.iter().try_fold(Progress::default(), |sum, address| {
        let answer = client::ask(address, &[&command])?.swap_remove(0);
        let (address, dc) = (address.clone(), dc.to_owned());
        match Progress::parse(&answer) {
            Some(progress) => Ok(sum.with(progress)),
            None => Err(ShippingError::NoStats { address, dc, answer }),
        }
    })
}

/// Waits until nothing is left to ship. Gives the counters then, and when it was first quiet.
/// `watch` sees every poll.
pub(crate) fn settle(
    shards: &[String],
    dc: &str,
    mut watch: impl FnMut(&Progress),
) -> Result<(Progress, Instant), ShippingError> {
    let mut last = progress(shards, dc)?;
    let mut moved = Instant::now();
    let mut quiet = 0;
    loop {
        watch(&last);
        quiet = if last.is_quiet() { quiet + 1 } else { 0 };
        if quiet > QUIET_POLLS {
            return Ok((last, moved));
        }
        if moved.elapsed() > PATIENCE {
            return Err(ShippingError::Stuck { dc: dc.to_owned(), progress: last });
        }
        thread::sleep(POLL);
        let now = progress(shards, dc)?;
        if now != last {
            (moved, quiet) = (Instant::now(), 0);
        }
        last = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stats_are_read_by_name_and_added() {
        let text = "lag=3;bytes_shipped=900;in_queue=5;in_progress=2;success=70;abandoned=1;\
                    retry_no_node=1;retry_conn_reset=2;retry_dest=3;recoveries=9;\
                    recoveries_pending=4;nodes=1;lag_us_p50=850;lag_us_p99=4000";
        let one = Progress::parse(text).unwrap();
        assert_eq!((one.lag, one.in_queue, one.in_progress, one.retries), (3, 5, 2, 6));
        let other = Progress::parse("in_queue=0;in_progress=0;lag=1;success=5").unwrap();
        let sum = one.with(other);
        assert_eq!((sum.lag, sum.success, sum.recoveries_pending), (3, 75, 4));
        assert_eq!((sum.lag_us_p50, sum.lag_us_p99, sum.bytes_shipped), (850, 4000, 900));
        assert!(!sum.is_quiet());
        let done = Progress::parse("in_queue=0;in_progress=0;lag=0;success=5;retry_dest=8");
        assert!(done.unwrap().is_quiet());
        assert_eq!(Progress::parse("ERROR:4:unrecognized command"), None);
    }
}
