//! What a ring has written to its files, and how much of it would survive a power failure: for
//! tests that make one.

use std::collections::HashMap;

/// What a device writes as a whole.
const SECTOR: usize = 512;

/// A write that was begun, in the order of their beginnings.
#[derive(Clone, Debug)]
pub struct Written {
    /// The file, in the order in which files were added.
    pub file: usize,
    /// Where it begins.
    pub offset: u64,
    /// What it writes.
    pub bytes: Vec<u8>,
    /// What was there when it was begun.
    pub before: Vec<u8>,
    /// Whether the caller may rely on it: it was durable itself, or a flush that began after its end
    /// has ended.
    pub is_durable: bool,
}

impl Written {
    /// What of it a power failure leaves, and where: everything, where the caller may rely on it; else
    /// that, nothing, a beginning or any sectors, as `roll` gives a number below its argument.
    pub fn left_by_power_failure(&self, mut roll: impl FnMut(u64) -> u64) -> Vec<(u64, &[u8])> {
        let sectors = self.bytes.len().div_ceil(SECTOR) as u64;
        let kind = if self.is_durable { 0 } else { roll(4) };
        let prefix = roll(sectors + 1);
        let places = (0..).map(|number| (number, self.offset + number * SECTOR as u64));
        let all = places.zip(self.bytes.chunks(SECTOR));
        let left = all.filter(|((number, _), _)| match kind {
            0 => true,
            1 => false,
            2 => *number < prefix,
            _ => roll(2) == 0,
        });
        left.map(|((_, offset), sector)| (offset, sector)).collect()
    }
}

/// The writes of a ring since it was made.
#[derive(Default)]
pub(super) struct Journal {
    writes: Vec<Written>,
    /// Writes under way, by slot.
    begun: HashMap<u32, usize>,
    /// Writes at an end that no flush has covered.
    arrived: Vec<usize>,
    /// What each flush under way covers, by slot.
    flushes: HashMap<u32, Vec<usize>>,
}

impl Journal {
    pub(super) fn begin_write(
        &mut self,
        slot: u32,
        (file, offset): (usize, u64),
        (bytes, before): (&[u8], Vec<u8>),
    ) {
        let bytes = bytes.to_vec();
        self.begun.insert(slot, self.writes.len());
        self.writes.push(Written { file, offset, bytes, before, is_durable: false });
    }

    pub(super) fn begin_flush(&mut self, slot: u32, file: usize) {
        let covers = self.arrived.iter().filter(|write| self.writes[**write].file == file);
        self.flushes.insert(slot, covers.copied().collect());
    }

    /// An operation has ended well.
    pub(super) fn end(&mut self, slot: u32, is_durable: bool) {
        if let Some(write) = self.begun.remove(&slot) {
            self.writes[write].is_durable = is_durable;
            self.arrived.push(write);
        }
        for write in self.flushes.remove(&slot).into_iter().flatten() {
            self.writes[write].is_durable = true;
        }
        let writes = &self.writes;
        self.arrived.retain(|write| !writes[*write].is_durable);
    }

    /// An operation has failed. What a flush would have made durable may be lost, and no later flush
    /// makes that good.
    pub(super) fn fail(&mut self, slot: u32) {
        self.begun.remove(&slot);
        let lost = self.flushes.remove(&slot).unwrap_or_default();
        self.arrived.retain(|write| !lost.contains(write));
    }

    pub(super) fn writes(&self) -> &[Written] {
        &self.writes
    }

    /// Tells what a power failure now would leave, in pieces to be written in this order: of each write
    /// that nobody may rely on everything, nothing, a beginning or any sectors.
    pub(super) fn fail_power(&self, roll: impl Fn(u64) -> u64) -> Vec<(usize, u64, &[u8])> {
        let first = self.writes.iter().position(|write| !write.is_durable);
        let writes = &self.writes[first.unwrap_or(self.writes.len())..];
        let undone = writes.iter().rev();
        let mut left: Vec<_> =
            undone.map(|write| (write.file, write.offset, write.before.as_slice())).collect();
        for write in writes {
            let sectors = write.left_by_power_failure(&roll).into_iter();
            left.extend(sectors.map(|(offset, sector)| (write.file, offset, sector)));
        }
        left
    }
}
