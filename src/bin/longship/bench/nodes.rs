//! Two nodes for benches that ship: a source and a destination of one shard each, bound to a CPU
//! each, and one DC with its throughput limit out of the way.

use std::fmt::Write as _;
use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

use longship::wire::request::Address;
use longship::wire::{ParticleType, Reply, ResultCode, bins};

use crate::client::{Client, ClientError, InfoLine};
use crate::content::Content;
use crate::cores;
use crate::stage::{Stage, StageError};

pub(super) const NAMESPACE: &str = "bench";
pub(super) const SET: &str = "bench";
pub(super) const DC: &str = "west";
pub(super) const SOURCE: &str = "source";
pub(super) const DESTINATION: &str = "destination";
/// What a record takes in the log besides its value, at most.
const RECORD_OVERHEAD: u64 = 156;
/// How long nothing may move before waiting is given up.
const PATIENCE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(10);
/// Records that are shipped before anything is measured, so that the connection stands.
const FIRST_RECORDS: u64 = 1000;

/// Why two nodes could not be measured.
#[derive(Debug, thiserror::Error)]
pub(super) enum NodesError {
    #[error(transparent)]
    Stage(#[from] StageError),
    #[error(transparent)]
    Core(#[from] cores::NotAllowed),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("the source answers {0} to a write")]
    Refused(ResultCode),
    #[error("{what} has not moved for {PATIENCE:?}: {state}")]
    Stuck { what: &'static str, state: String },
    #[error("the source answers {answer:?} to {command}")]
    Command { command: String, answer: String },
    #[error("{wanted} {what} were wanted, there are {found}")]
    Unexpected { what: &'static str, wanted: u64, found: u64 },
}

/// What the nodes hold, and how they hold it.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    pub(super) records: u64,
    pub(super) value_bytes: u64,
    /// Whether the source finds what it ships in memory.
    pub(super) cached: bool,
}

impl Setting {
    /// Bytes of all records on the device, generously.
    const fn bytes(&self) -> u64 {
        self.records * (self.value_bytes + RECORD_OVERHEAD)
    }

    fn gigabytes(&self, of: u64) -> u64 {
        of.div_ceil(1 << 30).max(1)
    }

    /// What the records are.
    pub(super) fn content(&self) -> Content {
        Content {
            namespace: NAMESPACE.into(),
            set: SET.into(),
            records: self.records,
            value_bytes: self.value_bytes as usize,
            update_percent: 0,
            delete_percent: 0,
            seed: 1,
        }
    }

    /// How the storage of both nodes is set up.
    fn storage(&self) -> [(&'static str, String); 4] {
        let cache = self.gigabytes(self.bytes() + (256 << 20));
        [
            ("filesize", format!("{}G", self.gigabytes(2 * self.bytes()))),
            ("post-write-cache", if self.cached { format!("{cache}G") } else { "0".into() }),
            ("max-write-cache", format!("{cache}G")),
            ("stop-writes-used-pct", "90".into()),
        ]
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let mut text = "one shard each".to_owned();
        for (name, value) in self.storage().iter().chain(&DC_SETTINGS.map(owned)) {
            let _ = write!(text, ", {name} {value}");
        }
        text
    }

    fn config(&self, name: &str, work: &str, cpu: usize, xdr: &str) -> String {
        let storage: String = self
            .storage()
            .iter()
            .map(|(name, value)| format!("        {name} {value}\n"))
            .collect();
        format!(
            "service {{
    cluster-name {name}
    work-directory {work}
    shards 1
    cpu-set {cpu}
}}
network {{
    service {{
        address 127.0.0.1
        port 0
    }}
}}
namespace {NAMESPACE} {{
    storage-engine device {{
        file {work}/bench.log
{storage}    }}
}}
{xdr}"
        )
    }
}

/// How the DC is set up.
const DC_SETTINGS: [(&str, &str); 2] =
    [("max-throughput", "100000000"), ("transaction-queue-limit", "1048576")];

fn owned((name, value): (&'static str, &'static str)) -> (&'static str, String) {
    (name, value.to_owned())
}

fn xdr_config(port: u16) -> String {
    let settings: String =
        DC_SETTINGS.iter().map(|(name, value)| format!("            {name} {value}\n")).collect();
    format!(
        "xdr {{
    dc {DC} {{
        node-address-port 127.0.0.1 {port}
        namespace {NAMESPACE} {{
{settings}        }}
    }}
}}
"
    )
}

/// The figures of shipping that matter while one waits for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Shipped {
    pub(super) success: u64,
    pub(super) outstanding: u64,
    pub(super) recoveries: u64,
}

/// A source, a destination, and a line to ask each.
pub(super) struct Pair<'a> {
    stage: &'a Stage,
    source: String,
    source_line: InfoLine,
    destination_line: InfoLine,
}

impl<'a> Pair<'a> {
    /// Starts both, and ships the first records.
    pub(super) fn start(
        stage: &'a Stage,
        setting: &Setting,
        cpus: [usize; 2],
    ) -> Result<Self, NodesError> {
        let start = |name: &str, cpu: usize, xdr: &str| {
            let work = stage.work_directory(name);
            let config = setting.config(name, &work.to_string_lossy(), cpu, xdr);
            let ports = cores::on(cpu, || stage.start(name, &config))??;
            Ok::<_, NodesError>(ports[0])
        };
        let destination = start(DESTINATION, cpus[1], "")?;
        let source = format!("127.0.0.1:{}", start(SOURCE, cpus[0], &xdr_config(destination))?);
        let mut pair = Self {
            stage,
            source_line: InfoLine::open(&source)?,
            destination_line: InfoLine::open(&format!("127.0.0.1:{destination}"))?,
            source,
        };
        let first = Content { seed: 0, ..setting.content() };
        pair.writer().put(&first, 0..FIRST_RECORDS, 64, || {})?;
        pair.await_shipped(FIRST_RECORDS)?;
        Ok(pair)
    }

    /// What writes to the source, from any thread.
    pub(super) fn writer(&self) -> Writer {
        Writer { address: self.source.clone() }
    }

    /// Stops shipping; what is written from now on is found by recovery.
    pub(super) fn pause(&mut self) -> Result<(), NodesError> {
        self.command("pause")
    }

    /// Goes on shipping.
    pub(super) fn resume(&mut self) -> Result<(), NodesError> {
        self.command("resume")
    }

    fn command(&mut self, action: &str) -> Result<(), NodesError> {
        let command = format!("set-config:context=xdr;dc={DC};action={action}");
        match self.source_line.ask(&command)? {
            answer if answer.eq_ignore_ascii_case("ok") => Ok(()),
            answer => Err(NodesError::Command { command, answer }),
        }
    }

    /// How far shipping is.
    pub(super) fn shipped(&mut self) -> Result<Shipped, NodesError> {
        let command = format!("get-stats:context=xdr;dc={DC}");
        let names = ["success", "in_queue", "in_progress", "recoveries"];
        let [success, in_queue, in_progress, recoveries] =
            self.source_line.numbers(&command, names)?;
        Ok(Shipped { success, outstanding: in_queue + in_progress, recoveries })
    }

    /// What was tried again so far, by cause.
    pub(super) fn retries(&mut self) -> Result<String, NodesError> {
        let command = format!("get-stats:context=xdr;dc={DC}");
        let names = ["retry_no_node", "retry_conn_reset", "retry_dest", "retry_read"];
        let counts = self.source_line.numbers(&command, names)?;
        let text = names.iter().zip(counts).map(|(name, count)| format!("{name} {count}"));
        Ok(text.collect::<Vec<_>>().join(", "))
    }

    /// Waits until so many records have been shipped since the start and none is left; gives when
    /// that was seen.
    pub(super) fn await_shipped(&mut self, success: u64) -> Result<(Instant, Shipped), NodesError> {
        self.poll("shipping", POLL / 2, Self::shipped, |shipped| {
            shipped.success >= success && shipped.outstanding == 0
        })
    }

    /// Waits until everything the source took is on its device.
    pub(super) fn await_flushed(&mut self) -> Result<(), NodesError> {
        let command = format!("namespace/{NAMESPACE}");
        let unflushed = |pair: &mut Self| {
            let [bytes] = pair.source_line.numbers(&command, ["write_cache_bytes"])?;
            Ok(bytes)
        };
        self.poll("the log", POLL, unflushed, |bytes| *bytes == 0).map(drop)
    }

    /// Looks again and again, and gives when it first saw the end of what it waits for.
    fn poll<T: Copy + PartialEq + std::fmt::Debug>(
        &mut self,
        what: &'static str,
        pause: Duration,
        mut look: impl FnMut(&mut Self) -> Result<T, NodesError>,
        is_end: impl Fn(&T) -> bool,
    ) -> Result<(Instant, T), NodesError> {
        let mut last = look(self)?;
        let mut moved = Instant::now();
        loop {
            if is_end(&last) {
                return Ok((moved, last));
            }
            if moved.elapsed() > PATIENCE {
                return Err(NodesError::Stuck { what, state: format!("{last:?}") });
            }
            thread::sleep(pause);
            let now = look(self)?;
            if now != last {
                moved = Instant::now();
            }
            last = now;
        }
    }

    /// How often the source read its device.
    pub(super) fn device_reads(&mut self) -> Result<u64, NodesError> {
        let command = format!("namespace/{NAMESPACE}");
        let [reads] = self.source_line.numbers(&command, ["device_reads"])?;
        Ok(reads)
    }

    /// The destination has to hold so many records beside the first ones.
    pub(super) fn check_objects(&mut self, records: u64) -> Result<(), NodesError> {
        let command = format!("namespace/{NAMESPACE}");
        let [found] = self.destination_line.numbers(&command, ["objects"])?;
        let wanted = FIRST_RECORDS + records;
        if found == wanted {
            return Ok(());
        }
        Err(NodesError::Unexpected { what: "records at the destination", wanted, found })
    }

    /// Ends both.
    pub(super) fn end(self) -> Result<(), NodesError> {
        self.stage.kill(SOURCE)?;
        Ok(self.stage.kill(DESTINATION)?)
    }
}

/// Writes records.
pub(super) struct Writer {
    address: String,
}

impl Writer {
    /// Puts the value of each record of that content, in one bin and without its key, `window`
    /// unanswered at a time, and calls `before` each. What meets an overloaded device is tried
    /// again.
    pub(super) fn put(
        &self,
        content: &Content,
        records: Range<u64>,
        window: usize,
        before: impl Fn(),
    ) -> Result<(), NodesError> {
        let mut client = Client::connect(&self.address, NAMESPACE, 1, window)?;
        let mut request = Put { content, key: Vec::new(), value: Vec::new(), ops: Vec::new() };
        let mut ledger = Ledger::default();
        for record in records {
            before();
            request.send(&mut client, record, &mut ledger.reader())?;
        }
        loop {
            client.settle(&mut ledger.reader())?;
            if ledger.again.is_empty() {
                break;
            }
            thread::sleep(POLL);
            for record in std::mem::take(&mut ledger.again) {
                request.send(&mut client, record, &mut ledger.reader())?;
            }
        }
        ledger.refused.map_or(Ok(()), |code| Err(NodesError::Refused(code)))
    }
}

/// What replies leave behind.
#[derive(Default)]
struct Ledger {
    again: Vec<u64>,
    refused: Option<ResultCode>,
}

impl Ledger {
    fn reader(&mut self) -> impl FnMut(u64, Instant, Reply<'_>) {
        |record, _, reply| match reply.code() {
            ResultCode::OK => {}
            ResultCode::DEVICE_OVERLOAD => self.again.push(record),
            code => self.refused = Some(code),
        }
    }
}

/// Makes puts, in memory that is used again.
struct Put<'a> {
    content: &'a Content,
    key: Vec<u8>,
    value: Vec<u8>,
    ops: Vec<u8>,
}

impl Put<'_> {
    fn send(
        &mut self,
        client: &mut Client<u64>,
        record: u64,
        on_reply: &mut impl FnMut(u64, Instant, Reply<'_>),
    ) -> Result<(), ClientError> {
        let Self { content, key, value, ops } = self;
        value.clear();
        ops.clear();
        content.key(record, key);
        content.push_value(record, 0, value);
        bins::push(ops, b"v", ParticleType::BLOB, value);
        let address = Address { namespace: NAMESPACE, set: SET, digest: content.digest(key) };
        let encode = |out: &mut Vec<u8>| address.put().push(1, ops, out);
        client.send(&address.digest, record, encode, on_reply)
    }
}

#[cfg(test)]
mod tests {
    use longship::config::Config;

    use super::*;

    #[test]
    fn the_nodes_accept_their_configuration() {
        let check = |records, value_bytes, cached, xdr: &str| {
            let setting = Setting { records, value_bytes, cached };
            let text = setting.config("source", "/tmp/x", 0, xdr);
            Config::parse(&text, "bench").unwrap_or_else(|errors| panic!("{errors}\n{text}"));
        };
        check(1, 0, true, "");
        check(2_000_000, 100, true, &xdr_config(3000));
        check(5_000_000, 100_000, false, &xdr_config(3000));
    }
}
