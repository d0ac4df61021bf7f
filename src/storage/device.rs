//! The header of a device (a file or a block device) and its opening: what is ours is recognised,
//! what is empty is formatted, everything else is refused and left alone.
//!
//! | offset | size | field |
//! |---:|---:|---|
//! | 0 | 8 | magic `LONGSHIP` |
//! | 8 | 4 | format version |
//! | 12 | 4 | CRC32C of bytes 16..4096 |
//! | 16 | 8 | id of the device, random |
//! | 24 | 8 | id of the volume: the devices formatted together, random |
//! | 32 | 4 | bytes of a write block |
//! | 36 | 4 | blocks, when it was formatted |
//! | 40 | 4 | stripes |
//! | 44 | 2 | devices of the volume |
//! | 46 | 1 | length of the namespace's name |
//! | 47 | 31 | name of the namespace |
//! | 78 | .. | zeros up to 4096 |
//!
//! Written once, when the device is formatted, and never again. The rest of block 0 is zeros: there
//! each start measures what a durable write costs, by writing zeros ([`OpenDevice::probe`]).
//! Everything here blocks: it runs before the shards do.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::block::WRITE_ALIGN;
use super::bytes::{put, sync_folder, u16_at, u32_at, u64_at};
use crate::rt::disk_ring::file::{IoLimits, allocate, limits, open_direct, size_bytes};
use crate::rt::disk_ring::probe::{WriteCost, write_cost_of};

/// Bytes of a device header.
pub const DEVICE_HEADER_BYTES: usize = 4096;
/// The format this program writes; it reads no other.
pub const FORMAT_VERSION: u32 = 1;

const MAGIC: [u8; 8] = *b"LONGSHIP";
const NAME: usize = 47;
const NAME_BYTES_MAX: usize = 31;

const _: () = assert!(NAME + NAME_BYTES_MAX == 78);

/// The first pages of a device, that it is measured on.
const PROBE_PAGES_MAX: usize = 64;

/// How long the lock of a killed process may outlive it, while its last writes end.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);

/// Why a device cannot be used. None of these changes anything on it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// The system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The device.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Another process has it, or it is mounted.
    #[error("{} is in use: another process has it open, or it is mounted", path.display())]
    InUse {
        /// The device.
        path: PathBuf,
    },
    /// It holds something that is not ours.
    #[error(
        "{} holds data that Longship did not write; to use it, wipe its first {bytes} bytes \
         (dd if=/dev/zero) after making sure that nobody needs them", path.display()
    )]
    Foreign {
        /// The device.
        path: PathBuf,
        /// How many bytes must be zero.
        bytes: u64,
    },
    /// Written by a program with another format.
    #[error(
        "{} has format version {found}, this program reads {FORMAT_VERSION}", path.display()
    )]
    Format {
        /// The device.
        path: PathBuf,
        /// Its format version.
        found: u32,
    },
    /// Ours by its magic, but the header is not what was written.
    #[error("the header of {} fails its checksum", path.display())]
    Damaged {
        /// The device.
        path: PathBuf,
    },
    /// It was formatted for something else.
    #[error(
        "{} was formatted with {item} {on_device}, the configuration says {configured}",
        path.display()
    )]
    Mismatch {
        /// The device.
        path: PathBuf,
        /// What differs.
        item: &'static str,
        /// On the device.
        on_device: String,
        /// As configured.
        configured: String,
    },
    /// It takes only larger requests than the log makes.
    #[error("{} takes direct I/O only in multiples of {alignment} bytes, not of 4096", path.display())]
    Alignment {
        /// The device.
        path: PathBuf,
        /// What it takes.
        alignment: usize,
    },
    /// Too few blocks to work with.
    #[error(
        "{} holds {blocks} blocks of {block_bytes} bytes; {needed} are the least for {shards} \
         shards", path.display()
    )]
    TooSmall {
        /// The device.
        path: PathBuf,
        /// Blocks it has, the header's included.
        blocks: u64,
        /// Bytes of a block.
        block_bytes: u32,
        /// Blocks it must have.
        needed: u64,
        /// Shards that share it.
        shards: u16,
    },
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
    /// Blocks when it was formatted; it may have grown since.
    pub blocks: u32,
    /// Stripes the blocks are divided into.
    pub stripes: u32,
    /// Devices of the volume.
    pub devices: u16,
    /// Name of the namespace.
    pub namespace: String,
}

/// What the start of a device is.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Empty,
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
        put(&mut out, 36, &self.blocks.to_le_bytes());
        put(&mut out, 40, &self.stripes.to_le_bytes());
        put(&mut out, 44, &self.devices.to_le_bytes());
        out[46] = self.namespace.len() as u8;
        put(&mut out, NAME, self.namespace.as_bytes());
        let checksum = crc32c::crc32c(&out[16..]);
        put(&mut out, 12, &checksum.to_le_bytes());
        out
    }

    /// Judges the start of a device; `bytes` is at least a header.
    fn find(bytes: &[u8]) -> Found {
        if bytes.iter().all(|byte| *byte == 0) {
            return Found::Empty;
        }
        let Some(header) = bytes.get(..DEVICE_HEADER_BYTES) else { return Found::Foreign };
        if header[..8] != MAGIC {
            return Found::Foreign;
        }
        let version = u32_at(header, 8);
        if version != FORMAT_VERSION {
            return Found::Format(version);
        }
        let name = header.get(NAME..NAME + usize::from(header[46]));
        let name = name.and_then(|name| String::from_utf8(name.to_vec()).ok());
        match name {
            Some(namespace) if u32_at(header, 12) == crc32c::crc32c(&header[16..]) => {
                Found::Ours(Self {
                    device_id: u64_at(header, 16),
                    volume_id: u64_at(header, 24),
                    block_bytes: u32_at(header, 32),
                    blocks: u32_at(header, 36),
                    stripes: u32_at(header, 40),
                    devices: u16_at(header, 44),
                    namespace,
                })
            }
            _ => Found::Damaged,
        }
    }
}

/// An opened and locked device whose header has not been judged against the configuration.
#[derive(Debug)]
pub struct OpenDevice {
    /// Where it is.
    pub path: PathBuf,
    /// Open for direct I/O; holds the lock.
    pub file: File,
    /// Its header; `None` when it is empty and must be formatted.
    pub header: Option<DeviceHeader>,
    /// Its size.
    pub bytes: u64,
}

impl OpenDevice {
    /// Opens and locks a device. A file that is missing or smaller than `file_bytes` is made that
    /// large, with all its space allocated; a block device (`file_bytes` zero) is taken as it is.
    /// What is there is judged by its first `block_bytes`.
    pub fn open(path: &Path, file_bytes: u64, block_bytes: u32) -> Result<Self, DeviceError> {
        let io = |action| move |source| DeviceError::Io { action, path: path.to_owned(), source };
        let is_file = file_bytes > 0;
        let file = when_free(path, || open_free(path, is_file))?.map_err(io("open"))?;
        when_free(path, || lock_free(&file))?.map_err(io("lock"))?;
        // What a crashed process wrote must not get lost after we have read it.
        file.sync_all().map_err(io("sync"))?;
        let header = judge(path, block_bytes)?;
        if is_file {
            allocate(&file, file_bytes).map_err(io("allocate space for"))?;
            sync_folder(path).map_err(io("sync the folder of"))?;
        }
        let bytes = size_bytes(&file).map_err(io("measure"))?;
        Ok(Self { path: path.to_owned(), file, header, bytes })
    }

    /// Blocks of `block_bytes` that fit.
    pub fn blocks(&self, block_bytes: u32) -> u64 {
        self.bytes / u64::from(block_bytes)
    }

    /// Looks at the limits of a formatted device and measures what a durable write costs on it.
    pub fn probe(&self, block_bytes: u32) -> Result<(IoLimits, WriteCost), DeviceError> {
        let limits = limits(&self.file);
        let path = || self.path.clone();
        if limits.alignment_bytes > WRITE_ALIGN {
            let alignment = limits.alignment_bytes;
            return Err(DeviceError::Alignment { path: path(), alignment });
        }
        let pages = DEVICE_HEADER_BYTES / WRITE_ALIGN..block_bytes as usize / WRITE_ALIGN;
        let cost = write_cost_of(&self.file, pages.start..pages.end.min(PROBE_PAGES_MAX));
        let io = |source| DeviceError::Io { action: "measure writes to", path: path(), source };
        Ok((limits, cost.map_err(io)?))
    }

    /// Writes the header of an empty device, durably.
    pub fn format(&mut self, header: DeviceHeader) -> Result<(), DeviceError> {
        assert!(self.header.is_none(), "only empty devices are formatted");
        let io = |source| DeviceError::Io {
            action: "write the header of",
            path: self.path.clone(),
            source,
        };
        let writer = File::options().write(true).open(&self.path).map_err(io)?;
        writer.write_all_at(&header.encode(), 0).map_err(io)?;
        writer.sync_all().map_err(io)?;
        self.header = Some(header);
        Ok(())
    }
}

/// Reads and judges the first block of a device.
fn judge(path: &Path, block_bytes: u32) -> Result<Option<DeviceHeader>, DeviceError> {
    let io =
        |source| DeviceError::Io { action: "read the header of", path: path.to_owned(), source };
    let mut bytes = vec![0; block_bytes as usize];
    let reader = File::open(path).map_err(io)?;
    let mut filled = 0;
    while filled < bytes.len() {
        match reader.read_at(&mut bytes[filled..], filled as u64).map_err(io)? {
            0 => break,
            read => filled += read,
        }
    }
    match DeviceHeader::find(&bytes) {
        Found::Empty => Ok(None),
        Found::Ours(header) => Ok(Some(header)),
        Found::Format(found) => Err(DeviceError::Format { path: path.to_owned(), found }),
        Found::Damaged => Err(DeviceError::Damaged { path: path.to_owned() }),
        Found::Foreign => {
            Err(DeviceError::Foreign { path: path.to_owned(), bytes: block_bytes.into() })
        }
    }
}

/// Tries until the device is free, for as long as the end of a killed process may take.
fn when_free<T>(
    path: &Path,
    mut attempt: impl FnMut() -> Option<io::Result<T>>,
) -> Result<io::Result<T>, DeviceError> {
    let pause = Duration::from_millis(10);
    let mut waited = Duration::ZERO;
    loop {
        match attempt() {
            Some(done) => return Ok(done),
            None if waited < LOCK_PATIENCE => {
                thread::sleep(pause);
                waited += pause;
            }
            None => return Err(DeviceError::InUse { path: path.to_owned() }),
        }
    }
}

/// `None` for a block device that is open elsewhere or mounted.
fn open_free(path: &Path, create: bool) -> Option<io::Result<File>> {
    let opened = open_direct(path, create);
    let is_busy = |error: &io::Error| error.kind() == io::ErrorKind::ResourceBusy;
    (!opened.as_ref().is_err_and(is_busy)).then_some(opened)
}

fn lock_free(file: &File) -> Option<io::Result<()>> {
    match file.try_lock() {
        Ok(()) => Some(Ok(())),
        Err(fs::TryLockError::WouldBlock) => None,
        Err(fs::TryLockError::Error(error)) => Some(Err(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rt::disk_ring::file::disk_folder;

    const BLOCK_BYTES: u32 = 128 << 10;
    const FILE_BYTES: u64 = 1 << 20;

    fn header() -> DeviceHeader {
        DeviceHeader {
            device_id: 0x0123_4567_89AB_CDEF,
            volume_id: 42,
            block_bytes: BLOCK_BYTES,
            blocks: 8,
            stripes: 64,
            devices: 1,
            namespace: "demo".into(),
        }
    }

    #[test]
    fn a_header_is_found_again_and_every_flipped_byte_is_noticed() {
        let bytes = header().encode();
        assert_eq!(DeviceHeader::find(&bytes), Found::Ours(header()));
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x40;
            assert!(!matches!(DeviceHeader::find(&flipped), Found::Ours(_) | Found::Empty), "{at}");
        }
    }

    #[test]
    fn an_empty_file_is_formatted_once_and_then_recognised() {
        let folder = disk_folder();
        let path = folder.path().join("log");
        let mut device = OpenDevice::open(&path, FILE_BYTES, BLOCK_BYTES).unwrap();
        assert_eq!((device.bytes, &device.header), (FILE_BYTES, &None));
        device.format(header()).unwrap();
        let taken = OpenDevice::open(&path, FILE_BYTES, BLOCK_BYTES).unwrap_err();
        assert!(matches!(taken, DeviceError::InUse { .. }), "{taken}");
        drop(device);
        let device = OpenDevice::open(&path, FILE_BYTES, BLOCK_BYTES).unwrap();
        assert_eq!(device.header, Some(header()));
    }

    #[test]
    fn what_is_not_ours_is_refused_and_left_as_it_is() {
        let folder = disk_folder();
        let newer = {
            let mut bytes = header().encode();
            bytes[8] = 2;
            bytes
        };
        let late = [vec![0; 100_000], b"somebody's superblock".to_vec()].concat();
        let mut damaged = header().encode();
        damaged[33] ^= 1;
        type Expected = fn(&DeviceError) -> bool;
        let cases: [(&str, Vec<u8>, Expected); 4] = [
            ("text", b"#!/bin/sh".to_vec(), |e| matches!(e, DeviceError::Foreign { .. })),
            ("late", late, |e| matches!(e, DeviceError::Foreign { .. })),
            ("newer", newer, |e| matches!(e, DeviceError::Format { found: 2, .. })),
            ("damaged", damaged, |e| matches!(e, DeviceError::Damaged { .. })),
        ];
        for (name, content, expected) in cases {
            let path = folder.path().join(name);
            fs::write(&path, &content).unwrap();
            let error = OpenDevice::open(&path, FILE_BYTES, BLOCK_BYTES).unwrap_err();
            assert!(expected(&error), "{name}: {error}");
            assert_eq!(fs::read(&path).unwrap(), content, "{name}");
        }
    }
}
