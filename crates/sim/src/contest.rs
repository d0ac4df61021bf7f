//! Keys that clients of several sites write, and what is promised of them (`docs/design.md`, D42): no
//! site's word is better than another's, the last to arrive wins, and each arrives.

use crate::link::Link;
use crate::oracle;
use crate::plan::Dest;
use crate::store::{Bins, Key, Rec, shown};
use crate::world::World;
use longship::config::{BinPolicy, DcNamespaceConfig, WritePolicy};
use longship::model::{ChangeKind, RecordFlags, Version};

/// Part of invariant 1: the last word of a site on a key, if a DC owes it, was heard at the
/// destination, which holds that or what came there later. Two sites that ship to each other hold
/// the same then, unless each word had left when the other came: the last word of neither is its
/// own.
pub(crate) fn what_is_owed_came_last(world: &World, link: usize, key: Key) {
    let place = &world.links[link];
    let (Dest::Site(to), true) = (place.to, world.plan.is_contested(key)) else { return };
    let Some(config) = &place.configs[world.namespace(key).index()] else { return };
    let source = &world.sites[place.from].store;
    let Some(last) = source.last_event(key) else { return };
    if !is_owed(world, link, key, last) {
        return;
    }
    let heard = place.applied.get(&key).copied();
    // The source has lost what it said after that.
    if let Some((heard, _)) = heard
        && heard > last.version
        && source.lost.get(&key).is_some_and(|&lost| lost >= heard)
    {
        return;
    }
    let clock = heard.filter(|(heard, _)| *heard >= last.version).map(|(_, clock)| clock);
    let Some(clock) = clock else {
        panic!("invariant 1: DC {link} kept the last word on key {key} to itself: {}", shown(last));
    };
    let there = &world.sites[to].store;
    if there.last_event(key).is_some_and(|rec| rec.version > clock) {
        return;
    }
    let live = |site: usize| {
        let wall = world.sites[site].wall(world.now_us);
        let rec = world.sites[site].store.get(key).filter(|rec| rec.is_live(wall));
        rec.map(|rec| rec.bins)
    };
    let (here, there) = (live(place.from), live(to));
    assert!(
        oracle::holds(config, here, there),
        "invariant 1: DC {link} had the last word on key {key}, and it is {there:?} there, {here:?} here"
    );
}

/// Whether a DC owes its destination whatever came last of a key: a client here wrote it, or it is to
/// go on.
pub(crate) fn is_its_word(world: &World, link: usize, key: Key) -> bool {
    let place = &world.links[link];
    let config = place.configs[world.namespace(key).index()].as_ref();
    let goes_on = config.is_some_and(|config| config.forward);
    let last = world.sites[place.from].store.last_event(key);
    last.is_some_and(|last| {
        last.source.is_none() || goes_on && last.src_id != oracle::destination_of(place)
    })
}

/// Whether the last word of a site is to be heard at a destination, by what clients and shippers
/// did, and the text of the configuration.
fn is_owed(world: &World, link: usize, key: Key, last: &Rec) -> bool {
    let Link { ledger, from, .. } = &world.links[link];
    // Whoever wrote it, and not what the record says of that.
    let is_own = last.source.is_none();
    let rec = Rec { flags: last.flags.with(RecordFlags::SHIPPED, !is_own), ..last.clone() };
    let version = last.version;
    let reaches = |upto: Option<&Version>| upto.is_some_and(|&upto| upto >= version);
    let is_taken = ledger.taken.get(&key).is_some_and(|taken| taken.contains(&version));
    let is_given_up = reaches(ledger.dead.get(&key)) || reaches(ledger.gone.get(&key));
    // It expired, and was gone when it was to ship.
    let has_expired = world.sites[*from].store.get(key).is_none_or(|rec| rec.version != version);
    is_its_word(world, link, key)
        && (is_taken || version > ledger.begun)
        && !reaches(ledger.refiltered.as_ref())
        && !is_given_up
        && !(has_expired && reaches(ledger.not_sent.get(&key)))
        && !oracle::is_held_back(world, link, key, &rec)
}

/// Whether what is shipped so may be merged with what is there.
pub(crate) fn merges(config: &DcNamespaceConfig) -> bool {
    config.bin_policy != BinPolicy::All
        || !config.ignored_bins.is_empty()
        || config.write_policy == WritePolicy::Update
}

/// Every record of a contested key is as some client left it, and whole, where nobody withholds bins or
/// merges them.
pub(crate) fn every_record_is_as_a_client_wrote_it(world: &World) {
    let all = world.links.iter().all(|link| !link.has_merged);
    for key in (0..world.key_count()).filter(|key| world.plan.is_contested(*key)) {
        let written = world.written.get(&key);
        let is_written = |bins: &Bins| {
            written.is_some_and(|written| match all {
                true => written.contains(bins),
                false => (0..3)
                    .all(|at| bins[at].is_none() || written.iter().any(|of| of[at] == bins[at])),
            })
        };
        for (site, place) in world.sites.iter().enumerate() {
            let Some(rec) = place.store.get(key).filter(|rec| rec.kind() == ChangeKind::Write)
            else {
                continue;
            };
            let rec_shown = shown(rec);
            assert!(
                is_written(&rec.bins),
                "invariant 1: nobody wrote key {key} as {rec_shown}, site {site}"
            );
        }
    }
}
