//! The frame around every message: 8 bytes, then the body.
//!
//! | off | size | field |
//! |---|---|---|
//! | 0 | 1 | version, 2 (0 is taken with type 2) |
//! | 1 | 1 | type |
//! | 2 | 6 | body length, big-endian, header not counted |
//!
//! Source: `docs/wire.md` section 1. A frame that breaks these rules closes the connection without
//! a reply; a malformed *body* is answered and the connection kept.

/// Length of the frame header.
pub const FRAME_HEADER_BYTES: usize = 8;
/// Longest body a frame may announce: 128 MiB.
pub const BODY_BYTES_MAX: usize = 128 << 20;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameType {
    /// Info commands or their answers, text.
    Info = 1,
    /// Login and user administration.
    Security = 2,
    /// A data message.
    Message = 3,
    /// A compressed data message.
    Compressed = 4,
    /// Never sent by anybody; a server takes it and does not answer.
    Internal = 5,
}

/// A frame's header, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// What the body is.
    pub kind: FrameType,
    /// Length of the body, at most [`BODY_BYTES_MAX`].
    pub body_bytes: usize,
}

/// Bytes that are no frame: close the connection without a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The peer speaks another protocol version, or another protocol.
    #[error("frame version {0}, expected 2")]
    Version(u8),
    /// A type outside 1..=5.
    #[error("frame type {0}, expected 1 to 5")]
    Type(u8),
    /// The announced body is longer than [`BODY_BYTES_MAX`].
    #[error("frame announces a body of {0} bytes, more than 134217728")]
    TooLong(u64),
    /// The peer wants TLS on a clear-text port.
    #[error("a TLS handshake on a clear-text port")]
    Tls,
}

impl FrameHeader {
    /// Checks a header.
    pub const fn parse(bytes: &[u8; FRAME_HEADER_BYTES]) -> Result<Self, FrameError> {
        let [version, kind, a, b, c, d, e, f] = *bytes;
        if version == 22 && kind == 3 && d == 1 {
            return Err(FrameError::Tls);
        }
        if version != 2 && !(version == 0 && kind == FrameType::Security as u8) {
            return Err(FrameError::Version(version));
        }
        let kind = match kind {
            1 => FrameType::Info,
            2 => FrameType::Security,
            3 => FrameType::Message,
            4 => FrameType::Compressed,
            5 => FrameType::Internal,
            other => return Err(FrameError::Type(other)),
        };
        let body_bytes = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
        if body_bytes > BODY_BYTES_MAX as u64 {
            return Err(FrameError::TooLong(body_bytes));
        }
        Ok(Self { kind, body_bytes: body_bytes as usize })
    }

    /// The header's bytes.
    #[inline]
    pub const fn to_bytes(self) -> [u8; FRAME_HEADER_BYTES] {
        let [.., a, b, c, d, e, f] = (self.body_bytes as u64).to_be_bytes();
        [2, self.kind as u8, a, b, c, d, e, f]
    }

    /// Length of the whole frame.
    #[inline]
    pub const fn frame_bytes(self) -> usize {
        FRAME_HEADER_BYTES + self.body_bytes
    }
}

/// A whole frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What the body is.
    pub kind: FrameType,
    /// The body.
    pub body: &'a [u8],
}

impl Frame<'_> {
    /// Bytes the frame takes in the stream.
    #[inline]
    pub const fn bytes(&self) -> usize {
        FRAME_HEADER_BYTES + self.body.len()
    }
}

/// The header at the start of `bytes`; `None` while it is not complete.
#[inline]
pub fn next_header(bytes: &[u8]) -> Result<Option<FrameHeader>, FrameError> {
    bytes.first_chunk().map(FrameHeader::parse).transpose()
}

/// The frame at the start of `bytes`; `None` while it is not complete.
#[inline]
pub fn next_frame(bytes: &[u8]) -> Result<Option<Frame<'_>>, FrameError> {
    let Some(header) = next_header(bytes)? else { return Ok(None) };
    let body = bytes.get(FRAME_HEADER_BYTES..header.frame_bytes());
    Ok(body.map(|body| Frame { kind: header.kind, body }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_follow_the_rules_of_the_reference() {
        let check = |bytes: [u8; 8], expected: Result<(FrameType, usize), FrameError>| {
            let parsed = FrameHeader::parse(&bytes).map(|header| (header.kind, header.body_bytes));
            assert_eq!(parsed, expected, "{bytes:02x?}");
        };
        check([2, 1, 0, 0, 0, 0, 0, 32], Ok((FrameType::Info, 32)));
        check([2, 2, 0, 0, 0, 0, 0, 0], Ok((FrameType::Security, 0)));
        check([0, 2, 0, 0, 0, 0, 0, 16], Ok((FrameType::Security, 16)));
        check([2, 3, 0, 0, 8, 0, 0, 0], Ok((FrameType::Message, 128 << 20)));
        check([2, 4, 0, 0, 0, 0, 1, 0], Ok((FrameType::Compressed, 256)));
        check([2, 5, 0, 0, 0, 0, 0, 1], Ok((FrameType::Internal, 1)));
        check([0, 3, 0, 0, 0, 0, 0, 22], Err(FrameError::Version(0)));
        check([3, 3, 0, 0, 0, 0, 0, 22], Err(FrameError::Version(3)));
        check(*b"GET / HT", Err(FrameError::Version(b'G')));
        check([2, 0, 0, 0, 0, 0, 0, 22], Err(FrameError::Type(0)));
        check([2, 6, 0, 0, 0, 0, 0, 22], Err(FrameError::Type(6)));
        check([2, 3, 0, 0, 8, 0, 0, 1], Err(FrameError::TooLong((128 << 20) + 1)));
        check([2, 3, 255, 255, 255, 255, 255, 255], Err(FrameError::TooLong((1 << 48) - 1)));
        check([22, 3, 1, 2, 0, 1, 0, 1], Err(FrameError::Tls));
    }

    #[test]
    fn headers_survive_their_bytes() {
        for body_bytes in [0, 22, 0x01_0203, BODY_BYTES_MAX] {
            let header = FrameHeader { kind: FrameType::Message, body_bytes };
            assert_eq!(FrameHeader::parse(&header.to_bytes()), Ok(header));
        }
    }

    #[test]
    fn a_frame_is_given_once_it_is_whole() {
        let bytes = [2, 1, 0, 0, 0, 0, 0, 2, b'a', b'\n', 99];
        for cut in 0..10 {
            assert_eq!(next_frame(&bytes[..cut]), Ok(None), "{cut}");
        }
        let frame = next_frame(&bytes).unwrap().unwrap();
        assert_eq!((frame.kind, frame.body, frame.bytes()), (FrameType::Info, &b"a\n"[..], 10));
        assert_eq!(next_frame(&[9; 8]), Err(FrameError::Version(9)));
    }
}
