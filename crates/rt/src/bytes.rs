//! Little-endian numbers in byte slices, for the layouts on the device and in files. Callers have
//! checked the slice's length. And what those files have in common.

use std::fs::File;
use std::io;
use std::path::Path;

/// The 2 bytes at `at`.
#[inline]
pub fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// The 4 bytes at `at`.
#[inline]
pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The 8 bytes at `at`.
#[inline]
pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// Copies `source` to `bytes[at..]`.
#[inline]
pub fn put(bytes: &mut [u8], at: usize, source: &[u8]) {
    bytes[at..at + source.len()].copy_from_slice(source);
}

/// Fills bytes from the front.
pub struct Out<'a> {
    rest: &'a mut [u8],
}

impl<'a> Out<'a> {
    /// Over `bytes`, from their beginning.
    pub fn new(bytes: &'a mut [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Puts `source` behind what is there.
    ///
    /// # Panics
    /// When there is no room: its maker has counted.
    pub fn put(&mut self, source: &[u8]) {
        let room = self.rest.split_off_mut(..source.len()).expect("room was counted beforehand");
        room.copy_from_slice(source);
    }
}

/// Takes bytes from the front.
pub struct In<'a> {
    rest: &'a [u8],
}

impl<'a> In<'a> {
    /// Over `bytes`, from their beginning.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next `count` bytes; `None` when there are not so many.
    pub fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        self.rest.split_off(..count)
    }

    /// Whether all are taken.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
}

/// Makes it durable that a file has been created, renamed or removed, by syncing its folder.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}
