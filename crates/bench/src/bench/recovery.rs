//! `longship bench recovery`: what does a recovery cost, when little was missed and when much was?
//!
//! A source without a write-block cache holds its records; while shipping to a DC is paused, one in
//! a hundred of them is written again, then all of them. Seconds count from the resumption to the
//! last acknowledgement, and bytes as the system accounts them to the source's process as read from
//! devices, over the bytes in the log of the records that were missed. Beside them: how long it
//! takes to look at as many records in an index in memory, one by one.

use std::error::Error;
use std::hint::black_box;
use std::process::ExitCode;
use std::time::Instant;

use longship::model::{Digest, Generation, Lut, PartitionId, RecordFlags, SrcId, VoidTime};
use longship_node::storage::index::{Index, IndexEntry, Location};

use super::answer::{Unit, Wanted};
use super::nodes::{DESTINATION, Dc, Destination, NodesError, SOURCE, Setting, Source};
use super::runs::Runs;
use super::scene::Scene;
use super::ship::PIPELINE;
use crate::content::finalize;
use crate::cores;
use crate::report;
use crate::stage::Stage;

/// Buckets of the index looked into between two looks at the partition's end.
const BUCKETS: usize = 1024;

/// Measures a recovery of a hundredth and of everything.
#[derive(clap::Args)]
pub(crate) struct RecoveryArgs {
    #[arg(long, default_value_t = 5_000_000, value_parser = clap::value_parser!(u64).range(100..))]
    records: u64,
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=99))]
    runs: u64,
    /// Print the result as one line of JSON.
    #[arg(long)]
    json: bool,
}

/// Every so many-th record.
#[derive(Clone, Copy)]
struct Part {
    records: u64,
    step: usize,
}

/// One recovery.
struct Recovered {
    seconds: f64,
    read_vs_missed: f64,
}

/// Runs the command.
pub(super) fn command(args: &RecoveryArgs) -> Result<ExitCode, Box<dyn Error>> {
    let stage = Stage::open(std::env::current_exe()?, false)?;
    stage.guard()?;
    let bar = report::progress("recovering", 1 + 2 * args.runs);
    bar.tick();
    let scene = Scene::now();
    let records = args.records;
    // Room for all runs' writes.
    let space = Setting { records: records * (2 + args.runs), value_bytes: 100, cached: false };
    let destination = Destination::start(&stage, &space, (DESTINATION, None), scene.cpus[1])?;
    let mut source = Source::start(&stage, &space, scene.cpus[0], &[], 0)?;
    let (writer, content) = (source.writer(), space.content());
    cores::on(scene.cpus[1], || writer.put(&content, 0..records, PIPELINE, || {}))??;
    source.await_flushed()?;
    source.attach(&Dc::west(destination.port))?;
    bar.inc(1);
    let (mut few, mut all): ([Runs; 2], [Runs; 2]) = Default::default();
    let mut scan = Runs::default();
    for _ in 0..args.runs {
        for (step, runs) in [(100, &mut few), (1, &mut all)] {
            let part = Part { records, step };
            let recovered = recover(&stage, &mut source, &space, part, scene.cpus[1])?;
            runs[0].push(recovered.seconds);
            runs[1].push(recovered.read_vs_missed);
            bar.inc(1);
        }
        scan.push(scan_index(records));
    }
    source.end()?;
    destination.end()?;
    bar.finish_and_clear();
    let share = Runs(few[0].over(&all[0]).0.iter().map(|ratio| ratio * 100.0).collect());
    scene
        .answer("recovery")
        .fact("records", format!("{} of 100 bytes", report::count(records)))
        .fact("nodes", space.text())
        .figure("seconds_for_1_pct", Unit::Seconds, &few[0])
        .figure("seconds_for_100_pct", Unit::Seconds, &all[0])
        .figure("index_scan_seconds", Unit::Seconds, &scan)
        .target("1_pct_time_share", Unit::Percent, &share, Wanted::AtMost(5.0))
        .target("1_pct_read_vs_missed", Unit::Ratio, &few[1], Wanted::AtMost(5.0))
        .figure("100_pct_read_vs_missed", Unit::Ratio, &all[1])
        .print(args.json);
    Ok(ExitCode::SUCCESS)
}

/// Writes some records again while shipping is paused, and resumes it.
fn recover(
    stage: &Stage,
    source: &mut Source<'_>,
    setting: &Setting,
    part: Part,
    cpu: usize,
) -> Result<Recovered, NodesError> {
    let Part { records, step } = part;
    let (before, count) = (source.shipped()?, records.div_ceil(step as u64));
    source.pause()?;
    let (writer, content) = (source.writer(), setting.content());
    cores::on(cpu, || writer.put(&content, (0..records).step_by(step), PIPELINE, || {}))??;
    source.await_flushed()?;
    let read = stage.bytes_read(SOURCE)?;
    let start = Instant::now();
    source.resume()?;
    let (end, _) = source.await_shipped(before.success + count)?;
    let read = stage.bytes_read(SOURCE)? - read;
    let missed = count as f64 * source.record_bytes()?;
    let seconds = end.duration_since(start).as_secs_f64();
    Ok(Recovered { seconds, read_vs_missed: read as f64 / missed })
}

/// Seconds it takes to look at every record of an index.
fn scan_index(records: u64) -> f64 {
    let mut index = Index::new(1);
    for number in 0..records {
        let mut digest = [0; 20];
        digest[..8].copy_from_slice(&finalize(number).to_le_bytes());
        digest[8..16].copy_from_slice(&finalize(!number).to_le_bytes());
        index.put(&IndexEntry {
            digest: Digest(digest),
            version: Default::default(),
            local_lut: Lut::ZERO,
            location: Location::default(),
            generation: Generation(1),
            void_time: VoidTime::NEVER,
            set: Default::default(),
            flags: RecordFlags::default(),
            src_id: SrcId::NONE,
        });
    }
    let start = Instant::now();
    let mut found = 0;
    for partition in PartitionId::all() {
        let mut cursor = Some(index.start());
        while let Some(from) = cursor {
            cursor = index.walk(partition, from, BUCKETS, &mut |entry| {
                found += u64::from(black_box(entry).local_lut == Lut::ZERO);
            });
        }
    }
    assert_eq!(found, records, "a walk gives every record once");
    start.elapsed().as_secs_f64()
}
