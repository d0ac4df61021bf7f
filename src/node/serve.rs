//! One client connection: requests in, replies out, in the order they came.
//!
//! What lies in the receive buffer is carried out as far as it goes; replies gather in one buffer
//! and leave with one send. A record that must come from the device, or a request handed to another
//! shard, does not hold up what follows it: it waits in line, together with others, and its reply is
//! put in its place before the send. Only a request for the same record waits for it.
//!
//! Back-pressure is the absence of anything: nothing is read while replies cannot be sent.

use std::io;
use std::ops::Range;
use std::rc::Rc;

use futures_lite::future::{or, poll_once, ready};
use tracing::warn;

use crate::metrics::LogLimit;
use crate::model::{SrcId, Tick};
use crate::rt::clock::Clock;
use crate::rt::net::{ReadHalf, Socket, WriteHalf};
use crate::rt::shard::{need_preempt, yield_now};
use crate::wire::frame::FRAME_HEADER_BYTES;
use crate::wire::hello::{self, BadHello, Challenge, Hello, HelloAnswer, Origin};
use crate::wire::info::{self, Command, InfoFrame, UNRECOGNIZED};
use crate::wire::{FrameError, FrameHeader, FrameType, Request, ResultCode, reply};

use super::execute::{Context, Fetched, Outcome, PREFETCH_RECORDS, Submit};
use super::hello::{Admitted, Leave, Lifeline, Place};
use super::home::random_u64;
use super::inbox::{Inbox, Next};
use super::info::Asker;
use super::line::{Line, Waiting, What};
use super::server::{Greeting, Server};
use crate::info::{Answer, changes_state};

/// Replies that are sent before more requests are carried out.
const REPLY_BYTES_MAX: usize = 256 << 10;
/// Requests between two looks at the clock.
const REQUESTS_PER_LOOK: usize = 32;
/// Most bytes one request of info commands may be answered with.
const INFO_REPLY_BYTES_MAX: usize = 16 << 20;
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
    /// A newer connection of the same shipper has taken its place.
    #[error("a newer connection of the same source is there")]
    Fenced,
    /// The answers to one request of info commands grew without bound.
    #[error("more than {INFO_REPLY_BYTES_MAX} bytes of info answers asked for at once")]
    InfoTooLong,
}

/// One connection's state.
pub struct Connection<'a, S> {
    server: &'a Server<S>,
    read: ReadHalf,
    out: Outbound<'a>,
    inbox: Inbox,
    /// Replies to be sent, but for those in line.
    ready: Vec<u8>,
    line: Line,
    asker: Asker,
    user_agent_set: bool,
    /// What a hello has to answer, once it has been asked for.
    challenge: Option<Challenge>,
    /// The place in the fence and the origin, once a shipper has said hello.
    shipper: Option<(Place, SrcId)>,
}

/// The sending side.
struct Outbound<'a> {
    write: WriteHalf,
    life: &'a Rc<Lifeline>,
}

impl<'a, S: Submit> Connection<'a, S> {
    /// A connection on `socket`; others may end it through `life`.
    pub fn new(server: &'a Server<S>, socket: Socket, life: &'a Rc<Lifeline>) -> Self {
        let asker = Asker { local: socket.local_addr().ip(), peer: socket.peer_addr() };
        let (read, write) = socket.split();
        Self {
            server,
            read,
            out: Outbound { write, life },
            inbox: Inbox::new(server.limits.message_bytes_max),
            ready: Vec::new(),
            line: Line::default(),
            asker,
            user_agent_set: false,
            challenge: None,
            shipper: None,
        }
    }

    /// Serves it to its end. Afterwards nothing of it is under way any more, on any shard.
    ///
    /// # Errors
    /// Why it ended, unless the client or a stop ended it in order.
    pub async fn run(mut self) -> Result<(), Ended> {
        let result = self.serve().await;
        while let Some(Waiting { what, .. }) = self.line.pop() {
            if let What::Handed(ticket) = what {
                ticket.await;
            }
        }
        result
    }

    async fn serve(&mut self) -> Result<(), Ended> {
        loop {
            self.carry_out().await?;
            self.settle().await?;
            self.send().await?;
            match self.out.life.leave() {
                Leave::Open => {}
                Leave::Stop => return Ok(()),
                Leave::Fenced => return Err(Ended::Fenced),
            }
            let stopped = async {
                self.out.life.narrowed_to(Leave::Stop).await;
                None
            };
            let received = async { Some(self.read.read(self.inbox.room()).await) };
            match or(stopped, received).await {
                Some(Ok(0)) => return Ok(()),
                Some(received) => self.inbox.filled(received?),
                None => {}
            }
        }
    }

    /// Carries out what has been received, as far as it is whole.
    async fn carry_out(&mut self) -> Result<(), Ended> {
        let mut requests = 0;
        let mut context = self.context();
        while self.out.life.leave() == Leave::Open {
            if requests % PREFETCH_RECORDS == 0 {
                self.server.records.prefetch(self.inbox.ahead());
            }
            match self.inbox.take()? {
                Next::More => break,
                Next::Frame(FrameType::Message, body) => self.message(body, context).await?,
                Next::Frame(_, body) => {
                    self.settle().await?;
                    self.info(body).await?;
                    context = self.context();
                }
                Next::Unread(kind) => refuse(kind, &mut self.ready),
            }
            requests += 1;
            if self.ready.len() >= REPLY_BYTES_MAX || self.line.is_full() {
                self.settle().await?;
                self.send().await?;
                context = self.context();
            }
            if requests % REQUESTS_PER_LOOK == 0 && need_preempt() {
                yield_now().await;
                context = self.context();
            }
        }
        Ok(())
    }

    fn context(&self) -> Context {
        let src_id = self.shipper.as_ref().map_or(SrcId::NONE, |(_, src_id)| *src_id);
        Context { now: self.server.records.note_time(), src_id }
    }

    async fn message(&mut self, body: Range<usize>, context: Context) -> Result<(), Ended> {
        let mut request = Request::parse(self.inbox.body(&body));
        if self.must_wait(&request) {
            self.settle().await?;
            request = Request::parse(self.inbox.body(&body));
        }
        let records = &self.server.records;
        let bytes = self.inbox.body(&body);
        let at = self.ready.len();
        let is_shipped = request.as_ref().is_ok_and(Request::is_shipped);
        let (digest, what) = match records.carry_out(request, context, Fetched::No, &mut self.ready)
        {
            Outcome::Answered => return Ok(()),
            Outcome::Committing(target, position) => {
                (target.digest, What::Committing(target, position, self.ready.len() - at))
            }
            Outcome::Read(target) => {
                let extent = records.extent(target);
                let mut reading = records.read(target);
                // The first poll begins it.
                let reading = match poll_once(&mut reading).await {
                    Some(read) => Box::pin(ready(read)),
                    None => reading,
                };
                (target.digest, What::Read(reading, body, extent))
            }
            // A shipper's connections are fenced shard by shard, so each shard writes its own
            // partitions only: one that does not know the owner is to look again.
            Outcome::Elsewhere(..) if is_shipped && self.shipper.is_some() => {
                reply::push_code(&mut self.ready, ResultCode::UNAVAILABLE);
                return Ok(());
            }
            Outcome::Elsewhere(shard, digest) => {
                match self.server.desk.hand_over(shard, context.src_id, bytes) {
                    Ok(ticket) => (digest, What::Handed(ticket)),
                    Err(code) => {
                        reply::push_code(&mut self.ready, code);
                        return Ok(());
                    }
                }
            }
        };
        self.line.push(Waiting { at, digest, what });
        Ok(())
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
        if self.line.is_empty() {
            return Ok(());
        }
        let context = self.context();
        let ready = std::mem::take(&mut self.ready);
        let mut placed = Vec::with_capacity(ready.len() + 64 * self.line.len());
        let mut copied = 0;
        let records = &self.server.records;
        while let Some(Waiting { at, what, .. }) = self.line.pop() {
            placed.extend_from_slice(&ready[copied..at]);
            copied = at;
            match what {
                What::Handed(ticket) => placed.extend_from_slice(&ticket.await),
                What::Read(reading, body, _) => {
                    let body = self.inbox.body(&body);
                    records.finish(body, context, reading, &mut placed).await;
                }
                What::Committing(target, position, bytes) => {
                    if let Err(code) = records.committed(target, position).await {
                        reply::push_code(&mut placed, code);
                        copied += bytes;
                    }
                }
            }
        }
        placed.extend_from_slice(&ready[copied..]);
        self.ready = placed;
        Ok(())
    }

    async fn send(&mut self) -> Result<(), Ended> {
        if self.ready.is_empty() {
            return Ok(());
        }
        self.out.send(&self.ready).await?;
        self.ready.clear();
        self.ready.shrink_to(REPLY_BYTES_MAX);
        Ok(())
    }

    async fn info(&mut self, body: Range<usize>) -> Result<(), Ended> {
        let body = self.inbox.body(&body).to_vec();
        let mut answers = Vec::new();
        let mut bytes = 0;
        for line in info::lines(&body) {
            let answer = match Command::parse(line) {
                Some(command) => self.guarded(line, &command).await?,
                None => UNRECOGNIZED.to_owned(),
            };
            bytes += line.len() + answer.len();
            if bytes > INFO_REPLY_BYTES_MAX {
                return Err(Ended::InfoTooLong);
            }
            answers.push(answer);
        }
        let mut frame = InfoFrame::begin(&mut self.ready);
        for (line, answer) in info::lines(&body).zip(&answers) {
            frame.answer(line, answer);
        }
        Ok(())
    }

    /// Answers a command if its asker may give it.
    async fn guarded(&mut self, line: &[u8], command: &Command<'_>) -> Result<String, Ended> {
        if !changes_state(command) {
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
        let server = self.server;
        if command.name == hello::FEATURE {
            return Ok(self.hello(line).await);
        }
        if command.name == hello::CHALLENGE {
            let halves = [random_u64().to_be_bytes(), random_u64().to_be_bytes()];
            let challenge = Challenge(halves.concat().try_into().expect("two halves of 8 bytes"));
            self.challenge = Some(challenge);
            return Ok(challenge.to_hex());
        }
        if command.name == hello::STANDING {
            return Ok(self.standing(command).unwrap_or_else(|| "ok".to_owned()));
        }
        if command.name == hello::BOOT {
            return Ok(format!("{:016x}", server.greeting.boot));
        }
        if command.name == "user-agent-set" {
            let again = std::mem::replace(&mut self.user_agent_set, true);
            let already = || info::error(ResultCode::PARAMETER, "already set");
            return Ok(if again { already() } else { "ok".to_owned() });
        }
        let known = server.identity.answer(command, &self.asker).or_else(|| server.report(command));
        match known.map(Answer::Now).or_else(|| server.ask.ask(command)) {
            Some(Answer::Now(text)) => Ok(text),
            Some(Answer::Later(text)) => Ok(text.await),
            None => Ok(UNRECOGNIZED.to_owned()),
        }
    }

    /// A shipper opens the connection: see [`super::hello`].
    async fn hello(&mut self, line: &[u8]) -> String {
        let refuse = |cause: &dyn std::fmt::Display| {
            info::error(ResultCode::PARAMETER, &format!("hello refused: {cause}"))
        };
        if self.shipper.is_some() {
            return refuse(&"one was said on this connection");
        }
        // A challenge is for one attempt.
        let challenge = self.challenge.take().ok_or(BadHello::Proof);
        let hello = match challenge.and_then(|challenge| Hello::verify(line, &challenge)) {
            Ok(hello) => hello,
            Err(bad) => return refuse(&bad),
        };
        let server = self.server;
        let from = (self.asker.peer, self.out.life);
        match server.fence.admit(&hello, from, Tick(Clock::real().now())) {
            Err(error) => {
                let (at, dc, node) = (self.asker.peer, hello.dc, hello.node);
                if let Some(more) = HELLO_REFUSED.pass(Clock::real().now()) {
                    warn!(
                        "refused to take what {at} ships (DC {dc} of node {node:X}): {error} \
                         ({more} more refused since the last such line)"
                    );
                }
                refuse(&error)
            }
            Ok(Admitted { place, superseded }) => {
                self.shipper = Some((place, hello.src_id));
                for older in superseded {
                    older.ended().await;
                }
                self.note_twin(&hello);
                let Greeting { boot, loss_window_ms } = server.greeting;
                let src_id = server.records.submit().src_id();
                HelloAnswer { boot, loss_window_ms, src_id }.format()
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

    /// Who else goes by the name of a source.
    fn standing(&self, command: &Command<'_>) -> Option<String> {
        let origin = command.arg("origin").and_then(Origin::from_hex)?;
        let process = command.arg("process")?.parse().ok()?;
        let node = u64::from_str_radix(command.arg("node")?, 16).ok()?;
        self.server.fence.standing(origin, process, node, Tick(Clock::real().now()))
    }
}

impl Outbound<'_> {
    /// Sends all of `bytes`, unless a newer connection takes this one's place meanwhile.
    async fn send(&mut self, bytes: &[u8]) -> Result<(), Ended> {
        let fenced = async {
            self.life.narrowed_to(Leave::Fenced).await;
            Err(Ended::Fenced)
        };
        let sent = async { Ok(self.write.write_all(bytes).await?) };
        or(fenced, sent).await
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
