//! Single-record requests: written by shippers, the load generator, the verifier and tests.

use crate::model::{Digest, Lut, SrcId};

use super::bits::{info1, info2, info3};
use super::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameType};
use super::header::{Header, MESSAGE_HEADER_BYTES};
use super::{ResultCode, fields};

/// Names one record towards a node.
#[derive(Clone, Copy, Debug)]
pub struct Address<'a> {
    /// Namespace, as the node calls it.
    pub namespace: &'a str,
    /// Set; empty for none.
    pub set: &'a str,
    /// Digest of the record.
    pub digest: Digest,
}

/// Everything of a request frame but its operations.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// The record that the request is about.
    pub address: Address<'a>,
    /// Info bits 1 to 4.
    pub info: [u8; 4],
    /// Expected generation, with a generation bit.
    pub generation: u32,
    /// Relative ttl in seconds, or a special value: see [`crate::model::TtlSpec`].
    pub ttl: u32,
    /// Timeout in ms at the server; 0 = its default.
    pub timeout_ms: u32,
    /// User key to store or compare: particle type byte and value; empty = not sent.
    pub key: &'a [u8],
    /// LUT of a shipped record.
    pub lut: Option<Lut>,
    /// Cluster of origin of a shipped record, see [`fields::SRC_ID`]; NONE = not sent.
    pub src_id: SrcId,
}

impl<'a> Address<'a> {
    const fn head(self, info1: u8, info2: u8, info3: u8) -> Head<'a> {
        Head {
            address: self,
            info: [info1, info2, info3, 0],
            generation: 0,
            ttl: 0,
            timeout_ms: 0,
            key: &[],
            lut: None,
            src_id: SrcId::NONE,
        }
    }

    /// Writes bins; operations: at least one.
    pub const fn put(self) -> Head<'a> {
        self.head(0, info2::WRITE, 0)
    }

    /// Reads every bin; no operations.
    pub const fn get(self) -> Head<'a> {
        self.head(info1::READ | info1::GET_ALL, 0, 0)
    }

    /// Reads the bins of its READ operations.
    pub const fn select(self) -> Head<'a> {
        self.head(info1::READ, 0, 0)
    }

    /// Reads generation and void time; no operations.
    pub const fn exists(self) -> Head<'a> {
        self.head(info1::READ | info1::NO_BINS, 0, 0)
    }

    /// Deletes the record; no operations.
    pub const fn remove(self) -> Head<'a> {
        self.head(0, info2::WRITE | info2::DELETE, 0)
    }

    /// Reads and writes, in the order of its operations. Also touches, with one TOUCH operation.
    pub const fn operate(self) -> Head<'a> {
        self.head(info1::READ, info2::WRITE, 0)
    }

    /// What a shipper sends for a live record. With `replace`, bins not sent are dropped.
    pub const fn shipped_write(self, replace: bool) -> Head<'a> {
        let info3 = if replace { info3::CREATE_OR_REPLACE } else { 0 };
        self.head(info1::XDR, info2::WRITE, info3)
    }

    /// What a shipper sends for a deleted record; no operations. `durable` leaves a tombstone, and
    /// is refused by Community Edition nodes.
    pub const fn shipped_delete(self, durable: bool) -> Head<'a> {
        let durable = if durable { info2::DURABLE_DELETE } else { 0 };
        self.head(info1::XDR, info2::WRITE | info2::DELETE | durable, 0)
    }
}

impl Head<'_> {
    /// Length of the encoded head: both headers and the fields.
    #[inline]
    pub const fn bytes(&self) -> usize {
        const fn optional(data: usize) -> usize {
            if data == 0 { 0 } else { fields::FIELD_HEADER_BYTES + data }
        }
        FRAME_HEADER_BYTES
            + MESSAGE_HEADER_BYTES
            + (fields::FIELD_HEADER_BYTES + self.address.namespace.len())
            + optional(self.address.set.len())
            + (fields::FIELD_HEADER_BYTES + size_of::<Digest>())
            + optional(self.key.len())
            + optional(if self.lut.is_some() { size_of::<u64>() } else { 0 })
            + optional(if self.src_id.0 == 0 { 0 } else { size_of::<SrcId>() })
    }

    const fn field_count(&self) -> u16 {
        2 + !self.address.set.is_empty() as u16
            + !self.key.is_empty() as u16
            + self.lut.is_some() as u16
            + (self.src_id.0 != 0) as u16
    }

    /// Writes the head of a frame whose `op_count` operations of `ops_bytes` in all the caller
    /// appends. Returns the bytes written, [`Head::bytes`]; `None`, with nothing written, when
    /// head and operations together do not fit into `out`.
    #[inline]
    pub fn encode(&self, op_count: u16, ops_bytes: usize, out: &mut [u8]) -> Option<usize> {
        let head_bytes = self.bytes();
        let out = out.get_mut(..head_bytes.checked_add(ops_bytes)?)?;
        self.write(op_count, ops_bytes, &mut Cursor { out, at: 0 });
        Some(head_bytes)
    }

    /// Appends a whole frame.
    #[inline]
    pub fn push(&self, op_count: u16, ops: &[u8], out: &mut Vec<u8>) {
        out.reserve(self.bytes() + ops.len());
        self.write(op_count, ops.len(), out);
        out.extend_from_slice(ops);
    }

    #[inline]
    fn write(&self, op_count: u16, ops_bytes: usize, out: &mut impl Sink) {
        let body_bytes = self.bytes() - FRAME_HEADER_BYTES + ops_bytes;
        let header = Header {
            info: self.info,
            code: ResultCode::OK,
            generation: self.generation,
            ttl: self.ttl,
            timeout_ms: self.timeout_ms,
            field_count: self.field_count(),
            op_count,
        };
        out.put(&FrameHeader { kind: FrameType::Message, body_bytes }.to_bytes());
        out.put(&header.to_bytes());
        out.field(fields::NAMESPACE, self.address.namespace.as_bytes());
        if !self.address.set.is_empty() {
            out.field(fields::SET, self.address.set.as_bytes());
        }
        out.field(fields::DIGEST, &self.address.digest.0);
        if !self.key.is_empty() {
            out.field(fields::KEY, self.key);
        }
        if let Some(lut) = self.lut {
            out.field(fields::LUT, &lut.ms().to_be_bytes());
        }
        if self.src_id != SrcId::NONE {
            out.field(fields::SRC_ID, &[self.src_id.0]);
        }
    }
}

/// Where encoded bytes go: a send batch, or a vector.
trait Sink {
    fn put(&mut self, bytes: &[u8]);

    #[inline]
    fn field(&mut self, id: u8, data: &[u8]) {
        let [a, b, c, d] = (data.len() as u32 + 1).to_be_bytes();
        self.put(&[a, b, c, d, id]);
        self.put(data);
    }
}

impl Sink for Vec<u8> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// A slice known to be long enough, filled from its start.
struct Cursor<'a> {
    out: &'a mut [u8],
    at: usize,
}

impl Sink for Cursor<'_> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.out[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{OpCode, ParticleType, Request, ops};

    #[test]
    fn every_field_is_sent_when_it_is_there() {
        let address = Address { namespace: "test", set: "demo", digest: Digest([5; 20]) };
        let mut head = address.shipped_write(true);
        (head.generation, head.ttl, head.timeout_ms) = (1, 2, 3);
        (head.key, head.lut, head.src_id) = (b"\x03k", Some(Lut::from_ms(99)), SrcId(4));
        let mut ops = Vec::new();
        ops::push(&mut ops, OpCode::WRITE, ParticleType::STRING, b"s", b"hi");
        let mut frame = Vec::new();
        head.push(1, &ops, &mut frame);
        assert_eq!(frame.len(), head.bytes() + ops.len());
        let request = Request::parse(&frame[FRAME_HEADER_BYTES..]).unwrap();
        let header = request.header;
        assert_eq!((header.generation, header.ttl, header.timeout_ms), (1, 2, 3));
        assert_eq!((request.namespace, request.set, request.key), ("test", "demo", Some(head.key)));
        assert_eq!((request.lut, request.src_id), (head.lut, head.src_id));
        assert_eq!(request.target(), Ok(address.digest));
        assert_eq!(request.verbatim_bins(), Ok(Some(&ops[..])));
    }

    #[test]
    fn a_slice_gets_the_same_bytes_or_none() {
        let address = Address { namespace: "test", set: "", digest: Digest([5; 20]) };
        let head = address.shipped_delete(true);
        let mut frame = Vec::new();
        head.push(0, &[], &mut frame);
        let mut slice = vec![0xEE; frame.len() + 3];
        assert_eq!(head.encode(0, 0, &mut slice), Some(frame.len()));
        assert_eq!(slice[..frame.len()], frame);
        assert_eq!(slice[frame.len()..], [0xEE; 3]);
        slice.fill(0xEE);
        assert_eq!(head.encode(0, 4, &mut slice), None);
        assert!(slice.iter().all(|&byte| byte == 0xEE));
        assert_eq!(head.encode(0, usize::MAX, &mut slice), None);
    }
}
