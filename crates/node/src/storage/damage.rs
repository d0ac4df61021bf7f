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

/// Places kept for people; what is beyond them is counted.
const PLACES_MAX: usize = 32;

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

    /// Notes a damaged place.
    pub(super) fn note(&mut self, place: impl FnOnce() -> DamagedPlace) {
        if self.places.len() < PLACES_MAX {
            self.places.push(place());
        }
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
        let Self { blocks, unreadable_bytes, records_lost, records_maybe_lost, places } = self;
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
