//! `longship bench wan`: does distance cost throughput?
//!
//! Source and destination are connected by a relay of a fixed bandwidth, which delays what passes
//! by so many milliseconds each way, or not at all. As in `ship`, the destination is stopped, the
//! source written to, the destination continued; the figure is records per second until the last
//! one is acknowledged. Both distances take turns between the same two nodes.

use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::answer::{Unit, Wanted};
use super::nodes::{DESTINATION, Dc, Destination, HOST, NodesError, Setting, Source};
use super::relay::Relay;
use super::runs::Runs;
use super::scene::Scene;
use super::ship::PIPELINE;
use crate::cores;
use crate::report;
use crate::stage::Stage;

/// Where the relay stands; the destination tells shippers to come this way.
const RELAY_HOST: &str = "127.0.0.2";

/// Measures what a long way to the destination costs.
#[derive(clap::Args)]
pub(crate) struct WanArgs {
    #[arg(long, default_value_t = 800_000, value_parser = clap::value_parser!(u64).range(1..))]
    records: u64,
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=99))]
    runs: u64,
    /// Delay each way.
    #[arg(long, default_value_t = 78)]
    delay_ms: u64,
    /// Bandwidth each way.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..))]
    mbit_per_s: u64,
    /// Print the result as one line of JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(super) fn command(args: &WanArgs) -> Result<ExitCode, Box<dyn Error>> {
    let stage = Stage::open(std::env::current_exe()?, false)?;
    stage.guard()?;
    let bar = report::progress("shipping", 2 * args.runs);
    bar.tick();
    let scene = Scene::now();
    // Room for every run's writes.
    let space =
        Setting { records: args.records * (2 * args.runs + 1), value_bytes: 100, cached: true };
    let place = (DESTINATION, Some(RELAY_HOST));
    let destination = Destination::start(&stage, &space, place, scene.cpus[1])?;
    let port = destination.port;
    let at = format!("{RELAY_HOST}:{port}").parse()?;
    let to = format!("{HOST}:{port}").parse()?;
    let relay = Relay::start(at, to, args.mbit_per_s * 125_000)?;
    let dcs = [Dc { host: RELAY_HOST.into(), ..Dc::west(port) }];
    let mut source = Source::start(&stage, &space, scene.cpus[0], &dcs, 1)?;
    let (mut near, mut far) = (Runs::default(), Runs::default());
    let content = Setting { records: args.records, ..space.clone() };
    for _ in 0..args.runs {
        for (delay_ms, runs) in [(0, &mut near), (args.delay_ms, &mut far)] {
            relay.set_delay(Duration::from_millis(delay_ms));
            runs.push(catch_up(&stage, &mut source, &content, scene.cpus[1])?);
            bar.inc(1);
        }
    }
    source.end()?;
    destination.end()?;
    bar.finish_and_clear();
    let link = format!("{} Mbit/s, {} ms each way, or 0", args.mbit_per_s, args.delay_ms);
    scene
        .answer("wan")
        .fact("records", report::count(args.records))
        .fact("link", link)
        .fact("nodes", space.text())
        .figure("lan_records_per_s", Unit::PerSecond, &near)
        .figure("wan_records_per_s", Unit::PerSecond, &far)
        .target("wan_vs_lan", Unit::Ratio, &far.over(&near), Wanted::AtLeast(0.9))
        .print(args.json);
    Ok(ExitCode::SUCCESS)
}

fn catch_up(
    stage: &Stage,
    source: &mut Source<'_>,
    setting: &Setting,
    cpu: usize,
) -> Result<f64, NodesError> {
    let before = source.shipped()?;
    stage.signal(DESTINATION, "STOP")?;
    let (writer, content) = (source.writer(), setting.content());
    cores::on(cpu, || writer.put(&content, 0..setting.records, PIPELINE, || {}))??;
    source.await_flushed()?;
    let start = Instant::now();
    stage.signal(DESTINATION, "CONT")?;
    let (end, _) = source.await_shipped(before.success + setting.records)?;
    Ok(setting.records as f64 / end.duration_since(start).as_secs_f64())
}
