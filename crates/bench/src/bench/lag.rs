//! `longship bench lag`: how long after a write is acknowledged has the destination applied it?
//!
//! A client writes records to the source at a steady rate and notes when each was sent and when its
//! acknowledgement was read. The destination is a shard of this very process: the node's server over
//! the node's storage, told to note when it applies each record, where a source would take the
//! record for shipping. Both sides read the same monotonic clock, keep their notes in memory, and
//! are matched by record when all is over. A record that was applied before the client had read its
//! acknowledgement counts with a lag of zero.
//!
//! Beside it, in the same run: the time a frame of the same size and its reply take between two
//! shards of this process, on the CPUs of source and destination, that do nothing else.

use std::cell::RefCell;
use std::collections::HashMap;
use std::error::Error;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use longship::info::Answer;
use longship::model::{Change, Digest, Lut, ShardIndex, SrcId, Tick};
use longship::wire::info::Command;
use longship_node::admin::info::NodeIdentity;
use longship_node::admin::report::Node;
use longship_node::config::{Config, NamespaceConfig};
use longship_node::server::guard::Guard;
use longship_node::server::handover;
use longship_node::server::hello::Fence;
use longship_node::server::memory::Memory;
use longship_node::server::{Ask, Asker, Connections, Greeting, Limits, Server, Traffic};
use longship_node::service::execute::{Records, Submit};
use longship_node::storage::start::{StoreParts, arena_bytes, start_tasks};
use longship_node::storage::store::Store;
use longship_node::storage::volume::Volume;
use longship_node::storage::{cold_start, flush, loss};
use longship_rt::arena::Arena;
use longship_rt::clock::Clock;
use longship_rt::disk_ring::DiskRing;
use longship_rt::mailbox::{Sender, mailbox};
use longship_rt::net::{Listener, Socket};
use longship_rt::shard::{Queue, ShardSpec, ShardThread, spawn, spawn_shard};

use super::answer::{Unit, Wanted};
use super::nodes::{DESTINATION, Dc, FIRST_RECORDS, HOST, Setting, Source};
use super::runs::Runs;
use super::scene::Scene;
use crate::cores;
use crate::report;
use crate::stage::Stage;

/// Bytes of a shipped record of 100 bytes, and of its reply.
const PING_BYTES: usize = 190;
const PONG_BYTES: usize = 30;
const PINGS: usize = 20_000;
/// Pings before any is timed.
const WARM_UP: usize = 2000;
const PATIENCE: Duration = Duration::from_secs(10);

/// Measures from a write's acknowledgement to its application at the destination.
#[derive(clap::Args)]
pub(crate) struct LagArgs {
    /// Writes per second.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..))]
    rate: u64,
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=99))]
    runs: u64,
    /// Print the result as one line of JSON.
    #[arg(long)]
    json: bool,
}

/// When a record was applied.
type Applied = (Digest, Instant);

/// What one run gave, in microseconds, ascending.
struct Lags {
    round_trips: Vec<f64>,
    acknowledged_to_applied: Vec<f64>,
    sent_to_applied: Vec<f64>,
}

/// Runs the command.
pub(super) fn command(args: &LagArgs) -> Result<ExitCode, Box<dyn Error>> {
    let stage = Stage::open(std::env::current_exe()?, false)?;
    stage.guard()?;
    let bar = report::progress("writing", args.runs);
    bar.tick();
    let scene = Scene::now();
    let setting = Setting { records: args.rate * args.seconds, value_bytes: 100, cached: true };
    let (mut rtts, mut lags, mut wholes): ([Runs; 2], [Runs; 2], [Runs; 2]) = Default::default();
    for _ in 0..args.runs {
        let found = measure(&stage, &setting, scene.cpus, args.rate)?;
        for (at, quantile) in [0.5, 0.99].into_iter().enumerate() {
            rtts[at].push(at_quantile(&found.round_trips, quantile));
            lags[at].push(at_quantile(&found.acknowledged_to_applied, quantile));
            wholes[at].push(at_quantile(&found.sent_to_applied, quantile));
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let (p50, p99) = (lags[0].over(&rtts[0]), lags[1].over(&rtts[1]));
    scene
        .answer("lag")
        .fact("writes", format!("{}/s for {} s", report::count(args.rate), args.seconds))
        .fact("writer", format!("CPU {}, with the destination", scene.cpus[1]))
        .fact("nodes", setting.text())
        .figure("rtt_p50_us", Unit::Micros, &rtts[0])
        .figure("rtt_p99_us", Unit::Micros, &rtts[1])
        .figure("sent_to_applied_p50_us", Unit::Micros, &wholes[0])
        .figure("sent_to_applied_p99_us", Unit::Micros, &wholes[1])
        .figure("lag_p50_us", Unit::Micros, &lags[0])
        .figure("lag_p99_us", Unit::Micros, &lags[1])
        .target("lag_p50_vs_rtt", Unit::Ratio, &p50, Wanted::AtMost(4.0))
        .target("lag_p99_vs_rtt_p99", Unit::Ratio, &p99, Wanted::AtMost(5.0))
        .print(args.json);
    Ok(ExitCode::SUCCESS)
}

fn at_quantile(ascending: &[f64], quantile: f64) -> f64 {
    let at = (ascending.len() as f64 * quantile) as usize;
    ascending.get(at).or(ascending.last()).copied().unwrap_or_default()
}

/// Not every record that was written was applied, or the destination could not run.
#[derive(Debug, thiserror::Error)]
enum LagError {
    #[error("{0} of {1} records were applied")]
    Missing(usize, usize),
    #[error("the destination did not start: {0}")]
    Start(String),
    #[error("no answer between two shards")]
    Ping,
}

fn measure(
    stage: &Stage,
    setting: &Setting,
    cpus: [usize; 2],
    rate: u64,
) -> Result<Lags, Box<dyn Error>> {
    let round_trips = round_trips(cpus)?;
    let destination = Destination::start(stage, setting, cpus[1])?;
    let mut source = Source::start(stage, setting, cpus[0], &[Dc::west(destination.port)], 1)?;
    let (writer, content) = (source.writer(), setting.content());
    let mut answered = Vec::with_capacity(setting.records as usize);
    let note = |record, sent, read| answered.push((record, sent, read));
    cores::on(cpus[1], || writer.put_paced(&content, 0..setting.records, rate, note))??;
    source.await_shipped(FIRST_RECORDS + setting.records)?;
    source.end()?;
    let applied: HashMap<Digest, Instant> = destination.stop().into_iter().collect();
    std::fs::remove_dir_all(stage.work_directory(DESTINATION))?;
    let (mut key, mut lags, mut wholes) = (Vec::new(), Vec::new(), Vec::new());
    for (record, sent, read) in &answered {
        content.key(*record, &mut key);
        if let Some(applied) = applied.get(&content.digest(&key)) {
            let since = |start: &Instant| applied.saturating_duration_since(*start);
            lags.push(since(read).as_secs_f64() * 1e6);
            wholes.push(since(sent).as_secs_f64() * 1e6);
        }
    }
    if lags.len() != setting.records as usize {
        return Err(LagError::Missing(lags.len(), answered.len()).into());
    }
    lags.sort_by(f64::total_cmp);
    wholes.sort_by(f64::total_cmp);
    Ok(Lags { round_trips, acknowledged_to_applied: lags, sent_to_applied: wholes })
}

/// Notes what is applied.
struct Notes(Rc<RefCell<Vec<Applied>>>);

impl Submit for Notes {
    fn note_time(&self) {}

    fn submit(&self, change: &Change, _set: &str) {
        self.0.borrow_mut().push((change.digest, Instant::now()));
    }

    fn src_id(&self) -> SrcId {
        SrcId::NONE
    }
}

/// Tells who it is.
struct Answers(Node<Notes>);

impl Ask for Answers {
    fn changes_state(&self, _command: &Command<'_>) -> bool {
        false
    }

    fn ask(&self, command: &Command<'_>, asker: &Asker, traffic: &Traffic) -> Option<Answer> {
        self.0.answer(command, asker, traffic).map(Answer::Now)
    }
}

/// A shard of this process that is shipped to.
struct Destination {
    port: u16,
    stop: Sender<()>,
    thread: ShardThread<Vec<Applied>>,
}

impl Destination {
    fn start(stage: &Stage, setting: &Setting, cpu: usize) -> Result<Self, Box<dyn Error>> {
        let work = stage.work_directory(DESTINATION);
        std::fs::create_dir_all(&work)?;
        let config = setting.config((DESTINATION, None), &work, cpu, &[]);
        let config = Config::parse(&config, "bench").map_err(|errors| errors.to_string())?;
        let volume = Arc::new(Volume::open(&config.namespaces[0], 1)?);
        let (stop, stopped) = mailbox(1)?;
        let (ready, started) = mpsc::channel();
        let room = (setting.records + FIRST_RECORDS) as usize;
        let spec = ShardSpec { index: 0, core: Some(cpu), name: "shard-bench".into() };
        let thread = spawn_shard(spec, move || async move {
            let notes = Rc::new(RefCell::new(Vec::with_capacity(room)));
            match serve(config, volume, Rc::clone(&notes)).await {
                Err(error) => drop(ready.send(Err(error.to_string()))),
                Ok((server, port)) => {
                    let _ = ready.send(Ok(port));
                    if let Ok(mut stopped) = stopped.open() {
                        let _ = stopped.wait().await;
                    }
                    server.connections.stop(Tick::NEVER).await;
                    flush::stop(server.service.store(), Tick::NEVER).await;
                }
            }
            notes.take()
        })?;
        let port = started.recv().map_err(|error| LagError::Start(error.to_string()))?;
        Ok(Self { port: port.map_err(LagError::Start)?, stop, thread })
    }

    fn stop(self) -> Vec<Applied> {
        let _ = self.stop.push(());
        self.thread.join()
    }
}

async fn serve(
    config: Config,
    volume: Arc<Volume>,
    notes: Rc<RefCell<Vec<Applied>>>,
) -> Result<(Rc<Server<Records<Notes>>>, u16), Box<dyn Error>> {
    let (shard, clock) = (ShardIndex(0), Clock::real());
    let namespaces: &[NamespaceConfig] = &config.namespaces;
    let arena = Arena::new(arena_bytes(namespaces, 1), None)?;
    let ring = DiskRing::new(512, &arena)?;
    spawn(Queue::Disk, ring.clone().drive());
    let peer = cold_start::peers(1).swap_remove(0);
    let namespaces = vec![(namespaces[0].clone(), volume)];
    let parts = StoreParts { shard, namespaces, ring, arena, peer, clock };
    let (store, _) = Store::open(parts, Lut::ZERO).await?;
    start_tasks(&store);
    let listener = Listener::bind(format!("{HOST}:0").parse()?)?;
    let port = listener.local_addr().port();
    let records = Records::new((shard, 1), store, Notes(notes));
    let records = Rc::new(records);
    spawn(Queue::Disk, Rc::clone(&records).publish());
    let doors = handover::doors(1)?.swap_remove(0);
    let desk = handover::open(shard, doors, &records)?;
    let limits = Limits::of(&config, config.service.proto_fd_max, 1);
    let memory = Memory::new(limits.message_bytes_max, desk.replies_held());
    let identity = NodeIdentity::of(&config, 0xBE0C_0000_0000_0000, shard, vec![port]);
    let server = Rc::new(Server {
        node: identity.node(shard),
        ask: Box::new(Answers(Node::new(identity, Rc::clone(&records), config.clone()))),
        desk,
        service: records,
        guard: Guard::of(&config),
        fence: Rc::new(Fence::default()),
        greeting: Greeting {
            boot: 1,
            loss_window_ms: loss::loss_window_of(&config.namespaces),
            stores: Vec::new(),
        },
        limits,
        connections: Connections::new(memory),
    });
    spawn(Queue::Sockets, Rc::clone(&server).listen(listener));
    Ok((server, port))
}

/// Microseconds of a frame there and its reply back between two shards, ascending.
fn round_trips(cpus: [usize; 2]) -> Result<Vec<f64>, Box<dyn Error>> {
    let (told, address) = mpsc::channel();
    let spec = |index: u16, name: &str| ShardSpec {
        index,
        core: Some(cpus[usize::from(index)]),
        name: name.into(),
    };
    let far = spawn_shard(spec(1, "shard-far"), move || async move {
        let listener = Listener::bind(([127, 0, 0, 1], 0).into())?;
        let _ = told.send(listener.local_addr());
        let mut socket = listener.accept().await.map_err(std::io::Error::other)?;
        let mut ping = [0; PING_BYTES];
        for _ in 0..WARM_UP + PINGS {
            read_exactly(&mut socket, &mut ping).await?;
            socket.write_all(&[7; PONG_BYTES]).await?;
        }
        Ok::<_, std::io::Error>(())
    })?;
    let address = address.recv().map_err(|_| LagError::Ping)?;
    let near = spawn_shard(spec(0, "shard-near"), move || async move {
        let mut socket = Socket::connect(address, PATIENCE).await?;
        let (mut pong, mut taken) = ([0; PONG_BYTES], Vec::with_capacity(WARM_UP + PINGS));
        for _ in 0..WARM_UP + PINGS {
            let start = Instant::now();
            socket.write_all(&[7; PING_BYTES]).await?;
            read_exactly(&mut socket, &mut pong).await?;
            taken.push(start.elapsed().as_secs_f64() * 1e6);
        }
        Ok::<_, std::io::Error>(taken.split_off(WARM_UP))
    })?;
    let mut taken = near.join()?;
    far.join()?;
    taken.sort_by(f64::total_cmp);
    Ok(taken)
}

async fn read_exactly(socket: &mut Socket, buffer: &mut [u8]) -> std::io::Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        match socket.read(&mut buffer[filled..]).await? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            count => filled += count,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_what_is_there() {
        let hundred: Vec<f64> = (0..100).map(f64::from).collect();
        assert_eq!(at_quantile(&hundred, 0.5), 50.0);
        assert_eq!(at_quantile(&hundred, 0.99), 99.0);
        assert_eq!(at_quantile(&[3.0], 0.99), 3.0);
        assert_eq!(at_quantile(&[], 0.5), 0.0);
    }
}
