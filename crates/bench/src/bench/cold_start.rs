//! `longship bench cold-start`: how fast is the index built from the log?
//!
//! - `device_read_vs_fio`: bytes of log read per second at start, over what fio reads sequentially
//!   from the same file in blocks of the same size, as many at a time. Runs alternate; the figure
//!   is the median of the ratios of neighbours. A whole core is needed per million records a
//!   second or so, so on a fast device the cores are the limit.
//! - records per second and seconds of the median run, and seconds of a warm start beside them.

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use indicatif::ProgressBar;

use super::fio::{self, Work};
use super::median;
use super::storage::{BLOCK_BYTES, Bed, Ran, Records};
use crate::report::{self, Table};
use crate::stage::Stage;

/// Blocks that a starting shard reads at a time.
const DEPTH: u32 = 8;

/// Measures how fast the index is built from the log.
#[derive(clap::Args)]
pub(crate) struct ColdStartArgs {
    #[arg(long, default_value_t = 5_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    records: u64,
    /// Bytes of each record's value.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(..=65_536))]
    value_bytes: u64,
    /// Shards that share the file; 0 = one per CPU.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=64))]
    shards: u64,
    /// Runs of fio and of the start, in turns.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=99))]
    runs: u64,
    /// Print the result as one line of JSON.
    #[arg(long)]
    json: bool,
}

struct ColdStartReport {
    shards: u16,
    records: u64,
    bytes: u64,
    /// Bytes per second of each run.
    fio: Vec<f64>,
    seconds: Vec<f64>,
    warm_seconds: Vec<f64>,
}

/// A start that is not the one asked for, or did not find what was written.
#[derive(Debug, thiserror::Error)]
#[error("a {warm} start was wanted, of {written} records; {found} were found")]
struct Unexpected {
    warm: &'static str,
    written: u64,
    found: u64,
}

/// Runs the command.
pub(super) fn command(args: &ColdStartArgs) -> Result<ExitCode, Box<dyn Error>> {
    let stage = Stage::open(std::env::current_exe()?, false)?;
    stage.guard()?;
    let bar = report::progress("starting", 1 + args.runs);
    let report = run(&stage, args, &bar)?;
    bar.finish_and_clear();
    match args.json {
        true => report::print(&report.to_json().to_string()),
        false => report::print(&report.to_table().to_string()),
    }
    Ok(ExitCode::SUCCESS)
}

fn run(
    stage: &Stage,
    args: &ColdStartArgs,
    bar: &ProgressBar,
) -> Result<ColdStartReport, Box<dyn Error>> {
    let records = Records { count: args.records, value_bytes: args.value_bytes as usize };
    let bed = Bed::new(stage.folder(), records.bytes_max(), args.shards as usize);
    bar.tick();
    // Written before: fio is to read data, not holes.
    bed.prepare()?;
    bed.run(records, true)?;
    bar.inc(1);
    let mut report = ColdStartReport {
        shards: bed.shard_count(),
        records: args.records,
        bytes: 0,
        fio: Vec::new(),
        seconds: Vec::new(),
        warm_seconds: Vec::new(),
    };
    for _ in 0..args.runs {
        let warm = start(&bed, args.records, true)?;
        report.warm_seconds.push(slowest(&warm).as_secs_f64());
        let ran = start(&bed, args.records, false)?;
        // A checkpoint counts only right after the run that left it.
        bed.run(Records::NONE, true)?;
        let blocks: u64 = ran.iter().map(|ran| ran.report.blocks).sum();
        report.bytes = blocks * u64::from(BLOCK_BYTES);
        report.seconds.push(slowest(&ran).as_secs_f64());
        report.fio.push(fio::run(Work::Read, bed.path(), report.bytes, BLOCK_BYTES, DEPTH)?);
        bar.inc(1);
    }
    Ok(report)
}

fn start(bed: &Bed, written: u64, warm: bool) -> Result<Vec<Ran>, Box<dyn Error>> {
    let ran = bed.run(Records::NONE, warm)?;
    let found: u64 = ran.iter().map(|ran| ran.stats.objects).sum();
    if found != written || ran.iter().any(|ran| (ran.report.warm > 0) != warm) {
        let warm = if warm { "warm" } else { "cold" };
        return Err(Unexpected { warm, written, found }.into());
    }
    Ok(ran)
}

/// Shards start together, and serve when the last is through.
fn slowest(ran: &[Ran]) -> Duration {
    ran.iter().map(|ran| ran.opened_in).max().unwrap_or_default()
}

impl ColdStartReport {
    fn ratios(&self) -> Vec<f64> {
        let speeds = self.seconds.iter().map(|seconds| self.bytes as f64 / seconds);
        speeds.zip(&self.fio).map(|(speed, fio)| speed / fio).collect()
    }

    fn records_per_second(&self) -> f64 {
        self.records as f64 / median(&self.seconds)
    }

    fn to_table(&self) -> Table {
        let speed = |bytes: f64| format!("{}/s", report::bytes(bytes as u64));
        let seconds = median(&self.seconds);
        let runs: Vec<_> = self.seconds.iter().map(|seconds| format!("{seconds:.2}")).collect();
        Table::default()
            .row(
                "log",
                format!(
                    "{} records in {}, {} shards",
                    report::count(self.records),
                    report::bytes(self.bytes),
                    self.shards
                ),
            )
            .row("fio", speed(median(&self.fio)))
            .row("cold start", format!("{seconds:.2} s (runs: {})", runs.join(", ")))
            .row("records", format!("{}/s", report::count(self.records_per_second() as u64)))
            .row("bytes", speed(self.bytes as f64 / seconds))
            .row("warm start", format!("{:.2} s", median(&self.warm_seconds)))
            .row("device_read_vs_fio", format!("{:.2}", median(&self.ratios())))
    }

    fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "shards": self.shards,
            "records": self.records,
            "bytes": self.bytes,
            "fio_bytes_per_second": self.fio,
            "seconds": median(&self.seconds),
            "warm_seconds": median(&self.warm_seconds),
            "seconds_runs": self.seconds,
            "records_per_second": self.records_per_second(),
            "device_read_vs_fio": median(&self.ratios()),
        })
    }
}
