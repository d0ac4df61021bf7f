//! `longship bench scale`: what does a record cost, with more DCs, more lanes, larger values?
//!
//! Each point is a destination that catches up from the queues, as in `ship`, several times over
//! with the same records: records per second of all that time, and time spent on CPUs per record at
//! either end. A record that ships to four DCs is four. All DCs are at the one destination node.
//!
//! What large values cost is mostly the copying of their bytes, and how fast that goes is the
//! machine's affair, and its neighbours': beside each size, bare frames of that size (`ceiling`).

use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use longship::model::PARTITION_COUNT;

use super::answer::{Answer, Unit};
use super::ceiling::{self, CeilingError};
use super::nodes::{
    DESTINATION, Dc, Destination, FIRST_RECORDS, NodesError, SOURCE, Setting, Source,
};
use super::runs::Runs;
use super::scene::Scene;
use super::ship::PIPELINE;
use crate::cores;
use crate::report;
use crate::stage::Stage;

/// How often a point's destination is stopped and catches up. Once is over in 0.3 s, and what is
/// measured then is now and again a CPU that the machine lent to somebody else.
const ROUNDS: u64 = 4;
/// The same, for large values: one round of those takes anything from 0.17 to 0.32 s.
const LARGE_ROUNDS: u64 = 16;
const LARGE_BYTES: u64 = 10_000;
/// Bytes of the values of a round, at most: the nodes keep [`ROUNDS`] of them in memory.
const ROUND_BYTES: u64 = 256 << 20;

/// Measures what a record costs with more DCs, more lanes, larger values.
#[derive(clap::Args)]
pub(crate) struct ScaleArgs {
    /// Records of each round, fewer where they are large.
    #[arg(long, default_value_t = 400_000, value_parser = clap::value_parser!(u64).range(1..))]
    records: u64,
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=99))]
    runs: u64,
    /// Numbers of DCs.
    #[arg(long, value_delimiter = ',', default_value = "1,2,4,8")]
    dcs: Vec<u16>,
    /// Numbers of lanes touched.
    #[arg(long, value_delimiter = ',', default_value = "16,64,256,1024,4096")]
    lanes: Vec<usize>,
    /// Sizes of values in bytes.
    #[arg(long, value_delimiter = ',', default_value = "10,100,1000,10000,100000")]
    values: Vec<u64>,
    /// Print the result as one line of JSON.
    #[arg(long)]
    json: bool,
}

/// One point.
struct Point {
    name: String,
    dcs: u16,
    lanes: usize,
    /// Of each round.
    records: u64,
    rounds: u64,
    /// Has room for [`ROUNDS`]; those after them write over the first.
    setting: Setting,
    /// Measured beside bare frames.
    has_ceiling: bool,
}

impl ScaleArgs {
    fn points(&self) -> Vec<Point> {
        let point = |name: String, dcs: u16, lanes: usize, value_bytes: u64| {
            let most = ROUND_BYTES / u64::from(dcs) / (value_bytes + 100);
            let records = self.records.min(most).max(1);
            let rounds = if value_bytes < LARGE_BYTES { ROUNDS } else { LARGE_ROUNDS };
            let setting = Setting { records: records * ROUNDS, value_bytes, cached: true };
            Point { name, dcs, lanes, records, rounds, setting, has_ceiling: false }
        };
        let dcs =
            self.dcs.iter().map(|&dcs| point(format!("dcs_{dcs}"), dcs, PARTITION_COUNT, 100));
        let lanes = self.lanes.iter().map(|&lanes| point(format!("lanes_{lanes}"), 1, lanes, 100));
        let values = self.values.iter();
        let values = values.map(|&bytes| Point {
            has_ceiling: true,
            ..point(format!("value_{bytes}"), 1, PARTITION_COUNT, bytes)
        });
        dcs.chain(lanes).chain(values).collect()
    }
}

/// Runs the command.
pub(super) fn command(args: &ScaleArgs) -> Result<ExitCode, Box<dyn Error>> {
    let stage = Stage::open(std::env::current_exe()?, false)?;
    stage.guard()?;
    let points = args.points();
    let bar = report::progress("shipping", points.len() as u64 * args.runs);
    bar.tick();
    let scene = Scene::now();
    let mut answer = scene
        .answer("scale")
        .fact("records", format!("{} a round, fewer of large ones", report::count(args.records)))
        .fact("rounds", format!("{ROUNDS} a point, {LARGE_ROUNDS} of large ones"));
    for point in &points {
        let mut runs: [Runs; 3] = Default::default();
        let mut of_ceiling = Runs::default();
        for _ in 0..args.runs {
            let figures = point.measure(&stage, scene.cpus)?;
            runs.iter_mut().zip(figures).for_each(|(runs, figure)| runs.push(figure));
            if point.has_ceiling {
                of_ceiling.push(figures[0] / point.ceiling(scene.cpus)?);
            }
            bar.inc(1);
        }
        answer = add(answer, &point.name, &runs);
        if point.has_ceiling {
            let name = format!("{}_of_ceiling", point.name);
            answer = answer.figure(name, Unit::Ratio, &of_ceiling);
        }
    }
    bar.finish_and_clear();
    answer.print(args.json);
    Ok(ExitCode::SUCCESS)
}

fn add(answer: Answer, name: &str, [rate, source, destination]: &[Runs; 3]) -> Answer {
    answer
        .figure(format!("{name}_records_per_s"), Unit::PerSecond, rate)
        .figure(format!("{name}_source_us"), Unit::Ratio, source)
        .figure(format!("{name}_destination_us"), Unit::Ratio, destination)
}

impl Point {
    /// Bare frames of this size per second.
    fn ceiling(&self, cpus: [usize; 2]) -> Result<f64, CeilingError> {
        let Setting { records, value_bytes, .. } = self.setting;
        let taken = ceiling::run(records, value_bytes as usize, cpus)?;
        Ok(records as f64 / taken.as_secs_f64())
    }

    /// Records per second; microseconds per record on CPUs of the source, of the destination.
    fn measure(&self, stage: &Stage, cpus: [usize; 2]) -> Result<[f64; 3], NodesError> {
        let (setting, content) = (&self.setting, self.setting.content());
        let mut destination = Destination::start(stage, setting, (DESTINATION, None), cpus[1])?;
        let dcs = Dc::several(self.dcs, destination.port);
        let mut source = Source::start(stage, setting, cpus[0], &dcs, dcs.len())?;
        let lanes = self.lanes;
        // Takes seconds for few lanes: before the destination is stopped, which it would give up.
        let chosen: Vec<u64> = (0..)
            .filter(|&record| lanes == PARTITION_COUNT || content.partition(record) < lanes)
            .take(self.records as usize)
            .collect();
        let writer = source.writer();
        let changes = self.records * u64::from(self.dcs);
        let mut shipped = source.shipped()?.success;
        let (mut caught_up, mut costs) = (Duration::ZERO, [Duration::ZERO; 2]);
        for _ in 0..self.rounds {
            destination.await_flushed()?;
            stage.signal(DESTINATION, "STOP")?;
            cores::on(cpus[1], || writer.put(&content, chosen.iter().copied(), PIPELINE, || {}))??;
            source.await_flushed()?;
            let spent = [stage.cpu_time(SOURCE)?, stage.cpu_time(DESTINATION)?];
            let start = Instant::now();
            stage.signal(DESTINATION, "CONT")?;
            shipped += changes;
            let (end, _) = source.await_shipped(shipped)?;
            caught_up += end.duration_since(start);
            for ((cost, name), before) in costs.iter_mut().zip([SOURCE, DESTINATION]).zip(spent) {
                *cost += stage.cpu_time(name)?.saturating_sub(before);
            }
        }
        destination.check_objects(FIRST_RECORDS + self.records)?;
        source.end()?;
        destination.end()?;
        let changes = (changes * self.rounds) as f64;
        let [source, destination] = costs.map(|cost| cost.as_secs_f64() * 1e6 / changes);
        Ok([changes / caught_up.as_secs_f64(), source, destination])
    }
}
