//! How many records per second does one shipping connection carry?
//!
//! A shard pinned to core 0 sends 150-byte frames in 64 KiB batches through `dest::Cluster`; a plain
//! thread pinned to core 1 counts them and acknowledges each with a 30-byte reply. Frames are not
//! encoded anew, so the figure is what routing, sending, receiving, parsing and matching cost: a
//! ceiling for shipping. Baseline, in the same run: the same bytes from a plain thread that writes
//! and another that reads, both blocking, on that core. Sketch: per batch of 436 frames one send of
//! 64 KiB (8 us) and a quarter of a receive, per reply 3 ns to parse and match: 10 us, 40 M
//! records/s. Blocking threads pay for switching between each other on top, so expect to beat them.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a bench reports and may fail")]

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::thread;
use std::time::Instant;

use longship::dest::{
    Cluster, Outgoing, Patience, Resolver, Resolving, Route, Setup, ShipperIdentity, Source,
    SourceId, TendSpec, Window,
};
use longship::model::{Generation, NamespaceId, PartitionId, SrcId, VoidTime};
use longship::wire::hello::Key;
use longship::wire::info::{InfoFrame, UNRECOGNIZED, lines};
use longship::wire::replicas::{self, NamespaceReplicas};
use longship::wire::{FrameHeader, FrameType, ResultCode, reply};
use longship_rt::event::Event;
use longship_rt::shard::{ShardSpec, spawn_shard};

const FRAME_BYTES: usize = 150;
const BATCH_FRAMES: usize = (64 << 10) / FRAME_BYTES;
const BATCH_BYTES: usize = BATCH_FRAMES * FRAME_BYTES;
const NAMESPACE: &str = "test";

fn main() {
    let has = |wanted: &str| std::env::args().any(|arg| arg == wanted);
    if has("--list") {
        // Asked by test runners, which run the small size as a test.
        if !has("--ignored") {
            println!("small: test");
        }
        return;
    }
    let (batches, rounds) = if has("--bench") { (40_000, 5) } else { (50, 1) };
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    println!("cores {cores:?}; {} records of {FRAME_BYTES} bytes a round", batches * BATCH_FRAMES);
    for round in 0..rounds {
        let bare = measure(batches, bare_sender);
        let (cluster, note) = measure_cluster(batches);
        println!(
            "round {round}: cluster {:.2} M records/s, bare sockets {:.2} M, ratio {:.2}; {note}",
            cluster / 1e6,
            bare / 1e6,
            cluster / bare,
        );
    }
}

fn pin(index: usize) {
    if let Some(core) = core_affinity::get_core_ids().and_then(|ids| ids.get(index).copied()) {
        core_affinity::set_for_current(core);
    }
}

/// Records per second from `sender` to a peer on the other core.
fn measure(batches: usize, sender: fn(SocketAddr, usize)) -> f64 {
    let address = start_peer();
    thread::spawn(move || {
        pin(0);
        let begin = Instant::now();
        sender(address, batches);
        (batches * BATCH_FRAMES) as f64 / begin.elapsed().as_secs_f64()
    })
    .join()
    .unwrap()
}

/// One thread sends, one reads the replies, both on core 0.
fn bare_sender(address: SocketAddr, batches: usize) {
    let mut socket = TcpStream::connect(address).unwrap();
    let mut reader = socket.try_clone().unwrap();
    let receiver = thread::spawn(move || {
        pin(0);
        let mut left = batches * BATCH_FRAMES * reply::REPLY_BYTES;
        let mut buffer = vec![0; 64 << 10];
        while left > 0 {
            left -= reader.read(&mut buffer).unwrap();
        }
    });
    let batch = batch();
    (0..batches).for_each(|_| socket.write_all(&batch).unwrap());
    receiver.join().unwrap();
}

struct NoNames;

impl Resolver for NoNames {
    fn resolve(&self, _host: &str, _port: u16) -> Resolving {
        Box::pin(async { Err(io::ErrorKind::NotFound.into()) })
    }
}

fn measure_cluster(batches: usize) -> (f64, String) {
    let address = start_peer();
    let core = core_affinity::get_core_ids().map(|ids| ids[0].id);
    let spec = ShardSpec { index: 0, core, name: "shard-0".into() };
    spawn_shard(spec, move || ship(address, batches)).unwrap().join()
}

async fn ship(address: SocketAddr, batches: usize) -> (f64, String) {
    let wake = Event::new();
    let namespace = NamespaceId(0);
    let cluster = Cluster::start(Setup {
        spec: TendSpec {
            seeds: vec![(address.ip().to_string(), address.port())],
            alternate_addresses: false,
            namespaces: vec![(namespace, NAMESPACE.into())],
        },
        identity: ShipperIdentity {
            source: Source::new(
                SourceId { key: Key::from_seed([1; 32]).unwrap(), process: 1, node: 1 },
                0,
            ),
            src_id: SrcId(1),
            dc: "D".into(),
        },
        window: Window::default(),
        patience: Patience::default(),
        resolver: Rc::new(NoNames),
        wake: wake.clone(),
    });
    let (mut replies, mut notices) = (Vec::new(), Vec::new());
    while cluster.nodes() == 0 {
        wake.wait().await;
    }
    let tags: Vec<u32> = (0..BATCH_FRAMES as u32).collect();
    let (mut sent, mut answered, mut wakes) = (0, 0, 0);
    let (begin, begin_cpu_ns) = (Instant::now(), cpu_ns());
    while answered < batches * BATCH_FRAMES {
        while sent < batches
            && let Route::Open(node) = cluster.route(namespace, PartitionId::new(0))
        {
            let buffer = cluster.take_spare().unwrap_or_else(batch);
            let outgoing = Outgoing { buffer, bytes: BATCH_BYTES };
            cluster.send(node, outgoing, &tags).unwrap();
            sent += 1;
        }
        wake.wait().await;
        wakes += 1;
        cluster.drain(&mut replies, &mut notices);
        answered += replies.len();
        assert!(replies.drain(..).all(|reply| reply.code == ResultCode::OK));
    }
    let seconds = begin.elapsed().as_secs_f64();
    let traffic = cluster.traffic();
    let round_trip_us = traffic.round_trips.total_us / traffic.round_trips.count.max(1);
    let record_ns = (cpu_ns() - begin_cpu_ns) as f64 / (batches * BATCH_FRAMES) as f64;
    let receives = traffic.receives;
    let note = format!(
        "{record_ns:.1} ns of cpu per record, {receives} receives, {wakes} wakes, mean round trip \
         {round_trip_us} us"
    );
    ((batches * BATCH_FRAMES) as f64 / seconds, note)
}

/// Time this thread has been on a cpu, by the scheduler's books.
fn cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(0)
}

fn batch() -> Vec<u8> {
    let header = FrameHeader { kind: FrameType::Message, body_bytes: FRAME_BYTES - 8 };
    let mut frame = header.to_bytes().to_vec();
    frame.resize(FRAME_BYTES, 0);
    frame.repeat(BATCH_FRAMES)
}

/// Answers info commands, and acknowledges everything else by counting bytes. Connections that
/// begin with an info frame get a thread each.
fn start_peer() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            thread::spawn(move || {
                pin(1);
                let _ = serve(socket);
            });
        }
    });
    address
}

fn serve(mut socket: TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let ok = reply::bare(ResultCode::OK, Generation(1), VoidTime::NEVER);
    let replies = ok.repeat(4 * BATCH_FRAMES);
    let mut buffer = vec![0; 4 * BATCH_BYTES];
    let mut filled = 0;
    loop {
        match socket.read(&mut buffer[filled..])? {
            0 => return Ok(()),
            n => filled += n,
        }
        if buffer[1] == FrameType::Info as u8 {
            // Questions are asked one at a time.
            let mut out = Vec::new();
            answer_info(&buffer[8..filled], &mut out);
            socket.write_all(&out)?;
            filled = 0;
            continue;
        }
        let frames = filled / FRAME_BYTES;
        socket.write_all(&replies[..frames * reply::REPLY_BYTES])?;
        buffer.copy_within(frames * FRAME_BYTES..filled, 0);
        filled -= frames * FRAME_BYTES;
    }
}

fn answer_info(body: &[u8], out: &mut Vec<u8>) {
    let namespace = NAMESPACE.to_owned();
    let columns = vec![PartitionId::all().collect()];
    let all = replicas::format(&[NamespaceReplicas { namespace, regime: 0, columns }]);
    let mut frame = InfoFrame::begin(out);
    for line in lines(body) {
        let value = match line {
            b"node" => "A1",
            b"build" => "6.4.0.1",
            b"features" => "replicas",
            b"partition-generation" | b"peers-generation" => "1",
            b"peers-clear-std" => "1,3000,[]",
            b"replicas" => &all,
            _ => UNRECOGNIZED,
        };
        frame.answer(line, value);
    }
}
