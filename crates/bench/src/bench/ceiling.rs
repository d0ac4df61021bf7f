//! How fast could it be? Two threads, each on a CPU of its own, and nothing but what any program has
//! to do that ships records by this protocol: frames written, sent over loopback with plain blocking
//! sockets, parsed, hashed and acknowledged. No index, no queue, no storage, no executor.
//!
//! A frame is the request a record with one bin ships as; the receiver reads its fields and
//! operations, takes the digest, sums up the bytes (CRC-32C) and answers with the reply a shipped
//! write gets; the sender reads every reply. Frames leave in batches of 64 KiB; the window is a few
//! batches.

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use longship::model::Digest;
use longship::wire::request::Address;
use longship::wire::{ParticleType, Reply, Request, ResultCode, bins, next_frame, reply};
use longship_rt::blocking::read_some;

use super::nodes::{NAMESPACE, SET};

use crate::content::finalize;
use crate::cores;

const BATCH_BYTES: usize = 64 << 10;
/// Batches that may be unacknowledged.
const WINDOW: u64 = 8;

/// Why there is no ceiling.
#[derive(Debug, thiserror::Error)]
pub(super) enum CeilingError {
    #[error("bare frames over loopback")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Core(#[from] cores::NotAllowed),
    #[error("bare frames over loopback: not what was sent")]
    Bytes,
}

/// How long so many frames with values of so many bytes take, from the first byte sent to the last
/// acknowledgement.
pub(super) fn run(
    records: u64,
    value_bytes: usize,
    cpus: [usize; 2],
) -> Result<Duration, CeilingError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            cores::settle_on(Some(cpus[1]))?;
            receive(listener.accept()?.0, records)
        });
        let sender = scope.spawn(|| {
            cores::settle_on(Some(cpus[0]))?;
            send(TcpStream::connect(address)?, records, value_bytes)
        });
        let taken = sender.join().unwrap_or(Err(CeilingError::Bytes))?;
        receiver.join().unwrap_or(Err(CeilingError::Bytes))?;
        Ok(taken)
    })
}

fn send(mut stream: TcpStream, records: u64, value_bytes: usize) -> Result<Duration, CeilingError> {
    stream.set_nodelay(true)?;
    let mut bin = Vec::new();
    bins::push(&mut bin, b"v", ParticleType::BLOB, &vec![7; value_bytes]);
    let frame = |record: u64, out: &mut Vec<u8>| {
        let mut digest = [0; 20];
        digest[..8].copy_from_slice(&finalize(record).to_le_bytes());
        let address = Address { namespace: NAMESPACE, set: SET, digest: Digest(digest) };
        address.shipped_write(true).push(1, &bin, out);
    };
    let mut batch = Vec::new();
    frame(0, &mut batch);
    let per_batch = (BATCH_BYTES / batch.len()).max(1) as u64;
    let (mut acknowledged, mut received) = (0, Received::new(BATCH_BYTES));
    let start = Instant::now();
    for sent in (0..records).step_by(per_batch as usize) {
        let end = records.min(sent + per_batch);
        batch.clear();
        (sent..end).for_each(|record| frame(record, &mut batch));
        stream.write_all(&batch)?;
        while end - acknowledged > WINDOW * per_batch {
            acknowledged += received.take(&mut stream, check_reply)?;
        }
    }
    while acknowledged < records {
        acknowledged += received.take(&mut stream, check_reply)?;
    }
    Ok(start.elapsed())
}

fn check_reply(body: &[u8]) -> Result<(), CeilingError> {
    match Reply::parse(body) {
        Some(reply) if reply.code() == ResultCode::OK => Ok(()),
        _ => Err(CeilingError::Bytes),
    }
}

/// Gives the sum of all hashes, so that none is left out.
fn receive(mut stream: TcpStream, records: u64) -> Result<u64, CeilingError> {
    stream.set_nodelay(true)?;
    let mut received = Received::new(4 * BATCH_BYTES);
    let (mut count, mut hashes, mut replies) = (0, 0, Vec::new());
    while count < records {
        count += received.take(&mut stream, |body| {
            let request = Request::parse(body).map_err(|_| CeilingError::Bytes)?;
            let digest = request.target().map_err(|_| CeilingError::Bytes)?;
            request.action().map_err(|_| CeilingError::Bytes)?;
            hashes += u64::from(crc32c::crc32c(body)) ^ digest.mixed();
            reply::push_code(&mut replies, ResultCode::OK);
            Ok(())
        })?;
        stream.write_all(&replies)?;
        replies.clear();
    }
    Ok(std::hint::black_box(hashes))
}

/// Bytes as they come, and the frames among them.
struct Received {
    bytes: Vec<u8>,
    filled: usize,
}

impl Received {
    fn new(room: usize) -> Self {
        Self { bytes: vec![0; room], filled: 0 }
    }

    fn fill(&mut self, stream: &mut TcpStream) -> Result<(), CeilingError> {
        if self.filled == self.bytes.len() {
            self.bytes.resize(2 * self.filled, 0);
        }
        match read_some(stream, &mut self.bytes[self.filled..])? {
            0 => Err(CeilingError::Bytes),
            count => {
                self.filled += count;
                Ok(())
            }
        }
    }

    /// Reads once, and takes every whole frame; gives their number.
    fn take(
        &mut self,
        stream: &mut TcpStream,
        mut each: impl FnMut(&[u8]) -> Result<(), CeilingError>,
    ) -> Result<u64, CeilingError> {
        self.fill(stream)?;
        let (mut at, mut count) = (0, 0);
        while let Ok(Some(frame)) = next_frame(&self.bytes[at..self.filled]) {
            each(frame.body)?;
            at += frame.bytes();
            count += 1;
        }
        self.bytes.copy_within(at..self.filled, 0);
        self.filled -= at;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_all_sizes_are_acknowledged() {
        let cpu = cores::allowed()[0];
        for (records, value_bytes) in [(1, 0), (5000, 100), (50, 100_000)] {
            let taken = run(records, value_bytes, [cpu, cpu]).unwrap();
            assert!(taken > Duration::ZERO);
        }
    }
}
