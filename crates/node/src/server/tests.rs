//! The server over loopback, one thread per shard, with plain blocking clients.

use std::cell::Cell;
use std::io::{ErrorKind, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use futures_lite::future::{or, poll_once};

use crate::admin::info::NodeIdentity;
use crate::admin::report as reports;
use crate::config::{Config, NamespaceConfig, StorageConfig};
use crate::server::guard::Guard;
use crate::server::handover::{self, Desk, Ticket, doors};
use crate::server::hello::Fence;
use crate::server::line::{Line, Waiting, What};
use crate::server::memory::Memory;
use crate::server::service::{Context, Progress, Target};
use crate::server::{Ask, Asker, Connections, Greeting, Limits, Server, Traffic};
use crate::service::execute::{Fetched, Reading, Records, Submit};
use crate::storage::read::ReadError;
use crate::storage::start::{StoreParts, arena_bytes};
use crate::storage::store::{SharedStore, Store};
use crate::storage::volume::Volume;
use crate::storage::{cold_start, flush};
use longship::host::{Peek, RecordSource};
use longship::info::Answer;
use longship::model::{Change, ChangeKind, Digest, Lut, NamespaceId, ShardIndex, SrcId, Tick};
use longship::wire::bits::{info2, info3};
use longship::wire::frame::FRAME_HEADER_BYTES;
use longship::wire::hello::{CHALLENGE, Challenge, Hello, HelloAnswer, Key};
use longship::wire::info::{self, Command};
use longship::wire::reply::{self, Reply};
use longship::wire::request::{Address, Head};
use longship::wire::{FrameHeader, FrameType, OpCode, ParticleType, ResultCode, next_frame, ops};
use longship_rt::arena::Arena;
use longship_rt::blocking::read_some;
use longship_rt::clock::Clock;
use longship_rt::disk_ring::{DiskRing, Fault};
use longship_rt::event::Event;
use longship_rt::mailbox::{Sender, mailbox};
use longship_rt::net::Listener;
use longship_rt::shard::{Queue, ShardSpec, ShardThread, spawn, spawn_shard, yield_now};

/// What a test node is like.
#[derive(Clone, Copy)]
struct Options {
    shards: u16,
    commit: bool,
    stop_writes_used_pct: u8,
    connections_max: usize,
}

const ONE: Options =
    Options { shards: 1, commit: false, stop_writes_used_pct: 0, connections_max: 100 };
const COMMIT: Options = Options { commit: true, ..ONE };

/// Keeps what was submitted, with set names.
#[derive(Clone, Debug, Default)]
struct Submitted(Arc<Mutex<Vec<(Change, String)>>>);

impl Submit for Submitted {
    fn note_time(&self) {}

    fn submit(&self, change: &Change, set: &str) {
        self.0.lock().unwrap().push((*change, set.to_owned()));
    }

    fn src_id(&self) -> SrcId {
        SrcId(9)
    }
}

/// A running node, stopped when dropped.
struct Node {
    addresses: Vec<SocketAddr>,
    submitted: Vec<Submitted>,
    stops: Vec<Sender<()>>,
    threads: Vec<ShardThread>,
    _files: tempfile::TempDir,
}

struct Hook {
    ring: DiskRing,
    /// Turns that another task of the shard has had.
    turns: Rc<Cell<u32>>,
    node: reports::Node<Submitted>,
}

impl Ask for Hook {
    fn changes_state(&self, command: &Command<'_>) -> bool {
        command.name == "set-config"
    }

    fn ask(&self, command: &Command<'_>, asker: &Asker, traffic: &Traffic) -> Option<Answer> {
        match command.name {
            "now" => Some(Answer::Now("here".to_owned())),
            "long" => Some(Answer::Now("x".repeat(10_000))),
            "hang" => {
                self.ring.break_device(vec![Fault::Hang(0)]);
                Some(Answer::Now("ok".to_owned()))
            }
            "heal" => {
                self.ring.break_device(vec![]);
                Some(Answer::Now("ok".to_owned()))
            }
            "count-turns" => {
                let turns = Rc::clone(&self.turns);
                spawn(Queue::Sockets, async move {
                    while turns.get() < 1000 {
                        turns.set(turns.get() + 1);
                        yield_now().await;
                    }
                });
                Some(Answer::Now("ok".to_owned()))
            }
            "turns" => Some(Answer::Now(self.turns.get().to_string())),
            "later" => Some(Answer::Later(Box::pin(async { "at last".to_owned() }))),
            _ => self.node.answer(command, asker, traffic).map(Answer::Now),
        }
    }
}

/// A namespace on a small file, with hardly any memory for what was written.
fn namespace(folder: &tempfile::TempDir, options: Options) -> NamespaceConfig {
    let storage = StorageConfig {
        commit_to_device: options.commit,
        files: vec![folder.path().join("test.dat")],
        filesize: 32 << 20,
        // A busy machine may take seconds for a flush: nothing is to be refused for that, see
        // `loss_window_ms`. Blocks go to the device as they fill.
        flush_max_ms: 60_000,
        max_write_cache: 8 << 20,
        post_write_cache: 0,
        stop_writes_used_pct: options.stop_writes_used_pct,
        write_block_size: 128 << 10,
        ..StorageConfig::default()
    };
    NamespaceConfig { nsup_period_s: 120, storage, ..NamespaceConfig::named("test") }
}

async fn open_store(
    shard: ShardIndex,
    rules: &NamespaceConfig,
    volume: Arc<Volume>,
    peer: cold_start::Peer,
) -> (SharedStore, DiskRing) {
    let arena =
        Arena::new(arena_bytes(std::slice::from_ref(rules), volume.shard_count), None).unwrap();
    let ring = DiskRing::new(64, &arena).unwrap();
    spawn(Queue::Disk, ring.clone().drive());
    let namespaces = vec![(rules.clone(), volume)];
    let kept = ring.clone();
    let parts = StoreParts { shard, namespaces, ring, arena, peer, clock: Clock::real() };
    let (store, _) = Store::open(parts, Lut::ZERO).await.unwrap();
    spawn(Queue::Disk, flush::run(Rc::clone(&store), NamespaceId(0)));
    (store, kept)
}

impl Node {
    fn start(options: Options) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let rules = namespace(&folder, options);
        let volume = Arc::new(Volume::open(&rules, options.shards).unwrap());
        let (bound, ports) = mpsc::channel();
        let mut node = Self {
            addresses: vec![],
            submitted: vec![],
            stops: vec![],
            threads: vec![],
            _files: folder,
        };
        let mut tell = Vec::new();
        let ends =
            doors(options.shards).unwrap().into_iter().zip(cold_start::peers(options.shards));
        for (index, (doors, peer)) in ends.enumerate() {
            let (stop, stopped) = mailbox(1).unwrap();
            let (told, all_ports) = mpsc::channel::<Vec<u16>>();
            let (bound, submitted) = (bound.clone(), Submitted::default());
            let (rules, volume) = (rules.clone(), Arc::clone(&volume));
            node.submitted.push(submitted.clone());
            node.stops.push(stop);
            tell.push(told);
            let shard = ShardIndex(index as u16);
            let spec = ShardSpec { index: shard.0, core: None, name: format!("shard-{index}") };
            let thread = spawn_shard(spec, move || async move {
                let (store, ring) = open_store(shard, &rules, volume, peer).await;
                let listener = Listener::bind(([127, 0, 0, 1], 0).into()).unwrap();
                bound.send((index, listener.local_addr())).unwrap();
                let ports = all_ports.recv().unwrap();
                let namespaces = vec![rules];
                let place = (shard, options.shards);
                let records = Records::new(place, store, submitted);
                let config = Config { namespaces, ..Config::default() };
                let records = Rc::new(records);
                let identity = NodeIdentity::of(&config, 0xBB90_0000_0000_0000, shard, ports);
                spawn(Queue::Sockets, Rc::clone(&records).publish());
                let desk = handover::open(shard, doors, &records).unwrap();
                let limits =
                    Limits { connections_max: options.connections_max, message_bytes_max: 2 << 20 };
                let memory = Memory::new(limits.message_bytes_max, desk.replies_held());
                let server = Rc::new(Server {
                    node: identity.node(shard),
                    ask: Box::new(Hook {
                        ring,
                        turns: Rc::default(),
                        node: reports::Node::new(identity, Rc::clone(&records), config.clone()),
                    }),
                    service: records,
                    desk,
                    guard: Guard::of(&config),
                    fence: Rc::new(Fence::default()),
                    greeting: Greeting { boot: 0xB007, loss_window_ms: 1000, stores: Vec::new() },
                    limits,
                    connections: Connections::new(memory),
                });
                spawn(Queue::Sockets, Rc::clone(&server).listen(listener));
                stopped.open().unwrap().wait().await.unwrap();
                server.connections.stop(Tick::NEVER).await;
            });
            node.threads.push(thread.unwrap());
        }
        let mut addresses: Vec<_> = ports.iter().take(usize::from(options.shards)).collect();
        addresses.sort_unstable();
        node.addresses = addresses.iter().map(|(_, address)| *address).collect();
        let ports: Vec<u16> = node.addresses.iter().map(SocketAddr::port).collect();
        tell.iter().for_each(|told| told.send(ports.clone()).unwrap());
        node
    }

    fn client(&self) -> Client {
        Client::connect(self.addresses[0])
    }

    fn stop(&mut self) {
        self.stops.drain(..).for_each(|stop| stop.push(()).unwrap());
        self.threads.drain(..).for_each(ShardThread::join);
    }
}

/// The records of a node with one shard, without a server.
struct Lone {
    records: Rc<Records<Submitted>>,
    desk: Rc<Desk>,
    ring: DiskRing,
}

/// Runs `body` on such a shard, which takes itself for the first of `shard_count`.
fn on_lone_shard(shard_count: u16, body: impl AsyncFn(Lone) + Send + 'static) {
    let folder = tempfile::tempdir().unwrap();
    let rules = namespace(&folder, ONE);
    let volume = Arc::new(Volume::open(&rules, 1).unwrap());
    let (doors, peer) = (doors(1).unwrap().remove(0), cold_start::peers(1).remove(0));
    let spec = ShardSpec { index: 0, core: None, name: "shard-0".to_owned() };
    let shard = spawn_shard(spec, move || async move {
        let (store, ring) = open_store(ShardIndex(0), &rules, volume, peer).await;
        let place = (ShardIndex(0), shard_count);
        let records = Records::new(place, store, Submitted::default());
        let records = Rc::new(records);
        let desk = handover::open(ShardIndex(0), doors, &records).unwrap();
        body(Lone { records, desk, ring }).await;
    });
    shard.unwrap().join();
}

impl Lone {
    fn context(&self) -> Context {
        Context { now: self.records.note_time(), src_id: SrcId::NONE }
    }

    fn hand_over(&self, body: &[u8]) -> Result<Ticket, ResultCode> {
        self.desk.hand_over(ShardIndex(0), NamespaceId(0), SrcId::NONE, body)
    }

    /// Puts a record and pushes it out of memory.
    async fn put_on_device(&self, name: &str, value: &str) -> Target {
        let put = |name| {
            let mut head = key(name).put();
            head.info[2] |= info3::CREATE_OR_REPLACE;
            let request = frame(head, &[(OpCode::WRITE, "v", value)]);
            let body = &request[FRAME_HEADER_BYTES..];
            let mut reply = Vec::new();
            let outcome = self.records.execute(body, self.context(), Fetched::No, &mut reply);
            assert_eq!((outcome, reply[FRAME_HEADER_BYTES + 5]), (Progress::Answered, 0));
        };
        put(name);
        put("filler");
        let target = Target { namespace: NamespaceId(0), digest: key(name).digest };
        let store = self.records.store();
        while !matches!(store.borrow().peek(target.namespace, &target.digest), Peek::OnDevice) {
            yield_now().await;
        }
        target
    }

    /// Reads that somebody holds for as long as they live, more of them than there is memory for.
    fn crowd(&self, target: Target) -> Vec<Reading> {
        (0..200).map(|_| self.records.read(target)).collect()
    }
}

/// What comes of `work`, unless it hangs.
async fn in_time<T>(work: impl Future<Output = T>) -> Option<T> {
    let (never, deadline) = (Event::new(), Clock::real().now() + 10_000_000);
    let late = async {
        never.wait_until(deadline).await;
        None
    };
    or(async { Some(work.await) }, late).await
}

#[test]
fn a_read_for_another_shard_does_not_wait_for_reads_in_a_line() {
    on_lone_shard(1, async |lone| {
        let target = lone.put_on_device("k", &"x".repeat(100_000)).await;
        let mut line = lone.crowd(target);
        assert!(poll_once(line.last_mut().unwrap()).await.is_none(), "all of the memory is taken");
        let request = get("k");
        let body = &request[FRAME_HEADER_BYTES..];
        let ticket = lone.hand_over(body).unwrap();
        let reply = in_time(ticket).await.expect("a reply");
        assert!(reply.len() > 100_000);
    });
}

#[test]
fn replies_for_another_shard_count_before_they_are_made() {
    on_lone_shard(1, async |lone| {
        lone.put_on_device("k", &"x".repeat(100_000)).await;
        lone.ring.break_device(vec![Fault::Hang(0)]);
        let request = frame(key("k").select(), &[(OpCode::READ, "v", ""); 30]);
        let body = &request[FRAME_HEADER_BYTES..];
        let mut tickets: Vec<_> = (0..40).map(|_| lone.hand_over(body).unwrap()).collect();
        // Of 3 MB each: as many as there is room for wait, and the others are told.
        for mut ticket in tickets.split_off(6) {
            let reply = in_time(&mut ticket).await.expect("it is turned away");
            assert_eq!(reply[FRAME_HEADER_BYTES + 5], ResultCode::DEVICE_OVERLOAD.0);
        }
        assert!(poll_once(&mut tickets[4]).await.is_none());
        lone.ring.break_device(Vec::new());
        for ticket in tickets.drain(..5) {
            let reply = in_time(ticket).await.expect("a reply");
            assert!(reply.len() > 2_900_000);
        }
    });
}

#[test]
fn one_large_reply_of_another_shard_does_not_shorten_all_lines_to_come() {
    on_lone_shard(1, async |lone| {
        let request = get("k");
        let mut line = Line::<Reading>::default();
        let mut fill = |reads, most, reply_bytes| {
            let mut count = 0;
            while !line.is_full() && count < most {
                let ticket = lone.hand_over(&request[FRAME_HEADER_BYTES..]).unwrap();
                let what = What::Handed(ticket, reads);
                line.push(Waiting { at: 0, digest: key("k").digest, what });
                count += 1;
            }
            while line.pop().is_some() {
                line.note_handed(reply_bytes);
            }
            count
        };
        assert_eq!(fill(true, 1, 3 << 20), 1);
        assert_eq!(fill(true, 1000, 100), 2, "others are taken for as large");
        assert_eq!(fill(true, 1000, 100), 64, "until they were not");
        assert_eq!(fill(true, 1, 3 << 20), 1);
        assert_eq!(fill(false, 1000, 30), 1000, "writes have small ones");
    });
}

#[test]
fn reads_that_nobody_waits_for_keep_their_memory_until_the_device_answers() {
    on_lone_shard(1, async |lone| {
        let target = lone.put_on_device("k", &"x".repeat(100_000)).await;
        lone.ring.break_device(vec![Fault::Hang(0)]);
        for read in lone.crowd(target) {
            drop(read.begun().await);
        }
        let next = lone.records.read(target);
        (0..2).for_each(|_| lone.records.look_for_stuck_reads());
        let (read, _) = in_time(next).await.expect("it is not begun, but turned away");
        assert_eq!(read.err(), Some(ReadError::Overloaded));
        lone.ring.break_device(Vec::new());
        while lone.records.read(target).await.0.is_err() {
            yield_now().await;
        }
    });
}

#[test]
fn a_read_of_many_bins_lets_others_go_on_meanwhile_and_gives_them_all() {
    on_lone_shard(1, async |lone| {
        let target = Target { namespace: NamespaceId(0), digest: key("k").digest };
        let names: Vec<String> = (0..4000).map(|n| format!("{n:x}")).collect();
        let write: Vec<_> = names.iter().map(|name| (OpCode::WRITE, name.as_str(), "y")).collect();
        let mut reply = Vec::new();
        let request = frame(key("k").put(), &write);
        let body = &request[FRAME_HEADER_BYTES..];
        lone.records.execute(body, lone.context(), Fetched::No, &mut reply);
        // Each several times, and one that is not there.
        let asked: Vec<_> = names.iter().cycle().take(30_000).map(String::as_str).collect();
        let read: Vec<_> = asked.iter().map(|name| (OpCode::READ, *name, "")).collect();
        let request = frame(key("k").select(), &[&read[..], &[(OpCode::READ, "zz", "")]].concat());
        let body = &request[FRAME_HEADER_BYTES..];
        reply.clear();
        let outcome = lone.records.execute(body, lone.context(), Fetched::No, &mut reply);
        assert_eq!((outcome, reply.len()), (Progress::Read(target), 0), "it is not done at once");
        let read = lone.records.read(target).await;
        let mut finished = Box::pin(lone.records.finish(body, lone.context(), read, &mut reply));
        let mut turns = 0;
        while poll_once(&mut finished).await.is_none() {
            turns += 1;
            yield_now().await;
        }
        drop(finished);
        assert!(turns > 5, "{turns}");
        let found = Reply::parse(&reply[FRAME_HEADER_BYTES..]).expect("a reply");
        assert!(found.ops.map(|op| op.name).eq(asked.iter().map(|name| name.as_bytes())));
    });
}

#[test]
fn a_request_handed_to_the_wrong_shard_is_answered() {
    on_lone_shard(2, async |lone| {
        let is_others = |name: &String| key(name).digest.partition().shard(2) == ShardIndex(1);
        let name = (0..).map(|n| format!("k{n}")).find(is_others).unwrap();
        let request = get(&name);
        let body = &request[FRAME_HEADER_BYTES..];
        let ticket = lone.hand_over(body).unwrap();
        let reply = in_time(ticket).await.expect("a reply");
        let mut expected = Vec::new();
        reply::push_code(&mut expected, ResultCode::UNAVAILABLE);
        assert_eq!(reply[..], expected);
    });
}

#[test]
fn a_record_read_again_does_not_wait_for_reads_behind_it() {
    on_lone_shard(1, async |lone| {
        let target = lone.put_on_device("k", &"x".repeat(100_000)).await;
        let read = lone.records.read(target).await;
        lone.put_on_device("k", &"y".repeat(100_001)).await;
        let _behind = lone.crowd(target);
        let (request, mut reply) = (get("k"), Vec::new());
        let body = &request[FRAME_HEADER_BYTES..];
        let finished = lone.records.finish(body, lone.context(), read, &mut reply);
        in_time(finished).await.expect("a reply");
        assert!(reply.ends_with(b"yyy"));
    });
}

#[test]
fn a_record_that_cannot_be_read_can_be_deleted_and_replaced() {
    on_lone_shard(1, async |lone| {
        let put = |name: &str, user_key: &'static [u8], replace: u8| {
            let mut head = Head { key: user_key, ..key(name).put() };
            head.info[2] |= replace;
            frame(head, &[(OpCode::WRITE, "v", &"x".repeat(100_000))])
        };
        let ask = |request: &[u8], fetched| {
            let mut reply = Vec::new();
            let body = &request[FRAME_HEADER_BYTES..];
            match lone.records.execute(body, lone.context(), fetched, &mut reply) {
                Progress::Answered => Some(reply[FRAME_HEADER_BYTES + 5]),
                _ => None,
            }
        };
        let user_key = b"\x03k";
        let replace = info3::CREATE_OR_REPLACE;
        let remove = frame(key("k").remove(), &[]);
        let cases = [
            (get("k"), ResultCode::SERVER),
            (put("k", b"", 0), ResultCode::SERVER),
            (put("k", b"", replace), ResultCode::OK),
            (put("k", user_key, replace), ResultCode::OK),
            (remove, ResultCode::OK),
        ];
        for (request, code) in cases {
            // A record with a stored key, on the device only.
            let stored = put("k", user_key, replace);
            assert_eq!(ask(&stored, Fetched::Failed(&ReadError::Failed)), Some(0));
            assert_eq!(ask(&put("filler", b"", replace), Fetched::No), Some(0));
            let (digest, store) = (key("k").digest, lone.records.store());
            while !matches!(store.borrow().peek(NamespaceId(0), &digest), Peek::OnDevice) {
                yield_now().await;
            }
            assert_eq!(ask(&request, Fetched::No), None, "it is to be read first");
            let busy = Fetched::Failed(&ReadError::Overloaded);
            assert_eq!(ask(&request, busy), Some(ResultCode::DEVICE_OVERLOAD.0));
            assert_eq!(ask(&request, Fetched::Failed(&ReadError::Failed)), Some(code.0));
        }
    });
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A blocking client.
struct Client {
    stream: TcpStream,
    received: Vec<u8>,
}

/// A reply, owned.
#[derive(Debug, PartialEq)]
struct Got {
    code: u8,
    generation: u16,
    void_time: u32,
    bins: Vec<(String, u8, Vec<u8>)>,
}

impl Client {
    fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self { stream, received: Vec::new() }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// The next frame; `None` once the server has closed the connection.
    fn frame(&mut self) -> Option<(FrameType, Vec<u8>)> {
        loop {
            if let Some(frame) = next_frame(&self.received).unwrap() {
                let taken = (frame.kind, frame.body.to_vec());
                self.received.drain(..FRAME_HEADER_BYTES + taken.1.len());
                return Some(taken);
            }
            let mut piece = [0; 65536];
            match read_some(&mut self.stream, &mut piece) {
                Ok(0) => return None,
                Ok(count) => self.received.extend_from_slice(&piece[..count]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn got(&mut self) -> Got {
        let (kind, body) = self.frame().expect("a reply");
        assert_eq!(kind, FrameType::Message);
        let reply = Reply::parse(&body).unwrap();
        let text = |name: &[u8]| String::from_utf8(name.to_vec()).unwrap();
        Got {
            code: reply.code().0,
            generation: reply.generation().0,
            void_time: reply.void_time().0,
            bins: reply.ops.map(|op| (text(op.name), op.particle.0, op.value.to_vec())).collect(),
        }
    }

    fn ask(&mut self, bytes: &[u8]) -> Got {
        self.send(bytes);
        self.got()
    }

    fn info(&mut self, text: &str) -> Vec<(String, String)> {
        let header = FrameHeader { kind: FrameType::Info, body_bytes: text.len() };
        self.send(&[&header.to_bytes(), text.as_bytes()].concat());
        let (kind, body) = self.frame().expect("an answer");
        assert_eq!(kind, FrameType::Info);
        info::answers(&body).map(|(line, value)| (line.to_owned(), value.to_owned())).collect()
    }

    /// A figure of the namespace on the shard.
    fn figure(&mut self, name: &str) -> u64 {
        self.item("namespace/test\n", name).parse().unwrap()
    }

    fn shows(&mut self, name: &str, value: &str) -> bool {
        self.item("namespace/test\n", name) == value
    }

    /// A figure of the shard.
    fn statistic(&mut self, name: &str) -> usize {
        self.item("statistics\n", name).parse().unwrap()
    }

    fn item(&mut self, command: &str, name: &str) -> String {
        let figures = self.info(command).remove(0).1;
        let (_, value) = info::pairs(&figures).find(|(key, _)| *key == name).unwrap();
        value.to_owned()
    }

    /// Says the hello of one (process, shard, stream); gives what is answered.
    fn says(&mut self, (process, shard, stream): (u64, u16, u64), epoch: u64) -> String {
        let challenge = self.info(&format!("{CHALLENGE}\n")).remove(0).1;
        let challenge = Challenge::from_hex(&challenge).unwrap();
        let key = Key::from_seed([0xAB; 32]).unwrap();
        let hello = Hello {
            origin: key.origin(),
            process,
            node: 0xB0,
            shard,
            stream,
            streams: vec![stream],
            epoch,
            src_id: SrcId(3),
            dc: "west",
        };
        let to = self.info("node\n").remove(0).1;
        self.info(&format!("{}\n", key.sign(&hello, &to, &challenge))).remove(0).1
    }

    fn hello(&mut self, epoch: u64) -> Option<HelloAnswer> {
        HelloAnswer::parse(&self.says((1, 0, 1), epoch))
    }

    fn is_closed(&mut self) -> bool {
        self.frame().is_none()
    }
}

fn key(name: &str) -> Address<'static> {
    Address { namespace: "test", set: "demo", digest: Digest::of_string("demo", name) }
}

fn frame(head: Head<'_>, steps: &[(OpCode, &str, &str)]) -> Vec<u8> {
    let mut list = Vec::new();
    for (code, name, value) in steps {
        let reads = matches!(*code, OpCode::READ | OpCode::TOUCH);
        let particle = if reads { ParticleType::NULL } else { ParticleType::STRING };
        ops::push(&mut list, *code, particle, name.as_bytes(), value.as_bytes());
    }
    let mut out = Vec::new();
    head.push(steps.len() as u16, &list, &mut out);
    out
}

fn put(name: &str, value: &str) -> Vec<u8> {
    frame(key(name).put(), &[(OpCode::WRITE, "v", value)])
}

fn get(name: &str) -> Vec<u8> {
    frame(key(name).get(), &[])
}

fn done(generation: u16) -> Got {
    Got { code: 0, generation, void_time: 0, bins: vec![] }
}

fn found(generation: u16, value: &str) -> Got {
    let bins = vec![("v".to_owned(), ParticleType::STRING.0, value.as_bytes().to_vec())];
    Got { bins, ..done(generation) }
}

fn refused(code: ResultCode) -> Got {
    Got { code: code.0, ..done(0) }
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

const FIELDS: &str = "00000005 00 74657374 00000005 01 64656d6f \
                      00000015 04 03161f352c8ab85448952c896ecdaa122b3c4e71";
const BINS: &str = "0000000d 02 01 00 01 69 0000000000000007 00000007 02 03 00 01 73 6869";

#[test]
fn the_captured_frames_are_answered_as_captured() {
    let node = Node::start(ONE);
    let mut client = node.client();
    let user_key = "00000007 02 03 7573657231";
    let put = format!(
        "0203000000000068 160001000000 00000000 00000064 000003e8 0004 0002 {FIELDS} {user_key} {BINS}"
    );
    let before = Lut::from_unix_ms(Clock::real().wall_ms()).seconds();
    let Got { code, generation, void_time, bins } = client.ask(&hex(&put));
    assert_eq!((code, generation, bins.len()), (0, 1, 0));
    assert!((100..110).contains(&(void_time - before)), "{void_time} - {before}");

    let get =
        format!("0203000000000041 160300000000 00000000 00000000 000003e8 0003 0000 {FIELDS}");
    client.send(&hex(&get));
    let (_, body) = client.frame().unwrap();
    let expected = format!(
        "160000000000 00000001 {void_time:08x} 00000000 0000 0002 \
         0000000d 01 01 00 01 69 0000000000000007 00000007 01 03 00 01 73 6869"
    );
    assert_eq!(body, hex(&expected));

    let replace = format!(
        "0203000000000068 161001100000 00000000 ffffffff 00000000 0004 0002 {FIELDS} {user_key} {BINS}"
    );
    assert_eq!(client.ask(&hex(&replace)), done(2));

    let lut = "00000009 0e 0000007c197a2384";
    let update = format!(
        "0203000000000083 161001000000 00000000 ffffffff 00000000 0005 0002 {FIELDS} {user_key} {lut} \
         00000015 02 01 01 01 69 0000007c197a2384 0000000000000007 \
         0000000d 02 00 01 01 73 0000007c197a2384"
    );
    assert_eq!(client.ask(&hex(&update)), done(3));
    let only = vec![("i".to_owned(), 1, 7i64.to_be_bytes().to_vec())];
    assert_eq!(client.ask(&hex(&get)), Got { bins: only, ..done(3) });

    let delete =
        format!("0203000000000041 161003000000 00000000 00000000 00000000 0003 0000 {FIELDS}");
    assert_eq!(client.ask(&hex(&delete)), done(0));
    assert_eq!(client.ask(&hex(&delete)), refused(ResultCode::NOT_FOUND));
    let remove =
        format!("0203000000000041 160003000000 00000000 00000000 000003e8 0003 0000 {FIELDS}");
    assert_eq!(client.ask(&hex(&put)).code, 0);
    assert_eq!(client.ask(&hex(&remove)), done(0));
}

#[test]
fn bytes_that_are_no_frame_end_the_connection_and_no_other() {
    let node = Node::start(ONE);
    let mut other = node.client();
    assert_eq!(other.ask(&put("k", "x")), done(1));
    let cases: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\n\r\n",
        &[3, 3, 0, 0, 0, 0, 0, 22],
        &[2, 0, 0, 0, 0, 0, 0, 0],
        &[2, 6, 0, 0, 0, 0, 0, 0],
        &[2, 3, 0, 0, 8, 0, 0, 1],
        &[22, 3, 1, 2, 0, 1, 0, 1],
    ];
    for bytes in cases {
        let mut client = node.client();
        client.send(bytes);
        assert!(client.is_closed(), "{bytes:?}");
    }
    // What came before is answered first.
    let mut client = node.client();
    client.send(&[&put("k", "y")[..], &[9; 100]].concat());
    assert!(client.is_closed() || client.is_closed());
    assert_eq!(other.ask(&get("k")).code, 0);
}

#[test]
fn malformed_and_unserved_messages_are_refused_and_the_connection_goes_on() {
    let node = Node::start(ONE);
    let mut client = node.client();
    let message = |body: &[u8]| {
        let header = FrameHeader { kind: FrameType::Message, body_bytes: body.len() };
        [&header.to_bytes(), body].concat()
    };
    let whole = put("k", "x");
    let mut unknown_op = whole.clone();
    let op = unknown_op.len() - 6;
    unknown_op[op] = 6;
    let elsewhere = Address { namespace: "nowhere", ..key("k") };
    let long = frame(key("k").put(), &[(OpCode::WRITE, "sixteen-letters!", "x")]);
    let cases = [
        (message(b""), ResultCode::PARAMETER),
        (message(&whole[8..20]), ResultCode::PARAMETER),
        (message(&whole[8..whole.len() - 1]), ResultCode::PARAMETER),
        (message(&[&whole[8..], &[0][..]].concat()), ResultCode::PARAMETER),
        (unknown_op, ResultCode::PARAMETER),
        (long, ResultCode::BIN_NAME),
        (frame(elsewhere.get(), &[]), ResultCode::NAMESPACE),
        (frame(key("k").put(), &[(OpCode::CDT_MODIFY, "v", "")]), ResultCode::UNSUPPORTED_FEATURE),
        (message(&vec![0; 3 << 20]), ResultCode::RECORD_TOO_BIG),
        (put("k", &"x".repeat((1 << 20) + 1)), ResultCode::RECORD_TOO_BIG),
    ];
    for (bytes, code) in cases {
        assert_eq!(client.ask(&bytes), refused(code));
    }
    client.send(&[2, 4, 0, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 30, 1, 2]);
    assert_eq!(client.got(), refused(ResultCode::ENTERPRISE_ONLY));
    client.send(&[&[2, 5, 0, 0, 0, 0, 0, 4, 1, 2, 3, 4][..], &[0, 2, 0, 0, 0, 0, 0, 16]].concat());
    client.send(&[0; 16]);
    let (kind, body) = client.frame().unwrap();
    assert_eq!((kind, body.len(), body[1]), (FrameType::Security, 16, 51));
    assert_eq!(client.ask(&put("k", "x")), done(1));
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    for options in [ONE, COMMIT] {
        let node = Node::start(options);
        let mut client = node.client();
        let mut sent = Vec::new();
        let mut expected = Vec::new();
        for round in 1..=50_u16 {
            for name in ["a", "b", "c", "d"] {
                let value = format!("{name}{round}");
                sent.extend(put(name, &value));
                expected.push(done(round));
                sent.extend(get(name));
                expected.push(found(round, &value));
            }
            sent.extend(get("absent"));
            expected.push(refused(ResultCode::NOT_FOUND));
        }
        client.send(&sent);
        for (index, expected) in expected.into_iter().enumerate() {
            assert_eq!(client.got(), expected, "reply {index}");
        }
    }
}

#[test]
fn operations_read_and_write_in_order() {
    for options in [ONE, COMMIT] {
        let node = Node::start(options);
        let mut client = node.client();
        assert_eq!(client.ask(&put("k", "b")), done(1));
        let steps =
            [(OpCode::APPEND, "v", "c"), (OpCode::READ, "v", ""), (OpCode::PREPEND, "v", "a")];
        assert_eq!(client.ask(&frame(key("k").operate(), &steps)), found(2, "bc"));
        assert_eq!(client.ask(&get("k")), found(2, "abc"));
        let select = frame(key("k").select(), &[(OpCode::READ, "w", ""), (OpCode::READ, "v", "")]);
        assert_eq!(client.ask(&select), found(2, "abc"));
        assert_eq!(client.ask(&frame(key("k").exists(), &[])), done(2));
        assert_eq!(client.ask(&frame(key("k").put(), &[(OpCode::TOUCH, "", "")])), done(3));
        assert_eq!(client.ask(&get("k")), found(3, "abc"));
        assert_eq!(client.ask(&frame(key("k").remove(), &[])), done(0));
        assert_eq!(client.ask(&get("k")), refused(ResultCode::NOT_FOUND));
        assert_eq!(client.ask(&put("k", "new")), done(1));
    }
}

#[test]
fn every_port_serves_every_key() {
    for commit in [false, true] {
        let node = Node::start(Options { shards: 3, commit, ..ONE });
        let mut clients: Vec<_> = node.addresses.iter().map(|&at| Client::connect(at)).collect();
        let names: Vec<String> = (0..60).map(|n| format!("key-{n}")).collect();
        let owned =
            |name: &String, shard| key(name).digest.partition().shard(3) == ShardIndex(shard);
        assert!((0..3).all(|shard| names.iter().any(|name| owned(name, shard))));
        for (round, client) in clients.iter_mut().enumerate() {
            let value = |name: &String| format!("{name}/{round}");
            let sent = names.iter().flat_map(|name| [put(name, &value(name)), get(name)]);
            client.send(&sent.flatten().collect::<Vec<u8>>());
            for name in &names {
                let generation = round as u16 + 1;
                assert_eq!(client.got(), done(generation), "{name}");
                assert_eq!(client.got(), found(generation, &value(name)), "{name}");
            }
        }
        for (shard, submitted) in node.submitted.iter().enumerate() {
            let changes = submitted.0.lock().unwrap();
            let owner = |digest: &Digest| digest.partition().shard(3);
            assert!(!changes.is_empty());
            assert!(changes.iter().all(|(c, _)| owner(&c.digest) == ShardIndex(shard as u16)));
        }
    }
}

#[test]
fn writes_are_submitted_with_their_circumstances() {
    for options in [ONE, COMMIT] {
        check_submissions(&Node::start(options));
    }
}

fn check_submissions(node: &Node) {
    let mut client = node.client();
    client.ask(&put("k", "x"));
    client.ask(&put("k", "y"));
    client.ask(&get("k"));
    client.ask(&frame(key("k").remove(), &[]));
    client.ask(&frame(key("k").remove(), &[]));
    let shipped = key("s").shipped_write(true);
    client.ask(&frame(shipped, &[(OpCode::WRITE, "v", "x")]));
    assert!(client.hello(1).is_some());
    client.ask(&frame(shipped, &[(OpCode::WRITE, "v", "x")]));
    let chained = Head { src_id: SrcId(5), ..shipped };
    client.ask(&frame(chained, &[(OpCode::WRITE, "v", "x")]));
    client.ask(&put("l", "local"));
    let durable = frame(key("l").shipped_delete(true), &[]);
    client.ask(&durable);

    let changes = node.submitted[0].0.lock().unwrap();
    assert!(changes.windows(2).all(|pair| pair[0].0.version < pair[1].0.version));
    assert!(changes.iter().all(|(_, set)| set == "demo"));
    let seen: Vec<_> = changes
        .iter()
        .map(|(c, _)| (c.kind, c.previous_lut.is_some(), c.shipped, c.src_id.0))
        .collect();
    let expected = [
        (ChangeKind::Write, false, false, 0),
        (ChangeKind::Write, true, false, 0),
        (ChangeKind::Delete, true, false, 0),
        (ChangeKind::Write, false, true, 0),
        (ChangeKind::Write, true, true, 3),
        (ChangeKind::Write, true, true, 5),
        (ChangeKind::Write, false, false, 0),
        (ChangeKind::DurableDelete, true, true, 3),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn records_that_left_memory_are_read_in_order_and_together() {
    for options in [ONE, COMMIT, Options { shards: 2, ..ONE }] {
        let node = Node::start(options);
        let mut client = node.client();
        const KEYS: usize = 1000;
        let value = |n: usize| format!("{n:04}").repeat(300);
        let puts: Vec<u8> = (0..KEYS).flat_map(|n| put(&format!("k{n}"), &value(n))).collect();
        client.send(&puts);
        (0..KEYS).for_each(|n| assert_eq!(client.got(), done(1), "{n}"));
        while client.figure("write_cache_bytes") > 128 << 10 {}
        // Reads, changes that need the old record, and reads of what they change.
        let mut sent = Vec::new();
        for n in 0..KEYS {
            sent.extend(get(&format!("k{n}")));
            if n % 10 == 0 {
                sent.extend(frame(key(&format!("k{n}")).put(), &[(OpCode::APPEND, "v", "!")]));
                sent.extend(get(&format!("k{n}")));
            }
            if n % 100 == 0 {
                sent.extend(frame(key(&format!("k{n}")).remove(), &[]));
                sent.extend(get(&format!("k{n}")));
            }
        }
        let mut writer = client.stream.try_clone().unwrap();
        let sender = std::thread::spawn(move || writer.write_all(&sent).unwrap());
        for n in 0..KEYS {
            assert_eq!(client.got(), found(1, &value(n)), "{n}");
            if n % 10 == 0 {
                assert_eq!(client.got(), done(2), "{n}");
                assert_eq!(client.got(), found(2, &(value(n) + "!")), "{n}");
            }
            if n % 100 == 0 {
                assert_eq!(client.got(), done(0), "{n}");
                assert_eq!(client.got(), refused(ResultCode::NOT_FOUND), "{n}");
            }
        }
        sender.join().unwrap();
        let reads = client.figure("device_reads");
        assert!(reads > 100, "{reads} reads from the device");
    }
}

#[test]
fn a_burst_of_reads_of_cold_records_waits_and_is_not_refused() {
    const KEYS: usize = 4000;
    const CLIENTS: usize = 4;
    let node = Node::start(ONE);
    let mut client = node.client();
    let puts: Vec<u8> = (0..KEYS).flat_map(|n| put(&format!("k{n}"), "small")).collect();
    client.send(&puts);
    (0..KEYS).for_each(|n| assert_eq!(client.got(), done(1), "{n}"));
    while client.figure("write_cache_bytes") > 128 << 10 {}
    let gets: Vec<u8> = (0..KEYS).flat_map(|n| get(&format!("k{n}"))).collect();
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| node.client()).collect();
    std::thread::scope(|scope| {
        for client in &mut clients {
            let mut writer = client.stream.try_clone().unwrap();
            let gets = &gets;
            scope.spawn(move || writer.write_all(gets).unwrap());
        }
        for client in &mut clients {
            (0..KEYS).for_each(|n| assert_eq!(client.got(), found(1, "small"), "{n}"));
        }
    });
    let reads = client.figure("device_reads");
    assert!(reads > (CLIENTS * KEYS / 2) as u64, "{reads} reads from the device");
}

#[test]
fn a_full_store_refuses_writes_and_takes_deletes() {
    let node = Node::start(Options { stop_writes_used_pct: 1, ..ONE });
    let mut client = node.client();
    let value = "x".repeat(10_000);
    let codes: Vec<u8> =
        (0..100).map(|n| client.ask(&put(&format!("k{n}"), &value)).code).collect();
    let taken = codes.iter().take_while(|code| **code == 0).count();
    assert!((10..50).contains(&taken), "{taken}");
    assert!(codes[taken..].iter().all(|code| *code == ResultCode::OUT_OF_SPACE.0));
    assert_eq!(node.submitted[0].0.lock().unwrap().len(), taken);
    // Nothing is said about the record, nor about the operations, while the gate is closed.
    let mut update = key("absent").put();
    update.info[2] |= info3::UPDATE_ONLY;
    let bad = frame(key("k0").put(), &[(OpCode::READ, "v", "")]);
    for request in [frame(update, &[(OpCode::WRITE, "v", "x")]), bad] {
        assert_eq!(client.ask(&request), refused(ResultCode::OUT_OF_SPACE));
    }
    assert_eq!(client.ask(&get("k0")), found(1, &value));
    assert!(client.shows("stop_writes", "true"), "alerts are built on it");
    for n in 0..taken {
        assert_eq!(client.ask(&frame(key(&format!("k{n}")).remove(), &[])), done(0));
    }
    assert!(client.shows("stop_writes", "false"));
    assert_eq!(client.ask(&put("k0", &value)).code, 0);
}

#[test]
fn rules_of_the_headers_reach_the_record() {
    let node = Node::start(ONE);
    let mut client = node.client();
    let with = |info2: u8, info3: u8, generation: u32| {
        let mut head = Head { generation, ..key("k").put() };
        head.info[1] |= info2;
        head.info[2] |= info3;
        frame(head, &[(OpCode::WRITE, "v", "x")])
    };
    let about = |code: ResultCode, generation| Got { code: code.0, ..done(generation) };
    assert_eq!(client.ask(&with(0, info3::UPDATE_ONLY, 0)), refused(ResultCode::NOT_FOUND));
    assert_eq!(client.ask(&with(info2::CREATE_ONLY, 0, 0)), done(1));
    assert_eq!(client.ask(&with(info2::CREATE_ONLY, 0, 0)), about(ResultCode::RECORD_EXISTS, 1));
    assert_eq!(client.ask(&with(info2::GENERATION, 0, 7)), about(ResultCode::GENERATION, 1));
    assert_eq!(client.ask(&with(info2::GENERATION, 0, 1)), done(2));
}

#[test]
fn info_answers_one_line_per_command_in_order() {
    let node = Node::start(Options { shards: 2, ..ONE });
    let mut client = node.client();
    let answers = client.info("node\nnow\n\nlater:a=b\nbins\nbuild\nnever-ended");
    let lines: Vec<_> = answers.iter().map(|(line, value)| (&line[..], &value[..])).collect();
    let unknown = "ERROR:4:unrecognized command";
    let expected = [
        ("node", "BB90000000000000"),
        ("now", "here"),
        ("", unknown),
        ("later:a=b", "at last"),
        ("bins", unknown),
        ("build", "7.0.0.0"),
    ];
    assert_eq!(lines, expected);
    let set = "user-agent-set:value=MSw=\n";
    assert_eq!(client.info(set)[0].1, "ok");
    assert_eq!(client.info(set)[0].1, "ERROR:4:already set");
    let port = node.addresses[1].port();
    let peers = &client.info("peers-clear-std\n")[0].1;
    assert!(peers.ends_with(&format!("[[BB90000000000001,,[127.0.0.1:{port}]]]")), "{peers}");
}

#[test]
fn figures_count_what_was_done() {
    let node = Node::start(ONE);
    let mut client = node.client();
    client.ask(&put("k", "x"));
    client.ask(&get("k"));
    client.ask(&get("absent"));
    assert_eq!(client.figure("objects"), 1);
    assert_eq!(client.figure("client_write_success"), 1);
    assert_eq!(client.figure("client_read_success"), 1);
    assert_eq!(client.figure("client_read_not_found"), 1);
    assert_eq!(client.info("namespace/nowhere\n")[0].1, "type=unknown");
    assert!(client.info("sets/test\n")[0].1.starts_with("ns=test:set=demo:objects="));
    assert!(client.info("statistics\n")[0].1.contains("client_connections=1;"));
}

#[test]
fn a_newer_hello_ends_the_older_connection_and_its_unread_requests() {
    let node = Node::start(Options { shards: 2, ..ONE });
    let mut reader = Client::connect(node.addresses[1]);
    for epoch in (1..60).step_by(2) {
        let (mut old, mut new) = (node.client(), node.client());
        assert_eq!(old.hello(epoch).map(|answer| answer.boot), Some(0xB007));
        // On their way, unread, handed over: wherever they are when the newer one says hello.
        let stale = (0..200).flat_map(|n| put(&format!("key-{}", n % 10), "stale"));
        old.send(&stale.collect::<Vec<u8>>());
        let answer = new.hello(epoch + 1).unwrap();
        assert_eq!((answer.loss_window_ms, answer.src_id), (1000, SrcId(9)));
        let fresh: Vec<u8> = (0..10).flat_map(|n| put(&format!("key-{n}"), "fresh")).collect();
        new.send(&fresh);
        (0..10).for_each(|_| assert_eq!(new.got().code, 0));
        while !old.is_closed() {}
        for n in 0..10 {
            assert_eq!(reader.ask(&get(&format!("key-{n}"))).bins[0].2, b"fresh");
        }
        let mut late = node.client();
        assert_eq!(late.hello(epoch), None, "an older epoch is refused");
    }
}

#[test]
fn a_newer_hello_does_not_wait_for_a_device() {
    let node = Node::start(ONE);
    let mut client = node.client();
    for n in 0..20 {
        assert_eq!(client.ask(&put(&format!("k{n}"), &"x".repeat(100_000))), done(1));
    }
    while client.figure("write_cache_bytes") > 128 << 10 {}
    let (mut old, mut new) = (node.client(), node.client());
    assert!(old.hello(1).is_some());
    client.info("hang");
    old.send(&get("k0").repeat(3));
    assert!(new.hello(2).is_some());
    while !old.is_closed() {}
    client.info("heal");
    assert_eq!(new.ask(&get("k0")), found(1, &"x".repeat(100_000)));
}

#[test]
fn whatever_became_of_a_source_its_former_connections_end_first() {
    let node = Node::start(ONE);
    let mut reader = node.client();
    // The same again, other shards, the DC under another name: (process, shard, stream).
    for (round, next) in [(2, 0, 1), (3, 5, 1), (3, 5, 2)].into_iter().enumerate() {
        let former = if round == 2 { (3, 5, 1) } else { (next.0 - 1, 0, 1) };
        let (mut old, mut new) = (node.client(), node.client());
        assert!(HelloAnswer::parse(&old.says(former, 1)).is_some());
        old.send(&(0..200).flat_map(|_| put("k", "stale")).collect::<Vec<u8>>());
        assert!(HelloAnswer::parse(&new.says(next, 2)).is_some());
        assert_eq!(new.ask(&put("k", "fresh")).code, 0);
        while !old.is_closed() {}
        assert_eq!(reader.ask(&get("k")).bins[0].2, b"fresh", "{next:?} after {former:?}");
        drop(new);
        while reader.info("statistics\n")[0].1.contains("client_connections=2") {}
    }
}

#[test]
fn a_refused_hello_is_answered_with_the_cause_and_taken_once_that_is_gone() {
    let node = Node::start(ONE);
    let (mut later, mut earlier) = (node.client(), node.client());
    assert!(HelloAnswer::parse(&later.says((2, 0, 1), 1)).is_some());
    let refusal = earlier.says((1, 0, 1), 1);
    let cause = "ERROR:4:hello refused: another process with this identity, begun later, ships \
                 from 127.0.0.1:";
    assert!(refusal.starts_with(cause), "{refusal}");
    drop(later);
    while HelloAnswer::parse(&earlier.says((1, 0, 1), 1)).is_none() {}
}

#[test]
fn a_hello_without_a_challenge_of_its_own_connection_is_refused() {
    let node = Node::start(ONE);
    let mut client = node.client();
    let refused = |client: &mut Client, line: &str| {
        let answer = client.info(&format!("{line}\n")).remove(0).1;
        assert!(answer.starts_with("ERROR:4:hello refused: "), "{answer}");
        answer
    };
    let key = Key::from_seed([1; 32]).unwrap();
    let hello = Hello {
        origin: key.origin(),
        process: 1,
        node: 1,
        shard: 0,
        stream: 1,
        streams: vec![1],
        epoch: 1,
        src_id: SrcId(3),
        dc: "west",
    };
    let unasked = key.sign(&hello, "BB90000000000000", &Challenge([0; 16]));
    assert!(!refused(&mut client, &unasked).is_empty());
    let challenge = client.info(&format!("{CHALLENGE}\n")).remove(0).1;
    let challenge = Challenge::from_hex(&challenge).unwrap();
    let passed_on = key.sign(&hello, "BB90000000000001", &challenge);
    assert!(refused(&mut client, &passed_on).contains("sign for this node"));
    let challenge = client.info(&format!("{CHALLENGE}\n")).remove(0).1;
    let challenge = Challenge::from_hex(&challenge).unwrap();
    let line = key.sign(&hello, "BB90000000000000", &challenge);
    assert!(refused(&mut node.client(), &line).contains("the proof does not fit"));
    assert!(HelloAnswer::parse(&client.info(&format!("{line}\n"))[0].1).is_some());
    assert!(refused(&mut client, &line).contains("one was said on this connection"));
}

#[test]
fn a_shipper_writes_only_what_belongs_to_the_shard_it_came_to() {
    let node = Node::start(Options { shards: 2, ..ONE });
    let (mut shipper, mut other) = (node.client(), node.client());
    assert!(shipper.hello(1).is_some());
    let mut codes = [Vec::new(), Vec::new()];
    for n in 0..40 {
        let shipped = key(&format!("key-{n}")).shipped_write(true);
        let write = frame(shipped, &[(OpCode::WRITE, "v", "x")]);
        codes[0].push(shipper.ask(&write).code);
        codes[1].push(other.ask(&write).code);
    }
    let elsewhere = codes[0].iter().filter(|code| **code == ResultCode::UNAVAILABLE.0).count();
    assert!((1..40).contains(&elsewhere), "{codes:?}");
    assert!(codes[1].iter().all(|code| *code == 0), "who said no hello is served anywhere");
}

#[test]
fn a_client_that_does_not_read_is_not_read_from() {
    let node = Node::start(ONE);
    let mut client = node.client();
    let value = "x".repeat(100_000);
    assert_eq!(client.ask(&put("k", &value)), done(1));
    const GETS: usize = 1000;
    let mut writer = client.stream.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        let request = get("k");
        (0..GETS).for_each(|_| writer.write_all(&request).unwrap());
    });
    let mut other = node.client();
    assert_eq!(other.ask(&get("k")).generation, 1, "others are served meanwhile");
    let expected = found(1, &value);
    (0..GETS).for_each(|index| assert!(client.got() == expected, "reply {index}"));
    sender.join().unwrap();
}

#[test]
fn clients_that_end_while_a_device_hangs_are_let_go() {
    let node = Node::start(ONE);
    let mut client = node.client();
    for n in 0..20 {
        assert_eq!(client.ask(&put(&format!("k{n}"), &"x".repeat(100_000))), done(1));
    }
    while client.figure("write_cache_bytes") > 128 << 10 {}
    client.info("hang");
    let mut patient = node.client();
    patient.send(&get("k0"));
    for n in 0..10 {
        node.client().send(&get(&format!("k{n}")).repeat(3));
    }
    let begin = Instant::now();
    while client.statistic("client_connections") > 2 {
        assert!(begin.elapsed() < Duration::from_secs(20), "they are kept");
    }
    client.info("heal");
    assert_eq!(patient.got(), found(1, &"x".repeat(100_000)), "who stays gets its answer");
}

#[test]
fn connections_have_a_bound() {
    let node = Node::start(Options { connections_max: 2, ..ONE });
    let mut clients: Vec<_> = (0..2).map(|_| node.client()).collect();
    clients.iter_mut().for_each(|client| assert_eq!(client.info("status\n")[0].1, "ok"));
    assert!(node.client().is_closed());
    assert_eq!(clients[0].ask(&put("k", "x")), done(1));
}

#[test]
fn a_stop_closes_idle_connections() {
    let mut node = Node::start(ONE);
    let mut clients: Vec<_> = (0..3).map(|_| node.client()).collect();
    clients.iter_mut().for_each(|client| assert_eq!(client.ask(&put("k", "x")).code, 0));
    node.stop();
    clients.iter_mut().for_each(|client| assert!(client.is_closed()));
    assert!(TcpStream::connect(node.addresses[0]).is_err());
}

#[test]
fn random_bytes_never_stop_the_node() {
    let node = Node::start(ONE);
    let mut seed = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for round in 0..200 {
        let mut client = node.client();
        let mut bytes = put("k", "value");
        for _ in 0..=round % 5 {
            let at = 8 + random() as usize % (bytes.len() - 8);
            bytes[at] = random() as u8;
        }
        let noise: Vec<u8> = (0..50).map(|_| random() as u8).collect();
        client.send(&[&bytes[..], &noise].concat());
        client.stream.shutdown(std::net::Shutdown::Write).unwrap();
        while !client.is_closed() {}
    }
    assert_eq!(node.client().info("status\n")[0].1, "ok");
}

#[test]
fn what_is_not_served_gets_one_last_answer_at_once() {
    let node = Node::start(Options { shards: 2, ..ONE });
    let mut client = node.client();
    client.ask(&put("k", "x"));
    let message = |info: [u8; 4], fields: &[(u8, &[u8])]| {
        let mut body = vec![0; 22];
        body[0] = 22;
        body[1..5].copy_from_slice(&info);
        body[19] = fields.len() as u8;
        fields.iter().for_each(|(id, data)| longship::wire::fields::push(&mut body, *id, data));
        let header = FrameHeader { kind: FrameType::Message, body_bytes: body.len() };
        [&header.to_bytes()[..], &body].concat()
    };
    let row = [&[0, 0, 0, 0][..], &key("k").digest.0, &[0, 3, 0, 1, 0, 0]].concat();
    let rows = [&[0, 0, 0, 1, 3][..], &row].concat();
    let unsupported = ResultCode::UNSUPPORTED_FEATURE;
    let cases: [(Vec<u8>, ResultCode); 7] = [
        (message([8, 0, 0, 0], &[(41, &rows)]), unsupported),
        (message([9, 0, 0, 0], &[(42, &rows), (43, b"\x93\x01")]), unsupported),
        (message([8, 0, 0, 0], &[]), unsupported),
        (message([1, 0, 4, 0], &[(0, b"test"), (1, b"demo"), (11, &[0, 0])]), unsupported),
        (message([1, 0, 4, 0], &[(0, b"nowhere"), (11, &[0, 0])]), unsupported),
        (message([1, 0, 4, 0], &[(0, b"test"), (22, b"i")]), ResultCode::INDEX_NOT_FOUND),
        (message([0, 1, 0, 0], &[(0, b"test"), (30, b"file"), (31, b"f")]), unsupported),
    ];
    for (bytes, code) in cases {
        client.send(&bytes);
        let (kind, body) = client.frame().expect("an answer");
        assert_eq!((kind, body.len(), body[5]), (FrameType::Message, 22, code.0));
        assert_eq!(body[3], info3::LAST, "the client reads on until the last one");
    }
    assert_eq!(client.ask(&get("k")), found(1, "x"));
}

#[test]
fn a_request_of_many_reads_is_refused_or_carried_out_and_others_are_served() {
    let node = Node::start(ONE);
    let mut client = node.client();
    assert_eq!(client.ask(&put("k", &"x".repeat(100_000))), done(1));
    let many = |count| frame(key("k").select(), &vec![(OpCode::READ, "v", ""); count]);
    assert_eq!(client.ask(&many(2000)).code, ResultCode::RECORD_TOO_BIG.0);
    assert_eq!(client.ask(&many(2)).bins.len(), 2);
    let mut mixed = vec![(OpCode::WRITE, "w", "x")];
    mixed.resize(2000, (OpCode::READ, "v", ""));
    let code = client.ask(&frame(key("k").operate(), &mixed)).code;
    assert_eq!(code, ResultCode::RECORD_TOO_BIG.0);
    let written = client.ask(&frame(key("k").select(), &[(OpCode::READ, "w", "")]));
    assert_eq!(written, done(1), "nothing of a refused request is kept");
}

/// Has so many clients send these requests and read nothing, until the first is closed. Gives the
/// most bytes of replies that were held for them.
fn held_for_clients_that_do_not_read(node: &Node, count: usize, requests: &[u8]) -> usize {
    let mut other = node.client();
    let before = other.statistic("client_connections_opened");
    let mut clients: Vec<_> = (0..count).map(|_| node.client()).collect();
    for client in &mut clients {
        client.stream.set_nonblocking(true).unwrap();
        let _ = client.stream.write(requests);
    }
    // The pool runs full, small requests pass, and in the end there is room for all.
    let mut most = 0;
    loop {
        assert_eq!(other.ask(&get("small")).code, 0);
        most = other.statistic("client_reply_bytes").max(most);
        let opened = other.statistic("client_connections_opened");
        if opened >= before + count && other.statistic("client_connections") < clients.len() + 1 {
            break;
        }
    }
    drop(clients);
    assert_eq!(other.ask(&get("large")).generation, 1);
    most
}

#[test]
fn replies_that_nobody_reads_are_bounded_and_their_clients_closed() {
    for on_device in [false, true] {
        let node = Node::start(ONE);
        let mut other = node.client();
        other.ask(&put("small", "x"));
        other.ask(&put("large", &"x".repeat(100_000)));
        for n in 0..5 {
            other.ask(&put(&n.to_string(), &"x".repeat(100_000)));
        }
        if on_device {
            (0..3).for_each(|_| assert_eq!(other.ask(&put("f", &"y".repeat(100_000))).code, 0));
            while other.figure("write_cache_bytes") > 128 << 10 {}
            other.ask(&put("small", "x"));
        }
        // Some wait for one before them about the same record, some do not; others are there at once.
        let mixed: Vec<u8> = (0..30)
            .flat_map(|n| [get(&(n % 7).to_string()), get("small"), get("large")].concat())
            .collect();
        let texts_behind = |first: &str| {
            let text = format!("{first}{}", "long\n".repeat(300));
            let header = FrameHeader { kind: FrameType::Info, body_bytes: text.len() };
            [&header.to_bytes()[..], text.as_bytes()].concat().repeat(3)
        };
        let (texts, changing) = (texts_behind(""), texts_behind("set-config\n"));
        let all = [(60, get("large").repeat(30)), (60, mixed), (12, texts), (20, changing)];
        for (clients, requests) in all {
            let most = held_for_clients_that_do_not_read(&node, clients, &requests);
            assert!(most > 8 << 20, "{most}: the pool was to run full");
            assert!(most < 18 << 20, "{most} bytes of replies held");
        }
    }
}

#[test]
fn requests_that_never_end_take_turns_and_others_are_served() {
    let node = Node::start(ONE);
    let mut other = node.client();
    other.ask(&put("small", "x"));
    let large = put("large", &"x".repeat(1_000_000));
    let begun = &large[..500_000];
    let mut clients: Vec<_> = (0..60).map(|_| node.client()).collect();
    for client in &mut clients {
        client.stream.set_nonblocking(true).unwrap();
        let _ = client.stream.write(begun);
    }
    let mut most = 0;
    loop {
        assert_eq!(other.ask(&get("small")).code, 0);
        most = other.statistic("client_request_bytes").max(most);
        let opened = other.statistic("client_connections_opened");
        if opened > clients.len() && other.statistic("client_connections") < opened {
            break;
        }
    }
    assert!((16 << 20..40 << 20).contains(&most), "{most} bytes of requests held");
    // A large request of somebody who sends all of it gets its turn.
    assert_eq!(other.ask(&put("large", &"x".repeat(100_000))).code, 0);
}

#[test]
fn a_connection_that_only_announces_a_large_request_takes_no_memory() {
    let node = Node::start(ONE);
    let mut other = node.client();
    let mut clients: Vec<_> = (0..60).map(|_| node.client()).collect();
    for client in &mut clients {
        client.send(&[2, 3, 0, 0, 0, 0x1f, 0, 0, b'x']);
    }
    while other.statistic("client_connections") < 61 {}
    // All have been read from once another request has been served since.
    assert_eq!(other.ask(&put("small", "x")).code, 0);
    assert_eq!(other.statistic("client_request_bytes"), 0);
}

#[test]
fn a_stop_delivers_every_reply_although_requests_are_left_unread() {
    let mut node = Node::start(ONE);
    let mut clients: Vec<_> = (0..4).map(|_| node.client()).collect();
    let puts: Vec<u8> = (0..20_000).flat_map(|n| put(&format!("k{n}"), "x")).collect();
    let senders: Vec<_> = clients
        .iter()
        .map(|client| {
            let (mut writer, puts) = (client.stream.try_clone().unwrap(), puts.clone());
            // Goes on until the node has ended.
            std::thread::spawn(move || while writer.write_all(&puts).is_ok() {})
        })
        .collect();
    clients.iter_mut().for_each(|client| assert_eq!(client.got().code, 0));
    node.stop();
    let mut replies = clients.len();
    for client in &mut clients {
        while let Some((_, body)) = client.frame() {
            replies += usize::from(body[5] == 0);
        }
    }
    let taken = node.submitted[0].0.lock().unwrap().len();
    assert_eq!(replies, taken, "each request that was carried out is answered");
    drop(clients);
    senders.into_iter().for_each(|sender| sender.join().unwrap());
}

#[test]
fn info_commands_without_end_close_the_connection() {
    let node = Node::start(ONE);
    let mut client = node.client();
    let text = "namespace/test\n".repeat(8000);
    let header = FrameHeader { kind: FrameType::Info, body_bytes: text.len() };
    client.send(&[&header.to_bytes(), text.as_bytes()].concat());
    assert!(client.is_closed());
    let answers = node.client().info(&"namespace/test\n".repeat(100));
    assert_eq!(answers.len(), 100);
}

#[test]
fn many_info_commands_of_one_frame_let_others_go_on_meanwhile() {
    let node = Node::start(ONE);
    let many = "namespace/test\n".repeat(1000);
    let answers = node.client().info(&format!("count-turns\n{many}turns\n"));
    assert_eq!(answers[0].1, "ok");
    let turns: u32 = answers[1001].1.parse().unwrap();
    assert!(turns > 1, "{turns}");
}

#[test]
fn the_name_of_a_set_cannot_forge_lines_and_a_set_too_many_is_refused() {
    let node = Node::start(ONE);
    let mut client = node.client();
    let in_set = |set, name| Address { set, ..key(name) };
    let write = [(OpCode::WRITE, "v", "x")];
    let forged = "x;ns=test:set=y";
    assert_eq!(client.ask(&frame(in_set(forged, "k").put(), &write)).code, 0);
    let line = client.info("sets/test\n").remove(0).1;
    assert_eq!(line.matches(';').count(), 1, "{line}");
    assert!(line.starts_with("ns=test:set=x%3Bns=test%3Aset=y:objects=1:"), "{line}");
    assert_eq!(client.info("sets/test/x%3Bns=test%3Aset=y\n")[0].1, line);

    let names: Vec<String> = (1..4095).map(|n| format!("s{n}")).collect();
    let puts = names.iter().flat_map(|set| frame(in_set(set, set).put(), &write));
    client.send(&puts.collect::<Vec<u8>>());
    names.iter().for_each(|_| assert_eq!(client.got().code, 0));
    let one_more = frame(in_set("one more", "k2").put(), &write);
    assert_eq!(client.ask(&one_more).code, ResultCode::PARAMETER.0, "all have records");
    assert_eq!(client.figure("fail_too_many_sets"), 1);
}
