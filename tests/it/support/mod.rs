//! Starting, asking and stopping nodes.

mod frame;
mod node;
pub(crate) mod relay;
pub(crate) mod ship;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

pub(crate) use frame::{Reply, Request, proto, proto_claiming};
pub(crate) use node::{Node, Settings};

/// How long anything may take before a test gives up on it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// Pause between two looks while waiting.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Looks until there is something, and gives it.
///
/// # Panics
/// After [`PATIENCE`], naming what was waited for.
pub(crate) fn wait_for<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    wait_long_for(what, PATIENCE, look)
}

/// The same with a patience of its own, for what a node does seldom.
pub(crate) fn wait_long_for<T>(
    what: &str,
    patience: Duration,
    mut look: impl FnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {patience:?} for {what}");
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Connects to a node's port; every read and write on it ends in time.
pub(crate) fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("the port accepts connections");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Asks one info command and gives the value of its answer.
pub(crate) fn info(port: u16, command: &str) -> String {
    let mut stream = connect(port);
    stream.write_all(&frame::proto(1, format!("{command}\n").as_bytes())).unwrap();
    let (kind, body) = read_frame(&mut stream).expect("info is answered");
    assert_eq!(kind, 1, "the answer to {command} is an info frame");
    let text = String::from_utf8(body).expect("info answers are text");
    let line = text.strip_suffix('\n').expect("info answers end in a newline");
    let (name, value) = line.split_once('\t').expect("info answers are name, tab, value");
    assert_eq!(name, command);
    value.to_owned()
}

/// Reads one frame: its type and body. `None` when the node closed the connection instead.
pub(crate) fn read_frame(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let mut header = [0; 8];
    read_or_closed(stream, &mut header)?;
    assert_eq!(header[0], 2, "protocol version of an answer");
    let length = u64::from_be_bytes(header) & 0xFFFF_FFFF_FFFF;
    let mut body = vec![0; length as usize];
    read_or_closed(stream, &mut body)?;
    Some((header[1], body))
}

fn read_or_closed(stream: &mut TcpStream, bytes: &mut [u8]) -> Option<()> {
    match stream.read_exact(bytes) {
        Ok(()) => Some(()),
        Err(error)
            if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) =>
        {
            None
        }
        Err(error) => panic!("no answer: {error}"),
    }
}
