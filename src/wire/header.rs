//! The header of a data message, 22 bytes; fields and operations follow it.
//!
//! | off | size | request | reply |
//! |---|---|---|---|
//! | 0 | 1 | header size, 22 (not checked) | 22 |
//! | 1 | 4 | info bits | info bits |
//! | 5 | 1 | 0 | result code |
//! | 6 | 4 | expected generation | generation |
//! | 10 | 4 | relative ttl | void time |
//! | 14 | 4 | timeout, ms | 0, or row index |
//! | 18 | 2 | number of fields | number of fields |
//! | 20 | 2 | number of operations | number of operations |
//!
//! Source: `docs/wire.md` section 2.

use super::ResultCode;

/// Length of the message header.
pub const MESSAGE_HEADER_BYTES: usize = 22;

/// A message header, any values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Info bits, bytes 1 to 4.
    pub info: [u8; 4],
    /// Result of a reply; zero in requests.
    pub code: ResultCode,
    /// Request: expected generation. Reply: the record's.
    pub generation: u32,
    /// Request: relative ttl. Reply: void time.
    pub ttl: u32,
    /// Request: timeout in ms, 0 = the server's default. Batch reply: row index.
    pub timeout_ms: u32,
    /// Number of fields.
    pub field_count: u16,
    /// Number of operations.
    pub op_count: u16,
}

impl Header {
    /// Reads a header and gives what follows it; `None` if the body is shorter.
    #[inline]
    pub fn parse(body: &[u8]) -> Option<(Self, &[u8])> {
        let (head, rest) = body.split_first_chunk::<MESSAGE_HEADER_BYTES>()?;
        let word =
            |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let header = Self {
            info: [head[1], head[2], head[3], head[4]],
            code: ResultCode(head[5]),
            generation: word(6),
            ttl: word(10),
            timeout_ms: word(14),
            field_count: u16::from_be_bytes([head[18], head[19]]),
            op_count: u16::from_be_bytes([head[20], head[21]]),
        };
        Some((header, rest))
    }

    /// The header's bytes.
    #[inline]
    pub fn to_bytes(&self) -> [u8; MESSAGE_HEADER_BYTES] {
        let mut out = [0; MESSAGE_HEADER_BYTES];
        out[0] = MESSAGE_HEADER_BYTES as u8;
        out[1..5].copy_from_slice(&self.info);
        out[5] = self.code.0;
        out[6..10].copy_from_slice(&self.generation.to_be_bytes());
        out[10..14].copy_from_slice(&self.ttl.to_be_bytes());
        out[14..18].copy_from_slice(&self.timeout_ms.to_be_bytes());
        out[18..20].copy_from_slice(&self.field_count.to_be_bytes());
        out[20..22].copy_from_slice(&self.op_count.to_be_bytes());
        out
    }
}
