//! Frames put together by hand, so that they can be wrong.

/// Puts the 8-byte header before a body. Types: 1 info, 2 security, 3 data.
pub(crate) fn proto(kind: u8, body: &[u8]) -> Vec<u8> {
    proto_claiming(2, kind, body.len() as u64, body)
}

/// The same with a version and a length that need not be true.
pub(crate) fn proto_claiming(version: u8, kind: u8, length: u64, body: &[u8]) -> Vec<u8> {
    let mut frame = (length & 0xFFFF_FFFF_FFFF).to_be_bytes().to_vec();
    (frame[0], frame[1]) = (version, kind);
    frame.extend_from_slice(body);
    frame
}

/// A data request for one record.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) info1: u8,
    pub(crate) info2: u8,
    pub(crate) info3: u8,
    /// Seconds to live; 0 is the namespace's default.
    pub(crate) ttl: u32,
    /// (type, data)
    pub(crate) fields: Vec<(u8, Vec<u8>)>,
    /// (op code, particle type, bin name, value)
    pub(crate) ops: Vec<(u8, u8, Vec<u8>, Vec<u8>)>,
}

impl Request {
    /// Writes an integer into bin `i` of a record of namespace `test`.
    pub(crate) fn put(digest: [u8; 20], value: i64) -> Self {
        let fields = vec![(0, b"test".to_vec()), (4, digest.to_vec())];
        let ops = vec![(2, 1, b"i".to_vec(), value.to_be_bytes().to_vec())];
        Self { info1: 0, info2: 1, info3: 0, ttl: 0, fields, ops }
    }

    /// Reads all bins of a record of namespace `test`.
    pub(crate) fn get(digest: [u8; 20]) -> Self {
        Self { info1: 3, info2: 0, ops: Vec::new(), ..Self::put(digest, 0) }
    }

    /// The body of the frame: header, fields, ops.
    pub(crate) fn body(&self) -> Vec<u8> {
        let mut body = vec![22, self.info1, self.info2, self.info3, 0, 0];
        body.extend([0; 4]); // generation
        body.extend(self.ttl.to_be_bytes());
        body.extend(1000_u32.to_be_bytes()); // server-side timeout, ms
        body.extend((self.fields.len() as u16).to_be_bytes());
        body.extend((self.ops.len() as u16).to_be_bytes());
        for (kind, data) in &self.fields {
            body.extend((data.len() as u32 + 1).to_be_bytes());
            body.push(*kind);
            body.extend(data);
        }
        for (code, particle, name, value) in &self.ops {
            body.extend((4 + name.len() as u32 + value.len() as u32).to_be_bytes());
            body.extend([*code, *particle, 0, name.len() as u8]);
            body.extend(name);
            body.extend(value);
        }
        body
    }

    /// The whole frame.
    pub(crate) fn frame(&self) -> Vec<u8> {
        proto(3, &self.body())
    }
}

/// A data answer, as far as tests look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) result: u8,
    pub(crate) generation: u32,
    /// Of a record: when it ends, in seconds of the protocol's own epoch; 0 for never.
    pub(crate) void_time: u32,
    pub(crate) ops: u16,
}

impl Reply {
    /// Reads the header of a data answer.
    pub(crate) fn of(body: &[u8]) -> Self {
        assert!(body.len() >= 22 && body[0] == 22, "a data answer has a 22-byte header");
        let generation = u32::from_be_bytes([body[6], body[7], body[8], body[9]]);
        let void_time = u32::from_be_bytes([body[10], body[11], body[12], body[13]]);
        Self {
            result: body[5],
            generation,
            void_time,
            ops: u16::from_be_bytes([body[20], body[21]]),
        }
    }

    /// Names and values of the bins in a data answer without fields.
    pub(crate) fn bins(body: &[u8]) -> Vec<(String, Vec<u8>)> {
        let mut rest = &body[22..];
        let mut bins = Vec::new();
        while let Some((size, behind)) = rest.split_first_chunk::<4>() {
            let (op, behind) = behind.split_at(u32::from_be_bytes(*size) as usize);
            let (name, value) = op[4..].split_at(usize::from(op[3]));
            bins.push((String::from_utf8(name.to_vec()).unwrap(), value.to_vec()));
            rest = behind;
        }
        bins
    }
}
