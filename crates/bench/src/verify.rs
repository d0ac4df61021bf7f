//! `longship verify`: reads every key of a load back and compares with what its seed says.
//!
//! *Missing*: not there, but should be. *Stale*: there with other bins than the last write's.
//! *Extra*: deleted, but still there; or a record the load never wrote, which shows as a namespace
//! holding more objects than were found. The namespace must hold nothing but the load.

use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use longship::wire::request::Address;
use longship::wire::{Reply, ResultCode};

use crate::client::{Client, ClientError};
use crate::content::{Content, ContentArgs};
use crate::report;

/// Mismatches named one by one.
const EXAMPLES_MAX: usize = 10;
/// Requests in flight on the one connection to each node.
const PIPELINE: usize = 256;

/// Reads every key of a load back and compares with what its seed says.
#[derive(clap::Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    content: ContentArgs,
    /// Print the outcome as one line of JSON.
    #[arg(long)]
    json: bool,
}

/// Why a comparison could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VerifyError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("cannot read record {record}: the node answers {code}")]
    Read { record: u64, code: ResultCode },
}

/// Outcome of a comparison.
#[derive(Debug, Default)]
pub(crate) struct VerifyReport {
    pub(crate) records: u64,
    pub(crate) missing: u64,
    pub(crate) stale: u64,
    pub(crate) extra: u64,
    pub(crate) elapsed: Duration,
    /// The first few mismatches, in words.
    pub(crate) examples: Vec<String>,
}

/// What the replies say so far.
struct Comparison<'a> {
    content: &'a Content,
    report: VerifyReport,
    found: u64,
    unreadable: Option<VerifyError>,
    scratch: Vec<u8>,
}

/// Runs the command.
pub fn command(args: &VerifyArgs) -> Result<ExitCode, Box<dyn Error>> {
    let content = args.content.content();
    let bar = report::progress("reading back", content.records);
    let report = run(&args.content.host, &content, &bar)?;
    bar.finish_and_clear();
    if args.json {
        report::print(&report.to_json().to_string());
    } else {
        report.examples.iter().for_each(|example| report::print(example));
        report::print(&report.verdict());
    }
    Ok(report.exit_code())
}

/// Compares the cluster behind `seed` with the content; the bar counts records.
pub(crate) fn run(
    seed: &str,
    content: &Content,
    bar: &ProgressBar,
) -> Result<VerifyReport, VerifyError> {
    let mut client = Client::connect(seed, &content.namespace, 1, PIPELINE)?;
    let report = VerifyReport { records: content.records, ..VerifyReport::default() };
    let mut comparison =
        Comparison { content, report, found: 0, unreadable: None, scratch: Vec::new() };
    let start = Instant::now();
    let mut key = Vec::new();
    for record in 0..content.records {
        content.key(record, &mut key);
        let digest = content.digest(&key);
        let address = Address { namespace: &content.namespace, set: &content.set, digest };
        let encode = |out: &mut Vec<u8>| address.get().push(0, &[], out);
        client.send(&digest, record, encode, &mut |record, _, reply| {
            comparison.take(record, &reply);
        })?;
        if record % 1024 == 1023 {
            bar.inc(1024);
        }
    }
    client.settle(&mut |record, _, reply| comparison.take(record, &reply))?;
    if let Some(error) = comparison.unreadable {
        return Err(error);
    }
    comparison.report.elapsed = start.elapsed();
    let objects = client.namespace_sum(&content.namespace, "objects")?;
    Ok(comparison.finish(objects))
}

impl Comparison<'_> {
    fn take(&mut self, record: u64, reply: &Reply<'_>) {
        let expected = !self.content.is_deleted(record);
        match reply.code() {
            ResultCode::OK => {
                self.found += 1;
                if !expected {
                    self.report.extra += 1;
                    self.example(record, "should be deleted");
                } else if !self.content.matches(record, reply.ops, &mut self.scratch) {
                    self.report.stale += 1;
                    self.example(record, "has other bins than its last write");
                }
            }
            ResultCode::NOT_FOUND if expected => {
                self.report.missing += 1;
                self.example(record, "is missing");
            }
            ResultCode::NOT_FOUND => {}
            code => {
                self.unreadable.get_or_insert(VerifyError::Read { record, code });
            }
        }
    }

    fn example(&mut self, record: u64, what: &str) {
        if self.report.examples.len() < EXAMPLES_MAX {
            let mut key = Vec::new();
            self.content.key(record, &mut key);
            let (digest, text) = (self.content.digest(&key), String::from_utf8_lossy(&key[1..]));
            let partition = digest.partition();
            let example = format!("{text} {what} (digest {digest}, partition {partition})");
            self.report.examples.push(example);
        }
    }

    fn finish(mut self, objects: u64) -> VerifyReport {
        let foreign = objects.saturating_sub(self.found);
        self.report.extra += foreign;
        if foreign > 0 {
            let example = format!("{foreign} objects in the namespace are not of this load");
            self.report.examples.push(example);
        }
        self.report
    }
}

impl VerifyReport {
    /// The line a run ends with.
    pub(crate) fn verdict(&self) -> String {
        let Self { records, missing, stale, extra, .. } = self;
        format!("verified: {records} records, {missing} missing, {stale} stale, {extra} extra")
    }

    pub(crate) const fn is_clean(&self) -> bool {
        self.missing + self.stale + self.extra == 0
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        if self.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    pub(crate) fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "records": self.records,
            "missing": self.missing,
            "stale": self.stale,
            "extra": self.extra,
            "seconds": self.elapsed.as_secs_f64(),
            "examples": self.examples,
        })
    }
}

#[cfg(test)]
mod tests {
    use longship::model::Digest;

    use super::*;
    use crate::content::tests::small;
    use crate::load::{self, Pressure};
    use crate::standin::StandIn;

    fn loaded(content: &Content) -> StandIn {
        let cluster = StandIn::start(2);
        let pressure = Pressure { connections: 1, pipeline: 64, rate: 0 };
        load::run(&cluster.seed(), content, pressure, &ProgressBar::hidden()).unwrap();
        cluster
    }

    fn digest(content: &Content, wanted: impl Fn(u64) -> bool) -> Digest {
        let record = (0..content.records).find(|&record| wanted(record)).unwrap();
        let mut key = Vec::new();
        content.key(record, &mut key);
        content.digest(&key)
    }

    #[test]
    fn an_untouched_load_verifies() {
        let content = small(3000);
        let cluster = loaded(&content);
        let report = run(&cluster.seed(), &content, &ProgressBar::hidden()).unwrap();
        assert!(report.is_clean(), "{report:?}");
        assert_eq!(report.verdict(), "verified: 3000 records, 0 missing, 0 stale, 0 extra");
        assert_eq!(report.to_json()["missing"], 0);
    }

    #[test]
    fn every_kind_of_tampering_is_found() {
        let content = small(3000);
        let cluster = loaded(&content);
        let live = digest(&content, |record| !content.is_deleted(record));
        let updated =
            digest(&content, |record| content.updates(record) > 0 && !content.is_deleted(record));
        cluster.tamper(live, |record| *record = None);
        cluster.tamper(updated, |record| {
            *record.as_mut().unwrap().last_mut().unwrap() ^= 1;
        });
        cluster.tamper(Digest::of_string("other", "stranger"), |record| *record = Some(vec![]));
        let report = run(&cluster.seed(), &content, &ProgressBar::hidden()).unwrap();
        assert_eq!(report.verdict(), "verified: 3000 records, 1 missing, 1 stale, 1 extra");
        assert_eq!(report.examples.len(), 3);

        let deleted = digest(&content, |record| content.is_deleted(record));
        cluster.tamper(deleted, |record| *record = Some(vec![]));
        let report = run(&cluster.seed(), &content, &ProgressBar::hidden()).unwrap();
        assert_eq!(report.verdict(), "verified: 3000 records, 1 missing, 1 stale, 2 extra");
        assert!(!report.is_clean());
    }
}
