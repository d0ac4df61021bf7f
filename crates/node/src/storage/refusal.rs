//! Why a namespace is not opened on what is there, what it would cost to go on, and by which word.

use std::fmt;
use std::path::PathBuf;

/// A member of a volume, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Counted from 1.
    pub number: usize,
    /// Devices of the volume.
    pub of: usize,
    /// Its id.
    pub id: u64,
    /// Its size when it was last in use.
    pub bytes: u64,
    /// Where it was then.
    pub path: Option<PathBuf>,
}

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, of, id, bytes, .. } = self;
        write!(f, "device {number} of {of} (id {id:016X}, {bytes} bytes)")
    }
}

/// Why a namespace is not opened on what is there.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// A member's file or device is not there.
    Missing(Known),
    /// A member holds nothing.
    Blank(Known),
    /// A member is not in the configuration.
    NotGiven(Known),
    /// A configured block device is not there, and was no member either.
    NoDevice,
    /// One device under two paths, or a device and a copy of it.
    Twice(PathBuf),
    /// It holds something that is not ours.
    Foreign(u64),
    /// A member whose header is gone; its write blocks are there.
    HeaderGone(Known),
    /// It belongs to another volume.
    OtherVolume {
        /// The namespace of that.
        namespace: String,
        /// Its id.
        volume: u64,
    },
    /// All devices belong to another volume than the work directory knows.
    OtherStore {
        /// On the devices.
        found: u64,
        /// In the work directory.
        known: u64,
    },
    /// It says that it belongs to the volume, which does not know it.
    Stray,
    /// It was not there in later epochs.
    Older {
        /// Its last.
        epoch: u64,
        /// The last of the others, or of the work directory.
        newest: u64,
    },
    /// It is smaller than it was.
    Short {
        /// Its size.
        bytes: u64,
        /// What it was.
        of: u64,
    },
    /// It is larger than it was, and what it gained holds something.
    Grown(u64),
    /// Its header is bad.
    Damaged,
    /// Something was written over the first copy of its header; the second one is whole.
    Overwritten,
    /// Written by a program with another format.
    Format(u32),
    /// It is no member yet.
    New(usize),
    /// Members in another order.
    Order {
        /// Its number in the volume.
        number: usize,
        /// The order that is right.
        order: Vec<PathBuf>,
    },
    /// It was formatted for something else.
    Differs {
        /// What differs.
        item: &'static str,
        /// On the device.
        on_device: String,
        /// As configured.
        configured: String,
    },
    /// Too few blocks to work with.
    TooSmall {
        /// Blocks it has, the header's included.
        blocks: u64,
        /// Blocks it must have.
        needed: u64,
        /// Bytes of a block.
        block_bytes: u32,
    },
    /// More devices than a header has room for, which is for so many.
    TooMany(usize),
    /// A start has found damage that could bring older versions back; in words.
    Damage(String),
}

/// Why a namespace is not opened, and by which word it would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The namespace.
    pub namespace: String,
    /// The device, where it is about one that is configured.
    pub path: Option<PathBuf>,
    /// What is in the way.
    pub cause: Cause,
    /// The word for going on with what is there.
    pub accept: Option<String>,
    /// The word for formatting the device, whatever it holds.
    pub format: Option<String>,
}

const GONE: &str =
    "what only it held is lost, and older versions and deleted records may come back";

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { namespace, path, cause, accept, format } = self;
        write!(f, "namespace {namespace}: ")?;
        if let Some(path) = path {
            write!(f, "{} ", path.display())?;
        }
        match cause {
            Cause::Missing(known) => write!(f, "is missing: it was {known}; mount or restore it")?,
            Cause::Blank(known) => {
                write!(f, "is blank: it should be {known}; give the right one, or restore it")?;
            }
            Cause::NotGiven(known) => {
                let path = known.path.as_ref().map(|path| format!(", last at {}", path.display()));
                let path = path.unwrap_or_default();
                write!(f, "{known}{path} is not in the configuration: put it back")?;
            }
            Cause::NoDevice => write!(f, "is missing: there is no such block device")?,
            Cause::Twice(other) => write!(
                f,
                "is given twice, also as {}, or is a copy of it: give each device once",
                other.display()
            )?,
            Cause::Foreign(at) => write!(
                f,
                "holds data that is not known here (at byte {at}): give another, or make sure that \
                 nobody needs it"
            )?,
            Cause::HeaderGone(known) => write!(
                f,
                "has lost its header, and its write blocks are there: it was {known}; restore it"
            )?,
            Cause::OtherVolume { namespace, volume } => write!(
                f,
                "belongs to another volume ({volume:016X}, namespace {namespace}): give the right \
                 device"
            )?,
            Cause::OtherStore { found, known } => write!(
                f,
                "the devices belong to volume {found:016X}, the work directory to {known:016X}: \
                 this is another node's work directory, or these are another node's devices; put \
                 the right ones together"
            )?,
            Cause::Stray => write!(
                f,
                "was a device of this volume once, and is no more: take it out of the configuration"
            )?,
            Cause::Older { epoch, newest } => write!(
                f,
                "is older than what was in use last (epoch {epoch}, not {newest}): it was restored \
                 from a copy, or missed a start; give the right one"
            )?,
            Cause::Short { bytes, of } => {
                write!(f, "has been cut short: {bytes} bytes are left of {of}; restore it")?
            }
            Cause::Grown(at) => write!(
                f,
                "has grown, and what it gained holds data (at byte {at}): make it as large as it \
                 was, or make sure that nobody needs that"
            )?,
            Cause::Damaged => {
                write!(f, "has a damaged header, or something was written over it: restore it")?
            }
            Cause::Overwritten => write!(
                f,
                "holds something else where its header begins; the header's second copy is whole: \
                 find out who wrote there and what else"
            )?,
            Cause::Format(version) => write!(
                f,
                "has format version {version}, which this program does not read: start it with the \
                 program that wrote it"
            )?,
            Cause::New(devices) => {
                let devices = match devices {
                    1 => "the one device".to_owned(),
                    _ => format!("one of the {devices} devices"),
                };
                write!(f, "is not {devices} of the volume yet: take it out of the configuration")?;
            }
            Cause::Order { number, order } => {
                let order: Vec<_> = order.iter().map(|path| path.display().to_string()).collect();
                write!(
                    f,
                    "is device {number} of the volume and configured in another place: name the \
                     devices in the order {} (names that stay: /dev/disk/by-id)",
                    order.join(", ")
                )?;
            }
            Cause::Differs { item, on_device, configured } => write!(
                f,
                "was formatted with {item} {on_device}, the configuration says {configured}: set \
                 it back"
            )?,
            Cause::TooSmall { blocks, needed, block_bytes } => write!(
                f,
                "holds {blocks} blocks of {block_bytes} bytes, and {needed} are the least for so \
                 many shards: give a larger one, fewer `shards`, or, where nothing is on it yet, a \
                 smaller `write-block-size`"
            )?,
            Cause::TooMany(most) => write!(f, "more than {most} devices: give fewer")?,
            Cause::Damage(found) => {
                write!(
                    f,
                    "{found}: nothing is served; restore the device from a copy, or replace it"
                )?;
            }
        }
        if let Some(word) = accept {
            let cost = cause.cost();
            write!(f, "; or go on by `longship accept --config FILE {word}`: {cost}")?;
        }
        if let (Some(_), Some(path)) = (format, path) {
            let cost = cause.cost_of_format();
            let path = path.display();
            write!(
                f,
                "; or begin with an empty one by `longship format --config FILE {path}`: {cost}"
            )?;
        }
        Ok(())
    }
}

impl Cause {
    /// What it costs to go on with what is there.
    pub fn cost(&self) -> &'static str {
        match self {
            Self::HeaderGone(_) | Self::Overwritten => {
                "its header is written again; nothing is lost but what else was written over"
            }
            Self::OtherStore { .. } => {
                "the positions of the DCs are not believed: each ships everything again, from the \
                 oldest record"
            }
            Self::Older { .. } => {
                "what was written to it since is lost, and older versions and deleted records may \
                 come back"
            }
            Self::Short { .. } => {
                "what lay behind is lost, and older versions and deleted records may come back"
            }
            Self::Grown(_) => "what lies there is destroyed",
            Self::Damage(_) => {
                "what is damaged is lost, and older versions and deleted records may come back"
            }
            _ => GONE,
        }
    }

    /// What it costs to format the device.
    pub fn cost_of_format(&self) -> &'static str {
        match self {
            Self::New(_) => "it joins the volume, and nothing is lost",
            Self::Foreign(_) | Self::OtherVolume { .. } | Self::Stray => {
                "everything on it is destroyed"
            }
            Self::Damaged | Self::Overwritten | Self::Format(_) => {
                "everything on it is destroyed; of the namespace, what only it held is lost, and \
                 older versions and deleted records may come back"
            }
            _ => GONE,
        }
    }

    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Missing(_) => "missing",
            Self::Blank(_) => "blank",
            Self::NotGiven(_) => "lost",
            Self::HeaderGone(_) | Self::Overwritten => "header",
            Self::OtherStore { .. } => "adopt",
            Self::Older { .. } => "older",
            Self::Short { .. } => "short",
            Self::Grown(_) => "grown",
            Self::Damage(_) => "damage",
            _ => "device",
        }
    }
}
