//! A small blocking client: learns a cluster from one seed, routes each request to the node that
//! masters its partition, and keeps a window of requests in flight on every connection.
//!
//! One thread drives all connections. It never waits for one answer before sending the next
//! request, and never reads while it can still send; the window bounds what is unanswered.

use std::collections::VecDeque;
use std::io::{self, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::{Duration, Instant};

use longship::model::{Digest, PARTITION_COUNT};
use longship::wire::peers::Peers;
use longship::wire::reply::ReplyError;
use longship::wire::{FrameError, FrameType, Reply, info, next_frame, replicas, replies};
use longship_rt::blocking::read_some;

/// How long a node may take to accept a connection or to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// A connection's requests leave when this many bytes have gathered, or when it is waited for.
const SEND_BYTES: usize = 32 << 10;
/// What one read asks for.
const READ_BYTES: usize = 64 << 10;
/// Marks a partition nobody serves.
const NOBODY: u16 = u16::MAX;

/// Why a cluster cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("cannot connect to {address}")]
    Connect { address: String, source: io::Error },
    #[error("cannot {action} {address}")]
    Io { action: &'static str, address: String, source: io::Error },
    #[error("{address} closed the connection with {unanswered} requests unanswered")]
    Closed { address: String, unanswered: usize },
    #[error("{address} answered with something that is no reply")]
    Reply { address: String, source: ReplyError },
    #[error("{address} answered with something that is no frame")]
    Frame { address: String, source: FrameError },
    #[error("{address} does not answer `{command}` as a node would: {answer:?}")]
    Info { address: String, command: String, answer: String },
    #[error(
        "the cluster behind {seed} serves {served} of 4096 partitions of namespace {namespace}"
    )]
    Unserved { seed: String, namespace: String, served: usize },
}

/// A cluster seen through one namespace. `T` is what a caller wants back with each reply.
#[derive(Debug)]
pub(crate) struct Client<T> {
    addresses: Vec<String>,
    /// `per_node` connections of each node, node by node.
    connections: Vec<Connection<T>>,
    per_node: usize,
    window: usize,
    /// Node of each partition.
    routes: Box<[u16]>,
}

impl<T> Client<T> {
    /// Learns the cluster behind `seed` and connects to all its nodes.
    pub(crate) fn connect(
        seed: &str,
        namespace: &str,
        per_node: usize,
        window: usize,
    ) -> Result<Self, ClientError> {
        let (addresses, routes) = discover(seed, namespace)?;
        let mut connections = Vec::new();
        for address in &addresses {
            for _ in 0..per_node {
                connections.push(Connection::open(address)?);
            }
        }
        Ok(Self { addresses, connections, per_node, window, routes })
    }

    /// The nodes.
    pub(crate) fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Queues a request for the record's node; `encode` appends its frame. All requests for one
    /// record travel on one connection, so the node takes them in this order. Replies that arrive
    /// meanwhile go to `on_reply`, with the time they were read.
    pub(crate) fn send(
        &mut self,
        digest: &Digest,
        tag: T,
        encode: impl FnOnce(&mut Vec<u8>),
        on_reply: &mut impl FnMut(T, Instant, Reply<'_>),
    ) -> Result<(), ClientError> {
        let node = usize::from(self.routes[digest.partition().index()]);
        let at = node * self.per_node + (digest.mixed() >> 32) as usize % self.per_node;
        if self.connections[at].in_flight.len() >= self.window {
            self.flush()?;
            self.connections[at].receive_until(self.window / 2, on_reply)?;
        }
        let connection = &mut self.connections[at];
        encode(&mut connection.unsent);
        connection.in_flight.push_back(tag);
        if connection.unsent.len() >= SEND_BYTES { connection.flush() } else { Ok(()) }
    }

    /// Sends everything queued and waits until everything is answered.
    pub(crate) fn settle(
        &mut self,
        on_reply: &mut impl FnMut(T, Instant, Reply<'_>),
    ) -> Result<(), ClientError> {
        self.flush()?;
        self.connections.iter_mut().try_for_each(|connection| connection.receive_until(0, on_reply))
    }

    fn flush(&mut self) -> Result<(), ClientError> {
        self.connections.iter_mut().try_for_each(Connection::flush)
    }

    /// The sum of a counter of `namespace/NS` over all nodes.
    pub(crate) fn namespace_sum(&self, namespace: &str, counter: &str) -> Result<u64, ClientError> {
        let command = format!("namespace/{namespace}");
        let read = |address: &String| {
            let answer = ask(address, &[&command])?.swap_remove(0);
            let found = info::pairs(&answer).find(|(name, _)| *name == counter);
            let number = found.and_then(|(_, value)| value.parse::<u64>().ok());
            let command = command.clone();
            number.ok_or_else(|| ClientError::Info { address: address.clone(), command, answer })
        };
        self.addresses.iter().map(read).sum()
    }
}

#[derive(Debug)]
struct Connection<T> {
    address: String,
    stream: TcpStream,
    unsent: Vec<u8>,
    /// Room to receive into; the first `filled` bytes wait to be looked at.
    received: Vec<u8>,
    filled: usize,
    in_flight: VecDeque<T>,
}

impl<T> Connection<T> {
    fn open(address: &str) -> Result<Self, ClientError> {
        let failed = |source| ClientError::Connect { address: address.to_owned(), source };
        let resolved = address.to_socket_addrs().map_err(failed)?.next();
        let resolved = resolved.ok_or_else(|| failed(io::ErrorKind::AddrNotAvailable.into()))?;
        let stream = TcpStream::connect_timeout(&resolved, PATIENCE).map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
        let address = address.to_owned();
        let (unsent, received) = (Vec::new(), vec![0; READ_BYTES]);
        Ok(Self { address, stream, unsent, received, filled: 0, in_flight: VecDeque::new() })
    }

    fn flush(&mut self) -> Result<(), ClientError> {
        let sent = self.stream.write_all(&self.unsent);
        self.unsent.clear();
        sent.map_err(|source| self.io_error("send to", source))
    }

    /// Reads until at most `rest` requests are unanswered.
    fn receive_until(
        &mut self,
        rest: usize,
        on_reply: &mut impl FnMut(T, Instant, Reply<'_>),
    ) -> Result<(), ClientError> {
        while self.in_flight.len() > rest {
            self.fill()?;
            let now = Instant::now();
            let mut stream = replies(&self.received[..self.filled]);
            for reply in stream.by_ref() {
                let reply = reply.map_err(|source| ClientError::Reply {
                    address: self.address.clone(),
                    source,
                })?;
                let Some(tag) = self.in_flight.pop_front() else {
                    let source = ReplyError::Malformed;
                    return Err(ClientError::Reply { address: self.address.clone(), source });
                };
                on_reply(tag, now, reply);
            }
            let consumed = stream.consumed();
            self.discard(consumed);
        }
        Ok(())
    }

    fn discard(&mut self, consumed: usize) {
        self.received.copy_within(consumed..self.filled, 0);
        self.filled -= consumed;
    }

    /// Reads once, behind what has been received.
    fn fill(&mut self) -> Result<(), ClientError> {
        if self.filled == self.received.len() {
            self.received.resize(2 * self.filled, 0);
        }
        match read_some(&mut self.stream, &mut self.received[self.filled..]) {
            Ok(0) => Err(ClientError::Closed {
                address: self.address.clone(),
                unanswered: self.in_flight.len(),
            }),
            Ok(count) => {
                self.filled += count;
                Ok(())
            }
            Err(source) => Err(self.io_error("receive from", source)),
        }
    }

    fn io_error(&self, action: &'static str, source: io::Error) -> ClientError {
        ClientError::Io { action, address: self.address.clone(), source }
    }

    /// Asks info commands on an otherwise idle connection; the values in order.
    fn ask(&mut self, commands: &[&str]) -> Result<Vec<String>, ClientError> {
        info::push_request(&mut self.unsent, commands);
        self.flush()?;
        loop {
            self.fill()?;
            let address = &self.address;
            let frame = next_frame(&self.received[..self.filled])
                .map_err(|source| ClientError::Frame { address: address.clone(), source })?;
            let Some(frame) = frame else { continue };
            let answers: Vec<_> = info::answers(frame.body).collect();
            let asked = commands.iter().copied();
            if frame.kind != FrameType::Info || !asked.eq(answers.iter().map(|(name, _)| *name)) {
                let (command, answer) = (commands.join(" "), format!("{answers:?}"));
                return Err(ClientError::Info { address: address.clone(), command, answer });
            }
            let values = answers.iter().map(|(_, value)| (*value).to_owned()).collect();
            let consumed = frame.bytes();
            self.discard(consumed);
            return Ok(values);
        }
    }
}

/// Asks a node info commands on a connection of their own; the values in order.
pub(crate) fn ask(address: &str, commands: &[&str]) -> Result<Vec<String>, ClientError> {
    Connection::<()>::open(address)?.ask(commands)
}

/// A connection for info commands alone, to ask the same again and again.
#[derive(Debug)]
pub(crate) struct InfoLine(Connection<()>);

impl InfoLine {
    pub(crate) fn open(address: &str) -> Result<Self, ClientError> {
        Connection::open(address).map(Self)
    }

    pub(crate) fn ask(&mut self, command: &str) -> Result<String, ClientError> {
        Ok(self.0.ask(&[command])?.swap_remove(0))
    }

    /// Asks for figures, and gives some of them by their names.
    pub(crate) fn numbers<const N: usize>(
        &mut self,
        command: &str,
        names: [&str; N],
    ) -> Result<[u64; N], ClientError> {
        let answer = self.ask(command)?;
        let mut numbers = [0; N];
        for (number, name) in numbers.iter_mut().zip(names) {
            let found = info::pairs(&answer).find(|(key, _)| *key == name);
            let Some(value) = found.and_then(|(_, value)| value.parse().ok()) else {
                let (address, command) = (self.0.address.clone(), command.to_owned());
                return Err(ClientError::Info { address, command, answer });
            };
            *number = value;
        }
        Ok(numbers)
    }
}

/// The nodes behind a seed, and the node that masters each partition of a namespace.
fn discover(seed: &str, namespace: &str) -> Result<(Vec<String>, Box<[u16]>), ClientError> {
    let peers = ask(seed, &["peers-clear-std"])?.swap_remove(0);
    let Ok(peers) = Peers::parse(&peers) else {
        let command = "peers-clear-std".to_owned();
        return Err(ClientError::Info { address: seed.to_owned(), command, answer: peers });
    };
    let mut addresses = vec![seed.to_owned()];
    for (host, port) in peers.nodes.iter().filter_map(|peer| peer.hosts.first()) {
        let port = port.or(peers.default_port).unwrap_or(3000);
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        addresses.push(format!("{host}:{port}"));
    }
    let mut routes = vec![NOBODY; PARTITION_COUNT].into_boxed_slice();
    for (node, address) in addresses.iter().enumerate() {
        let answer = ask(address, &["replicas"])?.swap_remove(0);
        let Ok(namespaces) = replicas::parse(&answer) else {
            let (address, command) = (address.clone(), "replicas".to_owned());
            return Err(ClientError::Info { address, command, answer });
        };
        let found = namespaces.iter().find(|entry| entry.namespace == namespace);
        for partition in found.iter().flat_map(|entry| entry.columns[0].iter()) {
            routes[partition.index()] = node as u16;
        }
    }
    let served = routes.iter().filter(|&&node| node != NOBODY).count();
    if served < PARTITION_COUNT {
        let (seed, namespace) = (seed.to_owned(), namespace.to_owned());
        return Err(ClientError::Unserved { seed, namespace, served });
    }
    Ok((addresses, routes))
}

#[cfg(test)]
mod tests {
    use longship::wire::request::Address;
    use longship::wire::{ParticleType, ResultCode, bins};

    use super::*;
    use crate::standin::StandIn;

    fn address(record: i64) -> Address<'static> {
        Address { namespace: "demo", set: "s", digest: Digest::of_integer("s", record) }
    }

    #[test]
    fn requests_reach_the_node_that_serves_the_partition() {
        let cluster = StandIn::start(2);
        let mut client = Client::connect(&cluster.seed(), "demo", 3, 8).unwrap();
        assert_eq!(client.addresses().len(), 2);
        let mut codes = Vec::new();
        let mut on_reply = |record: i64, _, reply: Reply<'_>| codes.push((record, reply.code()));
        for record in 0..500 {
            let address = address(record);
            let mut bin = Vec::new();
            bins::push(&mut bin, b"r", ParticleType::INTEGER, &record.to_be_bytes());
            let encode = |out: &mut Vec<u8>| address.put().push(1, &bin, out);
            client.send(&address.digest, record, encode, &mut on_reply).unwrap();
        }
        client.settle(&mut on_reply).unwrap();
        codes.sort_unstable();
        assert_eq!(codes, (0..500).map(|record| (record, ResultCode::OK)).collect::<Vec<_>>());
        assert_eq!(client.namespace_sum("demo", "objects").unwrap(), 500);
        assert!(cluster.shares().iter().all(|&objects| objects > 100), "{:?}", cluster.shares());
    }

    #[test]
    fn large_records_come_back_whole() {
        let cluster = StandIn::start(1);
        let mut client = Client::connect(&cluster.seed(), "demo", 1, 4).unwrap();
        let value = vec![7; 300_000];
        let mut bin = Vec::new();
        bins::push(&mut bin, b"big", ParticleType::BLOB, &value);
        let mut sizes = Vec::new();
        let mut on_reply = |(), _, reply: Reply<'_>| {
            sizes.extend(reply.ops.map(|op| op.value.len()));
        };
        for record in 0..10 {
            let address = address(record);
            let put = |out: &mut Vec<u8>| address.put().push(1, &bin, out);
            client.send(&address.digest, (), put, &mut on_reply).unwrap();
            let get = |out: &mut Vec<u8>| address.get().push(0, &[], out);
            client.send(&address.digest, (), get, &mut on_reply).unwrap();
        }
        client.settle(&mut on_reply).unwrap();
        assert_eq!(sizes, [300_000; 10]);
    }

    #[test]
    fn failures_name_the_node_and_the_cause() {
        let check = |result: Result<Client<()>, ClientError>, expected: &str| {
            let error = result.map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        let cluster = StandIn::start(1);
        let seed = cluster.seed();
        let unserved = "serves 0 of 4096 partitions of namespace other";
        check(Client::connect(&seed, "other", 1, 1), unserved);
        check(Client::connect("127.0.0.1:1", "demo", 1, 1), "cannot connect to 127.0.0.1:1");
        let unknown = ask(&seed, &["nonsense"]).unwrap();
        assert_eq!(unknown, [info::UNRECOGNIZED]);
    }
}
