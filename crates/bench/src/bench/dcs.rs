//! `longship bench dcs`: do DCs that were made and deleted leave something behind that writes pay
//! for?
//!
//! Two nodes share a core. Many DCs are made and deleted on one by info commands, none on the other.
//! Then the same records are written to both in turns, as fast as each takes them: what the machine
//! does besides, and what age does to a device, meets both alike. Figures are writes per second, time
//! the node spent on CPUs for a write, which others on the machine change less, and what a command
//! took.

use std::error::Error;
use std::process::ExitCode;
use std::time::Instant;

use super::answer::{Unit, Wanted};
use super::nodes::{NodesError, Setting, Source};
use super::runs::Runs;
use super::scene::Scene;
use super::ship::PIPELINE;
use crate::cores;
use crate::report;
use crate::stage::Stage;

/// Rounds of writes to each node; neighbours are compared.
const ROUNDS: usize = 15;

/// The node that never had a DC.
const PLAIN: &str = "plain";

/// Measures writes where many DCs were made and deleted, beside a node that had none.
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
    let space = args.records * (ROUNDS as u64 + 2);
    let setting = Setting { records: space, value_bytes: 100, cached: false };
    let [mut rates, mut costs, mut plain_rates, mut plain_costs, mut command]: [Runs; 5] =
        Default::default();
    for _ in 0..args.runs {
        let mut source = Source::start(&stage, &setting, scene.cpus[0], &[], 0)?;
        let plain = Source::start_as(PLAIN, &stage, &setting, scene.cpus[0], &[], 0)?;
        let start = Instant::now();
        for number in 0..args.dcs {
            source.make_and_delete(&format!("passing-{}", number % 100))?;
            bar.inc(1);
        }
        command.push(start.elapsed().as_secs_f64() * 1e6 / (2 * args.dcs) as f64);
        let written = |node: &Source| written(node, &setting, args.records, scene.cpus[1]);
        // The first of each makes the records.
        written(&source)?;
        written(&plain)?;
        for _ in 0..ROUNDS {
            let (rate, cost) = written(&source)?;
            rates.push(rate);
            costs.push(cost);
            let (rate, cost) = written(&plain)?;
            plain_rates.push(rate);
            plain_costs.push(cost);
        }
        source.end()?;
        plain.end()?;
    }
    bar.finish_and_clear();
    scene
        .answer("dcs")
        .fact("dcs", report::count(args.dcs))
        .fact("writes", format!("{} a round, {ROUNDS} rounds", report::count(args.records)))
        .figure("writes_per_s_without", Unit::PerSecond, &plain_rates)
        .figure("writes_per_s_after", Unit::PerSecond, &rates)
        .figure("command_us", Unit::Micros, &command)
        .figure("write_cpu_us_without", Unit::Precise, &plain_costs)
        .figure("write_cpu_us_after", Unit::Precise, &costs)
        .target(
            "cpu_without_vs_after",
            Unit::Precise,
            &plain_costs.over(&costs),
            Wanted::AtLeast(0.97),
        )
        .target("after_vs_without", Unit::Precise, &rates.over(&plain_rates), Wanted::AtLeast(0.97))
        .print(args.json);
    Ok(ExitCode::SUCCESS)
}

/// Writes per second of a round, and microseconds on CPUs for one.
fn written(
    node: &Source,
    setting: &Setting,
    records: u64,
    cpu: usize,
) -> Result<(f64, f64), NodesError> {
    let (start, spent) = (Instant::now(), node.cpu_time()?);
    cores::on(cpu, || node.writer().put(&setting.content(), 0..records, PIPELINE, || {}))??;
    let rate = records as f64 / start.elapsed().as_secs_f64();
    let spent = node.cpu_time()?.saturating_sub(spent);
    Ok((rate, spent.as_secs_f64() * 1e6 / records as f64))
}
