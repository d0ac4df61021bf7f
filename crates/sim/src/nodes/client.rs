//! A client of a node: one connection, one request at a time.

use std::net::SocketAddr;
use std::time::Duration;

use futures_lite::future;
use longship::model::Digest;
use longship::wire::frame::FRAME_HEADER_BYTES;
use longship::wire::reply::Reply;
use longship::wire::request::Address;
use longship::wire::{OpCode, ParticleType, ResultCode, info, next_frame, ops};
use longship_rt::clock::Clock;
use longship_rt::event::Event;
use longship_rt::net::Socket;

use super::plan::Plan;

/// How long an answer is waited for.
const PATIENCE_US: u64 = 3_000_000;

/// A connection, opened when it is needed.
pub(super) struct Client {
    at: SocketAddr,
    socket: Option<Socket>,
}

/// Nothing is known of what became of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lost;

pub(super) fn digest_of(key: u32) -> Digest {
    Digest::of_string("s", &key.to_string())
}

fn address(key: u32) -> Address<'static> {
    Address { namespace: Plan::namespace(key), set: "s", digest: digest_of(key) }
}

impl Client {
    pub(super) const fn of(at: SocketAddr) -> Self {
        Self { at, socket: None }
    }

    /// Writes value `number`, to live for so long if that is not 0, or deletes the record.
    pub(super) async fn write(
        &mut self,
        key: u32,
        number: Option<u64>,
        (bytes, ttl_s): (usize, u32),
    ) -> Result<ResultCode, Lost> {
        let mut frame = Vec::new();
        match number {
            None => address(key).remove().push(0, &[], &mut frame),
            Some(number) => {
                let mut list = Vec::new();
                let number = number.to_be_bytes();
                ops::push(&mut list, OpCode::WRITE, ParticleType::INTEGER, b"n", &number);
                let filling = vec![number[7]; bytes];
                ops::push(&mut list, OpCode::WRITE, ParticleType::BLOB, b"filling", &filling);
                let mut head = address(key).put();
                head.ttl = ttl_s;
                head.push(2, &list, &mut frame);
            }
        }
        let reply = self.ask(&frame).await?;
        Ok(Reply::parse(&reply[FRAME_HEADER_BYTES..]).expect("a reply").code())
    }

    /// The number that a record holds; none of one that is not there.
    pub(super) async fn read(&mut self, key: u32) -> Result<Result<Option<u64>, ResultCode>, Lost> {
        let mut frame = Vec::new();
        address(key).get().push(0, &[], &mut frame);
        let reply = self.ask(&frame).await?;
        let reply = Reply::parse(&reply[FRAME_HEADER_BYTES..]).expect("a reply");
        match reply.code() {
            ResultCode::NOT_FOUND => return Ok(Ok(None)),
            ResultCode::OK => {}
            code => return Ok(Err(code)),
        }
        let (mut number, mut filling) = (None, None);
        for op in reply.ops {
            match op.name {
                b"n" => number = op.value.first_chunk().map(|bytes| u64::from_be_bytes(*bytes)),
                _ => filling = Some(op.value),
            }
        }
        let number = number.expect("a record has its number");
        let is_whole = |filling: &[u8]| filling.iter().all(|byte| *byte == number.to_be_bytes()[7]);
        assert!(filling.is_some_and(is_whole), "key {key} holds bytes of another write");
        Ok(Ok(Some(number)))
    }

    /// The answer to an info command.
    pub(super) async fn info(&mut self, command: &str) -> Result<String, Lost> {
        let mut frame = Vec::new();
        info::push_request(&mut frame, &[command]);
        let reply = self.ask(&frame).await?;
        let mut answers = info::answers(&reply[FRAME_HEADER_BYTES..]);
        Ok(answers.next().map(|(_, answer)| answer.to_owned()).unwrap_or_default())
    }

    async fn ask(&mut self, frame: &[u8]) -> Result<Vec<u8>, Lost> {
        let deadline_us = Clock::real().now() + PATIENCE_US;
        let late = async {
            Event::new().wait_until(deadline_us).await;
            None
        };
        let reply = future::or(self.exchange(frame), late).await;
        if reply.is_none() {
            self.socket = None;
        }
        reply.ok_or(Lost)
    }

    async fn exchange(&mut self, frame: &[u8]) -> Option<Vec<u8>> {
        if self.socket.is_none() {
            self.socket = Socket::connect(self.at, Duration::from_secs(2)).await.ok();
        }
        let socket = self.socket.as_mut()?;
        socket.write_all(frame).await.ok()?;
        let (mut reply, mut buffer) = (Vec::new(), [0; 8192]);
        loop {
            match socket.read(&mut buffer).await {
                Ok(count @ 1..) => reply.extend_from_slice(&buffer[..count]),
                _ => return None,
            }
            if next_frame(&reply).expect("whole frames").is_some() {
                return Some(reply);
            }
        }
    }
}
