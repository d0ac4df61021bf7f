//! The verdict after the read: what of a record is shipped, if anything.

use crate::config::WritePolicy;
use crate::model::{Lut, RecordFlags, RecordView, SrcId};
use crate::wire::bins;

use super::mutation::{Mutation, planted};
use super::policy::{BinRule, Policy};

/// What is to be sent for a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Nothing.
    FilteredOut,
    /// Its bins, or some of them.
    Write {
        /// Operations.
        op_count: u16,
        /// Bytes of all operations in wire form.
        ops_bytes: usize,
        /// Bins not sent are dropped at the destination.
        replace: bool,
        /// All bins as they are: one copy.
        whole: bool,
    },
    /// Ship it as a delete.
    Delete {
        /// The source keeps a durable tombstone.
        durable: bool,
    },
}

/// Judges a record as it was read, by the rules as they are now. Touches bins only when some are
/// withheld.
///
/// A record that expired before it was shipped ships as a delete, since the destination may hold an
/// older version; so does an expiry or eviction that is found where a write was to ship.
#[inline]
pub fn judge(record: &RecordView<'_>, policy: &Policy, destination: SrcId, now: Lut) -> Judgement {
    let shipped = record.flags.has(RecordFlags::SHIPPED);
    if Policy::is_echo(shipped, record.src_id, destination) || !policy.sets.admits(record.set) {
        return Judgement::FilteredOut;
    }
    if record.is_tombstone() {
        let durable = record.flags.has(RecordFlags::DURABLE);
        let expunge = !durable && !record.flags.has(RecordFlags::NSUP);
        return match expunge && policy.ignore_expunges {
            true => Judgement::FilteredOut,
            false => Judgement::Delete { durable },
        };
    }
    if record.void_time.is_past(now) {
        return Judgement::Delete { durable: false };
    }
    if shipped && planted(Mutation::ForwardedWhole) {
        let (op_count, ops_bytes) = (record.bin_count, record.bins.len());
        return Judgement::Write { op_count, ops_bytes, replace: false, whole: true };
    }
    project(record, policy)
}

fn project(record: &RecordView<'_>, policy: &Policy) -> Judgement {
    let (kept, removed) = match &policy.bins {
        BinRule::AllBut(names) if names.is_empty() => {
            ((record.bin_count, record.bins.len()), (0, 0))
        }
        // What a replace does not name goes by itself.
        BinRule::Only(names) if policy.write != WritePolicy::Replace => {
            let absent = names.iter().filter(|name| bins::find(record.bins, name).is_none());
            let removals = absent.fold((0, 0), |(count, bytes), name| {
                (count + 1, bytes + REMOVAL_BYTES + name.len())
            });
            (measure(record, &policy.bins), removals)
        }
        BinRule::AllBut(_) | BinRule::Only(_) => (measure(record, &policy.bins), (0, 0)),
    };
    let op_count = kept.0 + removed.0;
    if op_count == 0 {
        // A replace by nothing.
        return match policy.write {
            WritePolicy::Replace => Judgement::Delete { durable: false },
            WritePolicy::Auto | WritePolicy::Update => Judgement::FilteredOut,
        };
    }
    let whole = kept.0 == record.bin_count && removed.0 == 0;
    Judgement::Write {
        op_count,
        ops_bytes: kept.1 + removed.1,
        replace: match policy.write {
            WritePolicy::Auto => whole && matches!(policy.bins, BinRule::AllBut(_)),
            WritePolicy::Update => false,
            WritePolicy::Replace => true,
        },
        whole,
    }
}

/// Bytes of an operation that removes a bin, besides the name.
pub(super) const REMOVAL_BYTES: usize = 8;

fn measure(record: &RecordView<'_>, rule: &BinRule) -> (u16, usize) {
    let kept = bins::iter(record.bins).filter(|bin| rule.keeps(bin.name));
    kept.fold((0, 0), |(count, bytes), bin| (count + 1, bytes + bin.whole.len()))
}

impl BinRule {
    /// Whether a bin the record has is sent.
    #[inline]
    pub fn keeps(&self, name: &[u8]) -> bool {
        match self {
            Self::AllBut(names) => !names.iter().any(|ignored| **ignored == *name),
            Self::Only(names) => names.iter().any(|shipped| **shipped == *name),
        }
    }
}
