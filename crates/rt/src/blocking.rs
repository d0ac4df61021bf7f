//! Blocking reads, for threads that are no shards. The rest of the standard library's calls goes on
//! after a signal by itself: `read_exact`, `read_to_end`, `write_all`, `accept`, `connect`.

use std::io::{self, ErrorKind, Read};

/// Reads what has come, waiting for the first byte; 0 at the end. A signal does not end it: the
/// system does not restart a read that has a time limit.
pub fn read_some(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match from.read(buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_does_not_end_a_read() {
        struct Interrupted(u32);
        impl Read for Interrupted {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                self.0 += 1;
                if self.0 < 3 { Err(ErrorKind::Interrupted.into()) } else { Ok(buffer.len()) }
            }
        }
        assert_eq!(read_some(&mut Interrupted(0), &mut [0; 7]).unwrap(), 7);
    }
}
