//! A stand-in cluster for tests of the tools: the plain parts of the protocol over a map.
//!
//! Each node serves the partitions `p % nodes == its index` and refuses others, so that wrong
//! routing shows.

use std::collections::HashMap;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use longship::model::{Digest, Generation, PartitionId, VoidTime};
use longship::wire::info::{Command, InfoFrame};
use longship::wire::peers::{Peer, Peers};
use longship::wire::replicas::{NamespaceReplicas, PartitionSet};
use longship::wire::{
    Action, Frame, FrameType, Request, ResultCode, bins, info, next_frame, replicas, reply,
};
use longship_rt::blocking::read_some;

type Records = HashMap<Digest, Vec<u8>>;

/// Servers on loopback that live as long as the test process.
pub(crate) struct StandIn {
    nodes: Vec<Arc<Node>>,
}

struct Node {
    index: usize,
    addresses: Vec<SocketAddr>,
    records: Mutex<Records>,
}

impl StandIn {
    pub(crate) fn start(node_count: usize) -> Self {
        let listeners: Vec<_> =
            (0..node_count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let addresses: Vec<_> =
            listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
        let start = |(index, listener): (usize, TcpListener)| {
            let records = Mutex::default();
            let node = Arc::new(Node { index, addresses: addresses.clone(), records });
            let served = Arc::clone(&node);
            thread::spawn(move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    let node = Arc::clone(&served);
                    thread::spawn(move || node.serve(stream));
                }
            });
            node
        };
        Self { nodes: listeners.into_iter().enumerate().map(start).collect() }
    }

    pub(crate) fn seed(&self) -> String {
        self.nodes[0].addresses[0].to_string()
    }

    /// Objects of each node.
    pub(crate) fn shares(&self) -> Vec<usize> {
        self.nodes.iter().map(|node| node.records.lock().unwrap().len()).collect()
    }

    /// Changes a record behind everybody's back: `change` gets its bins, `None` when absent.
    pub(crate) fn tamper(&self, digest: Digest, change: impl FnOnce(&mut Option<Vec<u8>>)) {
        let node = &self.nodes[digest.partition().index() % self.nodes.len()];
        let mut records = node.records.lock().unwrap();
        let mut record = records.remove(&digest);
        change(&mut record);
        records.extend(record.map(|bins| (digest, bins)));
    }
}

impl Node {
    fn serve(&self, mut stream: TcpStream) {
        let (mut received, mut out) = (Vec::new(), Vec::new());
        let mut chunk = [0; 16 << 10];
        while let Ok(count @ 1..) = read_some(&mut stream, &mut chunk) {
            received.extend_from_slice(&chunk[..count]);
            while let Some(frame) = next_frame(&received).unwrap() {
                self.answer(frame, &mut out);
                let bytes = frame.bytes();
                received.drain(..bytes);
            }
            if stream.write_all(&out).is_err() {
                return;
            }
            out.clear();
        }
    }

    fn answer(&self, frame: Frame<'_>, out: &mut Vec<u8>) {
        if frame.kind == FrameType::Message {
            match self.apply(frame.body, out) {
                Ok(()) => {}
                Err(code) => reply::push_code(out, code),
            }
            return;
        }
        let mut reply = InfoFrame::begin(out);
        for line in info::lines(frame.body) {
            reply.answer(line, &self.info(&Command::parse(line).unwrap()));
        }
    }

    fn info(&self, command: &Command<'_>) -> String {
        match command.name {
            "peers-clear-std" => {
                let others = (0..self.addresses.len()).filter(|&index| index != self.index);
                let nodes = others.map(|index| self.peer(index)).collect();
                Peers { generation: 1, default_port: Some(3000), nodes }.format()
            }
            "replicas" => replicas::format([&NamespaceReplicas {
                namespace: "demo".into(),
                regime: 0,
                columns: vec![
                    PartitionId::all().filter(|&p| self.owns(p)).collect::<PartitionSet>(),
                ],
            }]),
            "namespace" => format!("x=1;objects={}", self.records.lock().unwrap().len()),
            _ => info::UNRECOGNIZED.into(),
        }
    }

    fn peer(&self, index: usize) -> Peer {
        let address = self.addresses[index];
        let hosts = vec![(address.ip().to_string(), Some(address.port()))];
        Peer { node: format!("A{index}"), tls_name: String::new(), hosts }
    }

    fn owns(&self, partition: PartitionId) -> bool {
        partition.index() % self.addresses.len() == self.index
    }

    fn apply(&self, body: &[u8], out: &mut Vec<u8>) -> Result<(), ResultCode> {
        let request = Request::parse(body)?;
        let digest = request.target()?;
        if !self.owns(digest.partition()) {
            return Err(ResultCode::UNAVAILABLE);
        }
        let mut records = self.records.lock().unwrap();
        match request.action()? {
            Action::Write => {
                let bins = request.verbatim_bins()?.ok_or(ResultCode::UNSUPPORTED_FEATURE)?;
                records.insert(digest, bins.to_vec());
            }
            Action::Delete => drop(records.remove(&digest).ok_or(ResultCode::NOT_FOUND)?),
            _ => {
                let at_rest = records.get(&digest).ok_or(ResultCode::NOT_FOUND)?;
                let mut reply = reply::OpReply::begin(out, usize::MAX);
                reply.push_all(at_rest, bins::iter(at_rest).count() as u16);
                reply.finish(ResultCode::OK, Generation(1), VoidTime::NEVER);
                return Ok(());
            }
        }
        reply::push_code(out, ResultCode::OK);
        Ok(())
    }
}
