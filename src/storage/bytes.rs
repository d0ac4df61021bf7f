//! Little-endian numbers in byte slices, for the layouts on the device. Callers have checked the
//! slice's length.

#[inline]
pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

#[inline]
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[inline]
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// Copies `source` to `bytes[at..]`.
#[inline]
pub(super) fn put(bytes: &mut [u8], at: usize, source: &[u8]) {
    bytes[at..at + source.len()].copy_from_slice(source);
}
