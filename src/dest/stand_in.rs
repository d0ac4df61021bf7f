//! A destination node for tests: plain threads, by the book unless told to misbehave.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;

use crate::model::{Generation, PartitionId, SrcId, VoidTime};
use crate::wire::hello::{CHALLENGE, Challenge, FEATURE, Hello, HelloAnswer};
use crate::wire::info::{Command, InfoFrame, UNRECOGNIZED, lines};
use crate::wire::peers::{Peer, Peers};
use crate::wire::replicas::{self, NamespaceReplicas};
use crate::wire::{FrameHeader, FrameType, ResultCode, reply};

/// The namespace stand-ins serve.
pub(super) const NAMESPACE: &str = "there";

/// The challenge of stand-ins, the same on each connection.
const CHALLENGED: Challenge = Challenge([0x5A; 16]);

/// What a stand-in does with data frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// Answers each with [`code_of`] its sequence number.
    Answer,
    /// Reads none until the manner changes.
    Stall,
    /// Answers what is left of this count, then cuts the connection inside the next frame.
    CutAfter(usize),
    /// Answers with bytes that are no frame.
    Garbage,
    /// Answers each twice.
    Double,
}

/// The result a stand-in gives a frame.
pub(super) fn code_of(sequence: u32) -> ResultCode {
    ResultCode((sequence % 3) as u8)
}

/// A frame of `bytes` that carries a sequence number where a request has its generation.
pub(super) fn push_frame(out: &mut Vec<u8>, sequence: u32, bytes: usize) {
    let start = out.len();
    let header = FrameHeader { kind: FrameType::Message, body_bytes: bytes - 8 };
    out.extend_from_slice(&header.to_bytes());
    out.extend_from_slice(&[22, 0x10, 1, 0, 0, 0]);
    out.extend_from_slice(&sequence.to_be_bytes());
    out.resize(start + bytes, 0);
}

pub(super) struct State {
    pub(super) id: &'static str,
    pub(super) owns: fn(usize) -> bool,
    pub(super) partition_generation: u64,
    pub(super) peers: Vec<(&'static str, SocketAddr)>,
    pub(super) peers_generation: u64,
    pub(super) namespace: &'static str,
    /// `None` makes it no Longship node.
    pub(super) hello: Option<HelloAnswer>,
    pub(super) manner: Manner,
    /// Answers no info command.
    pub(super) mute: bool,
    /// What the hellos said: epochs, in order of arrival.
    pub(super) epochs: Vec<u64>,
    /// And the streams they named.
    pub(super) streams: Vec<Vec<u64>>,
    /// Answered to hellos instead.
    pub(super) refusal: Option<&'static str>,
    /// Sequence numbers of the frames read.
    pub(super) received: Vec<u32>,
    /// Connections taken, with those that have ended.
    pub(super) sockets: Vec<TcpStream>,
}

pub(super) struct StandIn {
    pub(super) address: SocketAddr,
    shared: Arc<(Mutex<State>, Condvar)>,
}

impl StandIn {
    pub(super) fn start(id: &'static str, owns: fn(usize) -> bool) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let state = State {
            id,
            owns,
            partition_generation: 1,
            peers: Vec::new(),
            peers_generation: 1,
            namespace: "nsup-period=0",
            hello: None,
            manner: Manner::Answer,
            mute: false,
            epochs: Vec::new(),
            streams: Vec::new(),
            refusal: None,
            received: Vec::new(),
            sockets: Vec::new(),
        };
        let shared = Arc::new((Mutex::new(state), Condvar::new()));
        let served = Arc::clone(&shared);
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let shared = Arc::clone(&served);
                shared.0.lock().unwrap().sockets.push(socket.try_clone().unwrap());
                thread::spawn(move || serve(socket, &shared));
            }
        });
        Self { address, shared }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.shared.0.lock().unwrap()
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.shared.1.notify_all();
    }

    /// What a crash looks like from outside.
    pub(super) fn cut_all(&self) {
        for socket in self.state().sockets.drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

/// Ends quietly with the connection.
fn serve(socket: TcpStream, shared: &(Mutex<State>, Condvar)) {
    let mut writer = socket.try_clone().unwrap();
    let mut reader = BufReader::with_capacity(64 << 10, socket);
    let (mut header, mut body, mut out) = ([0; 8], Vec::new(), Vec::new());
    while reader.read_exact(&mut header).is_ok() {
        let header = FrameHeader::parse(&header).unwrap();
        body.resize(header.body_bytes, 0);
        if shared.0.lock().unwrap().manner == Manner::CutAfter(0) {
            break;
        }
        if reader.read_exact(&mut body).is_err() {
            break;
        }
        match header.kind {
            FrameType::Info if shared.0.lock().unwrap().mute => continue,
            FrameType::Info => answer_info(&mut shared.0.lock().unwrap(), &body, &mut out),
            _ => answer_data(shared, &body, &mut out),
        }
        let more = reader.buffer().len() >= 8 && out.len() < 60_000;
        if !more
            && (writer.write_all(&out).is_err() || {
                out.clear();
                false
            })
        {
            break;
        }
    }
    let _ = writer.write_all(&out);
    let _ = writer.shutdown(Shutdown::Both);
    let _ = reader.fill_buf();
}

fn answer_info(state: &mut State, body: &[u8], out: &mut Vec<u8>) {
    let mut frame = InfoFrame::begin(out);
    for line in lines(body) {
        let command = Command::parse(line).unwrap();
        frame.answer(line, &answer(state, line, &command));
    }
}

fn answer(state: &mut State, line: &[u8], command: &Command<'_>) -> String {
    match (command.name, command.path) {
        ("node", _) => state.id.into(),
        ("build", _) => "6.4.0.1".into(),
        ("features", _) if state.hello.is_some() => format!("peers;{FEATURE};replicas"),
        ("features", _) => "peers;replicas".into(),
        ("partition-generation", _) => state.partition_generation.to_string(),
        ("peers-generation", _) => state.peers_generation.to_string(),
        ("peers-clear-std", _) => {
            let peer = |&(node, at): &(&'static str, SocketAddr)| Peer {
                node: node.into(),
                tls_name: String::new(),
                hosts: vec![(at.ip().to_string(), Some(at.port()))],
            };
            let nodes = state.peers.iter().map(peer).collect();
            Peers { generation: state.peers_generation, default_port: Some(3000), nodes }.format()
        }
        ("replicas", _) => {
            let owned = PartitionId::all().filter(|p| (state.owns)(p.index())).collect();
            let namespace = NAMESPACE.into();
            replicas::format(&[NamespaceReplicas { namespace, regime: 0, columns: vec![owned] }])
        }
        ("namespace", NAMESPACE) => state.namespace.into(),
        (CHALLENGE, _) => CHALLENGED.to_hex(),
        (FEATURE, _) => match (Hello::verify(line, state.id, &CHALLENGED), state.hello.clone()) {
            (Ok(hello), Some(answer)) => {
                assert_eq!((hello.process, hello.src_id, hello.dc), (40, SrcId(3), "faraway"));
                state.epochs.push(hello.epoch);
                state.streams.push(hello.streams);
                state.refusal.map_or_else(|| answer.format(), Into::into)
            }
            _ => "ERROR:4:bad hello".into(),
        },
        _ => UNRECOGNIZED.into(),
    }
}

fn answer_data(shared: &(Mutex<State>, Condvar), body: &[u8], out: &mut Vec<u8>) {
    let sequence = u32::from_be_bytes(body[6..10].try_into().unwrap());
    let state = shared.0.lock().unwrap();
    let mut state = shared.1.wait_while(state, |state| state.manner == Manner::Stall).unwrap();
    state.received.push(sequence);
    let mut push = || reply::push(out, code_of(sequence), Generation(1), VoidTime::NEVER);
    match &mut state.manner {
        Manner::Answer | Manner::Stall => push(),
        Manner::CutAfter(left) => {
            push();
            *left -= 1;
        }
        Manner::Garbage => out.extend_from_slice(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        Manner::Double => {
            push();
            push();
        }
    }
}
