//! What an operator should know of where DCs begin.

use std::fmt;

use super::super::gap::DeleteGap;
use crate::model::Lut;

/// One line for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remark {
    /// A DC has positions and is not configured.
    Orphan {
        /// Name of the DC, which only marks know.
        dc: String,
        /// The lowest position of all its lanes.
        oldest: Lut,
    },
    /// A DC ships a namespace for the first time.
    New {
        /// Name of the DC.
        dc: String,
        /// The namespace at the source.
        namespace: String,
    },
    /// A DC ships a namespace for the first time, and where it begins cannot be stored.
    Unkept,
    /// The positions of a DC cannot be used.
    Lost {
        /// Name of the DC.
        dc: String,
        /// The namespace at the source.
        namespace: String,
        /// What is wrong with them, as the end of a sentence.
        why: &'static str,
        /// Where it starts.
        start: &'static str,
    },
    /// A command has detached namespaces from a DC, or deleted it, and dropped their positions.
    Dropped {
        /// Name of the DC.
        dc: String,
        /// The namespaces at the source.
        namespaces: Vec<String>,
    },
    /// Writes that a crash has cost this node may have reached DCs before.
    Ahead {
        /// The namespace at the source.
        namespace: String,
        /// Names of the DCs that ship the namespace.
        dcs: Vec<String>,
    },
    /// Namespaces of a DC arrive in one.
    Shared {
        /// Name of the DC.
        dc: String,
        /// The namespaces at the source.
        namespaces: Vec<String>,
        /// The one namespace at the destination.
        remote: String,
    },
    /// Deletes that may never reach a DC.
    Gap {
        /// Which.
        gap: DeleteGap,
        /// Name of the namespace at the source, of which `gap` has the number.
        namespace: String,
        /// It begins with the process, and not by a command.
        is_start: bool,
    },
}

impl Remark {
    /// Whether something may be wrong.
    pub(super) const fn is_warning(&self) -> bool {
        !matches!(self, Self::New { .. })
    }
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Orphan { dc, oldest } => write!(
                f,
                "DC {dc} has positions (the lowest is {} UTC) but is not configured: kept, not \
                 used; a DC of that name in the configuration goes on from them, and one made and \
                 deleted by commands drops them",
                oldest.utc()
            ),
            Self::New { dc, namespace } => {
                write!(
                    f,
                    "DC {dc} has no position in namespace {namespace}, being new there or detached \
                     since: it starts now"
                )
            }
            Self::Unkept => f.write_str(
                "it cannot be kept where the namespaces begin that have never shipped, and a later \
                 start would not know what they had to ship: the node stops; make room for the \
                 marks, or leave them out of the configuration",
            ),
            Self::Lost { dc, namespace, why, start } => {
                write!(f, "DC {dc}: the positions of namespace {namespace} {why}: {start}")
            }
            Self::Dropped { dc, namespaces } => write!(
                f,
                "DC {dc} no longer ships {}: its positions are dropped, and what has not shipped \
                 yet ships only if it is attached again with rewind=",
                namespaces.join(", ")
            ),
            Self::Ahead { namespace, dcs } => write!(
                f,
                "namespace {namespace} was not stopped in order: writes of its last moments may be \
                 lost here and have reached DC {}, which is ahead then until they are written again; \
                 where clients do not, compare the records of both sides",
                dcs.join(", DC ")
            ),
            Self::Shared { dc, namespaces, remote } => write!(
                f,
                "DC {dc} ships {} into one namespace, {remote}: a record of one overwrites, and a \
                 delete deletes, the record of another with the same set and key; give each a \
                 remote-namespace of its own unless no key is in two",
                namespaces.join(" and ")
            ),
            Self::Gap { gap, namespace, is_start } => {
                // Tombstones wait for every DC that is configured. So at the start only a DC that
                // was not configured, or whose marks are lost, can begin below tombstones that are
                // gone.
                let unless =
                    if *is_start { ", unless the DC was configured all the while" } else { "" };
                write!(
                    f,
                    "DC {}, namespace {namespace}: it begins before tombstones that are gone; \
                     deletes of {gap} (UTC) may be missing there{unless}",
                    gap.dc
                )
            }
        }
    }
}
