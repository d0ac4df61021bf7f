//! `longship bench ship`: how fast does a destination catch up that was away for a while?
//!
//! A source and a destination of one shard each run on a CPU each. The destination is stopped
//! (SIGSTOP), records are written to the source and wait in its queues, and the destination is
//! continued (SIGCONT). The figure is records per second from then until the source has the last
//! one acknowledged. Both store on a device; the source finds what it ships in its write-block
//! cache.
//!
//! - `catch_up_vs_redis`: over Redis doing the same, with the same CPUs and the same pipeline:
//!   a replica that was stopped, SETs of the same keys and values, continued, until its offset is
//!   that of its server. Redis stores nothing on a device, and may queue without a limit.
//! - `catch_up_vs_ceiling`: over frames written, parsed, hashed and acknowledged by two threads on
//!   these CPUs (see `ceiling`).
//! - `--recovery`: shipping is paused while the records are written, and resumed, which finds them
//!   again by a walk. `recovery_vs_queue` is over the same by the queues.
//! - `--cold`: the source has no write-block cache and reads its device. `cold_vs_cached` is over
//!   the same with the cache.
//! - `--steady`: see `steady`.
//!
//! What is compared takes turns; ratios are of neighbours, and their median counts.

use std::error::Error;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;

use super::answer::{Answer, Unit, Wanted};
use super::nodes::{self, NodesError, Pair, Setting};
use super::redis::{self, RedisError};
use super::runs::Runs;
use super::scene::{POLL_MS, Scene};
use super::{ceiling, steady};
use crate::cores;
use crate::report;
use crate::stage::Stage;

/// Requests unanswered while records are written.
pub(super) const PIPELINE: usize = 256;

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
    #[command(flatten)]
    way: WayArgs,
    /// Leave out what is measured beside it.
    #[arg(long)]
    alone: bool,
    /// Print the result as one line of JSON.
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
#[group(multiple = false)]
struct WayArgs {
    /// Catch up by recovery, beside catching up from the queues.
    #[arg(long)]
    recovery: bool,
    /// Catch up from the device, beside catching up from memory.
    #[arg(long)]
    cold: bool,
    /// Write and ship at the same time, beside Redis.
    #[arg(long)]
    steady: bool,
}

/// How the destination is kept away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Away {
    /// Its process is stopped: changes wait in the queues.
    Stopped,
    /// Shipping is paused: changes are found again by recovery.
    Paused,
}

/// What one catching up gave.
pub(super) struct Caught {
    pub(super) records_per_s: f64,
    /// Writing them before.
    pub(super) written_per_s: f64,
    pub(super) device_reads: u64,
    pub(super) retries: String,
}

/// Runs the command.
pub(super) fn command(args: &ShipArgs) -> Result<ExitCode, Box<dyn Error>> {
    let stage = Stage::open(std::env::current_exe()?, false)?;
    stage.guard()?;
    let bar = report::progress("shipping", args.runs);
    bar.tick();
    let setting = Setting { records: args.records, value_bytes: args.value_bytes, cached: true };
    let bed = Bed { stage: &stage, scene: Scene::now(), setting, runs: args.runs, bar: &bar };
    let answer = match args.way {
        WayArgs { recovery: true, .. } => bed.recovery(args.alone)?,
        WayArgs { cold: true, .. } => bed.cold(args.alone)?,
        WayArgs { steady: true, .. } => steady::run(&bed, args.alone)?,
        _ => bed.queue(args.alone)?,
    };
    bar.finish_and_clear();
    answer.print(args.json);
    Ok(ExitCode::SUCCESS)
}

/// What all ways of shipping are measured on.
pub(super) struct Bed<'a> {
    pub(super) stage: &'a Stage,
    pub(super) scene: Scene,
    pub(super) setting: Setting,
    pub(super) runs: u64,
    pub(super) bar: &'a ProgressBar,
}

impl Bed<'_> {
    fn queue(&self, alone: bool) -> Result<Answer, Box<dyn Error>> {
        let (mut ours, mut written, mut last) = (Runs::default(), Runs::default(), None);
        let (mut redis, mut bare) = (Runs::default(), Runs::default());
        let Setting { records, value_bytes, .. } = self.setting;
        for _ in 0..self.runs {
            let caught = self.catch_up(&self.setting, Away::Stopped)?;
            ours.push(caught.records_per_s);
            written.push(caught.written_per_s);
            last = Some(caught);
            if !alone {
                redis.push(self.redis_catches_up()?);
                let taken = ceiling::run(records, value_bytes as usize, self.scene.cpus)?;
                bare.push(records as f64 / taken.as_secs_f64());
            }
            self.bar.inc(1);
        }
        let mut answer = self.answer("ship");
        if !alone {
            answer = answer.fact("redis", redis::settings());
        }
        if let Some(last) = last {
            answer = answer
                .fact("device reads", report::count(last.device_reads))
                .fact("retries", last.retries);
        }
        Ok(answer
            .figure("written", Unit::PerSecond, &written)
            .figure("redis", Unit::PerSecond, &redis)
            .figure("ceiling", Unit::PerSecond, &bare)
            .target("catch_up_records_per_s", Unit::PerSecond, &ours, Wanted::AtLeast(1e6))
            .target("catch_up_vs_redis", Unit::Ratio, &ours.over(&redis), Wanted::AtLeast(3.0))
            .target("catch_up_vs_ceiling", Unit::Ratio, &ours.over(&bare), Wanted::AtLeast(0.3)))
    }

    fn recovery(&self, alone: bool) -> Result<Answer, Box<dyn Error>> {
        let [recovered, queued, reads] = self.beside(alone, (&self.setting, Away::Paused))?;
        let ratio = recovered.over(&queued);
        Ok(self
            .answer("ship --recovery")
            .figure("device_reads", Unit::Count, &reads)
            .figure("queue_records_per_s", Unit::PerSecond, &queued)
            .figure("recovery_records_per_s", Unit::PerSecond, &recovered)
            .target("recovery_vs_queue", Unit::Ratio, &ratio, Wanted::AtLeast(0.8)))
    }

    fn cold(&self, alone: bool) -> Result<Answer, Box<dyn Error>> {
        let uncached = Setting { cached: false, ..self.setting.clone() };
        let [cold, cached, reads] = self.beside(alone, (&uncached, Away::Stopped))?;
        let ratio = cold.over(&cached);
        Ok(self
            .answer("ship --cold")
            .figure("device_reads", Unit::Count, &reads)
            .figure("cached_records_per_s", Unit::PerSecond, &cached)
            .figure("cold_records_per_s", Unit::PerSecond, &cold)
            .target("cold_vs_cached", Unit::Ratio, &ratio, Wanted::AtLeast(0.6)))
    }

    /// Rates of catching up in that way, of catching up from the queues and memory beside it, and
    /// the first one's device reads.
    fn beside(
        &self,
        alone: bool,
        (setting, away): (&Setting, Away),
    ) -> Result<[Runs; 3], NodesError> {
        let mut runs: [Runs; 3] = Default::default();
        for _ in 0..self.runs {
            let caught = self.catch_up(setting, away)?;
            runs[0].push(caught.records_per_s);
            runs[2].push(caught.device_reads as f64);
            if !alone {
                runs[1].push(self.catch_up(&self.setting, Away::Stopped)?.records_per_s);
            }
            self.bar.inc(1);
        }
        Ok(runs)
    }

    pub(super) fn answer(&self, bench: &'static str) -> Answer {
        let Setting { records, value_bytes, .. } = self.setting;
        self.scene
            .answer(bench)
            .fact("records", format!("{} of {value_bytes} bytes", report::count(records)))
            .fact("writer", format!("CPU {}, {PIPELINE} unanswered", self.scene.cpus[1]))
            .fact("nodes", self.setting.text())
    }

    /// Has a destination catch up.
    pub(super) fn catch_up(&self, setting: &Setting, away: Away) -> Result<Caught, NodesError> {
        let (content, records, cpus) = (setting.content(), setting.records, self.scene.cpus);
        let mut pair = Pair::start(self.stage, setting, cpus)?;
        let (before, reads) = (pair.source.shipped()?, pair.source.device_reads()?);
        match away {
            Away::Stopped => self.stage.signal(nodes::DESTINATION, "STOP")?,
            Away::Paused => pair.source.pause()?,
        }
        let writer = pair.source.writer();
        let start = Instant::now();
        cores::on(cpus[1], || writer.put(&content, 0..records, PIPELINE, || {}))??;
        let written_per_s = records as f64 / start.elapsed().as_secs_f64();
        pair.source.await_flushed()?;
        let start = Instant::now();
        match away {
            Away::Stopped => self.stage.signal(nodes::DESTINATION, "CONT")?,
            Away::Paused => pair.source.resume()?,
        }
        let (end, _) = pair.source.await_shipped(before.success + records)?;
        let caught = Caught {
            records_per_s: records as f64 / end.duration_since(start).as_secs_f64(),
            written_per_s,
            device_reads: pair.source.device_reads()? - reads,
            retries: pair.source.retries()?,
        };
        pair.end_with(records)?;
        Ok(caught)
    }

    /// Records per second that a replica catches up with, which was stopped while they were set.
    fn redis_catches_up(&self) -> Result<f64, RedisError> {
        let (content, records, cpus) =
            (self.setting.content(), self.setting.records, self.scene.cpus);
        let pair = redis::Pair::start(self.stage, cpus)?;
        let (mut server, mut replica) = (pair.server()?, pair.replica()?);
        self.stage.signal(redis::REPLICA_NAME, "STOP")?;
        cores::on(cpus[1], || server.set_all(&content, 0..records, PIPELINE, || {}))??;
        let offset = server.offset()?;
        let start = Instant::now();
        self.stage.signal(redis::REPLICA_NAME, "CONT")?;
        while replica.offset()? < offset {
            thread::sleep(Duration::from_millis(POLL_MS));
        }
        let taken = start.elapsed();
        pair.end_with(self.stage, records)?;
        Ok(records as f64 / taken.as_secs_f64())
    }
}
