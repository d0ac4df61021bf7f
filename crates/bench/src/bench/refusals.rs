//! `longship bench refusals`: what do a few records cost that the destination refuses for good?
//!
//! Records are written at a rate; a few of them have a time to live, which this destination does not
//! take from anybody. All others have to arrive, as fast as they are written, and each refused one
//! becomes a dead letter.

use std::error::Error;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use super::answer::{Unit, Wanted};
use super::nodes::{FIRST_RECORDS, NodesError, Pair, Setting};
use super::runs::Runs;
use super::scene::Scene;
use crate::cores;
use crate::report;
use crate::stage::Stage;

/// After the last write, how long what still waits may take.
const PATIENCE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

/// Measures shipping beside records that the destination refuses.
#[derive(clap::Args)]
pub(crate) struct RefusalsArgs {
    /// Records written.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(100..))]
    records: u64,
    /// How long that takes.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Records that are refused.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=50))]
    refused: u64,
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=99))]
    runs: u64,
    /// Print the result as one line of JSON.
    #[arg(long)]
    json: bool,
}

/// What became of the records.
#[derive(Clone, Copy)]
struct Settled {
    shipped: u64,
    letters: u64,
    seconds_without: u64,
    /// From the last write until nothing waited.
    rest: Duration,
}

/// Runs the command.
pub(super) fn command(args: &RefusalsArgs) -> Result<ExitCode, Box<dyn Error>> {
    let stage = Stage::open(std::env::current_exe()?, false)?;
    stage.guard()?;
    let bar = report::progress("shipping", args.runs);
    bar.tick();
    let scene = Scene::now();
    let setting = Setting { records: args.records, value_bytes: 100, cached: true };
    let mut runs: [Runs; 4] = Default::default();
    for _ in 0..args.runs {
        let settled = args.measure(&stage, &setting, scene.cpus)?;
        runs[0].push(settled.shipped as f64);
        runs[1].push(settled.letters as f64);
        runs[2].push(settled.seconds_without as f64);
        runs[3].push(settled.rest.as_secs_f64());
        bar.inc(1);
    }
    bar.finish_and_clear();
    let [shipped, letters, without, rest] = &runs;
    let off = |letter: &f64| (letter - args.refused as f64).abs();
    let off = Runs(letters.0.iter().map(off).collect());
    let wanted = (args.records - args.refused - args.records / 50_000) as f64;
    scene
        .answer("refusals")
        .fact("records", format!("{} in {} s", report::count(args.records), args.seconds))
        .fact("refused", report::count(args.refused))
        .fact("nodes", setting.text())
        .target("shipped", Unit::Count, shipped, Wanted::AtLeast(wanted))
        .figure("letters", Unit::Count, letters)
        .target("letters_too_many_or_missing", Unit::Count, &off, Wanted::AtMost(0.0))
        .target("seconds_without_success", Unit::Count, without, Wanted::AtMost(0.0))
        .figure("seconds_until_nothing_waited", Unit::Seconds, rest)
        .print(args.json);
    Ok(ExitCode::SUCCESS)
}

impl RefusalsArgs {
    fn measure(
        &self,
        stage: &Stage,
        setting: &Setting,
        cpus: [usize; 2],
    ) -> Result<Settled, NodesError> {
        let Self { records, seconds, refused, .. } = *self;
        let Pair { mut source, destination } = Pair::start(stage, setting, cpus)?;
        source.set("allow-ttl-without-nsup", "true")?;
        let writer = source.writer().with_a_life_every(records / refused);
        let content = setting.content();
        let mut settled = thread::scope(|scope| {
            let write = || writer.put_paced(&content, 0..records, records / seconds, |_, _, _| {});
            let written = scope.spawn(move || cores::on(cpus[1], write));
            let without = Self::watch(&mut source, || !written.is_finished())?;
            written.join().expect("a writer does not panic")??;
            Ok::<_, NodesError>(Settled {
                shipped: 0,
                letters: 0,
                seconds_without: without,
                rest: Duration::ZERO,
            })
        })?;
        let end = Instant::now();
        while source.shipped()?.outstanding > 0 && end.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(10));
        }
        settled.rest = end.elapsed();
        settled.shipped = source.shipped()?.success - FIRST_RECORDS;
        [settled.letters] = source.sums(["dead_letters"])?;
        source.end()?;
        destination.end()?;
        Ok(settled)
    }

    /// Whole seconds in which nothing was acknowledged.
    fn watch(
        source: &mut super::nodes::Source<'_>,
        goes_on: impl Fn() -> bool,
    ) -> Result<u64, NodesError> {
        let (mut without, mut last) = (0, source.shipped()?.success);
        loop {
            thread::sleep(SECOND);
            if !goes_on() {
                return Ok(without);
            }
            let success = source.shipped()?.success;
            without += u64::from(success == last);
            last = success;
        }
    }
}
