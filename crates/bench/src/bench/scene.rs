//! Where a bench that ships takes place, to be printed with its figures.

use std::fs;

use super::answer::Answer;
use crate::cores::{self, Place};

/// Pause between two looks at how far shipping is; the same for whatever is measured.
pub(super) const POLL_MS: u64 = 5;

/// The CPUs and what else goes on.
pub(super) struct Scene {
    /// Of the source, of the destination.
    pub(super) cpus: [usize; 2],
    places: [Place; 2],
    load_average: String,
}

impl Scene {
    /// As it is before anything is started.
    pub(super) fn now() -> Self {
        let cpus = cores::two();
        let load_average = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load_average = load_average.split(' ').take(3).collect::<Vec<_>>().join(" ");
        Self { cpus, places: cpus.map(cores::look_at), load_average }
    }

    /// An answer that begins with what is known here.
    pub(super) fn answer(&self, bench: &'static str) -> Answer {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Answer::new(bench)
            .fact("source", self.places[0].to_string())
            .fact("destination", self.places[1].to_string())
            .fact("load before", &self.load_average)
            .fact("kernel", kernel.trim_end())
    }
}
