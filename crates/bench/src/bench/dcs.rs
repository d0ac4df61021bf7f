//! `longship bench dcs`: do DCs that were made and deleted leave something behind that writes pay
//! for?
//!
//! Records are written over and over, as fast as the node takes them; then many DCs are made and
//! deleted by info commands, and the same records are written again. Figures are writes per second
//! after and before, time the node spent on CPUs for a write, which others on the machine change less,
//! and what a command took.

use std::error::Error;
use std::process::ExitCode;
use std::time::Instant;

use super::answer::{Unit, Wanted};
use super::nodes::{NodesError, SOURCE, Setting, Source, Writer};
use super::runs::Runs;
use super::scene::Scene;
use super::ship::PIPELINE;
use crate::cores;
use crate::report;
use crate::stage::Stage;

/// Rounds of writes before, and after: the middle one of them counts.
const ROUNDS: usize = 5;

/// Measures writes before and after many DCs were made and deleted.
#[derive(clap::Args)]
pub(crate) struct DcsArgs {
    /// DCs made and deleted.
    #[arg(long, default_value_t = 30_000, value_parser = clap::value_parser!(u64).range(1..))]
    dcs: u64,
    /// Records of a round of writes.
    #[arg(long, default_value_t = 400_000, value_parser = clap::value_parser!(u64).range(1..))]
    records: u64,
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=99))]
    runs: u64,
    /// Print the result as one line of JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(super) fn command(args: &DcsArgs) -> Result<ExitCode, Box<dyn Error>> {
    let stage = Stage::open(std::env::current_exe()?, false)?;
    stage.guard()?;
    let bar = report::progress("making and deleting DCs", args.runs * args.dcs);
    bar.tick();
    let scene = Scene::now();
    // Room for all rounds' writes.
    let space = args.records * (2 * ROUNDS as u64 + 2);
    let setting = Setting { records: space, value_bytes: 100, cached: false };
    let mut runs: [Runs; 5] = Default::default();
    for _ in 0..args.runs {
        let mut source = Source::start(&stage, &setting, scene.cpus[0], &[], 0)?;
        let writer = source.writer();
        let written = || written(&stage, &writer, &setting, args.records, scene.cpus[1]);
        written()?;
        let (rate, cost) = written()?;
        runs[0].push(rate);
        runs[3].push(cost);
        let start = Instant::now();
        for number in 0..args.dcs {
            source.make_and_delete(&format!("passing-{}", number % 100))?;
            bar.inc(1);
        }
        runs[2].push(start.elapsed().as_secs_f64() * 1e6 / (2 * args.dcs) as f64);
        let (rate, cost) = written()?;
        runs[1].push(rate);
        runs[4].push(cost);
        source.end()?;
    }
    bar.finish_and_clear();
    let [before, after, command, cost_before, cost_after] = &runs;
    scene
        .answer("dcs")
        .fact("dcs", report::count(args.dcs))
        .fact("writes", format!("{} a round, {ROUNDS} rounds", report::count(args.records)))
        .figure("writes_per_s_before", Unit::PerSecond, before)
        .figure("writes_per_s_after", Unit::PerSecond, after)
        .figure("command_us", Unit::Micros, command)
        .figure("write_cpu_us_before", Unit::Precise, cost_before)
        .figure("write_cpu_us_after", Unit::Precise, cost_after)
        .target(
            "cpu_before_vs_after",
            Unit::Precise,
            &cost_before.over(cost_after),
            Wanted::AtLeast(0.97),
        )
        .target("after_vs_before", Unit::Precise, &after.over(before), Wanted::AtLeast(0.97))
        .print(args.json);
    Ok(ExitCode::SUCCESS)
}

/// Writes per second in the middle one of some rounds, and microseconds on CPUs for one.
fn written(
    stage: &Stage,
    writer: &Writer,
    setting: &Setting,
    records: u64,
    cpu: usize,
) -> Result<(f64, f64), NodesError> {
    let content = setting.content();
    let (mut rates, mut costs) = (Vec::with_capacity(ROUNDS), Vec::with_capacity(ROUNDS));
    for _ in 0..ROUNDS {
        let (start, spent) = (Instant::now(), stage.cpu_time(SOURCE)?);
        cores::on(cpu, || writer.put(&content, 0..records, PIPELINE, || {}))??;
        rates.push(records as f64 / start.elapsed().as_secs_f64());
        let spent = stage.cpu_time(SOURCE)?.saturating_sub(spent);
        costs.push(spent.as_secs_f64() * 1e6 / records as f64);
    }
    Ok((super::median(&rates), super::median(&costs)))
}
