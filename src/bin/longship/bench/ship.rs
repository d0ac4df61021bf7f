//! `longship bench ship`: how fast does a destination catch up that was away for a while?
//!
//! A source and a destination of one shard each run on a CPU each. The destination is stopped
//! (SIGSTOP), records are written to the source and wait in its queues, and the destination is
//! continued (SIGCONT). The figure is records per second from then until the source has the last
//! one acknowledged. Source and destination store on a device; the source finds what it ships in
//! its write-block cache.
//!
//! - `catch_up_vs_redis`: over Redis doing the same, with the same CPUs and the same pipeline:
//!   a replica that was stopped, SETs of the same keys and values, continued, until its offset is
//!   that of its server. Redis stores nothing on a device, and may queue without a limit.
//! - `catch_up_vs_ceiling`: over bare frames parsed, hashed and acknowledged by two threads on
//!   these CPUs (see `ceiling`).
//!
//! The three take turns; ratios are of neighbours, and their median counts.

use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use std::{fs, thread};

use indicatif::ProgressBar;
use serde_json::json;

use super::ceiling;
use super::nodes::{self, NodesError, Setting};
use super::redis::{self, RedisError};
use super::runs::Runs;
use crate::cores::{self, Place};
use crate::report::{self, Table};
use crate::stage::Stage;

/// Requests unanswered while records are written.
const PIPELINE: usize = 256;
/// Pause between two looks at how far catching up is.
const POLL: Duration = Duration::from_millis(5);

/// Measures how fast a destination catches up, beside Redis and the ceiling of two threads.
#[derive(clap::Args)]
pub(crate) struct ShipArgs {
    #[arg(long, default_value_t = 2_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    records: u64,
    /// Bytes of each record's value.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(..=100_000))]
    value_bytes: u64,
    /// Runs of each, in turns.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=99))]
    runs: u64,
    /// Leave out what is measured beside it.
    #[arg(long)]
    alone: bool,
    /// Print the result as one line of JSON.
    #[arg(long)]
    json: bool,
}

/// What the runs gave.
struct ShipReport {
    setting: Setting,
    cpus: [usize; 2],
    /// Of source and destination, before anything is started.
    places: [Place; 2],
    load_average: String,
    /// Records per second of each.
    longship: Runs,
    redis: Runs,
    ceiling: Runs,
    /// Writing the records, while nothing is shipped.
    load: Runs,
    /// Of the last run, by cause.
    retries: String,
    /// Of the source, while it shipped.
    device_reads: u64,
}

/// Runs the command.
pub(super) fn command(args: &ShipArgs) -> Result<ExitCode, Box<dyn Error>> {
    let stage = Stage::open(std::env::current_exe()?, false)?;
    stage.guard()?;
    let bar = report::progress("catching up", args.runs);
    let report = run(&stage, args, &bar)?;
    bar.finish_and_clear();
    match args.json {
        true => report::print(&report.to_json().to_string()),
        false => report::print(&report.to_table().to_string()),
    }
    Ok(ExitCode::SUCCESS)
}

fn run(stage: &Stage, args: &ShipArgs, bar: &ProgressBar) -> Result<ShipReport, Box<dyn Error>> {
    let setting = Setting { records: args.records, value_bytes: args.value_bytes, cached: true };
    let cpus = cores::two();
    let mut report = ShipReport {
        setting,
        cpus,
        places: cpus.map(cores::look_at),
        load_average: fs::read_to_string("/proc/loadavg").unwrap_or_default(),
        longship: Runs::default(),
        redis: Runs::default(),
        ceiling: Runs::default(),
        load: Runs::default(),
        retries: String::new(),
        device_reads: 0,
    };
    let per_second = |taken: Duration| args.records as f64 / taken.as_secs_f64();
    bar.tick();
    for _ in 0..args.runs {
        report.longship(stage)?;
        if !args.alone {
            report.redis.push(per_second(redis_catches_up(stage, &report.setting, cpus)?));
            let bare = ceiling::run(args.records, args.value_bytes as usize, cpus)?;
            report.ceiling.push(per_second(bare));
        }
        bar.inc(1);
    }
    Ok(report)
}

impl ShipReport {
    /// Has a destination catch up.
    fn longship(&mut self, stage: &Stage) -> Result<(), NodesError> {
        let (content, records) = (self.setting.content(), self.setting.records);
        let mut pair = nodes::Pair::start(stage, &self.setting, self.cpus)?;
        let before = pair.shipped()?;
        let reads = pair.device_reads()?;
        stage.signal(nodes::DESTINATION, "STOP")?;
        let start = Instant::now();
        cores::on(self.cpus[1], || pair.put(&content, 0..records, PIPELINE))??;
        self.load.push(records as f64 / start.elapsed().as_secs_f64());
        pair.await_flushed()?;
        let queued = pair.shipped()?;
        if queued.outstanding != records || queued.recoveries != before.recoveries {
            let (what, found) = ("records queued", queued.outstanding);
            return Err(NodesError::Unexpected { what, wanted: records, found });
        }
        let start = Instant::now();
        stage.signal(nodes::DESTINATION, "CONT")?;
        let (end, _) = pair.await_shipped(before.success + records)?;
        self.longship.push(records as f64 / end.duration_since(start).as_secs_f64());
        self.retries = pair.retries()?;
        self.device_reads += pair.device_reads()? - reads;
        pair.check_objects(records)?;
        pair.end()
    }

    fn to_table(&self) -> Table {
        let rate = |runs: &Runs| runs.text(|rate| format!("{}/s", report::count(rate as u64)));
        let mut table = Table::default()
            .row(
                "records",
                format!(
                    "{} of {} bytes, written {PIPELINE} at a time, then caught up with",
                    report::count(self.setting.records),
                    self.setting.value_bytes
                ),
            )
            .row("source", self.places[0].to_string())
            .row(
                "destination",
                format!("{}, and with the writer while it is stopped", self.places[1]),
            )
            .row("load average", self.load_average.trim_end())
            .row("nodes", self.setting.text())
            .row("redis", redis::settings())
            .row("written", rate(&self.load))
            .row("device reads", report::count(self.device_reads))
            .row("retries", self.retries.clone())
            .row("catch_up_records_per_s", rate(&self.longship));
        if !self.redis.0.is_empty() {
            table = table
                .row("redis", rate(&self.redis))
                .row("ceiling", rate(&self.ceiling))
                .row("catch_up_vs_redis", self.longship.over(&self.redis).to_string())
                .row("catch_up_vs_ceiling", self.longship.over(&self.ceiling).to_string());
        }
        table
    }

    fn to_json(&self) -> serde_json::Value {
        json!({
            "records": self.setting.records,
            "value_bytes": self.setting.value_bytes,
            "pipeline": PIPELINE,
            "source": self.places[0].to_json(),
            "destination": self.places[1].to_json(),
            "load_average": self.load_average.trim_end(),
            "nodes": self.setting.text(),
            "redis": redis::settings(),
            "device_reads": self.device_reads,
            "retries": self.retries,
            "written_per_s": self.load.to_json(),
            "catch_up_records_per_s": self.longship.to_json(),
            "redis_records_per_s": self.redis.to_json(),
            "ceiling_frames_per_s": self.ceiling.to_json(),
            "catch_up_vs_redis": self.longship.over(&self.redis).to_json(),
            "catch_up_vs_ceiling": self.longship.over(&self.ceiling).to_json(),
        })
    }
}

/// How long a replica takes that was stopped while the records were set.
fn redis_catches_up(
    stage: &Stage,
    setting: &Setting,
    cpus: [usize; 2],
) -> Result<Duration, RedisError> {
    let (content, records) = (setting.content(), setting.records);
    let pair = redis::Pair::start(stage, cpus)?;
    let (mut server, mut replica) = (pair.server()?, pair.replica()?);
    stage.signal(redis::REPLICA_NAME, "STOP")?;
    cores::on(cpus[1], || server.set_all(&content, 0..records, PIPELINE))??;
    let offset = server.offset()?;
    let start = Instant::now();
    stage.signal(redis::REPLICA_NAME, "CONT")?;
    while replica.offset()? < offset {
        thread::sleep(POLL);
    }
    let taken = start.elapsed();
    let keys = replica.keys()?;
    if keys != records {
        return Err(RedisError::Answer(format!("{keys} keys at the replica, not {records}")));
    }
    pair.end(stage)?;
    Ok(taken)
}
