//! The info bits of a message header. Source: `docs/wire.md` section 3.

/// Byte 1 of the header.
pub mod info1 {
    /// The request reads.
    pub const READ: u8 = 0x01;
    /// Return every bin.
    pub const GET_ALL: u8 = 0x02;
    /// The body is a batch.
    pub const BATCH: u8 = 0x08;
    /// The write comes from a shipper.
    pub const XDR: u8 = 0x10;
    /// Metadata only.
    pub const NO_BINS: u8 = 0x20;
}

/// Byte 2 of the header.
pub mod info2 {
    /// The request writes.
    pub const WRITE: u8 = 0x01;
    /// With [`WRITE`]: delete the record.
    pub const DELETE: u8 = 0x02;
    /// Succeed only if the generation is equal.
    pub const GENERATION: u8 = 0x04;
    /// Succeed only if the sent generation is greater.
    pub const GENERATION_GT: u8 = 0x08;
    /// A deletion leaves a tombstone.
    pub const DURABLE_DELETE: u8 = 0x10;
    /// Fail if the record exists.
    pub const CREATE_ONLY: u8 = 0x20;
    /// Every op yields one reply op.
    pub const RESPOND_ALL_OPS: u8 = 0x80;
}

/// Byte 3 of the header.
pub mod info3 {
    /// Reply: end of a batch or scan stream.
    pub const LAST: u8 = 0x01;
    /// Scan request: the client understands partition markers. Reply: a marker.
    pub const PARTITION_DONE: u8 = 0x04;
    /// Fail if the record is missing.
    pub const UPDATE_ONLY: u8 = 0x08;
    /// Drop all old bins first.
    pub const CREATE_OR_REPLACE: u8 = 0x10;
    /// As [`CREATE_OR_REPLACE`], but fail if the record is missing.
    pub const REPLACE_ONLY: u8 = 0x20;
}

/// Byte 4 of the header.
pub mod info4 {
    /// Any of the transaction bits a client may set (verify read, roll forward, roll back).
    pub const TRANSACTION: u8 = 0x07;
}
