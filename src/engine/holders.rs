//! Who took what was shipped, and what is missing there. Pure.
//!
//! A position says that a destination has what lies below it. It is true of the store that took it,
//! and of no other: a destination that comes back empty, or from an older copy, has none of it or
//! not all. So the marks keep, for each namespace of a DC, the store and its run that a Longship
//! destination named in its last hello. A new process of the destination has to go on from that very
//! run. What it lacks otherwise is a *hole*: it is told until the operator rewinds. So are dead letters
//! that were lost: nothing else knows what was given up.
//!
//! One copy is not found out: of a store that has not ended in order, made within the run that the
//! marks know. It looks like a crash. Source: `docs/design.md`, D24.

use std::collections::BTreeMap;

use crate::config::DcConfig;
use crate::host::{Holder, Hole, Marks};
use crate::model::{DcIndex, Lut, NamespaceId, StoreRun};
use crate::wire::hello::NamespaceStore;

/// What a destination says is made durable at once this often at most, else with the next positions.
const STORED_MS: u64 = 1000;

/// The stores that took what was shipped, and what those that answer now have told.
#[derive(Default)]
pub(super) struct Holders {
    /// By DC, and namespace at the source.
    held: BTreeMap<(String, String), Held>,
    /// By DC.
    told: BTreeMap<String, Told>,
    stored_at: Option<Lut>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Held {
    /// As told last, and by which process.
    store: Option<(StoreRun, u64)>,
    hole: Option<Hole>,
}

/// What the last process of a destination told.
struct Told {
    boot: u64,
    /// The process before: another shard may still pass on what it told.
    former: Option<u64>,
    stores: Vec<NamespaceStore>,
}

/// What a comparison has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Changed {
    /// Something is to be kept.
    pub(super) any: bool,
    /// Holes are among it.
    pub(super) holes: bool,
}

impl Held {
    /// What a store lacks of what this one took, as `boot` tells of it.
    fn hole(&self, boot: u64, now: &NamespaceStore) -> Option<Hole> {
        let (taker, taker_boot) = self.store?;
        let StoreRun { id, run } = now.store;
        if id != taker.id {
            Some(Hole::OtherStore)
        } else if boot == taker_boot {
            None
        } else if run <= taker.run {
            Some(Hole::OlderCopy)
        } else {
            (!now.is_whole).then_some(Hole::Incomplete)
        }
    }
}

impl Holders {
    /// As marks know them.
    pub(super) fn of(marks: Option<&Marks>) -> Self {
        let mut holders = Self::default();
        let Some(marks) = marks else { return holders };
        for &Holder { dc, namespace, store, hole } in &marks.holders {
            let dc = marks.dcs.get(dc.index());
            if let Some((dc, namespace)) = dc.zip(marks.namespaces.get(namespace.index())) {
                let held = Held { store, hole };
                holders.held.insert((dc.clone(), namespace.clone()), held);
            }
        }
        holders
    }

    /// Adds them to marks, as far as those have positions of the same DC and namespace.
    pub(super) fn add_to(&self, marks: &mut Marks) {
        let find = |names: &[String], name: &String| names.iter().position(|known| known == name);
        for ((dc, namespace), &Held { store, hole }) in &self.held {
            let place = find(&marks.dcs, dc).zip(find(&marks.namespaces, namespace));
            let Some((dc, namespace)) = place else { continue };
            let (dc, namespace) = (DcIndex(dc as u32), NamespaceId(namespace as u8));
            marks.holders.push(Holder { dc, namespace, store, hole });
        }
    }

    /// Takes what a destination tells of its stores. False when it has told it before.
    pub(super) fn hear(&mut self, dc: &str, boot: u64, stores: Vec<NamespaceStore>) -> bool {
        let before = self.told.get(dc);
        if before.is_some_and(|told| told.boot == boot || told.former == Some(boot)) {
            return false;
        }
        let former = before.map(|told| told.boot);
        self.told.insert(dc.to_owned(), Told { boot, former, stores });
        true
    }

    /// Holds what a DC ships against what its destination has told.
    pub(super) fn compare(&mut self, dc: &DcConfig) -> Changed {
        let mut changed = Changed::default();
        let Some(Told { boot, stores, .. }) = self.told.get(&dc.name) else { return changed };
        for shipped in &dc.namespaces {
            let remote = shipped.remote_name();
            let Some(now) = stores.iter().find(|store| store.namespace == *remote) else {
                continue;
            };
            let key = (dc.name.clone(), shipped.name.clone());
            let before = self.held.get(&key).copied();
            let known = before.and_then(|held| held.hole);
            let hole = before.and_then(|held| held.hole(*boot, now)).or(known);
            let held = Held { store: Some((now.store, *boot)), hole };
            changed.any |= before != Some(held);
            changed.holes |= known != hole;
            self.held.insert(key, held);
        }
        changed
    }

    /// The dead letters of a DC's namespace are lost.
    pub(super) fn lose_letters(&mut self, dc: &str, namespace: &str) {
        let held = self.held.entry((dc.to_owned(), namespace.to_owned())).or_default();
        held.hole.get_or_insert(Hole::LettersLost);
    }

    /// The holes of a DC, by namespace at the source.
    pub(super) fn holes(&self, dc: &str) -> impl Iterator<Item = (&str, Hole)> {
        let of_dc = self.held.iter().filter(move |((of, _), _)| of == dc);
        of_dc.filter_map(|((_, namespace), held)| Some((namespace.as_str(), held.hole?)))
    }

    /// Whether they may be made durable at once; counts as done.
    pub(super) fn may_be_stored(&mut self, wall: Lut) -> bool {
        let is_due = self.stored_at.is_none_or(|at| wall.ms().abs_diff(at.ms()) >= STORED_MS);
        if is_due {
            self.stored_at = Some(wall);
        }
        is_due
    }

    /// The operator has what is missing ship again. Says whether there was a hole.
    pub(super) fn fill(&mut self, dc: &str, namespace: &str) -> bool {
        let held = self.held.get_mut(&(dc.to_owned(), namespace.to_owned()));
        held.is_some_and(|held| held.hole.take().is_some())
    }

    /// Any store may take what a DC ships of a namespace from now on. Says whether there was a hole.
    pub(super) fn forget(&mut self, dc: &str, namespace: &str) -> bool {
        let held = self.held.remove(&(dc.to_owned(), namespace.to_owned()));
        held.is_some_and(|held| held.hole.is_some())
    }

    /// Keeps those of the DCs and namespaces that `is_wanted` tells.
    pub(super) fn retain(&mut self, is_wanted: impl Fn(&str, &str) -> bool) {
        self.held.retain(|(dc, namespace), _| is_wanted(dc, namespace));
    }

    pub(super) fn forget_dc(&mut self, dc: &str) {
        self.held.retain(|(of, _), _| of != dc);
        self.told.remove(dc);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DcNamespaceConfig;

    fn dc(remote: Option<&str>) -> DcConfig {
        let mut namespace = DcNamespaceConfig::named("demo");
        namespace.remote_namespace = remote.map(str::to_owned);
        DcConfig { namespaces: vec![namespace], ..DcConfig::named("west") }
    }

    fn store(id: u64, run: u32) -> NamespaceStore {
        let store = StoreRun { id, run };
        NamespaceStore { namespace: "demo".to_owned(), store, is_whole: true }
    }

    fn holes(holders: &Holders) -> Vec<Hole> {
        holders.holes("west").map(|(_, hole)| hole).collect()
    }

    /// Marks with positions of the DC, and these holders.
    fn kept(holders: &Holders) -> Marks {
        let (dcs, namespaces) = (vec!["west".into()], vec!["other".into(), "demo".into()]);
        let mut marks = Marks { dcs, namespaces, ..Marks::default() };
        holders.add_to(&mut marks);
        marks
    }

    /// What a source finds that knows run 6 of store 1, told by process 60, when another tells that;
    /// the same whether it was restarted meanwhile.
    fn found(boot: u64, now: &NamespaceStore) -> Option<Hole> {
        let mut holders = Holders::default();
        assert!(holders.hear("west", 60, vec![store(1, 6)]));
        assert_eq!(holders.compare(&dc(None)), Changed { any: true, holes: false });
        let mut restarted = Holders::of(Some(&kept(&holders)));
        let [one, other] = [&mut holders, &mut restarted].map(|holders| {
            holders.hear("west", boot, vec![now.clone()]);
            holders.compare(&dc(None));
            holes(holders).first().copied()
        });
        assert_eq!(one, other, "{now:?}");
        one
    }

    #[test]
    fn a_store_that_does_not_go_on_from_the_run_that_took_what_was_shipped_has_a_hole() {
        assert_eq!(found(60, &store(1, 6)), None, "another connection");
        assert_eq!(found(61, &store(1, 7)), None, "restarted");
        assert_eq!(found(61, &store(1, 90)), None, "again and again");
        assert_eq!(found(61, &store(2, 1)), Some(Hole::OtherStore), "wiped");
        assert_eq!(found(61, &store(2, 7)), Some(Hole::OtherStore), "another one");
        assert_eq!(found(61, &store(1, 6)), Some(Hole::OlderCopy), "made just before that run");
        assert_eq!(found(61, &store(1, 3)), Some(Hole::OlderCopy));
        let incomplete = NamespaceStore { is_whole: false, ..store(1, 7) };
        assert_eq!(found(61, &incomplete), Some(Hole::Incomplete));
    }

    #[test]
    fn a_hole_stays_until_it_is_forgotten_whatever_restarts() {
        let mut holders = Holders::default();
        for (boot, now, expected) in [
            (1, store(1, 6), vec![]),
            (2, store(2, 1), vec![Hole::OtherStore]),
            (3, store(2, 3), vec![Hole::OtherStore]),
            (4, store(2, 2), vec![Hole::OlderCopy]),
        ] {
            assert!(holders.hear("west", boot, vec![now]));
            holders.compare(&dc(None));
            assert_eq!(holes(&holders), expected);
            let of_marks = Holders::of(Some(&kept(&holders)));
            holders = Holders { told: holders.told, ..of_marks };
        }
        assert!(holders.fill("west", "demo"));
        assert_eq!(holders.compare(&dc(None)), Changed::default());
        assert!(holders.hear("west", 5, vec![store(2, 3)]));
        holders.compare(&dc(None));
        assert_eq!(holes(&holders), []);
    }

    #[test]
    fn what_a_former_process_told_comes_late_without_harm() {
        let mut holders = Holders::default();
        assert!(holders.hear("west", 1, vec![store(1, 6)]));
        assert!(holders.hear("west", 2, vec![store(1, 8)]));
        for late in [1, 2, 1] {
            assert!(!holders.hear("west", late, vec![store(1, 6)]));
        }
    }

    #[test]
    fn a_namespace_that_ships_elsewhere_ships_to_another_store() {
        let mut holders = Holders::default();
        let elsewhere = NamespaceStore { namespace: "there".to_owned(), ..store(9, 6) };
        holders.hear("west", 1, vec![store(1, 6), elsewhere]);
        holders.compare(&dc(None));
        assert_eq!(holders.compare(&dc(None)), Changed::default());
        assert_eq!(holders.compare(&dc(Some("there"))), Changed { any: true, holes: true });
        assert_eq!(holes(&holders), [Hole::OtherStore]);
        assert_eq!(holders.compare(&dc(Some("nowhere"))), Changed::default());
    }

    #[test]
    fn what_has_no_positions_has_no_holder_either() {
        let mut holders = Holders::default();
        holders.hear("west", 1, vec![store(1, 6)]);
        holders.compare(&dc(None));
        assert_eq!(kept(&holders).holders.len(), 1);
        let mut marks = Marks { namespaces: vec!["demo".into()], ..Marks::default() };
        holders.add_to(&mut marks);
        assert_eq!(marks.holders, []);
    }

    #[test]
    fn a_destination_that_flaps_makes_marks_durable_once_a_second() {
        let mut holders = Holders::default();
        let stored = (0..5000).filter(|ms| holders.may_be_stored(Lut::from_ms(1_000_000 + ms)));
        assert_eq!(stored.count(), 5);
    }
}
