//! A relay in front of a node: it can hold what one side has sent, cut the other side off, deliver
//! late what it held, and answer in the node's place.

use std::io::Write;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use longship_rt::blocking::read_some;

/// A relay on a port of its own. Its threads end with their connections.
pub(crate) struct Relay {
    port: u16,
    pipes: Arc<Mutex<Vec<Arc<Pipe>>>>,
    answers: Arc<Answers>,
}

/// What a relay makes of the target's answers.
#[derive(Default)]
struct Answers {
    /// The result of each data answer, instead of the target's own; 0 leaves them as they are.
    code: AtomicU8,
    /// Data answers changed.
    changed: AtomicUsize,
    /// Info answers passed on.
    info: AtomicUsize,
}

/// One relayed connection.
struct Pipe {
    source: TcpStream,
    target: TcpStream,
    answers: Arc<Answers>,
    /// It has carried a data message, so it is no conversation of info commands.
    has_data: AtomicBool,
    /// The target has closed its side.
    target_closed: AtomicBool,
    /// Towards the target, and back.
    ways: [Mutex<Way>; 2],
}

#[derive(Default)]
struct Way {
    holds: bool,
    held: Vec<u8>,
}

/// Which way bytes go.
#[derive(Clone, Copy)]
pub(crate) enum Direction {
    ToTarget = 0,
    ToSource = 1,
}

impl Relay {
    /// Relays a free port to port `target`.
    pub(crate) fn to(target: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let pipes = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&pipes);
        let answers = Arc::new(Answers::default());
        let of_pipes = Arc::clone(&answers);
        std::thread::spawn(move || {
            for source in listener.incoming() {
                // A node that is down: the connection is closed again.
                let (Ok(source), Ok(target)) = (source, TcpStream::connect(("127.0.0.1", target)))
                else {
                    continue;
                };
                all.lock().unwrap().push(Pipe::start(source, target, Arc::clone(&of_pipes)));
            }
        });
        Self { port, pipes, answers }
    }

    /// Where to connect to.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// From now on every data answer has this result; 0 leaves them as they are.
    pub(crate) fn answer(&self, code: u8) {
        self.answers.code.store(code, Ordering::Relaxed);
    }

    /// Data answers whose result was changed, and info answers, so far.
    pub(crate) fn answered(&self) -> (usize, usize) {
        let Answers { changed, info, .. } = &*self.answers;
        (changed.load(Ordering::Relaxed), info.load(Ordering::Relaxed))
    }

    /// From now on holds what the connections there are send one way. New connections pass.
    pub(crate) fn hold(&self, direction: Direction) {
        for pipe in self.shipping() {
            pipe.ways[direction as usize].lock().unwrap().holds = true;
        }
    }

    /// Bytes held one way.
    pub(crate) fn held(&self, direction: Direction) -> usize {
        let held = |pipe: &Arc<Pipe>| pipe.ways[direction as usize].lock().unwrap().held.len();
        self.shipping().iter().map(held).sum()
    }

    /// Closes the source's side of the connections that hold something. Gives what is left of them.
    pub(crate) fn cut(&self) -> Leftover {
        let mut pipes = self.pipes.lock().unwrap();
        let holds = |pipe: &Arc<Pipe>| pipe.ways.iter().any(|way| way.lock().unwrap().holds);
        let (cut, kept) = pipes.drain(..).partition(holds);
        *pipes = kept;
        let left = Leftover(cut);
        left.0.iter().for_each(|pipe| pipe.source.shutdown(Shutdown::Both).unwrap_or_default());
        left
    }

    fn shipping(&self) -> Vec<Arc<Pipe>> {
        let pipes = self.pipes.lock().unwrap();
        pipes.iter().filter(|pipe| pipe.has_data.load(Ordering::Relaxed)).cloned().collect()
    }
}

/// The target's side of connections that the source has lost.
pub(crate) struct Leftover(Vec<Arc<Pipe>>);

impl Leftover {
    /// Delivers what was held towards the target. Gives the bytes its socket took.
    pub(crate) fn deliver(&self) -> usize {
        let deliver = |pipe: &Arc<Pipe>| {
            let held = std::mem::take(&mut pipe.ways[0].lock().unwrap().held);
            if (&pipe.target).write_all(&held).is_ok() { held.len() } else { 0 }
        };
        self.0.iter().map(deliver).sum()
    }

    /// Whether the target has closed them all.
    pub(crate) fn are_closed(&self) -> bool {
        self.0.iter().all(|pipe| pipe.target_closed.load(Ordering::Relaxed))
    }

    /// Ends the connections, and says whether the target had closed them all of its own accord.
    pub(crate) fn end(self) -> bool {
        let closed = self.are_closed();
        self.0.iter().for_each(|pipe| pipe.target.shutdown(Shutdown::Both).unwrap_or_default());
        closed
    }
}

impl Pipe {
    fn start(source: TcpStream, target: TcpStream, answers: Arc<Answers>) -> Arc<Self> {
        source.set_nodelay(true).unwrap();
        target.set_nodelay(true).unwrap();
        target.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
        let pipe = Arc::new(Self {
            source,
            target,
            answers,
            has_data: AtomicBool::new(false),
            target_closed: AtomicBool::new(false),
            ways: Default::default(),
        });
        for direction in [Direction::ToTarget, Direction::ToSource] {
            let pipe = Arc::clone(&pipe);
            std::thread::spawn(move || pipe.carry(direction));
        }
        pipe
    }

    fn carry(&self, direction: Direction) {
        let (mut from, mut to) = match direction {
            Direction::ToTarget => (&self.source, &self.target),
            Direction::ToSource => (&self.target, &self.source),
        };
        let mut buffer = vec![0; 64 << 10];
        let mut frame = Frame::default();
        while let Ok(bytes @ 1..) = read_some(&mut from, &mut buffer) {
            // A connection's first data message is the first of its bytes: info is asked and
            // answered in turn.
            if buffer.starts_with(&[2, 3]) {
                self.has_data.store(true, Ordering::Relaxed);
            }
            if matches!(direction, Direction::ToSource) {
                frame.pass(&mut buffer[..bytes], &self.answers);
            }
            let mut way = self.ways[direction as usize].lock().unwrap();
            if way.holds {
                way.held.extend_from_slice(&buffer[..bytes]);
            } else if to.write_all(&buffer[..bytes]).is_err() {
                break;
            }
        }
        if matches!(direction, Direction::ToSource) {
            self.target_closed.store(true, Ordering::Relaxed);
        }
        if !self.ways.iter().any(|way| way.lock().unwrap().holds) {
            let _ = self.source.shutdown(Shutdown::Both);
            let _ = self.target.shutdown(Shutdown::Both);
        }
    }
}

/// Where in a frame an answer is.
#[derive(Default)]
struct Frame {
    header: [u8; 8],
    /// Bytes of the frame that have passed.
    at: usize,
}

impl Frame {
    /// Where the result is in a data answer: behind the header, lengths and flags.
    const RESULT: usize = 8 + 5;

    /// Passes bytes on, whose results may be changed.
    fn pass(&mut self, bytes: &mut [u8], answers: &Answers) {
        let code = answers.code.load(Ordering::Relaxed);
        for byte in bytes {
            if let Some(header) = self.header.get_mut(self.at) {
                *header = *byte;
            }
            let is_data = self.at >= 8 && self.header[1] == 3;
            if is_data && self.at == Self::RESULT && code != 0 {
                *byte = code;
                answers.changed.fetch_add(1, Ordering::Relaxed);
            }
            self.at += 1;
            let body = u64::from_be_bytes(self.header) & 0xFFFF_FFFF_FFFF;
            if self.at >= 8 && self.at as u64 == 8 + body {
                answers.info.fetch_add(usize::from(self.header[1] == 1), Ordering::Relaxed);
                self.at = 0;
            }
        }
    }
}
