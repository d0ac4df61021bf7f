//! `longship bench slow-destination`: does a destination slower than the backlog get each record
//! once, without a cut, as fast as it takes them?
//!
//! A gate before the destination lets so many records through in each period. A backlog of records
//! written while shipping was paused goes through it. Figures are what was sent over what was
//! needed, connections lost, seconds without a success, and the time it took over the time it takes
//! at the gate's rate.

use std::error::Error;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::{Duration, Instant};

use super::answer::{Answer, Unit, Wanted};
use super::gate::{Cycle, Gate};
use super::nodes::{
    DESTINATION, Dc, Destination, FIRST_RECORDS, HOST, NodesError, Setting, Source,
};
use super::runs::Runs;
use super::scene::Scene;
use super::ship::PIPELINE;
use crate::cores;
use crate::report;
use crate::stage::Stage;

/// Where the gate stands: at the destination's port of another address.
const GATE_HOST: &str = "127.0.0.2";
const SECOND: Duration = Duration::from_secs(1);

/// Measures shipping a backlog to a destination that is slower than it.
#[derive(clap::Args)]
pub(crate) struct SlowDestinationArgs {
    /// Records of the backlog.
    #[arg(long, default_value_t = 300_000, value_parser = clap::value_parser!(u64).range(1..))]
    records: u64,
    /// Records the destination takes in a second, and the milliseconds of a period: `RATE/MS`.
    #[arg(long, value_delimiter = ',', default_value = "4600/250,2000/500")]
    cycles: Vec<Cycle>,
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=99))]
    runs: u64,
    /// Print the result as one line of JSON.
    #[arg(long)]
    json: bool,
}

impl FromStr for Cycle {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/').and_then(|(rate, ms)| {
            Some((rate.parse().ok().filter(|&rate: &u64| rate > 0)?, ms.parse().ok()?))
        });
        match parts {
            Some((records_per_s, ms @ 1..=10_000)) if records_per_s * ms >= 1000 => {
                Ok(Self { records_per_s, period: Duration::from_millis(ms) })
            }
            _ => Err("write RATE/MS, such as 4600/250, with a record in each period".to_owned()),
        }
    }
}

/// How a backlog went through.
struct Passage {
    sent_per_needed: f64,
    cuts: f64,
    seconds_without: f64,
    time_per_ideal: f64,
}

/// Runs the command.
pub(super) fn command(args: &SlowDestinationArgs) -> Result<ExitCode, Box<dyn Error>> {
    let stage = Stage::open(std::env::current_exe()?, false)?;
    stage.guard()?;
    let bar = report::progress("shipping", args.cycles.len() as u64 * args.runs);
    bar.tick();
    let scene = Scene::now();
    let setting = Setting { records: args.records, value_bytes: 100, cached: true };
    let mut answer = scene
        .answer("slow-destination")
        .fact("backlog", format!("{} records of 100 bytes", report::count(args.records)))
        .fact("nodes", setting.text());
    for &cycle in &args.cycles {
        let mut runs: [Runs; 4] = Default::default();
        for _ in 0..args.runs {
            let passage = measure(&stage, &setting, scene.cpus, cycle)?;
            runs[0].push(passage.sent_per_needed);
            runs[1].push(passage.cuts);
            runs[2].push(passage.seconds_without);
            runs[3].push(passage.time_per_ideal);
            bar.inc(1);
        }
        answer = add(answer, cycle, &runs);
    }
    bar.finish_and_clear();
    answer.print(args.json);
    Ok(ExitCode::SUCCESS)
}

fn add(answer: Answer, cycle: Cycle, [sent, cuts, without, time]: &[Runs; 4]) -> Answer {
    let name = |what: &str| format!("{what}_at_{}_per_s", cycle.records_per_s);
    answer
        .target(name("sent_per_needed"), Unit::Precise, sent, Wanted::AtMost(1.02))
        .target(name("cuts"), Unit::Count, cuts, Wanted::AtMost(0.0))
        .target(name("seconds_without_success"), Unit::Count, without, Wanted::AtMost(0.0))
        .target(name("time_per_ideal"), Unit::Precise, time, Wanted::AtMost(1.1))
}

fn measure(
    stage: &Stage,
    setting: &Setting,
    cpus: [usize; 2],
    cycle: Cycle,
) -> Result<Passage, Box<dyn Error>> {
    let place = (DESTINATION, Some(GATE_HOST));
    let mut destination = Destination::start(stage, setting, place, cpus[1])?;
    let at = format!("{GATE_HOST}:{}", destination.port).parse()?;
    let to = format!("{HOST}:{}", destination.port).parse()?;
    let gate = cores::on(cpus[1], || Gate::start(at, to))??;
    let dc = Dc { host: GATE_HOST.into(), ..Dc::west(destination.port) };
    let mut source = Source::start(stage, setting, cpus[0], &[dc], 1)?;
    let (writer, content) = (source.writer(), setting.content());
    source.pause()?;
    let records = setting.records;
    cores::on(cpus[1], || writer.put(&content, 0..records, PIPELINE, || {}))??;
    let ((sent_before, connections_before), before) = (gate.passed(), source.shipped()?.success);
    gate.narrow(cycle);
    let start = Instant::now();
    source.resume()?;
    let without = seconds_without(&mut source, before + records, start)?;
    let (end, _) = source.await_shipped(before + records)?;
    let ideal = records as f64 / cycle.records_per_s as f64;
    let (sent, connections) = gate.passed();
    let [resets] = source.sums(["retry_conn_reset"])?;
    destination.check_objects(FIRST_RECORDS + records)?;
    source.end()?;
    destination.end()?;
    Ok(Passage {
        sent_per_needed: (sent - sent_before) as f64 / records as f64,
        // A new connection without a loss counts too: nobody should need one.
        cuts: (connections - connections_before).max(resets) as f64,
        seconds_without: without as f64,
        time_per_ideal: end.duration_since(start).as_secs_f64() / ideal,
    })
}

/// Looks once a second until all is shipped; gives how often nothing had come since the last look.
fn seconds_without(
    source: &mut Source<'_>,
    wanted: u64,
    start: Instant,
) -> Result<u64, NodesError> {
    let (mut without, mut last) = (0, source.shipped()?.success);
    for second in 1.. {
        std::thread::sleep((start + second * SECOND).saturating_duration_since(Instant::now()));
        let success = source.shipped()?.success;
        if success >= wanted {
            break;
        }
        without += u64::from(success == last);
        last = success;
        if without > 60 {
            // Waiting for the rest says what is stuck.
            break;
        }
    }
    Ok(without)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cycle_is_a_rate_and_a_period() {
        let cycle = Cycle { records_per_s: 4600, period: Duration::from_millis(250) };
        assert_eq!("4600/250".parse(), Ok(cycle));
        for text in ["", "4600", "0/250", "4600/0", "1/10", "x/250", "4600/20000"] {
            assert!(text.parse::<Cycle>().is_err(), "{text}");
        }
    }
}
