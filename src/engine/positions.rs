//! The last known position of every lane of the process, by name, as marks keep it.

use std::collections::BTreeMap;

use crate::config::XdrConfig;
use crate::host::{Mark, Marks};
use crate::model::{DcIndex, LaneId, Lut, NamespaceId, PARTITION_COUNT, PartitionId};

/// The last known LST of every lane, by DC and namespace name.
#[derive(Default)]
pub(super) struct Positions {
    lanes: BTreeMap<(String, String), Box<[Option<Lut>]>>,
    /// What the indexes in shards' marks mean.
    names: BTreeMap<(DcIndex, NamespaceId), (String, String)>,
}

impl Positions {
    pub(super) fn from_marks(marks: Marks) -> Self {
        let mut positions = Self::default();
        for Mark { lane, lst } in marks.lanes {
            let dc = marks.dcs.get(lane.dc.index());
            let namespace = marks.namespaces.get(lane.namespace.index());
            if let (Some(dc), Some(namespace)) = (dc, namespace) {
                positions.row(dc, namespace)[lane.partition.index()] = Some(lst);
            }
        }
        positions
    }

    /// What damaged marks stand for: nothing is known to be settled.
    pub(super) fn everything(xdr: &XdrConfig) -> Self {
        let mut positions = Self::default();
        for dc in &xdr.dcs {
            for namespace in &dc.namespaces {
                positions.row(&dc.name, &namespace.name).fill(Some(Lut::ZERO));
            }
        }
        positions
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
        self.names.retain(|(bound, _), _| *bound != dc);
        for (id, namespace) in attached {
            self.names.insert((dc, *id), (name.to_owned(), namespace.clone()));
        }
    }

    pub(super) fn forget(&mut self, dc: &str, namespace: &str) {
        self.lanes.remove(&(dc.to_owned(), namespace.to_owned()));
    }

    pub(super) fn forget_dc(&mut self, dc: &str) {
        self.lanes.retain(|(of, _), _| of != dc);
    }

    pub(super) fn merge(&mut self, marks: &[Mark]) {
        for run in
            marks.chunk_by(|a, b| (a.lane.dc, a.lane.namespace) == (b.lane.dc, b.lane.namespace))
        {
            let lane = run[0].lane;
            // Told before the namespace was detached: its position is forgotten already.
            let Some((dc, namespace)) = self.names.get(&(lane.dc, lane.namespace)).cloned() else {
                continue;
            };
            let row = self.row(&dc, &namespace);
            run.iter().for_each(|mark| row[mark.lane.partition.index()] = Some(mark.lst));
        }
    }

    /// Takes up positions of lanes that had none. Those that had one keep it until a checkpoint
    /// says that what the newer one relies on is on the device.
    pub(super) fn begin(&mut self, marks: &[Mark]) {
        let mut begun = Self { names: self.names.clone(), ..Self::default() };
        begun.merge(marks);
        for ((dc, namespace), new) in begun.lanes {
            for (known, new) in self.row(&dc, &namespace).iter_mut().zip(new) {
                *known = match (*known, new) {
                    (Some(known), Some(new)) => Some(known.min(new)),
                    (known, new) => known.or(new),
                };
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

    pub(super) fn to_marks(&self, namespaces: &[String]) -> Marks {
        let mut marks = Marks { namespaces: namespaces.to_vec(), ..Marks::default() };
        for ((dc, namespace), row) in &self.lanes {
            let dc_index = name_index(&mut marks.dcs, dc);
            let namespace_index = name_index(&mut marks.namespaces, namespace);
            for (partition, lst) in PartitionId::all().zip(row.iter()) {
                let Some(lst) = *lst else { continue };
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

fn name_index(names: &mut Vec<String>, name: &str) -> usize {
    names.iter().position(|known| known == name).unwrap_or_else(|| {
        names.push(name.to_owned());
        names.len() - 1
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
            lanes: vec![mark(0, 1, 9, 100), mark(1, 0, 4095, 200)],
        };
        let positions = Positions::from_marks(marks);
        assert_eq!(positions.lanes("west", "orders").unwrap()[9], Some(Lut::from_ms(100)));
        assert_eq!(positions.lanes("east", "users").unwrap()[4095], Some(Lut::from_ms(200)));
        assert!(positions.lanes("west", "users").is_none());
        assert_eq!(positions.orphans(&XdrConfig::default()), ["east", "west"]);

        let names = ["orders".to_owned(), "users".to_owned()];
        let again = Positions::from_marks(positions.to_marks(&names));
        assert_eq!(again.lanes("west", "orders").unwrap()[9], Some(Lut::from_ms(100)));
    }
}
