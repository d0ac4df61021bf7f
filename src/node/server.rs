//! What the connections of one shard share: who the shard is, its records, its fence, the way to
//! other shards; and the listener that makes connections.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use tracing::{debug, warn};

use crate::config::Config;
use crate::host::Host;
use crate::info::{Admin, Answer};
use crate::model::Tick;
use crate::rt::clock::Clock;
use crate::rt::event::Event;
use crate::rt::net::Listener;
use crate::rt::shard::{Queue, spawn};
use crate::storage::flush;
use crate::wire::info::Command;

use super::execute::{Records, Submit};
use super::guard::Guard;
use super::handover::Desk;
use super::hello::{Fence, Leave, Lifeline};
use super::info::Identity;
use super::serve::Connection;

/// Room for the fields of a request and for operations that store nothing.
const MESSAGE_OVERHEAD_BYTES: usize = 1 << 20;
/// Pause after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE_US: u64 = 10_000;
/// How long connections that were cut off at a stop may take to end.
const CUT_MS: u64 = 250;

/// Answers info commands the server knows nothing of: configuration and shipping.
pub trait Ask: 'static {
    /// The answer; `None` for an unknown command.
    fn ask(&self, command: &Command<'_>) -> Option<Answer>;
}

impl<H: Host> Ask for Admin<H> {
    fn ask(&self, command: &Command<'_>) -> Option<Answer> {
        self.answer(command)
    }
}

/// What this process tells shippers in answer to their hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// Drawn anew at every start.
    pub boot: u64,
    /// How far back acknowledged writes may be lost in a crash, in ms; see
    /// [`flush::loss_window_ms`].
    pub loss_window_ms: u64,
}

impl Greeting {
    /// Of a process started with `config`.
    pub fn of(config: &Config, boot: u64) -> Self {
        let namespaces = config.namespaces.iter();
        let windows = namespaces.map(|namespace| flush::loss_window_ms(&namespace.storage));
        Self { boot, loss_window_ms: windows.max().unwrap_or(0) }
    }
}

/// Bounds of one shard's server.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Client connections at most.
    pub connections_max: usize,
    /// Largest data message taken; see [`super::inbox`].
    pub message_bytes_max: usize,
}

impl Limits {
    /// Of each of `shard_count` shards.
    pub fn of(config: &Config, shard_count: u16) -> Self {
        let records = config.namespaces.iter().map(|namespace| namespace.max_record_size as usize);
        Self {
            connections_max: config.service.proto_fd_max.div_ceil(shard_count.into()) as usize,
            message_bytes_max: records.max().unwrap_or(0) + MESSAGE_OVERHEAD_BYTES,
        }
    }
}

/// One shard's server.
pub struct Server<S> {
    /// Who the shard is.
    pub identity: Identity,
    /// Its records.
    pub records: Rc<Records<S>>,
    /// The way to the others.
    pub desk: Rc<Desk>,
    /// Who may change the node.
    pub guard: Guard,
    /// Which shipping connections are current.
    pub fence: Rc<Fence>,
    /// What shippers are told.
    pub greeting: Greeting,
    /// Answers the rest of the info commands.
    pub ask: Box<dyn Ask>,
    /// Bounds.
    pub limits: Limits,
    /// The connections there are.
    pub connections: Connections,
}

/// The connections of a shard.
#[derive(Debug, Default)]
pub struct Connections {
    lines: RefCell<HashMap<u64, Rc<Lifeline>>>,
    opened: Cell<u64>,
    stopping: Cell<bool>,
    stop: Event,
    none_left: Event,
}

impl Connections {
    /// Connections now.
    pub fn count(&self) -> usize {
        self.lines.borrow().len()
    }

    /// Connections ever.
    pub fn opened(&self) -> u64 {
        self.opened.get()
    }

    fn add(&self) -> (u64, Rc<Lifeline>) {
        let id = self.opened.get();
        self.opened.set(id + 1);
        let line = Rc::new(Lifeline::default());
        self.lines.borrow_mut().insert(id, Rc::clone(&line));
        (id, line)
    }

    fn remove(&self, id: u64) {
        let mut lines = self.lines.borrow_mut();
        lines.remove(&id);
        if lines.is_empty() {
            self.none_left.set();
        }
    }

    /// Takes no connection and no request any more, and waits until every request taken has been
    /// answered. At `deadline` whoever does not take its answers is cut off; what then still waits,
    /// for a device that is slow, is not waited for much longer.
    pub async fn stop(&self, deadline: Tick) {
        self.stopping.set(true);
        self.stop.set();
        self.lines.borrow().values().for_each(|line| line.narrow(Leave::Stop));
        while self.count() > 0 {
            let left = self.none_left.wait_until(deadline.0).await;
            if !left && Clock::real().now() >= deadline.0 {
                break;
            }
        }
        self.lines.borrow().values().for_each(|line| line.narrow(Leave::Fenced));
        let deadline = deadline.plus_ms(CUT_MS);
        while self.count() > 0 {
            let left = self.none_left.wait_until(deadline.0).await;
            if !left && Clock::real().now() >= deadline.0 {
                warn!("{} connections ended without their answers", self.count());
                break;
            }
        }
    }
}

impl<S: Submit> Server<S> {
    /// Accepts connections until [`Connections::stop`].
    pub async fn listen(self: Rc<Self>, listener: Listener) {
        let connections = &self.connections;
        loop {
            let stopped = async {
                connections.stop.wait().await;
                None
            };
            let accepted = async { Some(listener.accept().await) };
            let socket = match futures_lite::future::or(stopped, accepted).await {
                Some(_) if connections.stopping.get() => return,
                None => return,
                Some(Ok(socket)) => socket,
                Some(Err(error)) => {
                    warn!("cannot accept a connection: {error}");
                    connections.stop.wait_until(Clock::real().now() + ACCEPT_PAUSE_US).await;
                    continue;
                }
            };
            if connections.count() >= self.limits.connections_max {
                warn!(
                    "{} refused: {} connections, the most this shard takes (proto-fd-max)",
                    socket.peer_addr(),
                    self.limits.connections_max
                );
                continue;
            }
            let server = Rc::clone(&self);
            let (id, line) = connections.add();
            spawn(Queue::Sockets, async move {
                let peer = socket.peer_addr();
                if let Err(reason) = Connection::new(&server, socket, &line).run().await {
                    debug!("connection of {peer} ended: {reason}");
                }
                line.end();
                server.connections.remove(id);
            });
        }
    }
}
