//! How far a start has got, for those who wait for it: shards count, one thread looks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counts what the shards read of a volume while they open it. Relaxed: only people look at it.
#[derive(Debug, Default)]
pub struct Progress {
    blocks_wanted: AtomicU64,
    blocks_seen: AtomicU64,
    bytes_wanted: AtomicU64,
    bytes_read: AtomicU64,
    records: AtomicU64,
}

/// What was counted so far, of one volume or of several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProgressFigures {
    /// Blocks whose headers are looked at first.
    pub blocks_wanted: u64,
    /// Of them, such as were looked at.
    pub blocks_seen: u64,
    /// Bytes known to be wanted: of checkpoints, or of every block ever written. 0 before that is
    /// known.
    pub bytes_wanted: u64,
    /// Bytes of them that were read.
    pub bytes_read: u64,
    /// Records found, superseded versions included.
    pub records: u64,
}

impl Progress {
    pub(super) fn want_headers(&self, blocks: u64) {
        self.blocks_wanted.fetch_add(blocks, Ordering::Relaxed);
    }

    pub(super) fn have_header(&self) {
        self.blocks_seen.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn want(&self, bytes: u64) {
        self.bytes_wanted.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn have(&self, bytes: u64, records: u64) {
        self.bytes_read.fetch_add(bytes, Ordering::Relaxed);
        self.records.fetch_add(records, Ordering::Relaxed);
    }

    /// Takes back bytes that turned out not to be wanted, and those of them that had been read.
    pub(super) fn take_back(&self, wanted: u64, read: u64) {
        self.bytes_read.fetch_sub(read, Ordering::Relaxed);
        self.bytes_wanted.fetch_sub(wanted, Ordering::Relaxed);
    }

    /// What was counted so far.
    pub fn figures(&self) -> ProgressFigures {
        ProgressFigures {
            blocks_wanted: self.blocks_wanted.load(Ordering::Relaxed),
            blocks_seen: self.blocks_seen.load(Ordering::Relaxed),
            bytes_wanted: self.bytes_wanted.load(Ordering::Relaxed),
            bytes_read: self.bytes_read.load(Ordering::Relaxed),
            records: self.records.load(Ordering::Relaxed),
        }
    }
}

impl ProgressFigures {
    /// Both together.
    pub fn plus(self, other: Self) -> Self {
        Self {
            blocks_wanted: self.blocks_wanted + other.blocks_wanted,
            blocks_seen: self.blocks_seen + other.blocks_seen,
            bytes_wanted: self.bytes_wanted + other.bytes_wanted,
            bytes_read: self.bytes_read + other.bytes_read,
            records: self.records + other.records,
        }
    }

    /// Share of the work that is done, in percent.
    pub fn percent(&self) -> u64 {
        (self.bytes_read * 100).checked_div(self.bytes_wanted).unwrap_or(0).min(100)
    }

    /// What is left, at the pace so far; `None` before there is a pace.
    pub fn left(&self, elapsed: Duration) -> Option<Duration> {
        let rest = self.bytes_wanted.saturating_sub(self.bytes_read);
        (self.bytes_read > 0).then(|| elapsed.mul_f64(rest as f64 / self.bytes_read as f64))
    }

    /// One line for people who look `elapsed` after the first bytes were wanted.
    pub fn text(&self, elapsed: Duration) -> String {
        match (self.blocks_wanted, self.bytes_wanted) {
            (0, _) => return "getting memory".to_owned(),
            (blocks, 0) => return format!("looked at {} of {blocks} blocks", self.blocks_seen),
            _ => {}
        }
        let mib = |bytes: u64| bytes >> 20;
        let rate = self.bytes_read as f64 / elapsed.as_secs_f64().max(1e-3);
        let left = match self.left(elapsed) {
            Some(left) => format!("about {} s left", left.as_secs() + 1),
            None => "no estimate yet".to_owned(),
        };
        format!(
            "{} %, {} of {} MiB, {} records, {} MiB/s, {left}",
            self.percent(),
            mib(self.bytes_read),
            mib(self.bytes_wanted),
            self.records,
            mib(rate as u64),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_tell_pace_and_rest() {
        let progress = Progress::default();
        assert_eq!(progress.figures().left(Duration::from_secs(1)), None);
        assert_eq!(progress.figures().percent(), 0);
        assert_eq!(progress.figures().text(Duration::ZERO), "getting memory");
        progress.want_headers(400);
        progress.have_header();
        assert_eq!(progress.figures().text(Duration::ZERO), "looked at 1 of 400 blocks");
        progress.want(400 << 20);
        progress.want(90 << 20);
        progress.have(9 << 20, 0);
        progress.take_back(90 << 20, 9 << 20);
        progress.have(100 << 20, 7);
        let figures = progress.figures();
        assert_eq!(figures.percent(), 25);
        assert_eq!(figures.left(Duration::from_secs(2)), Some(Duration::from_secs(6)));
        let text = "25 %, 100 of 400 MiB, 7 records, 50 MiB/s, about 7 s left";
        assert_eq!(figures.text(Duration::from_secs(2)), text);
        assert_eq!(figures.plus(figures).records, 14);
    }
}
