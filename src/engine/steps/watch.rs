//! What is wrong with a DC, what limits it, and what it shows of itself.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use super::DcEngine;
use crate::config::DcConfig;
use crate::dest::{Destination, NodeIndex};
use crate::engine::control::{Beginning, Notice};
use crate::engine::drain::Outlook;
use crate::engine::trouble::Trouble;
use crate::host::{Hole, Host};
use crate::model::{Lut, NamespaceId, ShardIndex, Tick};
use crate::ship::{DcShard, LimitedBy, Now, Stats};
use longship_rt::metrics::HistogramSnapshot;

/// A refused letter is asked for again sooner.
const LETTERS_REFUSED_MS: u64 = 8000;
/// Nothing being settled for so long is told, if nothing else tells why.
const STANDSTILL_S: u64 = 3;

/// One DC on one shard, as statistics show it.
#[derive(Clone, Debug)]
pub struct DcReport {
    /// Counters and gauges, all namespaces together.
    pub total: Stats,
    /// The same for each attached namespace.
    pub namespaces: Vec<(String, Stats)>,
    /// Destination nodes that take batches.
    pub nodes: usize,
    /// Duration of the last lap that shipped something.
    pub lap_us: u64,
    /// What keeps it from shipping more.
    pub limited_by: LimitedBy,
    /// Answers of the destination in the last second, whatever they said.
    pub answers_per_s: u64,
    /// Why the destination is not reached, or a namespace is parked; for people.
    pub problem: Option<String>,
    /// From submission to acknowledgement, sampled, in microseconds.
    pub lag_us: HistogramSnapshot,
    /// When all this was so.
    pub now: Tick,
}

/// Connections of sources without a `src-id` to this shard: the first node id of each one's process.
#[derive(Debug, Default)]
pub struct Nameless(RefCell<Vec<Weak<u64>>>);

impl Nameless {
    /// One is there as long as what this gives is kept.
    pub fn note(&self, node: u64) -> Rc<u64> {
        let sign = Rc::new(node);
        let mut known = self.0.borrow_mut();
        known.retain(|known| known.strong_count() > 0);
        known.push(Rc::downgrade(&sign));
        sign
    }

    fn nodes(&self) -> BTreeSet<u64> {
        self.0.borrow().iter().filter_map(Weak::upgrade).map(|node| *node).collect()
    }
}

/// What a DC has seen of itself.
pub(super) struct Watch {
    /// What the control loop was told of last.
    troubles: Vec<Trouble>,
    /// How much was settled when it last grew, and when that was seen.
    settled: (u64, Tick),
    /// Answers of the destination when last looked at, and how many there were in the second before.
    answers: (u64, u64),
    /// When letters were last refused, and why.
    letters_refused: Option<(Tick, String)>,
    /// What the destination lacks.
    holes: Arc<[(NamespaceId, Hole)]>,
    /// Namespaces whose positions were lost, until they have recovered.
    lost: Vec<NamespaceId>,
    /// It ships something, and there is nowhere to look for the destination.
    has_no_seeds: bool,
    /// It ships on what was shipped in.
    forwards: bool,
    nameless: Rc<Nameless>,
}

impl Watch {
    /// Nothing was seen yet.
    pub(super) fn new(nameless: Rc<Nameless>) -> Self {
        Self {
            troubles: Vec::new(),
            settled: (0, Tick(0)),
            answers: (0, 0),
            letters_refused: None,
            holes: Arc::new([]),
            lost: Vec::new(),
            has_no_seeds: false,
            forwards: false,
            nameless,
        }
    }

    /// Takes a configuration that the `rules` have not followed yet.
    pub(super) fn configure(
        &mut self,
        config: &DcConfig,
        starts: &[(NamespaceId, Beginning)],
        rules: &DcShard,
    ) {
        self.has_no_seeds = config.seeds.is_empty() && !config.namespaces.is_empty();
        self.forwards = config.namespaces.iter().any(|namespace| namespace.forward);
        let is_lost = |(id, start): &&(NamespaceId, Beginning)| {
            matches!(start, Beginning::Oldest) && !rules.is_attached(*id)
        };
        self.lost.extend(starts.iter().filter(is_lost).map(|(id, _)| *id));
    }

    /// Letters are refused at present.
    pub(super) fn letters_refused(&mut self, why: String, now: Tick) {
        self.letters_refused = Some((now, why));
    }
}

impl<H: Host, D: Destination> DcEngine<H, D> {
    /// Takes what the destination lacks.
    pub fn set_holes(&mut self, holes: Arc<[(NamespaceId, Hole)]>) {
        self.watch.holes = holes;
    }

    /// What a stop would wait for.
    pub(in crate::engine) fn outlook(&self) -> Outlook {
        let stats = self.rules.attached_ids().filter_map(|id| self.rules.stats(id));
        Outlook::new(stats, self.rules.limited_by(), self.destination.nodes())
    }

    /// Figures, and what is wrong, where the system clock says `clock` and positions cannot be stored
    /// for a reason `marks_refused`.
    pub fn report(
        &self,
        host: &H,
        now: Now,
        clock: Lut,
        marks_refused: &Option<String>,
    ) -> DcReport {
        let (rules, destination) = (&self.rules, &self.destination);
        let name = |id: NamespaceId| self.namespaces[id.index()].clone();
        let namespaces: Vec<(String, Stats)> =
            rules.attached_ids().filter_map(|id| Some((name(id), rules.stats(id)?))).collect();
        let (total, nodes) = (rules.dc_stats(), destination.nodes());
        let troubles = self.troubles(now);
        let is_refusal =
            |trouble: &Trouble| !matches!(trouble, Trouble::Hole { .. } | Trouble::Echoes { .. });
        let refuses = troubles.iter().any(is_refusal);
        let takes = nodes > 0 && !refuses;
        let limited_by = limited_by(rules.limited_by(), &total, takes, rules.holds_for_time());
        let far_off = (clock > Lut::CLOCK_MAX)
            .then(|| format!("the system clock says {}: it is not believed; set it", clock.utc()));
        let still_s = now.tick.us_since(self.watch.settled.1) / 1_000_000;
        let marks_refused = || {
            let why = marks_refused.as_ref()?;
            Some(format!("{why}; until that is done a restart ships again from the former marks"))
        };
        let problem = far_off
            .or_else(|| rules.attached_ids().find_map(|id| host.reads_hang(id)))
            .or_else(|| troubles.first().map(ToString::to_string))
            .or_else(|| held(rules.held_until(), nodes, now.tick))
            .or_else(|| destination.problem())
            .or_else(|| self.positions_lost())
            .or_else(|| standstill(&total, limited_by, nodes, still_s))
            .or_else(marks_refused)
            .or_else(|| given_up(&namespaces));
        DcReport {
            problem,
            total,
            namespaces,
            nodes,
            answers_per_s: self.watch.answers.1,
            lap_us: 0,
            limited_by,
            lag_us: self.lag_us(),
            now: now.tick,
        }
    }

    /// Once a second: what is wrong now, for the log, and whether anything is settled.
    pub(super) fn look_for_trouble(&mut self, now: Now) {
        let troubles = self.troubles(now);
        let (rules, watch) = (&self.rules, &mut self.watch);
        let replies = self.destination.replies();
        watch.answers = (replies, replies - watch.answers.0);
        watch.lost.retain(|id| recovers(rules, *id));
        let total = rules.dc_stats();
        let settled = total.check_sum().accounted - total.backlog();
        if settled != watch.settled.0 || total.backlog() + total.recoveries_pending == 0 {
            watch.settled = (settled, now.tick);
        }
        if watch.troubles != troubles {
            watch.troubles.clone_from(&troubles);
            let (shard, dc) = (ShardIndex(self.shard), self.name.clone());
            self.given_up.news.push(Notice::Troubles { shard, dc, troubles });
        }
    }

    fn positions_lost(&self) -> Option<String> {
        let lost = self.watch.lost.iter().find(|id| recovers(&self.rules, **id))?;
        let name = &self.namespaces[lost.index()];
        Some(format!("the positions of namespace {name} were lost: everything ships again"))
    }

    /// What is wrong now, the worst first.
    fn troubles(&self, now: Now) -> Vec<Trouble> {
        let (rules, watch) = (&self.rules, &self.watch);
        let name = |id: NamespaceId| self.namespaces[id.index()].clone();
        let parked = rules.attached_ids().filter_map(|id| {
            let code = rules.parked(id)?.code.0;
            Some(Trouble::Parked { namespace: name(id), code })
        });
        let parked_at = rules.attached_ids().flat_map(|id| {
            rules.refusing(id).map(move |(node, code)| (id, NodeIndex(node), code.0))
        });
        let parked_at = parked_at.map(|(id, node, code)| {
            let node = self.destination.name(node).unwrap_or_else(|| node.0.to_string());
            Trouble::ParkedAt { namespace: name(id), node, code }
        });
        let refused = rules.attached_ids().filter_map(|id| {
            let code = rules.refused(id, now)?.0;
            Some(Trouble::Refused { namespace: name(id), code })
        });
        let told = watch.letters_refused.as_ref();
        let letters = told.and_then(|told| letters_wait(told, &rules.dc_stats(), now.tick));
        let holes = watch.holes.iter().filter(|(id, _)| rules.is_attached(*id));
        let holes = holes.map(|&(id, hole)| Trouble::Hole { namespace: name(id), hole });
        let no_seeds = watch.has_no_seeds.then_some(Trouble::NoSeeds);
        let first = no_seeds.into_iter().chain(parked).chain(parked_at);
        let nameless = if watch.forwards { watch.nameless.nodes() } else { BTreeSet::new() };
        let nameless = nameless.into_iter().map(|node| format!("{node:X}"));
        let echoes = nameless.filter(|node| self.destination.knows(node));
        let echoes = echoes.map(|node| Trouble::Echoes { node });
        first.chain(holes).chain(letters).chain(refused).chain(echoes).collect()
    }
}

/// Whether lanes of a namespace are still to be recovered.
fn recovers(rules: &DcShard, namespace: NamespaceId) -> bool {
    rules.stats(namespace).is_some_and(|stats| stats.recoveries_pending > 0)
}

/// Nothing ships for what may still arrive from dead connections.
fn held(until: Tick, nodes: usize, now: Tick) -> Option<String> {
    let held_us = until.us_since(now);
    (held_us > 0 && nodes > 0).then(|| {
        let left_s = held_us.div_ceil(1_000_000);
        format!(
            "ships nothing for {left_s} s: what an earlier process or DC left on its connections may \
             still arrive"
        )
    })
}

/// What is said when something waits, nothing has been settled for `still_s` seconds at `nodes`
/// connected nodes, and nobody else has said why.
fn standstill(total: &Stats, limited_by: LimitedBy, nodes: usize, still_s: u64) -> Option<String> {
    let (waiting, lanes) = (total.backlog(), total.recoveries_pending);
    if waiting + lanes == 0 || total.paused || limited_by == LimitedBy::Throttle {
        return None;
    }
    if nodes == 0 {
        return Some("no node of the destination is connected yet".to_owned());
    }
    (still_s >= STANDSTILL_S).then(|| {
        format!(
            "nothing was settled for {still_s} s, while {waiting} changes wait and {lanes} partitions \
             are to be recovered"
        )
    })
}

/// What was given up for good waits for somebody to look at it.
fn given_up(namespaces: &[(String, Stats)]) -> Option<String> {
    let (name, stats) = namespaces.iter().find(|(_, stats)| stats.dead_letters > 0)?;
    let count = stats.dead_letters;
    Some(format!("{count} changes of namespace {name} were given up: see xdr-dead-letters"))
}

/// The trouble that letters were refused, when and why, while something waits.
fn letters_wait((at, why): &(Tick, String), total: &Stats, now: Tick) -> Option<Trouble> {
    let waits = total.backlog() + total.recoveries_pending > 0;
    let is_so = waits && now < at.plus_ms(LETTERS_REFUSED_MS);
    is_so.then(|| Trouble::LettersRefused { why: why.clone() })
}

/// What limits a DC, given what its rules have `found`, whether its destination is there and refuses
/// nothing (`takes`), and whether changes wait for their time (`is_timed`). While something waits this
/// is never "nothing": what has just been queued waits for the shard's turn.
fn limited_by(found: LimitedBy, total: &Stats, takes: bool, is_timed: bool) -> LimitedBy {
    let gauges = &total.gauges;
    let waits = total.backlog() + total.recoveries_pending > 0;
    match found {
        LimitedBy::Nothing if waits && total.paused => LimitedBy::Throttle,
        LimitedBy::Nothing if waits && (!takes || gauges.in_progress + gauges.retrying > 0) => {
            LimitedBy::Destination
        }
        LimitedBy::Nothing if gauges.in_queue > 0 && is_timed => LimitedBy::Throttle,
        LimitedBy::Nothing if waits => LimitedBy::Reads,
        found => found,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ship::Gauges;

    #[test]
    fn refused_letters_are_told_of_while_something_waits() {
        let refused = (Tick(5_000_000), "10000 are kept".to_owned());
        let waits = Gauges { in_queue: 1, ..Gauges::default() };
        let waiting = Stats { gauges: waits, ..Stats::default() };
        let in_recovery = Stats { recoveries_pending: 1, ..Stats::default() };
        let check = |total: &Stats, ms: u64, is_told: bool| {
            let now = refused.0.plus_ms(ms);
            assert_eq!(letters_wait(&refused, total, now).is_some(), is_told, "{ms}");
        };
        check(&waiting, 7999, true);
        check(&in_recovery, 7999, true);
        check(&waiting, 8000, false);
        check(&Stats::default(), 1, false);
    }

    #[test]
    fn what_was_given_up_is_told_while_it_is_kept() {
        let of = |dead_letters| Stats { dead_letters, ..Stats::default() };
        let namespaces = |counts: [u64; 2]| {
            ["demo", "test"].map(str::to_owned).into_iter().zip(counts.map(of)).collect::<Vec<_>>()
        };
        assert_eq!(given_up(&namespaces([0, 0])), None);
        let told = given_up(&namespaces([0, 7])).unwrap();
        assert_eq!(told, "7 changes of namespace test were given up: see xdr-dead-letters");
    }

    #[test]
    fn something_that_waits_is_limited_by_what_it_waits_for() {
        let check = |(in_queue, in_progress, recoveries_pending), paused, takes, expected| {
            let is_timed = in_queue > 5;
            let gauges = Gauges { in_queue, in_progress, retrying: 0 };
            let total = Stats { gauges, recoveries_pending, paused, ..Stats::default() };
            let limited_by = |found| limited_by(found, &total, takes, is_timed);
            assert_eq!(limited_by(LimitedBy::Nothing), expected, "{total:?}");
            assert_eq!(limited_by(LimitedBy::Window), LimitedBy::Window);
        };
        check((0, 0, 0), false, true, LimitedBy::Nothing);
        check((0, 0, 0), false, false, LimitedBy::Nothing);
        check((5, 0, 0), false, false, LimitedBy::Destination);
        check((5, 1, 0), false, true, LimitedBy::Destination);
        check((5, 0, 0), false, true, LimitedBy::Reads);
        check((6, 0, 0), false, true, LimitedBy::Throttle);
        check((5, 0, 9), true, true, LimitedBy::Throttle);
        check((0, 0, 9), true, false, LimitedBy::Throttle);
        check((0, 0, 9), false, true, LimitedBy::Reads);
        check((0, 0, 9), false, false, LimitedBy::Destination);
    }

    #[test]
    fn a_standstill_is_told_while_something_waits_that_nobody_holds_back() {
        let gauges = Gauges { in_queue: 5, in_progress: 0, retrying: 0 };
        let waits = Stats { gauges, ..Stats::default() };
        let stands = |total: &Stats, nodes, still_s| {
            standstill(total, LimitedBy::Destination, nodes, still_s)
        };
        assert_eq!(stands(&waits, 1, 2), None, "not for long");
        let words = |waiting, lanes| {
            format!(
                "nothing was settled for 3 s, while {waiting} changes wait and {lanes} partitions \
                 are to be recovered"
            )
        };
        assert_eq!(stands(&waits, 1, 3), Some(words(5, 0)));
        let recovers = Stats { recoveries_pending: 9, ..Stats::default() };
        assert_eq!(stands(&recovers, 1, 3), Some(words(0, 9)));
        let unconnected = "no node of the destination is connected yet".to_owned();
        assert_eq!(stands(&waits, 0, 0), Some(unconnected));
        assert_eq!(stands(&Stats::default(), 0, 1000), None, "nothing waits");
        assert_eq!(stands(&Stats { paused: true, ..waits }, 1, 1000), None);
        assert_eq!(standstill(&waits, LimitedBy::Throttle, 1, 1000), None);
    }
}
