//! The requests of a connection that are waited for, in the order in which their replies go out.

use std::collections::VecDeque;
use std::ops::Range;

use crate::limits::{LINE_BYTES_MAX, LINE_MAX, LINE_READS_MAX};
use crate::server::handover::Ticket;
use crate::server::service::Target;
use longship::model::{Digest, DigestMap};

/// Bytes that the first reply of another shard is taken to have: only that shard knows how large
/// the record is.
const HANDED_BYTES: usize = LINE_BYTES_MAX / 64;

/// A request in line.
pub struct Waiting<F> {
    /// Where its reply belongs in the ready replies.
    pub at: usize,
    /// Digest of the record that the request is about.
    pub digest: Digest,
    /// What the request waits for.
    pub what: What<F>,
}

/// What a request waits for.
pub enum What<F> {
    /// What it is about is being fetched. The request lies in this part of what was received; its
    /// reply may have so many bytes.
    Read(F, Range<usize>, usize),
    /// Another shard has it; whether its reply may be a large one.
    Handed(Ticket, bool),
    /// Its reply, of so many bytes, is there, and stands once the log is durable up to a position.
    Committing(Target, u64, usize),
}

/// The requests in line, bounded by their number and by what their replies take.
pub struct Line<F> {
    waiting: VecDeque<Waiting<F>>,
    bytes: usize,
    /// The largest reply of another shard among the last that were waited for: the next ones are taken
    /// for as large.
    handed_bytes: usize,
    /// The largest reply of another shard among those that are being waited for.
    handed_bytes_now: usize,
    reads: usize,
    /// The records they are about, and whether all requests for one are only committing.
    records: DigestMap<bool>,
}

impl<F> Default for Line<F> {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
            bytes: 0,
            handed_bytes: 0,
            handed_bytes_now: 0,
            reads: 0,
            records: DigestMap::default(),
        }
    }
}

impl<F> Line<F> {
    /// Puts a request at the end.
    pub fn push(&mut self, waiting: Waiting<F>) {
        self.reads += usize::from(matches!(waiting.what, What::Read(..)));
        self.bytes += match &waiting.what {
            What::Read(_, _, bytes) => *bytes,
            What::Handed(_, true) => self.handed_bytes.max(HANDED_BYTES),
            What::Handed(_, false) | What::Committing(..) => 0,
        };
        let commits = matches!(waiting.what, What::Committing(..));
        *self.records.entry(waiting.digest).or_insert(true) &= commits;
        self.waiting.push_back(waiting);
    }

    /// Where the first reply to come belongs in the ready ones; `None` when nobody waits.
    #[inline]
    pub fn first_at(&self) -> Option<usize> {
        self.waiting.front().map(|first| first.at)
    }

    /// Takes the first one. The rest is to follow before another is pushed.
    pub fn pop(&mut self) -> Option<Waiting<F>> {
        let first = self.waiting.pop_front();
        if self.waiting.is_empty() {
            (self.bytes, self.reads) = (0, 0);
            self.records.clear();
        }
        first
    }

    /// Bytes that the replies may come to.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Another shard's reply to the request last taken had so many bytes.
    pub fn note_handed(&mut self, bytes: usize) {
        self.handed_bytes_now = self.handed_bytes_now.max(bytes);
        if self.waiting.is_empty() {
            self.handed_bytes = std::mem::take(&mut self.handed_bytes_now);
        }
    }

    /// Number of requests.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether the replies are to be waited for and sent before another request is taken.
    pub fn is_full(&self) -> bool {
        self.len() >= LINE_MAX || self.bytes >= LINE_BYTES_MAX || self.reads >= LINE_READS_MAX
    }

    /// Whether a request for a record must wait for one in line about the same. Writes build on
    /// writes that are only waiting for the device, reads do not see them yet.
    pub fn holds_up(&self, digest: &Digest, is_write: bool) -> bool {
        self.records.get(digest).is_some_and(|commits| !(*commits && is_write))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use longship::model::NamespaceId;

    fn committing(digest: Digest) -> What<()> {
        What::Committing(Target { namespace: NamespaceId(0), digest }, 0, 30)
    }

    fn reading(bytes: usize) -> What<()> {
        What::Read((), 0..0, bytes)
    }

    fn digest(n: i64) -> Digest {
        Digest::of_integer("", n)
    }

    /// Pushes until the line is full; tells how many it took, and empties it.
    fn fill(line: &mut Line<()>, what: impl Fn(Digest) -> What<()>) -> usize {
        let digests = (0..).map(digest).take_while(|digest| {
            let is_full = line.is_full();
            if !is_full {
                line.push(Waiting { at: 0, digest: *digest, what: what(*digest) });
            }
            !is_full
        });
        let count = digests.count();
        while line.pop().is_some() {}
        count
    }

    #[test]
    fn a_line_is_full_by_number_by_its_reads_or_by_the_bytes_of_its_replies() {
        let mut line = Line::<()>::default();
        for _ in 0..2 {
            assert_eq!(fill(&mut line, committing), 1024);
            assert_eq!(fill(&mut line, |_| reading(100)), LINE_READS_MAX);
            assert_eq!(fill(&mut line, |_| reading(1 << 20)), 4);
            assert_eq!(fill(&mut line, |_| reading(8 << 20)), 1);
        }
    }

    #[test]
    fn only_a_write_passes_requests_for_its_record_and_only_if_they_commit() {
        let mut line = Line::<()>::default();
        let mut push = |n, what: What<()>| line.push(Waiting { at: 0, digest: digest(n), what });
        push(1, committing(digest(1)));
        push(1, committing(digest(1)));
        push(2, committing(digest(2)));
        push(2, reading(100));
        push(3, reading(100));
        push(3, committing(digest(3)));
        let held = |n| [false, true].map(|is_write| line.holds_up(&digest(n), is_write));
        assert_eq!(held(0), [false, false]);
        assert_eq!(held(1), [true, false]);
        assert_eq!(held(2), [true, true]);
        assert_eq!(held(3), [true, true]);
        while line.pop().is_some() {}
        assert!(!line.holds_up(&digest(2), false));
    }
}
