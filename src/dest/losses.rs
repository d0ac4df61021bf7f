//! Connections that are lost again and again: a trouble until one holds.

use std::collections::VecDeque;

use crate::model::Tick;

/// So many losses within [`WITHIN_MS`] are a trouble.
const LOSSES: usize = 3;
const WITHIN_MS: u64 = 60_000;
/// The trouble lasts at least this long after the last loss.
const CALM_MS: u64 = 5000;

/// The last losses of connections to one node.
#[derive(Debug, Default)]
pub(super) struct Losses {
    times: VecDeque<Tick>,
    why: String,
}

impl Losses {
    /// A connection that had carried batches was lost.
    pub(super) fn note(&mut self, why: String, now: Tick) {
        self.times.push_back(now);
        if self.times.len() > LOSSES {
            self.times.pop_front();
        }
        self.why = why;
    }

    /// What is wrong, for people, while connections to node `id` do not hold. They hold again when
    /// none has been lost for twice the time that lay between the last losses.
    pub(super) fn problem(&self, id: &str, now: Tick) -> Option<String> {
        let (first, last) = (*self.times.front()?, *self.times.back()?);
        let took_ms = last.us_since(first) / 1000;
        let calm_ms = (2 * took_ms / (LOSSES as u64 - 1)).max(CALM_MS);
        let is_trouble =
            self.times.len() == LOSSES && took_ms < WITHIN_MS && now < last.plus_ms(calm_ms);
        is_trouble.then(|| {
            let seconds = took_ms.div_ceil(1000).max(1);
            let why = &self.why;
            format!(
                "the connection to node {id} was lost {LOSSES} times in {seconds} s, last: {why}"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loses connections then, in seconds; gives the seconds of the next two minutes in which that
    /// is a trouble.
    fn troubled(lost_at: &[u64]) -> Vec<u64> {
        let mut losses = Losses::default();
        let at = |second: u64| Tick(second * 1_000_000);
        let is_one = |second: &u64| {
            let lost = lost_at.iter().filter(|lost| *lost == second);
            lost.for_each(|_| losses.note("reset".to_owned(), at(*second)));
            losses.problem("A1", at(*second)).is_some()
        };
        (0..120).filter(is_one).collect()
    }

    #[test]
    fn a_connection_that_holds_again_is_no_trouble_and_one_that_flaps_is() {
        assert_eq!(troubled(&[10, 11]), [0; 0]);
        assert_eq!(troubled(&[10, 40, 70]), [0; 0], "seldom enough");
        assert_eq!(troubled(&[10, 10, 10]), [10, 11, 12, 13, 14], "lost thrice, then well");
        assert_eq!(troubled(&[10, 14, 18]), (18..26).collect::<Vec<_>>());
        let often: Vec<u64> = (10..100).step_by(11).collect();
        assert_eq!(troubled(&often), (32..120).collect::<Vec<_>>(), "as long as it flaps");
    }
}
