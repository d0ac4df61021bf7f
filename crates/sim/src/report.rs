//! Many seeds, added up.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::nodes::{self, NodesOutcome};
use crate::oracle;
use crate::plan::{Fault, Plan};
use crate::run::{Outcome, broken, run};
use longship::ship::mutation::Mutation;

/// Seeds within which a broken rule has to be noticed.
pub const MUTATION_SEEDS: u64 = 2000;
/// The same, where whole nodes have to show it.
pub const NODES_MUTATION_SEEDS: u64 = 100;
/// For what few worlds show, or few of those that take seconds each, one that has, to begin with.
const SHOWN_BY: [(Mutation, u64); 9] = [
    (Mutation::FullNodeTakesTurns, 9628),
    (Mutation::TurnBeginsAnew, 142_604_728),
    (Mutation::ForeignUnclaimed, 2),
    (Mutation::ExpiredShown, 4),
    (Mutation::ShownEarly, 14),
    (Mutation::WrongDevice, 15),
    (Mutation::ChecksumIgnored, 70),
    (Mutation::WalksUntold, 54),
    (Mutation::RaidUnasked, 304),
];

/// Seeds from one to another, the last one included: `1..20000` is 20,000 of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seeds(pub RangeInclusive<u64>);

impl FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once("..").ok_or("expected two numbers: A..B")?;
        let number = |text: &str| text.parse().map_err(|error| format!("{text:?}: {error}"));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(format!("{first} is more than {last}"));
        }
        Ok(Self(first..=last))
    }
}

/// One seed in so many runs twice.
const AGAIN_EVERY: u64 = 50;

/// What a range of seeds came to.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Seeds run.
    pub seeds: u64,
    /// Steps of each seed.
    pub steps: Vec<u64>,
    /// Writes of clients.
    pub written: u64,
    /// Changes shipped and acknowledged.
    pub shipped: u64,
    /// Records found by recovery walks and taken to be shipped.
    pub recovered: u64,
    /// In how many seeds each fault happened, and how often in all.
    pub faults: BTreeMap<Fault, (u64, u64)>,
    /// Seeds of each topology.
    pub topologies: BTreeMap<&'static str, u64>,
    /// Seeds that failed, and what went wrong.
    pub failures: BTreeMap<u64, String>,
}

/// A broken rule, and what became of it.
#[derive(Clone, Debug)]
pub struct Score {
    /// The rule.
    pub mutation: Mutation,
    /// How many seeds it took to notice it, and what was said; `None` if it was not noticed.
    pub noticed: Option<(u64, String)>,
}

impl Report {
    /// Runs seeds on so many threads; tells `watch` of each one done.
    pub fn of(seeds: RangeInclusive<u64>, threads: usize, watch: impl Fn() + Sync) -> Self {
        let reports = on_threads(threads, |next| {
            let mut report = Self::default();
            while let Some(seed) = next(seeds.clone()) {
                report.add(seed, &checked(seed));
                watch();
            }
            report
        });
        reports.into_iter().fold(Self::default(), Self::merged)
    }

    fn add(&mut self, seed: u64, outcome: &Outcome) {
        self.seeds += 1;
        self.steps.push(outcome.steps);
        self.written += outcome.tally.written;
        self.shipped += outcome.tally.shipped;
        self.recovered += outcome.tally.recovered;
        for (&fault, &times) in &outcome.tally.faults {
            self.count(fault, 1, times);
        }
        *self.topologies.entry(Plan::of(seed).topology).or_default() += 1;
        if let Some(text) = &outcome.failure {
            self.failures.insert(seed, text.clone());
        }
    }

    fn count(&mut self, fault: Fault, seeds: u64, times: u64) {
        let sum = self.faults.entry(fault).or_default();
        *sum = (sum.0 + seeds, sum.1 + times);
    }

    fn merged(mut self, other: Self) -> Self {
        self.seeds += other.seeds;
        self.steps.extend(other.steps);
        self.written += other.written;
        self.shipped += other.shipped;
        self.recovered += other.recovered;
        self.failures.extend(other.failures);
        for (fault, (seeds, times)) in other.faults {
            self.count(fault, seeds, times);
        }
        for (topology, seeds) in other.topologies {
            *self.topologies.entry(topology).or_default() += seeds;
        }
        self
    }

    /// Steps of the seed in the middle.
    pub fn steps_median(&self) -> u64 {
        let mut steps = self.steps.clone();
        steps.sort_unstable();
        steps.get(steps.len() / 2).copied().unwrap_or(0)
    }

    /// In how many seeds a fault happened, and how often in all.
    pub fn happened(&self, fault: Fault) -> (u64, u64) {
        self.faults.get(&fault).copied().unwrap_or_default()
    }

    /// Kinds of faults that happened in less than one seed of a hundred.
    pub fn rare(&self) -> Vec<Fault> {
        let rare = |fault: &Fault| self.happened(*fault).0 * 100 < self.seeds;
        Fault::ALL.into_iter().filter(rare).collect()
    }
}

/// Every rule that can be broken, those outside the rules of shipping last.
pub fn mutations() -> Vec<Mutation> {
    Mutation::ALL.into_iter().chain(Mutation::OF_NODES).collect()
}

/// Breaks each of these rules in turn and runs seeds from 1 on until an oracle notices.
pub fn score(all: &[Mutation], threads: usize, watch: impl Fn() + Sync) -> Vec<Score> {
    let scores = on_threads(threads, |next| {
        let mut scores = Vec::new();
        while let Some(at) = next(0..=all.len() as u64 - 1) {
            scores.push((at, noticed(all[at as usize])));
            watch();
        }
        scores
    });
    let mut scores: Vec<(u64, Score)> = scores.into_iter().flatten().collect();
    scores.sort_by_key(|(at, _)| *at);
    scores.into_iter().map(|(_, score)| score).collect()
}

/// Runs a seed, and now and then a second time.
fn checked(seed: u64) -> Outcome {
    let mut outcome = run(seed);
    if outcome.failure.is_none() && seed.is_multiple_of(AGAIN_EVERY) {
        outcome.failure = oracle::same_seed_same_trace(seed, &outcome).err();
    }
    outcome
}

/// The first seed that fails with the rule broken, and does not without.
fn noticed(mutation: Mutation) -> Score {
    let show = |seed, failure_of: &dyn Fn(u64) -> Option<String>| {
        let failure = broken(mutation, || failure_of(seed))?;
        failure_of(seed).is_none().then_some((seed, failure))
    };
    let mut shown = SHOWN_BY.into_iter().filter(|(of, _)| *of == mutation).map(|(_, seed)| seed);
    if !Mutation::OF_NODES.contains(&mutation) {
        let of_rules = |seed| show(seed, &|seed| run(seed).failure);
        let noticed = shown.find_map(of_rules);
        let noticed = noticed.or_else(|| (1..=MUTATION_SEEDS).find_map(of_rules));
        return Score { mutation, noticed };
    }
    let of_nodes = |seed| show(seed, &|seed| nodes::run(seed).failure);
    let of_one_alone = |seed| show(seed, &|seed| nodes::run_alone(seed).failure);
    let noticed = shown.find_map(of_nodes);
    // A node alone is quicker by an order.
    let noticed = noticed.or_else(|| (1..=NODES_MUTATION_SEEDS).find_map(of_one_alone));
    let noticed = noticed.or_else(|| (1..=NODES_MUTATION_SEEDS).find_map(of_nodes));
    Score { mutation, noticed }
}

/// Does work on threads, each of which takes the next number of a range until there is none.
fn on_threads<T: Send>(
    threads: usize,
    work: impl Fn(&dyn Fn(RangeInclusive<u64>) -> Option<u64>) -> T + Sync,
) -> Vec<T> {
    let taken = AtomicU64::new(0);
    let next = |range: RangeInclusive<u64>| {
        let number = range.start() + taken.fetch_add(1, Ordering::Relaxed);
        range.contains(&number).then_some(number)
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(|| work(&next))).collect();
        threads.into_iter().map(|thread| thread.join().expect("seeds keep their panics")).collect()
    })
}

/// Runs whole nodes with these seeds on so many threads, each by itself if they are `alone`; `watch` is
/// told after each.
pub fn run_all_nodes(
    seeds: RangeInclusive<u64>,
    alone: bool,
    threads: usize,
    watch: impl Fn() + Sync,
) -> BTreeMap<u64, NodesOutcome> {
    let run = if alone { nodes::run_alone } else { nodes::run };
    let all = on_threads(threads, |next| {
        let mut mine = BTreeMap::new();
        while let Some(seed) = next(seeds.clone()) {
            mine.insert(seed, run(seed));
            watch();
        }
        mine
    });
    all.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_seeds_includes_its_last() {
        let check = |text: &str, expected: Option<RangeInclusive<u64>>| {
            assert_eq!(text.parse::<Seeds>().ok().map(|seeds| seeds.0), expected, "{text}");
        };
        check("1..20000", Some(1..=20_000));
        check("7..7", Some(7..=7));
        check("7..6", None);
        check("7", None);
        check("..7", None);
        check("7..=8", None);
    }

    #[test]
    fn a_report_adds_up_whichever_thread_ran_a_seed() {
        let (one, two) = (Report::of(1..=3, 1, || {}), Report::of(1..=3, 2, || {}));
        assert_eq!((one.seeds, one.failures.len()), (3, 0));
        assert_eq!((one.written, one.shipped), (two.written, two.shipped));
        assert_eq!((one.steps_median(), one.faults), (two.steps_median(), two.faults));
    }
}
