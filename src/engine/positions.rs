//! The last known position of every lane of the process, by name, as marks keep it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::config::XdrConfig;
use crate::host::{Mark, Marks, StoreRun};
use crate::model::{DcIndex, LaneId, Lut, NamespaceId, PARTITION_COUNT, PartitionId};
use crate::ship::mutation::{Mutation, planted};

/// What is known of the store of a namespace when the shards have opened it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreFacts {
    /// Names it for good; never 0.
    pub id: u64,
    /// There is no record in it, and no tombstone.
    pub is_empty: bool,
    /// Number of this run of it; 0 where nobody counts runs.
    pub run: u32,
    /// Number of the last run that has kept marks: marks of an earlier one are of a copy.
    pub last_run: u32,
    /// The last run did not end in order: what it acknowledged last may be lost.
    pub may_have_lost: bool,
}

/// Where the lanes of a namespace start.
#[derive(Clone, Debug)]
pub enum Beginning {
    /// With the next write.
    Now,
    /// Each lane at its LUT; `None` starts with the next write.
    At(Arc<[Option<Lut>]>),
    /// With the oldest record, since nobody knows what was shipped.
    Oldest,
}

/// Why the lanes of a DC and namespace have no position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unknown {
    /// They were never shipped, or there is nothing to ship.
    New,
    /// There are no marks beside a store that holds records.
    Lost,
    /// The marks are of another store.
    OtherStore,
    /// The marks were made in an earlier run than the last, and tell nothing of this DC.
    Outdated,
}

/// The last known LST of every lane, by DC and namespace name.
#[derive(Default)]
pub(super) struct Positions {
    /// The store of each namespace that has been seen.
    stores: BTreeMap<String, StoreRun>,
    /// Namespaces whose records the marks tell nothing of.
    unknown: BTreeMap<String, Unknown>,
    /// Namespaces of which only earlier marks are there: what they tell nothing of is not new.
    outdated: BTreeSet<String>,
    lanes: BTreeMap<(String, String), Box<[Option<Lut>]>>,
    /// What is being attached: its lanes stand at that LUT until they tell where they begin.
    beginning: Option<(String, String, Lut)>,
    /// What the indexes in shards' marks mean.
    names: BTreeMap<(DcIndex, NamespaceId), (String, String)>,
}

impl Positions {
    /// Takes the marks that were made beside the stores there are now; `None` when there are none
    /// that can be read.
    pub(super) fn beside(stores: &[(String, StoreFacts)], marks: Option<Marks>) -> Self {
        let marks = marks.unwrap_or_default();
        let known = marks.namespaces.iter().cloned().zip(marks.stores.iter().copied());
        let mut positions = Self { stores: known.collect(), ..Self::default() };
        for (name, facts) in stores {
            let now = StoreRun { id: facts.id, run: facts.run };
            let was = positions.stores.insert(name.clone(), now).filter(|store| store.id != 0);
            let unknown = match was {
                Some(store) if store.id == facts.id => {
                    if store.run < facts.last_run && !facts.is_empty {
                        positions.outdated.insert(name.clone());
                    }
                    continue;
                }
                _ if facts.is_empty => Unknown::New,
                Some(_) => Unknown::OtherStore,
                None => Unknown::Lost,
            };
            positions.unknown.insert(name.clone(), unknown);
        }
        for Mark { lane, lst } in marks.lanes {
            let dc = marks.dcs.get(lane.dc.index());
            let namespace = marks.namespaces.get(lane.namespace.index());
            if let (Some(dc), Some(namespace)) = (dc, namespace)
                && !positions.unknown.contains_key(namespace)
            {
                positions.row(dc, namespace)[lane.partition.index()] = Some(lst);
            }
        }
        positions
    }

    /// Why a namespace of a DC has no positions, if it has none.
    pub(super) fn why_unknown(&self, namespace: &str) -> Unknown {
        let outdated = || self.outdated.contains(namespace).then_some(Unknown::Outdated);
        self.unknown.get(namespace).copied().or_else(outdated).unwrap_or(Unknown::New)
    }

    fn row(&mut self, dc: &str, namespace: &str) -> &mut [Option<Lut>] {
        let key = (dc.to_owned(), namespace.to_owned());
        self.lanes.entry(key).or_insert_with(|| vec![None; PARTITION_COUNT].into())
    }

    pub(super) fn lanes(&self, dc: &str, namespace: &str) -> Option<Box<[Option<Lut>]>> {
        self.lanes.get(&(dc.to_owned(), namespace.to_owned())).cloned()
    }

    /// Marks of `dc` count for these namespaces and no others.
    pub(super) fn bind(&mut self, dc: DcIndex, name: &str, attached: &[(NamespaceId, String)]) {
        if !planted(Mutation::MarksOfTheGoneTaken) {
            self.names.retain(|(bound, _), _| *bound != dc);
        }
        for (id, namespace) in attached {
            self.names.insert((dc, *id), (name.to_owned(), namespace.clone()));
        }
    }

    /// The lanes of a namespace that is being attached stand at `from` until they tell where they
    /// begin. Gives the positions that were left of an earlier attachment.
    pub(super) fn begin_at(
        &mut self,
        dc: &str,
        namespace: &str,
        from: Lut,
    ) -> Option<Box<[Option<Lut>]>> {
        let former = self.lanes.remove(&(dc.to_owned(), namespace.to_owned()));
        self.row(dc, namespace);
        self.beginning = Some((dc.to_owned(), namespace.to_owned(), from));
        former
    }

    /// It is not attached: what was left stays.
    pub(super) fn begin_not(
        &mut self,
        dc: &str,
        namespace: &str,
        former: Option<Box<[Option<Lut>]>>,
    ) {
        self.beginning = None;
        self.forget(dc, namespace);
        if let Some(former) = former {
            self.lanes.insert((dc.to_owned(), namespace.to_owned()), former);
        }
    }

    /// Every lane has told where it begins.
    pub(super) fn has_begun(&mut self) {
        self.beginning = None;
    }

    pub(super) fn forget(&mut self, dc: &str, namespace: &str) {
        self.lanes.remove(&(dc.to_owned(), namespace.to_owned()));
    }

    pub(super) fn forget_dc(&mut self, dc: &str) {
        if planted(Mutation::DeletedDcKeepsMarks) {
            return;
        }
        self.lanes.retain(|(of, _), _| of != dc);
    }

    pub(super) fn merge(&mut self, marks: &[Mark]) {
        self.take(marks, |_, new| new);
    }

    /// Takes up positions of lanes that had none. A lane that had one keeps the lower of both,
    /// until a checkpoint says that what the higher one relies on is on the device.
    pub(super) fn begin(&mut self, marks: &[Mark]) {
        self.take(marks, |known, new| known.map_or(new, |known| known.min(new)));
    }

    /// Takes what marks tell: `position` of what was known of a lane, and what is told.
    fn take(&mut self, marks: &[Mark], position: impl Fn(Option<Lut>, Lut) -> Lut) {
        for run in
            marks.chunk_by(|a, b| (a.lane.dc, a.lane.namespace) == (b.lane.dc, b.lane.namespace))
        {
            let lane = run[0].lane;
            // Told before the namespace was detached: its position is forgotten already.
            let Some((dc, namespace)) = self.names.get(&(lane.dc, lane.namespace)).cloned() else {
                continue;
            };
            let row = self.row(&dc, &namespace);
            for mark in run {
                let known = &mut row[mark.lane.partition.index()];
                *known = Some(position(*known, mark.lst));
            }
        }
    }

    pub(super) fn orphans(&self, xdr: &XdrConfig) -> Vec<String> {
        let mut names: Vec<String> = self
            .lanes
            .keys()
            .map(|(dc, _)| dc.clone())
            .filter(|name| !xdr.dcs.iter().any(|dc| dc.name == *name))
            .collect();
        names.dedup();
        names
    }

    pub(super) fn oldest(&self, dc: &str) -> Lut {
        let rows = self.lanes.iter().filter(|((of, _), _)| of == dc);
        rows.flat_map(|(_, row)| row.iter().flatten().copied()).min().unwrap_or(Lut::ZERO)
    }

    fn store(&self, namespace: &str) -> StoreRun {
        self.stores.get(namespace).copied().unwrap_or_default()
    }

    pub(super) fn to_marks(&self, namespaces: &[String]) -> Marks {
        let mut marks = Marks { namespaces: namespaces.to_vec(), ..Marks::default() };
        marks.stores = namespaces.iter().map(|name| self.store(name)).collect();
        for ((dc, namespace), row) in &self.lanes {
            let dc_index = name_index(&mut marks.dcs, dc);
            let namespace_index = name_index(&mut marks.namespaces, namespace);
            if marks.stores.len() < marks.namespaces.len() {
                marks.stores.push(self.store(namespace));
            }
            let beginning =
                self.beginning.as_ref().filter(|(of, name, _)| (of, name) == (dc, namespace));
            let until_told = beginning.map(|(_, _, from)| *from);
            for (partition, lst) in PartitionId::all().zip(row.iter()) {
                let Some(lst) = lst.or(until_told) else { continue };
                let lane = LaneId {
                    dc: DcIndex(dc_index as u32),
                    namespace: NamespaceId(namespace_index as u8),
                    partition,
                };
                marks.lanes.push(Mark { lane, lst });
            }
        }
        marks
    }
}

pub(super) fn name_index(names: &mut Vec<String>, name: &str) -> usize {
    names.iter().position(|known| known == name).unwrap_or_else(|| {
        names.push(name.to_owned());
        names.len() - 1
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::LettersMark;

    fn mark(dc: u32, namespace: u8, partition: u16, lst: u64) -> Mark {
        let (dc, namespace) = (DcIndex(dc), NamespaceId(namespace));
        let lane = LaneId { dc, namespace, partition: PartitionId::new(partition) };
        Mark { lane, lst: Lut::from_ms(lst) }
    }

    #[test]
    fn names_tie_marks_to_lanes_whatever_their_order_was() {
        let marks = Marks {
            dcs: vec!["west".into(), "east".into()],
            namespaces: vec!["users".into(), "orders".into()],
            stores: vec![StoreRun { id: 1, run: 4 }, StoreRun { id: 2, run: 5 }],
            lanes: vec![mark(0, 1, 9, 100), mark(1, 0, 4095, 200)],
            holders: Vec::new(),
            letters: LettersMark::default(),
        };
        let positions = Positions::beside(&[], Some(marks));
        assert_eq!(positions.lanes("west", "orders").unwrap()[9], Some(Lut::from_ms(100)));
        assert_eq!(positions.lanes("east", "users").unwrap()[4095], Some(Lut::from_ms(200)));
        assert!(positions.lanes("west", "users").is_none());
        assert_eq!(positions.orphans(&XdrConfig::default()), ["east", "west"]);

        let names = ["orders".to_owned(), "users".to_owned()];
        let marks = positions.to_marks(&names);
        assert_eq!(marks.stores, [StoreRun { id: 2, run: 5 }, StoreRun { id: 1, run: 4 }]);
        let again = Positions::beside(&[], Some(marks));
        assert_eq!(again.lanes("west", "orders").unwrap()[9], Some(Lut::from_ms(100)));
    }

    #[test]
    fn positions_count_only_beside_the_store_they_were_made_for() {
        let marks = |store| Marks {
            dcs: vec!["west".into()],
            namespaces: vec!["users".into()],
            stores: vec![StoreRun { id: store, run: 3 }],
            lanes: vec![mark(0, 0, 9, 100)],
            holders: Vec::new(),
            letters: LettersMark::default(),
        };
        let check = |marks: Option<Marks>, is_empty, expected: Option<Unknown>| {
            let facts =
                StoreFacts { id: 5, is_empty, run: 4, last_run: 3, ..StoreFacts::default() };
            let positions = Positions::beside(&[("users".to_owned(), facts)], marks);
            let found = positions.lanes("west", "users").is_none();
            assert_eq!(found.then(|| positions.why_unknown("users")), expected);
            let now = StoreRun { id: 5, run: 4 };
            assert_eq!(positions.to_marks(&["users".to_owned()]).stores[0], now);
        };
        check(Some(marks(5)), false, None);
        check(Some(marks(5)), true, None);
        check(Some(marks(6)), false, Some(Unknown::OtherStore));
        check(Some(marks(6)), true, Some(Unknown::New));
        check(None, false, Some(Unknown::Lost));
        check(None, true, Some(Unknown::New));
        let elsewhere = Marks { namespaces: vec!["orders".into()], ..marks(5) };
        check(Some(elsewhere), false, Some(Unknown::Lost));
        // A DC that is new beside a store that is known; beside marks from a copy it may not be.
        for (last_run, expected) in [(2, Unknown::New), (3, Unknown::New), (4, Unknown::Outdated)] {
            let facts =
                StoreFacts { id: 5, is_empty: false, run: 9, last_run, ..StoreFacts::default() };
            let positions = Positions::beside(&[("users".to_owned(), facts)], Some(marks(5)));
            assert_eq!(positions.why_unknown("users"), expected);
            assert!(positions.lanes("west", "users").is_some(), "what they tell of counts");
        }
    }

    #[test]
    fn a_lane_that_begins_lower_counts_at_once_and_one_that_begins_higher_with_a_checkpoint() {
        let mut positions = Positions::default();
        let west = [(NamespaceId(0), "users".to_owned())];
        positions.bind(DcIndex(3), "west", &west);
        let at = |positions: &Positions| positions.lanes("west", "users").map(|lanes| lanes[9]);
        assert_eq!(at(&positions), None);
        positions.begin(&[mark(3, 0, 9, 100)]);
        positions.begin(&[mark(3, 0, 9, 200)]);
        assert_eq!(at(&positions), Some(Some(Lut::from_ms(100))));
        positions.merge(&[mark(3, 0, 9, 200)]);
        assert_eq!(at(&positions), Some(Some(Lut::from_ms(200))));
        // A rewind that was answered `ok` survives a crash before the next checkpoint.
        positions.begin(&[mark(3, 0, 9, 50)]);
        assert_eq!(at(&positions), Some(Some(Lut::from_ms(50))));
    }

    #[test]
    fn positions_of_a_dc_that_is_gone_or_of_an_earlier_one_of_its_name_are_nobodys() {
        let mut positions = Positions::default();
        let users = [(NamespaceId(0), "users".to_owned())];
        positions.bind(DcIndex(3), "west", &users);
        positions.merge(&[mark(3, 0, 9, 100)]);
        positions.forget_dc("west");
        positions.bind(DcIndex(3), "west", &[]);
        positions.bind(DcIndex(4), "west", &users);
        // Of a checkpoint that was under way when the DC was deleted and made again.
        positions.merge(&[mark(3, 0, 9, 100)]);
        assert!(positions.lanes("west", "users").is_none());
        positions.merge(&[mark(4, 0, 9, 300), mark(4, 1, 9, 1)]);
        assert_eq!(positions.oldest("west"), Lut::from_ms(300));
        positions.forget("west", "users");
        assert_eq!(positions.oldest("west"), Lut::ZERO);
    }

    #[test]
    fn marks_keep_the_store_of_a_namespace_that_is_not_configured_any_more() {
        let marks = Marks {
            dcs: vec!["west".into()],
            namespaces: vec!["former".into()],
            stores: vec![StoreRun { id: 7, run: 3 }],
            lanes: vec![mark(0, 0, 9, 100)],
            holders: Vec::new(),
            letters: LettersMark::default(),
        };
        let facts =
            StoreFacts { id: 5, is_empty: false, run: 4, last_run: 3, ..StoreFacts::default() };
        let positions = Positions::beside(&[("users".to_owned(), facts)], Some(marks));
        let marks = positions.to_marks(&["users".to_owned()]);
        assert_eq!(marks.namespaces, ["users", "former"]);
        assert_eq!(marks.stores, [StoreRun { id: 5, run: 4 }, StoreRun { id: 7, run: 3 }]);
        // Configured again beside its store, it goes on from there.
        let facts =
            StoreFacts { id: 7, is_empty: false, run: 4, last_run: 3, ..StoreFacts::default() };
        let again = Positions::beside(&[("former".to_owned(), facts)], Some(marks));
        assert_eq!(again.lanes("west", "former").unwrap()[9], Some(Lut::from_ms(100)));
    }
}
