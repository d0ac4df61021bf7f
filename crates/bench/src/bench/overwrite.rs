//! `longship bench overwrite`: does a namespace that is 80 % full bear being overwritten for ever?
//!
//! A node of one shard is filled through the client protocol, then random records are overwritten
//! for a while, as fast as they are acknowledged. Refused writes (the device does not keep up) are
//! sent again, and a write's latency runs from its first sending to its acknowledgement.
//!
//! - growth: bytes used at the end over those after filling, and the free share of the device over
//!   time. Expected: none; the free share settles where defragmentation keeps pace.
//! - p99.9 of the writes of each second, and the worst of them. Expected: below 100 ms.
//! - every record read back in the end is the revision written last.

use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use longship::wire::request::Address;
use longship::wire::{Head, Reply, ResultCode};

use crate::client::Client;
use crate::content::{BIN_COUNT, Content, finalize};
use crate::cores;
use crate::node_text::NodeText;
use crate::report::{self, Table};
use crate::stage::Stage;

const NAMESPACE: &str = "bench";
/// Unanswered requests.
const PIPELINE: usize = 128;
/// Pause before refused writes are sent again.
const RETRY_PAUSE: Duration = Duration::from_millis(1);
/// Longest latency that is told apart.
const LATENCY_US_MAX: u64 = 60_000_000;
/// The free share of the device is asked for this often.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Records read back at the end, at most.
const READ_BACK_MAX: u64 = 200_000;

/// Overwrites a namespace that is mostly full, for a while.
#[derive(clap::Args)]
pub(crate) struct OverwriteArgs {
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// MiB of the file.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u64).range(32..=1_048_576))]
    mib: u64,
    /// Share of it that is filled first.
    #[arg(long, default_value_t = 80, value_parser = clap::value_parser!(u64).range(1..=95))]
    percent: u64,
    /// Bytes of each record's value.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(..=65_536))]
    value_bytes: u64,
    /// Print the result as one line of JSON.
    #[arg(long)]
    json: bool,
}

/// What a shard says of its namespace.
#[derive(Clone, Copy, Debug, Default)]
struct Look {
    used_bytes: u64,
    total_bytes: u64,
    free_pct: u64,
    moved_bytes: u64,
}

struct OverwriteReport {
    records: u64,
    writes: u64,
    refused: u64,
    elapsed: Duration,
    latency_us: Histogram<u64>,
    /// p99.9 of the writes acknowledged in each second.
    seconds_p99_9_us: Vec<u64>,
    /// Writes acknowledged in each second.
    seconds_writes: Vec<u64>,
    filled: Look,
    ended: Look,
    free_pct: Vec<u64>,
    wrong: u64,
    read_back: u64,
    place: cores::Place,
}

/// What the node refused with anything but "not now".
#[derive(Debug, thiserror::Error)]
#[error("the node refused a write: {0}")]
struct Refused(ResultCode);

/// Runs the command.
pub(super) fn command(args: &OverwriteArgs) -> Result<ExitCode, Box<dyn Error>> {
    let stage = Stage::open(std::env::current_exe()?, false)?;
    stage.guard()?;
    let bar = report::progress("overwriting", args.seconds);
    let report = run(&stage, args, &bar)?;
    bar.finish_and_clear();
    match args.json {
        true => report::print(&report.to_json().to_string()),
        false => report::print(&report.to_table().to_string()),
    }
    Ok(if report.wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run(
    stage: &Stage,
    args: &OverwriteArgs,
    bar: &ProgressBar,
) -> Result<OverwriteReport, Box<dyn Error>> {
    let cpu = cores::allowed()[0];
    let work = stage.work_directory("node");
    let ports = stage.start("node", &node_config(&work.to_string_lossy(), cpu, args.mib))?;
    let place = cores::settle_on(cores::allowed().last().copied())?;
    let mut writer = Writer::new(&format!("127.0.0.1:{}", ports[0]), args.value_bytes as usize)?;
    bar.tick();
    let filled = writer.fill(args.percent)?;
    let mut free_pct = vec![filled.free_pct];
    let (begin, mut random) = (Instant::now(), 1);
    writer.log.clear();
    let mut looked = begin;
    while begin.elapsed() < Duration::from_secs(args.seconds) {
        random = finalize(random);
        let record = random % writer.revisions.len() as u64;
        writer.write(record)?;
        if looked.elapsed() >= LOOK_EVERY {
            looked = Instant::now();
            free_pct.push(writer.look()?.free_pct);
            writer.log.end_second();
            bar.inc(1);
        }
    }
    writer.settle()?;
    writer.log.end_second();
    let elapsed = begin.elapsed();
    let ended = writer.look()?;
    let (read_back, wrong) = writer.read_back()?;
    let Log { all, seconds_p99_9_us, seconds_writes, refused, .. } = writer.log;
    Ok(OverwriteReport {
        records: writer.revisions.len() as u64,
        writes: all.len(),
        refused,
        elapsed,
        latency_us: all,
        seconds_p99_9_us,
        seconds_writes,
        filled,
        ended,
        free_pct,
        wrong,
        read_back,
        place,
    })
}

fn node_config(work: &str, cpu: usize, mib: u64) -> String {
    let text = NodeText {
        work,
        service: &[("shards", "1".into()), ("cpu-set", cpu.to_string())],
        network: &[],
        namespace: NAMESPACE,
        file: "bench.log",
        storage: &[("filesize", format!("{mib}M")), ("stop-writes-used-pct", "0".into())],
        xdr: "",
    };
    text.format()
}

/// A write under way.
#[derive(Clone, Copy)]
struct Sent {
    record: u64,
    begin: Instant,
}

/// What replies leave behind.
struct Log {
    all: Histogram<u64>,
    second: Histogram<u64>,
    seconds_p99_9_us: Vec<u64>,
    seconds_writes: Vec<u64>,
    refused: u64,
    again: Vec<Sent>,
    failed: Option<ResultCode>,
}

impl Log {
    fn new() -> Self {
        let empty =
            Histogram::new_with_max(LATENCY_US_MAX, 3).expect("3 digits up to a minute is valid");
        Self {
            all: empty.clone(),
            second: empty,
            seconds_p99_9_us: Vec::new(),
            seconds_writes: Vec::new(),
            refused: 0,
            again: Vec::new(),
            failed: None,
        }
    }

    fn clear(&mut self) {
        *self = Self::new();
    }

    fn take(&mut self, sent: Sent, at: Instant, reply: &Reply<'_>) {
        match reply.code() {
            ResultCode::OK => {
                let took = at.saturating_duration_since(sent.begin).as_micros() as u64;
                self.second.saturating_record(took);
            }
            ResultCode::DEVICE_OVERLOAD => {
                self.refused += 1;
                self.again.push(sent);
            }
            code => self.failed = Some(code),
        }
    }

    fn end_second(&mut self) {
        self.seconds_p99_9_us.push(self.second.value_at_quantile(0.999));
        self.seconds_writes.push(self.second.len());
        self.all.add(&self.second).expect("both have the same bounds");
        self.second.reset();
    }
}

struct Writer {
    address: String,
    client: Client<Sent>,
    content: Content,
    /// The revision each record has, or is getting.
    revisions: Vec<u32>,
    log: Log,
    key: Vec<u8>,
    bins: Vec<u8>,
}

impl Writer {
    fn new(address: &str, value_bytes: usize) -> Result<Self, Box<dyn Error>> {
        let content = Content {
            namespace: NAMESPACE.into(),
            set: String::new(),
            records: 0,
            value_bytes,
            update_percent: 0,
            delete_percent: 0,
            seed: 1,
        };
        Ok(Self {
            address: address.to_owned(),
            client: Client::connect(address, NAMESPACE, 1, PIPELINE)?,
            content,
            revisions: Vec::new(),
            log: Log::new(),
            key: Vec::new(),
            bins: Vec::new(),
        })
    }

    /// Creates records until so much of the device is in use.
    fn fill(&mut self, percent: u64) -> Result<Look, Box<dyn Error>> {
        loop {
            let look = self.look()?;
            let wanted = look.total_bytes * percent / 100;
            if look.used_bytes >= wanted {
                return Ok(look);
            }
            let each = (self.content.value_bytes + 128) as u64;
            for _ in 0..=(wanted - look.used_bytes) / each {
                self.revisions.push(0);
                self.write(self.revisions.len() as u64 - 1)?;
            }
            self.settle()?;
        }
    }

    /// Writes the next revision of a record.
    fn write(&mut self, record: u64) -> Result<(), Box<dyn Error>> {
        self.revisions[record as usize] += 1;
        self.send(Sent { record, begin: Instant::now() })?;
        while !self.log.again.is_empty() {
            self.send_again()?;
        }
        self.log.failed.map_or(Ok(()), |code| Err(Refused(code).into()))
    }

    /// Waits for all answers, and sends what was refused again, before anything newer.
    fn send_again(&mut self) -> Result<(), Box<dyn Error>> {
        let log = &mut self.log;
        self.client.settle(&mut |sent, at, reply| log.take(sent, at, &reply))?;
        std::thread::sleep(RETRY_PAUSE);
        for sent in std::mem::take(&mut self.log.again) {
            self.send(sent)?;
        }
        Ok(())
    }

    fn settle(&mut self) -> Result<(), Box<dyn Error>> {
        loop {
            let log = &mut self.log;
            self.client.settle(&mut |sent, at, reply| log.take(sent, at, &reply))?;
            if self.log.again.is_empty() {
                return Ok(());
            }
            self.send_again()?;
        }
    }

    fn send(&mut self, sent: Sent) -> Result<(), Box<dyn Error>> {
        self.content.key(sent.record, &mut self.key);
        let digest = self.content.digest(&self.key);
        self.bins.clear();
        let revision = self.revisions[sent.record as usize].into();
        self.content.push_bins(sent.record, revision, &mut self.bins);
        let (key, bins) = (&self.key, &self.bins);
        let head = Head { key, ..Address { namespace: NAMESPACE, set: "", digest }.put() };
        let log = &mut self.log;
        self.client.send(
            &digest,
            sent,
            |out: &mut Vec<u8>| head.push(BIN_COUNT, bins, out),
            &mut |sent, at, reply| log.take(sent, at, &reply),
        )?;
        Ok(())
    }

    /// What the node says of its space.
    fn look(&self) -> Result<Look, Box<dyn Error>> {
        let command = format!("namespace/{NAMESPACE}");
        let answer = crate::client::ask(&self.address, &[&command])?.swap_remove(0);
        let figure = |name: &str| {
            let found = longship::wire::info::pairs(&answer).find(|(key, _)| *key == name);
            found.and_then(|(_, value)| value.parse().ok()).ok_or(format!("no {name} in {answer}"))
        };
        Ok(Look {
            used_bytes: figure("data_used_bytes")?,
            total_bytes: figure("data_total_bytes")?,
            free_pct: figure("data_avail_pct")?,
            moved_bytes: figure("defrag_moved_bytes")?,
        })
    }

    /// Reads records back, evenly over all; how many, and how many of them are not as written.
    fn read_back(&mut self) -> Result<(u64, u64), Box<dyn Error>> {
        let mut client = Client::connect(&self.address, NAMESPACE, 1, PIPELINE)?;
        let (mut count, mut wrong, mut scratch) = (0, 0, Vec::new());
        let step = (self.revisions.len() as u64).div_ceil(READ_BACK_MAX).max(1) as usize;
        let Self { content, revisions, .. } = &*self;
        let mut judge = |record: u64, _: Instant, reply: Reply<'_>| {
            let revision = revisions[record as usize].into();
            let is_right = reply.code() == ResultCode::OK
                && content.matches_revision(record, revision, reply.ops, &mut scratch);
            wrong += u64::from(!is_right);
        };
        let mut key = Vec::new();
        for record in (0..revisions.len() as u64).step_by(step) {
            content.key(record, &mut key);
            let digest = content.digest(&key);
            let address = Address { namespace: NAMESPACE, set: "", digest };
            count += 1;
            let encode = |out: &mut Vec<u8>| address.get().push(0, &[], out);
            client.send(&digest, record, encode, &mut judge)?;
        }
        client.settle(&mut judge)?;
        Ok((count, wrong))
    }
}

impl OverwriteReport {
    /// Bytes that defragmentation moved for each byte written.
    fn moved_per_written(&self) -> f64 {
        let each = self.ended.used_bytes as f64 / self.records.max(1) as f64;
        (self.ended.moved_bytes - self.filled.moved_bytes) as f64 / (self.writes as f64 * each)
    }

    fn growth_bytes(&self) -> i64 {
        self.ended.used_bytes as i64 - self.filled.used_bytes as i64
    }

    /// Lowest free share in the first and in the last third of the time.
    fn free_pct_lowest(&self) -> (u64, u64) {
        let third = self.free_pct.len().div_ceil(3);
        let lowest = |part: &[u64]| part.iter().copied().min().unwrap_or_default();
        let last = self.free_pct.len().saturating_sub(third);
        (lowest(&self.free_pct[..third]), lowest(&self.free_pct[last..]))
    }

    fn worst_second_us(&self) -> u64 {
        self.seconds_p99_9_us.iter().copied().max().unwrap_or_default()
    }

    fn to_table(&self) -> Table {
        let percent = |look: Look| look.used_bytes as f64 * 100.0 / look.total_bytes as f64;
        let (first, last) = self.free_pct_lowest();
        let slowest = self.seconds_writes.iter().min().copied().unwrap_or_default();
        Table::default()
            .row(
                "filled",
                format!(
                    "{} records, {} of {} ({:.1} %)",
                    report::count(self.records),
                    report::bytes(self.filled.used_bytes),
                    report::bytes(self.filled.total_bytes),
                    percent(self.filled)
                ),
            )
            .row(
                "overwritten",
                format!(
                    "{} writes in {}, {}/s, {}/s in the slowest second; {} sent again",
                    report::count(self.writes),
                    report::seconds(self.elapsed),
                    report::count((self.writes as f64 / self.elapsed.as_secs_f64()) as u64),
                    report::count(slowest),
                    report::count(self.refused)
                ),
            )
            .row(
                "growth",
                format!(
                    "{} bytes; free at least {first} % in the first third, {last} % in the last",
                    self.growth_bytes()
                ),
            )
            .row("moved", format!("{:.2} bytes for each byte written", self.moved_per_written()))
            .row("latency", report::quantiles(&self.latency_us))
            .row("worst second", format!("p99.9 {}", report::micros(self.worst_second_us())))
            .row(
                "read back",
                format!(
                    "{} records, {} wrong",
                    report::count(self.read_back),
                    report::count(self.wrong)
                ),
            )
            .row("load", self.place.to_string())
    }

    fn to_json(&self) -> serde_json::Value {
        let latency = |quantile| self.latency_us.value_at_quantile(quantile);
        let (first, last) = self.free_pct_lowest();
        serde_json::json!({
            "records": self.records,
            "writes": self.writes,
            "seconds": self.elapsed.as_secs_f64(),
            "writes_per_second": self.writes as f64 / self.elapsed.as_secs_f64(),
            "writes_of_seconds": self.seconds_writes,
            "sent_again": self.refused,
            "used_bytes_filled": self.filled.used_bytes,
            "used_bytes_ended": self.ended.used_bytes,
            "growth_bytes": self.growth_bytes(),
            "free_pct_lowest_first_third": first,
            "free_pct_lowest_last_third": last,
            "moved_per_written": self.moved_per_written(),
            "p50_us": latency(0.5),
            "p99_us": latency(0.99),
            "p99_9_us": latency(0.999),
            "max_us": self.latency_us.max(),
            "p99_9_us_of_seconds": self.seconds_p99_9_us,
            "worst_second_p99_9_us": self.worst_second_us(),
            "read_back": self.read_back,
            "wrong": self.wrong,
            "load_core": self.place.to_json(),
        })
    }
}

#[cfg(test)]
mod tests {
    use longship_node::config::Config;

    use super::*;

    #[test]
    fn the_node_accepts_its_configuration() {
        let text = node_config("/tmp/x", 0, 64);
        Config::parse(&text, "bench").unwrap_or_else(|errors| panic!("{errors}\n{text}"));
    }

    #[test]
    fn seconds_are_kept_apart() {
        let mut log = Log::new();
        for took in [100, 200, 5000] {
            log.second.record(took).unwrap();
        }
        log.end_second();
        log.second.record(7).unwrap();
        log.end_second();
        assert_eq!(log.seconds_writes, [3, 1]);
        assert!(log.seconds_p99_9_us[0] >= 5000 && log.seconds_p99_9_us[1] == 7);
        assert_eq!(log.all.len(), 4);
    }
}
