//! `longship bench idle`: what does a node cost that has nothing to do?
//!
//! A source with eight DCs attached, all of them at one destination node, and no writes. The figure
//! is the time its threads spend on CPUs, over the time that passes, in percent of one core.

use std::error::Error;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use super::answer::{Unit, Wanted};
use super::nodes::{DESTINATION, Dc, Destination, SOURCE, Setting, Source};
use super::runs::Runs;
use super::scene::Scene;
use crate::report;
use crate::stage::Stage;

/// How long the last of what the start brings may take.
const SETTLE: Duration = Duration::from_secs(3);

/// Measures what an idle node with eight DCs costs.
#[derive(clap::Args)]
pub(crate) struct IdleArgs {
    /// Seconds of each run.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=99))]
    runs: u64,
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=32))]
    dcs: u16,
    /// Print the result as one line of JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(super) fn command(args: &IdleArgs) -> Result<ExitCode, Box<dyn Error>> {
    let stage = Stage::open(std::env::current_exe()?, false)?;
    stage.guard()?;
    let bar = report::progress("idling", args.runs);
    let scene = Scene::now();
    let setting = Setting { records: 1, value_bytes: 100, cached: true };
    let destination = Destination::start(&stage, &setting, (DESTINATION, None), scene.cpus[1])?;
    let dcs = Dc::several(args.dcs, destination.port);
    let source = Source::start(&stage, &setting, scene.cpus[0], &dcs, dcs.len())?;
    thread::sleep(SETTLE);
    let (mut at_source, mut at_destination) = (Runs::default(), Runs::default());
    for _ in 0..args.runs {
        let start = Instant::now();
        let before = [stage.cpu_time(SOURCE)?, stage.cpu_time(DESTINATION)?];
        thread::sleep(Duration::from_secs(args.seconds));
        let passed = start.elapsed().as_secs_f64();
        let spent = [stage.cpu_time(SOURCE)?, stage.cpu_time(DESTINATION)?];
        at_source.push((spent[0] - before[0]).as_secs_f64() / passed * 100.0);
        at_destination.push((spent[1] - before[1]).as_secs_f64() / passed * 100.0);
        bar.inc(1);
    }
    source.end()?;
    destination.end()?;
    bar.finish_and_clear();
    scene
        .answer("idle")
        .fact("nodes", format!("{} DCs at one destination, {} s", args.dcs, args.seconds))
        .figure("destination_cpu_pct", Unit::Percent, &at_destination)
        .target("cpu_pct", Unit::Percent, &at_source, Wanted::AtMost(1.0))
        .print(args.json);
    Ok(ExitCode::SUCCESS)
}
