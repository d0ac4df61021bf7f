//! The fields of a message: namespace, set, digest, key and the like.
//!
//! Layout: `u32 size` (big-endian, counts the id and the data), `u8 id`, data. Unknown ids are
//! skipped, not errors. Source: `docs/wire.md` section 4.

/// Namespace name.
pub const NAMESPACE: u8 = 0;
/// Set name; empty for no set.
pub const SET: u8 = 1;
/// User key: particle type byte, then the value in wire form.
pub const KEY: u8 = 2;
/// The 20-byte digest. A data request without it is a scan or query.
pub const DIGEST: u8 = 4;
/// Transaction id.
pub const TRANSACTION: u8 = 5;
/// Last update time of a shipped record: u64 big-endian, ms since 2010.
pub const LUT: u8 = 14;
/// Name of a secondary index.
pub const INDEX_NAME: u8 = 22;
/// File of a server-side function.
pub const UDF_FILE: u8 = 30;
/// Kind of a server-side function call.
pub const UDF_OP: u8 = 33;
/// Rows of a batch.
pub const BATCH: u8 = 41;
/// Rows of a batch, older clients.
pub const BATCH_WITH_SET: u8 = 42;
/// Filter expression; never to be ignored.
pub const FILTER: u8 = 43;
/// Textual filter clause; never to be ignored either.
pub const WHERE: u8 = 44;
/// Longship's own: the src-id (one byte, 1..=255) of the cluster where a shipped record was last
/// written by a client.
///
/// Sent only on shipped messages, only towards nodes that list `longship-hello` among their
/// features, and only when that cluster is not the one named by the connection's hello. Other
/// servers skip it, as they do every id they do not know (200 was tried on the real one).
pub const SRC_ID: u8 = 240;

/// Bytes of a field before its data.
pub const FIELD_HEADER_BYTES: usize = 5;

/// One field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// What kind of field it is: one of the constants here.
    pub id: u8,
    /// The field's bytes, without its header.
    pub data: &'a [u8],
}

/// Takes the field at the start of `bytes` and gives what follows it; `None` if it is malformed
/// (size 0, or past the end).
#[inline]
pub fn split(bytes: &[u8]) -> Option<(Field<'_>, &[u8])> {
    let (size, rest) = bytes.split_first_chunk()?;
    let (field, rest) = rest.split_at_checked(u32::from_be_bytes(*size) as usize)?;
    let (&id, data) = field.split_first()?;
    Some((Field { id, data }, rest))
}

/// Appends a field.
#[inline]
pub fn push(out: &mut Vec<u8>, id: u8, data: &[u8]) {
    out.extend_from_slice(&(data.len() as u32 + 1).to_be_bytes());
    out.push(id);
    out.extend_from_slice(data);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_split_one_by_one() {
        let mut bytes = Vec::new();
        push(&mut bytes, NAMESPACE, b"test");
        assert_eq!(bytes, [0, 0, 0, 5, 0, b't', b'e', b's', b't']);
        push(&mut bytes, SET, b"");
        let (first, rest) = split(&bytes).unwrap();
        assert_eq!(first, Field { id: NAMESPACE, data: b"test" });
        let (second, rest) = split(rest).unwrap();
        assert_eq!((second, rest), (Field { id: SET, data: b"" }, &[][..]));
    }

    #[test]
    fn malformed_fields_are_refused() {
        let cases: [&[u8]; 5] =
            [&[], &[0, 0, 0], &[0, 0, 0, 0], &[0, 0, 0, 0, 7], &[0, 0, 0, 3, 7, 1]];
        for bytes in cases {
            assert_eq!(split(bytes), None, "{bytes:?}");
        }
    }
}
