//! What is wrong with a DC, what limits it, and what it shows of itself.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use super::DcEngine;
use crate::config::DcConfig;
use crate::dest::{Destination, NodeIndex, Route};
use crate::engine::control::{Notice, UNSTORED};
use crate::engine::drain::Outlook;
use crate::engine::positions::Beginning;
use crate::engine::trouble::Trouble;
use crate::host::{Hole, Host};
use crate::model::{Lut, NamespaceId, PartitionId, ShardIndex, SrcId, Tick};
use crate::ship::{BinRule, DcShard, LimitedBy, Now, Policy, Stats};
use longship_rt::metrics::HistogramSnapshot;

/// A refused letter is asked for again sooner.
const LETTERS_REFUSED_MS: u64 = 8000;
/// That nothing of a namespace was settled is told after so long, if nothing else tells why. So is
/// that nobody at the destination has some partitions, which a map that changes shows for a moment.
const STANDSTILL_S: u64 = 3;

/// One DC on one shard, as statistics show it.
#[derive(Clone, Debug)]
pub struct DcReport {
    /// Counters and gauges, all namespaces together.
    pub total: Stats,
    /// Each attached namespace.
    pub namespaces: Vec<NamespaceReport>,
    /// Destination nodes that take batches.
    pub nodes: usize,
    /// Duration of the last lap that shipped something.
    pub lap_us: u64,
    /// What keeps it from shipping more: the worst of what keeps its namespaces.
    pub limited_by: LimitedBy,
    /// Answers of the destination in the last second, whatever they said.
    pub answers_per_s: u64,
    /// Why the destination is not reached, or a namespace is parked; for people. The worst there is.
    pub problem: Option<String>,
    /// From submission to acknowledgement, sampled, in microseconds.
    pub lag_us: HistogramSnapshot,
    /// When all this was so.
    pub now: Tick,
}

/// One namespace of it.
#[derive(Clone, Debug)]
pub struct NamespaceReport {
    /// Name of the namespace at the source.
    pub name: String,
    /// Counters and gauges of this DC's lanes in it, on this shard.
    pub stats: Stats,
    /// What keeps it from shipping more.
    pub limited_by: LimitedBy,
    /// The worst of what concerns it, alone or with others; for people.
    pub problem: Option<String>,
}

/// A cluster that ships to this one, by one of its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shipper {
    /// First node id of its process.
    pub node: u64,
    /// Identity of its cluster.
    pub src_id: SrcId,
}

/// Those whose connections this shard has.
#[derive(Debug, Default)]
pub struct Shippers(RefCell<Vec<Weak<Shipper>>>);

impl Shippers {
    /// One is there as long as what this gives is kept.
    pub fn note(&self, shipper: Shipper) -> Rc<Shipper> {
        let sign = Rc::new(shipper);
        let mut known = self.0.borrow_mut();
        known.retain(|known| known.strong_count() > 0);
        known.push(Rc::downgrade(&sign));
        sign
    }

    fn all(&self) -> BTreeSet<Shipper> {
        self.0.borrow().iter().filter_map(Weak::upgrade).map(|shipper| *shipper).collect()
    }
}

/// A namespace as a report sees it.
struct Seen {
    id: NamespaceId,
    stats: Stats,
    limit: Limit,
}

/// What limits a namespace: a guess is less than what is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Limit {
    is_known: bool,
    by: LimitedBy,
}

/// What a DC has seen of itself.
pub(super) struct Watch {
    /// What the control loop was told of last.
    troubles: Vec<Trouble>,
    /// How each attached namespace gets on.
    progress: BTreeMap<NamespaceId, Progress>,
    /// Answers of the destination when last looked at, and how many there were in the second before.
    answers: (u64, u64),
    /// When letters were last refused, and why.
    letters_refused: Option<(Tick, String)>,
    /// By namespace at the source.
    holes: Arc<[(NamespaceId, Hole)]>,
    /// Namespaces whose positions were lost, until they have recovered.
    lost: Vec<NamespaceId>,
    /// It ships something, and there is nowhere to look for the destination.
    has_no_seeds: bool,
    /// It ships on what was shipped in.
    forwards: bool,
    shippers: Rc<Shippers>,
}

/// How a namespace gets on, as of the last look.
#[derive(Clone, Copy, Debug)]
struct Progress {
    /// How many changes had ended when that last grew, and when it was seen.
    ended: u64,
    since: Tick,
    /// Since when there are partitions in which something waits and that no node of the destination
    /// serves.
    nodeless_since: Tick,
}

impl Progress {
    const fn new(now: Tick) -> Self {
        Self { ended: 0, since: now, nodeless_since: Tick::NEVER }
    }

    /// Looks at what has ended, and at how many partitions have no node.
    fn look(&mut self, stats: &Stats, nodeless: usize, now: Tick) {
        let ended = stats.counters.ended();
        let waits = stats.backlog() + stats.recoveries_pending > 0 && !stats.paused;
        if ended != self.ended || !waits {
            (self.ended, self.since) = (ended, now);
        }
        let since = if nodeless > 0 { self.nodeless_since.min(now) } else { Tick::NEVER };
        self.nodeless_since = since;
    }

    /// Whether partitions have had no node for some time.
    fn is_nodeless(&self, now: Tick) -> bool {
        self.nodeless_since != Tick::NEVER
            && now.us_since(self.nodeless_since) >= STANDSTILL_S * 1_000_000
    }
}

impl Watch {
    /// Nothing was seen yet.
    pub(super) fn new(shippers: Rc<Shippers>) -> Self {
        Self {
            troubles: Vec::new(),
            progress: BTreeMap::new(),
            answers: (0, 0),
            letters_refused: None,
            holes: Arc::new([]),
            lost: Vec::new(),
            has_no_seeds: false,
            forwards: false,
            shippers,
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
        let troubles = self.troubles(now);
        let seen: Vec<Seen> = self
            .rules
            .attached_ids()
            .filter_map(|id| {
                let (stats, found) = (self.rules.stats(id)?, self.rules.namespace_limited_by(id));
                let takes = self.takes(id, &troubles, now.tick);
                let delays = self.rules.policy(id).is_some_and(|policy| policy.delay_ms > 0);
                let held = [delays || self.rules.holds_for_time(), self.rules.walks_are_cut(id)];
                let limit = limited_by(found, &stats, takes, held);
                Some(Seen { id, stats, limit })
            })
            .collect();
        let far_off = (clock > Lut::CLOCK_MAX)
            .then(|| format!("the system clock says {}: it is not believed; set it", clock.utc()));
        let unstored = marks_refused.as_ref().map(|why| format!("{why}; {UNSTORED}"));
        let of_all = |text: Option<String>| text.map(|text| (None, text));
        let problems: Vec<(Option<NamespaceId>, String)> = of_all(far_off)
            .into_iter()
            .chain(self.problems(host, &troubles, &seen, now.tick))
            .chain(of_all(unstored))
            .chain(self.of_each(&seen, |of, name| given_up(name, &of.stats)))
            .collect();
        let of_namespace = |seen: &Seen| {
            let concerns = |id: &Option<NamespaceId>| id.is_none_or(|id| id == seen.id);
            let problem = problems.iter().find(|(id, _)| concerns(id));
            NamespaceReport {
                name: self.namespaces[seen.id.index()].clone(),
                stats: seen.stats,
                limited_by: seen.limit.by,
                problem: problem.map(|(_, text)| text.clone()),
            }
        };
        DcReport {
            total: self.rules.dc_stats(),
            namespaces: seen.iter().map(of_namespace).collect(),
            limited_by: seen.iter().map(|of| of.limit).max().unwrap_or_default().by,
            problem: problems.into_iter().next().map(|(_, text)| text),
            nodes: self.destination.nodes(),
            answers_per_s: self.watch.answers.1,
            lap_us: 0,
            lag_us: self.lag_us(),
            now: now.tick,
        }
    }

    /// Whether the destination takes something of a namespace, as far as is known of it.
    fn takes(&self, namespace: NamespaceId, troubles: &[Trouble], now: Tick) -> bool {
        let name = &self.namespaces[namespace.index()];
        let refuses = |trouble: &Trouble| {
            trouble.namespace().is_none_or(|of| of == name)
                && !matches!(
                    trouble,
                    Trouble::Hole { .. } | Trouble::Echoes { .. } | Trouble::SharedSrcId { .. }
                )
        };
        let is_held = now < self.rules.held_until().max(self.rules.returns_at(namespace));
        self.destination.nodes() > 0 && !is_held && !troubles.iter().any(refuses)
    }

    /// What is wrong, the worst first, each with the namespace that alone it concerns.
    fn problems(
        &self,
        host: &H,
        troubles: &[Trouble],
        seen: &[Seen],
        now: Tick,
    ) -> Vec<(Option<NamespaceId>, String)> {
        let nodes = self.destination.nodes();
        let concerned = |trouble: &Trouble| self.namespace_id(trouble.namespace()?);
        let troubles =
            troubles.iter().map(|trouble| (concerned(trouble), self.in_figures(trouble)));
        let held = held(self.rules.held_until(), nodes, now);
        let unreached = held.into_iter().chain(self.destination.problem());
        self.of_each(seen, |of, _| host.reads_hang(of.id))
            .chain(troubles)
            .chain(unreached.map(|text| (None, text)))
            .chain(self.of_each(seen, |of, name| self.returning(of.id, name, now)))
            .chain(self.of_each(seen, |of, name| self.positions_lost(of.id, name)))
            .chain(self.of_each(seen, |of, _| unconnected(&of.stats, of.limit.by, nodes)))
            .chain(self.of_each(seen, |of, name| self.standstill(of, name, now)))
            .chain(self.of_each(seen, |of, name| ships_nothing(name, self.rules.policy(of.id)?)))
            .collect()
    }

    /// What is told of each namespace, given its name too.
    fn of_each(
        &self,
        seen: &[Seen],
        tell: impl Fn(&Seen, &str) -> Option<String>,
    ) -> impl Iterator<Item = (Option<NamespaceId>, String)> {
        seen.iter().filter_map(move |of| {
            let text = tell(of, &self.namespaces[of.id.index()])?;
            Some((Some(of.id), text))
        })
    }

    /// Once a second: what is wrong now, for the log, and whether anything is settled.
    pub(super) fn look_for_trouble(&mut self, now: Now) {
        self.look_at_progress(now.tick);
        let troubles = self.troubles(now);
        let (rules, watch) = (&self.rules, &mut self.watch);
        let replies = self.destination.replies();
        watch.answers = (replies, replies - watch.answers.0);
        watch.lost.retain(|id| recovers(rules, *id));
        if watch.troubles != troubles {
            watch.troubles.clone_from(&troubles);
            let (shard, dc) = (ShardIndex(self.shard), self.name.clone());
            self.given_up.news.push(Notice::Troubles { shard, dc, troubles });
        }
    }

    fn look_at_progress(&mut self, now: Tick) {
        let (rules, watch) = (&self.rules, &mut self.watch);
        watch.progress.retain(|id, _| rules.is_attached(*id));
        let attached: Vec<NamespaceId> = rules.attached_ids().collect();
        for id in attached {
            let (Some(stats), nodeless) = (self.rules.stats(id), self.nodeless(id)) else {
                continue;
            };
            let progress = self.watch.progress.entry(id).or_insert(Progress::new(now));
            progress.look(&stats, nodeless, now);
        }
    }

    /// Partitions in which something waits, and that no node of a connected destination serves.
    /// What is parked or paused ships to nobody.
    fn nodeless(&self, namespace: NamespaceId) -> usize {
        let (rules, destination) = (&self.rules, &self.destination);
        let has_no_node =
            |partition: &PartitionId| destination.route(namespace, *partition) == Route::NoNode;
        let ships = rules.parked(namespace).is_none() && !rules.is_paused(namespace);
        match ships && destination.nodes() > 0 {
            true => rules.owed(namespace).filter(has_no_node).count(),
            false => 0,
        }
    }

    /// A trouble as figures tell it: with numbers that move, of which the log tells nothing.
    fn in_figures(&self, trouble: &Trouble) -> String {
        let Trouble::NoNode { namespace } = trouble else { return trouble.to_string() };
        let id = self.namespace_id(namespace).expect("a trouble of one there is");
        format!("{} {trouble}", self.nodeless(id))
    }

    /// That a namespace stands still, if nobody else says why.
    fn standstill(&self, of: &Seen, name: &str, now: Tick) -> Option<String> {
        let (progress, policy) = (self.watch.progress.get(&of.id)?, self.rules.policy(of.id)?);
        // What is settled waits so long for its time.
        let waits_ms = u64::from(policy.delay_ms) + u64::from(policy.hot_key_ms);
        let still_s = now.us_since(progress.since) / 1_000_000;
        standstill(name, &of.stats, waits_ms / 1000, still_s)
    }

    /// That a namespace came back and waits for what it left under way.
    fn returning(&self, namespace: NamespaceId, name: &str, now: Tick) -> Option<String> {
        let at = self.rules.returns_at(namespace);
        let waits = now < at && self.destination.nodes() > 0;
        waits.then(|| match at {
            Tick::NEVER => format!(
                "namespace {name} ships nothing yet: what was sent of it before it was removed \
                 is not answered"
            ),
            at => format!(
                "namespace {name} ships nothing for {} s: what was sent of it before it was \
                 removed may still arrive",
                at.us_since(now).div_ceil(1_000_000)
            ),
        })
    }

    fn positions_lost(&self, namespace: NamespaceId, name: &str) -> Option<String> {
        let is_lost = self.watch.lost.contains(&namespace) && recovers(&self.rules, namespace);
        is_lost
            .then(|| format!("the positions of namespace {name} were lost: everything ships again"))
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
        let nodeless = watch
            .progress
            .iter()
            .filter(|(id, progress)| progress.is_nodeless(now.tick) && self.nodeless(**id) > 0);
        let nodeless = nodeless.map(|(id, _)| Trouble::NoNode { namespace: name(*id) });
        let refused = rules.attached_ids().filter_map(|id| {
            let code = rules.refused(id, now)?.0;
            Some(Trouble::Refused { namespace: name(id), code })
        });
        let told = watch.letters_refused.as_ref();
        let letters = told.and_then(|told| letters_wait(told, &rules.dc_stats(), now.tick));
        let holes = watch.holes.iter().filter(|(id, _)| rules.is_attached(*id));
        let holes = holes.map(|&(id, hole)| Trouble::Hole { namespace: name(id), hole });
        let no_seeds = watch.has_no_seeds.then_some(Trouble::NoSeeds);
        let first = no_seeds.into_iter().chain(parked).chain(parked_at).chain(nodeless);
        let shippers = if watch.forwards { watch.shippers.all() } else { BTreeSet::new() };
        let misnamed = shippers.into_iter().filter_map(|Shipper { node, src_id }| {
            let node = format!("{node:X}");
            let is_its_own = self.destination.knows(&node);
            if src_id == SrcId::NONE {
                return is_its_own.then_some(Trouble::Echoes { node });
            }
            let is_shared = !is_its_own && src_id == rules.destination();
            is_shared.then_some(Trouble::SharedSrcId { node, src_id: src_id.0 })
        });
        first.chain(holes).chain(letters).chain(refused).chain(misnamed).collect()
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

/// What is said when something of a namespace waits, nothing else holds it back, and no node is
/// connected.
fn unconnected(stats: &Stats, limited_by: LimitedBy, nodes: usize) -> Option<String> {
    let waits = stats.backlog() + stats.recoveries_pending > 0 && !stats.paused;
    (waits && nodes == 0 && limited_by != LimitedBy::Throttle)
        .then(|| "no node of the destination is connected yet".to_owned())
}

/// What is said when something of a namespace waits, and nothing of it has been settled for
/// `still_s` seconds. A change may wait `waits_s` for its time (`delay-ms` and the like). Other
/// namespaces of the DC do not count.
fn standstill(namespace: &str, stats: &Stats, waits_s: u64, still_s: u64) -> Option<String> {
    let (waiting, lanes) = (stats.backlog(), stats.recoveries_pending);
    let is_told = waiting + lanes > 0 && !stats.paused && still_s >= STANDSTILL_S + waits_s;
    is_told.then(|| {
        format!(
            "nothing of namespace {namespace} was settled for {still_s} s, while {waiting} changes \
             wait and {lanes} partitions are to be recovered"
        )
    })
}

/// What is said of settings by which nothing ships.
fn ships_nothing(namespace: &str, policy: &Policy) -> Option<String> {
    if policy.sets.only_specified && policy.sets.ship.is_empty() {
        return Some(format!(
            "ships no record of namespace {namespace}: ship-only-specified-sets is true, and no \
             ship-set is given"
        ));
    }
    matches!(&policy.bins, BinRule::Only(bins) if bins.is_empty()).then(|| {
        format!(
            "ships no bin of namespace {namespace}: bin-policy is only-specified, and no ship-bin \
             is given"
        )
    })
}

/// What was given up for good waits for somebody to look at it.
fn given_up(namespace: &str, stats: &Stats) -> Option<String> {
    let count = stats.dead_letters;
    (count > 0).then(|| {
        format!("{count} changes of namespace {namespace} were given up: see xdr-dead-letters")
    })
}

/// The trouble that letters were refused, when and why, while something waits.
fn letters_wait((at, why): &(Tick, String), total: &Stats, now: Tick) -> Option<Trouble> {
    let waits = total.backlog() + total.recoveries_pending > 0;
    let is_so = waits && now < at.plus_ms(LETTERS_REFUSED_MS);
    is_so.then(|| Trouble::LettersRefused { why: why.clone() })
}

/// What limits a namespace, given what its rules have `found`. `takes`: its destination is there
/// and refuses nothing. `is_timed`: changes wait for their time. `is_cut`: lanes wait for
/// `max-recoveries-interleaved`. While something waits this is never "nothing": what is on its way
/// is guessed to wait for the destination, and what has just been queued for the shard's turn.
fn limited_by(
    found: LimitedBy,
    stats: &Stats,
    takes: bool,
    [is_timed, is_cut]: [bool; 2],
) -> Limit {
    let gauges = &stats.gauges;
    let (is_known, by) = match found {
        _ if stats.backlog() + stats.recoveries_pending == 0 => (false, LimitedBy::Nothing),
        _ if stats.paused => (true, LimitedBy::Throttle),
        LimitedBy::Nothing if !takes || gauges.retrying > 0 => (true, LimitedBy::Destination),
        LimitedBy::Nothing if is_cut => (true, LimitedBy::Throttle),
        LimitedBy::Nothing if gauges.in_progress > 0 => (false, LimitedBy::Destination),
        LimitedBy::Nothing if gauges.in_queue > 0 && is_timed => (true, LimitedBy::Throttle),
        LimitedBy::Nothing => (stats.recoveries_pending > 0, LimitedBy::Reads),
        found => (true, found),
    };
    Limit { is_known, by }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{BinPolicy, DcNamespaceConfig};
    use crate::ship::{Counters, Gauges};

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
        let told = |dead_letters| given_up("test", &Stats { dead_letters, ..Stats::default() });
        assert_eq!(told(0), None);
        let text = "7 changes of namespace test were given up: see xdr-dead-letters";
        assert_eq!(told(7).as_deref(), Some(text));
    }

    #[test]
    fn settings_by_which_nothing_ships_are_told() {
        let told = |change: fn(&mut DcNamespaceConfig)| {
            let mut config = DcNamespaceConfig::named("demo");
            change(&mut config);
            ships_nothing("demo", &Policy::new(&config, 0, 1))
        };
        let is_told = |text: Option<String>, of: &str| text.is_some_and(|text| text.contains(of));
        assert_eq!(told(|_| ()), None);
        assert!(is_told(told(|config| config.ship_only_specified_sets = true), "no ship-set"));
        let bins = told(|config| config.bin_policy = BinPolicy::OnlySpecified);
        assert!(is_told(bins, "no ship-bin"));
        let one = |config: &mut DcNamespaceConfig| {
            config.ship_only_specified_sets = true;
            config.shipped_sets = vec!["demo".into()];
        };
        assert_eq!(told(one), None);
    }

    #[test]
    fn something_that_waits_is_limited_by_what_it_waits_for() {
        let check = |(in_queue, in_progress, recoveries_pending), paused, takes, expected| {
            let is_timed = in_queue > 5;
            let gauges = Gauges { in_queue, in_progress, retrying: 0 };
            let stats = Stats { gauges, recoveries_pending, paused, ..Stats::default() };
            let is_cut = recoveries_pending > 9;
            let limited_by = |found| limited_by(found, &stats, takes, [is_timed, is_cut]).by;
            assert_eq!(limited_by(LimitedBy::Nothing), expected, "{stats:?}");
            let waits = in_queue + in_progress + recoveries_pending > 0 && !paused;
            let found = if waits { LimitedBy::Window } else { expected };
            assert_eq!(limited_by(LimitedBy::Window), found, "{stats:?}");
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
        check((0, 1, 10), false, true, LimitedBy::Throttle);
        check((0, 1, 10), false, false, LimitedBy::Destination);
    }

    #[test]
    fn a_dc_is_limited_by_the_worst_that_is_known_of_a_namespace() {
        let of = |in_queue, in_progress, retrying, paused, found| {
            let gauges = Gauges { in_queue, in_progress, retrying };
            limited_by(found, &Stats { gauges, paused, ..Stats::default() }, true, [false; 2])
        };
        let idle = of(0, 0, 0, false, LimitedBy::Window);
        let in_flight = of(1, 9, 0, false, LimitedBy::Nothing);
        let paused = of(50, 0, 0, true, LimitedBy::Nothing);
        let throttled = of(50, 9, 0, false, LimitedBy::Throttle);
        let refused = of(0, 0, 50, false, LimitedBy::Nothing);
        let check =
            |all: [Limit; 2], expected| assert_eq!(all.into_iter().max().unwrap().by, expected);
        check([idle, idle], LimitedBy::Nothing);
        check([idle, in_flight], LimitedBy::Destination);
        check([paused, idle], LimitedBy::Throttle);
        check([paused, in_flight], LimitedBy::Throttle);
        check([throttled, in_flight], LimitedBy::Throttle);
        check([throttled, refused], LimitedBy::Destination);
    }

    #[test]
    fn a_standstill_is_told_while_something_waits_longer_than_for_its_time() {
        let gauges = Gauges { in_queue: 5, in_progress: 0, retrying: 0 };
        let waits = Stats { gauges, ..Stats::default() };
        let stands = |stats: &Stats, waits_s, still_s| standstill("demo", stats, waits_s, still_s);
        assert_eq!(stands(&waits, 0, 2), None, "not for long");
        assert_eq!(stands(&waits, 5, 7), None, "for its time");
        let words = |still_s, waiting, lanes| {
            format!(
                "nothing of namespace demo was settled for {still_s} s, while {waiting} changes \
                 wait and {lanes} partitions are to be recovered"
            )
        };
        assert_eq!(stands(&waits, 0, 3), Some(words(3, 5, 0)));
        assert_eq!(stands(&waits, 5, 8), Some(words(8, 5, 0)));
        let recovers = Stats { recoveries_pending: 9, ..Stats::default() };
        assert_eq!(stands(&recovers, 0, 3), Some(words(3, 0, 9)));
        assert_eq!(stands(&Stats::default(), 0, 1000), None, "nothing waits");
        assert_eq!(stands(&Stats { paused: true, ..waits }, 0, 1000), None);
    }

    #[test]
    fn that_nobody_is_connected_is_told_at_once_while_something_waits_that_nobody_holds_back() {
        let gauges = Gauges { in_queue: 5, in_progress: 0, retrying: 0 };
        let waits = Stats { gauges, ..Stats::default() };
        let told =
            |total: &Stats, limited_by, nodes| unconnected(total, limited_by, nodes).is_some();
        let (sick, throttled) = (LimitedBy::Destination, LimitedBy::Throttle);
        assert!(told(&waits, sick, 0));
        assert!(!told(&waits, sick, 1));
        assert!(!told(&waits, throttled, 0));
        assert!(!told(&Stats::default(), sick, 0));
        assert!(!told(&Stats { paused: true, ..waits }, sick, 0));
    }

    #[test]
    fn what_is_merged_or_left_to_recovery_is_no_progress() {
        let gauges = Gauges { in_queue: 3, in_progress: 0, retrying: 0 };
        let s = |s: u64| Tick(s * 1_000_000);
        let mut progress = Progress::new(s(0));
        for second in 1..=60 {
            let (merged, dropped_to_recovery) = (second * 100, second);
            let submitted = 3 + merged + dropped_to_recovery;
            let counters =
                Counters { submitted, merged, dropped_to_recovery, ..Counters::default() };
            progress.look(&Stats { gauges, counters, ..Stats::default() }, 0, s(second));
        }
        assert_eq!(progress.since, s(0));
        let counters = Counters { not_found: 1, ..Counters::default() };
        progress.look(&Stats { gauges, counters, ..Stats::default() }, 0, s(61));
        assert_eq!(progress.since, s(61));
    }

    #[test]
    fn what_waits_is_looked_at_from_when_it_waits_and_what_has_no_node_from_when_it_has_none() {
        let gauges = Gauges { in_queue: 5, in_progress: 0, retrying: 0 };
        let waits = Stats { gauges, ..Stats::default() };
        let s = |s: u64| Tick(s * 1_000_000);
        let mut progress = Progress::new(s(90));
        progress.look(&Stats { paused: true, ..waits }, 0, s(100));
        assert_eq!(progress.since, s(100), "a pause is no standstill");
        progress.look(&waits, 0, s(101));
        progress.look(&waits, 7, s(102));
        assert_eq!(progress.since, s(100));
        assert!(!progress.is_nodeless(s(104)));
        progress.look(&waits, 1, s(105));
        assert!(progress.is_nodeless(s(105)), "one or the other all the time");
        progress.look(&waits, 0, s(106));
        assert!(!progress.is_nodeless(s(1000)));
    }
}
