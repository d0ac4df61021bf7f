//! The fence: of two shipping connections of one origin, DC and shard only the newer may write.
//!
//! A source that lost a connection ships what was unanswered again, on a new one. Bytes of the old
//! one may still lie unread in a socket here; applied late, they would undo a newer version or bring
//! back a deleted record. So the hello that opens the new connection ends the old one, unread bytes
//! and all, and is answered only when nothing the old one asked for is still under way, here or on
//! another shard. Source: design section 6.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use crate::rt::event::Event;
use crate::wire::hello::Hello;

/// Shipping sources remembered at most: origins x DCs x shards.
const SOURCES_MAX: usize = 16 << 10;

/// How far a connection's task may still go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Leave {
    /// As far as it likes.
    #[default]
    Open,
    /// It takes no further request, answers what it has taken, and ends.
    Stop,
    /// A newer connection has taken its place: it takes and sends nothing more.
    Fenced,
}

/// What others on the shard may do to a connection's task, and learn from it.
#[derive(Debug, Default)]
pub struct Lifeline {
    leave: Cell<Leave>,
    changed: Event,
    ended: Event,
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

    /// Waits until it may do no more than this.
    pub async fn narrowed_to(&self, leave: Leave) {
        while self.leave.get() < leave {
            self.changed.wait().await;
        }
    }

    /// The connection's task has nothing under way and never will.
    pub fn end(&self) {
        self.ended.set();
    }

    /// Waits for that. One task waits at a time.
    pub async fn ended(&self) {
        self.ended.wait().await;
    }
}

/// Where a shipping connection comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Source {
    origin: u64,
    dc: String,
    shard: u16,
}

/// A hello is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// A newer connection of the same source has said hello before.
    #[error("epoch {found} comes after epoch {newest}")]
    Stale {
        /// The hello's.
        found: u64,
        /// The newest seen.
        newest: u64,
    },
    /// More sources than can be remembered, all of them connected.
    #[error("more than {SOURCES_MAX} shipping sources")]
    TooMany,
}

#[derive(Debug)]
struct Known {
    epoch: u64,
    line: Option<Rc<Lifeline>>,
}

/// The shipping connections of one shard.
#[derive(Debug, Default)]
pub struct Fence {
    known: RefCell<HashMap<Source, Known>>,
}

/// A connection's place in the fence, given up when dropped.
#[derive(Debug)]
pub struct Place {
    fence: Rc<Fence>,
    source: Source,
    epoch: u64,
}

impl Fence {
    /// Lets a connection in and fences off the older one of the same source, if it is still there:
    /// wait for its end before answering.
    ///
    /// # Errors
    /// When the connection is not the newest of its source: close it.
    pub fn admit(
        self: &Rc<Self>,
        hello: &Hello<'_>,
        line: &Rc<Lifeline>,
    ) -> Result<(Place, Option<Rc<Lifeline>>), HelloError> {
        let source = Source { origin: hello.origin, dc: hello.dc.into(), shard: hello.shard };
        let mut known = self.known.borrow_mut();
        let newest = known.get(&source).map(|known| known.epoch);
        if let Some(newest) = newest.filter(|newest| *newest >= hello.epoch) {
            return Err(HelloError::Stale { found: hello.epoch, newest });
        }
        if newest.is_none() && known.len() >= SOURCES_MAX {
            known.retain(|_, known| known.line.is_some());
            if known.len() >= SOURCES_MAX {
                return Err(HelloError::TooMany);
            }
        }
        let entry = Known { epoch: hello.epoch, line: Some(Rc::clone(line)) };
        let older = known.insert(source.clone(), entry).and_then(|known| known.line);
        if let Some(older) = &older {
            older.narrow(Leave::Fenced);
        }
        Ok((Place { fence: Rc::clone(self), source, epoch: hello.epoch }, older))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(known) = self.fence.known.borrow_mut().get_mut(&self.source)
            && known.epoch == self.epoch
        {
            // The epoch stays: an older hello may still lie unread in a socket.
            known.line = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SrcId;

    fn hello(origin: u64, dc: &str, shard: u16, epoch: u64) -> Hello<'_> {
        Hello { origin, src_id: SrcId(3), dc, shard, epoch }
    }

    #[test]
    fn a_newer_connection_fences_off_the_older_one_of_its_source_only() {
        let fence = Rc::new(Fence::default());
        let lines: Vec<Rc<Lifeline>> = (0..5).map(|_| Rc::default()).collect();
        let mut places = Vec::new();
        let others = [
            hello(1, "west", 0, 9),
            hello(2, "west", 0, 9),
            hello(1, "east", 0, 9),
            hello(1, "west", 1, 9),
        ];
        for (hello, line) in others.iter().zip(&lines) {
            let (place, older) = fence.admit(hello, line).unwrap();
            assert!(older.is_none());
            places.push(place);
        }
        let (_place, older) = fence.admit(&hello(1, "west", 0, 10), &lines[4]).unwrap();
        assert!(Rc::ptr_eq(&older.unwrap(), &lines[0]));
        let open: Vec<bool> = lines.iter().map(|line| line.leave() == Leave::Open).collect();
        assert_eq!(open, [false, true, true, true, true]);
    }

    #[test]
    fn an_old_hello_is_refused_even_after_the_newer_connection_ended() {
        let fence = Rc::new(Fence::default());
        let line = Rc::default();
        let (newer, _) = fence.admit(&hello(1, "west", 0, 10), &line).unwrap();
        let stale = |found| HelloError::Stale { found, newest: 10 };
        assert_eq!(fence.admit(&hello(1, "west", 0, 9), &line).unwrap_err(), stale(9));
        assert_eq!(line.leave(), Leave::Open);
        drop(newer);
        assert_eq!(fence.admit(&hello(1, "west", 0, 9), &line).unwrap_err(), stale(9));
        assert_eq!(fence.admit(&hello(1, "west", 0, 10), &line).unwrap_err(), stale(10));
        let (_, older) = fence.admit(&hello(1, "west", 0, 11), &line).unwrap();
        assert!(older.is_none());
    }

    #[test]
    fn an_older_connection_that_ends_late_leaves_the_newer_its_place() {
        let fence = Rc::new(Fence::default());
        let (old_line, new_line, newest) = (Rc::default(), Rc::default(), Rc::default());
        let (old, _) = fence.admit(&hello(1, "west", 0, 1), &old_line).unwrap();
        let (_new, _) = fence.admit(&hello(1, "west", 0, 2), &new_line).unwrap();
        drop(old);
        let (_, older) = fence.admit(&hello(1, "west", 0, 3), &newest).unwrap();
        assert!(Rc::ptr_eq(&older.unwrap(), &new_line));
    }
}
