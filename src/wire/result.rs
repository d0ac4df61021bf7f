//! Result codes of the client protocol.

use std::fmt;

/// The result byte of a reply. Source: `docs/wire.md` section 6.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResultCode(pub u8);

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $text:literal;)*) => {
        impl ResultCode {
            $($(#[$doc])* pub const $name: Self = Self($value);)*

            /// What the code says, in a few words; "unlisted code" for one without a name.
            pub const fn text(self) -> &'static str {
                match self.0 {
                    $($value => $text,)*
                    _ => "unlisted code",
                }
            }
        }
    };
}

codes! {
    /// Done.
    OK = 0, "ok";
    /// Generic failure; also a malformed list or map.
    SERVER = 1, "server error";
    /// No such live record.
    NOT_FOUND = 2, "record not found";
    /// The generation check failed.
    GENERATION = 3, "generation mismatch";
    /// Bad request: malformed body, unknown op, set mismatch, ttl out of range.
    PARAMETER = 4, "bad parameter";
    /// Create-only, and the record is there.
    RECORD_EXISTS = 5, "record exists";
    /// The bin is there.
    BIN_EXISTS = 6, "bin exists";
    /// The cluster changed during a job.
    CLUSTER_KEY_MISMATCH = 7, "cluster key mismatch";
    /// Stop-writes: no space left to write.
    OUT_OF_SPACE = 8, "out of space";
    /// The request outlived its timeout.
    TIMEOUT = 9, "timeout";
    /// The partition is not served here now.
    UNAVAILABLE = 11, "partition unavailable";
    /// The operation does not fit the bin's type.
    INCOMPATIBLE_TYPE = 12, "incompatible type";
    /// The record is larger than `max-record-size`.
    RECORD_TOO_BIG = 13, "record too big";
    /// Too many operations queued on one key.
    KEY_BUSY = 14, "key busy";
    /// The scan or query was stopped.
    QUERY_ABORT = 15, "query aborted";
    /// Not supported here; also a badly sized user key.
    UNSUPPORTED_FEATURE = 16, "unsupported feature";
    /// No such bin.
    BIN_NOT_FOUND = 17, "bin not found";
    /// The storage queue is full.
    DEVICE_OVERLOAD = 18, "device overload";
    /// The stored user key differs.
    KEY_MISMATCH = 19, "key mismatch";
    /// The namespace is unknown or missing.
    NAMESPACE = 20, "unknown namespace";
    /// The bin name is too long or contains NUL.
    BIN_NAME = 21, "bad bin name";
    /// Configuration forbids it: reject-xdr-writes, TTL while nsup is off, and the like.
    FORBIDDEN = 22, "forbidden";
    /// List or map element not found.
    ELEMENT_NOT_FOUND = 23, "element not found";
    /// List or map element is there.
    ELEMENT_EXISTS = 24, "element exists";
    /// A Community Edition node was asked for an enterprise feature.
    ENTERPRISE_ONLY = 25, "enterprise only";
    /// The operation cannot be applied to this value.
    OP_NOT_APPLICABLE = 26, "operation not applicable";
    /// The filter expression said no.
    FILTERED_OUT = 27, "filtered out";
    /// The destination holds something newer (bin conflict lost).
    LOST_CONFLICT = 28, "lost conflict";
    /// The node's own shipper still owes an older version of this key.
    XDR_KEY_BUSY = 32, "xdr key busy";
    /// Security is not supported.
    SECURITY_NOT_SUPPORTED = 51, "security not supported";
    /// Security is not configured.
    SECURITY_NOT_CONFIGURED = 52, "security not configured";
    /// Log in again.
    NOT_AUTHENTICATED = 80, "not authenticated";
    /// The user's role does not allow it.
    ROLE_VIOLATION = 81, "role violation";
    /// The client's address is not admitted.
    NOT_WHITELISTED = 82, "not whitelisted";
    /// The user's quota is used up.
    QUOTA_EXCEEDED = 83, "quota exceeded";
    /// A server-side function failed.
    UDF_EXECUTION = 100, "udf execution failed";
    /// A transaction holds the record.
    MRT_BLOCKED = 120, "blocked by a transaction";
    /// Batch requests are switched off.
    BATCH_DISABLED = 150, "batch disabled";
    /// The batch has too many rows.
    BATCH_MAX_REQUESTS = 151, "too many batch rows";
    /// The batch queues are full.
    BATCH_QUEUES_FULL = 152, "batch queues full";
    /// The value is not GeoJSON.
    GEO_INVALID_GEOJSON = 160, "invalid geojson";
    /// No such secondary index.
    INDEX_NOT_FOUND = 201, "index not found";
}

impl ResultCode {
    /// Whether the request was carried out.
    #[inline]
    pub const fn is_ok(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Debug for ResultCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.0, self.text())
    }
}

impl fmt::Display for ResultCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_say_their_number_and_meaning() {
        let check = |code: ResultCode, text: &str| assert_eq!(code.to_string(), text);
        check(ResultCode::OK, "0 (ok)");
        check(ResultCode::INDEX_NOT_FOUND, "201 (index not found)");
        check(ResultCode(10), "10 (unlisted code)");
    }
}
