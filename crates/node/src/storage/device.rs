//! A device (a file or a block device): its header, and what is found at a path before anything is
//! done to it.
//!
//! | offset | size | field |
//! |---:|---:|---|
//! | 0 | 8 | magic `LONGSHIP` |
//! | 8 | 4 | format version |
//! | 12 | 4 | CRC32C of bytes 16..4096 |
//! | 16 | 8 | id of the device, random |
//! | 24 | 8 | id of the volume: the devices used together, random |
//! | 32 | 4 | bytes of a write block |
//! | 36 | 4 | CRC32C of the id of the system's run in which it was in use last; 0 for unknown |
//! | 40 | 8 | epoch that is complete |
//! | 48 | 8 | epoch that has begun |
//! | 56 | 2 | devices of the volume |
//! | 58 | 2 | position of this one among them |
//! | 60 | 1 | length of the namespace's name |
//! | 61 | 31 | name of the namespace |
//! | 92 | 4 | number of the last run that has kept marks: the epoch it began with |
//! | 96 | 16 each | the devices of the volume: id (8), blocks (4), zeros (4) |
//! | 2144 | 8 | what the last crash may have cost: loss and reordering, in ms (4 each) |
//! | 2152 | 8 | fillings begun below this version are whole: of the last stop in good order |
//! | .. | .. | zeros up to 4096 |
//!
//! Two copies, at bytes 0 and 4096, so that a torn write of one leaves the other. Every start and
//! every clean stop takes the devices of a volume to the next epoch: first each device notes in its
//! first copy that the epoch has *begun*; when all have done so, each notes in its second copy that
//! the epoch is *complete*. So a device whose begun epoch lies below the complete one of a sibling
//! was not there then: it is an older copy. The rest of block 0 is zeros: there each start measures
//! what a durable write costs.
//!
//! Looking changes nothing. Everything here blocks: it runs before the shards do.

use std::fs::{self, File};
use std::io;
use std::ops::{Deref, DerefMut, Range};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process;
use std::time::{Duration, Instant};

use super::block::{BlockHeader, WRITE_ALIGN};
use super::loss::CrashCost;
use super::refusal::Refusal;
use longship::model::Version;
use longship_rt::bytes::{put, u16_at, u32_at, u64_at};
use longship_rt::disk_ring::file::{IoLimits, limits, open_direct, size_bytes};
use longship_rt::disk_ring::probe::{WriteCost, write_cost_of};
use longship_rt::file_lock::{LockError, lock, when_free};
use longship_rt::remedy::remedy;

/// In the place of a run of the system: everything was durable when the device was left.
pub const AT_REST: u32 = u32::MAX;
/// Bytes of one copy of a device header.
pub const DEVICE_HEADER_BYTES: usize = 4096;
/// The format this program writes; it reads no other.
pub const FORMAT_VERSION: u32 = 4;
/// Devices of a volume at most.
pub const DEVICES_MAX: usize = 128;

const MAGIC: [u8; 8] = *b"LONGSHIP";
const COPIES: usize = 2;
const NAME: usize = 61;
const NAME_BYTES_MAX: usize = 31;
const RUN: usize = 92;
const MEMBERS: usize = 96;
const MEMBER_BYTES: usize = 16;
const CRASH_COST: usize = MEMBERS + DEVICES_MAX * MEMBER_BYTES;
const WHOLE_BELOW: usize = CRASH_COST + 8;

const _: () = {
    assert!(NAME + NAME_BYTES_MAX == RUN && RUN + 4 == MEMBERS);
    assert!(WHOLE_BELOW + 8 <= DEVICE_HEADER_BYTES);
};

/// The first pages of a device, that it is measured on.
const PROBE_PAGES_MAX: usize = 64;

/// Write blocks of any size begin at multiples of this.
const BLOCK_BYTES_MIN: u64 = 128 << 10;
/// A device up to this large is read as a whole to see whether it is blank; of a larger one its
/// first and last bytes, and the beginnings of some write blocks.
const READ_WHOLE_MAX: u64 = 64 << 20;
const READ_FIRST: u64 = 8 << 20;
const READ_LAST: u64 = 1 << 20;
/// Beginnings of write blocks looked at: the first ones (a log fills a device from its start), and
/// as many spread over the rest.
const SPOTS: u64 = 1024;
const READ_BYTES: usize = 1 << 20;

/// Why devices cannot be used. None of these changes anything on them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// The system refused.
    #[error("cannot {action} {}: {source}{}", path.display(), remedy(source))]
    Io {
        /// What was tried.
        action: &'static str,
        /// The device.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Another process has it, or it is mounted.
    #[error(
        "{} is in use: {} has it open, or it is mounted: stop that, or give this node a device of \
         its own", path.display(), process.map_or("another process".to_owned(), |process| format!("process {process}"))
    )]
    InUse {
        /// The device.
        path: PathBuf,
        /// The process, where it is known.
        process: Option<u32>,
    },
    /// A file in a folder that is not there.
    #[error(
        "the folder {} is missing, in which {} should lie: make it, or mount what belongs there",
        folder.display(), path.display()
    )]
    NoFolder {
        /// The folder.
        folder: PathBuf,
        /// The file.
        path: PathBuf,
    },
    /// Not what the configuration takes it for.
    #[error("{} is {is}: {remedy}", path.display())]
    Kind {
        /// What was configured.
        path: PathBuf,
        /// What it is.
        is: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// The file system has less room than the files of the configuration want.
    #[error(
        "no room for {}: it wants {wanted} bytes more, and {free} are free there: lower \
         `filesize`, or make room", path.display()
    )]
    NoRoom {
        /// The file, or the first of several on that file system.
        path: PathBuf,
        /// Bytes that are still to be allocated, all files there together.
        wanted: u64,
        /// Bytes there are.
        free: u64,
    },
    /// It takes only larger requests than the log makes.
    #[error("{} takes direct I/O only in multiples of {alignment} bytes, not of 4096", path.display())]
    Alignment {
        /// The device.
        path: PathBuf,
        /// What it takes.
        alignment: usize,
    },
    /// What the node knows of its devices cannot be read.
    #[error(
        "{} is damaged: it names the devices of a namespace; restore it, or remove it to go by \
         what the devices say of each other", path.display()
    )]
    Record {
        /// The file in the work directory.
        path: PathBuf,
    },
    /// What is there is not what belongs there; see each for what to do.
    #[error("{}", one_a_line(refusals))]
    Refused {
        /// Everything that is in the way, of all namespaces.
        refusals: Vec<Refusal>,
    },
}

fn one_a_line(refusals: &[Refusal]) -> String {
    refusals.iter().map(Refusal::to_string).collect::<Vec<_>>().join("\n")
}

/// What a volume knows of one of its devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: u64,
    /// Its blocks, the header's included.
    pub blocks: u32,
}

/// What a device's header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceHeader {
    /// The device's own id.
    pub device_id: u64,
    /// Shared by the devices of a namespace.
    pub volume_id: u64,
    /// Bytes of a write block.
    pub block_bytes: u32,
    /// The last run that has kept marks, by the epoch it began with.
    pub run: u32,
    /// What a crash of the last run may have cost.
    pub crash_cost: CrashCost,
    /// The last run that ended in order left every filling that was begun below this as a whole.
    pub whole_below: Version,
    /// The run of the system in which it was in use last; 0 for unknown, [`AT_REST`] after a run that
    /// ended in order.
    pub boot: u32,
    /// The last epoch that all devices of the volume had begun.
    pub epoch: u64,
    /// The last epoch that this device has begun; 0 for one that was never in use.
    pub begun: u64,
    /// Its place among `members`.
    pub position: u16,
    /// The devices of the volume, in their order.
    pub members: Vec<Member>,
    /// Name of the namespace.
    pub namespace: String,
}

/// What a copy of a header is.
#[derive(Debug, PartialEq, Eq)]
enum Copy {
    Zeros,
    Ours(DeviceHeader),
    Foreign,
    Format(u32),
    Damaged,
}

impl DeviceHeader {
    fn encode(&self) -> Vec<u8> {
        let mut out = vec![0; DEVICE_HEADER_BYTES];
        put(&mut out, 0, &MAGIC);
        put(&mut out, 8, &FORMAT_VERSION.to_le_bytes());
        put(&mut out, 16, &self.device_id.to_le_bytes());
        put(&mut out, 24, &self.volume_id.to_le_bytes());
        put(&mut out, 32, &self.block_bytes.to_le_bytes());
        put(&mut out, 36, &self.boot.to_le_bytes());
        put(&mut out, 40, &self.epoch.to_le_bytes());
        put(&mut out, 48, &self.begun.to_le_bytes());
        put(&mut out, 56, &(self.members.len() as u16).to_le_bytes());
        put(&mut out, 58, &self.position.to_le_bytes());
        out[60] = self.namespace.len() as u8;
        put(&mut out, NAME, self.namespace.as_bytes());
        put(&mut out, RUN, &self.run.to_le_bytes());
        put(&mut out, CRASH_COST, &self.crash_cost.loss_ms.to_le_bytes());
        put(&mut out, CRASH_COST + 4, &self.crash_cost.reorder_ms.to_le_bytes());
        put(&mut out, WHOLE_BELOW, &self.whole_below.raw().to_le_bytes());
        for (index, member) in self.members.iter().enumerate() {
            let at = MEMBERS + index * MEMBER_BYTES;
            put(&mut out, at, &member.id.to_le_bytes());
            put(&mut out, at + 8, &member.blocks.to_le_bytes());
        }
        let checksum = crc32c::crc32c(&out[16..]);
        put(&mut out, 12, &checksum.to_le_bytes());
        out
    }

    fn decode(header: &[u8]) -> Option<Self> {
        let name = header.get(NAME..NAME + usize::from(header[60]).min(NAME_BYTES_MAX))?;
        let count = usize::from(u16_at(header, 56));
        let position = u16_at(header, 58);
        let is_whole = u32_at(header, 12) == crc32c::crc32c(&header[16..])
            && count <= DEVICES_MAX
            && usize::from(position) < count
            && u32_at(header, 32) > 0;
        let member = |index| {
            let at = MEMBERS + index * MEMBER_BYTES;
            Member { id: u64_at(header, at), blocks: u32_at(header, at + 8) }
        };
        is_whole.then_some(())?;
        Some(Self {
            device_id: u64_at(header, 16),
            volume_id: u64_at(header, 24),
            block_bytes: u32_at(header, 32),
            run: u32_at(header, RUN),
            crash_cost: CrashCost {
                loss_ms: u32_at(header, CRASH_COST),
                reorder_ms: u32_at(header, CRASH_COST + 4),
            },
            whole_below: Version::from_raw(u64_at(header, WHOLE_BELOW)),
            boot: u32_at(header, 36),
            epoch: u64_at(header, 40),
            begun: u64_at(header, 48),
            position,
            members: (0..count).map(member).collect(),
            namespace: String::from_utf8(name.to_vec()).ok()?,
        })
    }

    /// Judges a copy of a header.
    fn find(bytes: &[u8]) -> Copy {
        if bytes.iter().all(|byte| *byte == 0) {
            return Copy::Zeros;
        }
        let Some(header) = bytes.get(..DEVICE_HEADER_BYTES) else { return Copy::Foreign };
        if header[..8] != MAGIC {
            let is_ours = u32_at(header, 12) == crc32c::crc32c(&header[16..DEVICE_HEADER_BYTES]);
            return if is_ours { Copy::Damaged } else { Copy::Foreign };
        }
        match u32_at(header, 8) {
            FORMAT_VERSION => Self::decode(header).map_or(Copy::Damaged, Copy::Ours),
            version => Copy::Format(version),
        }
    }

    /// Its own row among the members.
    pub fn own(&self) -> Member {
        self.members[usize::from(self.position)]
    }
}

/// What lies on a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// There is no file or device.
    Absent,
    /// Nothing, as far as it was looked at.
    Blank,
    /// A volume's.
    Ours(DeviceHeader),
    /// Something without a header of ours.
    Data {
        /// Where.
        at: u64,
        /// The device whose write block that is, where it is one.
        device_id: Option<u64>,
    },
    /// Ours, in another format.
    Format(u32),
    /// Ours by its magic; both copies of the header are bad.
    Damaged {
        /// The device whose write blocks are there, if there are any.
        device_id: Option<u64>,
    },
}

/// What is found at a configured path.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) path: PathBuf,
    pub(super) is_file: bool,
    pub(super) content: Content,
    /// Its size now.
    pub(super) bytes: u64,
    /// It is larger than its header says, and there is something at this byte behind that.
    pub(super) tail_data: Option<u64>,
    /// What of its header is bad.
    pub(super) scar: Option<Scar>,
}

impl Seen {
    /// Whether nothing is there yet.
    pub(super) fn is_absent(&self) -> bool {
        self.content == Content::Absent
    }
}

/// What is wrong with a header of which one copy is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scar {
    /// The other copy is torn, or damaged.
    Copy,
    /// Something else was written over the first one.
    Overwritten,
}

/// An opened and locked device.
#[derive(Debug)]
pub(super) struct OpenDevice {
    pub(super) path: PathBuf,
    /// Open for direct I/O; holds the lock. Nothing goes through the page cache: where it keeps a
    /// page, the kernel cannot write the log without a worker.
    pub(super) file: File,
}

/// Tells one file or device from another, whatever it is called.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum DeviceKey {
    /// A block device, by its number.
    Device(u64),
    /// A file, by its file system and number there.
    File(u64, u64),
    /// Nothing is there yet: where it would be made.
    Absent(PathBuf),
}

impl DeviceKey {
    /// Where a path leads, through links.
    pub(crate) fn of(path: &Path) -> Self {
        match path.metadata() {
            Ok(meta) if meta.file_type().is_block_device() => Self::Device(meta.rdev()),
            Ok(meta) => Self::File(meta.dev(), meta.ino()),
            Err(_) => Self::Absent(end_of(path)),
        }
    }
}

/// Links that lead to one another, as many as the system follows.
const LINKS_MAX: usize = 40;

/// The path in its folder's own name, behind the last link, whether anything is there or not.
pub(crate) fn end_of(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        let Ok(target) = fs::read_link(&path) else { break };
        path = folder_of(&path).join(target);
    }
    let folder = folder_of(&path).canonicalize().unwrap_or_else(|_| folder_of(&path).to_owned());
    path.file_name().map_or_else(|| path.clone(), |name| folder.join(name))
}

/// The folder that a path is in.
pub(super) fn folder_of(path: &Path) -> &Path {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}

/// Looks at a path without changing anything there. What is there is opened and locked.
pub(super) fn look(path: &Path, is_file: bool) -> Result<(Seen, Option<OpenDevice>), DeviceError> {
    if !is_there(path, is_file)? {
        let (path, content) = (path.to_owned(), Content::Absent);
        let seen = Seen { path, is_file, content, bytes: 0, tail_data: None, scar: None };
        return Ok((seen, None));
    }
    let device = OpenDevice::open(path, false)?;
    let io = |action| move |source| DeviceError::Io { action, path: path.to_owned(), source };
    // What a crashed process wrote must not get lost after we have read it.
    device.file.sync_all().map_err(io("sync"))?;
    let bytes = size_bytes(&device.file).map_err(io("measure"))?;
    let looked = look_at(&device.file, bytes).map_err(io("read"));
    let (content, tail_data, scar) = looked?;
    let seen = Seen { path: path.to_owned(), is_file, content, bytes, tail_data, scar };
    Ok((seen, Some(device)))
}

/// Whether there is what the configuration says, a file or a block device.
fn is_there(path: &Path, is_file: bool) -> Result<bool, DeviceError> {
    let meta = match path.metadata() {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return match missing_folder(path).filter(|_| is_file) {
                Some(folder) => Err(DeviceError::NoFolder { folder, path: path.to_owned() }),
                None => Ok(false),
            };
        }
        Err(source) => {
            return Err(DeviceError::Io { action: "look at", path: path.to_owned(), source });
        }
    };
    let kind = meta.file_type();
    let (is, remedy) = match (is_file, kind.is_block_device(), kind.is_file()) {
        (true, _, true) | (false, true, _) => return Ok(true),
        (true, true, _) => ("a block device", "write `device` in place of `file`, no `filesize`"),
        (false, _, true) => ("a file", "write `file` in place of `device`, and its `filesize`"),
        _ if kind.is_dir() => ("a folder", "name a file in it, or a block device"),
        _ => ("neither a file nor a block device", "name one of these"),
    };
    Err(DeviceError::Kind { path: path.to_owned(), is, remedy })
}

/// The first folder on the way to a file that is not there.
fn missing_folder(path: &Path) -> Option<PathBuf> {
    // A link to nowhere leads to another folder than the one it lies in.
    let target = fs::read_link(path).ok();
    let target = target.map(|target| path.parent().unwrap_or(Path::new(".")).join(target));
    let folders = target.as_deref().unwrap_or(path).ancestors().skip(1);
    let missing = folders.take_while(|at| !at.as_os_str().is_empty() && !at.exists());
    missing.last().map(Path::to_owned)
}

fn look_at(reader: &File, bytes: u64) -> io::Result<(Content, Option<u64>, Option<Scar>)> {
    let mut first = Pages::zeros(DEVICE_HEADER_BYTES * COPIES);
    let filled = read_up_to(reader, &mut first, 0)?;
    let copies = first[..filled].chunks(DEVICE_HEADER_BYTES).map(DeviceHeader::find);
    let copies: Vec<Copy> = copies.collect();
    let is_overwritten = copies.first() == Some(&Copy::Foreign);
    let newest = copies.iter().filter_map(|copy| match copy {
        Copy::Ours(header) => Some(header),
        _ => None,
    });
    if let Some(header) = newest.max_by_key(|header| (header.begun, header.epoch)) {
        let end = u64::from(header.own().blocks) * u64::from(header.block_bytes);
        let tail = find_data(reader, end.min(bytes)..bytes)?.map(|(at, _)| at);
        let is_whole = copies.iter().all(|copy| matches!(copy, Copy::Ours(_)));
        let scar = if is_overwritten { Scar::Overwritten } else { Scar::Copy };
        return Ok((Content::Ours(header.clone()), tail, (!is_whole).then_some(scar)));
    }
    let format = copies.iter().find_map(|copy| match copy {
        Copy::Format(version) => Some(Content::Format(*version)),
        _ => None,
    });
    let content = match format {
        Some(format) => format,
        None if copies.contains(&Copy::Damaged) => {
            Content::Damaged { device_id: find_block(reader, bytes)? }
        }
        None => match find_data(reader, 0..bytes)? {
            None => Content::Blank,
            Some((at, Some(device_id))) => Content::Data { at, device_id: Some(device_id) },
            // A partition table, say, over the headers of a device that is full of write blocks.
            Some((at, None)) => Content::Data { at, device_id: find_block(reader, bytes)? },
        },
    };
    Ok((content, None, None))
}

/// The first place in a range that is not zero, of those looked at, and the device whose write
/// block begins there, if one does.
fn find_data(reader: &File, range: Range<u64>) -> io::Result<Option<(u64, Option<u64>)>> {
    let len = range.end - range.start;
    let mut buffer = Pages::zeros(READ_BYTES);
    let mut look = |from: u64, len: usize| -> io::Result<Option<(u64, Option<u64>)>> {
        let filled = read_up_to(reader, &mut buffer[..len.next_multiple_of(WRITE_ALIGN)], from)?;
        let found = buffer[..filled].iter().position(|byte| *byte != 0);
        Ok(found.map(|at| {
            let page = at / WRITE_ALIGN * WRITE_ALIGN;
            let block = BlockHeader::decode(&buffer[page..filled]);
            (from + at as u64, block.map(|block| block.device_id))
        }))
    };
    let pieces = |range: Range<u64>| range.step_by(READ_BYTES);
    let whole = match len <= READ_WHOLE_MAX {
        true => vec![range.clone()],
        false => {
            let last = (range.end - READ_LAST) / WRITE_ALIGN as u64 * WRITE_ALIGN as u64;
            vec![range.start..range.start + READ_FIRST, last..range.end]
        }
    };
    for part in whole {
        for from in pieces(part.clone()) {
            let found = look(from, READ_BYTES.min((part.end - from) as usize))?;
            if found.is_some() {
                return Ok(found);
            }
        }
    }
    if len <= READ_WHOLE_MAX {
        return Ok(None);
    }
    let blocks = range.start.div_ceil(BLOCK_BYTES_MIN)..range.end / BLOCK_BYTES_MIN;
    let first = blocks.clone().take(SPOTS as usize);
    let apart = ((blocks.end - blocks.start) / SPOTS).max(1);
    for block in first.chain(blocks.step_by(apart as usize)) {
        let found = look(block * BLOCK_BYTES_MIN, WRITE_ALIGN)?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// The device whose write block is the first that is found.
fn find_block(reader: &File, bytes: u64) -> io::Result<Option<u64>> {
    let mut page = Pages::zeros(WRITE_ALIGN);
    for number in 1..(bytes / BLOCK_BYTES_MIN).min(SPOTS) {
        read_up_to(reader, &mut page, number * BLOCK_BYTES_MIN)?;
        if let Some(header) = BlockHeader::decode(&page) {
            return Ok(Some(header.device_id));
        }
    }
    Ok(None)
}

/// Fills as much of `bytes`, whole pages, as there is.
fn read_up_to(reader: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < bytes.len() {
        match reader.read_at(&mut bytes[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => {
                filled += read;
                if !filled.is_multiple_of(WRITE_ALIGN) {
                    break; // the end of the file
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Memory as direct I/O takes it.
struct Pages {
    memory: Vec<u8>,
    pages: Range<usize>,
}

impl Pages {
    fn zeros(len: usize) -> Self {
        let memory = vec![0; len + WRITE_ALIGN];
        let begin = memory.as_ptr().align_offset(WRITE_ALIGN);
        Self { memory, pages: begin..begin + len }
    }
}

impl Deref for Pages {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[self.pages.clone()]
    }
}

impl DerefMut for Pages {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.pages.clone()]
    }
}

/// How long the kernel may keep the files of a ring of this process that has ended: it closes them when
/// it comes to that, which takes seconds on a busy machine.
const RING_CLOSES: Duration = Duration::from_secs(20);

/// Takes the lock of a file that a ring of this process may have had.
fn lock_when_closed(file: &File) -> Result<(), LockError> {
    let begin = Instant::now();
    loop {
        match lock(file) {
            Err(LockError::Held(Some(holder)))
                if holder == process::id() && begin.elapsed() < RING_CLOSES => {}
            taken => return taken,
        }
    }
}

impl OpenDevice {
    /// Opens and locks a device, or makes an empty file.
    pub(super) fn open(path: &Path, create: bool) -> Result<Self, DeviceError> {
        let io = |action| move |source| DeviceError::Io { action, path: path.to_owned(), source };
        let in_use = |process| DeviceError::InUse { path: path.to_owned(), process };
        let file = when_free(|| match open_direct(path, create) {
            // A block device that is open elsewhere, or mounted.
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Err(None),
            opened => Ok(opened),
        });
        let file = file.map_err(in_use)?.map_err(|source| match source.kind() {
            io::ErrorKind::InvalidInput => {
                DeviceError::Io { action: "use direct I/O on", path: path.to_owned(), source }
            }
            _ => io(if create { "create" } else { "open" })(source),
        })?;
        lock_when_closed(&file).map_err(|error| match error {
            LockError::Held(process) => in_use(process),
            LockError::Io(error) => io("lock")(error),
        })?;
        let alignment = limits(&file).alignment_bytes;
        if alignment > WRITE_ALIGN {
            return Err(DeviceError::Alignment { path: path.to_owned(), alignment });
        }
        Ok(Self { path: path.to_owned(), file })
    }

    /// Looks at the limits of a formatted device and measures what a durable write costs on it.
    pub(super) fn probe(&self, block_bytes: u32) -> Result<(IoLimits, WriteCost), DeviceError> {
        let limits = limits(&self.file);
        let pages = COPIES * DEVICE_HEADER_BYTES / WRITE_ALIGN..block_bytes as usize / WRITE_ALIGN;
        let cost = write_cost_of(&self.file, pages.start..pages.end.min(PROBE_PAGES_MAX));
        let path = || self.path.clone();
        let io = |source| DeviceError::Io { action: "measure writes to", path: path(), source };
        Ok((limits, cost.map_err(io)?))
    }

    /// Gives up what was on the device: what a start would look at is zeros then, durably.
    pub(super) fn wipe(&self, block_bytes: u32, blocks: Range<u32>) -> io::Result<()> {
        let zeros = Pages::zeros(block_bytes as usize);
        if blocks.start == 0 {
            self.file.write_all_at(&zeros, 0)?;
        }
        let page = &zeros[..WRITE_ALIGN];
        for number in blocks.start.max(1)..blocks.end {
            // Where its header would be, and its trailer.
            let begin = u64::from(number) * u64::from(block_bytes);
            self.file.write_all_at(page, begin)?;
            let end = begin + u64::from(block_bytes) - WRITE_ALIGN as u64;
            self.file.write_all_at(page, end)?;
        }
        self.file.sync_all()
    }

    /// Writes both copies of the header, durably, one after the other.
    pub(super) fn format(&self, header: &DeviceHeader) -> io::Result<()> {
        (0..COPIES).rev().try_for_each(|copy| self.write_copy(copy, header))
    }

    /// Notes an epoch that has begun.
    pub(super) fn note_begun(&self, header: &DeviceHeader) -> io::Result<()> {
        self.write_copy(0, header)
    }

    /// Notes an epoch that is complete.
    pub(super) fn note_complete(&self, header: &DeviceHeader) -> io::Result<()> {
        self.write_copy(1, header)
    }

    fn write_copy(&self, copy: usize, header: &DeviceHeader) -> io::Result<()> {
        let at = copy * DEVICE_HEADER_BYTES;
        let mut pages = Pages::zeros(DEVICE_HEADER_BYTES);
        pages.copy_from_slice(&header.encode());
        self.file.write_all_at(&pages, at as u64)?;
        self.file.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use longship_rt::disk_ring::file::{cached_pages, disk_folder};

    const BLOCK_BYTES: u32 = 128 << 10;
    const FILE_BYTES: u64 = 1 << 20;

    fn header(epoch: u64) -> DeviceHeader {
        DeviceHeader {
            device_id: 0x0123_4567_89AB_CDEF,
            volume_id: 42,
            block_bytes: BLOCK_BYTES,
            run: 3,
            crash_cost: CrashCost { loss_ms: 4000, reorder_ms: 4001 },
            whole_below: Version::from_raw(5),
            boot: 64,
            epoch,
            begun: epoch,
            position: 1,
            members: vec![
                Member { id: 7, blocks: 100 },
                Member { id: 0x0123_4567_89AB_CDEF, blocks: 8 },
            ],
            namespace: "demo".into(),
        }
    }

    /// A file of that content in a folder of its own, and what is seen of it.
    fn seen_of(content: &[u8], len: u64) -> (tempfile::TempDir, Seen) {
        let folder = disk_folder();
        let path = folder.path().join("log");
        fs::write(&path, content).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(len).unwrap();
        let (seen, _) = look(&path, true).unwrap();
        let mut kept = vec![0; content.len()];
        File::open(&path).unwrap().read_exact_at(&mut kept, 0).unwrap();
        assert!(kept == content && path.metadata().unwrap().len() == len, "left as it was");
        (folder, seen)
    }

    #[test]
    fn a_header_is_found_again_and_every_flipped_byte_is_noticed() {
        let bytes = header(3).encode();
        assert_eq!(DeviceHeader::find(&bytes), Copy::Ours(header(3)));
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x40;
            let found = DeviceHeader::find(&flipped);
            assert!(!matches!(found, Copy::Ours(_) | Copy::Zeros), "{at}");
        }
    }

    #[test]
    fn the_newer_copy_counts_and_one_is_enough() {
        let (old, new) = (header(3).encode(), header(4).encode());
        let check = |first: &[u8], second: &[u8], epoch, scarred: bool| {
            let (_, seen) = seen_of(&[first, second].concat(), FILE_BYTES);
            let Content::Ours(found) = seen.content else { panic!("{:?}", seen.content) };
            assert_eq!((found.epoch, seen.scar), (epoch, scarred.then_some(Scar::Copy)));
        };
        check(&old, &new, 4, false);
        check(&new, &old, 4, false);
        let torn = [&new[..40], &old[40..]].concat();
        check(&torn, &old, 3, true);
        check(&new, &torn, 4, true);
        check(&vec![0; 4096], &old, 3, true);
        let mut flipped = new.clone();
        flipped[3] ^= 1;
        check(&flipped, &old, 3, true);
    }

    #[test]
    fn a_device_is_formatted_and_wiped_so_that_a_look_sees_it() {
        let folder = disk_folder();
        let path = folder.path().join("log");
        assert_eq!(look(&path, true).unwrap().0.content, Content::Absent);
        let device = OpenDevice::open(&path, true).unwrap();
        device.file.set_len(FILE_BYTES).unwrap();
        device.format(&header(0)).unwrap();
        let taken = look(&path, true).unwrap_err();
        assert!(matches!(taken, DeviceError::InUse { .. }), "{taken}");
        drop(device);
        let (seen, device) = look(&path, true).unwrap();
        assert_eq!((seen.content, seen.bytes), (Content::Ours(header(0)), FILE_BYTES));
        device.unwrap().wipe(BLOCK_BYTES, 0..8).unwrap();
        assert_eq!(look(&path, true).unwrap().0.content, Content::Blank);
    }

    #[test]
    fn nothing_that_a_start_reads_or_writes_is_kept_in_the_page_cache() {
        let folder = disk_folder();
        let path = folder.path().join("log");
        let device = OpenDevice::open(&path, true).unwrap();
        device.file.set_len(FILE_BYTES).unwrap();
        device.wipe(BLOCK_BYTES, 0..8).unwrap();
        drop(device);
        let (seen, device) = look(&path, true).unwrap();
        assert_eq!(seen.content, Content::Blank);
        device.unwrap().format(&header(0)).unwrap();
        assert_eq!(look(&path, true).unwrap().0.content, Content::Ours(header(0)));
        let file = File::open(&path).unwrap();
        let cached = || cached_pages(&file, FILE_BYTES as usize).unwrap();
        assert_eq!(cached(), 0);
        file.read_at(&mut [0], 0).unwrap();
        assert!(cached() > 0, "the count counts");
    }

    #[test]
    fn what_is_not_blank_is_seen_wherever_it_lies() {
        let data = |content: &[u8], len| match seen_of(content, len).1.content {
            Content::Data { at, .. } => at,
            other => panic!("{other:?}"),
        };
        assert_eq!(data(b"#!/bin/sh", 9), 0);
        let late = [vec![0; 100_000], b"somebody's superblock".to_vec()].concat();
        assert_eq!(data(&late, FILE_BYTES), 100_000);
        // The first page is zeros; a write block is still there, on a device too large to be read.
        let block = BlockHeader {
            sequence: longship::model::Version::first_of(longship::model::Lut::from_ms(5)),
            device_id: 99,
            number: 700,
            shard: 0,
            ..BlockHeader::default()
        };
        let (folder, seen) = seen_of(&[], 4 << 30);
        assert_eq!(seen.content, Content::Blank);
        let path = folder.path().join("log");
        let file = File::options().write(true).open(&path).unwrap();
        let mut bytes = vec![0; 4096];
        block.encode(&mut bytes);
        file.write_all_at(&bytes, 700 * u64::from(BLOCK_BYTES)).unwrap();
        let at = 700 * u64::from(BLOCK_BYTES);
        let (seen, _) = look(&path, true).unwrap();
        assert_eq!(seen.content, Content::Data { at, device_id: Some(99) });
        file.write_all_at(b"a partition table", 446).unwrap();
        let (seen, _) = look(&path, true).unwrap();
        assert_eq!(seen.content, Content::Data { at: 446, device_id: Some(99) });
    }

    #[test]
    fn other_formats_and_broken_headers_are_told_apart() {
        let mut newer = header(1).encode();
        newer[8] = 9;
        assert_eq!(seen_of(&newer, FILE_BYTES).1.content, Content::Format(9));
        let mut damaged = header(1).encode();
        damaged[33] ^= 1;
        let lost = Content::Damaged { device_id: None };
        assert_eq!(seen_of(&damaged, FILE_BYTES).1.content, lost);
        let overwritten = [b"somebody's".repeat(400), vec![0; 96], header(1).encode()].concat();
        let (_, seen) = seen_of(&overwritten, FILE_BYTES);
        assert!(matches!(seen.content, Content::Ours(_)), "{seen:?}");
        assert_eq!(seen.scar, Some(Scar::Overwritten));
    }

    #[test]
    fn what_a_device_has_gained_is_looked_at() {
        let copies = header(1).encode().repeat(2);
        assert_eq!(seen_of(&copies, 2 * FILE_BYTES).1.tail_data, None);
        let long = [copies, vec![0; FILE_BYTES as usize], b"tail".to_vec()].concat();
        let (_, seen) = seen_of(&long, 2 * FILE_BYTES);
        assert_eq!(seen.tail_data, Some(FILE_BYTES + 8192));
    }

    #[test]
    fn the_wrong_kind_of_path_is_refused_with_a_remedy() {
        let folder = disk_folder();
        let check = |path: &str, is_file, expected: &str| {
            let error = look(&folder.path().join(path), is_file).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check("", true, "is a folder");
        check("not/there/log", true, &format!("folder {} is", folder.path().join("not").display()));
        check("/dev/null", true, "neither a file nor a block device");
        fs::write(folder.path().join("plain"), "").unwrap();
        check("plain", false, "write `file`");
        std::os::unix::fs::symlink("away/log", folder.path().join("link")).unwrap();
        check("link", true, &format!("folder {} is", folder.path().join("away").display()));
    }
}
