//! `longship load`: writes deterministic content through the client protocol, and times it.
//!
//! Without a rate, requests are sent as fast as the windows allow and a latency runs from queueing
//! to answer. With one, operation k is due at `start + k / rate` and its latency runs from there,
//! so that a stalled server is not flattered by requests that were never sent.

use std::collections::BTreeMap;
use std::error::Error;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use longship::wire::request::Address;
use longship::wire::{Head, Reply, ResultCode};

use crate::client::{Client, ClientError};
use crate::content::{BIN_COUNT, Content, ContentArgs, GAP, Step};
use crate::cores;
use crate::report::{self, Table};

/// Refused operations after which a load gives up.
const REFUSED_MAX: u64 = 100;
/// How often an operation is tried when the node answers that it is overloaded.
const ATTEMPTS_MAX: u32 = 1000;
/// Pause before overloaded operations are tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(5);
/// Longest latency that is told apart.
const LATENCY_US_MAX: u64 = 60_000_000;

/// Writes deterministic content through the client protocol, and times it.
#[derive(clap::Args)]
pub struct LoadArgs {
    #[command(flatten)]
    content: ContentArgs,
    /// Connections to each node.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    connections: u16,
    /// Requests in flight on each connection.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pipeline: u16,
    /// Operations per second; 0 = as fast as they are answered.
    #[arg(long, default_value_t = 0)]
    rate: u64,
    /// CPU to run on; by default the system chooses.
    #[arg(long)]
    cpu: Option<usize>,
    /// Print the summary as one line of JSON.
    #[arg(long)]
    json: bool,
}

/// Why a load ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("gave up after {REFUSED_MAX} refused operations: {refused}")]
    Refused { refused: String },
    #[error(
        "{in_flight} requests in flight could overtake a record's own earlier ones: \
         keep nodes x connections x pipeline below {GAP}"
    )]
    TooDeep { in_flight: usize },
}

/// What a load did.
pub(crate) struct LoadReport {
    pub(crate) records: u64,
    pub(crate) updates: u64,
    pub(crate) deletes: u64,
    pub(crate) bytes: u64,
    pub(crate) elapsed: Duration,
    pub(crate) latency_us: Histogram<u64>,
    /// Operations sent again because the node was overloaded.
    pub(crate) retried: u64,
    /// Refused operations by code.
    pub(crate) refused: BTreeMap<ResultCode, u64>,
}

/// How hard to push.
#[derive(Clone, Copy)]
pub(crate) struct Pressure {
    pub(crate) connections: usize,
    pub(crate) pipeline: usize,
    pub(crate) rate: u64,
}

/// An operation under way.
struct Sent {
    step: Step,
    attempts: u32,
    due: Instant,
}

/// What replies leave behind.
struct Ledger {
    report: LoadReport,
    again: Vec<Sent>,
}

/// Runs the command.
pub fn command(args: &LoadArgs) -> Result<ExitCode, Box<dyn Error>> {
    let place = cores::settle_on(args.cpu)?;
    let content = args.content.content();
    let pressure = Pressure {
        connections: args.connections.into(),
        pipeline: args.pipeline.into(),
        rate: args.rate,
    };
    let bar = report::progress("loading", content.records);
    let report = run(&args.content.host, &content, pressure, &bar)?;
    bar.finish_and_clear();
    if args.json {
        let mut json = report.to_json();
        json["core"] = place.to_json();
        report::print(&json.to_string());
    } else {
        report::print(&report.to_table().row("core", place.to_string()).to_string());
    }
    Ok(if report.refused.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Writes the content into the cluster behind `seed`; the bar counts operations.
pub(crate) fn run(
    seed: &str,
    content: &Content,
    pressure: Pressure,
    bar: &ProgressBar,
) -> Result<LoadReport, LoadError> {
    let Pressure { connections, pipeline, rate } = pressure;
    let mut client = Client::connect(seed, &content.namespace, connections, pipeline)?;
    let in_flight = client.addresses().len() * connections * pipeline;
    if in_flight as u64 >= GAP {
        return Err(LoadError::TooDeep { in_flight });
    }
    let (updates, deletes) = content.later_steps();
    bar.set_length(content.records + updates + deletes);
    let mut writer = Writer { content, client: &mut client, key: Vec::new(), bins: Vec::new() };
    let mut ledger = Ledger::new(content.records, updates, deletes);
    let start = Instant::now();
    for (index, step) in content.steps().enumerate() {
        let due = pace(start, index, rate, &mut writer, &mut ledger)?;
        writer.send(Sent { step, attempts: 1, due }, &mut ledger)?;
        ledger.resend(&mut writer)?;
        if index % 1024 == 1023 {
            bar.inc(1024);
        }
    }
    writer.client.settle(&mut ledger.reader())?;
    while !ledger.again.is_empty() {
        ledger.resend(&mut writer)?;
        writer.client.settle(&mut ledger.reader())?;
    }
    ledger.report.elapsed = start.elapsed();
    Ok(ledger.report)
}

/// When operation `index` is due; waits for it, with nothing unanswered, when that is still ahead.
fn pace(
    start: Instant,
    index: usize,
    rate: u64,
    writer: &mut Writer<'_>,
    ledger: &mut Ledger,
) -> Result<Instant, LoadError> {
    if rate == 0 {
        return Ok(Instant::now());
    }
    let due = start + Duration::from_secs_f64(index as f64 / rate as f64);
    if Instant::now() < due {
        writer.client.settle(&mut ledger.reader())?;
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    Ok(due)
}

/// Turns steps into requests.
struct Writer<'a> {
    content: &'a Content,
    client: &'a mut Client<Sent>,
    key: Vec<u8>,
    bins: Vec<u8>,
}

impl Writer<'_> {
    fn send(&mut self, sent: Sent, ledger: &mut Ledger) -> Result<(), LoadError> {
        let Content { namespace, set, .. } = self.content;
        self.content.key(sent.step.record(), &mut self.key);
        let digest = self.content.digest(&self.key);
        let address = Address { namespace, set, digest };
        self.bins.clear();
        let (head, op_count) = match sent.step {
            Step::Write { record, revision } => {
                self.content.push_bins(record, revision, &mut self.bins);
                (Head { key: &self.key, ..address.put() }, BIN_COUNT)
            }
            Step::Delete { .. } => (address.remove(), 0),
        };
        ledger.report.bytes += (head.bytes() + self.bins.len()) as u64;
        let encode = |out: &mut Vec<u8>| head.push(op_count, &self.bins, out);
        self.client.send(&digest, sent, encode, &mut ledger.reader())?;
        if ledger.refused() >= REFUSED_MAX {
            return Err(LoadError::Refused { refused: ledger.report.refused_text() });
        }
        Ok(())
    }
}

impl Ledger {
    fn new(records: u64, updates: u64, deletes: u64) -> Self {
        let latency_us =
            Histogram::new_with_max(LATENCY_US_MAX, 3).expect("3 digits up to a minute is valid");
        Self {
            report: LoadReport {
                records,
                updates,
                deletes,
                bytes: 0,
                elapsed: Duration::ZERO,
                latency_us,
                retried: 0,
                refused: BTreeMap::new(),
            },
            again: Vec::new(),
        }
    }

    /// Takes replies.
    fn reader(&mut self) -> impl FnMut(Sent, Instant, Reply<'_>) {
        |sent, now, reply| match reply.code() {
            ResultCode::OK => {
                let took = now.saturating_duration_since(sent.due).as_micros() as u64;
                self.report.latency_us.saturating_record(took);
            }
            code if is_temporary(code) && sent.attempts < ATTEMPTS_MAX => self.again.push(sent),
            // A delete that was tried again may have been carried out the first time.
            ResultCode::NOT_FOUND if sent.attempts > 1 => {}
            code => *self.report.refused.entry(code).or_default() += 1,
        }
    }

    /// Sends operations again that met an overloaded node, before anything newer is sent.
    fn resend(&mut self, writer: &mut Writer<'_>) -> Result<(), LoadError> {
        if self.again.is_empty() {
            return Ok(());
        }
        writer.client.settle(&mut self.reader())?;
        thread::sleep(RETRY_PAUSE);
        for sent in std::mem::take(&mut self.again) {
            self.report.retried += 1;
            writer.send(Sent { attempts: sent.attempts + 1, ..sent }, self)?;
        }
        Ok(())
    }

    fn refused(&self) -> u64 {
        self.report.refused.values().sum()
    }
}

const fn is_temporary(code: ResultCode) -> bool {
    matches!(code, ResultCode::TIMEOUT | ResultCode::KEY_BUSY | ResultCode::DEVICE_OVERLOAD)
}

impl LoadReport {
    pub(crate) const fn operations(&self) -> u64 {
        self.records + self.updates + self.deletes
    }

    pub(crate) fn per_second(&self) -> f64 {
        self.operations() as f64 / self.elapsed.as_secs_f64()
    }

    fn refused_text(&self) -> String {
        let each: Vec<_> =
            self.refused.iter().map(|(code, count)| format!("{count} x {code}")).collect();
        if each.is_empty() { "none".to_owned() } else { each.join(", ") }
    }

    pub(crate) fn written_text(&self) -> String {
        let count = report::count;
        format!(
            "{} records, {} updates, {} deletes in {}",
            count(self.records),
            count(self.updates),
            count(self.deletes),
            report::seconds(self.elapsed)
        )
    }

    fn to_table(&self) -> Table {
        Table::default()
            .row("written", self.written_text())
            .row(
                "rate",
                format!(
                    "{} operations/s, {}/s",
                    report::count(self.per_second() as u64),
                    report::bytes((self.bytes as f64 / self.elapsed.as_secs_f64()) as u64)
                ),
            )
            .row("latency", report::quantiles(&self.latency_us))
            .row("tried again", report::count(self.retried))
            .row("refused", self.refused_text())
    }

    pub(crate) fn to_json(&self) -> serde_json::Value {
        let latency = |quantile| self.latency_us.value_at_quantile(quantile);
        let refused: BTreeMap<_, _> =
            self.refused.iter().map(|(code, count)| (code.0.to_string(), count)).collect();
        serde_json::json!({
            "records": self.records,
            "updates": self.updates,
            "deletes": self.deletes,
            "bytes": self.bytes,
            "seconds": self.elapsed.as_secs_f64(),
            "operations_per_second": self.per_second(),
            "latency_us": {
                "p50": latency(0.5),
                "p99": latency(0.99),
                "p99_9": latency(0.999),
                "max": self.latency_us.max(),
            },
            "tried_again": self.retried,
            "refused": refused,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::tests::small;
    use crate::standin::StandIn;

    fn load(cluster: &StandIn, content: &Content, rate: u64) -> Result<LoadReport, LoadError> {
        let pressure = Pressure { connections: 2, pipeline: 16, rate };
        run(&cluster.seed(), content, pressure, &ProgressBar::hidden())
    }

    #[test]
    fn a_load_leaves_what_its_content_promises() {
        let cluster = StandIn::start(2);
        let content = small(2000);
        let report = load(&cluster, &content, 0).unwrap();
        let (updates, deletes) = content.later_steps();
        assert_eq!((report.updates, report.deletes), (updates, deletes));
        assert_eq!(report.latency_us.len(), report.operations());
        let objects: usize = cluster.shares().iter().sum();
        assert_eq!(objects as u64, content.records - deletes);
        assert!(report.refused.is_empty());
        assert_eq!(report.to_json()["records"], 2000);
        assert!(report.to_table().to_string().contains("2,000 records"));
    }

    #[test]
    fn a_rate_is_kept() {
        let cluster = StandIn::start(1);
        let content = Content { update_percent: 0, delete_percent: 0, ..small(200) };
        let report = load(&cluster, &content, 2000).unwrap();
        assert!(report.elapsed >= Duration::from_millis(99), "{:?}", report.elapsed);
    }

    #[test]
    fn refusals_end_a_load_with_their_cause() {
        let cluster = StandIn::start(1);
        let content = Content { set: "s".repeat(64), ..small(2000) };
        let error = load(&cluster, &content, 0).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("x 4 (bad parameter)"), "{error}");
        let deep = Pressure { connections: 64, pipeline: 4096, rate: 0 };
        let error = run(&cluster.seed(), &content, deep, &ProgressBar::hidden());
        assert!(matches!(error, Err(LoadError::TooDeep { .. })));
    }
}
