//! `longship crash-test`: kills a node at random moments under load, and checks what it kept.
//!
//! Each round runs writers against a node, kills it with SIGKILL, starts it again on the same files
//! and reads every key back. Rounds alternate between the two durability modes. With
//! `commit-to-device` nothing acknowledged may be missing or back from the dead; without, nothing
//! acknowledged longer before the kill than the loss window that the node announces to shippers.
//! In between, what was on its way to the device is torn as a power failure may tear it ([`tear`]).
//! Now and then a clean stop and a warm start come between two rounds: everything must be as it was.

mod model;
mod tear;
mod writer;

use std::error::Error;
use std::fs;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use indicatif::ProgressBar;
use longship::model::SrcId;
use longship::wire::hello::{CHALLENGE, Challenge, Hello, HelloAnswer, Key};

use self::model::Crash;
use self::writer::{Findings, NAMESPACE, Writer};
use crate::client::{ClientError, InfoLine};
use crate::content::finalize;
use crate::node_text::NodeText;
use crate::report::{self, Table};
use crate::stage::{Stage, StageError};

/// Where the node has its storage, in its work directory.
const LOG: &str = "crash.log";
const BLOCK_BYTES: usize = 128 << 10;
/// The node's name on the stage.
const NODE: &str = "node";
/// Writers, each a thread with connections of its own.
const WRITERS: u64 = 2;
/// A kill comes this long after the loss window has passed under load, ms: at least, and up to
/// as much more.
const LOAD_MS: (u64, u64) = (50, 450);
/// One round in so many is followed by a clean stop.
const CLEAN_STOP_EVERY: u64 = 3;

/// Kills a node at random moments under load, and checks what it kept.
#[derive(clap::Args)]
pub struct CrashTestArgs {
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// Decides moments, keys and values; drawn from the clock when not given.
    #[arg(long)]
    seed: Option<u64>,
    /// Print the result as one line of JSON.
    #[arg(long)]
    json: bool,
    /// Leave the temporary folder, with the node's storage and its last log.
    #[arg(long)]
    keep: bool,
}

/// Why a crash test could not be carried through.
#[derive(Debug, thiserror::Error)]
enum CrashTestError {
    #[error(transparent)]
    Stage(#[from] StageError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("a node with commit-to-device announces a loss window of {window:?}")]
    Window { window: Duration },
    #[error("the node does not tell its loss window: {answer:?}")]
    NoWindow { answer: String },
    #[error("cannot read the log of the node")]
    Log(#[source] std::io::Error),
    #[error("cannot tear the storage of the node")]
    Tear(#[source] std::io::Error),
}

/// What starts after crashes reported.
#[derive(Clone, Copy, Debug, Default)]
struct Scars {
    blocks: u64,
    open_blocks: u64,
    torn_records: u64,
    damaged_blocks: u64,
    damaged_records: u64,
}

/// All there is to say in the end.
struct CrashReport {
    seed: u64,
    rounds: u64,
    clean_stops: u64,
    /// Of the starts after them, those from a checkpoint of the index.
    warm_starts: u64,
    acknowledged: u64,
    refused: u64,
    window: Duration,
    /// Records torn in open blocks.
    tears: u64,
    scars: Scars,
    findings: Findings,
    elapsed: Duration,
}

/// Runs the command.
pub fn command(args: &CrashTestArgs) -> Result<ExitCode, Box<dyn Error>> {
    let clock = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    let seed = args.seed.unwrap_or_else(|| clock() as u64);
    let stage = Stage::open(std::env::current_exe()?, args.keep)?;
    stage.guard()?;
    let bar = report::progress("crashing", args.rounds);
    let report = run(&stage, args.rounds, seed, &bar)?;
    bar.finish_and_clear();
    if args.keep {
        eprintln!("kept {}", stage.folder().display());
    }
    drop(stage);
    match args.json {
        true => report::print(&report.to_json().to_string()),
        false => report::print(&report.to_text()),
    }
    Ok(if report.findings.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run(
    stage: &Stage,
    rounds: u64,
    seed: u64,
    bar: &ProgressBar,
) -> Result<CrashReport, CrashTestError> {
    let start = Instant::now();
    let mut random = finalize(seed);
    let mut writers: Vec<_> =
        (0..WRITERS).map(|writer| Writer::new(finalize(seed ^ writer << 48))).collect();
    let mut report = CrashReport {
        seed,
        rounds,
        clean_stops: 0,
        warm_starts: 0,
        acknowledged: 0,
        refused: 0,
        window: Duration::ZERO,
        tears: 0,
        scars: Scars::default(),
        findings: Findings::default(),
        elapsed: Duration::ZERO,
    };
    let mut node = start_node(stage, 0)?;
    for round in 0..rounds {
        random = finalize(random);
        let window = loss_window(&node)?;
        if commits(round) && !window.is_zero() {
            return Err(CrashTestError::Window { window });
        }
        let load = window + Duration::from_millis(LOAD_MS.0 + random % LOAD_MS.1);
        let at = load_and_kill(stage, &node, &mut writers, load)?;
        let promises = commits(round).then(|| tear::Promises::of(&writers));
        let log = stage.work_directory(NODE).join(LOG);
        report.tears += tear::tear(&log, BLOCK_BYTES, promises.as_ref(), random)
            .map_err(CrashTestError::Tear)?;
        node = start_node(stage, round + 1)?;
        report.scars.add(&fs::read_to_string(stage.log_path(NODE)).map_err(CrashTestError::Log)?);
        report.compare(&node, &mut writers, &Crash { at, window }, round)?;
        if (random >> 32).is_multiple_of(CLEAN_STOP_EVERY) {
            stage.stop(NODE)?;
            node = start_node(stage, round + 1)?;
            let nothing = Crash { at: Instant::now(), window: Duration::ZERO };
            report.compare(&node, &mut writers, &nothing, round)?;
            report.clean_stops += 1;
            let log = fs::read_to_string(stage.log_path(NODE)).map_err(CrashTestError::Log)?;
            report.warm_starts += u64::from(log.contains(FROM_ITS_CHECKPOINT));
        }
        report.window = report.window.max(window);
        bar.inc(1);
    }
    report.acknowledged = writers.iter().map(|writer| writer.acknowledged).sum();
    report.refused = writers.iter().map(|writer| writer.refused).sum();
    report.elapsed = start.elapsed();
    Ok(report)
}

/// Whether a round's node commits to its device.
const fn commits(round: u64) -> bool {
    round.is_multiple_of(2)
}

fn start_node(stage: &Stage, round: u64) -> Result<String, CrashTestError> {
    let work = stage.work_directory(NODE);
    let ports = stage.start(NODE, &node_config(&work.to_string_lossy(), commits(round)))?;
    Ok(format!("127.0.0.1:{}", ports[0]))
}

fn node_config(work: &str, commit: bool) -> String {
    // Small: blocks are moved and written many times over, and reads go to the device.
    let text = NodeText {
        work,
        service: &[("cluster-name", "crash-test".into()), ("shards", "2".into())],
        network: &[],
        namespace: NAMESPACE,
        file: LOG,
        storage: &[
            ("filesize", "16M".into()),
            ("write-block-size", BLOCK_BYTES.to_string()),
            ("max-write-cache", "4M".into()),
            ("post-write-cache", "1M".into()),
            ("flush-max-ms", "50".into()),
            ("commit-to-device", commit.to_string()),
        ],
        xdr: "",
    };
    text.format()
}

/// How long before a crash a write may be acknowledged and still get lost, as the node says.
fn loss_window(node: &str) -> Result<Duration, CrashTestError> {
    let mut line = InfoLine::open(node)?;
    let key = Key::from_seed([1; 32]).expect("only a seed of zeros is none");
    let hello = Hello {
        origin: key.origin(),
        process: 1,
        node: 0,
        shard: 0,
        stream: 1,
        streams: vec![1],
        epoch: 1,
        src_id: SrcId::NONE,
        dc: "crash-test",
    };
    let answer = line.ask(CHALLENGE)?;
    let challenge = Challenge::from_hex(&answer).ok_or(CrashTestError::NoWindow { answer })?;
    let to = line.ask("node")?;
    let answer = line.ask(&key.sign(&hello, &to, &challenge))?;
    match HelloAnswer::parse(&answer) {
        Some(answer) => Ok(Duration::from_millis(answer.loss_window_ms)),
        None => Err(CrashTestError::NoWindow { answer }),
    }
}

/// Has the writers write until the node is killed after `load`; when that was.
fn load_and_kill(
    stage: &Stage,
    node: &str,
    writers: &mut [Writer],
    load: Duration,
) -> Result<Instant, CrashTestError> {
    let killed = AtomicBool::new(false);
    thread::scope(|scope| {
        let write = |writer| {
            let killed = &killed;
            scope.spawn(move || Writer::write(writer, node, killed))
        };
        let threads: Vec<_> = writers.iter_mut().map(write).collect();
        thread::sleep(load);
        killed.store(true, Ordering::SeqCst);
        let at = Instant::now();
        stage.kill(NODE)?;
        for thread in threads {
            thread.join().expect("a writer returns what stops it")?;
        }
        Ok(at)
    })
}

impl Scars {
    /// Adds what the shards say about their storage at start.
    fn add(&mut self, log: &str) {
        self.blocks += figure(log, "blocks");
        self.open_blocks += figure(log, "blocks were open");
        self.torn_records += figure(log, "records were torn");
        self.damaged_blocks +=
            figure(log, "blocks are damaged") + figure(log, "blocks cannot be read");
        self.damaged_records += figure(log, "records are lost to damage");
    }
}

/// The sum of the numbers that stand before these words in what shards say of their start.
fn figure(log: &str, words: &str) -> u64 {
    let lines = log.lines().filter_map(|line| line.split_once(FROM_THE_LOG));
    let said = lines.flat_map(|(_, said)| said.split("; ").flat_map(|part| part.split(" in ")));
    let is_it = |part: &&str| {
        part.split_once(' ').is_some_and(|(_, text)| match words {
            "blocks" => text == words,
            _ => text.starts_with(words),
        })
    };
    said.filter(is_it).filter_map(|part| part.split(' ').next()?.parse::<u64>().ok()).sum()
}

/// What a shard says before its figures when it has read its log.
const FROM_THE_LOG: &str = "from the log: ";
/// The same when it has its records from a checkpoint.
const FROM_ITS_CHECKPOINT: &str = "from its checkpoint: ";

impl CrashReport {
    fn compare(
        &mut self,
        node: &str,
        writers: &mut [Writer],
        crash: &Crash,
        round: u64,
    ) -> Result<(), CrashTestError> {
        for writer in writers {
            let mut findings = writer.compare(node, crash)?;
            let mode = if commits(round) { "commit-to-device" } else { "in memory first" };
            for example in &mut findings.examples {
                *example = format!("round {round} ({mode}), {example}");
            }
            self.findings.add(findings);
        }
        Ok(())
    }

    fn to_text(&self) -> String {
        let count = report::count;
        let Self { scars, findings, .. } = self;
        let table = Table::default()
            .row(
                "rounds",
                format!(
                    "{}, {} with commit-to-device, in between {} clean stops, {} warm starts, in {}",
                    self.rounds,
                    self.rounds.div_ceil(2),
                    self.clean_stops,
                    self.warm_starts,
                    report::seconds(self.elapsed)
                ),
            )
            .row("seed", self.seed.to_string())
            .row(
                "acknowledged",
                format!("{} writes, {} refused", count(self.acknowledged), count(self.refused)),
            )
            .row("loss window", format!("{} ms", self.window.as_millis()))
            .row(
                "torn",
                format!(
                    "{} records torn, {} met in {} open blocks; {} of {} blocks damaged",
                    count(self.tears),
                    count(scars.torn_records),
                    count(scars.open_blocks),
                    count(scars.damaged_blocks),
                    count(scars.blocks)
                ),
            )
            .row(
                "lost",
                format!(
                    "{} writes, {} deletes back from the dead, {} records damaged",
                    count(findings.lost),
                    count(findings.back_from_the_dead),
                    count(findings.damaged)
                ),
            );
        let examples = findings.examples.iter().map(|example| format!("  {example}\n"));
        table.to_string() + &examples.collect::<String>()
    }

    fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "seed": self.seed,
            "rounds": self.rounds,
            "clean_stops": self.clean_stops,
            "warm_starts": self.warm_starts,
            "acknowledged": self.acknowledged,
            "refused": self.refused,
            "loss_window_ms": self.window.as_millis() as u64,
            "lost": self.findings.lost,
            "back_from_the_dead": self.findings.back_from_the_dead,
            "damaged_records": self.findings.damaged + self.scars.damaged_records,
            "blocks_read": self.scars.blocks,
            "open_blocks": self.scars.open_blocks,
            "torn": self.tears,
            "torn_met": self.scars.torn_records,
            "damaged_blocks": self.scars.damaged_blocks,
            "examples": self.findings.examples,
            "seconds": self.elapsed.as_secs_f64(),
        })
    }
}

#[cfg(test)]
mod tests {
    use longship_node::config::Config;

    use super::*;

    #[test]
    fn the_node_accepts_its_configuration() {
        for commit in [false, true] {
            let config = Config::parse(&node_config("/tmp/x", commit), "crash-test");
            assert_eq!(config.unwrap().namespaces[0].storage.commit_to_device, commit);
        }
    }

    #[test]
    fn figures_are_found_in_logs() {
        let log = "INFO shard 0 opened test from the log: 40 records in 3 blocks; 2 blocks were open \
                   when the last run ended; 12 records were torn then, none acknowledged\n\
                   INFO shard 1 opened test from the log: 9 records in 4 blocks; 30 records were \
                   torn then\nINFO 7 blocks\n";
        assert_eq!(figure(log, "records were torn"), 42);
        assert_eq!(figure(log, "blocks"), 7);
        assert_eq!(figure(log, "blocks were open"), 2);
        assert_eq!(figure(log, "blocks are damaged"), 0);
    }
}
