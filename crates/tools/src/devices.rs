//! `longship accept` and `longship format`: the operator's word for what a start does not do by
//! itself, left for the next one.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use longship_node::config::Config;
use longship_node::process::consent::Consent;
use longship_node::process::place::place;

use longship_bench::report;

/// Shows what would keep a node from starting on its devices, and lets the next start go on all the
/// same.
#[derive(clap::Args)]
pub(crate) struct AcceptArgs {
    /// The node's configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Words that a refused start has told, each for what it says will be lost; or
    /// `positions-now` or `positions-SECONDS`: where DCs start that have lost their positions.
    words: Vec<String>,
}

/// Lets the next start of a node format devices, whatever they hold.
#[derive(clap::Args)]
pub(crate) struct FormatArgs {
    /// The node's configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Files and devices of its namespaces.
    #[arg(value_name = "DEVICE", required = true)]
    devices: Vec<PathBuf>,
}

/// Exit code 2 says that something is in the way still.
pub(crate) fn accept(args: &AcceptArgs) -> Result<ExitCode, Box<dyn Error>> {
    let mut consent = look(&args.config)?;
    for word in &args.words {
        let cost = consent.accept(word)?;
        report::print(&format!("left for the next start: {word}: {cost}"));
    }
    finish(&consent)
}

/// Exit code 2 says that something is in the way still.
pub(crate) fn format(args: &FormatArgs) -> Result<ExitCode, Box<dyn Error>> {
    let mut consent = look(&args.config)?;
    for device in &args.devices {
        let cost = consent.format(device)?;
        report::print(&format!("the next start formats {}: {cost}", device.display()));
    }
    finish(&consent)
}

fn look(file: &Path) -> Result<Consent, Box<dyn Error>> {
    let config = Config::load(file).map_err(|errors| errors.to_string())?;
    let (_, plan) = place(&config)?;
    Ok(Consent::open(config, plan.shards.len() as u16)?)
}

fn finish(consent: &Consent) -> Result<ExitCode, Box<dyn Error>> {
    let told = consent.in_the_way();
    told.iter().for_each(|told| report::print(&format!("in the way: {told}")));
    if told.is_empty() {
        report::print(
            "nothing is in the way of the next start, as far as headers and the last start tell: \
             damage among records only a start finds",
        );
    }
    Ok(if told.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(2) })
}
