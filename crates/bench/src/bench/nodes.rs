//! Two nodes for benches that ship: a source and a destination of one shard each, bound to a CPU
//! each, and one DC with its throughput limit out of the way.

use std::fmt::Write as _;
use std::ops::Range;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use longship::wire::request::{Address, Head};
use longship::wire::{ParticleType, Reply, ResultCode, bins};

use crate::client::{Client, ClientError, InfoLine};
use crate::content::Content;
use crate::cores;
use crate::node_text::NodeText;
use crate::stage::{Stage, StageError};

pub(super) const NAMESPACE: &str = "bench";
pub(super) const SET: &str = "bench";
const DC: &str = "west";
pub(super) const HOST: &str = "127.0.0.1";
pub(super) const SOURCE: &str = "source";
pub(super) const DESTINATION: &str = "destination";
/// What a record takes in the log besides its value, at most.
const RECORD_OVERHEAD: u64 = 156;
/// Files are a multiple of it: what is measured in small takes little of a disk.
const FILE_STEP_BYTES: u64 = 256 << 20;
/// How long nothing may move before waiting is given up.
const PATIENCE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(10);
/// Requests unanswered while records are written at a rate.
const PACED_WINDOW: usize = 256;
/// Records that are shipped before anything is measured.
pub(super) const FIRST_RECORDS: u64 = 1000;

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
            (
                "filesize",
                format!(
                    "{}M",
                    (2 * self.bytes()).div_ceil(FILE_STEP_BYTES).max(1) * (FILE_STEP_BYTES >> 20)
                ),
            ),
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

    /// The configuration of a node; `access` is the address it tells others to use.
    pub(super) fn config(
        &self,
        (name, access): (&str, Option<&str>),
        work: &Path,
        cpu: usize,
        dcs: &[Dc],
    ) -> String {
        let access = access.map(|host| ("access-address", host.to_owned()));
        let text = NodeText {
            work: &work.to_string_lossy(),
            service: &[
                ("cluster-name", name.into()),
                ("shards", "1".into()),
                ("cpu-set", cpu.to_string()),
            ],
            network: access.as_slice(),
            namespace: NAMESPACE,
            file: "bench.log",
            storage: &self.storage(),
            xdr: &xdr_config(dcs),
        };
        text.format()
    }
}

/// How the DC is set up.
const DC_SETTINGS: [(&str, &str); 2] =
    [("max-throughput", "100000000"), ("transaction-queue-limit", "1048576")];

fn owned((name, value): (&'static str, &'static str)) -> (&'static str, String) {
    (name, value.to_owned())
}

/// A DC to attach, by the address of its seed.
#[derive(Clone, Debug)]
pub(super) struct Dc {
    pub(super) name: String,
    pub(super) host: String,
    pub(super) port: u16,
}

impl Dc {
    /// The one all benches ship to.
    pub(super) fn west(port: u16) -> Self {
        Self { name: DC.into(), host: HOST.into(), port }
    }

    /// Several at one destination.
    pub(super) fn several(count: u16, port: u16) -> Vec<Self> {
        let named = |number| Self { name: format!("dc-{number}"), ..Self::west(port) };
        (1..=count).map(named).collect()
    }

    fn config(&self) -> String {
        let settings: String = DC_SETTINGS
            .iter()
            .map(|(name, value)| format!("            {name} {value}\n"))
            .collect();
        let Self { name, host, port } = self;
        format!(
            "    dc {name} {{
        node-address-port {host} {port}
        namespace {NAMESPACE} {{
{settings}        }}
    }}
"
        )
    }
}

fn xdr_config(dcs: &[Dc]) -> String {
    match dcs {
        [] => String::new(),
        _ => format!("xdr {{\n{}}}\n", dcs.iter().map(Dc::config).collect::<String>()),
    }
}

/// The figures of shipping that matter while one waits for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Shipped {
    pub(super) success: u64,
    pub(super) outstanding: u64,
}

/// A node that ships.
pub(super) struct Source<'a> {
    name: &'static str,
    stage: &'a Stage,
    address: String,
    line: InfoLine,
    /// The DCs whose figures matter.
    watched: Vec<String>,
}

/// A node that is shipped to.
pub(super) struct Destination<'a> {
    stage: &'a Stage,
    name: &'static str,
    pub(super) port: u16,
    line: InfoLine,
}

/// Waits until everything a node took is on its device.
fn await_flushed(line: &mut InfoLine) -> Result<(), NodesError> {
    let command = namespace_command();
    let unflushed = || {
        let [bytes] = line.numbers(&command, ["write_cache_bytes"])?;
        Ok(bytes)
    };
    poll("the log", POLL, unflushed, |bytes| *bytes == 0).map(drop)
}

/// Looks again and again, and gives when it first saw the end of what it waits for.
fn poll<T: Copy + PartialEq + std::fmt::Debug>(
    what: &'static str,
    pause: Duration,
    mut look: impl FnMut() -> Result<T, NodesError>,
    is_end: impl Fn(&T) -> bool,
) -> Result<(Instant, T), NodesError> {
    let mut last = look()?;
    let mut moved = Instant::now();
    loop {
        if is_end(&last) {
            return Ok((moved, last));
        }
        if moved.elapsed() > PATIENCE {
            return Err(NodesError::Stuck { what, state: format!("{last:?}") });
        }
        thread::sleep(pause);
        let now = look()?;
        if now != last {
            moved = Instant::now();
        }
        last = now;
    }
}

impl<'a> Destination<'a> {
    /// Waits until everything it took is on its device.
    pub(super) fn await_flushed(&mut self) -> Result<(), NodesError> {
        await_flushed(&mut self.line)
    }

    /// Starts it; `access` is the address it tells shippers to use.
    pub(super) fn start(
        stage: &'a Stage,
        setting: &Setting,
        (name, access): (&'static str, Option<&str>),
        cpu: usize,
    ) -> Result<Self, NodesError> {
        let work = stage.work_directory(name);
        let config = setting.config((name, access), &work, cpu, &[]);
        let port = cores::on(cpu, || stage.start(name, &config))??[0];
        let line = InfoLine::open(&format!("{HOST}:{port}"))?;
        Ok(Self { stage, name, port, line })
    }

    /// It has to hold so many records.
    pub(super) fn check_objects(&mut self, wanted: u64) -> Result<(), NodesError> {
        let [found] = self.line.numbers(&namespace_command(), ["objects"])?;
        if found == wanted {
            return Ok(());
        }
        Err(NodesError::Unexpected { what: "records at the destination", wanted, found })
    }

    pub(super) fn end(self) -> Result<(), NodesError> {
        Ok(self.stage.forget(self.name)?)
    }
}

/// Both.
pub(super) struct Pair<'a> {
    pub(super) source: Source<'a>,
    pub(super) destination: Destination<'a>,
}

impl<'a> Pair<'a> {
    /// Starts both, and ships the first records.
    pub(super) fn start(
        stage: &'a Stage,
        setting: &Setting,
        cpus: [usize; 2],
    ) -> Result<Self, NodesError> {
        let destination = Destination::start(stage, setting, (DESTINATION, None), cpus[1])?;
        let dcs = [Dc::west(destination.port)];
        Ok(Self { source: Source::start(stage, setting, cpus[0], &dcs, 1)?, destination })
    }

    /// Ends both, if the destination holds so many records beside the first ones.
    pub(super) fn end_with(mut self, records: u64) -> Result<(), NodesError> {
        self.destination.check_objects(FIRST_RECORDS + records)?;
        self.source.end()?;
        self.destination.end()
    }
}

fn namespace_command() -> String {
    format!("namespace/{NAMESPACE}")
}

impl<'a> Source<'a> {
    /// Starts it with some DCs, and ships the first records to the first `watched` of them, whose
    /// figures are the ones that matter.
    pub(super) fn start(
        stage: &'a Stage,
        setting: &Setting,
        cpu: usize,
        dcs: &[Dc],
        watched: usize,
    ) -> Result<Self, NodesError> {
        Self::start_as(SOURCE, stage, setting, cpu, dcs, watched)
    }

    /// The same under a name, where there are several.
    pub(super) fn start_as(
        name: &'static str,
        stage: &'a Stage,
        setting: &Setting,
        cpu: usize,
        dcs: &[Dc],
        watched: usize,
    ) -> Result<Self, NodesError> {
        let config = setting.config((name, None), &stage.work_directory(name), cpu, dcs);
        let port = cores::on(cpu, || stage.start(name, &config))??[0];
        let address = format!("{HOST}:{port}");
        let line = InfoLine::open(&address)?;
        let watched: Vec<_> = dcs.iter().take(watched).map(|dc| dc.name.clone()).collect();
        let mut source = Self { name, stage, address, line, watched };
        let connected = source.watched.len() as u64;
        poll("connecting", POLL, || source.sums(["nodes"]), |[nodes]| *nodes >= connected)?;
        let first = Content { seed: 0, ..setting.content() };
        source.writer().put(&first, 0..FIRST_RECORDS, 64, || {})?;
        source.await_shipped(FIRST_RECORDS * source.watched.len() as u64)?;
        Ok(source)
    }

    /// What writes to the source, from any thread.
    pub(super) fn writer(&self) -> Writer {
        Writer { address: self.address.clone(), life_every: None }
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
        for dc in self.watched.clone() {
            self.tell(&format!("set-config:context=xdr;dc={dc};action={action}"))?;
        }
        Ok(())
    }

    fn tell(&mut self, command: &str) -> Result<(), NodesError> {
        let answer = self.line.ask(command)?;
        if answer.eq_ignore_ascii_case("ok") {
            return Ok(());
        }
        Err(NodesError::Command { command: command.to_owned(), answer })
    }

    /// Sets an item of the namespace.
    pub(super) fn set(&mut self, item: &str, value: &str) -> Result<(), NodesError> {
        self.tell(&format!("set-config:context=namespace;id={NAMESPACE};{item}={value}"))
    }

    /// Makes a DC without anything, and deletes it.
    pub(super) fn make_and_delete(&mut self, dc: &str) -> Result<(), NodesError> {
        self.tell(&format!("set-config:context=xdr;dc={dc};action=create"))?;
        self.tell(&format!("set-config:context=xdr;dc={dc};action=delete"))
    }

    /// Figures of shipping, summed over the watched DCs.
    pub(super) fn sums<const N: usize>(
        &mut self,
        names: [&str; N],
    ) -> Result<[u64; N], NodesError> {
        let mut sums = [0; N];
        for dc in &self.watched {
            let numbers = self.line.numbers(&format!("get-stats:context=xdr;dc={dc}"), names)?;
            sums.iter_mut().zip(numbers).for_each(|(sum, number)| *sum += number);
        }
        Ok(sums)
    }

    /// How far shipping is.
    pub(super) fn shipped(&mut self) -> Result<Shipped, NodesError> {
        let names = ["success", "in_queue", "in_progress", "retrying"];
        let [success, in_queue, in_progress, retrying] = self.sums(names)?;
        Ok(Shipped { success, outstanding: in_queue + in_progress + retrying })
    }

    /// What was tried again so far, by cause, and what left its queue for a recovery.
    pub(super) fn retries(&mut self) -> Result<String, NodesError> {
        let names = [
            "retry_no_node",
            "retry_conn_reset",
            "retry_dest",
            "retry_read",
            "dropped_to_recovery",
        ];
        let counts = self.sums(names)?;
        let text = names.iter().zip(counts).map(|(name, count)| format!("{name} {count}"));
        Ok(text.collect::<Vec<_>>().join(", "))
    }

    /// Waits until so many records have been shipped since the start and none is left; gives when
    /// that was seen.
    pub(super) fn await_shipped(&mut self, success: u64) -> Result<(Instant, Shipped), NodesError> {
        poll(
            "shipping",
            POLL / 2,
            || self.shipped(),
            |shipped| shipped.success >= success && shipped.outstanding == 0,
        )
    }

    /// Waits until everything the source took is on its device.
    pub(super) fn await_flushed(&mut self) -> Result<(), NodesError> {
        await_flushed(&mut self.line)
    }

    /// How often the source read its device.
    pub(super) fn device_reads(&mut self) -> Result<u64, NodesError> {
        let [reads] = self.line.numbers(&namespace_command(), ["device_reads"])?;
        Ok(reads)
    }

    /// Attaches a DC, which gets what is written from now on, and watches it.
    pub(super) fn attach(&mut self, dc: &Dc) -> Result<(), NodesError> {
        let Dc { name, host, port } = dc;
        self.watched.push(name.clone());
        self.command("create")?;
        self.command(&format!("add;node-address-port={host}:{port}"))?;
        self.command(&format!("add;namespace={NAMESPACE}"))?;
        for (setting, value) in DC_SETTINGS {
            let command =
                format!("set-config:context=xdr;dc={name};namespace={NAMESPACE};{setting}={value}");
            self.tell(&command)?;
        }
        Ok(())
    }

    /// Bytes a record takes in the log, on average.
    pub(super) fn record_bytes(&mut self) -> Result<f64, NodesError> {
        let names = ["data_used_bytes", "objects"];
        let [bytes, objects] = self.line.numbers(&namespace_command(), names)?;
        Ok(bytes as f64 / objects as f64)
    }

    /// Time it has spent on CPUs.
    pub(super) fn cpu_time(&self) -> Result<Duration, NodesError> {
        Ok(self.stage.cpu_time(self.name)?)
    }

    pub(super) fn end(self) -> Result<(), NodesError> {
        Ok(self.stage.forget(self.name)?)
    }
}

/// Writes records.
pub(super) struct Writer {
    address: String,
    /// Every so many-th record has a time to live.
    life_every: Option<u64>,
}

/// The time to live of records that have one.
const LIFE_S: u32 = 1000;

impl Writer {
    /// Gives one of so many records a time to live.
    pub(super) fn with_a_life_every(self, records: u64) -> Self {
        Self { life_every: Some(records.max(1)), ..self }
    }

    fn request<'a>(&self, content: &'a Content) -> Put<'a> {
        let life_every = self.life_every;
        Put { content, life_every, key: Vec::new(), value: Vec::new(), ops: Vec::new() }
    }

    /// Puts the value of each record of that content, in one bin and without its key, `window`
    /// unanswered at a time, and calls `before` each. What meets an overloaded device is tried
    /// again.
    pub(super) fn put(
        &self,
        content: &Content,
        records: impl IntoIterator<Item = u64>,
        window: usize,
        before: impl Fn(),
    ) -> Result<(), NodesError> {
        let mut client = Client::connect(&self.address, NAMESPACE, 1, window)?;
        let mut request = self.request(content);
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

impl Writer {
    /// Puts records at a rate: the k-th one is due at start + k / rate. Gives the number of each,
    /// when it was sent and when its answer was read.
    pub(super) fn put_paced(
        &self,
        content: &Content,
        records: Range<u64>,
        rate: u64,
        mut answered: impl FnMut(u64, Instant, Instant),
    ) -> Result<(), NodesError> {
        let mut client = Client::connect(&self.address, NAMESPACE, 1, PACED_WINDOW)?;
        let mut request = self.request(content);
        let mut refused = None;
        let mut on_reply = |(record, sent), now, reply: Reply<'_>| match reply.code() {
            ResultCode::OK => answered(record, sent, now),
            code => refused = Some(code),
        };
        let start = Instant::now();
        for (index, record) in records.enumerate() {
            let due = start + Duration::from_secs_f64(index as f64 / rate as f64);
            if Instant::now() < due {
                client.settle(&mut on_reply)?;
                thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            request.send_tagged(&mut client, record, (record, Instant::now()), &mut on_reply)?;
        }
        client.settle(&mut on_reply)?;
        refused.map_or(Ok(()), |code| Err(NodesError::Refused(code)))
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
    life_every: Option<u64>,
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
        self.send_tagged(client, record, record, on_reply)
    }

    fn send_tagged<T>(
        &mut self,
        client: &mut Client<T>,
        record: u64,
        tag: T,
        on_reply: &mut impl FnMut(T, Instant, Reply<'_>),
    ) -> Result<(), ClientError> {
        let Self { content, life_every, key, value, ops } = self;
        value.clear();
        ops.clear();
        content.key(record, key);
        content.push_value(record, 0, value);
        bins::push(ops, b"v", ParticleType::BLOB, value);
        let address = Address { namespace: NAMESPACE, set: SET, digest: content.digest(key) };
        let has_life = life_every.is_some_and(|every| record % every == every / 2);
        let put = Head { ttl: if has_life { LIFE_S } else { 0 }, ..address.put() };
        let encode = |out: &mut Vec<u8>| put.push(1, ops, out);
        client.send(&address.digest, tag, encode, on_reply)
    }
}

#[cfg(test)]
mod tests {
    use longship_node::config::Config;

    use super::*;

    #[test]
    fn the_nodes_accept_their_configuration() {
        let check = |records, value_bytes, cached, access, dcs: &[Dc]| {
            let setting = Setting { records, value_bytes, cached };
            let text = setting.config(("source", access), Path::new("/tmp/x"), 0, dcs);
            Config::parse(&text, "bench").unwrap_or_else(|errors| panic!("{errors}\n{text}"));
        };
        check(1, 0, true, None, &[]);
        let west = Dc::west(3000);
        let far = Dc { name: "far".into(), host: "192.0.2.1".into(), port: 3000 };
        check(2_000_000, 100, true, Some("127.0.0.2"), std::slice::from_ref(&west));
        check(5_000_000, 100_000, false, None, &[west, far]);
    }
}
