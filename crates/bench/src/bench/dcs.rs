//! `longship bench dcs`: do DCs that were made and deleted leave something behind that writes pay
//! for?
//!
//! Records are written over and over, as fast as the node takes them; then many DCs are made and
//! deleted by info commands, and the same records are written again. Figures are writes per second
//! after and before, and what a command took.

use std::error::Error;
use std::process::ExitCode;
use std::time::Instant;

use super::answer::{Unit, Wanted};
use super::nodes::{NodesError, Setting, Source, Writer};
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
    let mut runs: [Runs; 3] = Default::default();
    for _ in 0..args.runs {
        let mut source = Source::start(&stage, &setting, scene.cpus[0], &[], 0)?;
        let writer = source.writer();
        let rate = || rate(&writer, &setting, args.records, scene.cpus[1]);
        rate()?;
        runs[0].push(rate()?);
        let start = Instant::now();
        for number in 0..args.dcs {
            source.make_and_delete(&format!("passing-{}", number % 100))?;
            bar.inc(1);
        }
        runs[2].push(start.elapsed().as_secs_f64() * 1e6 / (2 * args.dcs) as f64);
        runs[1].push(rate()?);
        source.end()?;
    }
    bar.finish_and_clear();
    let [before, after, command] = &runs;
    scene
        .answer("dcs")
        .fact("dcs", report::count(args.dcs))
        .fact("writes", format!("{} a round, {ROUNDS} rounds", report::count(args.records)))
        .figure("writes_per_s_before", Unit::PerSecond, before)
        .figure("writes_per_s_after", Unit::PerSecond, after)
        .figure("command_us", Unit::Micros, command)
        .target("after_vs_before", Unit::Precise, &after.over(before), Wanted::AtLeast(0.97))
        .print(args.json);
    Ok(ExitCode::SUCCESS)
}

/// Writes per second in the middle one of some rounds.
fn rate(writer: &Writer, setting: &Setting, records: u64, cpu: usize) -> Result<f64, NodesError> {
    let content = setting.content();
    let mut rates = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let start = Instant::now();
        cores::on(cpu, || writer.put(&content, 0..records, PIPELINE, || {}))??;
        rates.push(records as f64 / start.elapsed().as_secs_f64());
    }
    Ok(super::median(&rates))
}
