//! TCP over the shard's executor: listen, connect, read, write, shut down.
//!
//! Sockets never wait inside the kernel: each call is tried at once, and only a refusal costs a
//! trip through the reactor. Every socket has Nagle's delay off (a batch is one send), keepalive on,
//! and a limit on unacknowledged data, so that a peer that vanished is noticed within
//! [`DEAD_PEER_AFTER`]. Buffer sizes are left to the kernel: setting one freezes its tuning.
#![expect(unsafe_code, reason = "socket calls and descriptors")]

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpListener as StdListener, ToSocketAddrs};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, RawFd};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_lite::io::{AsyncRead, AsyncWrite};
use glommio::net::{TcpListener, TcpStream};
use glommio::timer::Timer;

use super::turn;
#[cfg(any(test, feature = "testing"))]
use super::{
    virtual_net::{self, VirtualListener, VirtualStream},
    virtual_shard,
};

/// Silence after which a probe is sent.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(5);
/// Between probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(4);
/// Unanswered probes that end a connection.
const KEEPALIVE_PROBES: i32 = 3;
/// A peer that acknowledges nothing for this long is dead.
pub const DEAD_PEER_AFTER: Duration = Duration::from_secs(5 + 3 * 4);

/// The addresses of a host, as the system knows them. Blocks.
pub fn look_up(host: &str) -> io::Result<Vec<IpAddr>> {
    #[cfg(any(test, feature = "testing"))]
    if virtual_shard::is_here() {
        return virtual_net::look_up(host);
    }
    Ok((host, 0).to_socket_addrs()?.map(|at| at.ip()).collect())
}

/// Connections the kernel completes and keeps while nobody accepts.
const BACKLOG: i32 = 4096;

/// Bytes that the kernel takes for an accepted connection beyond those on their way. Without it a
/// peer that does not read has the kernel keep 4 MB for it.
const UNSENT_BYTES_MAX: i32 = 256 << 10;

/// A port that was taken, on its way to the shard that listens there: all ports of a process can be
/// known before any shard starts.
#[derive(Debug)]
pub struct BoundPort {
    inner: Port,
    local_addr: SocketAddr,
}

#[derive(Debug)]
enum Port {
    Real(StdListener),
    #[cfg(any(test, feature = "testing"))]
    Virtual,
}

impl BoundPort {
    /// Takes `addr`; port 0 takes a free one. The address may be one that was in use until a moment
    /// ago, never one that is.
    pub fn bind(addr: SocketAddr) -> io::Result<Self> {
        #[cfg(any(test, feature = "testing"))]
        if virtual_shard::is_here() {
            return Ok(Self { inner: Port::Virtual, local_addr: addr });
        }
        let listener = StdListener::bind(addr)?;
        let local_addr = listener.local_addr()?;
        Ok(Self { inner: Port::Real(listener), local_addr })
    }

    /// The address, with the port that was taken.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Listens, on the current shard.
    pub fn listen(self) -> io::Result<Listener> {
        let Self { inner, local_addr } = self;
        let inner = match inner {
            Port::Real(listener) => {
                // SAFETY: `listener` is an open socket; listening again only changes its backlog.
                check(unsafe { libc::listen(listener.as_raw_fd(), BACKLOG) })?;
                // SAFETY: `into_raw_fd` gave up the descriptor; glommio's listener alone owns it.
                Door::Real(unsafe { TcpListener::from_raw_fd(listener.into_raw_fd()) })
            }
            #[cfg(any(test, feature = "testing"))]
            Port::Virtual => Door::Virtual(VirtualListener::bind(local_addr)?),
        };
        Ok(Listener { inner, local_addr })
    }
}

/// Accepts connections on one address.
#[derive(Debug)]
pub struct Listener {
    inner: Door,
    local_addr: SocketAddr,
}

#[derive(Debug)]
enum Door {
    Real(TcpListener),
    #[cfg(any(test, feature = "testing"))]
    Virtual(VirtualListener),
}

impl Listener {
    /// Listens on `addr`, as [`BoundPort::bind`] takes it.
    pub fn bind(addr: SocketAddr) -> io::Result<Self> {
        BoundPort::bind(addr)?.listen()
    }

    /// The address, with the port that was taken.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Waits for a connection. An error concerns this one: go on accepting.
    pub async fn accept(&self) -> Result<Socket, AcceptError> {
        turn::lasting().await;
        match &self.inner {
            Door::Real(listener) => accept(listener).await,
            #[cfg(any(test, feature = "testing"))]
            Door::Virtual(listener) => {
                Ok(Socket::of_virtual(poll_fn(|cx| listener.poll_accept(cx)).await))
            }
        }
    }
}

async fn accept(listener: &TcpListener) -> Result<Socket, AcceptError> {
    let accepted = listener.accept().await.map_err(io::Error::from);
    let stream = accepted.map_err(AcceptError::of_accept)?;
    let fd = stream.as_raw_fd();
    let socket = Socket::new(stream).map_err(AcceptError::of_peer)?;
    let limited = set_option(fd, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, UNSENT_BYTES_MAX);
    limited.map_err(AcceptError::of_peer)?;
    Ok(socket)
}

/// Why a connection could not be accepted, by what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// The peer took it back before it was accepted, as port scanners and health checks do: go on at
    /// once.
    #[error("the peer has gone before it was accepted")]
    PeerGone,
    /// The process or the system has no descriptor or no memory left for it, or it is unknown what
    /// is wrong: go on after a pause.
    #[error(transparent)]
    Exhausted(io::Error),
}

impl AcceptError {
    /// Of the call that accepts, which also tells of errors already pending on the new connection.
    fn of_accept(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(
                libc::ECONNABORTED
                | libc::ECONNRESET
                | libc::EPROTO
                | libc::EPERM
                | libc::EPIPE
                | libc::ENOTCONN
                | libc::ENETDOWN
                | libc::ENETUNREACH
                | libc::EHOSTDOWN
                | libc::EHOSTUNREACH
                | libc::ENONET
                | libc::ETIMEDOUT,
            ) => Self::PeerGone,
            _ => Self::Exhausted(error),
        }
    }

    /// Of the first look at an accepted connection.
    fn of_peer(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                Self::Exhausted(error)
            }
            _ => Self::PeerGone,
        }
    }
}

/// A connection.
#[derive(Debug)]
pub struct Socket {
    read: ReadHalf,
    write: WriteHalf,
    peer_addr: SocketAddr,
    local_addr: SocketAddr,
}

impl Socket {
    /// Connects within `timeout`.
    pub async fn connect(addr: SocketAddr, timeout: Duration) -> io::Result<Self> {
        #[cfg(any(test, feature = "testing"))]
        if virtual_shard::is_here() {
            return VirtualStream::connect(addr, timeout).await.map(Self::of_virtual);
        }
        // Not `connect_timeout`: its linked timeout is one more completion, which nobody awaits, in
        // the ring whose completions end glommio's turns (see `turn`).
        let mut connect = pin!(TcpStream::connect(addr));
        let mut timer = Timer::new(timeout);
        let stream = poll_fn(|cx| {
            if let Poll::Ready(result) = connect.as_mut().poll(cx) {
                return Poll::Ready(result.map_err(io::Error::from));
            }
            ready!(Pin::new(&mut timer).poll(cx));
            Poll::Ready(Err(ErrorKind::TimedOut.into()))
        })
        .await?;
        Self::new(stream)
    }

    fn new(stream: TcpStream) -> io::Result<Self> {
        // First, since it fails when the peer has gone.
        let peer_addr = stream.peer_addr()?;
        let local_addr = stream.local_addr()?;
        let fd = stream.as_raw_fd();
        let idle_s = KEEPALIVE_IDLE.as_secs() as i32;
        let interval_s = KEEPALIVE_INTERVAL.as_secs() as i32;
        set_option(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
        set_option(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
        set_option(fd, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, idle_s)?;
        set_option(fd, libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, interval_s)?;
        set_option(fd, libc::IPPROTO_TCP, libc::TCP_KEEPCNT, KEEPALIVE_PROBES)?;
        let dead_ms = DEAD_PEER_AFTER.as_millis() as i32;
        set_option(fd, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, dead_ms)?;
        Ok(Self::over(Stream::Real(stream), peer_addr, local_addr))
    }

    fn over(stream: Stream, peer_addr: SocketAddr, local_addr: SocketAddr) -> Self {
        let stream = Rc::new(RefCell::new(stream));
        let (read, write) = (ReadHalf(Rc::clone(&stream)), WriteHalf(stream));
        Self { read, write, peer_addr, local_addr }
    }

    #[cfg(any(test, feature = "testing"))]
    fn of_virtual(stream: VirtualStream) -> Self {
        let VirtualStream { peer_addr, local_addr, .. } = stream;
        Self::over(Stream::Virtual(stream), peer_addr, local_addr)
    }

    /// The other side.
    pub fn peer_addr(&self) -> SocketAddr {
        self.peer_addr
    }

    /// This side, as the other side reached it.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Both directions, for two tasks. The connection closes when both halves are dropped; either
    /// can end it for both with `shutdown`.
    pub fn split(self) -> (ReadHalf, WriteHalf) {
        (self.read, self.write)
    }

    /// Reads what has come, waiting for the first byte. 0 means that the peer has ended.
    pub async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read.read(buffer).await
    }

    /// Writes all of `bytes`, waiting for room as needed.
    pub async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write.write_all(bytes).await
    }

    /// Ends both directions at once: pending and later reads give 0 or what had come before,
    /// writes fail.
    pub fn shutdown(&self) {
        self.read.shutdown();
    }
}

/// Both halves share one descriptor. It is borrowed within a poll only, never across an await.
type Shared = Rc<RefCell<Stream>>;

#[derive(Debug)]
enum Stream {
    Real(TcpStream),
    #[cfg(any(test, feature = "testing"))]
    Virtual(VirtualStream),
}

impl Stream {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Real(stream) => Pin::new(stream).poll_read(cx, buffer),
            #[cfg(any(test, feature = "testing"))]
            Self::Virtual(stream) => stream.poll_read(cx, buffer),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Real(stream) => Pin::new(stream).poll_write(cx, bytes),
            #[cfg(any(test, feature = "testing"))]
            Self::Virtual(stream) => stream.poll_write(cx, bytes),
        }
    }

    fn has_ended(&self) -> bool {
        match self {
            Self::Real(stream) => has_ended(stream.as_raw_fd()),
            #[cfg(any(test, feature = "testing"))]
            Self::Virtual(stream) => stream.has_ended(),
        }
    }

    fn finish(&self) {
        match self {
            Self::Real(stream) => shutdown(stream.as_raw_fd(), libc::SHUT_WR),
            #[cfg(any(test, feature = "testing"))]
            Self::Virtual(stream) => stream.finish(),
        }
    }

    fn shutdown(&self) {
        match self {
            Self::Real(stream) => shutdown(stream.as_raw_fd(), libc::SHUT_RDWR),
            #[cfg(any(test, feature = "testing"))]
            Self::Virtual(stream) => stream.shutdown(),
        }
    }

    fn number(&self) -> RawFd {
        match self {
            Self::Real(stream) => stream.as_raw_fd(),
            #[cfg(any(test, feature = "testing"))]
            Self::Virtual(stream) => stream.number(),
        }
    }
}

/// The receiving side of a connection.
#[derive(Debug)]
pub struct ReadHalf(Shared);

impl ReadHalf {
    /// Reads what has come, waiting for the first byte. 0 means that the peer has ended, or somebody
    /// here shut the connection down. One system call per call when there is something to read: a
    /// large buffer is the way to few calls.
    pub async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        turn::lasting().await;
        poll_fn(|cx| self.0.borrow_mut().poll_read(cx, buffer)).await
    }

    /// Whether the peer has ended its side, or the connection has failed, whatever is still to be
    /// read. One system call.
    pub fn has_ended(&self) -> bool {
        self.0.borrow().has_ended()
    }

    /// Ends both directions of the connection, whoever waits on it.
    pub fn shutdown(&self) {
        self.0.borrow().shutdown();
    }
}

/// The sending side of a connection.
#[derive(Debug)]
pub struct WriteHalf(Shared);

impl WriteHalf {
    /// Writes all of `bytes`, waiting for room as needed.
    pub async fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            turn::lasting().await;
            let stream = &self.0;
            match poll_fn(|cx| stream.borrow_mut().poll_write(cx, bytes)).await? {
                0 => return Err(ErrorKind::WriteZero.into()),
                written => bytes = &bytes[written..],
            }
        }
        Ok(())
    }

    /// Tells the peer that nothing more comes; what it sends can still be read. Closing a connection
    /// with unread bytes resets it, and the kernel drops what was not sent yet.
    pub fn finish(&self) {
        self.0.borrow().finish();
    }

    /// Ends both directions of the connection, whoever waits on it.
    pub fn shutdown(&self) {
        self.0.borrow().shutdown();
    }

    /// Tells how much of what was written the peer has not acknowledged.
    pub fn send_queue(&self) -> SendQueue {
        SendQueue(self.0.borrow().number())
    }
}

/// A look at what a connection's peer has not acknowledged. Of use while the connection is open.
#[derive(Clone, Copy, Debug)]
pub struct SendQueue(RawFd);

impl SendQueue {
    /// Bytes written here and not acknowledged by the peer's system.
    pub fn bytes(self) -> io::Result<u64> {
        #[cfg(any(test, feature = "testing"))]
        if let Some(shard) = virtual_shard::current() {
            return shard.net().unread(self.0);
        }
        let mut bytes: libc::c_int = 0;
        // SAFETY: the kernel writes one int, which lives on this stack until the call returns. On a
        // descriptor closed or given to something else meanwhile the call fails or tells a number
        // that means nothing.
        check(unsafe { libc::ioctl(self.0, libc::TIOCOUTQ, &raw mut bytes) })?;
        Ok(u64::try_from(bytes).unwrap_or(0))
    }
}

fn has_ended(fd: RawFd) -> bool {
    let mut ask = libc::pollfd { fd, events: libc::POLLRDHUP, revents: 0 };
    // SAFETY: the kernel reads and writes one pollfd, which lives on this stack until the call
    // returns; it does not wait.
    check(unsafe { libc::poll(&raw mut ask, 1, 0) }).is_ok() && ask.revents != 0
}

fn shutdown(fd: RawFd, how: i32) {
    // SAFETY: no memory is passed; on a bad descriptor the call only fails. A connection that is
    // already gone needs no shutdown, so the result says nothing.
    unsafe { libc::shutdown(fd, how) };
}

fn set_option(fd: RawFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    let size = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the kernel reads `size` bytes at `value`, which lives on this stack until it returns.
    check(unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), size) })
}

fn check(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;
    use crate::shard::{Queue, ShardSpec, spawn, spawn_shard};

    const SOON: Duration = Duration::from_secs(5);

    fn on_a_shard<F: Future<Output = ()> + 'static>(body: impl FnOnce() -> F + Send + 'static) {
        let spec = ShardSpec { index: 0, core: None, name: "shard-0".into() };
        spawn_shard(spec, body).unwrap().join();
    }

    async fn pair() -> (Socket, Socket) {
        let listener = Listener::bind(([127, 0, 0, 1], 0).into()).unwrap();
        let here = Socket::connect(listener.local_addr(), SOON).await.unwrap();
        (here, listener.accept().await.unwrap())
    }

    #[test]
    fn bytes_arrive_whole_and_in_order_whatever_the_sizes() {
        on_a_shard(|| async {
            let (mut here, mut there) = pair().await;
            let sent: Vec<u8> = (0..3_000_000u32).map(|i| (i * 7 + i / 256) as u8).collect();
            let expected = sent.clone();
            let done = Event::new();
            let all_sent = done.clone();
            spawn(Queue::Sockets, async move {
                for piece in sent.chunks(77_777) {
                    here.write_all(piece).await.unwrap();
                }
                all_sent.set();
            });
            let mut received = Vec::new();
            let mut buffer = vec![0; 64 << 10];
            loop {
                match there.read(&mut buffer).await.unwrap() {
                    0 => break,
                    n => received.extend_from_slice(&buffer[..n]),
                }
            }
            done.wait().await;
            assert!(received == expected);
        });
    }

    #[test]
    fn shutdown_of_one_half_ends_pending_reads_and_writes_on_both_sides() {
        on_a_shard(|| async {
            let (here, mut there) = pair().await;
            let (mut read, mut write) = here.split();
            let ended = Event::new();
            let read_ended = ended.clone();
            spawn(Queue::Sockets, async move {
                assert_eq!(read.read(&mut [0; 16]).await.unwrap(), 0);
                read_ended.set();
            });
            let filled = Event::new();
            let write_failed = filled.clone();
            let (mut blocked_read, mut blocked_write) = {
                let (other, kept) = pair().await;
                std::mem::forget(kept);
                other.split()
            };
            let (stop, stopped) = (blocked_read_fd(&blocked_read), filled);
            spawn(Queue::Sockets, async move {
                let big = vec![0; 64 << 20];
                assert!(blocked_write.write_all(&big).await.is_err());
                write_failed.set();
            });
            crate::shard::yield_now().await;
            write.write_all(b"x").await.unwrap();
            write.shutdown();
            ended.wait().await;
            shutdown(stop, libc::SHUT_RDWR);
            stopped.wait().await;
            assert_eq!(blocked_read.read(&mut [0; 16]).await.unwrap(), 0);
            assert_eq!(there.read(&mut [0; 16]).await.unwrap(), 1);
            assert_eq!(there.read(&mut [0; 16]).await.unwrap(), 0);
            assert!(write.write_all(b"x").await.is_err());
        });
    }

    fn blocked_read_fd(half: &ReadHalf) -> RawFd {
        half.0.borrow().number()
    }

    #[test]
    fn a_thousand_connections_that_wake_at_once_are_all_served() {
        const CONNECTIONS: usize = 1000;
        let (send_addr, addr) = std::sync::mpsc::channel();
        let spec = ShardSpec { index: 0, core: None, name: "shard-0".into() };
        let server = spawn_shard(spec, move || async move {
            let listener = Listener::bind(([127, 0, 0, 1], 0).into()).unwrap();
            send_addr.send(listener.local_addr()).unwrap();
            for _ in 0..CONNECTIONS {
                let mut socket = listener.accept().await.unwrap();
                spawn(Queue::Sockets, async move {
                    let mut buffer = [0; 16];
                    while let Ok(n @ 1..) = socket.read(&mut buffer).await {
                        socket.write_all(&buffer[..n]).await.unwrap();
                    }
                });
            }
            // The client ends the last connection when all have been answered.
            let mut last = listener.accept().await.unwrap();
            assert_eq!(last.read(&mut [0; 1]).await.unwrap(), 0);
        });
        let addr = addr.recv().unwrap();
        on_a_shard(move || async move {
            let mut sockets = Vec::new();
            for _ in 0..CONNECTIONS {
                sockets.push(Socket::connect(addr, SOON).await.unwrap());
            }
            let last = Socket::connect(addr, SOON).await.unwrap();
            for round in 0..3 {
                for socket in &mut sockets {
                    socket.write_all(&[round]).await.unwrap();
                }
                for socket in &mut sockets {
                    let mut reply = [0];
                    assert_eq!(socket.read(&mut reply).await.unwrap(), 1);
                    assert_eq!(reply, [round]);
                }
            }
            last.shutdown();
        });
        server.unwrap().join();
    }

    #[test]
    fn a_connection_takes_one_descriptor() {
        on_a_shard(|| async {
            let open = || std::fs::read_dir("/proc/thread-self/fd").unwrap().count();
            let listener = Listener::bind(([127, 0, 0, 1], 0).into()).unwrap();
            let addr = listener.local_addr();
            let mut kept = Vec::new();
            let before = open();
            for _ in 0..50 {
                kept.push(Socket::connect(addr, SOON).await.unwrap().split());
                kept.push(listener.accept().await.unwrap().split());
            }
            // Other tests of this process open and close a few meanwhile.
            let each = (open() - before) as f64 / kept.len() as f64;
            assert!(each < 1.5, "{each} descriptors a connection");
        });
    }

    #[test]
    fn a_peer_that_resets_before_it_is_accepted_is_told_apart() {
        on_a_shard(|| async {
            let listener = Listener::bind(([127, 0, 0, 1], 0).into()).unwrap();
            let peer = std::net::TcpStream::connect(listener.local_addr()).unwrap();
            let linger = libc::linger { l_onoff: 1, l_linger: 0 };
            let size = size_of::<libc::linger>() as libc::socklen_t;
            // SAFETY: the kernel reads `size` bytes at `linger`, which lives until it returns.
            check(unsafe {
                let (level, name) = (libc::SOL_SOCKET, libc::SO_LINGER);
                libc::setsockopt(peer.as_raw_fd(), level, name, (&raw const linger).cast(), size)
            })
            .unwrap();
            drop(peer);
            assert!(matches!(listener.accept().await, Err(AcceptError::PeerGone)));
            let mut next = Socket::connect(listener.local_addr(), SOON).await.unwrap();
            let mut there = listener.accept().await.unwrap();
            next.write_all(b"x").await.unwrap();
            assert_eq!(there.read(&mut [0; 4]).await.unwrap(), 1);
        });
    }

    #[test]
    fn what_was_written_before_finish_arrives_although_the_peer_goes_on_sending() {
        on_a_shard(|| async {
            let (here, mut there) = pair().await;
            there.write_all(&[1; 1000]).await.unwrap();
            let (mut read, mut write) = here.split();
            write.write_all(b"last words").await.unwrap();
            write.finish();
            there.write_all(&[2; 1000]).await.unwrap();
            let mut taken = 0;
            while taken < 2000 {
                taken += read.read(&mut [0; 300]).await.unwrap();
            }
            let mut words = [0; 100];
            assert_eq!(there.read(&mut words).await.unwrap(), 10);
            assert_eq!(there.read(&mut words).await.unwrap(), 0);
            assert_eq!(write.send_queue().bytes().unwrap(), 0);
        });
    }

    #[test]
    fn an_address_that_does_not_answer_is_a_timeout() {
        on_a_shard(|| async {
            // Its queue of one is full, so the kernel drops further handshakes.
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            // SAFETY: an open socket; no memory is passed.
            check(unsafe { libc::listen(listener.as_raw_fd(), 0) }).unwrap();
            let addr = listener.local_addr().unwrap();
            let _first = Socket::connect(addr, SOON).await.unwrap();
            let error = loop {
                match Socket::connect(addr, Duration::from_millis(20)).await {
                    Ok(more) => std::mem::forget(more),
                    Err(error) => break error,
                }
            };
            assert_eq!(error.kind(), ErrorKind::TimedOut);
        });
    }

    #[test]
    fn a_refused_connection_is_an_error_of_that_kind() {
        on_a_shard(|| async {
            let listener = Listener::bind(([127, 0, 0, 1], 0).into()).unwrap();
            let addr = listener.local_addr();
            let taken = Listener::bind(addr).unwrap_err();
            assert_eq!(taken.kind(), ErrorKind::AddrInUse);
            drop(listener);
            let error = Socket::connect(addr, SOON).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        });
    }
}
