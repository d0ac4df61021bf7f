//! A connection that asks info commands and waits for each answer, and the opening of a shipping
//! connection, which begins as one.

use std::future::Future;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use futures_lite::future;

use crate::limits::{ANSWER_BYTES_MAX, CAUSE_CHARS_MAX};
use crate::wire::frame::{FRAME_HEADER_BYTES, FrameHeader, next_header};
use crate::wire::hello::{CHALLENGE, Challenge, FEATURE, HelloAnswer};
use crate::wire::info;
use crate::wire::{FrameError, FrameType};
use longship_rt::clock::Clock;
use longship_rt::event::Event;
use longship_rt::net::Socket;

/// What the buffer of a link keeps between two answers.
const KEPT_BYTES: usize = 16 << 10;

/// How long to wait for a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For a connection.
    pub connect_ms: u64,
    /// For the answer to info commands.
    pub answer_ms: u64,
}

impl Default for Patience {
    /// Three seconds each: a lost first packet is sent again after one.
    fn default() -> Self {
        Self { connect_ms: 3000, answer_ms: 3000 }
    }
}

/// What may be wrong where a question is answered by closing the connection.
fn if_closed(source: &io::Error) -> &'static str {
    match source.kind() {
        ErrorKind::UnexpectedEof => ": is that the port clients use, and one without TLS?",
        _ => "",
    }
}

/// Why a conversation ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// No connection.
    #[error("{address}: cannot connect: {source}")]
    Connect {
        /// To whom.
        address: SocketAddr,
        /// The system's answer.
        source: io::Error,
    },
    /// The connection broke, or no answer came in time.
    #[error("{address}: no answer: {source}{}", if_closed(source))]
    Answer {
        /// From whom.
        address: SocketAddr,
        /// The system's answer.
        source: io::Error,
    },
    /// What came is no frame.
    #[error("{address}: no answer of a node ({source}): is that the port clients use?")]
    Frame {
        /// From whom.
        address: SocketAddr,
        /// What is wrong with it.
        source: FrameError,
    },
    /// What came is no info answer, or one of unreasonable length.
    #[error("{address}: answered with a {kind:?} frame of {bytes} bytes")]
    NotInfo {
        /// From whom.
        address: SocketAddr,
        /// Its frame type.
        kind: FrameType,
        /// Length of its body.
        bytes: usize,
    },
    /// Another node lives there now.
    #[error("{address}: node {expected} was expected there, node {found:?} answered")]
    OtherNode {
        /// Who was asked.
        address: SocketAddr,
        /// The node wanted.
        expected: String,
        /// The node found.
        found: String,
    },
    /// A Longship node did not take the hello.
    #[error("{address}: {cause}")]
    Hello {
        /// Who refused.
        address: SocketAddr,
        /// Why, in its words.
        cause: String,
    },
}

/// A connection with at most one question open.
#[derive(Debug)]
pub(super) struct Link {
    socket: Socket,
    address: SocketAddr,
    patience: Patience,
    buffer: Vec<u8>,
}

impl Link {
    pub(super) async fn connect(
        address: SocketAddr,
        patience: Patience,
    ) -> Result<Self, LinkError> {
        let timeout = Duration::from_millis(patience.connect_ms);
        let socket = Socket::connect(address, timeout)
            .await
            .map_err(|source| LinkError::Connect { address, source })?;
        Ok(Self { socket, address, patience, buffer: Vec::new() })
    }

    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends commands, one per line, and gives the body of the answer. After an error the link is
    /// of no more use.
    pub(super) async fn ask(&mut self, commands: &str) -> Result<&[u8], LinkError> {
        let header = FrameHeader { kind: FrameType::Info, body_bytes: commands.len() };
        self.buffer.clear();
        self.buffer.extend_from_slice(&header.to_bytes());
        self.buffer.extend_from_slice(commands.as_bytes());
        let answer_ms = self.patience.answer_ms;
        let address = self.address;
        within(answer_ms, self.exchange())
            .await
            .map_err(|source| LinkError::Answer { address, source })??;
        Ok(&self.buffer[FRAME_HEADER_BYTES..])
    }

    /// Sends what the buffer holds and fills it with the answer's frame.
    async fn exchange(&mut self) -> io::Result<Result<(), LinkError>> {
        self.socket.write_all(&self.buffer).await?;
        let address = self.address;
        self.fill(FRAME_HEADER_BYTES).await?;
        let header = match next_header(&self.buffer) {
            Ok(header) => header.expect("the buffer holds a header's bytes"),
            Err(source) => return Ok(Err(LinkError::Frame { address, source })),
        };
        if header.kind != FrameType::Info || header.body_bytes > ANSWER_BYTES_MAX {
            let (kind, bytes) = (header.kind, header.body_bytes);
            return Ok(Err(LinkError::NotInfo { address, kind, bytes }));
        }
        self.fill(header.frame_bytes()).await?;
        Ok(Ok(()))
    }

    /// Reads exactly `bytes` into the buffer, of which the part already read is kept when `bytes`
    /// continues it.
    async fn fill(&mut self, bytes: usize) -> io::Result<()> {
        let mut filled = if bytes > FRAME_HEADER_BYTES { FRAME_HEADER_BYTES } else { 0 };
        while filled < bytes {
            // Memory for what comes, not for what a header announces.
            self.buffer.resize(bytes.min((2 * filled).max(KEPT_BYTES)), 0);
            match self.socket.read(&mut self.buffer[filled..]).await? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                n => filled += n,
            }
        }
        Ok(())
    }

    /// The answer has been read: gives back what a long one took.
    pub(super) fn forget_answer(&mut self) {
        self.buffer.clear();
        self.buffer.shrink_to(KEPT_BYTES);
    }

    fn into_socket(self) -> Socket {
        self.socket
    }
}

/// A connection ready for data.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) socket: Socket,
    /// What a Longship node said of itself; `None` from any other server.
    pub(super) hello: Option<HelloAnswer>,
}

/// Opens a shipping connection to the node `id`: makes sure it is that node, and exchanges hellos
/// when it is a Longship node. One that is known to be (`is_longship`) saves a round trip. `hello`
/// makes the line, at the last moment.
pub(super) async fn open(
    (id, address): (&str, SocketAddr),
    patience: Patience,
    is_longship: bool,
    hello: impl FnOnce(&Challenge) -> String,
) -> Result<Opened, LinkError> {
    let mut link = Link::connect(address, patience).await?;
    let mut asked = "node\nfeatures\n".to_owned();
    if is_longship {
        asked = asked + CHALLENGE + "\n";
    }
    let body = link.ask(&asked).await?;
    let find = |command| info::answers(body).find(|&(asked, _)| asked == command);
    let found = find("node").map_or("", |(_, value)| value);
    if found != id {
        let (expected, found) = (id.to_owned(), found.to_owned());
        return Err(LinkError::OtherNode { address, expected, found });
    }
    let features = find("features").map_or("", |(_, value)| value);
    if !features.split(';').any(|feature| feature == FEATURE) {
        return Ok(Opened { socket: link.into_socket(), hello: None });
    }
    let mut challenge = find(CHALLENGE).and_then(|(_, value)| Challenge::from_hex(value));
    if challenge.is_none() {
        let body = link.ask(&format!("{CHALLENGE}\n")).await?;
        challenge = info::answers(body).next().and_then(|(_, value)| Challenge::from_hex(value));
    }
    let Some(challenge) = challenge else {
        let cause = format!("its version knows no {CHALLENGE}: bring both nodes to the same");
        return Err(LinkError::Hello { address, cause });
    };
    let body = link.ask(&(hello(&challenge) + "\n")).await?;
    let answer = info::answers(body).next().map_or("", |(_, value)| value);
    let Some(hello) = HelloAnswer::parse(answer) else {
        let cause = info::failure(answer).map_or(answer, |(_, text)| text);
        let cause = cause.chars().take(CAUSE_CHARS_MAX).collect();
        return Err(LinkError::Hello { address, cause });
    };
    Ok(Opened { socket: link.into_socket(), hello: Some(hello) })
}

/// The future's result, or `TimedOut`. The future is dropped then, and with it whatever it was
/// doing: only for connections that are given up with it.
async fn within<T>(ms: u64, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let alarm = Event::new();
    let deadline_us = Clock::real().now() + ms * 1000;
    let late = async {
        alarm.wait_until(deadline_us).await;
        Err(ErrorKind::TimedOut.into())
    };
    future::or(work, late).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_answered_by_closing_asks_for_the_port_and_tls() {
        let told = |kind: ErrorKind| {
            let address = SocketAddr::from(([127, 0, 0, 1], 4333));
            LinkError::Answer { address, source: kind.into() }.to_string()
        };
        assert!(told(ErrorKind::UnexpectedEof).ends_with("clients use, and one without TLS?"));
        assert!(!told(ErrorKind::TimedOut).contains("TLS"));
    }
}
