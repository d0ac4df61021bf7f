//! Files and block devices as the disk ring wants them: opened for direct I/O, allocated ahead,
//! with their limits known. All of it may block: for start-up and the admin thread, not for shards.
#![expect(unsafe_code, reason = "fallocate, mincore, statvfs and statx")]

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::arena::PAGE_BYTES;

/// What a device asks of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoLimits {
    /// Offsets, lengths and addresses are multiples of this (at least; 4 KiB is always right).
    pub alignment_bytes: usize,
    /// A larger request would leave the fast path: the ring sends it in pieces.
    pub transfer_bytes_max: u32,
    /// The device has a volatile write cache, so a durable write waits for a flush of it.
    /// `None`: unknown.
    pub volatile_cache: Option<bool>,
}

/// Opens for direct reading and writing. A block device is opened exclusively, so that it cannot be
/// mounted meanwhile. With `create`, a missing file is made, readable and writable by its owner.
///
/// # Errors
///
/// The system's answer; `EINVAL` where the file system has no direct I/O.
pub fn open_direct(path: &Path, create: bool) -> io::Result<File> {
    let is_device = path.metadata().is_ok_and(|meta| meta.file_type().is_block_device());
    let exclusive = if is_device { libc::O_EXCL } else { 0 };
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(create && !is_device)
        .mode(0o600)
        .custom_flags(libc::O_DIRECT | exclusive)
        .open(path)
}

/// The size of a file or block device.
///
/// # Errors
///
/// The system's answer.
pub fn size_bytes(mut file: &File) -> io::Result<u64> {
    file.seek(SeekFrom::End(0))
}

/// Gives a file all its space, so that no later write has to find some. Space not yet written
/// reads as zeros. A file already as large keeps its size.
///
/// # Errors
///
/// The system's answer; `StorageFull` when there is not as much.
pub fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    let len = libc::off_t::try_from(bytes).map_err(|_| io::ErrorKind::FileTooLarge)?;
    loop {
        // SAFETY: takes no pointers; the descriptor is open while `file` is borrowed.
        if unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, len) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// How many pages of the first `len` bytes of a file are kept in the page cache.
///
/// # Errors
///
/// The system's answer.
#[cfg(any(test, feature = "testing"))]
pub fn cached_pages(file: &File, len: usize) -> io::Result<usize> {
    let mut pages = vec![0_u8; len.div_ceil(PAGE_BYTES)];
    let (share, fd) = (libc::MAP_SHARED, file.as_raw_fd());
    // SAFETY: a new mapping where the system likes; nobody reads through it.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ, share, fd, 0) };
    if at == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `at..at + len` is the mapping made above; `pages` has a byte for each of its pages.
    let answer = match unsafe { libc::mincore(at, len, pages.as_mut_ptr()) } {
        0 => Ok(pages.iter().filter(|page| **page & 1 != 0).count()),
        _ => Err(io::Error::last_os_error()),
    };
    // SAFETY: the mapping made above, which nobody has used.
    unsafe { libc::munmap(at, len) };
    answer
}

/// Bytes that may still be written to the file system of a folder.
///
/// # Errors
///
/// The system's answer, and `EROFS` where nothing can be written at all.
pub fn free_bytes(folder: &Path) -> io::Result<u64> {
    let name = CString::new(folder.as_os_str().as_bytes())?;
    let mut answer = MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: the path is a C string, alive for the call; the kernel writes at most one statvfs to
    // `answer`.
    if unsafe { libc::statvfs(name.as_ptr(), answer.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all-zero bytes are a valid statvfs, and the kernel writes valid ones.
    let answer = unsafe { answer.assume_init() };
    if answer.f_flag & libc::ST_RDONLY != 0 {
        return Err(io::Error::from_raw_os_error(libc::EROFS));
    }
    Ok(answer.f_bavail.saturating_mul(answer.f_frsize))
}

/// The limits of the device under an open file; defaults where the system does not tell.
pub fn limits(file: &File) -> IoLimits {
    let queue = queue_folder(file);
    let read = |name: &str| std::fs::read_to_string(queue.as_ref()?.join(name)).ok();
    let number = |name: &str| read(name)?.trim().parse::<usize>().ok();
    let volatile_cache = read("write_cache").map(|mode| mode.trim() == "write back");
    // Small pages may each take a segment; without a limit known, what every device takes.
    let by_segments = number("max_segments").map_or(usize::MAX, |count| count * PAGE_BYTES);
    let by_sectors = number("max_sectors_kb").map_or(512 << 10, |kib| kib << 10);
    let transfer = by_sectors.min(by_segments).clamp(64 << 10, 1 << 30);
    IoLimits {
        alignment_bytes: direct_alignment(file).unwrap_or(PAGE_BYTES),
        transfer_bytes_max: (transfer / PAGE_BYTES * PAGE_BYTES) as u32,
        volatile_cache,
    }
}

/// `/sys/dev/block/MAJOR:MINOR/queue` of the whole device that holds the file.
fn queue_folder(file: &File) -> Option<PathBuf> {
    let meta = file.metadata().ok()?;
    let device = if meta.file_type().is_block_device() { meta.rdev() } else { meta.dev() };
    let (major, minor) = (libc::major(device), libc::minor(device));
    let folder = std::fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    let of_partition = folder.parent().map(|whole| whole.join("queue"));
    Some(folder.join("queue")).into_iter().chain(of_partition).find(|path| path.is_dir())
}

/// The alignment direct I/O needs (statx DIOALIGN, Linux 6.1).
fn direct_alignment(file: &File) -> Option<usize> {
    let mut answer = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: the path is an empty C string, which AT_EMPTY_PATH turns into the descriptor itself,
    // open while `file` is borrowed; the kernel writes at most one statx to `answer`.
    let failed = unsafe {
        libc::statx(
            file.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            libc::STATX_DIOALIGN,
            answer.as_mut_ptr(),
        )
    } != 0;
    // SAFETY: all-zero bytes are a valid statx, and the kernel writes valid ones.
    let answer = unsafe { answer.assume_init() };
    let known = !failed && answer.stx_mask & libc::STATX_DIOALIGN != 0;
    let alignment = answer.stx_dio_offset_align.max(answer.stx_dio_mem_align) as usize;
    (known && alignment > 0).then_some(alignment)
}

/// A temporary folder beside the test binary: on a disk, where direct I/O works.
#[cfg(any(test, feature = "testing"))]
pub fn disk_folder() -> tempfile::TempDir {
    let binary = std::env::current_exe().expect("a running program has a path");
    let folder = binary.parent().expect("a program lies in a folder");
    tempfile::tempdir_in(folder).expect("the folder of a test can be written")
}

/// A temporary folder in memory, where that takes direct I/O: for tests in which the time that a device
/// takes is virtual.
#[cfg(any(test, feature = "testing"))]
pub fn memory_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir_in("/dev/shm").ok();
    let takes_direct =
        |folder: &tempfile::TempDir| open_direct(&folder.path().join("probe"), true).is_ok();
    folder.filter(takes_direct).unwrap_or_else(disk_folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allocated_file_has_its_size_and_limits() {
        let folder = disk_folder();
        let file = open_direct(&folder.path().join("log"), true).unwrap();
        allocate(&file, 1 << 20).unwrap();
        assert_eq!(size_bytes(&file).unwrap(), 1 << 20);
        allocate(&file, 4096).unwrap();
        assert_eq!(size_bytes(&file).unwrap(), 1 << 20);
        assert!(free_bytes(folder.path()).unwrap() > 0);
        let limits = limits(&file);
        assert!(limits.alignment_bytes.is_power_of_two() && limits.alignment_bytes <= PAGE_BYTES);
        assert!(limits.transfer_bytes_max >= 64 << 10);
        assert_eq!(limits.transfer_bytes_max as usize % PAGE_BYTES, 0);
    }

    #[test]
    fn a_missing_file_is_made_only_when_asked_for() {
        let folder = disk_folder();
        let path = folder.path().join("log");
        assert_eq!(open_direct(&path, false).unwrap_err().kind(), io::ErrorKind::NotFound);
        open_direct(&path, true).unwrap();
        open_direct(&path, false).unwrap();
    }
}
