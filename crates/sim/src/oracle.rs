//! The invariants of `ARCHITECTURE.md` (*What holds everywhere*), each a function of its name, and
//! what they know of a link without asking the rules under test.

use crate::contest;
use crate::link::{Counted, Link, Nodeless};
use crate::op::Op;
use crate::plan::Dest;
use crate::run::{Outcome, run};
use crate::site::LinkMarks;
use crate::store::{Key, Rec, shown};
use crate::waits::{Made, Waiting};
use crate::world::{LANES, SETS, World};
use longship::config::{BinPolicy, DcNamespaceConfig, WritePolicy};
use longship::engine::{DcReport, LetterBox, Next, Order};
use longship::model::{
    Change, ChangeKind, DcIndex, Lut, NamespaceId, PartitionId, RecordFlags, SrcId, Tick, Version,
};
use longship::ship::{Counters, DcShard, Dispatch, Gauges, LimitedBy, Limits, WalkRequest};

/// What the world's shard has done for a command, and what whoever gave it may rely on once it is
/// answered.
#[derive(Clone, Debug)]
pub(crate) enum Promise {
    /// A namespace of a DC has begun there.
    Begun { link: usize, n: usize, at: LinkMarks },
    /// It, or the whole DC, is gone.
    Gone { link: usize, n: Option<usize> },
}

/// Invariant 11: `ok` is answered when every shard has followed and the marks are durable: a lane
/// that began does so again after a crash, or earlier, and what is gone stays so.
pub(crate) fn what_is_answered_is_done(world: &mut World, site: usize) {
    let Some(place) = &world.loops[site] else { return };
    let is_change = |order: &Order| matches!(order, Order::Dc { .. } | Order::Namespace { .. });
    let is_followed = !place.orders.iter().flatten().any(is_change);
    assert!(is_followed, "invariant 11: site {site} answers before its shards have followed");
    let marks = &world.sites[site].durable.marks;
    let mark_of = |link, lane| marks.get(&link).and_then(|marks| marks.get(&lane)).copied();
    for promise in place.promises.clone() {
        match promise {
            Promise::Begun { link, at, .. } => {
                // Checkpoints may have come between.
                let now = world.marks(link);
                for (lane, lst) in at {
                    let mark = mark_of(link, lane);
                    let upto = now.get(&lane).copied().unwrap_or_default().max(lst);
                    assert!(
                        mark.is_some_and(|mark| mark <= upto),
                        "invariant 11: DC {link} begins at {mark:?} again, and not at {upto}"
                    );
                }
            }
            Promise::Gone { link, n } => {
                let lanes = marks.get(&link).into_iter().flat_map(|marks| marks.keys());
                let left = lanes.filter(|(of, _)| n.is_none_or(|n| n == *of)).count();
                assert_eq!(left, 0, "invariant 11: marks of DC {link} stay, {n:?}");
            }
        }
    }
    if let Some(place) = &mut world.loops[site] {
        place.promises.clear();
    }
}

/// Records of a batch, at most: no frame is shorter than 32 bytes.
const BATCH_RECORDS: usize = 32;

/// Whether a DC takes a change, by the text of the rules.
pub(crate) fn admits(link: &Link, change: &Change, set: &str) -> bool {
    let Some(config) = &link.configs[change.namespace.index()] else { return false };
    let echo = change.shipped && change.src_id != SrcId::NONE && change.src_id == link.destination;
    let kind = match change.kind {
        ChangeKind::Delete => !config.ignore_expunges,
        ChangeKind::NsupDelete => config.ship_nsup_deletes,
        ChangeKind::Write | ChangeKind::DurableDelete => true,
    };
    kind && !echo
        && (!change.shipped || config.forward)
        && !config.ignored_sets.iter().any(|ignored| ignored == set)
}

/// The destination's `src-id`, whether the link has learned it or not.
pub(crate) fn destination_of(link: &Link) -> SrcId {
    match link.to {
        Dest::Site(site) => SrcId(site as u8 + 1),
        Dest::Foreign(_) => SrcId::NONE,
    }
}

/// Until when a change waits because its key is hot: a key that is written again within `hot-key-ms`
/// ships once for all writes until the last one is that old. `None` if it is not hot, or the table
/// of hot keys may be full.
pub(crate) fn held_until(world: &World, link: usize, change: &Change) -> Option<Tick> {
    let place = &world.links[link];
    let (_, gauges) = place.rules()?.counted();
    let hot_key_ms = u64::from(place.configs[change.namespace.index()].as_ref()?.hot_key_ms);
    let age_ms = change.version.lut().ms().saturating_sub(change.previous_lut?.ms());
    let Limits { window, waiting, hot_keys, .. } = world.plan.limits;
    // No key waits twice.
    let most = gauges.in_queue.min(u64::from(world.key_count()) - 1);
    let slots = most + gauges.retrying + (place.flights.len() + place.letters.len()) as u64;
    let has_room = most < u64::from(hot_keys) && slots < u64::from(window + waiting);
    (age_ms < hot_key_ms && has_room).then(|| Tick(world.now_us).plus_ms(hot_key_ms - age_ms))
}

/// Nothing that was taken before waits any more, whatever became of it.
pub(crate) fn note_quiet(link: &mut Link) {
    if link.rules().is_some_and(DcShard::has_shipped_all) {
        link.waits.clear();
    }
}

/// A change is taken by a link.
pub(crate) fn note_wait(
    world: &mut World,
    link: usize,
    key: Key,
    change: &Change,
    held_until: Option<Tick>,
    is_queued: bool,
) {
    let lut = change.version.lut();
    let made = world.sites[world.links[link].from].made[&(key, lut)];
    let held_until = held_until.unwrap_or(Tick(0));
    let waits = &mut world.links[link].waits;
    waits.take(key, lut, Waiting { made, held_until });
    if is_queued && held_until == Tick(0) {
        waits.queue(key, lut, made);
    }
}

/// A walk gives a record: what is owed of it waits as well.
pub(crate) fn note_found(world: &mut World, link: usize, key: Key, rec: &Rec) {
    let namespace = world.namespace(key).index();
    let place = &mut world.links[link];
    let config = place.configs[namespace].as_ref();
    if rec.kind() == ChangeKind::NsupDelete {
        place.waits.find_expiry(key);
    }
    let Some(lut) = config.and_then(|config| found_at(place, config, rec)) else { return };
    if let Some(made) = world.sites[place.from].made.get(&(key, lut)) {
        place.waits.find(key, lut, *made);
    }
}

/// Invariant 12: no change is dispatched before it is as old as `delay-ms` wants it, nor that of a hot
/// key before its time, wherever it comes from. The one that began the wait counts, also for those
/// that have joined it; and what was tried before need not wait.
pub(crate) fn nothing_ships_before_its_time(world: &mut World, link: usize, dispatch: &Dispatch) {
    let (key, lut) = (world.key(dispatch.namespace, &dispatch.digest), dispatch.lut);
    let now = Tick(world.now_us);
    let place = &mut world.links[link];
    let site = &world.sites[place.from];
    let queue = place.engine.as_ref().and_then(|engine| {
        engine.rules().oldest_queued(dispatch.namespace, dispatch.digest.partition())
    });
    let Some(mut changes) = place.waits.dispatch(key, lut, now, queue) else { return };
    // A walk finds what nobody waited for.
    let mut made = site.made.get(&(key, lut)).copied();
    if made.is_none() {
        if place.waits.is_replayed(key) {
            return;
        }
        // An expiry may have hidden a forwarded write: it counts as old as the walk.
        assert!(
            place.waits.has_expired(key),
            "invariant 12: DC {link} ships key {key} @{lut}, when it was not written"
        );
        let age_us = (site.wall(now.0).ms().saturating_sub(lut.ms())) * 1000;
        let at = Tick(now.0.saturating_sub(age_us));
        // Whether the clock was set since, nobody knows.
        made = Some(Made { at, wall: lut, steps: 0 });
    }
    let found = made.map(|made| Waiting { made, held_until: Tick(0) });
    changes.extend(found.filter(|_| !changes.contains_key(&lut)).map(|found| (lut, found)));
    let is_due = |(lut, Waiting { made, held_until }): (&Lut, &Waiting)| {
        let delay_ms = place.waits.least_delay_ms(dispatch.namespace.index(), made.at);
        // Of what was made in the future, or before the clock was set, nobody knows the age.
        let is_unclear = made.steps != site.clock_steps || lut.ms() >= made.wall.ms() + delay_ms;
        let is_old = now.0 / 1000 >= made.at.0 / 1000 + delay_ms;
        *held_until <= now && (is_old || is_unclear)
    };
    assert!(
        changes.iter().any(is_due),
        "invariant 12: DC {link} ships key {key} @{lut} before its time, {changes:?}"
    );
}

/// LUT under which a walk finds what is owed of a record; `None` if it is not shipped.
fn found_at(link: &Link, config: &DcNamespaceConfig, rec: &Rec) -> Option<Lut> {
    let shipped = rec.flags.has(RecordFlags::SHIPPED);
    if shipped && rec.src_id != SrcId::NONE && rec.src_id == destination_of(link) {
        return None;
    }
    match rec.kind() {
        ChangeKind::Delete if config.ignore_expunges => None,
        ChangeKind::NsupDelete if config.ship_nsup_deletes && !shipped => Some(rec.version.lut()),
        _ if config.forward => Some(rec.version.lut()),
        _ => (rec.local_lut != Lut::ZERO).then_some(rec.local_lut),
    }
}

/// Invariant 4: at most one version of a record is in flight to a DC.
pub(crate) fn at_most_one_version_in_flight(link: &Link, key: Key) {
    let flying = link.flights.values().any(|flight| flight.key == key && !flight.discarded);
    assert!(!flying, "invariant 4: two versions of key {key} in flight");
}

/// Figures of the other DCs of a link's site.
pub(crate) fn neighbours(world: &World, link: usize) -> Vec<Option<(Counters, Gauges)>> {
    let from = world.links[link].from;
    let others = world.links.iter().enumerate();
    others
        .filter(|(other, neighbour)| *other != link && neighbour.from == from)
        .map(|(_, neighbour)| neighbour.rules().map(DcShard::counted))
        .collect()
}

/// Invariant 6: nothing a DC does changes what another DC ships.
pub(crate) fn nothing_a_dc_does_changes_another(
    world: &World,
    link: usize,
    before: &[Option<(Counters, Gauges)>],
) {
    assert!(neighbours(world, link) == before, "invariant 6: DC {link} changed a neighbour");
}

/// Invariant 2: each change ends in exactly one way. The counters add up, and they say what was
/// done.
pub(crate) fn each_change_ends_exactly_once(link: &Link) {
    let Some(dc) = link.rules() else { return };
    let (counters, _) = dc.counted();
    // One that waits out a grace time does not count until then.
    let told_of = |told: u64, done: u64| if link.is_fenced() { told } else { done.max(told) };
    let told = Counted {
        submitted: counters.submitted,
        acknowledged: told_of(counters.success, link.counted.acknowledged),
        not_found: told_of(counters.not_found, link.counted.not_found),
        filtered_out: told_of(counters.filtered_out, link.counted.filtered_out),
        letters: counters.abandoned,
    };
    assert_eq!(told, link.counted, "invariant 2: a DC counts otherwise than was done");
}

/// Invariant 5: every bound holds.
pub(crate) fn every_bound_holds(world: &World, link: usize) {
    let place = &world.links[link];
    let Some(dc) = place.rules() else { return };
    dc.audit();
    let window = world.node_window();
    for conn in place.conns() {
        let records = conn.pipeline.records();
        assert!(records < window.records + BATCH_RECORDS, "invariant 5: {records} under way");
    }
    let most = u64::from(world.plan.limits.recoveries_interleaved);
    for id in dc.attached_ids() {
        let walking = dc.recovery_progress(id).lanes_walking;
        assert!(most == 0 || walking <= most, "invariant 5: {walking} lanes in recovery");
    }
}

/// Invariant 8: an engine that was told to come later misses nothing by it.
pub(crate) fn who_sleeps_misses_nothing(world: &mut World, link: usize) {
    if world.has_just_stepped() {
        return;
    }
    let place = &world.links[link];
    let (now, due_us) = (world.now(place.from), place.next_due_us);
    let could = place.engine.as_ref().and_then(|engine| engine.could_ship(now, place.waiting));
    if let Some(what) = could {
        panic!("invariant 8: DC {link} sleeps until {due_us} though it could ship {what}");
    }
}

/// Invariants 8 and 9: a step leaves nothing that could ship, whichever namespace or lane it is of,
/// unless it is called again; and it does not ask for that for ever.
pub(crate) fn note_sleep(world: &mut World, link: usize, next: Next, done: usize, waiting: usize) {
    let place = &mut world.links[link];
    place.again = next == Next::Again;
    place.waiting = waiting;
    place.next_due_us = if let Next::At(due) = next { due.0 } else { world.now_us };
    place.spins = if done == 0 && place.again { place.spins + 1 } else { 0 };
    assert!(place.spins < 3000, "invariant 8: DC {link} is called again and again for nothing");
    if !place.again && !place.woken {
        who_sleeps_misses_nothing(world, link);
    }
}

/// Invariant 11: while something waits there is a word for what limits it; what needs an operator is
/// a problem.
pub(crate) fn what_waits_is_told(world: &mut World, link: usize) {
    let is_nodeless_for_long = note_nodeless(world, link);
    let now = world.now(world.links[link].from);
    let place = &world.links[link];
    let Some(engine) = &place.engine else { return };
    let report = engine.report(&world.sites[place.from], now, now.wall, &None);
    let DcReport { total, limited_by, nodes, .. } = &report;
    let waits = total.backlog() + total.recoveries_pending > 0;
    let told = |needs: bool, what: &str| {
        assert!(
            !needs || report.problem.is_some(),
            "invariant 11: no problem of DC {link}: {what}"
        );
    };
    let is_free = waits && !total.paused && *limited_by != LimitedBy::Throttle;
    told(is_free && *nodes == 0, "nobody is there to ship to");
    told(report.namespaces.iter().any(|of| of.stats.dead_letters > 0), "dead letters are kept");
    told(is_nodeless_for_long, "nobody there has what is owed");
    let parked = |n| engine.rules().parked(NamespaceId(n as u8)).is_some();
    told((0..place.configs.len()).any(parked), "a namespace is parked");
    assert!(
        !waits || *limited_by != LimitedBy::Nothing,
        "invariant 11: something of DC {link} waits, limited by nothing"
    );
}

/// An engine that has looked whether lanes have a node tells of it after so long.
const NODELESS_TOLD_MS: u64 = 5000;
/// Nobody has looked for so long: time has jumped.
const NODELESS_LOOK_MS: u64 = 2000;

/// Whether something has been owed for long of lanes that nobody at a connected destination has, as
/// the engine could see whenever it looked: time may jump, and nobody looks meanwhile.
fn note_nodeless(world: &mut World, link: usize) -> bool {
    let now = Tick(world.now_us);
    let is_nodeless = has_nodeless(world, link);
    let nodeless = &mut world.links[link].nodeless;
    *nodeless = match *nodeless {
        _ if !is_nodeless => Nodeless::No,
        Nodeless::No => Nodeless::Seen,
        Nodeless::Seen => Nodeless::Since { since: now, last: now },
        Nodeless::Since { since, last } => {
            let has_jumped = last.plus_ms(NODELESS_LOOK_MS) <= now;
            Nodeless::Since { since: if has_jumped { now } else { since }, last: now }
        }
    };
    matches!(*nodeless, Nodeless::Since { since, .. } if since.plus_ms(NODELESS_TOLD_MS) <= now)
}

fn has_nodeless(world: &World, link: usize) -> bool {
    let place = &world.links[link];
    let (Some(wire), Some(rules)) = (place.wire(), place.rules()) else { return false };
    let ships = |namespace: NamespaceId| {
        let config = place.configs[namespace.index()].as_ref();
        !place.paused
            && config.is_some_and(|config| config.max_throughput > 0)
            && rules.parked(namespace).is_none()
    };
    // A newer version that stands there, though not submitted yet, takes the place of what is owed.
    let is_owed = |key: Key| {
        let rec = world.sites[place.from].store.get(key);
        let owed = place.ledger.owed(key);
        owed.is_some_and(|owed| rec.is_none_or(|rec| rec.version <= owed))
    };
    let is_nodeless = |key: Key| {
        wire.owner[world.lane(key)].is_none()
            && is_owed(key)
            && ships(world.namespace(key))
            && has_something_to_ship(world, link, key)
    };
    wire.nodes.iter().any(|conn| conn.up) && (0..world.key_count()).any(is_nodeless)
}

/// Invariant 10: a walk looks for nothing that is settled.
pub(crate) fn a_walk_begins_at_what_is_owed(world: &World, link: usize, request: &WalkRequest) {
    let Some(dc) = world.links[link].rules() else { return };
    for &(partition, from) in &request.lanes {
        let lst = dc.lst(request.namespace, partition).unwrap_or_default();
        assert!(from >= lst, "invariant 10: DC {link} walks from {from}, the LST is {lst}");
    }
}

/// Invariant 7: the same seed takes the same course.
pub(crate) fn same_seed_same_trace(seed: u64, first: &Outcome) -> Result<(), String> {
    let again = run(seed).fingerprint;
    match again == first.fingerprint {
        true => Ok(()),
        false => Err(format!("invariant 7: {again:016x} after {:016x}", first.fingerprint)),
    }
}

/// Part of invariant 3, seen from the other side: nothing is submitted below an LST.
pub(crate) fn no_change_comes_below_its_lst(link: &Link, change: &Change) {
    let lst = link.rules().and_then(|dc| dc.lst(change.namespace, change.digest.partition()));
    let (lst, lut) = (lst.unwrap_or_default(), change.version.lut());
    assert!(lst <= lut, "invariant 3: a change @{lut} is submitted below the LST {lst}");
}

/// Whether a record as read is not to be sent, by the text of the configuration. Whatever else is
/// held back is missed by the ledger, and what is sent all the same is noticed.
pub(crate) fn is_held_back(world: &World, link: usize, key: Key, rec: &Rec) -> bool {
    let place = &world.links[link];
    let Some(config) = &place.configs[world.namespace(key).index()] else { return false };
    let shipped = rec.flags.has(RecordFlags::SHIPPED);
    let echo = shipped && rec.src_id != SrcId::NONE && rec.src_id == place.destination;
    let set = SETS[usize::from(key) % SETS.len()];
    let ignored = |at: usize| config.ignored_bins.iter().any(|bin| bin == ["a", "b", "c"][at]);
    let held_back = match rec.kind() {
        ChangeKind::Write => {
            rec.is_live(world.sites[place.from].wall(world.now_us))
                && config.bin_policy == BinPolicy::All
                && config.write_policy != WritePolicy::Replace
                && (0..3).all(|at| rec.bins[at].is_none() || ignored(at))
        }
        ChangeKind::Delete => config.ignore_expunges,
        ChangeKind::DurableDelete | ChangeKind::NsupDelete => false,
    };
    echo || held_back || config.ignored_sets.iter().any(|ignored| ignored == set)
}

/// Part of invariant 1: no bin that a DC withholds goes over the wire, whoever wrote the record.
pub(crate) fn nothing_withheld_is_sent(world: &World, link: usize, key: Key, op: Op) {
    let Some(config) = &world.links[link].configs[world.namespace(key).index()] else { return };
    let Op::Write { bins, .. } = op else { return };
    let listed = |names: &[String], at: usize| names.iter().any(|name| name == ["a", "b", "c"][at]);
    let withheld = |at: &usize| match config.bin_policy {
        BinPolicy::All => listed(&config.ignored_bins, *at),
        BinPolicy::OnlySpecified => !listed(&config.shipped_bins, *at),
    };
    let sent = (0..3).filter(withheld).find(|&at| bins[at].is_some());
    assert!(sent.is_none(), "invariant 1: DC {link} sends a bin of key {key} that it withholds");
}

/// Part of invariant 1: nothing is sent of a namespace that came back while something that was sent
/// before it went may still arrive. What that undoes nobody would repair.
pub(crate) fn what_a_namespace_left_arrives_no_more(world: &World, link: usize, key: Key) {
    let is_feared = world.stragglers.iter().any(|straggler| {
        straggler.is_left
            && straggler.link == link
            && straggler.request.key == key
            && straggler.dies_us > world.now_us
    });
    assert!(!is_feared, "invariant 1: DC {link} sends key {key} before what it left has arrived");
}

/// Invariant 3: an LST never passes a change that is not settled, nor an open ticket, and moves
/// back only when it may; and a mark never passes what the destination may still forget.
pub(crate) fn an_lst_never_passes_an_unsettled_change(world: &mut World, link: usize) {
    let Some(dc) = world.links[link].rules() else { return };
    let mut seen = world.links[link].seen.clone();
    for namespace in dc.attached_ids() {
        let mut positions = [(Lut::ZERO, Lut::ZERO); LANES];
        for (lane, position) in positions.iter_mut().enumerate() {
            let partition = PartitionId::new(lane as u16 * crate::world::SHARDS);
            let lst = dc.lst(namespace, partition).unwrap_or_default();
            let mark = dc.mark(namespace, partition).unwrap_or_default();
            *position = (lst, mark);
            let place = (namespace.index(), lane as u16);
            if let Some((old_lst, old_mark)) = seen.insert(place, (lst, mark)) {
                assert!(lst >= old_lst, "invariant 3: LST of lane {lane} went back to {lst}");
                assert!(mark >= old_mark, "invariant 3: mark of lane {lane} went back to {mark}");
            }
        }
        for key in world.keys_of(namespace) {
            let (lst, mark) = positions[world.lane(key)];
            check_position(world, link, key, lst, mark);
        }
    }
    world.links[link].seen = seen;
}

/// Whether a link has something to send for a key as it is now. A delete that it ignores hides
/// what was owed before.
fn has_something_to_ship(world: &World, link: usize, key: Key) -> bool {
    ships(world, link, key, world.sites[world.links[link].from].store.get(key))
}

fn ships(world: &World, link: usize, key: Key, rec: Option<&Rec>) -> bool {
    let place = &world.links[link];
    let Some(config) = &place.configs[world.namespace(key).index()] else { return false };
    let set = SETS[usize::from(key) % SETS.len()];
    !config.ignored_sets.iter().any(|ignored| ignored == set)
        && rec.is_none_or(|rec| found_at(place, config, rec).is_some())
}

fn check_position(world: &World, link: usize, key: Key, lst: Lut, mark: Lut) {
    check_tickets(world, link, key, lst);
    let place = &world.links[link];
    let is_taken = place.ledger.newest(key).is_some();
    if !is_taken || !has_something_to_ship(world, link, key) {
        return;
    }
    let owed = place.ledger.owed(key);
    let site = &world.sites[place.from];
    if let Some(owed) = owed {
        // A newer version that stands there, though not submitted yet, is as good.
        let config = place.configs[world.namespace(key).index()].as_ref();
        let rec = site.store.get(key).filter(|rec| rec.version > owed);
        let found = rec.and_then(|rec| found_at(place, config?, rec)).unwrap_or_default();
        assert!(
            lst <= owed.lut().max(found),
            "invariant 3: the LST {lst} of DC {link} passed key {key} @{}",
            owed.lut()
        );
    }
    // If source and destination died now, would a walk from the mark find the key?
    let at_risk = owed.or_else(|| at_risk(world, link, key));
    let Some(version) = at_risk else { return };
    let Some(config) = &place.configs[world.namespace(key).index()] else { return };
    let Some(rec) = site.store.get(key) else {
        // An expired record whose set or kind is not shipped owes nothing; a tombstone would be
        // there.
        assert!(
            !site.store.raided.contains_key(&key),
            "invariant 3: the tombstone of key {key} is gone while @{} is not safe",
            version.lut()
        );
        return;
    };
    // An expiry is no word of its own: a walk does not find what has come over it.
    let came_over = world.plan.is_contested(key) && !contest::is_its_word(world, link, key);
    if came_over && rec.local_lut < version.lut() {
        return;
    }
    if let Some(found) = found_at(place, config, rec) {
        assert!(
            mark <= found,
            "invariant 3: the mark {mark} of DC {link} passed key {key}, {}",
            shown(rec)
        );
    }
}

fn check_tickets(world: &World, link: usize, key: Key, lst: Lut) {
    let place = &world.links[link];
    let tickets = world.sites[place.from].tickets.iter();
    for ticket in tickets.filter(|ticket| ticket.key == key) {
        let lut = ticket.change.version.lut();
        let set = SETS[usize::from(ticket.change.set.0)];
        let open = admits(place, &ticket.change, set);
        assert!(!open || lst <= lut, "invariant 3: the LST {lst} passed an open ticket @{lut}");
    }
}

/// A version the destination acknowledged and may forget, or has forgotten.
fn at_risk(world: &World, link: usize, key: Key) -> Option<Version> {
    let place = &world.links[link];
    // Something came over it here, and goes no further.
    if world.plan.is_contested(key) && !contest::is_its_word(world, link, key) {
        return None;
    }
    // What the source itself lost is nobody's to ship again; what it has left is.
    let newest = place.ledger.newest(key)?;
    if let Some(&lost) = place.ledger.lost.get(&key) {
        return Some(lost);
    }
    let Dest::Site(site) = place.to else { return None };
    let rec = world.sites[site].store.get(key)?;
    let (source, version) = rec.source?;
    if place.ledger.nothing_to_lose(key, version) {
        return None;
    }
    // Without what the source has lost it has what the source has left: nothing.
    let is_there = |rec: Option<&Rec>| rec.is_some_and(|rec| rec.kind() == ChangeKind::Write);
    let left = world.sites[place.from].store.get(key);
    let wall = world.sites[site].wall(world.now_us);
    let then = world.sites[site].store.durable(key).filter(|rec| rec.is_live(wall));
    let is_there_then = is_there(then);
    if version > newest && !is_there(left) && !is_there_then {
        return None;
    }
    let settled = place.ledger.settled.get(&key).copied().unwrap_or_default();
    let durable = world.sites[site].store.durable_source(key);
    let left = version.min(newest);
    let safe = durable.is_some_and(|(from, upto)| from == link && upto >= left)
        || was_safe(world, link, key, left);
    (source == link && !safe && version <= settled).then_some(version)
}

/// Whether a version was safe at a destination before something else came over it, which is safe too:
/// should it come once more, and be lost, it is not missed.
fn was_safe(world: &World, link: usize, key: Key, version: Version) -> bool {
    let Dest::Site(to) = world.links[link].to else { return false };
    let was_absent = world.links[link].absent.get(&key) == Some(&version);
    let was_there = || world.sites[to].store.had_on_device(key, link, version);
    world.plan.is_contested(key) && (was_absent || was_there())
}

/// Part of invariant 3: a tombstone goes only when no DC owes the deletion, no destination can
/// forget it, and no DC would begin before it after a crash.
pub(crate) fn a_tombstone_outlives_what_is_owed(
    world: &mut World,
    site: usize,
    key: Key,
    rec: &Rec,
) {
    for link in world.links_from(site) {
        if !ships(world, link, key, Some(rec)) {
            // It hid what was owed before, and nothing is asked for any more.
            world.links[link].ledger.taken.remove(&key);
            continue;
        }
        let owed = world.links[link].ledger.owed(key).or_else(|| at_risk(world, link, key));
        assert!(
            owed.is_none(),
            "invariant 3: the tombstone of key {key} goes, though DC {link} owes {owed:?}"
        );
        let place = (world.namespace(key).index(), world.lane(key) as u16);
        let durable = &world.sites[site].durable;
        let marks =
            durable.marks.get(&link).filter(|_| !durable.orphans.contains(&(link, place.0)));
        if let Some(&mark) = marks.and_then(|marks| marks.get(&place)) {
            let lut = rec.version.lut();
            assert!(
                lut < mark,
                "invariant 3: the tombstone of key {key} goes, though DC {link} begins at {mark} again"
            );
        }
    }
}

/// A destination restarted and its source knows: what was lost is owed again, and no more than that.
pub(crate) fn note_restart(world: &mut World, link: usize) {
    world.links[link].seen.clear();
    let Dest::Site(site) = world.links[link].to else { return };
    let store = &world.sites[site].store;
    let ledger = &mut world.links[link].ledger;
    for (key, version) in std::mem::take(&mut ledger.lost) {
        // Settled no further than before what was lost.
        if ledger.newest(key).unwrap_or_default() >= version {
            let durable = store.durable_source(key).filter(|(from, _)| *from == link);
            // What was given up before has its letter still.
            let dead = ledger.dead.get(&key).copied();
            let kept = durable.map(|(_, kept)| kept).max(dead).filter(|kept| *kept < version);
            ledger.unsettle(key, kept);
        }
    }
}

/// What is shipped changes: what the rules before or after hold back may have been passed over,
/// and is not asked for any more.
pub(crate) fn note_refilter(world: &mut World, link: usize) {
    let keys: Vec<Key> = world.links[link].ledger.taken.keys().copied().collect();
    for key in keys {
        if !has_something_to_ship(world, link, key) {
            world.links[link].ledger.taken.remove(&key);
        }
    }
}

/// A walk gave a record to a DC. What came over what was owed of it, and is not shipped itself, ends
/// that: what comes next may be shipped again, as long as a client here wrote the record once.
pub(crate) fn note_walked(world: &mut World, link: usize, key: Key, rec: &Rec) {
    let place = &world.links[link];
    let Some(config) = &place.configs[world.namespace(key).index()] else { return };
    let (namespace, partition) = (world.namespace(key), world.digest(key).partition());
    let lst = place.rules().and_then(|rules| rules.lst(namespace, partition)).unwrap_or_default();
    let is_passed = found_at(place, config, rec).is_none_or(|found| found < lst);
    let is_contested = world.plan.is_contested(key);
    if is_contested && is_passed && place.ledger.owed(key).is_some() {
        world.links[link].ledger.withhold(key, rec.version);
    }
}

/// A site died, and with it what it had not flushed: nobody owes that any more.
pub(crate) fn note_loss(world: &mut World, site: usize) {
    let store = &world.sites[site].store;
    for link in world.links.iter_mut().filter(|link| link.from == site) {
        let keys: Vec<Key> = link.ledger.taken.keys().copied().collect();
        for key in keys {
            let left = store.get(key).map(|rec| rec.version).unwrap_or_default();
            link.ledger.lose(key, left);
        }
    }
}

/// A source or a destination died: of what the destination lost, only that is to be shipped again
/// which the source still has, and which the destination did not keep.
pub(crate) fn note_what_is_left(world: &mut World, link: usize) {
    let place = &world.links[link];
    let wall = world.sites[place.from].wall(world.now_us);
    let (mut lost, mut given_up) = (place.ledger.lost.clone(), Vec::new());
    lost.retain(|&key, version| {
        let Some(newest) = place.ledger.newest(key) else { return false };
        *version = newest.min(*version);
        if place.ledger.dead.get(&key).is_some_and(|dead| *dead >= *version) {
            given_up.push(key);
            return false;
        }
        let (there, source) = held(world, place, key);
        let here = world.sites[place.from].store.get(key);
        let both_gone = there.is_none() && here.is_none_or(|rec| !rec.is_live(wall));
        !both_gone
            && source.is_none_or(|(from, kept)| from != link || kept < *version)
            && !was_safe(world, link, key, *version)
    });
    // What came after it arrived and is lost: it has its letter still, or never will again.
    given_up.retain(|&key| {
        let dead = place.ledger.dead.get(&key).copied().unwrap_or_default();
        !arrived(world, link, key, dead)
    });
    let ledger = &mut world.links[link].ledger;
    ledger.lost = lost;
    given_up.iter().for_each(|key| _ = ledger.arrived.remove(key));
}

/// A DC was rewound, or a namespace of it: what changed since is owed again.
pub(crate) fn note_rewind(world: &mut World, link: usize, of: Option<NamespaceId>, from: Lut) {
    let place = &world.links[link];
    let mut owed = Vec::new();
    for (key, rec) in world.sites[place.from].store.keys() {
        if of.is_some_and(|namespace| namespace != world.namespace(key)) {
            continue;
        }
        let Some(config) = &place.configs[world.namespace(key).index()] else { continue };
        let set = SETS[usize::from(key) % SETS.len()];
        let ignored = config.ignored_sets.iter().any(|ignored| ignored == set);
        let nsup = rec.kind() == ChangeKind::NsupDelete;
        let found =
            found_at(place, config, rec).filter(|&found| found >= from && !ignored && !nsup);
        // What lies over a change of here and goes no further is not owed: the change is.
        let taken = place.ledger.taken.get(&key).into_iter().flatten().rev();
        let hidden = found.filter(|&lut| lut < rec.version.lut());
        let under = hidden.and_then(|lut| taken.copied().find(|version| version.lut() == lut));
        owed.extend(found.map(|_| (key, under.unwrap_or(rec.version))));
    }
    let ledger = &mut world.links[link].ledger;
    for (key, version) in owed {
        ledger.take(key, version);
        ledger.rewind(key, from);
    }
}

/// Invariant 1: once faults stop, each destination holds what its filters admit of the source.
pub(crate) fn destinations_hold_what_filters_admit(world: &World) {
    for (link, place) in world.links.iter().enumerate() {
        if place.engine.is_some() {
            everything_replayed_has_arrived(world, link);
            (0..world.key_count()).for_each(|key| {
                check_key(world, link, key);
                contest::what_is_owed_came_last(world, link, key);
            });
        }
    }
    contest::every_record_is_as_a_client_wrote_it(world);
}

fn check_key(world: &World, link: usize, key: Key) {
    let place = &world.links[link];
    let Some(config) = &place.configs[world.namespace(key).index()] else { return };
    let Some(newest) = place.ledger.newest(key) else { return };
    if !has_something_to_ship(world, link, key) {
        return;
    }
    let owed = place.ledger.owed(key);
    assert!(owed.is_none(), "invariant 1: key {key} of DC {link} was never settled: {owed:?}");
    let site = &world.sites[place.from];
    // What expires by itself on either side is not superseded by that.
    let left = match site.store.get(key) {
        rec @ Some(_) if config.ship_nsup_deletes => rec,
        _ => site.store.before_expiry(key),
    };
    let now = left.map(|rec| rec.version).unwrap_or_default();
    let given_up = [&place.ledger.dead, &place.ledger.gone];
    if given_up.iter().any(|of| of.get(&key).is_some_and(|&dead| dead >= newest)) {
        return;
    }
    let (there, source) = held(world, place, key);
    // The source lost what the destination has.
    if site.store.lost.get(&key).is_some_and(|&lost| lost > now)
        && source.is_some_and(|(from, kept)| from == link && kept > now)
    {
        return;
    }
    let wall = site.wall(world.now_us);
    let here = site.store.get(key).filter(|rec| rec.is_live(wall));
    // A delete that finds nothing, or a write of nothing, leaves no trace of itself.
    if let Some((from, version)) = source
        && from == link
        && there.is_some()
    {
        let settled = place.ledger.settled.get(&key).copied().unwrap_or_default();
        let withheld = place.ledger.not_sent.get(&key).is_some_and(|&last| last >= newest);
        assert!(
            version >= newest.min(settled) || withheld,
            "invariant 1: DC {link} left key {key} at @{} though @{} was settled",
            version.lut(),
            newest.lut()
        );
    }
    // Bins that were shipped under other rules may have stayed.
    if place.ledger.refiltered.is_some_and(|at| newest <= at)
        || place.ledger.not_sent.contains_key(&key)
    {
        return;
    }
    // Of what others write there as well, `contest` knows.
    if world.plan.is_contested(key) && place.is_fenced() {
        return;
    }
    let expected = here.map(|rec| rec.bins);
    let same = holds(config, expected, there);
    assert!(same, "invariant 1: key {key} of DC {link} is {there:?} there, {expected:?} here");
}

/// What the destination has of a key, and which version of the source that is, expired or not.
fn held(
    world: &World,
    place: &Link,
    key: Key,
) -> (Option<crate::store::Bins>, Option<(usize, Version)>) {
    let (rec, last, wall) = match place.to {
        Dest::Site(site) => {
            let site = &world.sites[site];
            (site.store.get(key), site.store.before_expiry(key), site.wall(world.now_us))
        }
        Dest::Foreign(foreign) => {
            let rec = world.foreigns[foreign].records.get(&key);
            (rec, rec, world.sites[place.from].wall(world.now_us))
        }
    };
    let live = rec.filter(|rec| rec.is_live(wall)).map(|rec| rec.bins);
    (live, last.and_then(|rec| rec.source))
}

/// Whether a destination has that version of a key from there, or a newer one.
pub(crate) fn arrived(world: &World, link: usize, key: Key, version: Version) -> bool {
    let (_, source) = held(world, &world.links[link], key);
    source.is_some_and(|(from, kept)| from == link && kept >= version)
}

/// Whether a destination holds what a rule leaves of a record.
pub(crate) fn holds(
    config: &DcNamespaceConfig,
    here: Option<crate::store::Bins>,
    there: Option<crate::store::Bins>,
) -> bool {
    let (Some(here), there) = (here, there.unwrap_or_default()) else { return there.is_none() };
    let listed = |names: &[String], at: usize| names.iter().any(|name| name == ["a", "b", "c"][at]);
    (0..3).all(|at| match config.bin_policy {
        BinPolicy::OnlySpecified => !listed(&config.shipped_bins, at) || here[at] == there[at],
        BinPolicy::All if listed(&config.ignored_bins, at) => true,
        // An update leaves what the source has no more.
        BinPolicy::All => {
            let withheld = (0..3).any(|at| listed(&config.ignored_bins, at) && here[at].is_some());
            let update = config.write_policy == WritePolicy::Update
                || config.write_policy == WritePolicy::Auto && withheld;
            here[at] == there[at] || update && here[at].is_none()
        }
    })
}

/// Part of invariant 3: a replayed letter goes when its change has arrived, and positions see to
/// what the destination may still forget.
pub(crate) fn a_letter_goes_when_its_change_is_safe(world: &mut World, link: usize, key: Key) {
    let Some(rules) = world.links[link].rules() else { return };
    let (namespace, partition) = (world.namespace(key), world.digest(key).partition());
    let lst = rules.lst(namespace, partition).unwrap_or_default();
    let mark = rules.mark(namespace, partition).unwrap_or_default();
    let Some(dead) = world.links[link].ledger.dead.remove(&key) else { return };
    check_position(world, link, key, lst, mark);
    world.links[link].ledger.dead.insert(key, dead);
}

/// Part of invariant 1: what was given up can be replayed, unless that version or a newer one has
/// arrived since by a change of its own, or ships again: its lane is not past it.
pub(crate) fn what_was_given_up_has_a_letter(world: &World, link: usize) {
    let ledger = &world.links[link].ledger;
    for (key, dead) in &ledger.dead {
        let is_last = ledger.newest(*key).is_none_or(|newest| *dead >= newest);
        let has_arrived = ledger.arrived.get(key).is_some_and(|arrived| arrived >= dead);
        let (namespace, partition) = (world.namespace(*key), world.digest(*key).partition());
        let lst = world.links[link].rules().and_then(|rules| rules.lst(namespace, partition));
        let ships_again = lst.is_some_and(|lst| lst <= dead.lut());
        assert!(
            !is_last || has_arrived || ships_again || world.has_letter(link, *key),
            "invariant 1: DC {link} gave key {key} up, and there is no dead letter"
        );
    }
}

/// Part of invariant 1: a letter that a shard is told to be kept would be there after a crash.
pub(crate) fn a_letter_that_is_kept_is_on_file(
    world: &World,
    site: usize,
    dc: DcIndex,
    slots: &[(u32, bool)],
) {
    let Some(link) = world.link_of(site, dc) else { return };
    let on_file = LetterBox::over(Box::new(world.sites[site].durable.letters.clone()));
    for (slot, _) in slots.iter().filter(|(_, is_kept)| *is_kept) {
        let Some(letter) = world.links[link].letters.get(slot) else { continue };
        // Those of a namespace that is detached are nobody's.
        if !world.knows(site, &letter.dc, &letter.namespace) {
            continue;
        }
        let mut kept = on_file.letters().of(&letter.dc, &letter.namespace);
        let is_kept = kept.any(|kept| kept.digest == letter.digest);
        assert!(is_kept, "invariant 1: DC {link} lets a change go whose dead letter is nowhere");
    }
}

/// Keys that were given up and that the destination would take now.
pub(crate) fn to_be_replayed(world: &World, link: usize) -> Vec<Key> {
    let place = &world.links[link];
    let refuses = |foreign: usize| world.foreigns[foreign].community;
    if matches!(place.to, Dest::Foreign(foreign) if refuses(foreign)) {
        return Vec::new();
    }
    let is_shipped = |key: &Key| {
        place.configs[world.namespace(*key).index()].is_some()
            && has_something_to_ship(world, link, *key)
            && world.has_letter(link, *key)
    };
    place.ledger.dead.keys().copied().filter(is_shipped).collect()
}

/// Part of invariant 1: once all is replayed, nothing is left that the destination would take.
fn everything_replayed_has_arrived(world: &World, link: usize) {
    let left = to_be_replayed(world, link);
    let Some(key) = left.first() else { return };
    panic!("invariant 1: key {key} was replayed, and DC {link} has a dead letter of it still");
}
