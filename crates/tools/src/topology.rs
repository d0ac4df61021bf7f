//! `longship topology`: what the machine has, where the shards go and why, what costs speed.

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use longship_node::config::Config;
use longship_node::process::place::place;
use longship_rt::arena::{Arena, Backing};
use longship_rt::disk_ring::DiskRing;
use longship_rt::disk_ring::probe::write_cost;
use longship_rt::topology::devices_under;

use crate::knobs::System;
use longship_bench::report;

/// As much memory as a small shard has.
const ARENA_BYTES: usize = 64 << 20;

/// Shows what the machine has, where the shards go and why, and what costs speed here.
#[derive(clap::Args)]
pub(crate) struct TopologyArgs {
    /// A node's configuration; without it, one shard per core.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the log files are to be; by default as configured, else the current folder. A durable
    /// write is measured there, in a temporary file.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
}

pub(crate) fn command(args: &TopologyArgs) -> Result<ExitCode, Box<dyn Error>> {
    let config = match &args.config {
        None => Config::default(),
        Some(path) => match Config::load(path) {
            Ok(config) => config,
            Err(errors) => {
                eprintln!("{errors}");
                return Ok(ExitCode::from(2));
            }
        },
    };
    let (machine, plan) = place(&config)?;
    report::print(&format!("machine: {machine}"));
    report::print(&format!("plan: {plan}"));
    let folder = args.folder.clone().unwrap_or_else(|| storage_folder(&config));
    let disks = devices_under(&folder);
    report::print(&format!("storage: {}", storage(&folder, &disks)));
    report::print(&format!("memory: {}", memory()));
    report::print(&warnings(&System("/".into()), &disks));
    Ok(ExitCode::SUCCESS)
}

/// The folder of the first log file; a raw device is not written to, so its folder does not matter.
fn storage_folder(config: &Config) -> PathBuf {
    let mut files = config.namespaces.iter().flat_map(|namespace| &namespace.storage.files);
    let folder = files.next().and_then(|file| file.parent());
    folder.filter(|folder| folder.is_dir()).unwrap_or(Path::new(".")).to_owned()
}

fn storage(folder: &Path, disks: &[String]) -> String {
    let on = match disks {
        [] => "an unknown device".to_owned(),
        disks => disks.join(", "),
    };
    let cost = match write_cost(folder) {
        Err(error) => format!("cannot measure a direct write ({error})"),
        Ok(cost) => {
            let advice = match cost.durable_is_cheap() {
                true => "cheap: `commit-to-device` costs little here",
                false => "dear: `commit-to-device` lives from many writes sharing a flush",
            };
            let (plain, durable) = (report::micros(cost.plain_us), report::micros(cost.durable_us));
            format!("a 4 KiB write takes {plain}, a durable one {durable}: {advice}")
        }
    };
    format!("{} is on {on}; {cost}", folder.display())
}

/// Tries what a shard does at its start.
fn memory() -> String {
    let arena = match Arena::new(ARENA_BYTES, None) {
        Ok(arena) => arena,
        Err(error) => return error.to_string(),
    };
    let pages = match arena.backing() {
        Backing::HugePages => "huge pages",
        Backing::TransparentHugePages => "transparent huge pages",
        Backing::SmallPages => "small pages",
    };
    let ring = match DiskRing::new(64, &arena) {
        Ok(ring) if ring.is_registered() => "registered with the disk ring".to_owned(),
        Ok(_) => "not registered with the disk ring: RLIMIT_MEMLOCK is too low".to_owned(),
        Err(error) => error.to_string(),
    };
    format!("{} of buffers on {pages}, {ring}", report::bytes(ARENA_BYTES as u64))
}

fn warnings(system: &System, disks: &[String]) -> String {
    let findings = system.findings(disks);
    if findings.is_empty() {
        return "nothing found that costs speed".to_owned();
    }
    let mut text =
        "what costs speed here (`tuning/apply` mends most, tuning/README.md tells):\n".to_owned();
    for finding in findings {
        let _ = writeln!(text, "  {finding}");
    }
    text
}
