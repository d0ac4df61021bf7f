//! Writes a fresh file once, with zeros, ahead of the log's head, so that the head neither extends
//! the file nor converts unwritten extents: on ext4 each such write costs a kernel worker.
//!
//! Runs on a thread outside the shards, at half the pace the device would take, and stays a bounded
//! distance ahead. A head that catches up does not wait: it writes where no zeros are yet, only
//! slower. The two agree on each block through [`Claims`].

use std::collections::VecDeque;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use super::block::WRITE_ALIGN;
use super::flush;
use super::index::BlockId;
use super::volume::{Claims, Device, Volume};
use longship_rt::arena::{Arena, Buffer};

/// How far ahead of the head, all stripes together.
const AHEAD_BYTES: usize = 256 << 20;
/// Pause when far enough ahead, or before the shards have said what is fresh.
const PAUSE: Duration = Duration::from_millis(50);
/// Blocks between two syncs.
const SYNC_BLOCKS: usize = 32;
/// How long whoever ends the threads waits for the write each is in.
const END_PATIENCE: Duration = Duration::from_secs(1);

/// A thread for each volume on files, until all of it was written, or it is told to stop. Dropping
/// this waits for the write each is in, but no longer than [`END_PATIENCE`].
#[derive(Debug)]
pub struct Zeroing {
    stop: Arc<AtomicBool>,
    /// Each thread holds the sender until it ends.
    ended: mpsc::Receiver<()>,
}

impl Zeroing {
    /// Starts the threads. They wait until the shards have read the log, and end when `stop` is
    /// set: a stop, which is to be over within `stop_time`, needs the device for what was
    /// acknowledged.
    pub fn start(volumes: &[Arc<Volume>], stop: Arc<AtomicBool>, stop_time: Duration) -> Self {
        let bytes_max = piece_bytes_max(stop_time);
        let (running, ended) = mpsc::channel();
        for volume in volumes.iter().filter(|volume| volume.on_files) {
            let (volume, stop) = (Arc::clone(volume), Arc::clone(&stop));
            let running = running.clone();
            let body = move || {
                if let Err(error) = run(&volume, bytes_max, &stop) {
                    let namespace = &volume.namespace;
                    tracing::warn!("namespace {namespace}: zeros ahead of the log: {error}");
                }
                drop(volume);
                drop(running);
            };
            if let Err(error) = thread::Builder::new().name("zero-ahead".into()).spawn(body) {
                tracing::warn!("no thread for zeros ahead of the log: {error}");
            }
        }
        Self { stop, ended }
    }
}

impl Drop for Zeroing {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.ended.recv_timeout(END_PATIENCE);
    }
}

/// Zeroes the never written blocks of a volume; returns when all are, or when `stop` is set. An
/// error ends it: the log goes on without zeros ahead.
fn run(volume: &Volume, bytes_max: usize, stop: &AtomicBool) -> io::Result<()> {
    let arena = Arena::new(volume.block_bytes as usize, None).map_err(io::Error::other)?;
    let zeros = arena.take(volume.block_bytes as usize).ok_or(io::ErrorKind::OutOfMemory)?;
    let mut ahead = Ahead {
        claims: &volume.claims,
        ready: VecDeque::new(),
        blocks_max: (AHEAD_BYTES / volume.block_bytes as usize).max(2),
    };
    while !volume.claims.is_fresh_known() && !stop.load(Ordering::Relaxed) {
        thread::sleep(PAUSE);
    }
    let longest = volume.devices.iter().map(|device| device.blocks).max().unwrap_or(0);
    for number in 1..longest {
        let mut first = 0;
        for device in &volume.devices {
            let id = BlockId(first + number);
            first += device.blocks;
            if number >= device.blocks {
                continue;
            }
            while ahead.is_far_enough() && !stop.load(Ordering::Relaxed) {
                thread::sleep(PAUSE);
            }
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            if volume.claims.begin_zeroing(id) {
                let written = zero(device, number, &zeros, bytes_max, stop);
                volume.claims.end_zeroing(id);
                ahead.ready.push_back(id);
                thread::sleep(written?);
            }
        }
    }
    Ok(())
}

/// Bytes written at a time: a write under way holds up the end of the process, beside those of the
/// log. Where a stop may take its time it is a whole block, since a device of files takes several small
/// writes far slower than a large one.
fn piece_bytes_max(stop_time: Duration) -> usize {
    let bytes = flush::writing_bytes_max(stop_time) as usize / 4;
    bytes - bytes % WRITE_ALIGN
}

/// Zeroes one block in pieces, unless `stop` is set meanwhile; gives the time it took.
fn zero(
    device: &Device,
    number: u32,
    zeros: &Buffer,
    bytes_max: usize,
    stop: &AtomicBool,
) -> io::Result<Duration> {
    let begin = Instant::now();
    let mut offset = u64::from(number) * zeros.len() as u64;
    for piece in zeros.chunks(bytes_max) {
        if stop.load(Ordering::Relaxed) {
            return Ok(Duration::ZERO);
        }
        device.file().write_all_at(piece, offset)?;
        offset += piece.len() as u64;
    }
    if (number as usize).is_multiple_of(SYNC_BLOCKS) {
        device.file().sync_data()?;
    }
    Ok(begin.elapsed())
}

/// The zeroed blocks the head has not taken yet.
struct Ahead<'a> {
    claims: &'a Claims,
    ready: VecDeque<BlockId>,
    blocks_max: usize,
}

impl Ahead<'_> {
    fn is_far_enough(&mut self) -> bool {
        if self.ready.len() >= self.blocks_max {
            let claims = self.claims;
            self.ready.retain(|id| claims.is_ready(*id));
        }
        self.ready.len() >= self.blocks_max
    }
}
