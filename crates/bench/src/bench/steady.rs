//! `longship bench ship --steady`: how fast do records come in and go out at the same time?
//!
//! A writer puts records into the source as fast as it answers, but waits whenever more than
//! [`BEHIND_MAX`] of them are not shipped yet. The figure is records per second from the first
//! write until the last one is acknowledged by the destination. The writer shares the
//! destination's CPU. Redis does the same, and its writer waits likewise.

use std::error::Error;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::answer::{Answer, Unit, Wanted};
use super::nodes::{NodesError, Pair};
use super::redis::{self, RedisError};
use super::runs::Runs;
use super::scene::POLL_MS;
use super::ship::{Bed, PIPELINE};
use crate::cores::{self, NotAllowed};
use crate::report;

/// Records the destination may be behind while the writer writes.
const BEHIND_MAX: u64 = 50_000;
/// What a writer waits between two looks at how far it is ahead.
const AHEAD_PAUSE: Duration = Duration::from_micros(500);
const POLL: Duration = Duration::from_millis(POLL_MS);

/// How far the destination is behind.
#[derive(Default)]
pub(super) struct Behind {
    records: AtomicU64,
    written: AtomicBool,
}

impl Behind {
    /// For the writer, before each record.
    pub(super) fn wait(&self) {
        while self.records.load(Ordering::Relaxed) > BEHIND_MAX {
            thread::sleep(AHEAD_PAUSE);
        }
    }

    /// Writes on a CPU, while `look` says how far the destination is behind, until it is not.
    pub(super) fn run<E: From<NotAllowed> + Send>(
        cpu: usize,
        write: impl FnOnce(&Self) -> Result<(), E> + Send,
        mut look: impl FnMut() -> Result<u64, E>,
    ) -> Result<Duration, E> {
        let behind = Self::default();
        thread::scope(|scope| {
            let start = Instant::now();
            let writer = scope.spawn(|| {
                let written = cores::on(cpu, || write(&behind));
                behind.written.store(true, Ordering::Release);
                written?
            });
            loop {
                let written = behind.written.load(Ordering::Acquire);
                match look() {
                    Ok(0) if written => break,
                    Ok(records) => behind.records.store(records, Ordering::Relaxed),
                    Err(error) => {
                        behind.records.store(0, Ordering::Relaxed);
                        return Err(error);
                    }
                }
                thread::sleep(POLL);
            }
            let taken = start.elapsed();
            writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            Ok(taken)
        })
    }
}

/// Measures both in turns.
pub(super) fn run(bed: &Bed<'_>, alone: bool) -> Result<Answer, Box<dyn Error>> {
    let (mut ours, mut redis) = (Runs::default(), Runs::default());
    for _ in 0..bed.runs {
        ours.push(longship(bed)?);
        if !alone {
            redis.push(redis_server(bed)?);
        }
        bed.bar.inc(1);
    }
    let mut answer = bed.answer("ship --steady");
    if !alone {
        answer = answer.fact("redis", redis::settings());
    }
    let behind = format!("{} records behind at most", report::count(BEHIND_MAX));
    Ok(answer
        .fact("destination may be", behind)
        .figure("redis", Unit::PerSecond, &redis)
        .figure("steady_records_per_s", Unit::PerSecond, &ours)
        .target("steady_vs_redis", Unit::Ratio, &ours.over(&redis), Wanted::AtLeast(1.5)))
}

fn longship(bed: &Bed<'_>) -> Result<f64, NodesError> {
    let (content, records) = (bed.setting.content(), bed.setting.records);
    let mut pair = Pair::start(bed.stage, &bed.setting, bed.scene.cpus)?;
    let writer = pair.source.writer();
    let taken = Behind::run(
        bed.scene.cpus[1],
        |behind| writer.put(&content, 0..records, PIPELINE, || behind.wait()),
        || Ok(pair.source.shipped()?.outstanding),
    )?;
    pair.end_with(records)?;
    Ok(records as f64 / taken.as_secs_f64())
}

fn redis_server(bed: &Bed<'_>) -> Result<f64, RedisError> {
    let (content, records) = (bed.setting.content(), bed.setting.records);
    let pair = redis::Pair::start(bed.stage, bed.scene.cpus)?;
    let (mut server, mut replica) = (pair.server()?, pair.replica()?);
    let mut writer = pair.server()?;
    let record_bytes = redis::set_bytes(&content);
    let taken = Behind::run(
        bed.scene.cpus[1],
        |behind| writer.set_all(&content, 0..records, PIPELINE, || behind.wait()),
        || {
            let applied = replica.offset()?;
            Ok(server.offset()?.saturating_sub(applied).div_ceil(record_bytes))
        },
    )?;
    pair.end_with(bed.stage, records)?;
    Ok(records as f64 / taken.as_secs_f64())
}
