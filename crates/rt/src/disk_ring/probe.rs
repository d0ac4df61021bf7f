//! What a durable write costs on a device, measured.
//!
//! A device with power-loss protection makes a write durable at once; one without has to empty its
//! cache first, which takes milliseconds. What it claims about itself is not always true.
#![expect(unsafe_code, reason = "pwritev2 takes a flag that std has no name for")]

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::arena::{Arena, Buffer, PAGE_BYTES};

const PAGES: usize = 256;
const WRITES: usize = 32;
/// Longest that is measured.
const PATIENCE: Duration = Duration::from_millis(400);

/// Median times of a 4 KiB direct write over space that was written before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteCost {
    /// Without asking for anything.
    pub plain_us: u64,
    /// Durable on return (`RWF_DSYNC`).
    pub durable_us: u64,
}

impl WriteCost {
    /// Whether durable writes may be used freely, one by one. Otherwise one flush should serve
    /// many.
    pub fn durable_is_cheap(&self) -> bool {
        self.durable_us <= 2 * self.plain_us + 100
    }
}

/// Measures in a nameless temporary file of 1 MiB in `folder`. Blocks.
///
/// # Errors
///
/// The system's answer, where the file system has no direct I/O or no nameless files.
pub fn write_cost(folder: &Path) -> io::Result<WriteCost> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_DIRECT | libc::O_TMPFILE)
        .open(folder)?;
    write_cost_of(&file, 0..PAGES)
}

/// Measures on an open file or device, by writing zeros to `pages` of it: up to 32 writes of each
/// kind. Blocks.
///
/// # Errors
///
/// The system's answer.
pub fn write_cost_of(file: &File, pages: Range<usize>) -> io::Result<WriteCost> {
    let arena = Arena::new(pages.len() * PAGE_BYTES, None).map_err(io::Error::other)?;
    let mut zeros = arena.take(PAGE_BYTES).ok_or(io::ErrorKind::OutOfMemory)?;
    zeros.fill(0);
    // Written once before: a first write of a page is dearer.
    pages.clone().try_for_each(|page| write(file, &zeros, page, false))?;
    file.sync_all()?;
    // In turns: what else the device is doing hits both kinds alike.
    let (mut plain_us, mut durable_us) = (Vec::new(), Vec::new());
    let start = Instant::now();
    for turn in 0..WRITES {
        // Pages in an order no device takes for a stream.
        let at = pages.start + turn * 37 % pages.len();
        for (durable, times_us) in [(false, &mut plain_us), (true, &mut durable_us)] {
            let begin = Instant::now();
            write(file, &zeros, at, durable)?;
            times_us.push(begin.elapsed().as_micros() as u64);
        }
        if start.elapsed() > PATIENCE {
            break;
        }
    }
    Ok(WriteCost { plain_us: median(plain_us), durable_us: median(durable_us) })
}

fn median(mut times_us: Vec<u64>) -> u64 {
    times_us.sort_unstable();
    times_us[times_us.len() / 2]
}

/// Writes one page.
fn write(file: &File, page: &Buffer, at: usize, durable: bool) -> io::Result<()> {
    let bytes = &page[..PAGE_BYTES];
    let piece = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let flags = if durable { libc::RWF_DSYNC } else { 0 };
    let offset = (at * PAGE_BYTES) as i64;
    // SAFETY: the kernel reads one iovec, alive on this stack, and the `bytes` it names, borrowed
    // for the call, which returns only when it is done with both.
    let written = unsafe { libc::pwritev2(file.as_raw_fd(), &piece, 1, offset, flags) };
    match written {
        written if written < 0 => Err(io::Error::last_os_error()),
        written if written as usize == bytes.len() => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk_ring::file::{disk_folder, open_direct};

    #[test]
    fn measuring_leaves_nothing_behind() {
        let folder = disk_folder();
        let cost = write_cost(folder.path()).unwrap();
        assert!(cost.plain_us > 0 && cost.durable_us > 0, "{cost:?}");
        assert_eq!(folder.path().read_dir().unwrap().count(), 0);
    }

    #[test]
    fn measuring_in_place_leaves_the_rest_alone() {
        let folder = disk_folder();
        let path = folder.path().join("log");
        std::fs::write(&path, vec![7; 16 * PAGE_BYTES]).unwrap();
        let file = open_direct(&path, false).unwrap();
        write_cost_of(&file, 4..8).unwrap();
        let found = std::fs::read(&path).unwrap();
        let zeros = 4 * PAGE_BYTES..8 * PAGE_BYTES;
        for (at, byte) in found.into_iter().enumerate() {
            assert_eq!(byte, if zeros.contains(&at) { 0 } else { 7 }, "byte {at}");
        }
    }

    #[test]
    fn durable_writes_are_cheap_where_they_cost_about_a_write() {
        for (plain_us, durable_us, cheap) in
            [(11, 12, true), (65, 113, true), (12, 4000, false), (80, 1700, false)]
        {
            let cost = WriteCost { plain_us, durable_us };
            assert_eq!(cost.durable_is_cheap(), cheap, "{cost:?}");
        }
    }
}
