//! What a start found on the devices of a namespace that is not as it was written, in figures that
//! an operator can decide by.
//!
//! Every shard adds what it found to the volume's one [`Damage`]; when all are through it is
//! complete. A record that was lost to damage is missing, or, where an older version of it is still
//! on the device, has that version: the log alone cannot tell which. After a start from checkpoints
//! the index is known, so nothing is old: records that lie in what is damaged cannot be read, and
//! say so.

use std::fmt;
use std::path::PathBuf;

use super::block::BlockName;
use longship::model::Version;

/// Places kept for people; what is beyond them is counted.
const PLACES_MAX: usize = 32;
/// Fillings kept to be known again; beyond that nothing accepted is remembered.
pub(super) const FILLINGS_MAX: usize = 4096;

/// What is wrong with a part of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// The device gives an error instead of these bytes.
    Unreadable,
    /// The block's header is not what was written.
    Header,
    /// The block's trailer is not what was written.
    Trailer,
    /// Records are not what was written.
    Records,
    /// Nothing is left of what the block is known to have held.
    Missing,
}

/// Where something is damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedPlace {
    /// The device.
    pub device: PathBuf,
    /// Where on it, in bytes.
    pub offset: u64,
    /// How much of it.
    pub bytes: u64,
    /// What is wrong.
    pub harm: Harm,
}

/// What is left of a filling that has lost records, or was open when its process died: the same at
/// each start that finds the same, and another one when the block was filled anew or has lost more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FillingLeft {
    /// The block.
    pub block: BlockName,
    /// The filling it should hold; zero when nothing tells.
    pub sequence: Version,
    /// Which of its records are there.
    pub found: u64,
}

/// What a start found damaged in a namespace, on all of its devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// Blocks in which something is damaged.
    pub blocks: u64,
    /// Bytes that the devices could not read, in pages of 4 KiB.
    pub unreadable_bytes: u64,
    /// Records missing or old: blocks know how many were written to them.
    pub records_lost: u64,
    /// Further records that may be missing or old, at most: of blocks that were open, or whose
    /// count is damaged too.
    pub records_maybe_lost: u64,
    /// The first places, for people.
    pub places: Vec<DamagedPlace>,
    /// The first fillings of those that have lost records, or may have.
    pub fillings: Vec<FillingLeft>,
    /// Stands for all of those, in whatever order they were found.
    pub evidence: u64,
    /// Fillings of which the operator has accepted before that something is missing, or that their
    /// device is older or shorter than it was: the first of them. They count nowhere else.
    pub taken: Vec<FillingLeft>,
    /// How many those are.
    pub taken_blocks: u64,
    /// Fillings that were open when the process died, as they were found; `None` where the log was not
    /// read.
    pub open: Option<Vec<FillingLeft>>,
}

impl Damage {
    /// Whether everything is as it was written.
    pub fn is_none(&self) -> bool {
        self.blocks == 0
    }

    /// Whether a record may be missing, or there in a version older than what was acknowledged:
    /// nothing may be served from this without an operator's word.
    pub fn may_be_old(&self) -> bool {
        self.records_lost + self.records_maybe_lost > 0
    }

    /// Whether `places` are all there are.
    pub(super) fn knows_all_places(&self) -> bool {
        self.places.len() < PLACES_MAX
    }

    /// Whether `fillings` are all there are.
    pub(super) fn knows_all_fillings(&self) -> bool {
        self.fillings.len() < FILLINGS_MAX
    }

    /// Adds a filling that has lost so many records, and perhaps so many more.
    pub(super) fn lose(&mut self, filling: FillingLeft, (lost, maybe): (u64, u64)) {
        if lost + maybe == 0 {
            return;
        }
        self.records_lost += lost;
        self.records_maybe_lost += maybe;
        self.evidence = self.evidence.wrapping_add(filling.evidence());
        if self.knows_all_fillings() {
            self.fillings.push(filling);
        }
    }

    /// Adds a filling of which the operator has accepted what is missing.
    pub(super) fn take(&mut self, filling: FillingLeft) {
        self.taken_blocks += 1;
        if self.taken.len() < FILLINGS_MAX {
            self.taken.push(filling);
        }
    }

    /// Notes a damaged place.
    pub(super) fn note(&mut self, place: impl FnOnce() -> DamagedPlace) {
        if self.places.len() < PLACES_MAX {
            self.places.push(place());
        }
    }
}

impl FillingLeft {
    fn evidence(&self) -> u64 {
        let Self { block: BlockName { device_id, number }, sequence, found } = *self;
        // Spread by odd numbers: sums of others do not make the same.
        [device_id, u64::from(number), sequence.raw(), found]
            .into_iter()
            .fold(0, |sum: u64, item| {
                (sum ^ item).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29)
            })
    }
}

impl fmt::Display for Harm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreadable => "unreadable",
            Self::Header => "header damaged",
            Self::Trailer => "trailer damaged",
            Self::Records => "records damaged",
            Self::Missing => "what was written is not there",
        })
    }
}

impl fmt::Display for DamagedPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { device, offset, bytes, harm } = self;
        write!(f, "{} at byte {offset}, {bytes} bytes: {harm}", device.display())
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { blocks, unreadable_bytes, records_lost, records_maybe_lost, places, .. } = self;
        write!(f, "{blocks} blocks damaged, {unreadable_bytes} bytes unreadable; ")?;
        match (records_lost, records_maybe_lost) {
            (0, 0) => write!(f, "no record is missing or old")?,
            (lost, 0) => write!(f, "{lost} records are missing or old")?,
            (lost, maybe) => {
                write!(f, "{lost} records are missing or old, and at most {maybe} more")?;
            }
        }
        places.first().map_or(Ok(()), |place| write!(f, " (first: {place})"))
    }
}
