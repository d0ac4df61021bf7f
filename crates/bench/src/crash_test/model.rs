//! What a key may hold after a crash, from what was asked for and what was acknowledged when.
//!
//! A key's operations are numbered by the order in which the node takes them: they travel on one
//! connection. After a crash a key must hold the state left by its last operation that had to
//! survive, or by one submitted later, acknowledged or not.

use std::time::{Duration, Instant};

/// What a key holds: the revision of its last write, or nothing.
pub(super) type State = Option<u64>;

/// What is known of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Awaited,
    /// Done, as a reply read at that time says.
    Acknowledged(Instant),
    /// Not done.
    Refused,
}

/// A crash, and how long before it an acknowledged operation may be lost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Crash {
    pub(super) at: Instant,
    pub(super) window: Duration,
}

impl Crash {
    fn may_cost(&self, answer: Answer) -> bool {
        match answer {
            Answer::Acknowledged(at) => at + self.window > self.at,
            Answer::Awaited | Answer::Refused => true,
        }
    }
}

/// How a key came through a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Kept,
    /// So many operations that had to survive are undone.
    Lost {
        operations: u64,
        expected: State,
    },
    /// As `Lost`, and what should be deleted is there.
    BackFromTheDead {
        operations: u64,
    },
}

/// An operation: the state it leaves.
#[derive(Clone, Copy, Debug)]
struct Operation {
    leaves: State,
    answer: Answer,
}

/// One key's history since it was last read back.
#[derive(Clone, Debug, Default)]
pub(super) struct Key {
    /// As read back after the last crash, so on the device.
    settled: State,
    operations: Vec<Operation>,
}

impl Key {
    /// Notes an operation about to be sent; the number by which its answer is noted.
    pub(super) fn submit(&mut self, leaves: State) -> usize {
        self.operations.push(Operation { leaves, answer: Answer::Awaited });
        self.operations.len() - 1
    }

    pub(super) fn answer(&mut self, operation: usize, answer: Answer) {
        self.operations[operation].answer = answer;
    }

    /// Whether operations that leave this state are under way, and none of them was answered.
    pub(super) fn is_unanswered(&self, state: State) -> bool {
        let mut such = self.operations.iter().filter(|op| op.leaves == state).peekable();
        such.peek().is_some() && such.all(|op| op.answer == Answer::Awaited)
    }

    /// Judges what was found after a crash.
    pub(super) fn judge(&self, found: State, crash: &Crash) -> Verdict {
        let done: Vec<&Operation> =
            self.operations.iter().filter(|op| op.answer != Answer::Refused).collect();
        let states: Vec<State> =
            [self.settled].into_iter().chain(done.iter().map(|op| op.leaves)).collect();
        let last_safe = done.iter().rposition(|op| !crash.may_cost(op.answer));
        let needed = last_safe.map_or(0, |operation| operation + 1);
        if states[needed..].contains(&found) {
            return Verdict::Kept;
        }
        let expected = states[needed];
        let rest = states[..needed].iter().rposition(|state| *state == found);
        // Nothing since the last crash left this: then it is older still, or was never written.
        let operations = rest.map_or(needed + 1, |rest| needed - rest) as u64;
        match expected {
            None => Verdict::BackFromTheDead { operations },
            Some(_) => Verdict::Lost { operations, expected },
        }
    }

    /// Goes on from what was found.
    pub(super) fn settle(&mut self, found: State) {
        self.settled = found;
        self.operations.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Operations as (state left, ms before the crash at which it was acknowledged).
    fn check(settled: State, operations: &[(State, Option<u32>)], window: u32, kept: &[State]) {
        let at = Instant::now() + 10_000 * MS;
        let crash = Crash { at, window: window * MS };
        let mut key = Key { settled, ..Key::default() };
        for (leaves, age) in operations {
            let operation = key.submit(*leaves);
            if let Some(age) = age {
                key.answer(operation, Answer::Acknowledged(at - *age * MS));
            }
        }
        for found in [None, Some(0), Some(1), Some(2), Some(3), Some(4)] {
            let is_kept = key.judge(found, &crash) == Verdict::Kept;
            assert_eq!(is_kept, kept.contains(&found), "{operations:?} found {found:?}");
        }
    }

    #[test]
    fn a_key_holds_its_last_safe_state_or_a_later_one() {
        check(None, &[], 0, &[None]);
        check(Some(1), &[], 0, &[Some(1)]);
        check(Some(1), &[(Some(2), None)], 0, &[Some(1), Some(2)]);
        check(Some(1), &[(Some(2), Some(5))], 0, &[Some(2)]);
        check(Some(1), &[(Some(2), Some(0))], 0, &[Some(2)]);
        check(Some(1), &[(Some(2), Some(5)), (None, None)], 0, &[Some(2), None]);
        check(Some(1), &[(None, Some(5)), (Some(3), None)], 0, &[None, Some(3)]);
        check(Some(1), &[(None, Some(5))], 0, &[None]);
    }

    #[test]
    fn what_the_window_covers_may_be_lost() {
        let operations = [(Some(2), Some(30)), (None, Some(20)), (Some(3), Some(10))];
        check(Some(1), &operations, 5, &[Some(3)]);
        check(Some(1), &operations, 15, &[None, Some(3)]);
        check(Some(1), &operations, 25, &[Some(2), None, Some(3)]);
        check(Some(1), &operations, 35, &[Some(1), Some(2), None, Some(3)]);
    }

    #[test]
    fn losses_are_counted_and_refused_operations_are_none() {
        let at = Instant::now();
        let crash = Crash { at, window: Duration::ZERO };
        let mut key = Key::default();
        for revision in 1..=3 {
            let operation = key.submit(Some(revision));
            key.answer(operation, Answer::Acknowledged(at));
        }
        let lost = |operations| Verdict::Lost { operations, expected: Some(3) };
        assert_eq!(key.judge(Some(1), &crash), lost(2));
        assert_eq!(key.judge(None, &crash), lost(3));
        assert_eq!(key.judge(Some(9), &crash), lost(4));
        let refused = key.submit(Some(4));
        key.answer(refused, Answer::Refused);
        assert_eq!(key.judge(Some(3), &crash), Verdict::Kept);
        assert_eq!(key.judge(Some(4), &crash), lost(4));
        let deleted = key.submit(None);
        key.answer(deleted, Answer::Acknowledged(at));
        assert_eq!(key.judge(Some(3), &crash), Verdict::BackFromTheDead { operations: 1 });
        key.settle(None);
        assert_eq!(key.judge(None, &crash), Verdict::Kept);
        assert_eq!(key.judge(Some(3), &crash), Verdict::BackFromTheDead { operations: 1 });
    }
}
