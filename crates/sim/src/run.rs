//! One seed from beginning to end; and, when it fails, the shortest run that still does.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};

use crate::control::name_of;
use crate::oracle;
use crate::plan::{Dest, Fault, Plan};
use crate::rng::Rng;
use crate::site::Mood;
use crate::trace::{self, Watch, tell};
use crate::work::{DELIVER, KINDS, SWEEP};
use crate::world::{Tally, World};
use longship::dest::NamespaceFacts;
use longship::engine::Command;
use longship::ship::mutation::{Mutation, plant};

/// Rounds after which a world that has not come to rest never will.
const ROUNDS_MAX: u64 = 4000;
/// Seconds after which a replay is settled for good: a few times what any of it takes.
const WINDOWS: usize = 12;
/// Replays in a row, at the end, of which nothing comes: the operator gives up.
const REPLAYS_MAX: usize = 8;
/// Runs spent on making a failure shorter.
const SHRINK_RUNS_MAX: usize = 400;

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Steps taken.
    pub steps: u64,
    /// Equal for equal runs.
    pub fingerprint: u64,
    /// What was written, shipped and broken.
    pub tally: Tally,
    /// What went wrong, if anything.
    pub failure: Option<String>,
}

/// What of a plan is run: all of it, or what shrinking leaves.
#[derive(Clone, Debug)]
struct Scope {
    plan: Plan,
    /// The steps taken; each decides for itself, so that any may be left out.
    steps: Vec<u64>,
}

/// Runs a seed.
pub(crate) fn run(seed: u64) -> Outcome {
    let plan = Plan::of(seed);
    let steps = (0..plan.steps).collect();
    run_scope(&Scope { plan, steps })
}

/// Runs something with a rule broken.
pub(crate) fn broken<T>(mutation: Mutation, run: impl FnOnce() -> T) -> T {
    plant(Some(mutation));
    let outcome = run();
    plant(None);
    outcome
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Keeps the panics of failing runs off the terminal.
fn hush() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                usual(info);
            }
        }));
    });
}

fn run_scope(scope: &Scope) -> Outcome {
    let mut outcome = Outcome { steps: 0, fingerprint: 0, tally: Tally::default(), failure: None };
    let mut world = None;
    outcome.failure = panic_of(|| live(scope, &mut world, &mut outcome));
    if let Some(world) = world {
        outcome.tally = world.tally;
    }
    outcome
}

/// Runs something. Gives what it panics with, if it does.
pub(crate) fn panic_of(run: impl FnOnce()) -> Option<String> {
    hush();
    QUIET.set(true);
    let caught = panic::catch_unwind(AssertUnwindSafe(run));
    QUIET.set(false);
    let cause = caught.err()?;
    let text = cause.downcast_ref::<String>().cloned();
    let text = text.or_else(|| cause.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    Some(text.unwrap_or_else(|| "a panic without words".to_owned()))
}

fn live(scope: &Scope, world: &mut Option<World>, outcome: &mut Outcome) {
    let world = world.insert(World::new(scope.plan.clone()));
    for &step in &scope.steps {
        let mut rng = Rng::at(scope.plan.seed, step);
        trace::at(step, world.now_us - world.plan.start_tick_us);
        outcome.steps += 1;
        world.step(&mut rng);
    }
    trace::at(scope.plan.steps, world.now_us - world.plan.start_tick_us);
    world.calm_down();
    let mut rng = Rng::at(scope.plan.seed, u64::MAX - 1);
    outcome.steps += world.come_to_rest(&mut rng);
    // Where few can wait at a time, few are taken up at a time.
    let (mut least, mut idle) = (usize::MAX, 0);
    while idle < REPLAYS_MAX {
        let left = world.replay_all();
        if left == 0 {
            break;
        }
        idle = if left < least { 0 } else { idle + 1 };
        least = left.min(least);
        outcome.steps += world.come_to_rest(&mut rng);
        outcome.steps += world.outlive_windows(&mut rng);
    }
    oracle::destinations_hold_what_filters_admit(world);
    outcome.fingerprint = world.fingerprint;
}

/// Which links a step may have changed.
enum Touched {
    None,
    /// This one; invariant 6 looks after the others of its site.
    Link(usize),
    /// Those of this site.
    Site(usize),
    All,
}

impl World {
    /// One random step.
    fn step(&mut self, rng: &mut Rng) {
        match self.act(rng) {
            Touched::None => {}
            Touched::Link(link) => self.check(link),
            Touched::Site(site) => {
                self.links_from(site).into_iter().for_each(|link| self.check(link));
            }
            Touched::All => (0..self.links.len()).for_each(|link| self.check(link)),
        }
    }

    /// What holds at any time.
    fn check(&self, link: usize) {
        oracle::each_change_ends_exactly_once(&self.links[link]);
        oracle::every_bound_holds(self, link);
    }

    fn act(&mut self, rng: &mut Rng) -> Touched {
        if !self.stragglers.is_empty() && rng.percent(3) {
            let at = rng.below(self.stragglers.len() as u64) as usize;
            if !self.stragglers[at].is_late() {
                self.straggle(at, rng);
            }
            return Touched::All;
        }
        let site = rng.below(self.sites.len() as u64) as usize;
        if rng.percent(30) && self.pass_message(site, rng) {
            return Touched::Site(site);
        }
        let roll = rng.below(100 + self.plan.haste);
        match roll {
            0..14 => return Touched::Site(self.client_write(rng)),
            14..22 => {
                let site = rng.below(self.sites.len() as u64) as usize;
                self.chore(site, rng);
                return Touched::Site(site);
            }
            22..28 => self.fault(rng),
            28..100 => {
                let link = rng.below(self.links.len() as u64) as usize;
                if self.plan.sluggish == Some(link) && rng.percent(80) {
                    return Touched::None;
                }
                return self.some_work(link, rng);
            }
            _ => {
                let us = rng.pick(&[100, 1000, 1000, 5000, 20_000, 100_000, 500_000]);
                self.pass(us);
                return Touched::None;
            }
        }
        Touched::All
    }

    /// Some work of a link: a random kind, or the next one there is something to do for.
    fn some_work(&mut self, link: usize, rng: &mut Rng) -> Touched {
        if rng.percent(5) {
            self.tend(link);
        }
        let first = rng.below(KINDS);
        let mut kinds = (0..KINDS).map(|kind| (first + kind) % KINDS);
        let before = oracle::neighbours(self, link);
        if kinds.find(|&kind| self.work(link, kind, rng)) == Some(DELIVER) {
            return Touched::All;
        }
        oracle::nothing_a_dc_does_changes_another(self, link, &before);
        Touched::Link(link)
    }

    /// Faults stop.
    fn calm_down(&mut self) {
        tell(None, || "== faults stop".to_owned());
        self.calm = true;
        let fine = |faults: &mut u64, fault: Fault| *faults &= !fault.bit();
        for fault in [Fault::Slow, Fault::SlowRead, Fault::FailedRead, Fault::LettersFull] {
            fine(&mut self.plan.faults, fault);
        }
        for site in 0..self.sites.len() {
            self.set_mood(Dest::Site(site), Mood::FINE, NamespaceFacts::default());
            if !self.sites[site].up {
                self.start_site(site);
            }
        }
        for foreign in 0..self.foreigns.len() {
            self.set_mood(Dest::Foreign(foreign), Mood::FINE, NamespaceFacts::default());
            let foreign = &mut self.foreigns[foreign];
            foreign.up.fill(true);
            let nodes = foreign.up.len();
            for (lane, owner) in foreign.owner.iter_mut().enumerate() {
                owner.get_or_insert((lane % nodes) as u16);
            }
        }
        (0..self.foreigns.len()).for_each(|foreign| self.tell_map(foreign));
        (0..self.links.len()).for_each(|link| self.release(link));
    }

    /// Nothing holds a link back any more.
    fn release(&mut self, link: usize) {
        let place = &mut self.links[link];
        (place.slow_until_us, place.blocked_until_us) = (0, 0);
        let from = place.from;
        self.settle_control(from);
        if self.links[link].paused {
            self.command(from, Command::Pause { dc: name_of(link), paused: false });
            self.settle_control(from);
        }
        self.edit(link, |config| {
            for namespace in &mut config.namespaces {
                if namespace.max_throughput < 1000 {
                    namespace.max_throughput = 100_000;
                }
            }
        });
        self.settle_control(from);
    }

    /// Works until nothing is left to do. Gives the steps that took.
    fn come_to_rest(&mut self, rng: &mut Rng) -> u64 {
        let mut steps = 0;
        for round in 0..ROUNDS_MAX {
            trace::at(self.plan.steps + round, self.now_us - self.plan.start_tick_us);
            // What is left on dead connections may come late, but not after its time.
            if rng.percent(20)
                && let Some(at) = rng.index(self.stragglers.len())
            {
                self.straggle(at, rng);
            }
            let mut busy = false;
            for site in 0..self.sites.len() {
                self.settle_control(site);
                while !self.sites[site].tickets.is_empty() {
                    self.wake_ticket(site, rng);
                    self.flush(site);
                }
            }
            for link in 0..self.links.len() {
                busy |= self.work_off(link, rng, &mut steps);
            }
            let feared = !self.stragglers.is_empty();
            if !busy && !feared && self.links.iter().all(crate::link::Link::is_quiet) {
                self.check_positions();
                self.outlive_expiry();
                if self.links.iter().all(crate::link::Link::is_quiet) {
                    return steps;
                }
            }
            if !busy {
                self.pass_to_next();
            }
        }
        let stuck = self.links.iter().position(|link| !link.is_quiet());
        panic!("invariant 1: DC {stuck:?} never comes to rest");
    }

    /// What was given up is replayed, its causes being gone. Gives how much there was.
    fn replay_all(&mut self) -> usize {
        let mut count = 0;
        for link in 0..self.links.len() {
            oracle::what_was_given_up_has_a_letter(self, link);
            let left = oracle::to_be_replayed(self, link).len();
            if left > 0 {
                self.replay(link);
                count += left;
            }
        }
        count
    }

    fn work_off(&mut self, link: usize, rng: &mut Rng, steps: &mut u64) -> bool {
        let mut busy = false;
        self.tend(link);
        for kind in 0..KINDS {
            // Sweeps always find something to look at, and reads finish one at a time.
            let times = if kind == SWEEP { 1 } else { 64 };
            let before = (kind != DELIVER).then(|| oracle::neighbours(self, link));
            for _ in 0..times {
                let done = self.work(link, kind, rng);
                *steps += u64::from(done);
                busy |= done && kind != SWEEP;
                if !done {
                    break;
                }
            }
            if let Some(before) = before {
                oracle::nothing_a_dc_does_changes_another(self, link, &before);
            }
        }
        self.check(link);
        busy
    }

    fn pass_to_next(&mut self) {
        let next =
            self.links.iter().filter(|link| link.engine.is_some()).map(|link| link.next_due_us);
        let next = next.min().unwrap_or(u64::MAX).clamp(self.now_us + 1000, self.now_us + 50_000);
        self.pass(next - self.now_us);
    }

    /// With nothing outstanding, positions reach the clock.
    fn check_positions(&mut self) {
        for link in 0..self.links.len() {
            let clock = self.clock(self.links[link].from);
            if !self.sweep(link) {
                continue;
            }
            let seen = &self.links[link].seen;
            assert!(
                seen.values().all(|&(lst, _)| lst >= clock),
                "DC {link} is at rest, but its positions are {seen:?} at {clock}"
            );
        }
    }

    /// Long enough that no destination forgets anything any more, and whoever waits for that hears
    /// of it.
    fn outlive_windows(&mut self, rng: &mut Rng) -> u64 {
        let mut steps = 0;
        // A clock that was set back stands until its time comes.
        self.pass(self.set_back_ms() * 1000);
        for _ in 0..WINDOWS {
            let is_owed = |link| !oracle::to_be_replayed(self, link).is_empty();
            if !(0..self.links.len()).any(is_owed) {
                break;
            }
            self.pass(1_000_000);
            for site in 0..self.sites.len() {
                self.flush(site);
            }
            for link in 0..self.links.len() {
                self.work_off(link, rng, &mut steps);
            }
            (0..self.sites.len()).for_each(|site| self.settle_control(site));
        }
        steps
    }

    /// How far all clocks together have been set back.
    fn set_back_ms(&self) -> u64 {
        let spans = self.sites.iter().map(|site| site.clock_span_ms.1 - site.clock_span_ms.0);
        spans.sum::<i64>().unsigned_abs()
    }

    /// Everything that expires does.
    fn outlive_expiry(&mut self) {
        if self.plan.has(Fault::Expiry) {
            // A record lives longer there than here by what either clock was set back meanwhile.
            self.pass(5_000_000 + self.set_back_ms() * 1000);
            for site in 0..self.sites.len() {
                self.expire(site);
                self.flush(site);
            }
        }
    }
}

/// A failure, made as short as it gets.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// What went wrong.
    pub text: String,
    /// Steps of the run that was left.
    pub steps: usize,
    /// Faults that happened in it.
    pub faults: Vec<Fault>,
    /// The key concerned, if the failure names one.
    pub key: Option<u16>,
    /// Its story.
    pub story: Vec<String>,
}

/// Makes a failing seed shorter: fewer steps, and with them fewer writes and faults.
pub fn shrink(seed: u64) -> Option<Failure> {
    let plan = Plan::of(seed);
    let mut best = Scope { steps: (0..plan.steps).collect(), plan };
    let mut outcome = run_scope(&best);
    let kind = kind_of(outcome.failure.as_ref()?);
    let reached = outcome.steps as usize;
    best.steps.truncate(reached);
    let (mut runs, mut chunk) = (0, (best.steps.len() / 2).max(1));
    while runs < SHRINK_RUNS_MAX {
        let mut at = 0;
        let mut shorter = false;
        while at < best.steps.len() && runs < SHRINK_RUNS_MAX {
            let mut candidate = best.clone();
            candidate.steps.drain(at..(at + chunk).min(best.steps.len()));
            let tried = run_scope(&candidate);
            runs += 1;
            if tried.failure.as_ref().is_some_and(|text| kind_of(text) == kind) {
                (best, outcome, shorter) = (candidate, tried, true);
            } else {
                at += chunk;
            }
        }
        if chunk == 1 && !shorter {
            break;
        }
        chunk = (chunk / 2).max(1);
    }
    let text = outcome.failure.unwrap_or_default();
    let key = key_in(&text);
    trace::watch(Some(key.map_or(Watch::All, Watch::Key)));
    run_scope(&best);
    let story = trace::lines();
    trace::watch(None);
    let faults = outcome.tally.faults.keys().copied().collect();
    Some(Failure { seed, text, steps: best.steps.len(), faults, key, story })
}

/// Runs a seed and tells what happened.
pub fn story(seed: u64, watch: Option<Watch>) -> (Outcome, Vec<String>) {
    trace::watch(watch);
    let outcome = run(seed);
    let lines = trace::lines();
    trace::watch(None);
    (outcome, lines)
}

/// What kind of failure a text tells of: its words without numbers.
fn kind_of(text: &str) -> String {
    text.chars().filter(|c| !c.is_ascii_digit()).take(40).collect()
}

/// The key a failure names.
fn key_in(text: &str) -> Option<u16> {
    let (_, rest) = text.split_once("key ")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every seed that ever failed, and what it was about. A change of what the world decides makes
    /// another run of a seed: what a rule did wrong has its case beside that rule, too.
    const FAILED: [(u64, &str); 76] = [
        (13_715, "a mark was asked to stay behind what the source had lost itself"),
        (13_726, "the same, the source being a destination that restarts"),
        (16_383, "a tombstone that a DC ignores was to stay for the write that it hid"),
        (98_036_926, "a mark was asked to stay behind what the source lost after its destination"),
        (777_003_871, "the same, the source dying first"),
        (1_234_560_447, "the same, of a record that was shipped again meanwhile"),
        (30_021_237, "a namespace waited for room that there was when another was detached"),
        (30_029_904, "the same"),
        (30_048_968, "what was given up after the source lost a newer version was still at risk"),
        (51_051_339, "what is withheld by now was at risk for having been sent before"),
        (34_250, "the same, of what the destination had lost meanwhile"),
        (60_073_502, "the slot that a grace freed was told to no namespace but its own"),
        (60_082_266, "what is shipped changed while the source was down: no version was older"),
        (
            970,
            "a batch encoded by the rules of before went out on the connection opened for new ones",
        ),
        (
            90_759_514,
            "a new record was older than a deletion that nothing knew of, after a clock was set back",
        ),
        (90_515_961, "two clocks set back: a record lived longer there than either made it alone"),
        (1_550, "a tombstone dropped before a DC began was owed, its change being submitted late"),
        (81_000_928, "what was attached began where an earlier attachment had been, after a crash"),
        (336, "a DC was being deleted when its process died: its marks had gone already"),
        (93_173_151, "marks that a crash left of a DC that had gone were to keep its tombstones"),
        (
            96_218_835,
            "what was lost at the source was at risk, what it has left having nothing to ship",
        ),
        (96_259_807, "the same"),
        (97_084_097, "what a source had lost was to be gone when what was left of it expired"),
        (97_224_962, "the same, what it had lost having expired at the destination"),
        (95_031_080, "a change was to have a letter that had arrived since by one of its own"),
        (
            100_014_893,
            "a record had expired before its dead letter was replayed, and left an older one",
        ),
        (100_025_299, "the same"),
        (
            100_033_722,
            "a letter that was outdated left late, and took the next one of its record with it",
        ),
        (100_034_544, "a deletion was given up and raided: its destination keeps what it has"),
        (98_685_650, "what had nothing to ship was at risk when a newer version was lost"),
        (98_599_854, "what a destination had on its device was owed again when both lost more"),
        (
            101_020_148,
            "a letter of an older change took the place of a newer one, and left with its replay",
        ),
        (102_022_516, "what had nothing to ship was at risk when an outdated letter was replayed"),
        (102_049_439, "what was replayed and lost was at risk, though it had its letter still"),
        (103_098_140, "a version arrived while the letter of its former refusal was on its way"),
        (
            103_262_015,
            "a replay was lost by its destination, behind the marks, and its letter left",
        ),
        (103_305_867, "the letter of a former refusal came when its version had arrived"),
        (
            106_322_145,
            "a deletion was given up and raided, and its replay, long under way, at risk",
        ),
        (107_239_561, "more was given up than eight replays take up, a few at a time"),
        (
            108_469_579,
            "the replay of a change that its source had lost moved an LST past what was left",
        ),
        (
            111_051_750,
            "what a source had lost was at risk of being gone, as it is where it was deleted",
        ),
        (106_256_016, "a letter left for a version that two crashes took back"),
        (30_039_711, "what had nothing to ship was owed again when a newer version was lost"),
        (128_003_480, "a replay was settled while a late writer held the clock behind its letter"),
        (
            130_067_293,
            "what has a letter was to ship again when two crashes took what came after it",
        ),
        (131_469_432, "a letter was asked for while its change was to ship again by its position"),
        (
            131_689_488,
            "what had arrived and was refused when a replay shipped it again was to have a letter",
        ),
        (132_422_646, "a letter was to be back that had left since its change had nothing to ship"),
        (132_510_380, "a letter was to be back of what had expired before the clock was set back"),
        (132_925_831, "nobody had the partition of a key of which a newer version stood there"),
        (133_066_210, "expiry left no tombstone, and an older copy came back"),
        (133_107_179, "what had expired at its destination, durably, was at risk there"),
        (133_123_836, "a problem was to be told though nobody had looked for ten seconds"),
        (
            141_000_275,
            "what an ignored delete had hidden was owed when the other site wrote over it",
        ),
        (141_020_935, "a hot key was to wait for a write that came after a newer one had left"),
        (142_065_756, "the same, of several"),
        (142_070_186, "a DC was being deleted when its process died, and owed the last word"),
        (142_071_640, "bins were merged by what a DC had sent that had gone since"),
        (
            142_074_847,
            "what a walk had shipped came back over the hub, and was found again for ever",
        ),
        (142_083_625, "a clock was set back: what was too young before was passed over"),
        (
            142_163_893,
            "a deletion found nothing, came again over what came meanwhile, and was at risk",
        ),
        (150_113_626, "the heir of a grace counted as read when the grace began"),
        (150_208_350, "what was rewound lay under what another cluster had shipped in"),
        (142_538_059, "what joined a change in flight was returned under the older time"),
        (142_542_659, "the clock was set since the walk began that found an expiry"),
        (142_792_833, "what a crash of the destination would bring back had expired there"),
        (142_881_410, "what a replay brought stood for itself, though its letter was there yet"),
        (142_808_418, "what was given up has no letter, and joined what was in flight"),
        (142_604_728, "a turn that a full node interrupted began anew in the same lap"),
        (142_840_260, "the same"),
        (142_908_011, "the same, of a lane whose neighbours were few"),
        (142_559_464, "what came back was queued in between, and had a turn"),
        (142_871_829, "the same, on the device"),
        (
            142_796_968,
            "an older one stood in the queue, and made another trip, which others joined",
        ),
        (142_858_411, "a letter had left before the engine heard that it was kept"),
        (147_059_527, "a namespace is passed over five turns where releases of nodes alternate"),
    ];

    #[test]
    fn no_seed_loses_a_record_and_each_runs_the_same_twice() {
        for seed in 1..=20 {
            let outcome = run(seed);
            assert_eq!(outcome.failure, None, "seed {seed}");
            if seed % 10 == 0 {
                assert_eq!(oracle::same_seed_same_trace(seed, &outcome), Ok(()), "seed {seed}");
            }
        }
    }

    #[test]
    fn seeds_that_failed_fail_no_more() {
        for (seed, about) in FAILED {
            assert_eq!(run(seed).failure, None, "seed {seed}: {about}");
        }
    }

    #[test]
    fn a_failure_shrinks_and_tells_its_story() {
        plant(Some(Mutation::TwoVersionsInFlight));
        let failure = (1..50).find_map(shrink);
        plant(None);
        let failure = failure.expect("a seed that fails");
        assert!(failure.text.starts_with("invariant 4"), "{}", failure.text);
        assert!(failure.steps < 200, "{} steps are left", failure.steps);
        assert!(failure.key.is_some());
        assert!(failure.story.iter().any(|line| line.contains("dispatches")));
    }

    #[test]
    fn a_broken_rule_is_noticed() {
        for mutation in [Mutation::LstPassesInFlight, Mutation::TwoVersionsInFlight] {
            let noticed = (1..2001).find(|&seed| broken(mutation, || run(seed)).failure.is_some());
            assert!(noticed.is_some(), "{mutation:?} went unnoticed for 2000 seeds");
        }
    }
}
