//! Round trips of a small frame between a shard and a plain thread, while the shard's disk is busy.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use longship_rt::blocking::read_some;
use longship_rt::net::Socket;
use longship_rt::shard::{ShardSpec, spawn_shard};

use super::Failure;
use super::readers::{Reader, Reading};

const FRAME_BYTES: usize = 100;

/// Round trips of one run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trips {
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
}

/// One frame at a time to and fro, with `depth` reads in flight on the shard meanwhile.
pub(super) fn run(reading: &Reading<'_>, depth: u32, peer_cpu: usize) -> Result<Trips, Failure> {
    let (addr, echo) = echo(peer_cpu)?;
    let (path, time) = (reading.file.to_owned(), reading.time);
    let pages = reading.file_bytes / 4096;
    let spec = ShardSpec { index: 0, core: Some(reading.cpu), name: "shard-0".into() };
    let trips = spawn_shard(spec, move || async move {
        let reader = Reader::start(&path, pages, depth)?;
        let mut socket = Socket::connect(addr, Duration::from_secs(5)).await?;
        let mut trips = Histogram::<u64>::new(3)?;
        let mut frame = [7; FRAME_BYTES];
        let begin = Instant::now();
        let mut sent = begin;
        while sent.duration_since(begin) < time {
            socket.write_all(&frame).await?;
            let mut got = 0;
            while got < FRAME_BYTES {
                match socket.read(&mut frame[got..]).await? {
                    0 => return Err("the echo ended".into()),
                    len => got += len,
                }
            }
            let now = Instant::now();
            trips.record(now.duration_since(sent).as_nanos() as u64)?;
            sent = now;
        }
        reader.stop().await;
        let us = |quantile| trips.value_at_quantile(quantile) as f64 / 1e3;
        Ok(Trips { p50_us: us(0.5), p99_us: us(0.99) })
    })?
    .join();
    echo.join().map_err(|_| "the echo panicked")??;
    trips
}

/// Gives back what it gets, on one connection.
fn echo(cpu: usize) -> std::io::Result<(SocketAddr, JoinHandle<std::io::Result<()>>)> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let addr = listener.local_addr()?;
    let thread = std::thread::spawn(move || {
        // Where it cannot be bound, it runs where the system likes.
        let _ = longship_rt::placement::pin_current_thread(cpu);
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let mut buffer = [0; FRAME_BYTES];
        loop {
            match read_some(&mut stream, &mut buffer)? {
                0 => return Ok(()),
                len => stream.write_all(&buffer[..len])?,
            }
        }
    });
    Ok((addr, thread))
}
