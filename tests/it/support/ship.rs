//! What tests of shipping have in common: numbered records, a client that keeps several requests on
//! the way, DCs by file and at run time, and waiting for a destination to be as it should.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::TcpStream;

use super::{Node, Reply, Request, Settings, connect, info, read_frame, wait_for};

/// Requests on the way at once: fewer than fill a socket's buffers.
pub(crate) const PIPELINED: usize = 128;
pub(crate) const NOT_FOUND: u8 = 2;
const DEVICE_OVERLOAD: u8 = 18;

/// Record `n`, in partition `n` modulo 4096.
pub(crate) fn digest_of(record: u32) -> [u8; 20] {
    digest_in((record % 4096) as u16, record)
}

pub(crate) fn digest_in(partition: u16, record: u32) -> [u8; 20] {
    let mut digest = [0; 20];
    digest[..2].copy_from_slice(&partition.to_le_bytes());
    digest[8..12].copy_from_slice(&record.wrapping_mul(0x9E37_79B9).to_le_bytes());
    digest[12..16].copy_from_slice(&record.to_le_bytes());
    digest
}

pub(crate) fn put(record: u32, value: i64) -> Request {
    Request::put(digest_of(record), value)
}

pub(crate) fn put_in_set(record: u32, set: &str) -> Request {
    let mut request = put(record, i64::from(record));
    request.fields.push((1, set.as_bytes().to_vec()));
    request
}

pub(crate) fn delete(record: u32, durable: bool) -> Request {
    let info2 = if durable { 0x13 } else { 3 };
    Request { info2, ops: Vec::new(), ..put(record, 0) }
}

/// A number of the environment, for tests that can do more than a machine that builds every change
/// has time for.
pub(crate) fn from_environment(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// What a node answered to one request.
pub(crate) struct Answer {
    pub(crate) result: u8,
    pub(crate) generation: u32,
    /// Of a record: when it ends, in seconds of the protocol's own epoch; 0 for never.
    pub(crate) void_time: u32,
    /// Of the bin, if there is one.
    pub(crate) value: Option<i64>,
    pub(crate) bins: Vec<(String, Vec<u8>)>,
}

/// A connection that keeps several requests on the way.
pub(crate) struct Client(TcpStream);

impl Client {
    pub(crate) fn of(node: &Node) -> Self {
        Self(connect(node.ports()[0]))
    }

    /// Sends all and gives each answer: the result, and the value of the bin if there is one.
    pub(crate) fn ask(&mut self, requests: &[Request]) -> Vec<(u8, Option<i64>)> {
        let answers = self.replies(requests).into_iter();
        answers.map(|answer| (answer.result, answer.value)).collect()
    }

    /// Sends all and gives each answer.
    pub(crate) fn replies(&mut self, requests: &[Request]) -> Vec<Answer> {
        let mut answers = Vec::with_capacity(requests.len());
        for some in requests.chunks(PIPELINED) {
            let frames: Vec<u8> = some.iter().flat_map(Request::frame).collect();
            self.0.write_all(&frames).unwrap();
            for _ in some {
                let (_, body) = read_frame(&mut self.0).expect("the node answers");
                let Reply { result, ops, generation, void_time } = Reply::of(&body);
                let value = (ops == 1).then(|| body[body.len() - 8..].try_into().unwrap());
                let value = value.map(i64::from_be_bytes);
                let bins = Reply::bins(&body);
                answers.push(Answer { result, generation, void_time, value, bins });
            }
        }
        answers
    }

    /// Sends what must succeed in the end: what the node is too busy for is sent again.
    pub(crate) fn until_done(&mut self, requests: impl IntoIterator<Item = Request>) {
        let mut requests = requests.into_iter();
        loop {
            let mut some: Vec<Request> = requests.by_ref().take(32 * PIPELINED).collect();
            if some.is_empty() {
                return;
            }
            while !some.is_empty() {
                let answers = self.ask(&some).into_iter();
                let again = some.into_iter().zip(answers).filter_map(|(request, (result, _))| {
                    assert!(result == 0 || result == DEVICE_OVERLOAD, "{result}: {request:?}");
                    (result != 0).then_some(request)
                });
                some = again.collect();
                if !some.is_empty() {
                    std::thread::sleep(std::time::Duration::from_millis(20));
                }
            }
        }
    }

    /// Sends what must succeed.
    pub(crate) fn done(&mut self, requests: impl IntoIterator<Item = Request>) {
        let requests: Vec<Request> = requests.into_iter().collect();
        for ((result, _), request) in self.ask(&requests).into_iter().zip(&requests) {
            assert_eq!(result, 0, "{request:?}");
        }
    }
}

/// The value of each record at a node; `None` for one that is not there.
pub(crate) fn values(node: &Node, digests: &[[u8; 20]]) -> Vec<Option<i64>> {
    let requests: Vec<Request> = digests.iter().map(|digest| Request::get(*digest)).collect();
    let value = |(result, value)| match result {
        0 => value,
        NOT_FOUND => None,
        other => panic!("result {other}"),
    };
    Client::of(node).ask(&requests).into_iter().map(value).collect()
}

/// The records of a range that a node has.
pub(crate) fn present(node: &Node, records: std::ops::Range<u32>) -> Vec<u32> {
    let digests: Vec<[u8; 20]> = records.clone().map(digest_of).collect();
    let found = records.zip(values(node, &digests));
    found.filter(|(_, value)| value.is_some()).map(|(record, _)| record).collect()
}

/// Waits until `node` has of `records` exactly what `expected` tells.
pub(crate) fn wait_until_equal(node: &Node, records: u32, expected: impl Fn(u32) -> Option<i64>) {
    let digests: Vec<[u8; 20]> = (0..records).map(digest_of).collect();
    let expected: Vec<Option<i64>> = (0..records).map(expected).collect();
    wait_for("the destination to be as it should", || {
        (values(node, &digests) == expected).then_some(())
    });
}

/// Sends a command to every port of a node, as tools do.
pub(crate) fn everywhere(node: &Node, command: &str) {
    for port in node.ports() {
        assert_eq!(info(*port, command), "ok", "{command}");
    }
}

pub(crate) fn configure(node: &Node, item: &str) {
    configure_dc(node, "destination", item);
}

pub(crate) fn configure_dc(node: &Node, dc: &str, item: &str) {
    everywhere(node, &format!("set-config:context=xdr;dc={dc};{item}"));
}

/// One statistic of a DC, over all ports of a node.
pub(crate) fn stat(node: &Node, dc: &str, name: &str) -> u64 {
    let of_port = |port: &u16| {
        let text = info(*port, &format!("get-stats:context=xdr;dc={dc}"));
        let pairs: HashMap<&str, &str> =
            text.split(';').filter_map(|pair| pair.split_once('=')).collect();
        pairs.get(name).and_then(|value| value.parse::<u64>().ok()).unwrap_or_else(|| {
            panic!("no figure {name} in {text}");
        })
    };
    node.ports().iter().map(of_port).sum()
}

/// Waits until nothing is left to ship, and checks that every change is accounted for.
pub(crate) fn wait_until_settled(node: &Node, dc: &str) {
    let gauges = ["in_queue", "in_progress", "retrying", "recoveries_pending"];
    wait_for("everything to be shipped", || {
        gauges.iter().all(|gauge| stat(node, dc, gauge) == 0).then_some(())
    });
    for port in node.ports() {
        let check = info(*port, &format!("xdr-check:dc={dc}"));
        assert!(check.contains("balanced=true") && !check.contains("balanced=false"), "{check}");
    }
}

pub(crate) fn wait_until_connected(node: &Node, dc: &str, destination: &Node) {
    let nodes = (node.ports().len() * destination.ports().len()) as u64;
    wait_for("every shard to reach the destination", || {
        (stat(node, dc, "nodes") == nodes).then_some(())
    });
}

/// A DC in the configuration file, its namespace with `items`.
pub(crate) fn dc(name: &str, destination: &Node, items: &str) -> String {
    dc_at(name, destination.ports(), items)
}

/// The same, reached by these ports.
pub(crate) fn dc_at(name: &str, ports: &[u16], items: &str) -> String {
    let mut text = format!("dc {name} {{\n");
    for port in ports {
        writeln!(text, "node-address-port 127.0.0.1 {port}").unwrap();
    }
    writeln!(text, "namespace test {{\n{items}\n}}\n}}").unwrap();
    text
}

pub(crate) fn source_of(xdr: String) -> Settings {
    Settings { xdr, ..Settings::default() }
}

pub(crate) fn one_shard() -> Settings {
    Settings { shards: 1, ..Settings::default() }
}

/// Makes a DC at run time, by every port.
pub(crate) fn create_dc(node: &Node, destination: &Node, attach: &str) {
    configure(node, "action=create");
    for port in destination.ports() {
        configure(node, &format!("node-address-port=127.0.0.1:{port};action=add"));
    }
    configure(node, &format!("namespace=test;action=add{attach}"));
}
