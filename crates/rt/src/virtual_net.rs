//! The network between virtual shards: connections whose bytes take as long as the seed says, arrive
//! in pieces of any size, and stop, or end, where a test wants it.
//!
//! A cut takes away what has not arrived, or lets it arrive after the other side was told: a
//! straggler.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::event::Event;
use crate::virtual_shard::{VirtualShard, current};

/// What a cut leaves on its way arrives so much later, at most.
const LATE_US: [u64; 3] = [1, 200_000, 12_000_000];
/// What a connection keeps of what was written and not read.
const PIPE_BYTES: usize = 256 << 10;
/// How long bytes take between two hosts, in microseconds: one of these, for good.
const LATENCIES_US: [u64; 6] = [20, 20, 50, 500, 5_000, 80_000];
/// First port of those that connect.
const PORT_FIRST: u16 = 20_000;

/// Everything that is connected.
#[derive(Default)]
pub(crate) struct Net(RefCell<State>);

#[derive(Default)]
struct State {
    doors: BTreeMap<SocketAddr, Rc<RefCell<Door>>>,
    flows: Vec<Weak<RefCell<Flow>>>,
    latencies_us: BTreeMap<(IpAddr, IpAddr), u64>,
    /// Nothing arrives at or from these hosts until then.
    stalls_us: BTreeMap<IpAddr, u64>,
    connected: u16,
}

/// Who listens at an address.
#[derive(Debug, Default)]
struct Door {
    waiting: VecDeque<(u64, VirtualStream)>,
    waiter: Option<Waker>,
}

/// One direction of a connection.
#[derive(Debug)]
struct Flow {
    /// From where to where.
    hosts: (IpAddr, IpAddr),
    latency_us: u64,
    /// On their way, and when each piece arrives.
    pieces: VecDeque<(u64, Vec<u8>)>,
    arrived: VecDeque<u8>,
    /// The writer ends it: when that arrives.
    ends_us: Option<u64>,
    /// The reader takes nothing more.
    is_left: bool,
    /// The reader, or the writer, is told that the connection was reset.
    is_reset: (bool, bool),
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Flow {
    const fn new(hosts: (IpAddr, IpAddr), latency_us: u64) -> Self {
        Self {
            hosts,
            latency_us,
            pieces: VecDeque::new(),
            arrived: VecDeque::new(),
            ends_us: None,
            is_left: false,
            is_reset: (false, false),
            reader: None,
            writer: None,
        }
    }

    /// When the last piece arrives that is on its way.
    fn last_us(&self) -> u64 {
        self.pieces.back().map_or(0, |(due_us, _)| *due_us)
    }

    fn queued(&self) -> usize {
        self.pieces.iter().map(|(_, piece)| piece.len()).sum::<usize>() + self.arrived.len()
    }

    fn wake(&mut self) {
        let all = [self.reader.take(), self.writer.take()];
        all.into_iter().flatten().for_each(Waker::wake);
    }

    /// Moves what has arrived by now; says when the next piece does.
    fn arrive(&mut self, shard: &VirtualShard) -> Option<u64> {
        let stalled_us = shard.net().stalled_us(self.hosts);
        loop {
            let due_us = self.pieces.front()?.0.max(stalled_us);
            if due_us > shard.now() {
                return Some(due_us);
            }
            let (_, piece) = self.pieces.pop_front()?;
            self.arrived.extend(piece);
        }
    }
}

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct VirtualStream {
    into: Rc<RefCell<Flow>>,
    out: Rc<RefCell<Flow>>,
    pub(crate) local_addr: SocketAddr,
    pub(crate) peer_addr: SocketAddr,
    number: i32,
}

/// An address that is listened on.
#[derive(Debug)]
pub(crate) struct VirtualListener {
    door: Rc<RefCell<Door>>,
    pub(crate) local_addr: SocketAddr,
}

/// Until `us` nothing arrives at a host, nor from there.
pub fn stall(host: IpAddr, until_us: u64) {
    let Some(shard) = current() else { return };
    shard.net().0.borrow_mut().stalls_us.insert(host, until_us);
}

/// A host's name is its address behind `host-`; one in four questions is not answered.
pub(crate) fn look_up(name: &str) -> io::Result<Vec<IpAddr>> {
    let is_lost = current().is_some_and(|shard| shard.roll(4) == 0);
    let address = name.strip_prefix("host-").filter(|_| !is_lost);
    let address = address.and_then(|address| address.parse().ok());
    address.map(|address| vec![address]).ok_or_else(|| ErrorKind::NotFound.into())
}

/// Ends the connections between two hosts. What one had sent and the other not got is gone, or arrives
/// all the same.
pub fn cut(between: (IpAddr, IpAddr), arrives: bool) {
    let Some(shard) = current() else { return };
    let state = shard.net().0.borrow_mut();
    let is_meant = |hosts: (IpAddr, IpAddr)| hosts == between || (hosts.1, hosts.0) == between;
    let flows: Vec<_> = state.flows.iter().filter_map(Weak::upgrade).collect();
    drop(state);
    for flow in flows.iter().filter(|flow| is_meant(flow.borrow().hosts)) {
        let mut flow = flow.borrow_mut();
        flow.is_reset.1 = true;
        if arrives {
            let late_us = shard.roll(LATE_US[shard.roll(LATE_US.len() as u64) as usize]);
            flow.pieces.iter_mut().for_each(|(due_us, _)| *due_us += late_us);
            let last_us = flow.last_us();
            flow.ends_us.get_or_insert(last_us.max(shard.now()));
        } else {
            flow.is_reset.0 = true;
            flow.pieces.clear();
        }
        flow.wake();
    }
}

impl Net {
    fn stalled_us(&self, (from, to): (IpAddr, IpAddr)) -> u64 {
        let state = self.0.borrow();
        let until = |host| state.stalls_us.get(&host).copied().unwrap_or(0);
        until(from).max(until(to))
    }

    fn latency_us(&self, shard: &VirtualShard, from: IpAddr, to: IpAddr) -> u64 {
        if from == to {
            return LATENCIES_US[0];
        }
        let mut state = self.0.borrow_mut();
        let pair = (from.min(to), from.max(to));
        let roll = || LATENCIES_US[shard.roll(LATENCIES_US.len() as u64) as usize];
        *state.latencies_us.entry(pair).or_insert_with(roll)
    }

    fn flow(&self, from: IpAddr, to: IpAddr, latency_us: u64) -> Rc<RefCell<Flow>> {
        let flow = Rc::new(RefCell::new(Flow::new((from, to), latency_us)));
        let flows = &mut self.0.borrow_mut().flows;
        flows.retain(|flow| flow.strong_count() > 0);
        flows.push(Rc::downgrade(&flow));
        flow
    }

    /// What of a connection's bytes has not arrived.
    pub(crate) fn unread(&self, number: i32) -> io::Result<u64> {
        let state = self.0.borrow();
        let flow = state.flows.iter().find(|flow| number_of(flow) == number);
        let flow = flow.and_then(Weak::upgrade);
        let flow = flow.ok_or_else(|| io::Error::from(ErrorKind::NotConnected))?;
        let pieces = &flow.borrow().pieces;
        Ok(pieces.iter().map(|(_, piece)| piece.len() as u64).sum())
    }
}

/// Tells flows apart; never that of a descriptor.
fn number_of(flow: &Weak<RefCell<Flow>>) -> i32 {
    -2 - (flow.as_ptr().addr() >> 4 & 0x3FFF_FFFF) as i32
}

impl VirtualListener {
    pub(crate) fn bind(addr: SocketAddr) -> io::Result<Self> {
        let shard = current().expect("within a virtual shard");
        let mut state = shard.net().0.borrow_mut();
        if state.doors.contains_key(&addr) {
            return Err(ErrorKind::AddrInUse.into());
        }
        let door = Rc::default();
        state.doors.insert(addr, Rc::clone(&door));
        Ok(Self { door, local_addr: addr })
    }

    pub(crate) fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<VirtualStream> {
        let Some(shard) = current() else { return Poll::Pending };
        let mut door = self.door.borrow_mut();
        match door.waiting.front() {
            Some((due_us, _)) if *due_us <= shard.now() => {
                let (_, stream) = door.waiting.pop_front().expect("it is there");
                return Poll::Ready(stream);
            }
            Some((due_us, _)) => shard.wake_at(*due_us, cx.waker()),
            None => {}
        }
        door.waiter = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for VirtualListener {
    fn drop(&mut self) {
        if let Some(shard) = current() {
            shard.net().0.borrow_mut().doors.remove(&self.local_addr);
        }
    }
}

impl VirtualStream {
    pub(crate) async fn connect(to: SocketAddr, timeout: Duration) -> io::Result<Self> {
        let shard = current().expect("within a virtual shard");
        let here = shard.address();
        let latency_us = shard.net().latency_us(&shard, here, to.ip());
        let stalled_us = shard.net().stalled_us((here, to.ip()));
        let timeout_us = shard.now() + timeout.as_micros() as u64;
        let due_us = stalled_us.max(shard.now()) + 2 * latency_us + shard.roll(50);
        Event::new().wait_until(due_us.min(timeout_us)).await;
        if due_us > timeout_us {
            return Err(ErrorKind::TimedOut.into());
        }
        let net = shard.net();
        let door = net.0.borrow().doors.get(&to).cloned();
        let door = door.ok_or_else(|| io::Error::from(ErrorKind::ConnectionRefused))?;
        let mut state = net.0.borrow_mut();
        state.connected = state.connected.wrapping_add(1) % (u16::MAX - PORT_FIRST);
        let local_addr = SocketAddr::new(here, PORT_FIRST + state.connected);
        drop(state);
        let there = net.flow(here, to.ip(), latency_us);
        let back = net.flow(to.ip(), here, latency_us);
        let end = |into: &Rc<RefCell<Flow>>, out: &Rc<RefCell<Flow>>, local_addr, peer_addr| Self {
            into: Rc::clone(into),
            out: Rc::clone(out),
            local_addr,
            peer_addr,
            number: number_of(&Rc::downgrade(out)),
        };
        let mut door = door.borrow_mut();
        door.waiting.push_back((shard.now() + latency_us, end(&there, &back, to, local_addr)));
        if let Some(waiter) = door.waiter.take() {
            waiter.wake();
        }
        Ok(end(&back, &there, local_addr, to))
    }

    /// Its number, in the place of a descriptor's.
    pub(crate) const fn number(&self) -> i32 {
        self.number
    }

    pub(crate) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let Some(shard) = current() else { return Poll::Ready(Ok(0)) };
        let mut flow = self.into.borrow_mut();
        if flow.is_left {
            return Poll::Ready(Ok(0));
        }
        if flow.is_reset.0 {
            return Poll::Ready(Err(ErrorKind::ConnectionReset.into()));
        }
        let next_us = flow.arrive(&shard);
        let mut count = flow.arrived.len().min(buffer.len());
        if count > 0 {
            if shard.roll(8) == 0 {
                count = 1 + shard.roll(count as u64) as usize;
            }
            let (first, rest) = flow.arrived.as_slices();
            let split = first.len().min(count);
            buffer[..split].copy_from_slice(&first[..split]);
            buffer[split..count].copy_from_slice(&rest[..count - split]);
            flow.arrived.drain(..count);
            if let Some(writer) = flow.writer.take() {
                writer.wake();
            }
            return Poll::Ready(Ok(count));
        }
        let next_us = match (next_us, flow.ends_us) {
            (None, Some(due_us)) if due_us <= shard.now() => return Poll::Ready(Ok(0)),
            (next_us, ends_us) => next_us.or(ends_us),
        };
        shard.wake_at(next_us.unwrap_or(u64::MAX), cx.waker());
        flow.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    pub(crate) fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Some(shard) = current() else { return Poll::Pending };
        let mut flow = self.out.borrow_mut();
        if flow.is_reset.1 {
            return Poll::Ready(Err(ErrorKind::ConnectionReset.into()));
        }
        if flow.is_left || flow.ends_us.is_some() {
            return Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
        }
        let room = PIPE_BYTES.saturating_sub(flow.queued());
        let count = room.min(bytes.len());
        if count == 0 {
            flow.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let due_us = shard.now() + flow.latency_us + shard.roll(10 + flow.latency_us / 8);
        let due_us = due_us.max(flow.last_us());
        // It may arrive in two.
        let first = if shard.roll(8) == 0 { shard.roll(count as u64) as usize } else { count };
        let later_us = due_us + shard.roll(100);
        for (due_us, piece) in [(due_us, &bytes[..first]), (later_us, &bytes[first..count])] {
            if !piece.is_empty() {
                flow.pieces.push_back((due_us, piece.to_vec()));
            }
        }
        if let Some(reader) = flow.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(count))
    }

    /// Nothing more is written here.
    pub(crate) fn finish(&self) {
        let Some(shard) = current() else { return };
        let mut flow = self.out.borrow_mut();
        if flow.ends_us.is_none() {
            flow.ends_us = Some(flow.last_us().max(shard.now() + flow.latency_us));
            flow.wake();
        }
    }

    /// Nothing more is written nor read here.
    pub(crate) fn shutdown(&self) {
        self.finish();
        let mut flow = self.into.borrow_mut();
        flow.is_left = true;
        flow.wake();
    }

    /// Whether the other side has ended, whatever is still to be read.
    pub(crate) fn has_ended(&self) -> bool {
        let Some(shard) = current() else { return true };
        let mut flow = self.into.borrow_mut();
        let next_us = flow.arrive(&shard);
        let ends = flow.ends_us.is_some_and(|due_us| due_us <= shard.now());
        flow.is_reset.0 || next_us.is_none() && ends
    }
}

impl Drop for VirtualStream {
    fn drop(&mut self) {
        self.shutdown();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::net::{Listener, Socket};
    use crate::virtual_shard::{Process, run};

    const WALL_MS: u64 = 1_700_000_000_000;
    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const THERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));
    const PORT: SocketAddr = SocketAddr::new(THERE, 3000);
    const SOON: Duration = Duration::from_secs(2);

    /// What a host that listens reads of one connection, and how that ended.
    type Heard = Rc<RefCell<(Vec<u8>, Option<ErrorKind>)>>;

    /// Two hosts, of which one sends and then does something; gives what the other one reads.
    fn heard(seed: u64, sends: Vec<u8>, then: impl AsyncFnOnce(&mut Socket)) -> Heard {
        let heard = Heard::default();
        let all = Rc::clone(&heard);
        run(seed, WALL_MS, || async move {
            let ended = Event::new();
            let has_ended = ended.clone();
            Process::start(THERE, async move {
                let listener = Listener::bind(PORT).unwrap();
                let mut socket = listener.accept().await.unwrap();
                assert_eq!(socket.peer_addr().ip(), HERE);
                let mut buffer = [0; 777];
                loop {
                    match socket.read(&mut buffer).await {
                        Ok(0) => break,
                        Ok(count) => all.borrow_mut().0.extend_from_slice(&buffer[..count]),
                        Err(error) => {
                            all.borrow_mut().1 = Some(error.kind());
                            break;
                        }
                    }
                }
                has_ended.set();
            });
            let sent = Rc::new(RefCell::new(None));
            let sender = Rc::clone(&sent);
            let connected = Event::new();
            let is_connected = connected.clone();
            Process::start(HERE, async move {
                let mut socket = loop {
                    if let Ok(socket) = Socket::connect(PORT, SOON).await {
                        break socket;
                    }
                };
                socket.write_all(&sends).await.unwrap();
                *sender.borrow_mut() = Some(socket);
                is_connected.set();
            });
            connected.wait().await;
            let mut socket = sent.take().unwrap();
            then(&mut socket).await;
            drop(socket);
            ended.wait().await;
        });
        heard
    }

    #[test]
    fn bytes_arrive_whole_and_in_order() {
        let sends: Vec<u8> = (0..1_000_000_u32).map(|i| (i * 7 + i / 256) as u8).collect();
        for seed in 1..20 {
            let heard = heard(seed, sends.clone(), async |_| {});
            assert!(*heard.borrow() == (sends.clone(), None), "seed {seed}");
        }
    }

    #[test]
    fn a_cut_takes_what_is_on_its_way_or_lets_it_arrive_late() {
        let sends = vec![7; 100_000];
        let mut lost = 0;
        for seed in 1..40 {
            for arrives in [false, true] {
                let heard = heard(seed, sends.clone(), async |socket| {
                    let cut_us = Clock::real().now();
                    cut((THERE, HERE), arrives);
                    let error = socket.write_all(&[1]).await.unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
                    Event::new().wait_until(cut_us + 1).await;
                });
                let heard = heard.borrow();
                match arrives {
                    true => assert!(*heard == (sends.clone(), None), "seed {seed}"),
                    false => assert_eq!(heard.1, Some(ErrorKind::ConnectionReset)),
                }
                lost += usize::from(heard.0.len() < sends.len());
            }
        }
        assert!(lost > 0, "most is on its way when it is cut");
    }

    #[test]
    fn nothing_arrives_at_a_host_that_stalls_until_it_goes_on() {
        for seed in 1..10 {
            let heard = heard(seed, vec![1], async |socket| {
                let until_us = Clock::real().now() + 30_000_000;
                stall(THERE, until_us);
                let refused = Socket::connect(PORT, SOON).await.unwrap_err();
                assert_eq!(refused.kind(), ErrorKind::TimedOut);
                socket.write_all(&[2]).await.unwrap();
                assert!(socket.write_all(&vec![3; PIPE_BYTES - 2]).await.is_ok());
                assert!(Clock::real().now() < until_us);
                socket.write_all(&[4; 10]).await.unwrap();
                assert!(Clock::real().now() >= until_us, "it was full");
            });
            assert_eq!(heard.borrow().0.len(), PIPE_BYTES + 10, "seed {seed}");
        }
    }
}
