//! Hints that memory will be needed soon, so that several cache misses pass at the same time
//! instead of one after the other.

#![expect(unsafe_code, reason = "the processor's hint is an intrinsic that takes a pointer")]

/// Places to ask for at once: the misses of so many pass side by side, and what was asked for first
/// is still there when the last one comes.
pub const WIDTH: usize = 32;

/// Bytes that come to the cache together.
const LINE: usize = 64;

/// Asks for the cache lines of a value.
#[inline]
pub fn prefetch<T>(place: &T) {
    lines(std::ptr::from_ref(place).cast(), size_of::<T>());
}

/// Asks for the cache lines of a slice.
#[inline]
pub fn prefetch_bytes(bytes: &[u8]) {
    lines(bytes.as_ptr(), bytes.len());
}

#[inline]
fn lines(start: *const u8, len: usize) {
    let skip = start.addr() % LINE;
    let mut line = start.wrapping_sub(skip);
    for _ in 0..(skip + len).div_ceil(LINE) {
        hint(line);
        line = line.wrapping_add(LINE);
    }
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline]
fn hint(line: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a prefetch neither faults nor changes anything, whatever the address; SSE is part of
    // every x86-64.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) };
}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
#[inline]
fn hint(_line: *const u8) {}
