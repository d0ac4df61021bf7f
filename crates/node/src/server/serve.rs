//! One client connection: requests in, replies out, in the order they came.
//!
//! What lies in the receive buffer is carried out as far as it goes; replies gather in one buffer
//! and leave with one send. A record that must come from the device, or a request handed to another
//! shard, does not hold up what follows it: it waits in line, together with others, and its reply is
//! put in its place before the send. Only a request for the same record waits for it.
//!
//! Back-pressure is the absence of anything: nothing is read while replies cannot be sent, or while
//! there is no memory for them (see [`crate::server::memory`]).

use std::future::Future;
use std::io;
use std::ops::Range;
use std::rc::Rc;

use futures_lite::future::or;
use tracing::warn;

use longship::engine::Shipper;
use longship::model::{SrcId, Tick};
use longship::wire::frame::FRAME_HEADER_BYTES;
use longship::wire::hello::{BadHello, Challenge, Hello, HelloAnswer, Origin};
use longship::wire::info::{self, Command, InfoFrame, UNRECOGNIZED};
use longship::wire::{FrameError, FrameHeader, FrameType, Request, ResultCode, reply};
use longship_rt::clock::Clock;
use longship_rt::event::Event;
use longship_rt::metrics::LogLimit;
use longship_rt::net::{ReadHalf, Socket, WriteHalf};
use longship_rt::prefetch;
use longship_rt::shard::{need_preempt, yield_now};

use crate::limits::{
    BYTES_PER_LOOK, GONE_US, INFO_FRAME_BYTES_MAX, INFO_REPLY_BYTES_MAX, PARTING_QUIET_US,
    PARTING_US, RECEIVED_BYTES_BURST, RECEIVED_BYTES_MIN, REPLY_BYTES_FREE, REPLY_BYTES_MAX,
};
use crate::server::commands::{self, Own};
use crate::server::handover::reads;
use crate::server::hello::{Admitted, FenceEntry, Leave};
use crate::server::line::{Line, Waiting, What};
use crate::server::received::{Growth, Next, Received};
use crate::server::service::{Context, Progress, Service, Target};
use crate::server::turnstile::Pass;
use crate::server::work::Work;
use crate::server::{Asker, Greeting, Server, Tie};
use longship::info::{Answer, Row, find};
use longship_rt::random::random_u64;

/// Between two looks at what a client has got: when the last of it is acknowledged, the system tells
/// nobody.
const PARTING_LOOK_US: u64 = 10_000;
/// Between two looks whether a client has ended its side. To be told of it would cost an operation
/// of the ring for each wait.
const GONE_LOOK_US: u64 = 500_000;
/// Lines about sources that are not taken, or share a name.
static HELLO_REFUSED: LogLimit = LogLimit::every_s(10);
static TWIN: LogLimit = LogLimit::every_s(10);
/// Body of a security message without fields.
const SECURITY_BYTES: usize = 16;

/// Why a connection ended before its client ended it.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// The socket failed.
    #[error(transparent)]
    Socket(#[from] io::Error),
    /// The client does not speak the protocol.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// It kept memory that others waited for.
    #[error("too slow to send a request or to read replies while memory was short")]
    Slow,
    /// The client has ended, and what it asked for does not come.
    #[error("the client has gone while it waited for a device")]
    Gone,
    /// A newer connection of the same shipper has taken its place.
    #[error("cut off: a newer connection of the same source is there, or the node stops")]
    Fenced,
    /// The answers to one request of info commands grew without bound.
    #[error("more than {INFO_REPLY_BYTES_MAX} bytes of info answers asked for at once")]
    InfoTooLong,
}

/// One connection's state.
pub struct Connection<'a, S: Service> {
    server: &'a Server<S>,
    read: ReadHalf,
    out: Outbound<'a>,
    received: Received,
    /// The memory of `received` beyond its least size.
    received_share: Pass,
    /// Replies to be sent, but for those in line.
    ready: Vec<u8>,
    /// The memory of the replies beyond what is free.
    reply_share: Pass,
    line: Line<S::Fetching>,
    asker: Asker,
    user_agent_set: bool,
    /// What a hello has to answer, once it has been asked for.
    challenge: Option<Challenge>,
    /// The place in the fence, and who it is, once a shipper has said hello.
    shipper: Option<(FenceEntry, Rc<Shipper>)>,
}

/// The sending side.
struct Outbound<'a> {
    write: WriteHalf,
    tie: &'a Tie,
}

impl<'a, S: Service> Connection<'a, S> {
    /// A connection on `socket`; others may end it through `tie`.
    pub fn new(server: &'a Server<S>, socket: Socket, tie: &'a Tie) -> Self {
        let asker = Asker { local: socket.local_addr().ip(), peer: socket.peer_addr() };
        let (read, write) = socket.split();
        let memory = server.connections.memory();
        Self {
            server,
            read,
            out: Outbound { write, tie },
            received: Received::new(server.limits.message_bytes_max),
            received_share: memory.requests.pass(),
            ready: Vec::new(),
            reply_share: memory.replies.pass(),
            line: Line::default(),
            asker,
            user_agent_set: false,
            challenge: None,
            shipper: None,
        }
    }

    /// Serves it to its end. Afterwards nothing of it will write any more, on any shard, unless its
    /// client is [`Ended::Gone`].
    ///
    /// # Errors
    /// Why it ended, unless the client or a stop ended it in order.
    pub async fn run(mut self) -> Result<(), Ended> {
        let mut result = self.serve().await;
        if matches!(result, Err(Ended::Frame(_))) {
            // What came before is answered.
            result = match self.settle().await {
                Ok(()) => self.send().await.and(result),
                cut => cut,
            };
        }
        if matches!(result, Ok(()) | Err(Ended::Frame(_))) {
            self.part().await;
        }
        // What other shards have of it may still write.
        while !matches!(result, Err(Ended::Gone))
            && let Some(Waiting { what, .. }) = self.line.pop()
        {
            if let What::Handed(ticket, _) = what {
                result = self.unless_gone(ticket).await.and(result);
            }
        }
        if self.out.holds_much() {
            self.server.connections.memory().turn().await;
        }
        result
    }

    async fn serve(&mut self) -> Result<(), Ended> {
        loop {
            self.carry_out().await?;
            self.settle().await?;
            self.send().await?;
            match self.out.tie.life.leave() {
                Leave::Open => {}
                Leave::Stop => return Ok(()),
                Leave::Slow => return Err(Ended::Slow),
                Leave::Fenced => return Err(Ended::Fenced),
            }
            self.give_back();
            if !self.make_room().await {
                continue;
            }
            let called = async {
                self.out.tie.life.changed().await;
                None
            };
            let received = async { Some(self.read.read(self.received.room()).await) };
            self.out.tie.holding.waits_for_client(true);
            let received = or(called, received).await;
            self.out.tie.holding.waits_for_client(false);
            match received {
                Some(Ok(0)) => return Ok(()),
                Some(received) => self.received.filled(received?),
                None => {}
            }
        }
    }

    /// Gives memory back that is not needed now: after a large frame, when it is short, and when the
    /// connection has idled with it.
    fn give_back(&mut self) {
        let memory = self.server.connections.memory();
        let is_told = self.out.tie.holding.is_told_to_give_back();
        if self.received.unread() == 0 {
            let least = is_told || memory.requests.is_tight();
            let size = if least { RECEIVED_BYTES_MIN } else { RECEIVED_BYTES_BURST };
            if self.received.size() > size {
                self.received.resize(size);
                self.received_share.hold(if least { 0 } else { size });
                self.note_holding();
            }
        }
        if self.ready.capacity() > REPLY_BYTES_FREE && (is_told || memory.replies.is_tight()) {
            self.ready = Vec::new();
            self.note_replies();
        }
    }

    /// Sees to it that more can be received, waiting in line for memory if need be; false when the
    /// connection is to look around first.
    async fn make_room(&mut self) -> bool {
        let held = self.received_share.bytes();
        let next = match self.received.growth() {
            None => return true,
            Some(Growth::Helpful(next)) => {
                if self.received_share.try_hold(next) {
                    self.received.resize(next);
                    self.note_holding();
                }
                return true;
            }
            Some(Growth::Needed { next, whole }) => {
                let has_it = next <= held
                    || (next <= RECEIVED_BYTES_BURST && self.received_share.try_hold(next));
                if !has_it {
                    let line = &self.server.connections.memory().requests;
                    let called = async {
                        self.out.tie.life.narrowed_to(Leave::Stop).await;
                        None
                    };
                    let entered = async { Some(line.enter(whole - held).await) };
                    match or(called, entered).await {
                        Some(pass) => self.received_share.absorb(pass),
                        None => return false,
                    }
                }
                next
            }
        };
        self.received.resize(next);
        self.note_holding();
        true
    }

    /// Tells those who look after the memory what this connection holds of it.
    fn note_holding(&self) {
        let holding = &self.out.tie.holding;
        let begins = !holding.holds();
        holding.set(self.received_share.bytes() + self.reply_share.bytes());
        if begins && holding.holds() {
            self.server.connections.begins_to_hold();
        }
    }

    /// Counts the bytes of the replies that are ready, of those that the line will have, and of the
    /// copy that is made to put those in their places.
    #[inline]
    fn note_replies(&mut self) {
        let behind = self.line.first_at().map_or(0, |first| self.ready.len() - first);
        let bytes = self.ready.capacity() + self.line.bytes() + behind;
        let bytes = if bytes > REPLY_BYTES_FREE { bytes } else { 0 };
        if bytes != self.reply_share.bytes() {
            self.reply_share.hold(bytes);
            self.note_holding();
        }
    }

    /// Ends the connection in order: says that nothing more comes, and takes what the client still
    /// sends until it ends, too, or has got everything. Closed at once with unread requests in it,
    /// the kernel would answer with a reset, and drop replies on their way.
    async fn part(&mut self) {
        self.received = Received::new(0);
        self.received_share.hold(0);
        self.out.write.finish();
        let (clock, timer, sent) = (Clock::real(), Event::new(), self.out.write.send_queue());
        let begin_us = clock.now();
        let mut quiet_since_us = begin_us;
        let mut dropped = [0; 4096];
        loop {
            let now_us = clock.now();
            let is_done =
                now_us >= quiet_since_us + PARTING_QUIET_US && !matches!(sent.bytes(), Ok(1..));
            let is_cut = self.out.tie.life.leave() > Leave::Stop;
            if is_done || is_cut || now_us >= begin_us + PARTING_US {
                return;
            }
            let late = async {
                timer.wait_until(now_us + PARTING_LOOK_US).await;
                None
            };
            let read = async { Some(self.read.read(&mut dropped).await) };
            match or(read, late).await {
                None => {}
                Some(Ok(0) | Err(_)) => return,
                Some(Ok(_)) => quiet_since_us = clock.now(),
            }
        }
    }

    /// Carries out what has been received, as far as it is whole.
    async fn carry_out(&mut self) -> Result<(), Ended> {
        let mut requests = 0;
        let mut work = Work::default();
        let mut context = self.context();
        let memory = self.server.connections.memory();
        while self.out.tie.life.leave() == Leave::Open {
            if requests % prefetch::WIDTH == 0 {
                self.server.service.prefetch(self.received.ahead());
            }
            let replies = self.ready.len();
            match self.received.take()? {
                Next::More => break,
                Next::Frame(FrameType::Message, body) => {
                    work.bytes += body.len();
                    context = self.message(body, context).await?;
                }
                Next::Frame(_, body) => {
                    self.settle().await?;
                    self.info(body).await?;
                    context = self.context();
                }
                Next::Unread(kind) => refuse(kind, &mut self.ready),
            }
            requests += 1;
            work.bytes +=
                self.ready.len().saturating_sub(replies) + self.server.service.take_work();
            self.note_replies();
            self.out.tie.holding.moves();
            let is_enough = match memory.replies.is_full() {
                true => self.ready.len() >= REPLY_BYTES_FREE,
                false => self.ready.len() >= REPLY_BYTES_MAX,
            };
            if is_enough || self.line.is_full() {
                self.settle().await?;
                self.send().await?;
                context = self.context();
            }
            if work.let_others(memory).await {
                context = self.context();
            }
        }
        Ok(())
    }

    /// Waits until there is memory for the replies to the request in `body`, if it may get a large
    /// one.
    async fn wait_for_reply_room(&mut self, body: &Range<usize>) -> Result<(), Ended> {
        let wanted = self.server.service.reply_bytes(self.received.body(body));
        if self.ready.len() + self.line.bytes() + wanted <= REPLY_BYTES_FREE {
            return Ok(());
        }
        self.settle().await?;
        if wanted <= REPLY_BYTES_FREE {
            self.send().await?;
            self.ready = Vec::new();
            self.note_replies();
            return Ok(());
        }
        self.enter_reply_line(wanted).await
    }

    /// Sends what there is, then waits in line for memory for so many bytes of replies. Meanwhile
    /// this connection holds no replies: others wait for nobody but their clients.
    async fn enter_reply_line(&mut self, wanted: usize) -> Result<(), Ended> {
        self.send().await?;
        self.ready = Vec::new();
        self.note_replies();
        let called = async {
            self.out.tie.life.narrowed_to(Leave::Stop).await;
            None
        };
        let entered = async { Some(self.server.connections.memory().replies.enter(wanted).await) };
        // Told to end, it takes no further request.
        if let Some(pass) = or(called, entered).await {
            self.reply_share.absorb(pass);
            self.note_holding();
            // Memory that comes back lets many in at once.
            self.server.connections.memory().turn().await;
        }
        Ok(())
    }

    fn context(&self) -> Context {
        let src_id = self.shipper.as_ref().map_or(SrcId::NONE, |(_, shipper)| shipper.src_id);
        Context { now: self.server.service.note_time(), src_id }
    }

    /// Carries out the message in `body`, or puts it in line. Gives the circumstances for the next.
    async fn message(
        &mut self,
        body: Range<usize>,
        mut context: Context,
    ) -> Result<Context, Ended> {
        let replies = &self.server.connections.memory().replies;
        let mut request = Request::parse(self.received.body(&body));
        if self.must_wait(&request) || replies.is_full() {
            if self.must_wait(&request) {
                self.settle().await?;
            }
            if replies.is_full() {
                self.wait_for_reply_room(&body).await?;
            }
            context = self.context();
            if self.out.tie.life.leave() != Leave::Open {
                return Ok(context);
            }
            request = Request::parse(self.received.body(&body));
        }
        // From here on nothing waits before the reply is counted: nobody else takes its memory.
        let service = &self.server.service;
        let bytes = self.received.body(&body);
        let at = self.ready.len();
        let is_shipped = request.as_ref().is_ok_and(Request::is_shipped);
        let wish =
            request.as_ref().map_or_else(|_| S::Wish::default(), |request| S::wish(request, bytes));
        let (digest, what) = match service.carry_out(request, context, &mut self.ready) {
            Progress::Answered => return Ok(context),
            Progress::Committing(target, position) => {
                (target.digest, What::Committing(target, position, self.ready.len() - at))
            }
            Progress::Read(target) | Progress::Long(target) => {
                let bytes = service.reply_bytes_max(wish, target);
                let fetching = service.fetch(target).await;
                (target.digest, What::Read(fetching, body, bytes))
            }
            // A shipper's connections are fenced shard by shard, so each shard writes its own
            // partitions only: one that does not know the owner is to look again.
            Progress::Elsewhere(..) if is_shipped && self.shipper.is_some() => {
                reply::push_code(&mut self.ready, ResultCode::UNAVAILABLE);
                return Ok(context);
            }
            Progress::Elsewhere(shard, Target { namespace, digest }) => {
                match self.server.desk.hand_over(shard, namespace, context.src_id, bytes) {
                    Ok(ticket) => (digest, What::Handed(ticket, reads(bytes))),
                    Err(code) => {
                        reply::push_code(&mut self.ready, code);
                        return Ok(context);
                    }
                }
            }
        };
        self.line.push(Waiting { at, digest, what });
        Ok(context)
    }

    /// Whether a request must wait for one in line.
    fn must_wait(&self, request: &Result<Request<'_>, ResultCode>) -> bool {
        if self.line.is_empty() {
            return false;
        }
        let Ok(request) = request else { return false };
        request.target().is_ok_and(|digest| self.line.holds_up(&digest, request.is_write()))
    }

    /// Waits for the requests in line and puts their replies in their places. Nothing is sent
    /// meanwhile: a client that does not read must not keep others from the memory of its reads.
    async fn settle(&mut self) -> Result<(), Ended> {
        let Some(first) = self.line.first_at() else { return Ok(()) };
        let context = self.context();
        let mut placed = std::mem::take(&mut self.ready);
        // What stands behind the first gap moves on.
        let behind = placed.split_off(first);
        placed.reserve_exact(behind.len() + self.line.bytes());
        let mut copied = 0;
        let mut work = Work::default();
        let service = &self.server.service;
        while let Some(Waiting { at, what, .. }) = self.line.pop() {
            placed.extend_from_slice(&behind[copied..at - first]);
            copied = at - first;
            let start = placed.len();
            match what {
                What::Handed(ticket, _) => {
                    let reply = self.unless_gone(ticket).await?;
                    self.line.note_handed(reply.len());
                    placed.extend_from_slice(&reply);
                }
                What::Read(fetching, body, _) => {
                    let finished = async {
                        let fetched = fetching.await;
                        let body = self.received.body(&body);
                        service.finish(body, context, fetched, &mut placed).await;
                    };
                    self.unless_cut(finished).await?;
                }
                What::Committing(target, position, bytes) => {
                    let committed = self.unless_cut(service.committed(target, position)).await?;
                    if let Err(code) = committed {
                        reply::push_code(&mut placed, code);
                        copied += bytes;
                    }
                }
            }
            work.bytes += placed.len() - start + service.take_work();
            let bytes = placed.capacity() + behind.capacity();
            if bytes > self.reply_share.bytes().max(REPLY_BYTES_FREE) {
                self.reply_share.hold(bytes);
                self.note_holding();
            }
            work.let_others(self.server.connections.memory()).await;
        }
        placed.extend_from_slice(&behind[copied..]);
        self.ready = placed;
        drop(behind);
        self.note_replies();
        Ok(())
    }

    /// What comes of `work`, unless others cut the connection off meanwhile, or its client has gone.
    async fn unless_cut<T>(&self, work: impl Future<Output = T>) -> Result<T, Ended> {
        or(self.unless_gone(work), self.out.tie.cut()).await
    }

    /// What comes of `work`, unless the client ends and it takes much longer.
    async fn unless_gone<T>(&self, work: impl Future<Output = T>) -> Result<T, Ended> {
        let gone = async {
            let (clock, never) = (Clock::real(), Event::new());
            let mut ended_at_us = None;
            loop {
                let now_us = clock.now();
                never.wait_until(now_us + GONE_LOOK_US).await;
                let since_us = *ended_at_us.get_or_insert(now_us);
                match self.read.has_ended() {
                    true if now_us >= since_us + GONE_US => return Err(Ended::Gone),
                    true => {}
                    false => ended_at_us = None,
                }
            }
        };
        or(async { Ok(work.await) }, gone).await
    }

    async fn send(&mut self) -> Result<(), Ended> {
        if self.ready.is_empty() {
            return Ok(());
        }
        if self.ready.len() >= BYTES_PER_LOOK {
            self.server.connections.memory().turn().await;
        }
        self.out.send(&self.ready).await?;
        self.out.tie.holding.moves();
        self.ready.clear();
        let is_tight = self.server.connections.memory().replies.is_tight();
        self.ready.shrink_to(if is_tight { REPLY_BYTES_FREE } else { REPLY_BYTES_MAX });
        self.note_replies();
        Ok(())
    }

    /// Answers a frame of info commands. While the memory for replies is short, a long answer waits
    /// in line for it like any other: what was answered so far is dropped then, and asked again. What
    /// follows a command that changes something has its memory before that is carried out.
    async fn info(&mut self, body: Range<usize>) -> Result<(), Ended> {
        let body = self.received.body(&body).to_vec();
        let was_agent_set = self.user_agent_set;
        while !self.answer_all(&body).await? {
            self.user_agent_set = was_agent_set;
            self.enter_reply_line(INFO_FRAME_BYTES_MAX).await?;
            if self.out.tie.life.leave() != Leave::Open {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Answers the commands in `body`, unless there is no memory for that: then false, and nothing
    /// has happened.
    async fn answer_all(&mut self, body: &[u8]) -> Result<bool, Ended> {
        let replies = &self.server.connections.memory().replies;
        let reserved = self.reply_share.bytes().max(REPLY_BYTES_FREE);
        let has_room = reserved >= INFO_FRAME_BYTES_MAX;
        let mut frame = Vec::with_capacity(if has_room { INFO_FRAME_BYTES_MAX } else { 0 });
        let mut bytes = 0;
        let mut answers = InfoFrame::begin(&mut frame);
        let mut has_changed = false;
        let mut lines = info::lines(body).peekable();
        while let Some(line) = lines.next() {
            let command = Command::parse(line);
            if command.as_ref().is_some_and(|command| self.may_change(command)) {
                // What follows a change cannot be asked again.
                if !has_changed && !has_room && lines.peek().is_some() {
                    self.note_replies();
                    return Ok(false);
                }
                has_changed = true;
            }
            let answer = match command {
                Some(command) => self.guarded(line, &command).await?,
                None => UNRECOGNIZED.to_owned(),
            };
            // One answer is as long as what there is to tell; many are asked for.
            let is_first = bytes == 0;
            bytes += line.len() + answer.len() + 2;
            if bytes > INFO_REPLY_BYTES_MAX && !is_first {
                return Err(Ended::InfoTooLong);
            }
            let is_short = !has_room && self.ready.len() + bytes > reserved;
            if is_short && replies.is_full() && !has_changed {
                self.note_replies();
                return Ok(false);
            }
            answers.answer(line, &answer);
            let held = self.ready.capacity() + answers.capacity();
            if held > self.reply_share.bytes().max(REPLY_BYTES_FREE) {
                self.reply_share.hold(held);
                self.note_holding();
            }
            if need_preempt() {
                yield_now().await;
            }
        }
        drop(answers);
        if self.ready.is_empty() {
            self.ready = frame;
        } else {
            self.ready.extend_from_slice(&frame);
        }
        Ok(true)
    }

    /// Whether a command changes the node, or who is served.
    fn changes_state(&self, command: &Command<'_>) -> bool {
        let own = find(commands::TABLE, command.name);
        own.is_some_and(|row| row.changes_state(command)) || self.server.ask.changes_state(command)
    }

    /// Whether a command changes the node, and its asker may give it.
    fn may_change(&self, command: &Command<'_>) -> bool {
        self.changes_state(command) && self.server.guard.allows(self.asker.peer)
    }

    /// Answers a command if its asker may give it.
    async fn guarded(&mut self, line: &[u8], command: &Command<'_>) -> Result<String, Ended> {
        if !self.changes_state(command) {
            return self.answer(line, command).await;
        }
        let (guard, peer) = (&self.server.guard, self.asker.peer);
        let text = str::from_utf8(line).unwrap_or_default();
        if let Err(refusal) = guard.admit(peer, text) {
            return Ok(info::error(ResultCode::ROLE_VIOLATION, &refusal));
        }
        let answer = self.answer(line, command).await?;
        guard.audit(peer, text, &answer);
        Ok(answer)
    }

    async fn answer(&mut self, line: &[u8], command: &Command<'_>) -> Result<String, Ended> {
        if let Some(Row { answer, .. }) = find(commands::TABLE, command.name) {
            return Ok(self.own_answer(*answer, line, command).await);
        }
        let (ask, traffic) = (&self.server.ask, self.server.traffic());
        Ok(match ask.ask(command, &self.asker, &traffic) {
            Some(Answer::Now(text)) => text,
            Some(Answer::Later(text)) => text.await,
            None => UNRECOGNIZED.to_owned(),
        })
    }

    /// Answers what is asked about this connection.
    async fn own_answer(&mut self, asked: Own, line: &[u8], command: &Command<'_>) -> String {
        match asked {
            Own::Boot => format!("{:016x}", self.server.greeting.boot),
            Own::Challenge => {
                let halves = [random_u64().to_be_bytes(), random_u64().to_be_bytes()];
                let bytes = halves.concat().try_into().expect("two halves of 8 bytes");
                self.challenge.insert(Challenge(bytes)).to_hex()
            }
            Own::Hello => self.hello(line).await,
            Own::Standing => self.standing(command),
            Own::UserAgent => match std::mem::replace(&mut self.user_agent_set, true) {
                true => info::error(ResultCode::PARAMETER, "already set"),
                false => "ok".to_owned(),
            },
        }
    }

    /// A shipper opens the connection: see [`crate::server::hello`].
    async fn hello(&mut self, line: &[u8]) -> String {
        let refuse = |cause: &dyn std::fmt::Display| {
            info::error(ResultCode::PARAMETER, &format!("hello refused: {cause}"))
        };
        if self.shipper.is_some() {
            return refuse(&"one was said on this connection");
        }
        // A challenge is for one attempt.
        let challenge = self.challenge.take().ok_or(BadHello::Proof);
        let verify = |challenge| Hello::verify(line, &self.server.node, &challenge);
        let hello = match challenge.and_then(verify) {
            Ok(hello) => hello,
            Err(bad) => return refuse(&bad),
        };
        let server = self.server;
        let from = (self.asker.peer, &self.out.tie.life);
        match server.fence.admit(&hello, from, Tick(Clock::real().now())) {
            Err(error) => {
                let (at, dc, node) = (self.asker.peer, hello.dc.escape_debug(), hello.node);
                if let Some(more) = HELLO_REFUSED.pass(Clock::real().now()) {
                    warn!(
                        "refused to take what {at} ships (DC {dc} of node {node:X}): {error} \
                         ({more} more refused since the last such line)"
                    );
                }
                refuse(&error)
            }
            Ok(Admitted { place, superseded }) => {
                let shipper = Shipper { node: hello.node, src_id: hello.src_id };
                self.shipper = Some((place, server.service.note_shipper(shipper)));
                for older in superseded {
                    older.ended().await;
                }
                self.note_twin(&hello);
                let Greeting { boot, loss_window_ms, stores } = server.greeting.clone();
                let src_id = server.service.src_id();
                HelloAnswer { boot, loss_window_ms, src_id, stores }.format()
            }
        }
    }

    /// Says so when somebody else ships under the name of whoever said this hello.
    fn note_twin(&self, &Hello { origin, process, node, .. }: &Hello<'_>) {
        let now_us = Clock::real().now();
        if let Some(text) = self.server.fence.standing(origin, process, node, Tick(now_us))
            && TWIN.pass(now_us).is_some()
        {
            warn!("what {} ships under node id {node:X} is taken, but {text}", self.asker.peer);
        }
    }

    /// Who else goes by the name of a source, or `ok`.
    fn standing(&self, command: &Command<'_>) -> String {
        let who = || {
            let origin = command.arg("origin").and_then(Origin::from_hex)?;
            let process = command.arg("process")?.parse().ok()?;
            let node = u64::from_str_radix(command.arg("node")?, 16).ok()?;
            Some((origin, process, node))
        };
        let Some((origin, process, node)) = who() else {
            let expected = "expected origin=HEX;process=NUMBER;node=HEX";
            return info::error(ResultCode::PARAMETER, expected);
        };
        let now = Tick(Clock::real().now());
        let told = self.server.fence.standing(origin, process, node, now);
        told.unwrap_or_else(|| "ok".to_owned())
    }
}

impl Tie {
    /// Waits until others cut the connection off: then it takes and sends nothing more.
    async fn cut<T>(&self) -> Result<T, Ended> {
        self.life.narrowed_to(Leave::Slow).await;
        Err(if self.life.leave() == Leave::Slow { Ended::Slow } else { Ended::Fenced })
    }
}

impl Outbound<'_> {
    /// Whether closing it is much work: the system gives back what was not taken, page by page.
    fn holds_much(&self) -> bool {
        self.write.send_queue().bytes().is_ok_and(|bytes| bytes >= BYTES_PER_LOOK as u64)
    }

    /// Sends all of `bytes`, unless a newer connection takes this one's place meanwhile.
    async fn send(&mut self, bytes: &[u8]) -> Result<(), Ended> {
        let Tie { holding, .. } = self.tie;
        let sent = async { Ok(self.write.write_all(bytes).await?) };
        holding.waits_for_client(true);
        let result = or(self.tie.cut(), sent).await;
        holding.waits_for_client(false);
        result
    }
}

/// Replies to a frame nobody looks into.
fn refuse(kind: FrameType, out: &mut Vec<u8>) {
    match kind {
        // It may have been a batch, whose client waits for the last answer.
        FrameType::Message => reply::push_last(out, ResultCode::RECORD_TOO_BIG),
        FrameType::Compressed => reply::push_last(out, ResultCode::ENTERPRISE_ONLY),
        FrameType::Security => {
            let header = FrameHeader { kind: FrameType::Security, body_bytes: SECURITY_BYTES };
            let mut reply = [0; FRAME_HEADER_BYTES + SECURITY_BYTES];
            reply[..FRAME_HEADER_BYTES].copy_from_slice(&header.to_bytes());
            reply[FRAME_HEADER_BYTES + 1] = ResultCode::SECURITY_NOT_SUPPORTED.0;
            out.extend_from_slice(&reply);
        }
        FrameType::Info | FrameType::Internal => {}
    }
}
