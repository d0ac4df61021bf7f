//! Those who read: a shard's disk ring, fio, and glommio's own files. Each keeps a number of 4 KiB
//! random direct reads in flight, on one core, for some time, and ends with a read that comes back:
//! however little of the core it gets, a run has a rate.

use std::cell::Cell;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::rc::Rc;
use std::time::{Duration, Instant};

use longship_rt::arena::{Arena, Buffer};
use longship_rt::clock::Clock;
use longship_rt::disk_ring::{Completions, DiskRing, file};
use longship_rt::event::Event;
use longship_rt::shard::{Queue, ShardSpec, spawn, spawn_shard};

use super::Failure;

const READ_BYTES: usize = 4096;
const RING_DEPTH: u32 = 256;

/// What is read, where, for how long.
#[derive(Clone, Copy)]
pub(super) struct Reading<'a> {
    pub(super) file: &'a Path,
    pub(super) file_bytes: u64,
    pub(super) time: Duration,
    /// The CPU the reader is bound to.
    pub(super) cpu: usize,
}

/// One run of one reader.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub(super) reads_per_s: f64,
    pub(super) cpu_us_per_read: f64,
}

impl Run {
    fn new(reads: u64, time: Duration, cpu: Duration) -> Self {
        Self {
            reads_per_s: reads as f64 / time.as_secs_f64(),
            cpu_us_per_read: cpu.as_secs_f64() * 1e6 / reads as f64,
        }
    }
}

/// Fills a new file with bytes no device can guess; each page begins with its own number's.
pub(super) fn prepare(path: &Path, bytes: u64) -> Result<(), Failure> {
    const PIECE: usize = 1 << 20;
    let mut file = file::open_direct(path, true)?;
    file::allocate(&file, bytes)?;
    let mut buffer = Arena::new(PIECE, None)?.take(PIECE).ok_or("the arena is too small")?;
    let mut random = Random(9);
    let mut page = 0;
    for _ in 0..bytes.div_ceil(PIECE as u64) {
        for word in buffer.chunks_exact_mut(8) {
            word.copy_from_slice(&random.next().to_le_bytes());
        }
        for bytes in buffer.chunks_exact_mut(READ_BYTES) {
            bytes[..8].copy_from_slice(&first_word(page));
            page += 1;
        }
        file.write_all(&buffer)?;
    }
    Ok(file.sync_all()?)
}

fn first_word(page: u64) -> [u8; 8] {
    Random(page).next().to_le_bytes()
}

/// Ends the process when a read gave another page's bytes.
fn check(page: u64, bytes: &[u8]) {
    assert_eq!(bytes[..8], first_word(page), "page {page}");
}

impl Reading<'_> {
    fn pages(&self) -> u64 {
        self.file_bytes / READ_BYTES as u64
    }

    /// A shard's disk ring.
    pub(super) fn longship(&self, depth: u32) -> Result<Run, Failure> {
        let (path, pages, time) = (self.file.to_owned(), self.pages(), self.time);
        let spec = ShardSpec { index: 0, core: Some(self.cpu), name: "shard-0".into() };
        spawn_shard(spec, move || async move {
            let reader = Reader::start(&path, pages, depth)?;
            let (cpu, begin) = (thread_cpu()?, Instant::now());
            Event::new().wait_until(Clock::real().now() + time.as_micros() as u64).await;
            let reads = reader.stop().await;
            Ok(Run::new(reads, begin.elapsed(), thread_cpu()? - cpu))
        })?
        .join()
    }

    /// fio, with io_uring, registered files and buffers. `None` when it is not installed.
    pub(super) fn fio(&self, depth: u32) -> Result<Option<Run>, Failure> {
        let output = Command::new("fio")
            .args(["--name=read", "--rw=randread", "--bs=4k", "--direct=1", "--ioengine=io_uring"])
            .args(["--registerfiles=1", "--fixedbufs=1", "--norandommap", "--invalidate=0"])
            .args(["--time_based", "--thread", "--output-format=json"])
            .arg(format!("--filename={}", self.file.display()))
            .arg(format!("--size={}", self.file_bytes))
            .arg(format!("--runtime={}ms", self.time.as_millis()))
            .arg(format!("--iodepth={depth}"))
            .arg(format!("--cpus_allowed={}", self.cpu))
            .output();
        let output = match output {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            output => output?,
        };
        if !output.status.success() {
            return Err(format!("fio: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        let job = &report["jobs"][0];
        let number = |value: &serde_json::Value| value.as_f64().ok_or("fio's report has changed");
        let reads_per_s = number(&job["read"]["iops"])?;
        let cpu = (number(&job["usr_cpu"])? + number(&job["sys_cpu"])?) / 100.0;
        Ok(Some(Run { reads_per_s, cpu_us_per_read: cpu * 1e6 / reads_per_s }))
    }

    /// glommio's `DmaFile` on an executor as it comes. This is what we compare with, hence the one
    /// place outside `rt` that names glommio.
    pub(super) fn glommio(&self, depth: u32) -> Result<Run, Failure> {
        use glommio::io::DmaFile;
        use glommio::{LocalExecutorBuilder, Placement};

        let (path, pages, time) = (self.file.to_owned(), self.pages(), self.time);
        let builder = LocalExecutorBuilder::new(Placement::Fixed(self.cpu));
        let executor = builder.ring_depth(RING_DEPTH as usize).spawn(move || async move {
            let file = Rc::new(DmaFile::open(&path).await.map_err(|error| error.to_string())?);
            let (reads, stopping) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
            let one_at_a_time = |seed| {
                let (file, reads) = (Rc::clone(&file), Rc::clone(&reads));
                let stopping = Rc::clone(&stopping);
                glommio::spawn_local(async move {
                    let mut random = Random(seed);
                    loop {
                        let page = random.next() % pages;
                        let at = page * READ_BYTES as u64;
                        let bytes = file.read_at_aligned(at, READ_BYTES).await;
                        check(page, &bytes.expect("the file can be read"));
                        reads.set(reads.get() + 1);
                        if stopping.get() {
                            break;
                        }
                    }
                })
            };
            let tasks: Vec<_> = (0..u64::from(depth)).map(one_at_a_time).collect();
            let (cpu, begin) = (thread_cpu()?, Instant::now());
            glommio::timer::sleep(time).await;
            stopping.set(true);
            for task in tasks {
                task.await;
            }
            Ok(Run::new(reads.get(), begin.elapsed(), thread_cpu()? - cpu))
        });
        let ended = executor.map_err(|error| error.to_string())?.join();
        ended.map_err(|error| error.to_string())?
    }
}

/// A task on the current shard that keeps some reads in flight until it is stopped.
pub(super) struct Reader {
    ring: DiskRing,
    reads: Rc<Cell<u64>>,
    stopping: Rc<Cell<bool>>,
    ended: Event,
}

impl Reader {
    pub(super) fn start(path: &Path, pages: u64, depth: u32) -> Result<Self, Failure> {
        let arena = Arena::new(2 * RING_DEPTH as usize * READ_BYTES, None)?;
        let ring = DiskRing::new(RING_DEPTH, &arena)?;
        spawn(Queue::Disk, ring.clone().drive());
        let file = ring.add_file(file::open_direct(path, false)?)?;
        let (reads, stopping, ended) = (Rc::default(), Rc::default(), Event::new());
        let reader = Self { ring, reads, stopping, ended };
        let (ring, reads) = (reader.ring.clone(), Rc::clone(&reader.reads));
        let (stopping, ended) = (Rc::clone(&reader.stopping), reader.ended.clone());
        spawn(Queue::Work, async move {
            let sink = Completions::new();
            let mut random = Random(u64::from(depth));
            let mut begin = |buffer: Buffer| {
                let page = random.next() % pages;
                let read = ring.read(file, page * READ_BYTES as u64, buffer, READ_BYTES);
                ring.submit_tagged(read, page, &sink);
            };
            for _ in 0..depth {
                begin(arena.take(READ_BYTES).expect("the arena holds twice the ring's depth"));
            }
            let mut finished = Vec::new();
            let mut is_last = depth == 0;
            while !is_last {
                std::future::poll_fn(|cx| sink.poll_ready(cx)).await;
                sink.drain(&mut finished);
                reads.set(reads.get() + finished.len() as u64);
                is_last = stopping.get();
                for read in finished.drain(..) {
                    read.result.expect("the file can be read");
                    check(read.tag, &read.buffer);
                    if !is_last {
                        begin(read.buffer);
                    }
                }
            }
            ended.set();
        });
        Ok(reader)
    }

    /// Ends with the next reads that come back, and tells how many there were.
    pub(super) async fn stop(self) -> u64 {
        self.stopping.set(true);
        self.ended.wait().await;
        self.ring.stop();
        self.reads.get()
    }
}

/// SplitMix64: numbers from a seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// CPU time of the calling thread so far.
fn thread_cpu() -> Result<Duration, Failure> {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanos = stat.split_whitespace().next().ok_or("/proc/thread-self/schedstat is empty")?;
    Ok(Duration::from_nanos(nanos.parse()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reader_reads_what_was_prepared() {
        let binary = std::env::current_exe().unwrap();
        let folder = tempfile::tempdir_in(binary.parent().unwrap()).unwrap();
        let path = folder.path().join("data");
        prepare(&path, 4 << 20).unwrap();
        // No time at all, as on a machine that is busy elsewhere: what was begun is read all the same.
        let time = Duration::ZERO;
        let cpu = crate::cores::allowed()[0];
        let reading = Reading { file: &path, file_bytes: 4 << 20, time, cpu };
        for depth in [1, 32] {
            assert!(reading.longship(depth).unwrap().reads_per_s > 0.0);
            assert!(reading.glommio(depth).unwrap().reads_per_s > 0.0);
        }
        // fio takes no time to be no bound; how much it reads in one is not ours to say.
        reading.fio(8).unwrap();
    }

    #[test]
    fn cpu_time_grows_with_work() {
        let before = thread_cpu().unwrap();
        let mut random = Random(1);
        // The kernel brings it up to date with every tick.
        while thread_cpu().unwrap() == before {
            for _ in 0..10_000 {
                std::hint::black_box(random.next());
            }
        }
    }
}
