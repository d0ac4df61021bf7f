//! `longship bench write`: how fast does the log take writes?
//!
//! - `write_vs_fio`: bytes of records per second that one shard's storage makes durable, over what
//!   fio writes sequentially to another file of the same size on the same device, in blocks of the
//!   size and number that the storage has on their way. Both files are written over once before.
//!   Runs alternate; the figure is the median of the ratios of neighbours. fio's last flush is not
//!   counted, the storage's is. Where a durable write is cheap the storage makes each of its writes
//!   durable: fio doing the same (`O_DSYNC`) stands beside it. The records are large, so that the
//!   log is measured and not what a record costs. Expected: 0.90 or more.
//! - the same for records of 1 KiB, where that cost is what counts: records per second.
//! - puts per second through the client protocol, by a node of one shard, load beside it.
//! - context switches of kernel I/O workers while the storage wrote: each is work that left the
//!   fast path. Flushes of the device are such work; expected are no others.

use std::error::Error;
use std::process::ExitCode;

use indicatif::ProgressBar;
use longship_node::storage::write::{PIECE_BYTES_MAX, PIECES_IN_FLIGHT_MAX};

use super::fio::{self, Work};
use super::median;
use super::storage::{Bed, Records, prepare};
use crate::content::Content;
use crate::cores;
use crate::load::{self, Pressure};
use crate::node_text::NodeText;
use crate::report::{self, Table};
use crate::stage::Stage;

/// Measures log writes against fio, and puts through the client protocol.
#[derive(clap::Args)]
pub(crate) struct WriteArgs {
    /// MiB of records each run writes.
    #[arg(long, default_value_t = 2048, value_parser = clap::value_parser!(u64).range(1..=65_536))]
    mib: u64,
    /// Bytes of each record's value.
    #[arg(long, default_value_t = 65_536, value_parser = clap::value_parser!(u64).range(..=65_536))]
    value_bytes: u64,
    /// Runs of fio and of the storage, in turns.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=99))]
    runs: u64,
    /// Records put through the client protocol, of 100 bytes.
    #[arg(long, default_value_t = 500_000)]
    puts: u64,
    /// Print the result as one line of JSON.
    #[arg(long)]
    json: bool,
}

struct WriteReport {
    /// Bytes per second of each run.
    fio: Vec<f64>,
    fio_durable: Vec<f64>,
    storage: Vec<f64>,
    value_bytes: u64,
    /// Of 1 KiB.
    records_per_second: f64,
    worker_switches: u64,
    puts_per_second: f64,
    place: cores::Place,
}

/// Runs the command.
pub(super) fn command(args: &WriteArgs) -> Result<ExitCode, Box<dyn Error>> {
    let stage = Stage::open(std::env::current_exe()?, false)?;
    stage.guard()?;
    let bar = report::progress("writing", 2 + args.runs);
    let report = run(&stage, args, &bar)?;
    bar.finish_and_clear();
    match args.json {
        true => report::print(&report.to_json().to_string()),
        false => report::print(&report.to_table().to_string()),
    }
    Ok(ExitCode::SUCCESS)
}

fn run(stage: &Stage, args: &WriteArgs, bar: &ProgressBar) -> Result<WriteReport, Box<dyn Error>> {
    let value_bytes = args.value_bytes as usize;
    let records = Records { count: (args.mib << 20) / (args.value_bytes + 80), value_bytes };
    let bed = Bed::new(stage.folder(), records.bytes_max(), 1);
    let yardstick = stage.folder().join("yardstick");
    bar.tick();
    bed.prepare()?;
    prepare(&yardstick, bed.bytes())?;
    bar.inc(1);
    let (mut fio, mut fio_durable, mut storage) = (Vec::new(), Vec::new(), Vec::new());
    let mut worker_switches = 0;
    for _ in 0..args.runs {
        let (size, depth) = (PIECE_BYTES_MAX as u32, PIECES_IN_FLIGHT_MAX as u32);
        let fio_does = |work| fio::run(work, &yardstick, args.mib << 20, size, depth);
        fio_durable.push(fio_does(Work::WriteDurably)?);
        fio.push(fio_does(Work::Write)?);
        bed.prepare()?;
        let ran = bed.run(records, false)?.swap_remove(0);
        storage.push(ran.stats.used_bytes as f64 / ran.written_in.as_secs_f64());
        worker_switches += ran.worker_switches;
        bar.inc(1);
    }
    bed.prepare()?;
    let small = Records { count: (args.mib << 20) / (1024 + 128), value_bytes: 1024 };
    let ran = bed.run(small, false)?.swap_remove(0);
    let records_per_second = ran.stats.objects as f64 / ran.written_in.as_secs_f64();
    let (puts_per_second, place) = puts(stage, args.puts)?;
    bar.inc(1);
    let value_bytes = args.value_bytes;
    Ok(WriteReport {
        fio,
        fio_durable,
        storage,
        value_bytes,
        records_per_second,
        worker_switches,
        puts_per_second,
        place,
    })
}

/// Puts per second that a node of one shard acknowledges, and where the load ran.
fn puts(stage: &Stage, records: u64) -> Result<(f64, cores::Place), Box<dyn Error>> {
    let content = Content {
        namespace: "bench".into(),
        set: String::new(),
        records,
        value_bytes: 100,
        update_percent: 0,
        delete_percent: 0,
        seed: 1,
    };
    let cpus = cores::allowed();
    let gigabytes = (records * 400).div_ceil(1 << 30).max(1);
    let work = stage.work_directory("node");
    let ports = stage.start("node", &node_config(&work.to_string_lossy(), cpus[0], gigabytes))?;
    let place = cores::settle_on(cpus.last().copied())?;
    let pressure = Pressure { connections: 1, pipeline: 256, rate: 0 };
    let seed = format!("127.0.0.1:{}", ports[0]);
    let loaded = load::run(&seed, &content, pressure, &ProgressBar::hidden())?;
    Ok((loaded.per_second(), place))
}

fn node_config(work: &str, cpu: usize, gigabytes: u64) -> String {
    let text = NodeText {
        work,
        service: &[("shards", "1".into()), ("cpu-set", cpu.to_string())],
        network: &[],
        namespace: "bench",
        file: "bench.log",
        storage: &[("filesize", format!("{gigabytes}G"))],
        xdr: "",
    };
    text.format()
}

impl WriteReport {
    fn ratios(&self) -> Vec<f64> {
        self.storage.iter().zip(&self.fio).map(|(storage, fio)| storage / fio).collect()
    }

    fn to_table(&self) -> Table {
        let per_second = |speeds: &[f64]| {
            let runs: Vec<_> = speeds.iter().map(|speed| report::bytes(*speed as u64)).collect();
            format!("{}/s (runs: {})", report::bytes(median(speeds) as u64), runs.join(", "))
        };
        Table::default()
            .row("fio", per_second(&self.fio))
            .row("fio, durable", per_second(&self.fio_durable))
            .row("storage", per_second(&self.storage))
            .row(
                "write_vs_fio",
                format!(
                    "{:.2}, records of {}",
                    median(&self.ratios()),
                    report::bytes(self.value_bytes)
                ),
            )
            .row("1 KiB", format!("{} records/s", report::count(self.records_per_second as u64)))
            .row("workers", format!("{} context switches", report::count(self.worker_switches)))
            .row("puts", format!("{}/s", report::count(self.puts_per_second as u64)))
            .row("load", self.place.to_string())
    }

    fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "fio_bytes_per_second": self.fio,
            "fio_durable_bytes_per_second": self.fio_durable,
            "storage_bytes_per_second": self.storage,
            "write_vs_fio": median(&self.ratios()),
            "value_bytes": self.value_bytes,
            "records_per_second_1_kib": self.records_per_second,
            "worker_switches": self.worker_switches,
            "puts_per_second": self.puts_per_second,
            "load_core": self.place.to_json(),
        })
    }
}

#[cfg(test)]
mod tests {
    use longship_node::config::Config;

    use super::*;

    #[test]
    fn the_node_accepts_its_configuration() {
        let text = node_config("/tmp/x", 0, 1);
        Config::parse(&text, "bench").unwrap_or_else(|errors| panic!("{errors}\n{text}"));
    }
}
