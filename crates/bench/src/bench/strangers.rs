//! `longship bench strangers`: what can clients that mean no good make a node do to the others?
//!
//! One node of one shard, and a bystander that reads a small record every millisecond, on a
//! connection of its own. Beside it, one after the other:
//!
//! - `whispers`: connections that send 9 bytes each, the header of a large request and one byte;
//! - `mutes`: connections that ask for 100 KB thirty times and read nothing;
//! - `repeats`: one request that reads a bin of 900 KB two thousand times;
//! - `lookups`: one request that looks for 32,768 bins in a record of 32,767;
//! - `resets`: 2,000 connections a second that end with a reset. The bystander connects anew each
//!   time.
//!
//! For each, several times in turns: memory, as the most that was resident while it lasted over what
//! was before; and how long the bystander waited, the worst and the 99th of a hundred. `alone` is the
//! bystander's wait without anybody else: what this machine can do at all. `worst_served` is the
//! worst wait less the time in which the shard or the bystander was ready to run and had no CPU:
//! where that is short and the wait is long, others on this machine were the cause, not the node.
//! Goals: below 64 MB, below 20 ms; connect and answer below 5 ms.

use std::error::Error;
use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::FileExt as _;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use std::{fs, io};

use hdrhistogram::Histogram;
use longship::model::Digest;
use longship::wire::frame::FRAME_HEADER_BYTES;
use longship::wire::ops::{self, OpCode};
use longship::wire::request::Address;
use longship::wire::{FrameHeader, FrameType, ParticleType, ResultCode};
use socket2::SockRef;

use super::Failure;
use super::answer::{Answer, Unit, Wanted};
use super::nodes::{DESTINATION, Destination, HOST, NAMESPACE, SET, Setting};
use super::runs::Runs;
use super::scene::Scene;
use crate::stage::Stage;
use crate::{cores, report};

/// Between two requests of the bystander.
const PACE: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_secs(30);
const WHISPERS: u64 = 500;
const MUTES: u64 = 400;
const READS_OF_A_MUTE: usize = 30;
const REPEATS: u64 = 2000;
const LOOKUPS: u64 = 32_768;
const RESETS_PER_S: u64 = 2000;
/// Resets that wait for the next tick of a hundredth of a second.
const TICKS_PER_S: u64 = 100;

/// Measures what strangers can do to a node and to a bystander.
#[derive(clap::Args)]
pub(crate) struct StrangersArgs {
    /// How many of them, and how much they ask for, in percent of the goal's.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=150))]
    percent: u64,
    /// Seconds that each of them lasts at least.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=99))]
    runs: u64,
    /// Print the result as one line of JSON.
    #[arg(long)]
    json: bool,
}

/// What one kind of stranger did.
#[derive(Default)]
struct Harm {
    megabytes: Runs,
    worst_us: Runs,
    worst_served_us: Runs,
    p99_us: Runs,
}

/// How long the bystander waited each time, in us.
struct Waits {
    all: Histogram<u64>,
    /// Less what it and the shard waited for a CPU.
    served: Histogram<u64>,
}

/// Runs the command.
pub(super) fn command(args: &StrangersArgs) -> Result<ExitCode, Box<dyn Error>> {
    run(args).map_err(|error| error as Box<dyn Error>)
}

fn run(args: &StrangersArgs) -> Result<ExitCode, Failure> {
    let stage = Stage::open(std::env::current_exe()?, false)?;
    stage.guard()?;
    let scene = Scene::now();
    let setting = Setting { records: 1000, value_bytes: 100, cached: true };
    let node = Destination::start(&stage, &setting, (DESTINATION, None), scene.cpus[1])?;
    let scaled = |count: u64| (count * args.percent / 100).max(1);
    let place = Place { port: node.port, id: stage.id(DESTINATION)? };
    // Not on the shard's CPU, nor does anybody who is started from here.
    cores::settle_on(Some(scene.cpus[0]))?;
    place.fill(scaled(LOOKUPS) - 1)?;

    let lasting = Duration::from_secs(args.seconds);
    let kinds: [(&str, Kind); 6] = [
        ("alone", Kind::Nobody),
        ("whispers", Kind::Crowd(scaled(WHISPERS), whisper())),
        ("mutes", Kind::Crowd(scaled(MUTES), get("large").repeat(READS_OF_A_MUTE))),
        ("repeats", Kind::Crowd(1, read_bins("wide", (0..scaled(REPEATS)).map(|_| 0)))),
        ("lookups", Kind::Crowd(1, read_bins("many", 0..scaled(LOOKUPS)))),
        ("resets", Kind::Resets(scaled(RESETS_PER_S))),
    ];
    let mut harms: Vec<Harm> = kinds.iter().map(|_| Harm::default()).collect();
    let bar = report::progress("suffering", args.runs * kinds.len() as u64);
    for _ in 0..args.runs {
        for ((_, kind), harm) in kinds.iter().zip(&mut harms) {
            place.suffer(kind, lasting, harm)?;
            bar.inc(1);
        }
    }
    node.end()?;
    bar.finish_and_clear();
    let mut answer = scene.answer("strangers").fact(
        "strangers",
        format!(
            "{} that whisper, {} that read nothing, {} reads of 900 KB, {} lookups, {} resets/s",
            scaled(WHISPERS),
            scaled(MUTES),
            scaled(REPEATS),
            scaled(LOOKUPS),
            scaled(RESETS_PER_S),
        ),
    );
    for ((name, kind), harm) in kinds.iter().zip(&harms) {
        answer = harm.tell(answer, name, kind);
    }
    answer.print(args.json);
    Ok(ExitCode::SUCCESS)
}

impl Harm {
    fn tell(&self, answer: Answer, name: &str, kind: &Kind) -> Answer {
        let (memory, worst, p99) = match kind {
            Kind::Nobody => (Wanted::Any, Wanted::Any, Wanted::Any),
            Kind::Crowd(..) => (Wanted::AtMost(64.0), Wanted::AtMost(20_000.0), Wanted::Any),
            Kind::Resets(_) => (Wanted::AtMost(64.0), Wanted::Any, Wanted::AtMost(5000.0)),
        };
        answer
            .target(format!("{name}_more_mb"), Unit::Count, &self.megabytes, memory)
            .target(format!("{name}_worst_us"), Unit::Micros, &self.worst_us, worst)
            .figure(format!("{name}_worst_served_us"), Unit::Micros, &self.worst_served_us)
            .target(format!("{name}_p99_us"), Unit::Micros, &self.p99_us, p99)
    }
}

enum Kind {
    Nobody,
    /// So many connections that send this, and read nothing.
    Crowd(u64, Vec<u8>),
    /// So many connections a second that are reset.
    Resets(u64),
}

/// The node.
struct Place {
    port: u16,
    id: u32,
}

impl Place {
    fn connect(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect((HOST, self.port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    /// Puts the records there that are asked for.
    fn fill(&self, bins: u64) -> Result<(), Failure> {
        let mut stream = self.connect()?;
        for (key, bytes) in [("small", 100), ("large", 100_000), ("wide", 900_000)] {
            put(&mut stream, key, 0..1, bytes)?;
        }
        put(&mut stream, "many", 0..bins, 1)
    }

    /// Lets strangers loose, and looks what becomes of the node and of the bystander.
    fn suffer(&self, kind: &Kind, lasting: Duration, harm: &mut Harm) -> Result<(), Failure> {
        let before = self.forget_peak()?;
        let over = AtomicBool::new(false);
        let waits = thread::scope(|scope| {
            let bystander = scope.spawn(|| self.stand_by(matches!(kind, Kind::Resets(_)), &over));
            let acted = self.act(kind, lasting);
            over.store(true, Ordering::Relaxed);
            let waits = bystander.join().map_err(|_| "the bystander panicked")?;
            acted?;
            waits
        })?;
        harm.megabytes.push(self.status("VmHWM:")?.saturating_sub(before) as f64 / 1024.0);
        harm.worst_us.push(waits.all.max() as f64);
        harm.worst_served_us.push(waits.served.max() as f64);
        harm.p99_us.push(waits.all.value_at_quantile(0.99) as f64);
        Ok(())
    }

    fn act(&self, kind: &Kind, lasting: Duration) -> Result<(), Failure> {
        let start = Instant::now();
        match kind {
            Kind::Nobody => thread::sleep(lasting),
            Kind::Crowd(count, request) => {
                let mut crowd = Vec::new();
                for _ in 0..*count {
                    let mut stream = self.connect()?;
                    stream.set_nonblocking(true)?;
                    // What does not fit is not sent: the node does not read any more.
                    match stream.write(request) {
                        Err(error) if error.kind() != ErrorKind::WouldBlock => {
                            return Err(error.into());
                        }
                        _ => crowd.push(stream),
                    }
                }
                thread::sleep(lasting.saturating_sub(start.elapsed()));
            }
            Kind::Resets(per_s) => {
                let mut tick = 0;
                while start.elapsed() < lasting {
                    for _ in 0..per_s.div_ceil(TICKS_PER_S) {
                        let stream = TcpStream::connect((HOST, self.port))?;
                        SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
                    }
                    tick += 1;
                    let due = start + Duration::from_millis(tick * 1000 / TICKS_PER_S);
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                }
            }
        }
        Ok(())
    }

    /// Reads a small record again and again. Gives how long that took each time.
    fn stand_by(&self, connects: bool, over: &AtomicBool) -> Result<Waits, Failure> {
        let mut waits = Waits { all: Histogram::new(3)?, served: Histogram::new(3)? };
        let idling =
            Idling { own: File::open("/proc/thread-self/schedstat")?, shard: self.shard()? };
        let request = get("small");
        let mut stream = self.connect()?;
        while !over.load(Ordering::Relaxed) {
            let idle_us = idling.so_far_us()?;
            let asked = Instant::now();
            if connects {
                stream = self.connect()?;
            }
            stream.write_all(&request)?;
            let code = reply(&mut stream)?;
            let waited_us = asked.elapsed().as_micros() as u64;
            waits.all.record(waited_us)?;
            waits.served.record(waited_us.saturating_sub(idling.so_far_us()? - idle_us))?;
            if code != ResultCode::OK {
                return Err(format!("the bystander was answered {code}").into());
            }
            thread::sleep(PACE);
        }
        Ok(waits)
    }

    /// What the system knows of how the shard's thread gets a CPU.
    fn shard(&self) -> Result<File, Failure> {
        for thread in fs::read_dir(format!("/proc/{}/task", self.id))? {
            let folder = thread?.path();
            if fs::read_to_string(folder.join("comm"))?.trim_end() == "shard-0" {
                return Ok(File::open(folder.join("schedstat"))?);
            }
        }
        Err("the node has no thread shard-0".into())
    }

    /// Resets the record of the most that was resident; gives what is, in KiB.
    fn forget_peak(&self) -> Result<u64, Failure> {
        fs::write(format!("/proc/{}/clear_refs", self.id), "5")?;
        self.status("VmRSS:")
    }

    fn status(&self, name: &str) -> Result<u64, Failure> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.id))?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }
}

/// How long the bystander and the shard were ready to run and had no CPU.
struct Idling {
    own: File,
    shard: File,
}

impl Idling {
    fn so_far_us(&self) -> Result<u64, Failure> {
        let mut sum_ns = 0;
        for file in [&self.own, &self.shard] {
            let mut text = [0; 64];
            let filled = file.read_at(&mut text, 0)?;
            let text = str::from_utf8(&text[..filled])?;
            sum_ns += text.split(' ').nth(1).unwrap_or_default().parse::<u64>()?;
        }
        Ok(sum_ns / 1000)
    }
}

fn address(key: &str) -> Address<'_> {
    Address { namespace: NAMESPACE, set: SET, digest: Digest::of_string(SET, key) }
}

fn get(key: &str) -> Vec<u8> {
    let mut frame = Vec::new();
    address(key).get().push(0, &[], &mut frame);
    frame
}

/// The header of a request of a megabyte, and its first byte.
fn whisper() -> Vec<u8> {
    let header = FrameHeader { kind: FrameType::Message, body_bytes: 1_000_000 };
    [&header.to_bytes()[..], b"x"].concat()
}

fn bin(number: u64) -> String {
    format!("{number:x}")
}

/// Reads bins of a record in one request.
fn read_bins(key: &str, bins: impl Iterator<Item = u64>) -> Vec<u8> {
    let (mut list, mut count) = (Vec::new(), 0);
    for number in bins {
        ops::push(&mut list, OpCode::READ, ParticleType::NULL, bin(number).as_bytes(), &[]);
        count += 1;
    }
    let mut frame = Vec::new();
    address(key).select().push(count, &list, &mut frame);
    frame
}

fn put(
    stream: &mut TcpStream,
    key: &str,
    bins: std::ops::Range<u64>,
    bytes: usize,
) -> Result<(), Failure> {
    let value = vec![b'x'; bytes];
    let (mut list, mut count) = (Vec::new(), 0);
    for number in bins {
        ops::push(&mut list, OpCode::WRITE, ParticleType::BLOB, bin(number).as_bytes(), &value);
        count += 1;
    }
    let mut frame = Vec::new();
    address(key).put().push(count, &list, &mut frame);
    stream.write_all(&frame)?;
    match reply(stream)? {
        ResultCode::OK => Ok(()),
        code => Err(format!("the node answers {code} to a record of {count} bins").into()),
    }
}

/// Reads one reply; gives its result.
fn reply(stream: &mut TcpStream) -> Result<ResultCode, Failure> {
    let mut header = [0; FRAME_HEADER_BYTES];
    stream.read_exact(&mut header)?;
    let header = FrameHeader::parse(&header)?;
    let mut body = vec![0; header.body_bytes];
    stream.read_exact(&mut body)?;
    body.get(5).map(|code| ResultCode(*code)).ok_or_else(|| "a reply without a result".into())
}
