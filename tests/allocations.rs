//! Shipping allocates nothing per record: a source and a destination in this process, an allocator
//! that counts per thread, and after a warm-up so many allocations on the threads of each node for
//! so many records written, shipped, applied and acknowledged.
//!
//! glommio allocates a few times in every turn of its reactor and whenever a task begins to wait for
//! a socket, however many records a turn has handled. So a sample of the allocations is told apart
//! by their stacks: our own code's, which must be next to none; glommio's on behalf of a task, which
//! a spawn per record would show in; glommio's own.
//!
//! A test binary of its own, since the allocator is for the whole process.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop there and say so")]
#![expect(unsafe_code, reason = "a global allocator is unsafe to implement")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use longship_node::config::Config;
use longship_node::process::place::place;
use longship_node::process::start;
use longship_node::process::stop::{Stopper, stopper};

/// Written again and again, so that nothing grows with their number.
const KEYS: u32 = 20_000;
/// Shipped before counting begins: tables, caches and buffers have reached their size.
const WARM_UP: u32 = 10 * KEYS;
const MEASURED: u32 = 20 * KEYS;
/// Allocations by our own code per record, on all threads of a node: what is allocated per block of
/// the log, per connection looked after and per second.
const OURS_MAX: f64 = 0.01;
/// Allocations by glommio for a task per record.
const ASKED_MAX: f64 = 0.5;
/// One allocation of so many is looked at.
const SAMPLE: u64 = 64;
const PIPELINED: u32 = 1024;
const REPLY_BYTES: usize = 30;
const PATIENCE: Duration = Duration::from_secs(60);

/// Counts allocations of each thread, then asks the system's allocator.
struct Counting;

/// Threads that may ever have a counter; those beyond share the last.
const THREADS_MAX: usize = 256;
static COUNTS: [AtomicU64; THREADS_MAX] = [const { AtomicU64::new(0) }; THREADS_MAX];
static THREADS: AtomicUsize = AtomicUsize::new(0);

static SAMPLING: AtomicBool = AtomicBool::new(false);
/// Sampled allocations, each with the slot of its thread.
static SAMPLES: Mutex<Vec<(usize, Backtrace)>> = Mutex::new(Vec::new());

thread_local! {
    static SLOT: Cell<usize> = const { Cell::new(usize::MAX) };
    /// The stack is being looked at, which allocates too.
    static IS_SAMPLING: Cell<bool> = const { Cell::new(false) };
}

fn count() {
    // A thread that is ending counts no more.
    let _ = SLOT.try_with(|slot| {
        if IS_SAMPLING.get() {
            return;
        }
        if slot.get() == usize::MAX {
            slot.set(THREADS.fetch_add(1, Relaxed).min(THREADS_MAX - 1));
        }
        let count = COUNTS[slot.get()].fetch_add(1, Relaxed);
        if SAMPLING.load(Relaxed) && count.is_multiple_of(SAMPLE) {
            IS_SAMPLING.set(true);
            SAMPLES.lock().unwrap().push((slot.get(), Backtrace::force_capture()));
            IS_SAMPLING.set(false);
        }
    });
}

// SAFETY: every call goes to the system's allocator with what the caller vouches for. Counting
// allocates nothing: its slots are static and the thread's own has no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as the caller promises.
        unsafe { System.realloc(memory, layout, size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Who allocates, by what stands nearest to the allocation.
#[derive(Clone, Copy, Default, Debug)]
struct Shares {
    /// Our own code.
    ours: f64,
    /// glommio, for one of our tasks.
    asked: f64,
    /// glommio, between two tasks.
    reactor: f64,
}

impl Shares {
    /// Per record, of the sampled allocations of these threads.
    fn of(slots: &Range<usize>, samples: &[(usize, Backtrace)], records: u64) -> Self {
        let mut shares = Self::default();
        let share = SAMPLE as f64 / records as f64;
        // Files of the folder the test runs in are named from there, all others in full.
        let root = env!("CARGO_MANIFEST_DIR").trim_end_matches("crates/node");
        let folders = [format!("{root}src/"), format!("{root}crates/"), "./src/".into()];
        let names_us = |text: &str| folders.iter().any(|folder| text.contains(folder));
        assert!(
            samples.is_empty() || samples.iter().any(|(_, stack)| names_us(&stack.to_string())),
            "no stack names a file of ours: is this run from the package's folder?"
        );
        for (_, stack) in samples.iter().filter(|(slot, _)| slots.contains(slot)) {
            let stack = stack.to_string();
            let is_ours = |line: &&str| {
                let entry = line.contains("rt/src/shard.rs");
                names_us(line) && !entry
            };
            let ours = stack.lines().position(|line| is_ours(&line));
            let glommio = stack.lines().position(|line| line.contains("/glommio-"));
            match (ours, glommio) {
                (Some(ours), Some(glommio)) if glommio < ours => shares.asked += share,
                (None, Some(_)) => shares.reactor += share,
                _ => shares.ours += share,
            }
        }
        shares
    }
}

/// A node of one shard on threads of this process.
struct Node {
    port: u16,
    /// Whose counters are its threads'.
    slots: Range<usize>,
    stopper: Stopper,
    thread: JoinHandle<()>,
}

impl Node {
    fn start(folder: &Path, name: &str, cpu: usize, xdr: &str) -> Self {
        let work = folder.join(name);
        let (file, work_text) = (folder.join(format!("{name}.dat")), work.display());
        let text = format!(
            "service {{\n work-directory {work_text}\n shards 1\n cpu-set {cpu}\n}}\n\
             network {{ service {{\n address 127.0.0.1\n port 0\n}} }}\n\
             namespace test {{\n storage-engine device {{\n file {}\n filesize 512M\n\
             post-write-cache 64M\n}}\n}}\n\
             xdr {{\n{xdr}}}\n",
            file.display()
        );
        let config = Config::parse(&text, name).unwrap();
        let first = THREADS.load(Relaxed);
        let (stopper, orders) = stopper();
        let run = move || {
            let (_, plan) = place(&config).unwrap();
            start::run(config, &plan, orders, &mut |_| {}).unwrap();
        };
        let thread = thread::spawn(run);
        let ports = work.join("ports");
        let port = wait_for("a node to serve", || {
            assert!(!thread.is_finished(), "the node ended at its start");
            std::fs::read_to_string(&ports).ok()?.trim().parse().ok()
        });
        Self { port, slots: first..THREADS.load(Relaxed), stopper, thread }
    }

    fn allocations(&self) -> u64 {
        COUNTS[self.slots.clone()].iter().map(|count| count.load(Relaxed)).sum()
    }

    fn stop(self) {
        assert!(self.stopper.stop());
        wait_for("a node to end", || self.thread.is_finished().then_some(()));
        self.thread.join().unwrap();
    }
}

fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begin.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// A connection to the source.
struct Client(TcpStream);

impl Client {
    /// One that says so when an answer does not come.
    fn to(source: &Node) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", source.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self(stream)
    }

    /// Overwrites `count` records, from the first key on.
    fn write(&mut self, count: u32) {
        let mut frames = Vec::new();
        let mut replies = [0; PIPELINED as usize * REPLY_BYTES];
        let mut written = 0;
        while written < count {
            let some = PIPELINED.min(count - written);
            frames.clear();
            (written..written + some).for_each(|n| put(&mut frames, n % KEYS));
            self.0.write_all(&frames).unwrap();
            let replies = &mut replies[..some as usize * REPLY_BYTES];
            self.0.read_exact(replies).unwrap();
            for reply in replies.chunks(REPLY_BYTES) {
                assert_eq!(reply[13], 0, "every write is taken");
            }
            written += some;
        }
    }

    /// Statistics of the DC.
    fn stats<const N: usize>(&mut self, names: [&str; N]) -> [u64; N] {
        let command = b"get-stats:context=xdr;dc=west\n";
        let mut frame = (0x0201_u64 << 48 | command.len() as u64).to_be_bytes().to_vec();
        frame.extend(command);
        self.0.write_all(&frame).unwrap();
        let mut header = [0; 8];
        self.0.read_exact(&mut header).unwrap();
        let mut body = vec![0; (u64::from_be_bytes(header) & 0xFFFF_FFFF_FFFF) as usize];
        self.0.read_exact(&mut body).unwrap();
        let text = String::from_utf8(body).unwrap();
        let pairs = || text.split(['\t', ';']).filter_map(|pair| pair.split_once('='));
        names.map(|name| {
            let found = pairs().find(|(key, _)| *key == name);
            found.and_then(|(_, value)| value.parse().ok()).unwrap_or_else(|| panic!("{text}"))
        })
    }

    /// Waits until nothing is left to ship and gives how many records have been.
    fn await_shipped(&mut self) -> u64 {
        let left = ["in_queue", "in_progress", "retrying", "recoveries_pending"];
        wait_for("everything to be shipped", || {
            (self.stats(left) == [0; 4]).then(|| self.stats(["success"])[0])
        })
    }
}

/// Appends a write of 100 bytes to record `n`.
fn put(out: &mut Vec<u8>, n: u32) {
    let start = out.len();
    out.extend([0; 8]);
    out.extend([22, 0, 1, 0x10, 0, 0]); // create or replace
    out.extend([0; 12]); // generation, ttl, timeout
    out.extend([0, 2, 0, 1]); // two fields, one operation
    out.extend([0, 0, 0, 5, 0]);
    out.extend(b"test");
    out.extend([0, 0, 0, 21, 4]);
    let mut digest = [0; 20];
    digest[..4].copy_from_slice(&n.to_le_bytes());
    digest[8..12].copy_from_slice(&n.wrapping_mul(0x9E37_79B9).to_le_bytes());
    out.extend(digest);
    out.extend([0, 0, 0, 4 + 1 + 100, 2, 4, 0, 1, b'b']);
    out.extend([7; 100]);
    let header = 0x0203_u64 << 48 | (out.len() - start - 8) as u64;
    out[start..start + 8].copy_from_slice(&header.to_be_bytes());
}

#[test]
fn nothing_is_allocated_per_shipped_record() {
    let folder = tempfile::tempdir().unwrap();
    let cpus = [0, usize::from(thread::available_parallelism().unwrap().get() > 1)];
    let destination = Node::start(folder.path(), "destination", cpus[1], "");
    let xdr = format!(
        "dc west {{\n node-address-port 127.0.0.1 {}\n namespace test {{\n hot-key-ms 0\n\
         max-throughput 100000000\n transaction-queue-limit 1048576\n}}\n}}\n",
        destination.port
    );
    let source = Node::start(folder.path(), "source", cpus[0], &xdr);
    let mut client = Client::to(&source);
    client.write(WARM_UP);
    let warm = client.await_shipped();

    let before = [source.allocations(), destination.allocations()];
    let begin = Instant::now();
    SAMPLING.store(true, Relaxed);
    client.write(MEASURED);
    let shipped = client.await_shipped() - warm;
    SAMPLING.store(false, Relaxed);
    let took = begin.elapsed();
    let counts = [source.allocations() - before[0], destination.allocations() - before[1]];
    let samples = std::mem::take(&mut *SAMPLES.lock().unwrap());
    eprintln!("{MEASURED} records written, {shipped} shipped, {took:.2?}; per record shipped:");
    let slots = [&source.slots, &destination.slots];
    let shares = slots.map(|slots| Shares::of(slots, &samples, shipped));
    for (name, (shares, count)) in
        ["source", "destination"].into_iter().zip(shares.iter().zip(counts))
    {
        eprintln!(
            "{name:12} {:.4} allocations, of these ours {:.4} (at most {OURS_MAX}), glommio's for a \
             task {:.4}, its own {:.4}",
            count as f64 / shipped as f64,
            shares.ours,
            shares.asked,
            shares.reactor,
        );
    }
    source.stop();
    destination.stop();
    // What merges into a change that waits is not shipped; most must be.
    assert!(shipped > u64::from(MEASURED) / 2, "{shipped}");
    for shares in shares {
        assert!(shares.ours < OURS_MAX && shares.asked < ASKED_MAX, "{shares:?}");
    }
}
