//! The server of the client protocol: sockets, frames, order, budgets.
//!
//! In the order of a request:
//!
//! | file | what happens there |
//! |---|---|
//! | this one | what the connections of a shard share: who the shard is, its service, its fence, the way to other shards; the listener |
//! | `serve` | one connection: requests in, replies out, in order, one send per batch |
//! | `service` | what carries the requests out, as the server sees it |
//! | `received` | the receive buffer, cut into frames |
//! | `line` | the requests of a connection that are waited for |
//! | `turnstile` | a bound on bytes: who wants more than is left waits in line |
//! | `work` | how much is done between two turns |
//! | `memory` | what all connections may hold together, and who is closed when it runs short |
//! | `handover` | requests for partitions of other shards |
//! | `commands` | info commands about the connection they come by |
//! | `guard` | who may change the node, and the record of who did |
//! | `hello` | the fence between an older and a newer connection of one shipper |

pub(crate) mod commands;
pub mod guard;
pub mod handover;
pub mod hello;
pub mod line;
pub mod memory;
pub mod received;
pub mod serve;
pub mod service;
pub mod turnstile;
mod work;

#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use tracing::{debug, warn};

use crate::config::Config;
use crate::limits::MESSAGE_OVERHEAD_BYTES;
use longship::info::Answer;
use longship::model::Tick;
use longship::wire::hello::NamespaceStore;
use longship::wire::info::Command;
use longship_rt::clock::Clock;
use longship_rt::event::Event;
use longship_rt::metrics::LogLimit;
use longship_rt::net::{AcceptError, Listener};
use longship_rt::shard::{Queue, spawn};

use self::guard::Guard;
use self::handover::Desk;
use self::hello::{Fence, Leave, Lifeline};
use self::memory::{Care, Holding, LOOK_EVERY_US, Memory};
use self::serve::Connection;
use self::service::Service;

/// Pause after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE_US: u64 = 50_000;
/// How long connections that were cut off at a stop may take to end.
const CUT_MS: u64 = 250;

/// Between two looks of the service at what nobody asks for.
const LOOK_AROUND_EVERY_US: u64 = 1_000_000;

static CANNOT_ACCEPT: LogLimit = LogLimit::every_s(10);
static TOO_MANY: LogLimit = LogLimit::every_s(10);
static TOO_SLOW: LogLimit = LogLimit::every_s(10);

/// Answers info commands, but for those that are about their own connection.
pub trait Ask: 'static {
    /// Whether a command changes the node, so that not everybody may give it.
    fn changes_state(&self, command: &Command<'_>) -> bool;

    /// The answer; `None` for an unknown command.
    fn ask(&self, command: &Command<'_>, asker: &Asker, traffic: &Traffic) -> Option<Answer>;
}

/// What is known about the connection a command came by.
#[derive(Clone, Copy, Debug)]
pub struct Asker {
    /// The address it reached this node at.
    pub local: IpAddr,
    /// Where it came from.
    pub peer: SocketAddr,
}

/// What a server has to do now.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traffic {
    /// Connections there are.
    pub connections: u64,
    /// Connections there ever were.
    pub connections_opened: u64,
    /// Memory of requests that are not whole.
    pub request_bytes: u64,
    /// Memory of replies that were not read.
    pub reply_bytes: u64,
    /// Requests that other shards answer.
    pub handed_over: u64,
}

/// What this process tells shippers in answer to their hello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// Drawn anew at every start.
    pub boot: u64,
    /// How far back acknowledged writes may be lost in a crash, in ms.
    pub loss_window_ms: u64,
    /// Its namespaces.
    pub stores: Vec<NamespaceStore>,
}

/// Bounds of one shard's server.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Client connections at most.
    pub connections_max: usize,
    /// Largest data message taken; see [`crate::server::received`].
    pub message_bytes_max: usize,
}

impl Limits {
    /// Of each of `shard_count` shards, which together take `connections_max` connections.
    pub fn of(config: &Config, connections_max: u32, shard_count: u16) -> Self {
        let records = config.namespaces.iter().map(|namespace| namespace.max_record_size as usize);
        Self {
            connections_max: connections_max.div_ceil(shard_count.into()) as usize,
            message_bytes_max: records.max().unwrap_or(0) + MESSAGE_OVERHEAD_BYTES,
        }
    }
}

/// One shard's server.
pub struct Server<S> {
    /// Who the shard is to clients: its node id.
    pub node: String,
    /// What carries out its requests.
    pub service: Rc<S>,
    /// The way to the others.
    pub desk: Rc<Desk>,
    /// Who may change the node.
    pub guard: Guard,
    /// Which shipping connections are current.
    pub fence: Rc<Fence>,
    /// What shippers are told.
    pub greeting: Greeting,
    /// Answers info commands.
    pub ask: Box<dyn Ask>,
    /// Bounds.
    pub limits: Limits,
    /// The connections there are.
    pub connections: Connections,
}

/// The connections of a shard.
#[derive(Debug)]
pub struct Connections {
    all: RefCell<BTreeMap<u64, Rc<Tie>>>,
    opened: Cell<u64>,
    stopping: Cell<bool>,
    stop: Event,
    none_left: Event,
    memory: Memory,
    /// Some connection holds memory of the pools.
    held: Event,
}

/// What a connection's task and the rest of the shard share.
#[derive(Debug, Default)]
pub struct Tie {
    /// What the task may still do.
    pub life: Rc<Lifeline>,
    /// What memory it holds.
    pub holding: Holding,
}

impl Connections {
    /// None yet; together they hold what `memory` has.
    pub fn new(memory: Memory) -> Self {
        Self {
            all: RefCell::default(),
            opened: Cell::new(0),
            stopping: Cell::new(false),
            stop: Event::new(),
            none_left: Event::new(),
            memory,
            held: Event::new(),
        }
    }

    /// Connections now.
    pub fn count(&self) -> usize {
        self.all.borrow().len()
    }

    /// The memory they share.
    pub const fn memory(&self) -> &Memory {
        &self.memory
    }

    /// A connection begins to hold memory: somebody is to look after it.
    pub fn begins_to_hold(&self) {
        self.held.set();
    }

    /// Looks after the pools while anything is held: closes who is too slow while they are tight,
    /// and has idle connections give back what they do not need.
    async fn look_after_memory(&self) {
        let (clock, never) = (Clock::real(), Event::new());
        loop {
            if !self.look(clock.now()) {
                self.held.wait().await;
            }
            never.wait_until(clock.now() + LOOK_EVERY_US).await;
        }
    }

    /// Whether anything is held.
    fn look(&self, now_us: u64) -> bool {
        let is_tight = self.memory.is_tight();
        let (mut is_held, mut closed) = (false, 0_u64);
        for tie in self.all.borrow().values() {
            is_held |= tie.holding.holds();
            match tie.holding.look(now_us, is_tight) {
                Care::Leave => {}
                Care::Nudge => tie.life.nudge(),
                Care::Close => {
                    tie.life.narrow(Leave::Slow);
                    closed += 1;
                }
            }
        }
        if closed > 0
            && let Some(held_back) = TOO_SLOW.pass(now_us)
        {
            warn!(
                closed,
                held_back,
                "client connections closed: the memory for requests and replies runs short, and \
                 they neither sent the rest of a request nor read a reply for seconds"
            );
        }
        is_held
    }

    fn add(&self) -> (u64, Rc<Tie>) {
        let id = self.opened.get();
        self.opened.set(id + 1);
        let tie = Rc::new(Tie::default());
        self.all.borrow_mut().insert(id, Rc::clone(&tie));
        (id, tie)
    }

    fn remove(&self, id: u64) {
        let mut all = self.all.borrow_mut();
        all.remove(&id);
        if all.is_empty() {
            self.none_left.set();
        }
    }

    /// Takes no connection and no request any more, and waits until every request taken has been
    /// answered. At `deadline` whoever does not take its answers is cut off. What waits for a slow
    /// device then is not waited for much longer.
    pub async fn stop(&self, deadline: Tick) {
        self.stopping.set(true);
        self.stop.set();
        self.narrow_all(Leave::Stop);
        while self.count() > 0 {
            let left = self.none_left.wait_until(deadline.0).await;
            if !left && Clock::real().now() >= deadline.0 {
                break;
            }
        }
        self.narrow_all(Leave::Fenced);
        let deadline = deadline.plus_ms(CUT_MS);
        while self.count() > 0 {
            let left = self.none_left.wait_until(deadline.0).await;
            if !left && Clock::real().now() >= deadline.0 {
                warn!("{} connections ended without their answers", self.count());
                break;
            }
        }
    }

    fn narrow_all(&self, leave: Leave) {
        self.all.borrow().values().for_each(|tie| tie.life.narrow(leave));
    }
}

impl<S: Service> Server<S> {
    /// What there is to do now.
    pub fn traffic(&self) -> Traffic {
        let Connections { memory, opened, .. } = &self.connections;
        Traffic {
            connections: self.connections.count() as u64,
            connections_opened: opened.get(),
            request_bytes: memory.requests.in_use() as u64,
            reply_bytes: memory.replies.in_use() as u64,
            handed_over: self.desk.under_way() as u64,
        }
    }

    /// Accepts connections until [`Connections::stop`].
    pub async fn listen(self: Rc<Self>, listener: Listener) {
        let looking = Rc::clone(&self);
        spawn(Queue::Sockets, async move { looking.connections.look_after_memory().await });
        let server = Rc::clone(&self);
        spawn(Queue::Background, async move {
            let (clock, never) = (Clock::real(), Event::new());
            let mut src_id = server.service.src_id();
            loop {
                never.wait_until(clock.now() + LOOK_AROUND_EVERY_US).await;
                server.service.look_around();
                // Who ships here goes by what its hello was answered.
                let told = std::mem::replace(&mut src_id, server.service.src_id());
                if src_id != told {
                    server.fence.end_all();
                }
            }
        });
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
                Some(Err(AcceptError::PeerGone)) => continue,
                Some(Err(AcceptError::Exhausted(error))) => {
                    let now_us = Clock::real().now();
                    if let Some(held_back) = CANNOT_ACCEPT.pass(now_us) {
                        warn!(held_back, "cannot accept connections, they wait: {error}");
                    }
                    // Set by a stop only, and then seen at the top.
                    if connections.stop.wait_until(now_us + ACCEPT_PAUSE_US).await {
                        return;
                    }
                    continue;
                }
            };
            let connections_max = self.limits.connections_max;
            if connections.count() >= connections_max {
                if let Some(held_back) = TOO_MANY.pass(Clock::real().now()) {
                    warn!(
                        held_back,
                        "{} refused: {connections_max} connections, the most this shard takes \
                         (proto-fd-max, and the limit of open files)",
                        socket.peer_addr(),
                    );
                }
                continue;
            }
            let server = Rc::clone(&self);
            let (id, tie) = connections.add();
            spawn(Queue::Sockets, async move {
                let peer = socket.peer_addr();
                if let Err(reason) = Connection::new(&server, socket, &tie).run().await {
                    debug!("connection of {peer} ended: {reason}");
                }
                tie.life.end();
                server.connections.remove(id);
            });
        }
    }
}
