//! `longship bench isolation`: does a sick DC cost a healthy one?
//!
//! A source ships to one healthy DC, alone or beside three sick ones: one that is not reachable, one
//! that accepts connections and never answers, and one that takes a hundredth of what the healthy
//! one takes. First writes come at a steady rate, and the healthy DC's lag is what the source
//! measures from a change's submission to its acknowledgement; then they come as fast as the healthy
//! DC keeps up, and records per second count. Alone and beside take turns.

use std::error::Error;
use std::net::TcpListener;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use super::answer::{Unit, Wanted};
use super::nodes::{DESTINATION, Dc, Destination, HOST, NodesError, Setting, Source};
use super::relay::Relay;
use super::runs::Runs;
use super::scene::Scene;
use super::ship::PIPELINE;
use super::steady::Behind;
use crate::cores;
use crate::report;
use crate::stage::Stage;

const SLOW: &str = "slow";
/// Where the relay to the slow destination stands.
const SLOW_HOST: &str = "127.0.0.3";
/// Addresses of documentation: nobody is there.
const NOWHERE: &str = "192.0.2.1";
/// Bytes of a shipped record of 100 bytes on the wire, about.
const FRAME_BYTES: f64 = 190.0;

/// Measures what three sick DCs cost a healthy one.
#[derive(clap::Args)]
pub(crate) struct IsolationArgs {
    /// Records written as fast as they ship.
    #[arg(long, default_value_t = 500_000, value_parser = clap::value_parser!(u64).range(1..))]
    records: u64,
    /// Writes per second while lag is measured.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..))]
    rate: u64,
    /// How long lag is measured.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=99))]
    runs: u64,
    /// Print the result as one line of JSON.
    #[arg(long)]
    json: bool,
}

/// What the healthy DC did.
struct Health {
    records_per_s: f64,
    lag_p99_us: f64,
}

/// Runs the command.
pub(super) fn command(args: &IsolationArgs) -> Result<ExitCode, Box<dyn Error>> {
    let stage = Stage::open(std::env::current_exe()?, false)?;
    stage.guard()?;
    let bar = report::progress("shipping", 2 * args.runs);
    bar.tick();
    let scene = Scene::now();
    let records = args.records + args.rate * args.seconds;
    let setting = Setting { records, value_bytes: 100, cached: true };
    let bed = Bed { stage: &stage, setting: &setting, cpus: scene.cpus, args };
    let (mut rates, mut lags): ([Runs; 2], [Runs; 2]) = Default::default();
    let (silent, listener) = silent()?;
    let mut slow = None;
    for _ in 0..args.runs {
        let alone = bed.measure(&[])?;
        rates[0].push(alone.records_per_s);
        lags[0].push(alone.lag_p99_us);
        bar.inc(1);
        // How slow is slow is known only now.
        let slow = match &slow {
            Some(dc) => dc,
            None => slow.insert(bed.slow(alone.records_per_s * FRAME_BYTES / 100.0)?),
        };
        let nowhere = Dc { name: "nowhere".into(), host: NOWHERE.into(), port: 3000 };
        let beside = bed.measure(&[nowhere, silent.clone(), slow.clone()])?;
        rates[1].push(beside.records_per_s);
        lags[1].push(beside.lag_p99_us);
        bar.inc(1);
    }
    drop(listener);
    bar.finish_and_clear();
    let (throughput, lag) = (rates[1].over(&rates[0]), lags[1].over(&lags[0]));
    scene
        .answer("isolation")
        .fact("lag", format!("{} writes/s for {} s", report::count(args.rate), args.seconds))
        .fact("throughput", format!("{} records", report::count(args.records)))
        .fact("sick", format!("{NOWHERE}; one that never answers; one at a hundredth"))
        .fact("nodes", setting.text())
        .figure("alone_records_per_s", Unit::PerSecond, &rates[0])
        .figure("beside_records_per_s", Unit::PerSecond, &rates[1])
        .figure("alone_lag_p99_us", Unit::Micros, &lags[0])
        .figure("beside_lag_p99_us", Unit::Micros, &lags[1])
        .target("healthy_throughput_ratio", Unit::Ratio, &throughput, Wanted::AtLeast(0.95))
        .target("healthy_lag_p99_ratio", Unit::Ratio, &lag, Wanted::AtMost(1.25))
        .print(args.json);
    Ok(ExitCode::SUCCESS)
}

/// A DC that accepts connections and never reads, for as long as the second lives.
fn silent() -> Result<(Dc, thread::JoinHandle<()>), Box<dyn Error>> {
    let listener = TcpListener::bind((HOST, 0))?;
    let port = listener.local_addr()?.port();
    let hold = move || {
        let mut held = Vec::new();
        held.extend(listener.incoming().map_while(Result::ok));
    };
    Ok((Dc { name: "silent".into(), host: HOST.into(), port }, thread::spawn(hold)))
}

struct Bed<'a> {
    stage: &'a Stage,
    setting: &'a Setting,
    cpus: [usize; 2],
    args: &'a IsolationArgs,
}

impl Bed<'_> {
    /// A destination behind a narrow link.
    fn slow(&self, bytes_per_s: f64) -> Result<Dc, Box<dyn Error>> {
        let place = (SLOW, Some(SLOW_HOST));
        let port = Destination::start(self.stage, self.setting, place, self.cpus[1])?.port;
        let at = format!("{SLOW_HOST}:{port}").parse()?;
        let to = format!("{HOST}:{port}").parse()?;
        // The link takes no time of the source's CPU.
        cores::on(self.cpus[1], || Relay::start(at, to, bytes_per_s as u64))??;
        Ok(Dc { name: "slow".into(), host: SLOW_HOST.into(), port })
    }

    fn measure(&self, sick: &[Dc]) -> Result<Health, NodesError> {
        let IsolationArgs { records, rate, seconds, .. } = *self.args;
        let [at_source, at_destination] = self.cpus;
        let place = (DESTINATION, None);
        let destination = Destination::start(self.stage, self.setting, place, at_destination)?;
        let dcs = [&[Dc::west(destination.port)], sick].concat();
        let mut source = Source::start(self.stage, self.setting, at_source, &dcs, 1)?;
        let (writer, content) = (source.writer(), self.setting.content());
        let paced = 0..rate * seconds;
        let end = paced.end;
        cores::on(at_destination, || writer.put_paced(&content, paced, rate, |_, _, _| {}))??;
        let [lag_p99_us] = source.sums(["lag_us_p99"])?;
        let taken = Behind::run(
            at_destination,
            |behind| writer.put(&content, end..end + records, PIPELINE, || behind.wait()),
            || Ok::<_, NodesError>(source.shipped()?.outstanding),
        )?;
        source.end()?;
        destination.end()?;
        let records_per_s = records as f64 / taken.as_secs_f64();
        // What is left of it in the system's buffers goes before the next run begins.
        thread::sleep(Duration::from_millis(100));
        Ok(Health { records_per_s, lag_p99_us: lag_p99_us as f64 })
    }
}
