//! A link between two nodes, of a length and a width: bytes go on after a delay, and no faster than
//! a bandwidth allows. One line in each direction, shared by all connections. What is under way is
//! bounded: a far end that takes nothing soon stops the near one.

use std::io::{self, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use longship_rt::blocking::read_some;

/// Bytes taken at a time.
const PIECE_BYTES: usize = 16 << 10;
/// Bytes that wait at the far end when they cannot go on.
const BUFFER_BYTES: u64 = 256 << 10;
const FULL_PAUSE: Duration = Duration::from_micros(200);
/// Sending time that may be made up for after a pause: longer than the system oversleeps.
const BURST: Duration = Duration::from_millis(5);

/// A running relay; it ends with the process.
pub(super) struct Relay {
    delay_us: Arc<AtomicU64>,
}

/// One direction.
struct Line {
    bytes_per_s: u64,
    delay_us: Arc<AtomicU64>,
    /// When it has sent what it took.
    free: Mutex<Instant>,
}

impl Relay {
    /// Takes connections at one address and carries them on to another.
    pub(super) fn start(at: SocketAddr, to: SocketAddr, bytes_per_s: u64) -> io::Result<Self> {
        let listener = TcpListener::bind(at)?;
        let delay_us = Arc::new(AtomicU64::new(0));
        let line = || {
            let (delay_us, free) = (Arc::clone(&delay_us), Mutex::new(Instant::now()));
            Arc::new(Line { bytes_per_s, delay_us, free })
        };
        let lines = [line(), line()];
        thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                // Who cannot be connected to is as good as gone: the near side sees an end.
                let _ = connect(near, to, &lines);
            }
        });
        Ok(Self { delay_us })
    }

    /// Sets how long bytes are under way, each way.
    pub(super) fn set_delay(&self, delay: Duration) {
        self.delay_us.store(delay.as_micros() as u64, Ordering::Relaxed);
    }
}

fn connect(near: TcpStream, to: SocketAddr, lines: &[Arc<Line>; 2]) -> io::Result<()> {
    let far = TcpStream::connect(to)?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    lines[0].carry(near.try_clone()?, far.try_clone()?);
    lines[1].carry(far, near);
    Ok(())
}

impl Line {
    fn carry(self: &Arc<Self>, mut from: TcpStream, mut to: TcpStream) {
        let (sender, pieces) = mpsc::channel::<(Instant, Vec<u8>)>();
        let line = Arc::clone(self);
        let under_way = Arc::new(AtomicU64::new(0));
        let arrived = Arc::clone(&under_way);
        thread::spawn(move || {
            let mut piece = vec![0; PIECE_BYTES];
            while let Ok(count @ 1..) = read_some(&mut from, &mut piece) {
                let sent = line.send(count);
                thread::sleep(sent.saturating_duration_since(Instant::now()));
                let delay = Duration::from_micros(line.delay_us.load(Ordering::Relaxed));
                under_way.fetch_add(count as u64, Ordering::Relaxed);
                while under_way.load(Ordering::Relaxed) > line.holds(delay) {
                    thread::sleep(FULL_PAUSE);
                }
                if sender.send((sent + delay, piece[..count].to_vec())).is_err() {
                    break;
                }
            }
        });
        thread::spawn(move || {
            for (due, piece) in pieces {
                thread::sleep(due.saturating_duration_since(Instant::now()));
                if to.write_all(&piece).is_err() {
                    break;
                }
                arrived.fetch_sub(piece.len() as u64, Ordering::Relaxed);
            }
            // A reader that waits for room is not to wait for ever.
            arrived.store(0, Ordering::Relaxed);
            // Fails only if the other side has ended it before.
            let _ = to.shutdown(Shutdown::Both);
        });
    }

    /// Bytes that may be under way.
    fn holds(&self, delay: Duration) -> u64 {
        (self.bytes_per_s as f64 * delay.as_secs_f64()) as u64 + BUFFER_BYTES
    }

    /// When so many bytes will have been sent.
    fn send(&self, count: usize) -> Instant {
        let time = Duration::from_secs_f64(count as f64 / self.bytes_per_s as f64);
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let earliest = Instant::now().checked_sub(BURST).unwrap_or_else(Instant::now);
        *free = (*free).max(earliest) + time;
        *free
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn a_link_takes_its_time_and_loses_nothing() {
        let echo = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = echo.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = echo.accept().unwrap();
            let mut back = stream.try_clone().unwrap();
            io::copy(&mut stream, &mut back)
        });
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let relay = Relay::start(free, to, 10_000_000).unwrap();
        relay.set_delay(Duration::from_millis(20));
        let mut stream = TcpStream::connect(free).unwrap();
        let sent: Vec<u8> = (0..500_000u32).map(|i| (i % 251) as u8).collect();
        let start = Instant::now();
        stream.write_all(&sent).unwrap();
        let mut received = vec![0; sent.len()];
        stream.read_exact(&mut received).unwrap();
        assert!(received == sent);
        // 50 ms for the bytes less what may be made up for, 20 each way.
        assert!(start.elapsed() >= Duration::from_millis(80), "{:?}", start.elapsed());
    }
}
