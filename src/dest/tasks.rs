//! The tasks behind a cluster: one conversation with the seeds, and for each node one conversation
//! (info commands), one sender and one receiver. All live as long as what they serve.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::Deref;
use std::rc::Rc;

use crate::limits::{CAUSE_CHARS_MAX, NODE_COUNT_MAX};
use crate::model::{SrcId, Tick};
use crate::wire::hello::{BOOT, HelloAnswer, STANDING};
use crate::wire::info;
use longship_rt::event::Event;
use longship_rt::metrics::LogBudget;
use longship_rt::shard::{Queue, spawn};

use super::NodeIndex;
use super::arrivals::{Arrivals, NodeEvent, Reboot};
use super::connection::{Connection, now};
use super::fault::Fault;
use super::link::{Link, LinkError, Opened, Patience, open};
use super::losses::Losses;
use super::pipeline::Window;
use super::source::ShipperIdentity;
use super::tend::{Caller, Note, Resolver, Step, Target, Tend};

/// First and longest pause before a connection is tried again.
const PAUSE_MS_MIN: u64 = 50;
const PAUSE_MS_MAX: u64 = 500;
/// Troubles said in the log before they have all ended.
const TOLD_MAX: usize = 8;
/// A connection that held this long starts the pauses over.
const HELD_MS: u64 = 5000;

/// What a cluster's handle and tasks share.
pub(super) struct Inner<B> {
    pub(super) tend: RefCell<Tend>,
    pub(super) arrivals: Rc<Arrivals<B>>,
    /// By index.
    pub(super) nodes: RefCell<Vec<Option<Rc<NodeTasks<B>>>>>,
    pub(super) seeds: Event,
    pub(super) boots: RefCell<VecDeque<Boot>>,
    pub(super) identity: ShipperIdentity,
    /// As it is now; the one of `identity` is that of the start.
    pub(super) src_id: Cell<SrcId>,
    /// What its connections carry now.
    pub(super) stream: Cell<u64>,
    pub(super) window: Window,
    pub(super) patience: Patience,
    pub(super) resolver: Rc<dyn Resolver>,
    pub(super) stopped: Cell<bool>,
    /// For the log, of everything that this destination does.
    pub(super) lines: LogBudget,
    /// What is wrong with nodes and seeds, as far as the log has it.
    pub(super) told: RefCell<Told>,
}

/// The troubles that the log has, until all of them have ended.
#[derive(Default)]
pub(super) struct Told(Vec<String>);

/// What is to be said in the log.
#[derive(Debug, PartialEq, Eq)]
enum News<'a> {
    Trouble(&'a str),
    AllAnswer,
}

impl Told {
    /// What there is to say, once each thing, given what is wrong now and whether all nodes answer.
    fn news<'a>(&mut self, problem: Option<&'a str>, all_answer: bool) -> Option<News<'a>> {
        let Self(told) = self;
        match problem {
            Some(problem) => {
                let is_new = told.iter().all(|known| known != problem);
                (is_new && told.len() < TOLD_MAX).then(|| {
                    told.push(problem.to_owned());
                    News::Trouble(problem)
                })
            }
            None if all_answer && !told.is_empty() => {
                told.clear();
                Some(News::AllAnswer)
            }
            None => None,
        }
    }
}

/// A node's tasks, as seen from the others.
pub(super) struct NodeTasks<B> {
    pub(super) connection: Rc<Connection<B>>,
    /// Wakes its conversation.
    pub(super) tend: Event,
    /// Boot id of the process the connection reached, while it is up, if a restart of it may cost
    /// acknowledged changes.
    pub(super) volatile: Cell<Option<u64>>,
    /// It is a Longship node: it has answered a hello.
    is_longship: Cell<bool>,
    /// Its last connection was lost with writes that may still arrive, and none has fenced it yet.
    pub(super) in_doubt: Cell<bool>,
    /// It says that its cluster has our `src-id`.
    has_our_src_id: Cell<bool>,
    /// Who ships there under our name; for people.
    standing: RefCell<Option<String>>,
    /// Of: conversation ended, sender ended, notice of its going drained.
    pub(super) ends: Cell<u8>,
    /// Why there is no shipping connection to it; for people.
    pub(super) refusal: RefCell<Option<String>>,
    pub(super) losses: RefCell<Losses>,
}

impl<B: Deref<Target = [u8]> + 'static> NodeTasks<B> {
    /// What is wrong with the shipping connection to node `id`; for people.
    pub(super) fn problem(&self, id: &str, now: Tick) -> Option<String> {
        if self.connection.is_retired() {
            return None;
        }
        if let Some(refusal) = &*self.refusal.borrow() {
            return Some(format!("node {id} takes no shipping connection: {refusal}"));
        }
        if let Some(problem) = self.losses.borrow().problem(id, now) {
            return Some(problem);
        }
        let silence = self.connection.silence(now).map(|(owed, ms)| {
            format!("node {id} owes {owed} answers and has sent none for {} s", ms / 1000)
        });
        let namesake = || {
            self.has_our_src_id.get().then(|| {
                format!(
                    "node {id} has the src-id of this cluster: what this one forwards from others of \
                     that id does not ship there, as if it had come from there; give each cluster \
                     its own"
                )
            })
        };
        silence.or_else(|| self.standing.borrow().clone()).or_else(namesake)
    }
}

/// What a node said when it was last connected.
pub(super) struct Boot {
    pub(super) id: String,
    pub(super) address: SocketAddr,
    pub(super) boot: u64,
    pub(super) loss_window_ms: u64,
    pub(super) last_answer: Option<Tick>,
}

impl<B: Deref<Target = [u8]> + 'static> Inner<B> {
    /// One conversation: whatever its rules say next, done.
    pub(super) async fn converse(self: Rc<Self>, target: Target, woken: Event) {
        let mut link: Option<Link> = None;
        loop {
            let step = self.tend.borrow_mut().next(target, link.as_ref().map(Link::address), now());
            match step {
                Step::Resolve { host, port } => self.resolve(target, &host, port).await,
                Step::Ask { address, commands } => {
                    self.ask(target, &mut link, address, &commands).await;
                }
                Step::Wait { until } if !(target == Target::Seeds && self.stopped.get()) => {
                    if target == Target::Seeds {
                        link = None;
                    }
                    woken.wait_until(until.0).await;
                }
                Step::Wait { .. } | Step::Stop => break,
            }
            self.publish();
        }
        if let Target::Node(node) = target {
            self.end_one(node);
        }
    }

    async fn resolve(&self, target: Target, host: &str, port: u16) {
        let resolved = self.resolver.resolve(host, port).await;
        let mut tend = self.tend.borrow_mut();
        match resolved {
            Ok(addresses) => tend.resolved(target, host, &addresses, now()),
            Err(error) => tend.failed(target, &format!("cannot resolve {host}: {error}"), now()),
        }
        drop(tend);
        self.tell_trouble();
    }

    /// Has a line written for this DC, unless too many were: what a destination does can be told
    /// only so often.
    fn say(&self, write: impl FnOnce(&str)) {
        let dc = self.identity.dc.as_str();
        let Some(held_back) = self.lines.pass(now().0) else { return };
        if held_back > 0 {
            tracing::info!(dc, "{held_back} lines about this destination were held back");
        }
        write(dc);
    }

    /// Says what is wrong when that begins, once each thing, and when all of it has ended.
    fn tell_trouble(&self) {
        let tend = self.tend.borrow();
        match self.told.borrow_mut().news(tend.problem(now()), tend.all_answer()) {
            Some(News::Trouble(problem)) => self.say(|dc| tracing::warn!(dc, "{problem}")),
            Some(News::AllAnswer) => self.say(|dc| tracing::info!(dc, "all nodes answer")),
            None => {}
        }
    }

    async fn ask(
        &self,
        target: Target,
        link: &mut Option<Link>,
        address: SocketAddr,
        commands: &str,
    ) {
        let asked = now();
        let held = match target {
            Target::Node(index) => self.node(index),
            Target::Seeds => None,
        };
        let volatile = held.as_ref().and_then(|node| node.volatile.get());
        let mut commands = Cow::Borrowed(commands);
        if volatile.is_some() {
            commands.to_mut().push_str(&format!("{BOOT}\n"));
        }
        if held.as_ref().is_some_and(|node| node.is_longship.get()) {
            commands.to_mut().push_str(&format!("{}\n", self.identity.source.standing_question()));
        }
        let exchanged = Self::exchange(link, address, &commands, self.patience).await;
        let mut tend = self.tend.borrow_mut();
        let good = match exchanged {
            Ok(body) => {
                let found = info::answers(body).find(|&(asked, _)| asked == BOOT);
                let boot = found.and_then(|(_, boot)| u64::from_str_radix(boot, 16).ok());
                if let Target::Node(node) = target
                    && boot.is_some()
                    && boot == volatile
                {
                    self.arrivals.notify(NodeEvent::Alive { node, asked });
                }
                if let Some(node) = &held {
                    self.note_standing(node, body);
                }
                tend.answered(target, address, body, now()).is_ok()
            }
            Err(error) => {
                tend.failed(target, &error.to_string(), now());
                false
            }
        };
        match link {
            Some(link) if good => link.forget_answer(),
            _ => *link = None,
        }
        drop(tend);
        self.tell_trouble();
    }

    /// Takes what a node says of who ships under our name. Said when it begins and when it ends.
    fn note_standing(&self, node: &NodeTasks<B>, body: &[u8]) {
        let answer = info::answers(body).find(|(asked, _)| asked.starts_with(STANDING));
        let Some((_, answer)) = answer.filter(|(_, text)| info::failure(text).is_none()) else {
            return;
        };
        let text = answer.chars().take(CAUSE_CHARS_MAX).collect();
        let said = (answer != "ok").then_some(text);
        let before = node.standing.replace(said.clone());
        match (before, said) {
            (None, Some(text)) => self.say(|dc| tracing::warn!(dc, "{text}")),
            (Some(_), None) => self.say(|dc| {
                tracing::info!(dc, "nobody else ships under this node's name");
            }),
            _ => {}
        }
    }

    async fn exchange<'a>(
        link: &'a mut Option<Link>,
        address: SocketAddr,
        commands: &str,
        patience: Patience,
    ) -> Result<&'a [u8], LinkError> {
        if link.as_ref().is_none_or(|link| link.address() != address) {
            *link = Some(Link::connect(address, patience).await?);
        }
        link.as_mut().expect("connected above").ask(commands).await
    }

    /// Acts on what the rules found out, and passes it on.
    pub(super) fn publish(self: &Rc<Self>) {
        let mut notes = Vec::new();
        self.tend.borrow_mut().drain_notes(&mut notes);
        for note in notes {
            match note {
                Note::Found(node) => self.begin(node),
                Note::Answers(node) => {
                    if let Some(connection) = self.connection(node) {
                        connection.work.set();
                    }
                }
                Note::Moved(index) => {
                    if let Some(node) = self.node(index) {
                        node.tend.set();
                    }
                }
                Note::Lost(index) => {
                    if let Some(node) = self.node(index) {
                        node.connection.retire();
                        node.tend.set();
                    }
                    self.seeds.set();
                }
                Note::NoneAnswers => self.seeds.set(),
                Note::MapChanged => self.arrivals.notify(NodeEvent::MapChanged),
                Note::FactsChanged(namespace) => {
                    self.arrivals.notify(NodeEvent::FactsChanged(namespace));
                }
            }
        }
    }

    /// Starts the tasks of a node just found.
    fn begin(self: &Rc<Self>, index: NodeIndex) {
        let connection = Rc::new(Connection::new(self.window, Rc::clone(&self.arrivals)));
        let tend = Event::new();
        let node = Rc::new(NodeTasks {
            connection,
            tend: tend.clone(),
            volatile: Cell::default(),
            is_longship: Cell::default(),
            in_doubt: Cell::default(),
            has_our_src_id: Cell::default(),
            standing: RefCell::default(),
            ends: Cell::default(),
            refusal: RefCell::default(),
            losses: RefCell::default(),
        });
        let mut nodes = self.nodes.borrow_mut();
        if nodes.len() <= index.index() {
            nodes.resize_with(index.index() + 1, || None);
        }
        nodes[index.index()] = Some(Rc::clone(&node));
        spawn(Queue::Sockets, Rc::clone(&node.connection).receive());
        spawn(Queue::Sockets, Rc::clone(self).ship(index, node));
        spawn(Queue::Sockets, Rc::clone(self).converse(Target::Node(index), tend));
    }

    /// A node's sender: connects, carries batches, connects again, until the node is gone.
    async fn ship(self: Rc<Self>, index: NodeIndex, node: Rc<NodeTasks<B>>) {
        let connection = &node.connection;
        let dc = self.identity.dc.as_str();
        let mut pause_ms = PAUSE_MS_MIN;
        let mut quiet = false;
        while !connection.is_retired() {
            let found = self.tend.borrow().node(index).map(|(id, at)| (id.to_owned(), at));
            let Some((id, address)) = found else {
                connection.work.wait().await;
                continue;
            };
            let begun = now();
            let turn = self.tend.borrow_mut().connect(Caller::Shipping(index), address, begun);
            if let Err(until) = turn {
                connection.work.wait_until(until.0).await;
                continue;
            }
            let stream = Cell::new(0);
            let hello = |challenge: &_| {
                stream.set(self.stream.get());
                let by = (dc, self.src_id.get());
                self.identity.source.hello(stream.get(), by, (&id, challenge))
            };
            let is_longship = node.is_longship.get();
            let opened = open((&id, address), self.patience, is_longship, hello).await;
            match opened {
                // Its hello no longer says what there is: say another.
                Ok(Opened { hello: Some(_), .. }) if stream.get() != self.stream.get() => continue,
                Ok(opened) if !connection.is_retired() => {
                    quiet = false;
                    node.refusal.replace(None);
                    node.is_longship.set(opened.hello.is_some());
                    node.in_doubt.set(false);
                    self.say(|dc| {
                        tracing::info!(dc, node = id, %address, "connected");
                    });
                    self.note_src_id(&node, &id, opened.hello.as_ref());
                    let volatile = opened.hello.as_ref().filter(|hello| hello.loss_window_ms > 0);
                    let volatile = volatile.map(|hello| hello.boot);
                    let number = self.came_up(index, &id, address, opened.hello);
                    node.volatile.set(volatile);
                    let (fault, unanswered) = connection.carry(number, opened.socket).await;
                    node.volatile.set(None);
                    let owed = unanswered.tags.len();
                    self.say(|dc| match fault.is_ours() {
                        true => tracing::info!(dc, node = id, owed, "connection: {fault}"),
                        false => tracing::warn!(dc, node = id, owed, "connection lost: {fault}"),
                    });
                    self.went_down(&id, connection.last_answer(), &fault);
                    if !fault.is_ours() {
                        node.losses.borrow_mut().note(fault.to_string(), now());
                    }
                    node.in_doubt.set(unanswered.in_doubt > 0);
                    self.arrivals.notify(NodeEvent::Down { node: index, fault, unanswered });
                }
                Ok(_) => {}
                Err(error) => {
                    if let LinkError::OtherNode { found, .. } = &error {
                        self.tend.borrow_mut().distrust(index, address, found, now());
                    }
                    node.refusal.replace(Some(error.to_string()));
                    // Said once per outage.
                    if !std::mem::replace(&mut quiet, true) {
                        self.say(|dc| tracing::warn!(dc, node = id, "{error}"));
                    }
                }
            }
            self.poke();
            if now() >= begun.plus_ms(HELD_MS) {
                pause_ms = PAUSE_MS_MIN;
            }
            let until = now().plus_ms(pause_ms);
            while !connection.is_retired() && connection.work.wait_until(until.0).await {}
            pause_ms = (pause_ms * 2).min(PAUSE_MS_MAX);
        }
        self.arrivals.notify(NodeEvent::Gone { node: index });
        self.end_one(index);
    }

    /// Without a `src-id` of its own for each cluster, forwarding cannot tell who has a record.
    fn note_src_id(&self, node: &NodeTasks<B>, id: &str, hello: Option<&HelloAnswer>) {
        let own = self.src_id.get();
        let is_same = own != SrcId::NONE && hello.is_some_and(|hello| hello.src_id == own);
        let was_same = node.has_our_src_id.replace(is_same);
        if is_same && !was_same {
            self.say(|dc| {
                tracing::warn!(
                    dc,
                    node = id,
                    src_id = own.0,
                    "it has the src-id of this cluster: see `problem`"
                );
            });
        }
    }

    /// Compares boot ids and announces the connection, whose number it gives. A node with a new id at
    /// a known address took the place of the one that was there.
    fn came_up(
        &self,
        index: NodeIndex,
        id: &str,
        address: SocketAddr,
        hello: Option<HelloAnswer>,
    ) -> u64 {
        self.arrivals.count(|traffic| traffic.connects += 1);
        if let Some(hello) = &hello {
            let mut boots = self.boots.borrow_mut();
            let by_id = boots.iter().position(|boot| boot.id == id);
            let known = by_id.or_else(|| boots.iter().position(|boot| boot.address == address));
            let mut last_answer = None;
            if let Some(before) = known.and_then(|at| boots.remove(at)) {
                last_answer = before.last_answer;
                if before.boot != hello.boot {
                    self.say(|dc| {
                        tracing::warn!(
                            dc,
                            node = id,
                            loss_window_ms = before.loss_window_ms,
                            "destination node restarted: what it acknowledged within its loss \
                             window is shipped again"
                        );
                    });
                    self.arrivals.notify(NodeEvent::Rebooted(Reboot {
                        node: index,
                        previous_boot: before.boot,
                        boot: hello.boot,
                        last_answer: last_answer.take(),
                        loss_window_ms: before.loss_window_ms.max(hello.loss_window_ms),
                        src_id: hello.src_id,
                    }));
                }
            }
            let HelloAnswer { boot, loss_window_ms, .. } = *hello;
            boots.push_back(Boot { id: id.to_owned(), address, boot, loss_window_ms, last_answer });
            if boots.len() > 2 * NODE_COUNT_MAX {
                boots.pop_front();
            }
        }
        let connection = self.arrivals.traffic.get().connects;
        self.arrivals.notify(NodeEvent::Up { node: index, connection, hello });
        connection
    }

    fn went_down(&self, id: &str, last_answer: Option<Tick>, fault: &Fault) {
        if !fault.is_ours() {
            self.arrivals.count(|traffic| traffic.losses += 1);
        }
        let mut boots = self.boots.borrow_mut();
        if let Some(boot) = boots.iter_mut().find(|boot| boot.id == id) {
            boot.last_answer = boot.last_answer.max(last_answer);
        }
    }

    pub(super) fn poke(&self) {
        self.tend.borrow_mut().poke(now());
        self.nodes.borrow().iter().flatten().for_each(|node| node.tend.set());
    }

    /// One of the three ends of a node that is gone; after the last its index is free.
    pub(super) fn end_one(&self, index: NodeIndex) {
        let Some(node) = self.node(index) else { return };
        node.ends.set(node.ends.get() + 1);
        if node.ends.get() == 3 {
            self.nodes.borrow_mut()[index.index()] = None;
            self.tend.borrow_mut().release(index);
        }
    }

    fn node(&self, index: NodeIndex) -> Option<Rc<NodeTasks<B>>> {
        self.nodes.borrow().get(index.index()).cloned().flatten()
    }

    pub(super) fn connection(&self, index: NodeIndex) -> Option<Rc<Connection<B>>> {
        self.node(index).map(|node| Rc::clone(&node.connection))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_all_nodes_answer_is_said_once_when_they_do_and_did_not() {
        let mut told = Told::default();
        assert_eq!(told.news(None, true), None, "nothing was wrong");
        assert_eq!(told.news(Some("A1 is silent"), false), Some(News::Trouble("A1 is silent")));
        assert_eq!(told.news(Some("A1 is silent"), false), None, "said before");
        assert_eq!(told.news(None, false), None, "the last node was given up");
        assert_eq!(told.news(None, true), Some(News::AllAnswer));
        assert_eq!(told.news(None, true), None);
        let many: Vec<String> = (0..100).map(|node| format!("{node} is silent")).collect();
        let said = many.iter().filter(|problem| told.news(Some(problem), false).is_some());
        assert_eq!(said.count(), TOLD_MAX);
    }
}
