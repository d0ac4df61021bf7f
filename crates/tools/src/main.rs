//! The `longship` command.

mod devices;
mod knobs;
mod log;
mod node;
mod signals;
#[cfg(feature = "sim")]
mod sim;
mod topology;

use std::error::Error;
use std::process::ExitCode;

use clap::Parser as _;
use longship_bench::{bench, crash_test, demo, info, load, verify};

/// Ships record changes from SSD-backed storage to remote datacenters.
#[derive(clap::Parser)]
#[command(version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Node(node::NodeArgs),
    Accept(devices::AcceptArgs),
    Format(devices::FormatArgs),
    Demo(demo::DemoArgs),
    Load(load::LoadArgs),
    Verify(verify::VerifyArgs),
    Info(info::InfoArgs),
    Topology(topology::TopologyArgs),
    CrashTest(crash_test::CrashTestArgs),
    Bench(bench::BenchArgs),
    #[cfg(feature = "sim")]
    Sim(sim::SimArgs),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Node(args) => node::command(&args),
        Command::Accept(args) => devices::accept(&args),
        Command::Format(args) => devices::format(&args),
        Command::Demo(args) => demo::command(&args),
        Command::Load(args) => load::command(&args),
        Command::Verify(args) => verify::command(&args),
        Command::Info(args) => info::command(&args),
        Command::Topology(args) => topology::command(&args),
        Command::Bench(args) => bench::command(&args),
        Command::CrashTest(args) => crash_test::command(&args),
        #[cfg(feature = "sim")]
        Command::Sim(args) => sim::command(&args),
    };
    outcome.unwrap_or_else(|error| {
        log::flush();
        log::complain(&causes(error.as_ref()));
        ExitCode::from(2)
    })
}

/// An error and what led to it, on one line.
fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let cause_text = error.to_string();
        // Some tell their cause themselves.
        if !text.contains(&cause_text) {
            text += &format!(": {cause_text}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{told}")]
    struct Told {
        told: &'static str,
        source: std::io::Error,
    }

    #[test]
    fn a_cause_is_told_once_wherever_it_stands() {
        let causes = |told| causes(&Told { told, source: std::io::Error::other("it is full") });
        assert_eq!(causes("cannot write"), "cannot write: it is full");
        assert_eq!(causes("cannot write: it is full"), "cannot write: it is full");
        let with_remedy = "cannot write: it is full; make room there";
        assert_eq!(causes(with_remedy), with_remedy);
    }
}
