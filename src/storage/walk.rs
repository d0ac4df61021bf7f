//! Walks for recovery and scans: over the index, partition by partition, in bounded steps.

use super::index::WalkCursor;
use super::space::{Space, kind_of};
use crate::host::{WalkId, WalkStep, Walked};
use crate::model::{Lut, NamespaceId, PartitionId, RecordFlags};

/// Buckets looked into in one step: some tens of microseconds of cache misses.
const STEP_BUCKETS: usize = 512;

struct Walk {
    namespace: NamespaceId,
    lanes: Vec<(PartitionId, Lut)>,
    /// The lane being walked, and where in it.
    lane: usize,
    cursor: Option<WalkCursor>,
}

/// The open walks of a store.
#[derive(Default)]
pub(super) struct Walks {
    open: Vec<Option<Walk>>,
}

impl Walks {
    pub(super) fn open(&mut self, namespace: NamespaceId, lanes: &[(PartitionId, Lut)]) -> WalkId {
        let walk = Walk { namespace, lanes: lanes.to_vec(), lane: 0, cursor: None };
        let vacant = self.open.iter().position(Option::is_none);
        let id = vacant.unwrap_or_else(|| {
            self.open.push(None);
            self.open.len() - 1
        });
        self.open[id] = Some(walk);
        WalkId(id as u32)
    }

    pub(super) fn close(&mut self, id: WalkId) {
        if let Some(walk) = self.open.get_mut(id.0 as usize) {
            *walk = None;
        }
    }

    pub(super) fn step(&mut self, id: WalkId, spaces: &[Space], out: &mut Vec<Walked>) -> WalkStep {
        let walk = self.open.get_mut(id.0 as usize).and_then(Option::as_mut);
        let Some(walk) = walk else { return WalkStep::Done };
        let Some(&(partition, from)) = walk.lanes.get(walk.lane) else { return WalkStep::Done };
        let index = &spaces[walk.namespace.index()].index;
        let cursor = walk.cursor.unwrap_or_else(|| index.start_of(partition));
        walk.cursor = index.walk(partition, cursor, STEP_BUCKETS, &mut |entry| {
            if entry.version.lut() >= from {
                out.push(Walked {
                    digest: entry.digest,
                    version: entry.version,
                    local_lut: entry.local_lut,
                    set: entry.set,
                    kind: kind_of(entry.flags),
                    shipped: entry.flags.has(RecordFlags::SHIPPED),
                    src_id: entry.src_id,
                });
            }
        });
        if walk.cursor.is_none() {
            walk.lane += 1;
        }
        match walk.lane < walk.lanes.len() {
            true => WalkStep::More { complete_below: Lut::ZERO },
            false => WalkStep::Done,
        }
    }
}
