//! What is under way on one shipping connection: batches waiting for the socket, tags waiting for
//! their replies, and the window that bounds both.
//!
//! A destination answers each connection strictly in order, so a reply needs no name: it belongs to
//! the oldest unanswered tag. Per record this costs four bytes in a ring and one move out of it;
//! time is taken per batch.
//!
//! The window bounds what a node may be owed at the most; what it may be owed now follows what it
//! was seen to answer (`allowance`).

use std::collections::VecDeque;

use crate::limits::{WINDOW_BYTES, WINDOW_RECORDS};
use crate::model::Tick;
use crate::wire::ResultCode;

use super::allowance::{Allowance, Amount, Landed};

/// How much may be under way at the most. Chosen at start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Records sent or waiting to be sent, and not answered, to all nodes of a DC together.
    pub records: usize,
    /// Their bytes on the wire, to each node. Rate x round trip: 39 MB for 1 M records/s of 250
    /// bytes at 156 ms.
    pub bytes: usize,
    /// Batches waiting for each socket, beside the one being written.
    pub batches_waiting: usize,
}

impl Default for Window {
    fn default() -> Self {
        Self { records: WINDOW_RECORDS as usize, bytes: WINDOW_BYTES, batches_waiting: 4 }
    }
}

/// A destination's answer for one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The tag given with the record.
    pub tag: u32,
    /// The result.
    pub code: ResultCode,
}

/// A batch as it is sent: the first `bytes` of the buffer, in one go.
#[derive(Debug)]
pub struct Outgoing<B> {
    /// Holds whole frames.
    pub buffer: B,
    /// How much of it to send.
    pub bytes: usize,
}

/// The peer answered more than it was asked: close the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{replies} replies for {asked} unanswered requests")]
pub struct Surplus {
    /// Replies that came.
    pub replies: usize,
    /// Requests sent and unanswered.
    pub asked: usize,
}

/// What a lost connection leaves behind.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Unanswered {
    /// Every tag without a reply, in the order given.
    pub tags: Vec<u32>,
    /// How many of them, from the front, the destination may have seen: their batch was begun.
    pub in_doubt: usize,
}

/// The state of one connection's traffic. `B` is the batch buffer.
#[derive(Debug)]
pub struct Pipeline<B> {
    batches_waiting: usize,
    allowance: Allowance,
    /// Not begun yet, each with its record count.
    waiting: VecDeque<(Outgoing<B>, usize)>,
    /// Begun and not fully answered.
    flights: VecDeque<Flight>,
    /// Unanswered, oldest first: those of `flights`, then those of `waiting`.
    tags: VecDeque<u32>,
    /// Of `tags`, how many from the front belong to begun batches.
    tags_begun: usize,
    /// Of whole batches given and not fully answered.
    bytes: usize,
    /// Of these, of begun batches.
    bytes_begun: usize,
    /// Bytes of all batches begun on this connection.
    bytes_written: u64,
    /// Of these, what the destination's system has taken, as far as was seen.
    bytes_taken: u64,
    /// When something was last begun while nothing was in flight, or answered, or taken of what is
    /// to be answered first.
    moved: Tick,
}

#[derive(Clone, Copy, Debug)]
struct Flight {
    unanswered: usize,
    held: Amount,
    ahead: Amount,
    given: Amount,
    /// Of the connection's bytes, those up to its end.
    bytes_end: u64,
    begun: Tick,
}

/// Round trips that ended: enough for a mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoundTrips {
    /// Batches whose last reply has come.
    pub count: u64,
    /// From the beginning of each one's send to its last reply, summed.
    pub total_us: u64,
}

impl<B> Pipeline<B> {
    /// An empty pipeline.
    pub fn new(window: Window) -> Self {
        Self {
            batches_waiting: window.batches_waiting,
            allowance: Allowance::new(Amount { records: window.records, bytes: window.bytes }),
            waiting: VecDeque::with_capacity(window.batches_waiting),
            flights: VecDeque::new(),
            tags: VecDeque::new(),
            tags_begun: 0,
            bytes: 0,
            bytes_begun: 0,
            bytes_written: 0,
            bytes_taken: 0,
            moved: Tick(0),
        }
    }

    /// Whether another batch would be taken.
    #[inline]
    pub fn has_room(&self) -> bool {
        self.waiting.len() < self.batches_waiting && self.allowance.admits(self.given())
    }

    #[inline]
    fn given(&self) -> Amount {
        Amount { records: self.tags.len(), bytes: self.bytes }
    }

    /// Whether no batch waits for the socket, so that a part-filled one may as well leave now.
    #[inline]
    pub fn is_drained(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Records given and not answered.
    #[inline]
    pub fn records(&self) -> usize {
        self.tags.len()
    }

    /// Bytes given and not fully answered, by whole batches.
    #[inline]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Since when the destination owes an answer, and has neither given one nor taken more of the
    /// batch that it is to answer first.
    #[inline]
    pub fn silent_since(&self) -> Option<Tick> {
        if self.flights.is_empty() { None } else { Some(self.moved) }
    }

    /// The destination's system has taken so many of the connection's bytes. The connection moves
    /// as long as these are bytes of the oldest unanswered batch, which may be long on its way.
    /// Once that batch has been taken whole, only answers show that the destination is alive.
    pub fn note_taken(&mut self, bytes: u64, now: Tick) {
        let before = self.bytes_taken;
        if bytes <= before {
            return;
        }
        self.bytes_taken = bytes;
        if self.flights.front().is_some_and(|oldest| before < oldest.bytes_end) {
            self.moved = now;
        }
    }

    /// A new connection carries it: begins small.
    pub fn start_over(&mut self) {
        (self.bytes_written, self.bytes_taken) = (0, 0);
        self.allowance.start_over();
    }

    /// Takes a batch: one tag per frame in it, in order. The bounds may be overshot by one batch.
    /// Without room, or without a record in it, the batch is given back.
    pub fn push(&mut self, batch: Outgoing<B>, tags: &[u32]) -> Result<(), Outgoing<B>> {
        if !self.has_room() || tags.is_empty() {
            return Err(batch);
        }
        self.bytes += batch.bytes;
        self.tags.extend(tags);
        self.waiting.push_back((batch, tags.len()));
        Ok(())
    }

    /// The next batch to write. From now on it counts as seen by the destination.
    pub fn begin(&mut self, now: Tick) -> Option<Outgoing<B>> {
        let (batch, records) = self.waiting.pop_front()?;
        if self.flights.is_empty() {
            if self.moved != Tick(0) {
                self.allowance.rested(now.us_since(self.moved));
            }
            self.moved = now;
        }
        self.tags_begun += records;
        self.bytes_begun += batch.bytes;
        self.bytes_written += batch.bytes as u64;
        self.flights.push_back(Flight {
            unanswered: records,
            held: Amount { records, bytes: batch.bytes },
            ahead: Amount { records: self.tags_begun, bytes: self.bytes_begun },
            given: self.given(),
            bytes_end: self.bytes_written,
            begun: now,
        });
        Some(batch)
    }

    /// Matches replies with the oldest tags. Nothing is matched when there are too many of them.
    pub fn settle(
        &mut self,
        codes: &[ResultCode],
        now: Tick,
        out: &mut Vec<Reply>,
    ) -> Result<RoundTrips, Surplus> {
        if codes.len() > self.tags_begun {
            return Err(Surplus { replies: codes.len(), asked: self.tags_begun });
        }
        self.tags_begun -= codes.len();
        let tags = self.tags.drain(..codes.len());
        out.extend(tags.zip(codes).map(|(tag, &code)| Reply { tag, code }));

        let mut ended = RoundTrips::default();
        let mut left = codes.len();
        if left > 0 {
            self.moved = now;
        }
        while left > 0 {
            let flight = self.flights.front_mut().expect("flights count every begun tag");
            let answered = left.min(flight.unanswered);
            flight.unanswered -= answered;
            left -= answered;
            if flight.unanswered == 0 {
                let Flight { held, ahead, given, begun, .. } = *flight;
                let took_us = now.us_since(begun);
                self.bytes -= held.bytes;
                self.bytes_begun -= held.bytes;
                ended.count += 1;
                ended.total_us += took_us;
                self.allowance.landed(&Landed { held, ahead, given, took_us });
                self.flights.pop_front();
            }
        }
        debug_assert_eq!(
            self.tags_begun,
            self.flights.iter().map(|flight| flight.unanswered).sum::<usize>(),
        );
        Ok(ended)
    }

    /// Empties the pipeline after a loss. Buffers of batches that were never begun go to `spare`.
    pub fn lose(&mut self, spare: &mut Vec<B>) -> Unanswered {
        spare.extend(self.waiting.drain(..).map(|(batch, _)| batch.buffer));
        self.flights.clear();
        (self.bytes, self.bytes_begun) = (0, 0);
        let in_doubt = std::mem::take(&mut self.tags_begun);
        Unanswered { tags: self.tags.drain(..).collect(), in_doubt }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OK: ResultCode = ResultCode::OK;

    fn pipeline(records: usize, bytes: usize, batches_waiting: usize) -> Pipeline<u8> {
        Pipeline::new(Window { records, bytes, batches_waiting })
    }

    fn push(pipeline: &mut Pipeline<u8>, buffer: u8, bytes: usize, tags: &[u32]) -> bool {
        pipeline.push(Outgoing { buffer, bytes }, tags).is_ok()
    }

    #[test]
    fn replies_go_to_the_oldest_tags_across_batches() {
        let mut line = pipeline(100, 1000, 4);
        assert!(push(&mut line, 0, 30, &[7, 8, 9]) && push(&mut line, 1, 20, &[5, 6]));
        assert_eq!(line.silent_since(), None);
        assert_eq!(line.begin(Tick(100)).unwrap().buffer, 0);
        assert_eq!(line.begin(Tick(200)).unwrap().buffer, 1);
        assert!(line.begin(Tick(300)).is_none() && line.is_drained());

        let mut out = Vec::new();
        let ended = line.settle(&[OK; 2], Tick(350), &mut out).unwrap();
        assert_eq!((ended, line.silent_since()), (RoundTrips::default(), Some(Tick(350))));
        let ended = line.settle(&[ResultCode::NOT_FOUND, OK], Tick(400), &mut out).unwrap();
        assert_eq!(ended, RoundTrips { count: 1, total_us: 300 });
        assert_eq!((line.records(), line.bytes()), (1, 20));
        line.settle(&[OK], Tick(500), &mut out).unwrap();
        assert_eq!((line.records(), line.bytes(), line.silent_since()), (0, 0, None));
        let got: Vec<_> = out.iter().map(|reply| (reply.tag, reply.code.0)).collect();
        assert_eq!(got, [(7, 0), (8, 0), (9, 2), (5, 0), (6, 0)]);
    }

    #[test]
    fn a_reply_to_what_was_not_begun_is_a_surplus() {
        let mut line = pipeline(100, 1000, 4);
        push(&mut line, 0, 10, &[1]);
        push(&mut line, 1, 10, &[2, 3]);
        line.begin(Tick(0));
        let mut out = Vec::new();
        let surplus = line.settle(&[OK; 2], Tick(1), &mut out);
        assert_eq!(surplus, Err(Surplus { replies: 2, asked: 1 }));
        assert!(out.is_empty());
    }

    #[test]
    fn each_bound_closes_the_window_and_an_answer_opens_it() {
        let mut by_records = pipeline(2, 1000, 4);
        assert!(push(&mut by_records, 0, 10, &[1, 2, 3]) && !by_records.has_room());
        let mut by_bytes = pipeline(100, 10, 4);
        assert!(push(&mut by_bytes, 0, 10, &[1]) && !push(&mut by_bytes, 1, 10, &[2]));
        by_bytes.begin(Tick(0));
        by_bytes.settle(&[OK], Tick(1), &mut Vec::new()).unwrap();
        assert!(push(&mut by_bytes, 1, 10, &[2]));
        let mut by_batches = pipeline(100, 1000, 1);
        assert!(push(&mut by_batches, 0, 10, &[1]) && !by_batches.has_room());
        by_batches.begin(Tick(0));
        assert!(by_batches.has_room());
        assert!(!push(&mut by_batches, 0, 10, &[]), "a batch without a record");
    }

    #[test]
    fn bytes_taken_are_a_sign_of_life_until_the_oldest_batch_is_taken_and_then_only_answers_are() {
        let mut line = pipeline(100, 1000, 4);
        push(&mut line, 0, 10, &[1]);
        push(&mut line, 1, 30, &[2, 3]);
        line.begin(Tick(1));
        line.begin(Tick(2));
        let mut silent_since = |taken: u64, now: u64| {
            line.note_taken(taken, Tick(now));
            line.silent_since()
        };
        assert_eq!(silent_since(4, 3), Some(Tick(3)), "a long batch is on its way");
        assert_eq!(silent_since(4, 4), Some(Tick(3)));
        assert_eq!(silent_since(10, 5), Some(Tick(5)), "it has come");
        assert_eq!(silent_since(40, 60), Some(Tick(5)), "it is not answered");
        line.settle(&[OK], Tick(70), &mut Vec::new()).unwrap();
        line.note_taken(40, Tick(80));
        assert_eq!(line.silent_since(), Some(Tick(70)), "the other had come before");

        line.lose(&mut Vec::new());
        line.start_over();
        push(&mut line, 0, 20, &[2]);
        line.begin(Tick(90));
        line.note_taken(15, Tick(95));
        assert_eq!(line.silent_since(), Some(Tick(95)), "another connection counts its own bytes");
    }

    #[test]
    fn a_loss_gives_back_tags_in_order_and_tells_the_doubtful_from_the_unsent() {
        let mut line = pipeline(100, 1000, 4);
        push(&mut line, 0, 10, &[1, 2]);
        push(&mut line, 1, 10, &[3]);
        push(&mut line, 2, 10, &[4]);
        line.begin(Tick(0));
        line.begin(Tick(0));
        line.settle(&[OK], Tick(1), &mut Vec::new()).unwrap();
        let mut spare = Vec::new();
        let lost = line.lose(&mut spare);
        assert_eq!(lost, Unanswered { tags: vec![2, 3, 4], in_doubt: 2 });
        assert_eq!(spare, [2]);
        assert_eq!((line.records(), line.bytes(), line.silent_since()), (0, 0, None));
        assert!(line.has_room() && line.is_drained());
    }

    proptest! {
        /// Whatever is pushed, begun, answered and lost: each tag comes back once, in order, and
        /// the counts return to zero.
        #[test]
        fn every_tag_comes_back_once_and_in_order(
            steps in prop::collection::vec((0..3u8, 1..20usize), 1..200),
        ) {
            let mut line = pipeline(50, 500, 3);
            let (mut given, mut back, mut out) = (0u32, Vec::new(), Vec::new());
            for (step, (kind, amount)) in steps.into_iter().enumerate() {
                let now = Tick(step as u64);
                match kind {
                    0 => {
                        let tags: Vec<u32> = (given..given + amount as u32).collect();
                        let room = line.has_room();
                        prop_assert_eq!(push(&mut line, 0, amount * 10, &tags), room);
                        given += if room { amount as u32 } else { 0 };
                    }
                    1 => drop(line.begin(now)),
                    _ => match line.settle(&vec![OK; amount], now, &mut out) {
                        Ok(_) => back.extend(out.drain(..).map(|reply| reply.tag)),
                        Err(surplus) => prop_assert!(surplus.asked < amount && out.is_empty()),
                    },
                }
            }
            back.extend(line.lose(&mut Vec::new()).tags);
            prop_assert_eq!(back, (0..given).collect::<Vec<_>>());
            prop_assert_eq!((line.records(), line.bytes()), (0, 0));
        }
    }
}
