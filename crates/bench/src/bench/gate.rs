//! A gate before a node that lets so many records through in each period and no more, as a
//! destination does that works in bursts. It counts what comes through and how often somebody
//! connects. What is no record passes at once.

use std::io::{self, BufReader, Read, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// Bytes of a frame's header; its type is the second, its length the last six.
const HEADER_BYTES: usize = 8;
/// The type of a frame that holds a request for a record.
const MESSAGE: u8 = 3;

/// How much a gate lets through.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Cycle {
    pub(super) records_per_s: u64,
    pub(super) period: Duration,
}

/// A running gate; it ends with the process.
pub(super) struct Gate(Arc<Shared>);

#[derive(Default)]
struct Shared {
    records: AtomicU64,
    connections: AtomicU64,
    /// What may still pass in this period; nothing once there is no bound.
    left: Mutex<Option<u64>>,
    refilled: Condvar,
}

impl Gate {
    /// Takes connections at one address and carries them on to another, without a bound at first.
    pub(super) fn start(at: SocketAddr, to: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(at)?;
        let shared = Arc::<Shared>::default();
        let gate = Self(Arc::clone(&shared));
        thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                // Who cannot be connected to is as good as gone: the near side sees an end.
                let _ = connect(near, to, &shared);
            }
        });
        Ok(gate)
    }

    /// Bounds what passes from now on, in one step each period.
    pub(super) fn narrow(&self, cycle: Cycle) {
        let shared = Arc::clone(&self.0);
        let share = (cycle.records_per_s as f64 * cycle.period.as_secs_f64()).round() as u64;
        *shared.left() = Some(0);
        thread::spawn(move || {
            loop {
                thread::sleep(cycle.period);
                *shared.left() = Some(share);
                shared.refilled.notify_all();
            }
        });
    }

    /// Records, and connections that carried one, so far.
    pub(super) fn passed(&self) -> (u64, u64) {
        let Shared { records, connections, .. } = &*self.0;
        (records.load(Ordering::Relaxed), connections.load(Ordering::Relaxed))
    }
}

impl Shared {
    fn left(&self) -> std::sync::MutexGuard<'_, Option<u64>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until one more record may pass.
    fn pass(&self) {
        self.records.fetch_add(1, Ordering::Relaxed);
        let mut left = self.left();
        loop {
            match &mut *left {
                None => return,
                Some(0) => {}
                Some(count) => {
                    *count -= 1;
                    return;
                }
            }
            left = self.refilled.wait(left).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn connect(near: TcpStream, to: SocketAddr, shared: &Arc<Shared>) -> io::Result<()> {
    let far = TcpStream::connect(to)?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let (mut back_from, mut back_to) = (far.try_clone()?, near.try_clone()?);
    thread::spawn(move || {
        // An end of either side ends both.
        let _ = io::copy(&mut back_from, &mut back_to);
        let _ = back_to.shutdown(Shutdown::Both);
    });
    let shared = Arc::clone(shared);
    thread::spawn(move || {
        let _ = carry(near, &far, &shared);
        let _ = far.shutdown(Shutdown::Both);
    });
    Ok(())
}

/// Carries frame by frame.
fn carry(from: TcpStream, mut to: &TcpStream, shared: &Shared) -> io::Result<()> {
    let mut from = BufReader::new(from);
    let mut header = [0; HEADER_BYTES];
    let mut frame = Vec::new();
    // Those that carry info commands only may come and go.
    let mut is_counted = false;
    loop {
        from.read_exact(&mut header)?;
        let kind = header[1];
        let bytes = header[2..].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        frame.clear();
        frame.extend_from_slice(&header);
        from.by_ref().take(bytes).read_to_end(&mut frame)?;
        if kind == MESSAGE {
            if !std::mem::replace(&mut is_counted, true) {
                shared.connections.fetch_add(1, Ordering::Relaxed);
            }
            shared.pass();
        }
        to.write_all(&frame)?;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn so_many_records_pass_in_a_period_and_all_are_counted() {
        let sink = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = sink.local_addr().unwrap();
        let at = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let gate = Gate::start(at, to).unwrap();
        let mut near = TcpStream::connect(at).unwrap();
        let (mut far, _) = sink.accept().unwrap();
        gate.narrow(Cycle { records_per_s: 200, period: Duration::from_millis(50) });
        let start = Instant::now();
        let record = [2, MESSAGE, 0, 0, 0, 0, 0, 3, 1, 2, 3];
        let other = [2, 1, 0, 0, 0, 0, 0, 1, 9];
        let sent = [&other[..], &record.repeat(40)].concat();
        near.write_all(&sent).unwrap();
        let mut received = vec![0; sent.len()];
        far.read_exact(&mut received).unwrap();
        assert_eq!((received == sent, gate.passed()), (true, (40, 1)));
        assert!(start.elapsed() >= Duration::from_millis(190), "{:?}", start.elapsed());
        drop(near);
        assert_eq!(far.read(&mut [0]).unwrap(), 0, "an end is passed on");
    }
}
