//! The fence: what an origin once sent for a partition cannot arrive after what it sends now.
//!
//! A source that lost a connection ships what was unanswered once more, on a new connection. That
//! may come from the same process or the next one, from as many shards or another number, and under
//! the same DC name or a new one. Bytes of the old connection may still lie unread in a socket
//! here; applied late, they would undo a newer version or bring back a deleted record. So the hello
//! that opens a connection ends those it supersedes, with their unread bytes. It is answered only
//! when nothing is under way any more of what they asked for, here or on another shard. Superseded
//! are, of the same origin:
//!
//! - connections of its earlier processes, whatever they carried: an origin is one process at a time;
//! - of the same process and shard: earlier connections of the same stream, and all those of streams
//!   that are no more.
//!
//! That is enough. A shard carries the same partitions as long as its process lives. So there are
//! three ways in which the newer of two versions of a record was sent: by the same stream as the
//! older, by a stream that began when that one had ended, or by a later process. And both versions
//! came to this shard of the destination, since a shipper's writes to partitions of other shards
//! are refused. Streams that live side by side and ship the same record to the same place both
//! bring every version; the last one stays.
//!
//! Nothing is kept of connections that have ended: a hello proves that it was written for its own
//! connection, so none can come late. What is here is bounded by the connections.
//!
//! Two processes that both hold an origin's key are a copied work directory. The one that began
//! later is served while it is connected, the other is told why not; whoever asks hears of it
//! ([`Fence::standing`]). Source: `docs/design.md`, D22. With several machines an epoch for each
//! partition will take the place of the process's number (section 9 there).

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;

use longship::model::Tick;
use longship::wire::hello::{Hello, Origin};
use longship_rt::event::Event;

/// How long a refused hello counts as a sign of a second process.
const CONTEST_MS: u64 = 10_000;

/// How far a connection's task may still go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Leave {
    /// As far as it likes.
    #[default]
    Open,
    /// It takes no further request, answers what it has taken, and ends.
    Stop,
    /// It keeps memory that others wait for, and is too slow: it takes and sends nothing more.
    Slow,
    /// A newer connection has taken its place: it takes and sends nothing more.
    Fenced,
}

/// What others on the shard may do to a connection's task, and learn from it.
#[derive(Debug, Default)]
pub struct Lifeline {
    leave: Cell<Leave>,
    changed: Event,
    is_over: Cell<bool>,
    /// Whoever waits for its end.
    waiting: RefCell<Vec<Event>>,
}

impl Lifeline {
    /// Narrows what the connection may do; never widens it.
    pub fn narrow(&self, leave: Leave) {
        if leave > self.leave.get() {
            self.leave.set(leave);
            self.changed.set();
        }
    }

    /// What it may do.
    #[inline]
    pub fn leave(&self) -> Leave {
        self.leave.get()
    }

    /// Has the connection look around, if it waits for its client.
    pub fn nudge(&self) {
        self.changed.set();
    }

    /// Waits until it is narrowed or nudged.
    pub async fn changed(&self) {
        self.changed.wait().await;
    }

    /// Waits until it may do no more than this.
    pub async fn narrowed_to(&self, leave: Leave) {
        while self.leave.get() < leave {
            self.changed.wait().await;
        }
    }

    /// The connection's task has nothing under way and never will.
    pub fn end(&self) {
        self.is_over.set(true);
        self.waiting.borrow_mut().drain(..).for_each(|event| event.set());
    }

    /// Waits for that; any number of tasks may.
    pub async fn ended(&self) {
        if !self.is_over.get() {
            let event = Event::new();
            self.waiting.borrow_mut().push(event.clone());
            event.wait().await;
        }
    }
}

/// A hello is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// A process that began later ships under the same identity.
    #[error(
        "another process with this identity, begun later, ships from {peer} (node {node:X}): if \
         its work directory is a copy of yours, remove the file `identity` from one of the two and \
         restart it"
    )]
    Later {
        /// Where it is.
        peer: SocketAddr,
        /// What it calls itself.
        node: u64,
    },
    /// The node ships to itself: a change would come back and undo what was written since.
    #[error(
        "it has the identity of the node it reaches: a DC that ships to its own node would undo \
         newer changes there, so give the DC another `node-address-port`; or, if they are two nodes, \
         the work directory of one is a copy of the other's: remove the file `identity` from it and \
         restart it"
    )]
    Own,
    /// The same stream has a newer connection, or it has ended.
    #[error("the stream of this hello has a newer connection, or has ended")]
    Stale,
}

/// A shipping connection.
#[derive(Debug)]
struct Live {
    id: u64,
    peer: SocketAddr,
    process: u64,
    node: u64,
    shard: u16,
    stream: u64,
    streams: Vec<u64>,
    epoch: u64,
    line: Rc<Lifeline>,
}

impl Live {
    fn is_fenced(&self) -> bool {
        self.line.leave() == Leave::Fenced
    }

    /// Of the same shard of the same process.
    fn is_sibling(&self, hello: &Hello<'_>) -> bool {
        self.process == hello.process && self.shard == hello.shard
    }

    /// Whether the connection that says this hello takes its place, or nobody does.
    fn is_superseded_by(&self, hello: &Hello<'_>, is_newest: bool) -> bool {
        let is_gone = || is_newest && !hello.streams.contains(&self.stream);
        self.process < hello.process
            || self.is_sibling(hello) && (self.stream == hello.stream || is_gone())
    }
}

/// What is known of an origin while it is connected.
#[derive(Debug, Default)]
struct Known {
    live: Vec<Live>,
    /// The last hello refused to a process for the sake of a later one.
    contest: Option<(Tick, u64, SocketAddr)>,
}

/// The shipping connections of one shard.
#[derive(Debug, Default)]
pub struct Fence {
    /// Of this node.
    own: Option<Origin>,
    known: RefCell<HashMap<Origin, Known>>,
    next: Cell<u64>,
}

/// A connection's place in the fence, given up when dropped.
#[derive(Debug)]
pub struct FenceEntry {
    fence: Rc<Fence>,
    origin: Origin,
    id: u64,
}

/// A connection that was let in.
#[derive(Debug)]
pub struct Admitted {
    /// Its place.
    pub place: FenceEntry,
    /// Connections it supersedes: all must have ended before the hello is answered.
    pub superseded: Vec<Rc<Lifeline>>,
}

impl Fence {
    /// Of a node that ships under this origin itself.
    pub fn of(own: Origin) -> Self {
        Self { own: Some(own), ..Self::default() }
    }

    /// Lets a connection in, whose hello has been verified, and ends those it supersedes.
    ///
    /// # Errors
    /// It is itself superseded, or from this node: answer the cause and close it.
    pub fn admit(
        self: &Rc<Self>,
        hello: &Hello<'_>,
        (peer, line): (SocketAddr, &Rc<Lifeline>),
        now: Tick,
    ) -> Result<Admitted, HelloError> {
        if self.own == Some(hello.origin) {
            return Err(HelloError::Own);
        }
        let mut all = self.known.borrow_mut();
        let known = all.entry(hello.origin).or_default();
        let live = || known.live.iter().filter(|live| !live.is_fenced());
        if let Some(&Live { peer: at, node, .. }) = live().find(|one| one.process > hello.process) {
            known.contest = Some((now, hello.process, peer));
            return Err(HelloError::Later { peer: at, node });
        }
        let newest = live().filter(|live| live.is_sibling(hello)).max_by_key(|live| live.epoch);
        let is_newest = newest.is_none_or(|newest| newest.epoch < hello.epoch);
        let has_ended = !is_newest && newest.is_some_and(|it| !it.streams.contains(&hello.stream));
        let is_late = |one: &Live| one.stream == hello.stream && one.epoch >= hello.epoch;
        if has_ended || live().any(|one| one.is_sibling(hello) && is_late(one)) {
            return Err(HelloError::Stale);
        }
        let gone = known.live.iter().filter(|one| one.is_superseded_by(hello, is_newest));
        // One that was superseded before may not have ended yet: it is waited for as well.
        gone.for_each(|one| one.line.narrow(Leave::Fenced));
        let gone = known.live.iter().filter(|one| one.is_fenced());
        let superseded = gone.map(|one| Rc::clone(&one.line)).collect();
        let id = self.next.get();
        self.next.set(id + 1);
        known.live.push(Live {
            id,
            peer,
            process: hello.process,
            node: hello.node,
            shard: hello.shard,
            stream: hello.stream,
            streams: hello.streams.clone(),
            epoch: hello.epoch,
            line: Rc::clone(line),
        });
        let place = FenceEntry { fence: Rc::clone(self), origin: hello.origin, id };
        Ok(Admitted { place, superseded })
    }

    /// Ends every connection of a shipper: whoever still ships says hello anew.
    pub fn end_all(&self) {
        let all = self.known.borrow();
        let live = all.values().flat_map(|known| &known.live);
        live.for_each(|one| one.line.narrow(Leave::Fenced));
    }

    /// Whether somebody else goes by the identity or the node id of this process of an origin; for
    /// people.
    pub fn standing(&self, origin: Origin, process: u64, node: u64, now: Tick) -> Option<String> {
        let all = self.known.borrow();
        let contest = all.get(&origin).and_then(|known| known.contest);
        if let Some((at, other, peer)) = contest
            && other != process
            && now < at.plus_ms(CONTEST_MS)
        {
            return Some(format!(
                "another process with this node's identity tries to ship from {peer}: if its work \
                 directory is a copy of this one's, remove the file `identity` from one of the two \
                 and restart it"
            ));
        }
        let others = all.iter().filter(|(other, _)| **other != origin);
        let mut live = others.flat_map(|(_, known)| &known.live);
        let twin = live.find(|one| one.node == node && !one.is_fenced())?;
        Some(format!(
            "another source calls itself node {node:X}, too, and ships from {}: give one of the two \
             another node-id",
            twin.peer
        ))
    }
}

impl Drop for FenceEntry {
    fn drop(&mut self) {
        let mut all = self.fence.known.borrow_mut();
        if let Some(known) = all.get_mut(&self.origin) {
            known.live.retain(|live| live.id != self.id);
            if known.live.is_empty() {
                all.remove(&self.origin);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use longship::model::SrcId;

    const NOW: Tick = Tick(1);

    /// What a connection of origin 1 says: process, shard, stream, its shard's streams, epoch.
    type Said<'a> = (u64, u16, u64, &'a [u64], u64);

    fn hello(origin: u8, (process, shard, stream, streams, epoch): Said<'_>) -> Hello<'static> {
        Hello {
            origin: Origin([origin; 32]),
            process,
            node: 0xA1,
            shard,
            stream,
            streams: streams.to_vec(),
            epoch,
            src_id: SrcId(3),
            dc: "west",
        }
    }

    fn peer(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    struct World {
        fence: Rc<Fence>,
        lines: Vec<Rc<Lifeline>>,
        places: Vec<Option<FenceEntry>>,
    }

    impl World {
        /// With these connections of origin 1, none of which supersedes another.
        fn with(said: &[Said<'_>]) -> Self {
            let fence = Rc::new(Fence::default());
            let mut world = Self { fence, lines: Vec::new(), places: Vec::new() };
            for said in said {
                assert_eq!(world.say(1, *said), Ok(Vec::new()), "{said:?}");
            }
            world
        }

        /// Says a hello; gives the connections that must end first, by number.
        fn say(&mut self, origin: u8, said: Said<'_>) -> Result<Vec<usize>, HelloError> {
            let line = Rc::new(Lifeline::default());
            let from = (peer(self.lines.len() as u16), &line);
            let admitted = self.fence.admit(&hello(origin, said), from, NOW)?;
            let number = |gone| self.lines.iter().position(|line| Rc::ptr_eq(line, gone)).unwrap();
            let gone = admitted.superseded.iter().map(number).collect();
            self.lines.push(line);
            self.places.push(Some(admitted.place));
            Ok(gone)
        }

        fn open(&self) -> Vec<bool> {
            self.lines.iter().map(|line| line.leave() == Leave::Open).collect()
        }
    }

    #[test]
    fn a_newer_connection_ends_the_older_one_of_its_stream_only() {
        let mut world =
            World::with(&[(7, 0, 1, &[1], 1), (7, 0, 2, &[1, 2], 2), (7, 1, 1, &[1], 1)]);
        assert_eq!(world.say(2, (7, 0, 1, &[1], 9)), Ok(vec![]), "another origin");
        assert_eq!(world.say(1, (7, 0, 1, &[1, 2], 3)), Ok(vec![0]));
        assert_eq!(world.open(), [false, true, true, true, true]);
    }

    #[test]
    fn a_later_process_ends_all_of_the_earlier_whatever_they_carried() {
        let mut world =
            World::with(&[(7, 0, 1, &[1], 1), (7, 1, 1, &[1], 1), (7, 1, 2, &[1, 2], 2)]);
        assert_eq!(world.say(1, (8, 0, 9, &[9], 1)), Ok(vec![0, 1, 2]));
        assert_eq!(world.say(1, (8, 5, 9, &[9], 1)), Ok(vec![0, 1, 2]), "they have not ended yet");
        world.places[..3].iter_mut().for_each(|place| *place = None);
        assert_eq!(world.say(1, (8, 6, 9, &[9], 1)), Ok(vec![]));
    }

    #[test]
    fn a_stream_that_is_no_more_is_ended_by_the_next_hello_of_its_shard() {
        let mut world = World::with(&[(7, 0, 1, &[1], 1), (7, 1, 1, &[1], 1)]);
        // The DC was deleted and made again under another name.
        assert_eq!(world.say(1, (7, 0, 2, &[2], 2)), Ok(vec![0]));
        assert_eq!(world.open(), [false, true, true]);
    }

    #[test]
    fn hellos_that_overtake_each_other_end_nothing_that_lives() {
        let mut world = World::with(&[(7, 0, 2, &[1, 2], 5)]);
        assert_eq!(world.say(1, (7, 0, 1, &[1], 4)), Ok(vec![]), "it did not know of stream 2");
        assert_eq!(world.open(), [true, true]);
        assert_eq!(world.say(1, (7, 0, 1, &[1], 3)), Err(HelloError::Stale));
        assert_eq!(world.say(1, (7, 0, 3, &[1, 3], 2)), Err(HelloError::Stale), "it has ended");
    }

    #[test]
    fn an_earlier_process_is_told_who_has_its_place_until_that_is_free() {
        let mut world = World::with(&[(8, 0, 1, &[1], 1)]);
        let refused = world.say(1, (7, 0, 1, &[1], 100)).unwrap_err();
        assert_eq!(refused, HelloError::Later { peer: peer(0), node: 0xA1 });
        assert_eq!(world.open(), [true]);
        let standing = |world: &World, process, at| {
            world.fence.standing(Origin([1; 32]), process, 0xA1, Tick(at))
        };
        assert!(standing(&world, 8, 2).unwrap().contains("this node's identity"));
        assert_eq!(standing(&world, 8, CONTEST_MS * 1000 + 2), None, "it has not tried again");
        world.places[0] = None;
        assert_eq!(world.say(1, (7, 0, 1, &[1], 101)), Ok(vec![]));
    }

    #[test]
    fn two_origins_with_one_node_id_are_told_of_each_other() {
        let mut world = World::with(&[(8, 0, 1, &[1], 1)]);
        let standing =
            |world: &World, origin, node| world.fence.standing(Origin([origin; 32]), 8, node, NOW);
        assert_eq!(standing(&world, 1, 0xA1), None);
        assert_eq!(world.say(2, (4, 0, 1, &[1], 1)), Ok(vec![]));
        for origin in [1, 2] {
            assert!(standing(&world, origin, 0xA1).unwrap().contains("node A1, too"));
            assert_eq!(standing(&world, origin, 0xA2), None);
        }
        world.places[1] = None;
        assert_eq!(standing(&world, 1, 0xA1), None);
    }

    #[test]
    fn nothing_is_kept_of_connections_that_have_ended() {
        let mut world = World::with(&[(8, 0, 1, &[1], 1)]);
        for origin in 2..200 {
            world.say(origin, (1, 0, 1, &[1], 1)).unwrap();
        }
        world.places.clear();
        assert!(world.fence.known.borrow().is_empty());
    }
}
