//! `longship bench`: one question each, answered against a plain yardstick in the same run.

mod answer;
mod ceiling;
mod cold_start;
mod dcs;
mod fio;
mod gate;
mod idle;
mod isolation;
mod lag;
mod memory;
mod nodes;
mod overwrite;
mod page;
mod ping_pong;
mod read;
mod readers;
mod recovery;
mod redis;
mod refusals;
mod relay;
mod runs;
mod scale;
mod scene;
mod ship;
mod slow_destination;
mod steady;
mod storage;
mod strangers;
mod tombstones;
mod wan;
mod write;

use std::error::Error;
use std::process::ExitCode;

/// Measures one thing against a plain yardstick.
#[derive(clap::Args)]
#[command(arg_required_else_help = true)]
pub struct BenchArgs {
    #[command(subcommand)]
    question: Question,
}

#[derive(clap::Subcommand)]
enum Question {
    Read(read::ReadArgs),
    Write(write::WriteArgs),
    Overwrite(overwrite::OverwriteArgs),
    Tombstones(tombstones::TombstonesArgs),
    ColdStart(cold_start::ColdStartArgs),
    Ship(ship::ShipArgs),
    Memory(memory::MemoryArgs),
    Scale(scale::ScaleArgs),
    Lag(lag::LagArgs),
    Wan(wan::WanArgs),
    Recovery(recovery::RecoveryArgs),
    Isolation(isolation::IsolationArgs),
    SlowDestination(slow_destination::SlowDestinationArgs),
    Refusals(refusals::RefusalsArgs),
    Dcs(dcs::DcsArgs),
    Idle(idle::IdleArgs),
    Strangers(strangers::StrangersArgs),
    Report(page::PageArgs),
}

/// Why a bench on another thread has no result.
type Failure = Box<dyn Error + Send + Sync>;

/// Runs the command.
pub fn command(args: &BenchArgs) -> Result<ExitCode, Box<dyn Error>> {
    match &args.question {
        Question::Read(args) => read::command(args).map_err(|error| error as Box<dyn Error>),
        Question::Write(args) => write::command(args),
        Question::Overwrite(args) => overwrite::command(args),
        Question::Tombstones(args) => tombstones::command(args),
        Question::ColdStart(args) => cold_start::command(args),
        Question::Ship(args) => ship::command(args),
        Question::Memory(args) => memory::command(args),
        Question::Scale(args) => scale::command(args),
        Question::Lag(args) => lag::command(args),
        Question::Wan(args) => wan::command(args),
        Question::Recovery(args) => recovery::command(args),
        Question::Isolation(args) => isolation::command(args),
        Question::SlowDestination(args) => slow_destination::command(args),
        Question::Refusals(args) => refusals::command(args),
        Question::Dcs(args) => dcs::command(args),
        Question::Idle(args) => idle::command(args),
        Question::Strangers(args) => strangers::command(args),
        Question::Report(args) => page::command(args),
    }
}

/// The middle one of some figures.
fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[1.0]), 1.0);
        assert_eq!(median(&[]), 0.0);
    }
}
